//! What a hook is given, and what it gives back.

use std::collections::BTreeMap;
use std::sync::Arc;

use karbor_types::{CheckpointId, OperationId, OperationKind, Resource, ResourceKey};
use karbor_vault::{CheckpointReader, ProgressSink, ResourceWriter};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::{Context, Error, ErrorKind, Ledger, Result};

/// Which restored resource stands for which protected one: old key → new key.
pub type IdMap = BTreeMap<ResourceKey, ResourceKey>;

/// All that one hook of one resource is given.
#[derive(Clone)]
pub struct Task {
    /// What is being done.
    pub operation: OperationKind,
    /// The operation; the same over all attempts.
    pub operation_id: OperationId,
    /// The checkpoint that is written, read, copied or deleted.
    pub checkpoint: CheckpointId,
    /// For whom.
    pub context: Context,
    /// The resource, as it stood in the graph when the checkpoint was begun.
    pub resource: Resource,
    /// The resource's parameters: resolved, checked against the schema, defaults filled in.
    pub parameters: Map<String, Value>,
    /// What this resource's earlier hooks of this operation returned, member by member; null before the first.
    pub state: Value,
    /// The direct children in the graph.
    pub children: Vec<Child>,
    /// What has become of all resources of the operation, as far as announced. By the time of a parent's
    /// [`Hook::Complete`](crate::Hook::Complete) all its descendants are in it.
    pub restored: IdMap,
    /// The checkpoint's data, as the operation may use it.
    pub vault: TaskVault,
    /// Protect: the previous checkpoint of the same resource, if there is one. What looks unchanged since then need
    /// not be read again.
    pub base: Option<Arc<CheckpointReader>>,
    /// Where everything made outside the bank is told first.
    pub ledger: Arc<dyn Ledger>,
    /// Where progress is told.
    pub progress: Arc<dyn ProgressSink>,
    /// Cancelled when somebody asked to stop, or when this worker lost the operation.
    pub cancel: CancellationToken,
    /// Change nothing, and tell in [`Outcome::plan`] what would be done and what would fail.
    pub dry_run: bool,
}

/// A child of the resource in the graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Child {
    /// The child.
    pub resource: Resource,
    /// What its hooks returned so far.
    pub state: Value,
}

/// What an operation may do with the checkpoint's data.
#[derive(Clone)]
#[non_exhaustive]
pub enum TaskVault {
    /// Nothing: a dry run of protect.
    None,
    /// Protect: write this resource's records and streams.
    Write(ResourceWriter),
    /// Restore, verify, copy: read the checkpoint.
    Read(Arc<CheckpointReader>),
    /// Delete: the commit record is gone already; these were the resource's records.
    Records(BTreeMap<String, Value>),
}

impl Task {
    /// Returns the writer of a protect operation.
    ///
    /// # Errors
    /// [`ErrorKind::Other`] when the task has none, which is a fault of the caller.
    pub fn writer(&self) -> Result<&ResourceWriter> {
        match &self.vault {
            TaskVault::Write(writer) => Ok(writer),
            _ => Err(self.no_vault("written to")),
        }
    }

    /// Returns the reader of a restore, verify or copy operation.
    ///
    /// # Errors
    /// [`ErrorKind::Other`] when the task has none, which is a fault of the caller.
    pub fn reader(&self) -> Result<&Arc<CheckpointReader>> {
        match &self.vault {
            TaskVault::Read(reader) => Ok(reader),
            _ => Err(self.no_vault("read")),
        }
    }

    /// Returns one of the records that protect put for this resource.
    pub fn record(&self, name: &str) -> Option<&Value> {
        match &self.vault {
            TaskVault::Read(reader) => reader.record(&self.resource.key, name),
            TaskVault::Records(records) => records.get(name),
            TaskVault::None | TaskVault::Write(_) => None,
        }
    }

    /// Fails with [`ErrorKind::Cancelled`] when the task was cancelled.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`].
    pub fn check_cancelled(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(Error::cancelled()) } else { Ok(()) }
    }

    fn no_vault(&self, verb: &str) -> Error {
        let text =
            format!("a {} of {} has no checkpoint that can be {verb}", self.operation, self.resource.key);
        Error::new(ErrorKind::Other, text)
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task")
            .field("operation", &self.operation)
            .field("operation_id", &self.operation_id)
            .field("resource", &self.resource.key)
            .field("state", &self.state)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}

/// What a hook gives back. The default is: nothing to tell.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// What later hooks of this resource need; an object, merged member by member over the state so far.
    pub state: Value,
    /// What the resource has become, if this hook restored it.
    pub restored: Option<Restored>,
    /// What has become of parts that the graph does not name (a topology's networks), for whom comes after.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mapped: Vec<Mapped>,
    /// A dry run's answer: what would be done.
    pub plan: Vec<PlannedAction>,
    /// What was seen on the way. One of [`Severity::Error`] fails the resource, although the hook went through.
    pub findings: Vec<Finding>,
}

impl Outcome {
    /// Returns all that is announced by this outcome of the resource `own`: old key and new key.
    pub fn announced<'a>(
        &'a self,
        own: &'a ResourceKey,
    ) -> impl Iterator<Item = (&'a ResourceKey, &'a ResourceKey)> {
        let mapped = self.mapped.iter().map(|mapped| (&mapped.from, &mapped.to));
        self.restored.iter().map(move |restored| (own, &restored.key)).chain(mapped)
    }
}

/// The new identity of a part of a restored resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapped {
    /// The part as it was protected. Its type need not be one that can be protected.
    pub from: ResourceKey,
    /// What stands for it now.
    pub to: ResourceKey,
}

/// The new identity of a restored resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Type and id of what was restored.
    pub key: ResourceKey,
    /// Its name, for people.
    pub name: String,
}

/// One thing that an operation would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedAction {
    /// What would be done.
    pub effect: PlannedEffect,
    /// To what: a path, a database's name, a new volume's name.
    pub subject: String,
    /// More about it: sizes, mappings.
    #[serde(default)]
    pub details: Value,
    /// Why it would fail, and what to do about it; nothing when it is expected to succeed.
    #[serde(default)]
    pub problem: Option<String>,
    /// What it takes of that which there is only so much of. Whether it is enough for the whole operation is decided
    /// for all actions together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
}

/// What an action takes of something that is limited, such as a quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// Of what, as people count it: `volumes`, `GiB of volumes`. The same words mean the same limit.
    pub of: String,
    /// How much.
    pub amount: u64,
    /// How much is left before the operation; nothing when there is no limit.
    pub free: Option<u64>,
}

impl Need {
    /// Returns what is needed of a limit as OpenStack tells it: negative for none.
    pub fn of_limit(of: impl Into<String>, amount: u64, limit: i64, used: i64) -> Self {
        let free =
            u64::try_from(limit).is_ok().then(|| u64::try_from(limit.saturating_sub(used)).unwrap_or(0));
        Self { of: of.into(), amount, free }
    }
}

/// What a planned action does to its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlannedEffect {
    /// It is made.
    Create,
    /// What is there is replaced.
    Overwrite,
    /// It is used as it is.
    Reuse,
    /// It is removed.
    Remove,
    /// A command is run.
    Run,
}

/// Something seen while an operation ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about: a path, a stream, a range.
    pub subject: String,
    /// What was seen, and what to do.
    pub message: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Wrong, but what was asked for was done.
    Warning,
    /// What was asked for was not reached.
    Error,
}

/// A sink that drops what it is told.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl ProgressSink for NoProgress {
    fn advance(&self, _done: u64, _stored: u64) {}

    fn total(&self, _bytes: u64) {}
}
