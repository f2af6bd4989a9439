//! `karbor-volume-protection-plugin`: a volume as one of Cinder's own backups, full or incremental.
//!
//! An incremental backup needs those before it. A backup that is needed is not removed with its checkpoint: it is marked,
//! and goes with the last one that needed it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use karbor_openstack_client::cinder::{Backup, NewBackup};
use karbor_plugin::{
    Description, Error, ErrorKind, Finding, Hook, LedgerEntry, OperationKind, Outcome, PlannedEffect,
    Protection, ResourceKey, ResourceType, Restored, Result, Schemas, Severity, Task,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::Doing;
use crate::made::{Made, TAG_KEY};
use crate::poll::{Patience, Reached, reached};
use crate::volume::definition::{self, Definition, RECORD, Wanted};
use crate::volume::work::{BACKUP, SNAPSHOT, SnapshotOptions, VOLUME, Work};
use crate::{Shared, frame, kinds};

/// The plugin's name.
pub(crate) const NAME: &str = "karbor-volume-protection-plugin";

/// The property of a backup whose checkpoint is gone, while others need it.
const DELETED_KEY: &str = "karbor_deleted";

/// The property in which Cinder writes down of which backup a volume is.
const SOURCE_KEY: &str = "src_backup_id";

/// What a provider sets.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    poll_interval: u32,
    wait_limit: u32,
    /// Whether a snapshot is backed up, and not the volume while it is written to.
    backup_from_snapshot: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let Patience { poll_interval, wait_limit } = Patience::default();
        Self { poll_interval, wait_limit, backup_from_snapshot: true }
    }
}

/// Options of protect.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Options {
    backup_name: Option<String>,
    backup_mode: Mode,
    container: Option<String>,
    description: Option<String>,
    force: bool,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Full,
    Incremental,
}

/// Parameters of restore.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RestoreParameters {
    volume_id: Option<String>,
    #[serde(flatten)]
    new: Wanted,
}

/// What is remembered: the volume, and its backup.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    #[serde(flatten)]
    volume: Definition,
    backup_id: String,
    is_incremental: bool,
}

/// What one hook leaves for the next.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct State {
    snapshot: Option<String>,
    volume: Option<Definition>,
    taken_at: String,
}

/// Protects volumes by Cinder's backups.
#[derive(Debug)]
struct VolumeBackup {
    shared: Arc<Shared>,
    settings: Settings,
}

/// Makes the plugin.
pub(crate) fn make(shared: &Arc<Shared>, settings: &Map<String, Value>) -> Result<Arc<dyn Protection>> {
    let settings = frame::settings(NAME, settings)?;
    Ok(Arc::new(VolumeBackup { shared: Arc::clone(shared), settings }))
}

#[async_trait]
impl Protection for VolumeBackup {
    fn describe(&self) -> Description {
        use OperationKind as Op;
        let options = json!({
            "backup_name": frame::text("Backup Name", "The backup's name; one that says whose it is when left out."),
            "backup_mode": {
                "type": "string", "enum": ["full", "incremental"], "default": "full", "title": "Backup Mode",
                "description": "An incremental backup needs an earlier one; the first is full all the same.",
            },
            "container": frame::text("Container", "Where Cinder keeps the backup; its own choice when left out."),
            "description": frame::text("Description", "The backup's description."),
            "force": frame::flag("Force", false, "Also back up a volume that is in use without a snapshot."),
        });
        let mut restore =
            definition::restore_parameters("The new volume's name; <checkpoint>@<volume> when left out.");
        restore["volume_id"] = frame::text(
            "Volume ID",
            "Restore into this volume, which must be free and large enough, and overwrite what it has.",
        );
        let backup = json!({
            "backup_id": {"type": "string", "title": "Backup ID"},
            "is_incremental": {"type": "boolean", "title": "Is Incremental"},
        });
        let schemas = Schemas {
            options: frame::schema("Cinder Protection Options", options),
            restore: frame::schema("Cinder Protection Restore", restore),
            verify: frame::schema("Cinder Volume Verify", json!({})),
            saved_info: definition::saved_info("Cinder Protection Saved Info", backup),
        };
        let hooks: &[(Op, &[Hook])] = &[
            (Op::Protect, Hook::ALL),
            (Op::Restore, &[Hook::Main, Hook::Complete]),
            (Op::Verify, &[Hook::Main]),
            (Op::Delete, &[Hook::Main]),
        ];
        frame::describe(NAME, ResourceType::from(kinds::VOLUME), schemas, hooks)
    }

    async fn run(&self, hook: Hook, task: &Task) -> Result<Outcome> {
        task.check_cancelled()?;
        frame::require_kind(task, kinds::VOLUME)?;
        let work = self.work(task).await?;
        match (task.operation, hook) {
            (OperationKind::Protect, Hook::PrepareBegin) => self.begin(&work).await,
            (OperationKind::Protect, Hook::PrepareFinish) => work.taken().await,
            (OperationKind::Protect, Hook::Main) => back_up(&work).await,
            (OperationKind::Protect, Hook::Complete) => {
                work.remove_scaffolds().await?;
                Ok(Outcome::default())
            }
            (OperationKind::Restore, Hook::Main) => restore(&work).await,
            (OperationKind::Restore, Hook::Complete) => work.publish().await,
            (OperationKind::Verify, Hook::Main) => verify(&work).await,
            (OperationKind::Delete, Hook::Main) => delete(&work).await,
            _ => Ok(Outcome::default()),
        }
    }

    async fn clean_up(&self, task: &Task, entry: &LedgerEntry) -> Result<()> {
        self.work(task).await?.clean_up(entry).await
    }
}

impl VolumeBackup {
    async fn work<'a>(&self, task: &'a Task) -> Result<Work<'a>> {
        let Settings { poll_interval, wait_limit, .. } = self.settings;
        let session = self.shared.sessions.of(&task.context).await?;
        Work::new(task, session, Patience { poll_interval, wait_limit })
    }

    async fn begin(&self, work: &Work<'_>) -> Result<Outcome> {
        let volume = work.original().await?;
        if work.task.dry_run {
            return Ok(Outcome::default());
        }
        let mut state = json!({"volume": Definition::of(&volume, "")});
        if self.settings.backup_from_snapshot {
            let options = SnapshotOptions { force: true, is_scaffold: true, ..SnapshotOptions::default() };
            let made = Made::scaffold(SNAPSHOT, "snapshot");
            state["snapshot"] = json!(work.snapshot(&made, &volume.id, options).await?);
        }
        Ok(Outcome { state, ..Outcome::default() })
    }
}

async fn back_up(work: &Work<'_>) -> Result<Outcome> {
    let task = work.task;
    let options: Options = frame::parameters(task)?;
    if task.dry_run {
        return Ok(Outcome::default());
    }
    let State { snapshot, volume: Some(mut volume), taken_at } = frame::state(task)? else {
        return Err(Error::new(ErrorKind::Other, format!("nothing is known of {}", task.resource.key)));
    };
    volume.taken_at = taken_at;
    let made = Made::product(BACKUP, "backup");
    let tag = made.tag(task);
    let incremental = options.backup_mode == Mode::Incremental && has_backup(work, &volume.id).await?;
    let name = frame::given(options.backup_name.as_deref()).map_or_else(|| made.name(task), str::to_owned);
    let new = NewBackup {
        volume_id: volume.id.clone(),
        name,
        description: frame::given(options.description.as_deref()).map(str::to_owned),
        container: frame::given(options.container.as_deref()).map(str::to_owned),
        force: options.force || snapshot.is_some(),
        snapshot_id: snapshot,
        incremental,
        metadata: BTreeMap::from([(TAG_KEY.to_owned(), tag.clone())]),
    };
    let make = async {
        let begun = work.cinder.create_backup(&new).await;
        begun.doing(|| format!("backing up volume {}", volume.id))
    };
    let backup_id = made.once(task, || work.find_backup(&tag), make).await?;
    let backup = available(work, &backup_id).await?;
    let saved = Saved { volume, backup_id, is_incremental: backup.is_incremental };
    task.writer()?.put_record(RECORD, json!(saved))?;
    Ok(Outcome::default())
}

/// Returns whether there is a backup that an incremental one can be made on.
async fn has_backup(work: &Work<'_>, volume: &str) -> Result<bool> {
    let query = [("volume_id", volume), ("status", "available")];
    let all = work.cinder.backups(&query).all().await;
    let all = all.doing(|| format!("listing the backups of volume {volume}"))?;
    Ok(all.iter().any(|backup| backup.volume_id == volume && backup.status == "available"))
}

/// Waits until a backup can be used.
async fn available(work: &Work<'_>, id: &str) -> Result<Backup> {
    let ask = || async {
        let backup = work.cinder.backup(id).await.doing(|| format!("looking at backup {id}"))?;
        match reached(&backup.status, &["available"], &["creating", "restoring"]) {
            Reached::Yes => Ok(Some(backup)),
            Reached::NotYet => Ok(None),
            Reached::Never => {
                let reason = backup.fail_reason.filter(|reason| !reason.is_empty());
                let reason = reason.unwrap_or_else(|| "see the log of Cinder".to_owned());
                let text = format!("backup {id} is in the state `{}`: {reason}", backup.status);
                Err(Error::new(ErrorKind::Other, text))
            }
        }
    };
    work.patience.wait(work.task, &format!("backup {id} to become available"), ask).await
}

async fn restore(work: &Work<'_>) -> Result<Outcome> {
    let task = work.task;
    let saved: Saved = frame::record(task, RECORD)?;
    let wanted: RestoreParameters = frame::parameters(task)?;
    let into = frame::given(wanted.volume_id.as_deref());
    let new = saved.volume.new_volume(&wanted.new, &format!("{}@{}", task.checkpoint, saved.volume.id));
    if task.dry_run {
        return plan(work, &saved, into, &new).await;
    }
    let (id, name) = match into {
        Some(id) => {
            let there = work.volume_in(id, &["available"]).await?;
            if there.size < saved.volume.size_gib {
                let text =
                    format!("volume {id} has {} GiB, and {} are needed", there.size, saved.volume.size_gib);
                return Err(Error::new(ErrorKind::Invalid, text));
            }
            (id.to_owned(), there.name)
        }
        None => {
            let name = new.name.clone();
            let id = work.volume(&Made::product(VOLUME, "restored"), new).await?;
            work.volume_in(&id, &["available", "in-use"]).await?;
            (id, name)
        }
    };
    available(work, &saved.backup_id).await?;
    let begun = work.cinder.restore_backup(&saved.backup_id, &id).await;
    begun.doing(|| format!("restoring backup {} into volume {id}", saved.backup_id))?;
    work.volume_in(&id, &["available"]).await?;
    if into.is_none() {
        // Cinder gives a volume the name that it had when it was backed up.
        let description = frame::given(wanted.new.restore_description.as_deref());
        let description = description.or(saved.volume.description.as_deref());
        let named = work.cinder.update_volume(&id, &name, description).await;
        named.doing(|| format!("naming volume {id}"))?;
        saved.volume.apply(work, &id).await?;
        // And it writes down of which backup it is, which the original did not have.
        if !saved.volume.metadata.contains_key(SOURCE_KEY) {
            let removed = work.cinder.delete_metadata(&id, SOURCE_KEY).await;
            removed.doing(|| format!("describing volume {id}"))?;
        }
    }
    let restored = Restored { key: ResourceKey::new(kinds::VOLUME, id.clone()), name };
    let state = if into.is_none() { json!({"restored": id}) } else { Value::Null };
    Ok(Outcome { state, restored: Some(restored), ..Outcome::default() })
}

async fn plan(
    work: &Work<'_>,
    saved: &Saved,
    into: Option<&str>,
    new: &karbor_openstack_client::cinder::NewVolume,
) -> Result<Outcome> {
    let mut plan = match into {
        None => definition::plan(work, new).await?,
        Some(id) => {
            let problem = match work.cinder.volume(id).await {
                Ok(there) if there.status != "available" => {
                    Some(format!("it is in the state `{}`", there.status))
                }
                Ok(there) if there.size < saved.volume.size_gib => {
                    Some(format!("it has only {} GiB", there.size))
                }
                Ok(_) => None,
                Err(err) => Some(err.reason().to_owned()),
            };
            frame::planned(PlannedEffect::Overwrite, format!("volume {id}"), json!({}), problem)
        }
    };
    if let Err(err) = work.cinder.backup(&saved.backup_id).await {
        let text = format!("the backup {} cannot be used: {}", saved.backup_id, err.reason());
        plan.problem = Some(plan.problem.map_or(text.clone(), |problem| format!("{problem}; {text}")));
    }
    Ok(Outcome { plan: vec![plan], ..Outcome::default() })
}

async fn verify(work: &Work<'_>) -> Result<Outcome> {
    let saved: Saved = frame::record(work.task, RECORD)?;
    let id = &saved.backup_id;
    let wrong = match work.cinder.backup(id).await {
        Ok(backup) if backup.status == "available" => None,
        Ok(backup) => Some(format!("the backup is in the state `{}`", backup.status)),
        Err(err) if err.is_not_found() => Some("the backup is gone".to_owned()),
        Err(err) => return Err(err).doing(|| format!("looking at backup {id}")),
    };
    let findings = wrong.map(|text| frame::wrong(id.clone(), text)).into_iter().collect();
    Ok(Outcome { findings, ..Outcome::default() })
}

/// Removes the backup, or marks it if others need it; with the last of those, what was marked goes too.
async fn delete(work: &Work<'_>) -> Result<Outcome> {
    // Without a record nothing was saved, and what was made is the ledger's.
    if work.task.record(RECORD).is_none() {
        return Ok(Outcome::default());
    }
    let saved: Saved = frame::record(work.task, RECORD)?;
    let id = &saved.backup_id;
    let doing = || format!("removing backup {id}");
    match work.cinder.backup(id).await {
        Err(err) if err.is_not_found() => {}
        backup => {
            let mut backup = backup.doing(doing)?;
            if backup.has_dependent_backups {
                backup.metadata.insert(DELETED_KEY.to_owned(), "true".to_owned());
                work.cinder.set_backup_metadata(id, &backup.metadata).await.doing(doing)?;
                let message = "later incremental backups need it: it goes with the last of them".to_owned();
                let finding = Finding { severity: Severity::Info, subject: id.clone(), message };
                return Ok(Outcome { findings: vec![finding], ..Outcome::default() });
            }
            work.remove_backup(id).await?;
        }
    }
    remove_marked(work, &saved.volume.id).await?;
    Ok(Outcome::default())
}

/// Removes the marked backups of a volume that nobody needs any more, newest first.
async fn remove_marked(work: &Work<'_>, volume: &str) -> Result<()> {
    loop {
        let all = work.cinder.backups(&[("volume_id", volume)]).all().await;
        let all = all.doing(|| format!("listing the backups of volume {volume}"))?;
        let is_free = |backup: &&Backup| {
            backup.volume_id == volume
                && backup.metadata.contains_key(DELETED_KEY)
                && !backup.has_dependent_backups
        };
        let Some(free) = all.iter().find(is_free) else { return Ok(()) };
        work.remove_backup(&free.id).await?;
    }
}
