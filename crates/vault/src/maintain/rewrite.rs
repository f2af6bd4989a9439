//! Rewriting packs that are mostly dead: what lives in them is stored again, by an ordinary session.
//!
//! Nothing is removed here. The next marking finds every living chunk of such a pack in a fuller one and needs the
//! old pack no more, so it is condemned by the rules that hold for any pack. Interrupted anywhere, there are a few
//! chunks twice until then.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use karbor_chunk::{ChunkId, PackEntry, PackKind};
use karbor_sweep::{Kind, SessionId, SessionRecord, WriterSession};
use karbor_types::Epoch;
use tokio_util::sync::CancellationToken;

use crate::account::Shared;
use crate::bad::BadChunks;
use crate::index::{Location, RunEntry, blocking};
use crate::maintain::mark::Marked;
use crate::read::fetch::{Fetcher, batches};
use crate::write::packer::{Indexed, Packer, Uploaded};
use crate::{Error, Result};

/// How many packs are looked for at once: their living chunks are held in memory, by name.
const PACKS_AT_ONCE: usize = 512;

struct Nobody;

impl Indexed for Nobody {
    fn indexed(&self, _packs: Uploaded) {}
}

/// Stores again what lives in these packs of the snapshot.
pub(crate) async fn rewrite(
    shared: &Arc<Shared>,
    marked: &Marked,
    packs: &[u32],
    cancel: &CancellationToken,
) -> Result<()> {
    let id = SessionId::new(shared.random_uuid()?, Epoch(0));
    let mut record = SessionRecord::new(Kind::Rewrite, Vec::new(), shared.nonce()?);
    record.by.clone_from(&shared.options.by);
    let session = WriterSession::begin(&shared.place, id, record).await.map_err(Error::protocol)?;
    let nobody: Arc<dyn Indexed> = Arc::new(Nobody);
    let packer = Packer::new(shared.clone(), id, Arc::downgrade(&nobody));
    let fetcher = Fetcher::new(shared.clone(), Arc::new(BadChunks::default()));
    let all: Arc<HashSet<u32>> = Arc::new(packs.iter().copied().collect());
    let bad = Arc::new(BadChunks::read(&shared.place).await?);
    let mut done = Ok(());
    for some in packs.chunks(PACKS_AT_ONCE) {
        let living = living(shared, marked, some, &all, &bad).await?;
        done = store_again(shared, marked, living, &packer, &fetcher, cancel).await;
        if done.is_err() {
            break;
        }
    }
    let flushed = match &done {
        Ok(()) => packer.flush().await,
        Err(_) => Ok(()),
    };
    shared.buffers.release();
    session.close().await.map_err(Error::protocol)?;
    done.and(flushed)
}

/// Returns the chunks that live in `packs` and have no other good copy that stays.
async fn living(
    shared: &Arc<Shared>,
    marked: &Marked,
    packs: &[u32],
    all: &Arc<HashSet<u32>>,
    bad: &Arc<BadChunks>,
) -> Result<HashMap<u32, Vec<PackEntry>>> {
    let wanted: HashSet<u32> = packs.iter().copied().collect();
    let (all, bad, standing) = (all.clone(), bad.clone(), marked.standing.clone());
    let (snapshot, scanning) = (marked.snapshot.clone(), shared.clone());
    blocking(move || {
        let mut living: HashMap<u32, Vec<PackEntry>> = HashMap::new();
        let mut copies: Vec<RunEntry> = Vec::new();
        let mut settle = |copies: &mut Vec<RunEntry>| {
            let stays = |copy: &RunEntry| {
                let pack = copy.pack as usize;
                standing[pack]
                    && !all.contains(&copy.pack)
                    && !bad.is_bad(&snapshot.packs[pack].hash, &copy.chunk.id)
            };
            if !copies.iter().any(stays)
                && let Some(copy) = copies.iter().find(|copy| wanted.contains(&copy.pack))
            {
                living.entry(copy.pack).or_default().push(copy.chunk);
            }
            copies.clear();
        };
        let mut collect = |entry: RunEntry, reached: bool| {
            if copies.first().is_some_and(|first| first.chunk.id != entry.chunk.id) {
                settle(&mut copies);
            }
            if reached {
                copies.push(entry);
            }
            Ok(())
        };
        snapshot.scan(&mut collect, &scanning)?;
        settle(&mut copies);
        Ok(living)
    })
    .await?
}

async fn store_again(
    shared: &Arc<Shared>,
    marked: &Marked,
    living: HashMap<u32, Vec<PackEntry>>,
    packer: &Arc<Packer>,
    fetcher: &Arc<Fetcher>,
    cancel: &CancellationToken,
) -> Result<()> {
    let mut located: Vec<(Location, (ChunkId, PackKind))> = Vec::new();
    for (number, chunks) in living {
        let pack = marked.snapshot.run.pack(number).map_err(|source| shared.cache.error(source))?;
        for chunk in chunks {
            located.push((Location { pack, chunk }, (chunk.id, pack.info.kind)));
        }
    }
    let work = futures::stream::iter(batches(located, 4 << 20, 64 << 10).into_iter().map(Ok::<_, Error>));
    let at_once = shared.options.threads.get() + 1;
    let stored = work.map_ok(|batch| async move {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let (sink, codecs) = (packer.clone(), shared.clone());
        let each = move |(id, kind): &(ChunkId, PackKind), raw: &[u8]| {
            codecs.codecs.compressing(|compressor| sink.push(*kind, *id, raw, compressor).map(|_| ()))
        };
        // What cannot be read here stays where it is: it is for a verification to say what that means.
        fetcher.batch(batch, each).await.map(|_| ())
    });
    stored.try_buffer_unordered(at_once).boxed().try_collect::<Vec<()>>().await?;
    Ok(())
}
