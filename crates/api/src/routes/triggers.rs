//! Triggers.

use karbor_actions::{EventAddress, NewTrigger, Trigger, TriggerChange};
use karbor_types::TriggerId;
use serde_json::{Map, Value};

use crate::Microversion;
use crate::body::Members;
use crate::call::{Answer, Call};
use crate::fault::Fault;
use crate::{views, webhooks};

/// The properties that are texts.
const TEXTS: [&str; 4] = ["format", "pattern", "start_time", "end_time"];

/// The type of triggers that fire when they are called.
const EVENT: &str = "event";

/// How many times a preview shows when nobody says.
const DEFAULT_PREVIEW: u32 = 10;

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
    let is_event = kind == EVENT && call.speaks(Microversion::V1_2);
    if !properties.has("format") && !is_event {
        return Err(properties.missing("format"));
    }
    if !properties.has("pattern") && !is_event {
        return Err(properties.missing("pattern"));
    }
    let new = NewTrigger { name, kind, properties: checked(properties, call.version)? };
    if is_event {
        let (trigger, address) = call.actions().create_event_trigger(&call.caller, new).await?;
        let mut shown = views::trigger(&trigger, call.version);
        shown["address"] = absolute(&call, &address).into();
        return call.one("trigger_info", shown);
    }
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
        properties: properties
            .map(|properties| checked(properties, call.version))
            .transpose()?
            .unwrap_or_default(),
    };
    body.done()?;
    let id: TriggerId = call.member_id("trigger")?;
    shown(&call, &call.actions().update_trigger(&call.caller, id, change).await?)
}

/// Makes a new address for a trigger that fires when it is called.
pub(super) async fn rotate(call: Call) -> Answer {
    call.since(Microversion::V1_2)?;
    let id: TriggerId = call.member_id("trigger")?;
    let address = call.actions().rotate_trigger_address(&call.caller, id).await?;
    let trigger = call.actions().get_trigger(&call.caller, id).await?;
    let mut shown = views::trigger(&trigger, call.version);
    shown["address"] = absolute(&call, &address).into();
    call.one("trigger_info", shown)
}

fn absolute(call: &Call, address: &EventAddress) -> String {
    format!("{}{}", call.base().as_str(), webhooks::path(address))
}

pub(super) async fn delete(call: Call) -> Answer {
    let id: TriggerId = call.member_id("trigger")?;
    call.actions().delete_trigger(&call.caller, id).await?;
    call.empty()
}

/// Shows when a trigger fires next.
pub(super) async fn preview(call: Call) -> Answer {
    call.since(Microversion::V1_2)?;
    let id: TriggerId = call.member_id("trigger")?;
    let count = call.query.iter().find(|(name, _)| name == "count").map(|(_, value)| value.as_str());
    let count = match count {
        None => DEFAULT_PREVIEW,
        Some(text) => text.parse().map_err(|_| Fault::bad_request("count must be a whole number"))?,
    };
    let preview = call.actions().preview_trigger(&call.caller, id, count).await?;
    call.one("preview", views::preview(&preview))
}

/// Shows when a trigger with these properties would fire.
pub(super) async fn preview_properties(mut call: Call) -> Answer {
    call.since(Microversion::V1_2)?;
    let mut body = call.envelope("preview")?;
    let count = match body.take("count") {
        None => DEFAULT_PREVIEW,
        Some(count) => count
            .as_u64()
            .and_then(|count| u32::try_from(count).ok())
            .ok_or_else(|| body.wrong("count", "a whole number"))?,
    };
    let properties = body.object("properties")?.ok_or_else(|| body.missing("properties"))?;
    body.done()?;
    let properties = checked(properties, call.version)?;
    let preview = call.actions().preview_properties(&call.caller, properties, count)?;
    call.one("preview", views::preview(&preview))
}

/// Checks the types of properties.
fn checked(mut properties: Members, version: Microversion) -> Result<Map<String, Value>, Fault> {
    let mut checked = Map::new();
    let zone = (version >= Microversion::V1_2).then_some("time_zone");
    for name in TEXTS.into_iter().chain(zone) {
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
