//! Occurrences: found when their time has come, listed, judged.
//!
//! What becomes of an occurrence is decided by the state machine of `karbor-types`, and written by compare-and-swap on
//! the state and the attempt at which it was found: a verdict about what has changed since is void.

use std::collections::{BTreeMap, HashSet};

use karbor_types::{
    FAILURE, Instant, OccurrenceEvent, OccurrenceId, OccurrenceState, OperationId, ProjectId, ProviderId,
    REVOKED, ScheduledOperationId,
};
use sea_query::{Expr, ExprTrait, Func, Order, Query, SelectStatement, UpdateStatement};
use serde_json::Value;

use crate::sql::{Row, Table, compared};
use crate::store::logs::insert_skipped;
use crate::store::transaction::transaction;
use crate::{
    Error, Occurrence, OccurrenceQuery, Operation, OperationLog, Origin, Outcome, Result, StartedCount,
    StartedOperation, Store, Verdict,
};

impl Table for Occurrence {
    const TABLE: &'static str = "occurrences";
    const WHAT: &'static str = "occurrence";
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "scheduled_operation_id",
        "operation_type",
        "trigger_id",
        "project_id",
        "provider_id",
        "occurrence_at",
        "origin",
        "state",
        "reason",
        "detail",
        "turn",
        "attempt",
        "act_at",
        "until_at",
        "checkpoint_id",
        "retain_at",
        "created_at",
        "started_at",
        "ended_at",
        "updated_at",
    ];

    fn read(row: &Row) -> Result<Self> {
        let turn: i32 = row.count("turn")?;
        let is_manual = row.text("origin")? == Origin::Manual.as_str();
        Ok(Self {
            id: row.parsed("id")?,
            operation: row.parsed("scheduled_operation_id")?,
            operation_type: row.text("operation_type")?,
            trigger: row.parsed("trigger_id")?,
            project: row.parsed("project_id")?,
            provider: row.parsed("provider_id")?,
            at: row.instant("occurrence_at")?,
            origin: if is_manual { Origin::Manual } else { Origin::Trigger },
            state: row.parsed("state")?,
            reason: row.optional_parsed("reason")?,
            detail: row.optional_text("detail")?,
            priority: turn.saturating_neg(),
            attempt: row.count("attempt")?,
            act_at: row.optional_instant("act_at")?,
            until: row.instant("until_at")?,
            checkpoint: row.optional_parsed("checkpoint_id")?,
            retain_at: row.optional_instant("retain_at")?,
            created_at: row.instant("created_at")?,
            started_at: row.optional_instant("started_at")?,
            ended_at: row.optional_instant("ended_at")?,
            updated_at: row.optional_instant("updated_at")?,
        })
    }
}

impl Store {
    /// Returns an occurrence.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get_occurrence(&self, id: OccurrenceId) -> Result<Occurrence> {
        self.find("looking up an occurrence", &id.to_string()).await
    }

    /// Lists occurrences.
    ///
    /// # Errors
    /// [`Error::UnknownMarker`].
    pub async fn list_occurrences(&self, query: &OccurrenceQuery) -> Result<Vec<Occurrence>> {
        self.list("listing occurrences", query, None).await
    }

    /// Lists the occurrences in a state at which somebody has to look by now, the longest due first.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn occurrences_to_look_at(
        &self,
        state: OccurrenceState,
        now: Instant,
        limit: u32,
    ) -> Result<Vec<Occurrence>> {
        let rows = self.rows("looking for occurrences that are due", &to_look_at(state, now, limit)).await?;
        rows.iter().map(Occurrence::read).collect()
    }

    /// Lists the occurrences on whose behalf retention is to be applied by now.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn occurrences_to_retain(&self, now: Instant, limit: u32) -> Result<Vec<Occurrence>> {
        let rows = self.rows("looking for retention that is due", &to_retain(now, limit)).await?;
        rows.iter().map(Occurrence::read).collect()
    }

    /// Sets when retention is applied next on an occurrence's behalf, if it is due at `expected`.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn set_retention(
        &self,
        id: OccurrenceId,
        expected: Instant,
        next: Option<Instant>,
        now: Instant,
    ) -> Result<bool> {
        let mut update = Query::update();
        update.table(Occurrence::TABLE).value("retain_at", next.map(Instant::as_micros));
        update.value("updated_at", now.as_micros());
        update.and_where(Expr::col("id").eq(id.to_string()));
        update.and_where(Expr::col("retain_at").eq(expected.as_micros()));
        transaction!(self, "noting when retention is due", |tx| { Ok(tx.execute(&update).await? > 0) })
    }

    /// Makes occurrences ready whose time has come; returns how many.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn ripen(&self, now: Instant, limit: u32) -> Result<u64> {
        let statement = to_look_at(OccurrenceState::Waiting, now, limit);
        let rows = self.rows("looking for occurrences that ripen", &statement).await?;
        let ids = rows.iter().map(|row| row.text("id")).collect::<Result<Vec<String>>>()?;
        if ids.is_empty() {
            return Ok(0);
        }
        let update = ripened(ids, now);
        transaction!(self, "making occurrences ready", |tx| { tx.execute(&update).await })
    }

    /// Returns the first provider after `after` with which something is ready to be started.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn next_ready_provider(&self, after: Option<ProviderId>) -> Result<Option<ProviderId>> {
        let rows = self.rows("looking which providers are wanted", &next_ready_provider(after)).await?;
        rows.first().map(|row| row.parsed("provider_id")).transpose()
    }

    /// Lists what is ready to be started with a provider: by project, the projects after one, and within each in its
    /// order of precedence.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn ready_occurrences(
        &self,
        provider: ProviderId,
        after: Option<&ProjectId>,
        limit: u32,
    ) -> Result<Vec<Occurrence>> {
        let rows = self.rows("looking what is ready", &ready(provider, after, limit)).await?;
        rows.iter().map(Occurrence::read).collect()
    }

    /// Counts what is started and has not ended, by provider and project.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn started_counts(&self) -> Result<Vec<StartedCount>> {
        let rows = self.rows("counting what is started", &started_counts()).await?;
        rows.iter().map(read_count).collect()
    }

    /// Returns which of these scheduled operations have an occurrence that is started and has not ended.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn open_operations(
        &self,
        operations: &[ScheduledOperationId],
    ) -> Result<HashSet<ScheduledOperationId>> {
        if operations.is_empty() {
            return Ok(HashSet::new());
        }
        let rows = self.rows("looking what still runs", &open_operations(operations)).await?;
        rows.iter().map(|row| row.parsed("open_operation")).collect()
    }

    /// Lists what these occurrences have started.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn started_operations(&self, occurrences: &[OccurrenceId]) -> Result<Vec<StartedOperation>> {
        if occurrences.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.rows("looking what became of occurrences", &started_operations(occurrences)).await?;
        let read = |row: &Row| {
            Ok(StartedOperation {
                occurrence: row.parsed("occurrence_id")?,
                attempt: row.count("occurrence_attempt")?,
                id: row.parsed("id")?,
                state: row.parsed("state")?,
                checkpoint: row.optional_parsed("checkpoint_id")?,
                reason: row.optional_text("reason")?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Returns those of the operations that failed because the right by which they act was taken back.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn revoked_operations(&self, operations: &[OperationId]) -> Result<HashSet<OperationId>> {
        let mut revoked = HashSet::new();
        // Results tell of each resource: few at a time.
        for some in operations.chunks(20) {
            let rows = self.rows("looking why operations failed", &results(some)).await?;
            for row in rows {
                let result: Value = row.optional_json("result")?;
                if result.get(FAILURE).and_then(Value::as_str) == Some(REVOKED) {
                    revoked.insert(row.parsed("id")?);
                }
            }
        }
        Ok(revoked)
    }

    /// Writes down what is decided about occurrences; returns how many of the verdicts were not void.
    ///
    /// # Errors
    /// [`Error::Conflict`] for an event that the state does not know; [`Error::Busy`], [`Error::Database`].
    pub async fn judge(&self, verdicts: &[Verdict], now: Instant) -> Result<u64> {
        let mut groups: BTreeMap<(OccurrenceState, u32, &Outcome), Vec<String>> = BTreeMap::new();
        for verdict in verdicts {
            let key = (verdict.state, verdict.attempt, &verdict.outcome);
            groups.entry(key).or_default().push(verdict.occurrence.to_string());
        }
        let mut updates = Vec::new();
        let mut skipped = Vec::new();
        for ((state, attempt, outcome), ids) in groups {
            let Some(after) = state.after(outcome.event) else {
                let id = ids.first().cloned().unwrap_or_default();
                return Err(Error::Conflict { what: Occurrence::WHAT, id, state: state.to_string() });
            };
            if after == OccurrenceState::Skipped {
                skipped.push(insert_skipped(&ids, &why(outcome), now));
            }
            updates.push(judged((state, attempt), after, outcome, ids, now));
        }
        if updates.is_empty() {
            return Ok(0);
        }
        transaction!(self, "judging occurrences", |tx| {
            let mut judged = 0;
            for update in &updates {
                judged += tx.execute(update).await?;
            }
            for insert in &skipped {
                tx.execute(insert).await?;
            }
            Ok(judged)
        })
    }

    /// Has started occurrences looked at again later, unless something was told of them since they were read.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn look_again(&self, occurrences: &[Occurrence], again: Instant) -> Result<()> {
        if occurrences.is_empty() {
            return Ok(());
        }
        transaction!(self, "having occurrences looked at again", |tx| {
            for one in occurrences {
                let mut update = Query::update();
                update.table(Occurrence::TABLE).value("act_at", again.as_micros());
                update.and_where(Expr::col("id").eq(one.id.to_string()));
                update.and_where(Expr::col("state").eq(OccurrenceState::Started.as_str()));
                update.and_where(Expr::col("act_at").eq(one.act_at.map(Instant::as_micros)));
                tx.execute(&update).await?;
            }
            Ok(())
        })
    }

    /// Removes occurrences that ended before an instant and need nothing more, at most `limit` of them; returns how many.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn forget_occurrences(&self, before: Instant, limit: u32) -> Result<u64> {
        let rows = self.rows("looking for old occurrences", &ended_before(before, limit)).await?;
        let ids = rows.iter().map(|row| row.text("id")).collect::<Result<Vec<String>>>()?;
        if ids.is_empty() {
            return Ok(0);
        }
        let mut delete = Query::delete();
        delete.from_table(Occurrence::TABLE).and_where(Expr::col("id").is_in(&ids));
        delete.and_where(Expr::col("ended_at").lt(before.as_micros()));
        // Only those that were skipped have a record of that id.
        let mut logs = Query::delete();
        logs.from_table(OperationLog::TABLE).and_where(Expr::col("id").is_in(&ids));
        transaction!(self, "removing old occurrences", |tx| {
            tx.execute(&logs).await?;
            tx.execute(&delete).await
        })
    }
}

/// Says in one line why something was skipped.
fn why(outcome: &Outcome) -> String {
    let reason = outcome.reason.map_or("", |reason| reason.as_str());
    match &outcome.detail {
        Some(detail) => format!("{reason}: {detail}"),
        None => reason.to_owned(),
    }
}

pub(crate) fn judged(
    (before, attempt): (OccurrenceState, u32),
    after: OccurrenceState,
    outcome: &Outcome,
    ids: Vec<String>,
    now: Instant,
) -> UpdateStatement {
    let mut update = Query::update();
    update.table(Occurrence::TABLE).value("state", after.as_str()).value("updated_at", now.as_micros());
    update.value("reason", outcome.reason.map(|reason| reason.as_str().to_owned()));
    update.value("detail", outcome.detail.clone());
    update.value("open_operation", Option::<String>::None);
    if after.is_final() {
        update.value("act_at", Option::<i64>::None).value("ended_at", now.as_micros());
    } else {
        update.value("act_at", outcome.act_at.unwrap_or(now).as_micros());
    }
    if outcome.event == OccurrenceEvent::PutOff && before == OccurrenceState::Started {
        update.value("attempt", Expr::col("attempt").add(1i64));
    }
    if let Some(checkpoint) = outcome.checkpoint {
        update.value("checkpoint_id", checkpoint.to_string());
    }
    if let Some(retain_at) = outcome.retain_at {
        update.value("retain_at", retain_at.as_micros());
    }
    update.and_where(Expr::col("id").is_in(ids));
    update.and_where(compared("state").eq(before.as_str()));
    update.and_where(Expr::col("attempt").eq(i64::from(attempt))).take()
}

pub(crate) fn ripened(ids: Vec<String>, now: Instant) -> UpdateStatement {
    let mut update = Query::update();
    update.table(Occurrence::TABLE).value("state", OccurrenceState::Ready.as_str());
    update.value("act_at", Expr::col("until_at")).value("updated_at", now.as_micros());
    update.and_where(Expr::col("id").is_in(ids));
    update.and_where(compared("state").eq(OccurrenceState::Waiting.as_str())).take()
}

pub(crate) fn read_count(row: &Row) -> Result<StartedCount> {
    Ok(StartedCount {
        provider: row.parsed("provider_id")?,
        project: row.parsed("project_id")?,
        number: row.count("number")?,
    })
}

pub(crate) fn to_look_at(state: OccurrenceState, now: Instant, limit: u32) -> SelectStatement {
    let mut select = Occurrence::select();
    select.and_where(Expr::col("state").eq(state.as_str()));
    select.and_where(Expr::col("act_at").lte(now.as_micros()));
    select.order_by("act_at", Order::Asc).limit(u64::from(limit)).take()
}

pub(crate) fn to_retain(now: Instant, limit: u32) -> SelectStatement {
    let mut select = Occurrence::select();
    select.and_where(Expr::col("retain_at").lte(now.as_micros()));
    select.order_by("retain_at", Order::Asc).limit(u64::from(limit)).take()
}

pub(crate) fn next_ready_provider(after: Option<ProviderId>) -> SelectStatement {
    let mut select = Query::select();
    select.column("provider_id").from(Occurrence::TABLE);
    select.and_where(Expr::col("state").eq(OccurrenceState::Ready.as_str()));
    if let Some(after) = after {
        select.and_where(Expr::col("provider_id").gt(after.to_string()));
    }
    select.order_by("provider_id", Order::Asc).limit(1).take()
}

pub(crate) fn ready(provider: ProviderId, after: Option<&ProjectId>, limit: u32) -> SelectStatement {
    let mut select = Occurrence::select();
    select.and_where(Expr::col("state").eq(OccurrenceState::Ready.as_str()));
    select.and_where(Expr::col("provider_id").eq(provider.to_string()));
    if let Some(after) = after {
        select.and_where(Expr::col("project_id").gt(after.as_str()));
    }
    for column in ["project_id", "turn", "occurrence_at"] {
        select.order_by(column, Order::Asc);
    }
    select.limit(u64::from(limit)).take()
}

pub(crate) fn started_counts() -> SelectStatement {
    let mut select = Query::select();
    select.columns(["provider_id", "project_id"]).from(Occurrence::TABLE);
    select.expr_as(Func::count(Expr::col("occurrence_at")), "number");
    select.and_where(Expr::col("state").eq(OccurrenceState::Started.as_str()));
    select.group_by_columns(["provider_id", "project_id"]).take()
}

pub(crate) fn open_operations(operations: &[ScheduledOperationId]) -> SelectStatement {
    let mut select = Query::select();
    select.column("open_operation").from(Occurrence::TABLE);
    let ids = operations.iter().map(ScheduledOperationId::to_string);
    select.and_where(Expr::col("open_operation").is_in(ids)).take()
}

pub(crate) fn started_operations(occurrences: &[OccurrenceId]) -> SelectStatement {
    let mut select = Query::select();
    select.columns(["occurrence_id", "occurrence_attempt", "id", "state", "checkpoint_id", "reason"]);
    select.from(Operation::TABLE);
    select.and_where(Expr::col("occurrence_id").is_in(occurrences.iter().map(OccurrenceId::to_string))).take()
}

fn results(operations: &[OperationId]) -> SelectStatement {
    let mut select = Query::select();
    select.columns(["id", "result"]).from(Operation::TABLE);
    select.and_where(Expr::col("id").is_in(operations.iter().map(OperationId::to_string))).take()
}

pub(crate) fn ended_before(before: Instant, limit: u32) -> SelectStatement {
    let mut select = Query::select();
    select.column("id").from(Occurrence::TABLE);
    select.and_where(Expr::col("ended_at").lt(before.as_micros()));
    // Hidden from the engine, which would take the index of what is nearly always null for a good one.
    let retain_at = Func::coalesce([Expr::col("retain_at"), Expr::val(0i64)]);
    select.and_where(Expr::expr(retain_at).eq(0i64));
    select.order_by("ended_at", Order::Asc).limit(u64::from(limit)).take()
}
