//! Swift: containers and objects.
//!
//! Every call is tried once, but for a refused token: whoever keeps objects there tries again by itself, as only it can
//! tell its own lost success from somebody else's.

use bytes::Bytes;
use futures::TryStreamExt;
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use crate::catalog::ServiceType;
use crate::error::{Error, ErrorKind, Result};
use crate::request::Response;
use crate::service::Service;
use crate::session::Session;
use crate::stream::{Download, Upload};

/// Swift, as one identity sees it: one account of it.
#[derive(Debug, Clone)]
pub struct Swift(Service);

/// When a put is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// If there is such an object already, as far as Swift sees at once.
    Create,
    /// Never.
    Overwrite,
}

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// The MD5 of its bytes, in hexadecimal digits.
    pub hash: String,
}

/// Which part of a listing is wanted.
#[derive(Debug, Clone, Default)]
pub struct Part<'a> {
    /// What the names begin with.
    pub prefix: &'a str,
    /// Behind which name; from the beginning if empty.
    pub marker: &'a str,
    /// How many at most.
    pub limit: usize,
}

#[derive(Deserialize)]
struct Container {
    name: String,
}

/// The most that Swift lists at once, unless it is configured otherwise.
pub const LISTING_MAX: usize = 10_000;

impl Swift {
    /// Returns Swift for a session.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the catalog has none.
    pub fn new(session: &Session) -> Result<Self> {
        session.service(ServiceType::ObjectStore).map(Self)
    }

    /// Makes a container, or finds that it is there.
    ///
    /// # Errors
    /// Those of Swift.
    pub async fn create_container(&self, container: &str) -> Result<()> {
        self.0.request(Method::PUT, Service::path(&[container])).once().send().await.map(drop)
    }

    /// Says whether a container is there.
    ///
    /// # Errors
    /// Those of Swift.
    pub async fn has_container(&self, container: &str) -> Result<bool> {
        match self.0.request(Method::HEAD, Service::path(&[container])).once().send().await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lists the names of containers, in their order.
    ///
    /// # Errors
    /// Those of Swift.
    pub async fn list_containers(&self, part: &Part<'_>) -> Result<Vec<String>> {
        let containers: Vec<Container> = self.list_at(String::new(), part).await?;
        Ok(containers.into_iter().map(|container| container.name).collect())
    }

    /// Lists the objects of a container, in the order of their names.
    ///
    /// # Errors
    /// Those of Swift.
    pub async fn list(&self, container: &str, part: &Part<'_>) -> Result<Vec<Entry>> {
        self.list_at(Service::path(&[container]), part).await
    }

    async fn list_at<T: serde::de::DeserializeOwned>(&self, path: String, part: &Part<'_>) -> Result<Vec<T>> {
        let mut request = self.0.request(Method::GET, path).query("format", "json");
        for (name, value) in [("prefix", part.prefix), ("marker", part.marker)] {
            if !value.is_empty() {
                request = request.query(name, value);
            }
        }
        let answer = request.query("limit", part.limit.min(LISTING_MAX).to_string()).once().send().await?;
        if answer.status == StatusCode::NO_CONTENT { Ok(Vec::new()) } else { answer.json() }
    }

    /// Stores an object, with headers of its own, and returns the answer: 201, or 202 when something newer stands there.
    ///
    /// # Errors
    /// Those of Swift; [`ErrorKind::Conflict`] if there is such an object.
    pub async fn put(
        &self,
        container: &str,
        name: &str,
        pieces: &[Bytes],
        put: Put,
        headers: &[(&str, &str)],
    ) -> Result<Response> {
        let mut request = self.0.request(Method::PUT, path(container, name));
        if put == Put::Create {
            request = request.header("if-none-match", "*");
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.header("content-type", "application/octet-stream");
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        let upload = || {
            let pieces: Vec<_> = pieces.iter().filter(|piece| !piece.is_empty()).cloned().map(Ok).collect();
            Upload::of_length(length, futures::stream::iter(pieces))
        };
        request.once().upload(upload).await
    }

    /// Reads an object, or the bytes from `start` up to, not including, `end`.
    ///
    /// # Errors
    /// Those of Swift.
    pub async fn get(&self, container: &str, name: &str, range: Option<(u64, u64)>) -> Result<Download> {
        let mut request = self.0.request(Method::GET, path(container, name));
        if let Some((start, end)) = range {
            request = request.header("range", &format!("bytes={start}-{}", end.saturating_sub(1)));
        }
        request.once().download().await
    }

    /// Reads all bytes of an answer.
    ///
    /// # Errors
    /// When it breaks off.
    pub async fn collect(mut download: Download) -> Result<Bytes> {
        let Some(first) = download.try_next().await? else { return Ok(Bytes::new()) };
        let Some(second) = download.try_next().await? else { return Ok(first) };
        let expected = usize::try_from(download.length.unwrap_or_default()).unwrap_or_default();
        let mut bytes = Vec::with_capacity(expected.min(1 << 30));
        bytes.extend_from_slice(&first);
        bytes.extend_from_slice(&second);
        while let Some(piece) = download.try_next().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.into())
    }

    /// Asks about an object, the newest copy of it.
    ///
    /// # Errors
    /// Those of Swift.
    pub async fn head(&self, container: &str, name: &str) -> Result<Response> {
        self.0.request(Method::HEAD, path(container, name)).header("x-newest", "true").once().send().await
    }

    /// Removes an object, and says whether it was there.
    ///
    /// # Errors
    /// Those of Swift.
    pub async fn delete(&self, container: &str, name: &str) -> Result<bool> {
        match self.0.request(Method::DELETE, path(container, name)).once().send().await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a container that is empty, and says whether it was there.
    ///
    /// # Errors
    /// Those of Swift; [`ErrorKind::Conflict`] if it is not empty.
    pub async fn delete_container(&self, container: &str) -> Result<bool> {
        self.0.delete(Service::path(&[container])).await
    }
}

/// Returns a size that a header tells.
///
/// # Errors
/// [`ErrorKind::Other`] if it does not.
pub fn size_of(headers: &crate::header::HeaderMap, doing: &str) -> Result<u64> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let whole = text("content-range").and_then(|range| range.rsplit_once('/')).map(|(_, size)| size);
    whole.or_else(|| text("content-length")).and_then(|size| size.parse().ok()).ok_or_else(|| {
        let service = ServiceType::ObjectStore.name();
        Error::new(ErrorKind::Other, service, doing, "the answer does not tell the object's size")
    })
}

/// Slashes in a name stay: they are part of the path.
fn path(container: &str, name: &str) -> String {
    let segments: Vec<&str> = std::iter::once(container).chain(name.split('/')).collect();
    Service::path(&segments)
}
