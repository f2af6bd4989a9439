//! Plans.

use karbor_actions::{NewPlan, Plan, PlanChange};
use karbor_types::PlanId;

use crate::body::{Leaves, Unspelled};
use crate::call::{Answer, Call};
use crate::fault::Fault;
use crate::paging::Strictness;
use crate::views::PlanView;

pub(super) async fn list(call: Call) -> Answer {
    let request = call.list(Strictness::Strict)?;
    let page = call.actions().list_plans(&call.caller, &request).await?;
    let next = if page.more { page.items.last().map(|plan| plan.id.to_string()) } else { None };
    let views: Vec<PlanView<'_>> = page.items.iter().map(|plan| PlanView::new(plan, call.version)).collect();
    call.many("plans", &views, next.as_deref())
}

pub(super) async fn create(mut call: Call) -> Answer {
    let mut body = call.envelope("plan")?;
    let name = body.name()?.ok_or_else(|| body.missing("name"))?;
    let description = body.nullable_text("description")?.flatten();
    let provider = body.id("provider_id", "provider", Unspelled::Invalid)?;
    let parameters = body.parameters(Leaves::at(call.version))?.ok_or_else(|| body.missing("parameters"))?;
    let resources = body.resources()?.ok_or_else(|| body.missing("resources"))?;
    body.done()?;
    let new = NewPlan { name, description, provider, resources, parameters };
    let plan = call.actions().create_plan(&call.caller, new).await?;
    shown(&call, &plan)
}

pub(super) async fn show(call: Call) -> Answer {
    let id: PlanId = call.member_id("plan")?;
    shown(&call, &call.actions().get_plan(&call.caller, id).await?)
}

pub(super) async fn update(mut call: Call) -> Answer {
    let mut body = call.envelope("plan")?;
    if body.is_empty() {
        return Err(Fault::bad_request(
            "plan must have at least one of name, status, resources, description",
        ));
    }
    let change = PlanChange {
        name: body.name()?,
        description: body.nullable_text("description")?,
        status: body.text("status")?,
        resources: body.resources()?,
    };
    body.done()?;
    let id: PlanId = call.member_id("plan")?;
    shown(&call, &call.actions().update_plan(&call.caller, id, change).await?)
}

pub(super) async fn delete(call: Call) -> Answer {
    let id: PlanId = call.member_id("plan")?;
    call.actions().delete_plan(&call.caller, id).await?;
    call.empty()
}

fn shown(call: &Call, plan: &Plan) -> Answer {
    call.one("plan", PlanView::new(plan, call.version))
}
