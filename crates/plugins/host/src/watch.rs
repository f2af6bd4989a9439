//! The inventory file over time.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tracing::{error, info};

use crate::inventory::{Error, Inventory, Result};

/// An inventory file, and what was last read from it.
#[derive(Debug)]
pub(crate) struct InventoryFile {
    path: PathBuf,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    /// The last inventory that could be used.
    inventory: Arc<Inventory>,
    /// What the file looked like when it was last read, usable or not.
    stamp: Option<Stamp>,
}

/// What changes when a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl InventoryFile {
    /// Reads the file. One that does not exist is empty, until it appears.
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        let stamp = stamp(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let inventory = match stamp {
            None => Inventory::default(),
            Some(_) => read(&path)?,
        };
        let state = State { inventory: Arc::new(inventory), stamp };
        Ok(Self { path, state: RwLock::new(state) })
    }

    /// Returns the inventory as the file has it now; when it cannot be used, as it was before.
    pub(crate) fn current(&self) -> Arc<Inventory> {
        // The stamp is taken before the file is read: a change in between is seen by the next call.
        let now = stamp(&self.path).ok().flatten();
        {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            if state.stamp == now {
                return Arc::clone(&state.inventory);
            }
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.stamp == now {
            return Arc::clone(&state.inventory);
        }
        let path = self.path.display();
        match now.map(|_| read(&self.path)) {
            Some(Ok(inventory)) => {
                info!(instances = inventory.len(), "Read the inventory {path} again");
                state.inventory = Arc::new(inventory);
            }
            Some(Err(err)) => {
                error!(error = %err, "The inventory {path} cannot be used, the one before stays in force: {err}");
            }
            None => error!("The inventory {path} is gone, what was last read stays in force"),
        }
        state.stamp = now;
        Arc::clone(&state.inventory)
    }
}

fn read(path: &Path) -> Result<Inventory> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Inventory::parse(path, &text)
}

/// Returns what the file looks like; nothing when there is none.
fn stamp(path: &Path) -> io::Result<Option<Stamp>> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(err),
    };
    Ok(Some(Stamp {
        device: meta.dev(),
        inode: meta.ino(),
        size_bytes: meta.len(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn disk(name: &str) -> String {
        format!("[[disk]]\nname = \"{name}\"\nproject = \"p\"\npath = \"/x\"\n")
    }

    /// Puts a new file in the place of the old one, as editors do.
    fn replace(path: &Path, text: &str) {
        let mut file = tempfile::NamedTempFile::new_in(path.parent().expect("a directory")).expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        file.persist(path).expect("renamed");
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_bad_one_is_not_taken() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("inventory.toml");
        let file = InventoryFile::open(path.clone()).expect("none yet");
        assert_eq!(file.current().len(), 0);
        replace(&path, &disk("a"));
        assert_eq!(file.current().len(), 1);
        replace(&path, &(disk("a") + &disk("b")));
        assert_eq!(file.current().len(), 2);
        replace(&path, "[[disk]]\nname = 5\n");
        assert_eq!(file.current().len(), 2);
        fs::remove_file(&path).expect("removed");
        assert_eq!(file.current().len(), 2);
        replace(&path, &disk("c"));
        assert_eq!(file.current().len(), 1);
    }

    #[test]
    fn a_bad_file_at_start_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("inventory.toml");
        replace(&path, "[[disc]]\n");
        assert!(InventoryFile::open(path).is_err());
    }
}
