//! Files that are being written and have no name yet that a key could name.
//!
//! Invariant: a staged file is removed only by its writer, or by somebody who has proved that its writer is
//! dead. Each writer (one open bank) takes a name of its own by creating `<name>.lock` and locking it for as
//! long as it lives; its files are `<name>.<number>`. Whoever gets the lock of a writer knows that it is dead,
//! and may take its files away, the lock file last. The kernel lets go of the lock of a killed process.
//!
//! Where locks do not work nothing is taken away. Should a living writer's file vanish all the same, its put
//! fails and nothing else happens.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, Dir, FlockOperation, OFlags};
use rustix::io::Errno;
use tracing::{debug, info};

use crate::fs::{FILE_MODE, create_directory, open_directory};

const NAME: &str = "staging";

/// Where files are staged.
#[derive(Debug)]
pub(super) struct Staging {
    mark: OwnedFd,
    writer: Mutex<Option<Arc<Writer>>>,
}

/// The name under which this process stages files. It is taken at the first put: who only reads needs none.
#[derive(Debug)]
struct Writer {
    directory: OwnedFd,
    name: String,
    next: AtomicU64,
    _lock: OwnedFd,
}

/// A file that is being written. It is removed when dropped, unless it was given a name.
#[derive(Debug)]
pub(super) struct Staged {
    writer: Arc<Writer>,
    name: String,
    file: File,
    remove: bool,
}

impl Staging {
    pub(super) fn open(mark: BorrowedFd<'_>) -> Result<Self, Errno> {
        let mark = mark.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
        Ok(Self { mark, writer: Mutex::default() })
    }

    /// Creates an empty file to be written.
    pub(super) fn begin(&self) -> Result<Staged, Errno> {
        let writer = self.writer()?;
        loop {
            let number = writer.next.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}.{number}", writer.name);
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            match rustix::fs::openat(&writer.directory, &name, flags, FILE_MODE) {
                Err(Errno::EXIST | Errno::INTR) => {}
                Err(errno) => return Err(errno),
                Ok(file) => return Ok(Staged { writer, name, file: file.into(), remove: true }),
            }
        }
    }

    fn writer(&self) -> Result<Arc<Writer>, Errno> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = &*writer {
            return Ok(Arc::clone(writer));
        }
        create_directory(self.mark.as_fd(), NAME)?;
        let directory = open_directory(self.mark.as_fd(), NAME)?;
        let taken = Arc::new(Writer::take(directory)?);
        *writer = Some(Arc::clone(&taken));
        Ok(taken)
    }

    /// Removes the files of dead writers. What cannot be removed stays for the next time.
    pub(super) fn clean(&self) {
        match self.try_clean() {
            Ok(0) | Err(Errno::NOENT) => {}
            Ok(count) => info!(count, "Removed {count} unfinished files of dead writers"),
            Err(errno) => debug!(%errno, "Unfinished files of dead writers were left: {errno}"),
        }
    }

    fn try_clean(&self) -> Result<usize, Errno> {
        let directory = open_directory(self.mark.as_fd(), NAME)?;
        let writers: BTreeSet<String> = names(&directory)?
            .into_iter()
            .filter_map(|name| name.split_once('.').map(|(writer, _)| writer.to_owned()))
            .collect();
        let mut removed = 0;
        for writer in writers {
            let Some(_lock) = lock(&directory, &writer, OFlags::empty())? else { continue };
            let (own, lock_name) = (format!("{writer}."), lock_name(&writer));
            for name in names(&directory)? {
                if name.starts_with(&own) && name != lock_name {
                    remove(directory.as_fd(), &name)?;
                    removed += 1;
                }
            }
            remove(directory.as_fd(), &lock_name)?;
        }
        Ok(removed)
    }
}

impl Writer {
    fn take(directory: OwnedFd) -> Result<Self, Errno> {
        let process = std::process::id();
        for number in 0_u64.. {
            let name = format!("{process}-{number}");
            match lock(&directory, &name, OFlags::EXCL) {
                Ok(Some(lock)) => return Ok(Self { directory, name, next: AtomicU64::new(0), _lock: lock }),
                // Another process has the name, on another host or a dead one, or is taking it away.
                Ok(None) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::EXIST)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // All files are gone: each holds on to its writer. The lock is held until after this.
        if let Err(errno) = remove(self.directory.as_fd(), &lock_name(&self.name)) {
            debug!(%errno, "A lock file was left: {errno}");
        }
    }
}

impl Staged {
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Returns the directory and the name by which the file can be reached now.
    pub(super) fn place(&self) -> (BorrowedFd<'_>, &str) {
        (self.writer.directory.as_fd(), &self.name)
    }

    /// Returns whether the file is still there.
    pub(super) fn exists(&self) -> bool {
        let (directory, name) = self.place();
        rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Says that the file was moved to its final name.
    pub(super) fn moved(mut self) {
        self.remove = false;
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.remove
            && let Err(errno) = remove(self.writer.directory.as_fd(), &self.name)
        {
            debug!(%errno, "An unfinished file was left: {errno}");
        }
    }
}

fn lock_name(writer: &str) -> String {
    format!("{writer}.lock")
}

/// Opens or creates the lock file of a writer and locks it; nothing if somebody else holds it.
fn lock(directory: &OwnedFd, writer: &str, flags: OFlags) -> Result<Option<OwnedFd>, Errno> {
    let creating = flags.contains(OFlags::EXCL);
    let flags = flags | OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, lock_name(writer), flags, FILE_MODE)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        // Without locks a writer can go on, but nobody can prove anything about it.
        Err(Errno::NOTSUP | Errno::NOLCK | Errno::NOSYS | Errno::INVAL) if creating => return Ok(Some(file)),
        Err(errno) => return Err(errno),
    }
    // Between opening and locking it somebody else may have held and removed it: then it protects nothing.
    let stands = rustix::fs::fstat(&file)?.st_nlink > 0;
    Ok(stands.then_some(file))
}

fn names(directory: &OwnedFd) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        match entry.file_name().to_str() {
            Ok(name) if !name.starts_with('.') => names.push(name.to_owned()),
            _ => {}
        }
    }
    Ok(names)
}

fn remove(directory: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}
