//! A worker dies at each named place, a new one takes over, and it ends as if nothing had happened.

use std::time::Duration;

use karbor_types::{CheckpointState, OperationId, OperationKind, OperationState, RunState};

use super::house::{AtWork, House};
use super::outside::How;
use super::walks::house;
use crate::CRASH_POINTS;

/// Kills a worker at a place, lets the leases pass, and starts another one.
async fn crash(house: &House, place: &str) -> AtWork {
    let (worker, there) = house.doomed_worker(place);
    let reached = tokio::time::timeout(Duration::from_secs(30), there.notified()).await;
    assert!(reached.is_ok(), "{place} is never reached");
    bury(house, worker).await;
    house.worker()
}

/// Lets nothing of a worker go on, and its leases pass.
async fn bury(house: &House, worker: AtWork) {
    house.banks.forget();
    worker.kill().await;
    house.pass_leases();
}

fn places(kind: OperationKind, but: &[&str]) -> Vec<&'static str> {
    let of_kind = CRASH_POINTS.iter().filter(|place| place.starts_with(&format!("{kind}.")));
    of_kind.filter(|place| !but.iter().any(|but| place.ends_with(but))).copied().collect()
}

/// The same bytes as at the time of protect can be restored.
async fn assert_restores(house: &House, checkpoint: karbor_types::CheckpointId, ids: &[&str]) {
    let (_, operation) = house.restore(checkpoint).await;
    house.succeeded(operation).await;
    assert_restored(house, operation, ids);
}

fn assert_restored(house: &House, operation: OperationId, ids: &[&str]) {
    let things = house.outside.lock();
    for id in ids {
        let new = format!("{id}-{}", &operation.to_string()[..8]);
        assert!(things.restored.get(&new) == things.bytes.get(*id), "{id} differs");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protect_survives_a_crash_at_every_place() {
    for place in places(OperationKind::Protect, &["abandoned"]) {
        // The first time and, where it comes again, later times.
        for nth in ["", "*2", "*4"] {
            let repeated = ["hook_done", "step_recorded"].iter().any(|p| place.ends_with(p));
            if !nth.is_empty() && !repeated {
                continue;
            }
            let house = house().await;
            let checkpoint = house.protect(&["app", "lone"]).await;
            let worker = crash(&house, &format!("{place}{nth}")).await;
            let operation = house.succeeded(checkpoint).await;
            assert!(operation.attempt <= 2, "{place}{nth}: {operation:?}");
            assert_eq!(house.checkpoint(checkpoint).await.state, CheckpointState::Available, "{place}{nth}");
            house.outside.assert_tidy();
            assert_restores(&house, checkpoint, &["app", "web", "db", "lone"]).await;
            worker.end().await;
            house.assert_nothing_is_left().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_protect_survives_a_crash_at_every_place() {
    for place in places(OperationKind::Protect, &["committed"]) {
        let house = house().await;
        let denied = How::Before(karbor_plugin::ErrorKind::Denied);
        house.outside.fail(OperationKind::Protect, karbor_types::Hook::Complete, "web", denied);
        let checkpoint = house.protect(&["app", "lone"]).await;
        let worker = crash(&house, place).await;
        let operation = house.ended(checkpoint).await;
        assert_eq!(operation.state, OperationState::Failed, "{place}");
        assert_eq!(house.checkpoint(checkpoint).await.state, CheckpointState::Error, "{place}");
        house.outside.assert_tidy();
        assert!(house.outside.lock().copies.is_empty(), "{place}: a copy is left");
        worker.end().await;
        house.outside.lock().faults.clear();
        house.assert_nothing_is_left().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_protect_survives_a_crash_at_every_place() {
    for place in places(OperationKind::Protect, &["committed", "flushed", "finished", "claimed"]) {
        let house = house().await;
        let checkpoint = house.protect(&["app"]).await;
        let (worker, there) = house.doomed_worker(place);
        // Of some places it is not sure whether a cancelled one comes there.
        let reached = tokio::time::timeout(Duration::from_secs(30), async {
            tokio::select! {
                () = there.notified() => {}
                _ = house.ended(checkpoint) => {}
            }
        });
        if place.ends_with("abandoned") {
            house.until(checkpoint.into(), |operation| operation.started_at.is_some()).await;
            house.store.request_cancel(checkpoint.into(), house.now()).await.ok();
        }
        reached.await.expect("it gets there or ends");
        bury(&house, worker).await;
        let _ = house.store.request_cancel(checkpoint.into(), house.now()).await;
        let worker = house.worker();
        let operation = house.ended(checkpoint).await;
        let state = house.checkpoint(checkpoint).await.state;
        let consistent = match operation.state {
            OperationState::Cancelled => state == CheckpointState::Error,
            OperationState::Succeeded => state == CheckpointState::Available,
            _ => false,
        };
        assert!(consistent, "{place}: {operation:#?} {state}");
        house.outside.assert_tidy();
        worker.end().await;
        house.assert_nothing_is_left().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restore_survives_a_crash_at_every_place() {
    for place in places(OperationKind::Restore, &[]) {
        let house = house().await;
        let worker = house.worker();
        let checkpoint = house.protect(&["app", "lone"]).await;
        house.succeeded(checkpoint).await;
        worker.end().await;
        let (restore, operation) = house.restore(checkpoint).await;
        let worker = crash(&house, place).await;
        house.succeeded(operation).await;
        assert_eq!(house.store.get_restore(restore).await.unwrap().state, RunState::Success, "{place}");
        assert_restored(&house, operation, &["app", "web", "db", "lone"]);
        assert_eq!(house.outside.lock().restored.len(), 4, "{place}: one of each");
        worker.end().await;
        house.assert_nothing_is_left().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_survives_a_crash_at_every_place() {
    for place in places(OperationKind::Verify, &[]) {
        let house = house().await;
        let worker = house.worker();
        let checkpoint = house.protect(&["app"]).await;
        house.succeeded(checkpoint).await;
        worker.end().await;
        let (verification, operation) = house.verify(checkpoint).await;
        let worker = crash(&house, place).await;
        house.succeeded(operation).await;
        let verification = house.store.get_verification(verification).await.unwrap();
        assert_eq!(verification.state, RunState::Success, "{place}");
        worker.end().await;
        house.assert_nothing_is_left().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_survives_a_crash_at_every_place() {
    for place in places(OperationKind::Delete, &[]) {
        let house = house().await;
        let worker = house.worker();
        let checkpoint = house.protect(&["app", "lone"]).await;
        house.succeeded(checkpoint).await;
        worker.end().await;
        let delete = house.delete(checkpoint).await;
        let worker = crash(&house, place).await;
        house.succeeded(delete).await;
        assert_eq!(house.checkpoint(checkpoint).await.state, CheckpointState::Deleted, "{place}");
        assert!(house.outside.lock().copies.is_empty(), "{place}: a copy is left");
        worker.end().await;
        house.assert_nothing_is_left().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sweep_survives_a_crash_at_every_place() {
    for place in places(OperationKind::Sweep, &["sweep_queued"]) {
        let house = house().await;
        let worker = house.worker();
        let kept = house.protect(&["web"]).await;
        house.succeeded(kept).await;
        let gone = house.protect(&["app", "lone"]).await;
        house.succeeded(gone).await;
        worker.end().await;
        let delete = house.delete(gone).await;
        let (worker, there) = house.doomed_worker(place);
        // The deletion queues the sweep.
        house.succeeded(delete).await;
        tokio::time::timeout(Duration::from_secs(30), there.notified()).await.expect(place);
        bury(&house, worker).await;
        let worker = house.worker();
        let sweep = house.sweep().await;
        house.succeeded(sweep).await;
        assert_restores(&house, kept, &["web"]).await;
        worker.end().await;
        house.assert_nothing_is_left().await;
    }
}

/// What is done while the process dies at one call of the bank after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Under {
    Protect,
    Restore,
    Verify,
    Delete,
    Sweep,
}

/// Lets the process die at every moment that the bank sees of one operation, before each call and after it.
async fn die_at_every_call(under: Under) {
    for moments in 1.. {
        let house = house().await;
        let checkpoint = before(&house, under).await;
        let operation = match (under, checkpoint) {
            (Under::Restore, Some(checkpoint)) => house.restore(checkpoint).await.1,
            (Under::Verify, Some(checkpoint)) => house.verify(checkpoint).await.1,
            (Under::Delete, Some(checkpoint)) => house.delete(checkpoint).await,
            (Under::Sweep, _) => house.sweep().await,
            _ => house.protect(&["web"]).await.into(),
        };
        let process = house.banks.die_after(moments);
        let worker = house.worker();
        tokio::select! {
            () = process.died.notified() => {}
            _ = house.ended(operation) => {}
        }
        house.banks.live();
        // It may also have died of a call that came after the operation's end.
        let died = process.is_dead();
        let worker = if died {
            bury(&house, worker).await;
            house.worker()
        } else {
            worker
        };
        let row = house.succeeded(operation).await;
        if under == Under::Protect {
            assert_restores(&house, row.checkpoint.unwrap(), &["web"]).await;
        }
        worker.end().await;
        house.assert_nothing_is_left().await;
        if !died {
            assert!(moments > 10, "{under:?} made only {moments} calls");
            return;
        }
    }
}

/// Makes what an operation is about.
async fn before(house: &House, under: Under) -> Option<karbor_types::CheckpointId> {
    if under == Under::Protect {
        house.account().await;
        return None;
    }
    let worker = house.worker();
    // The second stands on the first, which stays.
    let base = house.protect(&["web"]).await;
    house.succeeded(base).await;
    let checkpoint = house.protect(&["web", "lone"]).await;
    house.succeeded(checkpoint).await;
    if under == Under::Sweep {
        let denied = How::Before(karbor_plugin::ErrorKind::Denied);
        house.outside.fail_times(OperationKind::Protect, karbor_types::Hook::Complete, "db", denied, 1);
        let failed = house.protect(&["db"]).await;
        house.ended(failed).await;
    }
    worker.end().await;
    Some(checkpoint)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protect_survives_a_crash_at_every_call_of_the_bank() {
    die_at_every_call(Under::Protect).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restore_survives_a_crash_at_every_call_of_the_bank() {
    die_at_every_call(Under::Restore).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_survives_a_crash_at_every_call_of_the_bank() {
    die_at_every_call(Under::Verify).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_survives_a_crash_at_every_call_of_the_bank() {
    die_at_every_call(Under::Delete).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sweep_survives_a_crash_at_every_call_of_the_bank() {
    die_at_every_call(Under::Sweep).await;
}
