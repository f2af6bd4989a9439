//! One file's bytes as one block stream: what disks and SQLite databases have in common.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use karbor_plugin::{Error, ErrorKind, Finding, Result, Severity, Task};
use karbor_vault::{CopyOptions, FileTarget};
use rustix::fs::{Timespec, Timestamps};
use serde::{Deserialize, Serialize};

use crate::place::Target;
use crate::source::NamedSource;
use crate::staging::{Staging, blocking};

/// The stream's name.
pub(crate) const STREAM: &str = "data";

/// Who owns a file, who may do what with it, and when it was last modified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Access {
    mode: u32,
    uid: u32,
    gid: u32,
    modified_seconds: i64,
    modified_nanos: u32,
}

impl Access {
    /// Returns those of a file.
    pub(crate) fn of(meta: &Metadata) -> Self {
        Self {
            mode: meta.permissions().mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            modified_seconds: meta.mtime(),
            modified_nanos: u32::try_from(meta.mtime_nsec()).unwrap_or(0),
        }
    }

    /// Sets them, and makes the file durable; the owner only as root, since nobody else may.
    fn set(self, file: &File) -> std::io::Result<()> {
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::fchown(file, Some(self.uid), Some(self.gid))?;
        }
        file.set_permissions(fs::Permissions::from_mode(self.mode))?;
        let modified = Timespec { tv_sec: self.modified_seconds, tv_nsec: self.modified_nanos.into() };
        rustix::fs::futimens(file, &Timestamps { last_access: modified, last_modification: modified })?;
        file.sync_all()
    }
}

/// Restores the stream as a file under a hidden name, reads it back, and gives it its name.
pub(crate) async fn replace(
    task: &Task,
    target: &Target,
    access: Access,
    salvage: bool,
) -> Result<Vec<Finding>> {
    let staging = Staging::begin(task, target).await?;
    let path = staging.path();
    let shown = target.place.shown().to_string_lossy().into_owned();
    let work = async {
        let made = FileTarget::create(&path).map_err(|err| Error::io(format!("creating {shown}"), err))?;
        let mut findings = write(task, made, &shown, salvage).await?;
        findings.extend(compare(task, &path, &shown, salvage).await?);
        let path = path.clone();
        let finished = blocking(move || access.set(&File::open(&path)?));
        finished.await?.map_err(|err| Error::io(format!("setting owner and mode of {shown}"), err))?;
        Ok(findings)
    };
    match work.await {
        Ok(findings) => staging.publish().await.map(|()| findings),
        Err(err) => Err(staging.discard(err).await),
    }
}

/// Writes the stream to a target.
pub(crate) async fn write(
    task: &Task,
    target: FileTarget,
    shown: &str,
    salvage: bool,
) -> Result<Vec<Finding>> {
    let stream = task.reader()?.open_stream(&task.resource.key, STREAM).await?;
    let options = CopyOptions { progress: Some(task.progress.clone()), cancel: task.cancel.clone() };
    let report = stream.copy_to(Arc::new(target), &options).await?;
    if report.damaged.is_empty() {
        return Ok(Vec::new());
    }
    let damaged = report.damaged.iter();
    let findings: Vec<Finding> = damaged
        .map(|damage| Finding {
            severity: Severity::Error,
            subject: shown.to_owned(),
            message: format!(
                "bytes {} to {} could not be read from the bank: {}",
                damage.range.start, damage.range.end, damage.reason
            ),
        })
        .collect();
    if salvage {
        return Ok(findings);
    }
    let first = findings.first().map(|finding| finding.message.as_str()).unwrap_or_default();
    let text = format!(
        "the stored data is damaged in {} places ({first}); restore with salvage to keep the rest",
        findings.len()
    );
    Err(Error::new(ErrorKind::Damaged, text))
}

/// Reads back what was written and compares it with what was protected.
pub(crate) async fn compare(task: &Task, path: &Path, shown: &str, salvage: bool) -> Result<Vec<Finding>> {
    let source = NamedSource::open(path, shown.to_owned(), false)
        .map_err(|err| Error::io(format!("reading {shown} back"), err))?;
    let stream = task.reader()?.open_stream(&task.resource.key, STREAM).await?;
    let options = CopyOptions { progress: None, cancel: task.cancel.clone() };
    let report = stream.compare(Arc::new(source), &options).await?;
    let Some(first) = report.different.first() else { return Ok(Vec::new()) };
    let text = format!(
        "{shown} does not read back as it was protected: {} ranges differ, the first from byte {} to {}",
        report.different.len(),
        first.start,
        first.end
    );
    if salvage {
        return Ok(vec![Finding { severity: Severity::Error, subject: shown.to_owned(), message: text }]);
    }
    Err(Error::new(ErrorKind::Damaged, format!("{text}; look after the disk that it was written to")))
}
