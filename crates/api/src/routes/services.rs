//! Services.

use karbor_actions::ServiceChange;
use serde_json::Value;

use crate::call::{Answer, Call};
use crate::fault::Fault;
use crate::views;

pub(super) async fn list(call: Call) -> Answer {
    let value = |name: &str| {
        call.query.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    };
    let found = call.actions().list_services(&call.caller, value("host"), value("binary")).await?;
    let shown: Vec<Value> = found.iter().map(views::service).collect();
    call.one("services", shown)
}

pub(super) async fn update(mut call: Call) -> Answer {
    call.actions().may_change_services(&call.caller)?;
    let Value::Object(mut body) = call.json()? else {
        return Err(Fault::bad_request("the body must be an object with the member `status`"));
    };
    let reason = match body.remove("disabled_reason") {
        None | Some(Value::Null) => None,
        Some(Value::String(reason)) if reason.chars().count() <= 255 => Some(reason),
        Some(_) => {
            return Err(Fault::bad_request("disabled_reason must be a string of at most 255 characters"));
        }
    };
    let change = match (body.remove("status").as_ref().and_then(Value::as_str), reason) {
        (Some("enabled"), None) => ServiceChange::Enable,
        (Some("enabled"), Some(_)) => {
            return Err(Fault::bad_request("disabled_reason is for services that are disabled"));
        }
        (Some("disabled"), reason) => ServiceChange::Disable { reason },
        _ => return Err(Fault::bad_request("status must be enabled or disabled")),
    };
    if let Some(name) = body.keys().next() {
        return Err(Fault::bad_request(format!("`{name}` is not known")));
    }
    let text = call.suffixed("id");
    let id: i64 = text.parse().map_err(|_| Fault::not_found(format!("service {text} does not exist")))?;
    let view = call.actions().change_service(&call.caller, id, change).await?;
    call.one("service", views::service(&view))
}
