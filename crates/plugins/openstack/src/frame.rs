//! What all plugins of this crate have in common: descriptions, parameters, records, and answers of dry runs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use karbor_plugin::{
    Description, Error, ErrorKind, Finding, Hook, KindDescription, OperationKind, PlannedAction,
    PlannedEffect, ResourceType, Result, Schemas, Severity, Task,
};
use karbor_vault::{BlockTarget, CopyOptions};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// The format of all records that this crate puts into checkpoints.
pub(crate) const RECORD_FORMAT: u32 = 1;

/// What a plugin for one type says of itself: the name, the schemas, and the hooks that do something.
pub(crate) fn describe(
    name: &str,
    kind: ResourceType,
    schemas: Schemas,
    hooks: &[(OperationKind, &[Hook])],
) -> Description {
    let operations: BTreeSet<OperationKind> = hooks.iter().map(|(operation, _)| *operation).collect();
    let hooks: BTreeMap<OperationKind, BTreeSet<Hook>> =
        hooks.iter().map(|(operation, hooks)| (*operation, hooks.iter().copied().collect())).collect();
    let kind = KindDescription { kind, operations, schemas, hooks };
    Description { name: name.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned(), kinds: vec![kind] }
}

/// Reads what a provider sets for a plugin.
pub(crate) fn settings<T: DeserializeOwned>(plugin: &str, settings: &Map<String, Value>) -> Result<T> {
    serde_json::from_value(Value::Object(settings.clone()))
        .map_err(|err| Error::new(ErrorKind::Invalid, format!("the settings of the plugin {plugin}: {err}")))
}

/// Refuses settings where there are none.
pub(crate) fn no_settings(plugin: &str, settings: &Map<String, Value>) -> Result<()> {
    match settings.keys().next() {
        None => Ok(()),
        Some(name) => {
            let text = format!("the plugin {plugin} has no settings, also not `{name}`");
            Err(Error::new(ErrorKind::Invalid, text))
        }
    }
}

/// Refuses resources of other types.
pub(crate) fn require_kind(task: &Task, kind: &str) -> Result<()> {
    if task.resource.key.kind.as_str() == kind {
        return Ok(());
    }
    let text = format!("this plugin does not handle resources of type {}", task.resource.key.kind);
    Err(Error::new(ErrorKind::Unsupported, text))
}

/// Reads the task's parameters. The worker has checked them against the schema; a caller that has not is told.
pub(crate) fn parameters<T: DeserializeOwned>(task: &Task) -> Result<T> {
    serde_json::from_value(Value::Object(task.parameters.clone())).map_err(|err| {
        let text = format!("parameters of {}: {err}", task.resource.key);
        Error::new(ErrorKind::Invalid, text)
    })
}

/// Reads what this resource's earlier hooks returned; the default before the first.
pub(crate) fn state<T: DeserializeOwned + Default>(task: &Task) -> Result<T> {
    if task.state.is_null() {
        return Ok(T::default());
    }
    serde_json::from_value(task.state.clone()).map_err(|err| {
        let text = format!("what an earlier step of {} left cannot be read", task.resource.key);
        Error::new(ErrorKind::Other, text).with_source(err)
    })
}

/// Reads the record that protect put.
pub(crate) fn record<T: DeserializeOwned>(task: &Task, name: &str) -> Result<T> {
    let Some(value) = task.record(name) else {
        let text = format!("the checkpoint has no record `{name}` of {}", task.resource.key);
        return Err(Error::new(ErrorKind::Damaged, text));
    };
    if value.get("format").and_then(Value::as_u64) != Some(u64::from(RECORD_FORMAT)) {
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

/// Returns one property that is a text. Its default is null, as in the old schemas: there is none.
pub(crate) fn text(title: &str, description: &str) -> Value {
    json!({"type": "string", "default": null, "maxLength": 255, "title": title, "description": description})
}

/// Returns one property that is true or false.
pub(crate) fn flag(title: &str, default: bool, description: &str) -> Value {
    json!({"type": "boolean", "default": default, "title": title, "description": description})
}

/// Returns a text parameter that was really given.
pub(crate) fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// Returns a planned action.
pub(crate) fn planned(
    effect: PlannedEffect,
    subject: impl Into<String>,
    details: Value,
    problem: Option<String>,
) -> PlannedAction {
    PlannedAction { effect, subject: subject.into(), details, problem, needs: Vec::new() }
}

/// Returns a finding that says that something is wrong, although what was asked for was done.
pub(crate) fn warning(subject: impl Into<String>, message: impl Into<String>) -> Finding {
    Finding { severity: Severity::Warning, subject: subject.into(), message: message.into() }
}

/// Returns a finding that says that what was asked for was not reached.
pub(crate) fn wrong(subject: impl Into<String>, message: impl Into<String>) -> Finding {
    Finding { severity: Severity::Error, subject: subject.into(), message: message.into() }
}

/// Reads a stream from its first byte to its last, and names what cannot be read.
pub(crate) async fn read_all(task: &Task, stream: &str) -> Result<Vec<Finding>> {
    let reader = task.reader()?.open_stream(&task.resource.key, stream).await?;
    let options = CopyOptions { progress: Some(Arc::clone(&task.progress)), cancel: task.cancel.clone() };
    let report = reader.copy_to(Arc::new(Discard), &options).await?;
    let damaged = report.damaged.iter().map(|damage| {
        let (start, end, reason) = (damage.range.start, damage.range.end, &damage.reason);
        wrong(stream, format!("bytes {start} to {end} cannot be read from the bank: {reason}"))
    });
    Ok(damaged.collect())
}

/// Takes everything and keeps nothing.
struct Discard;

impl BlockTarget for Discard {
    fn set_size(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_at(&self, _offset: u64, _data: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn punch(&self, _range: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
