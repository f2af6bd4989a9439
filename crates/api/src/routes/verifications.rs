//! Verifications.

use karbor_actions::NewVerificationRequest;
use karbor_types::{Thoroughness, VerificationId};

use crate::Microversion;
use crate::body::{Leaves, Members, Unspelled};
use crate::call::{Answer, Call};
use crate::fault::Fault;
use crate::paging::Strictness;
use crate::routes::restores::open_filters;
use crate::views;

pub(super) async fn list(call: Call) -> Answer {
    let request = call.list(Strictness::Strict)?;
    let page = call.actions().list_verifications(&call.caller, &request, open_filters(&call)).await?;
    let page = page.map(|verification| views::verification(&verification, call.version));
    call.page("verifications", &page, |shown| shown["id"].as_str().unwrap_or_default().to_owned())
}

pub(super) async fn create(mut call: Call) -> Answer {
    let mut body = call.envelope("verification")?;
    let provider = body.id("provider_id", "provider", Unspelled::NotFound)?;
    let checkpoint = body.id("checkpoint_id", "checkpoint", Unspelled::NotFound)?;
    let parameters = body.parameters(Leaves::at(call.version))?.unwrap_or_default();
    let thoroughness =
        if call.speaks(Microversion::V1_1) { thoroughness(&mut body)? } else { Thoroughness::default() };
    body.done()?;
    let request = NewVerificationRequest { provider, checkpoint, parameters, thoroughness };
    let made = call.actions().create_verification(&call.caller, request).await?;
    call.one("verification", views::verification(&made, call.version))
}

pub(super) async fn show(call: Call) -> Answer {
    let id: VerificationId = call.member_id("verification")?;
    let found = call.actions().get_verification(&call.caller, id).await?;
    call.one("verification", views::verification(&found, call.version))
}

fn thoroughness(body: &mut Members) -> Result<Thoroughness, Fault> {
    let percent = body.take("sample_percent");
    let mode = body.text("mode")?;
    match (mode.as_deref(), percent) {
        (Some("sample"), Some(percent)) => {
            let percent = percent.as_u64().and_then(|percent| u8::try_from(percent).ok());
            match percent.filter(|percent| (1..=100).contains(percent)) {
                Some(percent) => Ok(Thoroughness::Sample { percent }),
                None => Err(body.wrong("sample_percent", "a number from 1 to 100")),
            }
        }
        (Some("sample"), None) => Err(body.missing("sample_percent")),
        (_, Some(_)) => Err(body.wrong("mode", "`sample` where sample_percent is given")),
        (None | Some("all"), None) => Ok(Thoroughness::All),
        (Some("structure"), None) => Ok(Thoroughness::Structure),
        (Some(_), None) => Err(body.wrong("mode", "structure, sample or all")),
    }
}
