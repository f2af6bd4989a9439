//! Operations: queued, claimed, renewed, ended.
//!
//! `claimable_at` is when somebody may claim an operation: its due time while it is queued, the end of its lease while
//! it runs, never once it has ended. [`own`] is the fence: each write of a worker begins with it, and no claim can come
//! between it and the commit, because both change the operation's row.

use karbor_types::{Epoch, Instant, OperationId, OperationState};
use sea_query::{Expr, ExprTrait, Func, Order, Query, SelectStatement, UpdateStatement};

use crate::sql::{Row, Table, Transaction, optional_json};
use crate::store::beginnings::tell_occurrence;
use crate::store::checkpoints::change_checkpoint;
use crate::store::delegations::wipe_login;
use crate::store::logs::{Ended, insert_log, update_log};
use crate::store::readers::hold_what_is_read;
use crate::store::runs::change_run;
use crate::store::transaction::transaction;
use crate::{
    Backlog, Claim, ClaimOptions, Claimed, Error, Finish, NewOperation, Operation, OperationQuery, Renewal,
    Restore, Result, Store, SubjectChange, Verification,
};

/// How many candidates a claim looks at before it looks again.
const CANDIDATES: u64 = 8;

/// How often a claim looks before it leaves the rest to others: its caller comes back anyway.
const LOOKS: u32 = 16;

impl Table for Operation {
    const TABLE: &'static str = "operations";
    const WHAT: &'static str = "operation";
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "kind",
        "project_id",
        "user_id",
        "plan_id",
        "checkpoint_id",
        "restore_id",
        "verification_id",
        "provider_id",
        "state",
        "epoch",
        "owner",
        "lease_until",
        "attempt",
        "priority",
        "due_at",
        "cancel_requested",
        "request",
        "result",
        "reason",
        "created_at",
        "started_at",
        "ended_at",
    ];

    fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.parsed("id")?,
            kind: row.parsed("kind")?,
            project: row.parsed("project_id")?,
            user: row.optional_parsed("user_id")?,
            plan: row.optional_parsed("plan_id")?,
            checkpoint: row.optional_parsed("checkpoint_id")?,
            restore: row.optional_parsed("restore_id")?,
            verification: row.optional_parsed("verification_id")?,
            provider: row.optional_parsed("provider_id")?,
            state: row.parsed("state")?,
            epoch: Epoch(row.count("epoch")?),
            owner: row.optional_text("owner")?,
            lease_until: row.optional_instant("lease_until")?,
            attempt: row.count("attempt")?,
            priority: row.count("priority")?,
            due_at: row.instant("due_at")?,
            cancel_requested: row.truth("cancel_requested")?,
            request: row.optional_json("request")?,
            result: row.optional_json("result")?,
            reason: row.optional_text("reason")?,
            created_at: row.instant("created_at")?,
            started_at: row.optional_instant("started_at")?,
            ended_at: row.optional_instant("ended_at")?,
        })
    }
}

impl Store {
    /// Queues an operation that is about no row of its own (a sweep, a restore that is only tried).
    ///
    /// # Errors
    /// [`Error::AlreadyExists`]; [`Error::NotFound`] and [`Error::Conflict`] of the checkpoint that it is to read.
    pub async fn create_operation(&self, operation: &NewOperation, now: Instant) -> Result<Operation> {
        transaction!(self, "queueing an operation", |tx| {
            hold_what_is_read(tx, operation).await?;
            insert_operation(tx, operation, OperationState::Queued.as_str(), now).await?;
            tx.find(&operation.id.to_string()).await
        })
    }

    /// Returns an operation.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get_operation(&self, id: OperationId) -> Result<Operation> {
        self.find("looking up an operation", &id.to_string()).await
    }

    /// Lists operations.
    ///
    /// # Errors
    /// [`Error::UnknownMarker`].
    pub async fn list_operations(&self, query: &OperationQuery) -> Result<Vec<Operation>> {
        self.list("listing operations", query, None).await
    }

    /// Claims the operation that is most urgent among those that are due and that nobody holds: queued ones, and
    /// running ones whose lease ran out, which go first among those of one priority. `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn claim(&self, options: &ClaimOptions, now: Instant) -> Result<Option<Claimed>> {
        if options.kinds.is_empty() {
            return Ok(None);
        }
        for _ in 0..LOOKS {
            // Read outside of the transaction: looking for work must not hold back those who have some.
            let candidates = self.claimable(options, now).await?;
            if candidates.is_empty() {
                return Ok(None);
            }
            for (id, epoch) in candidates {
                if let Some(claimed) = self.claim_one(id, epoch, options, now).await? {
                    return Ok(Some(claimed));
                }
            }
            // Others got all of them, so there was progress; what is left is looked at afresh.
        }
        Ok(None)
    }

    /// Returns a few of the most urgent operations that can be claimed, with their epochs.
    async fn claimable(&self, options: &ClaimOptions, now: Instant) -> Result<Vec<(OperationId, u32)>> {
        let doing = "looking for an operation to claim";
        let mut priority = None;
        while let Some(row) = self.rows(doing, &next_priority(priority)).await?.first() {
            let level = row.number("priority")?;
            for state in [OperationState::Running, OperationState::Queued] {
                let rows = self.rows(doing, &most_urgent(options, level, state, now)).await?;
                if !rows.is_empty() {
                    return rows.iter().map(|row| Ok((row.parsed("id")?, row.count("epoch")?))).collect();
                }
            }
            priority = Some(level);
        }
        Ok(Vec::new())
    }

    /// Counts the operations that wait or run, by kind and state, with the earliest due time of each.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn backlog(&self) -> Result<Vec<Backlog>> {
        let mut select = Query::select();
        select.columns(["kind", "state"]).from(Operation::TABLE);
        select.expr_as(Func::count(Expr::col("id")), "number");
        select.expr_as(Func::min(Expr::col("due_at")), "due_at");
        select.and_where(Expr::col("claimable_at").is_not_null()).group_by_columns(["kind", "state"]);
        let rows = self.rows("counting operations", &select).await?;
        let read = |row: &Row| {
            Ok(Backlog {
                kind: row.parsed("kind")?,
                state: row.parsed("state")?,
                number: row.count("number")?,
                due_at: row.instant("due_at")?,
            })
        };
        rows.iter().map(read).collect()
    }

    async fn claim_one(
        &self,
        id: OperationId,
        epoch: u32,
        options: &ClaimOptions,
        now: Instant,
    ) -> Result<Option<Claimed>> {
        let Some(next) = epoch.checked_add(1) else {
            return Err(Error::Invalid {
                what: "a claim",
                reason: format!("operation {id} ran out of epochs"),
            });
        };
        let until = now.plus_seconds(i64::from(options.lease_seconds)).as_micros();
        let mut update = Query::update();
        update
            .table(Operation::TABLE)
            .value("epoch", i64::from(next))
            .value("revision", Expr::col("revision").add(1i64))
            .value("state", OperationState::Running.as_str())
            .value("owner", options.owner.as_str())
            .value("lease_until", until)
            .value("claimable_at", until)
            .value("attempt", Expr::col("attempt").add(1i64))
            .value("started_at", Func::coalesce([Expr::col("started_at"), Expr::val(now.as_micros())]))
            .value("reason", Option::<String>::None)
            .and_where(Expr::col("id").eq(id.to_string()))
            .and_where(Expr::col("epoch").eq(i64::from(epoch)))
            .and_where(Expr::col("claimable_at").lte(now.as_micros()));
        transaction!(self, "claiming an operation", |tx| {
            if tx.execute(&update).await? == 0 {
                return Ok(None);
            }
            let operation: Operation = tx.find(&id.to_string()).await?;
            let claim = Claim { operation: id, epoch: Epoch(next) };
            Ok(Some(Claimed { claim, operation }))
        })
    }

    /// Prolongs the lease to `now` + `lease_seconds`.
    ///
    /// # Errors
    /// [`Error::LeaseLost`].
    pub async fn renew(&self, claim: &Claim, lease_seconds: u32, now: Instant) -> Result<Renewal> {
        let lease_until = now.plus_seconds(i64::from(lease_seconds));
        transaction!(self, "renewing a lease", |tx| {
            let mut update = owned(claim);
            update.value("lease_until", lease_until.as_micros());
            update.value("claimable_at", lease_until.as_micros());
            write_owned(tx, claim, &update).await?;
            let operation: Operation = tx.find(&claim.operation.to_string()).await?;
            Ok(Renewal { lease_until, cancel_requested: operation.cancel_requested })
        })
    }

    /// Gives an operation back unfinished, to be claimed by anybody at once; the attempt is not counted. For a
    /// worker that is told to stop.
    ///
    /// # Errors
    /// [`Error::LeaseLost`].
    pub async fn release(&self, claim: &Claim, now: Instant) -> Result<()> {
        transaction!(self, "releasing an operation", |tx| {
            let mut update = owned(claim);
            give_back(&mut update, now);
            update.value("attempt", Expr::col("attempt").sub(1i64));
            write_owned(tx, claim, &update).await
        })
    }

    /// Gives an operation back unfinished, to be claimed from `due_at` on; the attempt counts. For what is expected to
    /// succeed later.
    ///
    /// # Errors
    /// [`Error::LeaseLost`].
    pub async fn postpone(&self, claim: &Claim, due_at: Instant, reason: &str) -> Result<()> {
        transaction!(self, "putting an operation off", |tx| {
            let mut update = owned(claim);
            give_back(&mut update, due_at);
            update.value("due_at", due_at.as_micros()).value("reason", reason);
            write_owned(tx, claim, &update).await
        })
    }

    /// Asks for an operation's end. A queued one becomes due at once, so that a worker ends it.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it has ended.
    pub async fn request_cancel(&self, id: OperationId, now: Instant) -> Result<()> {
        let is_it = Expr::col("id").eq(id.to_string());
        transaction!(self, "asking for an operation's end", |tx| {
            let mut ask = Query::update();
            ask.table(Operation::TABLE).value("cancel_requested", 1i64).and_where(is_it.clone());
            ask.and_where(Expr::col("claimable_at").is_not_null());
            if tx.execute(&ask).await? == 0 {
                let operation: Operation = tx.find(&id.to_string()).await?;
                let state = operation.state.to_string();
                return Err(Error::Conflict { what: Operation::WHAT, id: id.to_string(), state });
            }
            let mut hurry = Query::update();
            hurry.table(Operation::TABLE).value("claimable_at", now.as_micros()).and_where(is_it.clone());
            hurry.and_where(Expr::col("state").eq(OperationState::Queued.as_str()));
            hurry.and_where(Expr::col("claimable_at").gt(now.as_micros()));
            tx.execute(&hurry).await.map(drop)
        })
    }

    /// Returns whether somebody asked for the end of the operation that is claimed.
    ///
    /// # Errors
    /// [`Error::LeaseLost`].
    pub async fn cancel_requested(&self, claim: &Claim) -> Result<bool> {
        let mut select = Query::select();
        select.columns(["id", "cancel_requested"]).from(Operation::TABLE).and_where(is_owned(claim));
        let rows = self.rows("looking whether an operation shall end", &select).await?;
        rows.first().ok_or(Error::LeaseLost { operation: claim.operation })?.truth("cancel_requested")
    }

    /// Changes the row that the operation is about, while it goes on. The operation log follows the state.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; [`Error::Conflict`] when the row's state does not know the event; [`Error::Invalid`]
    /// when the operation is about no such row.
    pub async fn change_subject(&self, claim: &Claim, change: &SubjectChange, now: Instant) -> Result<()> {
        transaction!(self, "changing what an operation is about", |tx| {
            own(tx, claim).await?;
            let status = write_subject(tx, claim, change, now).await?;
            update_log(tx, claim.operation, status, None, now).await
        })
    }

    /// Ends an operation: its state, the row that it is about, the operation log and the project's usage, in one
    /// transaction. The claim is used up.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; [`Error::Conflict`] when the row's state does not know the event; [`Error::Invalid`]
    /// when the operation is about no such row, or for a state that is not an end.
    pub async fn finish(&self, claim: &Claim, finish: &Finish, now: Instant) -> Result<()> {
        if !finish.state.is_final() {
            let reason = format!("{} is not an end", finish.state);
            return Err(Error::Invalid { what: "the end of an operation", reason });
        }
        let result = optional_json("the result of an operation", &finish.result)?;
        transaction!(self, "ending an operation", |tx| {
            let mut update = owned(claim);
            update
                .value("state", finish.state.as_str())
                .value("owner", Option::<String>::None)
                .value("lease_until", Option::<i64>::None)
                .value("claimable_at", Option::<i64>::None)
                .value("result", result.clone())
                .value("reason", finish.reason.clone())
                .value("ended_at", now.as_micros());
            write_owned(tx, claim, &update).await?;
            if !matches!(finish.subject, SubjectChange::Checkpoint(_)) {
                wipe_login(tx, claim.operation).await?;
            }
            tell_occurrence(tx, claim.operation, now).await?;
            let status = write_subject(tx, claim, &finish.subject, now).await?;
            let ended = Ended { reason: finish.reason.as_deref(), extra_info: &finish.extra_info };
            update_log(tx, claim.operation, status, Some(ended), now).await
        })
    }
}

/// Queues an operation, and records it in the operation log with the status of what it is about.
pub(crate) async fn insert_operation(
    tx: &mut Transaction,
    operation: &NewOperation,
    status: &'static str,
    now: Instant,
) -> Result<()> {
    tx.insert::<Operation>(&operation.id.to_string(), operation_values(operation, now)?).await?;
    insert_log(tx, operation, status, now).await
}

/// Returns what stands in the row of an operation that is queued.
pub(crate) fn operation_values(operation: &NewOperation, now: Instant) -> Result<Vec<(&'static str, Expr)>> {
    let due_at = operation.due_at.as_micros();
    let occurrence = operation.occurrence;
    Ok(vec![
        ("id", Expr::val(operation.id.to_string())),
        ("kind", Expr::val(operation.kind.as_str())),
        ("project_id", Expr::val(operation.project.as_str())),
        ("user_id", Expr::val(operation.user.as_ref().map(|user| user.as_str().to_owned()))),
        ("plan_id", Expr::val(operation.plan.map(|id| id.to_string()))),
        ("checkpoint_id", Expr::val(operation.checkpoint.map(|id| id.to_string()))),
        ("restore_id", Expr::val(operation.restore.map(|id| id.to_string()))),
        ("verification_id", Expr::val(operation.verification.map(|id| id.to_string()))),
        ("provider_id", Expr::val(operation.provider.map(|id| id.to_string()))),
        ("state", Expr::val(OperationState::Queued.as_str())),
        ("epoch", Expr::val(0i64)),
        ("revision", Expr::val(0i64)),
        ("claimable_at", Expr::val(due_at)),
        ("attempt", Expr::val(0i64)),
        ("priority", Expr::val(i64::from(operation.priority))),
        ("due_at", Expr::val(due_at)),
        ("cancel_requested", Expr::val(0i64)),
        ("request", Expr::val(optional_json("the request of an operation", &operation.request)?)),
        ("created_at", Expr::val(now.as_micros())),
        ("occurrence_id", Expr::val(occurrence.map(|(id, _)| id.to_string()))),
        ("occurrence_attempt", Expr::val(occurrence.map(|(_, attempt)| i64::from(attempt)))),
    ])
}

/// Fences: succeeds only if the claim is the newest one and its operation has not ended, and holds it so until the end of
/// the transaction.
pub(crate) async fn own(tx: &mut Transaction, claim: &Claim) -> Result<()> {
    write_owned(tx, claim, &owned(claim)).await
}

/// The highest priority that operations have or had, below one.
pub(crate) fn next_priority(below: Option<i64>) -> SelectStatement {
    let mut select = Query::select();
    select.column("priority").from(Operation::TABLE);
    if let Some(below) = below {
        select.and_where(Expr::col("priority").lt(below));
    }
    select.order_by("priority", Order::Desc).limit(1).take()
}

/// The most urgent of one priority and state.
pub(crate) fn most_urgent(
    options: &ClaimOptions,
    priority: i64,
    state: OperationState,
    now: Instant,
) -> SelectStatement {
    let mut select = Query::select();
    select.columns(["id", "epoch"]).from(Operation::TABLE);
    select.and_where(Expr::col("priority").eq(priority)).and_where(Expr::col("state").eq(state.as_str()));
    select.and_where(Expr::col("claimable_at").lte(now.as_micros()));
    select.and_where(Expr::col("kind").is_in(options.kinds.iter().map(|kind| kind.as_str())));
    if !options.skip_projects.is_empty() {
        let skipped = options.skip_projects.iter().map(|project| project.as_str());
        select.and_where(Expr::col("project_id").is_not_in(skipped));
    }
    select.order_by("claimable_at", Order::Asc).order_by("id", Order::Asc).limit(CANDIDATES).take()
}

/// Begins an update of the operation's row that finds nothing when the claim is stale.
fn owned(claim: &Claim) -> UpdateStatement {
    Query::update()
        .table(Operation::TABLE)
        .value("revision", Expr::col("revision").add(1i64))
        .and_where(is_owned(claim))
        .take()
}

fn is_owned(claim: &Claim) -> Expr {
    Expr::col("id")
        .eq(claim.operation.to_string())
        .and(Expr::col("epoch").eq(i64::from(claim.epoch.0)))
        .and(Expr::col("state").eq(OperationState::Running.as_str()))
}

async fn write_owned(tx: &mut Transaction, claim: &Claim, update: &UpdateStatement) -> Result<()> {
    match tx.execute(update).await? {
        0 => Err(Error::LeaseLost { operation: claim.operation }),
        _ => Ok(()),
    }
}

fn give_back(update: &mut UpdateStatement, claimable_at: Instant) {
    update
        .value("state", OperationState::Queued.as_str())
        .value("owner", Option::<String>::None)
        .value("lease_until", Option::<i64>::None)
        .value("claimable_at", claimable_at.as_micros());
}

/// Changes the row that an operation is about, and returns the state that it has then.
async fn write_subject(
    tx: &mut Transaction,
    claim: &Claim,
    change: &SubjectChange,
    now: Instant,
) -> Result<Option<&'static str>> {
    if *change == SubjectChange::None {
        return Ok(None);
    }
    let operation: Operation = tx.find(&claim.operation.to_string()).await?;
    match (change, operation) {
        (SubjectChange::Checkpoint(change), Operation { checkpoint: Some(id), .. }) => {
            Ok(Some(change_checkpoint(tx, id, change, now).await?.as_str()))
        }
        (SubjectChange::Run(change), Operation { restore: Some(id), .. }) => {
            Ok(Some(change_run::<Restore>(tx, &id.to_string(), change, now).await?.as_str()))
        }
        (SubjectChange::Run(change), Operation { verification: Some(id), .. }) => {
            Ok(Some(change_run::<Verification>(tx, &id.to_string(), change, now).await?.as_str()))
        }
        (_, operation) => {
            let reason = format!("operation {} is about no such row", operation.id);
            Err(Error::Invalid { what: "a change", reason })
        }
    }
}
