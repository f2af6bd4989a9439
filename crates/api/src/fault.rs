//! Faults: the one place that decides status, member name and what a client may read.
//!
//! A 5xx body never holds the cause. The cause travels beside the answer to the gate, which logs it once with its
//! whole chain under the request's id.

use std::error::Error as StdError;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use karbor_actions::{Error as ActionError, Kind};
use serde_json::{Map, json};

/// A refusal or failure on its way to the client.
#[derive(Debug)]
pub(crate) struct Fault {
    status: StatusCode,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<Cause>,
}

/// What a 5xx answer keeps from the client; taken from the answer's extensions by the gate.
#[derive(Debug, Clone)]
pub(crate) struct Cause(pub(crate) Arc<dyn StdError + Send + Sync>);

/// After how many seconds something that could not be reached is worth another try.
const RETRY_SECONDS: &str = "5";

/// What is said of every fault of the service.
const INTERNAL: &str =
    "the service could not do this because of a fault of its own; its log tells more under the request's id";

impl Fault {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), headers: Vec::new(), cause: None }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// The answer of an address that exists in the old service's tables but has nothing behind it.
    pub(crate) fn not_here() -> Self {
        Self::not_found("there is nothing at this address")
    }

    pub(crate) fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, message)
    }

    pub(crate) fn unauthorized(message: impl Into<String>, challenge: &str) -> Self {
        let mut fault = Self::new(StatusCode::UNAUTHORIZED, message);
        if let Ok(value) = HeaderValue::from_str(challenge) {
            fault.headers.push((header::WWW_AUTHENTICATE, value));
        }
        fault
    }

    pub(crate) fn unavailable(message: impl Into<String>, cause: Option<Cause>) -> Self {
        Self { cause, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    pub(crate) fn internal(cause: Cause) -> Self {
        Self { cause: Some(cause), ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, INTERNAL) }
    }

    /// Says when to try again.
    pub(crate) fn worth_a_retry(mut self) -> Self {
        self.headers.push((header::RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS)));
        self
    }

    pub(crate) fn is_bad_request(&self) -> bool {
        self.status == StatusCode::BAD_REQUEST
    }

    pub(crate) fn allowing(mut self, methods: &'static str) -> Self {
        self.headers.push((header::ALLOW, HeaderValue::from_static(methods)));
        self
    }

    /// Returns the member's name, as clients know it by the status.
    fn member(&self) -> &'static str {
        match self.status.as_u16() {
            400 => "badRequest",
            401 => "unauthorized",
            403 => "forbidden",
            404 => "itemNotFound",
            405 => "badMethod",
            409 => "conflictingRequest",
            413 | 429 => "overLimit",
            415 => "badMediaType",
            501 => "notImplemented",
            503 => "serviceUnavailable",
            _ => "computeFault",
        }
    }
}

impl From<ActionError> for Fault {
    fn from(err: ActionError) -> Self {
        let status = match err.kind() {
            Kind::Invalid => StatusCode::BAD_REQUEST,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::InUse => StatusCode::FAILED_DEPENDENCY,
            Kind::OverQuota => {
                let mut fault = Self::new(StatusCode::PAYLOAD_TOO_LARGE, err.to_string());
                fault.headers.push((header::RETRY_AFTER, HeaderValue::from_static("0")));
                return fault;
            }
            Kind::Unavailable => {
                let message = match &err {
                    ActionError::Unavailable { what, .. } => {
                        format!("{what} cannot be reached now; try again later")
                    }
                    _ => {
                        "something that is needed for this cannot be reached now; try again later".to_owned()
                    }
                };
                return Self::unavailable(message, Some(Cause(Arc::new(err))));
            }
            _ => return Self::internal(Cause(Arc::new(err))),
        };
        Self::new(status, err.to_string())
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut fault = Map::new();
        fault.insert("code".to_owned(), self.status.as_u16().into());
        fault.insert("message".to_owned(), self.message.as_str().into());
        if let Some((_, seconds)) = self.headers.iter().find(|(name, _)| *name == header::RETRY_AFTER) {
            fault.insert("retryAfter".to_owned(), seconds.to_str().unwrap_or_default().into());
        }
        let body = json!({ self.member(): fault }).to_string();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(cause);
        }
        response
    }
}

/// Writes an error with its whole chain on one line.
pub(crate) fn chain(err: &dyn StdError) -> String {
    let mut text = err.to_string();
    let mut next = err.source();
    while let Some(err) = next {
        text.push_str(": ");
        text.push_str(&err.to_string());
        next = err.source();
    }
    text
}
