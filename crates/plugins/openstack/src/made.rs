//! What is made in the cloud: told to the ledger first, tagged, made once, and found again after any crash.
//!
//! Invariant: between the ledger's entry and the cloud there is one tag, by which the thing can be found whether or
//! not its id was ever heard of. So a hook that is run again uses what an earlier run made, and cleaning up finds
//! what a run made that died before it was answered.

use std::borrow::Cow;
use std::future::Future;
use std::time::Duration;

use karbor_plugin::{Intent, LedgerEntry, LedgerState, Purpose, Result, Task};
use serde_json::{Map, Value, json};

/// The key under which everything that we make carries its tag, in the metadata of the service that has it.
pub(crate) const TAG_KEY: &str = "karbor_operation";
/// The key that marks what is needed only on the way. It is no tenant's, and no protectable shows it.
pub(crate) const SCAFFOLD_KEY: &str = "karbor_scaffold";

/// One thing that is to be made.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    /// What kind of thing, in the ledger.
    pub(crate) kind: &'static str,
    /// What tells it from the other things of its kind of the same resource and operation.
    pub(crate) role: Cow<'static, str>,
    /// What it is for.
    pub(crate) purpose: Purpose,
    /// Anything else that finding and cleaning up need.
    pub(crate) data: Map<String, Value>,
}

impl Made {
    /// Describes something that is needed only on the way.
    pub(crate) fn scaffold(kind: &'static str, role: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, role: role.into(), purpose: Purpose::Scaffold, data: Map::new() }
    }

    /// Describes something that the operation is for.
    pub(crate) fn product(kind: &'static str, role: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, role: role.into(), purpose: Purpose::Product, data: Map::new() }
    }

    /// Adds what finding and cleaning up need.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.data.insert(name.to_owned(), value.into());
        self
    }

    /// Returns the tag: the same in every attempt, and nobody else's.
    pub(crate) fn tag(&self, task: &Task) -> String {
        tag(task, &self.role)
    }

    /// Returns the name that people see of a scaffold.
    pub(crate) fn name(&self, task: &Task) -> String {
        format!("karbor-{}-{}", self.role, task.resource.key.id)
    }

    /// Returns the id of the thing: the one that an earlier run made, or one that is made now.
    ///
    /// `find` looks for the tag in the cloud, and is asked only when an earlier run may have made it; `make` makes it.
    pub(crate) async fn once<F>(
        &self,
        task: &Task,
        find: impl Fn() -> F + Send,
        make: impl Future<Output = Result<String>> + Send,
    ) -> Result<String>
    where
        F: Future<Output = Result<Option<String>>> + Send,
    {
        let tag = self.tag(task);
        let entry = match self.known(task).await? {
            Some(entry) if entry.state == LedgerState::Created => return Ok(entry.reference),
            Some(entry) => {
                if let Some(id) = found(find).await? {
                    task.ledger.created(entry.id, &id).await?;
                    return Ok(id);
                }
                entry.id
            }
            None => {
                let mut data = self.data.clone();
                data.insert("tag".to_owned(), json!(tag));
                let intent = Intent {
                    kind: self.kind.to_owned(),
                    reference: tag,
                    purpose: self.purpose,
                    data: Value::Object(data),
                };
                task.ledger.intend(intent).await?
            }
        };
        task.check_cancelled()?;
        let id = make.await?;
        task.ledger.created(entry, &id).await?;
        Ok(id)
    }

    /// Returns what the ledger says of the thing, while it is open.
    pub(crate) async fn known(&self, task: &Task) -> Result<Option<LedgerEntry>> {
        let tag = self.tag(task);
        let mine = |entry: &LedgerEntry| entry.is_open() && entry.kind == self.kind && tag_of(entry) == tag;
        Ok(task.ledger.entries().await?.into_iter().rev().find(mine))
    }

    /// Tells the ledger that the thing is gone.
    pub(crate) async fn gone(&self, task: &Task) -> Result<()> {
        let tag = self.tag(task);
        for entry in task.ledger.entries().await? {
            if entry.is_open() && entry.kind == self.kind && tag_of(&entry) == tag {
                task.ledger.removed(entry.id).await?;
            }
        }
        Ok(())
    }
}

/// Returns the tag of a thing of this task's resource and operation.
pub(crate) fn tag(task: &Task, role: &str) -> String {
    format!("{}/{}/{role}", task.operation_id, task.resource.key.id)
}

/// Returns the tag that an entry carries.
pub(crate) fn tag_of(entry: &LedgerEntry) -> &str {
    entry.data.get("tag").and_then(Value::as_str).unwrap_or(&entry.reference)
}

/// Returns what an entry carries beside its tag.
pub(crate) fn data_of<'a>(entry: &'a LedgerEntry, name: &str) -> Option<&'a str> {
    entry.data.get(name).and_then(Value::as_str)
}

/// Returns the id that an entry is found by: the one that the ledger has, or what `find` finds by the tag.
pub(crate) async fn id_of<F>(entry: &LedgerEntry, find: impl Fn() -> F + Send) -> Result<Option<String>>
where
    F: Future<Output = Result<Option<String>>> + Send,
{
    match entry.state {
        LedgerState::Created => Ok(Some(entry.reference.clone())),
        _ => found(find).await,
    }
}

/// After how long it is looked again for what was not found: a request whose sender is gone may still be on its way
/// through the cloud.
const LOOKS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// Returns what is found of something that a request of an earlier run may still bring about.
pub(crate) async fn found<T, F>(find: impl Fn() -> F + Send) -> Result<Option<T>>
where
    T: Send,
    F: Future<Output = Result<Option<T>>> + Send,
{
    for pause in LOOKS {
        tokio::time::sleep(pause).await;
        if let Some(id) = find().await? {
            return Ok(Some(id));
        }
    }
    Ok(None)
}
