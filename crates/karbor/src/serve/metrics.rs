//! The counters of this process, and what is looked up in the database when somebody asks.

use std::sync::Arc;

use futures::FutureExt;
use karbor_api::{ApiMetrics, Exposition};
use karbor_scheduler::SchedulerMetrics;
use karbor_store::Store;
use karbor_types::OperationState;
use karbor_worker::WorkerMetrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::serve::now;

/// All counters.
pub(crate) struct Metrics {
    pub(crate) api: ApiMetrics,
    pub(crate) worker: WorkerMetrics,
    pub(crate) scheduler: SchedulerMetrics,
    pub(crate) exposition: Exposition,
    pub(crate) late_plans: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Waiting {
    kind: &'static str,
    state: &'static str,
}

impl Metrics {
    pub(crate) fn new(store: Store) -> Self {
        let mut registry = Registry::with_prefix("karbor");
        let api = ApiMetrics::new(&mut registry);
        let worker = WorkerMetrics::new(&mut registry);
        let scheduler = SchedulerMetrics::new(&mut registry);
        let backlog = Family::<Waiting, Gauge>::default();
        registry.register("operations", "Operations in the database that have not ended", backlog.clone());
        let lag = Gauge::<i64>::default();
        registry.register(
            "operations_lag_seconds",
            "How long the longest waiting of the operations that are due has waited for a worker",
            lag.clone(),
        );
        let late_plans = Gauge::default();
        registry.register(
            "late_plans",
            "Plans whose newest checkpoint is older than their triggers promise",
            late_plans.clone(),
        );
        let registry = Arc::new(registry);
        let exposition: Exposition = Arc::new(move || {
            let (store, registry) = (store.clone(), Arc::clone(&registry));
            let (backlog, lag) = (backlog.clone(), lag.clone());
            async move {
                let found = store.backlog().await?;
                backlog.clear();
                let mut late = 0;
                for one in found {
                    let labels = Waiting { kind: one.kind.as_str(), state: one.state.as_str() };
                    backlog.get_or_create(&labels).set(i64::try_from(one.number).unwrap_or(i64::MAX));
                    if one.state == OperationState::Queued {
                        late = late.max(now().seconds_since(one.due_at));
                    }
                }
                lag.set(late);
                let mut text = String::new();
                encode(&mut text, &registry)?;
                Ok(text)
            }
            .boxed()
        });
        Self { api, worker, scheduler, exposition, late_plans }
    }
}
