//! Reads the text of a rule.
//!
//! The words are split as oslo.policy splits them: at white space, then parentheses are taken off both ends of
//! a word. `and` binds closer than `or`, `not` closest.

use crate::error::RuleError;
use crate::expression::{Expression, Piece, Template};

/// How deep parentheses and `not` may be nested; the parser recurses once per level.
const MAX_DEPTH: usize = 64;

/// Parses the text of a rule.
pub(crate) fn rule(text: &str) -> Result<Expression, RuleError> {
    let words = words(text)?;
    if words.is_empty() {
        return Ok(Expression::Always);
    }
    let mut parser = Parser { words: &words, depth: 0 };
    let expression = parser.any_of()?;
    match parser.words.first() {
        None => Ok(expression),
        Some(word) => {
            Err(RuleError::Unexpected { expected: "`and`, `or` or the end", found: word.to_string() })
        }
    }
}

/// Parses the older form of a rule: one of the inner lists must hold with all its checks.
pub(crate) fn list_rule(alternatives: &[Vec<String>]) -> Result<Expression, RuleError> {
    let mut any = Vec::new();
    for alternative in alternatives.iter().filter(|checks| !checks.is_empty()) {
        let checks = alternative.iter().map(|text| check(text)).collect::<Result<Vec<_>, _>>()?;
        any.push(one_or(checks, Expression::And));
    }
    if any.is_empty() {
        // oslo.policy: an empty list allows, a list of empty lists does not.
        return Ok(if alternatives.is_empty() { Expression::Always } else { Expression::Never });
    }
    Ok(one_or(any, Expression::Or))
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Open,
    Close,
    And,
    Or,
    Not,
    Check(Expression, String),
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "(",
            Self::Close => ")",
            Self::And => "and",
            Self::Or => "or",
            Self::Not => "not",
            Self::Check(_, text) => text,
        })
    }
}

fn words(text: &str) -> Result<Vec<Word>, RuleError> {
    let mut words = Vec::new();
    for word in text.split_whitespace() {
        let inner = word.trim_start_matches('(');
        words.extend(std::iter::repeat_n(Word::Open, word.len() - inner.len()));
        let core = trim_closing(inner);
        if !core.is_empty() {
            words.push(match core.to_ascii_lowercase().as_str() {
                "and" => Word::And,
                "or" => Word::Or,
                "not" => Word::Not,
                _ => Word::Check(check(core)?, core.to_owned()),
            });
        }
        words.extend(std::iter::repeat_n(Word::Close, inner.len() - core.len()));
    }
    Ok(words)
}

/// Takes closing parentheses off the end. A place to fill always ends in `)s`, so none is lost.
fn trim_closing(word: &str) -> &str {
    word.trim_end_matches(')')
}

/// Parses one check: `@`, `!` or `kind:match`.
fn check(text: &str) -> Result<Expression, RuleError> {
    match text {
        "@" => return Ok(Expression::Always),
        "!" => return Ok(Expression::Never),
        _ => {}
    }
    let Some((kind, wanted)) = text.split_once(':') else {
        return Err(RuleError::NoCheck { word: text.to_owned() });
    };
    match kind {
        "" => Err(RuleError::NoCheck { word: text.to_owned() }),
        "rule" => Ok(Expression::Rule(wanted.to_owned())),
        "role" => Ok(Expression::Role(template(wanted)?)),
        "http" | "https" | "remote" => Err(RuleError::Remote { kind: kind.to_owned() }),
        _ => match literal(kind) {
            Some(literal) => Ok(Expression::Literal(literal, template(wanted)?)),
            None => {
                let path = kind.split('.').map(str::to_owned).collect();
                Ok(Expression::Attribute(path, template(wanted)?))
            }
        },
    }
}

/// Reads a Python literal and returns it as `str()` writes it: a quoted text, a number, `True`, `False`, `None`.
fn literal(kind: &str) -> Option<String> {
    if matches!(kind, "True" | "False" | "None") {
        return Some(kind.to_owned());
    }
    for quote in ['\'', '"'] {
        if let Some(inner) = kind.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote))
            && !inner.contains([quote, '\\'])
        {
            return Some(inner.to_owned());
        }
    }
    // An integer keeps its text; anything else that starts like a number is looked up and not found.
    kind.parse::<i64>().ok().map(|number| number.to_string())
}

/// Parses text with `%(name)s` in it.
fn template(text: &str) -> Result<Template, RuleError> {
    let refuse = || RuleError::Template { text: text.to_owned() };
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        plain.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            plain.push('%');
            rest = after;
            continue;
        }
        let (name, after) = after.strip_prefix('(').and_then(|a| a.split_once(")s")).ok_or_else(refuse)?;
        if name.is_empty() || name.contains(['%', '(', ')']) {
            return Err(refuse());
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(Piece::Name(name.to_owned()));
        rest = after;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(Template(pieces))
}

struct Parser<'a> {
    words: &'a [Word],
    depth: usize,
}

impl Parser<'_> {
    fn any_of(&mut self) -> Result<Expression, RuleError> {
        let mut parts = vec![self.all_of()?];
        while self.take(&Word::Or) {
            parts.push(self.all_of()?);
        }
        Ok(one_or(parts, Expression::Or))
    }

    fn all_of(&mut self) -> Result<Expression, RuleError> {
        let mut parts = vec![self.one()?];
        while self.take(&Word::And) {
            parts.push(self.one()?);
        }
        Ok(one_or(parts, Expression::And))
    }

    fn one(&mut self) -> Result<Expression, RuleError> {
        const EXPECTED: &str = "a check";
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(RuleError::TooDeep { limit: MAX_DEPTH });
        }
        let Some((word, rest)) = self.words.split_first() else {
            return Err(RuleError::Unfinished { expected: EXPECTED });
        };
        self.words = rest;
        let expression = match word {
            Word::Check(check, _) => check.clone(),
            Word::Not => Expression::Not(Box::new(self.one()?)),
            Word::Open => {
                let inner = self.any_of()?;
                match self.words.split_first() {
                    Some((Word::Close, rest)) => self.words = rest,
                    Some((found, _)) => {
                        let found = found.to_string();
                        return Err(RuleError::Unexpected { expected: "`and`, `or` or `)`", found });
                    }
                    None => return Err(RuleError::Unfinished { expected: "`)`" }),
                }
                inner
            }
            found => {
                return Err(RuleError::Unexpected { expected: EXPECTED, found: found.to_string() });
            }
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn take(&mut self, wanted: &Word) -> bool {
        match self.words.split_first() {
            Some((word, rest)) if word == wanted => {
                self.words = rest;
                true
            }
            _ => false,
        }
    }
}

fn one_or(mut parts: Vec<Expression>, many: fn(Vec<Expression>) -> Expression) -> Expression {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            many(parts)
        }
        None => many(parts),
    }
}
