//! Paths that the inventory names, and places to which something may be restored.
//!
//! Invariant: a place is a descriptor of a directory and a name in it. From the descriptor on, nobody can lead us
//! elsewhere by renaming or by putting a symbolic link into the path: the descriptor is opened below an allowed
//! root without following any, and all later work goes through it (`/proc/self/fd/…`).

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use karbor_plugin::{Error, ErrorKind, PlannedAction, PlannedEffect, Result, Task};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use serde_json::{Value, json};

use crate::inventory::{Instance, Inventory, normal_path};

/// Opens what the inventory names, for reading. Symbolic links are followed below `/dev` only: elsewhere whoever may
/// write to a directory on the way could lead us to what is another's.
pub(crate) fn open_source(path: &Path, flags: OFlags) -> Result<File> {
    let resolve = match path.starts_with("/dev") {
        true => ResolveFlags::empty(),
        false => ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    };
    // NONBLOCK: opening a pipe must not wait for somebody at its other end.
    let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    match rustix::fs::openat2(CWD, path, flags, Mode::empty(), resolve) {
        Ok(fd) => Ok(fd.into()),
        Err(rustix::io::Errno::LOOP) => Err(through_link(path)),
        Err(rustix::io::Errno::NOENT) => {
            let text =
                format!("{} does not exist; put it back, or correct the host's inventory", path.display());
            Err(Error::new(ErrorKind::NotFound, text))
        }
        Err(err) => Err(Error::io(format!("opening {}", path.display()), err.into())),
    }
}

fn through_link(path: &Path) -> Error {
    let text = format!(
        "{} leads through a symbolic link, which is not followed; write the real path into the inventory",
        path.display()
    );
    Error::new(ErrorKind::Invalid, text)
}

/// Returns a path that means what is open, whatever is renamed meanwhile.
pub(crate) fn descriptor_path(file: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A name in a directory that is held open.
#[derive(Debug)]
pub(crate) struct Place {
    directory: File,
    root: PathBuf,
    below: PathBuf,
    name: OsString,
}

impl Place {
    /// Opens the directory of `root/below/name`, nowhere through a symbolic link.
    fn open(root: &Path, below: &Path, name: &OsStr) -> Result<Self> {
        let shown = root.join(below);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let top = open_source(root, flags)?;
        let held = |directory| Self {
            directory,
            root: root.to_owned(),
            below: below.to_owned(),
            name: name.to_owned(),
        };
        if below.as_os_str().is_empty() {
            return Ok(held(top));
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&top, below, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Ok(fd) => Ok(held(fd.into())),
            Err(rustix::io::Errno::LOOP) => Err(through_link(&shown)),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
                let text = format!(
                    "the directory {} does not exist; make it, or restore elsewhere",
                    shown.display()
                );
                Err(Error::new(ErrorKind::NotFound, text))
            }
            Err(err) => Err(Error::io(format!("opening the directory {}", shown.display()), err.into())),
        }
    }

    /// Returns the path as people know it.
    pub(crate) fn shown(&self) -> PathBuf {
        self.root.join(&self.below).join(&self.name)
    }

    /// Returns the path by which it is reached, through the open directory.
    pub(crate) fn path(&self) -> PathBuf {
        self.sibling(&self.name)
    }

    /// Returns the path of another name in the same directory.
    pub(crate) fn sibling(&self, name: &OsStr) -> PathBuf {
        descriptor_path(&self.directory).join(name)
    }

    /// Returns the directory.
    pub(crate) fn directory(&self) -> &File {
        &self.directory
    }

    /// Returns the name.
    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    /// Returns what stands there, not following a symbolic link.
    pub(crate) fn existing(&self) -> Result<Existing> {
        let failed = |err| Error::io(format!("looking at {}", self.shown().display()), err);
        let meta = match std::fs::symlink_metadata(self.path()) {
            Ok(meta) => meta,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Existing::Nothing),
            Err(err) => return Err(failed(err)),
        };
        if meta.is_dir() {
            let empty = std::fs::read_dir(self.path()).map_err(failed)?.next().is_none();
            return Ok(if empty { Existing::EmptyDirectory } else { Existing::Directory });
        }
        Ok(Existing::of(&meta))
    }

    /// Returns the place as data, for a ledger.
    pub(crate) fn to_json(&self, name: &OsStr) -> Value {
        let text = |part: &OsStr| part.to_string_lossy().into_owned();
        json!({"root": text(self.root.as_os_str()), "below": text(self.below.as_os_str()), "name": text(name)})
    }

    /// Opens a place again; nothing when its directory is gone.
    pub(crate) fn from_json(data: &Value) -> Result<Option<Self>> {
        let part = |name: &str| {
            data.get(name).and_then(Value::as_str).ok_or_else(|| {
                Error::new(ErrorKind::Damaged, format!("a ledger entry of a restore lacks its `{name}`"))
            })
        };
        match Self::open(Path::new(part("root")?), Path::new(part("below")?), OsStr::new(part("name")?)) {
            Ok(place) => Ok(Some(place)),
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err),
        }
    }
}

/// What stands at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    Nothing,
    EmptyDirectory,
    Directory,
    File,
    BlockDevice,
    Other,
}

impl Existing {
    fn of(meta: &Metadata) -> Self {
        let kind = meta.file_type();
        if kind.is_file() {
            Self::File
        } else if kind.is_block_device() {
            Self::BlockDevice
        } else {
            Self::Other
        }
    }

    /// Returns what it is, for people.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::EmptyDirectory => "an empty directory",
            Self::Directory => "a directory that is not empty",
            Self::File => "a file",
            Self::BlockDevice => "a block device",
            Self::Other => "a symbolic link or a special file",
        }
    }
}

/// Where a restore was asked to go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) in_place: bool,
    pub(crate) path: Option<&'a str>,
    pub(crate) overwrite: bool,
}

/// Where a restore goes.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) place: Place,
    pub(crate) in_place: bool,
    pub(crate) overwrite: bool,
    pub(crate) existing: Existing,
}

impl Target {
    /// Chooses the place for a restore, as the parameters say and the inventory allows.
    pub(crate) fn choose(
        task: &Task,
        inventory: &Inventory,
        instance: Option<&Instance>,
        original: &Path,
        wanted: Wanted<'_>,
    ) -> Result<Self> {
        let own = instance.and_then(Instance::files);
        if wanted.in_place {
            if wanted.path.is_some() {
                return Err(invalid("give in_place or path, not both"));
            }
            let Some(files) = own else {
                return Err(invalid(
                    "it cannot be restored in place, because it is no longer in the host's inventory; \
                     give a path below one of your project's restore roots",
                ));
            };
            let device = files.path.starts_with("/dev").then(|| std::fs::canonicalize(&files.path).ok());
            let path = device.flatten().unwrap_or_else(|| files.path.clone());
            let (parent, name) = split(&path)?;
            return Self::at(Place::open(parent, Path::new(""), name)?, wanted);
        }
        let roots: Vec<&Path> = own
            .map(|files| files.restore_roots.as_slice())
            .unwrap_or_default()
            .iter()
            .chain(inventory.restore_roots(&task.context.project))
            .map(PathBuf::as_path)
            .collect();
        let may_be_sibling = own.is_some_and(|files| files.restore_roots.is_empty());
        let path = match wanted.path {
            Some(text) => normal_path(text)
                .ok_or_else(|| invalid(&format!("`{text}` is not an absolute path without `..`")))?,
            None => default_path(task, original, if may_be_sibling { None } else { roots.first().copied() })?,
        };
        refuse_overlap(&path, inventory, task)?;
        let (parent, name) = split(&path)?;
        if let Some(root) = roots.iter().find(|root| path.starts_with(root) && path != **root) {
            let below = parent.strip_prefix(root).unwrap_or(Path::new(""));
            return Self::at(Place::open(root, below, name)?, wanted);
        }
        if may_be_sibling && is_sibling(original, &path) {
            return Self::at(Place::open(parent, Path::new(""), name)?, wanted);
        }
        let mut allowed: Vec<String> = roots.iter().map(|root| format!("below {}", root.display())).collect();
        if may_be_sibling {
            allowed.push(format!("beside the original as {}.<anything>", original.display()));
        }
        let allowed = if allowed.is_empty() { "nowhere".to_owned() } else { allowed.join(", or ") };
        let text =
            format!("{} is not a place to which this may be restored; allowed is: {allowed}", path.display());
        Err(Error::new(ErrorKind::Denied, text))
    }

    fn at(place: Place, wanted: Wanted<'_>) -> Result<Self> {
        let existing = place.existing()?;
        Ok(Self { place, in_place: wanted.in_place, overwrite: wanted.overwrite, existing })
    }

    /// Refuses what is there, unless it may be replaced. `replaceable` are the kinds that can be at all.
    pub(crate) fn check_existing(&self, replaceable: &[Existing]) -> Result<()> {
        if self.existing == Existing::Nothing {
            return Ok(());
        }
        let shown = self.place.shown();
        let what = format!("{} is {} already", shown.display(), self.existing.describe());
        if !replaceable.contains(&self.existing) {
            let text = format!("{what}, which is never replaced; remove it, or restore elsewhere with path");
            return Err(Error::new(ErrorKind::Conflict, text));
        }
        // An empty directory holds nothing that could be lost.
        if self.overwrite || self.existing == Existing::EmptyDirectory {
            return Ok(());
        }
        let text = format!("{what}; restore with overwrite to replace it, or elsewhere with path");
        Err(Error::new(ErrorKind::Conflict, text))
    }

    /// Says what a dry run found: the target, how much is to be written, and what stands against it.
    pub(crate) fn plan(&self, size_bytes: Option<u64>, problem: Option<Error>) -> PlannedAction {
        let problem = problem.map(|err| err.message().to_owned()).or_else(|| self.lack_of_space(size_bytes));
        let effect = match self.existing {
            Existing::Nothing | Existing::EmptyDirectory => PlannedEffect::Create,
            _ => PlannedEffect::Overwrite,
        };
        let subject = self.place.shown().to_string_lossy().into_owned();
        let details = json!({"in_place": self.in_place, "size_bytes": size_bytes});
        PlannedAction { effect, subject, details, problem, needs: Vec::new() }
    }

    fn lack_of_space(&self, size_bytes: Option<u64>) -> Option<String> {
        let wanted = size_bytes.filter(|_| self.existing != Existing::BlockDevice)?;
        let stat = rustix::fs::fstatvfs(self.place.directory()).ok()?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        (wanted > free).then(|| {
            format!("it needs {wanted} bytes, and the file system has {free} bytes free; free some space")
        })
    }
}

/// Returns the directory and the name of a path.
fn split(path: &Path) -> Result<(&Path, &OsStr)> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(invalid(&format!("{} has no name", path.display()))),
    }
}

/// Returns where something goes when nobody said: a name that only this operation can give.
fn default_path(task: &Task, original: &Path, root: Option<&Path>) -> Result<PathBuf> {
    let (parent, name) = split(original)?;
    let mut name = name.to_owned();
    let operation = task.operation_id.0.simple().to_string();
    name.push(format!(".restored-{}", &operation[operation.len() - 8..]));
    Ok(root.unwrap_or(parent).join(name))
}

/// Returns whether `path` stands in the original's directory under a name that begins with the original's.
fn is_sibling(original: &Path, path: &Path) -> bool {
    if path.parent() != original.parent() {
        return false;
    }
    let (Some(original), Some(name)) = (original.file_name(), path.file_name()) else { return false };
    let rest = name.as_encoded_bytes().strip_prefix(original.as_encoded_bytes());
    rest.is_some_and(|rest| rest.len() > 1 && matches!(rest[0], b'.' | b'-' | b'_'))
}

/// Refuses a place that is in, or holds, what the inventory says is an instance's.
fn refuse_overlap(path: &Path, inventory: &Inventory, task: &Task) -> Result<()> {
    for instance in inventory.all() {
        let Some(files) = instance.files() else { continue };
        if path.starts_with(&files.path) || files.path.starts_with(path) {
            // Another project's names are not told.
            let whose = match instance.project == task.context.project {
                true => format!("the place of `{}`; restore that one with in_place", instance.name),
                false => "kept for something else".to_owned(),
            };
            let text = format!("{} is not free: it is {whose}, or choose another path", path.display());
            return Err(Error::new(ErrorKind::Denied, text));
        }
    }
    Ok(())
}

fn invalid(text: &str) -> Error {
    Error::new(ErrorKind::Invalid, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_have_the_originals_name_in_front() {
        let original = Path::new("/srv/www");
        for (path, want) in [
            ("/srv/www.restored", true),
            ("/srv/www-2", true),
            ("/srv/www_old", true),
            ("/srv/www.", false),
            ("/srv/www2", false),
            ("/srv/other", false),
            ("/srv/www/x", false),
            ("/srv/sub/www.restored", false),
            ("/srv/www", false),
        ] {
            assert_eq!(is_sibling(original, Path::new(path)), want, "{path}");
        }
    }
}
