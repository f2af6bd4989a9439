//! The service: takes operations from the store as long as there is room, and runs each as a task of its own.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use karbor_plugin::Registry;
use karbor_store::{ClaimOptions, Claimed, Store};
use karbor_types::{Instant, OperationKind, ProjectId};
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, info_span, warn};

use crate::backoff::Backoff;
use crate::crash::CrashPoints;
use crate::lease::{Keeping, Lease, keep};
use crate::rights::{NoRights, Rights};
use crate::{Banks, Error, Result, WorkerConfig, WorkerMetrics, attempt};

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

/// What all attempts share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) registry: Arc<Registry>,
    pub(crate) banks: Arc<dyn Banks>,
    pub(crate) clock: Clock,
    pub(crate) config: WorkerConfig,
    pub(crate) crash: CrashPoints,
    pub(crate) metrics: WorkerMetrics,
    pub(crate) rights: Arc<dyn Rights>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The service.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    owner: String,
    wake: watch::Sender<u64>,
    resting: Arc<AtomicBool>,
}

/// Wakes the worker of the same process. Cheap to clone; it outlives the worker harmlessly.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    wake: watch::Sender<u64>,
    resting: Arc<AtomicBool>,
}

impl WorkerHandle {
    /// Lets the worker look for new operations and wishes to cancel now, rather than at its next look.
    pub fn wake(&self) {
        self.wake.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Lets the worker take no new operation, or take them again. What it has goes on.
    pub fn rest(&self, resting: bool) {
        if self.resting.swap(resting, Ordering::Relaxed) && !resting {
            self.wake();
        }
    }
}

/// The attempts at work.
#[derive(Debug, Default)]
struct Crew {
    tasks: JoinSet<()>,
    projects: HashMap<Id, ProjectId>,
}

impl Worker {
    /// Makes a worker; nothing happens before it runs.
    pub fn new(dependencies: Dependencies, config: WorkerConfig) -> Self {
        let Dependencies { store, registry, banks, clock, owner } = dependencies;
        let shared = Shared {
            store,
            registry,
            banks,
            clock,
            config,
            crash: CrashPoints::default(),
            metrics: WorkerMetrics::default(),
            rights: Arc::new(NoRights),
        };
        Self { shared: Arc::new(shared), owner, wake: watch::Sender::new(0), resting: Arc::default() }
    }

    /// Lets this worker count in the given counters.
    #[must_use]
    pub fn with_metrics(mut self, metrics: WorkerMetrics) -> Self {
        let shared = Arc::get_mut(&mut self.shared);
        shared.expect("attempts share it, and none has begun before it runs").metrics = metrics;
        self
    }

    /// Lets operations reach a cloud by the rights that their callers gave.
    #[must_use]
    pub fn with_rights(mut self, rights: Arc<dyn Rights>) -> Self {
        let shared = Arc::get_mut(&mut self.shared);
        shared.expect("attempts share it, and none has begun before it runs").rights = rights;
        self
    }

    /// Lets this worker die at a named place.
    #[cfg(any(test, feature = "failpoints"))]
    #[must_use]
    pub fn with_crash_points(mut self, crash: CrashPoints) -> Self {
        let shared = Arc::get_mut(&mut self.shared);
        shared.expect("attempts share it, and none has begun before it runs").crash = crash;
        self
    }

    /// Returns a handle that wakes this worker.
    pub fn handle(&self) -> WorkerHandle {
        WorkerHandle { wake: self.wake.clone(), resting: Arc::clone(&self.resting) }
    }

    /// Runs until `stop`; then takes nothing new, stops what runs at the next durable point, gives it back to the
    /// store for anybody to go on with, and returns. Dropping the future is a crash: whoever claims the
    /// operations next goes on.
    ///
    /// # Errors
    /// When the database has not this program's schema. What goes wrong later is logged and tried again.
    pub async fn run(self, stop: CancellationToken) -> Result<()> {
        self.shared.store.check_version().await.map_err(|source| Error::Schema { source })?;
        let config = &self.shared.config;
        let poll = Duration::from_millis(config.poll_milliseconds.get().into());
        let drained = CancellationToken::new();
        let mut woken = self.wake.subscribe();
        let mut crew = Crew::default();
        let mut trouble = Backoff::new(poll, Duration::from_secs(30));
        info!(owner = %self.owner, "The worker takes operations");
        while !stop.is_cancelled() {
            let mut pause = poll;
            let awake = || !stop.is_cancelled() && !self.resting.load(Ordering::Relaxed);
            while crew.tasks.len() < config.concurrency.get() && awake() {
                match self.shared.store.claim(&self.wanted(&crew), (self.shared.clock)()).await {
                    Ok(Some(claimed)) => self.begin(&mut crew, claimed, &drained),
                    Ok(None) => {
                        trouble = Backoff::new(poll, Duration::from_secs(30));
                        break;
                    }
                    Err(err) => {
                        pause = trouble.pause();
                        warn!(
                            error = &err as &dyn std::error::Error,
                            "Asking for operations failed; the next try is in {pause:?}: {err}"
                        );
                        break;
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                Some(ended) = crew.tasks.join_next_with_id(), if !crew.tasks.is_empty() => crew.ended(ended),
                _ = woken.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        info!(operations = crew.tasks.len(), "The worker gives back what it has");
        drained.cancel();
        let patience = u64::from(config.drain_seconds) + u64::from(config.stop_seconds) + 10;
        let gone = tokio::time::timeout(Duration::from_secs(patience), async {
            while let Some(ended) = crew.tasks.join_next_with_id().await {
                crew.ended(ended);
            }
        });
        if gone.await.is_err() {
            warn!(operations = crew.tasks.len(), "Some operations did not stop; their leases will run out");
        }
        Ok(())
    }

    /// Returns what may be claimed now.
    fn wanted(&self, crew: &Crew) -> ClaimOptions {
        let config = &self.shared.config;
        let mut counts: HashMap<&ProjectId, usize> = HashMap::new();
        for project in crew.projects.values() {
            *counts.entry(project).or_default() += 1;
        }
        let full = counts.into_iter().filter(|(_, count)| *count >= config.project_concurrency.get());
        ClaimOptions {
            owner: self.owner.clone(),
            lease_seconds: config.lease_seconds.get(),
            kinds: OperationKind::ALL.to_vec(),
            skip_projects: full.map(|(project, _)| project.clone()).collect(),
        }
    }

    /// Runs an operation as a task, with the keeper of its lease beside it.
    fn begin(&self, crew: &mut Crew, claimed: Claimed, drained: &CancellationToken) {
        let Claimed { claim, operation } = claimed;
        let project = operation.project.clone();
        let span = info_span!(
            "operation", operation.id = %operation.id, operation.kind = %operation.kind, project.id = %project,
            checkpoint.id = operation.checkpoint.map(tracing::field::display)
        );
        let lease = Lease::new(claim, drained.clone());
        if operation.cancel_requested {
            lease.cancelled.cancel();
        }
        let config = &self.shared.config;
        let keeping = Keeping {
            lease_seconds: config.lease_seconds.get(),
            poll: Duration::from_millis(config.poll_milliseconds.get().into()),
        };
        let (store, clock) = (self.shared.store.clone(), Arc::clone(&self.shared.clock));
        let keeper = keep(store, clock, lease.clone(), keeping, self.wake.subscribe());
        let work = attempt::run(Arc::clone(&self.shared), lease, operation);
        let both = async move {
            // The keeper ends early only when the lease is lost, and the work hears of that by itself.
            let mut keepers = JoinSet::new();
            keepers.spawn(keeper);
            work.await;
        };
        let id = crew.tasks.spawn(both.instrument(span)).id();
        crew.projects.insert(id, project);
    }
}

impl Crew {
    fn ended(&mut self, ended: std::result::Result<(Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(err) => {
                error!(error = %err, "An attempt broke off; its operation is claimed again when the lease is over");
                err.id()
            }
        };
        self.projects.remove(&id);
    }
}
