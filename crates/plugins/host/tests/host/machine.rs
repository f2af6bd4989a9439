//! A machine of a test's own: a directory, an inventory, a bank in memory, and operations by hand.

use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use karbor_bank::{Bank, MemoryBank};
use karbor_plugin::{
    CancellationToken, Context, Hook, IdMap, Ledger, LedgerEntry, MemoryLedger, NoProgress, OperationKind,
    Outcome, Page, Provider, Purpose, Resource, Result, Task, TaskVault,
};
use karbor_plugins_host::{Host, HostOptions, Kind};
use karbor_types::{AccountId, CheckpointId, Epoch, Instant, OperationId, Parameters, ProjectId, ProviderId};
use karbor_vault::{Account, AccountOptions, BeginOptions, CheckpointReader, MasterKey, SessionId};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// The password that the environment of every machine has.
pub(crate) const PASSWORD: &str = "correct horse";

pub(crate) fn project(text: &str) -> ProjectId {
    ProjectId::new(text).expect("a project id")
}

pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => panic!("not an object: {other}"),
    }
}

/// A directory with an inventory and a spool in it.
pub(crate) struct Machine {
    directory: tempfile::TempDir,
    options: HostOptions,
}

impl Machine {
    /// Makes a machine whose inventory is `text`, with `{dir}` standing for its directory.
    pub(crate) fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        let options = HostOptions {
            inventory: directory.path().join("inventory.toml"),
            spool: directory.path().join("spool"),
            environment: Arc::new(|name| (name == "TEST_PASSWORD").then(|| PASSWORD.to_owned())),
        };
        fs::create_dir(directory.path().join("data")).expect("a directory");
        let machine = Self { directory, options };
        machine.write_inventory(text);
        machine
    }

    pub(crate) fn write_inventory(&self, text: &str) {
        let dir = self.data().display().to_string();
        fs::write(&self.options.inventory, text.replace("{dir}", &dir)).expect("written");
    }

    /// Returns the directory for everything that the inventory names.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.data().join(below)
    }

    pub(crate) fn spool(&self) -> &Path {
        &self.options.spool
    }

    /// Opens the inventory as a process that was just started does.
    pub(crate) fn host(&self) -> Host {
        Host::open(self.options.clone()).expect("a good inventory")
    }

    /// Finds an instance by its name.
    pub(crate) async fn resource(&self, owner: &str, kind: Kind, name: &str) -> Resource {
        let protectables = self.host().protectables();
        let own = protectables.iter().find(|protectable| protectable.kind() == kind.resource_type());
        let listed = own.expect("the type").list(&Context::new(project(owner)), &Page::default()).await;
        let mut instances = listed.expect("a list").instances.into_iter();
        instances.find(|instance| instance.name == name).expect("the instance")
    }
}

/// A bank in memory, and the operations of project `demo` on one resource of a machine.
pub(crate) struct Vault<'a> {
    machine: &'a Machine,
    pub(crate) kind: Kind,
    pub(crate) resource: Resource,
    account: Account,
}

/// An operation over all its attempts.
pub(crate) struct Operation {
    pub(crate) kind: OperationKind,
    pub(crate) id: OperationId,
    pub(crate) checkpoint: CheckpointId,
    pub(crate) parameters: Map<String, Value>,
    pub(crate) ledger: Arc<MemoryLedger>,
    pub(crate) cancel: CancellationToken,
    pub(crate) dry_run: bool,
    pub(crate) epoch: AtomicU32,
}

static OPERATIONS: AtomicU32 = AtomicU32::new(1);

impl<'a> Vault<'a> {
    pub(crate) async fn new(machine: &'a Machine, kind: Kind, name: &str) -> Self {
        Self::on(machine, kind, name, Arc::new(MemoryBank::new())).await
    }

    /// Uses a bank of the caller's.
    pub(crate) async fn on(machine: &'a Machine, kind: Kind, name: &str, bank: Arc<dyn Bank>) -> Self {
        let (id, masters) = (AccountId::new("demo").expect("an id"), [MasterKey::from_bytes([1; 32])]);
        let account = Account::open_or_create(bank, id, &masters, AccountOptions::default()).await;
        let resource = machine.resource("demo", kind, name).await;
        Self { machine, kind, resource, account: account.expect("an account") }
    }

    fn operation(&self, kind: OperationKind, given: Value) -> Result<Operation> {
        let number = OPERATIONS.fetch_add(1, Ordering::Relaxed);
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, &number.to_be_bytes());
        let provider = Provider::new(ProviderId(id), "test", "", "memory");
        let provider = provider.with(self.machine.host().protection(self.kind)).expect("good schemas");
        let parameters = json!({self.resource.key.kind.as_str(): given});
        let parameters = Parameters::parse(&parameters).expect("well formed");
        Ok(Operation {
            kind,
            id: OperationId(id),
            checkpoint: CheckpointId(id),
            parameters: provider.resolve_parameters(kind, &parameters, &self.resource.key)?,
            ledger: Arc::new(MemoryLedger::default()),
            cancel: CancellationToken::new(),
            dry_run: false,
            epoch: AtomicU32::new(0),
        })
    }

    pub(crate) fn protecting(&self, options: Value) -> Operation {
        self.operation(OperationKind::Protect, options).expect("good options")
    }

    pub(crate) fn restoring(&self, checkpoint: CheckpointId, parameters: Value) -> Operation {
        let operation = self.operation(OperationKind::Restore, parameters).expect("good parameters");
        Operation { checkpoint, ..operation }
    }

    fn task(&self, operation: &Operation, vault: &TaskVault, base: Option<Arc<CheckpointReader>>) -> Task {
        Task {
            operation: operation.kind,
            operation_id: operation.id,
            checkpoint: operation.checkpoint,
            context: Context::new(project("demo")),
            resource: self.resource.clone(),
            parameters: operation.parameters.clone(),
            state: Value::Null,
            children: Vec::new(),
            restored: IdMap::new(),
            vault: vault.clone(),
            base,
            ledger: Arc::clone(&operation.ledger) as Arc<dyn Ledger>,
            progress: Arc::new(NoProgress),
            cancel: operation.cancel.clone(),
            dry_run: operation.dry_run,
        }
    }

    /// Runs the given hooks, as a process that was just started does, and returns what they found.
    pub(crate) async fn hooks(
        &self,
        hooks: &[Hook],
        operation: &Operation,
        vault: &TaskVault,
    ) -> Result<Outcome> {
        let mut all = Outcome::default();
        for &hook in hooks {
            let task = self.task(operation, vault, None);
            let outcome = self.machine.host().protection(self.kind).run(hook, &task).await?;
            all.findings.extend(outcome.findings);
            all.plan.extend(outcome.plan);
            all.restored = outcome.restored.or(all.restored);
        }
        Ok(all)
    }

    /// Begins the next attempt of a protect operation.
    pub(crate) async fn begin(&self, operation: &Operation) -> (karbor_vault::CheckpointWriter, TaskVault) {
        let epoch = Epoch(operation.epoch.fetch_add(1, Ordering::Relaxed) + 1);
        let session = SessionId::new(operation.id.0, epoch);
        let writer = self.account.begin(&session, &BeginOptions::default()).await.expect("a session");
        let vault = TaskVault::Write(writer.resource(&self.resource.key));
        (writer, vault)
    }

    /// Protects the resource, and returns the checkpoint and what was found on the way.
    pub(crate) async fn protect(&self, options: Value) -> Result<(CheckpointId, Outcome)> {
        self.protect_as(&self.protecting(options)).await
    }

    /// Runs one attempt of a protect operation.
    pub(crate) async fn protect_as(&self, operation: &Operation) -> Result<(CheckpointId, Outcome)> {
        let (writer, vault) = self.begin(operation).await;
        let outcome = self.hooks(Hook::ALL, operation, &vault).await?;
        writer.commit(operation.checkpoint, Instant::from_micros(0), Value::Null).await?;
        Ok((operation.checkpoint, outcome))
    }

    pub(crate) async fn read(&self, checkpoint: CheckpointId) -> TaskVault {
        TaskVault::Read(Arc::new(self.account.read(checkpoint).await.expect("a checkpoint")))
    }

    /// Restores a checkpoint.
    pub(crate) async fn restore(&self, checkpoint: CheckpointId, parameters: Value) -> Result<Outcome> {
        self.restore_as(&self.restoring(checkpoint, parameters)).await
    }

    /// Runs one attempt of a restore.
    pub(crate) async fn restore_as(&self, operation: &Operation) -> Result<Outcome> {
        let vault = self.read(operation.checkpoint).await;
        self.hooks(Hook::ALL, operation, &vault).await
    }

    /// Says what a restore would do.
    pub(crate) async fn plan(&self, checkpoint: CheckpointId, parameters: Value) -> Result<Outcome> {
        let operation = Operation { dry_run: true, ..self.restoring(checkpoint, parameters) };
        self.restore_as(&operation).await
    }

    /// Verifies a checkpoint.
    pub(crate) async fn verify(&self, checkpoint: CheckpointId, parameters: Value) -> Result<Outcome> {
        let operation = self.operation(OperationKind::Verify, parameters)?;
        self.restore_as(&Operation { checkpoint, ..operation }).await
    }

    /// Does what the end of an operation does: ends the scaffolds that are open, newest first.
    pub(crate) async fn clean_up(&self, operation: &Operation, vault: &TaskVault) -> Result<()> {
        for entry in open_entries(operation).await.into_iter().rev() {
            if entry.purpose == Purpose::Scaffold {
                let task = self.task(operation, vault, None);
                self.machine.host().protection(self.kind).clean_up(&task, &entry).await?;
                operation.ledger.removed(entry.id).await?;
            }
        }
        Ok(())
    }
}

/// Returns what is open in an operation's ledger.
pub(crate) async fn open_entries(operation: &Operation) -> Vec<LedgerEntry> {
    let entries = operation.ledger.entries().await.expect("in memory");
    entries.into_iter().filter(LedgerEntry::is_open).collect()
}

/// Drives a future to its end, and returns how often it waited.
pub(crate) async fn count_waits<T>(future: impl Future<Output = T>) -> (usize, T) {
    let mut future = pin!(future);
    let mut waited = 0;
    std::future::poll_fn(move |cx| match future.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready((waited, answer)),
        Poll::Pending => {
            waited += 1;
            Poll::Pending
        }
    })
    .await
}
