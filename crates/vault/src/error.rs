//! What can go wrong with the data engine: a kind that callers decide on, what was being done, the cause.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use karbor_types::{AccountId, CheckpointId, ResourceKey};

use crate::session::CheckpointInfo;

/// The result of a call to the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed call to the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such thing.
    #[error("{what} does not exist")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// The account exists already, and is not to be created a second time.
    #[error("bank account {account} exists already")]
    AlreadyExists {
        /// The account.
        account: AccountId,
    },
    /// An attempt of the same operation has committed: there is nothing left to do.
    #[error("checkpoint {} is committed already", .0.id)]
    AlreadyCommitted(Box<CheckpointInfo>),
    /// Somebody took the operation over: stop, and change nothing more.
    #[error("session {session} is fenced: another worker took over")]
    Fenced {
        /// The session that lost.
        session: String,
    },
    /// None of the given master keys opens the account.
    #[error("no given master key opens bank account {account}")]
    WrongKey {
        /// The account.
        account: AccountId,
    },
    /// The account's key was destroyed: its data is unreadable for good.
    #[error("the key of bank account {account} was destroyed")]
    KeyDestroyed {
        /// The account.
        account: AccountId,
    },
    /// What the session leans on was deleted before it could be pinned: begin again as the next attempt.
    #[error("base {base} was deleted")]
    BaseGone {
        /// The session of the base.
        base: String,
    },
    /// A step of the protocol failed.
    #[error("keeping to the protocol of sessions and sweeps")]
    Protocol {
        /// Why.
        source: karbor_sweep::Error,
    },
    /// Stored bytes are missing or not what they should be.
    #[error("{what} is damaged{}", in_ranges(.ranges))]
    Damaged {
        /// The object or stream.
        what: String,
        /// The parts of streams that cannot be read, as far as known.
        ranges: Vec<DamagedRange>,
    },
    /// The source changed while it was read, so what was read is no state that ever was.
    #[error("{what} changed while it was read: {how}")]
    SourceChanged {
        /// The source.
        what: String,
        /// What was seen to change.
        how: String,
    },
    /// Reading the source failed.
    #[error("reading {what}")]
    SourceIo {
        /// The source and the place in it.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// Writing the target failed.
    #[error("writing {what}")]
    TargetIo {
        /// The target and the place in it.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// The bank is full, or a quota is used up.
    #[error("{doing}: the bank is full")]
    BankFull {
        /// What was being done.
        doing: String,
        /// What the bank said.
        source: karbor_bank::Error,
    },
    /// The bank failed.
    #[error("{doing}")]
    Bank {
        /// What was being done.
        doing: String,
        /// What the bank said.
        source: karbor_bank::Error,
    },
    /// The local cache cannot be used.
    #[error("using the index cache at {}", path.display())]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// A stored object has a format that this program does not know.
    #[error("{what} has a format that this program does not know: {detail}")]
    UnknownFormat {
        /// The object.
        what: String,
        /// What its header says.
        detail: String,
    },
    /// A value that is given is not usable.
    #[error("{what}")]
    Invalid {
        /// What is wrong with it.
        what: String,
    },
    /// This cannot be done here.
    #[error("{what} is not supported")]
    Unsupported {
        /// What was asked for.
        what: String,
    },
    /// A defect of this program: something that cannot happen did.
    #[error("internal error: {what}")]
    Internal {
        /// What was found.
        what: String,
    },
}

/// The kinds of failure that callers decide on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No such account, checkpoint, resource or stream.
    NotFound,
    /// The account exists already.
    AlreadyExists,
    /// The work is done already.
    AlreadyCommitted,
    /// Stop: somebody took over.
    Fenced,
    /// The key does not fit, or there is none any more.
    WrongKey,
    /// Stored bytes are missing or wrong.
    Damaged,
    /// The source changed while it was read.
    SourceChanged,
    /// The source cannot be read.
    SourceIo,
    /// The target cannot be written.
    TargetIo,
    /// The bank is full.
    BankFull,
    /// The bank failed, in this way.
    Bank(karbor_bank::ErrorKind),
    /// The caller asked to stop.
    Cancelled,
    /// Written by a program newer than this one, or not by this program at all.
    UnknownFormat,
    /// The caller gave something unusable.
    Invalid,
    /// It cannot be done.
    Unsupported,
    /// Anything else.
    Other,
}

/// A part of a stream that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DamagedRange {
    /// The checkpoint it belongs to, where known.
    pub checkpoint: Option<CheckpointId>,
    /// The resource the stream belongs to.
    pub resource: Option<ResourceKey>,
    /// The stream's name.
    pub stream: Option<String>,
    /// The bytes of the stream.
    pub range: Range<u64>,
    /// The chunk that should hold them, as hexadecimal digits.
    pub chunk: String,
    /// Why they cannot be read.
    pub reason: String,
}

fn in_ranges(ranges: &[DamagedRange]) -> String {
    let Some(first) = ranges.first() else { return String::new() };
    let stream = first.stream.as_deref().unwrap_or("stream");
    let more = if ranges.len() > 1 { format!(" and {} more", ranges.len() - 1) } else { String::new() };
    format!(" ({stream} bytes {}..{}: {}{more})", first.range.start, first.range.end, first.reason)
}

impl Error {
    /// Returns what a caller decides on.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::AlreadyExists { .. } => ErrorKind::AlreadyExists,
            Self::AlreadyCommitted(_) => ErrorKind::AlreadyCommitted,
            Self::Fenced { .. } => ErrorKind::Fenced,
            Self::WrongKey { .. } | Self::KeyDestroyed { .. } => ErrorKind::WrongKey,
            Self::Damaged { .. } => ErrorKind::Damaged,
            Self::SourceChanged { .. } => ErrorKind::SourceChanged,
            Self::SourceIo { .. } => ErrorKind::SourceIo,
            Self::TargetIo { .. } => ErrorKind::TargetIo,
            Self::BankFull { .. } => ErrorKind::BankFull,
            Self::Bank { source, .. } => ErrorKind::Bank(source.kind),
            Self::Cancelled => ErrorKind::Cancelled,
            Self::UnknownFormat { .. } => ErrorKind::UnknownFormat,
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Cache { .. } | Self::Internal { .. } | Self::BaseGone { .. } | Self::Protocol { .. } => {
                ErrorKind::Other
            }
        }
    }

    /// Returns whether trying the whole piece of work again, later, may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Bank { source, .. } => source.kind.is_retryable(),
            Self::Protocol { source } => source.is_retryable(),
            Self::SourceChanged { .. } | Self::BaseGone { .. } => true,
            _ => false,
        }
    }

    pub(crate) fn not_found(what: impl Into<String>) -> Self {
        Self::NotFound { what: what.into() }
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }

    pub(crate) fn internal(what: impl Into<String>) -> Self {
        Self::Internal { what: what.into() }
    }

    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into(), ranges: Vec::new() }
    }

    /// Tells what a part of a stored object is not, or why it cannot be made.
    pub(crate) fn chunk(what: impl Into<String>, source: karbor_chunk::Error) -> Self {
        let what = what.into();
        match source {
            karbor_chunk::Error::UnknownFormat { .. } => {
                Self::UnknownFormat { what, detail: source.to_string() }
            }
            source if source.is_damage() => Self::damaged(format!("{what}: {source}")),
            source => Self::Internal { what: format!("{what}: {source}") },
        }
    }

    /// Tells what a step of the protocol met.
    pub(crate) fn protocol(source: karbor_sweep::Error) -> Self {
        use karbor_sweep::Error as E;
        match source {
            E::Bank { doing, source } => Self::bank(doing, source),
            E::Fenced { session } | E::SessionTaken { session } => {
                Self::Fenced { session: session.to_string() }
            }
            E::PinGone { pin, .. } => Self::BaseGone { base: pin.to_string() },
            E::Damaged { key, source } => Self::damaged(format!("{key}: {source}")),
            E::UnknownFormat { key, format } => {
                Self::UnknownFormat { what: key.to_string(), detail: format!("format {format}") }
            }
            E::NotCommitted { session } => Self::not_found(format!("a commit of session {session}")),
            E::Reachability { source } | E::StoreAgain { source } => match source.downcast::<Self>() {
                Ok(own) => *own,
                Err(source) => Self::Internal { what: source.to_string() },
            },
            E::MissingChunks { .. } => Self::damaged(source.to_string()),
            other => Self::Protocol { source: other },
        }
    }

    /// Returns an error that says the same, for another who waits for the same thing.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Fenced { session } => Self::Fenced { session: session.clone() },
            Self::Damaged { what, ranges } => Self::Damaged { what: what.clone(), ranges: ranges.clone() },
            Self::Cancelled => Self::Cancelled,
            Self::Bank { doing, source } | Self::BankFull { doing, source } => {
                let copy = karbor_bank::Error::new(source.kind, source.operation, source.key.as_str());
                let cause = std::error::Error::source(source).map(ToString::to_string);
                let copy = match cause {
                    Some(cause) => copy.with_source(cause),
                    None => copy,
                };
                Self::bank(doing.as_str(), copy)
            }
            other => Self::Internal { what: other.to_string() },
        }
    }

    pub(crate) fn bank(doing: impl Into<String>, source: karbor_bank::Error) -> Self {
        let doing = doing.into();
        match source.kind {
            karbor_bank::ErrorKind::Full => Self::BankFull { doing, source },
            _ => Self::Bank { doing, source },
        }
    }
}
