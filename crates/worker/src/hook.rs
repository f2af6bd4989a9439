//! One hook of one resource: what it is given, and how it is tried again.

use std::sync::Arc;
use std::time::Duration;

use karbor_plugin::{
    CancellationToken, Child, Error, Hook, OperationKind, Outcome, Protection, Result, Task, TaskVault,
};
use tracing::warn;

use crate::WorkerConfig;
use crate::backoff::Backoff;
use crate::drive::{Drive, Vault};
use crate::ledger::StoreLedger;
use crate::progress::StepProgress;

/// How a hook ended.
pub(crate) struct HookEnd {
    pub(crate) result: Result<Outcome>,
    pub(crate) attempts: u32,
}

/// How often a hook that fails for the moment is tried, and with which pauses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retries {
    attempts: u32,
    pauses: Backoff,
}

impl Retries {
    pub(crate) fn new(config: &WorkerConfig) -> Self {
        Self {
            attempts: config.hook_attempts.get(),
            pauses: Backoff::new(
                Duration::from_millis(config.retry_milliseconds.into()),
                Duration::from_secs(config.retry_limit_seconds.into()),
            ),
        }
    }
}

/// Runs a hook until it went through, failed for good or too often, or was told to stop.
pub(crate) async fn call(
    protection: Option<Arc<dyn Protection>>,
    hook: Hook,
    task: Task,
    progress: Arc<StepProgress>,
    mut retries: Retries,
) -> HookEnd {
    let Some(protection) = protection else {
        return HookEnd { result: Ok(Outcome::default()), attempts: 1 };
    };
    let mut attempts = 0;
    loop {
        attempts += 1;
        if task.cancel.is_cancelled() {
            return HookEnd { result: Err(Error::cancelled()), attempts };
        }
        let err = match protection.run(hook, &task).await {
            Err(err) if err.is_retryable() && attempts < retries.attempts => err,
            result => return HookEnd { result, attempts },
        };
        let pause = retries.pauses.pause();
        let (id, resource) = (task.operation_id, &task.resource.key);
        warn!(
            operation.id = %id, resource = %resource, hook = %hook, attempts,
            error = &err as &dyn std::error::Error,
            "{hook} of {resource} failed and is tried again in {pause:?}: {}", err.message()
        );
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = task.cancel.cancelled() => return HookEnd { result: Err(Error::cancelled()), attempts },
        }
        progress.reset();
    }
}

impl Drive {
    /// Makes what a hook of a resource is given.
    pub(crate) fn task(
        &self,
        resource: usize,
        progress: Arc<dyn karbor_plugin::ProgressSink>,
        cancel: CancellationToken,
    ) -> Task {
        let attempt = &self.attempt;
        let member = &self.members[resource];
        let child = |&index: &usize| {
            let child = &self.members[index];
            Child { resource: child.resource.clone(), state: child.state.clone() }
        };
        Task {
            operation: attempt.operation.kind,
            operation_id: attempt.operation.id,
            checkpoint: self.checkpoint,
            context: attempt.context(),
            resource: member.resource.clone(),
            parameters: member.parameters.clone(),
            state: member.state.clone(),
            children: member.children.iter().map(child).collect(),
            restored: self.restored.clone(),
            vault: match &self.vault {
                Vault::Write(writer) => TaskVault::Write(writer.resource(member.key())),
                Vault::Read(reader) => TaskVault::Read(Arc::clone(reader)),
                Vault::Records => TaskVault::Records(member.records.clone()),
            },
            base: self.base.clone(),
            ledger: Arc::new(StoreLedger {
                shared: Arc::clone(&attempt.shared),
                claim: attempt.lease.claim.clone(),
                resource: member.key().clone(),
            }),
            progress,
            cancel,
            dry_run: attempt.operation.kind == OperationKind::Restore && attempt.request.dry_run,
        }
    }
}
