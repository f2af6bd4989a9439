//! Identity: from a token to who asks.

pub mod keystone;
pub mod local;
pub mod noauth;

use std::fmt;

use async_trait::async_trait;
use axum::http::HeaderMap;
use karbor_actions::Principal;

/// Why a token did not lead to anybody.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The token is not accepted; the reason is for the client and tells nothing that it does not know.
    #[error("{reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// Whoever knows the tokens cannot be asked now.
    #[error("asking {what} about a token")]
    Unavailable {
        /// Who was asked.
        what: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl IdentityError {
    pub(crate) fn refused(reason: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into() }
    }
}

/// What a client is given that came without a token, where nobody is identified at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The token to use.
    pub token: String,
    /// The project to use.
    pub project: String,
}

/// Knows who a token belongs to.
///
/// Contract: a token that is not known, was revoked, has expired, or is for no project is refused; only what keeps
/// the answer from being known is unavailable. Tokens are never logged.
#[async_trait]
pub trait Identity: fmt::Debug + Send + Sync {
    /// Returns who the token belongs to.
    ///
    /// # Errors
    /// [`IdentityError`].
    async fn authenticate(&self, token: &str) -> Result<Principal, IdentityError>;

    /// Returns who the token belongs to, when a service acts for them: with its own token beside, theirs may have expired
    /// a while ago. Where services have no tokens, theirs says nothing.
    ///
    /// # Errors
    /// [`IdentityError`].
    async fn authenticate_beside(&self, token: &str, service: &str) -> Result<Principal, IdentityError> {
        let _ = service;
        self.authenticate(token).await
    }

    /// Returns what the header `WWW-Authenticate` says to those who are refused.
    fn challenge(&self) -> String;

    /// Returns what a client without a token is given instead of a refusal; nothing, as a rule.
    fn welcome(&self, headers: &HeaderMap) -> Option<Welcome> {
        let _ = headers;
        None
    }
}
