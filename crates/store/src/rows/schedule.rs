//! Triggers and scheduled operations.

use karbor_types::{Instant, ProjectId, ScheduledOperationId, TriggerId, UserId};
use serde_json::{Map, Value};

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
    /// When it is due next; `None` when it never is again, or that was not worked out yet.
    pub next_at: Option<Instant>,
    /// When it was made.
    pub created_at: Instant,
    /// When it was last changed.
    pub updated_at: Option<Instant>,
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
    /// `protect` or `retention_protect`.
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
    /// When it was made.
    pub created_at: Instant,
    /// When it was last changed.
    pub updated_at: Option<Instant>,
}
