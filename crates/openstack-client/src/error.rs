//! What can go wrong with a call: a kind the caller decides on, the service, what was asked, the service's reason.

use std::fmt;
use std::time::Duration;

use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};

/// The result of a call to a service.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A failed call.
#[derive(Debug)]
pub struct Error(Box<Parts>);

#[derive(Debug)]
struct Parts {
    kind: ErrorKind,
    service: String,
    doing: String,
    status: Option<StatusCode>,
    request_id: Option<String>,
    reason: String,
    asked_pause: Option<Duration>,
    source: Option<Source>,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no such thing.
    NotFound,
    /// The thing is in a state, or is taken, so that this cannot be done to it.
    Conflict,
    /// A quota of the project is used up.
    QuotaExceeded,
    /// The credentials were not accepted: wrong, expired or revoked.
    Unauthenticated,
    /// The trust by which we act is gone, or its giver may not do any more what it lets us do.
    Revoked,
    /// The credentials do not allow this.
    Denied,
    /// The service cannot be reached or cannot answer now.
    Unavailable,
    /// What was asked cannot be done, now or ever: also if the cloud has no such service.
    Invalid,
    /// No answer came in time.
    Timeout,
    /// Anything else.
    Other,
}

impl ErrorKind {
    /// Returns whether trying again later may help.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Timeout)
    }
}

impl Error {
    /// Makes an error. `doing` is what was asked (a method and a path), `reason` why it could not be done.
    pub fn new(
        kind: ErrorKind,
        service: impl Into<String>,
        doing: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self(Box::new(Parts {
            kind,
            service: service.into(),
            doing: doing.into(),
            status: None,
            request_id: None,
            reason: reason.into(),
            asked_pause: None,
            source: None,
        }))
    }

    pub(crate) fn with_status(mut self, status: StatusCode, request_id: Option<String>) -> Self {
        self.0.status = Some(status);
        self.0.request_id = request_id;
        self
    }

    pub(crate) fn with_asked_pause(mut self, pause: Option<Duration>) -> Self {
        self.0.asked_pause = pause;
        self
    }

    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Takes a secret out of the reason, should the service have repeated it.
    pub(crate) fn hiding(mut self, secret: &SecretString) -> Self {
        if !secret.expose_secret().is_empty() && self.0.reason.contains(secret.expose_secret()) {
            self.0.reason = self.0.reason.replace(secret.expose_secret(), "[REDACTED]");
        }
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Returns what the caller decides on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the type of the service that was asked.
    pub fn service(&self) -> &str {
        &self.0.service
    }

    /// Returns the service's answer, if there was one.
    pub fn status(&self) -> Option<StatusCode> {
        self.0.status
    }

    /// Returns the id under which the service's own log has this call.
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// Returns why, in the service's own words where it gave some.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// Returns how long the service asked us to wait before the next call.
    pub fn asked_pause(&self) -> Option<Duration> {
        self.0.asked_pause
    }

    /// Returns whether there is no such thing.
    pub fn is_not_found(&self) -> bool {
        self.0.kind == ErrorKind::NotFound
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { kind: _, service, doing, status, request_id, reason, asked_pause: _, source: _ } =
            &*self.0;
        write!(f, "{service}: {doing}: {reason}")?;
        match (status, request_id) {
            (Some(status), Some(id)) => write!(f, " ({}, request {id})", status.as_u16()),
            (Some(status), None) => write!(f, " ({})", status.as_u16()),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
