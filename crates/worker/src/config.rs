//! Settings.

use std::num::{NonZeroU32, NonZeroUsize};

use serde::Deserialize;

/// Settings of the worker: the `[worker]` table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct WorkerConfig {
    /// How many operations run at once.
    pub concurrency: NonZeroUsize,
    /// How many of them may belong to one project; the others wait although there is room.
    pub project_concurrency: NonZeroUsize,
    /// How many resources of one operation move bytes at once.
    pub moving: NonZeroUsize,
    /// How many other hooks of one operation run at once.
    pub hooks: NonZeroUsize,
    /// How far a process that does nothing else steps back for others on its machine, from 0 to 19 (`nice`).
    pub nice: u8,
    /// How long a claim is respected without renewal; it is renewed after a third of that.
    pub lease_seconds: NonZeroU32,
    /// How often the store is asked for work, and for wishes to cancel, when nobody wakes the worker.
    pub poll_milliseconds: NonZeroU32,
    /// How often progress is written, at most.
    pub progress_milliseconds: NonZeroU32,
    /// How long outcomes of steps that wrote to the bank may wait for each other to be made durable together.
    pub flush_milliseconds: u32,
    /// How often a hook that fails for the moment is tried.
    pub hook_attempts: NonZeroU32,
    /// The pause before the second attempt; each further one is twice as long, up to `retry-limit-seconds`.
    pub retry_milliseconds: u32,
    /// The longest pause between two attempts.
    pub retry_limit_seconds: u32,
    /// How often an operation is begun, crashes included, before it is given up.
    pub operation_attempts: NonZeroU32,
    /// How long a hook may take to return after it was told to stop; then it is dropped.
    pub stop_seconds: u32,
    /// How long running hooks may go on when the service is asked to end.
    pub drain_seconds: u32,
    /// How long after a deletion or a failure the account is swept.
    pub sweep_delay_seconds: u32,
    /// How often an account that is written to is swept at least.
    pub sweep_period_seconds: NonZeroU32,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        const fn count(number: u32) -> NonZeroU32 {
            NonZeroU32::new(number).expect("the defaults are not zero")
        }
        const fn places(number: usize) -> NonZeroUsize {
            NonZeroUsize::new(number).expect("the defaults are not zero")
        }
        Self {
            concurrency: places(4),
            project_concurrency: places(4),
            moving: places(4),
            hooks: places(32),
            nice: 5,
            lease_seconds: count(30),
            poll_milliseconds: count(1000),
            progress_milliseconds: count(1000),
            flush_milliseconds: 1000,
            hook_attempts: count(5),
            retry_milliseconds: 1000,
            retry_limit_seconds: 60,
            operation_attempts: count(10),
            stop_seconds: 30,
            drain_seconds: 5,
            sweep_delay_seconds: 60,
            sweep_period_seconds: count(24 * 3600),
        }
    }
}
