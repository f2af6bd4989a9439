//! By what right operations are done.

use karbor_store::{Delegation, DelegationOwner, Error, NewOperation, Store, SubjectChange};
use karbor_types::{OperationId, OperationKind, OperationState, ScheduledOperationId, UserId};

use crate::kit::World;
use crate::occurrences::set_up;
use crate::operations::{claim, ends};
use crate::rows::{at, operation, project, uuid};

const SCHEDULED: DelegationOwner = DelegationOwner::ScheduledOperation(ScheduledOperationId(uuid_of(50)));

const fn uuid_of(number: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(number)
}

fn of_operation(number: u128) -> DelegationOwner {
    DelegationOwner::Operation(OperationId(uuid(number)))
}

fn delegation(owner: DelegationOwner) -> Delegation {
    Delegation {
        owner,
        project: project("p"),
        user: UserId::new("someone").expect("a valid user id"),
        trust: None,
        expires_at: at(1_000_000),
        sealed: Some("00ff".to_owned()),
        created_at: at(5),
    }
}

async fn idle(store: &Store) -> Vec<DelegationOwner> {
    let found = store.list_idle_delegations(at(1000), 10).await.expect("listed");
    found.into_iter().map(|delegation| delegation.owner).collect()
}

async fn end(store: &Store, second: i64) {
    let claimed = claim(store, second).await;
    let end = ends(OperationState::Succeeded, SubjectChange::None);
    store.finish(&claimed.claim, &end, at(second)).await.expect("ended");
}

pub(crate) async fn a_right_is_found_by_its_operation_or_by_the_scheduled_one(world: World) {
    let store = &world.store;
    let own = delegation(of_operation(1));
    store.create_delegation(&own).await.expect("noted");
    assert!(matches!(store.create_delegation(&own).await, Err(Error::AlreadyExists { .. })));
    store.create_delegation(&delegation(SCHEDULED)).await.expect("noted");
    store.set_delegated_trust(SCHEDULED, "t50").await.expect("noted");
    store.create_operation(&operation(1, OperationKind::Sweep, "p"), at(0)).await.expect("queued");
    let from_scheduled = NewOperation {
        scheduled_operation: Some(ScheduledOperationId(uuid(50))),
        ..operation(2, OperationKind::Sweep, "p")
    };
    store.create_operation(&from_scheduled, at(0)).await.expect("queued");
    store.create_operation(&operation(3, OperationKind::Sweep, "p"), at(0)).await.expect("queued");

    let of = |number| store.delegation_of(OperationId(uuid(number)));
    assert_eq!(of(1).await.expect("looked up"), Some(own));
    let inherited = of(2).await.expect("looked up").expect("that of the scheduled operation");
    assert_eq!((inherited.owner, inherited.trust.as_deref()), (SCHEDULED, Some("t50")));
    assert_eq!(of(3).await.expect("looked up"), None);

    store.remove_delegation(SCHEDULED).await.expect("forgotten");
    assert_eq!(of(2).await.expect("looked up"), None);
    let gone = store.set_delegated_trust(SCHEDULED, "t51").await;
    assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
}

pub(crate) async fn a_right_is_idle_once_its_owner_has_ended_or_is_gone(world: World) {
    let store = &world.store;
    store.create_delegation(&delegation(of_operation(1))).await.expect("noted");
    assert_eq!(idle(store).await, [of_operation(1)], "its owner is not there");
    assert!(store.list_idle_delegations(at(5), 10).await.expect("listed").is_empty(), "it is too young");
    store.create_operation(&operation(1, OperationKind::Sweep, "p"), at(0)).await.expect("queued");
    assert!(idle(store).await.is_empty());
    end(store, 10).await;
    let young = store.list_idle_delegations(at(5), 10).await.expect("listed");
    assert_eq!(young.len(), 1, "what has ended is not waited for");
    store.remove_delegation(of_operation(1)).await.expect("forgotten");

    // The scheduled operation is gone, and what it started is still at work.
    store.create_delegation(&delegation(SCHEDULED)).await.expect("noted");
    let started = NewOperation {
        scheduled_operation: Some(ScheduledOperationId(uuid(50))),
        ..operation(2, OperationKind::Sweep, "p")
    };
    store.create_operation(&started, at(0)).await.expect("queued");
    assert!(idle(store).await.is_empty());
    end(store, 20).await;
    assert_eq!(idle(store).await, [SCHEDULED]);
}

pub(crate) async fn a_right_that_came_in_place_of_one_that_is_gone_is_not_forgotten(world: World) {
    let store = &world.store;
    store.create_delegation(&delegation(of_operation(1))).await.expect("noted");
    store.set_delegated_trust(of_operation(1), "t1").await.expect("noted");
    store.create_operation(&operation(1, OperationKind::Sweep, "p"), at(0)).await.expect("queued");
    end(store, 10).await;
    let seen = store.list_idle_delegations(at(1000), 10).await.expect("listed").remove(0);

    // Meanwhile somebody takes the operation up again.
    store.remove_delegation(of_operation(1)).await.expect("forgotten");
    let next = Delegation { created_at: at(20), ..delegation(of_operation(1)) };
    store.create_delegation(&next).await.expect("noted");
    store.forget_delegation(&seen).await.expect("nothing is forgotten");
    let of = || store.delegation_of(OperationId(uuid(1)));
    assert_eq!(of().await.expect("looked up").as_ref(), Some(&next));
    store.set_delegated_trust(of_operation(1), "t2").await.expect("noted");
    store.forget_delegation(&next).await.expect("nothing is forgotten");
    let stands = of().await.expect("looked up").expect("it stands");
    assert_eq!(stands.trust.as_deref(), Some("t2"), "whose trust was not known yet");
    store.forget_delegation(&stands).await.expect("forgotten");
    assert_eq!(of().await.expect("looked up"), None);
}

pub(crate) async fn a_right_in_use_is_looked_at_again_once_its_owner_is_deleted(world: World) {
    let store = &world.store;
    let (_, operations) = set_up(store, &["p"]).await;
    let owner = DelegationOwner::ScheduledOperation(operations[0].id);
    for right in [owner, SCHEDULED] {
        store.create_delegation(&delegation(right)).await.expect("noted");
    }
    store.settle_delegations(at(1000)).await.expect("settled");
    assert_eq!(idle(store).await, [SCHEDULED], "this one has no owner");
    store.delete_scheduled_operation(operations[0].id).await.expect("deleted");
    store.settle_delegations(at(1000)).await.expect("settled");
    let both = idle(store).await;
    assert!(both.len() == 2 && both.contains(&owner), "{both:?}");
}

pub(crate) async fn a_login_is_wiped_when_its_operation_ends(world: World) {
    let store = &world.store;
    store.create_delegation(&delegation(of_operation(1))).await.expect("noted");
    store.create_operation(&operation(1, OperationKind::Restore, "p"), at(0)).await.expect("queued");
    let sealed = || async {
        let found = store.delegation_of(OperationId(uuid(1))).await.expect("looked up");
        found.expect("it is noted").sealed
    };
    assert_eq!(sealed().await.as_deref(), Some("00ff"));
    end(store, 10).await;
    assert_eq!(sealed().await, None);
}
