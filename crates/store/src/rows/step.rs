//! Steps of operations, and the ledger of what operations make outside.

use karbor_types::{Instant, OperationId, Progress, ResourceKey, StepState};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One step of an operation: one hook of one resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The operation.
    pub operation: OperationId,
    /// The resource.
    pub resource: ResourceKey,
    /// Which hook of its plugin.
    pub hook: String,
    /// Its place in the operation's order; names the step within the operation.
    pub ordinal: u32,
    /// Its state.
    pub state: StepState,
    /// What the hook left for later steps; null for nothing.
    pub outcome: Value,
    /// Why it failed or was skipped.
    pub reason: Option<String>,
    /// How often it was started.
    pub attempts: u32,
    /// How far it has come.
    pub progress: Progress,
    /// When it was last started.
    pub started_at: Option<Instant>,
    /// When it ended.
    pub ended_at: Option<Instant>,
}

/// A step to be saved as pending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewStep {
    /// The resource.
    pub resource: ResourceKey,
    /// Which hook of its plugin.
    pub hook: String,
    /// Its place in the operation's order; unique within the operation.
    pub ordinal: u32,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq)]
pub struct StepEnd {
    /// `Done`, `Failed` or `Skipped`; also `Pending`, for a step that is to be started again.
    pub state: StepState,
    /// What it left for later steps; null for nothing.
    pub outcome: Value,
    /// Why it failed or was skipped.
    pub reason: Option<String>,
    /// How far it came, where that is to be changed.
    pub progress: Option<Progress>,
}

/// A change to one step, for [`Store::record_steps`](crate::Store::record_steps).
#[derive(Debug, Clone, PartialEq)]
pub enum StepChange {
    /// It was started.
    Started {
        /// Which step.
        ordinal: u32,
    },
    /// It ended.
    Finished {
        /// Which step.
        ordinal: u32,
        /// How.
        end: StepEnd,
    },
    /// It came further.
    Progressed {
        /// Which step.
        ordinal: u32,
        /// How far.
        progress: Progress,
    },
}

/// How far an operation has come: its steps, counted and summed by the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OperationProgress {
    /// Steps not started.
    pub pending: u64,
    /// Steps at work.
    pub running: u64,
    /// Steps done.
    pub done: u64,
    /// Steps failed.
    pub failed: u64,
    /// Steps skipped.
    pub skipped: u64,
    /// Bytes, over all steps; `bytes_total` is `None` until one step knows its own.
    pub bytes: Progress,
}

/// What an entry's thing is for, which decides when it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerPurpose {
    /// Needed only on the way: it is gone when the operation ends, however it ends.
    Scaffold,
    /// What the operation is for: it stays, unless the operation is undone.
    Product,
}

/// How an entry of the ledger stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerState {
    /// It is about to be made: whether it was must be looked up.
    Intended,
    /// It was made.
    Created,
    /// It is gone, or turned out never to have been made.
    Removed,
}

/// Something that an operation is about to make outside the bank.
#[derive(Debug, Clone, PartialEq)]
pub struct NewLedgerEntry {
    /// The resource for which it is made.
    pub resource: ResourceKey,
    /// What it is, in the plugin's words: `snapshot`, `volume`, ….
    pub kind: String,
    /// By what it is found again: a path, a name, a tag.
    pub reference: String,
    /// What it is for.
    pub purpose: LedgerPurpose,
    /// What its plugin wants to remember; null for nothing.
    pub data: Value,
}

/// Something that an operation makes outside the bank, written before it is made.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerEntry {
    /// The operation.
    pub operation: OperationId,
    /// Its number within the operation; entries are numbered as they come.
    pub id: i64,
    /// The resource for which it is made.
    pub resource: ResourceKey,
    /// What it is, in the plugin's words.
    pub kind: String,
    /// By what it is found again.
    pub reference: String,
    /// What it is for.
    pub purpose: LedgerPurpose,
    /// How it stands.
    pub state: LedgerState,
    /// What its plugin wants to remember; null for nothing.
    pub data: Value,
}
