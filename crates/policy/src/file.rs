//! Reads policy files: YAML, of which JSON is a part.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Options, Spanned};

use crate::error::{Error, RuleError};
use crate::expression::Expression;
use crate::parse;

/// The text of one policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file's name, for messages.
    pub name: String,
    /// Its text: a mapping of rule names to rules, in YAML or JSON. Empty text has no rules.
    pub text: String,
}

/// One rule of a file.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) line: u64,
    pub(crate) expression: Expression,
}

/// Reads all rules of a file. Where a name stands twice the later one holds, as in oslo.policy.
pub(crate) fn read(source: &Source) -> Result<Vec<Entry>, Error> {
    if holds_nothing(&source.text) {
        return Ok(Vec::new());
    }
    let mut options = Options::default();
    options.duplicate_keys = DuplicateKeyPolicy::LastWins;
    options.with_snippet = false;
    let rules: BTreeMap<String, Spanned<Rule>> = serde_saphyr::from_str_with_options(&source.text, options)
        .map_err(|err| Error::Syntax {
        file: source.name.clone(),
        line: err.location().map_or(0, |location| location.line()),
        reason: err.without_snippet().to_string(),
    })?;
    let mut entries = Vec::new();
    for (name, rule) in rules {
        let line = rule.referenced.line();
        let parsed = match &rule.value {
            Rule::Text(text) => parse::rule(text),
            Rule::Lists(lists) => parse::list_rule(lists),
            Rule::Other(found) => Err(RuleError::Shape { found }),
        };
        let expression = parsed.map_err(|err| Error::Rule {
            file: source.name.clone(),
            line,
            name: name.clone(),
            source: err,
        })?;
        entries.push(Entry { name, line, expression });
    }
    Ok(entries)
}

/// Returns whether a file has only blank lines, comments and document markers, as generated samples have.
fn holds_nothing(text: &str) -> bool {
    text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#') || line == "---")
}

/// A rule as it stands in the file.
#[derive(Debug)]
enum Rule {
    Text(String),
    Lists(Vec<Vec<String>>),
    Other(&'static str),
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RuleVisitor)
    }
}

struct RuleVisitor;

impl<'de> Visitor<'de> for RuleVisitor {
    type Value = Rule;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the text of a rule, or a list of lists of checks")
    }

    fn visit_str<E>(self, text: &str) -> Result<Rule, E> {
        Ok(Rule::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Rule, E> {
        Ok(Rule::Other("a boolean"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Rule, E> {
        Ok(Rule::Other("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Rule, E> {
        Ok(Rule::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Rule, E> {
        Ok(Rule::Other("a number"))
    }

    fn visit_unit<E>(self) -> Result<Rule, E> {
        Ok(Rule::Other("nothing"))
    }

    fn visit_none<E>(self) -> Result<Rule, E> {
        Ok(Rule::Other("nothing"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Rule, A::Error> {
        let mut lists = Vec::new();
        while let Some(item) = items.next_element::<Alternative>()? {
            lists.push(item.0);
        }
        Ok(Rule::Lists(lists))
    }
}

/// One alternative of the older form: a list of checks, or a single check.
struct Alternative(Vec<String>);

impl<'de> Deserialize<'de> for Alternative {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AlternativeVisitor).map(Self)
    }
}

struct AlternativeVisitor;

impl<'de> Visitor<'de> for AlternativeVisitor {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of checks, or one check")
    }

    fn visit_str<E>(self, text: &str) -> Result<Vec<String>, E> {
        Ok(vec![text.to_owned()])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<String>, A::Error> {
        let mut checks = Vec::new();
        while let Some(check) = items.next_element::<String>()? {
            if check.is_empty() {
                return Err(A::Error::custom("a check of the list is empty"));
            }
            checks.push(check);
        }
        Ok(checks)
    }
}
