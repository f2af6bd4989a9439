//! The store itself: opening it, and what all of its methods share.

mod checkpoints;
mod operations;
mod plans;
mod quotas;
mod runs;
mod schedule;
mod services;
mod steps;

use crate::{Error, Result};

/// Which database is behind a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A file, or memory.
    Sqlite,
    /// A PostgreSQL server.
    Postgres,
    /// A MariaDB (or Galera, or MySQL) server.
    Mysql,
}

/// How a store uses its database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Connections to a server; or those that only read, for SQLite, which has one writer beside.
    pub connections: u32,
    /// How long a call waits for a free connection or a lock before it is `Busy`.
    pub busy_seconds: u32,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { connections: 4, busy_seconds: 30 }
    }
}

/// The database. Cheap to clone; all clones share its connections.
#[derive(Debug, Clone)]
pub struct Store {
    engine: Engine,
}

impl Store {
    /// Opens the database that a URL names: `sqlite:<path>`, `sqlite::memory:`, `postgres://…`, `mysql://…` or
    /// `mariadb://…`. An SQLite file is made if it is not there. The schema is neither looked at nor changed.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Database`].
    pub async fn open(url: &str, options: &StoreOptions) -> Result<Self> {
        let _ = (url, options);
        Err(Error::Url { reason: "not built yet".to_owned() })
    }

    /// Returns which database is behind the store.
    pub const fn engine(&self) -> Engine {
        self.engine
    }

    /// Brings the schema to this program's version. Several processes may do so at once.
    ///
    /// # Errors
    /// [`Error::NewerSchema`] when a newer program has migrated it.
    pub async fn migrate(&self) -> Result<()> {
        self.pending(())
    }

    /// Returns the version of the database's schema; 0 for an empty database.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn version(&self) -> Result<u32> {
        self.pending(())
    }

    /// Succeeds if the schema has exactly this program's version.
    ///
    /// # Errors
    /// [`Error::OlderSchema`], [`Error::NewerSchema`].
    pub async fn check_version(&self) -> Result<()> {
        self.pending(())
    }

    /// Succeeds if the database answers.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Busy`].
    pub async fn ping(&self) -> Result<()> {
        self.pending(())
    }

    /// Closes all connections, after the calls under way.
    pub async fn close(&self) {}

    fn pending<A, T>(&self, _arguments: A) -> Result<T> {
        Err(Error::Url { reason: "not built yet".to_owned() })
    }
}
