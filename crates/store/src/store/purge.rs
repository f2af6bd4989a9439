//! Removing for good what has been over for long.
//!
//! Rows go some hundreds to a transaction, so that nobody waits for long and no cluster chokes on it. An operation
//! whose ledger still names something outside the bank stays: it is the only trace of what is to be cleaned up.

use karbor_types::{CheckpointState, Instant};
use sea_query::{Expr, ExprTrait, Query};

use crate::store::transaction::transaction;
use crate::{LedgerState, Purged, Result, Store};

/// How many rows go in one transaction.
const ROWS: u64 = 500;

impl Store {
    /// Removes plans and checkpoints that were deleted, and operations (with their steps and ledgers) that ended,
    /// before an instant. Restores, verifications and the operation log stay: they are what clients look back on.
    ///
    /// # Errors
    /// [`Error::Busy`](crate::Error::Busy), [`Error::Database`](crate::Error::Database); what was removed until then
    /// stays removed.
    pub async fn purge(&self, before: Instant) -> Result<Purged> {
        let before = before.as_micros();
        let deleted = Expr::col("state").eq(CheckpointState::Deleted.as_str());
        let open = Query::select()
            .column("operation_id")
            .from("ledger")
            .and_where(Expr::col("state").ne(LedgerState::Removed.as_str()))
            .take();
        let ended = Expr::col("ended_at").lt(before).and(Expr::col("id").not_in_subquery(open));
        Ok(Purged {
            plans: self.remove("plans", &Expr::col("deleted_at").lt(before)).await?,
            checkpoints: self.remove("checkpoints", &deleted.and(Expr::col("updated_at").lt(before))).await?,
            operations: self.remove("operations", &ended).await?,
        })
    }

    async fn remove(&self, table: &'static str, which: &Expr) -> Result<u64> {
        let select = Query::select().column("id").from(table).and_where(which.clone()).limit(ROWS).take();
        let mut removed = 0;
        loop {
            let rows = self.rows("looking for what can be purged", &select).await?;
            let ids = rows.iter().map(|row| row.text("id")).collect::<Result<Vec<String>>>()?;
            if ids.is_empty() {
                return Ok(removed);
            }
            let delete = Query::delete()
                .from_table(table)
                .and_where(Expr::col("id").is_in(ids))
                .and_where(which.clone())
                .take();
            removed += transaction!(self, "purging", |tx| { tx.execute(&delete).await })?;
        }
    }
}
