//! A whole house for one test: database, bank, plugins, a clock that can be put forward, and workers.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use karbor_bank::wrap::{Faulty, Hooked};
use karbor_bank::{Bank, MemoryBank};
use karbor_plugin::noop::{NoopProtectable, NoopProtection};
use karbor_plugin::{Error, ErrorKind, Provider, Registry};
use karbor_store::{
    Checkpoint, DeletionCause, NewCheckpoint, NewOperation, NewRestore, NewVerification, Operation,
    PlanSnapshot, QuotaDefaults, Reopening, Store, StoreOptions,
};
use karbor_types::{
    AccountId, CheckpointId, CheckpointState, Instant, OperationId, OperationKind, OperationLogId,
    OperationRequest, OperationState, Parameters, PlanId, ProjectId, ProviderId, Resource, ResourceKey,
    RestoreId, VerificationId,
};
use karbor_vault::{Account, AccountOptions, MasterKey};
use serde_json::{Map, json};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::outside::{Keeper, Listing, Outside, THING, resource};
use crate::{Banks, CrashPoints, Dependencies, Worker, WorkerConfig, WorkerHandle};

/// A type whose plugin does nothing.
pub(super) const NOTHING: &str = "Test::Nothing";
/// How long anything may take before a test gives up.
const LIMIT: Duration = Duration::from_secs(120);

pub(super) struct House {
    _directory: TempDir,
    pub(super) store: Store,
    pub(super) memory: MemoryBank,
    pub(super) bank: Arc<Faulty>,
    pub(super) outside: Outside,
    pub(super) registry: Arc<Registry>,
    pub(super) banks: Arc<OneBank>,
    clock: Arc<AtomicI64>,
    pub(super) project: ProjectId,
    pub(super) provider: ProviderId,
    pub(super) plan: PlanId,
    ids: AtomicI64,
}

/// Opens accounts of one bank, as a process does.
#[derive(Debug)]
pub(super) struct OneBank {
    bank: Arc<dyn Bank>,
    accounts: Mutex<BTreeMap<ProjectId, Account>>,
    process: Mutex<Arc<Process>>,
    /// Why no account can be opened.
    pub(super) trouble: Mutex<Option<ErrorKind>>,
}

/// A process, as the bank sees it: what a dead one has under way never goes on.
#[derive(Debug, Default)]
pub(super) struct Process {
    dead: AtomicBool,
    /// It dies when so many more calls have begun or ended; never, if that is not positive.
    dies_after: AtomicI64,
    /// It has died of that.
    pub(super) died: Notify,
}

impl Process {
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    async fn pass(&self) {
        if self.dies_after.load(Ordering::SeqCst) > 0 && self.dies_after.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.dead.store(true, Ordering::SeqCst);
            self.died.notify_one();
        }
        if self.dead.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

impl OneBank {
    /// Kills the process, as the bank sees it; the next account is a new one's.
    pub(super) fn forget(&self) {
        self.accounts.lock().unwrap().clear();
        let dead = std::mem::take(&mut *self.process.lock().unwrap());
        dead.dead.store(true, Ordering::SeqCst);
    }

    /// Lets the present process die when so many calls of the bank have begun or ended.
    pub(super) fn die_after(&self, moments: i64) -> Arc<Process> {
        let process = self.process.lock().unwrap().clone();
        process.dies_after.store(moments, Ordering::SeqCst);
        process
    }

    /// Lets the present process live.
    pub(super) fn live(&self) {
        self.die_after(0);
    }
}

#[async_trait]
impl Banks for OneBank {
    async fn account(&self, _provider: ProviderId, project: &ProjectId) -> karbor_plugin::Result<Account> {
        if let Some(kind) = *self.trouble.lock().unwrap() {
            return Err(Error::new(kind, "the bank is out, on purpose"));
        }
        let open = self.accounts.lock().unwrap().get(project).cloned();
        if let Some(account) = open {
            return Ok(account);
        }
        let id = AccountId::new(project.as_str()).expect("a project's id is an account's id");
        let options = AccountOptions {
            memory_bytes: 64 << 20,
            threads: NonZeroUsize::MIN,
            pack_bytes: 1 << 20,
            ..AccountOptions::default()
        };
        let masters = [MasterKey::from_bytes([7; 32])];
        let process = self.process.lock().unwrap().clone();
        let bank = Hooked::new(Arc::clone(&self.bank), move |_, _| {
            let process = Arc::clone(&process);
            async move {
                process.pass().await;
                Ok(())
            }
        });
        let account = Account::open_or_create(Arc::new(bank), id, &masters, options).await?;
        self.accounts.lock().unwrap().insert(project.clone(), account.clone());
        Ok(account)
    }
}

/// Settings with which tests do not wait.
pub(super) fn config() -> WorkerConfig {
    WorkerConfig {
        // Tests pass leases by putting the clock forward; a slow machine must not lose one.
        lease_seconds: NonZeroU32::new(30).unwrap(),
        poll_milliseconds: NonZeroU32::new(20).unwrap(),
        progress_milliseconds: NonZeroU32::new(20).unwrap(),
        flush_milliseconds: 20,
        hook_attempts: NonZeroU32::new(3).unwrap(),
        retry_milliseconds: 1,
        retry_limit_seconds: 1,
        stop_seconds: 5,
        drain_seconds: 0,
        sweep_delay_seconds: 0,
        // Far away: tests that want a sweep queue one.
        sweep_period_seconds: NonZeroU32::new(1_000_000_000).unwrap(),
        ..WorkerConfig::default()
    }
}

/// A worker at work.
pub(super) struct AtWork {
    pub(super) stop: CancellationToken,
    pub(super) handle: WorkerHandle,
    pub(super) task: JoinHandle<crate::Result<()>>,
}

impl AtWork {
    /// Lets it go and waits until it has gone.
    pub(super) async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(LIMIT, self.task).await.expect("it stops").expect("no panic").expect("no error");
    }

    /// Kills it.
    pub(super) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

impl House {
    pub(super) async fn new() -> Self {
        // `RUST_LOG` shows what the worker says.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        // A crash is played inside this process, so nothing need outlive the machine: memory is quicker.
        let memory = std::path::Path::new("/dev/shm");
        let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let directory = directory.unwrap();
        let path = directory.path().join("karbor.sqlite");
        let url = format!("sqlite:{}", path.display());
        let store = Store::open(&url, &StoreOptions::default()).await.unwrap();
        store.migrate().await.unwrap();
        let memory = MemoryBank::new();
        let bank = Arc::new(Faulty::new(Arc::new(memory.clone()), 1));
        let outside = Outside::default();
        let project = ProjectId::new("e486a2f49695423ca9c47e589b948108").unwrap();
        let provider = ProviderId(Uuid::from_u128(0xcf56_bd3e));
        let mut registry = Registry::default();
        let listing = Listing { outside: outside.clone(), project: project.clone() };
        registry.add_protectable(Arc::new(listing)).unwrap();
        let mut nothings = NoopProtectable::new(NOTHING, [NOTHING.into()]);
        nothings = nothings.with(&project, "root", "root");
        for index in 0..1000 {
            nothings = nothings.with(&project, &index.to_string(), "nothing");
        }
        for index in 0..1000 {
            nothings = nothings.below(&project, &ResourceKey::new(NOTHING, "root"), &index.to_string());
        }
        registry.add_protectable(Arc::new(nothings)).unwrap();
        let offer = Provider::new(provider, "test", "", "memory")
            .with(Arc::new(Keeper { outside: outside.clone() }))
            .unwrap()
            .with(Arc::new(NoopProtection::new([NOTHING.into()])))
            .unwrap();
        registry.add_provider(offer).unwrap();
        let banks = Arc::new(OneBank {
            bank: bank.clone(),
            accounts: Mutex::default(),
            process: Mutex::default(),
            trouble: Mutex::default(),
        });
        Self {
            _directory: directory,
            store,
            memory,
            bank,
            outside,
            registry: Arc::new(registry),
            banks,
            clock: Arc::new(AtomicI64::new(0)),
            project,
            provider,
            plan: PlanId(Uuid::from_u128(0x9e54)),
            ids: AtomicI64::new(1),
        }
    }

    /// Returns the time by a clock that goes on by itself and can be put forward.
    pub(super) fn now(&self) -> Instant {
        now(&self.clock)
    }

    /// Puts the clock forward, so that every lease is over.
    pub(super) fn pass_leases(&self) {
        self.clock.fetch_add(1_000_000 * 60, Ordering::SeqCst);
    }

    pub(super) fn id(&self) -> Uuid {
        let number = self.ids.fetch_add(1, Ordering::SeqCst);
        Uuid::from_u64_pair(0xabcd, u64::try_from(number).unwrap())
    }

    pub(super) fn dependencies(&self, owner: &str) -> Dependencies {
        let clock = Arc::clone(&self.clock);
        Dependencies {
            store: self.store.clone(),
            registry: Arc::clone(&self.registry),
            banks: self.banks.clone(),
            clock: Arc::new(move || now(&clock)),
            owner: owner.to_owned(),
        }
    }

    pub(super) fn worker(&self) -> AtWork {
        self.worker_with(config(), CrashPoints::default())
    }

    pub(super) fn worker_with(&self, config: WorkerConfig, crash: CrashPoints) -> AtWork {
        let worker = Worker::new(self.dependencies("test"), config).with_crash_points(crash);
        let stop = CancellationToken::new();
        let handle = worker.handle();
        let task = tokio::spawn(worker.run(stop.clone()));
        AtWork { stop, handle, task }
    }

    /// Starts a worker that dies at a place; returns it with what tells that it is there.
    pub(super) fn doomed_worker(&self, place: &str) -> (AtWork, Arc<Notify>) {
        let there = Arc::new(Notify::new());
        let tell = Arc::clone(&there);
        let crash = CrashPoints::act_at(place, Arc::new(move || tell.notify_one())).unwrap();
        (self.worker_with(config(), crash), there)
    }

    fn operation(&self, id: OperationId, kind: OperationKind, request: &OperationRequest) -> NewOperation {
        NewOperation {
            id,
            kind,
            project: self.project.clone(),
            user: None,
            plan: Some(self.plan),
            checkpoint: None,
            restore: None,
            verification: None,
            provider: Some(self.provider),
            priority: 0,
            due_at: self.now(),
            request: serde_json::to_value(request).unwrap(),
            log: Some(OperationLogId(self.id())),
            scheduled_operation: None,
            occurrence: None,
        }
    }

    /// Asks for a checkpoint of some things.
    pub(super) async fn protect(&self, things: &[&str]) -> CheckpointId {
        self.protect_resources(things.iter().map(|id| resource(id)).collect()).await
    }

    pub(super) async fn protect_resources(&self, resources: Vec<Resource>) -> CheckpointId {
        let id = CheckpointId(self.id());
        let plan =
            PlanSnapshot { id: self.plan, name: "plan".to_owned(), provider_id: self.provider, resources };
        let checkpoint = NewCheckpoint {
            id,
            project: self.project.clone(),
            provider: self.provider,
            plan,
            state: CheckpointState::Protecting,
            extra_info: Map::new(),
        };
        let mut operation = self.operation(id.into(), OperationKind::Protect, &OperationRequest::default());
        operation.checkpoint = Some(id);
        self.store
            .create_checkpoint(&checkpoint, &operation, &QuotaDefaults::default(), self.now())
            .await
            .unwrap();
        id
    }

    pub(super) async fn restore(&self, checkpoint: CheckpointId) -> (RestoreId, OperationId) {
        let id = RestoreId(self.id());
        let restore = NewRestore {
            id,
            project: self.project.clone(),
            provider: self.provider,
            checkpoint,
            target: None,
            parameters: Parameters::default(),
        };
        let mut operation =
            self.operation(OperationId(self.id()), OperationKind::Restore, &OperationRequest::default());
        operation.checkpoint = Some(checkpoint);
        operation.restore = Some(id);
        self.store.create_restore(&restore, &operation, self.now()).await.unwrap();
        (id, operation.id)
    }

    pub(super) async fn reopen(
        &self,
        operation: OperationId,
        reopening: Reopening,
    ) -> karbor_store::Result<Operation> {
        let undo = reopening == Reopening::CleanUp;
        let request = json!(OperationRequest { undo, ..OperationRequest::default() });
        let epoch = self.store.get_operation(operation).await?.epoch;
        self.store.reopen_operation(operation, epoch, reopening, &request, self.now()).await
    }

    /// Goes on with an operation, and waits for its end.
    pub(super) async fn resume(&self, operation: OperationId) -> Operation {
        self.reopen(operation, Reopening::Resume).await.unwrap();
        self.ended(operation).await
    }

    /// Undoes an operation, and waits for its end.
    pub(super) async fn undo(&self, operation: OperationId) -> Operation {
        self.reopen(operation, Reopening::CleanUp).await.unwrap();
        self.ended(operation).await
    }

    pub(super) async fn rehearse(&self, checkpoint: CheckpointId) -> OperationId {
        self.try_out(checkpoint, &OperationRequest { dry_run: true, ..OperationRequest::default() }).await
    }

    pub(super) async fn test_restore(&self, checkpoint: CheckpointId) -> OperationId {
        let request = OperationRequest { dry_run: true, test: true, ..OperationRequest::default() };
        self.try_out(checkpoint, &request).await
    }

    async fn try_out(&self, checkpoint: CheckpointId, request: &OperationRequest) -> OperationId {
        let mut operation = self.operation(OperationId(self.id()), OperationKind::Restore, request);
        operation.checkpoint = Some(checkpoint);
        self.store.create_operation(&operation, self.now()).await.unwrap();
        operation.id
    }

    pub(super) async fn verify(&self, checkpoint: CheckpointId) -> (VerificationId, OperationId) {
        let id = VerificationId(self.id());
        let verification = NewVerification {
            id,
            project: self.project.clone(),
            provider: self.provider,
            checkpoint,
            parameters: Parameters::default(),
        };
        let mut operation =
            self.operation(OperationId(self.id()), OperationKind::Verify, &OperationRequest::default());
        operation.checkpoint = Some(checkpoint);
        operation.verification = Some(id);
        self.store.create_verification(&verification, &operation, self.now()).await.unwrap();
        (id, operation.id)
    }

    pub(super) async fn delete(&self, checkpoint: CheckpointId) -> OperationId {
        let mut operation =
            self.operation(OperationId(self.id()), OperationKind::Delete, &OperationRequest::default());
        operation.checkpoint = Some(checkpoint);
        self.store.start_delete(checkpoint, DeletionCause::Request, &operation, self.now()).await.unwrap();
        operation.id
    }

    pub(super) async fn sweep(&self) -> OperationId {
        let mut operation =
            self.operation(OperationId(self.id()), OperationKind::Sweep, &OperationRequest::default());
        operation.log = None;
        self.store.create_operation(&operation, self.now()).await.unwrap();
        operation.id
    }

    /// Waits until an operation is as it should be.
    pub(super) async fn until(&self, id: OperationId, is: impl Fn(&Operation) -> bool) -> Operation {
        let wait = async {
            loop {
                let operation = self.store.get_operation(id).await.unwrap();
                if is(&operation) {
                    return operation;
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        };
        match tokio::time::timeout(LIMIT, wait).await {
            Ok(operation) => operation,
            Err(_) => panic!("it does not come to that: {:?}", self.store.get_operation(id).await.unwrap()),
        }
    }

    /// Waits until an operation has ended.
    pub(super) async fn ended(&self, id: impl Into<OperationId>) -> Operation {
        self.until(id.into(), |operation| operation.state.is_final()).await
    }

    /// Waits until an operation has succeeded.
    pub(super) async fn succeeded(&self, id: impl Into<OperationId>) -> Operation {
        let operation = self.ended(id).await;
        assert_eq!(operation.state, OperationState::Succeeded, "{operation:#?}");
        operation
    }

    pub(super) async fn checkpoint(&self, id: CheckpointId) -> Checkpoint {
        self.store.get_checkpoint(id).await.unwrap()
    }

    pub(super) async fn account(&self) -> Account {
        self.banks.account(self.provider, &self.project).await.unwrap()
    }

    /// Returns the keys of the account's objects of one area.
    pub(super) fn objects(&self, area: &str) -> Vec<String> {
        let part = format!("/{area}/");
        let keys = self.memory.contents().into_iter().map(|(key, _)| key.as_str().to_owned());
        keys.filter(|key| key.contains(&part)).collect()
    }

    /// Deletes all checkpoints, sweeps, and looks that nothing is left of any of them.
    pub(super) async fn assert_nothing_is_left(&self) {
        self.bank.heal();
        let worker = self.worker();
        let query = karbor_store::CheckpointQuery::default();
        for checkpoint in self.store.list_checkpoints(&query).await.unwrap() {
            assert!(
                matches!(checkpoint.state, CheckpointState::Available | CheckpointState::Error),
                "{checkpoint:#?}"
            );
            let delete = self.delete(checkpoint.id).await;
            self.succeeded(delete).await;
        }
        for _ in 0..3 {
            let sweep = self.sweep().await;
            self.succeeded(sweep).await;
        }
        worker.end().await;
        self.outside.assert_tidy();
        assert_eq!(self.outside.lock().copies, std::collections::BTreeSet::new(), "copies outside");
        assert_eq!(self.objects("packs"), Vec::<String>::new(), "packs that nothing reaches");
    }
}

fn now(clock: &AtomicI64) -> Instant {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let micros = i64::try_from(since.as_micros()).unwrap();
    Instant::from_micros(micros + clock.load(Ordering::SeqCst))
}

/// All things are of one type.
pub(super) fn status(operation: &Operation, id: &str) -> String {
    let rows = operation.result["resources"].as_array().cloned().unwrap_or_default();
    let row = rows.iter().find(|row| row["id"] == id && row["type"] == THING);
    row.map(|row| row["status"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
}

impl House {
    /// Leaves the provider without plugins, as an administrator might.
    pub(super) fn forget_plugins(&mut self) {
        let mut registry = Registry::default();
        registry.add_provider(Provider::new(self.provider, "test", "", "memory")).unwrap();
        self.registry = Arc::new(registry);
    }
}
