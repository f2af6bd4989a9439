//! The database: rows, leases and epochs, one statement text for three engines.
//!
//! Invariant 4: two workers never both believe that they own an operation, and a stale one changes nothing.
//! [`Store::claim`] adds one to the operation's epoch by compare-and-swap; every write of a worker carries its
//! [`Claim`] and begins its transaction by touching the operation's row `WHERE id = ? AND epoch = ?`. Zero rows end
//! it with [`Error::LeaseLost`]; one row holds the operation until the commit, so that no claim can come between.
//! There are no row locks to be asked for and no clock decides anything: a lease that ran out is only the
//! permission to claim, the epoch is what counts.
//!
//! SQL lives here and nowhere else, one method per need of the domain, each one transaction. What a state may
//! become is decided by the state machines of `karbor-types` alone, and written by compare-and-swap on the state
//! that was read. Times come in as arguments. Deliberately absent: entities, a query language for callers,
//! transactions that span calls.

mod error;
mod old;
mod query;
mod rows;
mod sql;
mod store;

pub use error::{Error, Result};
pub use old::{Imported, OldKarbor, Skipped};
pub use query::{
    CheckpointColumn, CheckpointQuery, Direction, Filter, FilterValue, ListQuery, OccurrenceColumn,
    OccurrenceQuery, OperationColumn, OperationLogColumn, OperationLogQuery, OperationQuery, PlanColumn,
    PlanQuery, RestoreColumn, RestoreQuery, ScheduledOperationColumn, ScheduledOperationQuery, TriggerColumn,
    TriggerQuery, VerificationColumn, VerificationQuery,
};
pub use rows::{
    Advance, Backlog, BankAccount, BankAccountUpdate, Beginning, Checkpoint, CheckpointChange,
    CheckpointStats, Claim, ClaimOptions, Claimed, Delegation, DelegationOwner, DeletionCause, DueTrigger,
    Enlisted, Finish, HandOut, Hold, LedgerEntry, LedgerPurpose, LedgerState, Limit, NewCheckpoint,
    NewLedgerEntry, NewOccurrence, NewOperation, NewRestore, NewStep, NewVerification, NewWork, Occurrence,
    OccurrenceLimits, Operation, OperationLog, OperationProgress, Origin, Outcome, Plan, PlanSnapshot,
    PlanUpdate, Purged, QuotaDefaults, QuotaResource, Quotas, Renewal, Restore, RunChange, RunRules,
    ScheduledOperation, ScheduledOperationUpdate, Service, ServiceStatus, StartedCount, StartedOperation,
    Step, StepChange, StepEnd, SubjectChange, Trigger, TriggerUpdate, Usage, Verdict, Verification,
};
#[cfg(feature = "failpoints")]
pub use store::Interference;
pub use store::{Engine, Promising, Reopening, Store, StoreOptions, TriggerCall};
