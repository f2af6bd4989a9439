//! Why an attempt ends before its operation is done.

use karbor_plugin::ErrorKind;
use karbor_types::{Hook, ResourceKey};

/// What went wrong, as it is told to the tenant: where, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What kind of failure it is.
    pub(crate) kind: ErrorKind,
    /// What is wrong and what to do about it.
    pub(crate) message: String,
    /// The resource, where it is about one.
    pub(crate) resource: Option<ResourceKey>,
    /// The hook in which it happened.
    pub(crate) hook: Option<Hook>,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), resource: None, hook: None }
    }

    pub(crate) fn of(mut self, resource: &ResourceKey) -> Self {
        self.resource = Some(resource.clone());
        self
    }

    pub(crate) fn at(mut self, hook: Hook) -> Self {
        self.hook = Some(hook);
        self
    }

    /// Returns one line for people: the resource, the hook, the reason.
    pub(crate) fn text(&self) -> String {
        match (&self.resource, self.hook) {
            (Some(resource), Some(hook)) => format!("{resource}: {hook}: {}", self.message),
            (Some(resource), None) if !self.message.contains(&resource.id) => {
                format!("{resource}: {}", self.message)
            }
            _ => self.message.clone(),
        }
    }
}

impl From<karbor_plugin::Error> for Failure {
    fn from(err: karbor_plugin::Error) -> Self {
        Self::new(err.kind(), err.message())
    }
}

/// Why an attempt ends before its operation is done.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Somebody else may have the operation: nothing more is written.
    LeaseLost,
    /// The service ends: the operation is given back.
    Drained,
    /// The store cannot be reached: what is durable stays, and whoever claims it next goes on.
    Store(karbor_store::Error),
    /// It may succeed later.
    Later(Failure),
    /// It failed for good.
    Failed(Failure),
    /// Somebody asked for it.
    Cancelled,
}

impl From<karbor_plugin::Error> for Stop {
    fn from(err: karbor_plugin::Error) -> Self {
        match err.kind() {
            // Whether somebody has the operation, or only fenced its session, is told by the store: putting it off
            // fails if the lease is lost, and the next attempt has a session of its own if it is not.
            ErrorKind::Fenced | ErrorKind::Unavailable => Self::Later(err.into()),
            ErrorKind::Cancelled => Self::Cancelled,
            _ => Self::Failed(err.into()),
        }
    }
}

impl From<karbor_vault::Error> for Stop {
    fn from(err: karbor_vault::Error) -> Self {
        karbor_plugin::Error::from(err).into()
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}
