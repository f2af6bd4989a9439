//! Copies go into the bank of another provider, whatever dies on the way, and need nothing of the first bank.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use karbor_bank::{Bank, MemoryBank};
use karbor_plugin::noop::NoopProtectable;
use karbor_plugin::{
    Description, ErrorKind, Hook, KindDescription, OperationKind, Outcome, Protection, Provider, Registry,
    Schemas, Task,
};
use karbor_store::{NewCheckpoint, NewOperation, NewRestore, QuotaDefaults};
use karbor_types::{
    AccountId, CheckpointId, CheckpointState, CopySource, OperationId, OperationRequest, OperationState,
    Parameters, ProjectId, ProviderId, Resource, ResourceKey, RestoreId,
};
use karbor_vault::{Account, AccountOptions, CopyOptions, MasterKey, StreamOptions};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::house::{AtWork, House, config};
use super::outside::{Keeper, THING};
use crate::{Banks, CRASH_POINTS, CrashPoints, Dependencies, Worker};

/// A type whose plugin keeps all in the bank.
const PLAIN: &str = "Test::Plain";
/// The provider that copies go to.
const SECOND: ProviderId = ProviderId(Uuid::from_u128(0x5ec0));

/// Two banks, each of one provider.
#[derive(Debug)]
struct TwoBanks {
    banks: BTreeMap<ProviderId, MemoryBank>,
    /// Of which nothing can be opened: it is gone.
    lost: Mutex<BTreeSet<ProviderId>>,
}

#[async_trait]
impl Banks for TwoBanks {
    async fn account(&self, provider: ProviderId, project: &ProjectId) -> karbor_plugin::Result<Account> {
        let lost = self.lost.lock().unwrap().contains(&provider);
        let bank = self
            .banks
            .get(&provider)
            .filter(|_| !lost)
            .ok_or_else(|| karbor_plugin::Error::new(ErrorKind::Unavailable, "this bank is gone"))?;
        let id = AccountId::new(project.as_str()).expect("an account's id");
        let options = AccountOptions {
            memory_bytes: 64 << 20,
            threads: NonZeroUsize::MIN,
            pack_bytes: 1 << 20,
            ..AccountOptions::default()
        };
        // Each bank has a key of its own.
        let masters = [MasterKey::from_bytes([if provider == SECOND { 2 } else { 1 }; 32])];
        let bank: Arc<dyn Bank> = Arc::new(bank.clone());
        Ok(Account::open_or_create(bank, id, &masters, options).await?)
    }
}

/// Keeps the bytes of a resource in the bank and nowhere else.
#[derive(Debug, Default)]
struct Plain {
    restored: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

fn bytes(id: &str) -> Vec<u8> {
    let seed = seed_of(id);
    (0..300_000u32).map(|at| u8::try_from((at.wrapping_mul(seed) >> 11) & 0xff).unwrap()).collect()
}

fn seed_of(id: &str) -> u32 {
    id.bytes().fold(2_654_435_761, |seed, byte| (seed ^ u32::from(byte)).wrapping_mul(16_777_619)) | 1
}

#[async_trait]
impl Protection for Plain {
    fn describe(&self) -> Description {
        use OperationKind as Op;
        let main = BTreeSet::from([Hook::Main]);
        Description {
            name: "plain".to_owned(),
            version: "1".to_owned(),
            kinds: vec![KindDescription {
                kind: PLAIN.into(),
                operations: BTreeSet::from([Op::Protect, Op::Restore, Op::Verify, Op::Copy, Op::Delete]),
                schemas: Schemas::default(),
                hooks: BTreeMap::from([(Op::Protect, main.clone()), (Op::Restore, main)]),
            }],
        }
    }

    async fn run(&self, _hook: Hook, task: &Task) -> karbor_plugin::Result<Outcome> {
        let key = &task.resource.key;
        match task.operation {
            OperationKind::Protect => {
                let writer = task.writer()?;
                let options = StreamOptions::default();
                writer.put_stream("bytes", &mut Cursor::new(bytes(&key.id)), &options).await?;
                writer.put_record("facts", json!({"of": key.id}))?;
            }
            OperationKind::Restore => {
                assert_eq!(task.record("facts"), Some(&json!({"of": key.id})));
                let mut all = Vec::new();
                let stream = task.reader()?.open_stream(key, "bytes").await?;
                let options = CopyOptions { progress: None, cancel: task.cancel.clone() };
                stream.copy_out(&mut all, &options).await?;
                self.restored.lock().unwrap().insert(key.id.clone(), all);
            }
            _ => {}
        }
        Ok(Outcome::default())
    }
}

struct Pair {
    house: House,
    banks: Arc<TwoBanks>,
    registry: Arc<Registry>,
    restored: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Pair {
    async fn new() -> Self {
        let house = House::new().await;
        let restored = Arc::default();
        let mut registry = Registry::default();
        let mut plain = NoopProtectable::new(PLAIN, []);
        for id in ["one", "two"] {
            plain = plain.with(&house.project, id, id);
        }
        registry.add_protectable(Arc::new(plain)).unwrap();
        registry.add_protectable(Arc::clone(house.registry.protectable(&THING.into()).unwrap())).unwrap();
        for (id, name) in [(house.provider, "first"), (SECOND, "second")] {
            let provider = Provider::new(id, name, "", name)
                .with(Arc::new(Plain { restored: Arc::clone(&restored) }))
                .unwrap()
                .with(Arc::new(Keeper { outside: house.outside.clone() }))
                .unwrap();
            registry.add_provider(provider).unwrap();
        }
        let banks = TwoBanks {
            banks: BTreeMap::from([(house.provider, MemoryBank::new()), (SECOND, MemoryBank::new())]),
            lost: Mutex::default(),
        };
        Self { house, banks: Arc::new(banks), registry: Arc::new(registry), restored }
    }

    fn worker(&self, crash: CrashPoints) -> AtWork {
        let dependencies = Dependencies {
            registry: Arc::clone(&self.registry),
            banks: Arc::clone(&self.banks) as Arc<dyn Banks>,
            ..self.house.dependencies("test")
        };
        let worker = Worker::new(dependencies, config()).with_crash_points(crash);
        let stop = CancellationToken::new();
        let handle = worker.handle();
        let task = tokio::spawn(worker.run(stop.clone()));
        AtWork { stop, handle, task }
    }

    async fn protect(&self, kind: &str, ids: &[&str]) -> CheckpointId {
        let resource = |id: &&str| Resource {
            key: ResourceKey::new(kind, *id),
            name: (*id).to_owned(),
            extra_info: Value::Null,
        };
        self.house.protect_resources(ids.iter().map(resource).collect()).await
    }

    async fn copy(&self, source: CheckpointId) -> CheckpointId {
        let house = &self.house;
        let id = CheckpointId(house.id());
        let mut plan = house.checkpoint(source).await.plan;
        plan.provider_id = SECOND;
        let checkpoint = NewCheckpoint {
            id,
            project: house.project.clone(),
            provider: SECOND,
            plan,
            state: CheckpointState::WaitCopying,
            extra_info: Map::from_iter([("copied_from".to_owned(), json!(source.to_string()))]),
        };
        let request = OperationRequest {
            source: Some(CopySource { checkpoint: source, provider: house.provider }),
            ..OperationRequest::default()
        };
        let operation = NewOperation {
            checkpoint: Some(id),
            provider: Some(SECOND),
            ..self.operation(id.into(), OperationKind::Copy, &request)
        };
        let rows = [(checkpoint, operation)];
        house.store.create_checkpoints(&rows, &QuotaDefaults::default(), house.now()).await.unwrap();
        id
    }

    fn operation(&self, id: OperationId, kind: OperationKind, request: &OperationRequest) -> NewOperation {
        let house = &self.house;
        NewOperation {
            id,
            kind,
            project: house.project.clone(),
            user: None,
            plan: Some(house.plan),
            checkpoint: None,
            restore: None,
            verification: None,
            provider: Some(house.provider),
            priority: 0,
            due_at: house.now(),
            request: serde_json::to_value(request).unwrap(),
            log: None,
            scheduled_operation: None,
            occurrence: None,
        }
    }

    /// Loses the first bank, restores the copy, and looks at every byte.
    async fn assert_stands_alone(&self, copy: CheckpointId) {
        let house = &self.house;
        self.banks.lost.lock().unwrap().insert(house.provider);
        self.restored.lock().unwrap().clear();
        let id = RestoreId(house.id());
        let restore = NewRestore {
            id,
            project: house.project.clone(),
            provider: SECOND,
            checkpoint: copy,
            target: None,
            parameters: Parameters::default(),
        };
        let operation = NewOperation {
            checkpoint: Some(copy),
            restore: Some(id),
            provider: Some(SECOND),
            ..self.operation(OperationId(house.id()), OperationKind::Restore, &OperationRequest::default())
        };
        house.store.create_restore(&restore, &operation, house.now()).await.unwrap();
        house.succeeded(operation.id).await;
        let restored = self.restored.lock().unwrap();
        assert_eq!(restored.len(), 2);
        assert!(restored.iter().all(|(id, found)| *found == bytes(id)), "bytes differ");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_restored_after_the_first_bank_is_gone() {
    let pair = Pair::new().await;
    let worker = pair.worker(CrashPoints::default());
    let source = pair.protect(PLAIN, &["one", "two"]).await;
    pair.house.succeeded(source).await;
    let copy = pair.copy(source).await;
    let operation = pair.house.succeeded(copy).await;
    assert_eq!(operation.result["resources"].as_array().map(Vec::len), Some(2), "{operation:#?}");
    let (original, copied) = (pair.house.checkpoint(source).await, pair.house.checkpoint(copy).await);
    assert_eq!(copied.state, CheckpointState::Available);
    assert_eq!((copied.graph, copied.provider), (original.graph, SECOND));
    assert_eq!(copied.stats.map(|stats| stats.logical_bytes), Some(600_000));
    pair.assert_stands_alone(copy).await;
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_survives_a_crash_at_every_place() {
    let places = CRASH_POINTS.iter().filter(|place| place.starts_with("copy."));
    let places: Vec<_> = places.filter(|place| !place.ends_with("abandoned")).collect();
    assert!(places.len() >= 6, "{places:?}");
    for place in places {
        let pair = Pair::new().await;
        let worker = pair.worker(CrashPoints::default());
        let source = pair.protect(PLAIN, &["one", "two"]).await;
        pair.house.succeeded(source).await;
        worker.end().await;
        let there = Arc::new(Notify::new());
        let tell = Arc::clone(&there);
        let doomed = pair.worker(CrashPoints::act_at(place, Arc::new(move || tell.notify_one())).unwrap());
        let copy = pair.copy(source).await;
        let reached = tokio::time::timeout(Duration::from_secs(30), there.notified()).await;
        assert!(reached.is_ok(), "{place} is never reached");
        doomed.kill().await;
        pair.house.pass_leases();
        let worker = pair.worker(CrashPoints::default());
        let operation = pair.house.succeeded(copy).await;
        assert!(operation.attempt <= 2, "{place}: {operation:?}");
        assert_eq!(pair.house.checkpoint(copy).await.state, CheckpointState::Available, "{place}");
        let account = pair.banks.account(SECOND, &pair.house.project).await.unwrap();
        assert_eq!(account.checkpoints().await.unwrap().len(), 1, "{place}");
        pair.assert_stands_alone(copy).await;
        worker.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_plugin_keeps_outside_of_the_bank_is_not_copied() {
    let pair = Pair::new().await;
    pair.house.outside.lock().bytes.insert("web".to_owned(), vec![7; 1000]);
    let worker = pair.worker(CrashPoints::default());
    let source = pair.protect(THING, &["web"]).await;
    pair.house.succeeded(source).await;
    let copy = pair.copy(source).await;
    let operation = pair.house.ended(copy).await;
    assert_eq!(operation.state, OperationState::Failed);
    let reason = operation.reason.unwrap_or_default();
    assert!(reason.contains("web") && reason.contains("outside the bank"), "{reason}");
    assert_eq!(pair.house.checkpoint(copy).await.state, CheckpointState::Error);
    let account = pair.banks.account(SECOND, &pair.house.project).await.unwrap();
    assert!(account.checkpoints().await.unwrap().is_empty());
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_is_gone_is_told() {
    let pair = Pair::new().await;
    let worker = pair.worker(CrashPoints::default());
    let source = pair.protect(PLAIN, &["one"]).await;
    pair.house.succeeded(source).await;
    let account = pair.banks.account(pair.house.provider, &pair.house.project).await.unwrap();
    account.delete(source).await.unwrap();
    let copy = pair.copy(source).await;
    let operation = pair.house.ended(copy).await;
    assert_eq!(operation.state, OperationState::Failed);
    assert!(operation.reason.unwrap_or_default().contains("does not stand in its bank"));
    worker.end().await;
}
