//! Settings.

use std::num::NonZeroU32;

use karbor_store::OccurrenceLimits;
use karbor_types::CatchUp;
use serde::Deserialize;

/// Settings of the operation engine: the `[scheduler]` table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SchedulerConfig {
    /// How often the database is asked for what is due.
    pub poll_milliseconds: NonZeroU32,
    /// How many triggers or occurrences one transaction deals with, at most.
    pub batch: NonZeroU32,
    /// How many occurrences may run at once with one provider; 0 is any number.
    pub provider_concurrency: u32,
    /// How many occurrences of one project may run at once; 0 is any number.
    pub project_concurrency: u32,
    /// Over how many seconds after their time starts are spread, where the operation does not say; never over more than half
    /// of the window.
    pub jitter_seconds: u32,
    /// What is done with the last occurrence that was missed, where the operation does not say: `run_once` or `skip`.
    pub catch_up: CatchUp,
    /// How often a failed occurrence is tried again inside its window, where the operation does not say.
    pub retries: u32,
    /// The pause before the first retry; each further one is twice as long.
    pub retry_seconds: NonZeroU32,
    /// How soon retention is applied again when something was left to do.
    pub retention_retry_seconds: NonZeroU32,
    /// For how many days what became of occurrences is kept.
    pub keep_days: NonZeroU32,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        const fn count(number: u32) -> NonZeroU32 {
            NonZeroU32::new(number).expect("the defaults are not zero")
        }
        Self {
            poll_milliseconds: count(500),
            batch: count(1000),
            provider_concurrency: 0,
            project_concurrency: 0,
            jitter_seconds: 30,
            catch_up: CatchUp::RunOnce,
            retries: 3,
            retry_seconds: count(60),
            retention_retry_seconds: count(600),
            keep_days: count(90),
        }
    }
}

impl SchedulerConfig {
    pub(crate) fn limits(&self) -> OccurrenceLimits {
        let limit = |number: u32| (number > 0).then_some(number);
        OccurrenceLimits {
            provider: limit(self.provider_concurrency),
            project: limit(self.project_concurrency),
        }
    }
}
