//! Identity by Keystone v3: tokens are validated there, and the answers kept for a short while.
//!
//! A kept answer is found by the hash of its token, never by the token; it is kept no longer than the token lives
//! and than the settings say, which is how long a revocation may take to be heeded. Several requests with one new
//! token ask Keystone once.
//!
//! A service that acts for a user sends its own token beside the user's. If it has one of the roles of services, the
//! user's may have expired, for as long as Keystone allows: what was begun with a token can be ended with it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use karbor_actions::{Access, Clock, Principal};
use karbor_types::{ProjectId, UserId};
use moka::Expiry;
use moka::future::Cache;
use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::RwLock;

use crate::identity::{Identity, IdentityError};

/// How to reach Keystone, and as whom: the `[keystone]` table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct KeystoneConfig {
    /// Its address, with or without `/v3`.
    pub auth_url: String,
    /// The address that clients are told, where it is another one.
    #[serde(default)]
    pub public_auth_url: Option<String>,
    /// The service's user.
    pub username: String,
    /// Its password.
    pub password: SecretString,
    /// The domain of the user.
    #[serde(default = "default_domain")]
    pub user_domain_name: String,
    /// The project in which the service's user may validate tokens.
    #[serde(default = "default_project")]
    pub project_name: String,
    /// The domain of that project.
    #[serde(default = "default_domain")]
    pub project_domain_name: String,
    /// The roles by which services are known: with a token of one of them beside it, a token that has expired is taken for
    /// as long as Keystone's `allow_expired_window` says.
    #[serde(default = "default_service_roles")]
    pub service_token_roles: Vec<String>,
    /// For how long an answer is kept, in seconds.
    #[serde(default = "default_cache_seconds")]
    pub cache_seconds: u64,
    /// How many answers are kept.
    #[serde(default = "default_cache_entries")]
    pub cache_entries: u64,
    /// How long Keystone may take to answer, in seconds.
    #[serde(default = "default_timeout_seconds")]
    pub timeout_seconds: u64,
}

fn default_domain() -> String {
    "Default".to_owned()
}

fn default_project() -> String {
    "service".to_owned()
}

fn default_service_roles() -> Vec<String> {
    vec!["service".to_owned()]
}

const fn default_cache_seconds() -> u64 {
    60
}

const fn default_cache_entries() -> u64 {
    10_000
}

const fn default_timeout_seconds() -> u64 {
    10
}

/// Asks Keystone.
pub struct Keystone {
    config: KeystoneConfig,
    base: String,
    http: reqwest::Client,
    clock: Clock,
    /// The service's own token; empty until it has logged in.
    own: RwLock<Option<SecretString>>,
    kept: Cache<Asked, Answer>,
}

/// What Keystone was asked: about which token, by its hash, and whether it may have expired.
type Asked = (blake3::Hash, Expired);

/// Whether a token may have expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Expired {
    Refused,
    Allowed,
}

/// What Keystone said about a token.
#[derive(Debug, Clone)]
enum Answer {
    Accepted { principal: Arc<Principal>, expires_at: jiff::Timestamp },
    Refused { reason: &'static str },
}

/// Keeps refusals only for a moment: long enough against storms, short enough for a token that was just made.
struct KeptFor {
    accepted: Duration,
}

impl Expiry<Asked, Answer> for KeptFor {
    fn expire_after_create(&self, _: &Asked, answer: &Answer, _: std::time::Instant) -> Option<Duration> {
        Some(match answer {
            Answer::Accepted { .. } => self.accepted,
            Answer::Refused { .. } => self.accepted.min(Duration::from_secs(2)),
        })
    }
}

/// Why Keystone could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeystoneError {
    /// The client could not be set up.
    #[error("setting up the HTTP client for Keystone")]
    Setup(#[source] reqwest::Error),
    /// No answer came.
    #[error("{doing} at Keystone")]
    Call {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        source: reqwest::Error,
    },
    /// The answer was not what it should be.
    #[error("{doing} at Keystone: it answered {status}")]
    Answer {
        /// What was being done.
        doing: &'static str,
        /// What it answered.
        status: StatusCode,
    },
}

#[derive(Deserialize)]
struct TokenDocument {
    token: Token,
}

#[derive(Deserialize)]
struct Token {
    user: Named,
    #[serde(default)]
    project: Option<Named>,
    #[serde(default)]
    domain: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    system: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    roles: Vec<Role>,
    expires_at: jiff::Timestamp,
}

#[derive(Deserialize)]
struct Named {
    id: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    domain: Option<Domain>,
}

#[derive(Deserialize)]
struct Domain {
    #[serde(default)]
    id: Option<String>,
}

#[derive(Deserialize)]
struct Role {
    name: String,
}

impl Keystone {
    /// Makes a client. Keystone is first asked when the first token comes.
    ///
    /// # Errors
    /// [`KeystoneError::Setup`].
    pub fn new(config: KeystoneConfig, clock: Clock) -> Result<Self, KeystoneError> {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(config.timeout_seconds))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(KeystoneError::Setup)?;
        let base = config.auth_url.trim_end_matches('/');
        let base = base.strip_suffix("/v3").unwrap_or(base).to_owned();
        let kept = Cache::builder()
            .max_capacity(config.cache_entries)
            .expire_after(KeptFor { accepted: Duration::from_secs(config.cache_seconds) })
            .build();
        Ok(Self { config, base, http, clock, own: RwLock::new(None), kept })
    }

    /// Asks about a token; logs in again once if our own token has run out.
    async fn validate(&self, token: &str, expired: Expired) -> Result<Answer, KeystoneError> {
        const DOING: &str = "validating a token";
        let allow = match expired {
            Expired::Refused => "",
            Expired::Allowed => "&allow_expired=1",
        };
        let mut own = self.own_token(None).await?;
        for last in [false, true] {
            let response = self
                .http
                .get(format!("{}/v3/auth/tokens?nocatalog{allow}", self.base))
                .header("X-Auth-Token", own.expose_secret())
                .header("X-Subject-Token", token)
                .send()
                .await
                .map_err(|source| KeystoneError::Call { doing: DOING, source: source.without_url() })?;
            match response.status() {
                StatusCode::OK => {
                    let document: TokenDocument = response.json().await.map_err(|source| {
                        KeystoneError::Call { doing: DOING, source: source.without_url() }
                    })?;
                    return Ok(answer(document.token));
                }
                StatusCode::NOT_FOUND => return Ok(Answer::Refused { reason: "the token is not valid" }),
                StatusCode::UNAUTHORIZED if !last => own = self.own_token(Some(&own)).await?,
                status => return Err(KeystoneError::Answer { doing: DOING, status }),
            }
        }
        Err(KeystoneError::Answer { doing: DOING, status: StatusCode::UNAUTHORIZED })
    }

    /// Returns the service's own token, a new one if there is none or `stale` is the one there.
    async fn own_token(&self, stale: Option<&SecretString>) -> Result<SecretString, KeystoneError> {
        const DOING: &str = "logging in";
        let is_stale =
            |token: &SecretString| stale.is_some_and(|stale| stale.expose_secret() == token.expose_secret());
        if let Some(token) = self.own.read().await.as_ref().filter(|token| !is_stale(token)) {
            return Ok(token.clone());
        }
        let mut own = self.own.write().await;
        // Somebody else may have logged in while we waited.
        if let Some(token) = own.as_ref().filter(|token| !is_stale(token)) {
            return Ok(token.clone());
        }
        let config = &self.config;
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": config.username, "password": config.password.expose_secret(),
                "domain": {"name": config.user_domain_name}}}},
            "scope": {"project": {
                "name": config.project_name, "domain": {"name": config.project_domain_name}}},
        }});
        let response = self
            .http
            .post(format!("{}/v3/auth/tokens", self.base))
            .json(&body)
            .send()
            .await
            .map_err(|source| KeystoneError::Call { doing: DOING, source: source.without_url() })?;
        let status = response.status();
        let token = response.headers().get("X-Subject-Token").and_then(|token| token.to_str().ok());
        match token {
            Some(token) if status.is_success() => {
                let token = SecretString::from(token);
                *own = Some(token.clone());
                Ok(token)
            }
            _ => Err(KeystoneError::Answer { doing: DOING, status }),
        }
    }
}

/// Turns what Keystone knows of a token into who it is.
fn answer(token: Token) -> Answer {
    let Some(project) = token.project else {
        let reason = match (token.domain, token.system) {
            (Some(_), _) => "the token is for a domain: this needs one that is for a project",
            (_, Some(_)) => "the token is for the system: this needs one that is for a project",
            _ => "the token is for no project",
        };
        return Answer::Refused { reason };
    };
    let (Ok(user_id), Ok(project_id)) = (UserId::new(token.user.id), ProjectId::new(project.id)) else {
        return Answer::Refused { reason: "the token's user or project has an id that cannot be used here" };
    };
    let roles = token.roles.into_iter().map(|role| role.name);
    let principal = Principal {
        user_name: token.user.name,
        user_domain: token.user.domain.and_then(|domain| domain.id),
        project_name: project.name,
        project_domain: project.domain.and_then(|domain| domain.id),
        ..Principal::new(user_id, project_id, roles)
    };
    Answer::Accepted { principal: Arc::new(principal), expires_at: token.expires_at }
}

impl std::fmt::Debug for Keystone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keystone").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Keystone {
    /// Returns who a token belongs to, by what is known already or by what Keystone says now.
    async fn principal(&self, token: &str, expired: Expired) -> Result<Principal, IdentityError> {
        if token.is_empty() {
            return Err(IdentityError::refused("the token is empty"));
        }
        let key = (blake3::hash(token.as_bytes()), expired);
        let answer = self.kept.try_get_with(key, self.validate(token, expired)).await.map_err(|source| {
            IdentityError::Unavailable { what: "Keystone".to_owned(), source: Box::new(source) }
        })?;
        match answer {
            Answer::Refused { reason } => Err(IdentityError::refused(reason)),
            Answer::Accepted { principal, expires_at } => {
                let is_over = expires_at.as_microsecond() <= (self.clock)().as_micros();
                if is_over && expired == Expired::Refused {
                    return Err(IdentityError::refused("the token has expired"));
                }
                let access = Access::Token(SecretString::from(token));
                Ok(Principal { access, ..principal.as_ref().clone() })
            }
        }
    }
}

#[async_trait]
impl Identity for Keystone {
    async fn authenticate(&self, token: &str) -> Result<Principal, IdentityError> {
        self.principal(token, Expired::Refused).await
    }

    async fn authenticate_beside(&self, token: &str, service: &str) -> Result<Principal, IdentityError> {
        let beside = match self.principal(service, Expired::Refused).await {
            Err(IdentityError::Refused { reason }) => {
                return Err(IdentityError::refused(format!("X-Service-Token: {reason}")));
            }
            beside => beside?,
        };
        let is_service = |role: &String| {
            self.config.service_token_roles.iter().any(|known| known.eq_ignore_ascii_case(role))
        };
        if !beside.roles.iter().any(is_service) {
            return Err(IdentityError::refused(
                "X-Service-Token: the token is of nobody with a service's role",
            ));
        }
        self.principal(token, Expired::Allowed).await
    }

    fn challenge(&self) -> String {
        let url = self.config.public_auth_url.as_ref().unwrap_or(&self.config.auth_url);
        format!("Keystone uri=\"{url}\"")
    }
}
