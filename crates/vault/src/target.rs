//! Where restored blocks go: files and block devices.

use std::io;
use std::ops::Range;
use std::path::Path;

/// A random-access target.
///
/// Contract: calls come from several threads at once and may block; writes to different ranges do not disturb
/// each other.
pub trait BlockTarget: Send + Sync {
    /// Prepares the target for a stream of that many bytes.
    ///
    /// # Errors
    /// When it does not fit.
    fn set_size(&self, bytes: u64) -> io::Result<()>;

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// What writing met.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes the range read as zeros; where possible, without using space.
    ///
    /// # Errors
    /// What writing met.
    fn punch(&self, range: Range<u64>) -> io::Result<()>;

    /// Makes everything written durable.
    ///
    /// # Errors
    /// What writing met.
    fn sync(&self) -> io::Result<()>;

    /// Returns a name for people, for errors.
    fn name(&self) -> String {
        "target".to_owned()
    }
}

/// A sparse file or a block device as a target.
#[derive(Debug)]
pub struct FileTarget {}

impl FileTarget {
    /// Creates a file, or opens what is there (a file is written over and cut to size; a block device is filled).
    ///
    /// # Errors
    /// When it cannot be opened for writing.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Opens an existing file or block device for writing over, without emptying it first.
    ///
    /// # Errors
    /// When it does not exist or cannot be opened for writing.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }
}
