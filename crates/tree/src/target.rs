//! The directory that a tree is restored to. Everything below is reached from its descriptor and never through a
//! symbolic link, so that neither a stored name nor what stands there already can lead out of it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use karbor_vault::{BlockSource, BlockTarget};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::entry::{Content, Entry, Extent, Kind, Stamp};
use crate::restore::Overwrite;
use crate::walk::{Root, describe};
use crate::{Error, Result, TreeReport};

/// The directory, open.
#[derive(Debug)]
pub(crate) struct Target {
    root: Root,
    overwrite: Overwrite,
    owners: bool,
}

impl Target {
    /// Makes the directory if there is none; refuses one that is not empty unless that was allowed.
    pub(crate) fn create(path: &Path, overwrite: Overwrite, owners: bool) -> Result<Self> {
        let failed = |doing| move |source| Error::Path { doing, path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(failed("creating"))?;
        let mut inside = std::fs::read_dir(path).map_err(failed("listing"))?;
        if overwrite == Overwrite::Refuse && inside.next().is_some() {
            return Err(Error::TargetExists { path: path.to_owned() });
        }
        Ok(Self { root: Root::open(path)?, overwrite, owners })
    }

    /// Opens the directory to compare with it.
    pub(crate) fn open(path: &Path, owners: bool) -> Result<Self> {
        Ok(Self { root: Root::open(path)?, overwrite: Overwrite::Refuse, owners })
    }

    fn failed(&self, doing: &'static str, path: &[u8]) -> impl FnOnce(io::Error) -> Error {
        let path = self.root.full_path(path);
        move |source| Error::Path { doing, path, source }
    }

    /// Opens the directory that a name is in.
    fn parent<'a>(&self, path: &'a [u8]) -> io::Result<(OwnedFd, &'a OsStr)> {
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], path),
        };
        let fd = self.root.open_below(parent, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        Ok((fd, OsStr::from_bytes(name)))
    }

    /// Makes a directory, for now open to its owner only and writable.
    pub(crate) fn make_directory(&self, entry: &Entry) -> Result<()> {
        if entry.path.is_empty() {
            return Ok(());
        }
        let make = || -> io::Result<()> {
            let (parent, name) = self.parent(&entry.path)?;
            match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
                Err(Errno::EXIST) if self.overwrite == Overwrite::Replace => {
                    let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777) | Mode::RWXU;
                        return Ok(rustix::fs::chmodat(&parent, name, mode, AtFlags::empty())?);
                    }
                    rustix::fs::unlinkat(&parent, name, AtFlags::empty())?;
                    Ok(rustix::fs::mkdirat(&parent, name, Mode::RWXU)?)
                }
                other => Ok(other?),
            }
        };
        make().map_err(self.failed("creating", &entry.path))
    }

    /// Creates a file anew; one of the same name is unlinked first, so that its other names keep their bytes.
    fn create_file(&self, path: &[u8]) -> io::Result<File> {
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        match rustix::fs::openat(&parent, name, flags, mode) {
            Err(Errno::EXIST) if self.overwrite == Overwrite::Replace => {
                rustix::fs::unlinkat(&parent, name, AtFlags::empty())?;
                Ok(rustix::fs::openat(&parent, name, flags, mode)?.into())
            }
            other => Ok(other?.into()),
        }
    }

    /// Makes a file without bytes: empty, or one hole.
    pub(crate) fn make_empty_file(&self, entry: &Entry, report: &mut TreeReport) -> Result<()> {
        let Kind::File(content) = &entry.kind else { return Ok(()) };
        let file = self.create_file(&entry.path).map_err(self.failed("creating", &entry.path))?;
        file.set_len(content.size_bytes).map_err(self.failed("writing", &entry.path))?;
        self.finish_open(&file, entry, report);
        Ok(())
    }

    /// Makes what is neither directory nor first name of a file.
    pub(crate) fn make_rest(&self, entry: &Entry, report: &mut TreeReport) -> Result<()> {
        if matches!(entry.kind, Kind::Directory | Kind::File(_)) {
            return Ok(());
        }
        let make = || -> io::Result<bool> {
            let (parent, name) = self.parent(&entry.path)?;
            let once = || match &entry.kind {
                Kind::HardLink { target } => {
                    let (from, from_name) = self.parent(target).map_err(|_| Errno::NOENT)?;
                    rustix::fs::linkat(&from, from_name, &parent, name, AtFlags::empty())
                }
                Kind::Symlink { target } => rustix::fs::symlinkat(OsStr::from_bytes(target), &parent, name),
                Kind::Fifo => rustix::fs::mknodat(&parent, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0),
                Kind::Socket => {
                    rustix::fs::mknodat(&parent, name, FileType::Socket, Mode::RUSR | Mode::WUSR, 0)
                }
                Kind::CharDevice { device } => rustix::fs::mknodat(
                    &parent,
                    name,
                    FileType::CharacterDevice,
                    Mode::RUSR | Mode::WUSR,
                    *device,
                ),
                Kind::BlockDevice { device } => rustix::fs::mknodat(
                    &parent,
                    name,
                    FileType::BlockDevice,
                    Mode::RUSR | Mode::WUSR,
                    *device,
                ),
                Kind::Directory | Kind::File(_) => Ok(()),
            };
            match once() {
                Err(Errno::EXIST) if self.overwrite == Overwrite::Replace => {
                    rustix::fs::unlinkat(&parent, name, AtFlags::empty())?;
                    once()?;
                }
                // Device nodes need privilege; what they stood for is not lost with them.
                Err(Errno::PERM)
                    if matches!(entry.kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. }) =>
                {
                    return Ok(false);
                }
                other => other?,
            }
            Ok(true)
        };
        let made = match make() {
            // Its first name was not restored: not selected, or it vanished while it was protected.
            Err(err)
                if err.kind() == io::ErrorKind::NotFound && matches!(entry.kind, Kind::HardLink { .. }) =>
            {
                report.find(&entry.path, "the file that it is a further name of was not restored");
                return Ok(());
            }
            other => other.map_err(self.failed("creating", &entry.path))?,
        };
        if !made {
            report.find(&entry.path, "a device node can be restored by root only");
        } else if !matches!(entry.kind, Kind::HardLink { .. }) {
            self.finish_name(entry, report);
        }
        Ok(())
    }

    /// Sets owner, attributes, mode and times of an open file, in the order in which none undoes another.
    fn finish_open(&self, file: &File, entry: &Entry, report: &mut TreeReport) {
        let mut note =
            |what: &str, err: Errno| report.find(&entry.path, format!("its {what} could not be set: {err}"));
        if self.owners
            && let Err(err) =
                rustix::fs::fchown(file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
        {
            note("owner", err);
        }
        for (name, value) in &entry.xattrs {
            if let Err(err) = rustix::fs::fsetxattr(file, &name[..], value, XattrFlags::empty()) {
                note(&format!("attribute {}", String::from_utf8_lossy(name)), err);
            }
        }
        if let Err(err) = rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode)) {
            note("mode", err);
        }
        if let Err(err) = rustix::fs::futimens(file, &times(entry.modified)) {
            note("times", err);
        }
    }

    /// Sets the same of a name that cannot be opened (a link, a pipe).
    fn finish_name(&self, entry: &Entry, report: &mut TreeReport) {
        let (parent, name) = match self.parent(&entry.path) {
            Ok(parent) => parent,
            Err(err) => {
                return report.find(&entry.path, format!("its owner and times could not be set: {err}"));
            }
        };
        let mut note =
            |what: &str, err: Errno| report.find(&entry.path, format!("its {what} could not be set: {err}"));
        if self.owners {
            let (uid, gid) = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
            if let Err(err) = rustix::fs::chownat(&parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW) {
                note("owner", err);
            }
        }
        if !matches!(entry.kind, Kind::Symlink { .. })
            && let Err(err) =
                rustix::fs::chmodat(&parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
        {
            note("mode", err);
        }
        if let Err(err) =
            rustix::fs::utimensat(&parent, name, &times(entry.modified), AtFlags::SYMLINK_NOFOLLOW)
        {
            note("times", err);
        }
        let full = self.root.full_path(&entry.path);
        for (key, value) in &entry.xattrs {
            if let Err(err) = rustix::fs::lsetxattr(&full, &key[..], value, XattrFlags::empty()) {
                note(&format!("attribute {}", String::from_utf8_lossy(key)), err);
            }
        }
    }

    /// Gives a directory its owner, mode, attributes and times, once everything in it is there.
    pub(crate) fn finish_directory(&self, entry: &Entry, report: &mut TreeReport) {
        match self.root.open_below(&entry.path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
            Ok(fd) => self.finish_open(&fd.into(), entry, report),
            Err(err) => report.find(&entry.path, format!("its mode and times could not be set: {err}")),
        }
    }

    /// Makes everything durable that was written to the target's file system.
    pub(crate) fn sync(&self) -> Result<()> {
        let fd =
            self.root.open_below(b"", OFlags::RDONLY, Mode::empty()).map_err(self.failed("opening", b""))?;
        rustix::fs::syncfs(fd.as_fd()).map_err(|err| self.failed("syncing", b"")(err.into()))
    }

    /// Compares one name with what was stored of it, but for a file's bytes.
    pub(crate) fn compare(&self, entry: &Entry, report: &mut TreeReport) {
        let found = match self.look(&entry.path) {
            Ok(found) => found,
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                return report.find(&entry.path, "it is missing");
            }
            Err(err) => return report.find(&entry.path, format!("it cannot be looked at: {err}")),
        };
        let same_kind = match (&entry.kind, &found.kind) {
            (Kind::File(wanted), Kind::File(is)) => {
                if wanted.size_bytes != is.size_bytes {
                    report.find(
                        &entry.path,
                        format!("it has {} bytes instead of {}", is.size_bytes, wanted.size_bytes),
                    );
                }
                true
            }
            (Kind::HardLink { target }, Kind::File(_)) => {
                if self.look(target).ok().map(|first| first.inode) != Some(found.inode) {
                    let target = String::from_utf8_lossy(target);
                    report.find(&entry.path, format!("it is not the same file as {target}"));
                }
                true
            }
            (Kind::Symlink { target: wanted }, Kind::Symlink { target: is }) => wanted == is,
            (wanted, is) => std::mem::discriminant(wanted) == std::mem::discriminant(is),
        };
        if !same_kind {
            return report.find(&entry.path, "it is something else");
        }
        let is_link = matches!(entry.kind, Kind::Symlink { .. });
        if !is_link && entry.mode != found.mode {
            report.find(&entry.path, format!("its mode is {:o} instead of {:o}", found.mode, entry.mode));
        }
        if self.owners && (entry.uid, entry.gid) != (found.uid, found.gid) {
            let (is, wanted) =
                (format!("{}:{}", found.uid, found.gid), format!("{}:{}", entry.uid, entry.gid));
            report.find(&entry.path, format!("its owner is {is} instead of {wanted}"));
        }
        if entry.modified != found.modified {
            report.find(&entry.path, "its modification time differs");
        }
        if entry.xattrs != found.xattrs {
            report.find(&entry.path, "its extended attributes differ");
        }
    }

    fn look(&self, path: &[u8]) -> io::Result<Entry> {
        let stat = if path.is_empty() {
            rustix::fs::fstat(self.root.open_below(b"", OFlags::RDONLY, Mode::empty())?)?
        } else {
            let (parent, name) = self.parent(path)?;
            rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?
        };
        let target = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                let (parent, name) = self.parent(path)?;
                Some(rustix::fs::readlinkat(&parent, name, Vec::new())?.into_bytes())
            }
            _ => None,
        };
        describe(&self.root, path.to_vec(), &stat, target).map(|(entry, _)| entry).map_err(io::Error::other)
    }
}

fn times(modified: Stamp) -> Timestamps {
    let stamp = Timespec { tv_sec: modified.seconds, tv_nsec: modified.nanos.into() };
    Timestamps { last_access: stamp, last_modification: stamp }
}

/// The files of a batch that have bytes, ordered by their place in the `data` stream.
#[derive(Debug)]
pub(crate) struct FileSet {
    files: Vec<(Entry, Content)>,
}

impl FileSet {
    pub(crate) fn new(batch: &[Entry]) -> Self {
        let with_bytes = |entry: &Entry| match &entry.kind {
            Kind::File(content) if content.data_bytes() > 0 => Some((entry.clone(), content.clone())),
            _ => None,
        };
        let mut files: Vec<(Entry, Content)> = batch.iter().filter_map(with_bytes).collect();
        files.sort_by_key(|(_, content)| content.offset);
        Self { files }
    }

    /// Returns the part of the stream that holds the batch's bytes.
    pub(crate) fn range(&self) -> Option<Range<u64>> {
        let (first, last) = (self.files.first()?, self.files.last()?);
        Some(first.1.offset..last.1.offset + last.1.data_bytes())
    }

    /// Checks that no two files claim the same bytes and none is longer than it says.
    pub(crate) fn prepare(&self) -> Result<()> {
        let mut at = 0;
        for (entry, content) in &self.files {
            let end = content.offset.checked_add(content.data_bytes());
            let inside = content.data().iter().all(|extent| {
                extent.offset.checked_add(extent.length).is_some_and(|end| end <= content.size_bytes)
            });
            let (true, Some(end), true) = (content.offset >= at, end, inside) else {
                let path = String::from_utf8_lossy(&entry.path);
                return Err(Error::malformed(format!("the place of `{path}` is impossible")));
            };
            at = end;
        }
        Ok(())
    }

    /// Calls `each` for every part of a file that lies in a range of the stream: index, place in the file, and the
    /// part of the range.
    fn parts(
        &self,
        range: &Range<u64>,
        mut each: impl FnMut(usize, u64, Range<u64>) -> io::Result<()>,
    ) -> io::Result<()> {
        let first =
            self.files.partition_point(|(_, content)| content.offset + content.data_bytes() <= range.start);
        for (index, (_, content)) in self.files.iter().enumerate().skip(first) {
            let mut at = content.offset;
            if at >= range.end {
                break;
            }
            for Extent { offset, length } in content.data() {
                let (begin, end) = (range.start.max(at), range.end.min(at + length));
                if begin < end {
                    each(index, offset + (begin - at), begin..end)?;
                }
                at += length;
            }
        }
        Ok(())
    }

    /// Adds a finding for each file that has bytes in the range.
    pub(crate) fn name_touched(&self, range: &Range<u64>, problem: &str, report: &mut TreeReport) {
        let mut named = HashSet::new();
        let _ = self.parts(range, |index, _, _| {
            if named.insert(index) {
                report.find(&self.files[index].0.path, problem);
            }
            Ok(())
        });
    }
}

/// Writes ranges of the `data` stream to where they belong.
pub(crate) struct Place {
    target: Arc<Target>,
    files: Arc<FileSet>,
    /// How many bytes of each file are still to come; a file is finished by who brings its last.
    missing: Vec<AtomicU64>,
    /// Files of which a part has come.
    open: Mutex<std::collections::HashMap<usize, Arc<File>>>,
    findings: Mutex<TreeReport>,
}

impl Place {
    pub(crate) fn new(target: Arc<Target>, files: Arc<FileSet>) -> Self {
        let missing = files.files.iter().map(|(_, content)| AtomicU64::new(content.data_bytes())).collect();
        Self { target, files, missing, open: Mutex::default(), findings: Mutex::default() }
    }

    fn file(&self, index: usize) -> io::Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&index) {
            return Ok(Arc::clone(file));
        }
        let (entry, content) = &self.files.files[index];
        let file = self.target.create_file(&entry.path).map_err(|err| self.name_error(index, &err))?;
        if !content.extents.is_empty() {
            file.set_len(content.size_bytes)?;
        }
        let file = Arc::new(file);
        open.insert(index, Arc::clone(&file));
        Ok(file)
    }

    fn name_error(&self, index: usize, err: &io::Error) -> io::Error {
        let path: PathBuf = self.target.root.full_path(&self.files.files[index].0.path);
        io::Error::new(err.kind(), format!("{}: {err}", path.display()))
    }

    fn finish_file(&self, index: usize, file: &File) {
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        self.target.finish_open(file, &self.files.files[index].0, &mut findings);
    }

    /// Finishes files of which a part was damaged and never came, and returns what was met on the way.
    pub(crate) fn finish(&self) -> Result<TreeReport> {
        for (index, missing) in self.missing.iter().enumerate() {
            if missing.load(Ordering::Acquire) > 0 {
                let (entry, content) = &self.files.files[index];
                let made = self.file(index).and_then(|file| file.set_len(content.size_bytes).map(|()| file));
                let file = made.map_err(self.target.failed("writing", &entry.path))?;
                self.finish_file(index, &file);
            }
        }
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(std::mem::take(&mut *self.findings.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl BlockTarget for Place {
    fn set_size(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let range = offset..offset + data.len() as u64;
        self.files.parts(&range, |index, place, part| {
            let all = part.end - part.start == self.files.files[index].1.data_bytes();
            // A file that comes whole is nobody else's business: it need not be kept open for others.
            let file = if all {
                let file = self.target.create_file(&self.files.files[index].0.path);
                let file = file.map_err(|err| self.name_error(index, &err))?;
                let content = &self.files.files[index].1;
                if !content.extents.is_empty() {
                    file.set_len(content.size_bytes)?;
                }
                Arc::new(file)
            } else {
                self.file(index)?
            };
            let begin = usize::try_from(part.start - offset).map_err(io::Error::other)?;
            let end = usize::try_from(part.end - offset).map_err(io::Error::other)?;
            file.write_all_at(&data[begin..end], place).map_err(|err| self.name_error(index, &err))?;
            let count = part.end - part.start;
            if self.missing[index].fetch_sub(count, Ordering::AcqRel) == count {
                self.finish_file(index, &file);
                if !all {
                    self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&index);
                }
            }
            Ok(())
        })
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        // The stream has no holes of its own, but runs of zeros in files are stored as such.
        let zeros = vec![0_u8; 1 << 20];
        let mut at = range.start;
        while at < range.end {
            let count = (range.end - at).min(zeros.len() as u64);
            self.write_at(at, &zeros[..usize::try_from(count).map_err(io::Error::other)?])?;
            at += count;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn name(&self) -> String {
        self.target.root.full_path(b"").display().to_string()
    }
}

/// Reads ranges of the `data` stream back from the files that they belong to.
pub(crate) struct FileSetSource {
    target: Arc<Target>,
    files: Arc<FileSet>,
}

impl FileSetSource {
    pub(crate) fn new(target: Arc<Target>, files: Arc<FileSet>) -> Self {
        Self { target, files }
    }
}

impl BlockSource for FileSetSource {
    fn size_bytes(&self) -> u64 {
        self.files.range().map_or(0, |range| range.end)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let range = offset..offset + buf.len() as u64;
        buf.fill(0);
        self.files.parts(&range, |index, place, part| {
            let begin = usize::try_from(part.start - offset).map_err(io::Error::other)?;
            let end = usize::try_from(part.end - offset).map_err(io::Error::other)?;
            // A file that is missing or short differs; it is not a reason to stop.
            let Ok(file) = self.target.root.open_file(&self.files.files[index].0.path) else { return Ok(()) };
            let mut done = begin;
            while done < end {
                match file.read_at(&mut buf[done..end], place + (done - begin) as u64) {
                    Ok(0) => break,
                    Ok(count) => done += count,
                    Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                    Err(err) => return Err(err),
                }
            }
            Ok(())
        })
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let end = self.size_bytes();
        Ok((offset < end).then_some(offset..end))
    }
}
