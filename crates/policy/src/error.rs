//! What is wrong with a policy file.

/// Why a policy file was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is neither YAML nor JSON, or not a mapping of names to rules.
    #[error("reading policy file {file}, line {line}: {reason}")]
    Syntax {
        /// The file's name.
        file: String,
        /// The line, counted from 1; 0 when it is not known.
        line: u64,
        /// What the reader says.
        reason: String,
    },
    /// One rule of the file is not understood.
    #[error("reading rule `{name}` in {file}, line {line}")]
    Rule {
        /// The file's name.
        file: String,
        /// The line, counted from 1.
        line: u64,
        /// The rule's name.
        name: String,
        /// What is wrong with it.
        source: RuleError,
    },
}

/// Why the text of a rule was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// A word that is no check.
    #[error("`{word}` is no check: expected `kind:match`, `@` or `!`")]
    NoCheck {
        /// The word at fault.
        word: String,
    },
    /// A check stands where an operator should, or the other way round.
    #[error("expected {expected} instead of `{found}`")]
    Unexpected {
        /// What could stand here.
        expected: &'static str,
        /// What stands here.
        found: String,
    },
    /// The rule ends too early.
    #[error("the rule ends where {expected} should follow")]
    Unfinished {
        /// What could follow.
        expected: &'static str,
    },
    /// A check that asks a server.
    #[error("`{kind}:` checks are not supported: a rule must be decided without asking a server")]
    Remote {
        /// The kind of check.
        kind: String,
    },
    /// A `%` that starts no `%(name)s`.
    #[error("`{text}` holds a `%` that is neither `%(name)s` nor `%%`")]
    Template {
        /// The text at fault.
        text: String,
    },
    /// Something that is neither text nor a list of lists of texts.
    #[error("a rule must be text (or a list of lists of checks), not {found}; `\"@\"` allows everybody")]
    Shape {
        /// What was found.
        found: &'static str,
    },
    /// Too many parentheses or operators inside one another, or rules that lead to rules.
    #[error("nested deeper than {limit}")]
    TooDeep {
        /// How deep is allowed.
        limit: usize,
    },
    /// `rule:` names nothing.
    #[error("there is no rule `{reference}`")]
    UnknownRule {
        /// The name that is not defined.
        reference: String,
    },
    /// Rules that name each other in a circle.
    #[error("the rules name each other in a circle: {}", circle.join(" → "))]
    Circle {
        /// The names along it; the first is repeated at the end.
        circle: Vec<String>,
    },
}
