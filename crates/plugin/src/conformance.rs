//! The kit that every protection plugin runs: what the contract promises, tried on a vault in memory.
//!
//! A plugin's tests make a [`Fixture`] (something that can be protected, lost, restored and looked at) and call
//! [`run`]. A plugin in another process runs the same kit through its host side.
//!
//! What is tried: a protected resource that was lost comes back as it was; the state between hooks survives being
//! written down; every hook may be run twice; a protect may be dropped at any point and begun again; cancelling is heard; a
//! dry run changes nothing; what is given up leaves nothing behind; parameters are held to their schemas; another
//! project sees nothing; data that was damaged in the bank is never taken for whole.

mod bench;
mod checks;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use karbor_types::{Resource, ResourceType};
use serde_json::{Map, Value};

use crate::{Context, Protectable, Protection, Restored};
use bench::Bench;
pub use bench::drop_after;

/// Something that can be protected, lost, restored and looked at, for [`run`].
#[async_trait]
pub trait Fixture: Send + Sync {
    /// Returns the plugin: a new object each time, since nothing may be kept in one.
    fn protection(&self) -> Arc<dyn Protection>;

    /// Returns the protectables, the resource's own among them: new objects each time.
    fn protectables(&self) -> Vec<Arc<dyn Protectable>>;

    /// Returns the project that has the resource.
    fn context(&self) -> Context;

    /// Returns a project that has nothing.
    fn stranger(&self) -> Context;

    /// Returns the resource, as its protectable shows it.
    fn resource(&self) -> Resource;

    /// Returns parameters for protect.
    fn options(&self) -> Map<String, Value> {
        Map::new()
    }

    /// Returns parameters for a restore of what was lost.
    fn restore_parameters(&self) -> Map<String, Value>;

    /// Returns the parameters with which verify reads everything.
    fn verify_parameters(&self) -> Map<String, Value> {
        Map::new()
    }

    /// Returns whether the plugin stores data in the bank, and not records only.
    fn stores_data(&self) -> bool {
        true
    }

    /// Makes the resource what it was at the beginning, and removes what was restored and anything left over.
    async fn reset(&self);

    /// Loses the resource.
    async fn lose(&self);

    /// Compares what was restored with what the resource was at the beginning.
    async fn check(&self, restored: &Restored) -> std::result::Result<(), String>;

    /// Describes everything outside the bank that the plugin can change: two texts differ if anything does.
    async fn fingerprint(&self) -> String;
}

/// A promise that a plugin does not keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was tried.
    pub check: String,
    /// What came of it.
    pub reason: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.reason)
    }
}

impl std::error::Error for Failure {}

/// Tries everything on a plugin.
///
/// # Errors
/// The first promise that it does not keep.
pub async fn run(fixture: &dyn Fixture) -> Result<(), Failure> {
    let checks: &[(&str, checks::Check)] = &[
        ("the plugin describes itself well", |bench| Box::pin(checks::description(bench))),
        ("parameters are held to their schemas", |bench| Box::pin(checks::parameters(bench))),
        ("another project sees nothing", |bench| Box::pin(checks::strangers(bench))),
        ("what was lost comes back", |bench| Box::pin(checks::identity(bench, 1))),
        ("every hook may be run twice", |bench| Box::pin(checks::identity(bench, 2))),
        ("protect may be dropped anywhere and begun again", |bench| Box::pin(checks::dropped_protect(bench))),
        ("restore may be dropped anywhere and begun again", |bench| Box::pin(checks::dropped_restore(bench))),
        ("a protect that is given up leaves nothing", |bench| Box::pin(checks::abandoned_protect(bench))),
        ("a restore that is given up leaves nothing", |bench| Box::pin(checks::abandoned_restore(bench))),
        ("cancelling is heard", |bench| Box::pin(checks::cancelled(bench))),
        ("a dry run changes nothing", |bench| Box::pin(checks::dry_run(bench))),
        ("verifying finds nothing wrong with what is whole", |bench| Box::pin(checks::verify_whole(bench))),
        ("what is damaged is not taken for whole", |bench| Box::pin(checks::damage(bench))),
        ("copying and deleting need no resource", |bench| Box::pin(checks::copy_and_delete(bench))),
    ];
    for (check, try_it) in checks {
        let failed = |reason: String| Failure { check: (*check).to_owned(), reason };
        fixture.reset().await;
        let bench = Bench::new(fixture).await.map_err(failed)?;
        let tried = try_it(&bench).await;
        fixture.reset().await;
        tried.map_err(failed)?;
    }
    Ok(())
}

/// Returns the type of a fixture's resource.
fn kind(fixture: &dyn Fixture) -> ResourceType {
    fixture.resource().key.kind
}
