//! Writing: options, and what a finished stream is.

pub(crate) mod adopt;
pub(crate) mod again;
pub(crate) mod blocks;
pub(crate) mod buffers;
pub(crate) mod order;
pub(crate) mod packer;
mod plan;
pub(crate) mod store;
pub(crate) mod stream;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use karbor_chunk::{StreamRoot, StreamStats};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::ProgressSink;

/// How a block source is stored.
#[derive(Clone, Default)]
pub struct BlockOptions {
    /// The size of a piece, a power of two from 64 KiB to 8 MiB; `None` is 1 MiB.
    pub chunk_bytes: Option<u32>,
    /// What may have changed since the base checkpoint's stream of the same resource and name, in ascending order;
    /// the rest is neither asked for nor read. Ignored (everything is read) when there is no such stream, or one
    /// that was cut differently.
    pub changed: Option<Vec<Range<u64>>>,
    /// Hears of progress.
    pub progress: Option<Arc<dyn ProgressSink>>,
    /// Stops the work.
    pub cancel: CancellationToken,
}

impl fmt::Debug for BlockOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockOptions")
            .field("chunk_bytes", &self.chunk_bytes)
            .field("changed", &self.changed)
            .finish_non_exhaustive()
    }
}

/// How a sequential source is stored.
#[derive(Clone, Default)]
pub struct StreamOptions {
    /// The expected number of bytes, for progress only.
    pub expected_bytes: Option<u64>,
    /// Hears of progress.
    pub progress: Option<Arc<dyn ProgressSink>>,
    /// Stops the work.
    pub cancel: CancellationToken,
}

impl fmt::Debug for StreamOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamOptions").field("expected_bytes", &self.expected_bytes).finish_non_exhaustive()
    }
}

/// A finished stream, as the commit record will name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRecord {
    /// The size of the stream, with its holes.
    pub size_bytes: u64,
    /// Where its manifest begins.
    pub root: StreamRoot,
    /// What storing it took.
    #[serde(default)]
    pub stats: StreamStats,
}

impl From<karbor_chunk::StreamRecord> for StreamRecord {
    fn from(stream: karbor_chunk::StreamRecord) -> Self {
        Self { size_bytes: stream.root.size_bytes, root: stream.root, stats: stream.stats }
    }
}

impl From<StreamRecord> for karbor_chunk::StreamRecord {
    fn from(stream: StreamRecord) -> Self {
        Self { root: stream.root, stats: stream.stats }
    }
}

/// Counts what storing one stream takes.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    data_bytes: AtomicU64,
    read_bytes: AtomicU64,
    new_bytes: AtomicU64,
    stored_bytes: AtomicU64,
    chunks: AtomicU64,
    new_chunks: AtomicU64,
}

impl Tally {
    fn add(count: &AtomicU64, much: u64) {
        count.fetch_add(much, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, bytes: u64) {
        Self::add(&self.read_bytes, bytes);
    }

    pub(crate) fn known(&self, bytes: u64) {
        Self::add(&self.data_bytes, bytes);
        Self::add(&self.chunks, 1);
    }

    pub(crate) fn new_chunk(&self, bytes: u64, stored: u64) {
        self.known(bytes);
        Self::add(&self.new_bytes, bytes);
        Self::add(&self.stored_bytes, stored);
        Self::add(&self.new_chunks, 1);
    }

    pub(crate) fn new_node(&self, stored: u64) {
        Self::add(&self.stored_bytes, stored);
    }

    pub(crate) fn stats(&self) -> StreamStats {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        StreamStats {
            data_bytes: get(&self.data_bytes),
            read_bytes: get(&self.read_bytes),
            new_bytes: get(&self.new_bytes),
            stored_bytes: get(&self.stored_bytes),
            chunks: get(&self.chunks),
            new_chunks: get(&self.new_chunks),
        }
    }
}

/// The records and finished streams of one resource, as data: what a later attempt can adopt.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SavedResource {
    /// Small facts by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub records: BTreeMap<String, Value>,
    /// Finished streams by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub streams: BTreeMap<String, StreamRecord>,
}

/// What a session did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WriteStats {
    /// Bytes of the sources that are dealt with, holes included.
    pub source_bytes: u64,
    /// Bytes that were actually read.
    pub read_bytes: u64,
    /// Bytes of chunks that were new, before compression.
    pub new_bytes: u64,
    /// Bytes put into the bank.
    pub stored_bytes: u64,
    /// Chunks that were new.
    pub new_chunks: u64,
    /// Chunks that were there already.
    pub known_chunks: u64,
    /// Packs put.
    pub packs: u64,
}
