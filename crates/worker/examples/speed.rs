//! Measures what the worker costs: the seconds to an `available` checkpoint of a plan whose plugin does nothing, and
//! the time that bytes take through the worker beside that of the data engine alone.
//!
//! `cargo run --release -p karbor-worker --example speed -- noop 1000 0` (resources, hooks of each: 0 to 4)
//! `cargo run --release -p karbor-worker --example speed -- bytes 1024 8` (MiB, resources)
//!
//! Database and bank lie in a directory below the current one, so that what is durable is as slow as it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::sync::Arc;
use std::time::{Duration, Instant as Moment};

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use karbor_bank::FileSystemBank;
use karbor_plugin::{
    Context, Description, InstancePage, KindDescription, Outcome, Page, Protectable, Protection, Provider,
    Registry, Schemas, Task,
};
use karbor_store::{NewCheckpoint, NewOperation, PlanSnapshot, QuotaDefaults, Store, StoreOptions};
use karbor_types::{
    AccountId, CheckpointId, CheckpointState, Epoch, Hook, Instant, OperationKind, OperationLogId, PlanId,
    ProjectId, ProviderId, Resource, ResourceKey, ResourceType,
};
use karbor_vault::{Account, AccountOptions, BeginOptions, MasterKey, SessionId, StreamOptions};
use karbor_worker::{Banks, Dependencies, Worker, WorkerConfig};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const KIND: &str = "Speed::Thing";

/// Resources that are numbers.
#[derive(Debug)]
struct Numbers;

fn number(id: &str) -> Resource {
    Resource { key: ResourceKey::new(KIND, id), name: String::new(), extra_info: Value::Null }
}

#[async_trait]
impl Protectable for Numbers {
    fn kind(&self) -> ResourceType {
        KIND.into()
    }

    fn parents(&self) -> Vec<ResourceType> {
        Vec::new()
    }

    async fn list(&self, _ctx: &Context, _page: &Page) -> karbor_plugin::Result<InstancePage> {
        Ok(InstancePage::default())
    }

    async fn show(
        &self,
        _ctx: &Context,
        id: &str,
        _parameters: &Map<String, Value>,
    ) -> karbor_plugin::Result<Resource> {
        Ok(number(id))
    }

    async fn dependents(&self, _ctx: &Context, _parent: &Resource) -> karbor_plugin::Result<Vec<Resource>> {
        Ok(Vec::new())
    }
}

/// Does nothing in some hooks, or stores bytes in the main one.
#[derive(Debug)]
struct Plugin {
    hooks: usize,
    bytes: Option<Arc<Vec<Vec<u8>>>>,
}

#[async_trait]
impl Protection for Plugin {
    fn describe(&self) -> Description {
        let order = [Hook::Main, Hook::Complete, Hook::PrepareBegin, Hook::PrepareFinish];
        let hooks: BTreeSet<Hook> = order.into_iter().take(self.hooks).collect();
        let kind = KindDescription {
            kind: KIND.into(),
            operations: BTreeSet::from([OperationKind::Protect]),
            schemas: Schemas::default(),
            hooks: BTreeMap::from([(OperationKind::Protect, hooks)]),
        };
        Description { name: "speed".to_owned(), version: "1".to_owned(), kinds: vec![kind] }
    }

    async fn run(&self, hook: Hook, task: &Task) -> karbor_plugin::Result<Outcome> {
        if let (Some(bytes), Hook::Main) = (&self.bytes, hook) {
            let index: usize = task.resource.key.id.parse().unwrap_or_default();
            let options = StreamOptions {
                progress: Some(Arc::clone(&task.progress)),
                cancel: task.cancel.clone(),
                ..StreamOptions::default()
            };
            let mut source = Cursor::new(bytes[index].as_slice());
            task.writer()?.put_stream("bytes", &mut source, &options).await?;
        }
        Ok(Outcome::default())
    }
}

#[derive(Debug)]
struct One(Account);

#[async_trait]
impl Banks for One {
    async fn account(&self, _: ProviderId, _: &ProjectId) -> karbor_plugin::Result<Account> {
        Ok(self.0.clone())
    }
}

async fn account(directory: &std::path::Path, name: &str) -> Result<Account> {
    let path = directory.join(name);
    let bank = Arc::new(FileSystemBank::create(&path)?);
    let masters = [MasterKey::from_bytes([7; 32])];
    let id = AccountId::new("speed")?;
    Ok(Account::open_or_create(bank, id, &masters, AccountOptions::default()).await?)
}

fn now() -> Instant {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Instant::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Protects the resources through the worker, and returns the seconds from the request to `available`.
async fn through_worker(
    directory: &std::path::Path,
    account: Account,
    plugin: Plugin,
    resources: usize,
) -> Result<f64> {
    let url = format!("sqlite:{}", directory.join(format!("{}.sqlite", Uuid::new_v4())).display());
    let store = Store::open(&url, &StoreOptions::default()).await?;
    store.migrate().await?;
    let provider = ProviderId(Uuid::from_u128(1));
    let project = ProjectId::new("speed")?;
    let mut registry = Registry::default();
    registry.add_protectable(Arc::new(Numbers))?;
    registry.add_provider(Provider::new(provider, "speed", "", "speed").with(Arc::new(plugin))?)?;
    let dependencies = Dependencies {
        store: store.clone(),
        registry: Arc::new(registry),
        banks: Arc::new(One(account)),
        clock: Arc::new(now),
        owner: "speed".to_owned(),
    };
    let worker = Worker::new(dependencies, WorkerConfig::default());
    let (handle, stop) = (worker.handle(), CancellationToken::new());
    let running = tokio::spawn(worker.run(stop.clone()));
    let id = CheckpointId(Uuid::new_v4());
    let plan = PlanId(Uuid::from_u128(2));
    let resources: Vec<Resource> = (0..resources).map(|index| number(&index.to_string())).collect();
    let checkpoint = NewCheckpoint {
        id,
        project: project.clone(),
        provider,
        plan: PlanSnapshot { id: plan, name: "speed".to_owned(), provider_id: provider, resources },
        state: CheckpointState::Protecting,
        extra_info: Map::new(),
    };
    let operation = NewOperation {
        id: id.into(),
        kind: OperationKind::Protect,
        project,
        user: None,
        plan: Some(plan),
        checkpoint: Some(id),
        restore: None,
        verification: None,
        provider: Some(provider),
        priority: 0,
        due_at: now(),
        request: Value::Null,
        log: Some(OperationLogId(Uuid::new_v4())),
        scheduled_operation: None,
        occurrence: None,
    };
    let begin = Moment::now();
    store.create_checkpoint(&checkpoint, &operation, &QuotaDefaults::default(), now()).await?;
    handle.wake();
    loop {
        let row = store.get_checkpoint(id).await?;
        match row.state {
            CheckpointState::Available => break,
            CheckpointState::Protecting => tokio::time::sleep(Duration::from_millis(2)).await,
            other => bail!("the checkpoint is {other}: {:?}", row.reason),
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    stop.cancel();
    running.await??;
    Ok(seconds)
}

/// Stores the same streams with the data engine alone, as many at once as the worker would.
async fn engine_alone(account: &Account, bytes: &Arc<Vec<Vec<u8>>>) -> Result<f64> {
    let begin = Moment::now();
    let id = Uuid::new_v4();
    let writer = account.begin(&SessionId::new(id, Epoch(1)), &BeginOptions::default()).await?;
    let mut tasks = tokio::task::JoinSet::new();
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    for _ in 0..WorkerConfig::default().moving.get() {
        let (writer, bytes, next) = (writer.clone(), Arc::clone(bytes), Arc::clone(&next));
        tasks.spawn(async move {
            loop {
                let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let Some(source) = bytes.get(index) else { return anyhow::Ok(()) };
                let scope = writer.resource(&number(&index.to_string()).key);
                scope
                    .put_stream("bytes", &mut Cursor::new(source.as_slice()), &StreamOptions::default())
                    .await?;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    writer.commit(CheckpointId(id), now(), Value::Null).await?;
    Ok(begin.elapsed().as_secs_f64())
}

/// Bytes that compress to about the half, different for each resource and round.
fn source(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&(state & 0x0f0f_0f0f_0f0f_0f0f).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "it is a program that tells figures")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number_at = |index: usize| -> Result<usize> {
        arguments.get(index).context("too few arguments")?.parse().context("a number is wanted")
    };
    let directory = tempfile::tempdir_in(".")?;
    match arguments.first().map(String::as_str) {
        Some("noop") => {
            let (resources, hooks) = (number_at(1)?, number_at(2)?);
            let account = account(directory.path(), "bank").await?;
            let plugin = Plugin { hooks, bytes: None };
            let seconds = through_worker(directory.path(), account, plugin, resources).await?;
            println!("{resources} resources with {hooks} hooks each: available after {seconds:.3} s");
        }
        Some("bytes") => {
            let (mib, resources) = (number_at(1)?, number_at(2)?);
            let size = (mib << 20) / resources;
            for round in 0..4_u64 {
                let seed = |index: usize| round * 1000 + index as u64 + 1;
                let bytes: Vec<Vec<u8>> = (0..resources).map(|index| source(seed(index), size)).collect();
                let bytes = Arc::new(bytes);
                let mine = account(directory.path(), &format!("engine-{round}")).await?;
                let alone = engine_alone(&mine, &bytes).await?;
                let other = account(directory.path(), &format!("worker-{round}")).await?;
                let plugin = Plugin { hooks: 1, bytes: Some(bytes) };
                let worker = through_worker(directory.path(), other, plugin, resources).await?;
                let more = (worker / alone - 1.0) * 100.0;
                println!(
                    "{mib} MiB in {resources}: engine {alone:.3} s, worker {worker:.3} s ({more:+.1} %)"
                );
            }
        }
        _ => bail!("what shall be measured: noop RESOURCES HOOKS, or bytes MIB RESOURCES"),
    }
    Ok(())
}
