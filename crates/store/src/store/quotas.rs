//! Quotas, quota classes and usage.
//!
//! Usage is counted in the transaction that adds, moves or removes what is counted, by adding to the counters: so they
//! never drift from the rows. The limit is checked by the same statement that adds.

use std::collections::{BTreeMap, HashMap, HashSet};

use karbor_types::{CheckpointState, Instant, ProjectId};
use sea_query::{Expr, ExprTrait, Func, OnConflict, Query, SelectStatement};

use crate::sql::{Transaction, number};
use crate::store::handouts::ROWS;
use crate::store::transaction::transaction;
use crate::{Error, Limit, QuotaDefaults, QuotaResource, Quotas, Result, Store, Usage};

/// The class whose limits hold for projects that have none of their own.
const DEFAULT_CLASS: &str = "default";

const USAGES: &str = "quota_usages";

/// Which rows of a table of limits: a project's or a class's.
#[derive(Debug, Clone, Copy)]
struct Limits<'a> {
    table: &'static str,
    column: &'static str,
    owner: &'a str,
}

impl<'a> Limits<'a> {
    fn of_project(project: &'a ProjectId) -> Self {
        Self { table: "quotas", column: "project_id", owner: project.as_str() }
    }

    fn of_class(class: &'a str) -> Self {
        Self { table: "quota_classes", column: "class_name", owner: class }
    }

    fn select(self) -> sea_query::SelectStatement {
        let mut select = Query::select();
        select.columns(["resource", "hard_limit"]).from(self.table);
        select.and_where(Expr::col(self.column).eq(self.owner)).take()
    }
}

impl Store {
    /// Returns the limits that hold for a project: its own, else those of the class `default`, else the defaults.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn get_quotas(&self, project: &ProjectId, defaults: &QuotaDefaults) -> Result<Quotas> {
        let class = QuotaDefaults(self.default_quotas(defaults).await?);
        self.limits(Limits::of_project(project), &class).await
    }

    /// Returns the limits of projects that have none of their own: those of the class `default`, else the defaults.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn default_quotas(&self, defaults: &QuotaDefaults) -> Result<Quotas> {
        self.limits(Limits::of_class(DEFAULT_CLASS), defaults).await
    }

    /// Returns limits and usage of a project.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn get_usage(&self, project: &ProjectId, defaults: &QuotaDefaults) -> Result<Vec<Usage>> {
        let quotas = self.get_quotas(project, defaults).await?;
        let mut select = Query::select();
        select.columns(["resource", "in_use", "reserved"]).from(USAGES);
        select.and_where(Expr::col("project_id").eq(project.as_str()));
        let rows = self.rows("looking up a project's usage", &select).await?;
        let none = |&resource| Usage { resource, limit: quotas.limit(resource), in_use: 0, reserved: 0 };
        let mut usages: Vec<Usage> = QuotaResource::ALL.iter().map(none).collect();
        for row in rows {
            let resource: QuotaResource = row.parsed("resource")?;
            if let Some(usage) = usages.iter_mut().find(|usage| usage.resource == resource) {
                usage.in_use = row.count("in_use")?;
                usage.reserved = row.count("reserved")?;
            }
        }
        Ok(usages)
    }

    /// Sets limits of a project; resources that are not named keep theirs.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn set_quotas(
        &self,
        project: &ProjectId,
        limits: &[(QuotaResource, Limit)],
        now: Instant,
    ) -> Result<()> {
        self.set_limits(Limits::of_project(project), limits, now).await
    }

    /// Removes a project's own limits, so that the defaults hold. What it uses stays counted.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn delete_quotas(&self, project: &ProjectId) -> Result<()> {
        let limits = Limits::of_project(project);
        transaction!(self, "removing quotas", |tx| {
            let mut delete = Query::delete();
            delete.from_table(limits.table).and_where(Expr::col(limits.column).eq(limits.owner));
            tx.execute(&delete).await.map(drop)
        })
    }

    /// Returns the limits of a class; any class exists.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn get_quota_class(&self, class: &str, defaults: &QuotaDefaults) -> Result<Quotas> {
        self.limits(Limits::of_class(class), defaults).await
    }

    /// Sets limits of a class; resources that are not named keep theirs.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name of more than 255 characters.
    pub async fn set_quota_class(
        &self,
        class: &str,
        limits: &[(QuotaResource, Limit)],
        now: Instant,
    ) -> Result<()> {
        if class.chars().count() > 255 {
            let reason = "it has more than 255 characters".to_owned();
            return Err(Error::Invalid { what: "the name of a quota class", reason });
        }
        self.set_limits(Limits::of_class(class), limits, now).await
    }

    /// Counts again what a project uses, and returns whether the counters were wrong.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn recount_usage(&self, project: &ProjectId) -> Result<bool> {
        transaction!(self, "counting a project's usage", |tx| {
            let mut wrong = false;
            for &resource in QuotaResource::ALL {
                // Touching the counters first holds back whoever would change them while we count.
                count(tx, project, resource, 0, 0).await?;
                let (in_use, reserved) = counted(tx, project, resource).await?;
                let mut update = Query::update();
                update.table(USAGES).value("in_use", in_use).value("reserved", reserved);
                update.and_where(is_of(project, resource));
                let differs = Expr::col("in_use").ne(in_use).or(Expr::col("reserved").ne(reserved));
                update.and_where(differs);
                wrong |= tx.execute(&update).await? > 0;
            }
            Ok(wrong)
        })
    }

    async fn limits(&self, limits: Limits<'_>, defaults: &QuotaDefaults) -> Result<Quotas> {
        let mut quotas = defaults.0;
        for row in self.rows("looking up quotas", &limits.select()).await? {
            quotas.set(row.parsed("resource")?, Limit::from_number(row.number("hard_limit")?));
        }
        Ok(quotas)
    }

    async fn set_limits(
        &self,
        limits: Limits<'_>,
        values: &[(QuotaResource, Limit)],
        now: Instant,
    ) -> Result<()> {
        transaction!(self, "setting quotas", |tx| {
            for (resource, limit) in values {
                let mut insert = Query::insert();
                insert.into_table(limits.table);
                insert.columns([limits.column, "resource", "hard_limit", "updated_at"]);
                insert.values_panic([
                    Expr::val(limits.owner),
                    Expr::val(resource.as_str()),
                    Expr::val(limit.as_number()),
                    Expr::val(now.as_micros()),
                ]);
                let replace = OnConflict::columns([limits.column, "resource"])
                    .update_columns(["hard_limit", "updated_at"])
                    .to_owned();
                tx.execute(insert.on_conflict(replace)).await?;
            }
            Ok(())
        })
    }
}

/// Returns how a checkpoint in that state counts: (in use, reserved).
pub(crate) const fn weight(state: CheckpointState) -> (i64, i64) {
    use CheckpointState as S;
    match state {
        S::Protecting | S::WaitCopying | S::Copying => (0, 1),
        S::Available | S::Error | S::Deleting | S::ErrorDeleting => (1, 0),
        S::Deleted => (0, 0),
    }
}

/// Charges a project for one more: in use for a plan, reserved for a checkpoint that is about to be made.
pub(crate) async fn charge(
    tx: &mut Transaction,
    project: &ProjectId,
    resource: QuotaResource,
    many: i64,
    defaults: &QuotaDefaults,
) -> Result<()> {
    let mut limit = defaults.0.limit(resource);
    for limits in [Limits::of_project(project), Limits::of_class(DEFAULT_CLASS)] {
        let select = limits.select().and_where(Expr::col("resource").eq(resource.as_str())).take();
        if let Some(row) = tx.rows(&select).await?.first() {
            limit = Limit::from_number(row.number("hard_limit")?);
            break;
        }
    }
    let (in_use, reserved) = added(resource, many);
    match limit {
        Limit::Unlimited => count(tx, project, resource, in_use, reserved).await,
        Limit::At(limit) => {
            let most = number("a quota", limit)?;
            if add(tx, project, resource, in_use, reserved, Some(most)).await? {
                return Ok(());
            }
            Err(Error::OverQuota { resource, limit })
        }
    }
}

/// Charges projects for as many more as each makes, as [`charge`] does, with a few statements for all of them. A refusal
/// does not tell which of several projects has no room.
pub(crate) async fn charge_all(
    tx: &mut Transaction,
    charges: &BTreeMap<ProjectId, i64>,
    resource: QuotaResource,
    defaults: &QuotaDefaults,
) -> Result<()> {
    if let (1, Some((project, many))) = (charges.len(), charges.first_key_value()) {
        return charge(tx, project, resource, *many, defaults).await;
    }
    let projects: Vec<&str> = charges.keys().map(ProjectId::as_str).collect();
    for some in projects.chunks(ROWS) {
        let of_these = |select: &mut SelectStatement| {
            select.and_where(Expr::col("project_id").is_in(some.iter().copied()));
            select.and_where(Expr::col("resource").eq(resource.as_str())).take()
        };
        let mut general = defaults.0.limit(resource);
        let of_class = Limits::of_class(DEFAULT_CLASS).select();
        for row in tx.rows(&of_class).await? {
            if row.text("resource")? == resource.as_str() {
                general = Limit::from_number(row.number("hard_limit")?);
            }
        }
        let own = of_these(Query::select().columns(["project_id", "hard_limit"]).from("quotas"));
        let mut limits: HashMap<String, Limit> = HashMap::new();
        for row in tx.rows(&own).await? {
            limits.insert(row.text("project_id")?, Limit::from_number(row.number("hard_limit")?));
        }
        let counted = of_these(Query::select().column("project_id").from(USAGES));
        let counted = tx.rows(&counted).await?;
        let counted: HashSet<String> =
            counted.iter().map(|row| row.text("project_id")).collect::<Result<_>>()?;
        let missing: Vec<&str> = some.iter().copied().filter(|project| !counted.contains(*project)).collect();
        add_counters(tx, &missing, resource).await?;
        // Those of which each has the same limit and makes as many.
        let mut alike: BTreeMap<(i64, i64), Vec<&str>> = BTreeMap::new();
        for (project, many) in charges.iter().filter(|(project, _)| some.contains(&project.as_str())) {
            let limit = limits.get(project.as_str()).copied().unwrap_or(general);
            alike.entry((limit.as_number(), *many)).or_default().push(project.as_str());
        }
        for ((limit, many), projects) in alike {
            let (in_use, reserved) = added(resource, many);
            let mut update = Query::update();
            update.table(USAGES);
            update.value("in_use", Expr::col("in_use").add(in_use));
            update.value("reserved", Expr::col("reserved").add(reserved));
            update.and_where(Expr::col("project_id").is_in(projects.iter().copied()));
            update.and_where(Expr::col("resource").eq(resource.as_str()));
            let Limit::At(limit) = Limit::from_number(limit) else {
                tx.execute(&update).await?;
                continue;
            };
            let sum = Expr::col("in_use").add(Expr::col("reserved")).add(many);
            update.and_where(sum.lte(number("a quota", limit)?));
            if tx.execute(&update).await? < projects.len() as u64 {
                return Err(Error::OverQuota { resource, limit });
            }
        }
    }
    Ok(())
}

/// Gives projects counters that stand at zero, unless somebody does so meanwhile.
async fn add_counters(tx: &mut Transaction, projects: &[&str], resource: QuotaResource) -> Result<()> {
    if projects.is_empty() {
        return Ok(());
    }
    let mut insert = Query::insert();
    insert.into_table(USAGES).columns(["project_id", "resource", "in_use", "reserved"]);
    for project in projects {
        let none = || Expr::val(0i64);
        insert.values_panic([Expr::val(*project), Expr::val(resource.as_str()), none(), none()]);
    }
    let keep = OnConflict::columns(["project_id", "resource"]).do_nothing_on(["project_id"]).to_owned();
    tx.execute(insert.on_conflict(keep)).await.map(drop)
}

/// Returns what so many more add: (in use, reserved).
const fn added(resource: QuotaResource, many: i64) -> (i64, i64) {
    match resource {
        QuotaResource::Plans => (many, 0),
        QuotaResource::Checkpoints => (0, many),
    }
}

/// Adds to a project's counters, whatever the limit.
pub(crate) async fn count(
    tx: &mut Transaction,
    project: &ProjectId,
    resource: QuotaResource,
    in_use: i64,
    reserved: i64,
) -> Result<()> {
    add(tx, project, resource, in_use, reserved, None).await.map(drop)
}

/// Adds to a project's counters unless their sum would pass `most`; returns whether it did.
async fn add(
    tx: &mut Transaction,
    project: &ProjectId,
    resource: QuotaResource,
    in_use: i64,
    reserved: i64,
    most: Option<i64>,
) -> Result<bool> {
    let mut update = Query::update();
    update.table(USAGES);
    update.value("in_use", Expr::col("in_use").add(in_use));
    update.value("reserved", Expr::col("reserved").add(reserved));
    update.and_where(is_of(project, resource));
    if let Some(most) = most {
        let sum = Expr::col("in_use").add(Expr::col("reserved")).add(in_use + reserved);
        update.and_where(sum.lte(most));
    }
    if tx.execute(&update).await? > 0 {
        return Ok(true);
    }
    let exists = Query::select().column("in_use").from(USAGES).and_where(is_of(project, resource)).take();
    if !tx.rows(&exists).await?.is_empty() {
        return Ok(false);
    }
    add_counters(tx, &[project.as_str()], resource).await?;
    Ok(tx.execute(&update).await? > 0)
}

fn is_of(project: &ProjectId, resource: QuotaResource) -> Expr {
    Expr::col("project_id").eq(project.as_str()).and(Expr::col("resource").eq(resource.as_str()))
}

/// Counts the rows of a project: (in use, reserved).
async fn counted(tx: &mut Transaction, project: &ProjectId, resource: QuotaResource) -> Result<(i64, i64)> {
    let mut select = Query::select();
    select.expr_as(Func::count(Expr::col("id")), "many");
    select.and_where(Expr::col("project_id").eq(project.as_str()));
    match resource {
        QuotaResource::Plans => {
            select.from("plans").and_where(Expr::col("deleted_at").is_null());
            let rows = tx.rows(&select).await?;
            Ok((rows.first().map_or(Ok(0), |row| row.number("many"))?, 0))
        }
        QuotaResource::Checkpoints => {
            select.from("checkpoints").column("state").group_by_col("state");
            let mut sum = (0, 0);
            for row in tx.rows(&select).await? {
                let (in_use, reserved) = weight(row.parsed("state")?);
                let many = row.number("many")?;
                sum = (sum.0 + in_use * many, sum.1 + reserved * many);
            }
            Ok(sum)
        }
    }
}
