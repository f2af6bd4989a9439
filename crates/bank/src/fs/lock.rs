//! Locks for what reads before it replaces.
//!
//! Invariant: whoever replaces or removes an object holds the lock of its key from before it looks at what
//! stands there until it has replaced it. Create-only puts need no lock. A lock is a file below
//! `.karbor/locks` that is locked, in this process and in all others; several keys share one. Which one must
//! never change between versions of this program: two that disagree would not exclude each other.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use crate::fs::{DIRECTORY_FLAGS, FILE_MODE, create_directory};

const NAME: &str = "locks";

/// How many lock files there are.
const COUNT: u8 = 64;

/// The locks of a bank.
#[derive(Debug)]
pub(super) struct Locks {
    mark: OwnedFd,
}

/// Held until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    _file: OwnedFd,
}

impl Locks {
    pub(super) fn open(mark: BorrowedFd<'_>) -> Result<Self, Errno> {
        Ok(Self { mark: mark.try_clone_to_owned().map_err(|_| Errno::MFILE)? })
    }

    /// Waits for the lock of a key; nothing where the file system has no locks. There nothing can be swapped,
    /// so nobody needs to be excluded.
    pub(super) fn hold_if_any(&self, key: &str) -> Result<Option<Held>, Errno> {
        match self.hold(key) {
            Err(Errno::NOTSUP | Errno::NOSYS | Errno::NOLCK | Errno::INVAL) => Ok(None),
            held => held.map(Some),
        }
    }

    /// Waits for the lock of a key. It is held for a few calls of the file system, never for a transfer.
    pub(super) fn hold(&self, key: &str) -> Result<Held, Errno> {
        let directory = match rustix::fs::openat(&self.mark, NAME, DIRECTORY_FLAGS, FILE_MODE) {
            Err(Errno::NOENT) => {
                create_directory(self.mark.as_fd(), NAME)?;
                rustix::fs::openat(&self.mark, NAME, DIRECTORY_FLAGS, FILE_MODE)?
            }
            opened => opened?,
        };
        let number = blake3::hash(key.as_bytes()).as_bytes()[0] % COUNT;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&directory, format!("{number:02x}"), flags, FILE_MODE)?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
                Ok(()) => return Ok(Held { _file: file }),
            }
        }
    }
}
