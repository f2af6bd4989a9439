//! What a condemned or final list names, and how it is stored.
//!
//! A list stands at one create-only key, its *head*, which decides. Long lists lie in *pages* that the head names
//! by hash; the pages are put before the head, so a head that stands can be read. Pages are removed only when the
//! list is folded, long after its epoch is done; the heads stay for ever, small, because a key that decides is
//! never freed.

use std::collections::BTreeMap;

use karbor_bank::{Key, PutMode};
use serde::{Deserialize, Serialize};

use crate::io::{self, Put};
use crate::record::{FORMAT, from_json, to_json};
use crate::rule::{Rule, kept};
use crate::{End, Error, ObjectHash, PackName, PackSet, Place, Result, SessionId, SweepEpoch};

/// How many names a head holds before pages are made.
const INLINE: usize = if cfg!(test) { 1 } else { 200 };
/// How many names a page holds.
pub(crate) const PAGE: usize = if cfg!(test) { 2 } else { 20_000 };

/// Packs, and whole sessions: of those every pack counts, also one that nobody has seen yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Doomed {
    /// Single packs, of sessions that are not named as a whole.
    pub packs: PackSet,
    /// Sessions that are named as a whole, and how they ended.
    pub sessions: BTreeMap<SessionId, End>,
}

impl Doomed {
    /// Returns whether a pack is named, by itself or with its session.
    pub fn contains(&self, pack: &PackName) -> bool {
        let whole = self.sessions.contains_key(&pack.session) && kept(Rule::WholeSessions);
        whole || self.packs.contains(pack)
    }

    /// Returns whether nothing is named.
    pub fn is_empty(&self) -> bool {
        self.packs.is_empty() && self.sessions.is_empty()
    }

    /// Adds what another names.
    pub(crate) fn absorb(&mut self, other: &Self) {
        self.packs.extend(other.packs.iter());
        self.sessions.extend(&other.sessions);
    }
}

/// Which of an epoch's two lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListKind {
    Condemned,
    Final,
}

impl ListKind {
    fn key(self, place: &Place, epoch: SweepEpoch) -> Key {
        match self {
            Self::Condemned => place.condemned_key(epoch),
            Self::Final => place.final_key(epoch),
        }
    }

    const fn doing(self) -> (&'static str, &'static str) {
        match self {
            Self::Condemned => ("reading a condemned list", "putting a condemned list"),
            Self::Final => ("reading a final list", "putting a final list"),
        }
    }
}

/// Names as they are stored: grouped, so that a pack takes little more than its hash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Names {
    /// Whole sessions by how they ended.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) sessions: BTreeMap<End, Vec<SessionId>>,
    /// Hashes of packs by session.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) packs: BTreeMap<SessionId, Vec<ObjectHash>>,
}

impl Names {
    /// Cuts what is named into pieces of at most `size` names; at least one piece, which may be empty.
    pub(crate) fn pieces(doomed: &Doomed, size: usize) -> impl Iterator<Item = Self> {
        let mut sessions = doomed.sessions.iter().peekable();
        let mut packs = doomed.packs.iter().peekable();
        let mut first = true;
        std::iter::from_fn(move || {
            if !std::mem::take(&mut first) && sessions.peek().is_none() && packs.peek().is_none() {
                return None;
            }
            let mut piece = Self::default();
            let mut room = size;
            for (session, end) in std::iter::from_fn(|| sessions.next()).take(room) {
                piece.sessions.entry(*end).or_default().push(*session);
                room -= 1;
            }
            for pack in std::iter::from_fn(|| packs.next()).take(room) {
                piece.packs.entry(pack.session).or_default().push(pack.hash);
            }
            Some(piece)
        })
    }

    /// Adds what is named here.
    pub(crate) fn add_to(&self, doomed: &mut Doomed) {
        for (end, sessions) in &self.sessions {
            doomed.sessions.extend(sessions.iter().map(|session| (*session, *end)));
        }
        for (session, hashes) in &self.packs {
            doomed.packs.extend(hashes.iter().map(|hash| PackName::new(*session, *hash)));
        }
    }
}

/// The head of a list.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    format: u32,
    epoch: SweepEpoch,
    #[serde(flatten)]
    names: Names,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pages: Vec<ObjectHash>,
}

/// A page of a list.
#[derive(Debug, Serialize, Deserialize)]
struct Page {
    format: u32,
    #[serde(flatten)]
    names: Names,
}

/// Reads arbitrary bytes as each part of a list.
pub(crate) fn fuzz(key: &Key, bytes: &[u8]) {
    let mut doomed = Doomed::default();
    if let Ok(head) = from_json::<Head>(key, bytes) {
        head.names.add_to(&mut doomed);
    }
    if let Ok(page) = from_json::<Page>(key, bytes) {
        page.names.add_to(&mut doomed);
    }
}

/// What there is of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// It was not put.
    Absent,
    /// It stands.
    List(Doomed),
    /// It stands, but its pages were removed: its epoch is done and folded.
    Folded,
}

/// Puts a list, and returns the one that stands: this one, or the one that another put first.
pub(crate) async fn put_list(
    place: &Place,
    kind: ListKind,
    epoch: SweepEpoch,
    doomed: Doomed,
) -> Result<Found> {
    let (_, putting) = kind.doing();
    let mut head = Head { format: FORMAT, epoch, names: Names::default(), pages: Vec::new() };
    if doomed.packs.len() + doomed.sessions.len() <= INLINE {
        head.names = Names::pieces(&doomed, INLINE).next().unwrap_or_default();
    } else {
        for names in Names::pieces(&doomed, PAGE) {
            let bytes = to_json(&Page { format: FORMAT, names });
            let hash = ObjectHash::of(&bytes);
            // A page is named by its bytes, so one that stands there already is this one.
            io::put_once(place, &place.page_key(epoch, &hash), &bytes, putting).await?;
            head.pages.push(hash);
        }
    }
    let key = kind.key(place, epoch);
    match io::put_once(place, &key, &to_json(&head), putting).await? {
        Put::Mine => Ok(Found::List(doomed)),
        Put::Other(_) if !kept(Rule::StandingFinalList) => {
            let put = place.bank().put(&key, vec![to_json(&head)], PutMode::Overwrite).await;
            put.map_err(Error::bank(putting))?;
            Ok(Found::List(doomed))
        }
        Put::Other(bytes) => read_pages(place, kind, epoch, &key, &bytes).await,
    }
}

/// Reads a list.
pub(crate) async fn read_list(place: &Place, kind: ListKind, epoch: SweepEpoch) -> Result<Found> {
    let key = kind.key(place, epoch);
    match io::find(place, &key, kind.doing().0).await? {
        Some(bytes) => read_pages(place, kind, epoch, &key, &bytes).await,
        None => Ok(Found::Absent),
    }
}

async fn read_pages(
    place: &Place,
    kind: ListKind,
    epoch: SweepEpoch,
    key: &Key,
    bytes: &[u8],
) -> Result<Found> {
    let head: Head = from_json(key, bytes)?;
    if head.epoch != epoch {
        let source = format!("it is the list of sweep {}", head.epoch).into();
        return Err(Error::Damaged { key: key.clone(), source });
    }
    let mut doomed = Doomed::default();
    head.names.add_to(&mut doomed);
    for hash in &head.pages {
        let key = place.page_key(epoch, hash);
        let Some(bytes) = io::find(place, &key, kind.doing().0).await? else {
            return Ok(Found::Folded);
        };
        if ObjectHash::of(&bytes) != *hash {
            return Err(Error::Damaged { key, source: "its bytes are not those that its name tells".into() });
        }
        let page: Page = from_json(&key, &bytes)?;
        page.names.add_to(&mut doomed);
    }
    Ok(Found::List(doomed))
}
