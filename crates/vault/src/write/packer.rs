//! Open packs, their upload, and the index of what is uploaded.
//!
//! Invariant: an index object names only packs whose put has returned; nothing is forgotten: what was pushed is in
//! the bank when `flush` returns, or `flush` fails. The first failure fails everything after it, so that no commit
//! can name a chunk that was lost on the way.
//!
//! A thread that has a chunk takes an open pack out of the pool, compresses and seals into it without any lock, and
//! puts it back; so there are as many open packs as threads at work, and streams share them. What is full is
//! uploaded by a task. The number of packs in memory is bounded: one of each kind for every session, the others out
//! of the account's budget; who finds none waits for an upload to end.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use karbor_bank::{ErrorKind, PutMode};
use karbor_chunk::{
    ChunkId, Compressor, FinishedPack, IndexBuilder, PackBuilder, PackEntry, PackKind, PackRef, Salt,
};
use karbor_sweep::{ObjectHash, PackName, SessionId};
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use crate::account::Shared;
use crate::index::{blocking, format_session};
use crate::{Error, Result};

/// A segment of the index is put when it has this many chunks.
const SEGMENT_CHUNKS: usize = 64 << 10;
/// The most chunks of a pack, however small they are: what is known of each is in memory until its segment is put.
const PACK_CHUNKS: usize = 16 << 10;
/// What sealing, the trailing index and the footer may add to a chunk.
const OVERHEAD_BYTES: u64 = 512;
/// The size at which a pack of manifest nodes is closed: they are small, and read one by one.
const META_PACK_BYTES: u64 = 8 << 20;

/// Packs that were uploaded, with their chunks: what a segment of the index tells.
pub(crate) type Uploaded = Vec<(PackRef, Vec<PackEntry>)>;

/// Hears of segments that were put.
pub(crate) trait Indexed: Send + Sync {
    /// These packs are in the bank, and so is an index object that names them.
    fn indexed(&self, packs: Uploaded);
}

/// The open packs of one session.
pub(crate) struct Packer {
    shared: Arc<Shared>,
    session: SessionId,
    runtime: Handle,
    listener: Weak<dyn Indexed>,
    state: Mutex<State>,
    returned: Condvar,
    settled: Notify,
}

#[derive(Default)]
struct State {
    open: [Vec<Open>; 2],
    live: [usize; 2],
    unfinished: BTreeSet<u64>,
    next_serial: u64,
    flush_below: u64,
    uploaded: Uploaded,
    uploaded_chunks: usize,
    segments_in_flight: usize,
    packs: u64,
    bytes: u64,
    failed: Option<Arc<Error>>,
}

struct Open {
    serial: u64,
    builder: PackBuilder,
    _permit: Option<OwnedSemaphorePermit>,
}

fn slot(kind: PackKind) -> usize {
    usize::from(kind.code())
}

impl Packer {
    pub(crate) fn new(shared: Arc<Shared>, session: SessionId, listener: Weak<dyn Indexed>) -> Arc<Self> {
        Arc::new(Self {
            shared,
            session,
            runtime: Handle::current(),
            listener,
            state: Mutex::default(),
            returned: Condvar::new(),
            settled: Notify::new(),
        })
    }

    /// Stores a chunk. Called on threads that may block.
    pub(crate) fn push(
        self: &Arc<Self>,
        kind: PackKind,
        id: ChunkId,
        raw: &[u8],
        compressor: &mut Compressor,
    ) -> Result<PackEntry> {
        let mut open = self.check_out(kind, raw.len() as u64)?;
        match open.builder.push(id, raw, compressor) {
            Ok(entry) => {
                self.check_in(kind, open)?;
                Ok(entry)
            }
            Err(err) => Err(self.fail(Error::chunk("a new pack", err))),
        }
    }

    fn target(&self, kind: PackKind) -> u64 {
        match kind {
            PackKind::Data => self.shared.pack_target,
            PackKind::Meta => self.shared.pack_target.min(META_PACK_BYTES),
        }
    }

    fn check_out(self: &Arc<Self>, kind: PackKind, bytes: u64) -> Result<Open> {
        let fits = |open: &Open| {
            let size = open.builder.size_bytes();
            open.builder.entries().is_empty() || size + bytes + OVERHEAD_BYTES <= self.target(kind)
        };
        loop {
            let mut state = self.lock();
            let open = loop {
                if let Some(err) = &state.failed {
                    return Err(err.again());
                }
                if let Some(open) = state.open[slot(kind)].pop() {
                    break open;
                }
                let first = state.live[slot(kind)] == 0;
                let permit =
                    if first { None } else { self.shared.pack_permits.clone().try_acquire_owned().ok() };
                if first || permit.is_some() {
                    state.live[slot(kind)] += 1;
                    let serial = state.next_serial;
                    state.next_serial += 1;
                    state.unfinished.insert(serial);
                    drop(state);
                    return self.create(kind, serial, permit);
                }
                // A pack of this session is at work or on its way, so somebody will wake this thread; a permit
                // that another session gives back is seen then as well.
                state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
            };
            drop(state);
            if fits(&open) {
                return Ok(open);
            }
            self.close(kind, open)?;
        }
    }

    fn create(&self, kind: PackKind, serial: u64, permit: Option<OwnedSemaphorePermit>) -> Result<Open> {
        let salt = Salt::generate(self.shared.entropy.as_ref());
        let salt = salt.map_err(|err| self.fail(Error::chunk("a new pack", err)))?;
        let buffer = match kind {
            PackKind::Data => self.shared.buffers.take(),
            PackKind::Meta => Vec::new(),
        };
        let builder = PackBuilder::new(&self.shared.key, kind, salt, buffer);
        Ok(Open { serial, builder, _permit: permit })
    }

    fn check_in(self: &Arc<Self>, kind: PackKind, open: Open) -> Result<()> {
        let full =
            open.builder.size_bytes() >= self.target(kind) || open.builder.entries().len() >= PACK_CHUNKS;
        {
            let mut state = self.lock();
            if !full && open.serial >= state.flush_below {
                state.open[slot(kind)].push(open);
                drop(state);
                self.returned.notify_one();
                return Ok(());
            }
        }
        self.close(kind, open)
    }

    /// Finishes a pack and has it uploaded.
    fn close(self: &Arc<Self>, kind: PackKind, open: Open) -> Result<()> {
        let Open { serial, builder, _permit: permit } = open;
        if builder.entries().is_empty() {
            drop(builder);
            self.retire(kind, serial, |_| {});
            return Ok(());
        }
        let pack = builder.finish().map_err(|err| self.fail(Error::chunk("a new pack", err)))?;
        let this = self.clone();
        self.shared.tasks.spawn_on(
            async move {
                let outcome = this.upload(pack).await;
                drop(permit);
                this.retire(kind, serial, |state| match outcome {
                    Ok((pack, entries)) => {
                        state.packs += 1;
                        state.bytes += pack.info.size_bytes;
                        state.uploaded_chunks += entries.len();
                        state.uploaded.push((pack, entries));
                    }
                    Err(err) => {
                        state.failed.get_or_insert_with(|| Arc::new(err));
                    }
                });
                this.put_segments(SEGMENT_CHUNKS).await;
            },
            &self.runtime,
        );
        Ok(())
    }

    async fn upload(&self, pack: FinishedPack) -> Result<(PackRef, Vec<PackEntry>)> {
        let name = PackName::new(self.session, ObjectHash::from_bytes(pack.info.hash.0));
        let key = self.shared.place.pack_key(&name);
        let body = match pack.info.kind {
            PackKind::Data => self.shared.buffers.share(pack.bytes),
            PackKind::Meta => pack.bytes.into(),
        };
        put_hashed(&self.shared, &key, body).await.map_err(|err| Error::bank("putting a pack", err))?;
        Ok((PackRef { session: format_session(&self.session), info: pack.info }, pack.entries))
    }

    fn retire(&self, kind: PackKind, serial: u64, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        state.live[slot(kind)] -= 1;
        state.unfinished.remove(&serial);
        change(&mut state);
        drop(state);
        self.returned.notify_all();
        self.settled.notify_waiters();
    }

    /// Puts an index segment of what is uploaded, if that is at least `least` chunks.
    async fn put_segments(&self, least: usize) {
        let packs = {
            let mut state = self.lock();
            if state.uploaded_chunks < least.max(1) || state.failed.is_some() {
                return;
            }
            state.uploaded_chunks = 0;
            state.segments_in_flight += 1;
            std::mem::take(&mut state.uploaded)
        };
        let outcome = self.put_segment(packs).await;
        let mut state = self.lock();
        state.segments_in_flight -= 1;
        match outcome {
            Ok(packs) => {
                drop(state);
                if let Some(listener) = self.listener.upgrade() {
                    listener.indexed(packs);
                }
            }
            Err(err) => {
                state.failed.get_or_insert_with(|| Arc::new(err));
                drop(state);
                self.returned.notify_all();
            }
        }
        self.settled.notify_waiters();
    }

    async fn put_segment(&self, packs: Uploaded) -> Result<Uploaded> {
        let shared = self.shared.clone();
        let sealed = blocking(move || {
            let mut builder = IndexBuilder::new();
            for (pack, chunks) in &packs {
                builder.add_pack(*pack, chunks)?;
            }
            let salt = Salt::generate(shared.entropy.as_ref())?;
            karbor_chunk::Result::Ok((builder.finish(&shared.key, salt)?, packs))
        });
        let (sealed, packs) = sealed.await?.map_err(|err| Error::chunk("a new index segment", err))?;
        let hash = ObjectHash::from_bytes(sealed.hash.0);
        let key = self.shared.place.index_key(&self.session, &hash);
        self.lock().bytes += sealed.bytes.len() as u64;
        let put = put_hashed(&self.shared, &key, sealed.bytes.into()).await;
        put.map_err(|err| Error::bank("putting the index", err))?;
        Ok(packs)
    }

    /// Returns when everything that was pushed before is in the bank, with its index.
    pub(crate) async fn flush(self: &Arc<Self>) -> Result<()> {
        let (below, idle) = {
            let mut state = self.lock();
            state.flush_below = state.next_serial;
            let mut idle = Vec::new();
            for kind in [PackKind::Data, PackKind::Meta] {
                idle.extend(state.open[slot(kind)].drain(..).map(|open| (kind, open)));
            }
            (state.flush_below, idle)
        };
        for (kind, open) in idle {
            self.close(kind, open)?;
        }
        self.wait(|state| state.unfinished.first().is_none_or(|serial| *serial >= below)).await?;
        self.put_segments(1).await;
        self.wait(|state| state.segments_in_flight == 0).await
    }

    async fn wait(&self, mut done: impl FnMut(&State) -> bool) -> Result<()> {
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            {
                let state = self.lock();
                if let Some(err) = &state.failed {
                    return Err(err.again());
                }
                if done(&state) {
                    return Ok(());
                }
            }
            settled.await;
        }
    }

    /// Fails the session: nothing is stored or committed any more. Returns the error.
    pub(crate) fn fail(&self, error: Error) -> Error {
        let again = error.again();
        self.lock().failed.get_or_insert_with(|| Arc::new(error));
        self.returned.notify_all();
        self.settled.notify_waiters();
        again
    }

    /// Returns the failure, if there was one.
    pub(crate) fn check(&self) -> Result<()> {
        self.lock().failed.as_ref().map_or(Ok(()), |err| Err(err.again()))
    }

    /// Returns how many packs, and how many bytes with the index, were put.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let state = self.lock();
        (state.packs, state.bytes)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts an object that is named by its bytes: if it stands already, it is the same.
pub(crate) async fn put_hashed(
    shared: &Shared,
    key: &karbor_bank::Key,
    body: bytes::Bytes,
) -> karbor_bank::Result<()> {
    match shared.place.bank().put(key, vec![body], PutMode::Create).await {
        Err(err) if err.kind != ErrorKind::AlreadyExists => Err(err),
        _ => Ok(()),
    }
}
