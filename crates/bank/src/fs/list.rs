//! Listing objects in the order of their keys.
//!
//! Invariant: what a directory holds sorts, among the names beside the directory, as the directory's name with
//! a slash behind it: `a-b` and `a.b` come before what is in `a`, and `a0` comes after it. So a walk that
//! takes names in this order meets keys in theirs, and may stop at the limit and skip what lies before
//! `after` without a look inside.
//!
//! A directory is read whole, as file systems keep no order, but only the names that can be needed are kept,
//! and only the files that are returned are looked at.

use std::collections::BinaryHeap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, RawDir};
use rustix::io::Errno;

use crate::fs::{Place, failed, open_directory};
use crate::{Key, Meta, Result};

/// How many names are kept at least while a directory is read: directories may turn out to hold nothing.
const MIN_KEPT: usize = 512;

/// How much of a directory is read at once.
const BUFFER_BYTES: usize = 128 << 10;

impl Place {
    pub(super) fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Meta>> {
        let (above, start) = prefix.rsplit_once('/').unwrap_or(("", prefix));
        if !Key::may_start_with(prefix) || limit == 0 {
            return Ok(Vec::new());
        }
        let mut walk =
            Walk { place: self, limit, found: Vec::new(), buffer: Vec::with_capacity(BUFFER_BYTES) };
        walk.directory(above, start, after.map(Key::as_str))
            .map_err(|errno| failed("list", prefix, errno))?;
        Ok(walk.found)
    }
}

struct Walk<'a> {
    place: &'a Place,
    limit: usize,
    found: Vec<Meta>,
    buffer: Vec<u8>,
}

/// The names of a directory that come next, in order; those of directories end in a slash.
struct Names {
    sorted: Vec<String>,
    /// Whether there are more behind them.
    more: bool,
}

impl Walk<'_> {
    /// Adds the objects below the directory `path` whose next segment starts with `start` and whose keys are
    /// greater than `after`.
    fn directory(&mut self, path: &str, start: &str, after: Option<&str>) -> Result<(), Errno> {
        let base = if path.is_empty() { String::new() } else { format!("{path}/") };
        let mut after = match after.map(|after| (after.strip_prefix(&base), after)) {
            Some((Some(within), _)) => within.to_owned(),
            Some((None, after)) if after > base.as_str() => return Ok(()),
            _ => String::new(),
        };
        loop {
            let Some(directory) = self.open(path)? else { return Ok(()) };
            let names = self.names(&directory, start, &after)?;
            for name in &names.sorted {
                if self.found.len() >= self.limit {
                    return Ok(());
                }
                match name.strip_suffix('/') {
                    Some(inner) => {
                        let (inner, after) = (format!("{base}{inner}"), format!("{base}{after}"));
                        self.directory(&inner, "", Some(&after))?;
                    }
                    None => self.file(&directory, &base, name)?,
                }
            }
            match names.sorted.last() {
                Some(last) if names.more => after.clone_from(last),
                _ => return Ok(()),
            }
        }
    }

    fn open(&self, path: &str) -> Result<Option<OwnedFd>, Errno> {
        let path = if path.is_empty() { "." } else { path };
        match open_directory(self.place.root(), path) {
            Ok(directory) => Ok(Some(directory)),
            // It was removed as empty since its name was read, or it never was, or is an object.
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn file(&mut self, directory: &OwnedFd, base: &str, name: &str) -> Result<(), Errno> {
        let Ok(key) = Key::new(format!("{base}{name}")) else { return Ok(()) };
        match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                let size_bytes = u64::try_from(stat.st_size).expect("the size of a file is not negative");
                self.found.push(Meta { key, size_bytes, version: None });
            }
            // It was removed since its name was read.
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    /// Reads a directory and returns the names that come first after `after`.
    fn names(&mut self, directory: &OwnedFd, start: &str, after: &str) -> Result<Names, Errno> {
        let most = self.limit.saturating_sub(self.found.len()).max(MIN_KEPT);
        let mut kept = BinaryHeap::<String>::new();
        let mut more = false;
        let mut name = String::new();
        let mut reader = RawDir::new(directory, spare(&mut self.buffer));
        while let Some(entry) = reader.next() {
            let entry = match entry {
                // It was removed as empty since it was opened: the kernel reads no names out of such a directory.
                Err(Errno::NOENT) => break,
                entry => entry?,
            };
            let Ok(text) = entry.file_name().to_str() else { continue };
            // What starts with a dot is no segment, and what else is none does not become a key.
            if text.starts_with('.') || !text.starts_with(start) {
                continue;
            }
            name.clear();
            name.push_str(text);
            match file_type(directory, text, entry.file_type())? {
                FileType::Directory => name.push('/'),
                FileType::RegularFile => {}
                _ => continue,
            }
            // Everything in a directory is greater than `after` if its name is, and some of it may be if
            // `after` lies in it.
            if name.as_str() <= after && !(name.ends_with('/') && after.starts_with(&name) && after != name) {
                continue;
            }
            if kept.len() < most {
                kept.push(name.clone());
                continue;
            }
            more = true;
            if let Some(mut greatest) = kept.peek_mut()
                && name < *greatest
            {
                greatest.clone_from(&name);
            }
        }
        Ok(Names { sorted: kept.into_sorted_vec(), more })
    }
}

fn spare(buffer: &mut Vec<u8>) -> &mut [MaybeUninit<u8>] {
    buffer.spare_capacity_mut()
}

/// Returns what kind of file an entry is; some file systems do not tell it with the name.
fn file_type(directory: &OwnedFd, name: &str, told: FileType) -> Result<FileType, Errno> {
    if told != FileType::Unknown {
        return Ok(told);
    }
    match rustix::fs::statat(directory.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode)),
        Err(Errno::NOENT) => Ok(FileType::Unknown),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FileSystemBank;

    #[test]
    fn a_directory_that_is_removed_while_it_is_read_holds_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let bank = FileSystemBank::create(directory.path()).expect("a bank");
        std::fs::create_dir(directory.path().join("a")).expect("a directory in the bank");
        let place = &bank.place;
        let mut walk = Walk { place, limit: 1, found: Vec::new(), buffer: Vec::with_capacity(BUFFER_BYTES) };
        let opened = walk.open("a").expect("it can be opened").expect("it is there");
        std::fs::remove_dir(directory.path().join("a")).expect("it is empty");
        let names = walk.names(&opened, "", "").expect("it can be read to its end");
        assert!(names.sorted.is_empty() && !names.more);
    }
}
