//! What happens when all goes well, and when somebody asks for the end.

use karbor_types::{CheckpointState, Hook, OperationKind, OperationState, RunState};
use serde_json::json;

use super::house::{House, NOTHING, status};
use super::outside::{How, resource};

/// A parent with two children and one that stands alone.
pub(super) async fn house() -> House {
    let house = House::new().await;
    house.outside.add("app", &["web", "db"]);
    for id in ["web", "db", "lone"] {
        house.outside.add(id, &[]);
    }
    house
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_protected_can_be_verified_restored_and_deleted() {
    let house = house().await;
    let worker = house.worker();
    let checkpoint = house.protect(&["app", "lone"]).await;
    let operation = house.succeeded(checkpoint).await;
    for id in ["app", "web", "db", "lone"] {
        assert_eq!(status(&operation, id), "done");
    }
    assert!(
        operation.result["short_phase"]["milliseconds"].is_u64(),
        "{:?}",
        operation.result["short_phase"]
    );
    let row = house.checkpoint(checkpoint).await;
    assert_eq!(row.state, CheckpointState::Available);
    assert_eq!(row.graph.unwrap().0.len(), 4);
    assert_eq!(row.stats.unwrap().logical_bytes, 4 * 300_000);
    assert!(row.committed_at.is_some() && row.session.is_some());
    house.outside.assert_tidy();

    let (verification, operation) = house.verify(checkpoint).await;
    house.succeeded(operation).await;
    let verification = house.store.get_verification(verification).await.unwrap();
    assert_eq!(verification.state, RunState::Success);
    assert_eq!(verification.resources_status["Test::Thing#web"], "available");

    let plan = house.rehearse(checkpoint).await;
    let plan = house.succeeded(plan).await.result["plan"].clone();
    assert_eq!(plan.as_array().unwrap().len(), 4);
    assert!(plan[0]["actions"][0]["effect"] == "create" && plan[0]["problems"] == json!([]));
    assert!(house.outside.lock().restored.is_empty(), "a rehearsal changes nothing");
    for (room, problems) in [(4, 0), (3, 1)] {
        house.outside.lock().room = Some(room);
        let plan = house.rehearse(checkpoint).await;
        let plan = house.succeeded(plan).await.result["plan"].clone();
        for resource in plan.as_array().unwrap() {
            let told = resource["problems"].as_array().unwrap();
            assert_eq!(told.len(), problems, "room for {room}: {told:?}");
            assert!(
                told.iter()
                    .all(|text| text.as_str().unwrap().contains("needs 4 things, and the quota leaves 3"))
            );
        }
    }

    let (restore, operation) = house.restore(checkpoint).await;
    let operation = house.succeeded(operation).await;
    let things = |id: &str| {
        let things = house.outside.lock();
        let new = format!("{id}-{}", &operation.id.to_string()[..8]);
        (things.restored[&new].clone(), things.bytes[id].clone())
    };
    for id in ["app", "web", "db", "lone"] {
        let (restored, original) = things(id);
        assert!(restored == original, "{id} differs");
    }
    let restore = house.store.get_restore(restore).await.unwrap();
    assert_eq!(restore.state, RunState::Success);
    let resources = operation.result["resources"].as_array().unwrap();
    let web = resources.iter().find(|row| row["id"] == "web").unwrap();
    assert_eq!(web["mapped"][0]["from"], json!({"type": "Test::Part", "id": "part of web"}));
    let new_web = format!("Test::Thing#web-{}", &operation.id.to_string()[..8]);
    assert_eq!(restore.resources_status[&new_web], "available");
    worker.end().await;
    house.assert_nothing_is_left().await;
    assert_eq!(house.checkpoint(checkpoint).await.state, CheckpointState::Deleted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_run_in_their_order() {
    let house = house().await;
    let worker = house.worker();
    let checkpoint = house.protect(&["app"]).await;
    house.succeeded(checkpoint).await;
    let calls = house.outside.calls_of(OperationKind::Protect);
    let at = |hook, id: &str| calls.iter().position(|call| *call == (hook, id.to_owned())).unwrap();
    for child in ["web", "db"] {
        assert!(at(Hook::PrepareBegin, "app") < at(Hook::PrepareBegin, child));
        assert!(at(Hook::PrepareFinish, child) < at(Hook::PrepareFinish, "app"));
        assert!(at(Hook::Complete, child) < at(Hook::Complete, "app"));
    }
    assert_eq!(calls.len(), 12, "each hook of each resource once");
    let (_, restore) = house.restore(checkpoint).await;
    house.succeeded(restore).await;
    let calls = house.outside.calls_of(OperationKind::Restore);
    let at = |hook, id: &str| calls.iter().position(|call| *call == (hook, id.to_owned())).unwrap();
    assert!(at(Hook::Complete, "web") < at(Hook::Main, "app"));
    assert!(at(Hook::Complete, "db") < at(Hook::Main, "app"));
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resource_without_hooks_is_done() {
    let house = House::new().await;
    let worker = house.worker();
    let mut nothing = resource("7");
    nothing.key.kind = NOTHING.into();
    let checkpoint = house.protect_resources(vec![nothing]).await;
    let operation = house.succeeded(checkpoint).await;
    assert_eq!(operation.result["resources"][0]["status"], "done");
    worker.end().await;
    house.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_that_is_cancelled_before_it_began_changes_nothing() {
    let house = house().await;
    let checkpoint = house.protect(&["app"]).await;
    house.store.request_cancel(checkpoint.into(), house.now()).await.unwrap();
    let worker = house.worker();
    let operation = house.ended(checkpoint).await;
    assert_eq!(operation.state, OperationState::Cancelled);
    assert_eq!(operation.reason.as_deref(), Some("cancelled"));
    let row = house.checkpoint(checkpoint).await;
    assert_eq!((row.state, row.reason.as_deref()), (CheckpointState::Error, Some("cancelled")));
    assert!(house.outside.calls_of(OperationKind::Protect).is_empty());
    worker.end().await;
    house.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_protect_can_be_cancelled_in_each_hook() {
    for hook in Hook::ALL {
        for id in ["app", "web"] {
            let house = house().await;
            house.outside.close_gate(OperationKind::Protect, *hook, id);
            let worker = house.worker();
            let checkpoint = house.protect(&["app"]).await;
            house.outside.at_gate.notified().await;
            house.store.request_cancel(checkpoint.into(), house.now()).await.unwrap();
            worker.handle.wake();
            if *hook == Hook::PrepareFinish {
                // What lets go is not stopped.
                let id = checkpoint.into();
                house.until(id, |operation| operation.cancel_requested).await;
                house.outside.open.notify_one();
            }
            let operation = house.ended(checkpoint).await;
            assert_eq!(operation.state, OperationState::Cancelled, "{hook} of {id}: {operation:#?}");
            assert_eq!(house.checkpoint(checkpoint).await.state, CheckpointState::Error);
            house.outside.assert_tidy();
            assert!(house.outside.lock().copies.is_empty(), "{hook} of {id}: a copy is left");
            worker.end().await;
            house.assert_nothing_is_left().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_can_be_cancelled() {
    let house = house().await;
    let worker = house.worker();
    let checkpoint = house.protect(&["app"]).await;
    house.succeeded(checkpoint).await;
    house.outside.close_gate(OperationKind::Restore, Hook::Main, "web");
    let (restore, operation) = house.restore(checkpoint).await;
    house.outside.at_gate.notified().await;
    house.store.request_cancel(operation, house.now()).await.unwrap();
    let operation = house.ended(operation).await;
    assert_eq!(operation.state, OperationState::Cancelled);
    let restore = house.store.get_restore(restore).await.unwrap();
    assert_eq!(restore.state, RunState::Fail);
    assert_eq!(restore.resources_status["Test::Thing#web"], "error");
    assert_eq!(restore.resources_reason["Test::Thing#web"], "cancelled");
    worker.end().await;
    house.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_ends_gives_its_work_back_and_the_next_goes_on() {
    for hook in Hook::ALL {
        let house = house().await;
        house.outside.close_gate(OperationKind::Protect, *hook, "web");
        let worker = house.worker();
        let checkpoint = house.protect(&["app"]).await;
        house.outside.at_gate.notified().await;
        worker.end().await;
        let operation = house.store.get_operation(checkpoint.into()).await.unwrap();
        assert_eq!(operation.state, OperationState::Queued, "given back at {hook}");
        assert_eq!(operation.attempt, 0, "and that does not count");
        let worker = house.worker();
        house.succeeded(checkpoint).await;
        worker.end().await;
        let calls = house.outside.calls_of(OperationKind::Protect);
        let of_hook = calls.iter().filter(|call| **call == (*hook, "web".to_owned())).count();
        assert_eq!(of_hook, 2, "{hook} was begun again");
        if *hook == Hook::Complete {
            let mains = calls.iter().filter(|call| **call == (Hook::Main, "web".to_owned())).count();
            assert_eq!(mains, 1, "what was done was not done again");
        }
        house.assert_nothing_is_left().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_can_be_read_while_an_operation_runs() {
    let house = house().await;
    house.outside.close_gate(OperationKind::Protect, Hook::Main, "db");
    let worker = house.worker();
    let checkpoint = house.protect(&["app"]).await;
    house.outside.at_gate.notified().await;
    let seen = async {
        loop {
            let progress = house.store.operation_progress(checkpoint.into()).await.unwrap();
            // Both others have moved their bytes; the one at the gate has been begun.
            if progress.bytes.bytes_done >= 600_000 && progress.running >= 1 {
                return progress;
            }
            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        }
    };
    let progress = tokio::time::timeout(std::time::Duration::from_secs(30), seen).await.expect("progress");
    assert!(progress.done >= 6, "{progress:?}");
    house.outside.open.notify_one();
    house.succeeded(checkpoint).await;
    let progress = house.store.operation_progress(checkpoint.into()).await.unwrap();
    assert_eq!((progress.done, progress.bytes.bytes_done), (12, 900_000));
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_delete_can_be_asked_for_again() {
    let house = house().await;
    let worker = house.worker();
    let checkpoint = house.protect(&["app"]).await;
    house.succeeded(checkpoint).await;
    let denied = How::Before(karbor_plugin::ErrorKind::Denied);
    house.outside.fail_times(OperationKind::Delete, Hook::Main, "db", denied, 1);
    let first = house.delete(checkpoint).await;
    let operation = house.ended(first).await;
    assert_eq!(operation.state, OperationState::Failed);
    assert!(operation.reason.as_deref().unwrap().contains("Test::Thing#db: main: denied"), "{operation:?}");
    assert_eq!(house.checkpoint(checkpoint).await.state, CheckpointState::ErrorDeleting);
    assert_eq!(house.outside.lock().copies.len(), 1, "the others are gone");
    assert!(house.account().await.find(checkpoint).await.unwrap().is_none(), "and so is the commit record");

    let second = house.delete(checkpoint).await;
    house.succeeded(second).await;
    assert_eq!(house.checkpoint(checkpoint).await.state, CheckpointState::Deleted);
    let calls = house.outside.calls_of(OperationKind::Delete);
    assert_eq!(calls.len(), 4, "only the one that failed is run again: {calls:?}");
    worker.end().await;
    house.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unchanged_bytes_are_not_stored_twice() {
    let house = house().await;
    let worker = house.worker();
    let first = house.protect(&["app"]).await;
    house.succeeded(first).await;
    let second = house.protect(&["app"]).await;
    house.succeeded(second).await;
    let first = house.checkpoint(first).await.stats.unwrap();
    let second = house.checkpoint(second).await.stats.unwrap();
    assert_eq!(second.logical_bytes, first.logical_bytes);
    assert!(second.new_bytes * 10 < first.new_bytes, "{first:?} {second:?}");
    worker.end().await;
}
