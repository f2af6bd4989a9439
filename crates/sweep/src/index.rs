//! Index objects: listing them, merging them, removing them.
//!
//! Why merging is safe beside paused mergers: a mention of a pack counts or not by the pack alone (is it gone, is
//! it condemned), never by where or when it was mentioned, so an index object that comes back late can only repeat
//! what is true or what counts for nothing. And a merged object is put, under a key that is used once, before
//! those that it stands for are removed: at any moment every pack that is not gone is mentioned somewhere.

use bytes::Bytes;
use karbor_bank::Key;
use uuid::Uuid;

use crate::io::{self, Listing};
use crate::place::Area;
use crate::rule::{Rule, kept};
use crate::{InvalidName, ObjectHash, Place, Result, SessionId};

const REMOVING: &str = "removing index objects";

/// An index object that was listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexObject {
    /// Its key; the last segment is the hash of its bytes.
    pub key: Key,
    /// Its size.
    pub size_bytes: u64,
    /// Who put it.
    pub owner: IndexOwner,
    /// The hash of its bytes.
    pub hash: ObjectHash,
}

/// Who put an index object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum IndexOwner {
    /// A session, for its own packs and no others.
    Session(SessionId),
    /// A merge of index objects, or whoever mentions packs of other sessions.
    Merge(Uuid),
}

/// The name of an index object: `<session>/<hash>` or `merged-<uuid>/<hash>`.
struct IndexName(IndexOwner, ObjectHash);

impl std::str::FromStr for IndexName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName { what: "the name of an index object", text: text.to_owned() };
        let (owner, hash) = text.split_once('/').ok_or_else(invalid)?;
        let owner = match owner.strip_prefix("merged-") {
            Some(merge) => IndexOwner::Merge(Uuid::try_parse(merge).map_err(|_| invalid())?),
            None => IndexOwner::Session(owner.parse()?),
        };
        Ok(Self(owner, hash.parse()?))
    }
}

/// Lists all index objects, in order of their keys.
///
/// One that is not there any more when it is read was merged or of no use: list again.
///
/// # Errors
/// What the bank says.
pub async fn list_index(place: &Place) -> Result<Vec<IndexObject>> {
    let mut all = Vec::new();
    let mut listing = Listing::of(place, Area::Index, "listing the index");
    while let Some(page) = listing.next().await? {
        all.extend(page.into_iter().filter_map(|meta| {
            let IndexName(owner, hash) = io::name_of(place, Area::Index, &meta.key)?;
            Some(IndexObject { key: meta.key, size_bytes: meta.size_bytes, owner, hash })
        }));
    }
    Ok(all)
}

/// Puts a merged index object, then removes those that it stands for. Returns its key.
///
/// `merge` is a new random UUID for every call. `bytes` mentions every pack that the replaced objects mention and
/// that is not gone ([`crate::Gone::contains`]). Without replaced objects it just adds mentions of packs of other
/// sessions: a session's own index objects mention its own packs only, because they go with the session.
///
/// # Errors
/// What the bank says. After an error, merge again under a new UUID.
pub async fn publish_merged(place: &Place, merge: Uuid, bytes: Bytes, replaced: &[Key]) -> Result<Key> {
    let key = place.merged_index_key(&merge, &ObjectHash::of(&bytes));
    if !kept(Rule::MergeBeforeRemove) {
        remove_index(place, replaced).await?;
    }
    io::put_once(place, &key, &bytes, "putting a merged index object").await?;
    if kept(Rule::MergeBeforeRemove) {
        remove_index(place, replaced).await?;
    }
    Ok(key)
}

/// Removes index objects that mention only packs that are gone ([`crate::Gone::contains`]).
///
/// # Errors
/// What the bank says.
pub async fn remove_index(place: &Place, keys: &[Key]) -> Result<()> {
    for key in keys {
        io::remove(place, key, REMOVING).await?;
    }
    Ok(())
}
