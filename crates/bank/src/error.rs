//! What can go wrong with a bank: a kind the caller decides on, the operation, the key, the cause.

use std::fmt;

/// The result of a call to a bank.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A failed call to a bank.
#[derive(Debug)]
pub struct Error {
    /// What the caller decides on.
    pub kind: ErrorKind,
    /// What was being done: `put`, `get`, `head`, `delete`, `list`, `attach`.
    pub operation: &'static str,
    /// The key, prefix or place it was done to.
    pub key: String,
    source: Option<Source>,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no such object.
    NotFound,
    /// A create-only put found the key taken.
    AlreadyExists,
    /// A compare-and-swap put found another version.
    Precondition,
    /// The credentials were not accepted.
    Unauthenticated,
    /// The credentials do not allow this.
    Denied,
    /// The place is full, or a quota is used up.
    Full,
    /// Not now: it may succeed when tried again. A put may have had its effect.
    Unavailable,
    /// This bank cannot do that.
    Unsupported,
    /// Anything else.
    Other,
}

impl ErrorKind {
    /// Returns whether trying again may help.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable)
    }
}

impl Error {
    /// Makes an error without a cause.
    pub fn new(kind: ErrorKind, operation: &'static str, key: impl Into<String>) -> Self {
        Self { kind, operation, key: key.into(), source: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            ErrorKind::NotFound => "no such object",
            ErrorKind::AlreadyExists => "the object exists already",
            ErrorKind::Precondition => "the object has changed",
            ErrorKind::Unauthenticated => "the bank did not accept the credentials",
            ErrorKind::Denied => "the bank refused access",
            ErrorKind::Full => "the bank is full",
            ErrorKind::Unavailable => "the bank is not available now",
            ErrorKind::Unsupported => "the bank cannot do this",
            ErrorKind::Other => "the bank failed",
        };
        write!(f, "{} {}: {what}", self.operation, self.key)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
