//! One attempt to write a checkpoint: from the session object to the commit record.

use std::fmt;
use std::sync::Arc;

use karbor_types::{CheckpointId, Instant, ResourceKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::AsyncRead;

use crate::write::{BlockOptions, SavedResource, StreamOptions, StreamRecord, WriteStats};
use crate::{BlockSource, Error, Result};

/// How a session begins.
#[derive(Debug, Clone, Default)]
pub struct BeginOptions {
    /// The checkpoint whose streams new streams are compared with first: the previous one of the same sources.
    /// One that does not exist (any more) is ignored.
    pub base: Option<CheckpointId>,
}

/// What is known of a committed checkpoint without opening its streams.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointInfo {
    /// Its id.
    pub id: CheckpointId,
    /// The session that committed it, as text.
    pub session: String,
    /// When it was made, as its maker said.
    pub created_at: Instant,
    /// What its maker wrote beside the resources.
    pub metadata: Value,
    /// The sum of the sizes of its streams.
    pub logical_bytes: u64,
    /// What its session put into the bank for it.
    pub stored_bytes: u64,
}

/// Writes one checkpoint. Cheap to clone; used by many tasks at once.
#[derive(Clone)]
pub struct CheckpointWriter {
    pub(crate) inner: Arc<()>,
}

impl fmt::Debug for CheckpointWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckpointWriter").finish_non_exhaustive()
    }
}

impl CheckpointWriter {
    /// Returns the scope of one resource. Streams and records of one resource have different names.
    pub fn resource(&self, key: &ResourceKey) -> ResourceWriter {
        ResourceWriter { writer: self.clone(), key: key.clone() }
    }

    /// Makes durable everything that is finished so far: packs, then index.
    ///
    /// # Errors
    /// What the bank says; [`Error::Fenced`] when somebody took over.
    pub async fn flush(&self) -> Result<()> {
        Err(Error::Unsupported { what: "flushing".to_owned() })
    }

    /// Answers sweeps that wait for this session. Done by itself from time to time, and before a commit.
    ///
    /// # Errors
    /// As [`CheckpointWriter::flush`].
    pub async fn check_sweeps(&self) -> Result<()> {
        Err(Error::Unsupported { what: "sweeping".to_owned() })
    }

    /// Takes over what an earlier attempt finished and [`ResourceWriter::save`]d. Returns whether every chunk is
    /// present for this session; if not, nothing is taken and the resource is to be written again.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn adopt(&self, key: &ResourceKey, saved: &SavedResource) -> Result<bool> {
        let _ = (key, saved);
        Err(Error::Unsupported { what: "adopting".to_owned() })
    }

    /// Commits: after this returns, the checkpoint can be read, and no sweep takes anything of it.
    ///
    /// # Errors
    /// [`Error::Fenced`] when somebody took over. After another error (a lost reply) it may have been committed:
    /// commit again, which tells.
    pub async fn commit(
        &self,
        id: CheckpointId,
        created_at: Instant,
        metadata: Value,
    ) -> Result<CheckpointInfo> {
        let _ = (id, created_at, metadata);
        Err(Error::Unsupported { what: "committing".to_owned() })
    }

    /// Gives up: closes the session, so that sweeps need not wait for it. What it stored is freed by the next one.
    ///
    /// # Errors
    /// What the bank says; [`Error::AlreadyCommitted`] when it had committed.
    pub async fn abandon(&self) -> Result<()> {
        Err(Error::Unsupported { what: "abandoning".to_owned() })
    }

    /// Returns what was done so far.
    pub fn stats(&self) -> WriteStats {
        WriteStats::default()
    }
}

/// Writes the records and streams of one resource. Cheap to clone; used by many tasks at once.
#[derive(Debug, Clone)]
pub struct ResourceWriter {
    pub(crate) writer: CheckpointWriter,
    pub(crate) key: ResourceKey,
}

impl ResourceWriter {
    /// Returns the resource's key.
    pub fn key(&self) -> &ResourceKey {
        &self.key
    }

    /// Keeps a small fact (at most 1 MiB as JSON) in the commit record; one of the same name is replaced.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is too large.
    pub fn put_record(&self, name: &str, value: Value) -> Result<()> {
        let _ = (name, value);
        Err(Error::Unsupported { what: "records".to_owned() })
    }

    /// Stores a random-access source, cut at fixed size; holes and zero blocks cost nothing.
    ///
    /// # Errors
    /// [`Error::SourceIo`], [`Error::SourceChanged`], [`Error::Cancelled`], [`Error::Fenced`], and what the bank says.
    pub async fn put_blocks(
        &self,
        name: &str,
        source: Arc<dyn BlockSource>,
        options: &BlockOptions,
    ) -> Result<StreamRecord> {
        let _ = (name, source, options);
        Err(Error::Unsupported { what: "block streams".to_owned() })
    }

    /// Stores what can only be read from front to back, cut by content.
    ///
    /// # Errors
    /// As [`ResourceWriter::put_blocks`].
    pub async fn put_stream(
        &self,
        name: &str,
        source: &mut (dyn AsyncRead + Send + Unpin),
        options: &StreamOptions,
    ) -> Result<StreamRecord> {
        let _ = (name, source, options);
        Err(Error::Unsupported { what: "streams".to_owned() })
    }

    /// Returns the records and finished streams, to be kept as a step's outcome after [`CheckpointWriter::flush`].
    pub fn save(&self) -> SavedResource {
        SavedResource::default()
    }
}
