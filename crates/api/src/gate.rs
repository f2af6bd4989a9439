//! The gate: what every request under `/v1` passes, in and out.
//!
//! In: a request id, room to work, the token. Out: the request id's headers, and the one log entry of what went
//! wrong inside. Nothing behind the gate runs for somebody who was not identified.

use std::any::Any;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use karbor_actions::Caller;
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{Instrument, debug, error, info_span};

use crate::fault::{Cause, Fault, chain};
use crate::identity::{IdentityError, Welcome};
use crate::{BaseUrl, State, metrics, microversion, openapi, routes, versions, webhooks};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-openstack-request-id");
const COMPUTE_REQUEST_ID: HeaderName = HeaderName::from_static("x-compute-request-id");
const SERVICE_TOKEN: HeaderName = HeaderName::from_static("x-service-token");
const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
const MANAGEMENT_URL: HeaderName = HeaderName::from_static("x-server-management-url");

/// Builds the router of everything.
pub(crate) fn outer(state: State) -> Router {
    let v1 = routes::v1(state.clone())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(state.clone(), gate));
    let open = watched(state.clone());
    let open = open
        .merge(
            Router::new()
                .route("/v1", any(versions::this_version))
                .route("/v1/", any(versions::this_version))
                .with_state(state.clone()),
        )
        .merge(Router::new().route("/openapi.json", get(openapi::show)).with_state(document()))
        .route("/openapi", get(openapi::show_page))
        .merge(Router::new().route(webhooks::PATH, post(webhooks::call)).with_state(state.clone()));
    let rest = any(move |request: Request| {
        let (v1, state) = (v1.clone(), state.clone());
        async move {
            if request.uri().path().starts_with("/v1/") {
                v1.oneshot(request).await.into_response()
            } else {
                versions::versions(&state, &request)
            }
        }
    });
    open.fallback(rest)
}

/// Returns the description of the API as text: the same for all of a process.
fn document() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| crate::openapi().to_string())
}

/// Builds the router of what watchers ask for.
pub(crate) fn watched(state: State) -> Router {
    let router = Router::new().route("/healthcheck", get(versions::healthcheck)).with_state(state.clone());
    match state.inner.exposition.clone() {
        Some(exposition) => {
            router.merge(Router::new().route("/metrics", get(metrics::show)).with_state((state, exposition)))
        }
        None => router,
    }
}

async fn gate(
    axum::extract::State(state): axum::extract::State<State>,
    request: Request,
    next: Next,
) -> Response {
    let id = format!("req-{}", (state.inner.request_ids)());
    let span = info_span!("request", request.id = %id);
    let began = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let under_way = state.inner.metrics.begin();
    let mut response = admitted(&state, request, next, &id).instrument(span).await;
    drop(under_way);

    let status = response.status().as_u16();
    let route = route.as_ref().map(MatchedPath::as_str);
    state.inner.metrics.answered(method.as_str(), route, status, began.elapsed());
    if let Some(Cause(cause)) = response.extensions_mut().remove::<Cause>() {
        let text = chain(cause.as_ref());
        error!(request.id = %id, status, "{method} {path} failed in request {id}: {text}");
    }
    debug!(request.id = %id, status, micros = began.elapsed().as_micros(), "{method} {path} answered {status}");
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value.clone());
        response.headers_mut().insert(COMPUTE_REQUEST_ID, value);
    }
    response
}

/// Identifies the caller and lets the request through, if there is room and time.
async fn admitted(state: &State, mut request: Request, next: Next, id: &str) -> Response {
    let work = async {
        let Ok(_room) = state.inner.room.acquire().await else {
            return Fault::unavailable("the service is stopping", None).into_response();
        };
        match identified(state, request.headers(), request.uri().path(), id).await {
            Ok(caller) => {
                if let Err(wait) = state.inner.rate.take(&caller.project, Instant::now()) {
                    let text = format!("the project makes too many requests; try again in {wait:.1?}");
                    return Fault::new(StatusCode::TOO_MANY_REQUESTS, text).into_response();
                }
                request.extensions_mut().insert(caller);
                next.run(request).await
            }
            Err(refusal) => refusal,
        }
    };
    match tokio::time::timeout(state.request_time(), work).await {
        Ok(response) => response,
        Err(_) => Fault::unavailable("the request took too long and was given up", None).into_response(),
    }
}

async fn identified(
    state: &State,
    headers: &HeaderMap,
    path: &str,
    id: &str,
) -> Result<Arc<Caller>, Response> {
    let identity = state.identity();
    let challenge = identity.challenge();
    let refuse = |reason: &str| Fault::unauthorized(reason, &challenge).into_response();
    let token = match headers.get(AUTH_TOKEN) {
        None => match identity.welcome(headers) {
            Some(welcomed) => return Err(welcome(&welcomed, headers, path)),
            None => return Err(refuse("this needs a token in the header X-Auth-Token")),
        },
        Some(token) => token.to_str().map_err(|_| refuse("the token is not text"))?,
    };
    let found = match headers.get(SERVICE_TOKEN) {
        None => identity.authenticate(token).await,
        Some(service) => {
            let service = service.to_str().map_err(|_| refuse("the service's token is not text"))?;
            identity.authenticate_beside(token, service).await
        }
    };
    match found {
        Ok(principal) => Ok(Arc::new(state.actions().caller(principal, id))),
        Err(IdentityError::Refused { reason }) => Err(refuse(&reason)),
        Err(err) => {
            let message = "the identity service cannot be reached now; try again later";
            let fault = Fault::unavailable(message, Some(Cause(Arc::new(err))));
            // The oldest clients fail over this header; those who name a microversion do not.
            let knows = headers.contains_key(microversion::HEADER);
            Err(if knows { fault.worth_a_retry() } else { fault }.into_response())
        }
    }
}

/// Answers a client that asks for its token where nobody is identified.
fn welcome(welcome: &Welcome, headers: &HeaderMap, path: &str) -> Response {
    let base = BaseUrl::of(None, headers);
    let url = format!("{}{}/{}", base.as_str(), path.trim_end_matches('/'), welcome.project);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    for (name, value) in [(AUTH_TOKEN, welcome.token.as_str()), (MANAGEMENT_URL, &url)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is the layer's")]
fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    let text = text.unwrap_or_else(|| "a panic without words".to_owned());
    Fault::internal(Cause(Arc::new(Panicked(text)))).into_response()
}

#[derive(Debug, thiserror::Error)]
#[error("the request's handler panicked: {0}")]
struct Panicked(String);

/// Returns the caller whom the gate has identified.
pub(crate) fn caller(request: &Request) -> Option<Arc<Caller>> {
    request.extensions().get::<Arc<Caller>>().cloned()
}

/// Returns whether a method never has anything behind it here.
pub(crate) fn is_unknown(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::POST | Method::PUT | Method::DELETE)
}
