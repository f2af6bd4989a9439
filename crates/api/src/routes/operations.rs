//! Operations: since microversion 1.1.

use karbor_actions::OperationView;
use karbor_types::OperationId;

use crate::Microversion;
use crate::body::{Leaves, Members};
use crate::call::{Answer, Call};
use crate::paging::Strictness;
use crate::routes::restores::login;
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
    let body = call.json()?;
    let wish = ["resume", "undo"].into_iter().find(|name| body.get(name).is_some());
    let Some(wish) = wish.filter(|_| call.speaks(Microversion::V1_2)) else {
        Members::envelope(body, "cancel")?.done()?;
        let found = call.actions().cancel_operation(&call.caller, id(&call)?).await?;
        return shown(&call, &found);
    };
    let mut body = Members::envelope(body, wish)?;
    let auth = body.metadata("restore_auth", Leaves::PlainOrNull)?;
    body.done()?;
    let (id, login) = (id(&call)?, auth.and_then(|auth| login(None, &auth)));
    let found = match wish {
        "resume" => call.actions().resume_operation(&call.caller, id, login).await?,
        _ => call.actions().undo_operation(&call.caller, id, login).await?,
    };
    shown(&call, &found)
}

fn id(call: &Call) -> Result<OperationId, crate::fault::Fault> {
    call.id(call.param("id"), "operation")
}

fn shown(call: &Call, found: &OperationView) -> Answer {
    call.one("operation", views::operation(&found.operation, Some(&found.progress)))
}
