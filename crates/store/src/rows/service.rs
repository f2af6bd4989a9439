//! Services: the processes that have reported themselves.

use karbor_types::Instant;

/// A process, named by what it does and where it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its number.
    pub id: i64,
    /// What it does: `karbor-operationengine`, `karbor-protection`, ….
    pub binary: String,
    /// Where it runs.
    pub host: String,
    /// Whether an administrator wants it to work.
    pub status: ServiceStatus,
    /// When it first reported itself.
    pub created_at: Instant,
    /// Its last heartbeat; `None` before the first one after it was registered.
    pub updated_at: Option<Instant>,
}

/// Whether an administrator wants a service to work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceStatus {
    /// It shall.
    Enabled,
    /// It shall not.
    Disabled {
        /// Why.
        reason: Option<String>,
    },
}
