//! Where blocks come from: files, block devices, snapshots.

use std::io;
use std::ops::Range;
use std::path::Path;

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
pub struct FileSource {}

impl FileSource {
    /// Opens a regular file or a block device for reading.
    ///
    /// # Errors
    /// When it cannot be opened, or is neither.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }
}
