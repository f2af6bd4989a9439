//! Reading: a committed checkpoint, its records and its streams.
//!
//! Invariant: a checkpoint is read under a session that pins its commit, from before the commit is looked at until
//! the last reader of a stream is dropped, so that no sweep takes anything of it, even if it is deleted meanwhile.

mod copy;
pub(crate) mod fetch;
mod stream;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use karbor_chunk::CommitRecord;
use karbor_sweep::{Kind, ReaderSession, SessionId, SessionRecord};
use karbor_types::{CheckpointId, Epoch, ResourceKey};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::account::Shared;
use crate::bad::BadChunks;
use crate::record;
use crate::write::buffers::lock;
use crate::{CheckpointInfo, DamagedRange, Error, ProgressSink, Result, StreamRecord};
pub(crate) use stream::StreamName;
pub use stream::StreamReader;

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
    /// How many bytes of the stream were to be copied, holes included.
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
    resources: BTreeMap<ResourceKey, record::Resource>,
    fetcher: Arc<fetch::Fetcher>,
    session: Arc<ReaderGuard>,
}

impl fmt::Debug for CheckpointReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckpointReader").field("info", &self.info).finish_non_exhaustive()
    }
}

/// Ends a reader's session when the last who uses it is gone.
pub(crate) struct ReaderGuard {
    session: Mutex<Option<ReaderSession>>,
    runtime: Handle,
}

impl ReaderGuard {
    fn new(session: ReaderSession) -> Arc<Self> {
        Arc::new(Self { session: Mutex::new(Some(session)), runtime: Handle::current() })
    }

    /// Makes one for what another session pins, which the caller keeps.
    fn of_other() -> Arc<Self> {
        Arc::new(Self { session: Mutex::new(None), runtime: Handle::current() })
    }
}

impl Drop for ReaderGuard {
    fn drop(&mut self) {
        let Some(session) = lock(&self.session).take() else { return };
        // As well as it can be done from here; a sweep that waits may fence a reader that is gone.
        self.runtime.spawn(async move {
            if let Err(error) = session.close().await {
                warn!(session.id = %session.id(), %error, "Reader {} could not be closed", session.id());
            }
        });
    }
}

impl CheckpointReader {
    /// Opens a checkpoint under a session of its own.
    pub(crate) async fn open(shared: Arc<Shared>, id: CheckpointId) -> Result<Self> {
        let own = SessionId::new(shared.random_uuid()?, Epoch(0));
        Self::open_as(shared, own, id).await
    }

    /// Opens a checkpoint under a session that the caller names.
    pub(crate) async fn open_as(shared: Arc<Shared>, own: SessionId, id: CheckpointId) -> Result<Self> {
        let missing = || Error::not_found(format!("checkpoint {id}"));
        let found = karbor_sweep::find_commit(&shared.place, id.as_uuid()).await.map_err(Error::protocol)?;
        let pinned = found.ok_or_else(missing)?;
        let mut record = SessionRecord::new(Kind::Reader, vec![pinned], shared.nonce()?);
        record.by.clone_from(&shared.options.by);
        let session = match ReaderSession::begin(&shared.place, own, record).await {
            Ok(session) => session,
            Err(karbor_sweep::Error::PinGone { .. }) => return Err(missing()),
            Err(err) => return Err(Error::protocol(err)),
        };
        let guard = ReaderGuard::new(session);
        let bytes = karbor_sweep::read_commit(&shared.place, &pinned).await.map_err(Error::protocol)?;
        // It was there when it was pinned, and a deleted one can still be read; but then nobody is to begin.
        let bytes = bytes.ok_or_else(missing)?;
        let commit = record::open(&shared.key, &pinned, &bytes)?;
        let listed = karbor_sweep::list_index(&shared.place).await.map_err(Error::protocol)?;
        shared.cache.refresh(&listed).await?;
        let bad = BadChunks::read(&shared.place).await?;
        let fetcher = fetch::Fetcher::new(shared, Arc::new(bad));
        Self::new(&pinned, commit, fetcher, guard)
    }

    /// Makes a reader of a commit that another session pins: it may be used as long as that session is open.
    pub(crate) fn beside(
        session: &SessionId,
        commit: CommitRecord,
        fetcher: Arc<fetch::Fetcher>,
    ) -> Result<Self> {
        Self::new(session, commit, fetcher, ReaderGuard::of_other())
    }

    fn new(
        session: &SessionId,
        commit: CommitRecord,
        fetcher: Arc<fetch::Fetcher>,
        guard: Arc<ReaderGuard>,
    ) -> Result<Self> {
        let info = record::info(session, &commit);
        Ok(Self { info, resources: record::resources(commit)?, fetcher, session: guard })
    }

    /// Returns what is known without opening streams.
    pub fn info(&self) -> &CheckpointInfo {
        &self.info
    }

    /// Returns the resources that have records or streams.
    pub fn resources(&self) -> impl Iterator<Item = &ResourceKey> {
        self.resources.keys()
    }

    /// Returns a record.
    pub fn record(&self, key: &ResourceKey, name: &str) -> Option<&Value> {
        self.resources.get(key)?.records.get(name)
    }

    /// Returns the names of a resource's records.
    pub fn record_names(&self, key: &ResourceKey) -> impl Iterator<Item = &str> {
        self.resources.get(key).into_iter().flat_map(|resource| resource.records.keys().map(String::as_str))
    }

    /// Returns the names of a resource's streams.
    pub fn stream_names(&self, key: &ResourceKey) -> impl Iterator<Item = &str> {
        self.resources.get(key).into_iter().flat_map(|resource| resource.streams.keys().map(String::as_str))
    }

    /// Returns what the commit record says of a stream.
    pub fn stream(&self, key: &ResourceKey, name: &str) -> Option<&StreamRecord> {
        self.resources.get(key)?.streams.get(name)
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// [`Error::NotFound`], or that its manifest cannot be read.
    #[expect(
        clippy::unused_async,
        reason = "callers must not mind whether something is read at once or later"
    )]
    pub async fn open_stream(&self, key: &ResourceKey, name: &str) -> Result<StreamReader> {
        let stream = self.stream(key, name);
        let stream = stream.ok_or_else(|| Error::not_found(format!("stream {name} of {key}")))?;
        let name = StreamName { checkpoint: self.info.id, resource: key.clone(), stream: name.to_owned() };
        Ok(StreamReader::new(self.fetcher.clone(), stream.root, name, self.session.clone()))
    }

    pub(crate) fn fetcher(&self) -> &Arc<fetch::Fetcher> {
        &self.fetcher
    }

    pub(crate) fn all(&self) -> &BTreeMap<ResourceKey, record::Resource> {
        &self.resources
    }

    /// Closes the session, so that sweeps go on. Dropping does the same, as well as it can. Streams that are still
    /// open may fail from then on.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn close(self) -> Result<()> {
        let session = lock(&self.session.session).take();
        let Some(session) = session else { return Ok(()) };
        session.close().await.map_err(Error::protocol)
    }
}
