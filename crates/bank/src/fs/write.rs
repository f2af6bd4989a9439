//! Putting and removing objects.

use std::fs::File;
use std::io::{IoSlice, Write};
use std::os::fd::BorrowedFd;

use bytes::Bytes;
use rustix::fs::{AtFlags, FileType, RenameFlags};
use rustix::io::Errno;

use crate::fs::directory::Directory;
use crate::fs::read::{FileVersion, hashed_version};
use crate::fs::staging::Staged;
use crate::fs::{Place, SWAP_MAX_BYTES, failed, io_failed, split};
use crate::{Error, ErrorKind, Key, PutMode, Result, Version};

/// How often a directory may vanish between being found and being used.
const MAX_TURNS: usize = 64;

/// The most pieces that one call of the kernel takes.
const MAX_SLICES: usize = 1024;

impl Place {
    pub(super) fn put(&self, key: &Key, body: &[Bytes], mode: &PutMode) -> Result<Version> {
        let failed = |errno| put_failed(key, errno);
        if let PutMode::Swap(expected) = mode {
            let size_bytes: u64 = body.iter().map(|piece| piece.len() as u64).sum();
            self.check_swap(key, size_bytes, expected)?;
        }
        if *mode == PutMode::Create && self.is_taken(key).map_err(failed)? {
            return self.refuse_taken(key);
        }
        let staged = self.staging.begin().map_err(failed)?;
        write_all(staged.file(), body).map_err(|error| io_failed("put", key.as_str(), error))?;
        rustix::fs::fdatasync(staged.file()).map_err(failed)?;
        let version = version_of(staged.file(), body).map_err(failed)?;
        self.publish(key, staged, mode)?;
        Ok(version)
    }

    pub(super) fn delete(&self, key: &Key) -> Result<()> {
        let failed = |errno| failed("delete", key.as_str(), errno);
        let (above, name) = split(key.as_str());
        let Some(mut directory) = self.directories.existing(above).map_err(failed)? else { return Ok(()) };
        let held = self.locks.hold_if_any(key.as_str()).map_err(failed)?;
        let mut removed = unlink(&directory, name);
        if removed == Err(Errno::NOENT) && self.directories.forget(above) {
            // What was known of the directory may be out of date.
            let Some(opened) = self.directories.existing(above).map_err(failed)? else { return Ok(()) };
            directory = opened;
            removed = unlink(&directory, name);
        }
        drop(held);
        match removed {
            // A directory is no object; and who else removed the object may not have synced yet.
            Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => {}
            Err(errno) => return Err(failed(errno)),
        }
        directory.flush().map_err(failed)?;
        self.directories.remove_if_empty(above);
        Ok(())
    }

    /// Refuses a swap that cannot be decided, or that is known to fail before anything is written.
    fn check_swap(&self, key: &Key, size_bytes: u64, expected: &Version) -> Result<()> {
        if size_bytes > SWAP_MAX_BYTES {
            let why = format!("on a file system only objects up to {SWAP_MAX_BYTES} bytes can be swapped");
            return Err(Error::new(ErrorKind::Unsupported, "put", key.as_str()).with_source(why));
        }
        if self.standing_version(key)? == Some(expected.clone()) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Precondition, "put", key.as_str()))
    }

    /// Returns the version that stands under a key, if it is one that can be swapped.
    fn standing_version(&self, key: &Key) -> Result<Option<Version>> {
        match self.head(key.clone()) {
            Ok(meta) if meta.size_bytes <= SWAP_MAX_BYTES => Ok(meta.version),
            Ok(_) => Ok(None),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives a file that was written and synced the name that `key` says, and syncs the name.
    fn publish(&self, key: &Key, staged: Staged, mode: &PutMode) -> Result<()> {
        let failed = |errno| put_failed(key, errno);
        let (above, name) = split(key.as_str());
        for _ in 0..MAX_TURNS {
            let directory = self.directories.anchored(above).map_err(failed)?;
            let named = match mode {
                PutMode::Create => name_new(&staged, directory.fd(), name),
                PutMode::Overwrite => {
                    let _held = self.locks.hold_if_any(key.as_str()).map_err(failed)?;
                    rename(&staged, directory.fd(), name, RenameFlags::empty())
                }
                PutMode::Swap(expected) => {
                    let _held = self.locks.hold(key.as_str()).map_err(failed)?;
                    if self.standing_version(key)?.as_ref() != Some(expected) {
                        return Err(Error::new(ErrorKind::Precondition, "put", key.as_str()));
                    }
                    rename(&staged, directory.fd(), name, RenameFlags::empty())
                }
            };
            match named {
                Ok(()) => {
                    staged.moved();
                    return directory.flush().map_err(failed);
                }
                // The directory was empty, and somebody removed it.
                Err(Errno::NOENT) if staged.exists() => drop(self.directories.forget(above)),
                Err(Errno::NOENT) => {
                    return Err(Error::new(ErrorKind::Unavailable, "put", key.as_str())
                        .with_source("the unfinished file was removed by somebody else"));
                }
                Err(Errno::EXIST | Errno::ISDIR | Errno::NOTEMPTY) if is_directory(&directory, name) => {
                    let (path, flags) = (key.as_str(), AtFlags::REMOVEDIR);
                    let emptied = rustix::fs::unlinkat(self.root(), path, flags);
                    if !matches!(emptied, Ok(()) | Err(Errno::NOENT)) {
                        return Err(below_or_above_taken(key));
                    }
                    self.directories.forget(key.as_str());
                }
                Err(Errno::EXIST) => return self.refuse_taken(key),
                Err(errno) => return Err(failed(errno)),
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "put", key.as_str())
            .with_source("the directory is removed again and again"))
    }

    /// Refuses a create-only put. Whoever put the object may not have synced its name yet, and the caller may
    /// act on its being there: it must not vanish in a crash.
    fn refuse_taken<T>(&self, key: &Key) -> Result<T> {
        let (above, _) = split(key.as_str());
        let directory = self.directories.anchored(above).map_err(|errno| put_failed(key, errno))?;
        directory.flush().map_err(|errno| put_failed(key, errno))?;
        Err(Error::new(ErrorKind::AlreadyExists, "put", key.as_str()))
    }

    fn is_taken(&self, key: &Key) -> Result<bool, Errno> {
        match rustix::fs::statat(self.root(), key.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode) != FileType::Directory),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

fn put_failed(key: &Key, errno: Errno) -> Error {
    match errno {
        Errno::NOTDIR => below_or_above_taken(key),
        // A put asks for nothing to be there but the bank itself.
        Errno::NOENT => Error::new(ErrorKind::Other, "put", key.as_str())
            .with_source("the directory of the bank is no longer there"),
        errno => failed("put", key.as_str(), errno),
    }
}

/// The error for a key of which a part is the key of another object, or the other way round.
fn below_or_above_taken(key: &Key) -> Error {
    Error::new(ErrorKind::Unsupported, "put", key.as_str())
        .with_source("on a file system a key cannot be a directory of another key")
}

/// Writes the pieces one after the other, many in one call, and copies none of them.
fn write_all(mut file: &File, body: &[Bytes]) -> std::io::Result<()> {
    for pieces in body.chunks(MAX_SLICES) {
        let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut left = &mut slices[..];
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match file.write_vectored(left) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut left, written),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn version_of(file: &File, body: &[Bytes]) -> Result<Version, Errno> {
    let stat = rustix::fs::fstat(file)?;
    let is_large = u64::try_from(stat.st_size).is_ok_and(|size_bytes| size_bytes > SWAP_MAX_BYTES);
    Ok(if is_large { FileVersion::of(&stat).text() } else { hashed_version(body) })
}

/// Gives a file its name, unless the name is taken.
fn name_new(staged: &Staged, directory: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    match rename(staged, directory, name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => link(staged, directory, name),
        outcome => outcome,
    }
}

fn rename(staged: &Staged, directory: BorrowedFd<'_>, name: &str, flags: RenameFlags) -> Result<(), Errno> {
    let (from, staged_name) = staged.place();
    rustix::fs::renameat_with(from, staged_name, directory, name, flags)
}

/// Gives a file a second name, which is what network file systems can do create-only, and takes the first away.
pub(super) fn link(staged: &Staged, directory: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    let (from, staged_name) = staged.place();
    match rustix::fs::linkat(from, staged_name, directory, name, AtFlags::empty()) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            // The reply to a first try may have been lost on the way, and the client has tried again.
            let ours = rustix::fs::fstat(staged.file())?;
            let standing = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if (standing.st_dev, standing.st_ino) != (ours.st_dev, ours.st_ino) {
                return Err(Errno::EXIST);
            }
        }
        Err(errno) => return Err(errno),
    }
    // The object stands. If the first name cannot be taken away now, it is an unfinished file to be cleaned.
    let _ = rustix::fs::unlinkat(from, staged_name, AtFlags::empty());
    Ok(())
}

fn unlink(directory: &Directory, name: &str) -> Result<(), Errno> {
    rustix::fs::unlinkat(directory.fd(), name, AtFlags::empty())
}

fn is_directory(directory: &Directory, name: &str) -> bool {
    rustix::fs::statat(directory.fd(), name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}
