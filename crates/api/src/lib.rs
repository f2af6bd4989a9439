//! REST v1: routes, schemas, faults, identity.
//!
//! Invariant: no decisions. A request is turned into a typed wish, an action decides, and what it answers is
//! turned into JSON. What is checked here is only what can be seen in the request itself, in the order that
//! clients know: token, route, JSON, project in the address, schema. One place ([`fault`]) knows statuses and
//! the words of refusals, one ([`body`]) the shapes of what comes in, one ([`views`]) the shapes of what goes out.
//!
//! Without the microversion header every answer is version 1's, member for member.

mod base;
mod body;
mod call;
mod fault;
mod gate;
pub mod identity;
mod literal;
mod metrics;
mod microversion;
mod openapi;
mod paging;
mod patient;
mod rate;
mod routes;
mod server;
mod versions;
mod views;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use karbor_actions::{Actions, Ids};
use karbor_types::{ProjectId, TriggerId};
use tokio::sync::Semaphore;

pub use base::BaseUrl;
pub use identity::Identity;
pub use metrics::{ApiMetrics, Exposition};
pub use microversion::Microversion;
pub use server::serve;

/// Settings of the API: the `[api]` table.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ApiConfig {
    /// What links begin with, where the service cannot see it in the request: scheme, host and path prefix.
    pub base_url: Option<BaseUrl>,
    /// The largest body that is read, in bytes.
    pub max_body_bytes: usize,
    /// How long a client may take to send its body, in seconds.
    pub body_seconds: u64,
    /// How long a request may take in all, in seconds.
    pub request_seconds: u64,
    /// How many requests are worked on at once; the others wait.
    pub concurrency: usize,
    /// How many connections there are at once; the others wait to be taken.
    pub connections: usize,
    /// How long a client may take to send its headers, or be silent between two requests, in seconds.
    pub header_seconds: u64,
    /// How long a client may take nothing of what it is sent, in seconds.
    pub write_seconds: u64,
    /// How many requests a project may make in a second; 0: any number.
    pub project_rate: u32,
    /// How many requests a project may make at once beyond that.
    pub project_burst: u32,
    /// How long requests under way may take to end when the service stops, in seconds.
    pub drain_seconds: u64,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            base_url: None,
            max_body_bytes: 4 << 20,
            body_seconds: 30,
            request_seconds: 60,
            concurrency: 256,
            connections: 1024,
            header_seconds: 30,
            write_seconds: 30,
            project_rate: 0,
            project_burst: 100,
            drain_seconds: 30,
        }
    }
}

/// What the API is made of.
#[derive(Debug, Clone)]
pub struct State {
    inner: Arc<Inner>,
}

struct Inner {
    actions: Actions,
    identity: Arc<dyn Identity>,
    config: ApiConfig,
    request_ids: Ids,
    room: Semaphore,
    rate: rate::Rate<ProjectId>,
    calls: rate::Rate<TriggerId>,
    metrics: ApiMetrics,
    exposition: Option<Exposition>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("identity", &self.identity)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl State {
    /// Makes the state of an API. `request_ids` gives out UUIDs that nobody has.
    pub fn new(actions: Actions, identity: Arc<dyn Identity>, config: ApiConfig, request_ids: Ids) -> Self {
        let room = Semaphore::new(config.concurrency.clamp(1, Semaphore::MAX_PERMITS));
        let rate = rate::Rate::new(config.project_rate, config.project_burst);
        let (per_second, burst) = webhooks::RATE;
        let calls = rate::Rate::new(per_second, burst);
        let (metrics, exposition) = (ApiMetrics::default(), None);
        let inner = Inner { actions, identity, config, request_ids, room, rate, calls, metrics, exposition };
        Self { inner: Arc::new(inner) }
    }

    /// Lets the API count in the given counters. With an exposition, `/metrics` shows all counters of the process.
    #[must_use]
    pub fn with_metrics(mut self, metrics: ApiMetrics, exposition: Option<Exposition>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.metrics = metrics;
            inner.exposition = exposition;
        }
        self
    }

    fn actions(&self) -> &Actions {
        &self.inner.actions
    }

    fn identity(&self) -> &dyn Identity {
        self.inner.identity.as_ref()
    }

    fn config(&self) -> &ApiConfig {
        &self.inner.config
    }

    fn body_time(&self) -> Duration {
        Duration::from_secs(self.inner.config.body_seconds)
    }

    fn request_time(&self) -> Duration {
        Duration::from_secs(self.inner.config.request_seconds)
    }
}

/// Returns the description of the API in OpenAPI 3.1.
pub fn openapi() -> serde_json::Value {
    routes::told().document()
}

/// Returns what watchers of the process ask for alone: `/healthcheck` and `/metrics`.
pub fn watch(state: State) -> Router {
    gate::watched(state)
}

/// Returns the whole API as one router. It answers every path: what is not under `/v1` gets the versions.
/// Other routers that have no fallback can be merged into it.
pub fn router(state: State) -> Router {
    gate::outer(state)
}
