//! What goes wrong in a plugin, as the caller has to decide on it.

use std::error::Error as StdError;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The result of a call of the contract.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure it was: this, not the text, decides what is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// It does not exist, or belongs to another project.
    NotFound,
    /// The parameters or the configuration are wrong.
    Invalid,
    /// It would replace what is there, and that was not asked for.
    Conflict,
    /// The source or the target refuses us: wrong password, missing permission.
    Denied,
    /// The right that the caller gave for this was taken back.
    Revoked,
    /// It cannot be reached now; the same call may succeed later.
    Unavailable,
    /// The source changed while it was read, so what was read is not one state of it.
    Changed,
    /// There is no room for what is to be written.
    NoSpace,
    /// What was stored cannot be read back as it was stored.
    Damaged,
    /// It was cancelled because somebody asked for it.
    Cancelled,
    /// The plugin cannot do this.
    Unsupported,
    /// Somebody else has taken over this operation: stop, and change nothing more.
    Fenced,
    /// Anything else.
    Other,
}

impl ErrorKind {
    /// Returns whether the same hook may succeed when it is run again without anybody changing anything.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Changed)
    }

    /// Returns the kind as one word, as logs and results carry it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Invalid => "invalid",
            Self::Conflict => "conflict",
            Self::Denied => "denied",
            Self::Revoked => karbor_types::REVOKED,
            Self::Unavailable => "unavailable",
            Self::Changed => "changed",
            Self::NoSpace => "no_space",
            Self::Damaged => "damaged",
            Self::Cancelled => "cancelled",
            Self::Unsupported => "unsupported",
            Self::Fenced => "fenced",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failed call of a plugin.
///
/// The message says what failed and what to do about it, and is safe to be shown to the tenant: it never holds
/// a password, and no path or name that the tenant's own resource does not have. The cause is the source; it
/// goes to the log.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Makes an error without a cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns what kind of failure it was.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the text for the tenant.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns whether the same hook may succeed when it is run again.
    pub fn is_retryable(&self) -> bool {
        self.kind.is_retryable()
    }

    /// Makes an error of an operating system's error; its kind follows from the cause.
    ///
    /// `doing` says what was being done, such as "reading /srv/www/index.html".
    pub fn io(doing: impl fmt::Display, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let (kind, advice) = match source.kind() {
            Io::NotFound => (ErrorKind::NotFound, ""),
            Io::PermissionDenied | Io::ReadOnlyFilesystem => {
                (ErrorKind::Denied, "; allow the service's user to do that")
            }
            Io::AlreadyExists | Io::DirectoryNotEmpty => (ErrorKind::Conflict, ""),
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => {
                (ErrorKind::NoSpace, "; free some space and try again")
            }
            Io::InvalidInput | Io::InvalidFilename => (ErrorKind::Invalid, ""),
            Io::ConnectionRefused | Io::ConnectionReset | Io::TimedOut | Io::Interrupted => {
                (ErrorKind::Unavailable, "")
            }
            _ => (ErrorKind::Other, ""),
        };
        Self::new(kind, format!("{doing} failed: {source}{advice}")).with_source(source)
    }

    /// Makes the error of a call that was cancelled.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "cancelled")
    }
}

impl From<karbor_vault::Error> for Error {
    /// Translates what the data engine says: kind for kind, with the cause in the text where a tenant can act on it.
    fn from(err: karbor_vault::Error) -> Self {
        use karbor_vault::Error as Vault;
        let kind = match &err {
            Vault::SourceIo { what, source } => {
                return io_again(&format!("reading {what}"), source).with_source(err);
            }
            Vault::TargetIo { what, source } => {
                return io_again(&format!("writing {what}"), source).with_source(err);
            }
            Vault::BankFull { .. } => {
                let text = "the bank is full: free some space in it, or delete checkpoints and sweep";
                return Self::new(ErrorKind::NoSpace, text).with_source(err);
            }
            _ => vault_kind(err.kind()),
        };
        Self::new(kind, err.to_string()).with_source(err)
    }
}

/// Makes our error of an operating system's error that somebody else holds.
fn io_again(doing: &str, source: &std::io::Error) -> Error {
    let copy = match source.raw_os_error() {
        Some(code) => std::io::Error::from_raw_os_error(code),
        None => std::io::Error::new(source.kind(), source.to_string()),
    };
    Error::io(doing, copy)
}

fn vault_kind(kind: karbor_vault::ErrorKind) -> ErrorKind {
    use karbor_bank::ErrorKind as Bank;
    use karbor_vault::ErrorKind as Vault;
    match kind {
        Vault::NotFound => ErrorKind::NotFound,
        Vault::AlreadyExists => ErrorKind::Conflict,
        // The work is done by another attempt, or is no longer ours.
        Vault::AlreadyCommitted | Vault::Fenced => ErrorKind::Fenced,
        Vault::WrongKey | Vault::Bank(Bank::Denied | Bank::Unauthenticated) => ErrorKind::Denied,
        Vault::Damaged | Vault::Bank(Bank::NotFound) => ErrorKind::Damaged,
        Vault::SourceChanged => ErrorKind::Changed,
        Vault::BankFull | Vault::Bank(Bank::Full) => ErrorKind::NoSpace,
        Vault::Bank(Bank::Unavailable) => ErrorKind::Unavailable,
        Vault::Cancelled => ErrorKind::Cancelled,
        Vault::UnknownFormat | Vault::Unsupported => ErrorKind::Unsupported,
        Vault::Invalid => ErrorKind::Invalid,
        _ => ErrorKind::Other,
    }
}
