//! Signs of life, and whether an administrator has switched this host's engine off.

use std::time::Duration;

use karbor_store::ServiceStatus;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::service::Shared;

/// What kind of service this is, in the words of the API.
const BINARY: &str = "karbor-operationengine";

/// Reports a worker in the table of services.
#[derive(Debug)]
pub(crate) struct Heart {
    host: String,
    every: Duration,
    next: Instant,
    enabled: bool,
}

impl Heart {
    pub(crate) fn new(host: String, every: Duration) -> Self {
        Self { host, every, next: Instant::now(), enabled: true }
    }

    /// Gives a sign of life when it is time for one; returns whether operations may be taken.
    ///
    /// A database that cannot be reached changes nothing: nothing can be taken from it either.
    pub(crate) async fn beat(&mut self, shared: &Shared) -> bool {
        if Instant::now() < self.next {
            return self.enabled;
        }
        self.next = Instant::now() + self.every;
        match shared.store.heartbeat(BINARY, &self.host, (shared.clock)()).await {
            Ok(service) => self.obey(&service.status),
            Err(err) => warn!(
                error = &err as &dyn std::error::Error,
                "Reporting {BINARY} on {} failed: {err}", self.host
            ),
        }
        self.enabled
    }

    fn obey(&mut self, status: &ServiceStatus) {
        let enabled = *status == ServiceStatus::Enabled;
        if enabled == self.enabled {
            return;
        }
        self.enabled = enabled;
        match status {
            ServiceStatus::Enabled => info!("{BINARY} on {} is enabled again", self.host),
            ServiceStatus::Disabled { reason } => info!(
                "{BINARY} on {} is disabled and takes no new operations: {}",
                self.host,
                reason.as_deref().unwrap_or("no reason is given")
            ),
        }
    }
}
