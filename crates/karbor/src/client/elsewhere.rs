//! Credentials of another project or site, for restores.

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Map, Value, json};

/// The variable with the password, which would be seen by everybody on the command line.
const PASSWORD: &str = "KARBOR_RESTORE_PASSWORD";

/// As whom a restore is done, where it goes to another project or site.
#[derive(Debug, Args)]
pub(crate) struct Elsewhere {
    /// Restore as this user of the other project; the password is read from KARBOR_RESTORE_PASSWORD
    #[arg(long, value_name = "USER")]
    as_user: Option<String>,
    /// The other project, by name or id; that user's default one when left out
    #[arg(long, value_name = "PROJECT", requires = "as_user")]
    into_project: Option<String>,
    /// The domain of user and project; `Default` when left out
    #[arg(long, value_name = "DOMAIN", requires = "as_user")]
    as_domain: Option<String>,
}

impl Elsewhere {
    /// Returns `restore_auth` as the API takes it; nothing for a restore in the own project.
    pub(crate) fn auth(&self) -> Result<Option<Value>> {
        let Some(user) = &self.as_user else { return Ok(None) };
        let password = std::env::var(PASSWORD).with_context(|| {
            format!("the password of {user} is needed: put it into the variable {PASSWORD}")
        })?;
        let mut auth = json!({"type": "password", "username": user, "password": password});
        if let Some(project) = &self.into_project {
            auth["project_name"] = json!(project);
        }
        if let Some(domain) = &self.as_domain {
            auth["user_domain_name"] = json!(domain);
            auth["project_domain_name"] = json!(domain);
        }
        Ok(Some(auth))
    }

    /// Returns an object whose only member, if any, is `restore_auth`.
    pub(crate) fn body(&self) -> Result<Map<String, Value>> {
        Ok(self.auth()?.map(|auth| ("restore_auth".to_owned(), auth)).into_iter().collect())
    }
}
