//! Signs of life: this process stands in the table of services, and heeds it when an administrator switches it off.

use std::time::Duration;

use karbor_scheduler::SchedulerHandle;
use karbor_store::{ServiceStatus, Store};
use karbor_worker::WorkerHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::serve::now;

/// How often a sign of life is given.
const PERIOD: Duration = Duration::from_secs(5);

/// What hands out occurrences, by the name that clients know; switching it off lets the scheduler of its host start nothing
/// and its worker take nothing.
const ENGINE: &str = "karbor-operationengine";
/// What runs them, by the name that clients know.
const PROTECTION: &str = "karbor-protection";

/// What runs in this process.
#[derive(Debug, Default)]
pub(crate) struct Services {
    pub(crate) worker: Option<WorkerHandle>,
    pub(crate) scheduler: Option<SchedulerHandle>,
}

impl Services {
    fn rest(&self, rests: bool) {
        if let Some(worker) = &self.worker {
            worker.rest(rests);
        }
        if let Some(scheduler) = &self.scheduler {
            scheduler.rest(rests);
        }
    }
}

/// Gives signs of life until `stop`.
pub(crate) async fn run(store: Store, host: String, services: Services, stop: CancellationToken) {
    let mut resting = false;
    let binaries: &[&str] = if services.worker.is_some() { &[ENGINE, PROTECTION] } else { &[ENGINE] };
    // The first sign makes a service known, the next one is its heartbeat.
    for binary in binaries {
        if let Err(err) = store.heartbeat(binary, &host, now()).await {
            warn!(error = &err as &dyn std::error::Error, "No sign of life was given: {err}");
        }
    }
    while !stop.is_cancelled() {
        for binary in binaries {
            match store.heartbeat(binary, &host, now()).await {
                Ok(service) if *binary == ENGINE => {
                    let off = matches!(service.status, ServiceStatus::Disabled { .. });
                    if off != resting {
                        resting = off;
                        let what = if off { "starts nothing" } else { "works again" };
                        info!(
                            service.id = service.id,
                            "The operation engine of {host} {what}: an administrator wants it so"
                        );
                    }
                    services.rest(off);
                }
                Ok(_) => {}
                Err(err) => warn!(error = &err as &dyn std::error::Error, "No sign of life was given: {err}"),
            }
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}
