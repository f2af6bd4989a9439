//! Walking a tree in the order of the `entries` stream, one directory open at a time.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::entry::{Content, Entry, Kind, Stamp};
use crate::{Error, Result};

/// The directory that a tree begins at. Everything below is reached from its descriptor, never through a symbolic
/// link: who can write into the tree cannot lead the reader out of it.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// Opens an existing directory. The path itself may lead through symbolic links.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, path: path.to_owned() }),
            Err(Errno::NOTDIR) => Err(Error::NotADirectory { path: path.to_owned() }),
            Err(err) => Err(Error::Path { doing: "opening", path: path.to_owned(), source: err.into() }),
        }
    }

    /// Returns the full path of what lies below the root, for messages and extended attributes.
    pub(crate) fn full_path(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() { self.path.clone() } else { self.path.join(OsStr::from_bytes(path)) }
    }

    /// Opens what lies below the root.
    pub(crate) fn open_below(&self, path: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(path) };
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        loop {
            match rustix::fs::openat2(self.fd.as_fd(), path, flags, mode, resolve) {
                // A rename elsewhere came between: the kernel asks to try again.
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other.map_err(io::Error::from),
            }
        }
    }

    /// Opens a file for reading without leaving a trace in its access time, where that is allowed.
    pub(crate) fn open_file(&self, path: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        match self.open_below(path, flags | OFlags::NOATIME, Mode::empty()) {
            Err(err) if err.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {
                self.open_below(path, flags, Mode::empty()).map(File::from)
            }
            other => other.map(File::from),
        }
    }
}

/// What a walk finds: an entry, or that something could not be looked at.
pub(crate) enum Found {
    /// A name. A regular file's content has its size only, not yet its place.
    Entry(Box<Entry>, Links),
    /// A name that went away between the listing of its directory and the look at it.
    Vanished(Vec<u8>),
    /// A directory that cannot be read.
    Unreadable(Vec<u8>, io::Error),
}

/// What tells further names of a file from the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Links {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) count: u64,
    /// How many bytes the file occupies; fewer than its size means holes.
    pub(crate) allocated_bytes: u64,
}

/// Walks depth first; the names of each directory sorted bytewise.
pub(crate) struct Walk<'a> {
    root: &'a Root,
    stack: Vec<Level>,
    started: bool,
    device: Option<u64>,
}

struct Level {
    path: Vec<u8>,
    fd: OwnedFd,
    /// Names still to be looked at, in descending order.
    names: Vec<Vec<u8>>,
}

impl<'a> Walk<'a> {
    /// Starts at the root; with `one_file_system`, what is mounted below is left out but for its mount point.
    pub(crate) fn new(root: &'a Root, one_file_system: bool) -> Result<Self> {
        let device = if one_file_system { Some(root_stat(root)?.st_dev) } else { None };
        Ok(Self { root, stack: Vec::new(), started: false, device })
    }

    fn descend(&mut self, path: Vec<u8>) -> Option<Found> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let opened = self.root.open_below(&path, flags, Mode::empty());
        let listed = opened.and_then(|fd| Ok((names_of(&fd)?, fd)));
        match listed {
            Ok((names, fd)) => {
                self.stack.push(Level { path, fd, names });
                None
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => Some(Found::Vanished(path)),
            Err(err) => Some(Found::Unreadable(path, err)),
        }
    }

    /// Returns the next thing in order, or `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Found>> {
        if !self.started {
            self.started = true;
            let stat = root_stat(self.root)?;
            let (entry, links) = describe(self.root, Vec::new(), &stat, None)?;
            if let Some(Found::Unreadable(_, source)) = self.descend(Vec::new()) {
                return Err(Error::Path { doing: "listing", path: self.root.path.clone(), source });
            }
            return Ok(Some(Found::Entry(Box::new(entry), links)));
        }
        loop {
            let Some(level) = self.stack.last_mut() else { return Ok(None) };
            let Some(name) = level.names.pop() else {
                self.stack.pop();
                continue;
            };
            let path =
                if level.path.is_empty() { name.clone() } else { [&level.path[..], b"/", &name].concat() };
            let stat =
                match rustix::fs::statat(&level.fd, OsStr::from_bytes(&name), AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => stat,
                    Err(Errno::NOENT) => return Ok(Some(Found::Vanished(path))),
                    Err(err) => {
                        let path = self.root.full_path(&path);
                        return Err(Error::Path { doing: "looking at", path, source: err.into() });
                    }
                };
            let target = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => {
                    match rustix::fs::readlinkat(&level.fd, OsStr::from_bytes(&name), Vec::new()) {
                        Ok(target) => Some(target.into_bytes()),
                        Err(Errno::NOENT | Errno::INVAL) => return Ok(Some(Found::Vanished(path))),
                        Err(err) => {
                            let path = self.root.full_path(&path);
                            return Err(Error::Path { doing: "reading the link", path, source: err.into() });
                        }
                    }
                }
                _ => None,
            };
            let (entry, links) = describe(self.root, path, &stat, target)?;
            let elsewhere = self.device.is_some_and(|device| device != links.device);
            if matches!(entry.kind, Kind::Directory)
                && !elsewhere
                && let Some(problem) = self.descend(entry.path.clone())
            {
                return Ok(Some(problem));
            }
            return Ok(Some(Found::Entry(Box::new(entry), links)));
        }
    }
}

fn root_stat(root: &Root) -> Result<Stat> {
    let stat = rustix::fs::fstat(&root.fd);
    stat.map_err(|err| Error::Path { doing: "looking at", path: root.path.clone(), source: err.into() })
}

fn names_of(fd: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for item in Dir::read_from(fd)? {
        let name = item?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

/// Makes an entry of what the file system says.
pub(crate) fn describe(
    root: &Root,
    path: Vec<u8>,
    stat: &Stat,
    target: Option<Vec<u8>>,
) -> Result<(Entry, Links)> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink { target: target.unwrap_or_default() },
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::CharDevice { device: stat.st_rdev },
        FileType::BlockDevice => Kind::BlockDevice { device: stat.st_rdev },
        _ => {
            Kind::File(Content { size_bytes: u64::try_from(stat.st_size).unwrap_or(0), ..Content::default() })
        }
    };
    let xattrs = xattrs(&root.full_path(&path))?;
    let links = Links {
        device: stat.st_dev,
        inode: stat.st_ino,
        count: stat.st_nlink,
        allocated_bytes: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512),
    };
    let entry = Entry {
        path,
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        modified: Stamp { seconds: stat.st_mtime, nanos: nanos(stat.st_mtime_nsec) },
        changed: Stamp { seconds: stat.st_ctime, nanos: nanos(stat.st_ctime_nsec) },
        inode: stat.st_ino,
        xattrs,
    };
    Ok((entry, links))
}

/// Takes the kernel's nanoseconds, which are below a second.
pub(crate) fn nanos<N: TryInto<u32>>(nanos: N) -> u32 {
    nanos.try_into().unwrap_or(0)
}

/// Reads extended attributes; a file system without them has none.
pub(crate) fn xattrs(path: &Path) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let failed = |err: Errno| Error::Path {
        doing: "reading the extended attributes of",
        path: path.to_owned(),
        source: err.into(),
    };
    // Nearly no file has any, and few have many: one call tells, as a rule.
    let mut list = vec![0_u8; 1024];
    let size = loop {
        match rustix::fs::llistxattr(path, &mut list[..]) {
            Ok(0) | Err(Errno::NOTSUP | Errno::NOENT | Errno::PERM) => return Ok(Vec::new()),
            Ok(size) => break size,
            Err(Errno::RANGE) if list.len() < 1 << 20 => list.resize(list.len() * 8, 0),
            Err(err) => return Err(failed(err)),
        }
    };
    let mut found = Vec::new();
    let mut value = vec![0_u8; 64 << 10];
    for name in list[..size].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match rustix::fs::lgetxattr(path, name, &mut value[..]) {
            Ok(size) => found.push((name.to_vec(), value[..size].to_vec())),
            // Gone since, or not for us (`security.*`, `trusted.*` without privilege).
            Err(Errno::NODATA | Errno::NOENT | Errno::PERM | Errno::ACCESS) => {}
            Err(err) => return Err(failed(err)),
        }
    }
    found.sort();
    Ok(found)
}
