//! Handing out: a trigger whose time has come turns into an occurrence of each of its scheduled operations.
//!
//! Invariant 10: the occurrences and the step of the trigger to its next time are one transaction, by compare-and-swap
//! on the time, on what the trigger says and on how far its operations have got the occurrence. So nothing is lost when
//! a process dies, and nothing is handed out twice however many do it at once. A trigger with more operations than one
//! transaction should hold is handed out page by page: `handed_to` is how far that has got.

use std::collections::BTreeMap;

use karbor_types::{
    Instant, OccurrenceId, OccurrenceReason, OccurrenceState, ProviderId, ScheduledOperationId, TriggerId,
};
use sea_query::{Cond, Expr, ExprTrait, OnConflict, Order, Query, SelectStatement, UpdateStatement};
use serde::Deserialize;
use uuid::Uuid;

use crate::sql::{Row, Table, Transaction, compared};
use crate::store::logs::insert_skipped;
use crate::store::transaction::transaction;
use crate::{
    Advance, DueTrigger, Enlisted, Error, HandOut, NewOccurrence, Occurrence, Result, RunRules,
    ScheduledOperation, Store, Trigger,
};

/// How many occurrences are written by one statement.
pub(crate) const ROWS: usize = 400;

impl Store {
    /// Lists the triggers whose time has come, the longest due first, and project by project.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn due_triggers(&self, now: Instant, limit: u32) -> Result<Vec<DueTrigger>> {
        let rows = self.rows("looking for due triggers", &due_triggers(now, limit)).await?;
        let read = |row: &Row| {
            Ok(DueTrigger {
                id: row.parsed("id")?,
                kind: row.text("kind")?,
                properties: row.text("properties")?,
                next_at: row.instant("next_at")?,
                revision: row.number("revision")?,
                handed_to: row.optional_parsed("handed_to")?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Returns when the next trigger is due.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn next_due(&self) -> Result<Option<Instant>> {
        let rows = self.rows("looking when the next trigger is due", &next_due()).await?;
        rows.first().map(|row| row.instant("next_at")).transpose()
    }

    /// Lists scheduled operations of these triggers, by trigger and id; of a single trigger those `after` one.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn enlisted(
        &self,
        triggers: &[TriggerId],
        after: Option<ScheduledOperationId>,
        limit: u32,
    ) -> Result<Vec<Enlisted>> {
        if triggers.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.rows("looking whom a trigger concerns", &enlisted(triggers, after, limit)).await?;
        rows.iter().map(read_enlisted).collect()
    }

    /// Moves triggers on and records the occurrences, all of it or nothing; `false` when somebody else has moved or
    /// changed one of the triggers. An occurrence that stands already stays as it is.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn hand_out(
        &self,
        handouts: &[HandOut],
        occurrences: &[NewOccurrence],
        now: Instant,
    ) -> Result<bool> {
        let mut groups: Vec<(&HandOut, Vec<String>)> = Vec::new();
        for handout in handouts {
            let id = handout.trigger.id.to_string();
            match groups.iter_mut().find(|(other, _)| is_alike(other, handout)) {
                Some((_, ids)) => ids.push(id),
                None => groups.push((handout, vec![id])),
            }
        }
        let done = transaction!(self, "handing out occurrences", |tx| {
            for (handout, ids) in &groups {
                if tx.execute(&advance(handout, ids)).await? != ids.len() as u64 {
                    // Rolled back whole: whoever was faster has done its part of it.
                    return Err(lost());
                }
            }
            insert_occurrences(tx, occurrences, now).await
        });
        won(done)
    }

    /// Sets a trigger aside that nobody can read: it does not fire until it is changed. Returns whether it still stood as
    /// it was read.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn set_trigger_aside(&self, trigger: &DueTrigger, fault: &str, now: Instant) -> Result<bool> {
        let mut update = Query::update();
        update.table(Trigger::TABLE).value("next_at", Option::<i64>::None).value("fault", fault);
        update.value("updated_at", now.as_micros());
        update.and_where(Expr::col("id").eq(trigger.id.to_string()));
        update.and_where(Expr::col("next_at").eq(trigger.next_at.as_micros()));
        update.and_where(Expr::col("revision").eq(trigger.revision));
        transaction!(self, "setting a trigger aside", |tx| { Ok(tx.execute(&update).await? > 0) })
    }

    /// Lets a trigger fire at an instant, if it does not wait for one; returns whether it does now.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn fire_trigger(&self, id: TriggerId, at: Instant) -> Result<bool> {
        let mut update = Query::update();
        update.table(Trigger::TABLE).value("next_at", at.as_micros());
        update.and_where(Expr::col("id").eq(id.to_string())).and_where(Expr::col("next_at").is_null());
        transaction!(self, "letting a trigger fire", |tx| { Ok(tx.execute(&update).await? > 0) })
    }

    /// Records one occurrence that somebody asked for by hand.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn create_occurrence(&self, new: &NewOccurrence, now: Instant) -> Result<Occurrence> {
        let one = std::slice::from_ref(new);
        let id = OccurrenceId::of(new.operation, new.at).to_string();
        transaction!(self, "recording an occurrence", |tx| {
            insert_occurrences(tx, one, now).await?;
            tx.find(&id).await
        })
    }
}

/// What a compare-and-swap that lost ends its transaction with.
pub(crate) fn lost() -> Error {
    Error::Conflict { what: LOST, id: String::new(), state: "changed by another one".to_owned() }
}

const LOST: &str = "what was read";

/// Tells a transaction that was won from one that was lost.
pub(crate) fn won(done: Result<()>) -> Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(Error::Conflict { what: LOST, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_alike(one: &HandOut, other: &HandOut) -> bool {
    let key = |handout: &HandOut| {
        (handout.trigger.next_at, handout.trigger.revision, handout.trigger.handed_to, handout.advance)
    };
    key(one) == key(other)
}

pub(crate) fn advance(handout: &HandOut, ids: &[String]) -> UpdateStatement {
    let mut update = Query::update();
    update.table(Trigger::TABLE);
    match handout.advance {
        Advance::To(next) => {
            update.value("next_at", next.map(Instant::as_micros));
            update.value("handed_to", Option::<String>::None);
        }
        Advance::Beyond(last) => {
            update.value("handed_to", last.to_string());
        }
    }
    update.and_where(Expr::col("id").is_in(ids.iter().map(String::as_str)));
    update.and_where(compared("next_at").eq(handout.trigger.next_at.as_micros()));
    update.and_where(Expr::col("revision").eq(handout.trigger.revision));
    match handout.trigger.handed_to {
        None => update.and_where(Expr::col("handed_to").is_null()),
        Some(last) => update.and_where(Expr::col("handed_to").eq(last.to_string())),
    };
    update
}

async fn insert_occurrences(tx: &mut Transaction, new: &[NewOccurrence], now: Instant) -> Result<()> {
    for chunk in new.chunks(ROWS) {
        let mut insert = Query::insert();
        insert.into_table(Occurrence::TABLE).columns(COLUMNS);
        for one in chunk {
            let ended = one.state.is_final().then_some(now.as_micros());
            let act_at = (!one.state.is_final()).then_some(one.act_at.as_micros());
            insert.values_panic([
                Expr::val(OccurrenceId::of(one.operation, one.at).to_string()),
                Expr::val(one.operation.to_string()),
                Expr::val(one.operation_type.as_str()),
                Expr::val(one.trigger.to_string()),
                Expr::val(one.project.as_str()),
                Expr::val(one.provider.to_string()),
                Expr::val(one.at.as_micros()),
                Expr::val(one.origin.as_str()),
                Expr::val(one.state.as_str()),
                Expr::val(one.reason.map(|reason| reason.as_str().to_owned())),
                Expr::val(-i64::from(one.priority)),
                Expr::val(1i64),
                Expr::val(act_at),
                Expr::val(one.until.as_micros()),
                Expr::val(now.as_micros()),
                Expr::val(ended),
            ]);
        }
        insert.on_conflict(OnConflict::column("id").do_nothing_on(["id"]).to_owned());
        tx.execute(&insert).await?;
        let mut skipped: BTreeMap<OccurrenceReason, Vec<String>> = BTreeMap::new();
        for one in chunk.iter().filter(|one| one.state == OccurrenceState::Skipped) {
            if let Some(reason) = one.reason {
                skipped.entry(reason).or_default().push(OccurrenceId::of(one.operation, one.at).to_string());
            }
        }
        for (reason, ids) in skipped {
            tx.execute(&insert_skipped(&ids, reason.as_str(), now)).await?;
        }
    }
    Ok(())
}

/// The columns that a new occurrence has, in the order of its values.
const COLUMNS: [&str; 16] = [
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
    "turn",
    "attempt",
    "act_at",
    "until_at",
    "created_at",
    "ended_at",
];

pub(crate) fn due_triggers(now: Instant, limit: u32) -> SelectStatement {
    let mut select = Query::select();
    select.columns(["id", "kind", "properties", "next_at", "revision", "handed_to"]).from(Trigger::TABLE);
    select.and_where(Expr::col("next_at").lte(now.as_micros()));
    select.order_by("next_at", Order::Asc).order_by("project_id", Order::Asc).limit(u64::from(limit)).take()
}

pub(crate) fn next_due() -> SelectStatement {
    let mut select = Query::select();
    select.column("next_at").from(Trigger::TABLE).and_where(Expr::col("next_at").is_not_null());
    select.order_by("next_at", Order::Asc).limit(1).take()
}

pub(crate) fn enlisted(
    triggers: &[TriggerId],
    after: Option<ScheduledOperationId>,
    limit: u32,
) -> SelectStatement {
    let mut select = Query::select();
    select.columns([
        "id",
        "trigger_id",
        "project_id",
        "operation_type",
        "operation_definition",
        "enabled",
        "rules",
        "created_at",
    ]);
    select.from(ScheduledOperation::TABLE);
    match triggers {
        [one] => select.and_where(Expr::col("trigger_id").eq(one.to_string())),
        several => select.cond_where(
            Cond::all().add(Expr::col("trigger_id").is_in(several.iter().map(TriggerId::to_string))),
        ),
    };
    if let Some(after) = after {
        select.and_where(Expr::col("id").gt(after.to_string()));
    }
    select.order_by("trigger_id", Order::Asc).order_by("id", Order::Asc).limit(u64::from(limit)).take()
}

/// The one member of a definition that handing out looks at.
#[derive(Deserialize)]
struct Named {
    provider_id: ProviderId,
}

/// Reads what can be read: one row that is damaged must not keep the others from being handed out.
fn read_enlisted(row: &Row) -> Result<Enlisted> {
    let definition = row.text("operation_definition")?;
    let named = serde_json::from_str::<Named>(&definition);
    let rules = row.optional_text("rules")?;
    let rules = rules.and_then(|rules| serde_json::from_str::<RunRules>(&rules).ok());
    Ok(Enlisted {
        id: row.parsed("id")?,
        trigger: row.parsed("trigger_id")?,
        project: row.parsed("project_id")?,
        operation_type: row.text("operation_type")?,
        provider: named.map_or(ProviderId(Uuid::nil()), |named| named.provider_id),
        enabled: row.truth("enabled")?,
        rules: rules.unwrap_or_default(),
        created_at: row.instant("created_at")?,
    })
}
