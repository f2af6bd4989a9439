//! Starting: an occurrence that is ready turns into operations, in one transaction.
//!
//! The occurrence leaves `ready` by compare-and-swap in the transaction that queues what it starts, so that it is never
//! started twice; what it starts has ids derived from it besides. No two occurrences of one scheduled operation are
//! started at once: a unique index says so. Many are started by one transaction, with a few statements for all of them.

use std::collections::BTreeMap;

use karbor_types::{Instant, OccurrenceState, OperationId, ProjectId};
use sea_query::{Expr, ExprTrait, OnConflict, Query, UpdateStatement};

use crate::sql::{Table, Transaction, compared, is_duplicate};
use crate::store::checkpoints::{check_new, checkpoint_values, row_of};
use crate::store::handouts::{ROWS, lost, won};
use crate::store::logs::log_values;
use crate::store::occurrences::{read_count, started_counts};
use crate::store::operations::operation_values;
use crate::store::quotas::charge_all;
use crate::store::readers::hold_what_is_read;
use crate::store::runs::{insert_restore, insert_verification};
use crate::store::transaction::transaction;
use crate::{
    Beginning, Checkpoint, Error, NewWork, Occurrence, OccurrenceLimits, Operation, OperationLog,
    QuotaDefaults, QuotaResource, Result, Store,
};

/// The row that whoever begins under limits changes first.
const LIMITS: &str = "occurrence_limits";

/// After that an occurrence is looked at although nobody told that its operations ended.
const LOOK_SECONDS: i64 = 3600;

impl Store {
    /// Starts occurrences that are ready: queues their work, all of it or nothing. `false` when one of them is not ready any
    /// more, when another occurrence of its scheduled operation runs, or when they do not fit into the limits.
    ///
    /// # Errors
    /// [`Error::OverQuota`]; [`Error::Conflict`] when a checkpoint to be looked at is not available; [`Error::Invalid`]
    /// for work that does not fit together; [`Error::Busy`], [`Error::Database`].
    pub async fn begin_occurrences(
        &self,
        beginnings: &[Beginning],
        limits: OccurrenceLimits,
        quota: &QuotaDefaults,
        now: Instant,
    ) -> Result<bool> {
        let bulk = Bulk::of(beginnings, now)?;
        let done = transaction!(self, "starting occurrences", |tx| {
            if limits.any() {
                hold_limits(tx).await?;
            }
            for (attempt, ids) in &bulk.occurrences {
                begin(tx, *attempt, ids, now).await?;
            }
            if limits.any() {
                check_limits(tx, limits).await?;
            }
            bulk.insert(tx, quota).await?;
            for work in beginnings.iter().flat_map(|beginning| &beginning.work) {
                match work {
                    NewWork::Verification(work) => insert_verification(tx, &work.0, &work.1, now).await?,
                    NewWork::Restore(work) => insert_restore(tx, &work.0, &work.1, now).await?,
                    NewWork::Checkpoint(_) | NewWork::Operation(_) => {
                        hold_what_is_read(tx, work.operation()).await?;
                    }
                }
            }
            Ok(())
        });
        won(done)
    }
}

/// What is written by one statement for many.
struct Bulk {
    occurrences: BTreeMap<u32, Vec<String>>,
    checkpoints: Vec<Vec<(&'static str, Expr)>>,
    operations: Vec<Vec<(&'static str, Expr)>>,
    logs: Vec<Vec<(&'static str, Expr)>>,
    charges: BTreeMap<ProjectId, i64>,
}

impl Bulk {
    fn of(beginnings: &[Beginning], now: Instant) -> Result<Self> {
        let mut bulk = Self {
            occurrences: BTreeMap::new(),
            checkpoints: Vec::new(),
            operations: Vec::new(),
            logs: Vec::new(),
            charges: BTreeMap::new(),
        };
        for beginning in beginnings {
            let ids = bulk.occurrences.entry(beginning.attempt).or_default();
            ids.push(beginning.occurrence.to_string());
            for work in &beginning.work {
                if work.operation().occurrence != Some((beginning.occurrence, beginning.attempt)) {
                    let reason = format!("operation {} is not of that occurrence", work.operation().id);
                    return Err(Error::Invalid { what: "an occurrence", reason });
                }
                bulk.add(work, now)?;
            }
        }
        Ok(bulk)
    }

    fn add(&mut self, work: &NewWork, now: Instant) -> Result<()> {
        let (operation, status) = match work {
            NewWork::Checkpoint(work) => {
                let (checkpoint, operation) = work.as_ref();
                check_new(checkpoint, operation)?;
                let row = row_of(checkpoint, now);
                self.checkpoints.push(checkpoint_values(&row)?);
                *self.charges.entry(row.project.clone()).or_default() += 1;
                (operation, row.state.as_str())
            }
            NewWork::Operation(operation) => (operation.as_ref(), "queued"),
            NewWork::Verification(_) | NewWork::Restore(_) => return Ok(()),
        };
        self.operations.push(operation_values(operation, now)?);
        self.logs.extend(log_values(operation, status, now));
        Ok(())
    }

    async fn insert(&self, tx: &mut Transaction, quota: &QuotaDefaults) -> Result<()> {
        charge_all(tx, &self.charges, QuotaResource::Checkpoints, quota).await?;
        insert_all::<Checkpoint>(tx, &self.checkpoints).await?;
        insert_all::<Operation>(tx, &self.operations).await?;
        insert_all::<OperationLog>(tx, &self.logs).await
    }
}

async fn insert_all<T: Table>(tx: &mut Transaction, rows: &[Vec<(&'static str, Expr)>]) -> Result<()> {
    for chunk in rows.chunks(ROWS) {
        let Some(first) = chunk.first() else { continue };
        let mut insert = Query::insert();
        insert.into_table(T::TABLE).columns(first.iter().map(|(column, _)| *column));
        for row in chunk {
            insert.values_panic(row.iter().map(|(_, value)| value.clone()));
        }
        tx.execute(&insert).await?;
    }
    Ok(())
}

async fn begin(tx: &mut Transaction, attempt: u32, ids: &[String], now: Instant) -> Result<()> {
    for chunk in ids.chunks(ROWS) {
        match tx.execute(&begun(attempt, chunk, now)).await {
            Ok(begun) if begun == chunk.len() as u64 => {}
            Ok(_) => return Err(lost()),
            Err(error) if is_duplicate(&error) => return Err(lost()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(crate) fn begun(attempt: u32, ids: &[String], now: Instant) -> UpdateStatement {
    let mut update = Query::update();
    update.table(Occurrence::TABLE).value("state", OccurrenceState::Started.as_str());
    update.value("open_operation", Expr::col("scheduled_operation_id"));
    update.value("act_at", now.plus_seconds(LOOK_SECONDS).as_micros());
    update.value("reason", Option::<String>::None).value("detail", Option::<String>::None);
    update.value("started_at", now.as_micros()).value("updated_at", now.as_micros());
    update.and_where(Expr::col("id").is_in(ids.iter().map(String::as_str)));
    update.and_where(compared("state").eq(OccurrenceState::Ready.as_str()));
    update.and_where(Expr::col("attempt").eq(i64::from(attempt))).take()
}

/// Lets one at a time begin, so that what is counted holds until the commit.
async fn hold_limits(tx: &mut Transaction) -> Result<()> {
    let mut insert = Query::insert();
    insert.into_table(LIMITS).columns(["id", "revision"]).values_panic([Expr::val(1i64), Expr::val(0i64)]);
    insert.on_conflict(OnConflict::column("id").do_nothing_on(["id"]).to_owned());
    let mut touch = Query::update();
    touch
        .table(LIMITS)
        .value("revision", Expr::col("revision").add(1i64))
        .and_where(Expr::col("id").eq(1i64));
    if tx.execute(&touch).await? == 0 {
        tx.execute(&insert).await?;
        tx.execute(&touch).await?;
    }
    Ok(())
}

async fn check_limits(tx: &mut Transaction, limits: OccurrenceLimits) -> Result<()> {
    let mut providers = BTreeMap::<_, u32>::new();
    let mut projects = BTreeMap::<_, u32>::new();
    for row in tx.rows(&started_counts()).await? {
        let count = read_count(&row)?;
        *providers.entry(count.provider).or_default() += count.number;
        *projects.entry(count.project).or_default() += count.number;
    }
    let over = |number: &u32, limit: Option<u32>| limit.is_some_and(|limit| *number > limit);
    if providers.values().any(|number| over(number, limits.provider))
        || projects.values().any(|number| over(number, limits.project))
    {
        return Err(lost());
    }
    Ok(())
}

/// Has the occurrence looked at from which an operation comes that ends.
pub(crate) async fn tell_occurrence(
    tx: &mut Transaction,
    operation: OperationId,
    now: Instant,
) -> Result<()> {
    let occurrence = Query::select()
        .column("occurrence_id")
        .from(Operation::TABLE)
        .and_where(Expr::col("id").eq(operation.to_string()))
        .take();
    let rows = tx.rows(&occurrence).await?;
    let Some(id) = rows.first().map(|row| row.optional_text("occurrence_id")).transpose()?.flatten() else {
        return Ok(());
    };
    let mut update = Query::update();
    update.table(Occurrence::TABLE).value("act_at", now.as_micros());
    update.and_where(Expr::col("id").eq(id));
    update.and_where(Expr::col("state").eq(OccurrenceState::Started.as_str()));
    tx.execute(&update).await.map(drop)
}
