//! A small world outside the bank, and the plugin that protects what is in it.
//!
//! A thing has bytes. To be protected it is held still, a snapshot is taken, it is let go, the snapshot is stored,
//! and a copy is kept outside the bank as well; then the snapshot goes. The world counts what goes wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use karbor_plugin::{
    Context, Description, Error, ErrorKind, Finding, InstancePage, Intent, KindDescription, LedgerEntry,
    Mapped, Need, Outcome, Page, PlannedAction, PlannedEffect, Protectable, Protection, Purpose, Restored,
    Result, Schemas, Severity, Task,
};
use karbor_types::{Hook, OperationKind, ProjectId, Resource, ResourceKey, ResourceType};
use karbor_vault::{CopyOptions, StreamOptions};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

/// The type of all things.
pub(super) const THING: &str = "Test::Thing";

/// What is outside.
#[derive(Debug, Default)]
pub(super) struct Things {
    /// The bytes of each thing, by id.
    pub(super) bytes: BTreeMap<String, Vec<u8>>,
    /// What hangs below each thing.
    pub(super) below: BTreeMap<String, Vec<String>>,
    /// Things that are held still.
    pub(super) still: BTreeSet<String>,
    /// Snapshots by name.
    pub(super) snapshots: BTreeMap<String, Vec<u8>>,
    /// Copies outside the bank, by name.
    pub(super) copies: BTreeSet<String>,
    /// What was restored.
    pub(super) restored: BTreeMap<String, Vec<u8>>,
    /// Hooks in the order of their beginning.
    pub(super) calls: Vec<(OperationKind, Hook, String)>,
    /// Hooks that are to fail.
    pub(super) faults: Vec<Fault>,
    /// A hook that waits until it is let through or cancelled.
    pub(super) gate: Option<(OperationKind, Hook, String)>,
    /// How many hooks run now, and how many did at most.
    pub(super) running: usize,
    pub(super) most_running: usize,
    /// Cleaning up fails so often.
    pub(super) unclean: usize,
    /// How many more things there may be.
    pub(super) room: Option<u64>,
}

/// How a hook fails.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) operation: OperationKind,
    pub(super) hook: Hook,
    pub(super) id: String,
    pub(super) how: How,
    /// How many times more.
    pub(super) times: usize,
}

/// How a hook fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// With an error, before it has done anything.
    Before(ErrorKind),
    /// With an error, after it has done its work.
    After(ErrorKind),
    /// It panics.
    Panic,
    /// It reports an error, and says that it went through.
    Finding,
    /// The source breaks off.
    Short,
}

/// The world, as plugins and tests share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Outside {
    things: Arc<Mutex<Things>>,
    /// Somebody stands at the gate.
    pub(super) at_gate: Arc<Notify>,
    /// The gate opens.
    pub(super) open: Arc<Notify>,
}

impl Outside {
    pub(super) fn lock(&self) -> MutexGuard<'_, Things> {
        self.things.lock().unwrap()
    }

    /// Adds a thing with some bytes that no other has.
    pub(super) fn add(&self, id: &str, below: &[&str]) {
        let mut things = self.lock();
        let seed = blake_like(id);
        let bytes = (0..300_000_u64).map(|n| (n.wrapping_mul(seed | 1) >> 11).to_le_bytes()[0]).collect();
        things.bytes.insert(id.to_owned(), bytes);
        things.below.insert(id.to_owned(), below.iter().map(|id| (*id).to_owned()).collect());
    }

    pub(super) fn fail(&self, operation: OperationKind, hook: Hook, id: &str, how: How) {
        self.fail_times(operation, hook, id, how, usize::MAX);
    }

    pub(super) fn fail_times(&self, operation: OperationKind, hook: Hook, id: &str, how: How, times: usize) {
        self.lock().faults.push(Fault { operation, hook, id: id.to_owned(), how, times });
    }

    /// Lets a hook wait for [`Outside::open`].
    pub(super) fn close_gate(&self, operation: OperationKind, hook: Hook, id: &str) {
        self.lock().gate = Some((operation, hook, id.to_owned()));
    }

    pub(super) fn calls_of(&self, operation: OperationKind) -> Vec<(Hook, String)> {
        let things = self.lock();
        let of = things.calls.iter().filter(|call| call.0 == operation);
        of.map(|(_, hook, id)| (*hook, id.clone())).collect()
    }

    /// Nothing is left of what was needed only on the way.
    pub(super) fn assert_tidy(&self) {
        let things = self.lock();
        assert!(things.still.is_empty(), "still held: {:?}", things.still);
        assert!(things.snapshots.is_empty(), "left snapshots: {:?}", things.snapshots.keys());
    }
}

/// A number that differs for different texts, well enough.
fn blake_like(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

pub(super) fn key(id: &str) -> ResourceKey {
    ResourceKey::new(THING, id)
}

pub(super) fn resource(id: &str) -> Resource {
    Resource { key: key(id), name: format!("thing {id}"), extra_info: Value::Null }
}

/// Lists the things, for one project.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) outside: Outside,
    pub(super) project: ProjectId,
}

#[async_trait]
impl Protectable for Listing {
    fn kind(&self) -> ResourceType {
        THING.into()
    }

    fn parents(&self) -> Vec<ResourceType> {
        vec![THING.into()]
    }

    async fn list(&self, _ctx: &Context, _page: &Page) -> Result<InstancePage> {
        let instances = self.outside.lock().bytes.keys().map(|id| resource(id)).collect();
        Ok(InstancePage { instances, next: None })
    }

    async fn show(&self, ctx: &Context, id: &str, _parameters: &Map<String, Value>) -> Result<Resource> {
        if ctx.project != self.project || !self.outside.lock().bytes.contains_key(id) {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no thing {id}")));
        }
        Ok(resource(id))
    }

    async fn dependents(&self, _ctx: &Context, parent: &Resource) -> Result<Vec<Resource>> {
        let things = self.outside.lock();
        Ok(things.below.get(&parent.key.id).into_iter().flatten().map(|id| resource(id)).collect())
    }
}

/// Protects things.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) outside: Outside,
}

#[async_trait]
impl Protection for Keeper {
    fn describe(&self) -> Description {
        use OperationKind as Op;
        let all: BTreeSet<Hook> = Hook::ALL.iter().copied().collect();
        let hooks = BTreeMap::from([
            (Op::Protect, all),
            (Op::Restore, BTreeSet::from([Hook::Main, Hook::Complete])),
            (Op::Verify, BTreeSet::from([Hook::Main])),
            (Op::Delete, BTreeSet::from([Hook::Main])),
        ]);
        Description {
            name: "test-things".to_owned(),
            version: "1".to_owned(),
            kinds: vec![KindDescription {
                kind: THING.into(),
                operations: hooks.keys().copied().collect(),
                schemas: Schemas::default(),
                hooks,
            }],
        }
    }

    async fn run(&self, hook: Hook, task: &Task) -> Result<Outcome> {
        let id = task.resource.key.id.clone();
        let gated = {
            let mut things = self.outside.lock();
            things.calls.push((task.operation, hook, id.clone()));
            things.running += 1;
            things.most_running = things.most_running.max(things.running);
            let gated = things.gate.as_ref() == Some(&(task.operation, hook, id.clone()));
            if gated {
                things.gate = None;
            }
            gated
        };
        let _running = Running(&self.outside);
        if gated {
            self.outside.at_gate.notify_one();
            tokio::select! {
                () = self.outside.open.notified() => {}
                () = task.cancel.cancelled() => return Err(Error::cancelled()),
            }
        }
        let fault = self.fault(task.operation, hook, &id);
        match fault {
            Some(How::Before(kind)) => return Err(Error::new(kind, format!("{kind} on purpose"))),
            Some(How::Panic) => panic!("on purpose"),
            _ => {}
        }
        task.check_cancelled()?;
        let mut outcome = match task.operation {
            OperationKind::Protect => self.protect(hook, task, &id, fault).await?,
            OperationKind::Restore => self.restore(hook, task, &id).await?,
            OperationKind::Verify => self.verify(task, &id).await?,
            OperationKind::Delete => self.delete(task)?,
            OperationKind::Copy | OperationKind::Sweep => Outcome::default(),
        };
        match fault {
            Some(How::After(kind)) => return Err(Error::new(kind, format!("{kind} on purpose"))),
            Some(How::Finding) => outcome.findings.push(Finding {
                severity: Severity::Error,
                subject: id,
                message: "wrong on purpose".to_owned(),
            }),
            _ => {}
        }
        Ok(outcome)
    }

    async fn clean_up(&self, task: &Task, entry: &LedgerEntry) -> Result<()> {
        let mut things = self.outside.lock();
        if things.unclean > 0 {
            things.unclean -= 1;
            return Err(Error::new(ErrorKind::Other, "not now, on purpose"));
        }
        match entry.kind.as_str() {
            "stillness" => drop(things.still.remove(&task.resource.key.id)),
            "snapshot" => drop(things.snapshots.remove(&entry.reference)),
            "copy" => drop(things.copies.remove(&entry.reference)),
            "thing" => drop(things.restored.remove(&entry.reference)),
            other => return Err(Error::new(ErrorKind::Unsupported, format!("what is a {other}?"))),
        }
        Ok(())
    }
}

/// Counts a hook as running.
struct Running<'a>(&'a Outside);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // A test that panicked has poisoned the lock, and does not count any more.
        if let Ok(mut things) = self.0.things.lock() {
            things.running -= 1;
        }
    }
}

/// Reads so many bytes and breaks off.
struct Breaking {
    bytes: Cursor<Vec<u8>>,
}

impl tokio::io::AsyncRead for Breaking {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = std::pin::Pin::new(&mut self.bytes).poll_read(cx, buf);
        if buf.filled().len() == before {
            return std::task::Poll::Ready(Err(std::io::Error::other("broken off on purpose")));
        }
        polled
    }
}

impl Keeper {
    fn fault(&self, operation: OperationKind, hook: Hook, id: &str) -> Option<How> {
        let mut things = self.outside.lock();
        let fault = things.faults.iter_mut().find(|fault| {
            fault.operation == operation && fault.hook == hook && fault.id == id && fault.times > 0
        })?;
        fault.times -= 1;
        Some(fault.how)
    }

    async fn protect(&self, hook: Hook, task: &Task, id: &str, fault: Option<How>) -> Result<Outcome> {
        let name = format!("{}/{id}", task.operation_id);
        let intent = |kind: &str, purpose| Intent {
            kind: kind.to_owned(),
            reference: name.clone(),
            purpose,
            data: Value::Null,
        };
        match hook {
            Hook::PrepareBegin => {
                let entry = task.ledger.intend(intent("stillness", Purpose::Scaffold)).await?;
                self.outside.lock().still.insert(id.to_owned());
                task.ledger.created(entry, &name).await?;
                Ok(Outcome { state: json!({"stillness": entry}), ..Outcome::default() })
            }
            Hook::PrepareFinish => {
                let entry = task.ledger.intend(intent("snapshot", Purpose::Scaffold)).await?;
                {
                    let mut things = self.outside.lock();
                    let bytes = things.bytes.get(id).cloned().unwrap_or_default();
                    // A snapshot that is there already is the one of an earlier attempt.
                    things.snapshots.entry(name.clone()).or_insert(bytes);
                    things.still.remove(id);
                }
                task.ledger.created(entry, &name).await?;
                if let Ok(stillness) = serde_json::from_value(task.state["stillness"].clone()) {
                    task.ledger.removed(stillness).await?;
                }
                Ok(Outcome { state: json!({"snapshot": name}), ..Outcome::default() })
            }
            Hook::Main => {
                let snapshot =
                    self.outside.lock().snapshots.get(&name).cloned().ok_or_else(|| {
                        Error::new(ErrorKind::NotFound, format!("the snapshot {name} is gone"))
                    })?;
                let size = snapshot.len();
                let entry = task.ledger.intend(intent("copy", Purpose::Product)).await?;
                self.outside.lock().copies.insert(name.clone());
                task.ledger.created(entry, &name).await?;
                let writer = task.writer()?;
                let options = StreamOptions {
                    expected_bytes: Some(size as u64),
                    progress: Some(Arc::clone(&task.progress)),
                    cancel: task.cancel.clone(),
                };
                if fault == Some(How::Short) {
                    let mut source = Breaking { bytes: Cursor::new(snapshot[..size / 2].to_vec()) };
                    writer.put_stream("bytes", &mut source, &options).await?;
                } else {
                    writer.put_stream("bytes", &mut Cursor::new(snapshot), &options).await?;
                }
                writer.put_record("facts", json!({"size": size, "copy": name}))?;
                Ok(Outcome::default())
            }
            Hook::Complete => {
                self.outside.lock().snapshots.remove(&name);
                for entry in task.ledger.entries().await? {
                    if entry.kind == "snapshot" && entry.is_open() {
                        task.ledger.removed(entry.id).await?;
                    }
                }
                Ok(Outcome::default())
            }
        }
    }

    async fn restore(&self, hook: Hook, task: &Task, id: &str) -> Result<Outcome> {
        // The same new id in every attempt.
        let new = format!("{id}-{}", &task.operation_id.to_string()[..8]);
        for child in &task.children {
            let announced = task.restored.contains_key(&child.resource.key);
            // What a child says of its parts comes in the dry run too.
            let part = part_of(&child.resource.key.id);
            if !announced || !task.restored.contains_key(&part) {
                return Err(Error::new(
                    ErrorKind::Other,
                    format!("{} is not restored yet", child.resource.key),
                ));
            }
        }
        if hook == Hook::Complete {
            return Ok(Outcome::default());
        }
        if task.dry_run {
            let problem = self.outside.lock().restored.contains_key(&new).then(|| "it exists".to_owned());
            let action = PlannedAction {
                effect: PlannedEffect::Create,
                subject: new.clone(),
                details: json!({}),
                problem,
                needs: vec![Need { of: "things".to_owned(), amount: 1, free: self.outside.lock().room }],
            };
            let restored = Some(Restored { key: key(&new), name: String::new() });
            return Ok(Outcome {
                plan: vec![action],
                restored,
                mapped: parts(id, &new),
                ..Outcome::default()
            });
        }
        let bytes = read(task).await?;
        let intent = Intent {
            kind: "thing".to_owned(),
            reference: new.clone(),
            purpose: Purpose::Product,
            data: Value::Null,
        };
        let entry = task.ledger.intend(intent).await?;
        self.outside.lock().restored.insert(new.clone(), bytes);
        task.ledger.created(entry, &new).await?;
        let restored = Some(Restored { key: key(&new), name: format!("thing {new}") });
        Ok(Outcome { restored, mapped: parts(id, &new), ..Outcome::default() })
    }

    async fn verify(&self, task: &Task, id: &str) -> Result<Outcome> {
        let bytes = read(task).await?;
        let facts = task.record("facts").cloned().unwrap_or_default();
        if facts["size"] != json!(bytes.len()) {
            return Err(Error::new(ErrorKind::Damaged, format!("{id} has another size")));
        }
        Ok(Outcome::default())
    }

    fn delete(&self, task: &Task) -> Result<Outcome> {
        let facts = task.record("facts").ok_or_else(|| {
            Error::new(ErrorKind::Other, "the record of what is outside is gone".to_owned())
        })?;
        let name = facts["copy"].as_str().unwrap_or_default();
        self.outside.lock().copies.remove(name);
        Ok(Outcome::default())
    }
}

/// Returns the key of the one part that every thing has.
fn part_of(id: &str) -> ResourceKey {
    ResourceKey::new("Test::Part", format!("part of {id}"))
}

fn parts(id: &str, new: &str) -> Vec<Mapped> {
    vec![Mapped { from: part_of(id), to: part_of(new) }]
}

/// Reads a resource's stream.
async fn read(task: &Task) -> Result<Vec<u8>> {
    let stream = task.reader()?.open_stream(&task.resource.key, "bytes").await?;
    let mut bytes = Vec::new();
    let options = CopyOptions { progress: Some(Arc::clone(&task.progress)), cancel: task.cancel.clone() };
    stream.copy_out(&mut bytes, &options).await?;
    Ok(bytes)
}
