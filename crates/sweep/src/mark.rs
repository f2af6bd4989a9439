//! Marking: what is needed, told by who knows what commits reach.

use async_trait::async_trait;

use crate::{BoxError, Doomed, Gone, PackName, PackSet, Result, SessionId};

/// Knows what commits reach. The vault's part of a sweep.
#[async_trait]
pub trait Reachability: Send + Sync {
    /// Returns the packs that are needed so that every chunk that any of `roots` reaches stays readable.
    ///
    /// Contract: the commit record of each root stands and is read, and all that it reaches is walked. The index
    /// is listed *after* this is called. For each reached chunk one pack is needed, out of those that
    /// [`Choice::rank`] gives a rank; one of rank [`Rank::Standing`] if there is one. Among several of the same rank
    /// the one that is fuller of reached chunks is taken, so that what a rewrite stored again frees what it was
    /// stored from. An error is better than a guess: what is not returned as needed is deleted.
    async fn needed(&self, roots: &[SessionId], choice: &Choice<'_>) -> Result<Needed, BoxError>;
}

/// What is needed.
#[derive(Debug, Clone, Default)]
pub struct Needed {
    /// The packs.
    pub packs: PackSet,
    /// How many reached chunks have no pack at all: something is damaged.
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
    pub(crate) present: &'a PackSet,
    pub(crate) gone: &'a Gone,
    pub(crate) condemned: &'a Doomed,
}

impl Choice<'_> {
    /// Returns how well a pack is suited, or `None` if it does not count: it is gone, or not in the bank.
    pub fn rank(&self, pack: &PackName) -> Option<Rank> {
        if self.gone.contains(pack) || !self.present.contains(pack) {
            return None;
        }
        Some(if self.condemned.contains(pack) { Rank::Condemned } else { Rank::Standing })
    }

    /// Returns how many packs are in the bank and not gone.
    pub fn present_packs(&self) -> usize {
        self.present.len()
    }
}
