//! Where blocks come from: files, block devices, snapshots.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::io::Errno;

/// A random-access source of known size.
///
/// Contract: calls come from several threads at once and may block; the bytes do not change while the source is
/// read (a snapshot, or something that is checked for change afterwards).
pub trait BlockSource: Send + Sync {
    /// Returns the size in bytes.
    fn size_bytes(&self) -> u64;

    /// Fills `buf` with the bytes at `offset`, which lie inside the size.
    ///
    /// # Errors
    /// What reading met.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Returns the next range at or after `offset` that may hold data; `None` when only holes follow.
    ///
    /// # Errors
    /// What asking met.
    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>>;

    /// Returns what was seen to change since the source was opened, if that can be told. Asked once all is read.
    ///
    /// # Errors
    /// What asking met.
    fn changed(&self) -> io::Result<Option<String>> {
        Ok(None)
    }

    /// Returns a name for people, for errors.
    fn name(&self) -> String {
        "source".to_owned()
    }
}

/// A file or block device as a source; holes are found with `SEEK_DATA` and `SEEK_HOLE`.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    path: PathBuf,
    size_bytes: u64,
    seen: Seen,
    /// It was being written to when reading began, so that its times cannot tell whether that went on.
    unsettled: bool,
}

/// Within this time of a change, a further one may bear the same time: clocks of file systems tick, at the least a
/// hundred times a second.
const TICK: Duration = Duration::from_millis(20);

/// What changes when a regular file is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    is_file: bool,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Seen {
    fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            is_file: meta.is_file(),
            size: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }

    /// Looks at a file, and waits for a tick if it was changed within the present one: from then on every change
    /// shows. Returns whether it was changed again meanwhile.
    fn settled(file: &File) -> io::Result<(Self, bool)> {
        let first = Self::of(file)?;
        if !first.is_file || !first.is_fresh() {
            return Ok((first, false));
        }
        std::thread::sleep(TICK);
        let second = Self::of(file)?;
        Ok((second, second.is_fresh()))
    }

    fn is_fresh(&self) -> bool {
        let (seconds, nanos) = self.changed;
        let (Ok(seconds), Ok(nanos)) = (u64::try_from(seconds), u32::try_from(nanos)) else { return false };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.is_ok_and(|now| now.abs_diff(Duration::new(seconds, nanos)) < TICK)
    }
}

impl FileSource {
    /// Opens a regular file or a block device for reading. Waits up to 20 ms if the file was changed just now, so that
    /// [`BlockSource::changed`] notices every further change.
    ///
    /// # Errors
    /// When it cannot be opened, or is neither.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        Self::from_file(File::open(path)?, path)
    }

    /// Uses a file that is open already; `path` is for people.
    ///
    /// # Errors
    /// When it is neither a regular file nor a block device.
    pub fn from_file(file: File, path: impl Into<PathBuf>) -> io::Result<Self> {
        let (seen, unsettled) = Seen::settled(&file)?;
        let kind = file.metadata()?.file_type();
        let size_bytes = if kind.is_file() {
            seen.size
        } else if kind.is_block_device() {
            (&file).seek(SeekFrom::End(0))?
        } else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a file nor a block device"));
        };
        // Only advice: what it does not do for us, reading does.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
        Ok(Self { file, path: path.into(), size_bytes, seen, unsettled })
    }
}

impl BlockSource for FileSource {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        if offset >= self.size_bytes {
            return Ok(None);
        }
        if !self.seen.is_file {
            return Ok(Some(offset..self.size_bytes));
        }
        let start = match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            // A file system that cannot tell has data everywhere.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(offset..self.size_bytes)),
            Err(err) => return Err(err.into()),
        };
        if start >= self.size_bytes {
            return Ok(None);
        }
        let end = match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Hole(start)) {
            Ok(end) => end.min(self.size_bytes),
            Err(_) => self.size_bytes,
        };
        Ok(Some(start..end.max(start + 1)))
    }

    fn changed(&self) -> io::Result<Option<String>> {
        if !self.seen.is_file {
            return Ok(None);
        }
        let now = Seen::of(&self.file)?;
        let how = if now.size != self.seen.size {
            format!("its size went from {} to {} bytes", self.seen.size, now.size)
        } else if now.modified != self.seen.modified || self.unsettled {
            "it was written to".to_owned()
        } else if now.changed != self.seen.changed {
            "its inode was changed".to_owned()
        } else {
            return Ok(None);
        };
        Ok(Some(how))
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_in_the_tick_of_the_opening_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        for round in 0..50_u8 {
            std::fs::write(&path, [round; 100]).unwrap();
            let source = FileSource::open(&path).unwrap();
            assert_eq!(source.changed().unwrap(), None, "round {round}");
            std::fs::write(&path, [round + 1; 100]).unwrap();
            assert_eq!(source.changed().unwrap().as_deref(), Some("it was written to"), "round {round}");
        }
    }
}
