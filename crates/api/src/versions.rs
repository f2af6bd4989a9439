//! Versions and health: what can be asked without a token.

use axum::extract::{Request, State as AxumState};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::{BaseUrl, Microversion, State};

/// Answers everything outside `/v1` with the versions; the status is the historical 300.
pub(crate) fn versions(state: &State, request: &Request) -> Response {
    let links = json!([{"rel": "self", "href": href(state, request)}]);
    let version = json!({"id": "v1.0", "status": "CURRENT", "links": links});
    json_response(StatusCode::MULTIPLE_CHOICES, &json!({ "versions": [version] }))
}

/// Answers `GET /v1/` with this version and its microversions.
pub(crate) async fn this_version(AxumState(state): AxumState<State>, request: Request) -> Response {
    if *request.method() != Method::GET {
        let text = "this address only knows GET";
        return Fault::new(StatusCode::METHOD_NOT_ALLOWED, text).allowing("GET").into_response();
    }
    let links = json!([{"rel": "self", "href": href(&state, &request)}]);
    let version = json!({
        "id": "v1.0", "status": "CURRENT", "links": links,
        "min_version": Microversion::V1_0.to_string(), "version": Microversion::NEWEST.to_string(),
    });
    json_response(StatusCode::OK, &json!({ "version": version }))
}

/// Answers whether the service can work.
pub(crate) async fn healthcheck(AxumState(state): AxumState<State>) -> Response {
    match state.actions().ping().await {
        Ok(()) => json_response(StatusCode::OK, &json!({"status": "ok"})),
        Err(err) => {
            tracing::warn!("The health check failed: {}", crate::fault::chain(&err));
            Fault::from(err).into_response()
        }
    }
}

fn href(state: &State, request: &Request) -> String {
    format!("{}/v1/", BaseUrl::of(state.config().base_url.as_ref(), request.headers()).as_str())
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    let mut response = (status, body.to_string()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
