//! What living checkpoints reach: one bit per entry of the index.
//!
//! Invariant: memory is one bit per chunk in the index and a row per pack, whatever the size of the checkpoints. A
//! manifest node that was seen is not walked again, so a chain of similar checkpoints costs their differences.
//! What is not known is counted as missing, never taken for unused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use karbor_chunk::{ChunkId, Node, NodeEntry, NodeRef, StreamRoot};
use karbor_sweep::{BoxError, Choice, Needed, PackName, Rank, Reachability, Roots, SessionId};
use tokio_util::sync::CancellationToken;

use crate::account::Shared;
use crate::bad::BadChunks;
use crate::index::{Run, RunEntry, blocking, pack_name};
use crate::read::fetch::{Fetcher, Lost};
use crate::write::buffers::lock;
use crate::{Error, Result, record};

/// The index at one time as one sorted file, and which of its entries were reached.
pub(crate) struct Snapshot {
    pub(crate) run: Arc<Run>,
    bits: Vec<AtomicU64>,
    /// The packs of the run, by their number there.
    pub(crate) packs: Vec<PackName>,
}

impl Snapshot {
    /// Lists the index and puts all of it into one file.
    pub(crate) async fn take(shared: &Arc<Shared>) -> Result<Self> {
        for _ in 0..5 {
            let listed = karbor_sweep::list_index(&shared.place).await.map_err(Error::protocol)?;
            let refreshed = shared.cache.refresh(&listed).await?;
            if !refreshed.vanished {
                break;
            }
        }
        let shared = shared.clone();
        blocking(move || {
            let view = shared.cache.view();
            let run = match view.runs() {
                [run] => run.clone(),
                runs => shared.cache.merge_scratch(runs)?,
            };
            let failed = |source| shared.cache.error(source);
            let mut packs = Vec::with_capacity(run.pack_count() as usize);
            run.for_each_pack(|_, pack| packs.push(pack_name(&pack))).map_err(failed)?;
            let words =
                usize::try_from(run.len().div_ceil(64)).map_err(|_| Error::internal("a large index"))?;
            let bits = std::iter::repeat_with(AtomicU64::default).take(words).collect();
            Ok(Self { run, bits, packs })
        })
        .await?
    }

    /// Marks all copies of a chunk. Returns whether they were not marked before; `None` when there is no copy.
    pub(crate) fn reach(&self, id: &ChunkId) -> std::io::Result<Option<bool>> {
        let mut found = Vec::new();
        self.run.find(id, &mut found)?;
        let mut first = None;
        for hit in &found {
            let (word, bit) = self.place(hit.position)?;
            let before = word.fetch_or(bit, Ordering::Relaxed) & bit != 0;
            // The first copy decides: whoever sets its bit is the one who goes on from here.
            first = first.or(Some(!before));
        }
        Ok(first)
    }

    fn place(&self, position: u64) -> std::io::Result<(&AtomicU64, u64)> {
        let word = usize::try_from(position / 64).ok().and_then(|word| self.bits.get(word));
        let word = word.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidData))?;
        Ok((word, 1 << (position % 64)))
    }

    /// Calls `each` with every entry in order and whether it was reached.
    pub(crate) fn scan(
        &self,
        mut each: impl FnMut(RunEntry, bool) -> Result<()>,
        shared: &Shared,
    ) -> Result<()> {
        for (position, entry) in (0..).zip(self.run.scan()) {
            let entry = entry.map_err(|source| shared.cache.error(source))?;
            let (word, bit) = self.place(position).map_err(|source| shared.cache.error(source))?;
            each(entry, word.load(Ordering::Relaxed) & bit != 0)?;
        }
        Ok(())
    }
}

/// Walks manifests and marks what they reach.
pub(crate) struct Marker {
    pub(crate) shared: Arc<Shared>,
    fetcher: Arc<Fetcher>,
    pub(crate) snapshot: Arc<Snapshot>,
    cancel: CancellationToken,
    missing: AtomicU64,
}

impl Marker {
    pub(crate) async fn begin(
        shared: Arc<Shared>,
        bad: Arc<BadChunks>,
        cancel: CancellationToken,
    ) -> Result<Self> {
        let snapshot = Arc::new(Snapshot::take(&shared).await?);
        let fetcher = Fetcher::new(shared.clone(), bad);
        Ok(Self { shared, fetcher, snapshot, cancel, missing: AtomicU64::new(0) })
    }

    /// Returns how many reached chunks the index does not know.
    pub(crate) fn missing(&self) -> u64 {
        self.missing.load(Ordering::Relaxed)
    }

    /// Marks what streams reach.
    pub(crate) async fn mark(&self, roots: Vec<StreamRoot>) -> Result<()> {
        let at_once = self.shared.options.threads.get() + 1;
        let mut stack: Vec<NodeRef> = Vec::new();
        for root in roots {
            let len = root.size_bytes;
            stack.push(NodeRef { id: root.node, level: root.depth, offset: 0, len });
        }
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < at_once
                && let Some(node) = stack.pop()
            {
                running.push(self.node(node));
            }
            let Some(below) = running.next().await else { return Ok(()) };
            stack.extend(below?);
            if self.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
        }
    }

    /// Marks a node and, unless it was marked before, what is in it; returns the nodes below it.
    async fn node(&self, at: NodeRef) -> Result<Vec<NodeRef>> {
        let snapshot = self.snapshot.clone();
        let new = blocking(move || snapshot.reach(&at.id)).await?;
        match new.map_err(|source| self.shared.cache.error(source))? {
            Some(false) => return Ok(Vec::new()),
            Some(true) => {}
            None => {
                self.missing.fetch_add(1, Ordering::Relaxed);
                return Ok(Vec::new());
            }
        }
        let node: Arc<Node> = match self.fetcher.node(&at).await? {
            Ok(node) => node,
            Err(Lost { .. }) => {
                // What was below it cannot be restored by anybody, whatever becomes of it; but somebody is to know.
                self.missing.fetch_add(1, Ordering::Relaxed);
                return Ok(Vec::new());
            }
        };
        let mut offset = at.offset;
        let mut below = Vec::new();
        let mut chunks = Vec::new();
        for entry in node.entries() {
            if let NodeEntry::Child { id, len } = *entry {
                if node.level() == 0 {
                    chunks.push(id);
                } else {
                    below.push(NodeRef { id, level: node.level() - 1, offset, len });
                }
            }
            offset += entry.len();
        }
        if !chunks.is_empty() {
            let (snapshot, shared) = (self.snapshot.clone(), self.shared.clone());
            let missing = blocking(move || {
                let mut missing = 0;
                for id in chunks {
                    let found = snapshot.reach(&id).map_err(|source| shared.cache.error(source))?;
                    missing += u64::from(found.is_none());
                }
                Ok::<_, Error>(missing)
            });
            self.missing.fetch_add(missing.await??, Ordering::Relaxed);
        }
        Ok(below)
    }
}

/// Returns the streams of a commit; `None` if there is no such commit (any more).
pub(crate) async fn streams_of(shared: &Shared, session: &SessionId) -> Result<Option<Vec<StreamRoot>>> {
    let key = shared.place.commit_key(session);
    let bytes = match shared.place.bank().get(&key, None).await {
        Ok(object) => object.bytes,
        Err(err) if err.kind == karbor_bank::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(Error::bank("reading a commit record", err)),
    };
    let commit = record::open(&shared.key, session, &bytes)?;
    let streams = commit.resources.iter().flat_map(|resource| resource.streams.values());
    Ok(Some(streams.map(|stream| stream.root).collect()))
}

/// How much of each pack is reached, by the pack's number in the snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fill {
    pub(crate) reached_bytes: u64,
    pub(crate) total_bytes: u64,
}

impl Fill {
    /// Compares how great a part is reached, without fractions.
    fn is_fuller_than(&self, other: &Self) -> bool {
        u128::from(self.reached_bytes) * u128::from(other.total_bytes)
            > u128::from(other.reached_bytes) * u128::from(self.total_bytes)
    }
}

/// Returns how much of each pack is reached.
pub(crate) fn fills(snapshot: &Snapshot, shared: &Shared) -> Result<Vec<Fill>> {
    let mut fills = vec![Fill::default(); snapshot.packs.len()];
    let count = |entry: RunEntry, reached: bool| {
        let fill =
            fills.get_mut(entry.pack as usize).ok_or_else(|| Error::internal("the number of a pack"))?;
        fill.total_bytes += u64::from(entry.chunk.stored_len);
        if reached {
            fill.reached_bytes += u64::from(entry.chunk.stored_len);
        }
        Ok(())
    };
    snapshot.scan(count, shared)?;
    Ok(fills)
}

/// What the last marking of a sweep found, for what is done after it.
pub(crate) struct Marked {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) fills: Vec<Fill>,
    /// For each pack how many bytes of it are the chosen copies of reached chunks.
    pub(crate) chosen_bytes: Vec<u64>,
    /// Packs that are in the bank and in no list.
    pub(crate) standing: Vec<bool>,
    /// Marks of bad chunks whose packs are gone.
    pub(crate) bad_gone: Vec<karbor_sweep::ObjectHash>,
}

/// The vault's part of a sweep.
pub(crate) struct Reach {
    shared: Arc<Shared>,
    cancel: CancellationToken,
    last: std::sync::Mutex<Option<Marked>>,
}

impl Reach {
    pub(crate) fn new(shared: Arc<Shared>, cancel: CancellationToken) -> Self {
        Self { shared, cancel, last: std::sync::Mutex::default() }
    }

    /// Returns what the last marking found.
    pub(crate) fn take(&self) -> Option<Marked> {
        lock(&self.last).take()
    }

    async fn mark(&self, roots: &Roots, choice: &Choice<'_>) -> Result<Needed> {
        let bad = Arc::new(BadChunks::read(&self.shared.place).await?);
        let marker = Marker::begin(self.shared.clone(), bad.clone(), self.cancel.clone()).await?;
        for session in &roots.living {
            let Some(streams) = streams_of(&self.shared, session).await? else {
                return Err(Error::damaged(format!(
                    "the commit record of session {session}: it is missing and"
                )));
            };
            marker.mark(streams).await?;
        }
        let missing = marker.missing();
        for session in &roots.pinned {
            // A pin may have come too late; what is not there is passed over.
            if let Ok(Some(streams)) = streams_of(&self.shared, session).await {
                marker.mark(streams).await?;
            }
        }
        let ranks: Vec<Option<Rank>> = marker.snapshot.packs.iter().map(|pack| choice.rank(pack)).collect();
        let hashes: std::collections::HashSet<_> = match bad.is_empty() {
            true => Default::default(),
            false => choice.present().iter().map(|pack| pack.hash).collect(),
        };
        let bad_gone = bad.packs().filter(|hash| !hashes.contains(hash)).copied().collect();
        let (snapshot, shared) = (marker.snapshot.clone(), self.shared.clone());
        let (needed, marked) = blocking(move || choose(&snapshot, &ranks, &bad, bad_gone, &shared)).await??;
        *lock(&self.last) = Some(marked);
        Ok(Needed { packs: needed.packs, missing_chunks: missing + needed.missing_chunks })
    }
}

#[async_trait]
impl Reachability for Reach {
    async fn needed(&self, roots: &Roots, choice: &Choice<'_>) -> Result<Needed, BoxError> {
        Ok(self.mark(roots, choice).await?)
    }
}

/// Chooses for every reached chunk the pack that keeps it.
fn choose(
    snapshot: &Arc<Snapshot>,
    ranks: &[Option<Rank>],
    bad: &BadChunks,
    bad_gone: Vec<karbor_sweep::ObjectHash>,
    shared: &Shared,
) -> Result<(Needed, Marked)> {
    let fills = fills(snapshot, shared)?;
    let mut chosen_bytes = vec![0u64; fills.len()];
    let mut missing_chunks = 0;
    let mut copies: Vec<RunEntry> = Vec::new();
    let mut settle = |copies: &mut Vec<RunEntry>| {
        let mut best: Option<(RunEntry, (bool, Rank))> = None;
        for copy in copies.drain(..) {
            let pack = copy.pack as usize;
            let Some(rank) = ranks.get(pack).copied().flatten() else { continue };
            let good = !bad.is_bad(&snapshot.packs[pack].hash, &copy.chunk.id);
            let better = match &best {
                None => true,
                Some((other, score)) if *score == (good, rank) => {
                    fills[pack].is_fuller_than(&fills[other.pack as usize])
                }
                Some((_, score)) => (good, rank) > *score,
            };
            if better {
                best = Some((copy, (good, rank)));
            }
        }
        match best {
            Some((copy, _)) => chosen_bytes[copy.pack as usize] += u64::from(copy.chunk.stored_len),
            None => missing_chunks += 1,
        }
    };
    snapshot.scan(
        |entry, reached| {
            if copies.first().is_some_and(|first| first.chunk.id != entry.chunk.id) {
                settle(&mut copies);
            }
            if reached {
                copies.push(entry);
            }
            Ok(())
        },
        shared,
    )?;
    if !copies.is_empty() {
        settle(&mut copies);
    }
    let chosen = snapshot.packs.iter().zip(&chosen_bytes).filter(|(_, bytes)| **bytes > 0);
    let packs = chosen.map(|(pack, _)| *pack).collect();
    let standing = ranks.iter().map(|rank| *rank == Some(Rank::Standing)).collect();
    let marked = Marked { snapshot: snapshot.clone(), fills, chosen_bytes, standing, bad_gone };
    Ok((Needed { packs, missing_chunks }, marked))
}
