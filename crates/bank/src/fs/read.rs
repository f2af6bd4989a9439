//! Reading objects.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::fs::{Place, SWAP_MAX_BYTES, failed};
use crate::{Error, ErrorKind, Key, Meta, Object, Result, Version};

/// An object's file, open.
struct Opened {
    file: OwnedFd,
    size_bytes: u64,
    version: FileVersion,
}

/// What tells an object's file from those before and after it, if it is not hashed.
pub(super) struct FileVersion {
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Place {
    pub(super) fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<Object> {
        let opened = self.open("get", key)?;
        let cut = crate::cut_range(range, opened.size_bytes);
        if opened.size_bytes > SWAP_MAX_BYTES {
            let bytes = read(opened.file.as_fd(), cut).map_err(|errno| failed("get", key.as_str(), errno))?;
            return Ok(Object { bytes, size_bytes: opened.size_bytes, version: opened.version.text() });
        }
        let all = read(opened.file.as_fd(), 0..opened.size_bytes)
            .map_err(|errno| failed("get", key.as_str(), errno))?;
        let at = |offset: u64| usize::try_from(offset).expect("it lies inside bytes that are in memory");
        let part = at(cut.start)..at(cut.end);
        // A small part does not keep all of the object in memory.
        let bytes =
            if part.len() < all.len() / 2 { Bytes::copy_from_slice(&all[part]) } else { all.slice(part) };
        Ok(Object { bytes, size_bytes: opened.size_bytes, version: hashed_version(&[all]) })
    }

    pub(super) fn head(&self, key: Key) -> Result<Meta> {
        let opened = self.open("head", &key)?;
        let version = if opened.size_bytes > SWAP_MAX_BYTES {
            opened.version.text()
        } else {
            let bytes = read(opened.file.as_fd(), 0..opened.size_bytes)
                .map_err(|errno| failed("head", key.as_str(), errno))?;
            hashed_version(&[bytes])
        };
        Ok(Meta { key, size_bytes: opened.size_bytes, version: Some(version) })
    }

    fn open(&self, operation: &'static str, key: &Key) -> Result<Opened> {
        // Never wait for the other end of something that is no file.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let failed = |errno| match errno {
            Errno::NOTDIR => Error::new(ErrorKind::NotFound, operation, key.as_str()),
            errno => failed(operation, key.as_str(), errno),
        };
        let file = rustix::fs::openat(self.root(), key.as_str(), flags, Mode::empty()).map_err(failed)?;
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::new(ErrorKind::NotFound, operation, key.as_str()));
        }
        let version = FileVersion::of(&stat);
        let size_bytes = u64::try_from(stat.st_size).expect("the size of a file is not negative");
        Ok(Opened { file, size_bytes, version })
    }
}

impl FileVersion {
    pub(super) fn of(stat: &rustix::fs::Stat) -> Self {
        #[expect(clippy::useless_conversion, reason = "the types differ between architectures")]
        Self {
            inode: stat.st_ino.into(),
            seconds: stat.st_mtime.into(),
            nanoseconds: i64::try_from(stat.st_mtime_nsec).unwrap_or_default(),
        }
    }

    pub(super) fn text(&self) -> Version {
        Version(format!("f{:x}-{:x}-{:x}", self.inode, self.seconds, self.nanoseconds))
    }
}

/// Returns the version of an object of at most [`SWAP_MAX_BYTES`].
pub(super) fn hashed_version(pieces: &[Bytes]) -> Version {
    let mut hasher = blake3::Hasher::new();
    for piece in pieces {
        hasher.update(piece);
    }
    Version(hasher.finalize().to_hex()[..32].to_owned())
}

/// Reads a part of a file straight into memory that was not touched before.
fn read(file: BorrowedFd<'_>, range: Range<u64>) -> Result<Bytes, Errno> {
    let wanted = usize::try_from(range.end - range.start).map_err(|_| Errno::NOMEM)?;
    if wanted == 0 {
        return Ok(Bytes::new());
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(wanted).map_err(|_| Errno::NOMEM)?;
    while bytes.len() < wanted {
        let offset = range.start + bytes.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut bytes), offset) {
            // Objects are not changed. One that is shorter than it was is damaged.
            Ok(0) => return Err(Errno::IO),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    // The allocator may have given more than was asked for, and the file may be longer than the range.
    bytes.truncate(wanted);
    Ok(bytes.into())
}
