//! Sessions as seen by who keeps a list of operations: reading under the name of an attempt, finding sessions that
//! were left open, ending those on which nobody can be at work.
//!
//! Ending a session that somebody uses after all costs work, never data: a writer begins again, a reader of a
//! deleted checkpoint may find that chunks are gone.

use karbor_sweep::{Kind, SessionId};
use karbor_types::CheckpointId;

use crate::{Account, CheckpointReader, Error, Result};

impl Account {
    /// Opens a checkpoint for reading, under the session of an attempt of the reader's operation, so that what is
    /// left of it after a crash can be told from a reader at work. The sessions of earlier attempts are ended.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it does not exist or is deleted, [`Error::Fenced`] when a later attempt has begun.
    pub async fn read_as(&self, session: &SessionId, id: CheckpointId) -> Result<CheckpointReader> {
        let Self { shared } = self;
        let taken = karbor_sweep::take_over(&shared.place, session, Some(Kind::Reader), &shared.options.by);
        taken.await.map_err(Error::protocol)?;
        CheckpointReader::open_as(shared.clone(), *session, id).await
    }

    /// Returns the sessions that have neither committed nor ended, in order of their names.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn open_sessions(&self) -> Result<Vec<SessionId>> {
        karbor_sweep::open_sessions(&self.shared.place).await.map_err(Error::protocol)
    }

    /// Returns the sessions whose commit records live, in order of their names; nothing of them is read.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn living_sessions(&self) -> Result<Vec<SessionId>> {
        karbor_sweep::living_commits(&self.shared.place).await.map_err(Error::protocol)
    }

    /// Ends a session on which nobody is at work: it can never commit, and what it pins is pinned no more.
    /// Returns whether it was open; one that has committed stays as it is.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn end_session(&self, session: &SessionId, reason: &str) -> Result<bool> {
        let shared = &self.shared;
        let kind = karbor_sweep::session_kind(&shared.place, session).await.map_err(Error::protocol)?;
        let fenced = karbor_sweep::fence(&shared.place, session, kind, &shared.options.by, reason).await;
        Ok(fenced.map_err(Error::protocol)? == karbor_sweep::FenceOutcome::Fenced)
    }
}
