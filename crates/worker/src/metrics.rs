//! What the worker counts, for whoever watches it.

use std::sync::Arc;

use karbor_plugin::ProgressSink;
use karbor_types::{OperationKind, OperationState};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::progress::StepProgress;
use crate::stop::Failure;

/// The counters of a worker. Cheap to clone; all clones count together.
#[derive(Debug, Clone, Default)]
pub struct WorkerMetrics {
    ended: Family<Ended, Counter>,
    running: Family<Kind, Gauge>,
    moved: Family<Direction, Counter>,
    stored: Counter,
    lease_losses: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    kind: &'static str,
    state: &'static str,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Direction {
    direction: &'static str,
}

impl WorkerMetrics {
    /// Makes the counters and makes them known to a registry.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let family = metrics.ended.clone();
        registry.register(
            "operations_ended",
            "Operations that have ended, by state and kind of reason",
            family,
        );
        let family = metrics.running.clone();
        registry.register("operations_running", "Operations that this process is at work on", family);
        let family = metrics.moved.clone();
        registry.register("moved_bytes", "Bytes of resources, into banks and out of them", family);
        let counter = metrics.stored.clone();
        registry.register("stored_bytes", "Bytes that were new to a bank, as they are stored", counter);
        let counter = metrics.lease_losses.clone();
        registry.register(
            "lease_losses",
            "Operations that somebody else took over while this process had them",
            counter,
        );
        metrics
    }

    pub(crate) fn ended(&self, kind: OperationKind, state: OperationState, failure: Option<&Failure>) {
        let reason = failure.map_or_else(|| "none".to_owned(), |failure| failure.kind.to_string());
        let labels = Ended { kind: kind.as_str(), state: state.as_str(), reason };
        self.ended.get_or_create(&labels).inc();
    }

    pub(crate) fn lease_lost(&self) {
        self.lease_losses.inc();
    }

    /// Counts an operation as running until the answer is dropped.
    pub(crate) fn running(&self, kind: OperationKind) -> Running {
        let gauge = self.running.get_or_create(&Kind { kind: kind.as_str() }).clone();
        gauge.inc();
        Running(gauge)
    }

    /// Returns what counts the bytes that an operation moves, where it moves any.
    pub(crate) fn bytes(&self, kind: OperationKind) -> Option<ByteCounters> {
        let direction = match kind {
            OperationKind::Protect | OperationKind::Copy => "in",
            OperationKind::Restore | OperationKind::Verify => "out",
            OperationKind::Delete | OperationKind::Sweep => return None,
        };
        let moved = self.moved.get_or_create(&Direction { direction }).clone();
        Some(ByteCounters { moved, stored: self.stored.clone() })
    }
}

/// An operation under way.
#[derive(Debug)]
pub(crate) struct Running(Gauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counts bytes.
#[derive(Debug, Clone)]
pub(crate) struct ByteCounters {
    moved: Counter,
    stored: Counter,
}

impl ByteCounters {
    fn advance(&self, done: u64, stored: u64) {
        self.moved.inc_by(done);
        self.stored.inc_by(stored);
    }
}

/// The progress of a step, counted in the worker's counters as well.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) step: Option<Arc<StepProgress>>,
    pub(crate) bytes: Option<ByteCounters>,
}

impl ProgressSink for Counted {
    fn advance(&self, done: u64, stored: u64) {
        if let Some(step) = &self.step {
            step.advance(done, stored);
        }
        if let Some(bytes) = &self.bytes {
            bytes.advance(done, stored);
        }
    }

    fn total(&self, bytes: u64) {
        if let Some(step) = &self.step {
            step.total(bytes);
        }
    }
}
