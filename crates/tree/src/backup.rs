//! From a directory into a checkpoint.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use karbor_types::ResourceKey;
use karbor_vault::{
    CheckpointReader, ComposeOptions, Composer, Grain, ProgressSink, ResourceWriter, Segment, StreamOptions,
};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::io::StreamReader as ByteStream;
use tokio_util::sync::CancellationToken;

use crate::entry::{Content, Entry, Extent, Kind, MAGIC, write_record};
use crate::plan::{Action, Base, BaseSegment, Item, Planner};
use crate::read::{self, Outcome, Outcomes};
use crate::restore::EntryReader;
use crate::walk::{Found, Links, Root, Walk};
use crate::{DATA, ENTRIES, Error, Result, TreeReport};

/// How much of a large file is one segment.
const WINDOW_BYTES: u64 = 8 << 20;
/// How much of the `entries` stream is gathered before it is passed on.
const ENTRIES_PIECE_BYTES: usize = 256 << 10;

/// How a tree is stored.
#[derive(Clone, Default)]
pub struct BackupOptions {
    /// The previous checkpoint of the same tree, if there is one: files that look unchanged are not read.
    pub base: Option<Arc<CheckpointReader>>,
    /// Go on past directories and files that may not be read, and report them; otherwise they end the work.
    pub skip_unreadable: bool,
    /// Leave out what is mounted below the root.
    pub one_file_system: bool,
    /// Hears of progress.
    pub progress: Option<Arc<dyn ProgressSink>>,
    /// Stops the work.
    pub cancel: CancellationToken,
}

impl std::fmt::Debug for BackupOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupOptions")
            .field("skip_unreadable", &self.skip_unreadable)
            .field("one_file_system", &self.one_file_system)
            .finish_non_exhaustive()
    }
}

/// Stores the tree below `root` as the streams [`ENTRIES`] and [`DATA`] of the writer's resource.
///
/// # Errors
/// When the root or (unless skipped) anything below it cannot be read, and what the vault says. Files that vanish
/// or change while they are read are findings of the report.
pub async fn backup(root: &Path, writer: &ResourceWriter, options: &BackupOptions) -> Result<TreeReport> {
    let root = Arc::new(Root::open(root)?);
    let compose = ComposeOptions { progress: options.progress.clone(), cancel: options.cancel.clone() };
    let (composer, segments) =
        writer.compose(DATA, &compose).await.map_err(Error::vault("storing the files' bytes"))?;
    let base = match &options.base {
        Some(reader) => open_base(reader, writer.key()).await?,
        None => None,
    };
    // Entries wait for their places in order: few segments are under way at a time, so few entries wait.
    let (to_assembler, items) = mpsc::channel::<Slot>(64);
    let (to_entries, pieces) = mpsc::channel::<io::Result<Bytes>>(8);
    let driver = Driver {
        root,
        composer,
        items: to_assembler,
        options: options.clone(),
        next_tag: 0,
        report: TreeReport::default(),
    };
    let handle = Handle::current();
    let driving = tokio::task::spawn_blocking(move || driver.run(base, &handle));
    let assembling = assemble(items, segments, to_entries);
    let stream_options = StreamOptions { cancel: options.cancel.clone(), ..StreamOptions::default() };
    let mut stream = ByteStream::new(tokio_stream(pieces).boxed());
    let storing = writer.put_stream(ENTRIES, &mut stream, &stream_options);
    let (driven, assembled, stored) = tokio::join!(driving, assembling, storing);
    // What began it is told, not what followed from it: the walk, then the assembling, then the entries' stream.
    let mut report =
        driven.map_err(|err| Error::malformed(format!("the walk ended abnormally: {err}")))??;
    let seen = assembled?;
    stored.map_err(Error::vault("storing the tree's entries"))?;
    for (path, problem) in seen.problems {
        report.find(&path, problem);
    }
    report.findings_total += seen.more_problems;
    Ok(report)
}

fn tokio_stream(
    pieces: mpsc::Receiver<io::Result<Bytes>>,
) -> impl futures::Stream<Item = io::Result<Bytes>> + Send {
    futures::stream::unfold(
        pieces,
        |mut pieces| async move { pieces.recv().await.map(|piece| (piece, pieces)) },
    )
}

/// Some entries and what they wait for.
enum Slot {
    /// Their places are known already.
    Ready(Vec<Item>),
    /// A segment was read for the files among them.
    Read { tag: u64, items: Vec<Item>, outcomes: Outcomes },
    /// A large file was read into this many segments.
    Large { first: u64, last: u64, item: Box<Item>, outcome: Arc<Mutex<Outcome>> },
    /// A segment of the base was taken over; places move from the base's to the new stream's.
    Reused { tag: u64, base: Range<u64>, items: Vec<Item> },
}

struct Driver {
    root: Arc<Root>,
    composer: Composer,
    items: mpsc::Sender<Slot>,
    options: BackupOptions,
    next_tag: u64,
    report: TreeReport,
}

impl Driver {
    /// Walks, plans and hands out; runs on a thread of its own.
    fn run(mut self, base: Option<EntryReader>, handle: &Handle) -> Result<TreeReport> {
        let base = BaseFiles { entries: base, ahead: None, handle: handle.clone() };
        let mut planner = Planner::new(base)?;
        let root = Arc::clone(&self.root);
        let mut walk = Walk::new(&root, self.options.one_file_system)?;
        let mut first_names: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
        let mut actions = Vec::new();
        while let Some(found) = walk.next()? {
            if self.options.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let (mut entry, links) = match found {
                Found::Entry(entry, links) => (*entry, links),
                Found::Vanished(path) => {
                    self.report
                        .find(&path, "it vanished while the tree was read, and is not in the checkpoint");
                    continue;
                }
                Found::Unreadable(path, source) => {
                    self.unreadable(&path, source)?;
                    continue;
                }
            };
            link(&mut entry, links, &mut first_names);
            self.report.count(&entry.kind);
            let holes =
                matches!(&entry.kind, Kind::File(content) if links.allocated_bytes < content.size_bytes);
            if links.allocated_bytes == 0 {
                self.look_for_data(&mut entry);
            }
            planner.push(Item { entry, holes }, &mut actions)?;
            for action in actions.drain(..) {
                handle.block_on(self.act(action))?;
            }
        }
        planner.finish(&mut actions);
        for action in actions {
            handle.block_on(self.act(action))?;
        }
        drop(self.items);
        handle.block_on(self.composer.finish()).map_err(Error::vault("storing the files' bytes"))?;
        Ok(self.report)
    }

    /// A file that takes no room may be one hole, which has nothing to be read; some file systems keep small
    /// files elsewhere than in blocks, so the file itself has to be asked.
    fn look_for_data(&self, entry: &mut Entry) {
        if let Kind::File(content) = &mut entry.kind
            && content.size_bytes > 0
            && let Ok(file) = self.root.open_file(&entry.path)
            && let Ok(extents) = read::extents(&file, content.size_bytes)
            && extents.iter().all(|extent| extent.length == 0)
        {
            content.extents = extents;
        }
    }

    fn unreadable(&mut self, path: &[u8], source: io::Error) -> Result<()> {
        if !self.options.skip_unreadable {
            return Err(Error::Path { doing: "reading", path: self.root.full_path(path), source });
        }
        self.report.find(path, format!("it cannot be read and is not in the checkpoint: {source}"));
        Ok(())
    }

    async fn act(&mut self, action: Action) -> Result<()> {
        let slot = match action {
            Action::Pass(items) => Slot::Ready(items),
            Action::Read(items) => self.read(items).await?,
            Action::ReadLarge(item) => return self.read_large(item).await,
            Action::Reuse(range, items) => {
                let tag = self.tag();
                let reused = self.composer.reuse(tag, range.clone()).await;
                if reused.map_err(Error::vault("taking over unchanged files"))? {
                    self.report.unchanged_files += items.iter().filter(|item| item.has_data()).count() as u64;
                    Slot::Reused { tag, base: range, items }
                } else if let [only] = items.as_slice()
                    && only.has_data()
                    && range.end - range.start > crate::plan::LARGE_BYTES
                {
                    let item = items.into_iter().next();
                    return match item {
                        Some(item) => self.read_large(item).await,
                        None => Ok(()),
                    };
                } else {
                    self.read(items).await?
                }
            }
        };
        self.send(slot).await
    }

    async fn read(&mut self, items: Vec<Item>) -> Result<Slot> {
        let tag = self.tag();
        let outcomes: Outcomes = Arc::default();
        let files: Vec<(Vec<u8>, bool)> = items
            .iter()
            .filter(|item| item.has_data())
            .map(|item| (item.entry.path.clone(), item.holes))
            .collect();
        if !self.options.skip_unreadable {
            // A file that may not be read ends the work: found out before its neighbors are stored.
            let (root, shared) = (Arc::clone(&self.root), Arc::clone(&outcomes));
            let produce = Box::new(move |out: &mut Vec<u8>| {
                read::read_files(&root, &files, out, &shared);
                let outcomes = shared.lock().unwrap_or_else(PoisonError::into_inner);
                for ((path, _), outcome) in files.iter().zip(outcomes.iter()) {
                    if let Some(err) = &outcome.failed
                        && err.kind() != io::ErrorKind::NotFound
                    {
                        let path = root.full_path(path);
                        return Err(io::Error::new(err.kind(), format!("{}: {err}", path.display())));
                    }
                }
                Ok(())
            });
            self.produce(tag, Grain::Fine, produce).await?;
        } else {
            let (root, shared) = (Arc::clone(&self.root), Arc::clone(&outcomes));
            let produce = Box::new(move |out: &mut Vec<u8>| {
                read::read_files(&root, &files, out, &shared);
                Ok(())
            });
            self.produce(tag, Grain::Fine, produce).await?;
        }
        Ok(Slot::Read { tag, items, outcomes })
    }

    async fn read_large(&mut self, item: Item) -> Result<()> {
        let opened = self.root.open_file(&item.entry.path).and_then(|file| {
            let metadata = file.metadata()?;
            let remembered = read::remembered(&metadata);
            let extents = if item.holes { read::extents(&file, metadata.len())? } else { Vec::new() };
            Ok((file, metadata, remembered, extents))
        });
        let (file, metadata, remembered, extents) = match opened {
            Ok(opened) => opened,
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                self.report.find(
                    &item.entry.path,
                    "it vanished while the tree was read, and is not in the checkpoint",
                );
                return Ok(());
            }
            Err(err) => return self.unreadable(&item.entry.path, err),
        };
        let content = Content { size_bytes: metadata.len(), extents, ..Content::default() };
        let stamp = read::stamp(&metadata);
        let windows = windows(&content);
        let outcome = Arc::new(Mutex::new(Outcome { content, stamp: Some(remembered), failed: None }));
        let file = Arc::new(file);
        let (first, count) = (self.next_tag, windows.len());
        for (index, window) in windows.into_iter().enumerate() {
            let tag = self.tag();
            let (file, shared) = (Arc::clone(&file), Arc::clone(&outcome));
            let produce = Box::new(move |out: &mut Vec<u8>| {
                read_window(&file, &window, index + 1 == count, stamp, out, &shared)
            });
            self.produce(tag, Grain::Coarse, produce).await?;
        }
        if count == 0 {
            return self.send(Slot::Ready(vec![item])).await;
        }
        let last = self.next_tag - 1;
        self.send(Slot::Large { first, last, item: Box::new(item), outcome }).await
    }

    async fn produce(&mut self, tag: u64, grain: Grain, produce: karbor_vault::Produce) -> Result<()> {
        self.composer.produce(tag, grain, produce).await.map_err(Error::vault("storing the files' bytes"))
    }

    async fn send(&mut self, slot: Slot) -> Result<()> {
        // The assembler ends early only when something failed; that is told by its own end.
        self.items.send(slot).await.map_err(|_| Error::malformed("the entries could not be stored"))
    }

    fn tag(&mut self) -> u64 {
        self.next_tag += 1;
        self.next_tag - 1
    }
}

/// Makes a further name of a file what it is.
fn link(entry: &mut Entry, links: Links, first_names: &mut HashMap<(u64, u64), Vec<u8>>) {
    if links.count < 2 || matches!(entry.kind, Kind::Directory) {
        return;
    }
    match first_names.entry((links.device, links.inode)) {
        std::collections::hash_map::Entry::Occupied(first) => {
            entry.kind = Kind::HardLink { target: first.get().clone() }
        }
        std::collections::hash_map::Entry::Vacant(vacant) => {
            vacant.insert(entry.path.clone());
        }
    }
}

/// Divides the data of a large file.
fn windows(content: &Content) -> Vec<Vec<Extent>> {
    let mut windows: Vec<Vec<Extent>> = Vec::new();
    let mut room = 0;
    for extent in content.data() {
        let (mut offset, mut left) = (extent.offset, extent.length);
        while left > 0 {
            if room == 0 {
                windows.push(Vec::new());
                room = WINDOW_BYTES;
            }
            let length = left.min(room);
            if let Some(window) = windows.last_mut() {
                window.push(Extent { offset, length });
            }
            offset += length;
            left -= length;
            room -= length;
        }
    }
    windows
}

fn read_window(
    file: &File,
    window: &[Extent],
    is_last: bool,
    before: (crate::Stamp, crate::Stamp, u64),
    out: &mut Vec<u8>,
    outcome: &Mutex<Outcome>,
) -> io::Result<()> {
    let mut whole = true;
    for extent in window {
        whole &= read::append(file, *extent, out)?;
    }
    let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
    outcome.content.torn |= !whole;
    if is_last {
        let after = file.metadata()?;
        outcome.content.torn |= read::stamp(&after) != before || after.len() != outcome.content.size_bytes;
    }
    Ok(())
}

#[derive(Default)]
struct Assembled {
    problems: Vec<(Vec<u8>, String)>,
    more_problems: u64,
}

impl Assembled {
    fn find(&mut self, path: &[u8], problem: String) {
        if self.problems.len() < TreeReport::MAX_FINDINGS {
            self.problems.push((path.to_vec(), problem));
        } else {
            self.more_problems += 1;
        }
    }
}

/// Gives each entry its place, as the segments get theirs, and writes the `entries` stream.
async fn assemble(
    mut slots: mpsc::Receiver<Slot>,
    mut segments: mpsc::Receiver<Segment>,
    pieces: mpsc::Sender<io::Result<Bytes>>,
) -> Result<Assembled> {
    let mut seen = Assembled::default();
    let mut out = MAGIC.to_vec();
    while let Some(slot) = slots.recv().await {
        let items = match slot {
            Slot::Ready(items) => items,
            Slot::Reused { tag, base, mut items } => {
                let Some(place) = wait(&mut segments, tag).await else { return Ok(seen) };
                for item in &mut items {
                    if let Kind::File(content) = &mut item.entry.kind
                        && content.data_bytes() > 0
                    {
                        content.offset = content.offset - base.start + place.start;
                        content.segment = place.start;
                    }
                }
                items
            }
            Slot::Read { tag, items, outcomes } => {
                let Some(place) = wait(&mut segments, tag).await else { return Ok(seen) };
                let outcomes = std::mem::take(&mut *outcomes.lock().unwrap_or_else(PoisonError::into_inner));
                place_files(items, outcomes, place.start, &mut seen)
            }
            Slot::Large { first, last, item, outcome } => {
                let Some(place) = wait(&mut segments, first).await else { return Ok(seen) };
                if last > first && wait(&mut segments, last).await.is_none() {
                    return Ok(seen);
                }
                let outcome = std::mem::take(&mut *outcome.lock().unwrap_or_else(PoisonError::into_inner));
                place_files(vec![*item], vec![outcome], place.start, &mut seen)
            }
        };
        for item in items {
            write_record(&item.entry, &mut out)?;
            if out.len() >= ENTRIES_PIECE_BYTES {
                let piece = Bytes::from(std::mem::take(&mut out));
                if pieces.send(Ok(piece)).await.is_err() {
                    return Ok(seen);
                }
            }
        }
    }
    if !out.is_empty() {
        // When nobody listens any more, storing the stream has failed and says so.
        let _ = pieces.send(Ok(Bytes::from(out))).await;
    }
    Ok(seen)
}

/// Waits for the place of a segment; those before it are large files' middle parts. `None` when composing failed.
async fn wait(segments: &mut mpsc::Receiver<Segment>, tag: u64) -> Option<Range<u64>> {
    loop {
        let segment = segments.recv().await?;
        if segment.tag == tag {
            return Some(segment.range);
        }
    }
}

fn place_files(items: Vec<Item>, outcomes: Vec<Outcome>, start: u64, seen: &mut Assembled) -> Vec<Item> {
    let mut outcomes = outcomes.into_iter();
    let mut at = start;
    let mut placed = Vec::with_capacity(items.len());
    for mut item in items {
        if item.has_data() {
            let outcome = outcomes.next().unwrap_or_default();
            if let Some(err) = outcome.failed {
                let problem = match err.kind() {
                    io::ErrorKind::NotFound => {
                        "it vanished while the tree was read, and is not in the checkpoint".to_owned()
                    }
                    _ => format!("it cannot be read and is not in the checkpoint: {err}"),
                };
                seen.find(&item.entry.path, problem);
                continue;
            }
            let content = Content { offset: at, segment: start, ..outcome.content };
            at += content.data_bytes();
            if content.torn {
                let problem =
                    "it changed while it was read: its bytes may be of different moments".to_owned();
                seen.find(&item.entry.path, problem);
            }
            read::settle(&mut item.entry, content, outcome.stamp);
        }
        placed.push(item);
    }
    placed
}

async fn open_base(reader: &CheckpointReader, key: &ResourceKey) -> Result<Option<EntryReader>> {
    let has = |name| reader.stream_names(key).any(|stream| stream == name);
    if !has(ENTRIES) || !has(DATA) {
        return Ok(None);
    }
    EntryReader::open(reader, key).await.map(Some)
}

/// Reads the base's entries as segments.
struct BaseFiles {
    entries: Option<EntryReader>,
    ahead: Option<Entry>,
    handle: Handle,
}

impl BaseFiles {
    fn next_file(&mut self) -> Result<Option<Entry>> {
        if let Some(entry) = self.ahead.take() {
            return Ok(Some(entry));
        }
        let Some(entries) = &mut self.entries else { return Ok(None) };
        loop {
            match self.handle.block_on(entries.next()) {
                Ok(Some(entry)) if matches!(&entry.kind, Kind::File(content) if content.data_bytes() > 0) => {
                    return Ok(Some(entry));
                }
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                // A base that cannot be read is no base: everything from here on is read anew.
                Err(err) => {
                    tracing::warn!(
                        error = &err as &dyn std::error::Error,
                        "Cannot read the entries of the previous checkpoint; files are read again"
                    );
                    self.entries = None;
                    return Ok(None);
                }
            }
        }
    }
}

impl Base for BaseFiles {
    fn next_segment(&mut self) -> Result<Option<BaseSegment>> {
        let Some(first) = self.next_file()? else { return Ok(None) };
        let place = |entry: &Entry| match &entry.kind {
            Kind::File(content) => (content.segment, content.offset + content.data_bytes()),
            _ => (0, 0),
        };
        let (segment, mut end) = place(&first);
        let mut files = vec![first];
        while let Some(next) = self.next_file()? {
            let (its_segment, its_end) = place(&next);
            if its_segment != segment {
                self.ahead = Some(next);
                break;
            }
            end = its_end;
            files.push(next);
        }
        Ok(Some(BaseSegment { range: segment..end, files }))
    }
}
