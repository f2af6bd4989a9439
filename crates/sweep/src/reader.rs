//! The session of who reads a commit: while it is open, no sweep takes what the commit reaches.
//!
//! Why that is so: the pin is put before the tombstone is looked for. If there was none then, every marking that
//! finds the tombstone lists the sessions later, and finds the pin; every other marking takes the commit for living.

use crate::io::{self, Put};
use crate::rule::{Rule, kept};
use crate::{Error, Gone, Kind, Marker, Place, Result, SessionId, SessionRecord, commits};

/// A session that reads what it pins.
#[derive(Debug)]
pub struct ReaderSession {
    place: Place,
    id: SessionId,
    kind: Kind,
}

impl ReaderSession {
    /// Begins a session: puts its record, then looks that its pins live.
    ///
    /// After an error of the bank, begin again with the same record: it is recognized by its nonce.
    ///
    /// A chunk may stand in several packs, and one of them may go while it is read: when a pack is not there any
    /// more, look for another copy in the index, listed again.
    ///
    /// # Errors
    /// [`Error::SessionTaken`], [`Error::PinGone`], [`Error::Fenced`], and what the bank says.
    pub async fn begin(place: &Place, id: SessionId, record: SessionRecord) -> Result<Self> {
        let session = Self { place: place.clone(), id, kind: record.kind };
        let begun = begin(place, &id, &record).await?;
        if let Some(pin) = record.pins.iter().find(|pin| !begun.pins.contains(pin)) {
            session.close().await?;
            return Err(Error::PinGone { session: id, pin: *pin });
        }
        Ok(session)
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
        close(&self.place, &self.id, self.kind).await
    }
}

/// What was found when a session began.
pub(crate) struct Begun {
    /// The pins that were granted.
    pub(crate) pins: Vec<SessionId>,
    /// What was gone then.
    pub(crate) gone: Gone,
}

/// Puts a session's record and looks which of its pins live.
pub(crate) async fn begin(place: &Place, id: &SessionId, record: &SessionRecord) -> Result<Begun> {
    if kept(Rule::PinFirst) {
        put_record(place, id, record).await?;
    }
    let mut pins = Vec::new();
    for pin in &record.pins {
        if !commits::has_tombstone(place, pin).await? {
            pins.push(*pin);
        }
    }
    // What is gone is read after the tombstones were looked for.
    let gone = match record.kind {
        Kind::Reader => Gone::read_for_readers(place).await?,
        Kind::Writer | Kind::Rewrite => Gone::read(place).await?,
    };
    pins.retain(|pin| gone.end(pin).is_none());
    let mut granted = Vec::new();
    for pin in pins {
        if commits::is_record(place, &pin).await? {
            granted.push(pin);
        }
    }
    if !kept(Rule::PinFirst) {
        put_record(place, id, record).await?;
    }
    // It may have been fenced before it began: there is no point in working then.
    let taken = io::exists(place, &place.commit_key(id), "looking at the session's commit key").await?;
    if taken || gone.end(id).is_some() {
        return Err(Error::Fenced { session: *id });
    }
    Ok(Begun { pins: granted, gone })
}

async fn put_record(place: &Place, id: &SessionId, record: &SessionRecord) -> Result<()> {
    match io::put_once(place, &place.session_key(id), &record.to_bytes(), "putting the session's record")
        .await?
    {
        Put::Mine => Ok(()),
        Put::Other(_) => Err(Error::SessionTaken { session: *id }),
    }
}

/// Puts the end of a session that commits nothing.
pub(crate) async fn close(place: &Place, id: &SessionId, kind: Kind) -> Result<()> {
    let end = Marker::closed(kind).to_bytes();
    match io::put_once(place, &place.commit_key(id), &end, "closing the session").await? {
        Put::Other(bytes) if !crate::record::is_marker(&bytes) => {
            Err(Error::AlreadyCommitted { session: *id })
        }
        Put::Mine | Put::Other(_) => Ok(()),
    }
}
