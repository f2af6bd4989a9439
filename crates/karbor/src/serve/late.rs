//! Counts the plans that are late, for those who watch.
//!
//! All scheduled operations are walked over, page by page: nothing of a page is kept but which plans are late. A pause
//! after each page keeps that from taking more than a hundredth of the time, however many there are; so with very many
//! the count is made less often.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use karbor_actions::{Actions, Result};
use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How often the plans are counted.
const PERIOD: Duration = Duration::from_secs(60);

/// How many times longer than the work on a page the pause after it is.
const PAUSES: u32 = 99;

/// The longest pause, for a database that was very slow once.
const LONGEST: Duration = Duration::from_secs(10);

/// Counts until it is told to stop.
pub(crate) async fn run(actions: Actions, gauge: Gauge, stop: CancellationToken) {
    loop {
        let began = Instant::now();
        tokio::select! {
            () = stop.cancelled() => return,
            counted = count(&actions) => match counted {
                Ok(number) => _ = gauge.set(number),
                Err(err) => warn!(error = &err as &dyn std::error::Error, "Late plans cannot be counted: {err}"),
            },
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PERIOD.saturating_sub(began.elapsed())) => {}
        }
    }
}

async fn count(actions: &Actions) -> Result<i64> {
    // Half of a plan's id tells it from a million others.
    let mut late: HashSet<u64> = HashSet::new();
    let mut page = None;
    loop {
        let began = Instant::now();
        let next = actions.late_page(page.as_ref()).await?;
        let found = next.standings.iter().filter(|standing| standing.is_late);
        late.extend(found.map(|standing| standing.plan.as_uuid().as_u64_pair().1));
        if !next.has_more() {
            return Ok(i64::try_from(late.len()).unwrap_or(i64::MAX));
        }
        page = Some(next);
        tokio::time::sleep((began.elapsed() * PAUSES).min(LONGEST)).await;
    }
}
