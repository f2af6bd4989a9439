//! Bank accounts: since microversion 1.1.

use karbor_actions::{BankAccountChange, Credentials};
use karbor_types::ProjectId;
use secrecy::SecretString;
use serde_json::Value;

use crate::Microversion;
use crate::body::Members;
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
    let shown: Vec<Value> = found.iter().map(|view| views::bank_account(view, call.version)).collect();
    call.one("bank_accounts", shown)
}

pub(super) async fn show(call: Call) -> Answer {
    call.since(Microversion::V1_1)?;
    let found = call.actions().get_bank_account(&call.caller, call.param("bank"), project(&call)?).await?;
    call.one("bank_account", views::bank_account(&found, call.version))
}

pub(super) async fn update(mut call: Call) -> Answer {
    call.since(Microversion::V1_1)?;
    let later = call.speaks(Microversion::V1_2);
    let mut body = call.envelope("bank_account")?;
    let mut change = BankAccountChange::default();
    match body.take("quota_bytes") {
        None if !later => return Err(body.missing("quota_bytes")),
        None => {}
        Some(Value::Null) => change.quota_bytes = Some(None),
        Some(number) => match number.as_u64().filter(|bytes| i64::try_from(*bytes).is_ok()) {
            Some(bytes) => change.quota_bytes = Some(Some(bytes)),
            None => return Err(body.wrong("quota_bytes", "a number of bytes, or null for any number")),
        },
    }
    if later {
        change.place = long_text(
            &mut body,
            "place",
            "a prefix, a directory or a URL, or null for the bank's own place",
        )?;
        change.credentials = credentials(&mut body)?;
        change.key_source =
            long_text(&mut body, "key_source", "the name of a master key, or null for the first")?;
    }
    body.done()?;
    let found =
        call.actions().update_bank_account(&call.caller, call.param("bank"), project(&call)?, change).await?;
    call.one("bank_account", views::bank_account(&found, call.version))
}

/// The most characters of a place.
const MAX_PLACE: usize = 2000;
/// The most credentials, and the most characters of one.
const MAX_CREDENTIALS: (usize, usize) = (32, 8192);

fn long_text(body: &mut Members, name: &str, expected: &str) -> Result<Option<Option<String>>, Fault> {
    match body.take(name) {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(Value::String(text)) if (1..=MAX_PLACE).contains(&text.chars().count()) => Ok(Some(Some(text))),
        Some(_) => Err(body.wrong(name, expected)),
    }
}

/// Reads credentials: texts by the names of the environment's variables that they stand for. None of them is repeated.
fn credentials(body: &mut Members) -> Result<Option<Option<Credentials>>, Fault> {
    const NAME: &str = "credentials";
    let expected = "an object of texts whose names are those of the environment's variables, or null";
    let members = match body.take(NAME) {
        None => return Ok(None),
        Some(Value::Null) => return Ok(Some(None)),
        Some(Value::Object(members)) => members,
        Some(_) => return Err(body.wrong(NAME, expected)),
    };
    let (most, longest) = MAX_CREDENTIALS;
    let is_name = |name: &str| {
        (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    };
    if members.is_empty() || members.len() > most {
        return Err(body.wrong(NAME, format!("null, or have 1 to {most} members")));
    }
    let mut found = Credentials::new();
    for (name, value) in members {
        match value {
            Value::String(text) if is_name(&name) && text.len() <= longest => {
                found.insert(name, SecretString::from(text));
            }
            _ => return Err(body.wrong(NAME, expected)),
        }
    }
    Ok(Some(Some(found)))
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
