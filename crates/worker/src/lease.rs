//! Keeping a claim, and learning that it is lost.
//!
//! The keeper renews after a third of the lease. When the store says that the claim was overtaken, or when it
//! could not be renewed until the lease ran out by this process's own monotonic clock, the claim counts as lost:
//! everything that hangs on it is told to stop, and nothing more is written. This is politeness; safety lies in
//! the epoch that each write carries.

use std::time::Duration;

use karbor_store::{Claim, Error, Store};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::service::Clock;

/// A claim and what may end it.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    /// The claim.
    pub(crate) claim: Claim,
    /// The claim is lost: stop, and write nothing more.
    pub(crate) lost: CancellationToken,
    /// Somebody asked to end the operation.
    pub(crate) cancelled: CancellationToken,
    /// The service ends: give the operation back.
    pub(crate) drained: CancellationToken,
}

impl Lease {
    pub(crate) fn new(claim: Claim, drained: CancellationToken) -> Self {
        Self { claim, lost: CancellationToken::new(), cancelled: CancellationToken::new(), drained }
    }
}

/// How a claim is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keeping {
    /// How long a renewal holds.
    pub(crate) lease_seconds: u32,
    /// How often the wish to cancel is looked for.
    pub(crate) poll: Duration,
}

/// Keeps a claim until it is lost; runs beside the work and is dropped with it.
pub(crate) async fn keep(
    store: Store,
    clock: Clock,
    lease: Lease,
    keeping: Keeping,
    mut wake: watch::Receiver<u64>,
) {
    let whole = Duration::from_secs(keeping.lease_seconds.into());
    let third = whole / 3;
    let mut held_until = Instant::now() + whole;
    let mut renew_at = Instant::now() + third;
    let mut woken_for_good = false;
    loop {
        let next = renew_at.min(Instant::now() + keeping.poll).min(held_until);
        tokio::select! {
            () = lease.lost.cancelled() => return,
            () = sleep_until(next) => {}
            changed = wake.changed(), if !woken_for_good => woken_for_good = changed.is_err(),
        }
        let now = Instant::now();
        let answer = if now >= renew_at {
            let renewal = store.renew(&lease.claim, keeping.lease_seconds, clock()).await;
            if renewal.is_ok() {
                // The lease began before the answer: count from the question.
                (held_until, renew_at) = (now + whole, now + third);
            }
            renewal.map(|renewal| renewal.cancel_requested)
        } else if lease.cancelled.is_cancelled() {
            Ok(true)
        } else {
            store.cancel_requested(&lease.claim).await
        };
        let operation = lease.claim.operation();
        match answer {
            Ok(false) => {}
            Ok(true) => {
                if !lease.cancelled.is_cancelled() {
                    info!(operation.id = %operation, "Operation {operation} is asked to end");
                    lease.cancelled.cancel();
                }
            }
            Err(Error::LeaseLost { .. } | Error::NotFound { .. }) => {
                warn!(operation.id = %operation, "The lease of operation {operation} is lost");
                lease.lost.cancel();
                return;
            }
            Err(err) => {
                if now >= renew_at {
                    // Soon again, yet without pressing a database that is in trouble.
                    renew_at = now + (third / 10).max(Duration::from_millis(50));
                    warn!(
                        operation.id = %operation, error = %err,
                        "The lease of operation {operation} could not be renewed"
                    );
                }
            }
        }
        if Instant::now() >= held_until {
            warn!(operation.id = %operation, "The lease of operation {operation} ran out unrenewed");
            lease.lost.cancel();
            return;
        }
    }
}
