//! Composing: a stream made of segments that are produced on the pipeline's own threads or taken over from the base.
//!
//! This is how directory trees are stored. The bytes of many files are one stream; a *segment* is a part of it at
//! whose borders cutting starts anew, so that a segment nothing in which has changed is a reference to the base's
//! chunks and is not read. Segments are produced in parallel and stand in the stream in the order they were given.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use karbor_chunk::{ContentSizes, Cut, Cutting, PackKind, Piece, StreamRoot, is_zero};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::index::blocking;
use crate::read::fetch::{Step, Walk};
use crate::session::Session;
use crate::write::Tally;
use crate::write::blocks::put_chunk;
use crate::write::order::{Order, Outcome};
use crate::{Error, ProgressSink, ResourceWriter, Result, StreamRecord};

/// How many segments may have their place before the receiver has heard of them.
const UNHEARD_SEGMENTS: usize = 64;

/// Appends a segment's bytes to the empty buffer it is given. Runs on a thread of the pipeline and may block.
/// An error ends the stream.
pub type Produce = Box<dyn FnOnce(&mut Vec<u8>) -> io::Result<()> + Send>;

/// How finely a segment is cut by content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    /// About 64 KiB: for many small files, of which a few will change.
    Fine,
    /// About 1 MiB: for large files.
    Coarse,
}

impl Grain {
    fn sizes(self) -> ContentSizes {
        match self {
            Self::Fine => ContentSizes { min_bytes: 16 << 10, average_bytes: 64 << 10, max_bytes: 256 << 10 },
            Self::Coarse => ContentSizes::default(),
        }
    }
}

/// How a composed stream is stored.
#[derive(Clone, Default)]
pub struct ComposeOptions {
    /// Hears of progress.
    pub progress: Option<Arc<dyn ProgressSink>>,
    /// Stops the work.
    pub cancel: CancellationToken,
}

/// A segment that has its place in the stream: completions come in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// What the caller named it.
    pub tag: u64,
    /// Where it is in the stream.
    pub range: Range<u64>,
}

/// A stream that is being composed.
pub struct Composer {
    writer: ResourceWriter,
    name: String,
    options: ComposeOptions,
    base: Option<StreamRoot>,
    order: Arc<Order>,
    tally: Arc<Tally>,
    number: u64,
    offset: u64,
    at_once: usize,
    running: FuturesOrdered<BoxFuture<'static, Result<Placed>>>,
    idle: Vec<Vec<u8>>,
    heard: mpsc::Sender<Segment>,
}

/// A segment whose chunks are stored.
struct Placed {
    tag: u64,
    len: u64,
    buffer: Option<Vec<u8>>,
}

impl ResourceWriter {
    /// Begins a composed stream. The receiver hears of each segment, in order, once its place is known; it must be
    /// read, or the stream comes to a halt.
    ///
    /// # Errors
    /// What the bank says when the base's manifest is looked at.
    #[expect(
        clippy::unused_async,
        reason = "callers must not mind whether the base is looked at now or later"
    )]
    pub async fn compose(
        &self,
        name: &str,
        options: &ComposeOptions,
    ) -> Result<(Composer, mpsc::Receiver<Segment>)> {
        let session = &self.writer.session;
        session.store.packer().check()?;
        let (heard, segments) = mpsc::channel(UNHEARD_SEGMENTS);
        let composer = Composer {
            name: name.to_owned(),
            options: options.clone(),
            base: session.base_stream(&self.key, name),
            order: Arc::new(Order::new(session, Cutting::content(ContentSizes::default()))?),
            tally: Arc::default(),
            number: 0,
            offset: 0,
            at_once: session.shared.options.threads.get() + 1,
            running: FuturesOrdered::new(),
            idle: Vec::new(),
            heard,
            writer: self.clone(),
        };
        Ok((composer, segments))
    }
}

impl Composer {
    fn session(&self) -> &Arc<Session> {
        &self.writer.writer.session
    }

    /// Appends a segment that `produce` makes (at most 16 MiB). Waits while the memory budget is used up.
    ///
    /// # Errors
    /// Of this or an earlier segment: what producing or storing met.
    pub async fn produce(&mut self, tag: u64, grain: Grain, produce: Produce) -> Result<()> {
        let number = self.make_room().await?;
        let session = self.session().clone();
        let permit = session.shared.workers.clone().acquire_owned().await;
        let permit = permit.map_err(|err| Error::internal(err.to_string()))?;
        let work = Work {
            session,
            order: self.order.clone(),
            tally: self.tally.clone(),
            progress: self.options.progress.clone(),
            number,
            tag,
        };
        let what = self.name.clone();
        let mut buffer = self.idle.pop().unwrap_or_default();
        let running = tokio::spawn(blocking(move || {
            buffer.clear();
            let made = produce(&mut buffer).map_err(|source| Error::SourceIo { what, source });
            let placed = made.and_then(|()| work.store(buffer, grain));
            drop(permit);
            placed
        }));
        self.running.push_back(Box::pin(async move {
            let done = running.await;
            done.map_err(|err| Error::internal(format!("a worker thread ended early: {err}")))??
        }));
        Ok(())
    }

    /// Appends a range of the base checkpoint's stream of the same resource and name, by reference. Returns
    /// whether that could be done: the range must begin and end at borders of chunks, and the base must be pinned.
    ///
    /// # Errors
    /// What the bank says when the base's manifest is looked at.
    pub async fn reuse(&mut self, tag: u64, range: Range<u64>) -> Result<bool> {
        let Some(base) = self.base else { return Ok(false) };
        if range.start >= range.end || range.end > base.size_bytes {
            return Ok(false);
        }
        let session = self.session().clone();
        let trusted = session.store.bad().is_empty();
        let mut walk = Walk::new(session.fetcher.clone(), &base, range.clone());
        let mut outcomes = Vec::new();
        let mut at = range.start;
        while let Some(step) = walk.next().await? {
            let Step::Entry(entry) = step else { return Ok(false) };
            if entry.offset != at {
                return Ok(false);
            }
            at += entry.len;
            outcomes.push(match entry.piece {
                Piece::Zero => Outcome::Zero { len: entry.len },
                Piece::Chunk(id) => {
                    // A chunk that is marked bad is stored again, from the file.
                    if !trusted && !session.store.refer(&id)? {
                        return Ok(false);
                    }
                    let len = u32::try_from(entry.len).map_err(|_| Error::damaged("a manifest"))?;
                    Outcome::Chunk { id, len }
                }
            });
        }
        if at != range.end {
            return Ok(false);
        }
        let number = self.make_room().await?;
        let (order, tally, progress) =
            (self.order.clone(), self.tally.clone(), self.options.progress.clone());
        let len = range.end - range.start;
        let running = tokio::spawn(blocking(move || {
            for outcome in &outcomes {
                if let Outcome::Chunk { len, .. } = outcome {
                    tally.known(u64::from(*len));
                }
            }
            session.shared.codecs.compressing(|compressor| {
                order.take(number, Outcome::Many(outcomes), &session, &tally, compressor)
            })?;
            session.counts.source_bytes.fetch_add(len, std::sync::atomic::Ordering::Relaxed);
            if let Some(progress) = progress {
                progress.advance(len, 0);
            }
            Ok(Placed { tag, len, buffer: None })
        }));
        self.running.push_back(Box::pin(async move {
            let done = running.await;
            done.map_err(|err| Error::internal(format!("a worker thread ended early: {err}")))??
        }));
        Ok(true)
    }

    /// Waits until another segment may be begun, and returns its number.
    async fn make_room(&mut self) -> Result<u64> {
        if self.options.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        while self.running.len() >= self.at_once {
            self.settle().await?;
        }
        self.number += 1;
        Ok(self.number - 1)
    }

    async fn settle(&mut self) -> Result<()> {
        let Some(placed) = self.running.next().await else { return Ok(()) };
        let placed = placed?;
        self.idle.extend(placed.buffer);
        let range = self.offset..self.offset + placed.len;
        self.offset = range.end;
        // Who has dropped the receiver does not want to hear.
        let _ = self.heard.send(Segment { tag: placed.tag, range }).await;
        Ok(())
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// What producing or storing met.
    pub async fn finish(mut self) -> Result<StreamRecord> {
        while !self.running.is_empty() {
            self.settle().await?;
        }
        let (session, order, tally) = (self.session().clone(), self.order.clone(), self.tally.clone());
        let root = blocking(move || order.finish(&session, &tally)).await??;
        let stream = StreamRecord { size_bytes: root.size_bytes, root, stats: self.tally.stats() };
        self.session().finish_stream(&self.writer.key, &self.name, stream);
        Ok(stream)
    }
}

/// Cuts and stores one segment.
struct Work {
    session: Arc<Session>,
    order: Arc<Order>,
    tally: Arc<Tally>,
    progress: Option<Arc<dyn ProgressSink>>,
    number: u64,
    tag: u64,
}

impl Work {
    fn store(self, buffer: Vec<u8>, grain: Grain) -> Result<Placed> {
        let Self { session, order, tally, progress, number, tag } = self;
        let len = buffer.len() as u64;
        let cutter = session.shared.key.cutter(&Cutting::content(grain.sizes()));
        let mut cutter: Box<dyn Cut + Send> = cutter.map_err(|err| Error::chunk("a cutter", err))?;
        let mut outcomes = Vec::new();
        let mut stored = 0;
        session.shared.codecs.compressing(|compressor| {
            let mut rest = buffer.as_slice();
            while !rest.is_empty() {
                let end = cutter.find(rest).unwrap_or(rest.len()).clamp(1, rest.len());
                let (chunk, after) = rest.split_at(end);
                rest = after;
                if is_zero(chunk) {
                    outcomes.push(Outcome::Zero { len: chunk.len() as u64 });
                    continue;
                }
                let id = session.shared.namer.chunk_id(PackKind::Data, chunk);
                stored += put_chunk(&session, &tally, PackKind::Data, id, chunk, compressor)?;
                let len =
                    u32::try_from(chunk.len()).map_err(|_| Error::internal("a chunk beyond all sizes"))?;
                outcomes.push(Outcome::Chunk { id, len });
            }
            order.take(number, Outcome::Many(outcomes), &session, &tally, compressor)
        })?;
        tally.read(len);
        session.counts.read_bytes.fetch_add(len, std::sync::atomic::Ordering::Relaxed);
        session.counts.source_bytes.fetch_add(len, std::sync::atomic::Ordering::Relaxed);
        if let Some(progress) = progress {
            progress.advance(len, stored);
        }
        Ok(Placed { tag, len, buffer: Some(buffer) })
    }
}
