//! Copies of checkpoints.

use karbor_actions::CopyRequest;
use karbor_types::{PlanId, ProviderId};
use serde_json::{Value, json};

use crate::Microversion;
use crate::body::{Leaves, Unspelled};
use crate::call::{Answer, Call};

pub(super) async fn create(mut call: Call) -> Answer {
    let mut body = call.envelope("copy")?;
    let plan: PlanId = body.id("plan_id", "plan", Unspelled::NotFound)?;
    let parameters = body.parameters(Leaves::at(call.version))?;
    let target: Option<ProviderId> = if call.speaks(Microversion::V1_1) && body.has("target_provider_id") {
        Some(body.id("target_provider_id", "provider", Unspelled::Invalid)?)
    } else {
        None
    };
    body.done()?;
    let provider: ProviderId = call.id(call.param("provider"), "provider")?;
    let shown = parameters.clone();
    let request = CopyRequest { plan, provider, target, parameters: parameters.unwrap_or_default() };
    let copies = call.actions().copy_checkpoints(&call.caller, request).await?;
    let pairs: Vec<Value> = copies
        .iter()
        .map(|pair| json!({"checkpoint_protect_id": pair.source, "checkpoint_copy_id": pair.copy}))
        .collect();
    call.one(
        "copy",
        json!({
            "project_id": call.caller.project, "provider_id": provider, "plan_id": plan,
            "checkpoint_id": pairs, "parameters": shown,
        }),
    )
}
