//! The conformance kit passes what is good, and finds each of many faults.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use karbor_plugin::conformance::{self, Fixture};
use karbor_plugin::noop::{NoopProtectable, NoopProtection};
use karbor_plugin::{
    Context, Description, Error, ErrorKind, Finding, Hook, Intent, KindDescription, LedgerEntry, LedgerState,
    OperationKind, Outcome, PlannedAction, PlannedEffect, Protectable, Protection, Purpose, Resource,
    ResourceKey, ResourceType, Restored, Result, Schemas, Severity, Task,
};
use karbor_types::ProjectId;
use karbor_vault::{CopyOptions, StreamOptions};
use serde_json::{Map, Value, json};

const KIND: &str = "Test::Thing";
const ORIGINAL: &[u8] = b"what is to be protected";

/// What a plugin may do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    KeepsStateInItself,
    LeavesTheSnapshot,
    TellsNoLedger,
    ForgetsToCleanUp,
    RunsDryRuns,
    ProtectsForStrangers,
    IgnoresSchemas,
    IgnoresCancelling,
    TrustsTheBank,
    VerifiesNothing,
    AnnouncesNothing,
    FailsTheSecondTime,
    RestoresTheWrongBytes,
}

/// The things that exist, by name; snapshots and restored ones too.
type World = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

fn lock(world: &World) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A plugin that takes a snapshot, stores it, and restores it under a name of its operation.
#[derive(Debug)]
struct Things {
    world: World,
    fault: Fault,
    kept: Mutex<Option<String>>,
}

impl Things {
    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    async fn snapshot(&self, task: &Task) -> Result<Outcome> {
        let own = task.context.project.as_str() == "own" || self.has(Fault::ProtectsForStrangers);
        if !own || task.resource.key.id != "thing" {
            return Err(Error::new(ErrorKind::NotFound, "there is no such thing"));
        }
        let name = format!("snapshot-{}", task.operation_id);
        let intent = Intent {
            kind: "snapshot".to_owned(),
            reference: name.clone(),
            purpose: Purpose::Scaffold,
            data: Value::Null,
        };
        let entry = match self.has(Fault::TellsNoLedger) {
            true => None,
            false => Some(task.ledger.intend(intent).await?),
        };
        if self.has(Fault::FailsTheSecondTime) && lock(&self.world).contains_key(&name) {
            return Err(Error::new(ErrorKind::Conflict, "the snapshot is there already"));
        }
        let bytes = lock(&self.world).get("thing").cloned().unwrap_or_default();
        lock(&self.world).insert(name.clone(), bytes);
        tokio::task::yield_now().await;
        if let Some(entry) = entry {
            task.ledger.created(entry, &name).await?;
        }
        if self.has(Fault::KeepsStateInItself) {
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(name);
            return Ok(Outcome::default());
        }
        Ok(Outcome { state: json!({"snapshot": name}), ..Outcome::default() })
    }

    async fn store(&self, task: &Task) -> Result<Outcome> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(name) = task.state["snapshot"].as_str().map(str::to_owned).or(kept) else {
            return Err(Error::new(ErrorKind::NotFound, "there is no snapshot"));
        };
        let bytes = lock(&self.world).get(&name).cloned().unwrap_or_default();
        task.writer()?.put_stream("data", &mut bytes.as_slice(), &StreamOptions::default()).await?;
        task.writer()?.put_record("thing", json!({"size": bytes.len()}))?;
        Ok(Outcome::default())
    }

    async fn release(&self, task: &Task) -> Result<Outcome> {
        for entry in task.ledger.entries().await? {
            if entry.is_open() && !self.has(Fault::LeavesTheSnapshot) {
                lock(&self.world).remove(&entry.reference);
                task.ledger.removed(entry.id).await?;
            }
        }
        Ok(Outcome::default())
    }

    async fn restore(&self, task: &Task) -> Result<Outcome> {
        let name = format!("restored-{}", task.operation_id);
        if task.dry_run && !self.has(Fault::RunsDryRuns) {
            let (subject, details) = (name, Value::Null);
            let action = PlannedAction {
                effect: PlannedEffect::Create,
                subject,
                details,
                problem: None,
                needs: Vec::new(),
            };
            return Ok(Outcome { plan: vec![action], ..Outcome::default() });
        }
        let mut bytes = Vec::new();
        let stream = task.reader()?.open_stream(&task.resource.key, "data").await?;
        let copied = stream.copy_out(&mut bytes, &CopyOptions::default()).await;
        if let Err(err) = copied
            && !self.has(Fault::TrustsTheBank)
        {
            return Err(err.into());
        }
        if self.has(Fault::RestoresTheWrongBytes) {
            bytes.push(b'!');
        }
        let intent = Intent {
            kind: "thing".to_owned(),
            reference: name.clone(),
            purpose: Purpose::Product,
            data: Value::Null,
        };
        let entry = task.ledger.intend(intent).await?;
        lock(&self.world).insert(name.clone(), bytes);
        tokio::task::yield_now().await;
        task.ledger.created(entry, &name).await?;
        let restored = Restored { key: ResourceKey::new(KIND, name.as_str()), name };
        Ok(Outcome {
            restored: (!self.has(Fault::AnnouncesNothing)).then_some(restored),
            ..Outcome::default()
        })
    }

    async fn verify(&self, task: &Task) -> Result<Outcome> {
        if self.has(Fault::VerifiesNothing) {
            return Ok(Outcome::default());
        }
        let stream = task.reader()?.open_stream(&task.resource.key, "data").await?;
        let findings = match stream.copy_out(&mut Vec::new(), &CopyOptions::default()).await {
            Ok(_) => Vec::new(),
            Err(err) => vec![Finding {
                severity: Severity::Error,
                subject: "data".to_owned(),
                message: err.to_string(),
            }],
        };
        Ok(Outcome { findings, ..Outcome::default() })
    }
}

#[async_trait]
impl Protection for Things {
    fn describe(&self) -> Description {
        use OperationKind as Op;
        let options =
            json!({"type": "object", "properties": {"force": {"type": "boolean", "default": false}}});
        let options = if self.has(Fault::IgnoresSchemas) {
            json!({"properties": {"force": {"type": "boolean"}}, "additionalProperties": true})
        } else {
            options
        };
        let kind = KindDescription {
            kind: ResourceType::from(KIND),
            operations: BTreeSet::from([Op::Protect, Op::Restore, Op::Verify, Op::Delete]),
            schemas: Schemas { options, ..Schemas::default() },
            hooks: BTreeMap::from([
                (Op::Protect, BTreeSet::from([Hook::PrepareFinish, Hook::Main, Hook::Complete])),
                (Op::Restore, BTreeSet::from([Hook::Main])),
                (Op::Verify, BTreeSet::from([Hook::Main])),
            ]),
        };
        Description { name: "things".to_owned(), version: "1".to_owned(), kinds: vec![kind] }
    }

    async fn run(&self, hook: Hook, task: &Task) -> Result<Outcome> {
        if task.cancel.is_cancelled() {
            return match self.has(Fault::IgnoresCancelling) {
                true => Err(Error::new(ErrorKind::Other, "something broke")),
                false => Err(Error::cancelled()),
            };
        }
        match (task.operation, hook) {
            (OperationKind::Protect, Hook::PrepareFinish) => self.snapshot(task).await,
            (OperationKind::Protect, Hook::Main) => self.store(task).await,
            (OperationKind::Protect, Hook::Complete) => self.release(task).await,
            (OperationKind::Restore, Hook::Main) => self.restore(task).await,
            (OperationKind::Verify, Hook::Main) => self.verify(task).await,
            _ => Ok(Outcome::default()),
        }
    }

    async fn clean_up(&self, _task: &Task, entry: &LedgerEntry) -> Result<()> {
        if !self.has(Fault::ForgetsToCleanUp) && entry.state != LedgerState::Removed {
            lock(&self.world).remove(&entry.reference);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Thing {
    world: World,
    fault: Fault,
}

#[async_trait]
impl Fixture for Thing {
    fn protection(&self) -> Arc<dyn Protection> {
        Arc::new(Things { world: Arc::clone(&self.world), fault: self.fault, kept: Mutex::new(None) })
    }

    fn protectables(&self) -> Vec<Arc<dyn Protectable>> {
        vec![Arc::new(NoopProtectable::new(KIND, []).with(&self.context().project, "thing", "a thing"))]
    }

    fn context(&self) -> Context {
        Context::new(ProjectId::new("own").expect("a project id"))
    }

    fn stranger(&self) -> Context {
        Context::new(ProjectId::new("stranger").expect("a project id"))
    }

    fn resource(&self) -> Resource {
        Resource { key: ResourceKey::new(KIND, "thing"), name: "a thing".to_owned(), extra_info: Value::Null }
    }

    fn restore_parameters(&self) -> Map<String, Value> {
        Map::new()
    }

    async fn reset(&self) {
        *lock(&self.world) = BTreeMap::from([("thing".to_owned(), ORIGINAL.to_vec())]);
    }

    async fn lose(&self) {
        lock(&self.world).remove("thing");
    }

    async fn check(&self, restored: &Restored) -> std::result::Result<(), String> {
        match lock(&self.world).get(&restored.name) {
            Some(bytes) if bytes == ORIGINAL => Ok(()),
            other => Err(format!("it is {other:?}")),
        }
    }

    async fn fingerprint(&self) -> String {
        format!("{:?}", lock(&self.world))
    }
}

#[tokio::test]
async fn the_kit_passes_a_good_plugin_and_finds_every_fault() {
    let faults = [
        (Fault::None, ""),
        (Fault::KeepsStateInItself, "what was lost comes back"),
        (Fault::LeavesTheSnapshot, "what was lost comes back"),
        (Fault::TellsNoLedger, "what was lost comes back"),
        (Fault::ForgetsToCleanUp, "a protect that is given up leaves nothing"),
        (Fault::RunsDryRuns, "a dry run changes nothing"),
        (Fault::ProtectsForStrangers, "another project sees nothing"),
        (Fault::IgnoresSchemas, "parameters are held to their schemas"),
        (Fault::IgnoresCancelling, "cancelling is heard"),
        (Fault::TrustsTheBank, "what is damaged is not taken for whole"),
        (Fault::VerifiesNothing, "what is damaged is not taken for whole"),
        (Fault::AnnouncesNothing, "what was lost comes back"),
        (Fault::FailsTheSecondTime, "every hook may be run twice"),
        (Fault::RestoresTheWrongBytes, "what was lost comes back"),
    ];
    let mut wrong = Vec::new();
    for (fault, check) in faults {
        let thing = Thing { world: World::default(), fault };
        let found = conformance::run(&thing).await.err();
        if found.as_ref().map_or("", |failure| failure.check.as_str()) != check {
            wrong.push(format!("{fault:?}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Something whose plugin does nothing.
struct Nothing;

#[async_trait]
impl Fixture for Nothing {
    fn protection(&self) -> Arc<dyn Protection> {
        Arc::new(NoopProtection::new([ResourceType::from(KIND)]))
    }

    fn protectables(&self) -> Vec<Arc<dyn Protectable>> {
        vec![Arc::new(NoopProtectable::new(KIND, []).with(&self.context().project, "thing", ""))]
    }

    fn context(&self) -> Context {
        Context::new(ProjectId::new("own").expect("a project id"))
    }

    fn stranger(&self) -> Context {
        Context::new(ProjectId::new("stranger").expect("a project id"))
    }

    fn resource(&self) -> Resource {
        Resource { key: ResourceKey::new(KIND, "thing"), name: String::new(), extra_info: Value::Null }
    }

    fn restore_parameters(&self) -> Map<String, Value> {
        Map::new()
    }

    fn stores_data(&self) -> bool {
        false
    }

    async fn reset(&self) {}

    async fn lose(&self) {}

    async fn check(&self, _restored: &Restored) -> std::result::Result<(), String> {
        Ok(())
    }

    async fn fingerprint(&self) -> String {
        String::new()
    }
}

#[tokio::test]
async fn the_plugin_that_does_nothing_conforms() {
    assert_eq!(conformance::run(&Nothing).await, Ok(()));
}
