//! Bad chunks: what was found damaged leaves deduplication at once.
//!
//! `bad/<pack hash>/<chunk id>` says that this chunk cannot be read from that pack, `bad/<pack hash>/pack` that the
//! pack's bytes are not those of its name (found without a key, so nobody knows which chunks suffer). Both are put
//! create-only and hold nothing that is decided on. Writers list them when they begin and before they commit: a bad
//! copy does not count as present, so that the chunk is stored again by the next backup that meets it. Readers try
//! other copies first, and a bad one last: what is damaged may still be whole where it matters.
//! A marker whose pack is gone means nothing and is removed by a sweep.

use std::collections::{HashMap, HashSet};

use karbor_bank::{ErrorKind, Key, PutMode};
use karbor_chunk::ChunkId;
use karbor_sweep::{ObjectHash, Place};

use crate::{Error, Result};

const WHOLE: &str = "pack";

/// The markers of an account.
#[derive(Debug, Default)]
pub(crate) struct BadChunks {
    packs: HashMap<ObjectHash, BadPack>,
}

#[derive(Debug, Default)]
struct BadPack {
    whole: bool,
    chunks: HashSet<ChunkId>,
}

impl BadChunks {
    /// Lists the markers.
    pub(crate) async fn read(place: &Place) -> Result<Self> {
        let prefix = format!("{}/bad/", place.prefix());
        let mut bad = Self::default();
        let mut after: Option<Key> = None;
        loop {
            let page = place.bank().list(&prefix, after.as_ref(), 1000).await;
            let page = page.map_err(|err| Error::bank("listing bad chunks", err))?;
            for meta in &page {
                let Some((pack, chunk)) =
                    meta.key.as_str().strip_prefix(&prefix).and_then(|below| below.split_once('/'))
                else {
                    continue;
                };
                let Ok(pack) = pack.parse::<ObjectHash>() else { continue };
                if chunk == WHOLE {
                    bad.packs.entry(pack).or_default().whole = true;
                } else if let Ok(chunk) = chunk.parse() {
                    bad.packs.entry(pack).or_default().chunks.insert(chunk);
                }
            }
            if page.len() < 1000 {
                return Ok(bad);
            }
            after = page.into_iter().next_back().map(|meta| meta.key);
        }
    }

    /// Returns whether nothing is bad.
    pub(crate) fn is_empty(&self) -> bool {
        self.packs.is_empty()
    }

    /// Returns whether this copy of a chunk does not count.
    pub(crate) fn is_bad(&self, pack: &ObjectHash, chunk: &ChunkId) -> bool {
        self.packs.get(pack).is_some_and(|bad| bad.whole || bad.chunks.contains(chunk))
    }

    /// Returns whether no copy in this pack counts.
    pub(crate) fn is_pack(&self, pack: &ObjectHash) -> bool {
        self.packs.get(pack).is_some_and(|bad| bad.whole)
    }

    /// Returns whether any copy in this pack does not count.
    pub(crate) fn has_any(&self, pack: &ObjectHash) -> bool {
        self.packs.contains_key(pack)
    }

    /// Returns the packs that have markers.
    pub(crate) fn packs(&self) -> impl Iterator<Item = &ObjectHash> {
        self.packs.keys()
    }
}

/// Marks one chunk of a pack.
pub(crate) async fn mark_chunk(place: &Place, pack: &ObjectHash, chunk: &ChunkId) -> Result<()> {
    mark(place, pack, &chunk.to_string()).await
}

/// Marks a whole pack.
pub(crate) async fn mark_pack(place: &Place, pack: &ObjectHash) -> Result<()> {
    mark(place, pack, WHOLE).await
}

async fn mark(place: &Place, pack: &ObjectHash, what: &str) -> Result<()> {
    let key = key_of(place, pack, what)?;
    let body = bytes::Bytes::from_static(b"{\"format\":1}");
    match place.bank().put(&key, vec![body], PutMode::Create).await {
        Err(err) if err.kind != ErrorKind::AlreadyExists => Err(Error::bank("marking a bad chunk", err)),
        _ => Ok(()),
    }
}

/// Removes the markers of a pack.
pub(crate) async fn unmark(place: &Place, pack: &ObjectHash) -> Result<()> {
    let prefix = format!("{}/bad/{pack}/", place.prefix());
    loop {
        let page = place.bank().list(&prefix, None, 1000).await;
        let page = page.map_err(|err| Error::bank("listing bad chunks", err))?;
        for meta in &page {
            let removed = place.bank().delete(&meta.key).await;
            removed.map_err(|err| Error::bank("removing the mark of a bad chunk", err))?;
        }
        if page.len() < 1000 {
            return Ok(());
        }
    }
}

fn key_of(place: &Place, pack: &ObjectHash, what: &str) -> Result<Key> {
    Key::new(format!("{}/bad/{pack}/{what}", place.prefix())).map_err(|err| Error::internal(err.to_string()))
}
