//! Triggers and scheduled operations.

use karbor_types::{Instant, ProjectId, ScheduledOperationId, TriggerId, UserId};
use serde_json::{Map, Value};

use crate::RunRules;

/// When something is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Trigger {
    /// Its id.
    pub id: TriggerId,
    /// Its name.
    pub name: String,
    /// The project that it belongs to.
    pub project: ProjectId,
    /// Its type: `time`.
    pub kind: String,
    /// Its properties, as the client gave them.
    pub properties: Map<String, Value>,
    /// When it is due next; `None` when it never is again, [`Trigger::UNPLANNED`] when that was not worked out yet.
    pub next_at: Option<Instant>,
    /// Why nobody can read when it fires; it is set aside until it is changed.
    pub fault: Option<String>,
    /// When it was made.
    pub created_at: Instant,
    /// When it was last changed.
    pub updated_at: Option<Instant>,
}

impl Trigger {
    /// Stands for a time that was not worked out yet: whoever hands out occurrences works it out from then on.
    pub const UNPLANNED: Instant = Instant::from_micros(0);
}

/// What is changed of a trigger; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TriggerUpdate {
    /// A new name.
    pub name: Option<String>,
    /// All new properties.
    pub properties: Option<Map<String, Value>>,
    /// When it is due next, or never.
    pub next_at: Option<Option<Instant>>,
    /// When it was due when this was decided: if it is due at another time by now, nothing is changed.
    pub planned: Option<Option<Instant>>,
}

/// What is done when a trigger fires.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduledOperation {
    /// Its id.
    pub id: ScheduledOperationId,
    /// Its name.
    pub name: String,
    /// What people say about it.
    pub description: Option<String>,
    /// `protect`, `retention_protect`, `verify`, `copy` or `restore_test`.
    pub operation_type: String,
    /// Who made it.
    pub user: UserId,
    /// The project that it belongs to.
    pub project: ProjectId,
    /// The trigger.
    pub trigger: TriggerId,
    /// What to do, as the client gave it.
    pub definition: Map<String, Value>,
    /// Whether it is done when the trigger fires.
    pub enabled: bool,
    /// How its occurrences are run.
    pub rules: RunRules,
    /// When it was made.
    pub created_at: Instant,
    /// When it was last changed.
    pub updated_at: Option<Instant>,
}

/// What is changed of a scheduled operation; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ScheduledOperationUpdate {
    /// A new name.
    pub name: Option<String>,
    /// What people say about it now, or nothing.
    pub description: Option<Option<String>>,
    /// Another trigger.
    pub trigger: Option<TriggerId>,
    /// All of the new definition.
    pub definition: Option<Map<String, Value>>,
    /// Whether it is done when the trigger fires.
    pub enabled: Option<bool>,
    /// How its occurrences are run.
    pub rules: Option<RunRules>,
}
