//! Triggers that fire when they are called: their addresses, and the calls.
//!
//! A call makes the trigger due: whoever hands out occurrences does the rest, as for a trigger whose time has come. While
//! one call waits to be handed out, others join it.

use karbor_types::{Instant, TriggerId};
use sea_query::{Expr, ExprTrait, OnConflict, Query};

use crate::sql::{Table, not_found};
use crate::store::transaction::transaction;
use crate::{Error, Result, Store, Trigger};

const ADDRESSES: &str = "trigger_addresses";
const CALLS: &str = "trigger_calls";

/// For how long the key of a call is remembered.
const REMEMBERED_SECONDS: i64 = 7 * 86_400;

/// What a call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TriggerCall {
    /// The occurrence.
    pub at: Instant,
    /// Whether this call made it: otherwise the same call came before, or the occurrence of another waits yet.
    pub fired: bool,
}

impl Store {
    /// Sets how the address of a trigger is known; the address before it is no longer.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn set_trigger_address(&self, id: TriggerId, verifier: &str, now: Instant) -> Result<()> {
        let mut insert = Query::insert();
        insert.into_table(ADDRESSES).columns(["trigger_id", "verifier", "created_at"]);
        insert.values_panic([Expr::val(id.to_string()), Expr::val(verifier), Expr::val(now.as_micros())]);
        let updated = OnConflict::column("trigger_id").update_columns(["verifier", "created_at"]).to_owned();
        insert.on_conflict(updated);
        transaction!(self, "setting the address of a trigger", |tx| {
            tx.execute(&insert).await.map(drop).map_err(|error| {
                if crate::sql::is_referred_to(&error) {
                    return not_found::<Trigger>(&id.to_string());
                }
                error
            })
        })
    }

    /// Returns how the address of a trigger is known, if it has one.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn trigger_verifier(&self, id: TriggerId) -> Result<Option<String>> {
        let select = Query::select()
            .column("verifier")
            .from(ADDRESSES)
            .and_where(Expr::col("trigger_id").eq(id.to_string()))
            .take();
        let rows = self.rows("looking up the address of a trigger", &select).await?;
        rows.first().map(|row| row.text("verifier")).transpose()
    }

    /// Makes a trigger due at `now`, unless the same call came before or another one waits to be handed out.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn call_trigger(&self, id: TriggerId, key: Option<&str>, now: Instant) -> Result<TriggerCall> {
        let id = id.to_string();
        let is_it = || Expr::col("trigger_id").eq(id.as_str());
        transaction!(self, "calling a trigger", |tx| {
            let mut forget = Query::delete();
            let forgotten = now.plus_seconds(-REMEMBERED_SECONDS);
            forget.from_table(CALLS).and_where(is_it());
            forget.and_where(Expr::col("created_at").lt(forgotten.as_micros()));
            tx.execute(&forget).await?;
            if let Some(key) = key {
                let select = Query::select()
                    .column("occurrence_at")
                    .from(CALLS)
                    .and_where(is_it())
                    .and_where(Expr::col("call_key").eq(key))
                    .take();
                if let Some(row) = tx.rows(&select).await?.first() {
                    return Ok(TriggerCall { at: row.instant("occurrence_at")?, fired: false });
                }
            }
            let mut fire = Query::update();
            fire.table(Trigger::TABLE).value("next_at", now.as_micros());
            fire.and_where(Expr::col("id").eq(id.as_str())).and_where(Expr::col("next_at").is_null());
            let fired = tx.execute(&fire).await? > 0;
            let at = if fired { now } else { tx.find::<Trigger>(&id).await?.next_at.unwrap_or(now) };
            if let Some(key) = key {
                let mut insert = Query::insert();
                insert.into_table(CALLS).columns(["trigger_id", "call_key", "occurrence_at", "created_at"]);
                insert.values_panic([
                    Expr::val(id.as_str()),
                    Expr::val(key),
                    Expr::val(at.as_micros()),
                    Expr::val(now.as_micros()),
                ]);
                tx.execute(&insert).await.map_err(|error| {
                    if crate::sql::is_duplicate(&error) {
                        // The same call, at the same time: look again.
                        return Error::Busy { doing: "calling a trigger", source: None };
                    }
                    error
                })?;
            }
            Ok(TriggerCall { at, fired })
        })
    }
}
