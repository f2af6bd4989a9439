//! Random sequences of what clients, workers and clocks do, beside a model of what must come of it: states change by
//! the state machine alone, stale claims do nothing, and usage is what a count of the rows gives.

use std::collections::BTreeMap;

use karbor_store::{
    CheckpointQuery, Claim, ClaimOptions, DeletionCause, Error, Finish, Limit, QuotaResource, Store,
    SubjectChange,
};
use karbor_types::{
    CheckpointEvent, CheckpointId, CheckpointState, OperationId, OperationKind, OperationState,
};
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, prop_oneof, proptest};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use crate::kit::{World, open};
use crate::operations::{ends, happened};
use crate::rows::{about, at, checkpoint, claim_as, project, protect, quotas, used, uuid};

/// How many checkpoints the project may have.
const MOST: u64 = 4;

#[derive(Debug, Clone)]
enum Event {
    Protect,
    Delete { checkpoint: usize },
    Reset { checkpoint: usize, to: CheckpointEvent },
    Claim,
    Finish { claim: usize, well: bool },
    Release { claim: usize },
    Renew { claim: usize },
    Cancel { operation: usize },
    Wait,
}

fn event() -> impl Strategy<Value = Event> {
    let any = 0..64usize;
    let reset = prop_oneof![Just(CheckpointEvent::ResetAvailable), Just(CheckpointEvent::ResetError)];
    prop_oneof![
        3 => Just(Event::Protect),
        3 => any.clone().prop_map(|checkpoint| Event::Delete { checkpoint }),
        1 => (any.clone(), reset).prop_map(|(checkpoint, to)| Event::Reset { checkpoint, to }),
        5 => Just(Event::Claim),
        5 => (any.clone(), proptest::bool::ANY).prop_map(|(claim, well)| Event::Finish { claim, well }),
        1 => any.clone().prop_map(|claim| Event::Release { claim }),
        1 => any.clone().prop_map(|claim| Event::Renew { claim }),
        1 => any.prop_map(|operation| Event::Cancel { operation }),
        2 => Just(Event::Wait),
    ]
}

#[derive(Debug, Clone, PartialEq)]
struct ModelOperation {
    kind: OperationKind,
    checkpoint: CheckpointId,
    state: OperationState,
    epoch: u32,
    lease_until: i64,
}

#[derive(Debug, Default)]
struct Model {
    checkpoints: BTreeMap<CheckpointId, CheckpointState>,
    operations: BTreeMap<OperationId, ModelOperation>,
    claims: Vec<Claim>,
    clock: i64,
    next: u128,
}

impl Model {
    fn owns(&self, claim: &Claim) -> bool {
        let operation = &self.operations[&claim.operation()];
        operation.state == OperationState::Running && operation.epoch == claim.epoch().0
    }

    fn alive(&self) -> u64 {
        let alive = self.checkpoints.values().filter(|state| **state != CheckpointState::Deleted);
        u64::try_from(alive.count()).expect("few")
    }

    fn new_id(&mut self) -> u128 {
        self.next += 1;
        self.next
    }

    fn queue(&mut self, number: u128, kind: OperationKind, checkpoint: CheckpointId) {
        let queued =
            ModelOperation { kind, checkpoint, state: OperationState::Queued, epoch: 0, lease_until: 0 };
        self.operations.insert(OperationId(uuid(number)), queued);
    }
}

fn pick<T: Clone>(all: impl Iterator<Item = T>, index: usize) -> Option<T> {
    let all: Vec<T> = all.collect();
    if all.is_empty() { None } else { all.get(index % all.len()).cloned() }
}

async fn play(store: &Store, events: &[Event]) {
    let mut model = Model::default();
    for event in events {
        model.clock += 1;
        step(store, &mut model, event).await;
        compare(store, &model, event).await;
    }
}

async fn step(store: &Store, model: &mut Model, event: &Event) {
    let now = at(model.clock);
    match event {
        Event::Wait => model.clock += 70,
        Event::Protect => {
            let number = model.new_id();
            let new = checkpoint(number, "p");
            let limits = quotas(Limit::Unlimited, Limit::At(MOST));
            let made = store.create_checkpoint(&new, &protect(&new), &limits, now).await;
            if model.alive() < MOST {
                made.expect("there is room");
                model.checkpoints.insert(new.id, CheckpointState::Protecting);
                model.queue(number, OperationKind::Protect, new.id);
            } else {
                assert!(matches!(made, Err(Error::OverQuota { limit: MOST, .. })), "{made:?}");
            }
        }
        Event::Delete { checkpoint: index } => {
            let Some((id, state)) = pick(model.checkpoints.clone().into_iter(), *index) else { return };
            let number = model.new_id();
            let removal = about(number, OperationKind::Delete, &checkpoint(id.0.as_u128(), "p"));
            let begun =
                store.start_delete(id, DeletionCause::Request, &removal, now).await.map(|row| row.state);
            if expect(state, CheckpointEvent::DeleteRequested, begun) {
                model.checkpoints.insert(id, CheckpointState::Deleting);
                model.queue(number, OperationKind::Delete, id);
            }
        }
        Event::Reset { checkpoint: index, to } => {
            let Some((id, state)) = pick(model.checkpoints.clone().into_iter(), *index) else { return };
            let reset = store.reset_checkpoint(id, *to, now).await.map(|row| row.state);
            if expect(state, *to, reset) {
                model.checkpoints.insert(id, state.after(*to).expect("it was allowed"));
            }
        }
        Event::Claim => claim(store, model).await,
        Event::Finish { claim, well } => {
            if let Some(claim) = pick(model.claims.clone().into_iter(), *claim) {
                finish(store, model, &claim, *well).await;
            }
        }
        Event::Release { claim } => {
            let Some(claim) = pick(model.claims.clone().into_iter(), *claim) else { return };
            let released = store.release(&claim, now).await;
            assert_eq!(released.is_ok(), model.owns(&claim), "{released:?}");
            if released.is_ok() {
                let operation = model.operations.get_mut(&claim.operation()).expect("claimed");
                operation.state = OperationState::Queued;
            }
        }
        Event::Renew { claim } => {
            let Some(claim) = pick(model.claims.clone().into_iter(), *claim) else { return };
            let renewed = store.renew(&claim, 60, now).await;
            assert_eq!(renewed.is_ok(), model.owns(&claim), "{renewed:?}");
            if renewed.is_ok() {
                let operation = model.operations.get_mut(&claim.operation()).expect("claimed");
                operation.lease_until = model.clock + 60;
            }
        }
        Event::Cancel { operation } => {
            let Some((id, operation)) = pick(model.operations.clone().into_iter(), *operation) else {
                return;
            };
            let asked = store.request_cancel(id, now).await;
            assert_eq!(asked.is_ok(), !operation.state.is_final(), "{asked:?}");
        }
    }
}

/// Returns whether the event applied, after having made sure that the store thinks the same.
fn expect(state: CheckpointState, event: CheckpointEvent, outcome: Result<CheckpointState, Error>) -> bool {
    match (state.after(event), outcome) {
        (Some(after), Ok(told)) => {
            assert_eq!(told, after);
            true
        }
        (None, Err(Error::Conflict { state: told, .. })) => {
            assert_eq!(told, state.as_str());
            false
        }
        (after, outcome) => panic!("{event} on {state} gives {after:?}, but {outcome:?} came of it"),
    }
}

async fn claim(store: &Store, model: &mut Model) {
    let clock = model.clock;
    let options = ClaimOptions { skip_projects: vec![project("other")], ..claim_as("w") };
    let claimed = store.claim(&options, at(clock)).await.expect("claimed");
    let free = |operation: &ModelOperation| match operation.state {
        OperationState::Queued => true,
        OperationState::Running => operation.lease_until <= clock,
        _ => false,
    };
    let Some(claimed) = claimed else {
        let missed: Vec<_> = model.operations.iter().filter(|(_, operation)| free(operation)).collect();
        assert!(missed.is_empty(), "not claimed: {missed:?}");
        return;
    };
    let operation = model.operations.get_mut(&claimed.operation.id).expect("known");
    assert!(free(operation), "claimed, but it was {operation:?} at {clock}");
    operation.epoch += 1;
    operation.state = OperationState::Running;
    operation.lease_until = clock + 60;
    assert_eq!(claimed.claim.epoch().0, operation.epoch);
    model.claims.push(claimed.claim);
}

async fn finish(store: &Store, model: &mut Model, claim: &Claim, well: bool) {
    let operation = model.operations[&claim.operation()].clone();
    let happens = match (operation.kind, well) {
        (OperationKind::Delete, true) => CheckpointEvent::Removed,
        (OperationKind::Delete, false) => CheckpointEvent::DeleteFailed,
        (_, true) => CheckpointEvent::Finished,
        (_, false) => CheckpointEvent::Failed,
    };
    let state = if well { OperationState::Succeeded } else { OperationState::Failed };
    let before = model.checkpoints[&operation.checkpoint];
    let ended = store.finish(claim, &ends(state, happened(happens)), at(model.clock)).await;
    if !model.owns(claim) {
        assert!(matches!(ended, Err(Error::LeaseLost { .. })), "{ended:?}");
        return;
    }
    let end: Finish = match before.after(happens) {
        Some(after) => {
            ended.expect("the event applies");
            model.checkpoints.insert(operation.checkpoint, after);
            ends(state, SubjectChange::None)
        }
        // Somebody reset the checkpoint meanwhile: the operation ends without touching it.
        None => {
            assert!(matches!(ended, Err(Error::Conflict { .. })), "{ended:?}");
            let end = ends(OperationState::Failed, SubjectChange::None);
            store.finish(claim, &end, at(model.clock)).await.expect("an end without a subject");
            end
        }
    };
    model.operations.get_mut(&claim.operation()).expect("claimed").state = end.state;
}

async fn compare(store: &Store, model: &Model, event: &Event) {
    let all = CheckpointQuery {
        filters: vec![karbor_store::Filter::Contains(karbor_store::CheckpointColumn::State, String::new())],
        ..CheckpointQuery::default()
    };
    let rows = store.list_checkpoints(&all).await.expect("listed");
    let states: BTreeMap<_, _> = rows.iter().map(|row| (row.id, row.state)).collect();
    assert_eq!(states, model.checkpoints, "after {event:?}");
    let making = model.checkpoints.values().filter(|state| **state == CheckpointState::Protecting).count();
    let making = u64::try_from(making).expect("few");
    let usage = used(store, "p", QuotaResource::Checkpoints).await;
    assert_eq!(usage, (model.alive() - making, making), "after {event:?}");
    assert!(!store.recount_usage(&project("p")).await.expect("counted"), "usage drifted at {event:?}");
    for (id, operation) in &model.operations {
        let row = store.get_operation(*id).await.expect("found");
        assert_eq!((row.state, row.epoch.0), (operation.state, operation.epoch), "after {event:?}");
        let log =
            store.get_operation_log(karbor_types::OperationLogId(uuid(id.0.as_u128() + (1 << 64)))).await;
        let log = log.expect("every operation is logged");
        assert_eq!(log.ended_at.is_some(), operation.state.is_final(), "after {event:?}");
    }
}

pub(crate) async fn random_events_keep_states_legal_and_quotas_exact(world: World) {
    let mut runner = TestRunner::deterministic();
    let events = vec(event(), 120).new_tree(&mut runner).expect("a sequence").current();
    play(&world.store, &events).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_events_keeps_states_legal_and_quotas_exact(events in vec(event(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let store = open("sqlite::memory:").await;
            store.migrate().await.expect("migrated");
            play(&store, &events).await;
            store.close().await;
        });
    }
}
