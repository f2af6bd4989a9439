//! Block sources and targets that stand in for others.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;

use karbor_vault::{BlockSource, BlockTarget, FileSource};

/// A file under the name that people know, which may be allowed to change while it is read.
pub(crate) struct NamedSource {
    file: FileSource,
    name: String,
    allow_changes: bool,
    /// What was seen to change although it was allowed.
    seen: Mutex<Option<String>>,
}

impl NamedSource {
    /// Opens `path`, which is called `name`.
    pub(crate) fn open(path: &Path, name: String, allow_changes: bool) -> io::Result<Self> {
        Ok(Self { file: FileSource::open(path)?, name, allow_changes, seen: Mutex::new(None) })
    }

    /// Returns what was seen to change although it was allowed.
    pub(crate) fn seen(&self) -> Option<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl BlockSource for NamedSource {
    fn size_bytes(&self) -> u64 {
        self.file.size_bytes()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buf)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.file.next_data(offset)
    }

    fn changed(&self) -> io::Result<Option<String>> {
        let changed = self.file.changed()?;
        if !self.allow_changes {
            return Ok(changed);
        }
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = changed;
        Ok(None)
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// Takes everything and keeps nothing: for reading a stream to see that it can be read.
pub(crate) struct Discard;

impl BlockTarget for Discard {
    fn set_size(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_at(&self, _offset: u64, _data: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn punch(&self, _range: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
