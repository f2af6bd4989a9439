//! Restores and verifications.

use std::collections::BTreeMap;

use karbor_types::{
    CheckpointId, Instant, Parameters, ProjectId, ProviderId, RestoreId, RunEvent, RunState, VerificationId,
};

/// A restore of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restore {
    /// Its id.
    pub id: RestoreId,
    /// The project that asked for it.
    pub project: ProjectId,
    /// The provider of the checkpoint.
    pub provider: ProviderId,
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// Where to, as the client wrote it.
    pub target: Option<String>,
    /// Parameters by type or resource.
    pub parameters: Parameters,
    /// Its state.
    pub state: RunState,
    /// `<type>#<id>` of each resource to its status.
    pub resources_status: BTreeMap<String, String>,
    /// `<type>#<id>` of each resource to what is to be said about it.
    pub resources_reason: BTreeMap<String, String>,
    /// Why it failed as a whole.
    pub reason: Option<String>,
    /// When it was asked for.
    pub created_at: Instant,
    /// When its row was last changed.
    pub updated_at: Option<Instant>,
}

/// A restore to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRestore {
    /// Its id.
    pub id: RestoreId,
    /// The project that asks for it.
    pub project: ProjectId,
    /// The provider of the checkpoint.
    pub provider: ProviderId,
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// Where to, as the client wrote it.
    pub target: Option<String>,
    /// Parameters by type or resource.
    pub parameters: Parameters,
}

/// A verification of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Its id.
    pub id: VerificationId,
    /// The project that asked for it.
    pub project: ProjectId,
    /// The provider of the checkpoint.
    pub provider: ProviderId,
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// Parameters by type or resource.
    pub parameters: Parameters,
    /// Its state.
    pub state: RunState,
    /// `<type>#<id>` of each resource to its status.
    pub resources_status: BTreeMap<String, String>,
    /// `<type>#<id>` of each resource to what is to be said about it.
    pub resources_reason: BTreeMap<String, String>,
    /// Why it failed as a whole.
    pub reason: Option<String>,
    /// When it was asked for.
    pub created_at: Instant,
    /// When its row was last changed.
    pub updated_at: Option<Instant>,
}

/// A verification to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVerification {
    /// Its id.
    pub id: VerificationId,
    /// The project that asks for it.
    pub project: ProjectId,
    /// The provider of the checkpoint.
    pub provider: ProviderId,
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// Parameters by type or resource.
    pub parameters: Parameters,
}

/// What an operation changes of its restore or verification; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunChange {
    /// What happened to it; the state follows by [`RunState::after`].
    pub event: Option<RunEvent>,
    /// The status of all resources.
    pub resources_status: Option<BTreeMap<String, String>>,
    /// What is to be said about resources.
    pub resources_reason: Option<BTreeMap<String, String>>,
    /// Why it failed as a whole.
    pub reason: Option<String>,
}
