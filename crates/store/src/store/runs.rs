//! Restores and verifications.
//!
//! Both tables are alike but for a restore's target, so both are written by the same statements.

use karbor_types::{
    CheckpointId, Instant, OperationKind, Parameters, ProjectId, ProviderId, RestoreId, RunState,
    VerificationId,
};
use sea_query::{Expr, ExprTrait, Query};

use crate::sql::{Row, Table, Transaction, json, not_found};
use crate::store::checkpoints::hold_available;
use crate::store::operations::insert_operation;
use crate::store::transaction::transaction;
use crate::{
    Error, NewOperation, NewRestore, NewVerification, Restore, RestoreQuery, Result, RunChange, Store,
    Verification, VerificationQuery,
};

impl Table for Restore {
    const TABLE: &'static str = "restores";
    const WHAT: &'static str = "restore";
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "project_id",
        "provider_id",
        "checkpoint_id",
        "restore_target",
        "parameters",
        "state",
        "resources_status",
        "resources_reason",
        "reason",
        "created_at",
        "updated_at",
    ];

    fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.parsed("id")?,
            project: row.parsed("project_id")?,
            provider: row.parsed("provider_id")?,
            checkpoint: row.parsed("checkpoint_id")?,
            target: row.optional_text("restore_target")?,
            parameters: row.json("parameters")?,
            state: row.parsed("state")?,
            resources_status: row.json("resources_status")?,
            resources_reason: row.json("resources_reason")?,
            reason: row.optional_text("reason")?,
            created_at: row.instant("created_at")?,
            updated_at: row.optional_instant("updated_at")?,
        })
    }
}

impl Table for Verification {
    const TABLE: &'static str = "verifications";
    const WHAT: &'static str = "verification";
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "project_id",
        "provider_id",
        "checkpoint_id",
        "parameters",
        "state",
        "resources_status",
        "resources_reason",
        "reason",
        "created_at",
        "updated_at",
    ];

    fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.parsed("id")?,
            project: row.parsed("project_id")?,
            provider: row.parsed("provider_id")?,
            checkpoint: row.parsed("checkpoint_id")?,
            parameters: row.json("parameters")?,
            state: row.parsed("state")?,
            resources_status: row.json("resources_status")?,
            resources_reason: row.json("resources_reason")?,
            reason: row.optional_text("reason")?,
            created_at: row.instant("created_at")?,
            updated_at: row.optional_instant("updated_at")?,
        })
    }
}

/// What both kinds of run begin with.
#[derive(Debug)]
struct NewRun<'a> {
    id: String,
    project: &'a ProjectId,
    provider: ProviderId,
    checkpoint: CheckpointId,
    target: Option<&'a str>,
    parameters: &'a Parameters,
}

impl<'a> From<&'a NewRestore> for NewRun<'a> {
    fn from(new: &'a NewRestore) -> Self {
        Self {
            id: new.id.to_string(),
            project: &new.project,
            provider: new.provider,
            checkpoint: new.checkpoint,
            target: new.target.as_deref(),
            parameters: &new.parameters,
        }
    }
}

impl<'a> From<&'a NewVerification> for NewRun<'a> {
    fn from(new: &'a NewVerification) -> Self {
        Self {
            id: new.id.to_string(),
            project: &new.project,
            provider: new.provider,
            checkpoint: new.checkpoint,
            target: None,
            parameters: &new.parameters,
        }
    }
}

impl Store {
    /// Adds a restore and queues its operation, if its checkpoint is available.
    ///
    /// # Errors
    /// [`Error::NotFound`] and [`Error::Conflict`] of the checkpoint; [`Error::AlreadyExists`]; [`Error::Invalid`]
    /// when the operation is about another one.
    pub async fn create_restore(
        &self,
        restore: &NewRestore,
        operation: &NewOperation,
        now: Instant,
    ) -> Result<Restore> {
        transaction!(self, "adding a restore", |tx| {
            insert_restore(tx, restore, operation, now).await?;
            tx.find(&restore.id.to_string()).await
        })
    }

    /// Adds a restore that has failed before it began.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`].
    pub async fn create_failed_restore(
        &self,
        restore: &NewRestore,
        reason: &str,
        now: Instant,
    ) -> Result<Restore> {
        self.create_failed_run(&restore.into(), reason, now).await
    }

    /// Returns a restore.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get_restore(&self, id: RestoreId) -> Result<Restore> {
        self.find("looking up a restore", &id.to_string()).await
    }

    /// Lists restores.
    ///
    /// # Errors
    /// [`Error::UnknownMarker`].
    pub async fn list_restores(&self, query: &RestoreQuery) -> Result<Vec<Restore>> {
        self.list("listing restores", query, None).await
    }

    /// Adds a verification and queues its operation, if its checkpoint is available.
    ///
    /// # Errors
    /// [`Error::NotFound`] and [`Error::Conflict`] of the checkpoint; [`Error::AlreadyExists`]; [`Error::Invalid`]
    /// when the operation is about another one.
    pub async fn create_verification(
        &self,
        verification: &NewVerification,
        operation: &NewOperation,
        now: Instant,
    ) -> Result<Verification> {
        transaction!(self, "adding a verification", |tx| {
            insert_verification(tx, verification, operation, now).await?;
            tx.find(&verification.id.to_string()).await
        })
    }

    /// Adds a verification that has failed before it began.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`].
    pub async fn create_failed_verification(
        &self,
        verification: &NewVerification,
        reason: &str,
        now: Instant,
    ) -> Result<Verification> {
        self.create_failed_run(&verification.into(), reason, now).await
    }

    /// Returns a verification.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get_verification(&self, id: VerificationId) -> Result<Verification> {
        self.find("looking up a verification", &id.to_string()).await
    }

    /// Lists verifications.
    ///
    /// # Errors
    /// [`Error::UnknownMarker`].
    pub async fn list_verifications(&self, query: &VerificationQuery) -> Result<Vec<Verification>> {
        self.list("listing verifications", query, None).await
    }

    async fn create_failed_run<T: Table>(&self, new: &NewRun<'_>, reason: &str, now: Instant) -> Result<T> {
        transaction!(self, "adding a failed restore or verification", |tx| {
            insert_run::<T>(tx, new, RunState::Fail, Some(reason), now).await?;
            tx.find::<T>(&new.id).await
        })
    }
}

/// Adds a restore and queues its operation, as [`Store::create_restore`] does.
pub(crate) async fn insert_restore(
    tx: &mut Transaction,
    restore: &NewRestore,
    operation: &NewOperation,
    now: Instant,
) -> Result<()> {
    if operation.kind != OperationKind::Restore || operation.restore != Some(restore.id) {
        return Err(mismatch(Restore::WHAT, &restore.id.to_string()));
    }
    insert_run_with::<Restore>(tx, &restore.into(), operation, now).await
}

/// Adds a verification and queues its operation, as [`Store::create_verification`] does.
pub(crate) async fn insert_verification(
    tx: &mut Transaction,
    verification: &NewVerification,
    operation: &NewOperation,
    now: Instant,
) -> Result<()> {
    if operation.kind != OperationKind::Verify || operation.verification != Some(verification.id) {
        return Err(mismatch(Verification::WHAT, &verification.id.to_string()));
    }
    insert_run_with::<Verification>(tx, &verification.into(), operation, now).await
}

async fn insert_run_with<T: Table>(
    tx: &mut Transaction,
    new: &NewRun<'_>,
    operation: &NewOperation,
    now: Instant,
) -> Result<()> {
    hold_available(tx, new.checkpoint).await?;
    insert_run::<T>(tx, new, RunState::InProgress, None, now).await?;
    insert_operation(tx, operation, RunState::InProgress.as_str(), now).await
}

fn mismatch(what: &'static str, id: &str) -> Error {
    Error::Invalid { what: "an operation", reason: format!("it does not fit {what} {id}") }
}

async fn insert_run<T: Table>(
    tx: &mut Transaction,
    new: &NewRun<'_>,
    state: RunState,
    reason: Option<&str>,
    now: Instant,
) -> Result<()> {
    let mut values = vec![
        ("id", Expr::val(new.id.as_str())),
        ("project_id", Expr::val(new.project.as_str())),
        ("provider_id", Expr::val(new.provider.to_string())),
        ("checkpoint_id", Expr::val(new.checkpoint.to_string())),
        ("parameters", Expr::val(json("parameters", new.parameters)?)),
        ("state", Expr::val(state.as_str())),
        ("resources_status", Expr::val("{}")),
        ("resources_reason", Expr::val("{}")),
        ("reason", Expr::val(reason.map(str::to_owned))),
        ("created_at", Expr::val(now.as_micros())),
    ];
    if let Some(target) = new.target {
        values.push(("restore_target", Expr::val(target)));
    }
    tx.insert::<T>(&new.id, values).await
}

/// Changes a restore or verification, its state as the event says, and returns the state that it has then.
pub(crate) async fn change_run<T: Table>(
    tx: &mut Transaction,
    id: &str,
    change: &RunChange,
    now: Instant,
) -> Result<RunState> {
    let is_it = Expr::col("id").eq(id);
    let texts =
        [("resources_status", &change.resources_status), ("resources_reason", &change.resources_reason)];
    loop {
        let select = Query::select().columns(["id", "state"]).from(T::TABLE).and_where(is_it.clone()).take();
        let rows = tx.rows(&select).await?;
        let before: RunState = rows.first().ok_or_else(|| not_found::<T>(id))?.parsed("state")?;
        let after = match change.event {
            None => before,
            Some(event) => before.after(event).ok_or_else(|| Error::Conflict {
                what: T::WHAT,
                id: id.to_owned(),
                state: before.to_string(),
            })?,
        };
        let mut update = Query::update();
        update.table(T::TABLE).value("state", after.as_str()).value("updated_at", now.as_micros());
        for (column, map) in texts {
            if let Some(map) = map {
                update.value(column, json("what is said of resources", map)?);
            }
        }
        if let Some(reason) = &change.reason {
            update.value("reason", reason.as_str());
        }
        update.and_where(is_it.clone()).and_where(Expr::col("state").eq(before.as_str()));
        if tx.execute(&update).await? > 0 {
            return Ok(after);
        }
        // Somebody else moved it since we read it: decide again from where it is now.
    }
}
