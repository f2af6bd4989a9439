//! One identity in one project and region of a cloud, and the token that proves it.
//!
//! A token is renewed some time before it expires, and once when a service refuses it. Many calls that find it stale
//! at once log in once. As long as the old token still holds, a Keystone that cannot be reached does no harm.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::catalog::{Catalog, ServiceType};
use crate::cloud::Cloud;
use crate::error::{Error, ErrorKind, Result};
use crate::login::Login;
use crate::request::{Failure, refused, unanswered};
use crate::retry::{self, Attempts};
use crate::service::Service;

/// A token is renewed when this share of its life is left, but not earlier than [`MARGIN_MAX`] before its end.
const MARGIN_SHARE: u32 = 4;
const MARGIN_MAX: Duration = Duration::from_secs(300);
/// How long a token that could not be renewed, and still holds, is used before that is tried again.
const RENEWAL_PAUSE: Duration = Duration::from_secs(15);
/// For how long a call is tried again when somebody waits for the answer.
const ATTENDED_PATIENCE: Duration = Duration::from_secs(10);

/// One identity in one project and region of a cloud. Cheap to clone.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    cloud: Cloud,
    login: Login,
    patience: Duration,
    identity: Identity,
    current: RwLock<Arc<Token>>,
    renewing: Mutex<Option<Instant>>,
}

/// A token, and what came with it.
pub(crate) struct Token {
    pub(crate) secret: SecretString,
    /// When it is renewed, and when it ends; `None` for a token whose times are somebody else's matter.
    life: Option<(Instant, Instant)>,
    catalog: Catalog,
}

/// Who a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user's id: under a trust, the one who gave it.
    pub user_id: String,
    /// The user's name.
    pub user_name: Option<String>,
    /// The id of the project; none if the token is for no project.
    pub project_id: Option<String>,
    /// The names of the roles in that project.
    pub roles: Vec<String>,
    /// The id of the trust, if it is by one.
    pub trust_id: Option<String>,
}

#[derive(Deserialize)]
struct Envelope {
    token: Document,
}

#[derive(Deserialize)]
struct Document {
    user: Named,
    #[serde(default)]
    project: Option<Named>,
    #[serde(default)]
    roles: Vec<Named>,
    #[serde(default)]
    catalog: Catalog,
    #[serde(rename = "OS-TRUST:trust", default)]
    trust: Option<Named>,
    issued_at: jiff::Timestamp,
    expires_at: jiff::Timestamp,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    id: String,
    #[serde(default)]
    name: Option<String>,
}

impl Session {
    /// Logs in.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`] if the credentials are not accepted; [`ErrorKind::Revoked`] if the trust is gone;
    /// or Keystone cannot be asked.
    pub async fn open(cloud: &Cloud, login: Login) -> Result<Self> {
        let patience = match login {
            Login::Token(_) => cloud.settings().patience.min(ATTENDED_PATIENCE),
            _ => cloud.settings().patience,
        };
        let (token, identity) = log_in(cloud, &login, patience).await?;
        Ok(Self(Arc::new(Inner {
            cloud: cloud.clone(),
            login,
            patience,
            identity,
            current: RwLock::new(Arc::new(token)),
            renewing: Mutex::new(None),
        })))
    }

    /// Returns who this is.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// Returns the id of the project, for calls that name it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the session is in none.
    pub fn project_id(&self) -> Result<&str> {
        self.0.identity.project_id.as_deref().ok_or_else(|| {
            let reason = "the credentials are for no project: name one";
            Error::new(ErrorKind::Invalid, "identity", "looking at the token", reason)
        })
    }

    /// Returns the cloud.
    pub fn cloud(&self) -> &Cloud {
        &self.0.cloud
    }

    /// Returns whether the service exists in this cloud and region.
    pub fn has(&self, service: ServiceType) -> bool {
        self.endpoint(service).is_some()
    }

    /// Returns a service of this cloud and region.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the catalog has none.
    pub fn service(&self, service: ServiceType) -> Result<Service> {
        let Some(endpoint) = self.endpoint(service) else {
            let settings = self.0.cloud.settings();
            let region = settings.region.as_deref().unwrap_or("any");
            let interface = settings.interface.name();
            let reason =
                format!("the catalog has no `{service}` for interface {interface} and region {region}");
            return Err(Error::new(ErrorKind::Invalid, service.name(), "looking at the catalog", reason));
        };
        Ok(Service::new(self.clone(), service, endpoint))
    }

    fn endpoint(&self, service: ServiceType) -> Option<String> {
        let settings = self.0.cloud.settings();
        if let Some(url) = settings.endpoints.get(service.name()) {
            return crate::catalog::complete(service, url);
        }
        let found = self.current().catalog.endpoint(service, settings.region.as_deref(), settings.interface);
        // Keystone itself need not stand in the catalog: it has just been asked.
        found.or_else(|| (service == ServiceType::Identity).then(|| self.0.cloud.identity().to_owned()))
    }

    pub(crate) fn patience(&self) -> Duration {
        self.0.patience
    }

    fn current(&self) -> Arc<Token> {
        self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns a token that holds for a while yet.
    pub(crate) async fn token(&self) -> Result<Arc<Token>> {
        let token = self.current();
        match token.life {
            Some((renew_at, _)) if renew_at <= Instant::now() => self.renewed(&token).await,
            _ => Ok(token),
        }
    }

    /// Returns another token than `stale`, which has run out or was refused.
    pub(crate) async fn replaced(&self, stale: &Arc<Token>, refusal: Error) -> Result<Arc<Token>> {
        if matches!(self.0.login, Login::Token(_)) {
            return Err(refusal);
        }
        let _renewing = self.0.renewing.lock().await;
        let current = self.current();
        if !Arc::ptr_eq(&current, stale) {
            return Ok(current);
        }
        self.log_in_again(self.0.patience).await
    }

    async fn renewed(&self, stale: &Arc<Token>) -> Result<Arc<Token>> {
        let mut postponed = self.0.renewing.lock().await;
        let current = self.current();
        let now = Instant::now();
        let holds = stale.life.is_none_or(|(_, end)| now < end);
        if !Arc::ptr_eq(&current, stale) || (holds && postponed.is_some_and(|until| now < until)) {
            return Ok(current);
        }
        if !holds {
            return self.log_in_again(self.0.patience).await;
        }
        match self.log_in_again(Duration::ZERO).await {
            Ok(token) => Ok(token),
            Err(error) => {
                let user = &self.0.identity.user_id;
                tracing::warn!(%error, user.id = user, "The token of user {user} could not be renewed yet: {error}");
                *postponed = Some(now + RENEWAL_PAUSE);
                Ok(current)
            }
        }
    }

    async fn log_in_again(&self, patience: Duration) -> Result<Arc<Token>> {
        let (token, _) = log_in(&self.0.cloud, &self.0.login, patience).await?;
        let token = Arc::new(token);
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = token.clone();
        Ok(token)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { cloud, login, identity, .. } = &*self.0;
        f.debug_struct("Session")
            .field("cloud", cloud)
            .field("login", login)
            .field("identity", identity)
            .finish_non_exhaustive()
    }
}

const DOING: &str = "logging in";

/// Gets a token, or learns what a given one is for.
async fn log_in(cloud: &Cloud, login: &Login, patience: Duration) -> Result<(Token, Identity)> {
    let mut attempts = Attempts::within(patience);
    loop {
        let started = Instant::now();
        match log_in_once(cloud, login).await {
            Ok((secret, document)) => return Ok(understood(secret, document, started, login)),
            Err(Failure::Final(error) | Failure::Stale(error)) => {
                let is_revoked =
                    error.kind() == ErrorKind::Unauthenticated && is_known_without_trust(cloud, login).await;
                let error = if is_revoked { error.with_kind(ErrorKind::Revoked) } else { error };
                return Err(as_login(login, error));
            }
            Err(Failure::Again { error, asked }) => {
                if !attempts.pause(asked).await {
                    return Err(as_login(login, error));
                }
            }
        }
    }
}

/// Returns whether a user who was not let in by a trust is let in without it. Keystone answers alike where the trust is
/// gone and where the password is wrong.
async fn is_known_without_trust(cloud: &Cloud, login: &Login) -> bool {
    let Login::Trust { user, password, .. } = login else { return false };
    let own = Login::Password { user: user.clone(), password: password.clone(), project: None };
    log_in_once(cloud, &own).await.is_ok()
}

async fn log_in_once(cloud: &Cloud, login: &Login) -> Result<(SecretString, Document), Failure> {
    let service = ServiceType::Identity.name();
    let _permit = cloud.lanes(ServiceType::Identity).calls.clone().acquire_owned().await;
    let url = format!("{}/auth/tokens", cloud.identity());
    let (method, request) = match (login, login.request()) {
        (_, Some(body)) => (Method::POST, cloud.http().post(url).json(&body)),
        (Login::Token(token), _) => {
            let request = cloud.http().get(url).header("x-auth-token", token.expose_secret());
            (Method::GET, request.header("x-subject-token", token.expose_secret()))
        }
        (_, None) => unreachable!("only a token needs no request"),
    };
    let request = request.timeout(cloud.settings().request_timeout);
    let response = request.send().await.map_err(|error| unanswered(service, DOING, true, error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.bytes().await.map_err(|error| unanswered(service, DOING, true, error))?;
    if !status.is_success() {
        let error = refused(service, DOING, status, &headers, &body);
        // Making one token more is harmless.
        if retry::may_help(&method, true, status) || status == StatusCode::INTERNAL_SERVER_ERROR {
            return Err(Failure::Again { error, asked: retry::asked_pause(&headers) });
        }
        return Err(Failure::Final(error));
    }
    let strange = |reason: &str| {
        Failure::Final(Error::new(ErrorKind::Other, service, DOING, reason).with_status(status, None))
    };
    let secret = match login {
        Login::Token(token) => token.clone(),
        _ => {
            let token = headers.get("x-subject-token").and_then(|token| token.to_str().ok());
            token.map(SecretString::from).ok_or_else(|| strange("the answer has no token"))?
        }
    };
    // The cause is left out: it could show a part of the answer.
    let document: Envelope = serde_json::from_slice(&body)
        .map_err(|_| strange("the answer does not tell what the token is for"))?;
    Ok((secret, document.token))
}

/// Turns a failure into one of logging in: what is not found there is a user, a project or a trust of ours, never what
/// the caller asked for.
fn as_login(login: &Login, error: Error) -> Error {
    match error.kind() {
        // Our own user and password are never missing: they are not accepted.
        ErrorKind::NotFound | ErrorKind::Denied if matches!(login, Login::Trust { .. }) => {
            error.with_kind(ErrorKind::Revoked)
        }
        ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Conflict => {
            error.with_kind(ErrorKind::Unauthenticated)
        }
        _ => error,
    }
}

fn understood(
    secret: SecretString,
    document: Document,
    started: Instant,
    login: &Login,
) -> (Token, Identity) {
    // Keystone's own clock on both sides: ours need not agree with it.
    let life = Duration::try_from(document.expires_at - document.issued_at).unwrap_or_default();
    let life = match login {
        Login::Token(_) => None,
        _ => Some((started + life - (life / MARGIN_SHARE).min(MARGIN_MAX), started + life)),
    };
    let identity = Identity {
        user_id: document.user.id,
        user_name: document.user.name,
        project_id: document.project.map(|project| project.id),
        roles: document.roles.into_iter().filter_map(|role| role.name).collect(),
        trust_id: document.trust.map(|trust| trust.id),
    };
    (Token { secret, life, catalog: document.catalog }, identity)
}
