//! What a step left behind, as the store keeps it, and what becomes of a resource by it.

use std::collections::BTreeMap;
use std::sync::Arc;

use karbor_plugin::{ErrorKind, Finding, Mapped, Outcome, PlannedAction, Protection, Restored};
use karbor_types::{Hook, Resource, ResourceKey};
use karbor_vault::SavedResource;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The outcome of a step as it stands in the store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StepOutcome {
    /// What the plugin returned.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) outcome: Outcome,
    /// Protect: what the resource has in the bank after this step, to be adopted by a later attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) saved: Option<SavedResource>,
    /// Delete: the resource's records, kept here because the commit record goes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) records: Option<BTreeMap<String, Value>>,
}

fn is_default(outcome: &Outcome) -> bool {
    *outcome == Outcome::default()
}

impl StepOutcome {
    /// Reads what the store keeps; null is nothing.
    pub(crate) fn from_json(value: &Value) -> Result<Self, serde_json::Error> {
        if value.is_null() { Ok(Self::default()) } else { Self::deserialize(value) }
    }

    pub(crate) fn to_json(&self) -> Value {
        if *self == Self::default() {
            return Value::Null;
        }
        serde_json::to_value(self).expect("maps with text keys, texts and numbers are always JSON")
    }
}

/// Why a resource failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResourceFailure {
    pub(crate) hook: Hook,
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
}

/// A resource of the operation, and what has become of it so far.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) resource: Resource,
    /// The plugin; nothing where none is needed.
    pub(crate) protection: Option<Arc<dyn Protection>>,
    pub(crate) parameters: Map<String, Value>,
    pub(crate) children: Vec<usize>,
    /// What its hooks returned, merged.
    pub(crate) state: Value,
    pub(crate) restored: Option<Restored>,
    /// What its parts have become.
    pub(crate) mapped: Vec<Mapped>,
    pub(crate) plan: Vec<PlannedAction>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) saved: Option<SavedResource>,
    pub(crate) records: BTreeMap<String, Value>,
    pub(crate) failure: Option<ResourceFailure>,
    /// Why steps of it were skipped.
    pub(crate) skipped: Option<String>,
    /// Whether one of its hooks has begun.
    pub(crate) begun: bool,
    /// Steps that have not ended.
    pub(crate) open_steps: usize,
}

impl Member {
    pub(crate) fn key(&self) -> &ResourceKey {
        &self.resource.key
    }

    /// Takes in what a hook returned.
    pub(crate) fn merge(&mut self, outcome: StepOutcome) {
        let StepOutcome { outcome, saved, records } = outcome;
        merge_state(&mut self.state, outcome.state);
        if outcome.restored.is_some() {
            self.restored = outcome.restored;
        }
        self.mapped.extend(outcome.mapped);
        self.plan.extend(outcome.plan);
        self.findings.extend(outcome.findings);
        if saved.is_some() {
            self.saved = saved;
        }
        if let Some(records) = records {
            self.records = records;
        }
    }

    /// Returns one word for what has become of it: `done`, `failed`, `skipped`, `running` or `pending`.
    pub(crate) fn status(&self) -> &'static str {
        match self {
            Self { failure: Some(_), .. } => "failed",
            Self { skipped: Some(_), .. } => "skipped",
            Self { open_steps: 0, .. } => "done",
            Self { begun: true, .. } => "running",
            _ => "pending",
        }
    }

    /// Returns why it is not done.
    pub(crate) fn reason(&self) -> Option<String> {
        self.failure.as_ref().map(|failure| failure.message.clone()).or_else(|| self.skipped.clone())
    }

    /// Returns the resource's part of an operation's result.
    pub(crate) fn result(&self) -> Value {
        let mut row = json!({
            "type": self.key().kind, "id": self.key().id, "name": self.resource.name, "status": self.status(),
        });
        let members = row.as_object_mut().expect("it was just made as an object");
        if let Some(reason) = self.reason() {
            members.insert("reason".to_owned(), json!(reason));
        }
        if let Some(failure) = &self.failure {
            members.insert("hook".to_owned(), json!(failure.hook));
            members.insert("kind".to_owned(), json!(failure.kind));
        }
        if let Some(Restored { key, name }) = &self.restored {
            members.insert("restored".to_owned(), json!({"type": key.kind, "id": key.id, "name": name}));
        }
        if !self.mapped.is_empty() {
            members.insert("mapped".to_owned(), json!(self.mapped));
        }
        if !self.findings.is_empty() {
            members.insert("findings".to_owned(), json!(self.findings));
        }
        row
    }
}

/// Merges what a hook returned over what was there, member by member; anything but objects replaces.
fn merge_state(state: &mut Value, new: Value) {
    match (state, new) {
        (_, Value::Null) => {}
        (Value::Object(state), Value::Object(new)) => state.extend(new),
        (state, new) => *state = new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_merge_member_by_member_and_null_changes_nothing() {
        let mut state = Value::Null;
        for new in [json!({"a": 1, "b": 1}), Value::Null, json!({"b": 2})] {
            merge_state(&mut state, new);
        }
        assert_eq!(state, json!({"a": 1, "b": 2}));
    }

    #[test]
    fn outcomes_are_read_back_and_nothing_is_null() {
        assert_eq!(StepOutcome::default().to_json(), Value::Null);
        let outcome = Outcome { state: json!({"snapshot": "s1"}), ..Outcome::default() };
        let records = Some(BTreeMap::from([("facts".to_owned(), json!([1, 2]))]));
        let outcome = StepOutcome { outcome, saved: Some(SavedResource::default()), records };
        assert_eq!(StepOutcome::from_json(&outcome.to_json()).unwrap(), outcome);
    }
}
