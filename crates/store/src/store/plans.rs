//! Plans.

use karbor_types::{Instant, PlanId};
use sea_query::{CaseStatement, Expr, ExprTrait, Query, SelectStatement};

use crate::sql::{Row, Table, json, not_found};
use crate::store::quotas::{charge, count};
use crate::store::transaction::transaction;
use crate::{Error, Plan, PlanQuery, PlanUpdate, QuotaDefaults, QuotaResource, Result, Store};

impl Table for Plan {
    const TABLE: &'static str = "plans";
    const WHAT: &'static str = "plan";
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "project_id",
        "name",
        "description",
        "provider_id",
        "status",
        "resources",
        "parameters",
        "created_at",
        "updated_at",
    ];

    fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.parsed("id")?,
            project: row.parsed("project_id")?,
            name: row.text("name")?,
            description: row.optional_text("description")?,
            provider: row.parsed("provider_id")?,
            status: row.optional_text("status")?,
            resources: row.json("resources")?,
            parameters: row.json("parameters")?,
            created_at: row.instant("created_at")?,
            updated_at: row.optional_instant("updated_at")?,
        })
    }

    fn living() -> SelectStatement {
        Self::select().and_where(Expr::col("deleted_at").is_null()).take()
    }
}

impl Store {
    /// Adds a plan and charges its project for it.
    ///
    /// # Errors
    /// [`Error::OverQuota`], [`Error::AlreadyExists`].
    pub async fn create_plan(&self, plan: &Plan, quota: &QuotaDefaults) -> Result<()> {
        let id = plan.id.to_string();
        let resources = json("the resources of a plan", &plan.resources)?;
        let parameters = json("the parameters of a plan", &plan.parameters)?;
        transaction!(self, "adding a plan", |tx| {
            charge(tx, &plan.project, QuotaResource::Plans, 1, quota).await?;
            let values = vec![
                ("id", Expr::val(id.as_str())),
                ("project_id", Expr::val(plan.project.as_str())),
                ("name", Expr::val(plan.name.as_str())),
                ("description", Expr::val(plan.description.clone())),
                ("provider_id", Expr::val(plan.provider.to_string())),
                ("status", Expr::val(plan.status.clone())),
                ("resources", Expr::val(resources.as_str())),
                ("parameters", Expr::val(parameters.as_str())),
                ("created_at", Expr::val(plan.created_at.as_micros())),
                ("updated_at", Expr::val(plan.updated_at.map(Instant::as_micros))),
            ];
            tx.insert::<Plan>(&id, values).await
        })
    }

    /// Returns a plan that is not deleted.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get_plan(&self, id: PlanId) -> Result<Plan> {
        self.find("looking up a plan", &id.to_string()).await
    }

    /// Returns those of these plans that stand and can be read, each with when it was suspended after it had been started.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn plans_to_run(&self, ids: &[PlanId]) -> Result<Vec<(Plan, Option<Instant>)>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut select = Plan::select();
        select.column("suspended_at").and_where(Expr::col("id").is_in(ids.iter().map(PlanId::to_string)));
        select.and_where(Expr::col("deleted_at").is_null());
        let rows = self.rows("looking up plans", &select).await?;
        let read = |row: &Row| Some((Plan::read(row).ok()?, row.optional_instant("suspended_at").ok()?));
        Ok(rows.iter().filter_map(read).collect())
    }

    /// Changes a plan and returns it as it is then.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when its status is not the one that the update asks for.
    pub async fn update_plan(&self, id: PlanId, update: &PlanUpdate, now: Instant) -> Result<Plan> {
        let id = id.to_string();
        let resources = update.resources.as_ref().map(|resources| json("the resources of a plan", resources));
        let resources = resources.transpose()?;
        transaction!(self, "changing a plan", |tx| {
            let mut statement = Query::update();
            statement.table(Plan::TABLE).value("updated_at", now.as_micros());
            if let Some(name) = &update.name {
                statement.value("name", name.as_str());
            }
            if let Some(description) = &update.description {
                statement.value("description", description.clone());
            }
            if let Some(status) = &update.status {
                // Plans are suspended when they are made, and that has never kept anything from being done. What says
                // something is to suspend one that was started.
                let suspends = status.as_deref() == Some("suspended");
                let was_suspended = Expr::col("status").eq("suspended");
                if !suspends {
                    statement.value("suspended_at", Option::<i64>::None);
                } else {
                    statement.value(
                        "suspended_at",
                        CaseStatement::new()
                            .case(was_suspended, Expr::col("suspended_at"))
                            .finally(now.as_micros()),
                    );
                }
                statement.value("status", status.clone());
            }
            if let Some(resources) = &resources {
                statement.value("resources", resources.as_str());
            }
            let is_it = Expr::col("id").eq(id.as_str()).and(Expr::col("deleted_at").is_null());
            statement.and_where(is_it.clone());
            if let Some(status) = &update.only_if_status {
                statement.and_where(Expr::col("status").eq(status.as_str()));
            }
            let changed = tx.execute(&statement).await?;
            let rows = tx.rows(Plan::select().and_where(is_it)).await?;
            let plan = rows.first().map(Plan::read).unwrap_or_else(|| Err(not_found::<Plan>(&id)))?;
            if changed == 0 {
                let state = plan.status.unwrap_or_default();
                return Err(Error::Conflict { what: Plan::WHAT, id: id.clone(), state });
            }
            Ok(plan)
        })
    }

    /// Deletes a plan and takes the charge for it back. Its checkpoints stay.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete_plan(&self, id: PlanId, now: Instant) -> Result<()> {
        let id = id.to_string();
        transaction!(self, "deleting a plan", |tx| {
            let mut statement = Query::update();
            statement.table(Plan::TABLE).value("deleted_at", now.as_micros());
            statement.and_where(Expr::col("id").eq(id.as_str())).and_where(Expr::col("deleted_at").is_null());
            if tx.execute(&statement).await? == 0 {
                return Err(not_found::<Plan>(&id));
            }
            let plan: Plan = tx.find(&id).await?;
            count(tx, &plan.project, QuotaResource::Plans, -1, 0).await
        })
    }

    /// Lists plans that are not deleted.
    ///
    /// # Errors
    /// [`Error::UnknownMarker`].
    pub async fn list_plans(&self, query: &PlanQuery) -> Result<Vec<Plan>> {
        self.list("listing plans", query, Some(Expr::col("deleted_at").is_null())).await
    }
}
