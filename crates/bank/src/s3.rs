//! Objects in a bucket of S3, or of what speaks its language (Ceph, MinIO, Swift's s3api).
//!
//! Invariant: a call is tried once. A client that tries again by itself cannot tell "taken" from "taken by my
//! own first attempt"; [`crate::wrap::Retrying`] can, as it sees every attempt.
//!
//! Create-only and compare-and-swap puts are conditional requests (`If-None-Match: *`, `If-Match`), in one
//! request whatever the size: the store decides, and attaching tries whether it does. Only overwriting puts of
//! large objects go in parts. An upload in parts that was broken off is aborted; if the process dies before,
//! the bucket's lifecycle rule must remove it (see `docs/bank-drivers.md`).

mod failure;
mod settings;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{
    ClientOptions, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutOptions, PutPayload, PutResult,
    RetryConfig, UpdateVersion,
};
use secrecy::ExposeSecret;

pub use settings::{S3Credentials, S3Location, S3Options};

use crate::s3::failure::{Connector, failed, is_outside_object};
use crate::wrap::body_bytes;
use crate::{Bank, Body, Capabilities, Error, ErrorKind, Key, Meta, Object, PutMode, Result, Version};

/// Above this size an overwriting put goes in parts, and this is the size of a part.
const PART_BYTES: usize = 64 << 20;

/// How many parts are under way at once.
const PARTS_AT_ONCE: usize = 4;

/// Above this size signing a request takes long enough to be done where blocking is allowed.
const SIGNED_INLINE_BYTES: u64 = 1 << 20;

/// The most keys that S3 returns at once.
const PAGE_KEYS: usize = 1000;

/// Keeps objects in a bucket; clones share the connections.
#[derive(Clone)]
pub struct S3Bank {
    store: Arc<AmazonS3>,
    location: Arc<S3Location>,
}

impl S3Bank {
    /// Opens a bucket. Nothing is sent yet: whether it can be reached shows with the first call.
    ///
    /// # Errors
    /// When the location or the credentials are not complete.
    pub fn open(location: S3Location, options: &S3Options) -> Result<Self> {
        let location = location.or_defaults(options);
        let store =
            build(&location, options).map_err(|error| failed("open", &location.to_string(), error))?;
        Ok(Self { store: Arc::new(store), location: Arc::new(location) })
    }

    /// Returns where the bucket is.
    pub fn location(&self) -> &S3Location {
        &self.location
    }

    fn path(&self, operation: &'static str, key: &Key) -> Result<Path> {
        let full = self.full_prefix(key.as_str());
        Path::parse(full).map_err(|error| failed(operation, key.as_str(), error.into()))
    }

    /// Returns what a key, or the start of one, is in the bucket.
    fn full_prefix(&self, start: &str) -> String {
        match self.location.prefix.as_str() {
            "" => start.to_owned(),
            prefix => format!("{prefix}/{start}"),
        }
    }

    /// Returns the key of a path in the bucket; foreign objects have none.
    fn key(&self, path: &Path) -> Option<Key> {
        let within = match self.location.prefix.as_str() {
            "" => path.as_ref(),
            prefix => path.as_ref().strip_prefix(prefix)?.strip_prefix('/')?,
        };
        Key::new(within).ok()
    }

    async fn put_in_parts(&self, path: &Path, body: Body) -> object_store::Result<PutResult> {
        let mut upload = self.store.put_multipart(path).await?;
        let mut parts = cut_into_parts(body, PART_BYTES).into_iter();
        let outcome = loop {
            let batch: Vec<_> =
                parts.by_ref().take(PARTS_AT_ONCE).map(|part| upload.put_part(part)).collect();
            if batch.is_empty() {
                break upload.complete().await;
            }
            if let Err(error) = futures::future::try_join_all(batch).await {
                break Err(error);
            }
        };
        if outcome.is_err()
            && let Err(error) = upload.abort().await
        {
            tracing::warn!(%error, "Parts of {path} were uploaded in vain and could not be removed: {error}");
        }
        outcome
    }

    async fn put_at_once(&self, path: Path, body: Body, mode: &PutMode) -> object_store::Result<PutResult> {
        let size_bytes = body_bytes(&body);
        let payload = PutPayload::from_iter(body);
        let mode = match mode {
            PutMode::Create => object_store::PutMode::Create,
            PutMode::Overwrite => object_store::PutMode::Overwrite,
            PutMode::Swap(version) => {
                let e_tag = Some(version.0.clone());
                object_store::PutMode::Update(UpdateVersion { e_tag, version: None })
            }
        };
        let options = PutOptions { mode, ..PutOptions::default() };
        if size_bytes <= SIGNED_INLINE_BYTES {
            return self.store.put_opts(&path, payload, options).await;
        }
        // The whole body is hashed for the signature before anything is sent.
        let (store, runtime) = (Arc::clone(&self.store), tokio::runtime::Handle::current());
        let put = move || runtime.block_on(async move { store.put_opts(&path, payload, options).await });
        tokio::task::spawn_blocking(put).await?
    }

    async fn get_whole(&self, path: &Path, range: Option<GetRange>) -> object_store::Result<Object> {
        let options = GetOptions { range, ..GetOptions::default() };
        let reply = self.store.get_opts(path, options).await?;
        let (size_bytes, version) = (reply.meta.size, version(reply.meta.e_tag.clone()));
        let bytes = reply.bytes().await?;
        Ok(Object { bytes, size_bytes, version })
    }

    /// Returns no bytes of an object, with what is known of it.
    async fn get_nothing(&self, key: &Key) -> Result<Object> {
        let path = self.path("get", key)?;
        let meta = self.store.head(&path).await.map_err(|error| failed("get", key.as_str(), error))?;
        Ok(Object { bytes: bytes::Bytes::new(), size_bytes: meta.size, version: version(meta.e_tag) })
    }
}

#[async_trait]
impl Bank for S3Bank {
    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<Version> {
        let path = self.path("put", key)?;
        let in_parts = mode == PutMode::Overwrite && body_bytes(&body) > PART_BYTES as u64;
        let put = if in_parts {
            self.put_in_parts(&path, body).await
        } else {
            self.put_at_once(path, body, &mode).await
        };
        match put {
            Ok(put) => Ok(version(put.e_tag)),
            // Whatever the store calls it, it refused the condition that was set.
            Err(error) => {
                let mut error = failed("put", key.as_str(), error);
                error.kind = match (&mode, error.kind) {
                    (PutMode::Create, ErrorKind::Precondition) => ErrorKind::AlreadyExists,
                    (PutMode::Swap(_), ErrorKind::AlreadyExists) => ErrorKind::Precondition,
                    (_, kind) => kind,
                };
                Err(error)
            }
        }
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<Object> {
        // No object reaches so far, and servers do not read larger numbers.
        let range = range.map(|range| range.start..range.end.min(1 << 62));
        if range.as_ref().is_some_and(Range::is_empty) {
            return self.get_nothing(key).await;
        }
        let path = self.path("get", key)?;
        match self.get_whole(&path, range.map(GetRange::Bounded)).await {
            Err(error) if is_outside_object(&error) => self.get_nothing(key).await,
            outcome => outcome.map_err(|error| failed("get", key.as_str(), error)),
        }
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        let path = self.path("head", key)?;
        let meta = self.store.head(&path).await.map_err(|error| failed("head", key.as_str(), error))?;
        Ok(Meta { key: key.clone(), size_bytes: meta.size, version: Some(version(meta.e_tag)) })
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let path = self.path("delete", key)?;
        match self.store.delete(&path).await {
            Ok(()) => Ok(()),
            Err(error) => match failed("delete", key.as_str(), error) {
                error if error.kind == ErrorKind::NotFound => Ok(()),
                error => Err(error),
            },
        }
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Meta>> {
        let full = self.full_prefix(prefix);
        let mut found: Vec<Meta> = Vec::new();
        if !Key::may_start_with(prefix) {
            // Servers differ in what they make of such a prefix.
            return Ok(found);
        }
        let mut page_token = None;
        while found.len() < limit {
            let options = PaginatedListOptions {
                offset: after.map(|after| self.full_prefix(after.as_str())),
                max_keys: Some(PAGE_KEYS.min(limit - found.len())),
                page_token,
                ..PaginatedListOptions::default()
            };
            let page = self.store.list_paginated(Some(&full), options).await;
            let page = page.map_err(|error| failed("list", prefix, error))?;
            for object in page.result.objects {
                let Some(key) = self.key(&object.location) else { continue };
                // Not every store can begin in the middle.
                if after.is_some_and(|after| key <= *after) {
                    continue;
                }
                if found.last().is_some_and(|last| last.key >= key) {
                    return Err(Error::new(ErrorKind::Unsupported, "list", prefix)
                        .with_source(format!("the store does not list in the order of the keys, at {key}")));
                }
                found.push(Meta { key, size_bytes: object.size, version: object.e_tag.map(Version) });
            }
            page_token = page.page_token;
            if page_token.is_none() {
                break;
            }
        }
        Ok(found)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::FULL
    }

    fn name(&self) -> String {
        self.location.to_string()
    }
}

impl fmt::Debug for S3Bank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client's own text may hold credentials.
        f.debug_struct("S3Bank").field("location", &self.location).finish_non_exhaustive()
    }
}

fn build(location: &S3Location, options: &S3Options) -> object_store::Result<AmazonS3> {
    let client = ClientOptions::new()
        .with_timeout(Duration::from_secs(options.request_timeout_seconds.get()))
        .with_connect_timeout(Duration::from_secs(10))
        .with_allow_http(location.is_plain_http());
    let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&location.bucket)
        .with_client_options(client)
        .with_retry(once)
        .with_disable_bulk_delete(true)
        .with_http_connector(Connector::default())
        .with_virtual_hosted_style_request(!location.is_path_style());
    if let Some(region) = &location.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = location.request_endpoint() {
        builder = builder.with_endpoint(endpoint);
    }
    match &options.credentials {
        S3Credentials::Anonymous => builder = builder.with_skip_signature(true),
        S3Credentials::Static { access_key_id, secret_access_key, session_token } => {
            builder = builder
                .with_access_key_id(access_key_id)
                .with_secret_access_key(secret_access_key.expose_secret());
            if let Some(token) = session_token {
                builder = builder.with_token(token.expose_secret());
            }
        }
        S3Credentials::Ambient { settings } => {
            for (name, value) in settings {
                let key: AmazonS3ConfigKey = name.to_ascii_lowercase().parse()?;
                builder = builder.with_config(key, value);
            }
        }
    }
    builder.build()
}

fn version(e_tag: Option<String>) -> Version {
    Version(e_tag.unwrap_or_default())
}

/// Cuts a body into parts of one size, without copying.
fn cut_into_parts(body: Body, part_bytes: usize) -> Vec<PutPayload> {
    let mut parts = Vec::new();
    let (mut part, mut room) = (Vec::new(), part_bytes);
    for mut piece in body {
        while piece.len() >= room {
            part.push(piece.split_to(room));
            parts.push(PutPayload::from_iter(std::mem::take(&mut part)));
            room = part_bytes;
        }
        room -= piece.len();
        part.push(piece);
    }
    if room < part_bytes {
        parts.push(PutPayload::from_iter(part));
    }
    parts
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn parts_have_one_size_and_hold_all() {
        let body = vec![Bytes::from_static(b"abc"), Bytes::new(), Bytes::from_static(b"defghijk")];
        for part_bytes in 1..13 {
            let parts = cut_into_parts(body.clone(), part_bytes);
            let (last, full) = parts.split_last().expect("there is a part");
            assert!(full.iter().all(|part| part.content_length() == part_bytes));
            assert!((1..=part_bytes).contains(&last.content_length()));
            let joined: Vec<u8> = parts.iter().flatten().flatten().copied().collect();
            assert_eq!(joined, b"abcdefghijk");
        }
    }
}
