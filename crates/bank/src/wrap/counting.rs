//! Counts calls and bytes.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use crate::wrap::{Operation, body_bytes};
use crate::{Bank, Body, Capabilities, Key, Meta, Object, PutMode, Result, Version};

/// Counts what goes through to another bank.
#[derive(Debug)]
pub struct Counting {
    inner: Arc<dyn Bank>,
    counters: [Counters; Operation::ALL.len()],
}

/// What went through so far, or between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    by_operation: [OperationStats; Operation::ALL.len()],
}

/// What one kind of call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OperationStats {
    /// Calls that returned, well or with an error.
    pub calls: u64,
    /// Those of them that returned an error.
    pub failures: u64,
    /// Bytes that successful puts and gets moved.
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct Counters {
    calls: AtomicU64,
    failures: AtomicU64,
    bytes: AtomicU64,
}

impl Counting {
    /// Wraps `inner`; all counts are zero.
    pub fn new(inner: Arc<dyn Bank>) -> Self {
        Self { inner, counters: Default::default() }
    }

    /// Returns what was counted so far.
    pub fn stats(&self) -> Stats {
        let read = |counters: &Counters| OperationStats {
            calls: counters.calls.load(Ordering::Relaxed),
            failures: counters.failures.load(Ordering::Relaxed),
            bytes: counters.bytes.load(Ordering::Relaxed),
        };
        Stats { by_operation: self.counters.each_ref().map(read) }
    }

    fn count<T>(&self, operation: Operation, outcome: Result<T>, bytes: impl Fn(&T) -> u64) -> Result<T> {
        let counters = &self.counters[operation as usize];
        counters.calls.fetch_add(1, Ordering::Relaxed);
        match &outcome {
            Ok(value) => counters.bytes.fetch_add(bytes(value), Ordering::Relaxed),
            Err(_) => counters.failures.fetch_add(1, Ordering::Relaxed),
        };
        outcome
    }
}

impl Stats {
    /// Returns what calls of one kind did.
    pub fn of(&self, operation: Operation) -> OperationStats {
        self.by_operation[operation as usize]
    }

    /// Returns how many calls of all kinds there were.
    pub fn calls(&self) -> u64 {
        self.by_operation.iter().map(|stats| stats.calls).sum()
    }

    /// Returns what came since an earlier look.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut by_operation = self.by_operation;
        for (now, then) in by_operation.iter_mut().zip(&earlier.by_operation) {
            now.calls = now.calls.saturating_sub(then.calls);
            now.failures = now.failures.saturating_sub(then.failures);
            now.bytes = now.bytes.saturating_sub(then.bytes);
        }
        Self { by_operation }
    }
}

#[async_trait]
impl Bank for Counting {
    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<Version> {
        let bytes = body_bytes(&body);
        self.count(Operation::Put, self.inner.put(key, body, mode).await, |_| bytes)
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<Object> {
        let bytes = |object: &Object| object.bytes.len() as u64;
        self.count(Operation::Get, self.inner.get(key, range).await, bytes)
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        self.count(Operation::Head, self.inner.head(key).await, |_| 0)
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.count(Operation::Delete, self.inner.delete(key).await, |()| 0)
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Meta>> {
        self.count(Operation::List, self.inner.list(prefix, after, limit).await, |_| 0)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn name(&self) -> String {
        self.inner.name()
    }
}
