//! Where restored blocks go: files and block devices.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::FallocateFlags;

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
pub struct FileTarget {
    file: File,
    path: PathBuf,
    is_file: bool,
    /// What was not written reads as zeros already.
    is_empty: bool,
    /// File systems let one thread write a file at a time. Who waits here sleeps; in the kernel it would spin.
    writing: Mutex<()>,
    /// Whether `sync` waits for the disk.
    syncs: bool,
}

impl FileTarget {
    /// Creates a file, or opens what is there: a file is emptied first, a block device is written over.
    ///
    /// # Errors
    /// When it cannot be opened for writing, or is neither.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
        Self::new(file, path, true)
    }

    /// Opens an existing file or block device for writing over, without emptying it first.
    ///
    /// # Errors
    /// When it does not exist, cannot be opened for writing, or is neither.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        Self::new(OpenOptions::new().read(true).write(true).open(path)?, path, false)
    }

    fn new(file: File, path: &Path, emptied: bool) -> io::Result<Self> {
        let kind = file.metadata()?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a file nor a block device"));
        }
        let is_file = kind.is_file();
        let writing = Mutex::new(());
        let is_empty = is_file && emptied;
        Ok(Self { file, path: path.to_owned(), is_file, is_empty, writing, syncs: true })
    }

    /// Leaves it to the system when what is written reaches the disk, as copying programs do: a restore is done when
    /// everything is written, and one that the machine's crash overtakes has to be done again.
    #[must_use]
    pub fn unsynced(mut self) -> Self {
        self.syncs = false;
        self
    }

    fn write_zeros(&self, range: Range<u64>) -> io::Result<()> {
        const ZEROS: &[u8] = &[0; 256 << 10];
        let mut at = range.start;
        while at < range.end {
            let part = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(ZEROS.len());
            self.file.write_all_at(&ZEROS[..part], at)?;
            at += part as u64;
        }
        Ok(())
    }
}

impl BlockTarget for FileTarget {
    fn set_size(&self, bytes: u64) -> io::Result<()> {
        if self.is_file {
            return self.file.set_len(bytes);
        }
        let there = (&self.file).seek(SeekFrom::End(0))?;
        if there < bytes {
            let why = format!("the device has {there} bytes, {bytes} are needed");
            return Err(io::Error::new(io::ErrorKind::StorageFull, why));
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let _one = self.is_file.then(|| self.writing.lock().unwrap_or_else(PoisonError::into_inner));
        self.file.write_all_at(data, offset)
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        if self.is_empty || range.start >= range.end {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, range.start, range.end - range.start) {
            Ok(()) => Ok(()),
            // Where no holes can be made, zeros are written.
            Err(_) => self.write_zeros(range),
        }
    }

    fn sync(&self) -> io::Result<()> {
        if self.syncs { self.file.sync_all() } else { Ok(()) }
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}
