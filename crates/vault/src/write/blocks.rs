//! Streams of blocks: read, named, compressed and sealed on all cores, each piece on one.
//!
//! A plan, behind a lock, says what comes next: a piece to read, a hole, or what is known to be unchanged. Each
//! thread takes the next step, deals with it from reading to sealing in its own buffers, and hands the outcome to
//! the manifest, which takes outcomes in the order of the stream.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use karbor_chunk::{ChunkId, Compressor, Cutting, PackKind, is_zero};
use karbor_types::ResourceKey;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use crate::index::blocking;
use crate::session::Session;
use crate::write::order::{Order, Outcome};
use crate::write::plan::{Plan, Planned};
use crate::write::store::Put;
use crate::write::{BlockOptions, StreamRecord, Tally};
use crate::{BlockSource, Error, ProgressSink, Result};

const DEFAULT_CHUNK_BYTES: u32 = 1 << 20;
const LEAST_CHUNK_BYTES: u32 = 64 << 10;

/// What the threads of one stream share.
struct Job {
    session: Arc<Session>,
    source: Arc<dyn BlockSource>,
    plan: Plan,
    order: Order,
    chunk_bytes: usize,
    tally: Tally,
    progress: Option<Arc<dyn ProgressSink>>,
    stop: CancellationToken,
    runtime: Handle,
}

/// Stores a source.
pub(crate) async fn put(
    session: &Arc<Session>,
    key: &ResourceKey,
    name: &str,
    source: Arc<dyn BlockSource>,
    options: &BlockOptions,
) -> Result<StreamRecord> {
    session.store.packer().check()?;
    let chunk_bytes = options.chunk_bytes.unwrap_or(DEFAULT_CHUNK_BYTES);
    let sizes = LEAST_CHUNK_BYTES..=karbor_chunk::MAX_CHUNK_BYTES;
    if !chunk_bytes.is_power_of_two() || !sizes.contains(&chunk_bytes) {
        return Err(Error::invalid(format!("{chunk_bytes} is not a power of two from 64 KiB to 8 MiB")));
    }
    let cutting = Cutting::Fixed { chunk_bytes };
    let size = source.size_bytes();
    if let Some(progress) = &options.progress {
        progress.total(size);
    }
    let base = session.base_stream(key, name).filter(|base| base.cutting == cutting);
    let plan = Plan::new(source.clone(), chunk_bytes, base, options.changed.as_deref(), session.clone());
    let stop = options.cancel.child_token();
    let _stopped_when_dropped = stop.clone().drop_guard();
    let job = Arc::new(Job {
        order: Order::new(session, cutting)?,
        session: session.clone(),
        source: source.clone(),
        plan,
        chunk_bytes: usize::try_from(chunk_bytes).map_err(|_| Error::invalid("a chunk size"))?,
        tally: Tally::default(),
        progress: options.progress.clone(),
        stop: stop.clone(),
        runtime: Handle::current(),
    });
    let pieces = size.div_ceil(u64::from(chunk_bytes));
    let permits = workers(session, pieces).await?;
    let mut threads = tokio::task::JoinSet::new();
    for permit in permits {
        let job = job.clone();
        threads.spawn_blocking(move || {
            let done = job.work();
            if done.is_err() {
                // The others have nothing left to work for.
                job.stop.cancel();
            }
            drop(permit);
            done
        });
    }
    let mut failed: Option<Error> = None;
    while let Some(done) = threads.join_next().await {
        let done = done.map_err(|err| Error::internal(format!("a worker thread ended early: {err}")));
        if let Err(err) = done.and_then(|done| done) {
            // A thread that was stopped because of another's failure is not the reason.
            if failed.as_ref().is_none_or(|first| matches!(first, Error::Cancelled)) {
                failed = Some(err);
            }
        }
    }
    if let Some(failed) = failed {
        return Err(failed);
    }
    let what = source.name();
    let changed = blocking(move || source.changed()).await?;
    if let Some(how) = changed.map_err(|source| Error::SourceIo { what: what.clone(), source })? {
        return Err(Error::SourceChanged { what, how });
    }
    let last = job.clone();
    let root = blocking(move || last.order.finish(&last.session, &last.tally)).await??;
    if root.size_bytes != size {
        return Err(Error::internal("a manifest is not as long as its source"));
    }
    Ok(StreamRecord { size_bytes: size, root, stats: job.tally.stats() })
}

/// Waits for one thread, and takes more if they are free.
async fn workers(session: &Session, pieces: u64) -> Result<Vec<OwnedSemaphorePermit>> {
    let most = session.shared.options.threads.get();
    let most = usize::try_from(pieces).unwrap_or(usize::MAX).clamp(1, most);
    let all = session.shared.workers.clone();
    let first = all.clone().acquire_owned().await;
    let mut permits = vec![first.map_err(|err| Error::internal(err.to_string()))?];
    while permits.len() < most {
        let Ok(permit) = all.clone().try_acquire_owned() else { break };
        permits.push(permit);
    }
    Ok(permits)
}

impl Job {
    fn work(&self) -> Result<()> {
        let mut buffer = Vec::new();
        self.session.shared.codecs.compressing(|compressor| {
            loop {
                if self.stop.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                let Some((number, planned)) = self.plan.next(&self.runtime)? else { return Ok(()) };
                let (outcome, len, stored) = self.step(planned, &mut buffer, compressor)?;
                self.order.take(number, outcome, &self.session, &self.tally, compressor)?;
                self.tell(len, stored);
            }
        })
    }

    fn step(
        &self,
        planned: Planned,
        buffer: &mut Vec<u8>,
        compressor: &mut Compressor,
    ) -> Result<(Outcome, u64, u64)> {
        match planned {
            Planned::Zero { len } => Ok((Outcome::Zero { len }, len, 0)),
            Planned::Known { id, len } => {
                self.tally.known(u64::from(len));
                self.session.counts.known_chunks.fetch_add(1, Ordering::Relaxed);
                Ok((Outcome::Chunk { id, len }, u64::from(len), 0))
            }
            Planned::Subtree { node } => Ok((Outcome::Subtree { node }, node.len, 0)),
            Planned::Read { range, expected } => self.read(range, expected, buffer, compressor),
        }
    }

    fn read(
        &self,
        range: Range<u64>,
        expected: Option<ChunkId>,
        buffer: &mut Vec<u8>,
        compressor: &mut Compressor,
    ) -> Result<(Outcome, u64, u64)> {
        let bytes = range.end - range.start;
        let len = u32::try_from(bytes).map_err(|_| Error::internal("a piece beyond all sizes"))?;
        if buffer.len() < self.chunk_bytes {
            buffer.resize(self.chunk_bytes, 0);
        }
        let size = usize::try_from(len).map_err(|_| Error::internal("a piece beyond all sizes"))?;
        let piece = &mut buffer[..size];
        self.source.read_at(range.start, piece).map_err(|source| Error::SourceIo {
            what: format!("{} at byte {}", self.source.name(), range.start),
            source,
        })?;
        let counts = &self.session.counts;
        counts.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.tally.read(bytes);
        if is_zero(piece) {
            return Ok((Outcome::Zero { len: bytes }, bytes, 0));
        }
        let id = self.session.shared.namer.chunk_id(PackKind::Data, piece);
        if expected == Some(id) {
            self.tally.known(bytes);
            counts.known_chunks.fetch_add(1, Ordering::Relaxed);
            return Ok((Outcome::Chunk { id, len }, bytes, 0));
        }
        let stored = put_chunk(&self.session, &self.tally, PackKind::Data, id, piece, compressor)?;
        Ok((Outcome::Chunk { id, len }, bytes, stored))
    }

    fn tell(&self, len: u64, stored: u64) {
        self.session.counts.source_bytes.fetch_add(len, Ordering::Relaxed);
        let Some(progress) = &self.progress else { return };
        progress.advance(len, stored);
    }
}

/// Stores a data chunk and counts it; returns how many bytes it takes if it is new.
pub(crate) fn put_chunk(
    session: &Session,
    tally: &Tally,
    kind: PackKind,
    id: ChunkId,
    raw: &[u8],
    compressor: &mut Compressor,
) -> Result<u64> {
    let counts = &session.counts;
    match session.store.put(kind, id, raw, compressor)? {
        Put::Known => {
            if kind == PackKind::Data {
                tally.known(raw.len() as u64);
                counts.known_chunks.fetch_add(1, Ordering::Relaxed);
            }
            Ok(0)
        }
        Put::New(stored) => {
            if kind == PackKind::Data {
                tally.new_chunk(raw.len() as u64, u64::from(stored));
                counts.new_chunks.fetch_add(1, Ordering::Relaxed);
                counts.new_bytes.fetch_add(raw.len() as u64, Ordering::Relaxed);
            } else {
                tally.new_node(u64::from(stored));
            }
            Ok(u64::from(stored))
        }
    }
}
