//! Connections that are given back only when what was asked of them was seen through.
//!
//! A call may be dropped at any await, when a client hangs up. sqlx's MariaDB connections do not survive that: one that
//! is dropped while it prepares a statement has noted an answer that will never come, and whoever gets it next waits
//! for ever. So a connection is closed, and the server rolls back, unless [`Guarded::keep`] was reached.

use sqlx::pool::PoolConnection;
use sqlx::{MySql, MySqlConnection, MySqlPool};

/// A connection at work.
#[derive(Debug)]
pub(crate) struct Guarded(Option<PoolConnection<MySql>>);

impl Guarded {
    pub(crate) async fn acquire(pool: &MySqlPool) -> sqlx::Result<Self> {
        Ok(Self(Some(pool.acquire().await?)))
    }

    pub(crate) async fn begin(pool: &MySqlPool) -> sqlx::Result<Self> {
        let mut guarded = Self::acquire(pool).await?;
        sqlx::raw_sql("BEGIN").execute(guarded.connection()).await?;
        Ok(guarded)
    }

    pub(crate) fn connection(&mut self) -> &mut MySqlConnection {
        self.0.as_mut().expect("only `keep` and `drop` take it, and both end this")
    }

    pub(crate) async fn commit(mut self) -> sqlx::Result<()> {
        sqlx::raw_sql("COMMIT").execute(self.connection()).await?;
        self.keep();
        Ok(())
    }

    pub(crate) async fn roll_back(mut self) -> sqlx::Result<()> {
        sqlx::raw_sql("ROLLBACK").execute(self.connection()).await?;
        self.keep();
        Ok(())
    }

    /// Gives the connection back: it has answered all that it was asked, and no transaction is open.
    pub(crate) fn keep(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}
