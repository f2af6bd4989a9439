//! Rows to test with.

use karbor_store::{
    ClaimOptions, Limit, NewCheckpoint, NewOperation, NewRestore, NewVerification, Plan, PlanSnapshot,
    QuotaDefaults, QuotaResource, Quotas, Store,
};
use karbor_types::{
    CheckpointId, CheckpointState, Instant, OperationId, OperationKind, OperationLogId, Parameters, PlanId,
    ProjectId, ProviderId, Resource, ResourceKey, RestoreId, UserId, VerificationId,
};
use serde_json::{Value, json};
use uuid::Uuid;

/// A second of the year 2026.
pub(crate) fn at(second: i64) -> Instant {
    Instant::from_micros(1_767_225_600_000_000).plus_seconds(second)
}

/// An id that sorts and compares by its number.
pub(crate) fn uuid(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

pub(crate) fn project(name: &str) -> ProjectId {
    ProjectId::new(name).expect("a valid project id")
}

pub(crate) fn provider() -> ProviderId {
    ProviderId(uuid(0xcf56))
}

pub(crate) const fn quotas(plans: Limit, checkpoints: Limit) -> QuotaDefaults {
    QuotaDefaults(Quotas { plans, checkpoints })
}

pub(crate) const UNLIMITED: QuotaDefaults = quotas(Limit::Unlimited, Limit::Unlimited);

pub(crate) fn resource(id: &str) -> Resource {
    Resource {
        key: ResourceKey::new("OS::Cinder::Volume", id),
        name: format!("volume {id}"),
        extra_info: Value::Null,
    }
}

pub(crate) fn plan(number: u128, owner: &str) -> Plan {
    Plan {
        id: PlanId(uuid(number)),
        project: project(owner),
        name: format!("plan {number}"),
        description: None,
        provider: provider(),
        status: Some("suspended".to_owned()),
        resources: vec![resource("v1")],
        parameters: Parameters::default(),
        created_at: at(0),
        updated_at: None,
    }
}

pub(crate) fn checkpoint(number: u128, owner: &str) -> NewCheckpoint {
    let plan = PlanSnapshot {
        id: PlanId(uuid(0x7a2d)),
        name: "nightly".to_owned(),
        provider_id: provider(),
        resources: vec![resource("v1")],
    };
    let Value::Object(extra_info) = json!({"created_by": "manual"}) else { unreachable!("an object") };
    NewCheckpoint {
        id: CheckpointId(uuid(number)),
        project: project(owner),
        provider: provider(),
        plan,
        state: CheckpointState::Protecting,
        extra_info,
    }
}

/// An operation that is about nothing yet.
pub(crate) fn operation(number: u128, kind: OperationKind, owner: &str) -> NewOperation {
    NewOperation {
        id: OperationId(uuid(number)),
        kind,
        project: project(owner),
        user: Some(UserId::new("someone").expect("a valid user id")),
        plan: None,
        checkpoint: None,
        restore: None,
        verification: None,
        provider: Some(provider()),
        priority: 0,
        due_at: at(0),
        request: json!({"parameters": {}}),
        log: Some(OperationLogId(uuid(number + (1 << 64)))),
        scheduled_operation: None,
        occurrence: None,
    }
}

/// An operation about a checkpoint.
pub(crate) fn about(number: u128, kind: OperationKind, checkpoint: &NewCheckpoint) -> NewOperation {
    NewOperation {
        plan: Some(checkpoint.plan.id),
        checkpoint: Some(checkpoint.id),
        ..operation(number, kind, checkpoint.project.as_str())
    }
}

pub(crate) fn protect(checkpoint: &NewCheckpoint) -> NewOperation {
    about(checkpoint.id.0.as_u128(), OperationKind::Protect, checkpoint)
}

pub(crate) fn restore(number: u128, checkpoint: &NewCheckpoint) -> (NewRestore, NewOperation) {
    let id = RestoreId(uuid(number));
    let restore = NewRestore {
        id,
        project: checkpoint.project.clone(),
        provider: checkpoint.provider,
        checkpoint: checkpoint.id,
        target: Some("https://example.org/v3".to_owned()),
        parameters: Parameters::default(),
    };
    let operation = NewOperation { restore: Some(id), ..about(number, OperationKind::Restore, checkpoint) };
    (restore, operation)
}

pub(crate) fn verification(number: u128, checkpoint: &NewCheckpoint) -> (NewVerification, NewOperation) {
    let id = VerificationId(uuid(number));
    let verification = NewVerification {
        id,
        project: checkpoint.project.clone(),
        provider: checkpoint.provider,
        checkpoint: checkpoint.id,
        parameters: Parameters::default(),
    };
    let operation =
        NewOperation { verification: Some(id), ..about(number, OperationKind::Verify, checkpoint) };
    (verification, operation)
}

pub(crate) fn claim_as(owner: &str) -> ClaimOptions {
    ClaimOptions {
        owner: owner.to_owned(),
        lease_seconds: 60,
        kinds: OperationKind::ALL.to_vec(),
        skip_projects: Vec::new(),
    }
}

/// Returns what a project uses of checkpoints: (in use, reserved).
pub(crate) async fn used(store: &Store, owner: &str, resource: QuotaResource) -> (u64, u64) {
    let usage = store.get_usage(&project(owner), &UNLIMITED).await.expect("usage");
    let usage = usage.iter().find(|usage| usage.resource == resource).expect("every resource is told");
    (usage.in_use, usage.reserved)
}
