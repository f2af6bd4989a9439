//! Counts the plans that are late, for those who watch.

use std::time::Duration;

use karbor_actions::Actions;
use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How often the plans are counted.
const PERIOD: Duration = Duration::from_secs(60);

/// Counts until it is told to stop.
pub(crate) async fn run(actions: Actions, gauge: Gauge, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            counted = actions.count_late_plans() => match counted {
                Ok(number) => _ = gauge.set(i64::try_from(number).unwrap_or(i64::MAX)),
                Err(err) => warn!(error = &err as &dyn std::error::Error, "Late plans cannot be counted: {err}"),
            },
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}
