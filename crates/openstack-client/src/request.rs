//! One call: what is sent, how often, and what came back.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use secrecy::ExposeSecret;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;

use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::retry::{self, Attempts};
use crate::service::Service;
use crate::session::Token;
use crate::stream::{Download, Upload};

/// More than this is not taken for an answer that is read as a whole.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// One call to be made.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent before it is read, sent, downloaded or uploaded"]
pub struct Request {
    service: Service,
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    microversion: Option<String>,
    body: Option<Bytes>,
    is_idempotent: bool,
    /// What could not be put into the call; said when it is made.
    wrong: Option<String>,
}

/// What a service answered.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status, one of success.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    service: &'static str,
    doing: String,
}

/// Why an attempt failed.
pub(crate) enum Failure {
    /// Trying again does not help.
    Final(Error),
    /// Trying again may help, after the pause that the service asked for.
    Again { error: Error, asked: Option<std::time::Duration> },
    /// The token was refused.
    Stale(Error),
}

/// What an attempt takes part of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    Calls,
    Streams,
}

impl Request {
    pub(crate) fn new(service: Service, method: Method, path: String) -> Self {
        let is_idempotent = method.is_idempotent();
        Self {
            service,
            method,
            path,
            query: Vec::new(),
            headers: HeaderMap::new(),
            microversion: None,
            body: None,
            is_idempotent,
            wrong: None,
        }
    }

    /// Adds a parameter.
    pub fn query(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(value)) => {
                self.headers.append(name, value);
            }
            _ => self.wrong = Some(format!("the header {name} cannot have this value")),
        }
        self
    }

    /// Asks for a microversion, in place of the service's.
    pub fn microversion(mut self, version: &str) -> Self {
        self.microversion = Some(version.to_owned());
        self
    }

    /// Sends a document.
    pub fn json(self, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(bytes) => self.body(bytes).header("content-type", "application/json"),
            // Not the cause: it could show a part of the document.
            Err(_) => Self { wrong: Some("the document cannot be written as JSON".to_owned()), ..self },
        }
    }

    /// Sends bytes, which are kept for another attempt.
    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.body = Some(bytes.into());
        self
    }

    /// Says that making this call twice does what making it once does, so that it may be tried again although it may
    /// have had its effect.
    pub fn idempotent(mut self) -> Self {
        self.is_idempotent = true;
        self
    }

    /// Says that this call is tried once, for a caller that tries again by itself.
    pub fn once(mut self) -> Once {
        self.is_idempotent = false;
        Once(self)
    }

    /// Makes the call and reads the answer, an empty one as `null`.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn read<T: DeserializeOwned>(self) -> Result<T> {
        self.send().await?.json()
    }

    /// Makes the call.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn send(self) -> Result<Response> {
        let mut persistence = Persistence::new(&self);
        loop {
            let failure = match self.attempt_whole(&mut persistence).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            persistence.after(failure).await?;
        }
    }

    /// Makes the call and gives the bytes of the answer as they come.
    ///
    /// # Errors
    /// Those of the service, until the first byte has come.
    pub async fn download(self) -> Result<Download> {
        let mut persistence = Persistence::new(&self);
        loop {
            let failure = match self.attempt_download(&mut persistence).await {
                Ok(download) => return Ok(download),
                Err(failure) => failure,
            };
            persistence.after(failure).await?;
        }
    }

    /// Makes the call once, with the bytes as they come.
    ///
    /// # Errors
    /// Those of the service, or of the source of the bytes.
    pub async fn upload(self, upload: Upload) -> Result<Response> {
        let mut persistence = Persistence::impatient(&self);
        self.attempt_upload(&mut persistence, upload).await.map_err(Failure::into_error)
    }

    async fn attempt_upload(
        &self,
        persistence: &mut Persistence<'_>,
        upload: Upload,
    ) -> Result<Response, Failure> {
        let (request, token) = self.prepared(persistence).await.map_err(Failure::Final)?;
        let _permit = self.permit(Lane::Streams).await;
        let doing = self.doing();
        let settings = self.service.session().cloud().settings();
        let silence = settings.stall_timeout.max(settings.request_timeout);
        let sent = upload.send(request, silence, self.service.kind().name(), &doing).await;
        let answered = self.answered(sent.map_err(Failure::Final)?, &token).await?;
        self.whole(answered).await
    }

    async fn attempt_whole(&self, persistence: &mut Persistence<'_>) -> Result<Response, Failure> {
        let (request, token) = self.prepared(persistence).await.map_err(Failure::Final)?;
        let _permit = self.permit(Lane::Calls).await;
        let request = request.timeout(self.service.session().cloud().settings().request_timeout);
        let response = request.send().await.map_err(|error| self.unanswered(error))?;
        let response = self.answered(response, &token).await?;
        self.whole(response).await
    }

    async fn attempt_download(&self, persistence: &mut Persistence<'_>) -> Result<Download, Failure> {
        let (request, token) = self.prepared(persistence).await.map_err(Failure::Final)?;
        let permit = self.permit(Lane::Streams).await;
        let settings = self.service.session().cloud().settings();
        let Ok(sent) = tokio::time::timeout(settings.request_timeout, request.send()).await else {
            let reason = "no answer came in time";
            let error = Error::new(ErrorKind::Timeout, self.service.kind().name(), self.doing(), reason);
            return Err(self.again_or_final(error));
        };
        let response = self.answered(sent.map_err(|error| self.unanswered(error))?, &token).await?;
        let service = self.service.kind().name();
        Ok(Download::new(response, settings.stall_timeout, permit, service, self.doing()))
    }

    /// Takes a place in the queue of the service; there is one as soon as another call has ended.
    async fn permit(&self, lane: Lane) -> Option<OwnedSemaphorePermit> {
        let lanes = self.service.session().cloud().lanes(self.service.kind());
        let semaphore = if lane == Lane::Calls { &lanes.calls } else { &lanes.streams };
        // It fails only when the semaphore is closed, which nobody does.
        semaphore.clone().acquire_owned().await.ok()
    }

    async fn prepared(
        &self,
        persistence: &mut Persistence<'_>,
    ) -> Result<(reqwest::RequestBuilder, Arc<Token>)> {
        let session = self.service.session();
        let url = self.url()?;
        let token = match persistence.replacement.take() {
            Some(token) => token,
            None => session.token().await?,
        };
        let mut headers = self.headers.clone();
        headers.entry("accept").or_insert(HeaderValue::from_static("application/json"));
        let version = self.microversion.as_deref().or(self.service.microversion());
        for (name, value) in
            version.map(|version| self.service.kind().microversion_headers(version)).into_iter().flatten()
        {
            let value = HeaderValue::try_from(value).map_err(|_| {
                self.invalid(format!("`{}` is not a microversion", version.unwrap_or_default()))
            })?;
            headers.insert(name, value);
        }
        let mut secret = HeaderValue::try_from(token.secret.expose_secret())
            .map_err(|_| self.invalid("the token has characters that no token has".to_owned()))?;
        secret.set_sensitive(true);
        headers.insert("x-auth-token", secret);
        let mut request = session.cloud().http().request(self.method.clone(), url).headers(headers);
        if let Some(body) = &self.body {
            request = request.body(body.clone());
        }
        persistence.used = Some(token.clone());
        Ok((request, token))
    }

    fn url(&self) -> Result<reqwest::Url> {
        if let Some(reason) = &self.wrong {
            return Err(self.invalid(reason.clone()));
        }
        let path = self.path.as_str();
        let is_dots = |segment: &str| {
            let plain = segment.replace("%2e", ".").replace("%2E", ".");
            plain == "." || plain == ".."
        };
        let is_strange = path.contains(['?', '#', '\\']) || path.split('/').any(is_dots);
        if is_strange || !(path.is_empty() || path.starts_with('/')) {
            return Err(self.invalid("this is not a path of the service".to_owned()));
        }
        let mut url = reqwest::Url::parse(&format!("{}{path}", self.service.endpoint()))
            .map_err(|_| self.invalid("the service's address and the path give no URL".to_owned()))?;
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        Ok(url)
    }

    /// Takes an answer of success; anything else is a failure.
    async fn answered(
        &self,
        response: reqwest::Response,
        token: &Arc<Token>,
    ) -> Result<reqwest::Response, Failure> {
        let status = response.status();
        let (service, method, path) = (self.service.kind().name(), &self.method, &self.path);
        tracing::debug!(service, %method, path, status = status.as_u16(), "{service} answered {method} {path}: {status}");
        if status.is_success() {
            return Ok(response);
        }
        let headers = response.headers().clone();
        let body = self.bytes(response).await.unwrap_or_default();
        let error = refused(service, self.doing(), status, &headers, &body);
        let error = error.hiding(&token.secret);
        if status == StatusCode::UNAUTHORIZED {
            return Err(Failure::Stale(error));
        }
        if retry::may_help(method, self.is_idempotent, status) {
            return Err(Failure::Again { error, asked: retry::asked_pause(&headers) });
        }
        Err(Failure::Final(error))
    }

    async fn whole(&self, response: reqwest::Response) -> Result<Response, Failure> {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.bytes(response).await?;
        Ok(Response { status, headers, body, service: self.service.kind().name(), doing: self.doing() })
    }

    async fn bytes(&self, mut response: reqwest::Response) -> Result<Bytes, Failure> {
        let mut body = BytesMut::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.unanswered(error))? {
            if body.len() + piece.len() > ANSWER_MAX_BYTES {
                let reason = format!("the answer is longer than {} MiB", ANSWER_MAX_BYTES >> 20);
                let service = self.service.kind().name();
                return Err(Failure::Final(Error::new(ErrorKind::Other, service, self.doing(), reason)));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    fn unanswered(&self, error: reqwest::Error) -> Failure {
        unanswered(self.service.kind().name(), self.doing(), self.is_idempotent, error)
    }

    fn again_or_final(&self, error: Error) -> Failure {
        if self.is_idempotent { Failure::Again { error, asked: None } } else { Failure::Final(error) }
    }

    fn invalid(&self, reason: String) -> Error {
        Error::new(ErrorKind::Invalid, self.service.kind().name(), self.doing(), reason)
    }

    fn doing(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// A call that is tried once; only a refused token is replaced.
#[derive(Debug, Clone)]
pub struct Once(Request);

impl Once {
    /// Makes the call.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn send(self) -> Result<Response> {
        let mut persistence = Persistence::impatient(&self.0);
        loop {
            match self.0.attempt_whole(&mut persistence).await {
                Ok(response) => return Ok(response),
                Err(failure) => persistence.after(failure).await?,
            }
        }
    }

    /// Makes the call and gives the bytes of the answer as they come.
    ///
    /// # Errors
    /// Those of the service, until the first byte has come.
    pub async fn download(self) -> Result<Download> {
        let mut persistence = Persistence::impatient(&self.0);
        loop {
            match self.0.attempt_download(&mut persistence).await {
                Ok(download) => return Ok(download),
                Err(failure) => persistence.after(failure).await?,
            }
        }
    }

    /// Makes the call with bytes that can be had again, should the token be refused.
    ///
    /// # Errors
    /// Those of the service, or of the source of the bytes.
    pub async fn upload(self, bytes: impl Fn() -> Upload + Send + Sync) -> Result<Response> {
        let mut persistence = Persistence::impatient(&self.0);
        loop {
            match self.0.attempt_upload(&mut persistence, bytes()).await {
                Ok(response) => return Ok(response),
                Err(failure) => persistence.after(failure).await?,
            }
        }
    }
}

/// What is remembered between the attempts of one call.
struct Persistence<'a> {
    request: &'a Request,
    attempts: Attempts,
    used: Option<Arc<Token>>,
    replacement: Option<Arc<Token>>,
    was_replaced: bool,
}

impl<'a> Persistence<'a> {
    fn new(request: &'a Request) -> Self {
        Self::within(request, request.service.session().patience())
    }

    fn impatient(request: &'a Request) -> Self {
        Self::within(request, std::time::Duration::ZERO)
    }

    fn within(request: &'a Request, patience: std::time::Duration) -> Self {
        let attempts = Attempts::within(patience);
        Self { request, attempts, used: None, replacement: None, was_replaced: false }
    }

    /// Returns when the call may be tried again, or why it is not.
    async fn after(&mut self, failure: Failure) -> Result<()> {
        match failure {
            Failure::Final(error) => Err(error),
            Failure::Stale(error) if self.was_replaced => Err(error),
            Failure::Stale(error) => {
                self.was_replaced = true;
                let Some(used) = self.used.take() else { return Err(error) };
                self.replacement = Some(self.request.service.session().replaced(&used, error).await?);
                Ok(())
            }
            Failure::Again { error, asked } => {
                if self.attempts.pause(asked).await {
                    tracing::debug!(%error, "Trying again: {error}");
                    return Ok(());
                }
                Err(error)
            }
        }
    }
}

impl Response {
    /// Reads the body, an empty one as `null`.
    ///
    /// # Errors
    /// [`ErrorKind::Other`] if it is not what is expected.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        let body = if self.body.is_empty() { b"null" } else { &self.body[..] };
        serde_json::from_slice(body).map_err(|err| {
            // The place is told, the text there is not: it may be a secret.
            let reason =
                format!("the answer is not what was expected (line {}, column {})", err.line(), err.column());
            Error::new(ErrorKind::Other, self.service, self.doing.clone(), reason)
                .with_status(self.status, None)
        })
    }

    /// Returns a header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Failure {
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Final(error) | Self::Stale(error) | Self::Again { error, asked: _ } => error,
        }
    }
}

/// Turns a refusal into an error.
pub(crate) fn refused(
    service: &str,
    doing: impl Into<String>,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Error {
    let (kind, reason) = fault::read(status, body);
    let id = ["x-openstack-request-id", "x-compute-request-id", "x-trans-id"]
        .iter()
        .find_map(|name| headers.get(*name)?.to_str().ok());
    Error::new(kind, service, doing, reason)
        .with_status(status, id.map(str::to_owned))
        .with_asked_pause(retry::asked_pause(headers))
}

/// Turns a missing answer into a failure.
pub(crate) fn unanswered(
    service: &str,
    doing: impl Into<String>,
    is_idempotent: bool,
    error: reqwest::Error,
) -> Failure {
    let was_not_sent = error.is_connect();
    let (kind, reason) = if error.is_builder() {
        (ErrorKind::Invalid, "the call cannot be written down")
    } else if error.is_timeout() {
        (
            ErrorKind::Timeout,
            if was_not_sent { "no connection was made in time" } else { "no answer came in time" },
        )
    } else if was_not_sent {
        (ErrorKind::Unavailable, "no connection can be made")
    } else {
        (ErrorKind::Unavailable, "the connection broke")
    };
    let error = Error::new(kind, service, doing, reason).with_source(error.without_url());
    let may_help = kind != ErrorKind::Invalid && (is_idempotent || was_not_sent);
    if may_help { Failure::Again { error, asked: None } } else { Failure::Final(error) }
}
