//! Small index objects become one, so that their number does not grow with the number of backups for ever.

use std::collections::BTreeMap;
use std::sync::Arc;

use karbor_bank::{ErrorKind, Key};
use karbor_chunk::{IndexBuilder, IndexDecoder, IndexItem, PackEntry, PackRef, Salt};
use karbor_sweep::{Gone, IndexObject, PackName};
use tokio_util::sync::CancellationToken;

use crate::account::Shared;
use crate::index::{blocking, pack_name};
use crate::{Error, Result};

/// Objects smaller than this are merged.
const SMALL_BYTES: u64 = 1 << 20;
/// Merging is worth it when there are so many small ones.
const LEAST_OBJECTS: usize = 64;
/// How large merged objects become.
const MOST_BYTES: u64 = 4 << 20;

/// Merges small index objects, if there are many.
pub(crate) async fn merge(shared: &Arc<Shared>, cancel: &CancellationToken) -> Result<()> {
    let listed = karbor_sweep::list_index(&shared.place).await.map_err(Error::protocol)?;
    let small: Vec<IndexObject> =
        listed.into_iter().filter(|object| object.size_bytes < SMALL_BYTES).collect();
    if small.len() < LEAST_OBJECTS {
        return Ok(());
    }
    // Read after the listing: what is gone by now is left out of the merged object.
    let gone = Gone::read(&shared.place).await.map_err(Error::protocol)?;
    let mut group = Group::default();
    for object in small {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        if group.bytes + object.size_bytes > MOST_BYTES {
            publish(shared, std::mem::take(&mut group)).await?;
        }
        group.add(shared, &object, &gone).await?;
    }
    publish(shared, group).await
}

#[derive(Default)]
struct Group {
    keys: Vec<Key>,
    bytes: u64,
    packs: BTreeMap<PackName, (PackRef, Vec<PackEntry>)>,
}

impl Group {
    async fn add(&mut self, shared: &Shared, object: &IndexObject, gone: &Gone) -> Result<()> {
        let bytes = match shared.place.bank().get(&object.key, None).await {
            Ok(found) => found.bytes,
            Err(err) if err.kind == ErrorKind::NotFound => return Ok(()),
            Err(err) => return Err(Error::bank("reading the index", err)),
        };
        let Ok(packs) = read(shared, &bytes) else {
            // A damaged object is left for a rebuild; nothing is lost by not merging it.
            return Ok(());
        };
        for (pack, chunks) in packs {
            let name = pack_name(&pack);
            if !gone.contains(&name) {
                self.packs.insert(name, (pack, chunks));
            }
        }
        self.bytes += object.size_bytes;
        self.keys.push(object.key.clone());
        Ok(())
    }
}

/// Returns what an index object tells, by pack.
pub(crate) fn read(shared: &Shared, bytes: &[u8]) -> karbor_chunk::Result<Vec<(PackRef, Vec<PackEntry>)>> {
    let mut packs: Vec<(PackRef, Vec<PackEntry>)> = Vec::new();
    let mut decoder = IndexDecoder::new(&shared.key);
    decoder.feed(bytes, &mut |item| match item {
        IndexItem::Counts { .. } => {}
        IndexItem::Pack(pack) => packs.push((pack, Vec::new())),
        IndexItem::Chunk(entry) => {
            if let Some((_, chunks)) = packs.get_mut(entry.pack as usize) {
                chunks.push(entry.chunk);
            }
        }
    })?;
    decoder.finish()?;
    for (_, chunks) in &mut packs {
        chunks.sort_unstable_by_key(|chunk| chunk.offset);
    }
    Ok(packs)
}

async fn publish(shared: &Arc<Shared>, group: Group) -> Result<()> {
    if group.keys.len() < 2 || group.packs.is_empty() {
        return Ok(());
    }
    let bytes = seal(shared, group.packs.into_values().collect()).await?;
    let merge = shared.random_uuid()?;
    karbor_sweep::publish_merged(&shared.place, merge, bytes.into(), &group.keys)
        .await
        .map_err(Error::protocol)?;
    Ok(())
}

/// Seals an index object of these packs.
pub(crate) async fn seal(shared: &Arc<Shared>, packs: Vec<(PackRef, Vec<PackEntry>)>) -> Result<Vec<u8>> {
    let shared = shared.clone();
    let sealed = blocking(move || {
        let mut builder = IndexBuilder::new();
        for (pack, chunks) in &packs {
            builder.add_pack(*pack, chunks)?;
        }
        builder.finish(&shared.key, Salt::generate(shared.entropy.as_ref())?)
    });
    Ok(sealed.await?.map_err(|err| Error::chunk("a new index object", err))?.bytes)
}
