//! Reading: a committed checkpoint, its records and its streams.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use karbor_types::ResourceKey;
use serde_json::Value;
use tokio::io::AsyncWrite;
use tokio_util::sync::CancellationToken;

use crate::{BlockSource, BlockTarget, CheckpointInfo, DamagedRange, Error, ProgressSink, Result};

/// How a stream is copied out or compared.
#[derive(Clone, Default)]
pub struct CopyOptions {
    /// Hears of progress.
    pub progress: Option<Arc<dyn ProgressSink>>,
    /// Stops the work.
    pub cancel: CancellationToken,
}

impl fmt::Debug for CopyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyOptions").finish_non_exhaustive()
    }
}

/// What copying a stream out did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyReport {
    /// The stream's size.
    pub size_bytes: u64,
    /// Bytes of chunks that were written; the rest are holes.
    pub written_bytes: u64,
    /// What could not be read. Nothing was written there.
    pub damaged: Vec<DamagedRange>,
}

/// What comparing a target with a stream found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CompareReport {
    /// Bytes compared.
    pub compared_bytes: u64,
    /// Parts of the target that differ from the stream.
    pub different: Vec<std::ops::Range<u64>>,
}

/// Reads one committed checkpoint. While it is open, no sweep takes anything of it, even if it is deleted.
pub struct CheckpointReader {
    info: CheckpointInfo,
}

impl fmt::Debug for CheckpointReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckpointReader").field("info", &self.info).finish_non_exhaustive()
    }
}

impl CheckpointReader {
    /// Returns what is known without opening streams.
    pub fn info(&self) -> &CheckpointInfo {
        &self.info
    }

    /// Returns the resources that have records or streams.
    pub fn resources(&self) -> impl Iterator<Item = &ResourceKey> {
        std::iter::empty()
    }

    /// Returns a record.
    pub fn record(&self, key: &ResourceKey, name: &str) -> Option<&Value> {
        let _ = (key, name);
        None
    }

    /// Returns the names of a resource's records.
    pub fn record_names(&self, key: &ResourceKey) -> impl Iterator<Item = &str> {
        let _ = key;
        std::iter::empty()
    }

    /// Returns the names of a resource's streams.
    pub fn stream_names(&self, key: &ResourceKey) -> impl Iterator<Item = &str> {
        let _ = key;
        std::iter::empty()
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// [`Error::NotFound`], or that its manifest cannot be read.
    pub async fn open_stream(&self, key: &ResourceKey, name: &str) -> Result<StreamReader> {
        Err(Error::not_found(format!("stream {name} of {key}")))
    }

    /// Closes the session, so that sweeps go on. Dropping does the same, as well as it can.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn close(self) -> Result<()> {
        Ok(())
    }
}

/// Reads one stream. Cheap to clone; used by many tasks at once.
#[derive(Clone)]
pub struct StreamReader {
    size_bytes: u64,
}

impl fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamReader").field("size_bytes", &self.size_bytes).finish_non_exhaustive()
    }
}

impl StreamReader {
    /// Returns the stream's size, with its holes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Returns up to `len` bytes at `offset`, fewer only at the end. For small random reads: chunks are cached.
    ///
    /// # Errors
    /// [`Error::Damaged`] with the range, or what the bank says.
    pub async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        let _ = (offset, len);
        Err(Error::Unsupported { what: "reading".to_owned() })
    }

    /// Writes the whole stream to a target: on all cores, out of order, sparse. Damaged chunks are named in the
    /// report and the rest is written.
    ///
    /// # Errors
    /// [`Error::TargetIo`], [`Error::Cancelled`], and what the bank says. Damage is not an error here.
    pub async fn copy_to(&self, target: Arc<dyn BlockTarget>, options: &CopyOptions) -> Result<CopyReport> {
        let _ = (target, options);
        Err(Error::Unsupported { what: "reading".to_owned() })
    }

    /// Writes the whole stream in order.
    ///
    /// # Errors
    /// As [`StreamReader::copy_to`], and [`Error::Damaged`] at the first damage.
    pub async fn copy_out(
        &self,
        out: &mut (dyn AsyncWrite + Send + Unpin),
        options: &CopyOptions,
    ) -> Result<CopyReport> {
        let _ = (out, options);
        Err(Error::Unsupported { what: "reading".to_owned() })
    }

    /// Reads a target back and compares it with the stream by the names of its chunks; the bank is asked for the
    /// manifest only.
    ///
    /// # Errors
    /// [`Error::SourceIo`], [`Error::Cancelled`], and what the bank says. A difference is not an error here.
    pub async fn compare(
        &self,
        source: Arc<dyn BlockSource>,
        options: &CopyOptions,
    ) -> Result<CompareReport> {
        let _ = (source, options);
        Err(Error::Unsupported { what: "comparing".to_owned() })
    }
}
