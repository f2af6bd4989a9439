//! Signs of life: this process stands in the table of services, and heeds it when an administrator switches it off.

use std::time::Duration;

use karbor_store::{ServiceStatus, Store};
use karbor_worker::WorkerHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::serve::now;

/// How often a sign of life is given.
const PERIOD: Duration = Duration::from_secs(5);

/// What takes operations, by the name that clients know; switching it off lets the worker of its host take none.
const ENGINE: &str = "karbor-operationengine";
/// What runs them, by the name that clients know.
const PROTECTION: &str = "karbor-protection";

/// Gives signs of life until `stop`.
pub(crate) async fn run(store: Store, host: String, worker: WorkerHandle, stop: CancellationToken) {
    let mut resting = false;
    // The first sign makes a service known, the next one is its heartbeat.
    for binary in [ENGINE, PROTECTION] {
        if let Err(err) = store.heartbeat(binary, &host, now()).await {
            warn!(error = &err as &dyn std::error::Error, "No sign of life was given: {err}");
        }
    }
    while !stop.is_cancelled() {
        for binary in [ENGINE, PROTECTION] {
            match store.heartbeat(binary, &host, now()).await {
                Ok(service) if binary == ENGINE => {
                    let off = matches!(service.status, ServiceStatus::Disabled { .. });
                    if off != resting {
                        resting = off;
                        let what = if off { "takes no operations" } else { "takes operations again" };
                        info!(
                            service.id = service.id,
                            "The worker of {host} {what}: an administrator wants it so"
                        );
                    }
                    worker.rest(off);
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
