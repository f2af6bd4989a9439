//! What a condemned or final list names.

use std::collections::BTreeSet;

use crate::{PackName, PackSet, SessionId};

/// Packs, and whole sessions: of those every pack counts, also one that nobody has seen yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Doomed {
    /// Single packs, of sessions that are not named as a whole.
    pub packs: PackSet,
    /// Sessions that are named as a whole.
    pub sessions: BTreeSet<SessionId>,
}

impl Doomed {
    /// Returns whether a pack is named, by itself or with its session.
    pub fn contains(&self, pack: &PackName) -> bool {
        self.sessions.contains(&pack.session) || self.packs.contains(pack)
    }

    /// Returns whether nothing is named.
    pub fn is_empty(&self) -> bool {
        self.packs.is_empty() && self.sessions.is_empty()
    }
}
