//! Sessions that were begun and have not ended, for who decides about their owners.

use std::collections::BTreeSet;

use crate::io::list_sessions;
use crate::mark::read_session;
use crate::place::Area;
use crate::{Gone, Kind, Place, Result, SessionId};

/// Returns the sessions that have a record, and neither a commit key nor an end that was remembered, in order.
///
/// The records are listed before the ends, so a session that ends meanwhile may be missing, and one that has ended
/// is never named.
///
/// # Errors
/// What the bank says.
pub async fn open_sessions(place: &Place) -> Result<Vec<SessionId>> {
    let begun = list_sessions(place, Area::Sessions, "listing sessions").await?;
    let ended = list_sessions(place, Area::Commits, "listing commits").await?;
    let ended: BTreeSet<SessionId> = ended.into_iter().map(|(session, _)| session).collect();
    let gone = Gone::read(place).await?;
    let begun = begun.into_iter().map(|(session, _)| session);
    Ok(begun.filter(|session| !ended.contains(session) && gone.end(session).is_none()).collect())
}

/// Returns what a session is at work on, as its record says; `None` when it has none.
///
/// # Errors
/// What the bank says, or that the record cannot be read.
pub async fn session_kind(place: &Place, session: &SessionId) -> Result<Option<Kind>> {
    Ok(read_session(place, session).await?.map(|record| record.kind))
}
