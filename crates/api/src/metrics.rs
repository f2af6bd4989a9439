//! What the API counts, and the page that shows all counters of the process.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::State;
use crate::fault::{Cause, Fault};

/// The upper ends of the classes of latencies, in seconds.
const LATENCIES: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Writes all counters of the process in the text format of OpenMetrics.
pub type Exposition =
    Arc<dyn Fn() -> BoxFuture<'static, Result<String, karbor_actions::BoxError>> + Send + Sync>;

/// The counters of the API. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct ApiMetrics {
    requests: Family<Answered, Counter>,
    latencies: Family<Asked, Histogram>,
    under_way: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    method: &'static str,
    route: String,
}

impl Default for ApiMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            latencies: Family::new_with_constructor(|| Histogram::new(LATENCIES)),
            under_way: Gauge::default(),
        }
    }
}

impl ApiMetrics {
    /// Makes the counters and makes them known to a registry.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let requests = metrics.requests.clone();
        registry.register("requests", "Requests by method, route and status", requests);
        let latencies = metrics.latencies.clone();
        registry.register("request_seconds", "How long requests took, by method and route", latencies);
        let under_way = metrics.under_way.clone();
        registry.register("requests_under_way", "Requests that are not answered yet", under_way);
        metrics
    }

    /// Counts a request as under way until the answer is dropped.
    pub(crate) fn begin(&self) -> UnderWay {
        self.under_way.inc();
        UnderWay(self.under_way.clone())
    }

    /// Counts an answer. A route is the pattern of an address, so that there are not more than routes.
    pub(crate) fn answered(&self, method: &str, route: Option<&str>, status: u16, took: Duration) {
        let method = match method {
            "GET" => "GET",
            "POST" => "POST",
            "PUT" => "PUT",
            "DELETE" => "DELETE",
            _ => "other",
        };
        let route = route.unwrap_or("none").to_owned();
        self.latencies.get_or_create(&Asked { method, route: route.clone() }).observe(took.as_secs_f64());
        self.requests.get_or_create(&Answered { method, route, status }).inc();
    }
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(crate) struct UnderWay(Gauge);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Answers with all counters.
pub(crate) async fn show(
    axum::extract::State((_, exposition)): axum::extract::State<(State, Exposition)>,
) -> Response {
    match exposition().await {
        Ok(text) => {
            let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(err) => {
            tracing::warn!("The counters cannot be shown: {err}");
            Fault::unavailable("not all counters can be read now", Some(Cause(Arc::from(err))))
                .into_response()
        }
    }
}
