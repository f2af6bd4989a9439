//! A parsed rule, and how it is decided.
//!
//! Deciding follows oslo.policy check by check: an absent name makes a check false, never true.

use std::fmt;

use serde_json::Value;

use crate::{Attributes, Policy};

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expression {
    /// `@`, or no text at all.
    Always,
    /// `!`.
    Never,
    /// `rule:name`.
    Rule(String),
    /// `role:name`; compared without case.
    Role(Template),
    /// `'literal':match`: the literal, written as Python's `str()` writes it, equals the match.
    Literal(String, Template),
    /// `path.in.credentials:match`.
    Attribute(Vec<String>, Template),
    /// None of the parts may fail.
    And(Vec<Expression>),
    /// One of the parts must hold.
    Or(Vec<Expression>),
    /// The part must not hold.
    Not(Box<Expression>),
}

impl Expression {
    /// Returns whether the rule holds.
    pub(crate) fn holds(&self, policy: &Policy, credentials: &Attributes, target: &Attributes) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Rule(name) => policy.allows(name, credentials, target),
            Self::Role(template) => {
                let Some(wanted) = template.fill(target) else { return false };
                let Some(Value::Array(roles)) = credentials.get("roles") else { return false };
                let wanted = wanted.to_lowercase();
                roles.iter().filter_map(Value::as_str).any(|role| role.to_lowercase() == wanted)
            }
            Self::Literal(text, template) => template.fill(target).is_some_and(|wanted| wanted == *text),
            Self::Attribute(path, template) => {
                let Some(wanted) = template.fill(target) else { return false };
                let Some((first, rest)) = path.split_first() else { return false };
                credentials.get(first).is_some_and(|value| found(value, rest, &wanted))
            }
            Self::And(parts) => parts.iter().all(|part| part.holds(policy, credentials, target)),
            Self::Or(parts) => parts.iter().any(|part| part.holds(policy, credentials, target)),
            Self::Not(part) => !part.holds(policy, credentials, target),
        }
    }

    /// Returns the names of all rules that this one leads to.
    pub(crate) fn references(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.collect_references(&mut names);
        names
    }

    fn collect_references<'a>(&'a self, names: &mut Vec<&'a str>) {
        match self {
            Self::Rule(name) => names.push(name),
            Self::And(parts) | Self::Or(parts) => {
                parts.iter().for_each(|part| part.collect_references(names));
            }
            Self::Not(part) => part.collect_references(names),
            _ => {}
        }
    }
}

/// Looks for `wanted` at the end of a path; a list on the way is searched through.
fn found(value: &Value, path: &[String], wanted: &str) -> bool {
    match (value, path.split_first()) {
        (Value::Array(items), _) => items.iter().any(|item| found(item, path, wanted)),
        (Value::Object(members), Some((first, rest))) => {
            members.get(first).is_some_and(|value| found(value, rest, wanted))
        }
        (_, Some(_)) => false,
        (value, None) => text(value).is_some_and(|text| text == wanted),
    }
}

/// Returns a plain value as Python's `str()` writes it; lists and objects have no such text here.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("None".to_owned()),
        Value::Bool(true) => Some("True".to_owned()),
        Value::Bool(false) => Some("False".to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// Text with places to fill from the target: `%(name)s`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(pub(crate) Vec<Piece>);

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Stands for itself.
    Text(String),
    /// Is filled with the target's value of that name.
    Name(String),
}

impl Template {
    /// Fills the template; `None` when the target lacks a name.
    fn fill(&self, target: &Attributes) -> Option<String> {
        let mut filled = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Name(name) => filled.push_str(&text(member(target, name)?)?),
            }
        }
        Some(filled)
    }
}

/// Returns the target's member of that name, or of that dotted path.
fn member<'a>(target: &'a Attributes, name: &str) -> Option<&'a Value> {
    if let Some(value) = target.get(name) {
        return Some(value);
    }
    let mut parts = name.split('.');
    let mut value = target.get(parts.next()?)?;
    for part in parts {
        value = value.as_object()?.get(part)?;
    }
    Some(value)
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => f.write_str(&text.replace('%', "%%"))?,
                Piece::Name(name) => write!(f, "%({name})s")?,
            }
        }
        Ok(())
    }
}
