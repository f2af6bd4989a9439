//! Checkpoints: the database's index of what lies in the banks.

use karbor_types::{
    CheckpointEvent, CheckpointId, CheckpointState, Instant, PackedGraph, PlanId, ProjectId, ProviderId,
    Resource,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A plan as it was when the checkpoint was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanSnapshot {
    /// The plan's id.
    pub id: PlanId,
    /// Its name.
    pub name: String,
    /// Its provider.
    pub provider_id: ProviderId,
    /// Its resources.
    pub resources: Vec<Resource>,
}

/// How large a checkpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CheckpointStats {
    /// Bytes that a restore writes, holes included.
    pub logical_bytes: u64,
    /// Bytes in the bank that the checkpoint reaches.
    pub stored_bytes: u64,
    /// Bytes in the bank that came with it.
    pub new_bytes: u64,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Its id; the operation that makes it has the same.
    pub id: CheckpointId,
    /// The project that it belongs to.
    pub project: ProjectId,
    /// The provider whose bank holds it.
    pub provider: ProviderId,
    /// The plan as it was.
    pub plan: PlanSnapshot,
    /// Its state.
    pub state: CheckpointState,
    /// The resource graph, once it is known.
    pub graph: Option<PackedGraph>,
    /// What its maker tells about it, `created_by` above all.
    pub extra_info: Map<String, Value>,
    /// Its sizes, once it is committed.
    pub stats: Option<CheckpointStats>,
    /// Why it is in error.
    pub reason: Option<String>,
    /// The session that committed it.
    pub session: Option<String>,
    /// When its commit record was put.
    pub committed_at: Option<Instant>,
    /// When it was asked for.
    pub created_at: Instant,
    /// When its row was last changed.
    pub updated_at: Option<Instant>,
}

/// A checkpoint to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewCheckpoint {
    /// Its id.
    pub id: CheckpointId,
    /// The project that it will belong to and that is charged.
    pub project: ProjectId,
    /// The provider whose bank will hold it.
    pub provider: ProviderId,
    /// The plan.
    pub plan: PlanSnapshot,
    /// `Protecting`, or `WaitCopying` for a copy.
    pub state: CheckpointState,
    /// What its maker tells about it.
    pub extra_info: Map<String, Value>,
}

/// What an operation changes of its checkpoint; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CheckpointChange {
    /// What happened to it; the state follows by [`CheckpointState::after`].
    pub event: Option<CheckpointEvent>,
    /// The resource graph.
    pub graph: Option<PackedGraph>,
    /// All new extra info.
    pub extra_info: Option<Map<String, Value>>,
    /// Its sizes.
    pub stats: Option<CheckpointStats>,
    /// Why it failed.
    pub reason: Option<String>,
    /// The session that committed it.
    pub session: Option<String>,
    /// When its commit record was put.
    pub committed_at: Option<Instant>,
}

/// Why a checkpoint is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeletionCause {
    /// Somebody asked for it.
    Request,
    /// Its time is over: it waits for whoever reads it.
    Expiry,
}
