//! Operation logs.

use karbor_types::OperationLogId;

use crate::call::{Answer, Call};
use crate::paging::Strictness;
use crate::views;

pub(super) async fn list(call: Call) -> Answer {
    let request = call.list(Strictness::Strict)?;
    let page = call.actions().list_operation_logs(&call.caller, &request).await?;
    let page = page.map(|log| views::operation_log(&log, call.version));
    call.page("operation_logs", &page, |shown| shown["id"].as_str().unwrap_or_default().to_owned())
}

pub(super) async fn show(call: Call) -> Answer {
    let id: OperationLogId = call.member_id("operation log")?;
    let log = call.actions().get_operation_log(&call.caller, id).await?;
    call.one("operation_log", views::operation_log(&log, call.version))
}
