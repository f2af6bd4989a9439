//! Quotas and quota classes.

use karbor_actions::{Limit, LimitChange, QuotaResource};
use karbor_types::ProjectId;
use serde_json::Value;

use crate::body::{Members, is_uuid_like};
use crate::call::{Answer, Call};
use crate::fault::Fault;
use crate::views;

pub(super) async fn show(call: Call) -> Answer {
    let text = call.suffixed("id");
    if text == "new" {
        return Err(Fault::not_here());
    }
    let project = project(text)?;
    let quotas = call.actions().get_quotas(&call.caller, &project).await?;
    call.one("quota", views::quotas(&quotas, Some(project.as_str())))
}

pub(super) async fn detail(call: Call) -> Answer {
    let project = project(call.param("id"))?;
    let usage = call.actions().get_usage(&call.caller, &project).await?;
    call.one("quota", views::usage(&usage, project.as_str()))
}

pub(super) async fn defaults(call: Call) -> Answer {
    let project = project(call.param("id"))?;
    let quotas = call.actions().default_quotas(&call.caller).await?;
    call.one("quota", views::quotas(&quotas, Some(project.as_str())))
}

pub(super) async fn update(mut call: Call) -> Answer {
    let change = limits(call.envelope("quota")?)?;
    let project = project(call.suffixed("id"))?;
    let quotas = call.actions().set_quotas(&call.caller, &project, change).await?;
    call.one("quota", views::quotas(&quotas, None))
}

pub(super) async fn delete(call: Call) -> Answer {
    let project = project(call.suffixed("id"))?;
    call.actions().delete_quotas(&call.caller, &project).await?;
    call.empty()
}

pub(super) async fn show_class(call: Call) -> Answer {
    let class = class(&call)?;
    let quotas = call.actions().get_quota_class(&call.caller, class).await?;
    call.one("quota_class", views::quotas(&quotas, Some(class)))
}

pub(super) async fn update_class(mut call: Call) -> Answer {
    let change = limits(call.envelope("quota_class")?)?;
    let class = class(&call)?;
    let quotas = call.actions().set_quota_class(&call.caller, class, change).await?;
    call.one("quota_class", views::quotas(&quotas, None))
}

/// Reads the id of a project, which looks like a UUID in any spelling.
fn project(text: &str) -> Result<ProjectId, Fault> {
    let refuse = || Fault::bad_request(format!("`{text}` is no project id: a UUID is expected"));
    if !is_uuid_like(text) {
        return Err(refuse());
    }
    ProjectId::new(text).map_err(|_| refuse())
}

fn class(call: &Call) -> Result<&str, Fault> {
    let class = call.suffixed("id");
    if class == "new" {
        return Err(Fault::not_here());
    }
    Ok(class)
}

/// Reads limits: numbers, or texts of numbers.
fn limits(mut body: Members) -> Result<LimitChange, Fault> {
    let mut change = LimitChange::new();
    for &resource in QuotaResource::ALL {
        let name = resource.as_str();
        let expected = "a number: -1 for any number, or how many";
        let number = match body.take(name) {
            None => continue,
            Some(Value::Number(number)) => number.as_i64(),
            Some(Value::String(text)) => text.trim().parse::<i64>().ok(),
            Some(_) => None,
        };
        match number {
            Some(number) if number >= -1 => change.push((resource, Limit::from_number(number))),
            _ => return Err(body.wrong(name, expected)),
        }
    }
    // What other services' clients send along.
    for name in ["id", "tenant_id", "project_id"] {
        body.take(name);
    }
    body.done()?;
    Ok(change)
}
