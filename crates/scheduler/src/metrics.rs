//! What the scheduler counts, for whoever watches it.

use karbor_store::{Occurrence, Verdict};
use karbor_types::{Instant, OccurrenceEvent};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The counters of a scheduler. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct SchedulerMetrics {
    handed_out: Counter,
    started: Counter,
    late: Counter,
    outcomes: Family<Ended, Counter>,
    set_aside: Counter,
    failed_rounds: Counter,
    behind_seconds: Gauge,
    lag_seconds: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    event: &'static str,
    reason: &'static str,
}

impl Default for SchedulerMetrics {
    fn default() -> Self {
        Self {
            handed_out: Counter::default(),
            started: Counter::default(),
            late: Counter::default(),
            outcomes: Family::default(),
            set_aside: Counter::default(),
            failed_rounds: Counter::default(),
            behind_seconds: Gauge::default(),
            lag_seconds: Histogram::new([0.1, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0]),
        }
    }
}

impl SchedulerMetrics {
    /// Makes the counters and makes them known to a registry.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let mut add =
            |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        add(
            "occurrences_handed_out",
            "Occurrences of scheduled operations that were due",
            &metrics.handed_out,
        );
        add("occurrences_started", "Occurrences that were started", &metrics.started);
        add("occurrences_late", "Occurrences that were due when their window was over", &metrics.late);
        add("triggers_set_aside", "Triggers that cannot be read and do not fire", &metrics.set_aside);
        add(
            "scheduler_failures",
            "Steps of the scheduler that failed and are tried again",
            &metrics.failed_rounds,
        );
        let family = metrics.outcomes.clone();
        registry.register("occurrences_judged", "What became of occurrences, and why", family);
        let gauge = metrics.behind_seconds.clone();
        registry.register(
            "schedule_behind_seconds",
            "For how long the first due trigger has been due",
            gauge,
        );
        let histogram = metrics.lag_seconds.clone();
        registry.register(
            "occurrence_lag_seconds",
            "From an occurrence's time to its first start",
            histogram,
        );
        metrics
    }

    pub(crate) fn handed_out(&self, many: usize, late: usize) {
        self.handed_out.inc_by(many as u64);
        self.late.inc_by(late as u64);
    }

    pub(crate) fn started(&self, occurrence: &Occurrence, now: Instant) {
        self.started.inc();
        if occurrence.attempt == 1 {
            self.lag_seconds.observe(seconds(now, occurrence.at));
        }
    }

    pub(crate) fn judged(&self, verdict: &Verdict) {
        let event: OccurrenceEvent = verdict.outcome.event;
        let reason = verdict.outcome.reason.map_or("", |reason| reason.as_str());
        self.outcomes.get_or_create(&Ended { event: event.as_str(), reason }).inc();
    }

    pub(crate) fn set_aside(&self) {
        self.set_aside.inc();
    }

    pub(crate) fn failed(&self) {
        self.failed_rounds.inc();
    }

    pub(crate) fn behind(&self, due: Option<Instant>, now: Instant) {
        self.behind_seconds.set(due.map_or(0, |due| now.seconds_since(due).max(0)));
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a year fit")]
fn seconds(now: Instant, earlier: Instant) -> f64 {
    now.as_micros().saturating_sub(earlier.as_micros()).max(0) as f64 / 1e6
}
