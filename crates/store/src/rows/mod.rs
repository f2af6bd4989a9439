//! What the tables hold, as plain data.

mod bank_account;
mod checkpoint;
mod delegation;
mod hold;
mod occurrence;
mod operation;
mod plan;
mod purged;
mod quota;
mod run;
mod schedule;
mod service;
mod step;

pub use bank_account::{BankAccount, BankAccountUpdate};
pub use checkpoint::{
    Checkpoint, CheckpointChange, CheckpointStats, DeletionCause, NewCheckpoint, PlanSnapshot,
};
pub use delegation::{Delegation, DelegationOwner};
pub use hold::Hold;
pub use occurrence::{
    Advance, Beginning, DueTrigger, Enlisted, HandOut, NewOccurrence, NewWork, Occurrence, OccurrenceLimits,
    Origin, Outcome, RunRules, StartedCount, StartedOperation, Verdict,
};
pub use operation::{
    Backlog, Claim, ClaimOptions, Claimed, Finish, NewOperation, Operation, OperationLog, Renewal,
    SubjectChange,
};
pub use plan::{Plan, PlanUpdate};
pub use purged::Purged;
pub use quota::{Limit, QuotaDefaults, QuotaResource, Quotas, Usage};
pub use run::{NewRestore, NewVerification, Restore, RunChange, Verification};
pub use schedule::{ScheduledOperation, ScheduledOperationUpdate, Trigger, TriggerUpdate};
pub use service::{Service, ServiceStatus};
pub use step::{
    LedgerEntry, LedgerPurpose, LedgerState, NewLedgerEntry, NewStep, OperationProgress, Step, StepChange,
    StepEnd,
};
