//! Rights that outlive a request: what lets an operation act for its caller until it has ended.
//!
//! Invariant: a right is noted before it is made, under the id of the operation or scheduled operation that it is
//! for, and that is queued only after the right is there. Whatever dies in between, the note is left, and whoever
//! compares notes with owners takes the right back.

use std::fmt;
use std::future::Future;

use async_trait::async_trait;
use futures::future::BoxFuture;
use karbor_plugin::{Access, Login};
use karbor_store::{Delegation, DelegationOwner};
use karbor_types::{Instant, OperationId, ProjectId};
use secrecy::SecretString;
use tracing::warn;

use crate::{Actions, BoxError, Caller, Error, Result};

/// For how long the right of one operation holds at most, should nobody take it back.
const OPERATION_SECONDS: i64 = 365 * 86_400;
/// For how long the right of a scheduled operation holds at most.
const SCHEDULED_SECONDS: i64 = 3650 * 86_400;
/// Over how many seconds the ends of rights are spread, so that each is known by its end.
const SPREAD_SECONDS: u128 = 1 << 25;

/// Makes rights that outlive a request, and takes them back.
#[async_trait]
pub trait Delegations: fmt::Debug + Send + Sync {
    /// Lets this service act for whoever has the token, in the token's project, until then. Returns the trust's id.
    ///
    /// # Errors
    /// [`DelegationError`]: whatever the identity service says.
    async fn trust(
        &self,
        token: &SecretString,
        expires_at: Instant,
    ) -> std::result::Result<String, DelegationError>;

    /// Returns whether trusts can be made at all.
    fn gives_trusts(&self) -> bool;

    /// Takes a trust back.
    ///
    /// # Errors
    /// As [`Delegations::trust`].
    async fn revoke(&self, trust: &str) -> std::result::Result<(), DelegationError>;

    /// Writes a login down so that only this service can read it, and only for that operation.
    ///
    /// # Errors
    /// When it cannot be sealed.
    fn seal(&self, operation: OperationId, login: &Login) -> std::result::Result<String, BoxError>;
}

/// Why a right was not made or not taken back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DelegationError {
    /// The identity service refused.
    #[error("{reason}")]
    Refused {
        /// Why, for the caller.
        reason: String,
    },
    /// The identity service does not answer.
    #[error("the identity service does not answer")]
    Unavailable {
        /// The cause.
        source: BoxError,
    },
}

impl Actions {
    /// Makes what lets `owner` act for the caller, then queues it; takes it back if that fails.
    ///
    /// Only who came with a token of an identity service can give a right, and only in the token's own project.
    pub(crate) fn entrusted<'a, T: Send + 'a>(
        &'a self,
        caller: &'a Caller,
        owner: DelegationOwner,
        project: &'a ProjectId,
        login: Option<&'a Login>,
        queue: impl Future<Output = Result<T>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T>> {
        Box::pin(self.entrust(caller, owner, project, login, Box::pin(queue)))
    }

    async fn entrust<T: Send>(
        &self,
        caller: &Caller,
        owner: DelegationOwner,
        project: &ProjectId,
        login: Option<&Login>,
        queue: BoxFuture<'_, Result<T>>,
    ) -> Result<T> {
        let Some(delegations) = &self.parts.delegations else { return queue.await };
        let token = match &caller.access {
            Access::Token(token) if *project == caller.project && delegations.gives_trusts() => Some(token),
            _ => None,
        };
        let sealed = match (login, owner) {
            (Some(login), DelegationOwner::Operation(id)) => Some(
                delegations
                    .seal(id, login)
                    .map_err(|source| Error::Internal { doing: "sealing a login", source })?,
            ),
            _ => None,
        };
        if token.is_none() && sealed.is_none() {
            return queue.await;
        }
        let (id, seconds) = match owner {
            DelegationOwner::Operation(id) => (id.0, OPERATION_SECONDS),
            DelegationOwner::ScheduledOperation(id) => (id.0, SCHEDULED_SECONDS),
        };
        let spread = i64::try_from(id.as_u128() % SPREAD_SECONDS).unwrap_or_default();
        let created_at = self.now();
        let expires_at = created_at.plus_seconds(seconds + spread);
        let note = Delegation {
            owner,
            project: project.clone(),
            user: caller.user.clone(),
            trust: None,
            expires_at,
            sealed,
            created_at,
        };
        match self.store().create_delegation(&note).await {
            Err(karbor_store::Error::AlreadyExists { .. }) => {
                // An operation that is taken up again: its first right is not taken back yet.
                self.take_back(owner).await?;
                self.store().create_delegation(&note).await?;
            }
            created => created?,
        }
        let mut trust = None;
        let queued = async {
            if let Some(token) = token {
                let made = delegations.trust(token, expires_at).await.map_err(refusal)?;
                self.store().set_delegated_trust(owner, trust.insert(made)).await?;
            }
            queue.await
        };
        let queued = queued.await;
        if queued.is_err() {
            self.withdraw(owner, trust.as_deref()).await;
        }
        queued
    }

    /// Takes back what an operation had before it is given another right.
    async fn take_back(&self, owner: DelegationOwner) -> Result<()> {
        let (DelegationOwner::Operation(id), Some(delegations)) = (owner, &self.parts.delegations) else {
            return Ok(());
        };
        let old = self.store().delegation_of(id).await?;
        if let Some(trust) = old.filter(|old| old.owner == owner).and_then(|old| old.trust) {
            delegations.revoke(&trust).await.map_err(refusal)?;
        }
        Ok(self.store().remove_delegation(owner).await?)
    }

    /// Takes a right back now; what fails here is done by whoever compares notes with owners.
    async fn withdraw(&self, owner: DelegationOwner, trust: Option<&str>) {
        let Some(delegations) = &self.parts.delegations else { return };
        // A trust that may have been made without our hearing of it needs its note.
        let Some(trust) = trust else { return };
        if let Err(error) = delegations.revoke(trust).await {
            warn!(%error, "The trust of something that was not queued is taken back later: {error}");
            return;
        }
        if let Err(error) = self.store().remove_delegation(owner).await {
            warn!(%error, "The note of a trust that was taken back is removed later: {error}");
        }
    }
}

fn refusal(error: DelegationError) -> Error {
    match error {
        DelegationError::Refused { reason } => Error::conflict(format!(
            "the identity service does not let you entrust this work to the service: {reason}"
        )),
        unavailable @ DelegationError::Unavailable { .. } => {
            Error::Unavailable { what: "the identity service", source: Box::new(unavailable) }
        }
    }
}
