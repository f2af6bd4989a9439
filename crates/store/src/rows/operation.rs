//! Operations, who owns them, and the operation log that clients read.

use karbor_types::{
    CheckpointId, Epoch, Instant, OccurrenceId, OperationId, OperationKind, OperationLogId, OperationState,
    PlanId, ProjectId, ProviderId, RestoreId, ScheduledOperationId, UserId, VerificationId,
};
use serde_json::Value;

use crate::{CheckpointChange, RunChange};

/// How many operations of one kind are in one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// The kind.
    pub kind: OperationKind,
    /// The state: queued or running.
    pub state: OperationState,
    /// How many.
    pub number: u64,
    /// When the first of them was due.
    pub due_at: Instant,
}

/// One durable piece of work.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// Its id; a protect operation has its checkpoint's.
    pub id: OperationId,
    /// What it does.
    pub kind: OperationKind,
    /// The project for which it is done.
    pub project: ProjectId,
    /// Who asked for it.
    pub user: Option<UserId>,
    /// The plan, where there is one.
    pub plan: Option<PlanId>,
    /// The checkpoint that is made, restored, checked, copied to or deleted.
    pub checkpoint: Option<CheckpointId>,
    /// The restore.
    pub restore: Option<RestoreId>,
    /// The verification.
    pub verification: Option<VerificationId>,
    /// The provider.
    pub provider: Option<ProviderId>,
    /// Its state.
    pub state: OperationState,
    /// How often it was claimed: 0 for never.
    pub epoch: Epoch,
    /// Who holds the newest claim; `None` when nobody does.
    pub owner: Option<String>,
    /// Until when that claim is respected.
    pub lease_until: Option<Instant>,
    /// Which attempt this is: claims, less those given back by [`Store::release`](crate::Store::release).
    pub attempt: u32,
    /// The higher, the sooner.
    pub priority: i32,
    /// Not claimed before.
    pub due_at: Instant,
    /// Whether somebody asked to end it.
    pub cancel_requested: bool,
    /// What to do, as its kind needs it.
    pub request: Value,
    /// What came out, as its kind tells it; null until it ended.
    pub result: Value,
    /// Why it failed, or why it was put off.
    pub reason: Option<String>,
    /// When it was asked for.
    pub created_at: Instant,
    /// When it was first claimed.
    pub started_at: Option<Instant>,
    /// When it ended.
    pub ended_at: Option<Instant>,
}

/// An operation to be queued, with the record of the operation log that tells clients about it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewOperation {
    /// Its id.
    pub id: OperationId,
    /// What it does.
    pub kind: OperationKind,
    /// The project for which it is done.
    pub project: ProjectId,
    /// Who asks for it.
    pub user: Option<UserId>,
    /// The plan, where there is one.
    pub plan: Option<PlanId>,
    /// The checkpoint.
    pub checkpoint: Option<CheckpointId>,
    /// The restore.
    pub restore: Option<RestoreId>,
    /// The verification.
    pub verification: Option<VerificationId>,
    /// The provider.
    pub provider: Option<ProviderId>,
    /// The higher, the sooner; 0 is usual.
    pub priority: i32,
    /// Not claimed before.
    pub due_at: Instant,
    /// What to do, as its kind needs it.
    pub request: Value,
    /// The id of the record in the operation log; `None` writes none (sweeps).
    pub log: Option<OperationLogId>,
    /// The scheduled operation that it comes from.
    pub scheduled_operation: Option<ScheduledOperationId>,
    /// The occurrence that it comes from, and which attempt at it.
    pub occurrence: Option<(OccurrenceId, u32)>,
}

/// Proof of having claimed an operation; every write of a worker carries one.
///
/// Only the store makes them. A claim that was overtaken changes nothing: each call with it answers
/// [`Error::LeaseLost`](crate::Error::LeaseLost).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub(crate) operation: OperationId,
    pub(crate) epoch: Epoch,
}

impl Claim {
    /// Returns the operation that is claimed.
    pub const fn operation(&self) -> OperationId {
        self.operation
    }

    /// Returns the epoch: the part of session ids and object keys that fences earlier owners.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }
}

/// A claim together with the operation as it stood right after.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// The proof.
    pub claim: Claim,
    /// The operation.
    pub operation: Operation,
}

/// Which operation is claimed, by whom, for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimOptions {
    /// Who claims: a name of the process, for people.
    pub owner: String,
    /// How long the claim is respected without a renewal.
    pub lease_seconds: u32,
    /// Which kinds are wanted; none are claimed when empty.
    pub kinds: Vec<OperationKind>,
    /// Projects that have their share already and are passed over.
    pub skip_projects: Vec<ProjectId>,
}

/// What a renewal tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// Until when the claim is respected now.
    pub lease_until: Instant,
    /// Whether somebody asked to end the operation.
    pub cancel_requested: bool,
}

/// What an operation changes of the row that it is about.
#[derive(Debug, Clone, PartialEq)]
pub enum SubjectChange {
    /// Nothing.
    None,
    /// Its checkpoint (protect, copy, delete).
    Checkpoint(CheckpointChange),
    /// Its restore or verification.
    Run(RunChange),
}

/// How an operation ends: all of it is written in one transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// `Succeeded`, `Failed` or `Cancelled`.
    pub state: OperationState,
    /// Why, unless it succeeded; it also goes to the operation log.
    pub reason: Option<String>,
    /// What came out.
    pub result: Value,
    /// What becomes of the row that it is about.
    pub subject: SubjectChange,
    /// What the operation log tells beside; null for nothing.
    pub extra_info: Value,
}

/// One record of the operation log, as clients read it.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationLog {
    /// Its id.
    pub id: OperationLogId,
    /// The project.
    pub project: ProjectId,
    /// What was done.
    pub kind: OperationKind,
    /// The operation.
    pub operation: Option<OperationId>,
    /// The checkpoint.
    pub checkpoint: Option<CheckpointId>,
    /// The plan.
    pub plan: Option<PlanId>,
    /// The provider.
    pub provider: Option<ProviderId>,
    /// The restore.
    pub restore: Option<RestoreId>,
    /// The scheduled operation that it came from.
    pub scheduled_operation: Option<ScheduledOperationId>,
    /// The state of the checkpoint, restore or verification that it is about.
    pub status: String,
    /// When it was asked for.
    pub started_at: Instant,
    /// When it ended.
    pub ended_at: Option<Instant>,
    /// Why it failed.
    pub error_info: Option<String>,
    /// What else is to be told; null for nothing.
    pub extra_info: Value,
    /// When the record was made.
    pub created_at: Instant,
    /// When it was last changed.
    pub updated_at: Option<Instant>,
}
