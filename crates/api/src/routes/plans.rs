//! Plans.

use karbor_actions::{NewPlan, Plan, PlanChange};
use karbor_types::PlanId;

use crate::Microversion;
use crate::body::{Leaves, Unspelled};
use crate::call::{Answer, Call};
use crate::fault::Fault;
use crate::paging::Strictness;
use crate::views::PlanView;

pub(super) async fn list(call: Call) -> Answer {
    let request = call.list(Strictness::Strict)?;
    let page = call.actions().list_plans(&call.caller, &request).await?;
    let next = if page.more { page.items.last().map(|plan| plan.id.to_string()) } else { None };
    let views = views(&call, &page.items).await?;
    call.many("plans", &views, next.as_deref())
}

/// Lists the plans that are late.
pub(super) async fn late(call: Call) -> Answer {
    call.since(Microversion::V1_2)?;
    let request = call.list(Strictness::Lenient)?;
    let late = call.actions().late_plans(&call.caller, request.all_tenants).await?;
    let shown = |(plan, rpo)| PlanView::new(plan, call.version).with_rpo(rpo);
    let views: Vec<PlanView<'_>> = late.iter().map(|(plan, rpo)| shown((plan, rpo))).collect();
    call.many("plans", &views, None)
}

/// Shows plans; those who speak the version are told how they stand against what their triggers promise.
async fn views<'a>(call: &Call, plans: &'a [Plan]) -> Result<Vec<PlanView<'a>>, Fault> {
    let views = plans.iter().map(|plan| PlanView::new(plan, call.version));
    if !call.speaks(Microversion::V1_2) {
        return Ok(views.collect());
    }
    let rpo = call.actions().rpo_of(plans).await?;
    Ok(views.zip(&rpo).map(|(view, rpo)| view.with_rpo(rpo)).collect())
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
    let plan = call.actions().get_plan(&call.caller, id).await?;
    let mut views = views(&call, std::slice::from_ref(&plan)).await?;
    call.one("plan", views.pop())
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
