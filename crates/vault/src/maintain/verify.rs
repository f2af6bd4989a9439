//! Verifying a checkpoint: every manifest is read, every chunk must be where the index says, and is read if wanted.
//!
//! A chunk that several places name is looked at once. What is found bad is marked, so that it leaves deduplication
//! at once; it is called damaged only if no copy of it is whole, and then everything that depends on it is named.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt};
use karbor_bank::ErrorKind;
use karbor_chunk::{ChunkId, CursorStep, ManifestCursor, Piece, StreamRoot};
use karbor_sweep::PackName;
use karbor_types::CheckpointId;

use crate::index::Location;
use crate::maintain::mark::Snapshot;
use crate::maintain::{VerifyMode, VerifyReport};
use crate::read::fetch::{Batch, Fetcher, Step, Walk, batches};
use crate::{Account, CheckpointReader, CopyOptions, DamagedRange, Error, Result, bad};

/// How many chunks are looked up and read together.
const WINDOW_CHUNKS: usize = 512;
const BATCH_BYTES: u64 = 4 << 20;
const GAP_BYTES: u64 = 64 << 10;

/// Verifies a checkpoint.
pub(crate) async fn verify(
    account: &Account,
    id: CheckpointId,
    mode: VerifyMode,
    options: &CopyOptions,
) -> Result<VerifyReport> {
    let reader = account.read(id).await?;
    let verified = reader.verify(mode, options).await;
    reader.close().await?;
    verified
}

impl CheckpointReader {
    /// Checks the checkpoint, as [`Account::verify`] does, under this reader's session.
    ///
    /// # Errors
    /// [`Error::Cancelled`], and what the bank says. Damage is not an error here.
    pub async fn verify(&self, mode: VerifyMode, options: &CopyOptions) -> Result<VerifyReport> {
        Verifier::new(self, mode, options).await?.run(self).await
    }
}

struct Verifier<'o> {
    fetcher: Arc<Fetcher>,
    snapshot: Arc<Snapshot>,
    mode: VerifyMode,
    options: &'o CopyOptions,
    /// How many bytes of a pack are in the bank, as far as that was asked.
    packs: HashMap<PackName, u64>,
    lost: HashMap<ChunkId, String>,
    chunks: u64,
    read: Arc<AtomicU64>,
    read_bytes: Arc<AtomicU64>,
}

impl<'o> Verifier<'o> {
    async fn new(reader: &CheckpointReader, mode: VerifyMode, options: &'o CopyOptions) -> Result<Self> {
        let fetcher = reader.fetcher().clone();
        let snapshot = Arc::new(Snapshot::take(&fetcher.shared).await?);
        Ok(Self {
            fetcher,
            snapshot,
            mode,
            options,
            packs: HashMap::new(),
            lost: HashMap::new(),
            chunks: 0,
            read: Arc::default(),
            read_bytes: Arc::default(),
        })
    }

    async fn run(mut self, reader: &CheckpointReader) -> Result<VerifyReport> {
        if let Some(progress) = &self.options.progress {
            progress.total(reader.info().logical_bytes);
        }
        let streams = || reader.all().values().flat_map(|resource| resource.streams.values());
        for stream in streams() {
            self.stream(&stream.root).await?;
        }
        let mut report = VerifyReport {
            chunks: self.chunks,
            read_chunks: self.read.load(Ordering::Relaxed),
            read_bytes: self.read_bytes.load(Ordering::Relaxed),
            damaged: Vec::new(),
        };
        if self.lost.is_empty() {
            return Ok(report);
        }
        for (key, resource) in reader.all() {
            for (name, stream) in &resource.streams {
                let damaged = self.name_damage(&stream.root).await?;
                report.damaged.extend(damaged.into_iter().map(|(range, chunk, reason)| DamagedRange {
                    checkpoint: Some(reader.info().id),
                    resource: Some(key.clone()),
                    stream: Some(name.clone()),
                    range,
                    chunk: chunk.to_string(),
                    reason,
                }));
            }
        }
        Ok(report)
    }

    /// Looks at everything of a stream that was not looked at before.
    async fn stream(&mut self, root: &StreamRoot) -> Result<()> {
        let mut cursor = ManifestCursor::new(root, 0..root.size_bytes);
        let mut window = Vec::new();
        loop {
            if self.options.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            match cursor.step().map_err(|err| Error::chunk("a manifest", err))? {
                CursorStep::End => break,
                CursorStep::Need(node) => {
                    let new = self.is_new(&node.id)?;
                    if new == Some(false) && !self.lost.contains_key(&node.id) {
                        // Seen before, with all that is below it.
                        self.tell(node.len);
                        cursor.skip().map_err(|err| Error::chunk("a manifest", err))?;
                        continue;
                    }
                    let fetched = self.fetcher.node(&node).await?;
                    let supplied = match fetched {
                        Ok(bytes) => {
                            cursor.supply_node(bytes.as_ref().clone()).map_err(|err| err.to_string())
                        }
                        Err(lost) => Err(lost.reason),
                    };
                    if let Err(reason) = supplied {
                        self.lost.insert(node.id, reason);
                        self.mark_copies(&node.id).await?;
                        self.tell(node.len);
                        cursor.skip().map_err(|err| Error::chunk("a manifest", err))?;
                    }
                }
                CursorStep::Entry(entry) => {
                    self.tell(entry.len);
                    let Piece::Chunk(id) = entry.piece else { continue };
                    match self.is_new(&id)? {
                        Some(true) => window.push(id),
                        Some(false) => {}
                        None => {
                            self.lost.insert(id, "no pack holds it".to_owned());
                        }
                    }
                    if window.len() >= WINDOW_CHUNKS {
                        self.look_at(std::mem::take(&mut window)).await?;
                    }
                }
            }
        }
        self.look_at(window).await
    }

    /// Returns whether a chunk was not seen before; `None` if the index does not know it.
    fn is_new(&mut self, id: &ChunkId) -> Result<Option<bool>> {
        let new = self.snapshot.reach(id).map_err(|source| self.fetcher.shared.cache.error(source))?;
        self.chunks += u64::from(new == Some(true));
        Ok(new)
    }

    fn tell(&self, bytes: u64) {
        if let Some(progress) = &self.options.progress {
            progress.advance(bytes, 0);
        }
    }

    fn is_chosen(&self, id: &ChunkId) -> bool {
        match self.mode {
            VerifyMode::Structure => false,
            VerifyMode::All => true,
            VerifyMode::Sample { fraction, seed } => {
                let mut word = [0; 8];
                word.copy_from_slice(&id.0[16..24]);
                let mixed = (u64::from_le_bytes(word) ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                // The upper 32 bits as a number from 0 to 1.
                f64::from(u32::try_from(mixed >> 32).unwrap_or(u32::MAX)) / 4_294_967_296.0 < fraction
            }
        }
    }

    /// Checks chunks, each for the first time.
    async fn look_at(&mut self, ids: Vec<ChunkId>) -> Result<()> {
        let mut known: Vec<(Location, ())> = Vec::with_capacity(ids.len());
        for id in ids {
            let copies = self.fetcher.locate(&id)?;
            let mut reason = "no pack holds it".to_owned();
            let mut found = None;
            for copy in copies {
                if self.is_there(&copy).await? {
                    found = Some(copy);
                    break;
                }
                reason = format!("packs/{} is missing or too short", copy.pack_name());
            }
            match found {
                None => {
                    self.lost.insert(id, reason);
                }
                Some(copy) if self.is_chosen(&id) => known.push((copy, ())),
                Some(_) => {}
            }
        }
        let at_once = self.fetcher.shared.options.threads.get() + 1;
        let work =
            futures::stream::iter(batches(known, BATCH_BYTES, GAP_BYTES).into_iter().map(Ok::<_, Error>));
        let this = &*self;
        let suspect: Vec<Vec<(Location, String)>> = work
            .map_ok(|batch| this.read_batch(batch))
            .try_buffer_unordered(at_once)
            .boxed()
            .try_collect()
            .await?;
        for (copy, why) in suspect.into_iter().flatten() {
            bad::mark_chunk(&self.fetcher.shared.place, &copy.pack_name().hash, &copy.chunk.id).await?;
            // Another copy may be whole.
            match self.fetcher.chunk(&copy.chunk.id).await? {
                Ok(_) => {}
                Err(_) => {
                    self.lost.insert(copy.chunk.id, why);
                }
            }
        }
        Ok(())
    }

    /// Reads a batch, and returns what cannot be read.
    async fn read_batch(&self, batch: Batch<()>) -> Result<Vec<(Location, String)>> {
        let location = batch.location;
        let chunks: HashMap<ChunkId, _> = batch.chunks.iter().map(|(chunk, ())| (chunk.id, *chunk)).collect();
        let (read, bytes) = (self.read.clone(), self.read_bytes.clone());
        let stored: u64 = batch.chunks.iter().map(|(chunk, ())| u64::from(chunk.stored_len)).sum();
        let each = move |_: &(), _: &[u8]| {
            read.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        let rest = self.fetcher.batch(batch, each).await?;
        bytes.fetch_add(stored, Ordering::Relaxed);
        let mut suspect = Vec::new();
        for (id, ()) in rest {
            let Some(chunk) = chunks.get(&id) else { continue };
            let copy = Location { chunk: *chunk, ..location };
            if let Err(why) = self.fetcher.copy(&copy).await? {
                suspect.push((copy, why));
            }
        }
        Ok(suspect)
    }

    /// Returns whether the bank has as much of a pack as a copy needs. A pack that is not as large as it should be
    /// is marked, but what there is of it may still be read.
    async fn is_there(&mut self, copy: &Location) -> Result<bool> {
        let name = copy.pack_name();
        let bytes = match self.packs.get(&name) {
            Some(bytes) => *bytes,
            None => {
                let place = &self.fetcher.shared.place;
                let bytes = match place.bank().head(&place.pack_key(&name)).await {
                    Ok(meta) => meta.size_bytes,
                    Err(err) if err.kind == ErrorKind::NotFound => 0,
                    Err(err) => return Err(Error::bank("looking at a pack", err)),
                };
                if bytes != copy.pack.info.size_bytes {
                    bad::mark_pack(place, &name.hash).await?;
                }
                self.packs.insert(name, bytes);
                bytes
            }
        };
        Ok(copy.chunk.range().end <= bytes)
    }

    /// Marks the copies of a node that cannot be read.
    async fn mark_copies(&self, id: &ChunkId) -> Result<()> {
        for copy in self.fetcher.locate(id)? {
            if self.fetcher.copy(&copy).await?.is_err() {
                bad::mark_chunk(&self.fetcher.shared.place, &copy.pack_name().hash, id).await?;
            }
        }
        Ok(())
    }

    /// Names the parts of a stream that depend on what is lost.
    async fn name_damage(&self, root: &StreamRoot) -> Result<Vec<(std::ops::Range<u64>, ChunkId, String)>> {
        let mut damaged = Vec::new();
        let mut walk = Walk::new(self.fetcher.clone(), root, 0..root.size_bytes);
        while let Some(step) = walk.next().await? {
            match step {
                Step::Lost(at, lost) => damaged.push((at.offset..at.offset + at.len, lost.id, lost.reason)),
                Step::Entry(entry) => {
                    if let Piece::Chunk(id) = entry.piece
                        && let Some(reason) = self.lost.get(&id)
                    {
                        damaged.push((entry.offset..entry.offset + entry.len, id, reason.clone()));
                    }
                }
            }
        }
        Ok(damaged)
    }
}
