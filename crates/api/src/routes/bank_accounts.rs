//! Bank accounts: since microversion 1.1.

use karbor_types::ProjectId;
use serde_json::Value;

use crate::Microversion;
use crate::call::{Answer, Call};
use crate::fault::Fault;
use crate::paging::{Strictness, boolean};
use crate::views;

pub(super) async fn list(call: Call) -> Answer {
    call.since(Microversion::V1_1)?;
    // Looked at for its form.
    call.list(Strictness::Lenient)?;
    let everybody = value(&call, "all_tenants").and_then(boolean).unwrap_or(false);
    let found = call.actions().list_bank_accounts(&call.caller, everybody).await?;
    let shown: Vec<Value> = found.iter().map(views::bank_account).collect();
    call.one("bank_accounts", shown)
}

pub(super) async fn show(call: Call) -> Answer {
    call.since(Microversion::V1_1)?;
    let found = call.actions().get_bank_account(&call.caller, call.param("bank"), project(&call)?).await?;
    call.one("bank_account", views::bank_account(&found))
}

pub(super) async fn update(mut call: Call) -> Answer {
    call.since(Microversion::V1_1)?;
    let mut body = call.envelope("bank_account")?;
    let quota = match body.take("quota_bytes") {
        None => return Err(body.missing("quota_bytes")),
        Some(Value::Null) => None,
        Some(number) => match number.as_u64().filter(|bytes| i64::try_from(*bytes).is_ok()) {
            Some(bytes) => Some(bytes),
            None => return Err(body.wrong("quota_bytes", "a number of bytes, or null for any number")),
        },
    };
    body.done()?;
    let found =
        call.actions().set_bank_quota(&call.caller, call.param("bank"), project(&call)?, quota).await?;
    call.one("bank_account", views::bank_account(&found))
}

fn value<'a>(call: &'a Call, name: &str) -> Option<&'a str> {
    call.query.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn project(call: &Call) -> Result<Option<ProjectId>, Fault> {
    let text = value(call, "project_id");
    text.map(|text| {
        ProjectId::new(text).map_err(|err| Fault::bad_request(format!("project_id cannot be one: {err}")))
    })
    .transpose()
}
