//! The operation log that clients read: one record for each operation, whose status follows what it is about; and one for
//! each occurrence that was skipped, of which there is no operation.

use karbor_types::{Instant, OccurrenceState, OperationId, OperationLogId};
use sea_query::{CaseStatement, Expr, ExprTrait, InsertStatement, OnConflict, Query};
use serde_json::Value;

use crate::sql::{Row, Table, Transaction, optional_json};
use crate::{NewOperation, Occurrence, OperationLog, OperationLogQuery, Result, Store};

impl Table for OperationLog {
    const TABLE: &'static str = "operation_logs";
    const WHAT: &'static str = "operation log";
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "project_id",
        "operation_type",
        "operation_id",
        "checkpoint_id",
        "plan_id",
        "provider_id",
        "restore_id",
        "scheduled_operation_id",
        "status",
        "started_at",
        "ended_at",
        "error_info",
        "extra_info",
        "created_at",
        "updated_at",
    ];

    fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.parsed("id")?,
            project: row.parsed("project_id")?,
            kind: row.parsed("operation_type")?,
            operation: row.optional_parsed("operation_id")?,
            checkpoint: row.optional_parsed("checkpoint_id")?,
            plan: row.optional_parsed("plan_id")?,
            provider: row.optional_parsed("provider_id")?,
            restore: row.optional_parsed("restore_id")?,
            scheduled_operation: row.optional_parsed("scheduled_operation_id")?,
            status: row.text("status")?,
            started_at: row.instant("started_at")?,
            ended_at: row.optional_instant("ended_at")?,
            error_info: row.optional_text("error_info")?,
            extra_info: row.optional_json("extra_info")?,
            created_at: row.instant("created_at")?,
            updated_at: row.optional_instant("updated_at")?,
        })
    }
}

impl Store {
    /// Returns one record of the operation log.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound).
    pub async fn get_operation_log(&self, id: OperationLogId) -> Result<OperationLog> {
        self.find("looking up an operation log", &id.to_string()).await
    }

    /// Lists the operation log.
    ///
    /// # Errors
    /// [`Error::UnknownMarker`](crate::Error::UnknownMarker).
    pub async fn list_operation_logs(&self, query: &OperationLogQuery) -> Result<Vec<OperationLog>> {
        self.list("listing operation logs", query, None).await
    }
}

/// Records an operation that was queued, if it has a record.
pub(crate) async fn insert_log(
    tx: &mut Transaction,
    operation: &NewOperation,
    status: &'static str,
    now: Instant,
) -> Result<()> {
    match (operation.log, log_values(operation, status, now)) {
        (Some(id), Some(values)) => tx.insert::<OperationLog>(&id.to_string(), values).await,
        _ => Ok(()),
    }
}

/// Returns what stands in the record of an operation that is queued, if it has one.
pub(crate) fn log_values(
    operation: &NewOperation,
    status: &'static str,
    now: Instant,
) -> Option<Vec<(&'static str, Expr)>> {
    let id = operation.log?;
    Some(vec![
        ("id", Expr::val(id.to_string())),
        ("project_id", Expr::val(operation.project.as_str())),
        ("operation_type", Expr::val(operation.kind.as_str())),
        ("operation_id", Expr::val(operation.id.to_string())),
        ("checkpoint_id", Expr::val(operation.checkpoint.map(|id| id.to_string()))),
        ("plan_id", Expr::val(operation.plan.map(|id| id.to_string()))),
        ("provider_id", Expr::val(operation.provider.map(|id| id.to_string()))),
        ("restore_id", Expr::val(operation.restore.map(|id| id.to_string()))),
        ("scheduled_operation_id", Expr::val(operation.scheduled_operation.map(|id| id.to_string()))),
        ("status", Expr::val(status)),
        ("started_at", Expr::val(now.as_micros())),
        ("created_at", Expr::val(now.as_micros())),
    ])
}

/// The status of what was not done.
const SKIPPED: &str = "skipped";

/// Records those of these occurrences that were skipped, and why. The record has the id of the occurrence.
pub(crate) fn insert_skipped(occurrences: &[String], why: &str, now: Instant) -> InsertStatement {
    let kind = |word: &'static str| Expr::col("operation_type").eq(word);
    // The log knows what is done, not by which rule.
    let kind = CaseStatement::new()
        .case(kind("retention_protect"), "protect")
        .case(kind("restore_test"), "restore")
        .finally(Expr::col("operation_type"));
    let mut select = Query::select();
    select.columns(["id", "project_id"]).expr(kind).columns(["provider_id", "scheduled_operation_id"]);
    select.expr(Expr::val(SKIPPED)).column("occurrence_at").expr(Expr::val(now.as_micros()));
    select.expr(Expr::val(why)).expr(Expr::val(now.as_micros())).from(Occurrence::TABLE);
    select.and_where(Expr::col("id").is_in(occurrences));
    select.and_where(Expr::col("state").eq(OccurrenceState::Skipped.as_str()));
    let mut insert = Query::insert();
    insert.into_table(OperationLog::TABLE).columns([
        "id",
        "project_id",
        "operation_type",
        "provider_id",
        "scheduled_operation_id",
        "status",
        "started_at",
        "ended_at",
        "error_info",
        "created_at",
    ]);
    insert.select_from(select.take()).expect("there are as many columns as values");
    // Who is told twice stays as it is. Nothing but a constant is set: MariaDB does not know whose `id` would be meant.
    insert.on_conflict(OnConflict::column("id").value("status", SKIPPED).to_owned()).take()
}

/// What the record says of an operation's end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended<'a> {
    pub(crate) reason: Option<&'a str>,
    pub(crate) extra_info: &'a Value,
}

/// Says in the log of an operation that it goes on.
pub(crate) async fn take_up_log(
    tx: &mut Transaction,
    operation: OperationId,
    status: &'static str,
    now: Instant,
) -> Result<()> {
    let mut update = Query::update();
    update.table(OperationLog::TABLE).value("updated_at", now.as_micros()).value("status", status);
    update.value("ended_at", Option::<i64>::None).value("error_info", Option::<String>::None);
    update.and_where(Expr::col("operation_id").eq(operation.to_string()));
    tx.execute(&update).await.map(drop)
}

/// Brings the record of an operation, if it has one, up to date.
pub(crate) async fn update_log(
    tx: &mut Transaction,
    operation: OperationId,
    status: Option<&'static str>,
    ended: Option<Ended<'_>>,
    now: Instant,
) -> Result<()> {
    let mut update = Query::update();
    update.table(OperationLog::TABLE).value("updated_at", now.as_micros());
    if let Some(status) = status {
        update.value("status", status);
    }
    if let Some(ended) = ended {
        update.value("ended_at", now.as_micros());
        update.value("error_info", ended.reason.map(str::to_owned));
        update.value("extra_info", optional_json("the extra info of an operation log", ended.extra_info)?);
    }
    update.and_where(Expr::col("operation_id").eq(operation.to_string()));
    tx.execute(&update).await.map(drop)
}
