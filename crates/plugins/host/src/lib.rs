//! Protectables and protection plugins for what is on a host and in no cloud: directories, disks, databases.
//!
//! An administrator's inventory file says what exists and for whom ([`Inventory`]); nothing outside it can be named.
//! Each type has its own plugin, so that a provider can offer some of them.
//!
//! Invariants: no path that a tenant gives is followed out of the places that the inventory allows, also not
//! through a symbolic link that somebody puts there meanwhile. What is restored appears under its name only when it
//! is whole and was read back. What is there already is replaced only when that was asked for. A command that was
//! run before is followed by the one after, whatever happens between.

mod application;
mod command;
mod directory;
mod disk;
mod driver;
mod image;
mod inventory;
mod place;
mod postgresql;
mod protectable;
mod protection;
mod quiesce;
mod source;
mod sqlite;
mod staging;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use karbor_plugin::{Protectable, Protection};

pub use inventory::{Error, Inventory, Kind, Result};
use protectable::HostProtectable;
use protection::HostProtection;
use watch::InventoryFile;

/// Answers what an environment variable holds.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What the plugins of this crate need to know of the machine.
#[derive(Clone)]
pub struct HostOptions {
    /// The inventory file. One that does not exist yet is empty.
    pub inventory: PathBuf,
    /// A directory for copies of SQLite databases while they are stored; it is made if it does not exist.
    pub spool: PathBuf,
    /// Where `password-env` is looked up.
    pub environment: Environment,
}

impl fmt::Debug for HostOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostOptions")
            .field("inventory", &self.inventory)
            .field("spool", &self.spool)
            .finish_non_exhaustive()
    }
}

/// What can be protected on this host, and how.
#[derive(Debug, Clone)]
pub struct Host {
    shared: Arc<Shared>,
}

/// What all plugins of a host use. It holds nothing that a hook leaves for another.
struct Shared {
    inventory: InventoryFile,
    spool: PathBuf,
    environment: Environment,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("inventory", &self.inventory)
            .field("spool", &self.spool)
            .finish_non_exhaustive()
    }
}

impl Host {
    /// Reads the inventory. From then on it is read again whenever the file has changed; a bad new one is logged,
    /// and the one before stays in force.
    ///
    /// # Errors
    /// [`Error`] when the file is there and cannot be used.
    pub fn open(options: HostOptions) -> Result<Self> {
        let inventory = InventoryFile::open(options.inventory)?;
        let shared = Shared { inventory, spool: options.spool, environment: options.environment };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Returns the inventory that is in force.
    pub fn inventory(&self) -> Arc<Inventory> {
        self.shared.inventory.current()
    }

    /// Returns the protectables, one for each type.
    pub fn protectables(&self) -> Vec<Arc<dyn Protectable>> {
        let make =
            |kind| Arc::new(HostProtectable::new(kind, Arc::clone(&self.shared))) as Arc<dyn Protectable>;
        Kind::ALL.into_iter().map(make).collect()
    }

    /// Returns the protection plugins, one for each type.
    pub fn protections(&self) -> Vec<Arc<dyn Protection>> {
        Kind::ALL.into_iter().map(|kind| self.protection(kind)).collect()
    }

    /// Returns the protection plugin of one type.
    pub fn protection(&self, kind: Kind) -> Arc<dyn Protection> {
        Arc::new(HostProtection::new(kind, Arc::clone(&self.shared)))
    }
}
