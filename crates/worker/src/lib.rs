//! The protection service: claims operations by lease and runs their flow to its end.
//!
//! Invariants:
//! - *What was started ends.* All that an operation has reached lies in the store: its graph, its steps and
//!   their outcomes, its ledger. Whoever claims it next goes on from there; recovery is the same code as the
//!   first attempt. An operation that cannot go on fails with its reason, and so does one whose attempts
//!   crash again and again.
//! - *Two workers never both change something.* Each write to the store carries the claim's epoch, each object
//!   in the bank the session `<operation>-<epoch>`, and the commit key decides who wins. A worker that learns
//!   that its lease is lost stops at once and writes nothing more.
//! - *Nothing is `available` that is not whole.* The checkpoint's row becomes `available` in the transaction
//!   that ends the operation, and only with the commit record in hand; a failed step never leads there.
//! - *An outcome is durable before anything builds on it*: what a step wrote is flushed to the bank, then its
//!   outcome is recorded, then what depends on it begins. Outcomes that come together are recorded together.
//!
//! Deliberately absent: SQL, decisions about who may do what, and knowledge of any resource type.

mod attempt;
mod backoff;
mod banks;
mod cleanup;
mod config;
mod copy;
mod crash;
mod delete;
mod drive;
mod error;
mod hook;
mod lease;
mod ledger;
mod metrics;
mod outcome;
mod prepare;
mod progress;
mod protect;
mod record;
mod report;
mod restore;
mod rights;
mod service;
mod stop;
mod sweep;
mod undo;
mod verify;

pub use banks::Banks;
pub use config::WorkerConfig;
#[cfg(any(test, feature = "failpoints"))]
pub use crash::{CRASH_POINTS, CrashPoints, UnknownCrashPoint};
pub use error::{Error, Result};
pub use metrics::WorkerMetrics;
pub use rights::Rights;
pub use service::{Clock, Dependencies, Worker, WorkerHandle};

#[cfg(test)]
mod tests;
