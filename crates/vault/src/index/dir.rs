//! Where runs lie: a directory that one process has for itself, or nameless files.
//!
//! Invariant: no two processes write the same directory, and everything in it can be deleted at any time: files that
//! are in use stay readable through their handles, and what is missing at the next start is fetched again.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use karbor_chunk::Entropy;
use rustix::fs::FlockOperation;

/// How many processes find a directory of their own below one account's; further ones use nameless files.
const SLOTS: u32 = 16;

/// A place for runs.
#[derive(Debug)]
pub(crate) struct Dir {
    path: PathBuf,
    /// The lock on a directory of its own; `None` when files are nameless.
    lock: Option<File>,
}

impl Dir {
    /// Takes the first directory below `root` that no other process uses.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        for slot in 0..SLOTS {
            let path = root.join(slot.to_string());
            fs::create_dir_all(&path)?;
            let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock"))?;
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { path, lock: Some(lock) }),
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(err) => return Err(err.into()),
            }
        }
        Ok(Self::nameless())
    }

    /// Uses nameless files in the system's temporary directory.
    pub(crate) fn nameless() -> Self {
        Self { path: std::env::temp_dir(), lock: None }
    }

    /// Returns the path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether what is written here is found by a later process.
    pub(crate) fn is_lasting(&self) -> bool {
        self.lock.is_some()
    }

    /// Makes an empty file and, where files last, returns its name.
    pub(crate) fn create(&self, entropy: &dyn Entropy) -> io::Result<(File, Option<String>)> {
        let mut random = [0; 16];
        entropy.fill(&mut random).map_err(io::Error::other)?;
        let name = format!("{}.run", uuid::Uuid::from_bytes(random).simple());
        let path = if self.is_lasting() {
            fs::create_dir_all(&self.path)?;
            self.path.join(&name)
        } else {
            self.path.join(format!("karbor-{name}"))
        };
        let file = OpenOptions::new().create_new(true).read(true).write(true).open(&path)?;
        if self.is_lasting() {
            return Ok((file, Some(name)));
        }
        fs::remove_file(&path)?;
        Ok((file, None))
    }

    /// Opens a file that a list names.
    pub(crate) fn open_named(&self, name: &str) -> io::Result<File> {
        File::open(self.path.join(name))
    }

    /// Replaces the list of what is here.
    pub(crate) fn write_list(&self, text: &str) -> io::Result<()> {
        let temporary = self.path.join("list.new");
        fs::write(&temporary, text)?;
        fs::rename(&temporary, self.path.join("list"))
    }

    /// Reads the list of what is here.
    pub(crate) fn read_list(&self) -> io::Result<String> {
        fs::read_to_string(self.path.join("list"))
    }

    /// Removes runs that `keep` does not name. What cannot be removed now is removed another time.
    pub(crate) fn remove_others(&self, keep: &[&str]) {
        if !self.is_lasting() {
            return;
        }
        let Ok(listing) = fs::read_dir(&self.path) else { return };
        for item in listing.flatten() {
            let name = item.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.ends_with(".run") && !keep.contains(&name) {
                let _ = fs::remove_file(item.path());
            }
        }
    }
}
