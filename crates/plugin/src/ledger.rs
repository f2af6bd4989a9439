//! The ledger: what an operation makes outside the bank, told before it is made.
//!
//! Invariant: an entry is durable when [`Ledger::intend`] returns, and only then the effect is begun. So after a
//! crash every effect has an entry; an entry may have no effect, which cleaning up finds out by looking.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, ErrorKind, Result};

/// Names one entry of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LedgerId(pub i64);

/// What an entry's thing is for, which decides when it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Needed only on the way (a snapshot, a stopped service): it is gone when the operation ends, however it
    /// ends.
    Scaffold,
    /// What the operation is for (a restored volume): it stays, unless the operation is undone.
    Product,
}

/// How far an entry has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerState {
    /// It is about to be made; whether it was must be looked up.
    Intended,
    /// It was made.
    Created,
    /// It is gone.
    Removed,
}

/// What is about to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// What kind of thing, in the plugin's words, such as `snapshot`.
    pub kind: String,
    /// By what it is found again: a path, a name, a tag.
    pub reference: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Anything else that cleaning up needs.
    pub data: Value,
}

/// An entry of a ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// Its name.
    pub id: LedgerId,
    /// What kind of thing, in the plugin's words.
    pub kind: String,
    /// By what it is found again.
    pub reference: String,
    /// What it is for.
    pub purpose: Purpose,
    /// How far it has come.
    pub state: LedgerState,
    /// Anything else that cleaning up needs.
    pub data: Value,
}

impl LedgerEntry {
    /// Returns whether there is, or may be, something to clean up.
    pub fn is_open(&self) -> bool {
        self.state != LedgerState::Removed
    }
}

/// The ledger of one resource in one operation, over all attempts of it.
///
/// Contract: an answer means that it is durable. A stale worker's call fails with
/// [`ErrorKind::Fenced`].
#[async_trait]
pub trait Ledger: fmt::Debug + Send + Sync {
    /// Tells what is about to be made. The same kind and reference a second time answers the same entry, which
    /// is then intended again if it had been removed.
    async fn intend(&self, intent: Intent) -> Result<LedgerId>;

    /// Tells that it was made, and by what it is found from now on.
    async fn created(&self, id: LedgerId, reference: &str) -> Result<()>;

    /// Tells that it is gone.
    async fn removed(&self, id: LedgerId) -> Result<()>;

    /// Returns all entries, oldest first.
    async fn entries(&self) -> Result<Vec<LedgerEntry>>;
}

/// A ledger in memory: for tests, and for what runs without a database.
#[derive(Debug, Default)]
pub struct MemoryLedger {
    entries: Mutex<Vec<LedgerEntry>>,
}

impl MemoryLedger {
    fn lock(&self) -> MutexGuard<'_, Vec<LedgerEntry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, id: LedgerId, change: impl FnOnce(&mut LedgerEntry)) -> Result<()> {
        let mut entries = self.lock();
        let entry = entries
            .iter_mut()
            .find(|entry| entry.id == id)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("the ledger has no entry {}", id.0)))?;
        change(entry);
        Ok(())
    }
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn intend(&self, intent: Intent) -> Result<LedgerId> {
        let mut entries = self.lock();
        let Intent { kind, reference, purpose, data } = intent;
        let known = entries.iter_mut().find(|entry| entry.kind == kind && entry.reference == reference);
        if let Some(entry) = known {
            if entry.state == LedgerState::Removed {
                entry.state = LedgerState::Intended;
            }
            (entry.purpose, entry.data) = (purpose, data);
            return Ok(entry.id);
        }
        let id = LedgerId(i64::try_from(entries.len()).unwrap_or(i64::MAX));
        entries.push(LedgerEntry { id, kind, reference, purpose, state: LedgerState::Intended, data });
        Ok(id)
    }

    async fn created(&self, id: LedgerId, reference: &str) -> Result<()> {
        self.change(id, |entry| {
            entry.state = LedgerState::Created;
            reference.clone_into(&mut entry.reference);
        })
    }

    async fn removed(&self, id: LedgerId) -> Result<()> {
        self.change(id, |entry| entry.state = LedgerState::Removed)
    }

    async fn entries(&self) -> Result<Vec<LedgerEntry>> {
        Ok(self.lock().clone())
    }
}
