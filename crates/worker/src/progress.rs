//! How far a step has come: counted by the data engine's threads, read by the driver once in a while.

use std::sync::atomic::{AtomicU64, Ordering};

use karbor_plugin::ProgressSink;
use karbor_types::Progress;

/// No total is known.
const UNKNOWN: u64 = u64::MAX;

/// The counters of one step.
#[derive(Debug)]
pub(crate) struct StepProgress {
    done: AtomicU64,
    stored: AtomicU64,
    total: AtomicU64,
}

impl Default for StepProgress {
    fn default() -> Self {
        Self { done: AtomicU64::new(0), stored: AtomicU64::new(0), total: AtomicU64::new(UNKNOWN) }
    }
}

impl StepProgress {
    /// Begins again, for another attempt of the same hook.
    pub(crate) fn reset(&self) {
        self.done.store(0, Ordering::Relaxed);
        self.stored.store(0, Ordering::Relaxed);
        self.total.store(UNKNOWN, Ordering::Relaxed);
    }

    /// Returns the counts.
    pub(crate) fn get(&self) -> Progress {
        let total = self.total.load(Ordering::Relaxed);
        Progress {
            bytes_done: self.done.load(Ordering::Relaxed),
            bytes_total: (total != UNKNOWN).then_some(total),
            bytes_stored: self.stored.load(Ordering::Relaxed),
        }
    }
}

impl ProgressSink for StepProgress {
    fn advance(&self, done: u64, stored: u64) {
        self.done.fetch_add(done, Ordering::Relaxed);
        self.stored.fetch_add(stored, Ordering::Relaxed);
    }

    fn total(&self, bytes: u64) {
        self.total.store(bytes.min(UNKNOWN - 1), Ordering::Relaxed);
    }
}
