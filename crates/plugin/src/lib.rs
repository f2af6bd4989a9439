//! The contract of protectables and protection plugins, and its conformance kit.
//!
//! A *protectable* says what there is ([`Protectable`]); a *protection plugin* brings it into a checkpoint and
//! back ([`Protection`]); a *provider* ([`Provider`]) is what an administrator makes of them and a bank.
//!
//! Invariant: everything that crosses the contract is plain data and streams, so that the same contract can be
//! spoken with a vendor's process. A plugin keeps nothing in its objects between two calls: what a later hook
//! needs is returned as [`Outcome::state`], is stored durably, and comes back in [`Task::state`], also after a
//! crash and in another process. Every hook may be run again from its start, because the process may die after
//! the hook's effect and before its outcome was stored.
//!
//! What a plugin makes outside the bank (a snapshot, a new volume, a stopped service) is told to the
//! [`Ledger`] *before* it is made, so that it can be found and cleaned up whatever happens.

mod access;
pub mod conformance;
mod error;
pub mod graph;
mod ledger;
pub mod noop;
mod protectable;
mod protection;
mod provider;
mod registry;
pub mod schema;
mod task;

pub use access::{Access, Login};
pub use error::{Error, ErrorKind, Result};
pub use ledger::{Intent, Ledger, LedgerEntry, LedgerId, LedgerState, MemoryLedger, Purpose};
pub use protectable::{Context, InstancePage, Page, Protectable};
pub use protection::{Description, KindDescription, Protection, Schemas};
pub use provider::Provider;
pub use registry::Registry;
pub use task::{
    Child, Finding, IdMap, Mapped, Need, NoProgress, Outcome, PlannedAction, PlannedEffect, Restored,
    Severity, Task, TaskVault,
};

// A plugin needs these beside the contract itself.
pub use karbor_types::{Hook, OperationKind, Resource, ResourceKey, ResourceType};
pub use karbor_vault::ProgressSink;
pub use tokio_util::sync::CancellationToken;
