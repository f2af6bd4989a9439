//! Restores.

use karbor_actions::{Login, NewRestoreRequest, RestoreView};
use karbor_types::RestoreId;
use secrecy::SecretString;
use serde_json::{Map, Value};

use crate::Microversion;
use crate::body::{Leaves, Unspelled};
use crate::call::{Answer, Call};
use crate::paging::Strictness;
use crate::views;

pub(super) async fn list(call: Call) -> Answer {
    let request = call.list(Strictness::Strict)?;
    let page = call.actions().list_restores(&call.caller, &request, open_filters(&call)).await?;
    let page = page.map(|restore| views::restore(&restore, call.version));
    call.page("restores", &page, |shown| shown["id"].as_str().unwrap_or_default().to_owned())
}

pub(super) async fn create(mut call: Call) -> Answer {
    let mut body = call.envelope("restore")?;
    let provider = body.id("provider_id", "provider", Unspelled::NotFound)?;
    let checkpoint = body.id("checkpoint_id", "checkpoint", Unspelled::NotFound)?;
    let parameters = body.parameters(Leaves::at(call.version))?.ok_or_else(|| body.missing("parameters"))?;
    let target = body.nullable_text("restore_target")?.flatten();
    let auth = body.metadata("restore_auth", Leaves::PlainOrNull)?;
    let login = auth.and_then(|auth| login(target.as_deref(), &auth));
    let dry_run = call.speaks(Microversion::V1_1) && body.boolean("dry_run")?.unwrap_or(false);
    body.done()?;
    let request = NewRestoreRequest { provider, checkpoint, parameters, target, login };
    if dry_run {
        let run = call.actions().dry_run_restore(&call.caller, request).await?;
        return call.one("restore", views::dry_run(&run, call.version));
    }
    let restore = call.actions().create_restore(&call.caller, request).await?;
    call.one("restore", views::restore(&restore, call.version))
}

pub(super) async fn show(call: Call) -> Answer {
    let id: RestoreId = call.member_id("restore")?;
    if !call.speaks(Microversion::V1_1) {
        let restore = call.actions().get_restore(&call.caller, id).await?;
        return call.one("restore", views::restore(&restore, call.version));
    }
    match call.actions().view_restore(&call.caller, id).await? {
        RestoreView::Restore(restore) => call.one("restore", views::restore(&restore, call.version)),
        RestoreView::DryRun(run) => call.one("restore", views::dry_run(&run, call.version)),
    }
}

/// Reads credentials for another project or site; nothing where there is no user with a password, as the old client
/// sends for "my own".
pub(super) fn login(target: Option<&str>, auth: &Map<String, Value>) -> Option<Login> {
    let text = |name: &str| auth.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let domain = |name: &str| text(name).unwrap_or("Default").to_owned();
    Some(Login {
        auth_url: target.filter(|target| !target.is_empty()).map(str::to_owned),
        region: text("region_name").map(str::to_owned),
        user: text("username")?.to_owned(),
        user_domain: domain("user_domain_name"),
        password: SecretString::from(text("password")?),
        project: text("project_id").or_else(|| text("project_name")).map(str::to_owned),
        project_domain: domain("project_domain_name"),
    })
}

/// Returns the filters of those who are no administrators.
pub(super) fn open_filters(call: &Call) -> &'static [&'static str] {
    if call.speaks(Microversion::V1_1) { &["status", "checkpoint_id", "provider_id"] } else { &["status"] }
}
