//! What the types of this crate do differently; [`HostProtection`](crate::protection::HostProtection) does the rest.

use std::fmt;

use async_trait::async_trait;
use karbor_plugin::{
    Error, ErrorKind, LedgerEntry, Outcome, PlannedAction, PlannedEffect, Resource, Restored, Result,
    Schemas, Task,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Kind;
use crate::inventory::{Instance, Inventory, restored_id};

/// The format of all records that this crate puts into checkpoints.
pub(crate) const RECORD_FORMAT: u32 = 1;

/// What one type does.
#[async_trait]
pub(crate) trait Driver: fmt::Debug + Send + Sync {
    /// Returns the schemas of its parameters and records.
    fn schemas(&self) -> Schemas;

    /// Moves the bytes into the checkpoint; in a dry run, says whether that could be begun.
    async fn protect(&self, task: &Task, instance: &Instance) -> Result<Outcome>;

    /// Moves the bytes back; in a dry run, says where to and what stands against it. Without `instance`, the
    /// original has left the inventory.
    async fn restore(
        &self,
        task: &Task,
        inventory: &Inventory,
        instance: Option<&Instance>,
    ) -> Result<Outcome>;

    /// Looks whether what is stored can be made use of.
    async fn verify(&self, task: &Task, instance: Option<&Instance>) -> Result<Outcome>;

    /// Removes what a ledger entry tells of.
    async fn clean_up(&self, task: &Task, instance: Option<&Instance>, entry: &LedgerEntry) -> Result<()>;
}

/// Reads the task's parameters. The worker has checked them against the schema; a caller that has not is told.
pub(crate) fn parameters<T: DeserializeOwned>(task: &Task) -> Result<T> {
    serde_json::from_value(Value::Object(task.parameters.clone())).map_err(|err| {
        let text = format!("parameters of {}: {err}", task.resource.key);
        Error::new(ErrorKind::Invalid, text)
    })
}

/// Reads the record that protect put.
pub(crate) fn record<T: DeserializeOwned>(task: &Task, name: &str) -> Result<T> {
    let Some(value) = task.record(name) else {
        let text = format!("the checkpoint has no record `{name}` of {}", task.resource.key);
        return Err(Error::new(ErrorKind::Damaged, text));
    };
    let found = value.get("format").and_then(Value::as_u64);
    if found != Some(u64::from(RECORD_FORMAT)) {
        let text = format!(
            "the record `{name}` of {} has a format that this version does not read; restore it with a newer one",
            task.resource.key
        );
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    serde_json::from_value(value.clone()).map_err(|err| {
        let text = format!("the record `{name}` of {} is malformed", task.resource.key);
        Error::new(ErrorKind::Damaged, text).with_source(err)
    })
}

/// Returns what a restored resource is called: itself when it is in its place again, otherwise by where it is.
pub(crate) fn announce(task: &Task, kind: Kind, in_place: bool, place: &str) -> Restored {
    if in_place {
        let Resource { key, name, .. } = task.resource.clone();
        return Restored { key, name };
    }
    let id = restored_id(&task.context.project, kind, place);
    let key = karbor_plugin::ResourceKey { kind: kind.resource_type(), id };
    Restored { key, name: place.to_owned() }
}

/// Returns the answer of a dry run: what would be done, or why the place itself is refused.
pub(crate) fn planned<T>(
    original: &str,
    target: Result<T>,
    plan: impl FnOnce(&T) -> PlannedAction,
) -> Result<Outcome> {
    let action = match target {
        Ok(target) => plan(&target),
        Err(err) if err.is_retryable() => return Err(err),
        Err(err) => PlannedAction {
            effect: PlannedEffect::Create,
            subject: original.to_owned(),
            details: Value::Null,
            problem: Some(err.message().to_owned()),
            needs: Vec::new(),
        },
    };
    Ok(Outcome { plan: vec![action], ..Outcome::default() })
}

/// Returns a schema of parameters.
pub(crate) fn schema(title: &str, properties: Value) -> Value {
    json!({"title": title, "type": "object", "properties": properties, "additionalProperties": false})
}

/// Returns the schema of what is saved: one record of that name.
pub(crate) fn saved_info(title: &str, name: &str, properties: Value) -> Value {
    let mut members = properties;
    members["format"] = json!({"type": "integer", "title": "Format", "description": "The record's format."});
    let record = json!({"type": "object", "title": title, "properties": members, "required": ["format"]});
    json!({"title": title, "type": "object", "properties": {name: record}, "required": [name]})
}

/// Returns the parameters by which a restore of something that has a path is told where to.
pub(crate) fn path_parameters() -> Value {
    json!({
        "in_place": {
            "type": "boolean", "default": false, "title": "In place",
            "description": "Restore to where the original was.",
        },
        "path": {
            "type": "string", "minLength": 2, "title": "Path",
            "description": "Restore to this absolute path, which must be in a place that the host's inventory allows. \
                Without it and without in_place: beside the original, its name followed by .restored- and a number.",
        },
        "overwrite": {
            "type": "boolean", "default": false, "title": "Overwrite",
            "description": "Replace what is there. Otherwise the restore is refused when something is.",
        },
    })
}

/// Returns the parameter of verify that all types have.
pub(crate) fn verify_schema(title: &str, description: &str) -> Value {
    let deep = json!({"type": "boolean", "default": false, "title": "Deep", "description": description});
    schema(title, json!({"deep": deep}))
}
