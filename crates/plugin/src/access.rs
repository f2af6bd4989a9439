//! By what right a plugin reaches the cloud for a project.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// By what right a call reaches what an identity service guards.
///
/// Invariant: it is never serialized, and its `Debug` shows no secret.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Access {
    /// None was given: only what needs no identity service works.
    #[default]
    None,
    /// The caller's own token, while a request is answered.
    Token(SecretString),
    /// A trust that the user gave this service, for work that outlives a token.
    Trust(String),
    /// Credentials that the user named for another project or site.
    Login(Box<Login>),
}

/// Credentials for an identity service, by password.
#[derive(Clone)]
pub struct Login {
    /// The identity service (Keystone v3); `None` for this service's own.
    pub auth_url: Option<String>,
    /// The region; `None` for this service's own.
    pub region: Option<String>,
    /// The user's name.
    pub user: String,
    /// The name of the user's domain.
    pub user_domain: String,
    /// The password.
    pub password: SecretString,
    /// The project's name or id; `None` for the user's default one.
    pub project: Option<String>,
    /// The name of the project's domain.
    pub project_domain: String,
}

impl PartialEq for Access {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Token(one), Self::Token(two)) => one.expose_secret() == two.expose_secret(),
            (Self::Trust(one), Self::Trust(two)) => one == two,
            (Self::Login(one), Self::Login(two)) => one == two,
            _ => false,
        }
    }
}

impl Eq for Access {}

impl PartialEq for Login {
    fn eq(&self, other: &Self) -> bool {
        let key = |login: &Self| {
            let Self { auth_url, region, user, user_domain, password: _, project, project_domain } = login;
            let names = (user.clone(), user_domain.clone(), project.clone(), project_domain.clone());
            (auth_url.clone(), region.clone(), names)
        };
        key(self) == key(other) && self.password.expose_secret() == other.password.expose_secret()
    }
}

impl Eq for Login {}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Token(_) => f.write_str("Token([REDACTED])"),
            Self::Trust(id) => f.debug_tuple("Trust").field(id).finish(),
            Self::Login(login) => f.debug_tuple("Login").field(login).finish(),
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("auth_url", &self.auth_url)
            .field("user", &self.user)
            .field("project", &self.project)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shows_a_secret() {
        let login = Login {
            auth_url: None,
            region: None,
            user: "ann".to_owned(),
            user_domain: "Default".to_owned(),
            password: SecretString::from("open sesame"),
            project: None,
            project_domain: "Default".to_owned(),
        };
        let shown =
            format!("{:?} {:?}", Access::Login(Box::new(login)), Access::Token("gAAAA-secret".into()));
        assert!(shown.contains("ann") && !shown.contains("sesame") && !shown.contains("gAAAA"), "{shown}");
    }
}
