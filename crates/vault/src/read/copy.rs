//! Streams out of the bank: whole or in part, to a target, in order, or against what is there.
//!
//! A window of the manifest is looked up and grouped by pack, so that a pack's neighboring chunks are one read
//! whatever order the stream has them in; each group is read, opened and written by itself, several at once.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::Either;
use futures::{StreamExt, TryStreamExt};
use karbor_chunk::{ChunkId, PackKind, Piece, is_zero};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use crate::index::{Location, blocking};
use crate::read::fetch::{Batch, Lost, Step, Walk, batches};
use crate::read::stream::StreamReader;
use crate::write::buffers::lock;
use crate::{BlockSource, BlockTarget, CompareReport, CopyOptions, CopyReport, Error, Result};

/// How many chunks are looked up and sorted at once.
const WINDOW_CHUNKS: usize = 256;
/// How many bytes of a pack are read at once.
const BATCH_BYTES: u64 = 4 << 20;
/// What is read for nothing rather than read twice.
const GAP_BYTES: u64 = 64 << 10;
/// How much is written until the disk is set to work on it: what waits for the end is waited for there.
const FLUSH_BYTES: u64 = 256 << 20;
/// Zeros inside a chunk that are worth a hole in the target.
const HOLE_BYTES: usize = 32 << 10;

/// A window: what stands where in the stream, chunks that occur several times once.
#[derive(Default)]
struct Window {
    chunks: HashMap<ChunkId, Vec<Range<u64>>>,
    zeros: Vec<Range<u64>>,
    lost: Vec<(Range<u64>, Lost)>,
}

async fn next_window(walk: &mut Walk, most: usize) -> Result<Option<Window>> {
    let mut window = Window::default();
    let mut steps = 0;
    while steps < most {
        let Some(step) = walk.next().await? else { break };
        steps += 1;
        match step {
            Step::Entry(entry) => {
                let range = entry.offset..entry.offset + entry.len;
                match entry.piece {
                    Piece::Zero => window.zeros.push(range),
                    Piece::Chunk(id) => window.chunks.entry(id).or_default().push(range),
                }
            }
            Step::Lost(at, lost) => window.lost.push((at.offset..at.offset + at.len, lost)),
        }
    }
    Ok((steps > 0).then_some(window))
}

impl StreamReader {
    /// Finds the chunks of a window; what the index does not know comes second.
    async fn locate(
        &self,
        chunks: HashMap<ChunkId, Vec<Range<u64>>>,
    ) -> Result<(Vec<(Location, Vec<Range<u64>>)>, Vec<(ChunkId, Vec<Range<u64>>)>)> {
        let fetcher = self.fetcher.clone();
        blocking(move || {
            let mut located = Vec::with_capacity(chunks.len());
            let mut unknown = Vec::new();
            for (id, ranges) in chunks {
                // Whoever asks for it singly also sees to it that a damaged cache is made anew.
                match fetcher.locate(&id).ok().as_deref() {
                    Some([at, ..]) => located.push((*at, ranges)),
                    _ => unknown.push((id, ranges)),
                }
            }
            Ok((located, unknown))
        })
        .await?
    }

    /// Writes the whole stream to a target: on all cores, out of order, sparse. Damaged chunks are named in the
    /// report and the rest is written.
    ///
    /// # Errors
    /// [`Error::TargetIo`], [`Error::Cancelled`], and what the bank says. Damage is not an error here.
    pub async fn copy_to(&self, target: Arc<dyn BlockTarget>, options: &CopyOptions) -> Result<CopyReport> {
        let size = self.size_bytes();
        if let Some(progress) = &options.progress {
            progress.total(size);
        }
        let sized = target.clone();
        let set = blocking(move || sized.set_size(size)).await?;
        set.map_err(|source| Error::TargetIo { what: target.name(), source })?;
        let writer = Arc::new(Writer::new(target, 0..size, true));
        let report = {
            let copying = std::pin::pin!(self.copy_parts(writer.clone(), options));
            let flushing = std::pin::pin!(writer.flush_along());
            match futures::future::select(copying, flushing).await {
                Either::Left((report, _)) => report?,
                Either::Right((failed, _)) => return Err(failed),
            }
        };
        writer.sync().await?;
        Ok(report)
    }

    /// Writes a part of the stream to a target at the same offsets, as [`StreamReader::copy_to`] does with all of
    /// it; neither sets the target's size nor syncs it. Holes are not written.
    ///
    /// # Errors
    /// As [`StreamReader::copy_to`].
    pub async fn copy_range_to(
        &self,
        range: Range<u64>,
        target: Arc<dyn BlockTarget>,
        options: &CopyOptions,
    ) -> Result<CopyReport> {
        let range = range.start..range.end.min(self.size_bytes());
        self.copy_parts(Arc::new(Writer::new(target, range, false)), options).await
    }

    async fn copy_parts(&self, writer: Arc<Writer>, options: &CopyOptions) -> Result<CopyReport> {
        let (range, punch) = (writer.range.clone(), writer.fills);
        let mut report =
            CopyReport { size_bytes: range.end.saturating_sub(range.start), ..Default::default() };
        let mut walk = Walk::new(self.fetcher.clone(), &self.root, range);
        let at_once = self.fetcher.shared.options.threads.get() + 2;
        // One list of work for the whole stream, so that no core waits at the end of a window.
        let work = futures::stream::try_unfold((&mut walk, &mut report), |(walk, report)| {
            let (writer, options) = (writer.clone(), options.clone());
            async move {
                if options.cancel.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                let Some(window) = next_window(walk, WINDOW_CHUNKS).await? else { return Ok(None) };
                let zeros: u64 = window.zeros.iter().map(|range| range.end - range.start).sum();
                if punch && zeros > 0 {
                    let (writer, zeros) = (writer.clone(), window.zeros);
                    blocking(move || zeros.into_iter().try_for_each(|range| writer.punch(range))).await??;
                }
                advance(&options, zeros);
                for (range, lost) in window.lost {
                    advance(&options, range.end - range.start);
                    report.damaged.push(self.damage(range, lost));
                }
                let (located, unknown) = self.locate(window.chunks).await?;
                let known = batches(located, BATCH_BYTES, GAP_BYTES).into_iter().map(Work::Batch);
                let work: Vec<_> = known.chain(unknown.into_iter().map(Work::Single)).collect();
                Ok(Some((futures::stream::iter(work.into_iter().map(Ok)), (walk, report))))
            }
        });
        let lost: Vec<Vec<(Range<u64>, Lost)>> = work
            .try_flatten()
            .map_ok(|work| self.do_work(work, writer.clone(), options))
            .try_buffer_unordered(at_once)
            .try_filter(|lost| futures::future::ready(!lost.is_empty()))
            // Boxed, so that callers can prove their futures to be Send.
            .boxed()
            .try_collect()
            .await?;
        for (range, lost) in lost.into_iter().flatten() {
            report.damaged.push(self.damage(range, lost));
        }
        report.damaged.sort_by_key(|damage| damage.range.start);
        report.written_bytes = writer.written.load(Ordering::Relaxed);
        Ok(report)
    }

    async fn do_work(
        &self,
        work: Work,
        writer: Arc<Writer>,
        options: &CopyOptions,
    ) -> Result<Vec<(Range<u64>, Lost)>> {
        if options.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let rest = match work {
            Work::Single(single) => vec![single],
            Work::Batch(batch) => {
                let (writer, options) = (writer.clone(), options.clone());
                let each = move |ranges: &Vec<Range<u64>>, bytes: &[u8]| {
                    for range in ranges {
                        writer.write(range, bytes)?;
                        advance(&options, range.end - range.start);
                    }
                    Ok(())
                };
                self.fetcher.batch(batch, each).await?
            }
        };
        let mut all_lost = Vec::new();
        for (id, ranges) in rest {
            match self.fetcher.chunk(&id).await? {
                Ok(bytes) => {
                    let (writer, ranges) = (writer.clone(), ranges.clone());
                    blocking(move || ranges.iter().try_for_each(|range| writer.write(range, &bytes)))
                        .await??;
                }
                Err(lost) => all_lost.extend(ranges.iter().cloned().map(|range| (range, lost.clone()))),
            }
            for range in ranges {
                advance(options, range.end - range.start);
            }
        }
        Ok(all_lost)
    }

    /// Writes the whole stream in order.
    ///
    /// # Errors
    /// As [`StreamReader::copy_to`], and [`Error::Damaged`] at the first damage.
    pub async fn copy_out(
        &self,
        out: &mut (dyn AsyncWrite + Send + Unpin),
        options: &CopyOptions,
    ) -> Result<CopyReport> {
        const ZEROS: &[u8] = &[0; 64 << 10];
        let mut report = CopyReport { size_bytes: self.size_bytes(), ..Default::default() };
        if let Some(progress) = &options.progress {
            progress.total(self.size_bytes());
        }
        let walk = Walk::new(self.fetcher.clone(), &self.root, 0..self.size_bytes());
        let at_once = self.fetcher.shared.options.threads.get() + 2;
        let steps = futures::stream::try_unfold(walk, |mut walk| async move {
            Ok::<_, Error>(walk.next().await?.map(|step| (step, walk)))
        });
        let mut parts = steps.map_ok(|step| self.load(step)).try_buffered(at_once).boxed();
        let failed = |source| Error::TargetIo { what: "the output".to_owned(), source };
        while let Some((len, part)) = parts.try_next().await? {
            if options.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            match part {
                Some(bytes) => {
                    out.write_all(&bytes).await.map_err(failed)?;
                    report.written_bytes += bytes.len() as u64;
                }
                None => {
                    let mut left = len;
                    while left > 0 {
                        let part = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
                        out.write_all(&ZEROS[..part]).await.map_err(failed)?;
                        left -= part as u64;
                    }
                }
            }
            advance(options, len);
        }
        out.flush().await.map_err(failed)?;
        Ok(report)
    }

    async fn load(&self, step: Step) -> Result<(u64, Option<Bytes>)> {
        let entry = match step {
            Step::Entry(entry) => entry,
            Step::Lost(at, lost) => return Err(self.damage_error(at.offset..at.offset + at.len, lost)),
        };
        let Piece::Chunk(id) = entry.piece else { return Ok((entry.len, None)) };
        match self.fetcher.chunk(&id).await? {
            Ok(bytes) => Ok((entry.len, Some(bytes.into()))),
            Err(lost) => Err(self.damage_error(entry.offset..entry.offset + entry.len, lost)),
        }
    }

    /// Reads a target back and compares it with the stream by the names of its chunks; the bank is asked for the
    /// manifest only.
    ///
    /// # Errors
    /// [`Error::SourceIo`], [`Error::Cancelled`], and what the bank says. A difference is not an error here.
    pub async fn compare(
        &self,
        source: Arc<dyn BlockSource>,
        options: &CopyOptions,
    ) -> Result<CompareReport> {
        let size = self.size_bytes();
        if let Some(progress) = &options.progress {
            progress.total(size);
        }
        let there = source.size_bytes();
        let mut report = self.compare_range(0..size, source, options).await?;
        if there > size {
            report.different.push(size..there);
        }
        Ok(report)
    }

    /// Compares a part of the stream with a source, as [`StreamReader::compare`] does with all of it; a chunk that
    /// begins or ends outside the range is left out only if the range's borders are not borders of chunks.
    ///
    /// # Errors
    /// As [`StreamReader::compare`].
    pub async fn compare_range(
        &self,
        range: Range<u64>,
        source: Arc<dyn BlockSource>,
        options: &CopyOptions,
    ) -> Result<CompareReport> {
        let range = range.start..range.end.min(self.size_bytes());
        let mut report = CompareReport::default();
        let mut walk = Walk::new(self.fetcher.clone(), &self.root, range.clone());
        let at_once = self.fetcher.shared.options.threads.get();
        let parts = futures::stream::try_unfold((&mut walk, &mut report), |(walk, report)| {
            let (range, options) = (range.clone(), options.clone());
            async move {
                if options.cancel.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                let Some(window) = next_window(walk, 16).await? else { return Ok(None) };
                for (range, _) in window.lost {
                    report.different.push(range);
                }
                let inside = |part: &Range<u64>| part.start >= range.start && part.end <= range.end;
                let mut parts = Vec::new();
                for (id, ranges) in window.chunks {
                    parts.extend(ranges.into_iter().filter(inside).map(|part| (Some(id), part)));
                }
                parts.extend(window.zeros.into_iter().map(|part| (None, part)));
                report.compared_bytes += parts.iter().map(|(_, part)| part.end - part.start).sum::<u64>();
                Ok(Some((parts, (walk, report))))
            }
        });
        let different: Vec<Vec<Range<u64>>> = parts
            .map_ok(|parts| self.compare_parts(parts, source.clone(), options))
            .try_buffer_unordered(at_once)
            .boxed()
            .try_collect()
            .await?;
        report.different.extend(different.into_iter().flatten());
        report.different.sort_by_key(|range| range.start);
        Ok(report)
    }

    async fn compare_parts(
        &self,
        parts: Vec<(Option<ChunkId>, Range<u64>)>,
        source: Arc<dyn BlockSource>,
        options: &CopyOptions,
    ) -> Result<Vec<Range<u64>>> {
        let (shared, options) = (self.fetcher.shared.clone(), options.clone());
        blocking(move || {
            let mut different = Vec::new();
            let mut buffer = Vec::new();
            for (id, part) in parts {
                let same = match id {
                    Some(id) => {
                        read_part(source.as_ref(), &part, &mut buffer)?
                            && shared.namer.chunk_id(PackKind::Data, &buffer) == id
                    }
                    None => is_hole(source.as_ref(), &part, &mut buffer)?,
                };
                advance(&options, part.end - part.start);
                if !same {
                    different.push(part);
                }
            }
            Ok(different)
        })
        .await?
    }
}

/// Reads a part of a source; `false` when the source ends before it does.
fn read_part(source: &dyn BlockSource, part: &Range<u64>, buffer: &mut Vec<u8>) -> Result<bool> {
    if part.end > source.size_bytes() {
        return Ok(false);
    }
    let len =
        usize::try_from(part.end - part.start).map_err(|_| Error::internal("a chunk beyond all sizes"))?;
    buffer.resize(len, 0);
    let read = source.read_at(part.start, buffer);
    read.map_err(|err| Error::SourceIo {
        what: format!("{} at byte {}", source.name(), part.start),
        source: err,
    })?;
    Ok(true)
}

/// Returns whether a part of a source reads as zeros; holes are not read.
fn is_hole(source: &dyn BlockSource, part: &Range<u64>, buffer: &mut Vec<u8>) -> Result<bool> {
    if part.end > source.size_bytes() {
        return Ok(false);
    }
    let mut at = part.start;
    while at < part.end {
        let data = source.next_data(at);
        let data = data.map_err(|err| Error::SourceIo {
            what: format!("{} at byte {at}", source.name()),
            source: err,
        })?;
        let Some(data) = data.filter(|data| data.start < part.end) else { return Ok(true) };
        at = data.start.max(at);
        let to = data.end.min(part.end).min(at + (1 << 20));
        if !read_part(source, &(at..to), buffer)? || !is_zero(buffer) {
            return Ok(false);
        }
        at = to;
    }
    Ok(true)
}

fn advance(options: &CopyOptions, bytes: u64) {
    if let Some(progress) = &options.progress
        && bytes > 0
    {
        progress.advance(bytes, 0);
    }
}

enum Work {
    Batch(Batch<Vec<Range<u64>>>),
    Single((ChunkId, Vec<Range<u64>>)),
}

/// Writes chunks to a target, cut to the wanted range.
struct Writer {
    target: Arc<dyn BlockTarget>,
    name: String,
    range: Range<u64>,
    /// Everything around is zero or will be punched, so zeros inside chunks may be left out or punched, too.
    fills: bool,
    written: AtomicU64,
    /// Told whenever another [`FLUSH_BYTES`] are written.
    more: Notify,
    /// How a sync failed.
    sync_failed: Mutex<Option<(std::io::ErrorKind, String)>>,
}

impl Writer {
    fn new(target: Arc<dyn BlockTarget>, range: Range<u64>, fills: bool) -> Self {
        let name = target.name();
        Self {
            target,
            name,
            range,
            fills,
            written: AtomicU64::new(0),
            more: Notify::new(),
            sync_failed: Mutex::default(),
        }
    }

    /// Syncs the target; after a failure always fails. The system tells of a lost write once, and who heard of it
    /// may have been dropped: one at a time, so that the last sync comes after all others, and knows how they ended.
    async fn sync(self: &Arc<Self>) -> Result<()> {
        let writer = self.clone();
        let synced = blocking(move || {
            let mut failed = lock(&writer.sync_failed);
            if let Some((kind, why)) = &*failed {
                return Err(std::io::Error::new(*kind, why.clone()));
            }
            let synced = writer.target.sync();
            *failed = synced.as_ref().err().map(|err| (err.kind(), err.to_string()));
            synced
        });
        synced.await?.map_err(|source| Error::TargetIo { what: self.name.clone(), source })
    }

    /// Syncs from time to time, so that the disk is at work while chunks are opened. Ends with a failure only.
    async fn flush_along(self: &Arc<Self>) -> Error {
        loop {
            self.more.notified().await;
            if let Err(failed) = self.sync().await {
                return failed;
            }
        }
    }

    fn error(&self, at: u64) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::TargetIo { what: format!("{} at byte {at}", self.name), source }
    }

    fn punch(&self, range: Range<u64>) -> Result<()> {
        let at = range.start;
        self.target.punch(range).map_err(self.error(at))
    }

    fn write(&self, place: &Range<u64>, bytes: &[u8]) -> Result<()> {
        if place.end - place.start != bytes.len() as u64 {
            return Err(Error::damaged(format!(
                "a manifest: a chunk at byte {} has another length",
                place.start
            )));
        }
        let from = self.range.start.max(place.start);
        let to = self.range.end.min(place.end);
        if from >= to {
            return Ok(());
        }
        let index =
            |at: u64| usize::try_from(at - place.start).expect("it lies inside a chunk that is in memory");
        let mut part = &bytes[index(from)..index(to)];
        let mut at = from;
        let length = part.len() as u64;
        while !part.is_empty() {
            let (data, zeros) = if self.fills { split_at_zeros(part) } else { (part.len(), 0) };
            if data > 0 {
                self.target.write_at(at, &part[..data]).map_err(self.error(at))?;
            }
            if zeros > 0 {
                let start = at + data as u64;
                self.punch(start..start + zeros as u64)?;
            }
            at += (data + zeros) as u64;
            part = &part[data + zeros..];
        }
        let before = self.written.fetch_add(length, Ordering::Relaxed);
        if before / FLUSH_BYTES != (before + length) / FLUSH_BYTES {
            self.more.notify_one();
        }
        Ok(())
    }
}

/// Returns how many bytes come before the next run of zeros that is worth a hole, and how long that is.
fn split_at_zeros(bytes: &[u8]) -> (usize, usize) {
    let mut data = 0;
    for block in bytes.chunks(HOLE_BYTES) {
        if block.len() == HOLE_BYTES && is_zero(block) {
            break;
        }
        data += block.len();
    }
    let zeros = bytes[data..].chunks_exact(HOLE_BYTES).take_while(|block| is_zero(block)).count();
    (data, zeros * HOLE_BYTES)
}
