//! What is needed to tell whether plans keep what their triggers promise.

use std::collections::HashMap;

use karbor_types::{CheckpointState, Instant, PlanId, ProviderId, TriggerId};
use sea_query::{Expr, ExprTrait, Func, Query};

use crate::sql::Table;
use crate::{Checkpoint, Result, Store, Trigger};

impl Store {
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
