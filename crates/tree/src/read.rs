//! Reading the bytes of files into segments, on the threads of the pipeline.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::entry::{Content, Entry, Extent, Kind, Stamp};
use crate::walk::{Root, nanos};

/// How often a file that changes while it is read is read again.
const ATTEMPTS: u32 = 3;

/// What became of one file of a segment.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Size, extents and whether it held still; its place in the stream is filled in later.
    pub(crate) content: Content,
    /// Times and inode as they were when it was read.
    pub(crate) stamp: Option<(Stamp, Stamp, u64)>,
    /// Why it could not be read. Its bytes are not in the segment.
    pub(crate) failed: Option<io::Error>,
}

/// The outcomes of a segment's files, filled in by the thread that reads them.
pub(crate) type Outcomes = Arc<Mutex<Vec<Outcome>>>;

/// Reads small files, one after the other.
pub(crate) fn read_files(root: &Root, paths: &[(Vec<u8>, bool)], out: &mut Vec<u8>, outcomes: &Outcomes) {
    let read: Vec<Outcome> = paths.iter().map(|(path, holes)| read_file(root, path, *holes, out)).collect();
    *outcomes.lock().unwrap_or_else(PoisonError::into_inner) = read;
}

fn read_file(root: &Root, path: &[u8], holes: bool, out: &mut Vec<u8>) -> Outcome {
    let start = out.len();
    let mut attempt = 0;
    loop {
        attempt += 1;
        out.truncate(start);
        match try_read(root, path, holes, out) {
            Ok(outcome) if outcome.content.torn && attempt < ATTEMPTS => {}
            Ok(outcome) => return outcome,
            Err(err) => {
                out.truncate(start);
                return Outcome { failed: Some(err), ..Outcome::default() };
            }
        }
    }
}

fn try_read(root: &Root, path: &[u8], holes: bool, out: &mut Vec<u8>) -> io::Result<Outcome> {
    let file = root.open_file(path)?;
    let before = file.metadata()?;
    let remembered = remembered(&before);
    if !before.is_file() {
        return Err(io::Error::other("it is no longer a regular file"));
    }
    let extents = if holes { extents(&file, before.len())? } else { Vec::new() };
    let content = Content { size_bytes: before.len(), extents, ..Content::default() };
    let mut short = false;
    for extent in content.data() {
        short |= !append(&file, extent, out)?;
    }
    let after = file.metadata()?;
    let torn = short || stamp(&before) != stamp(&after) || before.len() != after.len();
    Ok(Outcome { content: Content { torn, ..content }, stamp: Some(remembered), failed: None })
}

/// Appends a part of a file; what is missing because the file was cut is zeros. Returns whether all was there.
pub(crate) fn append(file: &File, extent: Extent, out: &mut Vec<u8>) -> io::Result<bool> {
    let start = out.len();
    let length = usize::try_from(extent.length).map_err(|_| io::ErrorKind::FileTooLarge)?;
    out.resize(start + length, 0);
    let mut done = 0;
    while done < length {
        match file.read_at(&mut out[start + done..], extent.offset + done as u64) {
            Ok(0) => return Ok(false),
            Ok(count) => done += count,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(true)
}

/// What tells whether a file was touched.
pub(crate) fn stamp(metadata: &std::fs::Metadata) -> (Stamp, Stamp, u64) {
    let modified = Stamp { seconds: metadata.mtime(), nanos: nanos(metadata.mtime_nsec()) };
    let changed = Stamp { seconds: metadata.ctime(), nanos: nanos(metadata.ctime_nsec()) };
    (modified, changed, metadata.ino())
}

/// Within this time of a change, a further one may bear the same time: clocks of file systems tick, at the least a
/// hundred times a second.
const TICK: Duration = Duration::from_millis(20);
/// The same for file systems that keep whole seconds, or every other.
const COARSE_TICK: Duration = Duration::from_secs(2);

/// Returns what tells a later backup whether the file was touched since, to be asked right after `metadata` was.
///
/// A file that was changed only just now may be changed again without its times telling. It is remembered without its
/// inode, which is like no other, so that the next backup reads it whatever its times are.
pub(crate) fn remembered(metadata: &std::fs::Metadata) -> (Stamp, Stamp, u64) {
    let (modified, changed, inode) = stamp(metadata);
    let tick = if changed.nanos == 0 { COARSE_TICK } else { TICK };
    let at = u64::try_from(changed.seconds).map(|seconds| Duration::new(seconds, changed.nanos));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let settled = at.is_ok_and(|at| now.is_ok_and(|now| now.abs_diff(at) > tick));
    (modified, changed, if settled { inode } else { 0 })
}

/// Puts what was seen while reading into the entry.
pub(crate) fn settle(entry: &mut Entry, content: Content, stamp: Option<(Stamp, Stamp, u64)>) {
    if let Some((modified, changed, inode)) = stamp {
        (entry.modified, entry.changed, entry.inode) = (modified, changed, inode);
    }
    entry.kind = Kind::File(content);
}

/// Returns the parts of a file that are data; nothing for a file without holes.
pub(crate) fn extents(file: &File, size: u64) -> io::Result<Vec<Extent>> {
    let mut extents = Vec::new();
    let mut at = 0;
    while at < size {
        let begin = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(begin) => begin,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(err) => return Err(err.into()),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(begin)).unwrap_or(size).min(size);
        if begin >= end {
            break;
        }
        extents.push(Extent { offset: begin, length: end - begin });
        at = end;
    }
    Ok(match extents.as_slice() {
        [only] if only.offset == 0 && only.length == size => Vec::new(),
        // All holes: an extent of nothing tells it from a file without holes.
        [] if size > 0 => vec![Extent { offset: size, length: 0 }],
        _ => extents,
    })
}
