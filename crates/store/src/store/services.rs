//! Services and their heartbeats.

use karbor_types::Instant;

use crate::{Result, Service, ServiceStatus, Store};

impl Store {
    /// Notes that a service is alive; the first time it is added.
    ///
    /// # Errors
    /// [`Error::Database`](crate::Error::Database).
    pub async fn heartbeat(&self, binary: &str, host: &str, now: Instant) -> Result<Service> {
        self.pending((binary, host, now))
    }

    /// Lists services, ordered by number.
    ///
    /// # Errors
    /// [`Error::Database`](crate::Error::Database).
    pub async fn list_services(&self) -> Result<Vec<Service>> {
        self.pending(())
    }

    /// Returns a service.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound).
    pub async fn get_service(&self, id: i64) -> Result<Service> {
        self.pending((id,))
    }

    /// Sets whether a service shall work; its heartbeat stays.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound).
    pub async fn set_service_status(&self, id: i64, status: &ServiceStatus) -> Result<Service> {
        self.pending((id, status))
    }
}
