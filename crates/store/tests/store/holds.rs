//! Holds on checkpoints, and triggers that are called.

use karbor_store::{DeletionCause, Error, Hold, Trigger, TriggerCall, TriggerUpdate};
use karbor_types::{CheckpointState, OperationKind, TriggerId, UserId};
use serde_json::Map;

use crate::checkpoints::import;
use crate::kit::World;
use crate::rows::{about, at, checkpoint, project, uuid};

fn hold(number: u128, seconds: i64) -> Hold {
    Hold {
        checkpoint: checkpoint(number, "p").id,
        user: UserId::new("ann").expect("an id"),
        reason: Some("an audit".to_owned()),
        since: at(seconds),
    }
}

pub(crate) async fn what_is_held_is_not_deleted(world: World) {
    let store = &world.store;
    for number in 1..=3 {
        import(&world, &checkpoint(number, "p"), CheckpointState::Available).await;
    }
    let held = store.hold_checkpoint(&hold(1, 2)).await.expect("held");
    assert_eq!(held, hold(1, 2));
    assert_eq!(store.hold_checkpoint(&hold(1, 9)).await.expect("held"), held, "it stays as it was");
    store.hold_checkpoint(&hold(2, 3)).await.expect("held");
    let ids = [1, 2, 3].map(|number| checkpoint(number, "p").id);
    assert_eq!(store.holds(&ids).await.expect("read").len(), 2);
    assert_eq!(store.holds(&[]).await.expect("read"), []);

    let delete = |number: u128| async move {
        let new = checkpoint(number, "p");
        store
            .start_delete(
                new.id,
                DeletionCause::Request,
                &about(number + 100, OperationKind::Delete, &new),
                at(5),
            )
            .await
    };
    let refused = delete(1).await;
    assert!(matches!(&refused, Err(Error::Conflict { state, .. }) if state == "held"), "{refused:?}");
    assert_eq!(store.get_checkpoint(ids[0]).await.expect("there").state, CheckpointState::Available);
    assert!(store.release_checkpoint(ids[0]).await.expect("released"));
    assert!(!store.release_checkpoint(ids[0]).await.expect("nothing to release"));
    delete(1).await.expect("it is free");
    let late = store.hold_checkpoint(&hold(1, 6)).await;
    assert!(matches!(late, Err(Error::Conflict { .. })), "{late:?}");
    let unknown = store.hold_checkpoint(&hold(9, 6)).await;
    assert!(matches!(unknown, Err(Error::NotFound { .. })), "{unknown:?}");
}

pub(crate) async fn of_a_hold_and_a_deletion_at_once_one_wins(world: World) {
    for number in 1..=20 {
        let new = checkpoint(number, "p");
        import(&world, &new, CheckpointState::Available).await;
        let other = world.other().await;
        let operation = about(number + 100, OperationKind::Delete, &new);
        let wanted = hold(number, 2);
        let (held, deleted) = tokio::join!(
            world.store.hold_checkpoint(&wanted),
            other.start_delete(new.id, DeletionCause::Request, &operation, at(3))
        );
        let state = world.store.get_checkpoint(new.id).await.expect("there").state;
        match (held, deleted) {
            (Ok(_), Err(Error::Conflict { .. })) => assert_eq!(state, CheckpointState::Available),
            (Err(Error::Conflict { .. }), Ok(_)) => assert_eq!(state, CheckpointState::Deleting),
            both => panic!("not exactly one: {both:?}"),
        }
        other.close().await;
    }
}

pub(crate) async fn a_call_makes_a_trigger_due_once(world: World) {
    let store = &world.store;
    let id = TriggerId(uuid(1));
    let unknown = store.set_trigger_address(id, "v", at(1)).await;
    assert!(matches!(unknown, Err(Error::NotFound { .. })), "{unknown:?}");
    let trigger = Trigger {
        id,
        name: "event".to_owned(),
        project: project("p"),
        kind: "event".to_owned(),
        properties: Map::new(),
        fault: None,
        next_at: None,
        created_at: at(1),
        updated_at: None,
    };
    store.create_trigger(&trigger).await.expect("created");
    assert_eq!(store.trigger_verifier(id).await.expect("read"), None);
    for verifier in ["one", "two"] {
        store.set_trigger_address(id, verifier, at(1)).await.expect("set");
        assert_eq!(store.trigger_verifier(id).await.expect("read").as_deref(), Some(verifier));
    }

    let call = |key: Option<&'static str>, seconds: i64| async move {
        store.call_trigger(id, key, at(seconds)).await.expect("called")
    };
    let handed_out = || async {
        let update = TriggerUpdate { next_at: Some(None), ..TriggerUpdate::default() };
        store.update_trigger(id, &update, at(9)).await.expect("handed out");
    };
    assert_eq!(call(Some("a"), 10).await, TriggerCall { at: at(10), fired: true });
    assert_eq!(store.get_trigger(id).await.expect("there").next_at, Some(at(10)));
    assert_eq!(call(Some("a"), 11).await, TriggerCall { at: at(10), fired: false });
    assert_eq!(call(Some("b"), 12).await, TriggerCall { at: at(10), fired: false }, "it joins the first");
    assert_eq!(call(None, 13).await, TriggerCall { at: at(10), fired: false });
    handed_out().await;
    assert_eq!(call(Some("b"), 14).await, TriggerCall { at: at(10), fired: false });
    assert_eq!(call(None, 15).await, TriggerCall { at: at(15), fired: true });
    handed_out().await;
    // Keys are not remembered for ever.
    assert_eq!(call(Some("a"), 700_000).await, TriggerCall { at: at(700_000), fired: true });

    let (one, other) = (&world.store, &world.other().await);
    handed_out().await;
    let (first, second) = tokio::join!(
        one.call_trigger(id, Some("c"), at(700_001)),
        other.call_trigger(id, Some("c"), at(700_002))
    );
    let (first, second) = (first.expect("called"), second.expect("called"));
    assert_eq!((first.at, usize::from(first.fired) + usize::from(second.fired)), (second.at, 1));
    store.delete_trigger(id).await.expect("its address and its calls go with it");
    assert_eq!(store.trigger_verifier(id).await.expect("read"), None);
}
