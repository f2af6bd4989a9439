//! Holds on checkpoints.
//!
//! A hold stands in the checkpoint's row, so that holding and deleting are changes of one row, and whoever comes second
//! sees the first: a checkpoint that is held is not deleted, and one whose deletion has begun is not held.

use karbor_types::{CheckpointId, CheckpointState};
use sea_query::{Expr, ExprTrait, Query};

use crate::sql::{Row, Table, not_found};
use crate::store::transaction::transaction;
use crate::{Checkpoint, Error, Hold, Result, Store};

/// The states in which nothing is left to hold.
const GOING: [CheckpointState; 3] =
    [CheckpointState::Deleting, CheckpointState::Deleted, CheckpointState::ErrorDeleting];

impl Store {
    /// Holds a checkpoint and returns the hold; one that is held stays held as it was.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it is being deleted or is gone.
    pub async fn hold_checkpoint(&self, hold: &Hold) -> Result<Hold> {
        let id = hold.checkpoint.to_string();
        transaction!(self, "holding a checkpoint", |tx| {
            let mut update = Query::update();
            update.table(Checkpoint::TABLE);
            update.value("held_at", hold.since.as_micros()).value("held_by", hold.user.as_str());
            update.value("hold_reason", hold.reason.clone());
            update.value("revision", Expr::col("revision").add(1i64));
            update.and_where(Expr::col("id").eq(id.as_str())).and_where(Expr::col("held_at").is_null());
            update.and_where(Expr::col("state").is_not_in(GOING.map(CheckpointState::as_str)));
            let is_held_now = tx.execute(&update).await? > 0;
            let found = tx.rows(&select(&[hold.checkpoint])).await?;
            if let Some(row) = found.first() {
                return read(row);
            }
            let states = Query::select()
                .columns(["id", "state"])
                .from(Checkpoint::TABLE)
                .and_where(Expr::col("id").eq(id.as_str()))
                .take();
            let rows = tx.rows(&states).await?;
            let row = rows.first().ok_or_else(|| not_found::<Checkpoint>(&id))?;
            if is_held_now {
                return Err(Error::Busy { doing: "holding a checkpoint", source: None });
            }
            Err(Error::Conflict { what: Checkpoint::WHAT, id: id.clone(), state: row.text("state")? })
        })
    }

    /// Releases a checkpoint; returns whether it was held.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn release_checkpoint(&self, id: CheckpointId) -> Result<bool> {
        let mut update = Query::update();
        update.table(Checkpoint::TABLE);
        update.value("held_at", Option::<i64>::None).value("held_by", Option::<String>::None);
        update.value("hold_reason", Option::<String>::None);
        update.value("revision", Expr::col("revision").add(1i64));
        update.and_where(Expr::col("id").eq(id.to_string())).and_where(Expr::col("held_at").is_not_null());
        transaction!(self, "releasing a checkpoint", |tx| { Ok(tx.execute(&update).await? > 0) })
    }

    /// Returns the holds on these checkpoints.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn holds(&self, checkpoints: &[CheckpointId]) -> Result<Vec<Hold>> {
        if checkpoints.is_empty() {
            return Ok(Vec::new());
        }
        self.rows("looking up holds", &select(checkpoints)).await?.iter().map(read).collect()
    }
}

fn select(checkpoints: &[CheckpointId]) -> sea_query::SelectStatement {
    Query::select()
        .columns(["id", "held_at", "held_by", "hold_reason"])
        .from(Checkpoint::TABLE)
        .and_where(Expr::col("id").is_in(checkpoints.iter().map(CheckpointId::to_string)))
        .and_where(Expr::col("held_at").is_not_null())
        .take()
}

fn read(row: &Row) -> Result<Hold> {
    Ok(Hold {
        checkpoint: row.parsed("id")?,
        user: row.parsed("held_by")?,
        reason: row.optional_text("hold_reason")?,
        since: row.instant("held_at")?,
    })
}
