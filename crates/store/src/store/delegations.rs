//! By what right work is done after its request has ended.
//!
//! Invariant: the row is there before the right is made, and goes after the right is gone. So whoever compares rows
//! with owners finds every right that outlived its owner, whatever died in between.

use karbor_types::{Instant, OperationId, OperationState};
use sea_query::{Cond, Expr, ExprTrait, Order, Query, SelectStatement};

use crate::sql::{Row, Table, Transaction, not_found};
use crate::store::transaction::transaction;
use crate::{Delegation, DelegationOwner, Error, Result, Store};

impl Table for Delegation {
    const TABLE: &'static str = "delegations";
    const WHAT: &'static str = "delegation";
    const COLUMNS: &'static [&'static str] = &[
        "owner_id",
        "owner_kind",
        "project_id",
        "user_id",
        "trust_id",
        "expires_at",
        "sealed",
        "created_at",
    ];

    fn read(row: &Row) -> Result<Self> {
        let owner = match row.text("owner_kind")?.as_str() {
            DelegationOwner::OPERATION => DelegationOwner::Operation(row.parsed("owner_id")?),
            DelegationOwner::SCHEDULED_OPERATION => {
                DelegationOwner::ScheduledOperation(row.parsed("owner_id")?)
            }
            other => {
                let reason = format!("nobody knows the owner `{other}`");
                return Err(Error::Invalid { what: "a delegation", reason });
            }
        };
        Ok(Self {
            owner,
            project: row.parsed("project_id")?,
            user: row.parsed("user_id")?,
            trust: row.optional_text("trust_id")?,
            expires_at: row.instant("expires_at")?,
            sealed: row.optional_text("sealed")?,
            created_at: row.instant("created_at")?,
        })
    }
}

impl Store {
    /// Notes that a right is about to be made.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if the owner has one; [`Error::Database`].
    pub async fn create_delegation(&self, new: &Delegation) -> Result<()> {
        let id = new.owner.id();
        let values = || {
            vec![
                ("owner_id", Expr::val(id.as_str())),
                ("owner_kind", Expr::val(new.owner.kind())),
                ("project_id", Expr::val(new.project.as_str())),
                ("user_id", Expr::val(new.user.as_str())),
                ("trust_id", Expr::val(new.trust.clone())),
                ("expires_at", Expr::val(new.expires_at.as_micros())),
                ("sealed", Expr::val(new.sealed.clone())),
                ("created_at", Expr::val(new.created_at.as_micros())),
            ]
        };
        transaction!(self, "noting a delegation", |tx| { tx.insert::<Delegation>(&id, values()).await })
    }

    /// Notes the trust that was made.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the row is gone meanwhile: then the trust must go too.
    pub async fn set_delegated_trust(&self, owner: DelegationOwner, trust: &str) -> Result<()> {
        let mut update = Query::update();
        update.table(Delegation::TABLE).value("trust_id", trust).and_where(is_of(owner));
        transaction!(self, "noting a trust", |tx| {
            match tx.execute(&update).await? {
                0 => Err(not_found::<Delegation>(&owner.id())),
                _ => Ok(()),
            }
        })
    }

    /// Forgets a right that is gone.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn remove_delegation(&self, owner: DelegationOwner) -> Result<()> {
        let mut delete = Query::delete();
        delete.from_table(Delegation::TABLE).and_where(is_of(owner));
        transaction!(self, "forgetting a delegation", |tx| { tx.execute(&delete).await.map(drop) })
    }

    /// Forgets a right that is gone, if it still stands as it was seen: an operation that was taken up again meanwhile has
    /// another one under the same owner.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn forget_delegation(&self, seen: &Delegation) -> Result<()> {
        let mut delete = Query::delete();
        delete.from_table(Delegation::TABLE).and_where(is_of(seen.owner));
        delete.and_where(Expr::col("created_at").eq(seen.created_at.as_micros()));
        delete.and_where(match &seen.trust {
            Some(trust) => Expr::col("trust_id").eq(trust.as_str()),
            None => Expr::col("trust_id").is_null(),
        });
        transaction!(self, "forgetting a delegation", |tx| { tx.execute(&delete).await.map(drop) })
    }

    /// Returns by what right an operation is done: its own, or that of the scheduled operation it comes from.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn delegation_of(&self, operation: OperationId) -> Result<Option<Delegation>> {
        let doing = "looking up a delegation";
        let mut own = Delegation::select();
        own.and_where(is_of(DelegationOwner::Operation(operation)));
        if let Some(row) = self.rows(doing, &own).await?.first() {
            return Delegation::read(row).map(Some);
        }
        let mut inherited = Delegation::select();
        inherited.and_where(is_kind(DelegationOwner::SCHEDULED_OPERATION)).and_where(
            Expr::col("owner_id").in_subquery(
                logged()
                    .and_where(Expr::col("operation_id").eq(operation.to_string()))
                    .and_where(Expr::col("scheduled_operation_id").is_not_null())
                    .take(),
            ),
        );
        self.rows(doing, &inherited).await?.first().map(Delegation::read).transpose()
    }

    /// Lists rights whose owner has ended, and those asked for before an instant whose owner is not there: before that it
    /// may still be on its way.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn list_idle_delegations(&self, before: Instant, limit: u64) -> Result<Vec<Delegation>> {
        let doing = "looking for rights of what has ended";
        let mut idle = Vec::new();
        let unscheduled = |standing| unscheduled(standing, before, limit);
        for statement in [ended(before, limit), unscheduled(NEW), unscheduled(RELEASED)] {
            for row in self.rows(doing, &statement).await? {
                idle.push(Delegation::read(&row)?);
            }
        }
        Ok(idle)
    }

    /// Notes of the rights asked for before an instant whose scheduled operations are there that nobody need look for these
    /// any more, until they are deleted.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn settle_delegations(&self, before: Instant) -> Result<()> {
        const DOING: &str = "noting whose rights are in use";
        let is_new = Cond::all()
            .add(is_kind(DelegationOwner::SCHEDULED_OPERATION))
            .add(Expr::col("standing").eq(NEW))
            .add(Expr::col("created_at").lt(before.as_micros()))
            .add(Expr::exists(of_owner("scheduled_operations").take()));
        let mut found = Query::select();
        found.column("owner_id").from(Delegation::TABLE).cond_where(is_new.clone()).limit(1);
        // There is seldom one, and who only looks holds up nobody who writes.
        if self.rows(DOING, &found).await?.is_empty() {
            return Ok(());
        }
        let mut settle = Query::update();
        settle.table(Delegation::TABLE).value("standing", SETTLED).cond_where(is_new);
        transaction!(self, DOING, |tx| { tx.execute(&settle).await.map(drop) })
    }
}

/// How far a right of a scheduled operation has come; those of operations stay new. See migration 7.
pub(crate) const NEW: i64 = 0;
const SETTLED: i64 = 1;
pub(crate) const RELEASED: i64 = 2;

/// Notes that the owner of a right is deleted. That a right is settled is written only while it is new, so that whoever
/// saw the owner just before cannot hide it.
pub(crate) async fn release(tx: &mut Transaction, owner: DelegationOwner) -> Result<()> {
    let mut update = Query::update();
    update.table(Delegation::TABLE).value("standing", RELEASED).and_where(is_of(owner));
    tx.execute(&update).await.map(drop)
}

/// The rights of operations that have ended, or never came.
pub(crate) fn ended(before: Instant, limit: u64) -> SelectStatement {
    let has_ended = of_owner("operations")
        .and_where(Expr::col(("operations", "ended_at")).is_not_null())
        // One that is made before its operation is taken up again belongs to no end that has been.
        .and_where(
            Expr::col(("operations", "ended_at"))
                .gte(Expr::col((Delegation::TABLE, "created_at")))
                .or(Expr::col((Delegation::TABLE, "created_at")).lt(before.as_micros())),
        )
        .take();
    let is_gone =
        Expr::col("created_at").lt(before.as_micros()).and(Expr::exists(of_owner("operations").take()).not());
    let mut select = Delegation::select();
    select.and_where(is_kind(DelegationOwner::OPERATION)).and_where(Expr::col("standing").eq(NEW));
    select.and_where(Expr::exists(has_ended).or(is_gone));
    select.order_by("created_at", Order::Asc).limit(limit).take()
}

/// The rights of scheduled operations that are gone, and of which nothing is at work any more.
pub(crate) fn unscheduled(standing: i64, before: Instant, limit: u64) -> SelectStatement {
    let states = [OperationState::Queued, OperationState::Running].map(OperationState::as_str);
    let at_work = Query::select()
        .expr(Expr::val(1i64))
        .from("operation_logs")
        .inner_join("operations", Expr::col(("operations", "id")).equals(("operation_logs", "operation_id")))
        .and_where(Expr::col(("operations", "state")).is_in(states))
        .and_where(
            Expr::col(("operation_logs", "scheduled_operation_id")).equals((Delegation::TABLE, "owner_id")),
        )
        .take();
    let mut select = Delegation::select();
    select.and_where(is_kind(DelegationOwner::SCHEDULED_OPERATION));
    select.and_where(Expr::col("standing").eq(standing));
    if standing == NEW {
        // The owner of what is younger may still be on its way.
        select.and_where(Expr::col("created_at").lt(before.as_micros()));
    }
    select.and_where(Expr::exists(of_owner("scheduled_operations").take()).not());
    select.and_where(Expr::exists(at_work).not());
    select.order_by("created_at", Order::Asc).limit(limit).take()
}

/// The row that is the owner of a right.
fn of_owner(table: &'static str) -> SelectStatement {
    let mut select = Query::select();
    select.expr(Expr::val(1i64)).from(table);
    select.and_where(Expr::col((table, "id")).equals((Delegation::TABLE, "owner_id"))).take()
}

/// Wipes the login of an operation that has ended.
pub(crate) async fn wipe_login(tx: &mut Transaction, operation: OperationId) -> Result<()> {
    let mut update = Query::update();
    update.table(Delegation::TABLE).value("sealed", Option::<String>::None);
    update.and_where(is_of(DelegationOwner::Operation(operation)));
    tx.execute(&update).await.map(drop)
}

fn logged() -> SelectStatement {
    Query::select().column("scheduled_operation_id").from("operation_logs").take()
}

fn is_kind(kind: &'static str) -> Expr {
    Expr::col("owner_kind").eq(kind)
}

fn is_of(owner: DelegationOwner) -> Expr {
    Expr::col("owner_id").eq(owner.id()).and(is_kind(owner.kind()))
}
