//! What can go wrong.

use karbor_bank::Key;

use crate::{SessionId, SweepEpoch};

/// The result of a step of the protocol.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error of a part that is given from outside.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A failed step of the protocol. Every step can be tried again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bank failed.
    #[error("{doing}")]
    Bank {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: karbor_bank::Error,
    },
    /// An object of the protocol cannot be read.
    #[error("{key} is not what it should be")]
    Damaged {
        /// The object.
        key: Key,
        /// What is wrong with it.
        source: BoxError,
    },
    /// An object of the protocol was written by a newer version.
    #[error("{key} has the format {format}, and only 1 is known: a newer version wrote it")]
    UnknownFormat {
        /// The object.
        key: Key,
        /// Its format.
        format: u32,
    },
    /// Somebody else has begun this session.
    #[error("session {session} was begun by somebody else")]
    SessionTaken {
        /// The session.
        session: SessionId,
    },
    /// What a session pins is not committed, or deleted.
    #[error("session {session} cannot pin {pin}: it is not committed, or deleted")]
    PinGone {
        /// The session.
        session: SessionId,
        /// What it was to pin.
        pin: SessionId,
    },
    /// Somebody fenced the session: it can never commit, and begins again as the next attempt.
    #[error("session {session} was fenced")]
    Fenced {
        /// The session.
        session: SessionId,
    },
    /// The session has committed already.
    #[error("session {session} has committed")]
    AlreadyCommitted {
        /// The session.
        session: SessionId,
    },
    /// Another commit record than the one given stands at the key.
    #[error("session {session} has committed something else")]
    CommittedElse {
        /// The session.
        session: SessionId,
    },
    /// Nothing can be deleted, because nothing is committed.
    #[error("session {session} has committed nothing that could be deleted")]
    NotCommitted {
        /// The session.
        session: SessionId,
    },
    /// A session of this kind cannot do that, or the bytes are no commit record.
    #[error("session {session} cannot commit this: {why}")]
    CannotCommit {
        /// The session.
        session: SessionId,
        /// Why not.
        why: &'static str,
    },
    /// What is reachable could not be found out.
    #[error("finding out what commits reach")]
    Reachability {
        /// Why.
        source: BoxError,
    },
    /// What was condemned could not be stored again.
    #[error("storing again what was condemned")]
    StoreAgain {
        /// Why.
        source: BoxError,
    },
    /// Commits reach chunks of which no copy was found: nothing is freed before this is looked into.
    #[error("{missing} chunks that commits reach are in no pack; nothing is freed until this is looked into")]
    MissingChunks {
        /// How many.
        missing: u64,
    },
    /// A listing or a list changed each time it was read.
    #[error("{doing}: it changed each time it was read")]
    Unsettled {
        /// What was being done.
        doing: &'static str,
    },
    /// The bank's listings lag behind its puts, so that no sweep could see who is at work.
    #[error("this bank's listings may lag, so nothing in it is swept")]
    NoListing,
    /// There are no more numbers for sweeps.
    #[error("sweep {epoch} is the last that can be numbered")]
    LastEpoch {
        /// The epoch.
        epoch: SweepEpoch,
    },
}

impl Error {
    /// Returns whether trying again may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Bank { source, .. } => source.kind.is_retryable(),
            Self::Unsettled { .. } => true,
            _ => false,
        }
    }

    pub(crate) fn bank(doing: &'static str) -> impl FnOnce(karbor_bank::Error) -> Self {
        move |source| Self::Bank { doing, source }
    }
}
