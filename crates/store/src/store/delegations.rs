//! By what right work is done after its request has ended.
//!
//! Invariant: the row is there before the right is made, and goes after the right is gone. So whoever compares rows
//! with owners finds every right that outlived its owner, whatever died in between.

use karbor_types::{Instant, OperationId, OperationState};
use sea_query::{Expr, ExprTrait, Order, Query, SelectStatement};

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
        let ids = |table: &'static str| Query::select().column("id").from(table).take();
        let unfinished = || {
            let states = [OperationState::Queued, OperationState::Running].map(OperationState::as_str);
            ids("operations").and_where(Expr::col("state").is_in(states)).take()
        };
        // One that is made before its operation is taken up again belongs to no end that has been.
        let ended = ids("operations")
            .and_where(Expr::col("ended_at").is_not_null())
            .and_where(
                Expr::col(("operations", "ended_at"))
                    .gte(Expr::col((Delegation::TABLE, "created_at")))
                    .or(Expr::col((Delegation::TABLE, "created_at")).lt(before.as_micros())),
            )
            .take();
        let at_work = logged()
            .and_where(Expr::col("scheduled_operation_id").is_not_null())
            .and_where(Expr::col("operation_id").in_subquery(unfinished()))
            .take();
        let is_old = || Expr::col("created_at").lt(before.as_micros());
        let owner = || Expr::col("owner_id");
        let has_ended = is_kind(DelegationOwner::OPERATION).and(owner().in_subquery(ended));
        let is_gone =
            is_kind(DelegationOwner::OPERATION).and(is_old()).and(owner().not_in_subquery(ids("operations")));
        let is_unscheduled = is_kind(DelegationOwner::SCHEDULED_OPERATION)
            .and(is_old())
            .and(owner().not_in_subquery(ids("scheduled_operations")))
            .and(owner().not_in_subquery(at_work));
        let mut select = Delegation::select();
        select
            .and_where(has_ended.or(is_gone).or(is_unscheduled))
            .order_by("created_at", Order::Asc)
            .limit(limit);
        self.rows("looking for delegations of what has ended", &select)
            .await?
            .iter()
            .map(Delegation::read)
            .collect()
    }
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
