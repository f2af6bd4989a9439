//! The local copy of the bank's index: sorted runs on disk, and which index objects they stand for.
//!
//! Invariant: an entry is a fact about a pack that never changes, so entries may come in any order, twice, and from
//! any object that ever stood in the bank. Whether the pack may be used is not told here but asked of the session.
//! When index objects have vanished (merged, or all their packs gone), packs that are not in the bank any more are
//! dropped, so that even a bank that was set back to an earlier state is never referred to for what it lost.
//!
//! Second invariant: an object counts as known only together with the run that holds what it says. A refresh works
//! on a copy of the state and puts it in place at its end, so one that fails or is dropped halfway changes nothing.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use futures::StreamExt;
use karbor_bank::ErrorKind;
use karbor_chunk::{AccountKey, Entropy, IndexDecoder, IndexItem, ObjectHash, PackRef};
use karbor_sweep::{Area, IndexObject, PackName, PackSet, Place};
use tokio::sync::Mutex;
use tracing::warn;

use crate::index::View;
use crate::index::dir::Dir;
use crate::index::merge::{FAN_IN, merge};
use crate::index::run::{Run, RunEntry, RunWriter};
use crate::{Error, Result};

/// How many entries are held in memory while index objects are read.
const BATCH_ENTRIES: usize = 128 << 10;
/// How many runs there may be before small ones are merged.
const MAX_RUNS: usize = 8;
/// How much of an index object is read at once.
const FETCH_BYTES: u64 = 4 << 20;
const LIST_MAGIC: &str = "karbor index cache 1";

/// The local copy of one account's index.
pub(crate) struct IndexCache {
    place: Place,
    key: AccountKey,
    entropy: Arc<dyn Entropy>,
    dir: Arc<Dir>,
    state: Mutex<State>,
    view: RwLock<Arc<View>>,
    /// Something in the files was not as it was written: the next refresh makes all of it anew.
    damaged: AtomicBool,
}

#[derive(Clone, Default)]
struct State {
    objects: BTreeSet<String>,
    runs: Vec<Named>,
}

#[derive(Clone)]
struct Named {
    run: Arc<Run>,
    name: Option<String>,
}

/// What a refresh found.
pub(crate) struct Refreshed {
    pub(crate) view: Arc<View>,
    /// Index objects that were not there any more when they were read: the caller lists again.
    pub(crate) vanished: bool,
}

impl IndexCache {
    /// Opens the cache below `root`, or one that ends with the process.
    pub(crate) fn open(
        root: Option<PathBuf>,
        place: Place,
        key: AccountKey,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self> {
        let dir = match root {
            None => Dir::nameless(),
            Some(root) => {
                let root = root.join(key.id().to_string());
                Dir::open(&root).map_err(|source| Error::Cache { path: root, source })?
            }
        };
        let state = load(&dir);
        let view = Arc::new(state.view());
        Ok(Self {
            place,
            key,
            entropy,
            dir: Arc::new(dir),
            state: Mutex::new(state),
            view: RwLock::new(view),
            damaged: AtomicBool::new(false),
        })
    }

    /// Returns what is known now.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes an empty file for a run that is not part of the cache.
    pub(crate) fn scratch(&self) -> Result<std::fs::File> {
        let made = Dir::nameless().create(self.entropy.as_ref());
        made.map(|(file, _)| file).map_err(|source| self.error(source))
    }

    /// Merges runs that are not part of the cache.
    pub(crate) fn merge_scratch(&self, runs: &[Arc<Run>]) -> Result<Arc<Run>> {
        let file = self.scratch()?;
        merge(runs, file, &|_| true).map(Arc::new).map_err(|source| self.error(source))
    }

    /// Reads the index objects that are listed and not known.
    pub(crate) async fn refresh(&self, listed: &[IndexObject]) -> Result<Refreshed> {
        let mut state = self.state.lock().await;
        if self.damaged.swap(false, Ordering::Relaxed) {
            *state = State::default();
        }
        let first = self.refresh_locked(&mut state, listed).await;
        if first.is_err() && self.damaged.swap(false, Ordering::Relaxed) {
            // Everything in it can be had again.
            *state = State::default();
            return self.refresh_locked(&mut state, listed).await;
        }
        first
    }

    /// Forgets what is cached and reads all that is listed.
    pub(crate) async fn rebuild(&self, listed: &[IndexObject]) -> Result<Refreshed> {
        let mut state = self.state.lock().await;
        *state = State::default();
        self.refresh_locked(&mut state, listed).await
    }

    async fn refresh_locked(&self, current: &mut State, listed: &[IndexObject]) -> Result<Refreshed> {
        let mut next = current.clone();
        let state = &mut next;
        let names: BTreeSet<&str> = listed.iter().map(|object| object.key.as_str()).collect();
        let had = state.objects.len();
        state.objects.retain(|name| names.contains(name.as_str()));
        let mut changed = had != state.objects.len();
        if changed && self.place.bank().capabilities().consistent_listing {
            let present = self.present().await?;
            let runs = std::mem::take(&mut state.runs);
            state.runs = self.merge_all(runs, Arc::new(move |pack| present.contains(pack))).await?;
        } else if changed {
            // A listing of packs may lag: only what the index still says counts.
            *state = State::default();
        }
        let new: Vec<IndexObject> =
            listed.iter().filter(|object| !state.objects.contains(object.key.as_str())).cloned().collect();
        let mut vanished = false;
        if !new.is_empty() {
            changed = true;
            let mut ingest = Ingest::new(self.dir.clone(), self.entropy.clone());
            let mut firsts = futures::stream::iter(new.iter().cloned())
                .map(|object| async move {
                    let part = self.fetch(&object, 0).await;
                    (object, part)
                })
                .buffered(4)
                .boxed();
            while let Some((object, part)) = firsts.next().await {
                let part = match part {
                    Err(err) if err.kind == ErrorKind::NotFound => {
                        vanished = true;
                        continue;
                    }
                    part => part.map_err(|err| Error::bank("reading the index", err))?,
                };
                let (back, outcome) = self.ingest(ingest, &object, part).await?;
                ingest = back;
                match outcome {
                    Ok(()) => {
                        state.objects.insert(object.key.as_str().to_owned());
                    }
                    // What only it tells is not known until the index is rebuilt; it is tried again next time.
                    Err(err) => {
                        warn!(object.key = %object.key, error = %err, "Index object {} cannot be read", object.key);
                    }
                }
            }
            drop(firsts);
            let made = blocking(move || ingest.finish()).await?.map_err(|source| self.error(source))?;
            state.runs.extend(made);
            self.compact(state).await?;
        }
        let view = self.view();
        if !changed && view.runs().len() == state.runs.len() {
            return Ok(Refreshed { view, vanished });
        }
        self.save(state)?;
        *current = next;
        let view = Arc::new(current.view());
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view.clone();
        Ok(Refreshed { view, vanished })
    }

    async fn fetch(&self, object: &IndexObject, from: u64) -> karbor_bank::Result<bytes::Bytes> {
        let to = object.size_bytes.min(from + FETCH_BYTES);
        Ok(self.place.bank().get(&object.key, Some(from..to)).await?.bytes)
    }

    /// Reads one index object; the second result is about the object, the first about everything else.
    async fn ingest(
        &self,
        mut ingest: Ingest,
        object: &IndexObject,
        first: bytes::Bytes,
    ) -> Result<(Ingest, Result<()>)> {
        let mut decoder = IndexDecoder::new(&self.key);
        let mut part = first;
        let mut read = 0;
        ingest.begin();
        loop {
            read += part.len() as u64;
            let fed = blocking(move || {
                let outcome = ingest.feed(&mut decoder, &part);
                (ingest, decoder, outcome)
            });
            let outcome;
            (ingest, decoder, outcome) = fed.await?;
            if let Err(err) = outcome.map_err(|source| self.error(source))? {
                ingest.abandon();
                return Ok((ingest, Err(Error::chunk(object.key.as_str(), err))));
            }
            if read >= object.size_bytes {
                break;
            }
            let next = self.fetch(object, read).await.map_err(|err| Error::bank("reading the index", err))?;
            if next.is_empty() {
                break;
            }
            part = next;
        }
        if let Err(err) = decoder.finish() {
            ingest.abandon();
            return Ok((ingest, Err(Error::chunk(object.key.as_str(), err))));
        }
        Ok((ingest, Ok(())))
    }

    async fn present(&self) -> Result<PackSet> {
        let area = self.place.area(Area::Packs);
        let mut present = PackSet::new();
        let mut after = None;
        loop {
            let page = self.place.bank().list(&area, after.as_ref(), 1000).await;
            let page = page.map_err(|err| Error::bank("listing packs", err))?;
            for meta in &page {
                if let Some(Ok(name)) = self.place.below(Area::Packs, &meta.key).map(str::parse) {
                    present.insert(name);
                }
            }
            if page.len() < 1000 {
                return Ok(present);
            }
            after = page.into_iter().next_back().map(|meta| meta.key);
        }
    }

    /// Merges small runs while there are too many.
    async fn compact(&self, state: &mut State) -> Result<()> {
        while state.runs.len() > MAX_RUNS {
            state.runs.sort_by_key(|named| std::cmp::Reverse(named.run.len()));
            let take = if state.runs.len() <= 2 * MAX_RUNS { MAX_RUNS - 2 } else { FAN_IN };
            let from = state.runs.len().saturating_sub(take);
            let small = state.runs.split_off(from);
            let merged = self.merge_all(small, Arc::new(|_: &PackName| true)).await?;
            state.runs.extend(merged);
        }
        Ok(())
    }

    async fn merge_all(
        &self,
        mut runs: Vec<Named>,
        keep: Arc<dyn Fn(&PackName) -> bool + Send + Sync>,
    ) -> Result<Vec<Named>> {
        loop {
            let rest = runs.split_off(runs.len().min(FAN_IN));
            if runs.is_empty() {
                return Ok(runs);
            }
            let (dir, entropy, keep) = (self.dir.clone(), self.entropy.clone(), keep.clone());
            let merged = blocking(move || {
                let (file, name) = dir.create(entropy.as_ref())?;
                let runs: Vec<Arc<Run>> = runs.into_iter().map(|named| named.run).collect();
                let run = Arc::new(merge(&runs, file, keep.as_ref())?);
                io::Result::Ok(Named { run, name })
            });
            let merged = merged.await?.map_err(|source| self.error(source))?;
            if rest.is_empty() {
                return Ok(vec![merged]);
            }
            runs = rest;
            runs.push(merged);
        }
    }

    fn save(&self, state: &State) -> Result<()> {
        if !self.dir.is_lasting() {
            return Ok(());
        }
        let mut text = format!("{LIST_MAGIC}\n");
        for named in &state.runs {
            text.push_str(&format!("run {}\n", named.name.as_deref().unwrap_or_default()));
        }
        for object in &state.objects {
            text.push_str(&format!("object {object}\n"));
        }
        let sum = ObjectHash::of(text.as_bytes());
        text.push_str(&format!("{sum}\n"));
        self.dir.write_list(&text).map_err(|source| self.error(source))?;
        let keep: Vec<&str> = state.runs.iter().filter_map(|named| named.name.as_deref()).collect();
        self.dir.remove_others(&keep);
        Ok(())
    }

    /// Returns the error for a caller, and remembers if the files are not as they were written.
    pub(crate) fn error(&self, source: io::Error) -> Error {
        if source.kind() == io::ErrorKind::InvalidData && !self.damaged.swap(true, Ordering::Relaxed) {
            warn!(error = %source, "Index cache is damaged and will be made anew");
        }
        Error::Cache { path: self.dir.path().to_owned(), source }
    }
}

impl State {
    fn view(&self) -> View {
        View::new(self.runs.iter().map(|named| named.run.clone()).collect())
    }
}

/// Loads what a directory's list names; whatever is wrong with it means an empty cache.
fn load(dir: &Dir) -> State {
    if !dir.is_lasting() {
        return State::default();
    }
    let state = read_list(dir).unwrap_or_default();
    let keep: Vec<&str> = state.runs.iter().filter_map(|named| named.name.as_deref()).collect();
    dir.remove_others(&keep);
    state
}

fn read_list(dir: &Dir) -> Option<State> {
    let text = dir.read_list().ok()?;
    let (body, sum) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    let body = format!("{body}\n");
    if ObjectHash::of(body.as_bytes()).to_string() != sum {
        return None;
    }
    let mut lines = body.lines();
    if lines.next() != Some(LIST_MAGIC) {
        return None;
    }
    let mut state = State::default();
    for line in lines {
        match line.split_once(' ')? {
            ("run", name) => {
                let run = Run::open(dir.open_named(name).ok()?).ok()?;
                state.runs.push(Named { run: Arc::new(run), name: Some(name.to_owned()) });
            }
            ("object", name) => {
                state.objects.insert(name.to_owned());
            }
            _ => return None,
        }
    }
    Some(state)
}

/// Runs what computes or reads files for long where that is allowed.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|err| Error::internal(format!("a worker thread ended early: {err}")))
}

/// Collects entries of index objects, and writes a run whenever there are enough.
struct Ingest {
    dir: Arc<Dir>,
    entropy: Arc<dyn Entropy>,
    packs: Vec<PackRef>,
    entries: Vec<RunEntry>,
    first_pack: usize,
    first_entry: usize,
    made: Vec<Named>,
}

impl Ingest {
    fn new(dir: Arc<Dir>, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            dir,
            entropy,
            packs: Vec::new(),
            entries: Vec::new(),
            first_pack: 0,
            first_entry: 0,
            made: Vec::new(),
        }
    }

    /// Starts with the next index object.
    fn begin(&mut self) {
        self.first_pack = self.packs.len();
        self.first_entry = self.entries.len();
    }

    /// Drops what came of a damaged index object, as far as it is not written already (which is authentic).
    fn abandon(&mut self) {
        self.packs.truncate(self.first_pack);
        self.entries.truncate(self.first_entry);
    }

    fn feed(&mut self, decoder: &mut IndexDecoder, part: &[u8]) -> io::Result<karbor_chunk::Result<()>> {
        let mut failed = None;
        let fed = decoder.feed(part, &mut |item| match item {
            IndexItem::Counts { .. } => {}
            IndexItem::Pack(pack) => self.packs.push(pack),
            IndexItem::Chunk(entry) => {
                if failed.is_some() {
                    return;
                }
                let first = u32::try_from(self.first_pack).unwrap_or(u32::MAX);
                self.entries.push(RunEntry { pack: first.saturating_add(entry.pack), chunk: entry.chunk });
                if self.entries.len() >= BATCH_ENTRIES {
                    failed = self.flush().err();
                }
            }
        });
        failed.map_or(Ok(fed), Err)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.entries.sort_unstable_by_key(|entry| (entry.chunk.id, entry.pack));
        let (file, name) = self.dir.create(self.entropy.as_ref())?;
        let mut writer = RunWriter::create(file, self.packs.iter(), self.entries.len() as u64)?;
        for entry in &self.entries {
            writer.push(entry)?;
        }
        self.made.push(Named { run: Arc::new(writer.finish()?), name });
        self.entries.clear();
        // The object that is being read goes on to refer to its own packs.
        self.packs.drain(..self.first_pack);
        self.first_pack = 0;
        self.first_entry = 0;
        Ok(())
    }

    fn finish(mut self) -> io::Result<Vec<Named>> {
        if !self.entries.is_empty() {
            self.flush()?;
        }
        Ok(self.made)
    }
}
