//! Copying a checkpoint into another account: an ordinary session there, whose source is the checkpoint here.
//!
//! Every chunk is opened and checked on the way, named by the target's key, and stored only if it is missing there.
//! Where both accounts have the same key (a copy of a whole bank), names are the same, and what is present there is
//! not even read. A copy that is begun again finds what it stored.

use std::ops::Range;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use karbor_chunk::{ChunkId, PackKind, Piece};
use karbor_types::ResourceKey;

use crate::index::blocking;
use crate::maintain::CopyCheckpoint;
use crate::read::fetch::{Batch, Lost, Step, Walk, batches};
use crate::session::Session;
use crate::write::Tally;
use crate::write::blocks::put_chunk;
use crate::write::order::{Order, Outcome};
use crate::{
    Account, BeginOptions, CheckpointInfo, CheckpointReader, CheckpointWriter, Error, Result, SessionId,
    StreamReader, StreamRecord,
};

const WINDOW_CHUNKS: usize = 256;
const BATCH_BYTES: u64 = 4 << 20;
const GAP_BYTES: u64 = 64 << 10;

/// Copies a checkpoint.
pub(crate) async fn copy(
    from: &Account,
    id: karbor_types::CheckpointId,
    to: &Account,
    session: &SessionId,
    options: &CopyCheckpoint,
) -> Result<CheckpointInfo> {
    let reader = from.read(id).await?;
    let copied = copy_from(from, &reader, to, session, options).await;
    reader.close().await?;
    copied
}

async fn copy_from(
    from: &Account,
    reader: &CheckpointReader,
    to: &Account,
    session: &SessionId,
    options: &CopyCheckpoint,
) -> Result<CheckpointInfo> {
    let writer = match to.begin(session, &BeginOptions::default()).await {
        Err(Error::AlreadyCommitted(info)) => return Ok(*info),
        begun => begun?,
    };
    if let Some(progress) = &options.progress {
        progress.total(reader.info().logical_bytes);
    }
    let same_names = from.shared.key.id() == to.shared.key.id();
    let copied = copy_resources(reader, &writer, same_names, options).await;
    if let Err(err) = copied {
        // Best effort: the reason for giving up is what counts.
        let _ = writer.abandon().await;
        return Err(err);
    }
    let metadata = options.metadata.clone().unwrap_or_else(|| reader.info().metadata.clone());
    writer.commit(options.new_id, options.created_at, metadata).await
}

async fn copy_resources(
    reader: &CheckpointReader,
    writer: &CheckpointWriter,
    same_names: bool,
    options: &CopyCheckpoint,
) -> Result<()> {
    for (key, resource) in reader.all() {
        let target = writer.resource(key);
        for (name, value) in &resource.records {
            target.put_record(name, value.clone())?;
        }
        for name in resource.streams.keys() {
            let stream = reader.open_stream(key, name).await?;
            let copied = copy_stream(&stream, &writer.session, same_names, options).await?;
            keep(&writer.session, key, name, copied, &stream)?;
        }
    }
    Ok(())
}

fn keep(
    session: &Session,
    key: &ResourceKey,
    name: &str,
    copied: StreamRecord,
    original: &StreamReader,
) -> Result<()> {
    if copied.size_bytes != original.size_bytes() {
        return Err(Error::internal(format!("the copy of stream {name} of {key} has another length")));
    }
    session.finish_stream(key, name, copied);
    Ok(())
}

/// What is shared by the work on one stream.
struct Work {
    session: Arc<Session>,
    order: Order,
    tally: Tally,
}

/// Where a chunk stands in the order of the stream, and where in its bytes.
type Spot = (u64, Range<u64>);

async fn copy_stream(
    stream: &StreamReader,
    session: &Arc<Session>,
    same_names: bool,
    options: &CopyCheckpoint,
) -> Result<StreamRecord> {
    let work = Arc::new(Work {
        session: session.clone(),
        order: Order::new(session, stream.root.cutting)?,
        tally: Tally::default(),
    });
    let mut walk = Walk::new(stream.fetcher.clone(), &stream.root, 0..stream.size_bytes());
    let mut number = 0;
    loop {
        let mut window: Vec<(ChunkId, Spot)> = Vec::new();
        let mut zeros = Vec::new();
        while window.len() < WINDOW_CHUNKS {
            let entry = match walk.next().await? {
                None => break,
                Some(Step::Entry(entry)) => entry,
                Some(Step::Lost(at, lost)) => {
                    return Err(stream.damage_error(at.offset..at.offset + at.len, lost));
                }
            };
            match entry.piece {
                Piece::Zero => zeros.push((number, entry.len)),
                Piece::Chunk(id) => window.push((id, (number, entry.offset..entry.offset + entry.len))),
            }
            number += 1;
        }
        let last = window.len() < WINDOW_CHUNKS;
        copy_window(stream, &work, window, zeros, same_names, options).await?;
        if last {
            break;
        }
    }
    let finishing = work.clone();
    let root = blocking(move || finishing.order.finish(&finishing.session, &finishing.tally)).await??;
    Ok(StreamRecord { size_bytes: root.size_bytes, root, stats: work.tally.stats() })
}

async fn copy_window(
    stream: &StreamReader,
    work: &Arc<Work>,
    window: Vec<(ChunkId, Spot)>,
    zeros: Vec<(u64, u64)>,
    same_names: bool,
    options: &CopyCheckpoint,
) -> Result<()> {
    let (all, fetcher, done) = (work.clone(), stream.fetcher.clone(), options.progress.clone());
    let (located, unknown) = blocking(move || {
        let advance = |bytes| done.iter().for_each(|progress| progress.advance(bytes, 0));
        for (number, len) in zeros {
            all.take(number, Outcome::Zero { len })?;
            advance(len);
        }
        let mut located = Vec::new();
        let mut unknown = Vec::new();
        for (id, (number, range)) in window {
            let bytes = range.end - range.start;
            let len = u32::try_from(bytes).map_err(|_| Error::damaged("a manifest"))?;
            if same_names && all.session.store.refer(&id)? {
                all.tally.known(bytes);
                all.take(number, Outcome::Chunk { id, len })?;
                advance(bytes);
                continue;
            }
            match fetcher.locate(&id)?.first() {
                Some(at) => located.push((*at, (number, range))),
                None => unknown.push((id, (number, range))),
            }
        }
        Ok::<_, Error>((located, unknown))
    })
    .await??;
    let at_once = stream.fetcher.shared.options.threads.get() + 1;
    let batches = batches(located, BATCH_BYTES, GAP_BYTES).into_iter().map(Ok::<_, Error>);
    futures::stream::iter(batches)
        .map_ok(|batch| copy_batch(stream, work, batch, options))
        .try_buffer_unordered(at_once)
        .boxed()
        .try_collect::<Vec<()>>()
        .await?;
    for (id, spot) in unknown {
        copy_single(stream, work, id, spot, options).await?;
    }
    Ok(())
}

async fn copy_batch(
    stream: &StreamReader,
    work: &Arc<Work>,
    batch: Batch<Spot>,
    options: &CopyCheckpoint,
) -> Result<()> {
    if options.cancel.is_cancelled() {
        return Err(Error::Cancelled);
    }
    let (all, done) = (work.clone(), options.progress.clone());
    let each = move |(number, range): &Spot, raw: &[u8]| {
        let stored = all.put(*number, range, raw)?;
        done.iter().for_each(|progress| progress.advance(range.end - range.start, stored));
        Ok(())
    };
    for (id, spot) in stream.fetcher.batch(batch, each).await? {
        copy_single(stream, work, id, spot, options).await?;
    }
    Ok(())
}

/// Copies a chunk that could not be read the quick way.
async fn copy_single(
    stream: &StreamReader,
    work: &Arc<Work>,
    id: ChunkId,
    (number, range): Spot,
    options: &CopyCheckpoint,
) -> Result<()> {
    let raw = match stream.fetcher.chunk(&id).await? {
        Ok(raw) => raw,
        Err(lost) => return Err(stream.damage_error(range, lost)),
    };
    if raw.len() as u64 != range.end - range.start {
        let lost = Lost { id, reason: "it has another length than its manifest says".to_owned() };
        return Err(stream.damage_error(range, lost));
    }
    let all = work.clone();
    let bytes = range.end - range.start;
    let stored = blocking(move || all.put(number, &range, &raw)).await??;
    options.progress.iter().for_each(|progress| progress.advance(bytes, stored));
    Ok(())
}

impl Work {
    fn take(&self, number: u64, outcome: Outcome) -> Result<()> {
        let codecs = &self.session.shared.codecs;
        codecs.compressing(|compressor| {
            self.order.take(number, outcome, &self.session, &self.tally, compressor)
        })
    }

    /// Stores a chunk under its name in the target.
    fn put(&self, number: u64, range: &Range<u64>, raw: &[u8]) -> Result<u64> {
        let shared = &self.session.shared;
        if raw.len() as u64 != range.end - range.start {
            return Err(Error::damaged("a manifest: a chunk has another length than it says, and"));
        }
        let len = u32::try_from(raw.len()).map_err(|_| Error::internal("a chunk beyond all sizes"))?;
        self.tally.read(u64::from(len));
        let id = shared.namer.chunk_id(PackKind::Data, raw);
        shared.codecs.compressing(|compressor| {
            let stored = put_chunk(&self.session, &self.tally, PackKind::Data, id, raw, compressor)?;
            self.order.take(number, Outcome::Chunk { id, len }, &self.session, &self.tally, compressor)?;
            Ok(stored)
        })
    }
}
