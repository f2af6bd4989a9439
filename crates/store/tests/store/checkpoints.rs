//! Checkpoints.

use karbor_store::{
    Checkpoint, CheckpointColumn, CheckpointQuery, CheckpointStats, DeletionCause, Error, Filter, Limit,
    NewCheckpoint, NewOperation, OperationColumn, OperationQuery, QuotaResource,
};
use karbor_types::{
    CheckpointEvent, CheckpointId, CheckpointState, OperationKind, OperationLogId, OperationState,
};

use crate::kit::World;
use crate::rows::{UNLIMITED, about, at, checkpoint, protect, quotas, restore, used, uuid, verification};

const CHECKPOINTS: QuotaResource = QuotaResource::Checkpoints;

/// Adds a checkpoint as if it had been found in a bank.
pub(crate) async fn import(world: &World, new: &NewCheckpoint, state: CheckpointState) {
    assert!(world.store.import_checkpoint(&found(new, state)).await.expect("imported"));
}

fn found(new: &NewCheckpoint, state: CheckpointState) -> Checkpoint {
    Checkpoint {
        id: new.id,
        project: new.project.clone(),
        provider: new.provider,
        plan: new.plan.clone(),
        state,
        graph: Some(Default::default()),
        extra_info: new.extra_info.clone(),
        stats: Some(CheckpointStats { logical_bytes: 1 << 40, stored_bytes: 5, new_bytes: 0 }),
        reason: None,
        session: Some(format!("{}-00000001", new.id)),
        committed_at: Some(at(3)),
        created_at: at(2),
        updated_at: None,
    }
}

pub(crate) async fn a_checkpoint_comes_with_its_operation_log_and_charge(world: World) {
    let new = checkpoint(1, "p");
    let wanted = NewOperation { priority: -3, due_at: at(7), ..protect(&new) };
    let made = world.store.create_checkpoint(&new, &wanted, &UNLIMITED, at(5)).await.expect("created");
    assert_eq!(made, world.store.get_checkpoint(new.id).await.expect("found"));
    assert_eq!((made.state, made.created_at, &made.plan), (CheckpointState::Protecting, at(5), &new.plan));
    assert_eq!((made.graph, made.stats, made.committed_at), (None, None, None));

    let queued = world.store.get_operation(wanted.id).await.expect("queued");
    assert_eq!((queued.kind, queued.state), (OperationKind::Protect, OperationState::Queued));
    assert_eq!((queued.epoch.0, queued.attempt, queued.priority), (0, 0, -3));
    assert_eq!((queued.due_at, queued.created_at, queued.started_at), (at(7), at(5), None));
    assert_eq!((queued.checkpoint, queued.plan), (Some(new.id), Some(new.plan.id)));
    assert_eq!((queued.user, queued.request), (wanted.user.clone(), wanted.request.clone()));
    assert_eq!(queued.result, serde_json::Value::Null);

    let log = world.store.get_operation_log(wanted.log.expect("a log")).await.expect("logged");
    assert_eq!((log.operation, log.checkpoint, log.plan), (Some(wanted.id), Some(new.id), Some(new.plan.id)));
    assert_eq!((log.status.as_str(), log.started_at, log.ended_at), ("protecting", at(5), None));
    assert_eq!(used(&world.store, "p", CHECKPOINTS).await, (0, 1));
}

pub(crate) async fn what_fails_leaves_nothing_behind(world: World) {
    let first = checkpoint(1, "p");
    world.store.create_checkpoint(&first, &protect(&first), &UNLIMITED, at(0)).await.expect("created");
    // The checkpoint and its operation are new, but the record of the operation log is not.
    let second = checkpoint(2, "p");
    let clash = NewOperation { log: protect(&first).log, ..protect(&second) };
    let refused = world.store.create_checkpoint(&second, &clash, &UNLIMITED, at(1)).await;
    assert!(matches!(refused, Err(Error::AlreadyExists { what: "operation log", .. })), "{refused:?}");
    let one = quotas(Limit::Unlimited, Limit::At(1));
    let refused = world.store.create_checkpoint(&second, &protect(&second), &one, at(1)).await;
    assert!(matches!(refused, Err(Error::OverQuota { resource: CHECKPOINTS, limit: 1 })), "{refused:?}");
    for wrong in [protect(&first), about(2, OperationKind::Delete, &second)] {
        let refused = world.store.create_checkpoint(&second, &wrong, &UNLIMITED, at(1)).await;
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    }
    assert!(matches!(world.store.get_checkpoint(second.id).await, Err(Error::NotFound { .. })));
    assert!(matches!(world.store.get_operation(clash.id).await, Err(Error::NotFound { .. })));
    assert_eq!(used(&world.store, "p", CHECKPOINTS).await, (0, 1));
}

pub(crate) async fn several_are_added_together_or_not_at_all(world: World) {
    let pair = |number| {
        let new = NewCheckpoint { state: CheckpointState::WaitCopying, ..checkpoint(number, "p") };
        let operation = about(number, OperationKind::Copy, &new);
        (new, operation)
    };
    let two = quotas(Limit::Unlimited, Limit::At(2));
    let three = [pair(1), pair(2), pair(3)];
    let refused = world.store.create_checkpoints(&three, &two, at(0)).await;
    assert!(matches!(refused, Err(Error::OverQuota { .. })), "{refused:?}");
    assert_eq!(used(&world.store, "p", CHECKPOINTS).await, (0, 0));
    let made = world.store.create_checkpoints(&three[..2], &two, at(0)).await.expect("created");
    assert_eq!(made.iter().map(|made| made.id).collect::<Vec<_>>(), [three[0].0.id, three[1].0.id]);
    assert_eq!(used(&world.store, "p", CHECKPOINTS).await, (0, 2));
}

pub(crate) async fn only_one_of_many_deletes_begins(world: World) {
    let new = checkpoint(1, "p");
    import(&world, &new, CheckpointState::Available).await;
    let other = world.other().await;
    let mut tasks = Vec::new();
    for number in 10..18 {
        let store = if number % 2 == 0 { world.store.clone() } else { other.clone() };
        let (id, operation) = (new.id, about(number, OperationKind::Delete, &new));
        tasks.push(tokio::spawn(async move {
            store.start_delete(id, DeletionCause::Request, &operation, at(1)).await
        }));
    }
    let mut begun = 0;
    for task in tasks {
        match task.await.expect("no panic") {
            Ok(checkpoint) => {
                assert_eq!(checkpoint.state, CheckpointState::Deleting);
                begun += 1;
            }
            Err(Error::Conflict { what: "checkpoint", state, .. }) => assert_eq!(state, "deleting"),
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(begun, 1);
    let query = OperationQuery {
        filters: vec![Filter::Equals(OperationColumn::Checkpoint, new.id.to_string().into())],
        ..OperationQuery::default()
    };
    assert_eq!(world.store.list_operations(&query).await.expect("listed").len(), 1);
    assert_eq!(used(&world.store, "p", CHECKPOINTS).await, (1, 0), "it counts until it is gone");
    let missing = CheckpointId(uuid(99));
    let operation = NewOperation { checkpoint: Some(missing), ..about(99, OperationKind::Delete, &new) };
    let refused = world.store.start_delete(missing, DeletionCause::Request, &operation, at(1)).await;
    assert!(matches!(refused, Err(Error::NotFound { what: "checkpoint", .. })), "{refused:?}");
}

pub(crate) async fn a_reset_goes_by_the_state_machine(world: World) {
    for (number, &state) in (1..).zip(CheckpointState::ALL) {
        let new = checkpoint(number, "p");
        import(&world, &new, state).await;
        let before = used(&world.store, "p", CHECKPOINTS).await;
        let outcome = world.store.reset_checkpoint(new.id, CheckpointEvent::ResetError, at(1)).await;
        match state.after(CheckpointEvent::ResetError) {
            Some(after) => assert_eq!(outcome.expect("allowed").state, after),
            None => {
                assert!(
                    matches!(&outcome, Err(Error::Conflict { state: told, .. }) if *told == state.as_str())
                );
                assert_eq!(used(&world.store, "p", CHECKPOINTS).await, before, "{state}");
            }
        }
    }
    // Protecting; available, error, deleting, error-deleting and the two copies that were reset.
    assert_eq!(used(&world.store, "p", CHECKPOINTS).await, (6, 1));
}

pub(crate) async fn what_a_bank_holds_is_imported_once(world: World) {
    let new = checkpoint(1, "p");
    import(&world, &new, CheckpointState::Available).await;
    assert_eq!(
        world.store.get_checkpoint(new.id).await.expect("found"),
        found(&new, CheckpointState::Available)
    );
    let again = found(&new, CheckpointState::Error);
    assert!(!world.store.import_checkpoint(&again).await.expect("known"));
    assert_eq!(world.store.get_checkpoint(new.id).await.expect("found").state, CheckpointState::Available);
    assert_eq!(used(&world.store, "p", CHECKPOINTS).await, (1, 0));
}

pub(crate) async fn deleted_ones_are_listed_only_when_asked_for(world: World) {
    import(&world, &checkpoint(1, "p"), CheckpointState::Available).await;
    import(&world, &checkpoint(2, "p"), CheckpointState::Deleted).await;
    let ids = |rows: Vec<Checkpoint>| rows.iter().map(|row| row.id.0.as_u128()).collect::<Vec<_>>();
    let plain = CheckpointQuery::default();
    assert_eq!(ids(world.store.list_checkpoints(&plain).await.expect("listed")), [1]);
    for filter in [
        Filter::Equals(CheckpointColumn::State, "deleted".into()),
        Filter::OneOf(CheckpointColumn::State, vec!["deleted".into(), "error".into()]),
    ] {
        let query = CheckpointQuery { filters: vec![filter], ..CheckpointQuery::default() };
        assert_eq!(ids(world.store.list_checkpoints(&query).await.expect("listed")), [2]);
    }
    let deleted = world.store.get_checkpoint(CheckpointId(uuid(2))).await.expect("readable by id");
    assert_eq!(deleted.state, CheckpointState::Deleted);
}

pub(crate) async fn a_restore_needs_an_available_checkpoint(world: World) {
    for (number, &state) in (1..).zip(CheckpointState::ALL) {
        let new = checkpoint(number, "p");
        import(&world, &new, state).await;
        let (restore, operation) = restore(100 + number, &new);
        let (verification, check) = verification(200 + number, &new);
        let restored = world.store.create_restore(&restore, &operation, at(1)).await;
        let verified = world.store.create_verification(&verification, &check, at(1)).await;
        if state == CheckpointState::Available {
            assert_eq!(restored.expect("allowed").target, restore.target);
            assert_eq!(verified.expect("allowed").checkpoint, new.id);
            continue;
        }
        for refused in [restored.err(), verified.err()] {
            assert!(matches!(&refused, Some(Error::Conflict { state: told, .. }) if *told == state.as_str()));
        }
        assert!(matches!(world.store.get_restore(restore.id).await, Err(Error::NotFound { .. })));
        assert!(matches!(world.store.get_operation(operation.id).await, Err(Error::NotFound { .. })));
        let failed =
            world.store.create_failed_restore(&restore, "no such thing", at(2)).await.expect("recorded");
        assert_eq!((failed.state.as_str(), failed.reason.as_deref()), ("fail", Some("no such thing")));
    }
    let unknown = checkpoint(99, "p");
    let (restore, operation) = restore(199, &unknown);
    let refused = world.store.create_restore(&restore, &operation, at(1)).await;
    assert!(matches!(refused, Err(Error::NotFound { what: "checkpoint", .. })), "{refused:?}");
    let log = OperationLogId(uuid(199 + (1 << 64)));
    assert!(matches!(world.store.get_operation_log(log).await, Err(Error::NotFound { .. })));
}
