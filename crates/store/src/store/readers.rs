//! Who reads a checkpoint, and so keeps it from being let go by itself.
//!
//! Whoever is to read one changes its row first, as its deletion does: whoever comes second sees the first.

use karbor_types::{CheckpointState, CopySource, OperationKind, OperationRequest, OperationState};
use sea_query::{Expr, ExprTrait, Query, SelectStatement};
use serde_json::Value;

use crate::sql::{Table, Transaction};
use crate::store::checkpoints::hold_available;
use crate::{Checkpoint, NewOperation, Operation, Result};

/// Those that read the checkpoint that they name.
const READERS: [OperationKind; 2] = [OperationKind::Restore, OperationKind::Verify];

/// Those in which a copy is not made yet.
const UNMADE: [CheckpointState; 2] = [CheckpointState::WaitCopying, CheckpointState::Copying];

/// Holds the available checkpoint that an operation is to read in its state until the end of the transaction.
pub(crate) async fn hold_what_is_read(tx: &mut Transaction, operation: &NewOperation) -> Result<()> {
    let read = match operation.kind {
        kind if READERS.contains(&kind) => operation.checkpoint,
        OperationKind::Copy => source(&operation.request).map(|source| source.checkpoint),
        _ => None,
    };
    match read {
        Some(checkpoint) => hold_available(tx, checkpoint).await,
        None => Ok(()),
    }
}

/// Returns whether an operation that has not ended reads a checkpoint, or is to: a restore, a verification, a copy.
pub(crate) async fn is_read(tx: &mut Transaction, checkpoint: &Checkpoint) -> Result<bool> {
    let mut readers = open();
    readers.and_where(Expr::col("checkpoint_id").eq(checkpoint.id.to_string()));
    readers.and_where(Expr::col("kind").is_in(READERS.map(OperationKind::as_str)));
    readers.limit(1);
    if !tx.rows(&readers).await?.is_empty() {
        return Ok(true);
    }
    let mut copies = Query::select();
    copies.column("id").from(Checkpoint::TABLE);
    copies.and_where(Expr::col("plan_id").eq(checkpoint.plan.id.to_string()));
    copies.and_where(Expr::col("state").is_in(UNMADE.map(CheckpointState::as_str)));
    let copies: Vec<String> =
        tx.rows(&copies).await?.iter().map(|row| row.text("id")).collect::<Result<_>>()?;
    if copies.is_empty() {
        return Ok(false);
    }
    let mut copying = open();
    copying.and_where(Expr::col("checkpoint_id").is_in(copies));
    copying.and_where(Expr::col("kind").eq(OperationKind::Copy.as_str()));
    for row in tx.rows(&copying).await? {
        let request: Value = row.optional_json("request")?;
        if source(&request).is_some_and(|source| source.checkpoint == checkpoint.id) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Selects operations that have not ended.
fn open() -> SelectStatement {
    let ended = OperationState::ALL.iter().filter(|state| state.is_final()).map(|state| state.as_str());
    let mut select = Query::select();
    select.column("request").from(Operation::TABLE).and_where(Expr::col("state").is_not_in(ended));
    select
}

fn source(request: &Value) -> Option<CopySource> {
    serde_json::from_value::<OperationRequest>(request.clone()).ok()?.source
}
