//! Occurrences of scheduled operations: what was due, and what became of it.

use karbor_types::{
    CatchUp, CheckpointId, Instant, OccurrenceEvent, OccurrenceId, OccurrenceReason, OccurrenceState,
    OperationId, OperationState, ProjectId, ProviderId, ScheduledOperationId, TriggerId,
};
use serde::{Deserialize, Serialize};

use crate::{NewCheckpoint, NewOperation, NewRestore, NewVerification};

/// How the occurrences of a scheduled operation are run; what is left out is as the service is set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunRules {
    /// What is done with the last occurrence that was missed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<CatchUp>,
    /// Over how many seconds after the instant starts are spread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter_seconds: Option<u32>,
    /// How often a failed occurrence is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// The higher, the sooner, among those of the same project.
    #[serde(skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// The roles with which it acts: those of its maker. `None` for one that was taken over from elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<String>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// Where an occurrence comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A trigger fired.
    Trigger,
    /// Somebody asked for it by hand.
    Manual,
}

impl Origin {
    /// Returns the text that the API and the database use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trigger => "trigger",
            Self::Manual => "manual",
        }
    }
}

/// One occurrence of a scheduled operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    /// Its id.
    pub id: OccurrenceId,
    /// The scheduled operation; it may be deleted.
    pub operation: ScheduledOperationId,
    /// What the scheduled operation does.
    pub operation_type: String,
    /// The trigger.
    pub trigger: TriggerId,
    /// The project.
    pub project: ProjectId,
    /// The provider that the scheduled operation names; the nil UUID when it names none that can be read.
    pub provider: ProviderId,
    /// The instant at which it is due.
    pub at: Instant,
    /// Where it comes from.
    pub origin: Origin,
    /// Its state.
    pub state: OccurrenceState,
    /// Why it was skipped, failed, or is tried again.
    pub reason: Option<OccurrenceReason>,
    /// What there is to say about that.
    pub detail: Option<String>,
    /// The higher, the sooner.
    pub priority: i32,
    /// Which attempt this is; the first one is 1.
    pub attempt: u32,
    /// When somebody has to look at it next.
    pub act_at: Option<Instant>,
    /// After that it is not started any more.
    pub until: Instant,
    /// The checkpoint that it made.
    pub checkpoint: Option<CheckpointId>,
    /// When retention is applied next on its behalf.
    pub retain_at: Option<Instant>,
    /// When it was handed out.
    pub created_at: Instant,
    /// When it was first started.
    pub started_at: Option<Instant>,
    /// When it ended.
    pub ended_at: Option<Instant>,
    /// When it was last changed.
    pub updated_at: Option<Instant>,
}

/// A trigger whose time has come, as it stands in the database: whether it can be read is the caller's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueTrigger {
    /// Its id.
    pub id: TriggerId,
    /// Its type.
    pub kind: String,
    /// Its properties: JSON, unless somebody damaged it.
    pub properties: String,
    /// The occurrence that is due; [`crate::Trigger::UNPLANNED`] when it was never worked out.
    pub next_at: Instant,
    /// Counts the changes of what it says.
    pub revision: i64,
    /// The last of its operations that got this occurrence already.
    pub handed_to: Option<ScheduledOperationId>,
}

/// What handing out must know of a scheduled operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enlisted {
    /// Its id.
    pub id: ScheduledOperationId,
    /// Its trigger.
    pub trigger: TriggerId,
    /// Its project.
    pub project: ProjectId,
    /// What it does.
    pub operation_type: String,
    /// The provider that it names; the nil UUID when it names none that can be read.
    pub provider: ProviderId,
    /// Whether it is done at all.
    pub enabled: bool,
    /// How its occurrences are run.
    pub rules: RunRules,
    /// When it was made.
    pub created_at: Instant,
}

/// What becomes of a due trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Advance {
    /// It fires then next, or never again.
    To(Option<Instant>),
    /// More of its operations have to get the same occurrence: those after this one.
    Beyond(ScheduledOperationId),
}

/// A trigger that is moved on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandOut {
    /// The trigger, as it was read.
    pub trigger: DueTrigger,
    /// What becomes of it.
    pub advance: Advance,
}

/// An occurrence to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOccurrence {
    /// The scheduled operation.
    pub operation: ScheduledOperationId,
    /// What it does.
    pub operation_type: String,
    /// The trigger.
    pub trigger: TriggerId,
    /// The project.
    pub project: ProjectId,
    /// The provider.
    pub provider: ProviderId,
    /// The instant at which it is due.
    pub at: Instant,
    /// Where it comes from.
    pub origin: Origin,
    /// Waiting, ready or skipped.
    pub state: OccurrenceState,
    /// Why it is skipped.
    pub reason: Option<OccurrenceReason>,
    /// The higher, the sooner.
    pub priority: i32,
    /// When it may be started.
    pub act_at: Instant,
    /// After that it is not started any more.
    pub until: Instant,
}

/// How many occurrences may be started and not ended at once; `None` is any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OccurrenceLimits {
    /// Of one provider.
    pub provider: Option<u32>,
    /// Of one project.
    pub project: Option<u32>,
}

impl OccurrenceLimits {
    /// Returns whether there is any limit.
    pub const fn any(self) -> bool {
        self.provider.is_some() || self.project.is_some()
    }
}

/// How many occurrences of one project are started with one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartedCount {
    /// The provider.
    pub provider: ProviderId,
    /// The project.
    pub project: ProjectId,
    /// How many.
    pub number: u32,
}

/// A piece of work that an occurrence starts.
#[derive(Debug, Clone, PartialEq)]
pub enum NewWork {
    /// A checkpoint, or a copy of one.
    Checkpoint(Box<(NewCheckpoint, NewOperation)>),
    /// A verification.
    Verification(Box<(NewVerification, NewOperation)>),
    /// A restore.
    Restore(Box<(NewRestore, NewOperation)>),
    /// An operation about no row of its own.
    Operation(Box<NewOperation>),
}

impl NewWork {
    /// Returns the operation that does it.
    pub fn operation(&self) -> &NewOperation {
        match self {
            Self::Checkpoint(work) => &work.1,
            Self::Verification(work) => &work.1,
            Self::Restore(work) => &work.1,
            Self::Operation(operation) => operation,
        }
    }
}

/// An occurrence to be started.
#[derive(Debug, Clone, PartialEq)]
pub struct Beginning {
    /// The occurrence.
    pub occurrence: OccurrenceId,
    /// The attempt.
    pub attempt: u32,
    /// All that it starts.
    pub work: Vec<NewWork>,
}

/// What is decided about an occurrence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The occurrence.
    pub occurrence: OccurrenceId,
    /// The state in which it was found: if it is in another one by now, the verdict is void.
    pub state: OccurrenceState,
    /// The attempt at which it was found, likewise.
    pub attempt: u32,
    /// What happens to it.
    pub outcome: Outcome,
}

/// What happens to an occurrence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outcome {
    /// The event.
    pub event: OccurrenceEvent,
    /// Why.
    pub reason: Option<OccurrenceReason>,
    /// What there is to say about that.
    pub detail: Option<String>,
    /// When somebody has to look at it next; of no use when it ends.
    pub act_at: Option<Instant>,
    /// The checkpoint that it made.
    pub checkpoint: Option<CheckpointId>,
    /// When retention is applied on its behalf.
    pub retain_at: Option<Instant>,
}

impl Outcome {
    /// Makes an outcome that tells nothing beside the event.
    pub const fn of(event: OccurrenceEvent) -> Self {
        Self { event, reason: None, detail: None, act_at: None, checkpoint: None, retain_at: None }
    }
}

/// An operation that an occurrence started, as far as it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartedOperation {
    /// The occurrence.
    pub occurrence: OccurrenceId,
    /// The attempt that started it.
    pub attempt: u32,
    /// The operation.
    pub id: OperationId,
    /// Its state.
    pub state: OperationState,
    /// The checkpoint that it is about.
    pub checkpoint: Option<CheckpointId>,
    /// Why it failed.
    pub reason: Option<String>,
}
