//! Streams that are read from front to back: cut by content as they come, chunks dealt with on all cores.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use karbor_chunk::{ContentSizes, Cutting, PackKind, is_zero};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::index::blocking;
use crate::session::Session;
use crate::write::blocks::put_chunk;
use crate::write::order::{Order, Outcome};
use crate::write::{StreamOptions, StreamRecord, Tally};
use crate::{Error, Result};

/// How much is read at once; a thread of the runtime is held only as long as it takes to look for cuts in it.
const READ_BYTES: usize = 256 << 10;

/// Stores a stream.
pub(crate) async fn put(
    session: &Arc<Session>,
    name: &str,
    source: &mut (dyn AsyncRead + Send + Unpin),
    options: &StreamOptions,
) -> Result<StreamRecord> {
    session.store.packer().check()?;
    let cutting = Cutting::content(ContentSizes::default());
    let cutter = session.shared.key.cutter(&cutting);
    let mut cutter = cutter.map_err(|err| Error::chunk("a cutter", err))?;
    let mut chunks = Chunks::new(session, cutting, options)?;
    if let (Some(progress), Some(bytes)) = (&options.progress, options.expected_bytes) {
        progress.total(bytes);
    }
    let mut buffer = vec![0; READ_BYTES];
    let mut chunk = Vec::new();
    loop {
        if options.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let read = source.read(&mut buffer).await;
        let read = read.map_err(|source| Error::SourceIo { what: format!("stream {name}"), source })?;
        if read == 0 {
            break;
        }
        let mut part = &buffer[..read];
        while let Some(end) = cutter.find(part) {
            chunk.extend_from_slice(&part[..end]);
            part = &part[end..];
            chunks.push(std::mem::take(&mut chunk)).await?;
            chunk = chunks.buffer();
        }
        chunk.extend_from_slice(part);
    }
    if !chunk.is_empty() {
        chunks.push(chunk).await?;
    }
    chunks.finish().await
}

/// Chunks on their way, in the order of the stream.
pub(crate) struct Chunks {
    session: Arc<Session>,
    order: Arc<Order>,
    tally: Arc<Tally>,
    number: u64,
    running: FuturesOrdered<futures::future::BoxFuture<'static, Result<Vec<u8>>>>,
    idle: Vec<Vec<u8>>,
    at_once: usize,
    options: StreamOptions,
}

impl Chunks {
    pub(crate) fn new(session: &Arc<Session>, cutting: Cutting, options: &StreamOptions) -> Result<Self> {
        Ok(Self {
            session: session.clone(),
            order: Arc::new(Order::new(session, cutting)?),
            tally: Arc::default(),
            number: 0,
            running: FuturesOrdered::new(),
            idle: Vec::new(),
            at_once: session.shared.options.threads.get() + 1,
            options: options.clone(),
        })
    }

    /// Returns an empty buffer.
    pub(crate) fn buffer(&mut self) -> Vec<u8> {
        self.idle.pop().unwrap_or_default()
    }

    /// Takes the next chunk; waits while there are enough on their way.
    pub(crate) async fn push(&mut self, chunk: Vec<u8>) -> Result<()> {
        while self.running.len() >= self.at_once {
            self.settle().await?;
        }
        let (session, order, tally) = (self.session.clone(), self.order.clone(), self.tally.clone());
        let progress = self.options.progress.clone();
        let number = self.number;
        self.number += 1;
        let permit = session.shared.workers.clone().acquire_owned().await;
        let permit = permit.map_err(|err| Error::internal(err.to_string()))?;
        let work = blocking(move || {
            let bytes = chunk.len() as u64;
            let stored = session.shared.codecs.compressing(|compressor| {
                tally.read(bytes);
                let len =
                    u32::try_from(chunk.len()).map_err(|_| Error::internal("a chunk beyond all sizes"))?;
                if is_zero(&chunk) {
                    order.take(number, Outcome::Zero { len: bytes }, &session, &tally, compressor)?;
                    return Ok(0);
                }
                let id = session.shared.namer.chunk_id(PackKind::Data, &chunk);
                let stored = put_chunk(&session, &tally, PackKind::Data, id, &chunk, compressor)?;
                order.take(number, Outcome::Chunk { id, len }, &session, &tally, compressor)?;
                Ok(stored)
            });
            drop(permit);
            let counts = &session.counts;
            counts.read_bytes.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
            counts.source_bytes.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
            if let (Some(progress), Ok(stored)) = (&progress, &stored) {
                progress.advance(bytes, *stored);
            }
            stored.map(|_| chunk)
        });
        // Begun at once; what is kept is only the handle.
        let running = tokio::spawn(work);
        self.running.push_back(Box::pin(async move {
            let done = running.await;
            done.map_err(|err| Error::internal(format!("a worker thread ended early: {err}")))??
        }));
        Ok(())
    }

    async fn settle(&mut self) -> Result<()> {
        if let Some(done) = self.running.next().await {
            let mut buffer = done?;
            buffer.clear();
            self.idle.push(buffer);
        }
        Ok(())
    }

    /// Waits for all chunks, and closes the manifest.
    pub(crate) async fn finish(mut self) -> Result<StreamRecord> {
        while !self.running.is_empty() {
            self.settle().await?;
        }
        let (session, order, tally) = (self.session.clone(), self.order.clone(), self.tally.clone());
        let root = blocking(move || order.finish(&session, &tally)).await??;
        Ok(StreamRecord { size_bytes: root.size_bytes, root, stats: self.tally.stats() })
    }
}
