//! Protectables.

use karbor_types::ResourceType;
use serde_json::{Map, Value, json};

use crate::call::{Answer, Call};
use crate::fault::Fault;
use crate::paging::Strictness;
use crate::{literal, views};

pub(super) async fn list(call: Call) -> Answer {
    let types = call.actions().list_protectables(&call.caller).await?;
    call.one("protectable_type", types)
}

pub(super) async fn show(call: Call) -> Answer {
    let found = call.actions().get_protectable(&call.caller, &kind(call.suffixed("id"))).await?;
    call.one("protectable_type", json!({"name": found.name, "dependent_types": found.dependent_types}))
}

pub(super) async fn instances(call: Call) -> Answer {
    let request = call.list(Strictness::Lenient)?;
    // What protectables list takes no parameters; they are only looked at for their form, as ever.
    parameters(&call)?;
    let kind = kind(call.param("type"));
    let found = call.actions().list_instances(&call.caller, &kind, request.marker, request.limit).await?;
    let shown: Vec<Value> = found.instances.iter().map(views::instance).collect();
    call.many("instances", &shown, found.next.as_deref())
}

pub(super) async fn instance(call: Call) -> Answer {
    let parameters = parameters(&call)?;
    let kind = kind(call.param("type"));
    let found = call.actions().get_instance(&call.caller, &kind, call.param("id"), &parameters).await?;
    call.one("instance", views::instance(&found))
}

fn kind(text: &str) -> ResourceType {
    ResourceType::from(text)
}

/// Reads the parameter `parameters`: a mapping as Python or JSON write it.
fn parameters(call: &Call) -> Result<Map<String, Value>, Fault> {
    let given = call.query.iter().rev().find(|(name, _)| name == "parameters");
    match given {
        None => Ok(Map::new()),
        Some((_, text)) => literal::mapping(text).ok_or_else(|| {
            Fault::bad_request(format!("parameters must be a mapping such as {{'name': 'x'}}, not `{text}`"))
        }),
    }
}
