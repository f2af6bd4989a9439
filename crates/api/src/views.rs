//! The shapes of what goes out. `at` is the microversion that the client speaks: members that came later are
//! left out for those who do not.

use std::collections::BTreeMap;
use std::io;

use karbor_actions::{
    BankAccountView, Checkpoint, DryRun, Hold, Instance, Occurrence, Operation, OperationLog,
    OperationProgress, Plan, Preview, Provider, Quotas, ResourceResult, Restore, RetentionPlan,
    RetentionVerdict, Rpo, ScheduledOperation, ServiceStatus, ServiceView, Trigger, Usage, Verification,
};
use karbor_types::{Instant, Parameters, Progress, Resource};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::Microversion;
use crate::body::{leaf_text, leaf_texts};

fn since(at: Microversion, version: Microversion) -> bool {
    at >= version
}

/// When something was made and changed; only later versions tell.
#[derive(Serialize)]
struct Times {
    created_at: String,
    updated_at: Option<String>,
}

impl Times {
    fn of(at: Microversion, created_at: Instant, updated_at: Option<Instant>) -> Option<Self> {
        let times =
            || Self { created_at: created_at.to_string(), updated_at: updated_at.map(|at| at.to_string()) };
        since(at, Microversion::V1_1).then(times)
    }
}

/// Parameters as the client's version shows them: version 1.0 shows all leaves as text.
struct Shown<'a> {
    parameters: &'a Parameters,
    at: Microversion,
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if since(self.at, Microversion::V1_1) {
            return self.parameters.serialize(serializer);
        }
        let mut map = serializer.serialize_map(None)?;
        for (kind, id, members) in self.parameters.entries() {
            let texts = leaf_texts(members);
            match id {
                Some(id) => map.serialize_entry(&format!("{kind}#{id}"), &texts)?,
                None => map.serialize_entry(kind, &texts)?,
            }
        }
        map.end()
    }
}

/// A plan.
#[derive(Serialize)]
pub(crate) struct PlanView<'a> {
    id: String,
    name: &'a str,
    description: Option<&'a str>,
    resources: Vec<PlanResource<'a>>,
    provider_id: String,
    status: Option<&'a str>,
    parameters: Shown<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    project_id: Option<&'a str>,
    #[serde(flatten)]
    times: Option<Times>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rpo: Option<Value>,
}

#[derive(Serialize)]
struct PlanResource<'a> {
    id: &'a str,
    name: &'a str,
    r#type: &'a str,
    #[serde(skip_serializing_if = "Value::is_null")]
    extra_info: &'a Value,
}

impl<'a> PlanView<'a> {
    pub(crate) fn new(plan: &'a Plan, at: Microversion) -> Self {
        let resource = |resource: &'a Resource| PlanResource {
            id: &resource.key.id,
            name: &resource.name,
            r#type: resource.key.kind.as_str(),
            extra_info: &resource.extra_info,
        };
        Self {
            id: plan.id.to_string(),
            name: &plan.name,
            description: plan.description.as_deref(),
            resources: plan.resources.iter().map(resource).collect(),
            provider_id: plan.provider.to_string(),
            status: plan.status.as_deref(),
            parameters: Shown { parameters: &plan.parameters, at },
            project_id: since(at, Microversion::V1_1).then(|| plan.project.as_str()),
            times: Times::of(at, plan.created_at, plan.updated_at),
            rpo: None,
        }
    }

    /// Tells how the plan stands against what its triggers promise.
    pub(crate) fn with_rpo(mut self, rpo: &Rpo) -> Self {
        self.rpo = Some(json!({
            "last_checkpoint_at": rpo.newest_at.map(|at| at.to_string()), "age_seconds": rpo.age_seconds,
            "promise_seconds": rpo.promise_seconds, "late": rpo.is_late,
        }));
        self
    }
}

/// A provider. The schemas of verify parameters came with a later version.
pub(crate) fn provider(provider: &Provider, at: Microversion) -> Value {
    let mut schemas = provider.extended_info_schema();
    if !since(at, Microversion::V1_1)
        && let Some(schemas) = schemas.as_object_mut()
    {
        schemas.remove("verify_schema");
    }
    json!({
        "id": provider.id(), "name": provider.name(), "description": provider.description(),
        "extended_info_schema": schemas,
    })
}

/// Something that can be protected.
pub(crate) fn instance(instance: &Instance) -> Value {
    let resource = |resource: &Resource| {
        json!({
            "id": resource.key.id, "type": resource.key.kind, "name": resource.name,
            "extra_info": resource.extra_info,
        })
    };
    let mut shown = resource(&instance.resource);
    let below: Vec<Value> = instance.dependents.iter().map(resource).collect();
    shown["dependent_resources"] = Value::from(below);
    shown
}

/// Writes JSON as text inside JSON, with the blanks that the old service wrote.
fn json_text(value: &impl Serialize) -> String {
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, Spaced);
    value.serialize(&mut serializer).expect("plain data with text keys is always JSON, and memory takes it");
    String::from_utf8(text).expect("the serializer writes UTF-8")
}

/// A blank after each comma and colon.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// Whether a checkpoint is shown to whom has just asked for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// It was just made; version 1.0 showed less then.
    Made,
    /// It is looked at.
    Looked,
}

/// A checkpoint. Its graph and its extra info are JSON text, as ever.
pub(crate) fn checkpoint(checkpoint: &Checkpoint, at: Microversion, moment: Moment) -> Value {
    let later = since(at, Microversion::V1_1);
    let resource = |resource: &Resource| {
        let extra_info = &resource.extra_info;
        json!({
            "id": resource.key.id, "type": resource.key.kind, "name": resource.name,
            "extra_info": if extra_info.is_null() { None } else { Some(json_text(extra_info)) },
        })
    };
    let resources: Vec<Value> = checkpoint.plan.resources.iter().map(resource).collect();
    let mut plan = json!({"id": checkpoint.plan.id, "name": checkpoint.plan.name, "resources": resources});
    if later || moment == Moment::Looked {
        plan["provider_id"] = json!(checkpoint.plan.provider_id);
    }
    let created_at = match moment {
        _ if later => Some(checkpoint.created_at.to_string()),
        Moment::Looked => Some(checkpoint.created_at.date()),
        Moment::Made => None,
    };
    let mut shown = json!({
        "id": checkpoint.id, "project_id": checkpoint.project, "status": checkpoint.state,
        "protection_plan": plan, "created_at": created_at,
        "extra_info": json_text(&checkpoint.extra_info),
    });
    // Left out while it is not known: one of the old clients fails on null.
    if let Some(graph) = &checkpoint.graph {
        shown["resource_graph"] = json_text(graph).into();
    }
    if later {
        shown["updated_at"] = json!(checkpoint.updated_at.map(|at| at.to_string()));
        shown["committed_at"] = json!(checkpoint.committed_at.map(|at| at.to_string()));
        shown["reason"] = json!(checkpoint.reason);
        shown["operation_id"] = json!(checkpoint.id);
        shown["size"] = json!(checkpoint.stats);
    }
    shown
}

/// A hold on a checkpoint.
pub(crate) fn hold(hold: &Hold) -> Value {
    json!({"user_id": hold.user, "reason": hold.reason, "created_at": hold.since.to_string()})
}

/// What retention would let go.
pub(crate) fn retention(plan: &RetentionPlan) -> Value {
    let generations = plan.policy.generations;
    let verdict = |verdict: &RetentionVerdict| {
        let checkpoint = &verdict.checkpoint;
        json!({
            "id": checkpoint.id, "created_at": checkpoint.created_at.to_string(), "status": checkpoint.state,
            "action": if verdict.retention.is_expired() { "delete" } else { "keep" },
            "reason": verdict.retention.word(),
        })
    };
    let verdicts: Vec<Value> = plan.verdicts.iter().map(verdict).collect();
    json!({
        "policy": {
            "max_backups": plan.policy.max_count, "retention_duration": plan.policy.max_days,
            "keep_hourly": generations.hourly, "keep_daily": generations.daily,
            "keep_weekly": generations.weekly, "keep_monthly": generations.monthly,
            "keep_yearly": generations.yearly, "keep_minimum": plan.policy.minimum,
        },
        "checkpoints": verdicts,
    })
}

/// A restore.
pub(crate) fn restore(restore: &Restore, at: Microversion) -> Value {
    let mut shown = json!({
        "id": restore.id, "project_id": restore.project, "provider_id": restore.provider,
        "checkpoint_id": restore.checkpoint, "restore_target": restore.target,
        "parameters": Shown { parameters: &restore.parameters, at }, "status": restore.state,
        "resources_status": restore.resources_status, "resources_reason": restore.resources_reason,
    });
    if since(at, Microversion::V1_1) {
        run_members(&mut shown, restore.created_at, restore.updated_at, restore.reason.as_deref());
        shown["operation_id"] = json!(restore.id);
    }
    shown
}

/// A dry run, in the shape of the restore that would have been made. Only later versions have one.
pub(crate) fn dry_run(run: &DryRun, at: Microversion) -> Value {
    use karbor_types::OperationState as State;
    let operation = &run.operation;
    let status = match operation.state {
        State::Queued | State::Running => "in_progress",
        State::Succeeded => "success",
        State::Failed | State::Cancelled => "fail",
    };
    let mut shown = json!({
        "id": operation.id, "project_id": operation.project, "provider_id": operation.provider,
        "checkpoint_id": operation.checkpoint, "restore_target": run.target,
        "parameters": Shown { parameters: &run.parameters, at }, "status": status,
        "resources_status": {}, "resources_reason": {}, "dry_run": true,
    });
    run_members(&mut shown, operation.created_at, operation.ended_at, operation.reason.as_deref());
    shown["operation_id"] = json!(operation.id);
    shown
}

fn run_members(shown: &mut Value, created_at: Instant, updated_at: Option<Instant>, reason: Option<&str>) {
    shown["created_at"] = json!(created_at.to_string());
    shown["updated_at"] = json!(updated_at.map(|at| at.to_string()));
    shown["reason"] = json!(reason);
}

/// A verification.
pub(crate) fn verification(verification: &Verification, at: Microversion) -> Value {
    let mut shown = json!({
        "id": verification.id, "project_id": verification.project, "provider_id": verification.provider,
        "checkpoint_id": verification.checkpoint,
        "parameters": Shown { parameters: &verification.parameters, at }, "status": verification.state,
        "resources_status": verification.resources_status,
        "resources_reason": verification.resources_reason,
    });
    if since(at, Microversion::V1_1) {
        let reason = verification.reason.as_deref();
        run_members(&mut shown, verification.created_at, verification.updated_at, reason);
        shown["operation_id"] = json!(verification.id);
    }
    shown
}

/// A record of the operation log.
pub(crate) fn operation_log(log: &OperationLog, at: Microversion) -> Value {
    let mut shown = json!({
        "id": log.id, "operation_type": log.kind, "checkpoint_id": log.checkpoint, "plan_id": log.plan,
        "provider_id": log.provider, "restore_id": log.restore,
        "scheduled_operation_id": log.scheduled_operation, "status": log.status,
        "started_at": log.started_at.naive_iso(), "ended_at": log.ended_at.map(Instant::naive_iso),
        "error_info": log.error_info,
        "extra_info": if log.extra_info.is_null() { None } else { Some(json_text(&log.extra_info)) },
    });
    if since(at, Microversion::V1_1) {
        shown["project_id"] = json!(log.project);
        shown["operation_id"] = json!(log.operation);
    }
    shown
}

/// A trigger.
pub(crate) fn trigger(trigger: &Trigger, at: Microversion) -> Value {
    let mut shown = json!({
        "id": trigger.id, "name": trigger.name, "type": trigger.kind,
        "properties": typed_since(&trigger.properties, at),
    });
    owned_members(&mut shown, at, trigger.project.as_str(), trigger.created_at, trigger.updated_at);
    if since(at, Microversion::V1_2) {
        shown["next_at"] = json!(trigger.next_at.map(|at| at.to_string()));
    } else if let Some(properties) = shown["properties"].as_object_mut() {
        // Who does not know it could not send it back.
        properties.remove("time_zone");
    }
    shown
}

/// The next times of a trigger.
pub(crate) fn preview(preview: &Preview) -> Value {
    let times: Vec<String> = preview.occurrences.iter().map(Instant::to_string).collect();
    json!({
        "occurrences": times, "shortest_gap_seconds": preview.gaps.map(|(shortest, _)| shortest),
        "longest_gap_seconds": preview.gaps.map(|(_, longest)| longest),
        "window_seconds": preview.window_seconds,
    })
}

/// A scheduled operation.
pub(crate) fn scheduled_operation(operation: &ScheduledOperation, at: Microversion) -> Value {
    let mut shown = json!({
        "id": operation.id, "name": operation.name, "description": operation.description,
        "operation_type": operation.operation_type, "trigger_id": operation.trigger,
        "operation_definition": typed_since(&operation.definition, at), "enabled": operation.enabled,
    });
    let project = operation.project.as_str();
    owned_members(&mut shown, at, project, operation.created_at, operation.updated_at);
    if since(at, Microversion::V1_2) {
        let rules = &operation.rules;
        shown["catch_up"] = json!(rules.catch_up);
        shown["jitter_seconds"] = json!(rules.jitter_seconds);
        shown["retries"] = json!(rules.retries);
        shown["priority"] = json!(rules.priority);
    }
    shown
}

/// An occurrence of a scheduled operation.
pub(crate) fn occurrence(occurrence: &Occurrence) -> Value {
    let told = |at: Option<Instant>| at.map(|at| at.to_string());
    json!({
        "id": occurrence.id, "scheduled_operation_id": occurrence.operation,
        "operation_type": occurrence.operation_type, "trigger_id": occurrence.trigger,
        "project_id": occurrence.project, "provider_id": occurrence.provider,
        "occurrence": occurrence.at.to_string(), "origin": occurrence.origin.as_str(),
        "status": occurrence.state, "reason": occurrence.reason, "detail": occurrence.detail,
        "priority": occurrence.priority, "attempt": occurrence.attempt,
        "checkpoint_id": occurrence.checkpoint, "until": occurrence.until.to_string(),
        "created_at": occurrence.created_at.to_string(), "started_at": told(occurrence.started_at),
        "ended_at": told(occurrence.ended_at),
    })
}

/// Version 1.0 shows plain values as text.
fn typed_since(members: &Map<String, Value>, at: Microversion) -> Value {
    if since(at, Microversion::V1_1) {
        return Value::Object(members.clone());
    }
    members
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(leaf_text(value))))
        .collect::<Map<_, _>>()
        .into()
}

fn owned_members(
    shown: &mut Value,
    at: Microversion,
    project: &str,
    created_at: Instant,
    updated_at: Option<Instant>,
) {
    if since(at, Microversion::V1_1) {
        shown["project_id"] = json!(project);
        shown["created_at"] = json!(created_at.to_string());
        shown["updated_at"] = json!(updated_at.map(|at| at.to_string()));
    }
}

/// A service.
pub(crate) fn service(view: &ServiceView) -> Value {
    let service = &view.service;
    let (status, reason) = match &service.status {
        ServiceStatus::Enabled => ("enabled", None),
        ServiceStatus::Disabled { reason } => ("disabled", reason.as_deref()),
    };
    json!({
        "id": service.id, "binary": service.binary, "host": service.host, "status": status,
        "state": if view.up { "up" } else { "down" },
        "updated_at": service.updated_at.map(Instant::naive_iso), "disabled_reason": reason,
    })
}

/// Limits, with the id of what they belong to where it is shown.
pub(crate) fn quotas(quotas: &Quotas, id: Option<&str>) -> Value {
    let mut shown = json!({
        "plans": quotas.plans.as_number(), "checkpoints": quotas.checkpoints.as_number(),
    });
    if let Some(id) = id {
        shown["id"] = id.into();
    }
    shown
}

/// Limits and usage.
pub(crate) fn usage(usage: &[Usage], id: &str) -> Value {
    let row = |usage: &Usage| {
        let row = json!({
            "limit": usage.limit.as_number(), "in_use": usage.in_use, "reserved": usage.reserved,
        });
        (usage.resource.as_str().to_owned(), row)
    };
    let mut shown: Map<String, Value> = usage.iter().map(row).collect();
    shown.insert("id".to_owned(), id.into());
    Value::Object(shown)
}

/// A project's area in a bank.
pub(crate) fn bank_account(view: &BankAccountView, at: Microversion) -> Value {
    let account = &view.account;
    let mut shown = json!({
        "bank": account.bank, "project_id": account.project, "provider_ids": view.providers,
        "place": format!("accounts/{}", account.project),
        "key_source": account.key_source.as_deref().unwrap_or("master-key"),
        "quota_bytes": account.quota_bytes, "created_at": account.created_at.to_string(),
        "updated_at": account.updated_at.map(|at| at.to_string()),
    });
    if since(at, Microversion::V1_2) {
        shown["place"] = json!(account.place);
        shown["has_credentials"] = json!(account.credentials.is_some());
    }
    if let Some(usage) = &view.usage {
        shown["usage"] = json!({
            "checkpoints": usage.checkpoints, "logical_bytes": usage.logical_bytes,
            "stored_bytes": usage.stored_bytes, "deduplicated_bytes": usage.deduplicated_bytes(),
            "dead_bytes": usage.dead_bytes, "total_bytes": usage.total_bytes,
        });
    }
    shown
}

/// An operation; its progress is told where it was asked for alone.
pub(crate) fn operation(operation: &Operation, progress: Option<&OperationProgress>) -> Value {
    let mut shown = json!({
        "id": operation.id, "kind": operation.kind, "state": operation.state,
        "project_id": operation.project, "plan_id": operation.plan, "checkpoint_id": operation.checkpoint,
        "restore_id": operation.restore, "verification_id": operation.verification,
        "provider_id": operation.provider, "cancel_requested": operation.cancel_requested,
        "attempt": operation.attempt, "reason": operation.reason, "result": operation.result,
        "created_at": operation.created_at.to_string(),
        "started_at": operation.started_at.map(|at| at.to_string()),
        "ended_at": operation.ended_at.map(|at| at.to_string()),
    });
    if let Some(all) = progress {
        let mut counts = bytes(all.bytes);
        counts["steps"] = json!({
            "pending": all.pending, "running": all.running, "done": all.done, "failed": all.failed,
            "skipped": all.skipped,
        });
        shown["progress"] = counts;
    }
    shown
}

/// How one resource of an operation fared.
pub(crate) fn resource_result(result: &ResourceResult) -> Value {
    let step = |step: &karbor_actions::StepView| {
        json!({
            "hook": step.hook, "state": step.state, "attempts": step.attempts, "reason": step.reason,
            "started_at": step.started_at.map(|at| at.to_string()),
            "ended_at": step.ended_at.map(|at| at.to_string()),
        })
    };
    json!({
        "type": result.resource.kind, "id": result.resource.id, "status": result.state,
        "reason": result.reason, "progress": bytes(result.progress),
        "steps": result.steps.iter().map(step).collect::<Vec<_>>(),
    })
}

fn bytes(progress: Progress) -> Value {
    let Progress { bytes_done, bytes_total, bytes_stored } = progress;
    json!(BTreeMap::from([
        ("bytes_done", Some(bytes_done)),
        ("bytes_total", bytes_total),
        ("bytes_stored", Some(bytes_stored)),
    ]))
}
