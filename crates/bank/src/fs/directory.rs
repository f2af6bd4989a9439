//! Directories that are known to be on the disk.
//!
//! Invariant: a directory is handed out for a put only after every directory above it was synced since it was
//! seen there; who created it does not matter, for whoever did may have died before the sync. A descriptor is
//! kept, not a path: if the directory is removed and another takes its name, giving a file a name through the
//! old descriptor fails, and the new one is not taken for known. Nobody ever renames a directory.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::fs::flush::Flush;
use crate::fs::{create_directory, open_directory, split};

/// How many descriptors are kept open.
const MAX_KNOWN: usize = 128;

/// How often a directory may vanish under a put before it gives up.
const MAX_TURNS: usize = 64;

/// The directories of a bank.
#[derive(Debug)]
pub(super) struct Directories {
    root: Arc<Directory>,
    known: Mutex<HashMap<String, Arc<Directory>>>,
}

/// One directory, held open.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    /// Whether all above it was synced since it was seen.
    anchored: AtomicBool,
    flush: Flush,
}

impl Directories {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root: Arc::new(Directory::new(root, true)), known: Mutex::default() }
    }

    pub(super) fn root(&self) -> &Directory {
        &self.root
    }

    /// Returns a directory that will be there after a crash; it is created if it is missing.
    pub(super) fn anchored(&self, path: &str) -> Result<Arc<Directory>, Errno> {
        for _ in 0..MAX_TURNS {
            match self.anchored_once(path) {
                // One above was removed as empty: what is known of them is out of date.
                Err(Errno::NOENT) => self.forget_all_above(path),
                outcome => return outcome,
            }
        }
        Err(Errno::AGAIN)
    }

    fn anchored_once(&self, path: &str) -> Result<Arc<Directory>, Errno> {
        if path.is_empty() {
            return Ok(Arc::clone(&self.root));
        }
        if let Some(known) = self.lock().get(path)
            && known.anchored.load(Ordering::Acquire)
        {
            return Ok(Arc::clone(known));
        }
        let (above, name) = split(path);
        let parent = self.anchored_once(above)?;
        // It is opened through its parent also if it is known: that shows that the parent is still there,
        // which cannot go while this one is in it.
        let mut opened = open_directory(parent.fd(), name);
        if opened.as_ref().is_err_and(|errno| *errno == Errno::NOENT) {
            create_directory(parent.fd(), name)?;
            opened = open_directory(parent.fd(), name);
        }
        let directory = self.keep(path, opened?);
        parent.flush()?;
        directory.anchored.store(true, Ordering::Release);
        Ok(directory)
    }

    /// Returns a directory if it is there.
    pub(super) fn existing(&self, path: &str) -> Result<Option<Arc<Directory>>, Errno> {
        if path.is_empty() {
            return Ok(Some(Arc::clone(&self.root)));
        }
        if let Some(known) = self.lock().get(path) {
            return Ok(Some(Arc::clone(known)));
        }
        match open_directory(self.root.fd(), path) {
            Ok(fd) => Ok(Some(self.keep(path, fd))),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Drops what is known of a directory, as it was found to be gone; returns whether anything was.
    pub(super) fn forget(&self, path: &str) -> bool {
        self.lock().remove(path).is_some()
    }

    fn forget_all_above(&self, mut path: &str) {
        while !path.is_empty() {
            self.forget(path);
            path = split(path).0;
        }
    }

    /// Removes a directory and those above it, as far as they are empty.
    pub(super) fn remove_if_empty(&self, mut path: &str) {
        while !path.is_empty() {
            if rustix::fs::unlinkat(self.root.fd(), path, rustix::fs::AtFlags::REMOVEDIR).is_err() {
                // It is in use, or somebody else removed it. An empty directory does no harm.
                return;
            }
            self.forget(path);
            path = split(path).0;
        }
    }

    fn keep(&self, path: &str, fd: OwnedFd) -> Arc<Directory> {
        let mut known = self.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        let directory = Arc::new(Directory::new(fd, false));
        known.insert(path.to_owned(), Arc::clone(&directory));
        directory
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Directory>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory {
    fn new(fd: OwnedFd, anchored: bool) -> Self {
        Self { fd, anchored: AtomicBool::new(anchored), flush: Flush::default() }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Makes the names in this directory survive a crash.
    pub(super) fn flush(&self) -> Result<(), Errno> {
        self.flush.run(|| match rustix::fs::fsync(&self.fd) {
            // Some file systems sync names by themselves and do not know how to be asked.
            Err(Errno::INVAL) => Ok(()),
            outcome => outcome,
        })
    }
}
