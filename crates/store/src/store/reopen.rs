//! Operations that have ended and are taken up again: to do what was not done, or to remove what was left.
//!
//! The operation keeps its id, its steps and its ledger, and is claimed under a new epoch like any other.

use karbor_types::{Epoch, Instant, OperationId, OperationState, RunEvent, StepState};
use sea_query::{Expr, ExprTrait, Query};
use serde_json::Value;

use crate::sql::{Table, optional_json};
use crate::store::logs::take_up_log;
use crate::store::runs::change_run;
use crate::store::transaction::transaction;
use crate::{Error, Operation, Restore, Result, RunChange, Step, Store};

/// For what an operation is taken up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reopening {
    /// Steps that failed or were skipped are run again; a restore is in progress again.
    Resume,
    /// Only the ledger is worked off; steps and what the operation is about stay as they are.
    CleanUp,
}

impl Store {
    /// Queues an operation again that has failed or was cancelled, with another request.
    ///
    /// `epoch` is the one at which it was read: whoever decides to resume it must not have read it before it was undone.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it has not ended, has succeeded, or has run since it was read.
    pub async fn reopen_operation(
        &self,
        id: OperationId,
        epoch: Epoch,
        reopening: Reopening,
        request: &Value,
        now: Instant,
    ) -> Result<Operation> {
        let request = optional_json("the request of an operation", request)?;
        transaction!(self, "taking up an operation again", |tx| {
            let over = [OperationState::Failed, OperationState::Cancelled].map(OperationState::as_str);
            let mut update = Query::update();
            update
                .table(Operation::TABLE)
                .value("revision", Expr::col("revision").add(1i64))
                .value("state", OperationState::Queued.as_str())
                .value("due_at", now.as_micros())
                .value("claimable_at", now.as_micros())
                .value("attempt", 0i64)
                .value("cancel_requested", 0i64)
                .value("request", request.clone())
                .value("reason", Option::<String>::None)
                .value("result", Option::<String>::None)
                .value("ended_at", Option::<i64>::None);
            update.and_where(Expr::col("id").eq(id.to_string())).and_where(Expr::col("state").is_in(over));
            update.and_where(Expr::col("epoch").eq(i64::from(epoch.0)));
            let changed = tx.execute(&update).await?;
            let operation: Operation = tx.find(&id.to_string()).await?;
            if changed == 0 {
                let mut state = operation.state.to_string();
                if operation.epoch != epoch {
                    state.push_str(", taken up by somebody else,");
                }
                return Err(Error::Conflict { what: Operation::WHAT, id: id.to_string(), state });
            }
            if reopening == Reopening::Resume {
                let undone = [StepState::Failed, StepState::Skipped].map(StepState::as_str);
                let mut again = Query::update();
                again.table(Step::TABLE).value("state", StepState::Pending.as_str());
                again.value("reason", Option::<String>::None).value("ended_at", Option::<i64>::None);
                again.and_where(Expr::col("operation_id").eq(id.to_string()));
                again.and_where(Expr::col("state").is_in(undone));
                tx.execute(&again).await?;
                if let Some(restore) = operation.restore {
                    let change = RunChange { event: Some(RunEvent::Resumed), ..RunChange::default() };
                    let state = change_run::<Restore>(tx, &restore.to_string(), &change, now).await?;
                    let mut forget = Query::update();
                    forget.table(Restore::TABLE).value("reason", Option::<String>::None);
                    forget.and_where(Expr::col("id").eq(restore.to_string()));
                    tx.execute(&forget).await?;
                    take_up_log(tx, id, state.as_str(), now).await?;
                }
            }
            Ok(operation)
        })
    }
}
