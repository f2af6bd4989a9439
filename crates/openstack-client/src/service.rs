//! One service of a cloud, as one identity sees it.

use std::sync::Arc;

use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::catalog::ServiceType;
use crate::error::Result;
use crate::page::Pages;
use crate::request::Request;
use crate::session::Session;

/// One service of a cloud, as one identity sees it. Cheap to clone.
///
/// Paths begin with a slash and follow the service's version: `/volumes/detail`, `/servers/{id}/action`. What comes
/// from outside goes into a path by [`Service::path`].
#[derive(Debug, Clone)]
pub struct Service {
    session: Session,
    kind: ServiceType,
    endpoint: Arc<str>,
    microversion: Option<Arc<str>>,
}

impl Service {
    pub(crate) fn new(session: Session, kind: ServiceType, endpoint: String) -> Self {
        Self { session, kind, endpoint: endpoint.into(), microversion: None }
    }

    /// Returns the service with another microversion for each call: `"2.90"`.
    #[must_use]
    pub fn at_microversion(&self, version: &str) -> Self {
        Self { microversion: Some(version.into()), ..self.clone() }
    }

    /// Joins segments to a path; what they hold cannot lead out of them.
    pub fn path(segments: &[&str]) -> String {
        let mut path = String::new();
        for segment in segments {
            path.push('/');
            for byte in segment.bytes() {
                match byte {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                        path.push(char::from(byte));
                    }
                    _ => path.push_str(&format!("%{byte:02X}")),
                }
            }
        }
        path
    }

    /// Returns which service it is.
    pub fn kind(&self) -> ServiceType {
        self.kind
    }

    /// Returns its address, up to its version, without a slash at the end.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns whose it is.
    pub fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn microversion(&self) -> Option<&str> {
        self.microversion.as_deref()
    }

    /// Begins a call.
    pub fn request(&self, method: Method, path: impl Into<String>) -> Request {
        Request::new(self.clone(), method, path.into())
    }

    /// Reads a thing.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn get<T: DeserializeOwned>(&self, path: impl Into<String>) -> Result<T> {
        self.request(Method::GET, path).read().await
    }

    /// Makes a thing, or starts an action. Read what does not matter as [`crate::Ignored`].
    ///
    /// # Errors
    /// Those of the service.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: impl Into<String>,
        body: &impl Serialize,
    ) -> Result<T> {
        self.request(Method::POST, path).json(body).read().await
    }

    /// Replaces a thing.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: impl Into<String>,
        body: &impl Serialize,
    ) -> Result<T> {
        self.request(Method::PUT, path).json(body).read().await
    }

    /// Changes a thing.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn patch<T: DeserializeOwned>(
        &self,
        path: impl Into<String>,
        body: &impl Serialize,
    ) -> Result<T> {
        self.request(Method::PATCH, path).json(body).read().await
    }

    /// Removes a thing, and says whether it was there.
    ///
    /// # Errors
    /// Those of the service, except that there is no such thing.
    pub async fn delete(&self, path: impl Into<String>) -> Result<bool> {
        match self.request(Method::DELETE, path).send().await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lists a collection in pages: `collection` is the member of the answers that holds the things.
    pub fn pages<T: DeserializeOwned>(
        &self,
        path: impl Into<String>,
        query: &[(&str, &str)],
        collection: &'static str,
    ) -> Pages<T> {
        Pages::new(self.clone(), path.into(), query, collection)
    }
}
