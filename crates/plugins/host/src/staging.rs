//! Restoring under a hidden name first, and giving it its real one when it is whole.
//!
//! Invariant: under the target's name stands what stood there before, or the whole restored thing, never a part of
//! it. Both names stand in the ledger before they are used, the final one together with the identity (inode and time
//! of birth) of what is to get it. Run again after a crash: what stands under its name and has that identity was
//! given its name already; anything else is begun anew, under a hidden name of its own, since a worker that lost its
//! operation without knowing it yet may still write to the one before. Nothing else is ever removed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use karbor_plugin::{Error, ErrorKind, Intent, LedgerEntry, LedgerId, LedgerState, Purpose, Result, Task};
use rustix::fs::RenameFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::warn;
use uuid::Uuid;

use crate::place::{Existing, Place, Target};

/// The kind of the ledger's entry for what is not whole yet.
pub(crate) const SCRATCH: &str = "scratch";
/// The kind of the ledger's entry for what is.
pub(crate) const RESTORED: &str = "restored";

/// The ending of all hidden names, by which a removal makes sure of what it removes.
const MARK: &str = ".karbor-";

/// Returns a word that belongs to this operation, resource and attempt alone, and removes what earlier attempts
/// left, as well as that can be done. `kind` is what the ledger calls such things.
pub(crate) async fn fresh_tag<F: Future<Output = Result<()>>>(
    task: &Task,
    kind: &str,
    remove: impl Fn(LedgerEntry) -> F,
) -> Result<String> {
    let entries = task.ledger.entries().await?;
    let earlier: Vec<LedgerEntry> = entries.into_iter().filter(|entry| entry.kind == kind).collect();
    let number = earlier.len();
    for entry in earlier.into_iter().filter(LedgerEntry::is_open) {
        let (id, reference) = (entry.id, entry.reference.clone());
        match remove(entry).await {
            Ok(()) => task.ledger.removed(id).await?,
            // The entry stays open: the operation's end tries again.
            Err(err) => warn!(error = %err, "Cannot remove {reference} yet: {err}"),
        }
    }
    let base = Uuid::new_v5(&task.operation_id.0, task.resource.key.to_string().as_bytes()).simple();
    Ok(format!("{base}-{number}"))
}

/// Something that is being restored under its hidden name.
#[derive(Debug)]
pub(crate) struct Staging<'a> {
    task: &'a Task,
    target: &'a Target,
    scratch: OsString,
    entry: LedgerId,
}

impl<'a> Staging<'a> {
    /// Begins, and removes what an earlier attempt left.
    pub(crate) async fn begin(task: &'a Task, target: &'a Target) -> Result<Self> {
        let tag = fresh_tag(task, SCRATCH, async |entry| clean_up(&entry).await).await?;
        let scratch = hidden_name(&tag, &target.place);
        let intent = Intent {
            kind: SCRATCH.to_owned(),
            reference: target.place.sibling_shown(&scratch),
            purpose: Purpose::Scaffold,
            data: target.place.to_json(&scratch),
        };
        let entry = task.ledger.intend(intent).await?;
        Ok(Self { task, target, scratch, entry })
    }

    /// Returns where to write.
    pub(crate) fn path(&self) -> PathBuf {
        self.target.place.sibling(&self.scratch)
    }

    /// Gives the restored thing its name. What stood there, if it may be replaced, is gone afterwards.
    pub(crate) async fn publish(self) -> Result<()> {
        let Self { task, target, scratch, entry } = self;
        let place = &target.place;
        let shown = place.shown();
        let reference = shown.to_string_lossy().into_owned();
        let replaces = !matches!(target.existing, Existing::Nothing | Existing::EmptyDirectory);
        let mut data = place.to_json(place.name());
        data["replaced"] = Value::Bool(replaces);
        let identity = Identity::of(&place.sibling(&scratch));
        let identity =
            identity.map_err(|err| Error::io(format!("looking at what is restored to {shown:?}"), err))?;
        data["identity"] = json!(identity);
        let intent = Intent {
            kind: RESTORED.to_owned(),
            reference: reference.clone(),
            purpose: Purpose::Product,
            data,
        };
        let product = task.ledger.intend(intent).await?;

        let directory = place.directory();
        let rename = |flags| rustix::fs::renameat_with(directory, &scratch, directory, place.name(), flags);
        let renamed = match target.existing {
            // Atomic, and an empty directory is replaced by a directory just so.
            Existing::Directory => rename(RenameFlags::EXCHANGE),
            Existing::EmptyDirectory | Existing::File => rename(RenameFlags::empty()),
            Existing::Nothing => match rename(RenameFlags::NOREPLACE) {
                // A file system that does not know the flag: a directory still replaces nothing but an empty one,
                // and a file gets a second name, which must be free.
                Err(Errno::INVAL) => give_name(directory, &scratch, place.name()),
                other => other,
            },
            Existing::BlockDevice | Existing::Other => Err(Errno::INVAL),
        };
        renamed.map_err(|errno| publish_error(errno, &shown))?;
        let directory = directory.try_clone().map_err(|err| Error::io("holding the directory open", err))?;
        blocking(move || directory.sync_all())
            .await?
            .map_err(|err| Error::io(format!("making the new name {} durable", shown.display()), err))?;
        task.ledger.created(product, &reference).await?;
        // After an exchange the hidden name has what was replaced.
        remove(place.sibling(&scratch), place.sibling_shown(&scratch)).await?;
        task.ledger.removed(entry).await
    }

    /// Gives up, and returns the error for which that is done.
    pub(crate) async fn discard(self, because: Error) -> Error {
        let shown = self.target.place.sibling_shown(&self.scratch);
        match remove(self.path(), shown.clone()).await {
            Ok(()) => {
                if let Err(err) = self.task.ledger.removed(self.entry).await {
                    warn!(error = %err, "The ledger still has {shown}, which is gone: {err}");
                }
            }
            // The entry stays open: the operation's end tries again.
            Err(err) => warn!(error = %err, "Cannot remove {shown} yet: {err}"),
        }
        because
    }
}

impl Place {
    fn sibling_shown(&self, name: &OsString) -> String {
        self.shown().with_file_name(name).to_string_lossy().into_owned()
    }
}

/// Returns whether an earlier attempt of this operation gave the restored thing its name already.
pub(crate) async fn is_published(task: &Task, target: &Target) -> Result<bool> {
    let reference = target.place.shown().to_string_lossy().into_owned();
    let entries = task.ledger.entries().await?;
    let Some(entry) = entries.iter().find(|entry| entry.kind == RESTORED && entry.reference == reference)
    else {
        return Ok(false);
    };
    Ok(entry.is_open() && is_ours(entry, &target.place.path())?)
}

/// What tells a file or directory from any other of its file system, also under another name.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    inode: u64,
    /// Since the epoch, in nanoseconds; file systems that do not keep it have none.
    born: Option<u64>,
}

impl Identity {
    fn of(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::symlink_metadata(path) {
            Ok(meta) => {
                let born = meta.created().ok().and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
                let born = born.and_then(|age| u64::try_from(age.as_nanos()).ok());
                Ok(Some(Self { inode: meta.ino(), born }))
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err),
        }
    }
}

/// Returns whether what stands at the path is what the ledger's entry of its name tells of.
fn is_ours(entry: &LedgerEntry, path: &Path) -> Result<bool> {
    let there =
        Identity::of(path).map_err(|err| Error::io(format!("looking at {}", entry.reference), err))?;
    let told = entry.data.get("identity").map(Identity::deserialize).transpose().map_err(|err| {
        Error::new(ErrorKind::Damaged, "a ledger entry of a restore cannot be read").with_source(err)
    })?;
    Ok(there.is_some() && there == told)
}

/// Tells the ledger that everything is done, when an earlier attempt did it without being able to tell.
pub(crate) async fn settle(task: &Task) -> Result<()> {
    for entry in task.ledger.entries().await? {
        if entry.kind == RESTORED && entry.state == LedgerState::Intended {
            task.ledger.created(entry.id, &entry.reference).await?;
        }
        if entry.kind == SCRATCH && entry.is_open() {
            clean_up(&entry).await?;
            task.ledger.removed(entry.id).await?;
        }
    }
    Ok(())
}

/// Removes what an entry of this module tells of.
pub(crate) async fn clean_up(entry: &LedgerEntry) -> Result<()> {
    if entry.data.get("replaced") == Some(&Value::Bool(true)) {
        let text = format!("{} replaced what was there, which cannot be brought back", entry.reference);
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    let Some(place) = Place::from_json(&entry.data)? else { return Ok(()) };
    if entry.kind == SCRATCH && !place.name().to_string_lossy().contains(MARK) {
        let text = format!("{} is not a name that this plugin gives; it is left alone", entry.reference);
        return Err(Error::new(ErrorKind::Other, text));
    }
    if entry.kind == RESTORED && !is_ours(entry, &place.path())? {
        // It never got its name, or somebody has put something else there.
        return Ok(());
    }
    remove(place.path(), entry.reference.clone()).await
}

/// Returns the name for what is not whole yet: hidden, recognizable, and not too long for any file system.
fn hidden_name(tag: &str, place: &Place) -> OsString {
    let name = place.name().to_string_lossy();
    let short: String = name.chars().take(48).collect();
    OsString::from(format!(".{short}{MARK}{tag}"))
}

fn give_name(directory: &std::fs::File, from: &OsString, to: &OsStr) -> rustix::io::Result<()> {
    use rustix::fs::AtFlags;
    match rustix::fs::linkat(directory, from, directory, to, AtFlags::empty()) {
        Ok(()) => rustix::fs::unlinkat(directory, from, AtFlags::empty()),
        // Directories have no second names.
        Err(Errno::PERM) => rustix::fs::renameat(directory, from, directory, to),
        Err(err) => Err(err),
    }
}

fn publish_error(errno: Errno, shown: &Path) -> Error {
    let shown = shown.display();
    match errno {
        Errno::EXIST | Errno::NOTEMPTY | Errno::ISDIR | Errno::NOTDIR => Error::new(
            ErrorKind::Conflict,
            format!(
                "something appeared at {shown} while it was restored, and was left as it is; restore again"
            ),
        ),
        Errno::BUSY => Error::new(
            ErrorKind::Conflict,
            format!(
                "{shown} is a mount point and cannot be replaced; restore into it with merge, or elsewhere with path"
            ),
        ),
        Errno::INVAL => Error::new(
            ErrorKind::Unsupported,
            format!(
                "the file system of {shown} cannot exchange two directories; restore elsewhere with path"
            ),
        ),
        other => Error::io(format!("giving the restored data its name {shown}"), other.into()),
    }
}

/// How often a directory is removed into which an attempt that was dropped still writes, and the pause between.
const REMOVALS: u32 = 25;
const REMOVAL_PAUSE: Duration = Duration::from_millis(20);

/// Removes a file or a whole directory; one that is not there is removed.
async fn remove(path: PathBuf, shown: String) -> Result<()> {
    let removed = blocking(move || {
        let meta = std::fs::symlink_metadata(&path)?;
        if !meta.is_dir() {
            return std::fs::remove_file(&path);
        }
        let mut attempt = 1;
        loop {
            match std::fs::remove_dir_all(&path) {
                Err(err) if err.kind() == io::ErrorKind::DirectoryNotEmpty && attempt < REMOVALS => {
                    attempt += 1;
                    std::thread::sleep(REMOVAL_PAUSE);
                }
                done => return done,
            }
        }
    });
    match removed.await? {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|err| Error::io(format!("removing {shown}"), err)),
    }
}

/// Runs what may take long on a thread for such work.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|err| Error::new(ErrorKind::Other, "the work ended abnormally").with_source(err))
}
