//! The operation engine: due triggers become occurrences, occurrences become operations, operations become outcomes.
//!
//! Invariant 10: no due occurrence is lost or run twice, and a missed one is recorded with its reason. A scheduler is a
//! loop of rounds; each step of a round looks at what is due in the database and takes it one step further by
//! compare-and-swap. Nothing in memory matters: any number of schedulers work on one database, none of them leads, and
//! one that dies between two steps has lost nothing. The steps:
//!
//! 1. **hand out**: a trigger whose time has come moves on to its next time, in the transaction that records one
//!    occurrence for each of its scheduled operations. What was missed is recorded as well, and the last one is run now
//!    where the rules of the operation say so.
//! 2. **ripen**: what was spread over the window, or waits for another attempt, becomes ready.
//! 3. **start**: what is ready is asked for through the actions as its user would ask for it, under limits and in turn
//!    between projects; its operations are queued in the transaction that takes it out of `ready`.
//! 4. **follow**: an operation that ends has its occurrence looked at; it succeeds or fails as the operations did, or is
//!    tried again inside its window.
//! 5. **retain**: after a checkpoint has become `available`, what retention lets go is deleted.
//!
//! Deliberately absent: a list of triggers in memory, a leader, timers for single triggers.

mod config;
mod follow;
mod handout;
mod metrics;
mod ring;
mod service;
mod start;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use karbor_store::DueTrigger;
use karbor_types::Instant;

pub use config::SchedulerConfig;
pub use metrics::SchedulerMetrics;
pub use service::{Dependencies, Round, Scheduler, SchedulerHandle};

/// The result of a step.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a step could not be done; the next round tries again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database failed.
    #[error("the database failed while {doing}")]
    Store {
        /// What the scheduler was doing.
        doing: &'static str,
        /// The cause.
        source: karbor_store::Error,
    },
    /// An action failed.
    #[error("an action failed while {doing}")]
    Action {
        /// What the scheduler was doing.
        doing: &'static str,
        /// The cause.
        source: karbor_actions::Error,
    },
}

/// Says what the scheduler was doing when the database failed.
pub(crate) fn while_doing(doing: &'static str) -> impl FnOnce(karbor_store::Error) -> Error {
    move |source| Error::Store { doing, source }
}

/// When a trigger fires, as far as handing out must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Firing {
    /// For how long after its time an occurrence is still started.
    pub window_seconds: u32,
    /// The first time after the instant that was asked about.
    pub next: Option<Instant>,
}

/// Reads when a trigger fires next after an instant, or says why it cannot be read.
pub type Timetable = Arc<dyn Fn(&DueTrigger, Instant) -> std::result::Result<Firing, String> + Send + Sync>;

/// Gives out the time.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;
