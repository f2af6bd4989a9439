//! Sets of packs: grouped by session, so that a million packs take some fifty megabytes.

use std::collections::{BTreeMap, BTreeSet};

use crate::{ObjectHash, PackName, SessionId};

/// A set of packs, in order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PackSet {
    by_session: BTreeMap<SessionId, BTreeSet<ObjectHash>>,
    len: usize,
}

impl PackSet {
    /// Makes an empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns how many packs are in it.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a pack, and returns whether it was new.
    pub fn insert(&mut self, pack: PackName) -> bool {
        let new = self.by_session.entry(pack.session).or_default().insert(pack.hash);
        self.len += usize::from(new);
        new
    }

    /// Takes a pack out, and returns whether it was there.
    pub fn remove(&mut self, pack: &PackName) -> bool {
        let Some(packs) = self.by_session.get_mut(&pack.session) else {
            return false;
        };
        let there = packs.remove(&pack.hash);
        if packs.is_empty() {
            self.by_session.remove(&pack.session);
        }
        self.len -= usize::from(there);
        there
    }

    /// Takes out all packs of a session.
    pub fn remove_session(&mut self, session: &SessionId) {
        if let Some(packs) = self.by_session.remove(session) {
            self.len -= packs.len();
        }
    }

    /// Returns whether a pack is in it.
    pub fn contains(&self, pack: &PackName) -> bool {
        self.by_session.get(&pack.session).is_some_and(|packs| packs.contains(&pack.hash))
    }

    /// Returns whether any pack of a session is in it.
    pub fn contains_session(&self, session: &SessionId) -> bool {
        self.by_session.contains_key(session)
    }

    /// Returns the sessions that have packs in it.
    pub fn sessions(&self) -> impl Iterator<Item = &SessionId> {
        self.by_session.keys()
    }

    /// Returns the packs in order.
    pub fn iter(&self) -> impl Iterator<Item = PackName> {
        self.by_session
            .iter()
            .flat_map(|(session, packs)| packs.iter().map(|hash| PackName::new(*session, *hash)))
    }
}

impl Extend<PackName> for PackSet {
    fn extend<I: IntoIterator<Item = PackName>>(&mut self, packs: I) {
        for pack in packs {
            self.insert(pack);
        }
    }
}

impl FromIterator<PackName> for PackSet {
    fn from_iter<I: IntoIterator<Item = PackName>>(packs: I) -> Self {
        let mut set = Self::new();
        set.extend(packs);
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use karbor_types::Epoch;
    use uuid::Uuid;

    fn pack(session: u128, hash: u8) -> PackName {
        PackName::new(SessionId::new(Uuid::from_u128(session), Epoch(0)), ObjectHash::from_bytes([hash; 32]))
    }

    #[test]
    fn a_set_counts_each_pack_once_and_forgets_what_is_taken_out() {
        let mut set: PackSet = [pack(2, 1), pack(1, 2), pack(1, 1), pack(1, 2)].into_iter().collect();
        assert_eq!(set.len(), 3);
        assert_eq!(set.iter().collect::<Vec<_>>(), [pack(1, 1), pack(1, 2), pack(2, 1)]);
        assert!(set.remove(&pack(2, 1)) && !set.remove(&pack(2, 1)));
        assert!(!set.contains_session(&pack(2, 1).session));
        set.remove_session(&pack(1, 1).session);
        assert!(set.is_empty() && set.sessions().next().is_none());
    }
}
