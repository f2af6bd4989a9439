//! The life of an operation.

use std::collections::BTreeMap;

use karbor_store::{
    CheckpointChange, CheckpointStats, Claimed, DeletionCause, Error, Finish, NewCheckpoint, NewStep,
    OperationLogColumn, OperationLogQuery, QuotaResource, Reopening, RunChange, StepChange, StepEnd, Store,
    SubjectChange,
};
use karbor_types::{
    CheckpointEvent, CheckpointState, OperationId, OperationKind, OperationState, ResourceKey, RunEvent,
    RunState, StepState,
};
use serde_json::{Value, json};

use crate::checkpoints::import;
use crate::kit::World;
use crate::rows::{
    UNLIMITED, about, at, checkpoint, claim_as, operation, protect, restore, used, uuid, verification,
};

const CHECKPOINTS: QuotaResource = QuotaResource::Checkpoints;

pub(crate) async fn claim(store: &Store, second: i64) -> Claimed {
    store.claim(&claim_as("w"), at(second)).await.expect("claimed").expect("something is due")
}

pub(crate) fn ends(state: OperationState, subject: SubjectChange) -> Finish {
    let reason = (state != OperationState::Succeeded).then(|| "the disk is gone".to_owned());
    Finish { state, reason, result: json!({"resources": 3}), subject, extra_info: json!({"bytes": 7}) }
}

pub(crate) fn happened(event: CheckpointEvent) -> SubjectChange {
    SubjectChange::Checkpoint(CheckpointChange { event: Some(event), ..CheckpointChange::default() })
}

pub(crate) async fn an_operation_that_is_given_back_waits_for_its_time(world: World) {
    let store = &world.store;
    store.create_operation(&operation(1, OperationKind::Sweep, "p"), at(0)).await.expect("queued");
    let first = claim(store, 1).await;
    store.release(&first.claim, at(2)).await.expect("released");
    let back = store.get_operation(first.operation.id).await.expect("found");
    assert_eq!((back.state, back.attempt, back.owner), (OperationState::Queued, 0, None));
    assert!(matches!(store.release(&first.claim, at(2)).await, Err(Error::LeaseLost { .. })));

    let second = claim(store, 2).await;
    assert_eq!((second.claim.epoch().0, second.operation.attempt), (2, 1));
    store.postpone(&second.claim, at(100), "the cloud is away").await.expect("put off");
    let back = store.get_operation(first.operation.id).await.expect("found");
    assert_eq!((back.state, back.attempt, back.due_at), (OperationState::Queued, 1, at(100)));
    assert_eq!(back.reason.as_deref(), Some("the cloud is away"));
    assert_eq!(store.claim(&claim_as("w"), at(99)).await.expect("looked"), None);
    let third = claim(store, 100).await;
    assert_eq!((third.claim.epoch().0, third.operation.attempt, third.operation.reason), (3, 2, None));
}

pub(crate) async fn what_has_failed_is_taken_up_again(world: World) {
    let store = &world.store;
    store.create_operation(&operation(1, OperationKind::Sweep, "p"), at(0)).await.expect("queued");
    let claimed = claim(store, 1).await;
    let id = claimed.operation.id;
    let hooks = ["prepare_begin", "main", "complete"];
    let steps = (0u32..).zip(hooks).map(|(ordinal, hook)| NewStep {
        resource: ResourceKey::new("Test::Thing", "a"),
        hook: hook.to_owned(),
        ordinal,
    });
    store.save_steps(&claimed.claim, &steps.collect::<Vec<_>>()).await.expect("saved");
    let ended =
        |state| StepEnd { state, outcome: Value::Null, reason: Some("so".to_owned()), progress: None };
    let states = [StepState::Done, StepState::Failed, StepState::Skipped];
    let changes =
        (0u32..).zip(states).map(|(ordinal, state)| StepChange::Finished { ordinal, end: ended(state) });
    store.record_steps(&claimed.claim, &changes.collect::<Vec<_>>(), at(2)).await.expect("noted");
    let request = json!({"undo": true});
    let again = async |reopening| {
        let epoch = store.get_operation(id).await.expect("it is there").epoch;
        store.reopen_operation(id, epoch, reopening, &request, at(5)).await
    };
    let early = again(Reopening::Resume).await;
    assert!(matches!(early, Err(Error::Conflict { .. })), "it runs: {early:?}");
    store
        .finish(&claimed.claim, &ends(OperationState::Failed, SubjectChange::None), at(3))
        .await
        .expect("ended");

    let states = async || -> Vec<StepState> {
        let steps = store.list_steps(id, None, 9).await.expect("listed");
        steps.iter().map(|step| step.state).collect()
    };
    let queued = again(Reopening::CleanUp).await.expect("taken up");
    assert_eq!((queued.state, queued.attempt, queued.due_at), (OperationState::Queued, 0, at(5)));
    assert_eq!((queued.reason, queued.ended_at, queued.request["undo"].as_bool()), (None, None, Some(true)));
    assert_eq!(states().await, [StepState::Done, StepState::Failed, StepState::Skipped]);
    assert!(matches!(again(Reopening::Resume).await, Err(Error::Conflict { .. })), "it is queued already");
    assert!(
        matches!(
            store.finish(&claimed.claim, &ends(OperationState::Failed, SubjectChange::None), at(6)).await,
            Err(Error::LeaseLost { .. })
        ),
        "the old claim is worth nothing"
    );
    let second = claim(store, 6).await;
    assert!(second.claim.epoch() > claimed.claim.epoch());
    store
        .finish(&second.claim, &ends(OperationState::Cancelled, SubjectChange::None), at(7))
        .await
        .expect("ended");
    let read_before = claimed.claim.epoch();
    let stale = store.reopen_operation(id, read_before, Reopening::Resume, &request, at(8)).await;
    assert!(matches!(stale, Err(Error::Conflict { .. })), "it has run since it was read: {stale:?}");
    again(Reopening::Resume).await.expect("taken up");
    assert_eq!(states().await, [StepState::Done, StepState::Pending, StepState::Pending]);
}

pub(crate) async fn a_cancel_makes_a_queued_one_due(world: World) {
    let store = &world.store;
    let mut later = operation(1, OperationKind::Sweep, "p");
    later.due_at = at(1000);
    store.create_operation(&later, at(0)).await.expect("queued");
    assert_eq!(store.claim(&claim_as("w"), at(5)).await.expect("looked"), None);
    store.request_cancel(later.id, at(5)).await.expect("asked");
    let claimed = claim(store, 5).await;
    assert!(claimed.operation.cancel_requested);
    store
        .finish(&claimed.claim, &ends(OperationState::Cancelled, SubjectChange::None), at(6))
        .await
        .expect("ended");
    let refused = store.request_cancel(later.id, at(7)).await;
    assert!(matches!(&refused, Err(Error::Conflict { state, .. }) if state == "cancelled"), "{refused:?}");
    let missing = store.request_cancel(OperationId(uuid(9)), at(7)).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })), "{missing:?}");

    store.create_operation(&operation(2, OperationKind::Sweep, "p"), at(0)).await.expect("queued");
    let running = claim(store, 10).await;
    assert!(!store.cancel_requested(&running.claim).await.expect("asked"));
    store.request_cancel(running.operation.id, at(11)).await.expect("asked");
    assert!(store.cancel_requested(&running.claim).await.expect("asked"));
    assert!(store.renew(&running.claim, 60, at(12)).await.expect("renewed").cancel_requested);
    assert_eq!(store.claim(&claim_as("v"), at(13)).await.expect("looked"), None, "its owner shall end it");
}

pub(crate) async fn the_end_is_written_everywhere_at_once(world: World) {
    let store = &world.store;
    let new = checkpoint(1, "p");
    let wanted = protect(&new);
    store.create_checkpoint(&new, &wanted, &UNLIMITED, at(0)).await.expect("created");
    let claimed = claim(store, 1).await;
    let packed =
        serde_json::from_value(json!([{"0x0": ["T", "v1", "volume", {"size": 1}]}, []])).expect("packed");
    let graph = CheckpointChange { graph: Some(packed), ..CheckpointChange::default() };
    store
        .change_subject(&claimed.claim, &SubjectChange::Checkpoint(graph.clone()), at(2))
        .await
        .expect("changed");
    assert_eq!(store.get_checkpoint(new.id).await.expect("found").graph, graph.graph);

    let stats = CheckpointStats { logical_bytes: 10, stored_bytes: 5, new_bytes: 3 };
    let change = CheckpointChange {
        event: Some(CheckpointEvent::Finished),
        stats: Some(stats),
        session: Some(format!("{}-00000001", new.id)),
        committed_at: Some(at(8)),
        ..CheckpointChange::default()
    };
    let finish = ends(OperationState::Succeeded, SubjectChange::Checkpoint(change));
    store.finish(&claimed.claim, &finish, at(9)).await.expect("ended");
    let made = store.get_checkpoint(new.id).await.expect("found");
    assert_eq!((made.state, made.stats, made.graph), (CheckpointState::Available, Some(stats), graph.graph));
    assert_eq!((made.committed_at, made.updated_at, made.reason), (Some(at(8)), Some(at(9)), None));
    let ended = store.get_operation(wanted.id).await.expect("found");
    assert_eq!((ended.state, ended.ended_at, ended.owner), (OperationState::Succeeded, Some(at(9)), None));
    assert_eq!((ended.lease_until, ended.result, ended.reason), (None, json!({"resources": 3}), None));
    let log = store.get_operation_log(wanted.log.expect("it has one")).await.expect("logged");
    assert_eq!((log.status.as_str(), log.ended_at, log.error_info), ("available", Some(at(9)), None));
    assert_eq!(log.extra_info, json!({"bytes": 7}));
    assert_eq!(used(store, "p", CHECKPOINTS).await, (1, 0));
    assert_eq!(store.claim(&claim_as("w"), at(1_000_000)).await.expect("looked"), None, "it has ended");

    let removal = about(2, OperationKind::Delete, &new);
    store.start_delete(new.id, DeletionCause::Request, &removal, at(10)).await.expect("started");
    let claimed = claim(store, 11).await;
    store
        .finish(
            &claimed.claim,
            &ends(OperationState::Failed, happened(CheckpointEvent::DeleteFailed)),
            at(12),
        )
        .await
        .expect("ended");
    let kept = store.get_checkpoint(new.id).await.expect("found");
    assert_eq!(kept.state, CheckpointState::ErrorDeleting);
    let log = store.get_operation_log(removal.log.expect("it has one")).await.expect("logged");
    assert_eq!(
        (log.status.as_str(), log.error_info.as_deref()),
        ("error-deleting", Some("the disk is gone"))
    );
    assert_eq!(used(store, "p", CHECKPOINTS).await, (1, 0));

    let again = about(3, OperationKind::Delete, &new);
    store.start_delete(new.id, DeletionCause::Request, &again, at(13)).await.expect("started");
    let claimed = claim(store, 14).await;
    store
        .finish(&claimed.claim, &ends(OperationState::Succeeded, happened(CheckpointEvent::Removed)), at(15))
        .await
        .expect("ended");
    assert_eq!(store.get_checkpoint(new.id).await.expect("found").state, CheckpointState::Deleted);
    assert_eq!(used(store, "p", CHECKPOINTS).await, (0, 0));
}

pub(crate) async fn an_end_that_does_not_fit_changes_nothing(world: World) {
    let store = &world.store;
    let new = checkpoint(1, "p");
    store.create_checkpoint(&new, &protect(&new), &UNLIMITED, at(0)).await.expect("created");
    let claimed = claim(store, 1).await;
    let run = SubjectChange::Run(RunChange { event: Some(RunEvent::Finished), ..RunChange::default() });
    for (finish, conflict) in [
        (ends(OperationState::Succeeded, happened(CheckpointEvent::Removed)), true),
        (ends(OperationState::Succeeded, run), false),
        (ends(OperationState::Running, SubjectChange::None), false),
    ] {
        let refused = store.finish(&claimed.claim, &finish, at(2)).await;
        assert_eq!(matches!(refused, Err(Error::Conflict { .. })), conflict, "{refused:?}");
        assert_eq!(matches!(refused, Err(Error::Invalid { .. })), !conflict, "{refused:?}");
    }
    let still = store.get_operation(claimed.operation.id).await.expect("found");
    assert_eq!(still, claimed.operation);
    assert_eq!(store.get_checkpoint(new.id).await.expect("found").state, CheckpointState::Protecting);
    store
        .finish(&claimed.claim, &ends(OperationState::Failed, happened(CheckpointEvent::Failed)), at(3))
        .await
        .expect("ended");
    assert_eq!(store.get_checkpoint(new.id).await.expect("found").state, CheckpointState::Error);
}

pub(crate) async fn restores_and_verifications_follow_their_operation(world: World) {
    let store = &world.store;
    let new: NewCheckpoint = checkpoint(1, "p");
    import(&world, &new, CheckpointState::Available).await;
    let (restore, restoring) = restore(2, &new);
    let made = store.create_restore(&restore, &restoring, at(0)).await.expect("created");
    assert_eq!((made.state, made.resources_status.len()), (RunState::InProgress, 0));
    let claimed = claim(store, 1).await;
    let status = BTreeMap::from([("T#v1".to_owned(), "restoring".to_owned())]);
    let going = RunChange { resources_status: Some(status.clone()), ..RunChange::default() };
    store.change_subject(&claimed.claim, &SubjectChange::Run(going), at(2)).await.expect("changed");
    let seen = store.get_restore(restore.id).await.expect("found");
    assert_eq!(
        (seen.state, seen.resources_status, seen.updated_at),
        (RunState::InProgress, status, Some(at(2)))
    );

    let status = BTreeMap::from([("T#v1".to_owned(), "error".to_owned())]);
    let why = BTreeMap::from([("T#v1".to_owned(), "no space".to_owned())]);
    let failed = RunChange {
        event: Some(RunEvent::Failed),
        resources_status: Some(status.clone()),
        resources_reason: Some(why.clone()),
        reason: Some("one of one failed".to_owned()),
    };
    store
        .finish(&claimed.claim, &ends(OperationState::Failed, SubjectChange::Run(failed)), at(3))
        .await
        .expect("ended");
    let seen = store.get_restore(restore.id).await.expect("found");
    assert_eq!((seen.state, seen.resources_status, seen.resources_reason), (RunState::Fail, status, why));
    assert_eq!(seen.reason.as_deref(), Some("one of one failed"));

    let (verification, checking) = verification(3, &new);
    store.create_verification(&verification, &checking, at(4)).await.expect("created");
    let claimed = claim(store, 5).await;
    let done = SubjectChange::Run(RunChange { event: Some(RunEvent::Finished), ..RunChange::default() });
    store.finish(&claimed.claim, &ends(OperationState::Succeeded, done), at(6)).await.expect("ended");
    assert_eq!(store.get_verification(verification.id).await.expect("found").state, RunState::Success);

    let by_start = OperationLogQuery {
        sort: vec![(OperationLogColumn::StartedAt, karbor_store::Direction::Ascending)],
        ..OperationLogQuery::default()
    };
    let logs = store.list_operation_logs(&by_start).await.expect("listed");
    let told: Vec<_> =
        logs.iter().map(|log| (log.kind, log.status.as_str(), log.error_info.is_some())).collect();
    assert_eq!(told, [(OperationKind::Restore, "fail", true), (OperationKind::Verify, "success", false)]);
    assert_eq!((logs[0].restore, logs[1].restore), (Some(restore.id), None));
    assert_ne!(logs[0].extra_info, Value::Null);
}
