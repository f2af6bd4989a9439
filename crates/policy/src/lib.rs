//! Rules of oslo.policy: parse them, decide by them.
//!
//! Invariant: pure, total and closed. A rule that cannot be understood never becomes one that allows: it is
//! refused when it is read, with its file and line, so that deciding cannot fail. Rules that name each other
//! in a circle, or name a rule that does not exist, are refused for the same reason. Checks that ask a server
//! (`http:`, `https:`, `remote:`) are refused: no request waits for somebody else's opinion.
//!
//! What this crate does not do: read files, know the clock, log. The composition root reads the files and
//! hands over their text.

mod builtin;
mod error;
mod expression;
mod file;
mod parse;
mod sample;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

pub use builtin::{BUILTIN, Builtin};
pub use error::{Error, RuleError};
pub use file::Source;
pub use sample::sample;

use crate::expression::Expression;

/// What is known of a caller or of an object: names to plain values.
pub type Attributes = Map<String, Value>;

/// A complete set of rules: the built-in ones, overlaid with those of the files.
#[derive(Debug, Clone)]
pub struct Policy {
    rules: BTreeMap<String, Expression>,
}

impl Policy {
    /// Returns the built-in rules with their defaults.
    pub fn builtin() -> Self {
        let mut rules = BTreeMap::new();
        for rule in BUILTIN {
            let expression = parse::rule(rule.default).expect("a test parses every built-in rule");
            rules.insert(rule.name.to_owned(), expression);
        }
        Self { rules }
    }

    /// Returns these rules with those of `sources` in their place, the later files over the earlier.
    ///
    /// # Errors
    /// The first rule that is not understood, with its file and line.
    pub fn overridden(&self, sources: &[Source]) -> Result<Self, Error> {
        let mut rules = self.rules.clone();
        let mut origins: BTreeMap<String, (&str, u64)> = BTreeMap::new();
        for source in sources {
            for entry in file::read(source)? {
                origins.insert(entry.name.clone(), (source.name.as_str(), entry.line));
                rules.insert(entry.name, entry.expression);
            }
        }
        let policy = Self { rules };
        policy.check_references(&origins)?;
        Ok(policy)
    }

    /// Returns whether `rule` allows a caller with these credentials what they ask for on this target.
    ///
    /// A name that is no rule falls back to the rule `default`, as in oslo.policy.
    pub fn allows(&self, rule: &str, credentials: &Attributes, target: &Attributes) -> bool {
        self.expression(rule).is_some_and(|expression| expression.holds(self, credentials, target))
    }

    /// Returns the names of all rules, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.keys().map(String::as_str)
    }

    fn expression(&self, rule: &str) -> Option<&Expression> {
        self.rules.get(rule).or_else(|| self.rules.get("default"))
    }

    /// Refuses references that lead nowhere or back to where they came from.
    ///
    /// Walks depth first with an explicit path; a finished rule is not walked again, so the work is linear.
    fn check_references(&self, origins: &BTreeMap<String, (&str, u64)>) -> Result<(), Error> {
        let refuse = |name: &str, source: RuleError| {
            let (file, line) = origins.get(name).copied().unwrap_or(("the built-in rules", 0));
            Error::Rule { file: file.to_owned(), line, name: name.to_owned(), source }
        };
        let mut finished: BTreeMap<&str, bool> = BTreeMap::new();
        for start in self.rules.keys() {
            let mut path: Vec<(&str, Vec<&str>)> = Vec::new();
            let mut next = Some(start.as_str());
            loop {
                if let Some(name) = next.take()
                    && !finished.contains_key(name)
                {
                    let Some(expression) = self.rules.get(name) else { break };
                    if path.len() >= MAX_REFERENCE_DEPTH {
                        return Err(refuse(start, RuleError::TooDeep { limit: MAX_REFERENCE_DEPTH }));
                    }
                    finished.insert(name, false);
                    path.push((name, expression.references()));
                }
                let Some((name, references)) = path.last_mut() else { break };
                let Some(reference) = references.pop() else {
                    finished.insert(name, true);
                    path.pop();
                    continue;
                };
                if !self.rules.contains_key(reference) {
                    return Err(refuse(name, RuleError::UnknownRule { reference: reference.to_owned() }));
                }
                if finished.get(reference) == Some(&false) {
                    let circle = path.iter().skip_while(|(on_path, _)| *on_path != reference);
                    let mut circle: Vec<String> = circle.map(|(name, _)| (*name).to_owned()).collect();
                    circle.push(reference.to_owned());
                    // The report names the rule of a file, where one takes part: there it can be mended.
                    let culprit = circle.iter().find(|name| origins.contains_key(*name)).cloned();
                    let culprit = culprit.unwrap_or_else(|| reference.to_owned());
                    return Err(refuse(&culprit, RuleError::Circle { circle }));
                }
                next = Some(reference);
            }
        }
        Ok(())
    }
}

/// How many rules may lead to one another in a row; keeps deciding within a small stack.
const MAX_REFERENCE_DEPTH: usize = 64;

#[cfg(test)]
mod tests;
