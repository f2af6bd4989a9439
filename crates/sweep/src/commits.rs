//! Commit keys from outside their sessions: fences, deletion, and what lives.
//!
//! Invariant: at a session's commit key exactly one of commit record, fence and end ever *counts*: the first that
//! was put. A key is freed only when its session is gone as a whole, which says how it ended; what is put there
//! later counts for nothing. So whoever has put or read something at a commit key looks afterwards whether the
//! session is gone, and only then believes what he saw: the session was gone before its key was freed.
//!
//! For the same reason a tombstone is looked for first and what is gone is read afterwards: a tombstone is removed
//! only when its session is gone.

use std::collections::BTreeSet;

use bytes::Bytes;
use karbor_bank::{Key, Meta};
use karbor_types::Epoch;
use uuid::Uuid;

use crate::io::{self, Listing, Put};
use crate::place::Area;
use crate::record::{FORMAT, to_json};
use crate::rule::{Rule, kept};
use crate::{End, Error, Gone, Kind, Marker, Place, Result, SessionId, Standing};

const LISTING: &str = "listing commits";
const READING: &str = "reading what stands at a commit key";

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
    let key = place.commit_key(session);
    let marker = Marker::fence(of).because(by, reason);
    let put = io::put_once(place, &key, &marker.to_bytes(), "putting a fence").await?;
    let standing = match put {
        Put::Mine => None,
        Put::Other(bytes) => Some(Standing::from_bytes(&key, bytes)?),
    };
    // First the tombstone, then what is gone.
    let buried = has_tombstone(place, session).await?;
    let gone = Gone::read(place).await?;
    Ok(match (gone.end(session), standing) {
        (Some(End::Deleted), _) => FenceOutcome::AlreadyCommitted { deleted: true },
        (None, Some(Standing::Record(_))) => FenceOutcome::AlreadyCommitted { deleted: buried },
        _ => FenceOutcome::Fenced,
    })
}

/// Fences every attempt of the operation before `session`, and returns the one that had committed, if one had:
/// then the operation is done, and `session` has nothing to do.
///
/// # Errors
/// What the bank says.
pub async fn take_over(
    place: &Place,
    session: &SessionId,
    of: Option<Kind>,
    by: &str,
) -> Result<Option<SessionId>> {
    let mut committed = None;
    for epoch in 0..session.epoch.0 {
        let earlier = SessionId::new(session.operation, Epoch(epoch));
        match fence(place, &earlier, of, by, "taken over by a later attempt").await? {
            FenceOutcome::Fenced => {}
            FenceOutcome::AlreadyCommitted { .. } => committed = Some(earlier),
        }
    }
    Ok(committed)
}

/// A tombstone.
#[derive(serde::Serialize)]
struct Tombstone {
    format: u32,
}

/// Puts a commit's tombstone. Returns whether there was none; deleting again is no error.
///
/// # Errors
/// [`Error::NotCommitted`] when the session has not committed (fence it first), and what the bank says.
pub async fn delete(place: &Place, session: &SessionId) -> Result<bool> {
    let committed = is_record(place, session).await?;
    let buried = has_tombstone(place, session).await?;
    match Gone::read(place).await?.end(session) {
        Some(End::Deleted) => return Ok(false),
        Some(End::Closed | End::Fence) => return Err(Error::NotCommitted { session: *session }),
        None if !committed => return Err(Error::NotCommitted { session: *session }),
        None if buried => return Ok(false),
        None => {}
    }
    let tombstone = to_json(&Tombstone { format: FORMAT });
    io::put_once(place, &place.deleted_key(session), &tombstone, "putting a tombstone").await?;
    Ok(true)
}

/// Returns whether a session's commit was deleted.
///
/// # Errors
/// What the bank says.
pub async fn is_deleted(place: &Place, session: &SessionId) -> Result<bool> {
    if has_tombstone(place, session).await? {
        return Ok(true);
    }
    Ok(Gone::read(place).await?.end(session) == Some(End::Deleted))
}

/// Returns the record of a commit that lives, or `None`.
///
/// # Errors
/// What the bank says.
pub async fn read_commit(place: &Place, session: &SessionId) -> Result<Option<Bytes>> {
    let key = place.commit_key(session);
    let Some(bytes) = io::find(place, &key, READING).await? else {
        return Ok(None);
    };
    let Standing::Record(record) = Standing::from_bytes(&key, bytes)? else {
        return Ok(None);
    };
    Ok((!is_dead(place, session).await?).then_some(record))
}

/// Returns the session whose commit of this operation lives, if one does.
///
/// # Errors
/// What the bank says.
pub async fn find_commit(place: &Place, operation: &Uuid) -> Result<Option<SessionId>> {
    let prefix = format!("{}{}-", place.area(Area::Commits), operation.hyphenated());
    for meta in Listing::with_prefix(place, prefix, LISTING).all().await?.into_iter().rev() {
        let Some(session) = io::name_of::<SessionId>(place, Area::Commits, &meta.key) else {
            continue;
        };
        if session.operation == *operation
            && standing_of(place, &meta).await? == Some(CommitKind::Record)
            && !is_dead(place, &session).await?
        {
            return Ok(Some(session));
        }
    }
    Ok(None)
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

/// Lists living commits, in order of their names, page by page.
///
/// A commit that is put or deleted meanwhile may be in the listing or not.
#[derive(Debug)]
pub struct LivingCommits {
    place: Place,
    gone: Option<Gone>,
    /// The last key of the page before.
    after: Option<Key>,
    /// The last session of the pages before.
    passed: Option<SessionId>,
    ended: bool,
}

impl LivingCommits {
    /// Begins a listing.
    pub fn new(place: &Place) -> Self {
        Self { place: place.clone(), gone: None, after: None, passed: None, ended: false }
    }

    /// Returns the next page, which may be empty; `None` at the end.
    ///
    /// # Errors
    /// What the bank says. The same page can be asked for again.
    pub async fn next_page(&mut self) -> Result<Option<Vec<SessionId>>> {
        if self.ended {
            return Ok(None);
        }
        let place = &self.place;
        let prefix = place.area(Area::Commits);
        let page = place.bank().list(&prefix, self.after.as_ref(), io::PAGE).await;
        let page = page.map_err(Error::bank(LISTING))?;
        let mut committed = Vec::new();
        for meta in &page {
            let session = io::name_of::<SessionId>(place, Area::Commits, &meta.key);
            if let Some(session) = session
                && standing_of(place, meta).await? == Some(CommitKind::Record)
            {
                committed.push(session);
            }
        }
        // First commits, then tombstones, then what is gone.
        let buried = self.tombstones(committed.last()).await?;
        match &mut self.gone {
            Some(gone) => gone.refresh(place).await?,
            gone @ None => *gone = Some(Gone::read_for_readers(place).await?),
        }
        let gone = self.gone.get_or_insert_default();
        let last = committed.last().copied();
        committed.retain(|session| {
            !(buried.contains(session) || kept(Rule::GoneEndsSessions) && gone.end(session).is_some())
        });
        self.passed = last.or(self.passed);
        self.ended = page.len() < io::PAGE;
        self.after = page.into_iter().next_back().map(|meta| meta.key);
        Ok(Some(committed))
    }

    /// Lists the tombstones behind those of the pages before, through `last`.
    async fn tombstones(&self, last: Option<&SessionId>) -> Result<BTreeSet<SessionId>> {
        let mut buried = BTreeSet::new();
        let Some(last) = last else {
            return Ok(buried);
        };
        let last = self.place.deleted_key(last);
        let after = self.passed.map(|session| self.place.deleted_key(&session));
        let mut listing = Listing::of(&self.place, Area::Deleted, "listing tombstones").after(after);
        while let Some(page) = listing.next().await? {
            for meta in page {
                if meta.key > last {
                    return Ok(buried);
                }
                buried.extend(io::name_of::<SessionId>(&self.place, Area::Deleted, &meta.key));
            }
        }
        Ok(buried)
    }
}

/// What is listed at a commit key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CommitKind {
    Record,
    Marker(Marker),
}

/// Tells what stands at a commit key that was listed; `None` when it was freed meanwhile. Only what is small enough
/// for a marker is read.
pub(crate) async fn standing_of(place: &Place, meta: &Meta) -> Result<Option<CommitKind>> {
    if meta.size_bytes > Marker::MAX_BYTES {
        return Ok(Some(CommitKind::Record));
    }
    let Some(bytes) = io::find(place, &meta.key, READING).await? else {
        return Ok(None);
    };
    Ok(Some(match Standing::from_bytes(&meta.key, bytes)? {
        Standing::Record(_) => CommitKind::Record,
        Standing::Marker(marker) => CommitKind::Marker(marker),
    }))
}

/// Returns whether a commit record stands at a session's key; whether it counts is another question.
pub(crate) async fn is_record(place: &Place, session: &SessionId) -> Result<bool> {
    let key: Key = place.commit_key(session);
    let meta = match place.bank().head(&key).await {
        Ok(meta) => meta,
        Err(error) if error.kind == karbor_bank::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::bank(READING)(error)),
    };
    Ok(standing_of(place, &meta).await? == Some(CommitKind::Record))
}

/// Returns whether a commit that was seen to stand does not live. First the tombstone, then what is gone.
pub(crate) async fn is_dead(place: &Place, session: &SessionId) -> Result<bool> {
    if has_tombstone(place, session).await? {
        return Ok(true);
    }
    Ok(kept(Rule::GoneEndsSessions) && Gone::read_for_readers(place).await?.end(session).is_some())
}

pub(crate) async fn has_tombstone(place: &Place, session: &SessionId) -> Result<bool> {
    io::exists(place, &place.deleted_key(session), "looking for a tombstone").await
}
