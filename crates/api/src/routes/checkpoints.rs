//! Checkpoints.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use karbor_actions::{Checkpoint, CheckpointFilter, Hold, HoldRequest, NewCheckpointRequest, Reset};
use karbor_types::{CheckpointId, Instant, PlanId, ProviderId};
use serde_json::{Map, Value, json};

use crate::Microversion;
use crate::body::{Leaves, Unspelled};
use crate::call::{Answer, Call};
use crate::fault::Fault;
use crate::paging::Strictness;
use crate::views::{self, Moment};

pub(super) async fn list(call: Call) -> Answer {
    let request = call.list(Strictness::Lenient)?;
    let value =
        |name: &str| request.filters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let since = value("start_date").map(|text| day("start_date", text)).transpose()?;
    let until = value("end_date").map(|text| day("end_date", text)).transpose()?;
    let filter = CheckpointFilter {
        plan: value("plan_id").map(str::to_owned),
        state: value("status").filter(|_| call.speaks(Microversion::V1_1)).map(str::to_owned),
        since: since.map(start_of),
        // An end alone was never heeded in version 1.0.
        before: until
            .filter(|_| since.is_some() || call.speaks(Microversion::V1_1))
            .map(|day| start_of(day.saturating_add(jiff::Span::new().days(1)))),
    };
    let text = call.param("provider");
    let Ok(provider) = text.parse::<ProviderId>() else {
        return Err(Fault::not_found(format!("provider {text} does not exist")));
    };
    if provider.to_string() != text {
        return Err(Fault::not_found(format!("provider {text} does not exist")));
    }
    let page = call.actions().list_checkpoints(&call.caller, provider, &filter, &request).await?;
    let holds = holds(&call, &page.items).await?;
    let page = page.map(|checkpoint| shown(&call, &checkpoint, &holds));
    call.page("checkpoints", &page, |shown| shown["id"].as_str().unwrap_or_default().to_owned())
}

pub(super) async fn create(mut call: Call) -> Answer {
    let mut body = call.envelope("checkpoint")?;
    let plan: PlanId = body.id("plan_id", "plan", Unspelled::NotFound)?;
    let hyphen = body.metadata("extra-info", Leaves::Plain)?;
    let underscore = body.metadata("extra_info", Leaves::Plain)?;
    body.done()?;
    let extra_info: Map<String, Value> = match (hyphen, underscore) {
        (Some(_), Some(_)) => {
            return Err(Fault::bad_request(
                "checkpoint has both extra-info and extra_info: give one of them",
            ));
        }
        (one, other) => one.or(other).unwrap_or_default(),
    };
    let request = NewCheckpointRequest { plan, provider: call.param("provider").to_owned(), extra_info };
    let checkpoint = call.actions().create_checkpoint(&call.caller, request).await?;
    call.one("checkpoint", views::checkpoint(&checkpoint, call.version, Moment::Made))
}

pub(super) async fn show(call: Call) -> Answer {
    let (provider, id) = ids(&call)?;
    let checkpoint = call.actions().get_checkpoint(&call.caller, provider, id).await?;
    let holds = holds(&call, std::slice::from_ref(&checkpoint)).await?;
    call.one("checkpoint", shown(&call, &checkpoint, &holds))
}

/// Returns the holds on checkpoints, for those who speak the version in which there are any.
async fn holds(call: &Call, checkpoints: &[Checkpoint]) -> Result<Vec<Hold>, Fault> {
    if !call.speaks(Microversion::V1_2) {
        return Ok(Vec::new());
    }
    let ids: Vec<CheckpointId> = checkpoints.iter().map(|checkpoint| checkpoint.id).collect();
    Ok(call.actions().holds_on(&ids).await?)
}

fn shown(call: &Call, checkpoint: &Checkpoint, holds: &[Hold]) -> Value {
    let mut shown = views::checkpoint(checkpoint, call.version, Moment::Looked);
    if call.speaks(Microversion::V1_2) {
        let hold = holds.iter().find(|hold| hold.checkpoint == checkpoint.id);
        shown["hold"] = json!(hold.map(views::hold));
    }
    shown
}

/// Keeps a checkpoint from being deleted.
pub(super) async fn hold(mut call: Call) -> Answer {
    call.since(Microversion::V1_2)?;
    let mut body = call.envelope("hold")?;
    let request = HoldRequest { reason: body.nullable_text("reason")?.flatten() };
    body.done()?;
    let (provider, id) = ids(&call)?;
    let hold = call.actions().hold_checkpoint(&call.caller, provider, id, request).await?;
    call.one("hold", views::hold(&hold))
}

/// Lets a checkpoint be deleted again.
pub(super) async fn release(call: Call) -> Answer {
    call.since(Microversion::V1_2)?;
    let (provider, id) = ids(&call)?;
    call.actions().release_checkpoint(&call.caller, provider, id).await?;
    call.empty()
}

pub(super) async fn delete(call: Call) -> Answer {
    let (provider, id) = ids(&call)?;
    let operation = call.actions().delete_checkpoint(&call.caller, provider, id).await?;
    if call.speaks(Microversion::V1_1) {
        return call.json_answer(&json!({ "operation_id": operation }));
    }
    call.json_answer(&json!({}))
}

pub(super) async fn reset(mut call: Call) -> Answer {
    let mut body = call.envelope("os-resetState")?;
    let reset = match body.text("state")?.as_deref() {
        None => return Err(body.missing("state")),
        Some("available") => Reset::Available,
        Some("error") => Reset::Error,
        Some(_) => return Err(body.wrong("state", "available or error")),
    };
    body.done()?;
    let (provider, id) = ids(&call)?;
    call.actions().reset_checkpoint(&call.caller, provider, id, reset).await?;
    call.json_answer(&json!({}))
}

fn ids(call: &Call) -> Result<(ProviderId, CheckpointId), Fault> {
    // Both forms are looked at before either name is looked up.
    let provider = call.id(call.param("provider"), "provider");
    let checkpoint = call.id(call.param("id"), "checkpoint");
    match (provider, checkpoint) {
        (Err(fault), Ok(_)) | (Ok(_), Err(fault)) => Err(fault),
        (Ok(provider), Ok(checkpoint)) => Ok((provider, checkpoint)),
        (Err(first), Err(second)) => Err(if first.is_bad_request() { first } else { second }),
    }
}

fn day(name: &str, text: &str) -> Result<Date, Fault> {
    // Zeros at the front may be missing, as ever; blanks and signs may not stand there.
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let read = Date::strptime("%Y-%m-%d", text).ok().filter(|_| is_plain);
    read.ok_or_else(|| Fault::bad_request(format!("{name} must be a day such as 2030-01-31, not `{text}`")))
}

fn start_of(day: Date) -> Instant {
    let start = day.to_zoned(TimeZone::UTC).map(|start| start.timestamp().as_microsecond());
    // Only the last days that the calendar has do not fit; they are after everything.
    Instant::from_micros(start.unwrap_or(i64::MAX))
}
