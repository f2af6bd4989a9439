//! What a check works with: an account in memory, operations with their ledgers, and futures that are dropped.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Poll;

use karbor_bank::{Bank, MemoryBank};
use karbor_types::{
    AccountId, CheckpointId, Epoch, Hook, Instant, OperationId, OperationKind, Parameters, ProviderId,
};
use karbor_vault::{
    Account, AccountOptions, BeginOptions, CheckpointReader, CheckpointWriter, MasterKey, SavedResource,
    SessionId,
};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::conformance::{Fixture, kind};
use crate::{
    Context, Error, IdMap, Ledger, LedgerState, MemoryLedger, NoProgress, Outcome, Provider, Purpose,
    Restored, Task, TaskVault,
};

/// How a check ends: with nothing, or with what is wrong.
pub(super) type Verdict<T = ()> = std::result::Result<T, String>;

/// Numbers the operations of all checks, so that no two have the same id.
static OPERATIONS: AtomicU32 = AtomicU32::new(1);

/// A fixture and an account in memory.
pub(super) struct Bench<'a> {
    pub(super) fixture: &'a dyn Fixture,
    pub(super) provider: Provider,
    pub(super) bank: Arc<MemoryBank>,
    pub(super) account: Account,
}

/// One operation over all its attempts.
pub(super) struct Operation {
    pub(super) kind: OperationKind,
    pub(super) id: OperationId,
    pub(super) checkpoint: CheckpointId,
    pub(super) context: Context,
    pub(super) parameters: Map<String, Value>,
    pub(super) ledger: Arc<MemoryLedger>,
    pub(super) cancel: CancellationToken,
    pub(super) dry_run: bool,
    pub(super) epoch: AtomicU32,
    /// An attempt was dropped: what it left may go at the operation's end only.
    pub(super) dropped: AtomicBool,
}

/// A committed checkpoint and what protect told of it.
pub(super) struct Protected {
    pub(super) checkpoint: CheckpointId,
    pub(super) saved: SavedResource,
}

impl<'a> Bench<'a> {
    pub(super) async fn new(fixture: &'a dyn Fixture) -> Verdict<Self> {
        let bank = Arc::new(MemoryBank::new());
        let account = open(&bank).await?;
        let provider = Provider::new(ProviderId(Uuid::nil()), "kit", "", "memory")
            .with(fixture.protection())
            .map_err(|err| err.to_string())?;
        Ok(Self { fixture, provider, bank, account })
    }

    /// Opens the account again, with nothing remembered.
    pub(super) async fn reopened(&self) -> Verdict<Account> {
        open(&self.bank).await
    }

    /// Begins an operation of the fixture's project.
    pub(super) fn operation(&self, kind: OperationKind, given: Map<String, Value>) -> Verdict<Operation> {
        let number = OPERATIONS.fetch_add(1, Ordering::Relaxed);
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, &number.to_be_bytes());
        let parameters = json!({self.fixture.resource().key.kind.as_str(): given});
        let parameters = Parameters::parse(&parameters).map_err(|err| err.to_string())?;
        let key = self.fixture.resource().key;
        let parameters =
            self.provider.resolve_parameters(kind, &parameters, &key).map_err(|err| err.to_string())?;
        Ok(Operation {
            kind,
            id: OperationId(id),
            checkpoint: CheckpointId(id),
            context: self.fixture.context(),
            parameters,
            ledger: Arc::new(MemoryLedger::default()),
            cancel: CancellationToken::new(),
            dry_run: false,
            epoch: AtomicU32::new(0),
            dropped: AtomicBool::new(false),
        })
    }

    /// Begins a protect operation.
    pub(super) fn protecting(&self) -> Verdict<Operation> {
        self.operation(OperationKind::Protect, self.fixture.options())
    }

    /// Begins an operation on a checkpoint.
    pub(super) fn on(
        &self,
        checkpoint: CheckpointId,
        kind: OperationKind,
        given: Map<String, Value>,
    ) -> Verdict<Operation> {
        Ok(Operation { checkpoint, ..self.operation(kind, given)? })
    }

    /// Makes the task of one hook.
    pub(super) fn task(&self, operation: &Operation, state: &Value, vault: TaskVault) -> Task {
        Task {
            operation: operation.kind,
            operation_id: operation.id,
            checkpoint: operation.checkpoint,
            context: operation.context.clone(),
            resource: self.fixture.resource(),
            parameters: operation.parameters.clone(),
            state: state.clone(),
            children: Vec::new(),
            restored: IdMap::new(),
            vault,
            base: None,
            ledger: Arc::clone(&operation.ledger) as Arc<dyn Ledger>,
            progress: Arc::new(NoProgress),
            cancel: operation.cancel.clone(),
            dry_run: operation.dry_run,
        }
    }

    /// Begins the next attempt of a protect operation.
    pub(super) async fn writer(&self, operation: &Operation) -> Verdict<CheckpointWriter> {
        let epoch = Epoch(operation.epoch.fetch_add(1, Ordering::Relaxed) + 1);
        let session = SessionId::new(operation.id.0, epoch);
        self.account
            .begin(&session, &BeginOptions::default())
            .await
            .map_err(|err| format!("beginning: {err}"))
    }

    /// Runs all hooks of an operation, each so many times, and returns the last outcome of each.
    pub(super) async fn hooks(
        &self,
        operation: &Operation,
        vault: &TaskVault,
        times: u32,
    ) -> std::result::Result<Vec<Outcome>, Error> {
        let (mut state, mut outcomes) = (Value::Null, Vec::new());
        for &hook in Hook::ALL {
            let mut last = Outcome::default();
            for _ in 0..times {
                let task = self.task(operation, &state, vault.clone());
                last = self.fixture.protection().run(hook, &task).await?;
            }
            state = merged(&state, &last.state);
            outcomes.push(last);
        }
        Ok(outcomes)
    }

    /// Runs one attempt of a protect operation and commits it.
    pub(super) async fn protect_as(&self, operation: &Operation, times: u32) -> Verdict<Protected> {
        let writer = self.writer(operation).await?;
        let resource = writer.resource(&self.fixture.resource().key);
        let vault = TaskVault::Write(resource.clone());
        self.hooks(operation, &vault, times).await.map_err(|err| format!("protecting: {err}"))?;
        self.end(operation, &vault).await?;
        writer.flush().await.map_err(|err| format!("flushing: {err}"))?;
        let saved = resource.save();
        let committed = writer.commit(operation.checkpoint, Instant::from_micros(0), Value::Null).await;
        committed.map_err(|err| format!("committing: {err}"))?;
        Ok(Protected { checkpoint: operation.checkpoint, saved })
    }

    /// Protects the fixture.
    pub(super) async fn protect(&self) -> Verdict<Protected> {
        self.protect_as(&self.protecting()?, 1).await
    }

    /// Begins a restore of what was lost.
    pub(super) fn restoring(&self, protected: &Protected) -> Verdict<Operation> {
        self.on(protected.checkpoint, OperationKind::Restore, self.fixture.restore_parameters())
    }

    /// Opens a checkpoint.
    pub(super) async fn reader(&self, checkpoint: CheckpointId) -> Verdict<Arc<CheckpointReader>> {
        let reader = self.account.read(checkpoint).await;
        Ok(Arc::new(reader.map_err(|err| format!("opening the checkpoint: {err}"))?))
    }

    /// Runs one attempt of a restore, and looks at what came of it.
    pub(super) async fn restore_as(&self, operation: &Operation, times: u32) -> Verdict {
        let vault = TaskVault::Read(self.reader(operation.checkpoint).await?);
        let outcomes =
            self.hooks(operation, &vault, times).await.map_err(|err| format!("restoring: {err}"))?;
        self.end(operation, &vault).await?;
        if let Some(finding) = outcomes.iter().flat_map(|outcome| &outcome.findings).next() {
            return Err(format!("restoring what is whole found {finding:?}"));
        }
        let has_hooks = |kind: &crate::KindDescription| {
            kind.hooks.get(&OperationKind::Restore).is_some_and(|hooks| !hooks.is_empty())
        };
        if !self.provider.kind(&kind(self.fixture)).is_some_and(has_hooks) {
            return Ok(());
        }
        let restored: Vec<&Restored> =
            outcomes.iter().filter_map(|outcome| outcome.restored.as_ref()).collect();
        let [restored] = restored.as_slice() else {
            return Err(format!(
                "{} hooks of a restore announced what was restored, not one",
                restored.len()
            ));
        };
        if restored.key.kind != kind(self.fixture) {
            return Err(format!("a restore announced {}", restored.key));
        }
        self.fixture.check(restored).await
    }

    /// Does what the end of an operation does: cleans up what is open, and everything if it was given up.
    pub(super) async fn clean_up(
        &self,
        operation: &Operation,
        vault: &TaskVault,
        everything: bool,
    ) -> Verdict {
        for entry in entries(operation).await.into_iter().rev() {
            let goes = everything || entry.purpose == Purpose::Scaffold;
            if !entry.is_open() || !goes {
                continue;
            }
            // Twice: the answer of the first may have been lost.
            for _ in 0..2 {
                // That somebody cancelled the operation does not cancel its end.
                let cancel = CancellationToken::new();
                let task = Task { cancel, ..self.task(operation, &Value::Null, vault.clone()) };
                let cleaned = self.fixture.protection().clean_up(&task, &entry).await;
                cleaned.map_err(|err| format!("cleaning up {} {}: {err}", entry.kind, entry.reference))?;
            }
            operation.ledger.removed(entry.id).await.map_err(|err| err.to_string())?;
        }
        Ok(())
    }

    /// Sees that an operation that went well ended its scaffolds itself and made what it intended to. What an
    /// attempt left that was dropped is cleaned up first, as it is at the end of every operation.
    async fn end(&self, operation: &Operation, vault: &TaskVault) -> Verdict {
        if operation.dropped.load(Ordering::Relaxed) {
            self.clean_up(operation, vault, false).await?;
        }
        for entry in entries(operation).await {
            let ended = match entry.purpose {
                Purpose::Scaffold => !entry.is_open(),
                Purpose::Product => entry.state != LedgerState::Intended,
            };
            if !ended {
                return Err(format!("the operation went well and left {entry:?} in its ledger"));
            }
        }
        Ok(())
    }

    /// Returns the records of a protected resource, as a delete operation is given them.
    pub(super) fn records(&self, protected: &Protected) -> BTreeMap<String, Value> {
        protected.saved.records.clone()
    }
}

async fn entries(operation: &Operation) -> Vec<crate::LedgerEntry> {
    operation.ledger.entries().await.unwrap_or_default()
}

async fn open(bank: &Arc<MemoryBank>) -> Verdict<Account> {
    let id = AccountId::new("kit").map_err(|err| err.to_string())?;
    let masters = [MasterKey::from_bytes([7; 32])];
    let bank = Arc::clone(bank) as Arc<dyn Bank>;
    let opened = Account::open_or_create(bank, id, &masters, AccountOptions::default()).await;
    opened.map_err(|err| format!("opening the account: {err}"))
}

/// Merges a hook's state into that of the hooks before, and takes it through text, as a database does.
pub(super) fn merged(before: &Value, new: &Value) -> Value {
    let merged = match (before, new) {
        (Value::Object(before), Value::Object(new)) => {
            let mut all = before.clone();
            all.extend(new.clone());
            Value::Object(all)
        }
        (before, Value::Null) => before.clone(),
        (_, new) => new.clone(),
    };
    serde_json::from_str(&merged.to_string()).unwrap_or_default()
}

/// Drives a future until it has waited `waits` times, then drops it; returns its answer if it came before.
pub async fn drop_after<T>(waits: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut waited = 0;
    std::future::poll_fn(move |cx| match future.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending if waited == waits => Poll::Ready(None),
        Poll::Pending => {
            waited += 1;
            Poll::Pending
        }
    })
    .await
}

/// Drives a future, and calls `then` once it has waited `waits` times.
pub(super) async fn call_after<T>(
    waits: usize,
    then: impl Fn(),
    mut future: Pin<Box<dyn Future<Output = T> + Send + '_>>,
) -> T {
    let mut waited = 0;
    std::future::poll_fn(move |cx| {
        if waited == waits {
            then();
        }
        waited += 1;
        future.as_mut().poll(cx)
    })
    .await
}
