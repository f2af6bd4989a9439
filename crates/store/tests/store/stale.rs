//! A stale claim changes nothing, whichever way it is tried (invariant 4).

use karbor_store::{
    CheckpointChange, CheckpointQuery, Claim, Error, LedgerPurpose, NewLedgerEntry, NewStep,
    OperationLogQuery, OperationQuery, QuotaResource, Result, StepChange, StepEnd, Store, SubjectChange,
};
use karbor_types::{CheckpointEvent, OperationId, OperationState, Progress, ResourceKey, StepState};
use serde_json::{Value, json};

use crate::kit::World;
use crate::operations::{claim, ends, happened};
use crate::rows::{UNLIMITED, at, checkpoint, protect, used};

fn new_step(ordinal: u32) -> NewStep {
    NewStep { resource: ResourceKey::new("T", format!("r{ordinal}")), hook: "main".to_owned(), ordinal }
}

fn new_entry(reference: &str) -> NewLedgerEntry {
    NewLedgerEntry {
        resource: ResourceKey::new("T", "r0"),
        kind: "snapshot".to_owned(),
        reference: reference.to_owned(),
        purpose: LedgerPurpose::Scaffold,
        data: Value::Null,
    }
}

const METHODS: usize = 15;

/// Calls one of the methods that take a claim.
async fn write(store: &Store, claim: &Claim, method: usize) -> Result<()> {
    let end = StepEnd { state: StepState::Done, outcome: json!({"x": 1}), reason: None, progress: None };
    let progress = Progress { bytes_done: 1, bytes_total: Some(2), bytes_stored: 1 };
    let extra = CheckpointChange { extra_info: Some(Default::default()), ..CheckpointChange::default() };
    let now = at(200);
    match method {
        0 => store.renew(claim, 60, now).await.map(drop),
        1 => store.release(claim, now).await,
        2 => store.postpone(claim, at(300), "later").await,
        3 => store.cancel_requested(claim).await.map(drop),
        4 => store.change_subject(claim, &SubjectChange::Checkpoint(extra), now).await,
        5 => store.change_subject(claim, &SubjectChange::None, now).await,
        6 => store.finish(claim, &ends(OperationState::Failed, happened(CheckpointEvent::Failed)), now).await,
        7 => store.finish(claim, &ends(OperationState::Succeeded, SubjectChange::None), now).await,
        8 => store.save_steps(claim, &[new_step(1)]).await,
        9 => store.record_steps(claim, &[StepChange::Started { ordinal: 0 }], now).await,
        10 => store.step_finished(claim, 0, end, now).await,
        11 => store.step_progress(claim, 0, progress, now).await,
        12 => store.ledger_intend(claim, &new_entry("other"), now).await.map(drop),
        13 => store.ledger_created(claim, 0, "known", now).await,
        _ => store.ledger_removed(claim, 0, now).await,
    }
}

/// Everything that one of them could have changed, as text.
async fn picture(store: &Store, id: OperationId) -> String {
    format!(
        "{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}",
        store.list_operations(&OperationQuery::default()).await.expect("listed"),
        store.list_steps(id, None, 10).await.expect("listed"),
        store.list_ledger(id).await.expect("listed"),
        store.list_checkpoints(&CheckpointQuery::default()).await.expect("listed"),
        store.list_operation_logs(&OperationLogQuery::default()).await.expect("listed"),
        used(store, "p", QuotaResource::Checkpoints).await,
    )
}

pub(crate) async fn every_write_of_a_stale_claim_is_refused(world: World) {
    let store = &world.store;
    let new = checkpoint(1, "p");
    store.create_checkpoint(&new, &protect(&new), &UNLIMITED, at(0)).await.expect("created");
    let stale = claim(store, 1).await.claim;
    store.save_steps(&stale, &[new_step(0)]).await.expect("saved");
    store.ledger_intend(&stale, &new_entry("made"), at(2)).await.expect("intended");

    let id = stale.operation();
    let fresh = claim(store, 100).await.claim;
    refuse_all(store, &stale, "overtaken").await;
    store.release(&fresh, at(110)).await.expect("released");
    refuse_all(store, &fresh, "released").await;
    let last = claim(store, 120).await.claim;
    // The newest claim may do all that the others may not: the test would not notice otherwise that nothing works.
    for method in [0, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14] {
        let before = picture(store, id).await;
        write(store, &last, method).await.expect("the owner may");
        let changes = ![3, 5].contains(&method);
        assert_eq!(picture(store, id).await != before, changes, "method {method}");
    }
    write(store, &last, 6).await.expect("the owner may");
    refuse_all(store, &last, "ended").await;
    refuse_all(store, &stale, "long ago").await;
}

async fn refuse_all(store: &Store, claim: &Claim, why: &str) {
    let before = picture(store, claim.operation()).await;
    for method in 0..METHODS {
        let refused = write(store, claim, method).await;
        assert!(matches!(refused, Err(Error::LeaseLost { .. })), "{why}: method {method}: {refused:?}");
        assert_eq!(picture(store, claim.operation()).await, before, "{why}: method {method}");
    }
}
