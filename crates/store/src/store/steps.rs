//! Steps of operations.
//!
//! Thousands of them are written in one transaction: added many to a statement, and changed together where they are
//! changed alike.

use std::collections::BTreeMap;

use karbor_types::{Instant, OperationId, Progress, ResourceKey, StepState};
use sea_query::{Expr, ExprTrait, Func, OnConflict, Order, Query, UpdateStatement};

use crate::sql::{Row, Table, Transaction, number, optional_json};
use crate::store::operations::own;
use crate::store::transaction::transaction;
use crate::{Claim, Engine, Error, NewStep, OperationProgress, Result, Step, StepChange, StepEnd, Store};

/// How many rows one statement adds or changes; ten values to a row stay far below every engine's limit.
const ROWS: usize = 500;

impl Table for Step {
    const TABLE: &'static str = "steps";
    const WHAT: &'static str = "step";
    const COLUMNS: &'static [&'static str] = &[
        "operation_id",
        "ordinal",
        "resource_type",
        "resource_id",
        "hook",
        "state",
        "outcome",
        "reason",
        "attempts",
        "bytes_done",
        "bytes_total",
        "bytes_stored",
        "started_at",
        "ended_at",
    ];

    fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            operation: row.parsed("operation_id")?,
            resource: ResourceKey::new(row.text("resource_type")?.as_str(), row.text("resource_id")?),
            hook: row.text("hook")?,
            ordinal: row.count("ordinal")?,
            state: row.parsed("state")?,
            outcome: row.optional_json("outcome")?,
            reason: row.optional_text("reason")?,
            attempts: row.count("attempts")?,
            progress: Progress {
                bytes_done: row.count("bytes_done")?,
                bytes_total: row.optional_count("bytes_total")?,
                bytes_stored: row.count("bytes_stored")?,
            },
            started_at: row.optional_instant("started_at")?,
            ended_at: row.optional_instant("ended_at")?,
        })
    }
}

impl Store {
    /// Saves the steps of an operation as pending, all or none. Steps that stand already (same ordinal) stay as they
    /// are, so that a later attempt may save them again.
    ///
    /// # Errors
    /// [`Error::LeaseLost`].
    pub async fn save_steps(&self, claim: &Claim, steps: &[NewStep]) -> Result<()> {
        let operation = claim.operation.to_string();
        transaction!(self, "saving the steps of an operation", |tx| {
            own(tx, claim).await?;
            for some in steps.chunks(ROWS) {
                let mut insert = Query::insert();
                insert.into_table(Step::TABLE).columns([
                    "operation_id",
                    "ordinal",
                    "resource_type",
                    "resource_id",
                    "hook",
                    "state",
                    "attempts",
                    "bytes_done",
                    "bytes_stored",
                ]);
                for step in some {
                    insert.values_panic([
                        Expr::val(operation.as_str()),
                        Expr::val(i64::from(step.ordinal)),
                        Expr::val(step.resource.kind.as_str()),
                        Expr::val(step.resource.id.as_str()),
                        Expr::val(step.hook.as_str()),
                        Expr::val(StepState::Pending.as_str()),
                        Expr::val(0i64),
                        Expr::val(0i64),
                        Expr::val(0i64),
                    ]);
                }
                let keep =
                    OnConflict::columns(["operation_id", "ordinal"]).do_nothing_on(["ordinal"]).to_owned();
                tx.execute(insert.on_conflict(keep)).await?;
            }
            Ok(())
        })
    }

    /// Notes changes to many steps in one transaction; several of one step count in their order.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; [`Error::NotFound`] when one of the steps does not exist.
    pub async fn record_steps(&self, claim: &Claim, changes: &[StepChange], now: Instant) -> Result<()> {
        let alike = group(changes)?;
        transaction!(self, "noting what became of steps", |tx| {
            own(tx, claim).await?;
            for (change, ordinals) in &alike {
                for some in ordinals.chunks(ROWS) {
                    write_change(tx, claim.operation, change, some, now).await?;
                }
            }
            Ok(())
        })
    }

    /// Notes that a step was started.
    ///
    /// # Errors
    /// As [`Store::record_steps`].
    pub async fn step_started(&self, claim: &Claim, ordinal: u32, now: Instant) -> Result<()> {
        self.record_steps(claim, &[StepChange::Started { ordinal }], now).await
    }

    /// Notes how a step ended.
    ///
    /// # Errors
    /// As [`Store::record_steps`].
    pub async fn step_finished(&self, claim: &Claim, ordinal: u32, end: StepEnd, now: Instant) -> Result<()> {
        self.record_steps(claim, &[StepChange::Finished { ordinal, end }], now).await
    }

    /// Notes how far a step has come.
    ///
    /// # Errors
    /// As [`Store::record_steps`].
    pub async fn step_progress(
        &self,
        claim: &Claim,
        ordinal: u32,
        progress: Progress,
        now: Instant,
    ) -> Result<()> {
        self.record_steps(claim, &[StepChange::Progressed { ordinal, progress }], now).await
    }

    /// Returns up to `limit` steps of an operation in order, those behind `after` if it is given.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn list_steps(
        &self,
        operation: OperationId,
        after: Option<u32>,
        limit: u32,
    ) -> Result<Vec<Step>> {
        let mut select = Step::select();
        select.and_where(Expr::col("operation_id").eq(operation.to_string()));
        if let Some(after) = after {
            select.and_where(Expr::col("ordinal").gt(i64::from(after)));
        }
        select.order_by("ordinal", Order::Asc).limit(u64::from(limit));
        self.rows("listing the steps of an operation", &select).await?.iter().map(Step::read).collect()
    }

    /// Returns when the first of an operation's steps of these hooks was started and when the last of them ended;
    /// nothing while one of the two has not happened.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn span_of_hooks(
        &self,
        operation: OperationId,
        hooks: &[&str],
    ) -> Result<Option<(Instant, Instant)>> {
        let mut select = Query::select();
        select.expr_as(Func::min(Expr::col("started_at")), "began_at").from(Step::TABLE);
        select.expr_as(Func::max(Expr::col("ended_at")), "ended_at");
        select.and_where(Expr::col("operation_id").eq(operation.to_string()));
        select.and_where(Expr::col("hook").is_in(hooks.iter().copied()));
        let rows = self.rows("looking at the times of an operation's steps", &select).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(row.optional_instant("began_at")?.zip(row.optional_instant("ended_at")?))
    }

    /// Returns how far an operation has come. It is all zero for an operation without steps.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn operation_progress(&self, operation: OperationId) -> Result<OperationProgress> {
        // Sums are of another type than what is summed, on all engines but SQLite.
        let whole = if self.engine() == Engine::Mysql { "SIGNED" } else { "BIGINT" };
        let sum = |expr: Expr| Expr::from(Func::sum(expr)).cast_as(whole);
        let (done, total, stored) =
            (Expr::col("bytes_done"), Expr::col("bytes_total"), Expr::col("bytes_stored"));
        let mut select = Query::select();
        select.column("state").from(Step::TABLE).group_by_col("state");
        select.expr_as(Func::count(Expr::col("ordinal")), "many");
        select.expr_as(Func::count(total.clone()), "with_total");
        select.expr_as(sum(done.clone()), "done");
        select.expr_as(sum(Func::coalesce([total, done]).into()), "total");
        select.expr_as(sum(stored), "stored");
        select.and_where(Expr::col("operation_id").eq(operation.to_string()));
        let mut progress = OperationProgress::default();
        let (mut with_total, mut all) = (0, 0);
        for row in self.rows("summing the progress of an operation", &select).await? {
            let many = row.count("many")?;
            match row.parsed("state")? {
                StepState::Pending => progress.pending = many,
                StepState::Running => progress.running = many,
                StepState::Done => progress.done = many,
                StepState::Failed => progress.failed = many,
                StepState::Skipped => progress.skipped = many,
            }
            with_total += row.number("with_total")?;
            all += row.count::<u64>("total")?;
            progress.bytes.bytes_done += row.count::<u64>("done")?;
            progress.bytes.bytes_stored += row.count::<u64>("stored")?;
        }
        progress.bytes.bytes_total = (with_total > 0).then_some(all);
        Ok(progress)
    }
}

/// What several changes make of one step, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Change {
    starts: i64,
    state: Option<StepState>,
    /// Outcome and reason, of a step that ended.
    end: Option<(Option<String>, Option<String>)>,
    /// Done, total and stored.
    progress: Option<(i64, Option<i64>, i64)>,
}

/// Puts together the changes of each step, and then the steps that are changed alike.
fn group(changes: &[StepChange]) -> Result<BTreeMap<Change, Vec<i64>>> {
    let mut by_step: BTreeMap<i64, Change> = BTreeMap::new();
    for change in changes {
        match change {
            StepChange::Started { ordinal } => {
                let step = by_step.entry(i64::from(*ordinal)).or_default();
                step.starts += 1;
                step.state = Some(StepState::Running);
                step.end = None;
            }
            StepChange::Finished { ordinal, end } => {
                let step = by_step.entry(i64::from(*ordinal)).or_default();
                step.state = Some(end.state);
                step.end = Some((optional_json("the outcome of a step", &end.outcome)?, end.reason.clone()));
                if let Some(progress) = end.progress {
                    step.progress = Some(bytes(progress)?);
                }
            }
            StepChange::Progressed { ordinal, progress } => {
                by_step.entry(i64::from(*ordinal)).or_default().progress = Some(bytes(*progress)?);
            }
        }
    }
    let mut alike: BTreeMap<Change, Vec<i64>> = BTreeMap::new();
    for (ordinal, change) in by_step {
        alike.entry(change).or_default().push(ordinal);
    }
    Ok(alike)
}

fn bytes(progress: Progress) -> Result<(i64, Option<i64>, i64)> {
    let what = "the progress of a step";
    let total = progress.bytes_total.map(|total| number(what, total)).transpose()?;
    Ok((number(what, progress.bytes_done)?, total, number(what, progress.bytes_stored)?))
}

async fn write_change(
    tx: &mut Transaction,
    operation: OperationId,
    change: &Change,
    ordinals: &[i64],
    now: Instant,
) -> Result<()> {
    let mut update: UpdateStatement = Query::update();
    update.table(Step::TABLE);
    if let Some(state) = change.state {
        update.value("state", state.as_str());
    }
    if change.starts > 0 {
        update.value("attempts", Expr::col("attempts").add(change.starts));
        update.value("started_at", now.as_micros());
    }
    match &change.end {
        Some((outcome, reason)) => {
            update.value("outcome", outcome.clone()).value("reason", reason.clone());
            // One that is to be started again has not ended.
            let ended = change.state != Some(StepState::Pending);
            update.value("ended_at", ended.then_some(now.as_micros()));
        }
        None if change.starts > 0 => {
            update.value("reason", Option::<String>::None).value("ended_at", Option::<i64>::None);
        }
        None => {}
    }
    if let Some((done, total, stored)) = change.progress {
        update.value("bytes_done", done).value("bytes_total", total).value("bytes_stored", stored);
    }
    let is_one = match ordinals {
        [ordinal] => Expr::col("ordinal").eq(*ordinal),
        ordinals => Expr::col("ordinal").is_in(ordinals.iter().copied()),
    };
    update.and_where(Expr::col("operation_id").eq(operation.to_string())).and_where(is_one);
    let found = tx.execute(&update).await?;
    if found != u64::try_from(ordinals.len()).unwrap_or(u64::MAX) {
        let id = match ordinals {
            [ordinal] => format!("{ordinal} of operation {operation}"),
            _ => format!("(one of {}) of operation {operation}", ordinals.len()),
        };
        return Err(Error::NotFound { what: Step::WHAT, id });
    }
    Ok(())
}
