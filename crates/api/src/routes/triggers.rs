//! Triggers.

use karbor_actions::{NewTrigger, Trigger, TriggerChange};
use karbor_types::TriggerId;
use serde_json::{Map, Value};

use crate::body::Members;
use crate::call::{Answer, Call};
use crate::fault::Fault;
use crate::views;

/// The properties that are texts.
const TEXTS: [&str; 4] = ["format", "pattern", "start_time", "end_time"];

pub(super) async fn list(call: Call) -> Answer {
    let request = call.open_list()?;
    let page = call.actions().list_triggers(&call.caller, &request).await?;
    let page = page.map(|trigger| views::trigger(&trigger, call.version));
    call.page("triggers", &page, |shown| shown["id"].as_str().unwrap_or_default().to_owned())
}

pub(super) async fn create(mut call: Call) -> Answer {
    let mut body = call.envelope("trigger_info")?;
    let name = body.text("name")?.ok_or_else(|| body.missing("name"))?;
    let kind = body.text("type")?.ok_or_else(|| body.missing("type"))?;
    let properties = body.object("properties")?.ok_or_else(|| body.missing("properties"))?;
    body.done()?;
    if !properties.has("format") {
        return Err(properties.missing("format"));
    }
    if !properties.has("pattern") {
        return Err(properties.missing("pattern"));
    }
    let new = NewTrigger { name, kind, properties: checked(properties)? };
    let trigger = call.actions().create_trigger(&call.caller, new).await?;
    shown(&call, &trigger)
}

pub(super) async fn show(call: Call) -> Answer {
    let id: TriggerId = call.member_id("trigger")?;
    shown(&call, &call.actions().get_trigger(&call.caller, id).await?)
}

pub(super) async fn update(mut call: Call) -> Answer {
    let mut body = call.envelope("trigger_info")?;
    let properties = body.object("properties")?;
    let change = TriggerChange {
        // An empty name has always meant: keep the old one.
        name: body.text("name")?.filter(|name| !name.is_empty()),
        kind: body.text("type")?,
        properties: properties.map(checked).transpose()?.unwrap_or_default(),
    };
    body.done()?;
    let id: TriggerId = call.member_id("trigger")?;
    shown(&call, &call.actions().update_trigger(&call.caller, id, change).await?)
}

pub(super) async fn delete(call: Call) -> Answer {
    let id: TriggerId = call.member_id("trigger")?;
    call.actions().delete_trigger(&call.caller, id).await?;
    call.empty()
}

/// Checks the types of properties.
fn checked(mut properties: Members) -> Result<Map<String, Value>, Fault> {
    let mut checked = Map::new();
    for name in TEXTS {
        match properties.take(name) {
            None => {}
            Some(Value::String(text)) => {
                checked.insert(name.to_owned(), Value::String(text));
            }
            Some(_) => return Err(properties.wrong(name, "a string")),
        }
    }
    match properties.take("window") {
        None => {}
        Some(window) if window.is_i64() => {
            checked.insert("window".to_owned(), window);
        }
        Some(_) => return Err(properties.wrong("window", "a whole number of seconds")),
    }
    properties.done()?;
    Ok(checked)
}

fn shown(call: &Call, trigger: &Trigger) -> Answer {
    call.one("trigger_info", views::trigger(trigger, call.version))
}
