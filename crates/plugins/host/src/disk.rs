//! `Host::Disk`: an image file or a block device, byte for byte.
//!
//! A qcow2 file is stored as the bytes that it is, not as the disk that it describes: that needs no tool that parses
//! what a guest wrote, keeps its snapshots, and comes back as the same file. It is whole only alone, so one with a
//! backing file or an external data file is refused, and so is one that its last user did not close.
//!
//! A file that changes while it is read is an error of the kind that is tried again. A device does not tell that it
//! changes; one that is in use is refused, because what is read of it need not be any state that ever was. Both can be
//! allowed, and are then named in a warning.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use karbor_plugin::{
    Error, ErrorKind, Finding, Intent, LedgerEntry, Outcome, Purpose, Result, Schemas, Severity, Task,
};
use karbor_vault::{BlockOptions, BlockSource, FileTarget};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Kind;
use crate::directory::{read_all, salvage};
use crate::driver::{self, Driver, RECORD_FORMAT, announce, parameters, record};
use crate::image::{self, Access, STREAM};
use crate::inventory::{Instance, Inventory};
use crate::place::{Existing, Target, Wanted, descriptor_path, open_source};
use crate::source::NamedSource;
use crate::staging;

/// The record's name.
const RECORD: &str = "disk";

/// Protects image files and block devices.
#[derive(Debug)]
pub(crate) struct DiskDriver;

/// Options of protect.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    allow_changes: bool,
}

/// Parameters of restore.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RestoreParameters {
    in_place: bool,
    path: Option<String>,
    overwrite: bool,
    salvage: bool,
}

/// Parameters of verify.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct VerifyParameters {
    deep: bool,
}

/// What kind of disk it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Form {
    /// A file whose bytes are the disk's.
    Raw,
    /// A file in QEMU's format.
    Qcow2,
    /// A block device.
    Device,
}

/// What is remembered of a protected disk.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    format: u32,
    path: String,
    form: Form,
    size_bytes: u64,
    /// What the file occupied, without its holes.
    allocated_bytes: u64,
    access: Access,
}

#[async_trait]
impl Driver for DiskDriver {
    fn schemas(&self) -> Schemas {
        let options = json!({
            "allow_changes": {
                "type": "boolean", "default": false, "title": "Allow changes",
                "description": "Also store a disk that is in use or changes while it is read. \
                    What is restored may then be no state that the disk ever had.",
            },
        });
        let mut restore = driver::path_parameters();
        restore["salvage"] = salvage();
        let saved = json!({
            "path": {"type": "string", "title": "Path"},
            "form": {"type": "string", "title": "Form", "enum": ["raw", "qcow2", "device"]},
            "size_bytes": {"type": "integer", "title": "Size in bytes"},
            "allocated_bytes": {"type": "integer", "title": "Bytes in use"},
            "access": {"type": "object", "title": "Owner and mode"},
        });
        Schemas {
            options: driver::schema("Options of a disk", options),
            restore: driver::schema("Restoring a disk", restore),
            verify: driver::verify_schema("Verifying a disk", "Read every byte."),
            saved_info: driver::saved_info("A protected disk", RECORD, saved),
        }
    }

    async fn protect(&self, task: &Task, instance: &Instance) -> Result<Outcome> {
        let options: Options = parameters(task)?;
        let Some(files) = instance.files() else {
            return Err(Error::new(ErrorKind::Other, format!("`{}` has no path", instance.name)));
        };
        let shown = files.path.display().to_string();
        match self.store(task, &files.path, &shown, options.allow_changes).await {
            Err(err) if err.kind() == ErrorKind::Changed => {
                let text = format!(
                    "{}; stop what writes to it with commands before and after in the inventory, \
                     or protect with allow_changes",
                    err.message()
                );
                Err(Error::new(ErrorKind::Changed, text).with_source(err))
            }
            other => other,
        }
    }

    async fn restore(
        &self,
        task: &Task,
        inventory: &Inventory,
        instance: Option<&Instance>,
    ) -> Result<Outcome> {
        let wanted: RestoreParameters = parameters(task)?;
        let saved: Record = record(task, RECORD)?;
        let choose = || {
            let original =
                instance.and_then(Instance::files).map_or(Path::new(&saved.path), |files| &files.path);
            let to = Wanted {
                in_place: wanted.in_place,
                path: wanted.path.as_deref(),
                overwrite: wanted.overwrite,
            };
            Target::choose(task, inventory, instance, original, to)
        };
        let check = |target: &Target| match target.existing {
            // Beside, a device is never meant: only the inventory's own is written to.
            Existing::BlockDevice if target.in_place => target.check_existing(&[Existing::BlockDevice]),
            _ => target.check_existing(&[Existing::File]),
        };
        if task.dry_run {
            return driver::planned(&saved.path, choose(), |target| {
                target.plan(Some(saved.allocated_bytes.min(saved.size_bytes)), check(target).err())
            });
        }
        let target = choose()?;
        let shown = target.place.shown().to_string_lossy().into_owned();
        let findings = if staging::is_published(task, &target).await? {
            let findings = image::compare(task, &target.place.path(), &shown, wanted.salvage).await?;
            staging::settle(task).await?;
            findings
        } else {
            check(&target)?;
            match target.existing {
                Existing::BlockDevice => write_device(task, &target, &shown, wanted.salvage).await?,
                _ => image::replace(task, &target, saved.access, wanted.salvage).await?,
            }
        };
        let restored = announce(task, Kind::Disk, target.in_place, &shown);
        Ok(Outcome { restored: Some(restored), findings, ..Outcome::default() })
    }

    async fn verify(&self, task: &Task, _instance: Option<&Instance>) -> Result<Outcome> {
        let wanted: VerifyParameters = parameters(task)?;
        let saved: Record = record(task, RECORD)?;
        let size_bytes = task.reader()?.open_stream(&task.resource.key, STREAM).await?.size_bytes();
        let mut findings = Vec::new();
        if size_bytes != saved.size_bytes {
            findings.push(Finding {
                severity: Severity::Error,
                subject: STREAM.to_owned(),
                message: format!("it has {size_bytes} bytes, and the disk had {}", saved.size_bytes),
            });
        }
        if wanted.deep {
            findings.extend(read_all(task, STREAM).await?);
        }
        Ok(Outcome { findings, ..Outcome::default() })
    }

    async fn clean_up(&self, _task: &Task, _instance: Option<&Instance>, entry: &LedgerEntry) -> Result<()> {
        staging::clean_up(entry).await
    }
}

impl DiskDriver {
    async fn store(&self, task: &Task, path: &Path, shown: &str, allow_changes: bool) -> Result<Outcome> {
        let file = open_source(path, OFlags::RDONLY)?;
        let meta = file.metadata().map_err(|err| Error::io(format!("looking at {shown}"), err))?;
        let form = look(&file, &meta, shown, allow_changes)?;
        if task.dry_run {
            return Ok(Outcome::default());
        }
        // Through the descriptor: it is what was looked at, whatever the path leads to meanwhile.
        let source = NamedSource::open(&descriptor_path(&file), shown.to_owned(), allow_changes)
            .map_err(|err| Error::io(format!("opening {shown}"), err))?;
        let source = Arc::new(source);
        let size_bytes = source.size_bytes();
        let options = BlockOptions {
            progress: Some(task.progress.clone()),
            cancel: task.cancel.clone(),
            ..BlockOptions::default()
        };
        let writer = task.writer()?;
        let blocks: Arc<dyn BlockSource> = Arc::<NamedSource>::clone(&source);
        writer.put_blocks(STREAM, blocks, &options).await?;
        let record = Record {
            format: RECORD_FORMAT,
            path: path.to_string_lossy().into_owned(),
            form,
            size_bytes,
            allocated_bytes: if form == Form::Device {
                size_bytes
            } else {
                meta.blocks().saturating_mul(512)
            },
            access: Access::of(&meta),
        };
        writer.put_record(RECORD, json!(record))?;
        let in_use = form == Form::Device && is_in_use(path);
        let how = source.seen().or_else(|| in_use.then(|| "the device was in use".to_owned()));
        let findings = how.map(|how| Finding {
            severity: Severity::Warning,
            subject: shown.to_owned(),
            message: format!(
                "it was stored while it could change ({how}): check a restored copy before you use it"
            ),
        });
        Ok(Outcome { findings: findings.into_iter().collect(), ..Outcome::default() })
    }
}

/// Says what kind of disk it is, and refuses one that would not be whole.
fn look(file: &File, meta: &Metadata, shown: &str, allow_changes: bool) -> Result<Form> {
    if meta.file_type().is_block_device() {
        if !allow_changes && is_in_use(Path::new(shown)) {
            let text = format!(
                "{shown} is in use (mounted, or part of another device), so that it has no fixed state; \
                 unmount it with commands before and after in the inventory, name a snapshot of it, \
                 or protect with allow_changes"
            );
            return Err(Error::new(ErrorKind::Conflict, text));
        }
        return Ok(Form::Device);
    }
    if !meta.is_file() {
        let text = format!("{shown} is neither a file nor a block device; correct the host's inventory");
        return Err(Error::new(ErrorKind::Invalid, text));
    }
    let mut header = [0; 80];
    match file.read_exact_at(&mut header, 0) {
        Ok(()) => {}
        Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => return Ok(Form::Raw),
        Err(err) => return Err(Error::io(format!("reading {shown}"), err)),
    }
    match qcow2_problem(&header) {
        None => Ok(Form::Raw),
        Some(None) => Ok(Form::Qcow2),
        Some(Some(Problem::Open)) if allow_changes => Ok(Form::Qcow2),
        Some(Some(problem)) => Err(Error::new(problem.kind(), format!("{shown} {}", problem.describe()))),
    }
}

/// Why a qcow2 file is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Problem {
    Backing,
    External,
    Open,
    Corrupt,
}

impl Problem {
    fn kind(self) -> ErrorKind {
        match self {
            Self::Backing | Self::External => ErrorKind::Unsupported,
            Self::Open => ErrorKind::Conflict,
            Self::Corrupt => ErrorKind::Damaged,
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Backing => {
                "is a qcow2 file with a backing file, without which it is not whole; flatten it (qemu-img rebase -b \"\")"
            }
            Self::External => {
                "is a qcow2 file that keeps its data in another file; convert it (qemu-img convert), or protect that file"
            }
            Self::Open => {
                "is a qcow2 file that is open or was not closed; shut its machine down with commands before and after \
                 in the inventory, or protect with allow_changes"
            }
            Self::Corrupt => "is a qcow2 file that is marked as corrupt; repair it (qemu-img check -r all)",
        }
    }
}

/// Reads a header: nothing for what is no qcow2 file, otherwise what is wrong with it.
fn qcow2_problem(header: &[u8; 80]) -> Option<Option<Problem>> {
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let long = |at: usize| (u64::from(word(at)) << 32) | u64::from(word(at + 4));
    if header[..4] != *b"QFI\xfb" {
        return None;
    }
    let (version, backing_offset) = (word(4), long(8));
    let incompatible = if version >= 3 { long(72) } else { 0 };
    Some(if backing_offset != 0 {
        Some(Problem::Backing)
    } else if incompatible & 0b100 != 0 {
        Some(Problem::External)
    } else if incompatible & 0b10 != 0 {
        Some(Problem::Corrupt)
    } else if incompatible & 0b1 != 0 {
        Some(Problem::Open)
    } else {
        None
    })
}

/// Returns whether somebody holds a block device: the kernel then refuses it to one who wants it alone.
fn is_in_use(path: &Path) -> bool {
    match open_source(path, OFlags::RDONLY | OFlags::EXCL) {
        Ok(_) => false,
        Err(err) => err.kind() != ErrorKind::NotFound,
    }
}

/// Writes over a block device. It cannot be exchanged whole, so a failure leaves a part of it written.
async fn write_device(task: &Task, target: &Target, shown: &str, salvage: bool) -> Result<Vec<Finding>> {
    let place = &target.place;
    if is_in_use(&place.shown()) {
        let text =
            format!("{shown} is in use (mounted, or part of another device); free it and restore again");
        return Err(Error::new(ErrorKind::Conflict, text));
    }
    let mut data = place.to_json(place.name());
    data["replaced"] = Value::Bool(true);
    let intent = Intent {
        kind: staging::RESTORED.to_owned(),
        reference: shown.to_owned(),
        purpose: Purpose::Product,
        data,
    };
    let entry = task.ledger.intend(intent).await?;
    let device = FileTarget::open(place.path()).map_err(|err| Error::io(format!("opening {shown}"), err))?;
    let mut findings = image::write(task, device, shown, salvage).await?;
    findings.extend(image::compare(task, &place.path(), shown, salvage).await?);
    task.ledger.created(entry, shown).await?;
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a header by changing bytes of an empty one of version 3.
    fn header(changes: &[(usize, u8)]) -> [u8; 80] {
        let mut header = [0; 80];
        header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        for (at, byte) in changes {
            header[*at] = *byte;
        }
        header
    }

    #[test]
    fn a_qcow2_file_that_is_not_whole_is_known_by_its_header() {
        assert_eq!(qcow2_problem(&[0; 80]), None);
        assert_eq!(qcow2_problem(&header(&[])), Some(None));
        assert_eq!(qcow2_problem(&header(&[(15, 1)])), Some(Some(Problem::Backing)));
        assert_eq!(qcow2_problem(&header(&[(79, 0b100)])), Some(Some(Problem::External)));
        assert_eq!(qcow2_problem(&header(&[(79, 0b10)])), Some(Some(Problem::Corrupt)));
        assert_eq!(qcow2_problem(&header(&[(79, 0b1)])), Some(Some(Problem::Open)));
        // Version 2 has no such bits; something else stands there.
        assert_eq!(qcow2_problem(&header(&[(7, 2), (79, 0b1)])), Some(None));
    }
}
