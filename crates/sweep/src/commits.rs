//! Commit keys from outside their sessions: fences, deletion, and what lives.

use bytes::Bytes;
use uuid::Uuid;

use crate::{Error, Kind, Place, Result, SessionId};

/// What a fence met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceOutcome {
    /// The session can never commit, or ended without a commit before.
    Fenced,
    /// The session committed first.
    AlreadyCommitted {
        /// Whether the commit was deleted since.
        deleted: bool,
    },
}

/// Puts a fence at a session's commit key, whether or not the session was begun: it never commits from then on.
///
/// `of` is what the session was, if the caller knows (from its record).
///
/// # Errors
/// What the bank says. Fence again: it tells the same.
pub async fn fence(
    place: &Place,
    session: &SessionId,
    of: Option<Kind>,
    by: &str,
    reason: &str,
) -> Result<FenceOutcome> {
    let _ = (place, of, by, reason);
    Err(Error::NotCommitted { session: *session })
}

/// Fences every attempt of the operation before `session`, and returns the one that had committed, if one had:
/// then the operation is done, and `session` has nothing to do.
///
/// # Errors
/// What the bank says.
pub async fn take_over(place: &Place, session: &SessionId, by: &str) -> Result<Option<SessionId>> {
    let _ = (place, by);
    Err(Error::NotCommitted { session: *session })
}

/// Puts a commit's tombstone. Returns whether this call put it; deleting again is no error.
///
/// # Errors
/// [`Error::NotCommitted`] when the session has not committed (fence it first), and what the bank says.
pub async fn delete(place: &Place, session: &SessionId) -> Result<bool> {
    let _ = place;
    Err(Error::NotCommitted { session: *session })
}

/// Returns whether a session's commit was deleted.
///
/// # Errors
/// What the bank says.
pub async fn is_deleted(place: &Place, session: &SessionId) -> Result<bool> {
    let _ = (place, session);
    Ok(true)
}

/// Returns the record of a commit that lives, or `None`.
///
/// # Errors
/// What the bank says.
pub async fn read_commit(place: &Place, session: &SessionId) -> Result<Option<Bytes>> {
    let _ = (place, session);
    Ok(None)
}

/// Returns the session whose commit of this operation lives, if one does.
///
/// # Errors
/// What the bank says.
pub async fn find_commit(place: &Place, operation: &Uuid) -> Result<Option<SessionId>> {
    let _ = (place, operation);
    Ok(None)
}

/// Lists living commits, in order of their names, page by page.
#[derive(Debug)]
pub struct LivingCommits {
    place: Place,
}

impl LivingCommits {
    /// Begins a listing.
    pub fn new(place: &Place) -> Self {
        Self { place: place.clone() }
    }

    /// Returns the next page, which may be empty; `None` at the end.
    ///
    /// # Errors
    /// What the bank says. The same page can be asked for again.
    pub async fn next_page(&mut self) -> Result<Option<Vec<SessionId>>> {
        let _ = &self.place;
        Ok(None)
    }
}

/// Returns all living commits, in order of their names.
///
/// # Errors
/// What the bank says.
pub async fn living_commits(place: &Place) -> Result<Vec<SessionId>> {
    let mut pages = LivingCommits::new(place);
    let mut all = Vec::new();
    while let Some(page) = pages.next_page().await? {
        all.extend(page);
    }
    Ok(all)
}
