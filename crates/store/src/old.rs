//! The database of the Python Karbor, read to be taken over.
//!
//! Its tables have types of their own on every engine, so each column is read as text. Nothing in it is changed. Taking
//! over can be repeated: what is there already stays. What cannot be taken is left out with its reason, and the rest is
//! taken; checkpoints are not in it, their truth is in the banks.

use std::collections::BTreeMap;

use karbor_types::{
    CheckpointId, Instant, OperationKind, OperationLogId, Parameters, PlanId, Resource, ResourceKey, RunState,
};
use sea_query::{Expr, ExprTrait, Order, Query};
use serde_json::{Map, Value};

use crate::sql::{Database, Row, find_table};
use crate::{
    Engine, Error, Limit, OperationLog, Plan, QuotaDefaults, QuotaResource, Quotas, Restore, Result,
    RunRules, ScheduledOperation, Store, StoreOptions, Trigger, Verification,
};

/// The old Karbor's database.
#[derive(Debug)]
pub struct OldKarbor {
    database: Database,
}

/// What taking over came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Imported {
    /// How many rows of each kind were taken.
    pub taken: BTreeMap<&'static str, u64>,
    /// How many of each kind were there already.
    pub known: BTreeMap<&'static str, u64>,
    /// What could not be taken.
    pub skipped: Vec<Skipped>,
}

/// Something that could not be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// What it is.
    pub what: &'static str,
    /// Its id.
    pub id: String,
    /// Why.
    pub reason: String,
}

/// How many rows are read at once.
const PAGE: u64 = 1000;

/// A row, column by column; what is null is not in it.
type Texts = BTreeMap<&'static str, String>;

/// One table of the old schema.
struct OldTable {
    name: &'static str,
    what: &'static str,
    /// Whether ids are numbers.
    numbered: bool,
    columns: &'static [&'static str],
}

const PLANS: OldTable = OldTable {
    name: "plans",
    what: "plan",
    numbered: false,
    columns: &["id", "name", "description", "provider_id", "project_id", "status", "parameters"],
};
const RESOURCES: OldTable = OldTable {
    name: "resources",
    what: "resource",
    numbered: true,
    columns: &["id", "plan_id", "resource_id", "resource_type", "resource_name", "resource_extra_info"],
};
const TRIGGERS: OldTable = OldTable {
    name: "triggers",
    what: "trigger",
    numbered: false,
    columns: &["id", "name", "project_id", "type", "properties"],
};
const SCHEDULED: OldTable = OldTable {
    name: "scheduled_operations",
    what: "scheduled operation",
    numbered: false,
    columns: &[
        "id",
        "name",
        "description",
        "operation_type",
        "user_id",
        "project_id",
        "trigger_id",
        "operation_definition",
        "enabled",
    ],
};
const RESTORES: OldTable = OldTable {
    name: "restores",
    what: "restore",
    numbered: false,
    columns: &[
        "id",
        "project_id",
        "provider_id",
        "checkpoint_id",
        "restore_target",
        "parameters",
        "status",
        "resources_status",
        "resources_reason",
    ],
};
const VERIFICATIONS: OldTable = OldTable {
    name: "verifications",
    what: "verification",
    numbered: false,
    columns: &[
        "id",
        "project_id",
        "provider_id",
        "checkpoint_id",
        "parameters",
        "status",
        "resources_status",
        "resources_reason",
    ],
};
const LOGS: OldTable = OldTable {
    name: "operation_logs",
    what: "operation log",
    numbered: false,
    columns: &[
        "id",
        "project_id",
        "operation_type",
        "checkpoint_id",
        "plan_id",
        "provider_id",
        "restore_id",
        "scheduled_operation_id",
        "status",
        "started_at",
        "ended_at",
        "error_info",
        "extra_info",
    ],
};
const QUOTAS: OldTable = OldTable {
    name: "quotas",
    what: "quota",
    numbered: true,
    columns: &["id", "project_id", "resource", "hard_limit"],
};
const CLASSES: OldTable = OldTable {
    name: "quota_classes",
    what: "quota class",
    numbered: true,
    columns: &["id", "class_name", "resource", "hard_limit"],
};
/// The columns that every table has beside its own.
const EVERYWHERE: [&str; 3] = ["created_at", "updated_at", "deleted"];

impl OldKarbor {
    /// Opens the old database.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Database`]; [`Error::Invalid`] when it is none.
    pub async fn open(url: &str) -> Result<Self> {
        let options = StoreOptions { connections: 2, ..StoreOptions::default() };
        let database = Database::open(url, &options).await?;
        let doing = "looking for the tables of the old Karbor";
        if database.rows(doing, &find_table(database.engine(), "migrate_version")).await?.is_empty() {
            let reason = "it has no table migrate_version, so it is not the old Karbor's".to_owned();
            return Err(Error::Invalid { what: "a database to import", reason });
        }
        Ok(Self { database })
    }

    /// Takes plans, triggers, scheduled operations, restores, verifications, operation logs and quotas over into a
    /// store. Usage is counted anew from what was taken.
    ///
    /// # Errors
    /// [`Error::Database`] of either side.
    pub async fn import_into(&self, store: &Store, now: Instant) -> Result<Imported> {
        let mut done = Imported::default();
        let no_limit = QuotaDefaults(Quotas { plans: Limit::Unlimited, checkpoints: Limit::Unlimited });
        let mut pages = Pages::of(&PLANS);
        while let Some(rows) = pages.next(&self.database).await? {
            let ids: Vec<&str> = rows.iter().filter_map(|row| row.get("id").map(String::as_str)).collect();
            let mut members = self.members(&ids).await?;
            for row in &rows {
                let id = row.get("id").map_or("", String::as_str);
                match plan(row, &members.remove(id).unwrap_or_default()) {
                    Ok(plan) => done.note(&PLANS, row, store.create_plan(&plan, &no_limit).await)?,
                    Err(reason) => done.skip(&PLANS, row, reason),
                }
            }
        }
        for table in [&TRIGGERS, &SCHEDULED, &RESTORES, &VERIFICATIONS, &LOGS, &QUOTAS, &CLASSES] {
            self.take_all(table, &mut done, store, now).await?;
        }
        Ok(done)
    }

    /// Takes every living row of a table that is there.
    async fn take_all(
        &self,
        table: &'static OldTable,
        done: &mut Imported,
        store: &Store,
        now: Instant,
    ) -> Result<()> {
        let doing = "looking for a table of the old Karbor";
        // Verifications and quotas came with later versions.
        let found = self.database.rows(doing, &find_table(self.database.engine(), table.name)).await?;
        let mut pages = Pages::of(table);
        while !found.is_empty()
            && let Some(rows) = pages.next(&self.database).await?
        {
            for row in &rows {
                match take(table, row, store, now).await {
                    Ok(taken) => done.note(table, row, taken)?,
                    Err(reason) => done.skip(table, row, reason),
                }
            }
        }
        Ok(())
    }

    /// Returns the resources of some plans, in their order.
    async fn members(&self, plans: &[&str]) -> Result<BTreeMap<String, Vec<Texts>>> {
        let mut select = select(self.database.engine(), &RESOURCES);
        select.and_where(Expr::col("plan_id").is_in(plans.iter().copied()));
        select.order_by("id", Order::Asc);
        let rows = self.database.rows("reading the resources of old plans", &select).await?;
        let mut members: BTreeMap<String, Vec<Texts>> = BTreeMap::new();
        for row in &rows {
            let row = texts(&RESOURCES, row)?;
            if !is_deleted(&row) {
                members.entry(row.get("plan_id").cloned().unwrap_or_default()).or_default().push(row);
            }
        }
        Ok(members)
    }
}

/// Takes one row of a table that stands for itself.
async fn take(table: &OldTable, row: &Texts, store: &Store, now: Instant) -> Read<Result<()>> {
    Ok(match table.name {
        "triggers" => store.create_trigger(&trigger(row)?).await,
        "scheduled_operations" => store.create_scheduled_operation(&scheduled(row)?).await,
        "restores" => store.import_restore(&restore(row)?).await,
        "verifications" => store.import_verification(&verification(row)?).await,
        "operation_logs" => store.import_operation_log(&log(row)?).await,
        "quotas" => store.set_quotas(&parsed(row, "project_id")?, &[limit(row)?], now).await,
        "quota_classes" => store.set_quota_class(needed(row, "class_name")?, &[limit(row)?], now).await,
        other => return Err(format!("nothing is known of the table {other}")),
    })
}

impl Imported {
    fn note(&mut self, table: &OldTable, row: &Texts, outcome: Result<()>) -> Result<()> {
        match outcome {
            Ok(()) => *self.taken.entry(table.what).or_default() += 1,
            Err(Error::AlreadyExists { .. }) => *self.known.entry(table.what).or_default() += 1,
            Err(err @ (Error::NotFound { .. } | Error::Invalid { .. })) => {
                self.skip(table, row, err.to_string());
            }
            Err(err) => return Err(err),
        }
        Ok(())
    }

    fn skip(&mut self, table: &OldTable, row: &Texts, reason: String) {
        let id = row.get("id").cloned().unwrap_or_default();
        self.skipped.push(Skipped { what: table.what, id, reason });
    }
}

/// A table, page by page in the order of its ids.
struct Pages {
    table: &'static OldTable,
    after: Option<String>,
    ended: bool,
}

impl Pages {
    fn of(table: &'static OldTable) -> Self {
        Self { table, after: None, ended: false }
    }

    /// Returns the rows of the next page that are not deleted.
    async fn next(&mut self, database: &Database) -> Result<Option<Vec<Texts>>> {
        if self.ended {
            return Ok(None);
        }
        let mut select = select(database.engine(), self.table);
        if let Some(after) = &self.after {
            let id = Expr::col((self.table.name, "id"));
            if self.table.numbered {
                select.and_where(id.gt(after.parse::<i64>().unwrap_or(i64::MAX)));
            } else {
                select.and_where(id.gt(after.as_str()));
            }
        }
        select.order_by((self.table.name, "id"), Order::Asc).limit(PAGE);
        let rows = database.rows("reading a table of the old Karbor", &select).await?;
        self.ended = u64::try_from(rows.len()).unwrap_or(u64::MAX) < PAGE;
        let rows: Vec<Texts> = rows.iter().map(|row| texts(self.table, row)).collect::<Result<_>>()?;
        self.after = rows.last().and_then(|row| row.get("id").cloned()).or(self.after.take());
        Ok(Some(rows.into_iter().filter(|row| !is_deleted(row)).collect()))
    }
}

fn select(engine: Engine, table: &OldTable) -> sea_query::SelectStatement {
    // The one text type that each engine casts to without cutting.
    let text = if engine == Engine::Mysql { "CHAR" } else { "TEXT" };
    let mut select = Query::select();
    select.from(table.name);
    for column in table.columns.iter().copied().chain(EVERYWHERE) {
        select.expr_as(Expr::col((table.name, column)).cast_as(text), column);
    }
    select
}

fn texts(table: &OldTable, row: &Row) -> Result<Texts> {
    let mut texts = Texts::new();
    for column in table.columns.iter().copied().chain(EVERYWHERE) {
        if let Some(text) = row.optional_text(column)? {
            texts.insert(column, text);
        }
    }
    Ok(texts)
}

fn is_deleted(row: &Texts) -> bool {
    row.get("deleted").is_some_and(|deleted| matches!(deleted.as_str(), "1" | "t" | "true"))
}

/// Why a row cannot be taken.
type Read<T> = std::result::Result<T, String>;

fn needed<'a>(row: &'a Texts, column: &str) -> Read<&'a str> {
    row.get(column).map(String::as_str).ok_or_else(|| format!("its {column} is null"))
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(row: &Texts, column: &str) -> Read<T> {
    needed(row, column)?.parse().map_err(|err| format!("its {column}: {err}"))
}

/// Reads an id that may be missing; one that is no id is left out, it leads nowhere anyway.
fn maybe<T: std::str::FromStr>(row: &Texts, column: &str) -> Option<T> {
    row.get(column).and_then(|text| text.parse().ok())
}

fn value(row: &Texts, column: &str) -> Read<Value> {
    let Some(text) = row.get(column) else { return Ok(Value::Null) };
    serde_json::from_str(text).map_err(|err| format!("its {column} is no JSON: {err}"))
}

fn object(row: &Texts, column: &str) -> Read<Map<String, Value>> {
    match value(row, column)? {
        Value::Null => Ok(Map::new()),
        Value::Object(members) => Ok(members),
        _ => Err(format!("its {column} is no JSON object")),
    }
}

fn parameters(row: &Texts) -> Read<Parameters> {
    Parameters::parse(&value(row, "parameters")?).map_err(|err| format!("its parameters: {err}"))
}

/// Reads a naive time, which is UTC.
fn instant(row: &Texts, column: &str) -> Read<Option<Instant>> {
    let Some(text) = row.get(column) else { return Ok(None) };
    let time: jiff::civil::DateTime = text.parse().map_err(|err| format!("its {column}: {err}"))?;
    let time = time.to_zoned(jiff::tz::TimeZone::UTC).map_err(|err| format!("its {column}: {err}"))?;
    Ok(Some(Instant::from_micros(time.timestamp().as_microsecond())))
}

fn created(row: &Texts) -> Read<Instant> {
    Ok(instant(row, "created_at")?.unwrap_or_default())
}

fn plan(row: &Texts, members: &[Texts]) -> Read<Plan> {
    let resources = members.iter().map(resource).collect::<Read<_>>()?;
    Ok(Plan {
        id: parsed(row, "id")?,
        project: parsed(row, "project_id")?,
        name: row.get("name").cloned().unwrap_or_default(),
        description: row.get("description").cloned(),
        provider: parsed(row, "provider_id")?,
        status: row.get("status").cloned(),
        resources,
        parameters: parameters(row)?,
        created_at: created(row)?,
        updated_at: instant(row, "updated_at")?,
    })
}

fn resource(row: &Texts) -> Read<Resource> {
    Ok(Resource {
        key: ResourceKey::new(needed(row, "resource_type")?, needed(row, "resource_id")?),
        name: row.get("resource_name").cloned().unwrap_or_default(),
        extra_info: value(row, "resource_extra_info")?,
    })
}

fn trigger(row: &Texts) -> Read<Trigger> {
    Ok(Trigger {
        id: parsed(row, "id")?,
        name: needed(row, "name")?.to_owned(),
        project: parsed(row, "project_id")?,
        kind: needed(row, "type")?.to_owned(),
        properties: object(row, "properties")?,
        // Found anew from its properties.
        next_at: Some(Trigger::UNPLANNED),
        fault: None,
        created_at: created(row)?,
        updated_at: instant(row, "updated_at")?,
    })
}

fn scheduled(row: &Texts) -> Read<ScheduledOperation> {
    Ok(ScheduledOperation {
        id: parsed(row, "id")?,
        name: needed(row, "name")?.to_owned(),
        description: row.get("description").cloned(),
        operation_type: needed(row, "operation_type")?.to_owned(),
        user: parsed(row, "user_id")?,
        project: parsed(row, "project_id")?,
        trigger: parsed(row, "trigger_id")?,
        definition: object(row, "operation_definition")?,
        enabled: matches!(needed(row, "enabled")?, "1" | "t" | "true"),
        rules: RunRules::default(),
        created_at: created(row)?,
        updated_at: instant(row, "updated_at")?,
    })
}

/// What had not ended when the old service did will not end.
fn run_state(row: &Texts) -> (RunState, Option<String>) {
    match row.get("status").map(String::as_str) {
        Some("success") => (RunState::Success, None),
        Some("in_progress") => {
            (RunState::Fail, Some("it was under way when it was taken over from the old service".to_owned()))
        }
        _ => (RunState::Fail, None),
    }
}

fn told(row: &Texts, column: &str) -> Read<BTreeMap<String, String>> {
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Ok(object(row, column)?.into_iter().map(|(name, value)| (name, text(value))).collect())
}

fn restore(row: &Texts) -> Read<Restore> {
    let (state, reason) = run_state(row);
    Ok(Restore {
        id: parsed(row, "id")?,
        project: parsed(row, "project_id")?,
        provider: parsed(row, "provider_id")?,
        checkpoint: parsed(row, "checkpoint_id")?,
        target: row.get("restore_target").cloned(),
        parameters: parameters(row)?,
        state,
        resources_status: told(row, "resources_status")?,
        resources_reason: told(row, "resources_reason")?,
        reason,
        created_at: created(row)?,
        updated_at: instant(row, "updated_at")?,
    })
}

fn verification(row: &Texts) -> Read<Verification> {
    let (state, reason) = run_state(row);
    Ok(Verification {
        id: parsed(row, "id")?,
        project: parsed(row, "project_id")?,
        provider: parsed(row, "provider_id")?,
        checkpoint: parsed(row, "checkpoint_id")?,
        parameters: parameters(row)?,
        state,
        resources_status: told(row, "resources_status")?,
        resources_reason: told(row, "resources_reason")?,
        reason,
        created_at: created(row)?,
        updated_at: instant(row, "updated_at")?,
    })
}

fn log(row: &Texts) -> Read<OperationLog> {
    let made = instant(row, "created_at")?;
    let started = instant(row, "started_at")?.or(made).unwrap_or_default();
    Ok(OperationLog {
        id: parsed::<OperationLogId>(row, "id")?,
        project: parsed(row, "project_id")?,
        kind: parsed::<OperationKind>(row, "operation_type")?,
        operation: None,
        checkpoint: maybe::<CheckpointId>(row, "checkpoint_id"),
        plan: maybe::<PlanId>(row, "plan_id"),
        provider: maybe(row, "provider_id"),
        restore: maybe(row, "restore_id"),
        scheduled_operation: maybe(row, "scheduled_operation_id"),
        status: row.get("status").cloned().unwrap_or_default(),
        started_at: started,
        ended_at: instant(row, "ended_at")?,
        error_info: row.get("error_info").cloned(),
        extra_info: value(row, "extra_info").unwrap_or_default(),
        created_at: made.unwrap_or(started),
        updated_at: instant(row, "updated_at")?,
    })
}

fn limit(row: &Texts) -> Read<(QuotaResource, Limit)> {
    let resource = match needed(row, "resource")? {
        "plans" => QuotaResource::Plans,
        "checkpoints" => QuotaResource::Checkpoints,
        other => return Err(format!("there is no quota of {other}")),
    };
    Ok((resource, Limit::from_number(parsed(row, "hard_limit")?)))
}
