//! Who owns an operation (invariant 4): races between workers on one database.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use karbor_store::{Claim, ClaimOptions, Error, NewOperation, NewStep, Store};
use karbor_types::{OperationId, OperationKind, OperationState, Progress, ResourceKey};
use tokio::sync::Barrier;

use crate::kit::World;
use crate::rows::{at, claim_as, operation, project, uuid};

async fn queue(store: &Store, operation: &NewOperation) {
    store.create_operation(operation, at(0)).await.expect("queued");
}

/// Claims until nothing is left, and returns the numbers of what was claimed.
async fn claim_all(store: &Store, options: &ClaimOptions, second: i64) -> Vec<u128> {
    let mut claimed = Vec::new();
    while let Some(next) = store.claim(options, at(second)).await.expect("claimed") {
        claimed.push(next.operation.id.0.as_u128());
    }
    claimed
}

pub(crate) async fn the_most_urgent_is_claimed_first(world: World) {
    // (number, priority, due)
    for (number, priority, due) in [(1, 0, 5), (2, 0, 3), (3, 9, 8), (4, -1, 1), (5, 0, 3), (6, 9, 11)] {
        let operation =
            NewOperation { priority, due_at: at(due), ..operation(number, OperationKind::Sweep, "p") };
        queue(&world.store, &operation).await;
    }
    assert_eq!(claim_all(&world.store, &claim_as("w"), 0).await, [0; 0], "nothing is due yet");
    assert_eq!(claim_all(&world.store, &claim_as("w"), 10).await, [3, 2, 5, 1, 4]);
    assert_eq!(claim_all(&world.store, &claim_as("w"), 11).await, [6]);
}

pub(crate) async fn kinds_and_projects_are_passed_over(world: World) {
    for (number, kind, owner) in [
        (1, OperationKind::Sweep, "p"),
        (2, OperationKind::Protect, "p"),
        (3, OperationKind::Restore, "q"),
        (4, OperationKind::Protect, "q"),
        (5, OperationKind::Protect, "r"),
    ] {
        queue(&world.store, &operation(number, kind, owner)).await;
    }
    let none = ClaimOptions { kinds: Vec::new(), ..claim_as("w") };
    assert_eq!(claim_all(&world.store, &none, 1).await, [0; 0]);
    let some = ClaimOptions {
        kinds: vec![OperationKind::Protect, OperationKind::Restore],
        skip_projects: vec![project("p"), project("r")],
        ..claim_as("w")
    };
    assert_eq!(claim_all(&world.store, &some, 1).await, [3, 4]);
    assert_eq!(claim_all(&world.store, &claim_as("w"), 1).await, [1, 2, 5]);
}

pub(crate) async fn a_lease_that_ran_out_can_be_claimed_again(world: World) {
    let store = &world.store;
    queue(store, &operation(1, OperationKind::Sweep, "p")).await;
    let first = store.claim(&claim_as("one"), at(10)).await.expect("claimed").expect("due");
    assert_eq!((first.claim.epoch().0, first.operation.attempt), (1, 1));
    assert_eq!(first.operation.state, OperationState::Running);
    assert_eq!((first.operation.owner.as_deref(), first.operation.lease_until), (Some("one"), Some(at(70))));
    assert_eq!(first.operation.started_at, Some(at(10)));
    assert_eq!(store.claim(&claim_as("two"), at(69)).await.expect("looked"), None, "the lease holds");

    let renewed = store.renew(&first.claim, 60, at(69)).await.expect("renewed");
    assert_eq!((renewed.lease_until, renewed.cancel_requested), (at(129), false));
    assert_eq!(store.claim(&claim_as("two"), at(128)).await.expect("looked"), None, "it was renewed");

    let second = store.claim(&claim_as("two"), at(129)).await.expect("claimed").expect("run out");
    assert_eq!((second.claim.epoch().0, second.operation.attempt), (2, 2));
    assert_eq!((second.operation.owner.as_deref(), second.operation.started_at), (Some("two"), Some(at(10))));
    let lost = store.renew(&first.claim, 60, at(130)).await;
    assert!(matches!(lost, Err(Error::LeaseLost { operation }) if operation == first.claim.operation()));
    store.renew(&second.claim, 60, at(500)).await.expect("late, but nobody came between");
}

pub(crate) async fn eight_workers_claim_each_operation_once(world: World) {
    const OPERATIONS: u128 = 40;
    for number in 0..OPERATIONS {
        queue(&world.store, &operation(number, OperationKind::Sweep, "p")).await;
    }
    let other = world.other().await;
    let barrier = Arc::new(Barrier::new(8));
    let workers = (0..8).map(|worker| {
        let store = if worker % 2 == 0 { world.store.clone() } else { other.clone() };
        let barrier = barrier.clone();
        tokio::spawn(async move {
            barrier.wait().await;
            claim_all(&store, &claim_as(&format!("worker {worker}")), 1).await
        })
    });
    let mut times: BTreeMap<u128, u32> = BTreeMap::new();
    for worker in workers.collect::<Vec<_>>() {
        for number in worker.await.expect("no panic") {
            *times.entry(number).or_default() += 1;
        }
    }
    let once: BTreeMap<u128, u32> = (0..OPERATIONS).map(|number| (number, 1)).collect();
    assert_eq!(times, once);
}

/// Two workers fight over one operation whose leases last no time at all. Whoever has just claimed it must find that
/// every earlier claim is dead: only the newest epoch can renew.
pub(crate) async fn two_workers_never_both_own_an_operation(world: World) {
    queue(&world.store, &operation(1, OperationKind::Sweep, "p")).await;
    let newest = Arc::new(AtomicI64::new(0));
    let other = world.other().await;
    let workers = [world.store.clone(), other].map(|store| {
        let newest = newest.clone();
        tokio::spawn(async move {
            let no_lease = ClaimOptions { lease_seconds: 0, ..claim_as("w") };
            let mut kept = 0;
            for second in 1..40 {
                let Some(claimed) = store.claim(&no_lease, at(second)).await.expect("claimed") else {
                    continue;
                };
                let epoch = i64::from(claimed.claim.epoch().0);
                newest.fetch_max(epoch, Ordering::SeqCst);
                let known = newest.load(Ordering::SeqCst);
                match store.renew(&claimed.claim, 0, at(second)).await {
                    // Had a later claim been answered before this renewal began, it had to fail.
                    Ok(_) => {
                        assert!(epoch >= known, "epoch {epoch} was renewed after {known} had been claimed");
                        kept += 1;
                    }
                    Err(Error::LeaseLost { .. }) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
            kept
        })
    });
    let mut kept = 0;
    for worker in workers {
        kept += worker.await.expect("no panic");
    }
    assert!(kept > 0, "somebody owned it at some time");
    let last = world.store.get_operation(OperationId(uuid(1))).await.expect("found");
    assert_eq!(i64::from(last.epoch.0), newest.load(Ordering::SeqCst));
}

/// One worker writes as fast as it can while another one takes its operation: what the second one reads right after its
/// claim is what stays.
pub(crate) async fn nothing_of_a_stale_worker_lands_behind_a_claim(world: World) {
    for round in 1..=10 {
        queue(&world.store, &operation(round, OperationKind::Sweep, "p")).await;
        let owned = world.store.claim(&claim_as("one"), at(0)).await.expect("claimed").expect("due");
        let step = NewStep { resource: ResourceKey::new("T", "x"), hook: "main".to_owned(), ordinal: 0 };
        world.store.save_steps(&owned.claim, &[step]).await.expect("saved");
        let (begun, seen) = tokio::sync::oneshot::channel();
        let taken = Arc::new(AtomicBool::new(false));
        let writer = tokio::spawn(write_until_lost(world.store.clone(), owned.claim, begun, taken.clone()));
        seen.await.expect("the writer writes");
        let successor = world.other().await;
        let claimed = successor.claim(&claim_as("two"), at(60)).await.expect("claimed").expect("run out");
        taken.store(true, Ordering::SeqCst);
        let right_after = successor.list_steps(claimed.operation.id, None, 1).await.expect("listed");
        let last_acknowledged = writer.await.expect("nothing was written behind the claim");
        let at_the_end = successor.list_steps(claimed.operation.id, None, 1).await.expect("listed");
        assert_eq!(right_after, at_the_end, "round {round}");
        assert_eq!(right_after[0].progress.bytes_done, last_acknowledged, "round {round}");
    }
}

async fn write_until_lost(
    store: Store,
    claim: Claim,
    begun: tokio::sync::oneshot::Sender<()>,
    taken: Arc<AtomicBool>,
) -> u64 {
    let mut begun = Some(begun);
    let mut written = 0;
    loop {
        let progress = Progress { bytes_done: written + 1, ..Progress::default() };
        let was_taken = taken.load(Ordering::SeqCst);
        match store.step_progress(&claim, 0, progress, at(1)).await {
            Ok(()) => written += 1,
            Err(Error::LeaseLost { .. }) => return written,
            Err(error) => panic!("{error:?}"),
        }
        assert!(!was_taken, "a write that began after the claim had been answered was done");
        if written == 5
            && let Some(begun) = begun.take()
        {
            let _ = begun.send(());
        }
    }
}
