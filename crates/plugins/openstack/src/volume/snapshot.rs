//! `karbor-volume-snapshot-plugin`: a volume as a snapshot that stays in Cinder. No bytes leave the cloud.

use std::sync::Arc;

use async_trait::async_trait;
use karbor_plugin::{
    Description, Error, ErrorKind, Hook, LedgerEntry, OperationKind, Outcome, Protection, ResourceKey,
    ResourceType, Restored, Result, Schemas, Task,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::Doing;
use crate::made::Made;
use crate::poll::Patience;
use crate::volume::definition::{self, Definition, RECORD, Wanted};
use crate::volume::work::{SNAPSHOT, SnapshotOptions, VOLUME, Work};
use crate::{Shared, frame, kinds};

/// The plugin's name.
pub(crate) const NAME: &str = "karbor-volume-snapshot-plugin";

/// Options of protect.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Options {
    snapshot_name: Option<String>,
    description: Option<String>,
    force: bool,
}

/// What is remembered: the volume, and its snapshot.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    #[serde(flatten)]
    volume: Definition,
    snapshot_id: String,
}

/// What one hook leaves for the next.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct State {
    snapshot: Option<String>,
    volume: Option<Definition>,
    taken_at: String,
}

/// Protects volumes by snapshots.
#[derive(Debug)]
struct VolumeSnapshot {
    shared: Arc<Shared>,
    patience: Patience,
}

/// Makes the plugin.
pub(crate) fn make(shared: &Arc<Shared>, settings: &Map<String, Value>) -> Result<Arc<dyn Protection>> {
    let patience = frame::settings(NAME, settings)?;
    Ok(Arc::new(VolumeSnapshot { shared: Arc::clone(shared), patience }))
}

#[async_trait]
impl Protection for VolumeSnapshot {
    fn describe(&self) -> Description {
        use OperationKind as Op;
        let options = json!({
            "snapshot_name": frame::text("Snapshot Name", "The snapshot's name; one that says whose it is when left out."),
            "description": frame::text("Description", "The snapshot's description."),
            "force": frame::flag("Force", false, "Also take a snapshot of a volume that is in use."),
        });
        let default_name = "The new volume's name; volume-<checkpoint>@<volume> when left out.";
        let snapshot = json!({"snapshot_id": {"type": "string", "title": "Snapshot ID"}});
        let schemas = Schemas {
            options: frame::schema("Volume Snapshot Options", options),
            restore: frame::schema("Volume snapshot Restore", definition::restore_parameters(default_name)),
            verify: frame::schema("Volume snapshot Verify", json!({})),
            saved_info: definition::saved_info("Volume Protection Saved Info", snapshot),
        };
        let hooks: &[(Op, &[Hook])] = &[
            (Op::Protect, &[Hook::PrepareBegin, Hook::PrepareFinish, Hook::Main]),
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
            (OperationKind::Protect, Hook::PrepareBegin) => begin(&work).await,
            (OperationKind::Protect, Hook::PrepareFinish) => work.taken().await,
            (OperationKind::Protect, Hook::Main) => save(task),
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

impl VolumeSnapshot {
    async fn work<'a>(&self, task: &'a Task) -> Result<Work<'a>> {
        Work::new(task, self.shared.sessions.of(&task.context).await?, self.patience)
    }
}

async fn begin(work: &Work<'_>) -> Result<Outcome> {
    let options: Options = frame::parameters(work.task)?;
    let volume = work.original().await?;
    if work.task.dry_run {
        return Ok(Outcome::default());
    }
    let new = SnapshotOptions {
        name: frame::given(options.snapshot_name.as_deref()).map(str::to_owned),
        description: frame::given(options.description.as_deref()),
        force: options.force,
        is_scaffold: false,
    };
    let snapshot = work.snapshot(&Made::product(SNAPSHOT, "snapshot"), &volume.id, new).await?;
    let state = json!({"snapshot": snapshot, "volume": Definition::of(&volume, "")});
    Ok(Outcome { state, ..Outcome::default() })
}

fn save(task: &Task) -> Result<Outcome> {
    if task.dry_run {
        return Ok(Outcome::default());
    }
    let State { snapshot: Some(snapshot_id), volume: Some(mut volume), taken_at } = frame::state(task)?
    else {
        let text = format!("no snapshot was taken of {}", task.resource.key);
        return Err(Error::new(ErrorKind::Other, text));
    };
    volume.taken_at = taken_at;
    task.writer()?.put_record(RECORD, json!(Saved { volume, snapshot_id }))?;
    Ok(Outcome::default())
}

async fn restore(work: &Work<'_>) -> Result<Outcome> {
    let task = work.task;
    let saved: Saved = frame::record(task, RECORD)?;
    let wanted: Wanted = frame::parameters(task)?;
    let default_name = format!("volume-{}@{}", task.checkpoint, saved.volume.id);
    let mut new = saved.volume.new_volume(&wanted, &default_name);
    new.snapshot_id = Some(saved.snapshot_id.clone());
    // A snapshot stays in the type that it was taken in, unless somebody knows better.
    new.volume_type = frame::given(wanted.volume_type.as_deref()).map(str::to_owned);
    if task.dry_run {
        let mut plan = definition::plan(work, &new).await?;
        if let Err(err) = work.cinder.snapshot(&saved.snapshot_id).await {
            let text = format!("the snapshot {} cannot be used: {}", saved.snapshot_id, err.reason());
            plan.problem = Some(plan.problem.map_or(text.clone(), |problem| format!("{problem}; {text}")));
        }
        return Ok(Outcome { plan: vec![plan], ..Outcome::default() });
    }
    let name = new.name.clone();
    let id = work.volume(&Made::product(VOLUME, "restored"), new).await?;
    work.volume_in(&id, &["available", "in-use"]).await?;
    saved.volume.apply(work, &id).await?;
    let restored = Restored { key: ResourceKey::new(kinds::VOLUME, id.clone()), name };
    Ok(Outcome { state: json!({"restored": id}), restored: Some(restored), ..Outcome::default() })
}

async fn verify(work: &Work<'_>) -> Result<Outcome> {
    let saved: Saved = frame::record(work.task, RECORD)?;
    let id = &saved.snapshot_id;
    let wrong = match work.cinder.snapshot(id).await {
        Ok(snapshot) if snapshot.status == "available" => None,
        Ok(snapshot) => Some(format!("the snapshot is in the state `{}`", snapshot.status)),
        Err(err) if err.is_not_found() => Some("the snapshot is gone".to_owned()),
        Err(err) => return Err(err).doing(|| format!("looking at snapshot {id}")),
    };
    let findings = wrong.map(|text| frame::wrong(id.clone(), text)).into_iter().collect();
    Ok(Outcome { findings, ..Outcome::default() })
}

async fn delete(work: &Work<'_>) -> Result<Outcome> {
    // Without a record nothing was saved, and what was made is the ledger's.
    if work.task.record(RECORD).is_some() {
        let saved: Saved = frame::record(work.task, RECORD)?;
        work.remove_snapshot(&saved.snapshot_id).await?;
    }
    Ok(Outcome::default())
}
