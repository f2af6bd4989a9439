//! From what a service of the cloud says to what the engine decides on.

use karbor_openstack_client as client;
use karbor_plugin::{Error, ErrorKind};

/// Adds to a failed call what was being done for the tenant.
pub(crate) trait Doing<T> {
    /// Translates the failure; `doing` says what failed, such as "creating a snapshot of volume 1234".
    fn doing(self, doing: impl FnOnce() -> String) -> karbor_plugin::Result<T>;
}

impl<T> Doing<T> for client::Result<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> karbor_plugin::Result<T> {
        self.map_err(|err| translate(&doing(), err))
    }
}

/// Translates kind for kind, with the service's reason and the id of the request in the text.
pub(crate) fn translate(doing: &str, err: client::Error) -> Error {
    use client::ErrorKind as Kind;
    let (kind, advice) = match err.kind() {
        Kind::NotFound => (ErrorKind::NotFound, ""),
        Kind::Conflict => (ErrorKind::Conflict, ""),
        Kind::QuotaExceeded => (ErrorKind::NoSpace, "; free some of the project's quota or have it raised"),
        Kind::Unauthenticated => (ErrorKind::Denied, "; the credentials are not accepted any more"),
        Kind::Revoked => (
            ErrorKind::Revoked,
            "; the right to act for the project was taken back: ask, or schedule it, anew",
        ),
        Kind::Denied => (ErrorKind::Denied, "; the project's role does not allow it"),
        Kind::Unavailable | Kind::Timeout => (ErrorKind::Unavailable, ""),
        Kind::Invalid => (ErrorKind::Invalid, ""),
        _ => (ErrorKind::Other, ""),
    };
    let request = err.request_id().map(|id| format!(", request {id}")).unwrap_or_default();
    let text = format!("{doing} failed: {} ({}{request}){advice}", err.reason(), err.service());
    Error::new(kind, text).with_source(err)
}
