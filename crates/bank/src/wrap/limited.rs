//! Limits bandwidth and the number of calls at once.

use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::wrap::body_bytes;
use crate::{Bank, Body, Capabilities, Key, Meta, Object, PutMode, Result, Version};

/// How much may go to and from a bank.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LimitOptions {
    /// Bytes a second, puts and gets together. Nothing means as many as there can be.
    pub bytes_per_second: Option<NonZeroU64>,
    /// Calls at once. Nothing means any number.
    pub concurrency: Option<NonZeroUsize>,
}

/// Slows calls to another bank down.
///
/// A put waits before it is sent, a get waits after it was received, as its size is known only then. Callers
/// are served in the order in which they come.
#[derive(Debug)]
pub struct Limited {
    inner: Arc<dyn Bank>,
    slots: Option<Semaphore>,
    pacer: Option<Pacer>,
}

impl Limited {
    /// Wraps `inner`.
    pub fn new(inner: Arc<dyn Bank>, options: LimitOptions) -> Self {
        let slots = options.concurrency.map(|slots| Semaphore::new(slots.get().min(Semaphore::MAX_PERMITS)));
        let pacer = options.bytes_per_second.map(Pacer::new);
        Self { inner, slots, pacer }
    }

    async fn slot(&self) -> Option<SemaphorePermit<'_>> {
        let slots = self.slots.as_ref()?;
        Some(slots.acquire().await.expect("the semaphore is never closed"))
    }

    async fn pay(&self, bytes: u64) {
        if let Some(pacer) = &self.pacer {
            pacer.pay(bytes).await;
        }
    }
}

#[async_trait]
impl Bank for Limited {
    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<Version> {
        // Who waits for bandwidth does not hold a slot.
        self.pay(body_bytes(&body)).await;
        let _slot = self.slot().await;
        self.inner.put(key, body, mode).await
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<Object> {
        let slot = self.slot().await;
        let object = self.inner.get(key, range).await;
        drop(slot);
        if let Ok(object) = &object {
            self.pay(object.bytes.len() as u64).await;
        }
        object
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        let _slot = self.slot().await;
        self.inner.head(key).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let _slot = self.slot().await;
        self.inner.delete(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Meta>> {
        let _slot = self.slot().await;
        self.inner.list(prefix, after, limit).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn name(&self) -> String {
        self.inner.name()
    }
}

/// Gives each payer the stretch of time that its bytes take, one after the other.
#[derive(Debug)]
struct Pacer {
    bytes_per_second: NonZeroU64,
    /// Until when the time is given away.
    taken_until: Mutex<Option<Instant>>,
}

impl Pacer {
    /// How far ahead of its time a payer may go, so that small objects do not sleep each on its own.
    const BURST: Duration = Duration::from_millis(50);

    fn new(bytes_per_second: NonZeroU64) -> Self {
        Self { bytes_per_second, taken_until: Mutex::new(None) }
    }

    async fn pay(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.get());
        let length = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let now = Instant::now();
        let until = {
            let mut taken_until = self.taken_until.lock().unwrap_or_else(PoisonError::into_inner);
            let from = taken_until.map_or(now, |taken| taken.max(now));
            // A rate of a byte a second and an object of exabytes must not overflow the clock.
            let until = from.checked_add(length).unwrap_or(from);
            *taken_until = Some(until);
            until
        };
        if let Some(wake) = until.checked_sub(Self::BURST)
            && wake > now
        {
            tokio::time::sleep_until(wake).await;
        }
    }
}
