//! One attempt to write a checkpoint: from the session object to the commit record.
//!
//! Invariant: the order of steps is the order of safety. The session's record stands before anything is looked up;
//! data is put before the index that names it, and everything before the commit record; sweeps are answered last
//! before it. A failure on the way fails the session, so that what is committed is whole.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use karbor_chunk::{CommitRecord, Salt, StreamRoot};
use karbor_sweep::{CommitOutcome, Kind, SessionId, SessionRecord, WriterSession};
use karbor_types::{CheckpointId, Instant, ResourceKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::AsyncRead;
use tokio::sync::Mutex as AsyncMutex;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use crate::account::Shared;
use crate::bad::BadChunks;
use crate::index::format_session;
use crate::read::fetch::Fetcher;
use crate::record::{self, Resource};
use crate::write::again::Again;
use crate::write::buffers::lock;
use crate::write::store::ChunkStore;
use crate::write::{self, BlockOptions, SavedResource, StreamOptions, StreamRecord, WriteStats};
use crate::{BlockSource, CheckpointReader, Error, Result};

/// The largest record, as JSON.
const MOST_RECORD_BYTES: usize = 1 << 20;

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
    /// What its session put into the bank for its streams.
    pub stored_bytes: u64,
}

/// Writes one checkpoint. Cheap to clone; used by many tasks at once.
#[derive(Clone)]
pub struct CheckpointWriter {
    pub(crate) session: Arc<Session>,
}

/// What all writers of one session share.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: SessionId,
    protocol: Arc<WriterSession>,
    pub(crate) store: Arc<ChunkStore>,
    pub(crate) fetcher: Arc<Fetcher>,
    base: BTreeMap<ResourceKey, Resource>,
    /// The base's own session, if its commit record could be read.
    base_session: Option<SessionId>,
    resources: std::sync::Mutex<BTreeMap<ResourceKey, Resource>>,
    pub(crate) counts: Counts,
    /// Held while sweeps are answered and while committing, so that neither happens twice at once.
    settling: AsyncMutex<Option<Bytes>>,
    _stop: DropGuard,
}

/// What was done so far.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) source_bytes: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) new_bytes: AtomicU64,
    pub(crate) new_chunks: AtomicU64,
    pub(crate) known_chunks: AtomicU64,
}

impl fmt::Debug for CheckpointWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckpointWriter").field("session", &self.session.id).finish_non_exhaustive()
    }
}

/// Begins a session.
pub(crate) async fn begin(
    shared: Arc<Shared>,
    id: SessionId,
    options: &BeginOptions,
) -> Result<CheckpointWriter> {
    let place = &shared.place;
    let done = karbor_sweep::take_over(place, &id, Some(Kind::Writer), &shared.options.by).await;
    let done = done.map_err(Error::protocol)?;
    if let Some(done) = done {
        return Err(already_committed(&shared, &done).await?);
    }
    let base = match options.base {
        Some(base) => karbor_sweep::find_commit(place, base.as_uuid()).await.map_err(Error::protocol)?,
        None => None,
    };
    let mut record = SessionRecord::new(Kind::Writer, base.into_iter().collect(), shared.nonce()?);
    record.by.clone_from(&shared.options.by);
    let protocol = WriterSession::begin(place, id, record).await.map_err(Error::protocol)?;
    let mut refreshed = shared.cache.refresh(&protocol.index()).await?;
    for _ in 0..5 {
        if !refreshed.vanished {
            break;
        }
        let listed = protocol.list_index_again().await.map_err(Error::protocol)?;
        refreshed = shared.cache.refresh(&listed).await?;
    }
    let bad = Arc::new(BadChunks::read(place).await?);
    let fetcher = Fetcher::new(shared.clone(), bad.clone());
    let read = match base {
        Some(base) => read_base(&shared, &base).await?,
        None => None,
    };
    let base_session = base.filter(|_| read.is_some());
    let base = read.unwrap_or_default();
    let protocol = Arc::new(protocol);
    let store = ChunkStore::new(shared.clone(), protocol.clone(), refreshed.view, bad);
    let stop = CancellationToken::new();
    let session = Arc::new(Session {
        shared: shared.clone(),
        id,
        protocol,
        store,
        fetcher,
        base,
        base_session,
        resources: std::sync::Mutex::default(),
        counts: Counts::default(),
        settling: AsyncMutex::new(None),
        _stop: stop.clone().drop_guard(),
    });
    shared.tasks.spawn(answer_sweeps(Arc::downgrade(&session), shared.options.sweep_check, stop));
    Ok(CheckpointWriter { session })
}

/// Returns the error that tells that the operation is done.
async fn already_committed(shared: &Shared, done: &SessionId) -> Result<Error> {
    let bytes = karbor_sweep::read_commit(&shared.place, done).await.map_err(Error::protocol)?;
    let Some(bytes) = bytes else {
        return Ok(Error::not_found(format!(
            "checkpoint {}, which was committed and deleted,",
            done.operation
        )));
    };
    let commit = record::open(&shared.key, done, &bytes)?;
    Ok(Error::AlreadyCommitted(Box::new(record::info(done, &commit))))
}

/// Reads what the base left; one that cannot be read is no base.
async fn read_base(shared: &Shared, base: &SessionId) -> Result<Option<BTreeMap<ResourceKey, Resource>>> {
    let bytes = karbor_sweep::read_commit(&shared.place, base).await.map_err(Error::protocol)?;
    let Some(bytes) = bytes else { return Ok(None) };
    match record::open(&shared.key, base, &bytes).and_then(record::resources) {
        Ok(resources) => Ok(Some(resources)),
        Err(error) => {
            warn!(session.id = %base, %error, "Base {base} cannot be read, so everything is read from the source");
            Ok(None)
        }
    }
}

/// Looks for sweeps that wait, as long as the session is in use.
async fn answer_sweeps(session: Weak<Session>, every: std::time::Duration, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let Some(session) = session.upgrade() else { return };
        match session.look_around().await {
            Ok(()) => {}
            Err(error @ Error::Fenced { .. }) => {
                let _ = session.store.packer().fail(error);
                return;
            }
            Err(error) => {
                warn!(session.id = %session.id, %error, "Session {} could not answer sweeps", session.id);
            }
        }
    }
}

impl Session {
    async fn check_sweeps(self: &Arc<Self>) -> Result<()> {
        let _settling = self.settling.lock().await;
        self.answer().await
    }

    /// Answers sweeps, and finds out whether it is in vain to go on.
    async fn look_around(self: &Arc<Self>) -> Result<()> {
        self.check_sweeps().await?;
        if self.protocol.is_fenced().await.map_err(Error::protocol)? {
            return Err(Error::Fenced { session: self.id.to_string() });
        }
        Ok(())
    }

    async fn answer(self: &Arc<Self>) -> Result<()> {
        let mut again = Again { session: self };
        let Err(error) = self.protocol.before_commit(&mut again).await else { return Ok(()) };
        // Nobody waits for a session that was fenced, so what it leans on may be gone: that is no damage.
        if self.protocol.is_fenced().await.map_err(Error::protocol)? {
            return Err(Error::Fenced { session: self.id.to_string() });
        }
        Err(Error::protocol(error))
    }

    /// Returns the stream of the same resource and name in the base.
    pub(crate) fn base_stream(&self, key: &ResourceKey, name: &str) -> Option<StreamRoot> {
        Some(self.base.get(key)?.streams.get(name)?.root)
    }

    /// Keeps a finished stream for the commit record.
    pub(crate) fn finish_stream(&self, key: &ResourceKey, name: &str, stream: StreamRecord) {
        lock(&self.resources).entry(key.clone()).or_default().streams.insert(name.to_owned(), stream);
    }

    async fn commit(
        self: &Arc<Self>,
        id: CheckpointId,
        created_at: Instant,
        metadata: Value,
    ) -> Result<CheckpointInfo> {
        let mut sealed = self.settling.lock().await;
        let mut commit = CommitRecord::new(id.0, created_at.as_micros());
        commit.metadata = metadata;
        commit.resources = record::to_records(lock(&self.resources).iter());
        if sealed.is_none() {
            self.store.packer().flush().await?;
            self.answer().await?;
            let bad = BadChunks::read(&self.shared.place).await?;
            if let Some(chunk) = self.store.set_bad(Arc::new(bad)) {
                return Err(Error::damaged(format!("chunk {chunk}, which this session refers to,")));
            }
            let salt = Salt::generate(self.shared.entropy.as_ref());
            let bytes = salt.and_then(|salt| commit.seal(&self.shared.key, &format_session(&self.id), salt));
            *sealed = Some(bytes.map_err(|err| Error::chunk("the commit record", err))?.into());
        }
        let Some(bytes) = sealed.as_ref() else { return Err(Error::internal("a commit record got lost")) };
        // The same bytes at every try, so that a try whose reply was lost is recognized.
        match self.protocol.commit(bytes.clone()).await.map_err(Error::protocol)? {
            CommitOutcome::Fenced => Err(Error::Fenced { session: self.id.to_string() }),
            CommitOutcome::Committed => {
                let commit = record::open(&self.shared.key, &self.id, bytes)?;
                self.shared.buffers.release();
                info!(session.id = %self.id, checkpoint.id = %id, "Committed checkpoint {id}");
                Ok(record::info(&self.id, &commit))
            }
        }
    }
}

impl CheckpointWriter {
    /// Returns the session.
    pub fn session_id(&self) -> &SessionId {
        &self.session.id
    }

    /// Returns the base checkpoint, to be read as long as this session is open: it is pinned by it. `None` when
    /// there is none, or it cannot be read.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn base(&self) -> Result<Option<CheckpointReader>> {
        let Session { shared, fetcher, base_session, .. } = &*self.session;
        let Some(base) = base_session else { return Ok(None) };
        let bytes = karbor_sweep::read_commit(&shared.place, base).await.map_err(Error::protocol)?;
        let Some(bytes) = bytes else { return Ok(None) };
        let commit = record::open(&shared.key, base, &bytes)?;
        CheckpointReader::beside(base, commit, fetcher.clone()).map(Some)
    }

    /// Returns the scope of one resource. Streams and records of one resource have different names.
    pub fn resource(&self, key: &ResourceKey) -> ResourceWriter {
        ResourceWriter { writer: self.clone(), key: key.clone() }
    }

    /// Makes durable everything that is finished so far: packs, then index.
    ///
    /// # Errors
    /// What the bank says; [`Error::Fenced`] when somebody took over.
    pub async fn flush(&self) -> Result<()> {
        self.session.store.packer().flush().await
    }

    /// Answers sweeps that wait for this session. Done by itself from time to time, and before a commit.
    ///
    /// # Errors
    /// As [`CheckpointWriter::flush`].
    pub async fn check_sweeps(&self) -> Result<()> {
        self.session.check_sweeps().await
    }

    /// Takes over what an earlier attempt finished and [`ResourceWriter::save`]d. Returns whether every chunk is
    /// present for this session; if not, nothing is taken and the resource is to be written again.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn adopt(&self, key: &ResourceKey, saved: &SavedResource) -> Result<bool> {
        for stream in saved.streams.values() {
            if !write::adopt::is_present(&self.session, &stream.root).await? {
                return Ok(false);
            }
        }
        let mut resources = lock(&self.session.resources);
        let resource = resources.entry(key.clone()).or_default();
        resource.records.extend(saved.records.clone());
        resource.streams.extend(saved.streams.clone());
        Ok(true)
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
        self.session.commit(id, created_at, metadata).await
    }

    /// Gives up: closes the session, so that sweeps need not wait for it. What it stored is freed by the next one.
    ///
    /// # Errors
    /// What the bank says; [`Error::AlreadyCommitted`] when it had committed.
    pub async fn abandon(&self) -> Result<()> {
        let session = &self.session;
        let _settling = session.settling.lock().await;
        let _ = session.store.packer().fail(Error::Cancelled);
        session.shared.buffers.release();
        match session.protocol.close().await {
            Err(karbor_sweep::Error::AlreadyCommitted { .. }) => {
                Err(already_committed(&session.shared, &session.id).await?)
            }
            other => other.map_err(Error::protocol),
        }
    }

    /// Returns what was done so far.
    pub fn stats(&self) -> WriteStats {
        let counts = &self.session.counts;
        let (packs, stored_bytes) = self.session.store.packer().totals();
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        WriteStats {
            source_bytes: get(&counts.source_bytes),
            read_bytes: get(&counts.read_bytes),
            new_bytes: get(&counts.new_bytes),
            stored_bytes,
            new_chunks: get(&counts.new_chunks),
            known_chunks: get(&counts.known_chunks),
            packs,
        }
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
        if value.to_string().len() > MOST_RECORD_BYTES {
            return Err(Error::invalid(format!("record {name} of {} is larger than 1 MiB", self.key)));
        }
        let mut resources = lock(&self.writer.session.resources);
        resources.entry(self.key.clone()).or_default().records.insert(name.to_owned(), value);
        Ok(())
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
        let session = &self.writer.session;
        let stream = write::blocks::put(session, &self.key, name, source, options).await?;
        session.finish_stream(&self.key, name, stream);
        Ok(stream)
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
        let session = &self.writer.session;
        let stream = write::stream::put(session, name, source, options).await?;
        session.finish_stream(&self.key, name, stream);
        Ok(stream)
    }

    /// Returns the records and finished streams, to be kept as a step's outcome after [`CheckpointWriter::flush`].
    pub fn save(&self) -> SavedResource {
        let resources = lock(&self.writer.session.resources);
        let resource = resources.get(&self.key).cloned().unwrap_or_default();
        SavedResource { records: resource.records, streams: resource.streams }
    }
}
