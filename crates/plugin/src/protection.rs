//! What a protection plugin can do, and the calls by which it is asked to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use async_trait::async_trait;
use karbor_types::{Hook, OperationKind, ResourceType};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Error, ErrorKind, LedgerEntry, Outcome, Result, Task};

/// What a protection plugin says of itself. It does not change while the plugin is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The plugin's name, such as `host-directory`.
    pub name: String,
    /// Its version; checkpoints carry it.
    pub version: String,
    /// What it does for each type that it handles.
    pub kinds: Vec<KindDescription>,
}

impl Description {
    /// Returns what the plugin does for one type.
    pub fn kind(&self, kind: &ResourceType) -> Option<&KindDescription> {
        self.kinds.iter().find(|description| description.kind == *kind)
    }
}

/// What a protection plugin does for one type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindDescription {
    /// The type.
    pub kind: ResourceType,
    /// The operations that it implements for it.
    pub operations: BTreeSet<OperationKind>,
    /// The schemas of its parameters and of what it saves.
    pub schemas: Schemas,
    /// The hooks that are not no-ops, by operation. The others need not be called; calling them is harmless.
    pub hooks: BTreeMap<OperationKind, BTreeSet<Hook>>,
}

impl KindDescription {
    /// Returns whether that hook of that operation does anything.
    pub fn has_hook(&self, operation: OperationKind, hook: Hook) -> bool {
        self.hooks.get(&operation).is_some_and(|hooks| hooks.contains(&hook))
    }
}

/// JSON schemas of one type. `{}` allows everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schemas {
    /// Parameters of protect, given in the plan.
    pub options: Value,
    /// Parameters of restore.
    pub restore: Value,
    /// Parameters of verify.
    pub verify: Value,
    /// What the plugin saves: an object whose members are the names of the records that it puts.
    pub saved_info: Value,
}

impl Default for Schemas {
    fn default() -> Self {
        Self { options: json!({}), restore: json!({}), verify: json!({}), saved_info: json!({}) }
    }
}

impl Schemas {
    /// Returns the schema of the parameters of an operation; copies and deletions take none.
    pub fn of(&self, operation: OperationKind) -> Option<&Value> {
        match operation {
            OperationKind::Protect => Some(&self.options),
            OperationKind::Restore => Some(&self.restore),
            OperationKind::Verify => Some(&self.verify),
            OperationKind::Copy | OperationKind::Delete | OperationKind::Sweep => None,
        }
    }
}

/// Protects, restores, verifies, copies and deletes resources of some types.
///
/// Contract:
/// - No state is kept in the object between two calls; [`Outcome::state`] carries it.
/// - Every hook may be run again from its start, after any crash, also when it had finished; the second run ends
///   in the same outcome and leaves nothing twice.
/// - A hook that returns `Ok` has done its work wholly; what is not whole is an error.
/// - What is made outside the bank stands in [`Task::ledger`] before it is made.
/// - When [`Task::cancel`] is cancelled the hook returns soon, with [`ErrorKind::Cancelled`].
/// - With [`Task::dry_run`] nothing is changed anywhere; [`Outcome::plan`] tells what would be.
/// - It may be called for many resources at once.
#[async_trait]
pub trait Protection: fmt::Debug + Send + Sync {
    /// Returns what the plugin can do.
    fn describe(&self) -> Description;

    /// Runs one hook of an operation for one resource.
    async fn run(&self, hook: Hook, task: &Task) -> Result<Outcome>;

    /// Removes or ends what an open ledger entry of this resource tells of; what is gone already is success.
    ///
    /// It is called for entries with [`Purpose::Scaffold`](crate::Purpose::Scaffold) whenever the operation ends
    /// without having ended them itself, and for products when the operation is undone. `task` is the one of
    /// the operation's main hook, with the state saved so far. It may be called again.
    async fn clean_up(&self, task: &Task, entry: &LedgerEntry) -> Result<()> {
        let _ = task;
        let what = format!("{} {}", entry.kind, entry.reference);
        Err(Error::new(ErrorKind::Unsupported, format!("this plugin does not know how to remove {what}")))
    }
}
