//! Scheduled operations.

use karbor_actions::{NewScheduledOperation, RunNow, RunRules, ScheduledOperation, ScheduledOperationChange};
use karbor_types::{CatchUp, ScheduledOperationId, TriggerId};
use serde_json::{Map, Value};

use crate::Microversion;
use crate::body::{Members, Unspelled};
use crate::call::{Answer, Call};
use crate::fault::Fault;
use crate::paging::Strictness;
use crate::views;

/// What could be scheduled before microversion 1.2.
const OLD_TYPES: [&str; 2] = ["protect", "retention_protect"];

pub(super) async fn list(call: Call) -> Answer {
    let request = call.open_list()?;
    let page = call.actions().list_scheduled_operations(&call.caller, &request).await?;
    let page = page.map(|operation| views::scheduled_operation(&operation, call.version));
    call.page("operations", &page, |shown| shown["id"].as_str().unwrap_or_default().to_owned())
}

pub(super) async fn create(mut call: Call) -> Answer {
    let mut body = call.envelope("scheduled_operation")?;
    let name = body.name()?.ok_or_else(|| body.missing("name"))?;
    let description = body.nullable_text("description")?.flatten();
    let operation_type = body.text("operation_type")?.ok_or_else(|| body.missing("operation_type"))?;
    let trigger: TriggerId = body.id("trigger_id", "trigger", Unspelled::NotFound)?;
    let definition = definition(&mut body)?;
    let mut enabled = true;
    let mut rules = RunRules::default();
    if call.speaks(Microversion::V1_2) {
        enabled = body.boolean("enabled")?.unwrap_or(true);
        rules.catch_up = catch_up(&mut body)?.flatten();
        rules.jitter_seconds = count(&mut body, "jitter_seconds")?.flatten();
        rules.retries = count(&mut body, "retries")?.flatten();
        rules.priority = priority(&mut body)?.unwrap_or(0);
    } else if !OLD_TYPES.contains(&operation_type.as_str()) {
        return Err(body.wrong("operation_type", format!("one of {}", OLD_TYPES.join(", "))));
    }
    body.done()?;
    let new =
        NewScheduledOperation { name, description, operation_type, trigger, definition, enabled, rules };
    let made = call.actions().create_scheduled_operation(&call.caller, new).await?;
    shown(&call, &made)
}

pub(super) async fn show(call: Call) -> Answer {
    let id: ScheduledOperationId = call.member_id("scheduled operation")?;
    shown(&call, &call.actions().get_scheduled_operation(&call.caller, id).await?)
}

pub(super) async fn update(mut call: Call) -> Answer {
    call.since(Microversion::V1_2)?;
    let id: ScheduledOperationId = call.member_id("scheduled operation")?;
    let mut body = call.envelope("scheduled_operation")?;
    let trigger = match body.has("trigger_id") {
        true => Some(body.id("trigger_id", "trigger", Unspelled::NotFound)?),
        false => None,
    };
    let change = ScheduledOperationChange {
        name: body.name()?,
        description: body.nullable_text("description")?,
        trigger,
        definition: if body.has("operation_definition") { Some(definition(&mut body)?) } else { None },
        enabled: body.boolean("enabled")?,
        catch_up: catch_up(&mut body)?,
        jitter_seconds: count(&mut body, "jitter_seconds")?,
        retries: count(&mut body, "retries")?,
        priority: priority(&mut body)?,
    };
    body.done()?;
    shown(&call, &call.actions().update_scheduled_operation(&call.caller, id, change).await?)
}

pub(super) async fn run(mut call: Call) -> Answer {
    call.since(Microversion::V1_2)?;
    let operation: ScheduledOperationId = call.id(call.param("id"), "scheduled operation")?;
    call.envelope("run")?.done()?;
    let made = call.actions().run_now(&call.caller, RunNow { operation }).await?;
    call.one("run", views::occurrence(&made))
}

pub(super) async fn runs(call: Call) -> Answer {
    call.since(Microversion::V1_2)?;
    let id: ScheduledOperationId = call.id(call.param("id"), "scheduled operation")?;
    let request = call.list(Strictness::Strict)?;
    let page = call.actions().list_occurrences(&call.caller, id, &request).await?;
    let page = page.map(|occurrence| views::occurrence(&occurrence));
    call.page("runs", &page, |shown| shown["id"].as_str().unwrap_or_default().to_owned())
}

/// Reads a member that may be left out, or null.
fn count(body: &mut Members, name: &str) -> Result<Option<Option<u32>>, Fault> {
    match body.take(name) {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(value) => match value.as_u64().map(u32::try_from) {
            Some(Ok(number)) => Ok(Some(Some(number))),
            _ => Err(body.wrong(name, "a whole number, or null")),
        },
    }
}

fn priority(body: &mut Members) -> Result<Option<i32>, Fault> {
    match body.take("priority") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_i64().map(i32::try_from) {
            Some(Ok(number)) => Ok(Some(number)),
            _ => Err(body.wrong("priority", "a whole number")),
        },
    }
}

fn catch_up(body: &mut Members) -> Result<Option<Option<CatchUp>>, Fault> {
    match body.take("catch_up") {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(value) => match value.as_str().map(str::parse) {
            Some(Ok(rule)) => Ok(Some(Some(rule))),
            _ => Err(body.wrong("catch_up", "run_once, skip, or null")),
        },
    }
}

/// Shows what retention would let go, and why.
pub(super) async fn retention(call: Call) -> Answer {
    call.since(Microversion::V1_2)?;
    let id: ScheduledOperationId = call.member_id("scheduled operation")?;
    let plan = call.actions().preview_retention(&call.caller, id).await?;
    call.one("retention", views::retention(&plan))
}

pub(super) async fn delete(call: Call) -> Answer {
    let id: ScheduledOperationId = call.member_id("scheduled operation")?;
    call.actions().delete_scheduled_operation(&call.caller, id).await?;
    call.empty()
}

/// Reads the definition: an open object of plain values, or the text `k=v,k=v` that one of the old clients sends.
fn definition(body: &mut Members) -> Result<Map<String, Value>, Fault> {
    const NAME: &str = "operation_definition";
    let members = match body.take(NAME) {
        None => return Err(body.missing(NAME)),
        Some(Value::Object(members)) => members,
        Some(Value::String(text)) => {
            let mut members = Map::new();
            for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
                let Some((name, value)) = part.split_once('=') else {
                    return Err(body.wrong(NAME, "an object, or text such as plan_id=…,provider_id=…"));
                };
                members.insert(name.trim().to_owned(), Value::from(value.trim()));
            }
            members
        }
        Some(_) => return Err(body.wrong(NAME, "an object")),
    };
    for (name, value) in &members {
        if matches!(value, Value::Null | Value::Array(_) | Value::Object(_)) {
            return Err(body.wrong(&format!("{NAME}.{name}"), "a string, a number or a boolean"));
        }
    }
    Ok(members)
}

fn shown(call: &Call, operation: &ScheduledOperation) -> Answer {
    call.one("scheduled_operation", views::scheduled_operation(operation, call.version))
}
