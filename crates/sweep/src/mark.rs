//! Marking: what is needed, told by who knows what commits reach.
//!
//! The order of the listings is what makes a marking right, whatever happens while they are made:
//!
//! 1. tombstones, then what is gone: what is deleted later counts as living, which only keeps more;
//! 2. sessions: a pin that was granted before its tombstone stood was put before that, so it is listed now;
//! 3. commits: whoever has none here counts as at work, so there is no gap between a pin and the commit that leans
//!    on it;
//! 4. packs: all packs of a listed commit were stored before it, so they are listed;
//! 5. the index, by [`Reachability`]: it mentions all that, and what is merged meanwhile is found by listing again.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use karbor_bank::Meta;

use crate::commits::{CommitKind, standing_of};
use crate::io::{self, Listing, list_sessions};
use crate::place::Area;
use crate::rule::{Rule, kept};
use crate::{
    BoxError, Doomed, End, Error, Gone, Kind, PackName, PackSet, Place, Result, SessionId, SessionRecord,
};

/// Knows what commits reach. The vault's part of a sweep.
#[async_trait]
pub trait Reachability: Send + Sync {
    /// Returns the packs that are needed so that every chunk that any of `roots` reaches stays readable.
    ///
    /// Contract: the commit record of each root is read, and all that it reaches is walked. The index is listed
    /// *after* this is called. For each reached chunk one pack is needed, out of those that [`Choice::rank`] gives a
    /// rank; one of rank [`Rank::Standing`] if there is one. Among several of the same rank the one is taken of
    /// which the greater part is reached, so that what a rewrite stored again frees what it was stored from. An
    /// error is better than a guess: what is not returned as needed is deleted.
    async fn needed(&self, roots: &Roots, choice: &Choice<'_>) -> Result<Needed, BoxError>;
}

/// From where marking starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roots {
    /// Commits that live: all that they reach must be there.
    pub living: Vec<SessionId>,
    /// Commits that are deleted, but pinned by a session at work. The pin may have come too late and not been
    /// granted: what is not there any more, the record itself or what it reaches, is passed over, not missing.
    pub pinned: Vec<SessionId>,
}

/// What is needed.
#[derive(Debug, Clone, Default)]
pub struct Needed {
    /// The packs.
    pub packs: PackSet,
    /// How many chunks that living commits reach have no pack at all: something is damaged.
    pub missing_chunks: u64,
}

/// How well a pack is suited to keep a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// It is in the open condemned list: needed only if there is no other copy.
    Condemned,
    /// It stays.
    Standing,
}

/// Which packs may keep a chunk.
#[derive(Debug)]
pub struct Choice<'a> {
    present: &'a PackSet,
    gone: &'a Gone,
    condemned: &'a Doomed,
}

impl Choice<'_> {
    /// Returns how well a pack is suited, or `None` if it does not count: it is gone, or not in the bank.
    pub fn rank(&self, pack: &PackName) -> Option<Rank> {
        if self.gone.contains(pack) || !self.present.contains(pack) {
            return None;
        }
        Some(if self.condemned.contains(pack) { Rank::Condemned } else { Rank::Standing })
    }

    /// Returns the packs that are in the bank and not gone.
    pub const fn present(&self) -> &PackSet {
        self.present
    }
}

/// What an account looked like, seen in the order that makes marking right.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Packs in the bank that are not gone.
    pub(crate) present: PackSet,
    /// What is needed.
    pub(crate) needed: PackSet,
    /// What marking started from.
    roots: BTreeSet<SessionId>,
    /// The sessions that have a commit key and are not gone, and how they ended; `None` for what is committed.
    resolved: BTreeMap<SessionId, Option<End>>,
}

impl Survey {
    /// Looks at an account and marks what is needed. `condemned` is the list that is open, or empty.
    pub(crate) async fn make(
        place: &Place,
        gone: &mut Gone,
        condemned: &Doomed,
        reachability: &dyn Reachability,
    ) -> Result<(Self, u64)> {
        let mut survey = Self::default();
        let listed = Listed::make(place, gone).await?;
        let roots = survey.sort_out(place, gone, listed).await?;
        let choice = Choice { present: &survey.present, gone, condemned };
        let needed = reachability.needed(&roots, &choice).await;
        let needed = needed.map_err(|source| Error::Reachability { source })?;
        survey.roots = roots.living.into_iter().chain(roots.pinned).collect();
        survey.needed = needed.packs;
        Ok((survey, needed.missing_chunks))
    }

    /// Returns what may be freed, if nobody at work leans on it.
    pub(crate) fn condemn(&self) -> Doomed {
        let mut doomed = Doomed::default();
        for (session, end) in &self.resolved {
            if !self.roots.contains(session) && !self.needed.contains_session(session) {
                doomed.sessions.insert(*session, end.unwrap_or(End::Deleted));
            }
        }
        for pack in self.present.iter() {
            let at_work = !self.resolved.contains_key(&pack.session);
            let whole = doomed.sessions.contains_key(&pack.session) && kept(Rule::WholeSessions);
            if !at_work && !whole && !self.needed.contains(&pack) {
                doomed.packs.insert(pack);
            }
        }
        doomed
    }

    /// Returns the sessions that stored something and have no commit key: they are at work, or dead.
    pub(crate) fn at_work(&self) -> impl Iterator<Item = SessionId> {
        self.present.sessions().filter(|session| !self.resolved.contains_key(session)).copied()
    }

    /// Returns what of a condemned list is to be freed, now that nobody leans on it who was not seen.
    pub(crate) fn confirm(&self, condemned: &Doomed) -> Doomed {
        let mut doomed = condemned.clone();
        for pack in self.needed.iter() {
            doomed.packs.remove(&pack);
            doomed.sessions.remove(&pack.session);
        }
        doomed.sessions.retain(|session, _| !self.roots.contains(session));
        if !kept(Rule::CondemnSessions) {
            doomed.sessions.extend(self.condemn().sessions);
        }
        doomed
    }

    /// Returns how many of the packs that were seen are doomed.
    pub(crate) fn count(&self, doomed: &Doomed) -> u64 {
        self.present.iter().filter(|pack| doomed.contains(pack)).count().try_into().unwrap_or(u64::MAX)
    }

    async fn sort_out(&mut self, place: &Place, gone: &Gone, listed: Listed) -> Result<Roots> {
        self.present = listed.present;
        let mut roots = Roots::default();
        for (session, meta) in &listed.commits {
            if gone.end(session).is_some() && kept(Rule::GoneEndsSessions) {
                continue;
            }
            match standing_of(place, meta).await? {
                Some(CommitKind::Record) if listed.tombstones.contains(session) => {
                    self.resolved.insert(*session, None);
                }
                Some(CommitKind::Record) => {
                    self.resolved.insert(*session, None);
                    roots.living.push(*session);
                }
                // A reader leaves nothing that anybody could lean on: it is forgotten, not condemned.
                Some(CommitKind::Marker(marker)) if marker.of == Some(Kind::Reader) => {}
                Some(CommitKind::Marker(marker)) => {
                    self.resolved.insert(*session, Some(marker.end()));
                }
                // Freed since it was listed: it was a reader's, or its session is gone.
                None => {}
            }
        }
        for pin in self.pins(place, gone, &listed.sessions, &listed.commits).await? {
            let committed = self.resolved.get(&pin) == Some(&None);
            if committed && listed.tombstones.contains(&pin) {
                roots.pinned.push(pin);
            }
        }
        Ok(roots)
    }

    /// Returns what sessions at work pin.
    async fn pins(
        &self,
        place: &Place,
        gone: &Gone,
        sessions: &BTreeSet<SessionId>,
        commits: &BTreeMap<SessionId, Meta>,
    ) -> Result<BTreeSet<SessionId>> {
        let mut pins = BTreeSet::new();
        if !kept(Rule::Pins) {
            return Ok(pins);
        }
        for session in sessions {
            if commits.contains_key(session) || gone.end(session).is_some() {
                continue;
            }
            pins.extend(read_session(place, session).await?.into_iter().flat_map(|record| record.pins));
        }
        Ok(pins)
    }
}

/// Reads a session's record; `None` when it was removed since it was listed.
pub(crate) async fn read_session(place: &Place, session: &SessionId) -> Result<Option<SessionRecord>> {
    let key = place.session_key(session);
    match io::find(place, &key, "reading a session's record").await? {
        Some(bytes) => SessionRecord::from_bytes(&key, &bytes).map(Some),
        None => Ok(None),
    }
}

/// What was listed, in order.
struct Listed {
    tombstones: BTreeSet<SessionId>,
    sessions: BTreeSet<SessionId>,
    commits: BTreeMap<SessionId, Meta>,
    present: PackSet,
}

impl Listed {
    async fn make(place: &Place, gone: &mut Gone) -> Result<Self> {
        let early_sessions = if kept(Rule::TombstonesFirst) { None } else { Some(list_names(place).await?) };
        let tombstones = list_sessions(place, Area::Deleted, "listing tombstones").await?;
        gone.refresh(place).await?;
        let sessions = match early_sessions {
            Some(sessions) => sessions,
            None => list_names(place).await?,
        };
        let commits = list_sessions(place, Area::Commits, "listing commits").await?.into_iter().collect();
        let mut present = PackSet::new();
        let mut listing = Listing::of(place, Area::Packs, "listing packs");
        while let Some(page) = listing.next().await? {
            for meta in page {
                present.extend(
                    io::name_of::<PackName>(place, Area::Packs, &meta.key).filter(|p| !gone.contains(p)),
                );
            }
        }
        let tombstones = tombstones.into_iter().map(|(session, _)| session).collect();
        Ok(Self { tombstones, sessions, commits, present })
    }
}

async fn list_names(place: &Place) -> Result<BTreeSet<SessionId>> {
    let listed = list_sessions(place, Area::Sessions, "listing sessions").await?;
    Ok(listed.into_iter().map(|(session, _)| session).collect())
}
