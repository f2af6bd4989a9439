//! A database, actions on it, and the hand of a worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use async_trait::async_trait;
use karbor_actions::{Actions, Authority, BoxError, Evidence, Parts, Provider, Settings};
use karbor_plugin::Registry;
use karbor_plugin::noop::NoopProtection;
use karbor_store::{
    CheckpointChange, ClaimOptions, Finish, Limit, Plan, QuotaDefaults, Quotas, RunRules, ScheduledOperation,
    Store, StoreOptions, SubjectChange, Trigger,
};
use karbor_types::{
    CheckpointEvent, CheckpointId, Instant, OperationKind, OperationState, Parameters, PlanId, ProjectId,
    ProviderId, Resource, ResourceKey, ResourceType, ScheduledOperationId, TriggerId, UserId,
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{Dependencies, Firing, Scheduler, SchedulerConfig};

/// The beginning of the year 2026.
pub(super) const START: i64 = 1_767_225_600_000_000;

pub(super) const PROVIDER: ProviderId = ProviderId(Uuid::from_u128(0xcf56));

pub(super) fn at(second: i64) -> Instant {
    Instant::from_micros(START).plus_seconds(second)
}

pub(super) fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// A bank of which nothing is known.
#[derive(Debug)]
struct NoEvidence;

#[async_trait]
impl Evidence for NoEvidence {
    async fn is_committed(&self, _: &ProjectId, _: &Provider, _: CheckpointId) -> Result<bool, BoxError> {
        Ok(true)
    }
}

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) store: Store,
    pub(super) clock: Arc<AtomicI64>,
    ids: Arc<AtomicU64>,
    pub(super) config: SchedulerConfig,
}

impl World {
    pub(super) async fn new() -> Self {
        let store = Store::open("sqlite::memory:", &StoreOptions::default()).await.expect("opened");
        store.migrate().await.expect("migrated");
        let config = SchedulerConfig { jitter_seconds: 0, ..SchedulerConfig::default() };
        Self { store, clock: Arc::new(AtomicI64::new(START)), ids: Arc::default(), config }
    }

    pub(super) fn set(&self, now: Instant) {
        self.clock.store(now.as_micros(), Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> Instant {
        Instant::from_micros(self.clock.load(Ordering::Relaxed))
    }

    pub(super) fn actions(&self, store: Store) -> Actions {
        let volume = ResourceType::from("OS::Cinder::Volume");
        let provider = Provider::new(PROVIDER, "p", "", "bank");
        let provider = provider.with(Arc::new(NoopProtection::new([volume]))).expect("a plugin");
        let mut registry = Registry::default();
        registry.add_provider(provider).expect("a provider");
        let clock = Arc::clone(&self.clock);
        let next = Arc::clone(&self.ids);
        Actions::new(Parts {
            store,
            registry: Arc::new(registry),
            authority: Arc::new(Authority::builtin()),
            evidence: Arc::new(NoEvidence),
            wake: Arc::new(|| {}),
            clock: Arc::new(move || Instant::from_micros(clock.load(Ordering::Relaxed))),
            ids: Arc::new(move || {
                Uuid::from_u128((7 << 64) + u128::from(next.fetch_add(1, Ordering::Relaxed)))
            }),
            settings: Settings {
                quota: QuotaDefaults(Quotas { plans: Limit::Unlimited, checkpoints: Limit::Unlimited }),
                ..Settings::default()
            },
        })
    }

    /// A scheduler that sees the database through `store`.
    pub(super) fn scheduler(&self, store: Store) -> Scheduler {
        let actions = self.actions(store.clone());
        let (timetable, clock) = (actions.clone(), Arc::clone(&self.clock));
        let parts = Dependencies {
            store,
            actions,
            timetable: Arc::new(move |trigger, after| {
                let (window_seconds, next) = timetable.fires_after(trigger, after)?;
                Ok(Firing { window_seconds, next })
            }),
            clock: Arc::new(move || Instant::from_micros(clock.load(Ordering::Relaxed))),
        };
        Scheduler::new(parts, self.config.clone())
    }

    pub(super) async fn add_plan(&self, number: u128, project: &str) {
        let plan = Plan {
            id: PlanId(id(number)),
            project: ProjectId::new(project).expect("valid"),
            name: "plan".to_owned(),
            description: None,
            provider: PROVIDER,
            status: Some("suspended".to_owned()),
            resources: vec![Resource {
                key: ResourceKey::new("OS::Cinder::Volume", "v"),
                name: "v".to_owned(),
                extra_info: Value::Null,
            }],
            parameters: Parameters::default(),
            created_at: at(0),
            updated_at: None,
        };
        let any = QuotaDefaults(Quotas { plans: Limit::Unlimited, checkpoints: Limit::Unlimited });
        self.store.create_plan(&plan, &any).await.expect("created");
    }

    /// Adds a trigger that fires by a crontab from the beginning of the year on.
    pub(super) async fn add_trigger(&self, number: u128, project: &str, pattern: &str) {
        let properties = members(json!({
            "format": "crontab", "pattern": pattern, "start_time": "2026-01-01 00:00:00", "window": 900
        }));
        let trigger = Trigger {
            id: TriggerId(id(number)),
            name: "trigger".to_owned(),
            project: ProjectId::new(project).expect("valid"),
            kind: "time".to_owned(),
            properties,
            next_at: Some(Trigger::UNPLANNED),
            fault: None,
            created_at: at(0),
            updated_at: None,
        };
        self.store.create_trigger(&trigger).await.expect("created");
    }

    pub(super) async fn add_operation(&self, new: ScheduledOperation) {
        self.store.create_scheduled_operation(&new).await.expect("created");
    }

    /// Takes what a worker takes, and ends it; returns whether there was something.
    pub(super) async fn work(store: &Store, now: Instant, goes_well: bool) -> karbor_store::Result<bool> {
        Self::end(store, now, goes_well, Value::Null).await
    }

    /// Takes what a worker takes, and ends it with a result; returns whether there was something.
    pub(super) async fn end(
        store: &Store,
        now: Instant,
        goes_well: bool,
        result: Value,
    ) -> karbor_store::Result<bool> {
        let options = ClaimOptions {
            owner: "w".to_owned(),
            kinds: OperationKind::ALL.to_vec(),
            skip_projects: Vec::new(),
            lease_seconds: 30,
        };
        let Some(claimed) = store.claim(&options, now).await? else { return Ok(false) };
        let event = match (claimed.operation.kind, goes_well) {
            (OperationKind::Delete, true) => CheckpointEvent::Removed,
            (OperationKind::Delete, false) => CheckpointEvent::DeleteFailed,
            (_, true) => CheckpointEvent::Finished,
            (_, false) => CheckpointEvent::Failed,
        };
        let change = CheckpointChange { event: Some(event), ..CheckpointChange::default() };
        let finish = Finish {
            state: if goes_well { OperationState::Succeeded } else { OperationState::Failed },
            reason: (!goes_well).then(|| "the volume is gone".to_owned()),
            result,
            extra_info: Value::Null,
            subject: SubjectChange::Checkpoint(change),
        };
        store.finish(&claimed.claim, &finish, now).await.map(|()| true)
    }
}

pub(super) fn members(value: Value) -> Map<String, Value> {
    let Value::Object(members) = value else { panic!("{value} is no object") };
    members
}

pub(super) fn operation(number: u128, trigger: u128, plan: u128, project: &str) -> ScheduledOperation {
    ScheduledOperation {
        id: ScheduledOperationId(id(number)),
        name: "so".to_owned(),
        description: None,
        operation_type: "protect".to_owned(),
        user: UserId::new("u").expect("valid"),
        project: ProjectId::new(project).expect("valid"),
        trigger: TriggerId(id(trigger)),
        definition: members(json!({"plan_id": id(plan), "provider_id": PROVIDER})),
        enabled: true,
        rules: RunRules::default(),
        created_at: at(0),
        updated_at: None,
    }
}
