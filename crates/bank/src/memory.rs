//! Objects in memory, for tests and for trying things out.
//!
//! Invariant: it is the model of the contract. One lock makes every call atomic, each put gets a version of
//! its own, and the map's order is the order of listings; what another driver does differently is its fault.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Bank, Body, Capabilities, Error, ErrorKind, Key, Meta, Object, PutMode, Result, Version};

/// Keeps objects in memory; clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryBank {
    objects: Arc<Mutex<Objects>>,
}

#[derive(Debug, Clone, Default)]
struct Objects {
    by_key: BTreeMap<Key, Stored>,
    puts: u64,
}

#[derive(Debug, Clone)]
struct Stored {
    bytes: Bytes,
    version: u64,
}

impl MemoryBank {
    /// Creates an empty bank.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a bank of its own with the objects that stand here now: what a copy of the disk would hold.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self { objects: Arc::new(Mutex::new(self.lock().clone())) }
    }

    /// Returns all keys with their bytes, in key order.
    pub fn contents(&self) -> Vec<(Key, Bytes)> {
        self.lock().by_key.iter().map(|(key, stored)| (key.clone(), stored.bytes.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Objects> {
        // Nothing is called with the lock held that could leave the map half changed.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stored {
    fn version(&self) -> Version {
        Version(format!("m{:x}", self.version))
    }

    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}

#[async_trait]
impl Bank for MemoryBank {
    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<Version> {
        let bytes = crate::join(body);
        let mut objects = self.lock();
        let standing = objects.by_key.get(key);
        let refused = match &mode {
            PutMode::Create => standing.is_some().then_some(ErrorKind::AlreadyExists),
            PutMode::Swap(expected) => {
                let stands = standing.is_some_and(|stored| stored.version() == *expected);
                (!stands).then_some(ErrorKind::Precondition)
            }
            PutMode::Overwrite => None,
        };
        if let Some(kind) = refused {
            return Err(Error::new(kind, "put", key.as_str()));
        }
        objects.puts += 1;
        let stored = Stored { bytes, version: objects.puts };
        let version = stored.version();
        objects.by_key.insert(key.clone(), stored);
        Ok(version)
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<Object> {
        let stored = self.lock().by_key.get(key).cloned();
        let stored = stored.ok_or_else(|| Error::new(ErrorKind::NotFound, "get", key.as_str()))?;
        let cut = crate::cut_range(range, stored.size_bytes());
        let at = |offset: u64| usize::try_from(offset).expect("it lies inside an object that is in memory");
        Ok(Object {
            bytes: stored.bytes.slice(at(cut.start)..at(cut.end)),
            size_bytes: stored.size_bytes(),
            version: stored.version(),
        })
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        let objects = self.lock();
        let stored =
            objects.by_key.get(key).ok_or_else(|| Error::new(ErrorKind::NotFound, "head", key.as_str()))?;
        Ok(Meta { key: key.clone(), size_bytes: stored.size_bytes(), version: Some(stored.version()) })
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.lock().by_key.remove(key);
        Ok(())
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Meta>> {
        let objects = self.lock();
        let from = match after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
            _ => Bound::Included(prefix),
        };
        let found = objects.by_key.range::<str, _>((from, Bound::Unbounded));
        let found = found.take_while(|(key, _)| key.as_str().starts_with(prefix)).take(limit);
        let meta = |(key, stored): (&Key, &Stored)| Meta {
            key: key.clone(),
            size_bytes: stored.size_bytes(),
            version: Some(stored.version()),
        };
        Ok(found.map(meta).collect())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::FULL
    }

    fn name(&self) -> String {
        "memory:".to_owned()
    }
}
