//! Rows that are taken over from another database, as they were there.

use std::collections::BTreeMap;

use karbor_types::{CheckpointId, Instant, Parameters, ProjectId, ProviderId, RunState};
use sea_query::Expr;

use crate::sql::{Table, json, optional_json};
use crate::store::transaction::transaction;
use crate::{OperationLog, Restore, Result, Store, Verification};

impl Store {
    /// Adds a restore as it was in another database.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`].
    pub async fn import_restore(&self, restore: &Restore) -> Result<()> {
        let mut values = run_values(
            (&restore.id.to_string(), &restore.project, restore.provider, restore.checkpoint),
            (&restore.parameters, restore.state, restore.reason.as_deref()),
            (&restore.resources_status, &restore.resources_reason),
            (restore.created_at, restore.updated_at),
        )?;
        values.push(("restore_target", Expr::val(restore.target.clone())));
        self.import_row::<Restore>(&restore.id.to_string(), values).await
    }

    /// Adds a verification as it was in another database.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`].
    pub async fn import_verification(&self, run: &Verification) -> Result<()> {
        let values = run_values(
            (&run.id.to_string(), &run.project, run.provider, run.checkpoint),
            (&run.parameters, run.state, run.reason.as_deref()),
            (&run.resources_status, &run.resources_reason),
            (run.created_at, run.updated_at),
        )?;
        self.import_row::<Verification>(&run.id.to_string(), values).await
    }

    /// Adds a record of an operation as it was in another database.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`].
    pub async fn import_operation_log(&self, log: &OperationLog) -> Result<()> {
        let id = log.id.to_string();
        let values = vec![
            ("id", Expr::val(id.as_str())),
            ("project_id", Expr::val(log.project.as_str())),
            ("operation_type", Expr::val(log.kind.as_str())),
            ("operation_id", Expr::val(log.operation.map(|id| id.to_string()))),
            ("checkpoint_id", Expr::val(log.checkpoint.map(|id| id.to_string()))),
            ("plan_id", Expr::val(log.plan.map(|id| id.to_string()))),
            ("provider_id", Expr::val(log.provider.map(|id| id.to_string()))),
            ("restore_id", Expr::val(log.restore.map(|id| id.to_string()))),
            ("scheduled_operation_id", Expr::val(log.scheduled_operation.map(|id| id.to_string()))),
            ("status", Expr::val(log.status.as_str())),
            ("started_at", Expr::val(log.started_at.as_micros())),
            ("ended_at", Expr::val(log.ended_at.map(Instant::as_micros))),
            ("error_info", Expr::val(log.error_info.clone())),
            ("extra_info", Expr::val(optional_json("the extra info of an operation log", &log.extra_info)?)),
            ("created_at", Expr::val(log.created_at.as_micros())),
            ("updated_at", Expr::val(log.updated_at.map(Instant::as_micros))),
        ];
        self.import_row::<OperationLog>(&id, values).await
    }

    async fn import_row<T: Table>(&self, id: &str, values: Vec<(&'static str, Expr)>) -> Result<()> {
        transaction!(self, "importing a row", |tx| { tx.insert::<T>(id, values.clone()).await })
    }
}

/// Returns the columns that restores and verifications have in common.
fn run_values(
    (id, project, provider, checkpoint): (&str, &ProjectId, ProviderId, CheckpointId),
    (parameters, state, reason): (&Parameters, RunState, Option<&str>),
    (status, reasons): (&BTreeMap<String, String>, &BTreeMap<String, String>),
    (created_at, updated_at): (Instant, Option<Instant>),
) -> Result<Vec<(&'static str, Expr)>> {
    Ok(vec![
        ("id", Expr::val(id)),
        ("project_id", Expr::val(project.as_str())),
        ("provider_id", Expr::val(provider.to_string())),
        ("checkpoint_id", Expr::val(checkpoint.to_string())),
        ("parameters", Expr::val(json("parameters", parameters)?)),
        ("state", Expr::val(state.as_str())),
        ("resources_status", Expr::val(json("what is said of resources", status)?)),
        ("resources_reason", Expr::val(json("what is said of resources", reasons)?)),
        ("reason", Expr::val(reason.map(str::to_owned))),
        ("created_at", Expr::val(created_at.as_micros())),
        ("updated_at", Expr::val(updated_at.map(Instant::as_micros))),
    ])
}
