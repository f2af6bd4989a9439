//! Objects as files below a directory.
//!
//! Invariant: a file that stands under a key is whole and on the disk. A put writes to a file that no key can
//! name (below `.karbor/staging`, on the same file system), syncs it, and only then gives it its name, in one
//! step of the file system that for a create-only put fails if the name is taken; then it syncs the directory.
//! Nothing is ever written to a file that has a name. The order matters: a name that survives a crash belongs
//! to bytes that were synced before it.
//!
//! What else lies in the root: `.karbor/staging` (see [`staging`]) and `.karbor/locks` (see [`lock`]). Their
//! names start with a dot, as no segment of a key does. A bank is *opened* only where `.karbor` stands, so that
//! a disk that is not mounted is not taken for an empty bank.
//!
//! Directories come and go with the objects in them. A directory may vanish between the moment it is found and
//! the moment a file is given a name in it; that fails cleanly, and the put begins again with the directory.

mod directory;
mod flush;
mod list;
mod lock;
mod read;
mod staging;
#[cfg(test)]
mod tests;
mod write;

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::fs::directory::Directories;
use crate::fs::lock::Locks;
use crate::fs::staging::Staging;
use crate::{Bank, Body, Capabilities, Error, ErrorKind, Key, Meta, Object, PutMode, Result, Version};

/// The largest object that a compare-and-swap put may replace or put on a file system, in bytes.
///
/// The version of an object up to this size is the hash of its bytes. That of a larger one tells by which
/// file it is stored, which costs nothing to read, but a file system may give the same number to two files
/// one after the other: good enough to see a change, not to decide a race.
pub const SWAP_MAX_BYTES: u64 = 1 << 20;

/// The directory that marks a bank and holds what is no object.
const MARK: &str = ".karbor";

/// Who may read what is created, before the process's umask.
const FILE_MODE: Mode = Mode::from_raw_mode(0o640);
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o750);

/// Keeps objects as files below a directory; clones share it.
#[derive(Debug, Clone)]
pub struct FileSystemBank {
    place: Arc<Place>,
}

/// The directory and what is known of it. All its methods block.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    directories: Directories,
    staging: Staging,
    locks: Locks,
}

impl FileSystemBank {
    /// Makes `path` a bank, unless it is one, and opens it. It blocks for a moment.
    ///
    /// # Errors
    /// When the directory cannot be created or opened.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        create_durably(&path.join(MARK), 2)
            .map_err(|error| io_failed("create", &path.to_string_lossy(), error))?;
        Self::open(path)
    }

    /// Opens the bank at `path` and removes what dead writers left. It blocks for a moment.
    ///
    /// A bank that cannot be written to is opened too, and can be read.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no bank at `path`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |errno| failed("open", &path.to_string_lossy(), errno);
        let root = rustix::fs::open(path, DIRECTORY_FLAGS, Mode::empty()).map_err(failed)?;
        let mark = match open_directory(root.as_fd(), MARK) {
            Err(Errno::NOENT) => {
                return Err(Error::new(ErrorKind::NotFound, "open", path.to_string_lossy())
                    .with_source("the directory is no bank: if it should be one, create the bank first"));
            }
            opened => opened.map_err(failed)?,
        };
        let staging = Staging::open(mark.as_fd()).map_err(failed)?;
        let locks = Locks::open(mark.as_fd()).map_err(failed)?;
        staging.clean();
        let directories = Directories::new(root);
        let place = Place { path: path.to_owned(), directories, staging, locks };
        Ok(Self { place: Arc::new(place) })
    }

    /// Returns the root directory.
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// Runs blocking work; it goes on to its end also when the caller stops waiting.
    async fn block<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl FnOnce(&Place) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let place = Arc::clone(&self.place);
        match tokio::task::spawn_blocking(move || work(&place)).await {
            Ok(outcome) => outcome,
            Err(error) => Err(Error::new(ErrorKind::Unavailable, operation, key).with_source(error)),
        }
    }
}

#[async_trait]
impl Bank for FileSystemBank {
    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<Version> {
        let owned = key.clone();
        self.block("put", key.as_str(), move |place| place.put(&owned, &body, &mode)).await
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<Object> {
        let owned = key.clone();
        self.block("get", key.as_str(), move |place| place.get(&owned, range)).await
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        let owned = key.clone();
        self.block("head", key.as_str(), move |place| place.head(owned)).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let owned = key.clone();
        self.block("delete", key.as_str(), move |place| place.delete(&owned)).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Meta>> {
        let (owned, after) = (prefix.to_owned(), after.cloned());
        self.block("list", prefix, move |place| place.list(&owned, after.as_ref(), limit)).await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::FULL
    }

    fn name(&self) -> String {
        self.place.path.to_string_lossy().into_owned()
    }
}

impl Place {
    fn root(&self) -> BorrowedFd<'_> {
        self.directories.root().fd()
    }
}

const DIRECTORY_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn open_directory(at: BorrowedFd<'_>, path: &str) -> Result<rustix::fd::OwnedFd, Errno> {
    rustix::fs::openat(at, path, DIRECTORY_FLAGS | OFlags::NOFOLLOW, Mode::empty())
}

/// Creates a directory where none is; that one is there already is well.
fn create_directory(at: BorrowedFd<'_>, path: &str) -> Result<(), Errno> {
    match rustix::fs::mkdirat(at, path, DIRECTORY_MODE) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Creates a directory with all above it, and syncs each that got a new entry. The names of the lowest
/// `synced` directories are synced also if they stood: whoever created them may have died before.
fn create_durably(path: &Path, synced: usize) -> std::io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    let stood = path.is_dir();
    if stood && synced == 0 {
        return Ok(());
    }
    create_durably(parent, synced.saturating_sub(1))?;
    match std::fs::create_dir(path) {
        Err(error) if !stood && error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    match std::fs::File::open(parent).and_then(|parent| parent.sync_all()) {
        // Some file systems sync names by themselves and do not know how to be asked.
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(()),
        // Who may use a directory need not be allowed to read the one above it.
        Err(error) if stood && error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        outcome => outcome,
    }
}

/// Splits a key into its directory, empty for the root, and its last segment.
fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('/').unwrap_or(("", key))
}

/// Tells what an error of the file system means to the caller.
fn failed(operation: &'static str, key: &str, errno: Errno) -> Error {
    let kind = match errno {
        Errno::NOENT => ErrorKind::NotFound,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => ErrorKind::Denied,
        Errno::NOSPC | Errno::DQUOT => ErrorKind::Full,
        Errno::AGAIN | Errno::INTR | Errno::NOMEM | Errno::MFILE | Errno::NFILE => ErrorKind::Unavailable,
        Errno::STALE | Errno::TIMEDOUT | Errno::HOSTDOWN | Errno::BUSY => ErrorKind::Unavailable,
        Errno::NOTSUP | Errno::NOSYS | Errno::NOLCK | Errno::XDEV | Errno::FBIG | Errno::NAMETOOLONG => {
            ErrorKind::Unsupported
        }
        _ => ErrorKind::Other,
    };
    Error::new(kind, operation, key).with_source(std::io::Error::from(errno))
}

fn io_failed(operation: &'static str, key: &str, error: std::io::Error) -> Error {
    match Errno::from_io_error(&error) {
        Some(errno) => failed(operation, key, errno),
        None => Error::new(ErrorKind::Other, operation, key).with_source(error),
    }
}
