//! `Host::Directory`: a tree of files.
//!
//! What changes or vanishes while it is read is stored as it was met and named in a warning; what may not be read
//! ends the work, unless the plan says to go on past it.

use std::path::Path;

use async_trait::async_trait;
use karbor_plugin::{
    Error, ErrorKind, Finding, Intent, LedgerEntry, Outcome, Purpose, Result, Schemas, Severity, Task,
};
use karbor_tree::{BackupOptions, Overwrite, RestoreOptions, TreeReport};
use karbor_vault::CopyOptions;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Kind;
use crate::driver::{self, Driver, RECORD_FORMAT, announce, parameters, record};
use crate::inventory::{Files, Instance, Inventory};
use crate::place::{Existing, Place, Target, Wanted, descriptor_path, open_source};
use crate::source::Discard;
use crate::staging::{self, Staging};

/// The record's name.
const RECORD: &str = "directory";
/// How many findings are kept in a record.
const KEPT_FINDINGS: usize = 100;
/// How many findings an error names.
const NAMED_FINDINGS: usize = 3;

/// Protects trees of files.
#[derive(Debug)]
pub(crate) struct DirectoryDriver;

/// Options of protect.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    skip_unreadable: bool,
}

/// Parameters of restore.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RestoreParameters {
    in_place: bool,
    path: Option<String>,
    overwrite: bool,
    merge: bool,
    only: Option<String>,
    salvage: bool,
}

/// Parameters of verify.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct VerifyParameters {
    deep: bool,
}

/// What is remembered of a protected tree.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    format: u32,
    path: String,
    directories: u64,
    files: u64,
    hard_links: u64,
    symlinks: u64,
    specials: u64,
    size_bytes: u64,
    /// What was not as it should be, as `path: problem`; the first hundred.
    findings: Vec<String>,
    findings_total: u64,
}

impl RestoreParameters {
    fn check(&self) -> Result<()> {
        if self.only.is_some() && self.in_place && !self.merge {
            let text = "only in place would leave nothing but that part; give merge too, which writes into what is there";
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        Ok(())
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            in_place: self.in_place,
            path: self.path.as_deref(),
            overwrite: self.overwrite || self.merge,
        }
    }

    fn only(&self) -> Option<Vec<u8>> {
        let only = self.only.as_deref()?.trim_matches('/');
        (!only.is_empty()).then(|| only.as_bytes().to_vec())
    }
}

#[async_trait]
impl Driver for DirectoryDriver {
    fn schemas(&self) -> Schemas {
        let mut restore = driver::path_parameters();
        restore["merge"] = json!({
            "type": "boolean", "default": false, "title": "Merge",
            "description": "Write into the directory that is there: files of the same names are replaced, others stay.",
        });
        restore["only"] = json!({
            "type": "string", "title": "Only",
            "description": "Restore only this file or directory, given by its path below the protected directory.",
        });
        restore["salvage"] = salvage();
        let count = |title: &str| json!({"type": "integer", "title": title});
        let saved = json!({
            "path": {"type": "string", "title": "Path"},
            "directories": count("Directories"), "files": count("Files"), "hard_links": count("Hard links"),
            "symlinks": count("Symbolic links"), "specials": count("Pipes, sockets and devices"),
            "size_bytes": count("Size in bytes"),
            "findings": {"type": "array", "title": "Findings", "items": {"type": "string"}},
            "findings_total": count("Number of findings"),
        });
        let options = json!({
            "skip_unreadable": {
                "type": "boolean", "default": false, "title": "Skip unreadable",
                "description": "Go on past files and directories that may not be read, and name them.",
            },
        });
        Schemas {
            options: driver::schema("Options of a directory", options),
            restore: driver::schema("Restoring a directory", restore),
            verify: driver::verify_schema(
                "Verifying a directory",
                "Read every file's bytes, not only their names.",
            ),
            saved_info: driver::saved_info("A protected directory", RECORD, saved),
        }
    }

    async fn protect(&self, task: &Task, instance: &Instance) -> Result<Outcome> {
        let options: Options = parameters(task)?;
        let files = own_files(instance)?;
        let directory = open_source(&files.path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        if task.dry_run {
            return Ok(Outcome::default());
        }
        // With the dot the link is followed; the descriptor makes it the directory that was opened above.
        let root = descriptor_path(&directory).join(".");
        let backup = BackupOptions {
            base: task.base.clone(),
            skip_unreadable: options.skip_unreadable,
            one_file_system: files.one_file_system,
            progress: Some(task.progress.clone()),
            cancel: task.cancel.clone(),
        };
        let writer = task.writer()?;
        let report = karbor_tree::backup(&root, writer, &backup).await;
        let report = report.map_err(|err| {
            let err = tree_error(err, &root, &files.path);
            match err.kind() {
                ErrorKind::Denied => {
                    let text = format!("{}, or protect with skip_unreadable", err.message());
                    Error::new(ErrorKind::Denied, text).with_source(err)
                }
                _ => err,
            }
        })?;
        let findings = report.findings.iter().map(|finding| format!("{}: {}", finding.path, finding.problem));
        let record = Record {
            format: RECORD_FORMAT,
            path: files.path.to_string_lossy().into_owned(),
            directories: report.directories,
            files: report.files,
            hard_links: report.hard_links,
            symlinks: report.symlinks,
            specials: report.specials,
            size_bytes: report.size_bytes,
            findings: findings.take(KEPT_FINDINGS).collect(),
            findings_total: report.findings_total,
        };
        writer.put_record(RECORD, json!(record))?;
        Ok(Outcome { findings: told(&report, Severity::Warning), ..Outcome::default() })
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
            wanted.check()?;
            let original =
                instance.and_then(Instance::files).map_or(Path::new(&saved.path), |files| &files.path);
            Target::choose(task, inventory, instance, original, wanted.wanted())
        };
        let replaceable = [Existing::Directory, Existing::EmptyDirectory];
        if task.dry_run {
            return driver::planned(&saved.path, choose(), |target| {
                target.plan(Some(saved.size_bytes), target.check_existing(&replaceable).err())
            });
        }
        let target = choose()?;
        let findings = if wanted.merge {
            target.check_existing(&replaceable)?;
            merge(task, &target, &wanted).await?
        } else if staging::is_published(task, &target).await? {
            let path = target.place.path();
            let findings = compare(task, &path, &target.place, &wanted).await?;
            staging::settle(task).await?;
            findings
        } else {
            target.check_existing(&replaceable)?;
            replace(task, &target, &wanted).await?
        };
        let shown = target.place.shown();
        let restored = announce(task, Kind::Directory, target.in_place, &shown.to_string_lossy());
        Ok(Outcome { restored: Some(restored), findings, ..Outcome::default() })
    }

    async fn verify(&self, task: &Task, _instance: Option<&Instance>) -> Result<Outcome> {
        let wanted: VerifyParameters = parameters(task)?;
        let _: Record = record(task, RECORD)?;
        let (reader, key) = (task.reader()?, &task.resource.key);
        karbor_tree::list(reader, key, |_| {})
            .await
            .map_err(|err| tree_error(err, Path::new(""), Path::new("")))?;
        let findings = match wanted.deep {
            true => read_all(task, karbor_tree::DATA).await?,
            false => Vec::new(),
        };
        Ok(Outcome { findings, ..Outcome::default() })
    }

    async fn clean_up(&self, _task: &Task, _instance: Option<&Instance>, entry: &LedgerEntry) -> Result<()> {
        staging::clean_up(entry).await
    }
}

/// Returns the parameter that keeps what can be restored of something that is damaged.
pub(crate) fn salvage() -> Value {
    json!({
        "type": "boolean", "default": false, "title": "Salvage",
        "description": "When a part cannot be restored as it was, restore the rest and name that part. \
            The restore counts as failed nevertheless.",
    })
}

/// Reads a whole stream, and names what cannot be read.
pub(crate) async fn read_all(task: &Task, stream: &str) -> Result<Vec<Finding>> {
    let reader = task.reader()?.open_stream(&task.resource.key, stream).await?;
    let options = CopyOptions { progress: Some(task.progress.clone()), cancel: task.cancel.clone() };
    let report = reader.copy_to(std::sync::Arc::new(Discard), &options).await?;
    let damaged = report.damaged.iter().map(|damage| Finding {
        severity: Severity::Error,
        subject: stream.to_owned(),
        message: format!(
            "bytes {} to {} cannot be read: {}",
            damage.range.start, damage.range.end, damage.reason
        ),
    });
    Ok(damaged.collect())
}

fn own_files(instance: &Instance) -> Result<&Files> {
    instance.files().ok_or_else(|| Error::new(ErrorKind::Other, format!("`{}` has no path", instance.name)))
}

fn restore_options(task: &Task, wanted: &RestoreParameters) -> RestoreOptions {
    RestoreOptions {
        overwrite: if wanted.merge { Overwrite::Replace } else { Overwrite::Refuse },
        only: wanted.only(),
        owners: rustix::process::geteuid().is_root(),
        progress: Some(task.progress.clone()),
        cancel: task.cancel.clone(),
    }
}

/// Restores under a hidden name, reads back, and gives it its name.
async fn replace(task: &Task, target: &Target, wanted: &RestoreParameters) -> Result<Vec<Finding>> {
    let staging = Staging::begin(task, target).await?;
    let path = staging.path();
    let work = async {
        write(task, &path, &target.place, wanted).await?;
        compare(task, &path, &target.place, wanted).await
    };
    match work.await {
        Ok(findings) => staging.publish().await.map(|()| findings),
        Err(err) => Err(staging.discard(err).await),
    }
}

/// Restores into what is there.
async fn merge(task: &Task, target: &Target, wanted: &RestoreParameters) -> Result<Vec<Finding>> {
    let place = &target.place;
    let mut data = place.to_json(place.name());
    data["replaced"] = Value::Bool(true);
    let reference = place.shown().to_string_lossy().into_owned();
    let intent = Intent {
        kind: staging::RESTORED.to_owned(),
        reference: reference.clone(),
        purpose: Purpose::Product,
        data,
    };
    let entry = task.ledger.intend(intent).await?;
    let path = place.path();
    write(task, &path, place, wanted).await?;
    let findings = compare(task, &path, place, wanted).await?;
    task.ledger.created(entry, &reference).await?;
    Ok(findings)
}

async fn write(task: &Task, path: &Path, place: &Place, wanted: &RestoreParameters) -> Result<()> {
    let options = restore_options(task, wanted);
    let report = karbor_tree::restore(task.reader()?, &task.resource.key, path, &options).await;
    report.map_err(|err| tree_error(err, path, &place.shown()))?;
    if let Some(only) = &wanted.only
        && std::fs::symlink_metadata(path.join(only.trim_matches('/'))).is_err()
    {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("there is no `{only}` in the protected directory"),
        ));
    }
    Ok(())
}

/// Reads back what was restored. What differs is an error, or findings when the rest is to be kept.
async fn compare(
    task: &Task,
    path: &Path,
    place: &Place,
    wanted: &RestoreParameters,
) -> Result<Vec<Finding>> {
    let options = RestoreOptions { progress: None, ..restore_options(task, wanted) };
    let report = karbor_tree::compare(task.reader()?, &task.resource.key, path, &options).await;
    let report = report.map_err(|err| tree_error(err, path, &place.shown()))?;
    if report.findings_total == 0 || wanted.salvage {
        return Ok(told(&report, Severity::Error));
    }
    let first = report.findings.iter().take(NAMED_FINDINGS);
    let first: Vec<String> = first.map(|finding| format!("{}: {}", finding.path, finding.problem)).collect();
    let text = format!(
        "what was restored is not what was protected, and was removed again; {} differ: {}; \
         restore with salvage to keep the rest",
        report.findings_total,
        first.join("; ")
    );
    Err(Error::new(ErrorKind::Damaged, text))
}

fn told(report: &TreeReport, severity: Severity) -> Vec<Finding> {
    let findings = report.findings.iter().map(|finding| Finding {
        severity,
        subject: finding.path.clone(),
        message: finding.problem.clone(),
    });
    findings.collect()
}

/// Translates an error of the tree crate, and puts the path that people know in the place of ours.
fn tree_error(err: karbor_tree::Error, ours: &Path, shown: &Path) -> Error {
    use karbor_tree::Error as Tree;
    let rename = |path: &Path| match path.strip_prefix(ours) {
        Ok(rest) if rest.as_os_str().is_empty() => shown.to_owned(),
        Ok(rest) => shown.join(rest),
        Err(_) => path.to_owned(),
    };
    let kind = match err {
        Tree::Path { doing, path, source } => {
            return Error::io(format!("{doing} {}", rename(&path).display()), source);
        }
        Tree::Vault { source, .. } => return Error::from(source),
        Tree::NotADirectory { .. } => ErrorKind::Invalid,
        Tree::TargetExists { .. } => ErrorKind::Conflict,
        Tree::UnknownFormat { .. } => ErrorKind::Unsupported,
        Tree::Cancelled => ErrorKind::Cancelled,
        Tree::Malformed { .. } | Tree::Decode { .. } => ErrorKind::Damaged,
        _ => ErrorKind::Other,
    };
    Error::new(kind, err.to_string()).with_source(err)
}
