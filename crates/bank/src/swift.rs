//! Objects in a container of Swift, or in a container for each account.
//!
//! Invariant: a call is tried once; only a token that was refused is replaced. [`crate::wrap::Retrying`] tries again,
//! as it sees every attempt.
//!
//! Swift looks whether an object stands there (`If-None-Match: *`) and stores it afterwards, so that of callers that
//! race more than one may be told that theirs was stored. The driver asks once more who won, which makes that rare and
//! not impossible: it does not claim to decide races ([`Capabilities::create_only`]). Neither do Swift's listings show at
//! once what was put; where they do, the location says so. `docs/bank-drivers.md` tells what follows.

mod location;

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use karbor_openstack_client as openstack;
use karbor_openstack_client::swift::{self, Part, Put, Swift};
use karbor_openstack_client::{Cloud, Login, Session};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::{
    Bank, Body, Capabilities, Error, ErrorKind, Key, Meta, Object, PutMode, Result, Version, cut_range,
};

pub use location::{SwiftLocation, SwiftOptions};

/// Says which put an object comes from.
const PUT_HEADER: &str = "x-object-meta-karbor-put";
/// What the keys of accounts begin with.
const ACCOUNTS: &str = "accounts/";
/// The longest that a driver waits because Swift asked for it.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// Keeps objects in Swift; clones share the connections and the token.
#[derive(Clone)]
pub struct SwiftBank(Arc<Inner>);

struct Inner {
    location: SwiftLocation,
    cloud: Cloud,
    login: Login,
    swift: OnceCell<Swift>,
    /// The containers that are known to be there.
    known: Mutex<HashSet<String>>,
}

impl SwiftBank {
    /// Opens a container. Nothing is sent yet: whether it can be reached shows with the first call.
    ///
    /// # Errors
    /// When the location or the credentials are not complete.
    pub fn open(location: SwiftLocation, options: &SwiftOptions) -> Result<Self> {
        let place = location.to_string();
        let refused = |error: openstack::Error| failed("open", &place, error);
        let profile = options.profile(&location).map_err(refused)?;
        let mut settings = profile.cloud;
        settings.region = location.region.clone().or(settings.region);
        settings.request_timeout = Duration::from_secs(options.request_timeout_seconds.get());
        // Trying again is the wrapper's.
        settings.patience = Duration::ZERO;
        let cloud = Cloud::new(settings).map_err(refused)?;
        let (swift, known) = (OnceCell::new(), Mutex::default());
        Ok(Self(Arc::new(Inner { location, cloud, login: profile.login, swift, known })))
    }

    /// Makes the container if it is not there.
    ///
    /// # Errors
    /// Those of the bank.
    pub async fn create(&self) -> Result<()> {
        let container = &self.0.location.container;
        let swift = self.swift("create", container).await?;
        swift.create_container(container).await.map_err(|error| failed("create", container, error))?;
        self.note(container);
        Ok(())
    }

    /// Returns where the container is.
    pub fn location(&self) -> &SwiftLocation {
        &self.0.location
    }

    async fn swift(&self, operation: &'static str, key: &str) -> Result<&Swift> {
        let open = || async {
            let session = Session::open(&self.0.cloud, self.0.login.clone()).await?;
            Swift::new(&session)
        };
        self.0.swift.get_or_try_init(open).await.map_err(|error| failed(operation, key, error))
    }

    fn note(&self, container: &str) {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner).insert(container.to_owned());
    }

    fn is_known(&self, container: &str) -> bool {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner).contains(container)
    }

    /// Returns the container in which a key stands.
    fn container(&self, key: &str) -> String {
        let base = &self.0.location.container;
        let account =
            key.strip_prefix(ACCOUNTS).and_then(|rest| rest.split_once('/')).map(|(account, _)| account);
        match account {
            Some(account) if self.0.location.per_account => format!("{base}-{account}"),
            _ => base.clone(),
        }
    }

    /// Returns what a key, or the start of one, is called in its container.
    fn name(&self, start: &str) -> String {
        match self.0.location.prefix.as_str() {
            "" => start.to_owned(),
            prefix => format!("{prefix}/{start}"),
        }
    }

    /// Returns the key of an object; foreign ones have none.
    fn key(&self, name: &str) -> Option<Key> {
        let within = match self.0.location.prefix.as_str() {
            "" => name,
            prefix => name.strip_prefix(prefix)?.strip_prefix('/')?,
        };
        Key::new(within).ok()
    }

    /// Fails if the container is not there, which is something else than an object that is not there.
    async fn require(
        &self,
        swift: &Swift,
        operation: &'static str,
        key: &str,
        container: &str,
    ) -> Result<()> {
        if self.is_known(container) || *container != self.0.location.container {
            return Ok(());
        }
        if swift.has_container(container).await.map_err(|error| failed(operation, key, error))? {
            self.note(container);
            return Ok(());
        }
        let why = format!("there is no container {container}: make it, or let `karbor bank init` do so");
        Err(Error::new(ErrorKind::Other, operation, key).with_source(why))
    }

    async fn put_once(
        &self,
        swift: &Swift,
        container: &str,
        key: &Key,
        body: &Body,
        put: Put,
    ) -> openstack::Result<Version> {
        let name = self.name(key.as_str());
        let mark = Uuid::new_v4().to_string();
        let answer = swift.put(container, &name, body, put, &[(PUT_HEADER, &mark)]).await?;
        let version = e_tag(answer.header("etag"));
        let is_accepted_only = answer.status == openstack::StatusCode::ACCEPTED;
        if put == Put::Overwrite && !is_accepted_only {
            return Ok(version);
        }
        let standing = swift.head(container, &name).await?;
        if standing.header(PUT_HEADER) == Some(mark.as_str()) || put == Put::Overwrite {
            return Ok(e_tag(standing.header("etag")));
        }
        let reason = "somebody else has stored it";
        Err(openstack::Error::new(openstack::ErrorKind::Conflict, "object-store", "PUT", reason))
    }

    async fn list_in(
        &self,
        swift: &Swift,
        container: &str,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Meta>> {
        let full = self.name(prefix);
        let mut marker = after.map(|after| self.name(after.as_str())).unwrap_or_default();
        let mut found = Vec::new();
        while found.len() < limit {
            let asked = (limit - found.len()).min(swift::LISTING_MAX);
            let part = Part { prefix: &full, marker: &marker, limit: asked };
            let page = match swift.list(container, &part).await {
                Ok(page) => page,
                // The container of an account that has nothing yet.
                Err(error) if error.is_not_found() && *container != self.0.location.container => break,
                Err(error) => return Err(pausing("list", prefix, error).await),
            };
            let Some(last) = page.last() else { break };
            marker.clone_from(&last.name);
            let is_last = page.len() < asked;
            for entry in page {
                // Foreign objects are passed over.
                let Some(key) = self.key(&entry.name) else { continue };
                found.push(Meta { key, size_bytes: entry.bytes, version: Some(Version(entry.hash)) });
            }
            if is_last {
                break;
            }
        }
        Ok(found)
    }

    /// Returns the containers of accounts whose keys may begin with `prefix`, in the order of those keys.
    async fn account_containers(&self, swift: &Swift, prefix: &str) -> Result<Vec<String>> {
        let start = format!("{}-", self.0.location.container);
        let mut accounts = Vec::new();
        let mut marker = String::new();
        loop {
            let part = Part { prefix: &start, marker: &marker, limit: swift::LISTING_MAX };
            let page = match swift.list_containers(&part).await {
                Ok(page) => page,
                Err(error) => return Err(pausing("list", prefix, error).await),
            };
            let Some(last) = page.last() else { break };
            marker.clone_from(last);
            accounts.extend(page.iter().filter_map(|name| name.strip_prefix(&start)).map(str::to_owned));
        }
        let begins = |account: &String| {
            let keys = format!("{ACCOUNTS}{account}/");
            keys.starts_with(prefix) || prefix.starts_with(&keys)
        };
        accounts.retain(begins);
        accounts.sort_by_key(|account| format!("{account}/"));
        Ok(accounts.into_iter().map(|account| format!("{start}{account}")).collect())
    }
}

#[async_trait]
impl Bank for SwiftBank {
    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<Version> {
        let put = match mode {
            PutMode::Create => Put::Create,
            PutMode::Overwrite => Put::Overwrite,
            PutMode::Swap(_) => {
                let why = "Swift stores nothing under the condition that a version stands there";
                return Err(Error::new(ErrorKind::Unsupported, "put", key.as_str()).with_source(why));
            }
        };
        let swift = self.swift("put", key.as_str()).await?;
        let container = self.container(key.as_str());
        self.require(swift, "put", key.as_str(), &container).await?;
        let mut stored = self.put_once(swift, &container, key, &body, put).await;
        let is_container_missing = |error: &openstack::Error| error.is_not_found();
        if stored.as_ref().is_err_and(is_container_missing) && container != self.0.location.container {
            let made = swift.create_container(&container).await;
            made.map_err(|error| failed("put", key.as_str(), error))?;
            stored = self.put_once(swift, &container, key, &body, put).await;
        }
        match stored {
            Ok(version) => Ok(version),
            Err(error) if error.kind() == openstack::ErrorKind::Conflict && put == Put::Create => {
                Err(Error::new(ErrorKind::AlreadyExists, "put", key.as_str()).with_source(error))
            }
            // Nothing that can be put is missing: the container is.
            Err(error) if error.is_not_found() => {
                Err(Error::new(ErrorKind::Other, "put", key.as_str()).with_source(error))
            }
            Err(error) => Err(pausing("put", key.as_str(), error).await),
        }
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<Object> {
        let swift = self.swift("get", key.as_str()).await?;
        let container = self.container(key.as_str());
        self.require(swift, "get", key.as_str(), &container).await?;
        let bounds = range.clone().map(|range| (range.start, range.end));
        if bounds.is_some_and(|(start, end)| start >= end) {
            let meta = self.head(key).await?;
            let version = meta.version.unwrap_or_else(|| Version(String::new()));
            return Ok(Object { bytes: bytes::Bytes::new(), size_bytes: meta.size_bytes, version });
        }
        let name = self.name(key.as_str());
        let read = async {
            let download = swift.get(&container, &name, bounds).await?;
            let size_bytes = swift::size_of(&download.headers, "GET")?;
            let version = e_tag(download.headers.get("etag").and_then(|value| value.to_str().ok()));
            Ok(Object { bytes: Swift::collect(download).await?, size_bytes, version })
        };
        let object = match read.await {
            Ok(object) => object,
            Err(error) if is_outside(&error) => {
                let meta = self.head(key).await?;
                let version = meta.version.unwrap_or_else(|| Version(String::new()));
                return Ok(Object { bytes: bytes::Bytes::new(), size_bytes: meta.size_bytes, version });
            }
            Err(error) => return Err(pausing("get", key.as_str(), error).await),
        };
        let wanted = cut_range(range, object.size_bytes);
        if object.bytes.len() as u64 != wanted.end - wanted.start {
            let why = format!("{} bytes came of {}", object.bytes.len(), wanted.end - wanted.start);
            return Err(Error::new(ErrorKind::Unavailable, "get", key.as_str()).with_source(why));
        }
        Ok(object)
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        let swift = self.swift("head", key.as_str()).await?;
        let container = self.container(key.as_str());
        self.require(swift, "head", key.as_str(), &container).await?;
        let asked = async {
            let answer = swift.head(&container, &self.name(key.as_str())).await?;
            let size_bytes = swift::size_of(&answer.headers, "HEAD")?;
            Ok(Meta { key: key.clone(), size_bytes, version: Some(e_tag(answer.header("etag"))) })
        };
        match asked.await {
            Ok(meta) => Ok(meta),
            Err(error) => Err(pausing("head", key.as_str(), error).await),
        }
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let swift = self.swift("delete", key.as_str()).await?;
        let container = self.container(key.as_str());
        self.require(swift, "delete", key.as_str(), &container).await?;
        match swift.delete(&container, &self.name(key.as_str())).await {
            Ok(_) => Ok(()),
            Err(error) => Err(pausing("delete", key.as_str(), error).await),
        }
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Meta>> {
        let swift = self.swift("list", prefix).await?;
        let base = self.0.location.container.clone();
        self.require(swift, "list", prefix, &base).await?;
        let own = self.container(prefix);
        if own != base {
            return self.list_in(swift, &own, prefix, after, limit).await;
        }
        let mut found = self.list_in(swift, &base, prefix, after, limit).await?;
        let has_accounts = prefix.starts_with(ACCOUNTS) || ACCOUNTS.starts_with(prefix);
        if self.0.location.per_account && has_accounts {
            let mut of_accounts = Vec::new();
            for container in self.account_containers(swift, prefix).await? {
                if of_accounts.len() >= limit {
                    break;
                }
                let room = limit - of_accounts.len();
                of_accounts.extend(self.list_in(swift, &container, prefix, after, room).await?);
            }
            found.extend(of_accounts);
            found.sort_by(|one, two| one.key.cmp(&two.key));
            found.truncate(limit);
        }
        Ok(found)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            create_only: false,
            compare_and_swap: false,
            consistent_listing: self.0.location.consistent_listing,
            ..Capabilities::FULL
        }
    }

    fn name(&self) -> String {
        self.0.location.to_string()
    }
}

impl fmt::Debug for SwiftBank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwiftBank").field("location", &self.0.location).finish_non_exhaustive()
    }
}

/// Returns whether a part was asked for that begins behind the object's end.
fn is_outside(error: &openstack::Error) -> bool {
    error.status() == Some(openstack::StatusCode::RANGE_NOT_SATISFIABLE)
}

/// Swift quotes the ETags of large objects and no others.
fn e_tag(text: Option<&str>) -> Version {
    Version(text.unwrap_or_default().trim_matches('"').to_owned())
}

/// Waits as long as Swift asked for, within reason, before the caller hears that it may try again.
async fn pausing(operation: &'static str, key: &str, error: openstack::Error) -> Error {
    if let Some(pause) = error.asked_pause() {
        tokio::time::sleep(pause.min(LONGEST_PAUSE)).await;
    }
    failed(operation, key, error)
}

fn failed(operation: &'static str, key: &str, error: openstack::Error) -> Error {
    use openstack::ErrorKind as K;
    let status = error.status().map(|status| status.as_u16());
    let kind = match (error.kind(), status) {
        (_, Some(501)) => ErrorKind::Unsupported,
        (K::NotFound, _) => ErrorKind::NotFound,
        (K::Unauthenticated, _) => ErrorKind::Unauthenticated,
        (K::Denied, _) => ErrorKind::Denied,
        (K::QuotaExceeded, _) => ErrorKind::Full,
        // 498 is what Swift answers to too many requests.
        (K::Unavailable | K::Timeout | K::Conflict, _) | (_, Some(498 | 500..=599)) => ErrorKind::Unavailable,
        _ => ErrorKind::Other,
    };
    Error::new(kind, operation, key).with_source(error)
}
