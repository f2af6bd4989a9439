//! What is needed to tell whether plans keep what their triggers promise.

use std::collections::HashMap;

use karbor_types::{
    CheckpointState, Instant, PlanId, ProjectId, ProviderId, ScheduledOperationId, TriggerId,
};
use sea_query::{Expr, ExprTrait, Func, Order, Query, SelectStatement};
use serde::Deserialize;

use crate::sql::{Row, Table};
use crate::{Checkpoint, Plan, Result, ScheduledOperation, Store, Trigger};

/// The types of operations that make checkpoints.
const PROTECTING: [&str; 2] = ["protect", "retention_protect"];

/// A scheduled operation that makes checkpoints, as far as its trigger's promise is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promising {
    /// Its id.
    pub operation: ScheduledOperationId,
    /// The plan that it names; nothing when that cannot be read.
    pub plan: Option<PlanId>,
    /// Its trigger.
    pub trigger: TriggerId,
    /// When it was made.
    pub created_at: Instant,
    /// When it was last changed.
    pub updated_at: Option<Instant>,
}

/// The one member of a definition that promises are about.
#[derive(Deserialize)]
struct Named {
    plan_id: PlanId,
}

impl Store {
    /// Lists enabled operations that make checkpoints, of a project or of all, in an order that stays; those behind one.
    ///
    /// # Errors
    /// [`crate::Error::Busy`], [`crate::Error::Database`].
    pub async fn promising(
        &self,
        project: Option<&ProjectId>,
        after: Option<&Promising>,
        limit: u32,
    ) -> Result<Vec<Promising>> {
        let rows = self.rows("looking who promises checkpoints", &promising(project, after, limit)).await?;
        let read = |row: &Row| {
            let named = serde_json::from_str::<Named>(&row.text("operation_definition")?);
            Ok(Promising {
                operation: row.parsed("id")?,
                plan: named.ok().map(|named| named.plan_id),
                trigger: row.parsed("trigger_id")?,
                created_at: row.instant("created_at")?,
                updated_at: row.optional_instant("updated_at")?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Returns the providers of those of these plans that are not deleted.
    ///
    /// # Errors
    /// [`crate::Error::Busy`], [`crate::Error::Database`].
    pub async fn providers_of_plans(&self, plans: &[PlanId]) -> Result<HashMap<PlanId, ProviderId>> {
        if plans.is_empty() {
            return Ok(HashMap::new());
        }
        let mut select = Query::select();
        select.columns(["id", "provider_id"]).from(Plan::TABLE);
        select.and_where(Expr::col("id").is_in(plans.iter().map(PlanId::to_string)));
        select.and_where(Expr::col("deleted_at").is_null());
        let rows = self.rows("looking up the providers of plans", &select).await?;
        rows.iter().map(|row| Ok((row.parsed("id")?, row.parsed("provider_id")?))).collect()
    }

    /// Returns when the newest `available` checkpoint of each plan was made, by plan and provider.
    ///
    /// # Errors
    /// [`crate::Error::Busy`], [`crate::Error::Database`].
    pub async fn newest_available(&self, plans: &[PlanId]) -> Result<HashMap<(PlanId, ProviderId), Instant>> {
        if plans.is_empty() {
            return Ok(HashMap::new());
        }
        let mut select = Query::select();
        select.columns(["plan_id", "provider_id"]).from(Checkpoint::TABLE);
        select.expr_as(Func::max(Expr::col("created_at")), "newest_at");
        select.and_where(Expr::col("plan_id").is_in(plans.iter().map(PlanId::to_string)));
        select.and_where(Expr::col("state").eq(CheckpointState::Available.as_str()));
        select.group_by_columns(["plan_id", "provider_id"]);
        let rows = self.rows("looking for the newest checkpoints of plans", &select).await?;
        rows.iter()
            .map(|row| Ok(((row.parsed("plan_id")?, row.parsed("provider_id")?), row.instant("newest_at")?)))
            .collect()
    }

    /// Returns those of these triggers that stand and can be read.
    ///
    /// # Errors
    /// [`crate::Error::Busy`], [`crate::Error::Database`].
    pub async fn triggers(&self, ids: &[TriggerId]) -> Result<Vec<Trigger>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut select = Trigger::select();
        select.and_where(Expr::col("id").is_in(ids.iter().map(TriggerId::to_string)));
        let rows = self.rows("looking up triggers", &select).await?;
        Ok(rows.iter().filter_map(|row| Trigger::read(row).ok()).collect())
    }
}

/// Pages of one project follow the index of its operations, pages of all projects the primary key.
pub(crate) fn promising(
    project: Option<&ProjectId>,
    after: Option<&Promising>,
    limit: u32,
) -> SelectStatement {
    let mut select = Query::select();
    select.columns(["id", "operation_definition", "trigger_id", "created_at", "updated_at"]);
    select.from(ScheduledOperation::TABLE);
    select.and_where(Expr::col("operation_type").is_in(PROTECTING)).and_where(Expr::col("enabled").eq(1i64));
    if let Some(project) = project {
        select.and_where(Expr::col("project_id").eq(project.as_str())).order_by("created_at", Order::Asc);
    }
    if let Some(after) = after {
        let behind = Expr::col("id").gt(after.operation.to_string());
        if project.is_some() {
            let (column, at) = (|| Expr::col("created_at"), after.created_at.as_micros());
            select.and_where(column().gte(at));
            select.and_where(column().gt(at).or(column().eq(at).and(behind)));
        } else {
            select.and_where(behind);
        }
    }
    select.order_by("id", Order::Asc).limit(u64::from(limit)).take()
}
