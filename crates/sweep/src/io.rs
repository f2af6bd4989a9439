//! Calls to the bank as the protocol makes them: create-only puts that survive lost replies, whole listings.

use bytes::Bytes;
use karbor_bank::{ErrorKind, Key, Meta, PutMode};

use crate::place::Area;
use crate::{Error, Place, Result, SessionId};

/// How many keys a page of a listing has.
pub(crate) const PAGE: usize = 1000;
/// How often a put is tried whose reply is lost.
const TRIES: usize = 4;
/// How often something is read again that changed while it was read.
pub(crate) const SETTLE_TRIES: usize = 100;

/// Who has a key after a create-only put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Put {
    /// What was to be put stands there.
    Mine,
    /// Something else stands there, and did before.
    Other(Bytes),
}

/// Puts an object create-only, and resolves lost replies: equal bytes that stand there are taken for one's own.
///
/// A put whose reply was lost may arrive long after. Then it finds the key taken, by this or by another, or the
/// key was freed because its session is gone: what stands at the keys of such a session counts for nothing.
pub(crate) async fn put_once(place: &Place, key: &Key, bytes: &Bytes, doing: &'static str) -> Result<Put> {
    let mut tried = 0;
    loop {
        tried += 1;
        let error = match place.bank().put(key, vec![bytes.clone()], PutMode::Create).await {
            Ok(_) => return Ok(Put::Mine),
            Err(error) => error,
        };
        if error.kind != ErrorKind::AlreadyExists && !error.kind.is_retryable() {
            return Err(Error::bank(doing)(error));
        }
        match find(place, key, doing).await? {
            Some(standing) if standing == *bytes => return Ok(Put::Mine),
            Some(standing) => return Ok(Put::Other(standing)),
            None if tried < TRIES => {}
            None => return Err(Error::bank(doing)(error)),
        }
    }
}

/// Reads an object, or finds that it is not there.
pub(crate) async fn find(place: &Place, key: &Key, doing: &'static str) -> Result<Option<Bytes>> {
    match place.bank().get(key, None).await {
        Ok(object) => Ok(Some(object.bytes)),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::bank(doing)(error)),
    }
}

/// Returns whether an object is there.
pub(crate) async fn exists(place: &Place, key: &Key, doing: &'static str) -> Result<bool> {
    match place.bank().head(key).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::bank(doing)(error)),
    }
}

/// Removes an object, or finds that it is not there.
pub(crate) async fn remove(place: &Place, key: &Key, doing: &'static str) -> Result<()> {
    place.bank().delete(key).await.map_err(Error::bank(doing))
}

/// Lists keys page by page.
#[derive(Debug)]
pub(crate) struct Listing<'a> {
    place: &'a Place,
    prefix: String,
    doing: &'static str,
    after: Option<Key>,
    ended: bool,
}

impl<'a> Listing<'a> {
    /// Lists the keys below `<area>/`.
    pub(crate) fn of(place: &'a Place, area: Area, doing: &'static str) -> Self {
        Self::with_prefix(place, place.area(area), doing)
    }

    /// Lists the keys that start with `prefix`.
    pub(crate) fn with_prefix(place: &'a Place, prefix: String, doing: &'static str) -> Self {
        Self { place, prefix, doing, after: None, ended: false }
    }

    /// Leaves out the keys up to and with this one.
    #[must_use]
    pub(crate) fn after(mut self, key: Option<Key>) -> Self {
        self.after = key;
        self
    }

    /// Returns the next page, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Meta>>> {
        if self.ended {
            return Ok(None);
        }
        let page = self.place.bank().list(&self.prefix, self.after.as_ref(), PAGE).await;
        let page = page.map_err(Error::bank(self.doing))?;
        self.ended = page.len() < PAGE;
        if let Some(last) = page.last() {
            self.after = Some(last.key.clone());
        }
        Ok(Some(page))
    }

    /// Returns all keys.
    pub(crate) async fn all(mut self) -> Result<Vec<Meta>> {
        let mut all = Vec::new();
        while let Some(page) = self.next().await? {
            all.extend(page);
        }
        Ok(all)
    }
}

/// Parses the name that a key has below its area. A key that has none was not put by this protocol: it is left
/// alone, and said.
pub(crate) fn name_of<T: std::str::FromStr>(place: &Place, area: Area, key: &Key) -> Option<T> {
    let name = place.below(area, key).and_then(|name| name.parse().ok());
    if name.is_none() {
        tracing::warn!(object.key = %key, "{key} is not of this protocol and is left alone");
    }
    name
}

/// Lists the sessions that have a key in an area.
pub(crate) async fn list_sessions(
    place: &Place,
    area: Area,
    doing: &'static str,
) -> Result<Vec<(SessionId, Meta)>> {
    let mut all = Vec::new();
    let mut listing = Listing::of(place, area, doing);
    while let Some(page) = listing.next().await? {
        all.extend(page.into_iter().filter_map(|meta| Some((name_of(place, area, &meta.key)?, meta))));
    }
    Ok(all)
}
