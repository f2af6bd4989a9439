//! Getting chunks out of packs.
//!
//! Invariant: nothing is handed out that is not what its name says. A chunk may stand in several packs, and a pack
//! may go while it is read (what lived in it was stored again elsewhere): then another copy is taken, and if the
//! index knows none, the index is listed again before the chunk is called lost.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use karbor_bank::ErrorKind;
use karbor_chunk::{
    ChunkId, CursorStep, ManifestCursor, ManifestEntry, Node, NodeRef, PackOpener, StreamRoot,
};
use tokio::sync::Mutex as AsyncMutex;

use crate::account::Shared;
use crate::bad::BadChunks;
use crate::index::{Location, View, blocking};
use crate::write::buffers::lock;
use crate::{Error, Result};

/// How many decoded manifest nodes are kept.
const NODES: usize = 48;
/// How often a reader lists the index again because something was not found.
const MOST_REFRESHES: u32 = 8;

/// Why a chunk cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) id: ChunkId,
    pub(crate) reason: String,
}

impl Lost {
    /// Returns the error of who cannot go on without it.
    pub(crate) fn into_error(self, what: &str) -> Error {
        Error::damaged(format!("{what} {}: {}", self.id, self.reason))
    }
}

/// Fetches chunks of an account.
pub(crate) struct Fetcher {
    pub(crate) shared: Arc<Shared>,
    bad: Arc<BadChunks>,
    nodes: Mutex<Nodes>,
    refreshing: AsyncMutex<()>,
    refreshes: AtomicU32,
}

#[derive(Default)]
struct Nodes {
    by_id: HashMap<ChunkId, Arc<Node>>,
    order: VecDeque<ChunkId>,
}

impl Fetcher {
    pub(crate) fn new(shared: Arc<Shared>, bad: Arc<BadChunks>) -> Arc<Self> {
        Arc::new(Self {
            shared,
            bad,
            nodes: Mutex::default(),
            refreshing: AsyncMutex::new(()),
            refreshes: AtomicU32::new(0),
        })
    }

    /// Returns all copies that the index knows, those that are marked bad last.
    pub(crate) fn locate(&self, id: &ChunkId) -> Result<Vec<Location>> {
        let view = self.shared.cache.view();
        let mut copies = view.find(id).map_err(|source| self.shared.cache.error(source))?;
        if !self.bad.is_empty() {
            copies.sort_by_key(|copy| self.bad.is_bad(&copy.pack_name().hash, id));
        }
        Ok(copies)
    }

    /// Returns a chunk's bytes, from whichever copy is whole.
    pub(crate) async fn chunk(&self, id: &ChunkId) -> Result<Result<Vec<u8>, Lost>> {
        let mut view = self.shared.cache.view();
        let mut reason = "no pack holds it".to_owned();
        loop {
            let copies = match self.locate(id) {
                Err(Error::Cache { .. }) => {
                    // Made anew if it is damaged; another failure comes again.
                    self.relist().await?;
                    self.locate(id)?
                }
                located => located?,
            };
            for copy in copies {
                match self.copy(&copy).await? {
                    Ok(bytes) => return Ok(Ok(bytes)),
                    Err(why) => reason = why,
                }
            }
            match self.refresh(&view).await? {
                Some(newer) => view = newer,
                None => return Ok(Err(Lost { id: *id, reason })),
            }
        }
    }

    /// Reads one copy; the inner error tells why this copy is of no use.
    pub(crate) async fn copy(&self, copy: &Location) -> Result<Result<Vec<u8>, String>> {
        let key = self.shared.place.pack_key(&copy.pack_name());
        let sealed = match self.shared.place.bank().get(&key, Some(copy.chunk.range())).await {
            Ok(object) => object.bytes,
            Err(err) if err.kind == ErrorKind::NotFound => return Ok(Err(format!("{key} is missing"))),
            Err(err) => return Err(Error::bank("reading a pack", err)),
        };
        let (shared, copy) = (self.shared.clone(), *copy);
        blocking(move || {
            let opener = PackOpener::new(&shared.key, copy.pack.info.kind, &copy.pack.info.salt);
            shared.codecs.opening(|decompressor, out| {
                Ok(match opener.open(&copy.chunk, &sealed, decompressor, out) {
                    Ok(()) => Ok(out.clone()),
                    Err(err) => Err(format!("{key}: {err}")),
                })
            })
        })
        .await?
    }

    /// Lists the index again, unless somebody did since `seen`; `None` when it was done often enough.
    pub(crate) async fn refresh(&self, seen: &Arc<View>) -> Result<Option<Arc<View>>> {
        let _one = self.refreshing.lock().await;
        let now = self.shared.cache.view();
        if !Arc::ptr_eq(seen, &now) {
            return Ok(Some(now));
        }
        if self.refreshes.fetch_add(1, Ordering::Relaxed) >= MOST_REFRESHES {
            return Ok(None);
        }
        let before = seen.clone();
        let now = self.relist().await?;
        Ok((!Arc::ptr_eq(&before, &now)).then_some(now))
    }

    async fn relist(&self) -> Result<Arc<View>> {
        let listed = karbor_sweep::list_index(&self.shared.place).await.map_err(Error::protocol)?;
        Ok(self.shared.cache.refresh(&listed).await?.view)
    }

    /// Returns a manifest node.
    pub(crate) async fn node(&self, at: &NodeRef) -> Result<Result<Arc<Node>, Lost>> {
        if let Some(node) = lock(&self.nodes).by_id.get(&at.id) {
            return Ok(Ok(node.clone()));
        }
        let bytes = match self.chunk(&at.id).await? {
            Ok(bytes) => bytes,
            Err(lost) => return Ok(Err(lost)),
        };
        let node = match Node::decode(&bytes) {
            Ok(node) => Arc::new(node),
            Err(err) => return Ok(Err(Lost { id: at.id, reason: err.to_string() })),
        };
        let mut nodes = lock(&self.nodes);
        if nodes.by_id.insert(at.id, node.clone()).is_none() {
            nodes.order.push_back(at.id);
        }
        if nodes.order.len() > NODES
            && let Some(oldest) = nodes.order.pop_front()
        {
            nodes.by_id.remove(&oldest);
        }
        Ok(Ok(node))
    }
}

/// What a walk met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// The next part of the stream.
    Entry(ManifestEntry),
    /// A node that cannot be had, and with it all that is below.
    Lost(NodeRef, Lost),
}

/// Walks a stream's manifest.
pub(crate) struct Walk {
    fetcher: Arc<Fetcher>,
    cursor: ManifestCursor,
}

impl Walk {
    pub(crate) fn new(fetcher: Arc<Fetcher>, root: &StreamRoot, range: std::ops::Range<u64>) -> Self {
        Self { fetcher, cursor: ManifestCursor::new(root, range) }
    }

    /// Returns the next part of the stream, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Step>> {
        loop {
            let step = self.cursor.step().map_err(|err| Error::chunk("a manifest", err))?;
            match step {
                CursorStep::End => return Ok(None),
                CursorStep::Entry(entry) => return Ok(Some(Step::Entry(entry))),
                CursorStep::Need(at) => {
                    let supplied = match self.fetcher.node(&at).await? {
                        Ok(node) => {
                            self.cursor.supply_node(node.as_ref().clone()).map_err(|err| err.to_string())
                        }
                        Err(lost) => Err(lost.reason),
                    };
                    if let Err(reason) = supplied {
                        self.cursor.skip().map_err(|err| Error::chunk("a manifest", err))?;
                        return Ok(Some(Step::Lost(at, Lost { id: at.id, reason })));
                    }
                }
            }
        }
    }
}

/// Chunks that lie close together in one pack, to be read at once.
#[derive(Debug, Clone)]
pub(crate) struct Batch<T> {
    pub(crate) location: Location,
    pub(crate) chunks: Vec<(karbor_chunk::PackEntry, T)>,
}

impl<T> Batch<T> {
    /// Returns the range of the pack that holds them all.
    fn range(&self) -> std::ops::Range<u64> {
        let from = self.chunks.first().map_or(0, |(chunk, _)| chunk.range().start);
        let to = self.chunks.last().map_or(0, |(chunk, _)| chunk.range().end);
        from..to
    }
}

/// Groups located chunks into batches of neighbors.
pub(crate) fn batches<T>(mut located: Vec<(Location, T)>, most_bytes: u64, most_gap: u64) -> Vec<Batch<T>> {
    located.sort_by_key(|(at, _)| (at.pack.info.hash, at.chunk.offset));
    let mut all: Vec<Batch<T>> = Vec::new();
    for (at, what) in located {
        if let Some(batch) = all.last_mut() {
            let range = batch.range();
            let next = at.chunk.range();
            let same = batch.location.pack.info.hash == at.pack.info.hash;
            if same && next.start <= range.end + most_gap && next.end - range.start <= most_bytes {
                batch.chunks.push((at.chunk, what));
                continue;
            }
        }
        all.push(Batch { location: at, chunks: vec![(at.chunk, what)] });
    }
    all
}

impl Fetcher {
    /// Reads a batch in one go and gives each chunk that is whole to `each`, on a thread that may block. Returns
    /// what could not be read this way, for [`Fetcher::chunk`] to try.
    pub(crate) async fn batch<T, F>(&self, batch: Batch<T>, each: F) -> Result<Vec<(ChunkId, T)>>
    where
        T: Send + 'static,
        F: Fn(&T, &[u8]) -> Result<()> + Send + 'static,
    {
        let key = self.shared.place.pack_key(&batch.location.pack_name());
        let range = batch.range();
        let bytes = match self.shared.place.bank().get(&key, Some(range.clone())).await {
            Ok(object) => object.bytes,
            Err(err) if err.kind == ErrorKind::NotFound => Bytes::new(),
            Err(err) => return Err(Error::bank("reading a pack", err)),
        };
        let shared = self.shared.clone();
        blocking(move || {
            let info = &batch.location.pack.info;
            let opener = PackOpener::new(&shared.key, info.kind, &info.salt);
            shared.codecs.opening(|decompressor, out| {
                let mut rest = Vec::new();
                for (chunk, what) in batch.chunks {
                    let part = chunk.range();
                    let from = usize::try_from(part.start - range.start).unwrap_or(usize::MAX);
                    let to = usize::try_from(part.end - range.start).unwrap_or(usize::MAX);
                    let whole = bytes
                        .get(from..to)
                        .is_some_and(|sealed| opener.open(&chunk, sealed, decompressor, out).is_ok());
                    if whole {
                        each(&what, out)?;
                    } else {
                        rest.push((chunk.id, what));
                    }
                }
                Ok(rest)
            })
        })
        .await?
    }
}
