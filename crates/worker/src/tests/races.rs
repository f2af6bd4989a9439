//! Two workers at once, stale ones, and those whose database does not answer.

use std::sync::Arc;
use std::time::Duration;

use karbor_types::{CheckpointState, Hook, OperationKind, OperationState};

use super::house::config;
use super::walks::house;
use crate::{CrashPoints, WorkerConfig};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_workers_share_the_work_and_do_everything_once() {
    let house = house().await;
    let workers = [house.worker(), house.worker()];
    let mut checkpoints = Vec::new();
    for _ in 0..8 {
        checkpoints.push(house.protect(&["app", "lone"]).await);
    }
    for checkpoint in &checkpoints {
        let operation = house.succeeded(*checkpoint).await;
        assert_eq!(operation.attempt, 1);
    }
    let calls = house.outside.calls_of(OperationKind::Protect);
    assert_eq!(calls.len(), 8 * 4 * 4, "each hook once for each checkpoint");
    for worker in workers {
        worker.end().await;
    }
    house.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_worker_that_was_overtaken_changes_nothing_more() {
    for hook in Hook::ALL {
        let house = house().await;
        house.outside.close_gate(OperationKind::Protect, *hook, "web");
        // The first worker does not look at its lease for as long as this test takes.
        let settings = WorkerConfig {
            lease_seconds: 600.try_into().unwrap(),
            poll_milliseconds: 600_000.try_into().unwrap(),
            ..config()
        };
        let stale = house.worker_with(settings, CrashPoints::default());
        let checkpoint = house.protect(&["app", "lone"]).await;
        stale.handle.wake();
        house.outside.at_gate.notified().await;
        for _ in 0..11 {
            house.pass_leases();
        }
        let worker = house.worker();
        let operation = house.succeeded(checkpoint).await;
        assert_eq!(operation.epoch.0, 2);
        let row = house.checkpoint(checkpoint).await;
        assert!(row.session.as_deref().unwrap().ends_with("-00000002"), "{hook}: {row:?}");
        let steps = house.store.list_steps(checkpoint.into(), None, 100).await.unwrap();
        // The stale one goes on, and finds out at its first write.
        house.outside.open.notify_one();
        let gone = async {
            while house.outside.lock().running > 0 {
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), gone).await.unwrap();
        stale.end().await;
        assert_eq!(house.checkpoint(checkpoint).await, row, "{hook}");
        assert_eq!(house.store.list_steps(checkpoint.into(), None, 100).await.unwrap(), steps, "{hook}");
        assert_eq!(house.store.get_operation(checkpoint.into()).await.unwrap(), operation, "{hook}");
        worker.end().await;
        // What the stale one made outside stands in the ledger of nobody: it was told that it may not.
        house.outside.lock().still.clear();
        house.outside.lock().snapshots.clear();
        house.assert_nothing_is_left().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_kept_as_long_as_the_work_takes() {
    let house = house().await;
    house.outside.close_gate(OperationKind::Protect, Hook::Main, "web");
    let settings = WorkerConfig { lease_seconds: 6.try_into().unwrap(), ..config() };
    let worker = house.worker_with(settings, CrashPoints::default());
    let checkpoint = house.protect(&["app"]).await;
    house.outside.at_gate.notified().await;
    let first = house.store.get_operation(checkpoint.into()).await.unwrap().lease_until;
    let renewed = house.until(checkpoint.into(), |operation| operation.lease_until > first).await;
    assert_eq!(renewed.epoch.0, 1);
    house.outside.open.notify_one();
    house.succeeded(checkpoint).await;
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_runs_at_once_than_is_allowed() {
    let house = house().await;
    for index in 0..20 {
        house.outside.add(&format!("t{index}"), &[]);
    }
    let settings = WorkerConfig {
        moving: 2.try_into().unwrap(),
        hooks: 3.try_into().unwrap(),
        concurrency: 1.try_into().unwrap(),
        ..config()
    };
    let worker = house.worker_with(settings, CrashPoints::default());
    let ids: Vec<String> = (0..20).map(|index| format!("t{index}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let checkpoint = house.protect(&ids).await;
    house.succeeded(checkpoint).await;
    let most = house.outside.lock().most_running;
    assert!(most <= 2 + 2 * 3, "{most} hooks ran at once");
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_project_does_not_keep_others_waiting() {
    let house = Arc::new(house().await);
    house.outside.close_gate(OperationKind::Protect, Hook::Main, "web");
    let settings = WorkerConfig { project_concurrency: 1.try_into().unwrap(), ..config() };
    let worker = house.worker_with(settings, CrashPoints::default());
    let first = house.protect(&["web"]).await;
    house.outside.at_gate.notified().await;
    let second = house.protect(&["lone"]).await;
    worker.handle.wake();
    let state = house.store.get_operation(second.into()).await.unwrap().state;
    assert_eq!(state, OperationState::Queued, "its project has its share");
    house.outside.open.notify_one();
    house.succeeded(first).await;
    house.succeeded(second).await;
    assert_eq!(house.checkpoint(second).await.state, CheckpointState::Available);
    worker.end().await;
}
