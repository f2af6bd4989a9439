//! No identity: whoever says `user:project` is that user, an administrator.
//!
//! For tests and trials only; it must be asked for by name.

use async_trait::async_trait;
use axum::http::HeaderMap;
use karbor_actions::Principal;
use karbor_types::{ProjectId, UserId};

use crate::identity::{Identity, IdentityError, Welcome};

/// Believes everybody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoAuth;

#[async_trait]
impl Identity for NoAuth {
    async fn authenticate(&self, token: &str) -> Result<Principal, IdentityError> {
        let (user, project) = token.split_once(':').unwrap_or((token, token));
        let refuse = |err: karbor_types::InvalidId| IdentityError::refused(err.to_string());
        let user = UserId::new(user).map_err(refuse)?;
        let project = ProjectId::new(project).map_err(refuse)?;
        Ok(Principal { is_admin: true, ..Principal::new(user, project, ["admin".to_owned()]) })
    }

    fn challenge(&self) -> String {
        "Token realm=\"karbor\"".to_owned()
    }

    fn welcome(&self, headers: &HeaderMap) -> Option<Welcome> {
        let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("admin");
        let (user, project) = (value("x-auth-user"), value("x-auth-project-id"));
        Some(Welcome { token: format!("{user}:{project}"), project: project.to_owned() })
    }
}
