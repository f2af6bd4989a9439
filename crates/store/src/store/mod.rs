//! The store itself: opening it, and what all of its methods share.

mod bank_accounts;
mod beginnings;
mod calls;
mod checkpoints;
mod delegations;
mod explain;
mod handouts;
mod holds;
mod imports;
#[cfg(feature = "failpoints")]
mod interference;
mod ledger;
mod logs;
mod occurrences;
mod operations;
mod plans;
mod promises;
mod purge;
mod quotas;
mod readers;
mod reopen;
mod runs;
mod schedule;
mod services;
mod steps;
mod transaction;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use sea_query::{Expr, Query, SelectStatement};

#[cfg(feature = "failpoints")]
pub use interference::Interference;
pub use reopen::Reopening;

use crate::query::Column;
use crate::sql::{Database, Row, Table, known_version, list_statement, marker_statement};
use crate::{Error, ListQuery, Result};

pub use self::calls::TriggerCall;
pub use self::promises::Promising;

/// Which database is behind a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// A file, or memory.
    Sqlite,
    /// A PostgreSQL server.
    Postgres,
    /// A MariaDB server or Galera cluster.
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
        Self { connections: 8, busy_seconds: 30 }
    }
}

/// The database. Cheap to clone; all clones share its connections.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    database: Database,
    /// Counts transactions that were tried again, to spread the next tries.
    retries: AtomicU64,
    #[cfg(feature = "failpoints")]
    interference: Option<Arc<dyn Interference>>,
}

impl Store {
    /// Opens the database that a URL names: `sqlite:<path>`, `sqlite::memory:`, `postgres://…`, `mysql://…` or
    /// `mariadb://…`. An SQLite file is made if it is not there. The schema is neither looked at nor changed.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Database`].
    pub async fn open(url: &str, options: &StoreOptions) -> Result<Self> {
        let database = Database::open(url, options).await?;
        let inner = Inner {
            database,
            retries: AtomicU64::new(0),
            #[cfg(feature = "failpoints")]
            interference: None,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns which database is behind the store.
    pub fn engine(&self) -> Engine {
        self.inner.database.engine()
    }

    /// Brings the schema to this program's version. Several processes may do so at once.
    ///
    /// # Errors
    /// [`Error::NewerSchema`] when a newer program has migrated it; [`Error::ForeignSchema`] when it is the old
    /// Karbor's.
    pub async fn migrate(&self) -> Result<()> {
        self.inner.database.migrate().await
    }

    /// Returns the version of the database's schema; 0 for an empty database.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn version(&self) -> Result<u32> {
        self.inner.database.version().await
    }

    /// Succeeds if the schema has exactly this program's version.
    ///
    /// # Errors
    /// [`Error::OlderSchema`], [`Error::NewerSchema`].
    pub async fn check_version(&self) -> Result<()> {
        let (found, known) = (self.version().await?, known_version());
        match found.cmp(&known) {
            std::cmp::Ordering::Less => Err(Error::OlderSchema { found, known }),
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(Error::NewerSchema { found, known }),
        }
    }

    /// Succeeds if the database answers.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Busy`].
    pub async fn ping(&self) -> Result<()> {
        let select = Query::select().expr_as(Expr::val(1i64), "id").take();
        self.rows("asking whether the database answers", &select).await.map(drop)
    }

    /// Closes all connections, after the calls under way.
    pub async fn close(&self) {
        self.inner.database.close().await;
    }

    async fn rows(&self, doing: &'static str, select: &SelectStatement) -> Result<Vec<Row>> {
        #[cfg(feature = "failpoints")]
        self.come_between(doing).await?;
        self.inner.database.rows(doing, select).await
    }

    /// Returns the row with that id.
    async fn find<T: Table>(&self, doing: &'static str, id: &str) -> Result<T> {
        #[cfg(feature = "failpoints")]
        self.come_between(doing).await?;
        self.inner.database.find(doing, id).await
    }

    /// Lists the rows that a query asks for and for which `also` holds.
    async fn list<T: Table, C: Column, I: fmt::Display>(
        &self,
        doing: &'static str,
        query: &ListQuery<C, I>,
        also: Option<Expr>,
    ) -> Result<Vec<T>> {
        let mut select = list_statement::<T, C, I>(self.engine(), query);
        select.and_where_option(also);
        let rows = self.rows(doing, &select).await?;
        // Nothing is behind the last row, and nothing behind one that there is not.
        if rows.is_empty()
            && let Some(marker) = query.marker.as_ref().map(I::to_string)
            && self.rows(doing, &marker_statement::<T, C, I>(query, &marker)).await?.is_empty()
        {
            return Err(Error::UnknownMarker { marker });
        }
        rows.iter().map(T::read).collect()
    }
}
