//! What a refusal of S3 means.
//!
//! The client library tells few kinds of failure apart and keeps the status to itself, so the refusals that
//! matter are turned into errors of our own where the reply arrives, and found again in the chain of causes.

use std::error::Error as StdError;

use async_trait::async_trait;
use futures::TryStreamExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService, ReqwestConnector,
};

use crate::{Error, ErrorKind};

/// How much of a reply that is no success is read.
const MAX_REFUSAL_BYTES: usize = 64 << 10;

/// Connects as usual, and looks at the replies.
#[derive(Debug, Default)]
pub(super) struct Connector(ReqwestConnector);

#[derive(Debug)]
struct Watched(HttpClient);

/// A reply that is no success.
#[derive(Debug, thiserror::Error)]
#[error("the store answered {status}{}{code}{}{message}", separator(code), separator(message))]
struct Refusal {
    status: u16,
    /// The code in the body, such as `SlowDown`; empty if there is none.
    code: String,
    message: String,
}

fn separator(text: &str) -> &'static str {
    if text.is_empty() { "" } else { ": " }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Watched(self.0.connect(options)?)))
    }
}

#[async_trait]
impl HttpService for Watched {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.execute(request).await?;
        let status = response.status().as_u16();
        // The library knows what it means that nothing changed, and that a condition does not hold.
        if status < 400 || status == 412 {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let text = first_text(body).await?;
        let (code, message) = (element(&text, "Code"), element(&text, "Message"));
        // An object that is not there is no failure; a bucket that is not there is.
        if status == 404 && code != "NoSuchBucket" {
            return Ok(HttpResponse::from_parts(parts, text.into()));
        }
        Err(HttpError::new(HttpErrorKind::Unknown, Refusal { status, code, message }))
    }
}

/// Returns as much of a body as an error needs.
async fn first_text(body: HttpResponseBody) -> Result<String, HttpError> {
    let mut stream = body.bytes_stream();
    let mut bytes = Vec::new();
    while bytes.len() < MAX_REFUSAL_BYTES {
        let Some(piece) = stream.try_next().await? else { break };
        bytes.extend_from_slice(&piece);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Refusal {
    fn kind(&self) -> ErrorKind {
        match self.code.as_str() {
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "InvalidToken"
            | "TokenRefreshRequired"
            | "RequestTimeTooSkewed"
            | "AuthorizationHeaderMalformed" => {
                return ErrorKind::Unauthenticated;
            }
            "QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" => {
                return ErrorKind::Full;
            }
            "RequestTimeout"
            | "SlowDown"
            | "InternalError"
            | "OperationAborted"
            | "ConditionalRequestConflict" => return ErrorKind::Unavailable,
            "NotImplemented" | "EntityTooLarge" | "MethodNotAllowed" => return ErrorKind::Unsupported,
            _ => {}
        }
        match self.status {
            401 => ErrorKind::Unauthenticated,
            403 => ErrorKind::Denied,
            405 | 413 | 501 => ErrorKind::Unsupported,
            507 => ErrorKind::Full,
            408 | 409 | 425 | 429 | 500.. => ErrorKind::Unavailable,
            _ => ErrorKind::Other,
        }
    }
}

/// Turns an error of the client library into ours.
pub(super) fn failed(operation: &'static str, key: &str, error: object_store::Error) -> Error {
    let kind = match &error {
        object_store::Error::NotFound { .. } => ErrorKind::NotFound,
        object_store::Error::AlreadyExists { .. } => ErrorKind::AlreadyExists,
        object_store::Error::Precondition { .. } | object_store::Error::NotModified { .. } => {
            ErrorKind::Precondition
        }
        object_store::Error::PermissionDenied { .. } => ErrorKind::Denied,
        object_store::Error::Unauthenticated { .. } => ErrorKind::Unauthenticated,
        object_store::Error::NotSupported { .. } | object_store::Error::NotImplemented { .. } => {
            ErrorKind::Unsupported
        }
        object_store::Error::JoinError { .. } => ErrorKind::Unavailable,
        _ => kind_of_cause(&error),
    };
    Error::new(kind, operation, key).with_source(error)
}

fn kind_of_cause(error: &object_store::Error) -> ErrorKind {
    if let Some(refusal) = cause::<Refusal>(error) {
        return refusal.kind();
    }
    if let Some(http) = cause::<HttpError>(error) {
        // Connecting, sending, waiting or receiving: the request may or may not have arrived.
        return match http.kind() {
            HttpErrorKind::Decode => ErrorKind::Other,
            _ => ErrorKind::Unavailable,
        };
    }
    // A reply that says "done" and holds an error, as the end of an upload in parts may.
    let text = error.to_string();
    if text.contains("InternalError") || text.contains("SlowDown") {
        return ErrorKind::Unavailable;
    }
    ErrorKind::Other
}

/// Returns whether a range was refused as it starts behind the object's end.
pub(super) fn is_outside_object(error: &object_store::Error) -> bool {
    cause::<Refusal>(error).is_some_and(|refusal| refusal.status == 416)
}

/// Finds a cause of one type in the chain.
fn cause<T: StdError + 'static>(error: &object_store::Error) -> Option<&T> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Returns the text of the first element of that name, cut to what belongs into an error.
fn element(text: &str, name: &str) -> String {
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    let found = text.split_once(&start).and_then(|(_, rest)| rest.split_once(&end));
    found.map(|(inner, _)| inner.chars().take(300).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_kinds() {
        let cases = [
            (403, "AccessDenied", ErrorKind::Denied),
            (403, "SignatureDoesNotMatch", ErrorKind::Unauthenticated),
            (403, "QuotaExceeded", ErrorKind::Full),
            (507, "", ErrorKind::Full),
            (400, "RequestTimeout", ErrorKind::Unavailable),
            (400, "InvalidRequest", ErrorKind::Other),
            (404, "NoSuchBucket", ErrorKind::Other),
            (409, "ConditionalRequestConflict", ErrorKind::Unavailable),
            (429, "", ErrorKind::Unavailable),
            (501, "NotImplemented", ErrorKind::Unsupported),
            (503, "SlowDown", ErrorKind::Unavailable),
        ];
        for (status, code, kind) in cases {
            let refusal = Refusal { status, code: code.to_owned(), message: String::new() };
            assert_eq!(refusal.kind(), kind, "{refusal}");
        }
    }

    #[test]
    fn refusals_are_found_in_the_chain_of_causes() {
        let refusal = Refusal { status: 416, code: "InvalidRange".to_owned(), message: "no".to_owned() };
        assert_eq!(refusal.to_string(), "the store answered 416: InvalidRange: no");
        let http = HttpError::new(HttpErrorKind::Unknown, refusal);
        let error = object_store::Error::Generic { store: "S3", source: Box::new(http) };
        assert!(is_outside_object(&error));
        assert_eq!(element("<Error><Code>SlowDown</Code>", "Code"), "SlowDown");
        assert_eq!(element("<html>", "Code"), "");
    }
}
