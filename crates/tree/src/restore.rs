//! From a checkpoint into a directory, and comparing the two.
//!
//! Entries are read in order and dealt with in batches: directories are made, then the bytes of the batch's files
//! are copied out of the `data` stream in parallel, then further names and links follow. What a directory needs at
//! last (owner, mode, times) is set in a second pass over the entries, since making what is in it changes it.

use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use karbor_types::ResourceKey;
use karbor_vault::{CheckpointReader, CopyOptions, ProgressSink, StreamReader};
use tokio_util::sync::CancellationToken;

use crate::entry::{Entry, Kind, MAGIC, read_record, record_length};
use crate::plan::SEGMENT_ITEMS;
use crate::target::{FileSet, FileSetSource, Place, Target};
use crate::{DATA, ENTRIES, Error, Result, TreeReport};

/// A batch is copied once its files have so many bytes …
const BATCH_BYTES: u64 = 128 << 20;
/// … or once it has so many entries.
const BATCH_ENTRIES: usize = 8192;
/// How much of the `entries` stream is read at once.
const READ_BYTES: usize = 1 << 20;

/// What may happen to what is in the target already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// The target must not exist, or be an empty directory.
    #[default]
    Refuse,
    /// Files of the same names are replaced; others stay.
    Replace,
}

/// How a tree is restored or compared.
#[derive(Clone, Default)]
pub struct RestoreOptions {
    /// What may happen to what is there.
    pub overwrite: Overwrite,
    /// Only what stands at or below this path in the tree; with the directories that lead to it.
    pub only: Option<Vec<u8>>,
    /// Set the owners of everything; needs privilege. Without it, a wrong owner is a finding only when run as root.
    pub owners: bool,
    /// Hears of progress.
    pub progress: Option<Arc<dyn ProgressSink>>,
    /// Stops the work.
    pub cancel: CancellationToken,
}

impl std::fmt::Debug for RestoreOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestoreOptions")
            .field("overwrite", &self.overwrite)
            .field("only", &self.only)
            .finish_non_exhaustive()
    }
}

impl RestoreOptions {
    fn selects(&self, path: &[u8]) -> bool {
        let Some(only) = &self.only else { return true };
        is_at_or_below(path, only)
    }

    /// Returns whether it is a directory on the way to what is wanted.
    fn leads_to(&self, path: &[u8]) -> bool {
        self.only.as_ref().is_some_and(|only| is_at_or_below(only, path))
    }
}

fn is_at_or_below(path: &[u8], top: &[u8]) -> bool {
    top.is_empty() || path == top || (path.starts_with(top) && path.get(top.len()) == Some(&b'/'))
}

/// Restores the tree that `key` has in the checkpoint to the directory `target`, which is made if it is not there.
///
/// Damaged chunks, and what cannot be set (an owner without privilege), are findings; the rest is restored.
///
/// # Errors
/// [`Error::TargetExists`], what writing met (a full disk), and what the vault says.
pub async fn restore(
    reader: &CheckpointReader,
    key: &ResourceKey,
    target: &Path,
    options: &RestoreOptions,
) -> Result<TreeReport> {
    let (entries, data) = open(reader, key).await?;
    let target = Arc::new(Target::create(target, options.overwrite, options.owners)?);
    let mut report = TreeReport::default();
    let mut pass = EntryReader::new(entries.clone()).await?;
    if let Some(progress) = &options.progress {
        progress.total(data.size_bytes());
    }
    loop {
        let (batch, more) = next_batch(&mut pass, options).await?;
        restore_batch(&target, &data, batch, options, &mut report).await?;
        if !more {
            break;
        }
    }
    let mut pass = EntryReader::new(entries).await?;
    while let Some(entry) = pass.next().await? {
        if matches!(entry.kind, Kind::Directory)
            && (options.selects(&entry.path) || options.leads_to(&entry.path))
        {
            target.finish_directory(&entry, &mut report);
        }
    }
    let syncing = Arc::clone(&target);
    blocking(move || syncing.sync()).await?;
    Ok(report)
}

/// Compares the directory `target` with the tree that `key` has in the checkpoint: names, kinds, modes, owners, times,
/// links, attributes, and every byte by the names of its chunks. What differs is in the findings; names that only the
/// target has are not looked for.
///
/// # Errors
/// When the target cannot be opened, and what the vault says.
pub async fn compare(
    reader: &CheckpointReader,
    key: &ResourceKey,
    target: &Path,
    options: &RestoreOptions,
) -> Result<TreeReport> {
    let (entries, data) = open(reader, key).await?;
    let target = Arc::new(Target::open(target, options.owners)?);
    let mut report = TreeReport::default();
    let mut pass = EntryReader::new(entries).await?;
    loop {
        let (batch, more) = next_batch(&mut pass, options).await?;
        for entry in &batch {
            report.count(&entry.kind);
            target.compare(entry, &mut report);
        }
        let files = Arc::new(FileSet::new(&batch));
        if let Some(range) = files.range() {
            let source = Arc::new(FileSetSource::new(Arc::clone(&target), Arc::clone(&files)));
            let copy = copy_options(options);
            // The ranges of whole segments: a file in the middle of a chunk is compared with its neighbors.
            let compared = data
                .compare_range(range, source, &copy)
                .await
                .map_err(Error::vault("comparing the files' bytes"))?;
            for different in compared.different {
                files.name_touched(&different, "its bytes differ from the checkpoint's", &mut report);
            }
        }
        if !more {
            return Ok(report);
        }
    }
}

/// Hands every entry of a stored tree, in order, to `visit`.
///
/// # Errors
/// What the vault says.
pub async fn list(reader: &CheckpointReader, key: &ResourceKey, mut visit: impl FnMut(Entry)) -> Result<()> {
    let mut pass = EntryReader::open(reader, key).await?;
    while let Some(entry) = pass.next().await? {
        visit(entry);
    }
    Ok(())
}

async fn open(reader: &CheckpointReader, key: &ResourceKey) -> Result<(StreamReader, StreamReader)> {
    let entries =
        reader.open_stream(key, ENTRIES).await.map_err(Error::vault("opening the tree's entries"))?;
    let data = reader.open_stream(key, DATA).await.map_err(Error::vault("opening the files' bytes"))?;
    Ok((entries, data))
}

fn copy_options(options: &RestoreOptions) -> CopyOptions {
    CopyOptions { progress: options.progress.clone(), cancel: options.cancel.clone() }
}

/// Gathers entries until a batch is full; returns whether more follow. A batch ends where a segment does, so that no
/// chunk is shared by two batches.
async fn next_batch(pass: &mut EntryReader, options: &RestoreOptions) -> Result<(Vec<Entry>, bool)> {
    let (mut batch, mut bytes, mut segment, mut others) = (Vec::new(), 0, None, 0);
    loop {
        if options.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let Some(entry) = pass.next().await? else { return Ok((batch, false)) };
        let its_segment = match &entry.kind {
            Kind::File(content) if content.data_bytes() > 0 => Some(content.segment),
            _ => None,
        };
        let full = batch.len() >= BATCH_ENTRIES || bytes >= BATCH_BYTES;
        let ended = match its_segment {
            Some(_) => its_segment != segment,
            None => others > SEGMENT_ITEMS,
        };
        if full && ended {
            pass.put_back(entry);
            return Ok((batch, true));
        }
        others = if its_segment.is_some() { 0 } else { others + 1 };
        segment = its_segment.or(segment);
        let on_the_way = matches!(entry.kind, Kind::Directory) && options.leads_to(&entry.path);
        if options.selects(&entry.path) || on_the_way {
            if let Kind::File(content) = &entry.kind {
                bytes += content.data_bytes();
            }
            batch.push(entry);
        }
    }
}

async fn restore_batch(
    target: &Arc<Target>,
    data: &StreamReader,
    batch: Vec<Entry>,
    options: &RestoreOptions,
    report: &mut TreeReport,
) -> Result<()> {
    for entry in &batch {
        report.count(&entry.kind);
    }
    let files = Arc::new(FileSet::new(&batch));
    let (making, made) = (Arc::clone(target), Arc::clone(&files));
    let (batch, findings) = blocking(move || {
        let mut found = TreeReport::default();
        for entry in &batch {
            match &entry.kind {
                Kind::Directory => making.make_directory(entry)?,
                Kind::File(content) if content.data_bytes() == 0 => {
                    making.make_empty_file(entry, &mut found)?;
                }
                _ => {}
            }
        }
        made.prepare()?;
        Ok((batch, found))
    })
    .await?;
    merge(report, findings);
    if let Some(range) = files.range() {
        let place = Arc::new(Place::new(Arc::clone(target), Arc::clone(&files)));
        let copied = data.copy_range_to(range, Arc::clone(&place) as _, &copy_options(options)).await;
        let copied = copied.map_err(Error::vault("restoring the files' bytes"))?;
        for damaged in &copied.damaged {
            files.name_touched(
                &damaged.range,
                "its bytes are damaged in the bank and are zeros here",
                report,
            );
        }
        let findings = blocking(move || place.finish()).await?;
        merge(report, findings);
    }
    let linking = Arc::clone(target);
    let findings = blocking(move || {
        let mut found = TreeReport::default();
        for entry in &batch {
            linking.make_rest(entry, &mut found)?;
        }
        Ok(found)
    })
    .await?;
    merge(report, findings);
    Ok(())
}

fn merge(report: &mut TreeReport, found: TreeReport) {
    let room = TreeReport::MAX_FINDINGS.saturating_sub(report.findings.len());
    report.findings_total += found.findings_total;
    report.findings.extend(found.findings.into_iter().take(room));
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|err| Error::malformed(format!("restoring ended abnormally: {err}")))?
}

/// Reads the `entries` stream in order.
pub(crate) struct EntryReader {
    stream: StreamReader,
    at: u64,
    buffer: BytesMut,
    put_back: Option<Entry>,
}

impl EntryReader {
    pub(crate) async fn open(reader: &CheckpointReader, key: &ResourceKey) -> Result<Self> {
        let stream =
            reader.open_stream(key, ENTRIES).await.map_err(Error::vault("opening the tree's entries"))?;
        Self::new(stream).await
    }

    async fn new(stream: StreamReader) -> Result<Self> {
        let mut reader = Self { stream, at: 0, buffer: BytesMut::new(), put_back: None };
        let magic = reader.take(MAGIC.len()).await?.ok_or_else(|| Error::malformed("it has no beginning"))?;
        if magic[..7] != MAGIC[..7] {
            return Err(Error::malformed("it does not begin as a tree does"));
        }
        if magic[7] != MAGIC[7] {
            return Err(Error::UnknownFormat { found: magic[7] });
        }
        Ok(reader)
    }

    /// Returns the next entry, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Entry>> {
        if let Some(entry) = self.put_back.take() {
            return Ok(Some(entry));
        }
        let Some(length) = self.take(4).await? else { return Ok(None) };
        let length = record_length([length[0], length[1], length[2], length[3]])?;
        let record = self.take(length).await?.ok_or_else(|| Error::malformed("it ends within an entry"))?;
        read_record(&record).map(Some)
    }

    /// Gives the last entry back: it comes next again.
    fn put_back(&mut self, entry: Entry) {
        self.put_back = Some(entry);
    }

    /// Takes so many bytes; `None` exactly at the end.
    async fn take(&mut self, count: usize) -> Result<Option<Bytes>> {
        while self.buffer.len() < count {
            let piece = self.stream.read_at(self.at, READ_BYTES.max(count - self.buffer.len())).await;
            let piece = piece.map_err(Error::vault("reading the tree's entries"))?;
            if piece.is_empty() {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(Error::malformed("it ends within an entry")),
                };
            }
            self.at += piece.len() as u64;
            self.buffer.extend_from_slice(&piece);
        }
        Ok(Some(self.buffer.split_to(count).freeze()))
    }
}
