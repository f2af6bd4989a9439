//! Keystone: trusts, and who is who.

use serde::Deserialize;
use serde_json::json;

use crate::catalog::ServiceType;
use crate::error::{Error, ErrorKind, Result};
use crate::service::Service;
use crate::session::Session;

/// Keystone, as one identity sees it.
#[derive(Debug, Clone)]
pub struct Keystone(Service);

/// A trust: what one user lets another do in its place.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Trust {
    /// Its id.
    pub id: String,
    /// Who gave it.
    pub trustor_user_id: String,
    /// To whom.
    pub trustee_user_id: String,
    /// In which project.
    pub project_id: Option<String>,
    /// Until when; for ever if nothing is said.
    #[serde(default)]
    pub expires_at: Option<String>,
}

#[derive(Deserialize)]
struct TrustDocument {
    trust: Trust,
}

impl Keystone {
    /// Returns Keystone for a session.
    ///
    /// # Errors
    /// None in practice: a session came from there.
    pub fn new(session: &Session) -> Result<Self> {
        session.service(ServiceType::Identity).map(Self)
    }

    /// Lets another user do in our place what we may do in our project, until that second (of the Unix epoch) or until
    /// the trust is deleted.
    ///
    /// # Errors
    /// Those of Keystone: [`crate::ErrorKind::Denied`] if the session is itself by a trust, or by an application
    /// credential that is restricted.
    pub async fn create_trust(&self, trustee_user_id: &str, expires_at: i64) -> Result<Trust> {
        let session = self.0.session();
        let identity = session.identity();
        let roles: Vec<_> = identity.roles.iter().map(|name| json!({"name": name})).collect();
        let expires_at = jiff::Timestamp::from_second(expires_at).map_err(|_| {
            let reason = "no trust can end at that time";
            Error::new(ErrorKind::Invalid, "identity", "POST /OS-TRUST/trusts", reason)
        })?;
        let body = json!({"trust": {
            "trustor_user_id": identity.user_id,
            "trustee_user_id": trustee_user_id,
            "project_id": session.project_id()?,
            "impersonation": true,
            "roles": roles,
            "expires_at": format!("{expires_at:.6}"),
        }});
        let document: TrustDocument = self.0.post("/OS-TRUST/trusts", &body).await?;
        Ok(document.trust)
    }

    /// Lists the trusts that were given to a user.
    ///
    /// # Errors
    /// Those of Keystone.
    pub async fn trusts_given_to(&self, trustee_user_id: &str) -> Result<Vec<Trust>> {
        self.0.pages("/OS-TRUST/trusts", &[("trustee_user_id", trustee_user_id)], "trusts").all().await
    }

    /// Deletes a trust, and says whether there was one. Only who gave it may do that, also by the trust itself.
    ///
    /// # Errors
    /// Those of Keystone.
    pub async fn delete_trust(&self, id: &str) -> Result<bool> {
        self.0.delete(Service::path(&["OS-TRUST", "trusts", id])).await
    }
}
