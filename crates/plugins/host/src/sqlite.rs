//! `Host::SQLite`: one database file, copied online while others write to it.
//!
//! SQLite's own backup interface makes a copy of one committed state; writers go on where the journal mode lets them.
//! The copy lies in the spool directory while it is stored, and keeps the places of pages, so that what did not change
//! is known to the bank. It is restored as a file that is put into place at once; a journal of the database that stood
//! there is taken away first, since SQLite would play it into the new one.

mod online;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use karbor_plugin::{
    Error, ErrorKind, Finding, Intent, LedgerEntry, LedgerId, Outcome, Purpose, Result, Schemas, Severity,
    Task,
};
use karbor_vault::{BlockOptions, BlockSource, FileTarget};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::directory::salvage;
use crate::driver::{self, Driver, RECORD_FORMAT, announce, parameters, record};
use crate::image::{self, Access, STREAM};
use crate::inventory::{Instance, Inventory};
use crate::place::{Existing, Target, Wanted, open_source};
use crate::source::NamedSource;
use crate::staging::{self, blocking};
use crate::{Kind, Shared};

/// The record's name.
const RECORD: &str = "sqlite";
/// The kind of the ledger's entry for a copy in the spool directory.
const SPOOL: &str = "spool";
/// What names in the spool directory begin with.
const SPOOL_PREFIX: &str = "sqlite-";
/// Small pieces: what changes in a database are single pages here and there.
const CHUNK_BYTES: u32 = 64 << 10;
/// What SQLite keeps beside a database.
const COMPANIONS: [&str; 3] = ["-journal", "-wal", "-shm"];

/// Protects SQLite databases.
#[derive(Debug)]
pub(crate) struct SqliteDriver {
    shared: Arc<Shared>,
}

/// Options of protect.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    check: Check,
}

/// How much a copy is looked over before it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Check {
    /// Not at all.
    None,
    /// Everything but whether indexes and tables agree.
    #[default]
    Quick,
    /// Everything.
    Full,
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

/// What is remembered of a protected database.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    format: u32,
    path: String,
    size_bytes: u64,
    page_size: u32,
    journal_mode: String,
    access: Access,
}

#[async_trait]
impl Driver for SqliteDriver {
    fn schemas(&self) -> Schemas {
        let options = json!({
            "check": {
                "type": "string", "enum": ["none", "quick", "full"], "default": "quick", "title": "Check",
                "description": "How much the copy is looked over before it is stored; a damaged one is an error.",
            },
        });
        let mut restore = driver::path_parameters();
        restore["salvage"] = salvage();
        let saved = json!({
            "path": {"type": "string", "title": "Path"},
            "size_bytes": {"type": "integer", "title": "Size in bytes"},
            "page_size": {"type": "integer", "title": "Page size"},
            "journal_mode": {"type": "string", "title": "Journal mode"},
            "access": {"type": "object", "title": "Owner and mode"},
        });
        let deep = "Write the database to the spool directory and let SQLite check all of it.";
        Schemas {
            options: driver::schema("Options of an SQLite database", options),
            restore: driver::schema("Restoring an SQLite database", restore),
            verify: driver::verify_schema("Verifying an SQLite database", deep),
            saved_info: driver::saved_info("A protected SQLite database", RECORD, saved),
        }
    }

    async fn protect(&self, task: &Task, instance: &Instance) -> Result<Outcome> {
        let options: Options = parameters(task)?;
        let Some(files) = instance.files() else {
            return Err(Error::new(ErrorKind::Other, format!("`{}` has no path", instance.name)));
        };
        let shown = files.path.display().to_string();
        // Looks at it without a symbolic link; SQLite is told not to follow any either.
        let meta = open_source(&files.path, OFlags::RDONLY)?
            .metadata()
            .map_err(|err| Error::io(format!("looking at {shown}"), err))?;
        if !meta.is_file() {
            let text = format!("{shown} is not a file; correct the host's inventory");
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        if task.dry_run {
            return Ok(Outcome::default());
        }
        let spool = Spool::make(task, &self.shared.spool).await?;
        let stored = self.store(task, &files.path, &spool, options.check, Access::of(&meta)).await;
        spool.remove(task).await?;
        stored?;
        Ok(Outcome::default())
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
        if task.dry_run {
            return driver::planned(&saved.path, choose(), |target| {
                target.plan(Some(saved.size_bytes), target.check_existing(&[Existing::File]).err())
            });
        }
        let target = choose()?;
        let shown = target.place.shown().to_string_lossy().into_owned();
        let findings = if staging::is_published(task, &target).await? {
            let findings = image::compare(task, &target.place.path(), &shown, wanted.salvage).await?;
            staging::settle(task).await?;
            findings
        } else {
            target.check_existing(&[Existing::File])?;
            clear_companions(&target, &shown).await?;
            image::replace(task, &target, saved.access, wanted.salvage).await?
        };
        let restored = announce(task, Kind::Sqlite, target.in_place, &shown);
        Ok(Outcome { restored: Some(restored), findings, ..Outcome::default() })
    }

    async fn verify(&self, task: &Task, _instance: Option<&Instance>) -> Result<Outcome> {
        let wanted: VerifyParameters = parameters(task)?;
        let _: Record = record(task, RECORD)?;
        task.reader()?.open_stream(&task.resource.key, STREAM).await?;
        if !wanted.deep {
            return Ok(Outcome::default());
        }
        let spool = Spool::make(task, &self.shared.spool).await?;
        let checked = self.check_stored(task, &spool).await;
        spool.remove(task).await?;
        Ok(Outcome { findings: checked?, ..Outcome::default() })
    }

    async fn clean_up(&self, _task: &Task, _instance: Option<&Instance>, entry: &LedgerEntry) -> Result<()> {
        if entry.kind == SPOOL {
            return Spool::of(entry, &self.shared.spool)?.clear().await;
        }
        staging::clean_up(entry).await
    }
}

impl SqliteDriver {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    async fn store(
        &self,
        task: &Task,
        path: &Path,
        spool: &Spool,
        check: Check,
        access: Access,
    ) -> Result<()> {
        let shown = path.display().to_string();
        let (from, to, cancel) = (path.to_owned(), spool.path.clone(), task.cancel.clone());
        let copied = blocking(move || online::copy(&from, &to, check, &cancel)).await?;
        let facts = copied.map_err(|err| err.describe(&shown))?;
        let source = NamedSource::open(&spool.path, shown.clone(), false)
            .map_err(|err| Error::io(format!("reading the copy of {shown}"), err))?;
        let size_bytes = source.size_bytes();
        let options = BlockOptions {
            chunk_bytes: Some(CHUNK_BYTES),
            progress: Some(task.progress.clone()),
            cancel: task.cancel.clone(),
            ..BlockOptions::default()
        };
        let writer = task.writer()?;
        writer.put_blocks(STREAM, Arc::new(source), &options).await?;
        let record = Record {
            format: RECORD_FORMAT,
            path: path.to_string_lossy().into_owned(),
            size_bytes,
            page_size: facts.page_size,
            journal_mode: facts.journal_mode,
            access,
        };
        writer.put_record(RECORD, json!(record))?;
        Ok(())
    }

    async fn check_stored(&self, task: &Task, spool: &Spool) -> Result<Vec<Finding>> {
        let copy =
            FileTarget::create(&spool.path).map_err(|err| Error::io("creating a copy in the spool", err))?;
        let shown = task.resource.name.clone();
        let damaged = image::write(task, copy, &shown, true).await?;
        if !damaged.is_empty() {
            return Ok(damaged);
        }
        let path = spool.path.clone();
        let checked = blocking(move || online::check(&path, Check::Full)).await?;
        match checked {
            Ok(()) => Ok(Vec::new()),
            Err(err) => {
                let message = err.describe(&shown).message().to_owned();
                Ok(vec![Finding { severity: Severity::Error, subject: shown, message }])
            }
        }
    }
}

/// A copy in the spool directory, of one attempt alone.
struct Spool {
    path: PathBuf,
    entry: Option<LedgerId>,
}

impl Spool {
    /// Makes room for a copy: an empty file that only we can read.
    async fn make(task: &Task, directory: &Path) -> Result<Self> {
        let remove = async |entry| Self::of(&entry, directory)?.clear().await;
        let tag = staging::fresh_tag(task, SPOOL, remove).await?;
        let path = directory.join(format!("{SPOOL_PREFIX}{tag}"));
        let reference = path.to_string_lossy().into_owned();
        let intent =
            Intent { kind: SPOOL.to_owned(), reference, purpose: Purpose::Scaffold, data: Value::Null };
        let entry = task.ledger.intend(intent).await?;
        let (directory, made) = (directory.to_owned(), path.clone());
        let made = blocking(move || -> io::Result<()> {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&made)?;
            Ok(())
        });
        made.await?.map_err(|err| Error::io("making a file in the service's spool directory", err))?;
        Ok(Self { path, entry: Some(entry) })
    }

    /// Finds the copy that a ledger entry tells of, if that is one of this directory.
    fn of(entry: &LedgerEntry, directory: &Path) -> Result<Self> {
        let path = PathBuf::from(&entry.reference);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.parent() != Some(directory) || !name.starts_with(SPOOL_PREFIX) {
            let text =
                format!("{} is not in this service's spool directory; remove it by hand", entry.reference);
            return Err(Error::new(ErrorKind::Other, text));
        }
        Ok(Self { path, entry: None })
    }

    /// Removes the copy, and what SQLite may have put beside it.
    async fn clear(&self) -> Result<()> {
        let path = self.path.clone();
        let cleared = blocking(move || {
            remove_file(&path)?;
            COMPANIONS.iter().try_for_each(|ending| remove_file(&with_ending(&path, ending)))
        });
        cleared.await?.map_err(|err| Error::io("removing a copy from the service's spool directory", err))
    }

    async fn remove(self, task: &Task) -> Result<()> {
        self.clear().await?;
        match self.entry {
            Some(entry) => task.ledger.removed(entry).await,
            None => Ok(()),
        }
    }
}

/// Takes away the journals of the database that is about to be replaced, once nobody uses it.
async fn clear_companions(target: &Target, shown: &str) -> Result<()> {
    let place = &target.place;
    if target.existing == Existing::File {
        // SQLite follows no symbolic links here, and the way through the descriptor is one.
        let real = place.shown();
        let free = blocking(move || online::make_quiet(&real)).await?;
        free.map_err(|err| err.describe(shown))?;
    }
    let mut name = place.name().to_owned();
    let directory = place.sibling(&name);
    for ending in COMPANIONS {
        name.clear();
        name.push(place.name());
        name.push(ending);
        remove_file(&directory.with_file_name(&name))
            .map_err(|err| Error::io(format!("removing {shown}{ending}"), err))?;
    }
    Ok(())
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
