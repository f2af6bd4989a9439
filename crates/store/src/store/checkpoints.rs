//! Checkpoints.
//!
//! A state is only ever written by [`change_checkpoint`], by compare-and-swap on the state that was read, and the usage
//! of the project is moved with it.

use std::collections::BTreeMap;

use karbor_types::{
    CheckpointEvent, CheckpointId, CheckpointState, Instant, OperationKind, ProjectId, ProviderId,
};
use sea_query::{Expr, ExprTrait, Query};

use crate::sql::{Row, Table, Transaction, json, not_found, number};
use crate::store::operations::insert_operation;
use crate::store::quotas::{charge, count, weight};
use crate::store::readers::{hold_what_is_read, is_read};
use crate::store::transaction::transaction;
use crate::{
    Checkpoint, CheckpointChange, CheckpointColumn, CheckpointQuery, CheckpointStats, DeletionCause, Error,
    Filter, NewCheckpoint, NewOperation, QuotaDefaults, QuotaResource, Result, Store,
};

impl Table for Checkpoint {
    const TABLE: &'static str = "checkpoints";
    const WHAT: &'static str = "checkpoint";
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "project_id",
        "provider_id",
        "plan",
        "state",
        "graph",
        "extra_info",
        "logical_bytes",
        "stored_bytes",
        "new_bytes",
        "reason",
        "session",
        "committed_at",
        "created_at",
        "updated_at",
    ];

    fn read(row: &Row) -> Result<Self> {
        let sizes = [
            row.optional_count::<u64>("logical_bytes")?,
            row.optional_count::<u64>("stored_bytes")?,
            row.optional_count::<u64>("new_bytes")?,
        ];
        let stats = match sizes {
            [Some(logical_bytes), Some(stored_bytes), Some(new_bytes)] => {
                Some(CheckpointStats { logical_bytes, stored_bytes, new_bytes })
            }
            _ => None,
        };
        Ok(Self {
            id: row.parsed("id")?,
            project: row.parsed("project_id")?,
            provider: row.parsed("provider_id")?,
            plan: row.json("plan")?,
            state: row.parsed("state")?,
            graph: row.optional_json("graph")?,
            extra_info: row.json("extra_info")?,
            stats,
            reason: row.optional_text("reason")?,
            session: row.optional_text("session")?,
            committed_at: row.optional_instant("committed_at")?,
            created_at: row.instant("created_at")?,
            updated_at: row.optional_instant("updated_at")?,
        })
    }
}

impl Store {
    /// Adds a checkpoint, queues the operation that makes it, records it in the operation log and charges the
    /// checkpoint's project, all in one transaction. Copies are charged as well.
    ///
    /// # Errors
    /// [`Error::OverQuota`], [`Error::AlreadyExists`]; [`Error::Invalid`] when the operation is about another one.
    pub async fn create_checkpoint(
        &self,
        checkpoint: &NewCheckpoint,
        operation: &NewOperation,
        quota: &QuotaDefaults,
        now: Instant,
    ) -> Result<Checkpoint> {
        let one = [(checkpoint.clone(), operation.clone())];
        let mut made = self.create_checkpoints(&one, quota, now).await?;
        Ok(made.pop().expect("as many are made as were passed in"))
    }

    /// Does [`Store::create_checkpoint`] for several in one transaction: all are added, or none.
    ///
    /// # Errors
    /// As [`Store::create_checkpoint`].
    pub async fn create_checkpoints(
        &self,
        checkpoints: &[(NewCheckpoint, NewOperation)],
        quota: &QuotaDefaults,
        now: Instant,
    ) -> Result<Vec<Checkpoint>> {
        for (checkpoint, operation) in checkpoints {
            check_new(checkpoint, operation)?;
        }
        let rows: Vec<Checkpoint> = checkpoints.iter().map(|(new, _)| row_of(new, now)).collect();
        transaction!(self, "adding checkpoints", |tx| {
            for (row, (_, operation)) in rows.iter().zip(checkpoints) {
                charge(tx, &row.project, QuotaResource::Checkpoints, 1, quota).await?;
                hold_what_is_read(tx, operation).await?;
                insert_checkpoint(tx, row).await?;
                insert_operation(tx, operation, row.state.as_str(), now).await?;
            }
            Ok(())
        })?;
        Ok(rows)
    }

    /// Adds a checkpoint that was found in a bank, and charges its project beyond any limit; returns whether it
    /// was added. One that is known already stays as it is.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn import_checkpoint(&self, checkpoint: &Checkpoint) -> Result<bool> {
        let added = transaction!(self, "importing a checkpoint", |tx| {
            let (in_use, reserved) = weight(checkpoint.state);
            count(tx, &checkpoint.project, QuotaResource::Checkpoints, in_use, reserved).await?;
            insert_checkpoint(tx, checkpoint).await
        });
        match added {
            Ok(()) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns all checkpoints of a project with their providers and states, also deleted ones.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn checkpoint_states(
        &self,
        project: &ProjectId,
    ) -> Result<BTreeMap<CheckpointId, (ProviderId, CheckpointState)>> {
        let mut select = Query::select();
        select.columns(["id", "provider_id", "state"]).from(Checkpoint::TABLE);
        select.and_where(Expr::col("project_id").eq(project.as_str()));
        let rows = self.rows("looking which checkpoints are known", &select).await?;
        let entry = |row: &Row| Ok((row.parsed("id")?, (row.parsed("provider_id")?, row.parsed("state")?)));
        rows.iter().map(entry).collect()
    }

    /// Notes that the commit record of an available checkpoint is gone from its bank: another site has deleted it.
    /// Returns whether it was available.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Database`].
    pub async fn checkpoint_is_gone(&self, id: CheckpointId, now: Instant) -> Result<bool> {
        transaction!(self, "noting that a checkpoint is gone from its bank", |tx| {
            let row: Checkpoint = tx.find(&id.to_string()).await?;
            if row.state != CheckpointState::Available {
                return Ok(false);
            }
            for event in [CheckpointEvent::DeleteRequested, CheckpointEvent::Removed] {
                let change = CheckpointChange { event: Some(event), ..CheckpointChange::default() };
                change_checkpoint(tx, id, &change, now).await?;
            }
            Ok(true)
        })
    }

    /// Returns a checkpoint, also a deleted one.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get_checkpoint(&self, id: CheckpointId) -> Result<Checkpoint> {
        self.find("looking up a checkpoint", &id.to_string()).await
    }

    /// Lists checkpoints; deleted ones only when a filter names the state.
    ///
    /// # Errors
    /// [`Error::UnknownMarker`].
    pub async fn list_checkpoints(&self, query: &CheckpointQuery) -> Result<Vec<Checkpoint>> {
        let names_state = query.filters.iter().any(|filter| {
            let (Filter::Equals(column, _)
            | Filter::OneOf(column, _)
            | Filter::IsNull(column)
            | Filter::Contains(column, _)
            | Filter::Since(column, _)
            | Filter::Before(column, _)) = filter;
            *column == CheckpointColumn::State
        });
        let alive = Expr::col("state").ne(CheckpointState::Deleted.as_str());
        self.list("listing checkpoints", query, (!names_state).then_some(alive)).await
    }

    /// Moves a checkpoint to `deleting` and queues the operation that deletes it.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when its state does not allow it, and for an expiry while a restore, a
    /// verification or a copy reads it or waits to; [`Error::Invalid`] when the operation is about another one.
    pub async fn start_delete(
        &self,
        id: CheckpointId,
        cause: DeletionCause,
        operation: &NewOperation,
        now: Instant,
    ) -> Result<Checkpoint> {
        if operation.kind != OperationKind::Delete || operation.checkpoint != Some(id) {
            return Err(mismatch(id));
        }
        let change =
            CheckpointChange { event: Some(CheckpointEvent::DeleteRequested), ..CheckpointChange::default() };
        transaction!(self, "starting to delete a checkpoint", |tx| {
            let state = change_checkpoint(tx, id, &change, now).await?;
            let checkpoint: Checkpoint = tx.find(&id.to_string()).await?;
            if cause == DeletionCause::Expiry && is_read(tx, &checkpoint).await? {
                return Err(Error::Conflict {
                    what: Checkpoint::WHAT,
                    id: id.to_string(),
                    state: "being read".to_owned(),
                });
            }
            insert_operation(tx, operation, state.as_str(), now).await?;
            Ok(checkpoint)
        })
    }

    /// Moves a checkpoint as somebody asks (`ResetAvailable`, `ResetError`), without an operation.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when its state does not allow it.
    pub async fn reset_checkpoint(
        &self,
        id: CheckpointId,
        event: CheckpointEvent,
        now: Instant,
    ) -> Result<Checkpoint> {
        let change = CheckpointChange { event: Some(event), ..CheckpointChange::default() };
        transaction!(self, "resetting a checkpoint", |tx| {
            change_checkpoint(tx, id, &change, now).await?;
            tx.find(&id.to_string()).await
        })
    }
}

fn mismatch(id: CheckpointId) -> Error {
    Error::Invalid { what: "an operation", reason: format!("it does not fit checkpoint {id}") }
}

pub(crate) fn check_new(checkpoint: &NewCheckpoint, operation: &NewOperation) -> Result<()> {
    let kind = match checkpoint.state {
        CheckpointState::Protecting => OperationKind::Protect,
        CheckpointState::WaitCopying => OperationKind::Copy,
        state => {
            let reason = format!("{state} is not a state to begin with");
            return Err(Error::Invalid { what: "a checkpoint", reason });
        }
    };
    if operation.kind != kind || operation.checkpoint != Some(checkpoint.id) {
        return Err(mismatch(checkpoint.id));
    }
    Ok(())
}

pub(crate) fn row_of(new: &NewCheckpoint, now: Instant) -> Checkpoint {
    Checkpoint {
        id: new.id,
        project: new.project.clone(),
        provider: new.provider,
        plan: new.plan.clone(),
        state: new.state,
        graph: None,
        extra_info: new.extra_info.clone(),
        stats: None,
        reason: None,
        session: None,
        committed_at: None,
        created_at: now,
        updated_at: None,
    }
}

async fn insert_checkpoint(tx: &mut Transaction, row: &Checkpoint) -> Result<()> {
    tx.insert::<Checkpoint>(&row.id.to_string(), checkpoint_values(row)?).await
}

/// Returns what stands in a checkpoint's row.
pub(crate) fn checkpoint_values(row: &Checkpoint) -> Result<Vec<(&'static str, Expr)>> {
    let graph = row.graph.as_ref().map(|graph| json("a resource graph", graph)).transpose()?;
    let [logical, stored, new] = sizes(row.stats)?;
    Ok(vec![
        ("id", Expr::val(row.id.to_string())),
        ("project_id", Expr::val(row.project.as_str())),
        ("provider_id", Expr::val(row.provider.to_string())),
        ("plan_id", Expr::val(row.plan.id.to_string())),
        ("plan", Expr::val(json("the plan of a checkpoint", &row.plan)?)),
        ("state", Expr::val(row.state.as_str())),
        ("revision", Expr::val(0i64)),
        ("graph", Expr::val(graph)),
        ("extra_info", Expr::val(json("the extra info of a checkpoint", &row.extra_info)?)),
        ("logical_bytes", Expr::val(logical)),
        ("stored_bytes", Expr::val(stored)),
        ("new_bytes", Expr::val(new)),
        ("reason", Expr::val(row.reason.clone())),
        ("session", Expr::val(row.session.clone())),
        ("committed_at", Expr::val(row.committed_at.map(Instant::as_micros))),
        ("created_at", Expr::val(row.created_at.as_micros())),
        ("updated_at", Expr::val(row.updated_at.map(Instant::as_micros))),
    ])
}

fn sizes(stats: Option<CheckpointStats>) -> Result<[Option<i64>; 3]> {
    let Some(stats) = stats else { return Ok([None; 3]) };
    let size = |bytes| number("the size of a checkpoint", bytes).map(Some);
    Ok([size(stats.logical_bytes)?, size(stats.stored_bytes)?, size(stats.new_bytes)?])
}

/// Changes a checkpoint, its state as the event says, and returns the state that it has then.
pub(crate) async fn change_checkpoint(
    tx: &mut Transaction,
    id: CheckpointId,
    change: &CheckpointChange,
    now: Instant,
) -> Result<CheckpointState> {
    let id = id.to_string();
    let is_it = Expr::col("id").eq(id.as_str());
    let graph = change.graph.as_ref().map(|graph| json("a resource graph", graph)).transpose()?;
    let extra_info = change.extra_info.as_ref().map(|info| json("the extra info of a checkpoint", info));
    let extra_info = extra_info.transpose()?;
    loop {
        let select = Query::select()
            .columns(["id", "state", "project_id", "held_at"])
            .from(Checkpoint::TABLE)
            .and_where(is_it.clone())
            .take();
        let rows = tx.rows(&select).await?;
        let row = rows.first().ok_or_else(|| not_found::<Checkpoint>(&id))?;
        let before: CheckpointState = row.parsed("state")?;
        let must_not_be_held = change.event == Some(CheckpointEvent::DeleteRequested);
        if must_not_be_held && row.optional_instant("held_at")?.is_some() {
            let state = "held".to_owned();
            return Err(Error::Conflict { what: Checkpoint::WHAT, id: id.clone(), state });
        }
        let project: ProjectId = row.parsed("project_id")?;
        let after = match change.event {
            None => before,
            Some(event) => before.after(event).ok_or_else(|| Error::Conflict {
                what: Checkpoint::WHAT,
                id: id.clone(),
                state: before.to_string(),
            })?,
        };
        let mut update = Query::update();
        update.table(Checkpoint::TABLE).value("state", after.as_str()).value("updated_at", now.as_micros());
        update.value("revision", Expr::col("revision").add(1i64));
        if let Some(graph) = &graph {
            update.value("graph", graph.as_str());
        }
        if let Some(extra_info) = &extra_info {
            update.value("extra_info", extra_info.as_str());
        }
        if let Some(stats) = change.stats {
            let [logical, stored, new] = sizes(Some(stats))?;
            update.value("logical_bytes", logical).value("stored_bytes", stored).value("new_bytes", new);
        }
        match (&change.reason, change.event) {
            (Some(reason), _) => {
                update.value("reason", reason.as_str());
            }
            // An old reason does not outlive the state that it explained.
            (None, Some(_)) => {
                update.value("reason", Option::<String>::None);
            }
            (None, None) => {}
        }
        if let Some(session) = &change.session {
            update.value("session", session.as_str());
        }
        if let Some(committed_at) = change.committed_at {
            update.value("committed_at", committed_at.as_micros());
        }
        update.and_where(is_it.clone()).and_where(Expr::col("state").eq(before.as_str()));
        if must_not_be_held {
            update.and_where(Expr::col("held_at").is_null());
        }
        if tx.execute(&update).await? > 0 {
            let (old, new) = (weight(before), weight(after));
            if old != new {
                let resource = QuotaResource::Checkpoints;
                count(tx, &project, resource, new.0 - old.0, new.1 - old.1).await?;
            }
            return Ok(after);
        }
        // Somebody else moved it since we read it: decide again from where it is now.
    }
}

/// Holds an available checkpoint in its state until the end of the transaction.
pub(crate) async fn hold_available(tx: &mut Transaction, id: CheckpointId) -> Result<()> {
    let id = id.to_string();
    let mut touch = Query::update();
    touch.table(Checkpoint::TABLE).value("revision", Expr::col("revision").add(1i64));
    touch.and_where(Expr::col("id").eq(id.as_str()));
    touch.and_where(Expr::col("state").eq(CheckpointState::Available.as_str()));
    if tx.execute(&touch).await? > 0 {
        return Ok(());
    }
    let checkpoint: Checkpoint = tx.find(&id).await?;
    Err(Error::Conflict { what: Checkpoint::WHAT, id, state: checkpoint.state.to_string() })
}
