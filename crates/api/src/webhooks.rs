//! Where triggers are called: an address for each, which is all that a caller needs.
//!
//! There is no token, no project and no version here, and nothing of an address is logged: whoever knows it may call it.
//! Every address that is wrong is answered alike, and each trigger is called so often only.

use std::time::Instant;

use axum::extract::{Path, State as AxumState};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use karbor_actions::{EventAddress, Kind};
use karbor_types::TriggerId;
use secrecy::ExposeSecret;
use serde_json::json;

use crate::State;
use crate::call::Answer;
use crate::fault::Fault;

/// The pattern of the addresses.
pub(crate) const PATH: &str = "/webhooks/{trigger}/{signature}";

const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How many calls of one trigger are taken in a second, and how many at once beyond that.
pub(crate) const RATE: (u32, u32) = (1, 10);

/// Returns the address of a trigger, below the service's own.
pub(crate) fn path(address: &EventAddress) -> String {
    format!("/webhooks/{}/{}", address.trigger, address.signature.expose_secret())
}

/// Lets a trigger fire.
pub(crate) async fn call(
    AxumState(state): AxumState<State>,
    Path((trigger, signature)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    match called(&state, &trigger, &signature, &headers).await {
        Ok(response) => response,
        Err(fault) => fault.into_response(),
    }
}

async fn called(state: &State, trigger: &str, signature: &str, headers: &HeaderMap) -> Answer {
    let Ok(id) = trigger.parse::<TriggerId>() else { return Err(Fault::not_here()) };
    let Ok(_room) = state.inner.room.acquire().await else {
        return Err(Fault::unavailable("the service is stopping", None));
    };
    if let Err(wait) = state.inner.calls.take(&id, Instant::now()) {
        let text = format!("this is called too often; try again in {wait:.1?}");
        return Err(Fault::new(StatusCode::TOO_MANY_REQUESTS, text));
    }
    let key = headers.get(KEY).map(|key| key.to_str()).transpose();
    let key = key.map_err(|_| Fault::bad_request("the header Idempotency-Key is not text"))?;
    let work = state.actions().call_trigger(id, signature, key);
    let call = match tokio::time::timeout(state.request_time(), work).await {
        Err(_) => return Err(Fault::unavailable("the request took too long and was given up", None)),
        Ok(Err(err)) if err.kind() == Kind::NotFound => return Err(Fault::not_here()),
        Ok(call) => call?,
    };
    let body = json!({"event": {"occurrence_at": call.at.to_string(), "fired": call.fired}});
    Ok((StatusCode::ACCEPTED, axum::Json(body)).into_response())
}
