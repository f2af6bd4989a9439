//! One stream of a committed checkpoint.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use karbor_chunk::{ChunkId, Piece, StreamRoot};
use karbor_types::{CheckpointId, ResourceKey};

use crate::read::ReaderGuard;
use crate::read::fetch::{Fetcher, Lost, Step, Walk};
use crate::write::buffers::lock;
use crate::{DamagedRange, Error, Result};

/// How many chunks are kept for small reads.
const CACHED_CHUNKS: usize = 8;

/// Reads one stream. Cheap to clone; used by many tasks at once.
#[derive(Clone)]
pub struct StreamReader {
    pub(crate) fetcher: Arc<Fetcher>,
    pub(crate) root: StreamRoot,
    pub(crate) name: Arc<StreamName>,
    cached: Arc<Mutex<Vec<(ChunkId, Bytes)>>>,
    _session: Arc<ReaderGuard>,
}

/// Which stream it is, for messages.
#[derive(Debug)]
pub(crate) struct StreamName {
    pub(crate) checkpoint: CheckpointId,
    pub(crate) resource: ResourceKey,
    pub(crate) stream: String,
}

impl fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamReader")
            .field("name", &self.name)
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl StreamReader {
    pub(crate) fn new(
        fetcher: Arc<Fetcher>,
        root: StreamRoot,
        name: StreamName,
        session: Arc<ReaderGuard>,
    ) -> Self {
        Self { fetcher, root, name: Arc::new(name), cached: Arc::default(), _session: session }
    }

    /// Returns the stream's size, with its holes.
    pub fn size_bytes(&self) -> u64 {
        self.root.size_bytes
    }

    /// Returns up to `len` bytes at `offset`, fewer only at the end. For small random reads: chunks are cached.
    ///
    /// # Errors
    /// [`Error::Damaged`] with the range, or what the bank says.
    pub async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        let end = offset.saturating_add(len as u64).min(self.size_bytes());
        if offset >= end {
            return Ok(Bytes::new());
        }
        let mut out = BytesMut::new();
        let mut walk = Walk::new(self.fetcher.clone(), &self.root, offset..end);
        while let Some(step) = walk.next().await? {
            let entry = match step {
                Step::Entry(entry) => entry,
                Step::Lost(at, lost) => return Err(self.damage_error(at.offset..at.offset + at.len, lost)),
            };
            let place = entry.offset..entry.offset + entry.len;
            let part = place.start.max(offset)..place.end.min(end);
            let length = |from: u64, to: u64| {
                usize::try_from(to - from)
                    .map_err(|_| Error::invalid("more is asked for than memory can hold"))
            };
            let Piece::Chunk(id) = entry.piece else {
                let zeros = out.len() + length(part.start, part.end)?;
                out.resize(zeros, 0);
                continue;
            };
            let bytes = match self.chunk(&id).await? {
                Ok(bytes) => bytes,
                Err(lost) => return Err(self.damage_error(place, lost)),
            };
            let (from, to) = (length(place.start, part.start)?, length(place.start, part.end)?);
            let Some(bytes) = bytes.get(from..to) else {
                let lost = Lost { id, reason: "it has another length than its manifest says".to_owned() };
                return Err(self.damage_error(place, lost));
            };
            out.extend_from_slice(bytes);
        }
        Ok(out.freeze())
    }

    async fn chunk(&self, id: &ChunkId) -> Result<Result<Bytes, Lost>> {
        let hit = {
            let mut cached = lock(&self.cached);
            let hit = cached.iter().position(|(name, _)| name == id);
            hit.map(|at| {
                // The latest used stands last.
                let hit = cached.remove(at);
                cached.push(hit.clone());
                hit.1
            })
        };
        if let Some(bytes) = hit {
            return Ok(Ok(bytes));
        }
        let bytes = match self.fetcher.chunk(id).await? {
            Ok(bytes) => Bytes::from(bytes),
            Err(lost) => return Ok(Err(lost)),
        };
        let mut cached = lock(&self.cached);
        if cached.len() >= CACHED_CHUNKS {
            cached.remove(0);
        }
        cached.push((*id, bytes.clone()));
        Ok(Ok(bytes))
    }

    /// Names what a lost chunk or node takes with it.
    pub(crate) fn damage(&self, range: Range<u64>, lost: Lost) -> DamagedRange {
        DamagedRange {
            checkpoint: Some(self.name.checkpoint),
            resource: Some(self.name.resource.clone()),
            stream: Some(self.name.stream.clone()),
            range,
            chunk: lost.id.to_string(),
            reason: lost.reason,
        }
    }

    pub(crate) fn damage_error(&self, range: Range<u64>, lost: Lost) -> Error {
        let what = format!("stream {} of {}", self.name.stream, self.name.resource);
        Error::Damaged { what, ranges: vec![self.damage(range, lost)] }
    }
}
