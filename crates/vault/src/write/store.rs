//! Which chunks are present for a session, and storing those that are not.
//!
//! Invariant: after `put` or `refer` said that a chunk is there, either this session stores it, or a usable pack that
//! the session is known to lean on holds it. A reference is written down *before* the pack is asked for being
//! usable: whoever reads a condemned list afterwards finds the reference, and who read it before makes the pack
//! unusable; there is nothing in between.
//! Two threads that meet the same new chunk store it once: the first to enter its name stores it, and if that fails,
//! the whole session fails.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use karbor_chunk::{ChunkId, Compressor, PackKind};
use karbor_sweep::{Doomed, PackName, WriterSession};
use tokio::runtime::Handle;

use crate::account::Shared;
use crate::bad::BadChunks;
use crate::index::{IndexCache, Location, Run, RunEntry, RunWriter, View};
use crate::write::buffers::lock;
use crate::write::packer::{Indexed, Packer, Uploaded};
use crate::{Error, Result};

/// How many names of own chunks are held in memory; more are written to a file.
const OWN_IN_MEMORY: usize = 128 << 10;
/// How many names of chunks in others' packs are remembered; beyond that, only the packs.
const LEANED_IN_MEMORY: usize = 256 << 10;
const SHARDS: usize = 16;

/// What became of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// It was there.
    Known,
    /// It was stored, and takes this many bytes.
    New(u32),
}

/// What a session leans on in one pack of others.
#[derive(Debug, Clone, Default)]
struct Leaned {
    ids: HashSet<ChunkId>,
    /// Not all names are remembered: every chunk of the pack counts.
    all: bool,
}

/// The chunks of one session.
pub(crate) struct ChunkStore {
    shared: Arc<Shared>,
    session: Arc<WriterSession>,
    packer: OnceLock<Arc<Packer>>,
    view: RwLock<Arc<View>>,
    healing: Mutex<()>,
    bad: RwLock<Arc<BadChunks>>,
    own: [Mutex<HashSet<ChunkId>>; SHARDS],
    spilled: RwLock<Vec<Arc<Run>>>,
    leaned: Mutex<HashMap<PackName, Leaned>>,
    leaned_ids: AtomicU64,
}

impl ChunkStore {
    pub(crate) fn new(
        shared: Arc<Shared>,
        session: Arc<WriterSession>,
        view: Arc<View>,
        bad: Arc<BadChunks>,
    ) -> Arc<Self> {
        let id = *session.id();
        let store = Arc::new(Self {
            shared: shared.clone(),
            session,
            packer: OnceLock::new(),
            view: RwLock::new(view),
            healing: Mutex::default(),
            bad: RwLock::new(bad),
            own: std::array::from_fn(|_| Mutex::default()),
            spilled: RwLock::default(),
            leaned: Mutex::default(),
            leaned_ids: AtomicU64::new(0),
        });
        let weak = Arc::downgrade(&store);
        let listener: std::sync::Weak<dyn Indexed> = weak;
        let _ = store.packer.set(Packer::new(shared, id, listener));
        store
    }

    pub(crate) fn packer(&self) -> &Arc<Packer> {
        self.packer.get().expect("it is set before the store is given out")
    }

    /// Stores a chunk unless it is present.
    pub(crate) fn put(
        &self,
        kind: PackKind,
        id: ChunkId,
        raw: &[u8],
        compressor: &mut Compressor,
    ) -> Result<Put> {
        if self.refer(&id)? || !lock(self.shard(&id)).insert(id) {
            return Ok(Put::Known);
        }
        Ok(Put::New(self.packer().push(kind, id, raw, compressor)?.stored_len))
    }

    /// Returns whether a chunk is present, and leans on it if it is.
    pub(crate) fn refer(&self, id: &ChunkId) -> Result<bool> {
        if self.is_own(id)? {
            return Ok(true);
        }
        let bad = self.bad();
        for copy in self.find(id)? {
            let name = copy.pack_name();
            if bad.is_bad(&name.hash, id) || !self.session.is_usable(&name) {
                continue;
            }
            self.lean(name, *id);
            if self.session.is_usable(&name) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns whether this session stores the chunk.
    pub(crate) fn is_own(&self, id: &ChunkId) -> Result<bool> {
        if lock(self.shard(id)).contains(id) {
            return Ok(true);
        }
        let spilled = self.spilled.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        for run in spilled.iter() {
            run.find(id, &mut found).map_err(|source| self.shared.cache.error(source))?;
            if !found.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns all copies of a chunk that the index knew when the session began.
    pub(crate) fn find(&self, id: &ChunkId) -> Result<Vec<Location>> {
        let view = self.view();
        let found = view.find(id).map_err(|source| self.shared.cache.error(source));
        match found {
            Err(Error::Cache { source, .. }) if source.kind() == std::io::ErrorKind::InvalidData => {
                self.heal(&view)?;
                self.view().find(id).map_err(|source| self.shared.cache.error(source))
            }
            other => other,
        }
    }

    fn view(&self) -> Arc<View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a damaged cache anew, unless another thread did since `seen`.
    fn heal(&self, seen: &Arc<View>) -> Result<()> {
        let _one = lock(&self.healing);
        if !Arc::ptr_eq(seen, &self.view()) {
            return Ok(());
        }
        let listed = self.session.list_index_again();
        let runtime = Handle::current();
        let listed = runtime.block_on(listed).map_err(Error::protocol)?;
        let refreshed = runtime.block_on(self.shared.cache.refresh(&listed))?;
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = refreshed.view;
        Ok(())
    }

    fn lean(&self, pack: PackName, id: ChunkId) {
        let mut leaned = lock(&self.leaned);
        let entry = leaned.entry(pack).or_default();
        if entry.all {
            return;
        }
        if self.leaned_ids.load(Ordering::Relaxed) >= LEANED_IN_MEMORY as u64 {
            entry.all = true;
            self.leaned_ids.fetch_sub(entry.ids.len() as u64, Ordering::Relaxed);
            entry.ids = HashSet::new();
        } else if entry.ids.insert(id) {
            self.leaned_ids.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns what the session leans on in packs that are condemned: the pack, and the chunks (`None`: all).
    pub(crate) fn leaned_on(&self, condemned: &Doomed) -> Vec<(PackName, Option<Vec<ChunkId>>)> {
        let leaned = lock(&self.leaned);
        let hit = leaned.iter().filter(|(pack, _)| condemned.contains(pack));
        hit.map(|(pack, on)| (*pack, (!on.all).then(|| on.ids.iter().copied().collect()))).collect()
    }

    /// Takes news of bad chunks, and returns a name of one that the session leans on, if it does.
    pub(crate) fn set_bad(&self, bad: Arc<BadChunks>) -> Option<ChunkId> {
        let leaned = lock(&self.leaned);
        let mut hit = None;
        for (pack, on) in leaned.iter() {
            if bad.is_pack(&pack.hash) || (on.all && bad.has_any(&pack.hash)) {
                hit = on.ids.iter().next().copied().or(Some(ChunkId(*pack.hash.as_bytes())));
            }
            hit = hit.or_else(|| on.ids.iter().find(|id| bad.is_bad(&pack.hash, id)).copied());
            if hit.is_some() {
                break;
            }
        }
        drop(leaned);
        *self.bad.write().unwrap_or_else(PoisonError::into_inner) = bad;
        hit
    }

    pub(crate) fn bad(&self) -> Arc<BadChunks> {
        self.bad.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn shard(&self, id: &ChunkId) -> &Mutex<HashSet<ChunkId>> {
        &self.own[usize::from(id.0[31]) % SHARDS]
    }

    fn spill(&self, packs: &Uploaded) -> Result<()> {
        let count: usize = self.own.iter().map(|shard| lock(shard).len()).sum();
        if count < OWN_IN_MEMORY {
            return Ok(());
        }
        let mut entries = Vec::new();
        for (number, (_, chunks)) in packs.iter().enumerate() {
            let pack = u32::try_from(number).map_err(|_| Error::internal("too many packs in a segment"))?;
            entries.extend(chunks.iter().map(|chunk| RunEntry { pack, chunk: *chunk }));
        }
        entries.sort_unstable_by_key(|entry| (entry.chunk.id, entry.pack));
        let write = |file| {
            let refs: Vec<_> = packs.iter().map(|(pack, _)| pack).collect();
            let mut writer = RunWriter::create(file, refs.into_iter(), entries.len() as u64)?;
            for entry in &entries {
                writer.push(entry)?;
            }
            writer.finish()
        };
        let cache: &IndexCache = &self.shared.cache;
        let run = Arc::new(write(cache.scratch()?).map_err(|source| cache.error(source))?);
        let mut spilled = self.spilled.write().unwrap_or_else(PoisonError::into_inner);
        spilled.push(run);
        if spilled.len() >= 16 {
            let merged = cache.merge_scratch(&spilled)?;
            *spilled = vec![merged];
        }
        drop(spilled);
        // Only now may memory forget them: a name is at every moment in one of the two places.
        for entry in &entries {
            lock(self.shard(&entry.chunk.id)).remove(&entry.chunk.id);
        }
        Ok(())
    }
}

impl Indexed for ChunkStore {
    fn indexed(&self, packs: Uploaded) {
        if let Err(err) = self.spill(&packs) {
            let _ = self.packer().fail(err);
        }
    }
}
