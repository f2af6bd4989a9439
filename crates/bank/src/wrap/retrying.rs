//! Tries again what failed for now, and finds out whether a put whose reply was lost had its effect.
//!
//! Invariant: a put is reported as refused only if it did not take effect. A create-only put that finds its
//! key taken on a second attempt may have been the one that took it, so what stands there is read and
//! compared. Two callers who race with *the same bytes* may therefore both be told that they won: where it
//! matters who won, the bytes must say who wrote them.

use std::future::Future;
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tracing::debug;

use crate::wrap::random::SplitMix;
use crate::wrap::{Operation, body_bytes};
use crate::{Bank, Body, Capabilities, Error, ErrorKind, Key, Meta, Object, PutMode, Result, Version};

/// How often and how long to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RetryOptions {
    /// How many attempts there are in all.
    pub attempts: NonZeroU32,
    /// The longest pause after the first attempt, in milliseconds; it doubles with each further one.
    pub first_delay_ms: u64,
    /// The longest pause of all, in milliseconds.
    pub max_delay_ms: u64,
    /// After how many seconds an attempt counts as failed; zero means never.
    pub attempt_timeout_seconds: u64,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            attempts: NonZeroU32::new(7).expect("seven is not zero"),
            first_delay_ms: 200,
            max_delay_ms: 10_000,
            attempt_timeout_seconds: 300,
        }
    }
}

/// Tries calls to another bank again while that may help.
#[derive(Debug)]
pub struct Retrying {
    inner: Arc<dyn Bank>,
    options: RetryOptions,
    random: SplitMix,
}

impl Retrying {
    /// Wraps `inner`; `seed` decides the jitter and should differ between processes.
    pub fn new(inner: Arc<dyn Bank>, options: RetryOptions, seed: u64) -> Self {
        Self { inner, options, random: SplitMix::new(seed) }
    }

    /// Runs `call` until it does not fail for now, or the attempts are used up.
    async fn retry<T, Fut>(&self, operation: Operation, key: &str, call: impl Fn() -> Fut) -> Result<T>
    where
        Fut: Future<Output = Result<T>> + Send,
    {
        let mut attempt = 1;
        loop {
            match self.attempt(operation, key, call()).await {
                Err(error) if self.may_help(&error, attempt) => self.pause(&error, attempt).await,
                outcome => return outcome,
            }
            attempt += 1;
        }
    }

    async fn attempt<T>(
        &self,
        operation: Operation,
        key: &str,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let seconds = self.options.attempt_timeout_seconds;
        if seconds == 0 {
            return call.await;
        }
        match tokio::time::timeout(Duration::from_secs(seconds), call).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::new(ErrorKind::Unavailable, operation.name(), key)
                .with_source(format!("no reply within {seconds} seconds"))),
        }
    }

    fn may_help(&self, error: &Error, attempt: u32) -> bool {
        error.kind.is_retryable() && attempt < self.options.attempts.get()
    }

    /// Waits between half and the whole of a pause that doubles with every attempt.
    async fn pause(&self, error: &Error, attempt: u32) {
        let doubled = self.options.first_delay_ms.saturating_mul(1 << (attempt - 1).min(32));
        let longest = Duration::from_millis(doubled.min(self.options.max_delay_ms));
        let pause = longest.mul_f64(0.5 + self.random.unit() / 2.0);
        debug!(
            bank.key = %error.key, attempt, cause = ?error.kind,
            "Trying {} {} again in {pause:?}", error.operation, error.key
        );
        tokio::time::sleep(pause).await;
    }

    /// Returns the version that stands under `key` if its bytes are those of `body`.
    async fn standing_if_equal(&self, key: &Key, body: &Body) -> Result<Option<Version>> {
        let found = async {
            if self.head(key).await?.size_bytes != body_bytes(body) {
                return Ok(None);
            }
            self.get(key, None).await.map(Some)
        };
        match found.await {
            Ok(Some(object)) if is_joined(body, &object.bytes) => Ok(Some(object.version)),
            Ok(_) => Ok(None),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Bank for Retrying {
    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<Version> {
        let mut attempt = 1;
        loop {
            let call = self.inner.put(key, body.clone(), mode.clone());
            let error = match self.attempt(Operation::Put, key.as_str(), call).await {
                Ok(version) => return Ok(version),
                Err(error) => error,
            };
            if self.may_help(&error, attempt) {
                self.pause(&error, attempt).await;
                attempt += 1;
                continue;
            }
            // An earlier attempt may have had its effect although it failed.
            let refused = matches!(error.kind, ErrorKind::AlreadyExists | ErrorKind::Precondition);
            if attempt > 1
                && refused
                && let Some(version) = self.standing_if_equal(key, &body).await?
            {
                debug!(bank.key = %key, "Found that an earlier attempt to put {key} had succeeded");
                return Ok(version);
            }
            return Err(error);
        }
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<Object> {
        self.retry(Operation::Get, key.as_str(), || self.inner.get(key, range.clone())).await
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        self.retry(Operation::Head, key.as_str(), || self.inner.head(key)).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.retry(Operation::Delete, key.as_str(), || self.inner.delete(key)).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Meta>> {
        self.retry(Operation::List, prefix, || self.inner.list(prefix, after, limit)).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn name(&self) -> String {
        self.inner.name()
    }
}

fn is_joined(body: &Body, mut bytes: &[u8]) -> bool {
    for piece in body {
        let Some(rest) = bytes.strip_prefix(&piece[..]) else { return false };
        bytes = rest;
    }
    bytes.is_empty()
}
