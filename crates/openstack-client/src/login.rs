//! Who logs in, and into what.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

/// Names a domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Domain {
    /// By its id.
    Id(String),
    /// By its name.
    Name(String),
}

impl Default for Domain {
    fn default() -> Self {
        Self::Id("default".to_owned())
    }
}

/// Names a user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum User {
    /// By its id.
    Id(String),
    /// By its name in a domain.
    Name(String, Domain),
}

/// Names a project.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Project {
    /// By its id.
    Id(String),
    /// By its name in a domain.
    Name(String, Domain),
}

/// How to become who we are.
#[derive(Clone)]
#[non_exhaustive]
pub enum Login {
    /// By a user's password; without a project, in the user's default one.
    Password {
        /// The user.
        user: User,
        /// Its password.
        password: SecretString,
        /// The project to work in.
        project: Option<Project>,
    },
    /// By a token that somebody else made. It is used as it is and cannot be renewed.
    Token(SecretString),
    /// By an application credential, which brings its project.
    ApplicationCredential {
        /// The credential's id.
        id: String,
        /// Its secret.
        secret: SecretString,
    },
    /// By an application credential that is named and not numbered.
    NamedApplicationCredential {
        /// Whose it is.
        user: User,
        /// Its name.
        name: String,
        /// Its secret.
        secret: SecretString,
    },
    /// By a trust that somebody gave to the user: as that other one, in the project of the trust.
    Trust {
        /// The trustee.
        user: User,
        /// The trustee's password.
        password: SecretString,
        /// The trust's id.
        trust_id: String,
    },
}

impl Login {
    /// Returns how the same user logs in by a trust that was given to it; nothing where there is no password, as
    /// neither tokens nor application credentials can be used for that.
    pub fn for_trust(&self, trust_id: impl Into<String>) -> Option<Self> {
        let (Self::Password { user, password, .. } | Self::Trust { user, password, .. }) = self else {
            return None;
        };
        Some(Self::Trust { user: user.clone(), password: password.clone(), trust_id: trust_id.into() })
    }

    /// Returns the body of the request for a token; nothing for a token that is there already.
    pub(crate) fn request(&self) -> Option<Value> {
        let auth = match self {
            Self::Token(_) => return None,
            Self::Password { user, password, project } => {
                let mut auth = json!({"identity": with_password(user, password)});
                if let Some(project) = project {
                    auth["scope"] = json!({"project": project.document()});
                }
                auth
            }
            Self::Trust { user, password, trust_id } => json!({
                "identity": with_password(user, password),
                "scope": {"OS-TRUST:trust": {"id": trust_id}},
            }),
            Self::ApplicationCredential { id, secret } => json!({"identity": {
                "methods": ["application_credential"],
                "application_credential": {"id": id, "secret": secret.expose_secret()},
            }}),
            Self::NamedApplicationCredential { user, name, secret } => json!({"identity": {
                "methods": ["application_credential"],
                "application_credential": {
                    "name": name, "user": user.document(), "secret": secret.expose_secret()},
            }}),
        };
        Some(json!({"auth": auth}))
    }
}

fn with_password(user: &User, password: &SecretString) -> Value {
    let mut user = user.document();
    user["password"] = json!(password.expose_secret());
    json!({"methods": ["password"], "password": {"user": user}})
}

impl Domain {
    fn document(&self) -> Value {
        match self {
            Self::Id(id) => json!({"id": id}),
            Self::Name(name) => json!({"name": name}),
        }
    }
}

impl User {
    fn document(&self) -> Value {
        match self {
            Self::Id(id) => json!({"id": id}),
            Self::Name(name, domain) => json!({"name": name, "domain": domain.document()}),
        }
    }
}

impl Project {
    fn document(&self) -> Value {
        match self {
            Self::Id(id) => json!({"id": id}),
            Self::Name(name, domain) => json!({"name": name, "domain": domain.document()}),
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, project, .. } => f
                .debug_struct("Password")
                .field("user", user)
                .field("project", project)
                .finish_non_exhaustive(),
            Self::Token(_) => f.write_str("Token([REDACTED])"),
            Self::ApplicationCredential { id, .. } => {
                f.debug_struct("ApplicationCredential").field("id", id).finish_non_exhaustive()
            }
            Self::NamedApplicationCredential { user, name, .. } => f
                .debug_struct("NamedApplicationCredential")
                .field("user", user)
                .field("name", name)
                .finish_non_exhaustive(),
            Self::Trust { user, trust_id, .. } => f
                .debug_struct("Trust")
                .field("user", user)
                .field("trust_id", trust_id)
                .finish_non_exhaustive(),
        }
    }
}
