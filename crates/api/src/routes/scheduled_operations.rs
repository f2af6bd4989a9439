//! Scheduled operations.

use karbor_actions::{NewScheduledOperation, ScheduledOperation};
use karbor_types::{ScheduledOperationId, TriggerId};
use serde_json::{Map, Value};

use crate::Microversion;
use crate::body::{Members, Unspelled};
use crate::call::{Answer, Call};
use crate::fault::Fault;
use crate::views;

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
    body.done()?;
    let new = NewScheduledOperation { name, description, operation_type, trigger, definition };
    let made = call.actions().create_scheduled_operation(&call.caller, new).await?;
    shown(&call, &made)
}

pub(super) async fn show(call: Call) -> Answer {
    let id: ScheduledOperationId = call.member_id("scheduled operation")?;
    shown(&call, &call.actions().get_scheduled_operation(&call.caller, id).await?)
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
