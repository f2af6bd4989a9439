//! Operations: since microversion 1.1.

use karbor_actions::OperationView;
use karbor_types::OperationId;

use crate::Microversion;
use crate::call::{Answer, Call};
use crate::paging::Strictness;
use crate::views;

pub(super) async fn list(call: Call) -> Answer {
    call.since(Microversion::V1_1)?;
    let request = call.list(Strictness::Strict)?;
    let page = call.actions().list_operations(&call.caller, &request).await?;
    let page = page.map(|operation| views::operation(&operation, None));
    call.page("operations", &page, |shown| shown["id"].as_str().unwrap_or_default().to_owned())
}

pub(super) async fn show(call: Call) -> Answer {
    call.since(Microversion::V1_1)?;
    let found = call.actions().view_operation(&call.caller, id(&call)?).await?;
    shown(&call, &found)
}

pub(super) async fn resources(call: Call) -> Answer {
    call.since(Microversion::V1_1)?;
    let results = call.actions().operation_resources(&call.caller, id(&call)?).await?;
    let shown: Vec<_> = results.iter().map(views::resource_result).collect();
    call.one("resources", shown)
}

pub(super) async fn act(mut call: Call) -> Answer {
    call.since(Microversion::V1_1)?;
    let body = call.envelope("cancel")?;
    body.done()?;
    let found = call.actions().cancel_operation(&call.caller, id(&call)?).await?;
    shown(&call, &found)
}

fn id(call: &Call) -> Result<OperationId, crate::fault::Fault> {
    call.id(call.param("id"), "operation")
}

fn shown(call: &Call, found: &OperationView) -> Answer {
    call.one("operation", views::operation(&found.operation, Some(&found.progress)))
}
