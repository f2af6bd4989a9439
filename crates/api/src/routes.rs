//! The routes under `/v1/{project}`.

mod checkpoints;
mod copies;
mod operation_logs;
mod operations;
mod plans;
mod protectables;
mod providers;
mod quotas;
mod restores;
mod scheduled_operations;
mod services;
mod triggers;
mod verifications;

use axum::Router;
use axum::routing::{MethodRouter, get, post};

use crate::State;
use crate::call::{method_not_allowed, not_here};

/// Returns the routes; none of them runs without a caller, which the gate around them sees to.
pub(crate) fn v1(state: State) -> Router {
    let router = Router::new();
    let router = resource(
        router,
        "plans",
        get(plans::list).post(plans::create),
        get(plans::show).put(plans::update).delete(plans::delete),
    );
    let router = resource(
        router,
        "restores",
        get(restores::list).post(restores::create),
        get(restores::show).put(not_here).delete(not_here),
    );
    let router = resource(
        router,
        "verifications",
        get(verifications::list).post(verifications::create),
        get(verifications::show).put(not_here).delete(not_here),
    );
    let router = resource(
        router,
        "triggers",
        get(triggers::list).post(triggers::create),
        get(triggers::show).put(triggers::update).delete(triggers::delete),
    );
    let router = resource(
        router,
        "scheduled_operations",
        get(scheduled_operations::list).post(scheduled_operations::create),
        get(scheduled_operations::show).put(not_here).delete(scheduled_operations::delete),
    );
    let router = resource(
        router,
        "operation_logs",
        get(operation_logs::list).post(not_here),
        get(operation_logs::show).put(not_here).delete(not_here),
    );
    let router = resource(
        router,
        "providers",
        get(providers::list).post(not_here),
        get(providers::show).put(not_here).delete(not_here),
    );
    let router = resource(
        router,
        "protectables",
        get(protectables::list).post(not_here),
        get(protectables::show).put(not_here).delete(not_here),
    );
    let router = resource(
        router,
        "os-services",
        get(services::list).post(not_here),
        get(not_here).put(services::update).delete(not_here),
    );
    let router = resource(
        router,
        "quotas",
        get(not_here).post(not_here),
        get(quotas::show).put(quotas::update).delete(quotas::delete),
    );
    let router = resource(
        router,
        "quota_classes",
        get(not_here).post(not_here),
        get(quotas::show_class).put(quotas::update_class).delete(not_here),
    );
    router
        .route("/v1/{project}/protectables/{type}/instances", get(protectables::instances))
        .route("/v1/{project}/protectables/{type}/instances/{id}", get(protectables::instance))
        .route(
            "/v1/{project}/providers/{provider}/checkpoints",
            get(checkpoints::list).post(checkpoints::create),
        )
        .route("/v1/{project}/providers/{provider}/checkpoints/action", post(copies::create))
        .route(
            "/v1/{project}/providers/{provider}/checkpoints/{id}",
            get(checkpoints::show).put(checkpoints::reset).delete(checkpoints::delete),
        )
        .route("/v1/{project}/quotas/{id}/defaults", get(quotas::defaults))
        .route("/v1/{project}/quotas/{id}/detail", get(quotas::detail))
        .route("/v1/{project}/operations", get(operations::list))
        .route("/v1/{project}/operations/{id}", get(operations::show))
        .route("/v1/{project}/operations/{id}/resources", get(operations::resources))
        .route("/v1/{project}/operations/{id}/action", post(operations::act))
        .fallback(not_here)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(state)
}

/// Adds a collection and its members, with the suffixes that they may have and the addresses beside them that the
/// old service knew without anything behind them.
fn resource(
    router: Router<State>,
    name: &str,
    collection: MethodRouter<State>,
    member: MethodRouter<State>,
) -> Router<State> {
    let path = format!("/v1/{{project}}/{name}");
    let router = router
        .route(&format!("{path}.json"), collection.clone())
        .route(&format!("{path}.xml"), collection.clone())
        .route(&path, collection)
        .route(&format!("{path}/{{id}}/edit"), get(not_here));
    let router = if matches!(name, "providers" | "protectables") {
        // These have addresses of their own below their members, with their own name for the member.
        router
    } else {
        router.route(&format!("{path}/{{id}}/action"), post(not_here))
    };
    router.route(&format!("{path}/{{id}}"), member)
}
