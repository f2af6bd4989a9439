//! Each call of a plugin fails in each way, and so does the bank: nothing is `available` that is not whole.

use std::sync::Arc;

use karbor_bank::wrap::{Fault, Operation, Rule};
use karbor_plugin::ErrorKind;
use karbor_store::Reopening;
use karbor_types::{CheckpointState, Hook, OperationKind, OperationState, RunState};

use super::house::{House, NOTHING, config, status};
use super::outside::{How, resource};
use super::walks::house;
use crate::{CrashPoints, WorkerConfig};

/// The checkpoint is an error with its reason, and nothing of it can be read.
async fn assert_failed(house: &House, checkpoint: karbor_types::CheckpointId, what: &str) {
    let operation = house.ended(checkpoint).await;
    assert_eq!(operation.state, OperationState::Failed, "{what}: {operation:#?}");
    let reason = operation.reason.unwrap_or_default();
    assert!(!reason.is_empty(), "{what}: no reason");
    let row = house.checkpoint(checkpoint).await;
    assert_eq!(row.state, CheckpointState::Error, "{what}");
    assert_eq!(row.reason.as_deref(), Some(reason.as_str()), "{what}");
    house.bank.heal();
    assert!(house.account().await.find(checkpoint).await.unwrap().is_none(), "{what}: a commit record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_failure_of_a_plugin_leads_to_an_available_checkpoint() {
    let kinds = [
        ErrorKind::NotFound,
        ErrorKind::Denied,
        ErrorKind::Unavailable,
        ErrorKind::Changed,
        ErrorKind::NoSpace,
        ErrorKind::Cancelled,
        ErrorKind::Other,
    ];
    let ways = kinds.into_iter().flat_map(|kind| [How::Before(kind), How::After(kind)]);
    let ways: Vec<How> = ways.chain([How::Panic, How::Finding]).collect();
    for hook in Hook::ALL {
        let house = house().await;
        let worker = house.worker();
        for how in &ways {
            let what = format!("{hook} {how:?}");
            house.outside.lock().faults.clear();
            house.outside.fail(OperationKind::Protect, *hook, "web", *how);
            let checkpoint = house.protect(&["app", "lone"]).await;
            assert_failed(&house, checkpoint, &what).await;
            let operation = house.ended(checkpoint).await;
            assert_eq!(status(&operation, "web"), "failed", "{what}: {}", operation.result);
            let reason = operation.reason.unwrap();
            let start = format!("Test::Thing#web: {hook}: ");
            assert!(reason.starts_with(&start), "{what}: {reason}");
            house.outside.assert_tidy();
            assert!(house.outside.lock().copies.is_empty(), "{what}: a copy is left");
        }
        worker.end().await;
        house.outside.lock().faults.clear();
        house.assert_nothing_is_left().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_breaks_off_fails_its_resource() {
    let house = house().await;
    let worker = house.worker();
    house.outside.fail(OperationKind::Protect, Hook::Main, "db", How::Short);
    let checkpoint = house.protect(&["app"]).await;
    assert_failed(&house, checkpoint, "short").await;
    worker.end().await;
    house.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_for_the_moment_is_tried_again() {
    for hook in Hook::ALL {
        for how in [How::Before(ErrorKind::Unavailable), How::After(ErrorKind::Changed)] {
            let house = house().await;
            let worker = house.worker();
            house.outside.fail_times(OperationKind::Protect, *hook, "web", how, 2);
            let checkpoint = house.protect(&["app"]).await;
            house.succeeded(checkpoint).await;
            let steps = house.store.list_steps(checkpoint.into(), None, 100).await.unwrap();
            let step = steps.iter().find(|step| step.resource.id == "web" && step.hook == hook.as_str());
            assert_eq!(step.unwrap().attempts, 3, "{hook} {how:?}");
            worker.end().await;
            house.assert_nothing_is_left().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_in_trouble_never_holds_half_an_available_checkpoint() {
    let faults = [
        Rule::new(Fault::FULL).on(Operation::Put).containing("/packs/"),
        Rule::new(Fault::FULL).on(Operation::Put).containing("/index/"),
        Rule::new(Fault::FULL).on(Operation::Put).containing("/commits/").times(1),
        Rule::new(Fault::Refuse(karbor_bank::ErrorKind::Denied)).on(Operation::Put).containing("/packs/"),
        Rule::new(Fault::Refuse(karbor_bank::ErrorKind::Unavailable))
            .on(Operation::Put)
            .containing("/packs/"),
    ];
    for rule in faults {
        let house = house().await;
        let worker = house.worker();
        house.account().await;
        let what = format!("{rule:?}");
        house.bank.add(rule);
        let checkpoint = house.protect(&["app", "lone"]).await;
        assert_failed(&house, checkpoint, &what).await;
        assert!(!house.bank.fired().is_empty(), "{what}: it never happened");
        worker.end().await;
        house.assert_nothing_is_left().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_reply_is_found_out() {
    for area in ["/sessions/", "/packs/", "/index/", "/commits/"] {
        let house = house().await;
        let worker = house.worker();
        house.account().await;
        house.bank.add(Rule::new(Fault::LoseReply).on(Operation::Put).containing(area).times(1));
        let checkpoint = house.protect(&["app"]).await;
        let operation = house.ended(checkpoint).await;
        assert_eq!(house.bank.fired().len(), 1, "{area}");
        let row = house.checkpoint(checkpoint).await;
        let stands = house.account().await.find(checkpoint).await.unwrap().is_some();
        // Whether it goes through or fails, the row says what the bank holds.
        assert_eq!(row.state == CheckpointState::Available, stands, "{area}: {operation:#?}");
        assert_eq!(operation.state == OperationState::Succeeded, stands, "{area}");
        worker.end().await;
        house.assert_nothing_is_left().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_out_of_reach_is_waited_for_and_then_given_up() {
    let house = house().await;
    *house.banks.trouble.lock().unwrap() = Some(ErrorKind::Unavailable);
    let settings = WorkerConfig { operation_attempts: 3.try_into().unwrap(), ..config() };
    let worker = house.worker_with(settings, CrashPoints::default());
    let checkpoint = house.protect(&["app"]).await;
    let operation = house.ended(checkpoint).await;
    assert_eq!((operation.state, operation.attempt), (OperationState::Failed, 3));
    assert_eq!(operation.reason.as_deref(), Some("the bank is out, on purpose"));
    assert_eq!(house.checkpoint(checkpoint).await.state, CheckpointState::Error);

    let second = house.protect(&["app"]).await;
    house.until(second.into(), |operation| operation.attempt >= 1).await;
    *house.banks.trouble.lock().unwrap() = None;
    house.succeeded(second).await;
    worker.end().await;
    house.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_fails_with_its_reason() {
    let house = house().await;
    let worker = house.worker();
    let mut unknown = resource("web");
    unknown.key.kind = "Test::Unknown".into();
    let cases = [
        (vec![resource("gone")], "Test::Thing#gone: there is no thing gone"),
        (vec![unknown], "there is no protectable type Test::Unknown"),
        (vec![], "the plan has no resources"),
    ];
    for (resources, text) in cases {
        let checkpoint = house.protect_resources(resources).await;
        let operation = house.ended(checkpoint).await;
        assert_eq!(operation.state, OperationState::Failed);
        let reason = operation.reason.unwrap();
        assert!(reason.starts_with(text), "{reason}");
    }
    house.outside.add("snake", &["snake"]);
    let checkpoint = house.protect(&["snake"]).await;
    let reason = house.ended(checkpoint).await.reason.unwrap();
    assert!(reason.contains("Test::Thing#snake → Test::Thing#snake"), "{reason}");
    worker.end().await;
    house.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_takes_along_only_what_depends_on_what_failed() {
    let house = house().await;
    let worker = house.worker();
    let checkpoint = house.protect(&["app", "lone"]).await;
    house.succeeded(checkpoint).await;
    house.outside.fail(OperationKind::Restore, Hook::Main, "db", How::Before(ErrorKind::Conflict));
    let (restore, operation) = house.restore(checkpoint).await;
    let operation = house.ended(operation).await;
    assert_eq!(operation.state, OperationState::Failed);
    assert_eq!(operation.reason.as_deref(), Some("Test::Thing#db: main: conflict on purpose"));
    let statuses = ["db", "app", "web", "lone"].map(|id| status(&operation, id));
    assert_eq!(statuses, ["failed", "skipped", "done", "done"]);
    let restore = house.store.get_restore(restore).await.unwrap();
    assert_eq!(restore.state, RunState::Fail);
    assert_eq!(restore.resources_status["Test::Thing#app"], "error");
    let why = &restore.resources_reason["Test::Thing#app"];
    assert_eq!(why, "Test::Thing#db failed, which this resource depends on");
    assert_eq!(house.outside.lock().restored.len(), 2);
    worker.end().await;
    house.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_told_by_a_verification_and_fails_a_restore() {
    let house = house().await;
    let worker = house.worker();
    let checkpoint = house.protect(&["lone", "web"]).await;
    house.succeeded(checkpoint).await;
    worker.end().await;
    house.banks.forget();
    house.bank.add(Rule::new(Fault::Flip).on(Operation::Get).containing("/packs/"));
    let worker = house.worker();
    let (verification, operation) = house.verify(checkpoint).await;
    let operation = house.ended(operation).await;
    assert_eq!(operation.state, OperationState::Failed, "{operation:#?}");
    let verification = house.store.get_verification(verification).await.unwrap();
    assert_eq!(verification.state, RunState::Fail, "{verification:#?}");
    let (restore, operation) = house.restore(checkpoint).await;
    house.ended(operation).await;
    assert_eq!(house.store.get_restore(restore).await.unwrap().state, RunState::Fail);
    assert!(house.outside.lock().restored.is_empty(), "nothing wrong was restored");
    worker.end().await;
    house.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_test_fails_where_the_restore_would_and_changes_nothing() {
    let house = house().await;
    let worker = house.worker();
    let checkpoint = house.protect(&["app", "lone"]).await;
    house.succeeded(checkpoint).await;
    let operation = house.test_restore(checkpoint).await;
    let operation = house.succeeded(operation).await;
    assert_eq!(operation.result["plan"].as_array().map(Vec::len), Some(4), "{operation:#?}");

    house.outside.fail(OperationKind::Restore, Hook::Main, "db", How::Before(ErrorKind::Conflict));
    let rehearsed = house.rehearse(checkpoint).await;
    house.succeeded(rehearsed).await;
    let operation = house.test_restore(checkpoint).await;
    let operation = house.ended(operation).await;
    assert_eq!(operation.state, OperationState::Failed);
    // What depends on it could not be restored either.
    let reason = "Test::Thing#db: it could not be restored now: conflict on purpose; its result has 2 more";
    assert_eq!(operation.reason.as_deref(), Some(reason));
    assert_eq!(operation.result["failure"], "conflict");
    worker.end().await;

    // What a dry run does not see: a byte that cannot be read.
    house.outside.lock().faults.clear();
    house.banks.forget();
    house.bank.add(Rule::new(Fault::Flip).on(Operation::Get).containing("/packs/"));
    let worker = house.worker();
    let rehearsed = house.rehearse(checkpoint).await;
    house.succeeded(rehearsed).await;
    let operation = house.test_restore(checkpoint).await;
    let operation = house.ended(operation).await;
    assert_eq!(operation.result["failure"], "damaged", "{operation:#?}");
    assert!(house.outside.lock().restored.is_empty(), "nothing was restored");
    worker.end().await;
    house.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_cleaned_up_is_told() {
    let house = house().await;
    let settings = WorkerConfig { operation_attempts: 2.try_into().unwrap(), ..config() };
    let worker = house.worker_with(settings, CrashPoints::default());
    house.outside.fail(OperationKind::Protect, Hook::Complete, "web", How::Before(ErrorKind::Other));
    house.outside.lock().unclean = usize::MAX;
    let checkpoint = house.protect(&["web"]).await;
    let operation = house.ended(checkpoint).await;
    assert_eq!(operation.attempt, 2, "it was put off once");
    let findings = operation.result["resources"][0]["findings"].to_string();
    assert!(findings.contains("left behind"), "{findings}");
    let open = house.store.list_ledger(checkpoint.into()).await.unwrap();
    assert!(
        open.iter().any(|entry| entry.state != karbor_store::LedgerState::Removed),
        "it stays in the ledger"
    );
    // Undone once that is possible again.
    house.outside.lock().unclean = 1;
    let undone = house.undo(checkpoint.into()).await;
    assert_eq!(undone.state, OperationState::Cancelled);
    assert!(undone.reason.unwrap().contains("undone"));
    assert_eq!(house.checkpoint(checkpoint).await.state, CheckpointState::Error);
    worker.end().await;
    house.outside.assert_tidy();
    house.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_cleaned_up_now_is_cleaned_up_later() {
    let house = house().await;
    let worker = house.worker();
    house.outside.lock().unclean = 4;
    house.outside.fail(OperationKind::Protect, Hook::Complete, "web", How::Before(ErrorKind::Other));
    let checkpoint = house.protect(&["web"]).await;
    let operation = house.ended(checkpoint).await;
    assert_eq!(operation.state, OperationState::Failed);
    assert!(operation.attempt > 1, "it was put off");
    let told = operation.result["resources"].to_string();
    assert!(!told.contains("left behind"), "{told}");
    worker.end().await;
    house.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_failed_is_resumed_or_undone() {
    let house = house().await;
    let worker = house.worker();
    let checkpoint = house.protect(&["app", "lone"]).await;
    house.succeeded(checkpoint).await;
    house.outside.fail_times(OperationKind::Restore, Hook::Main, "web", How::Before(ErrorKind::Denied), 3);
    let (restore, operation) = house.restore(checkpoint).await;
    house.ended(operation).await;
    assert_eq!(house.outside.lock().restored.len(), 2, "two do not depend on what failed");
    let undone = house.undo(operation).await;
    assert_eq!(undone.state, OperationState::Cancelled);
    assert!(house.outside.lock().restored.is_empty(), "nothing is left of it");
    assert_eq!(house.store.get_restore(restore).await.unwrap().state, RunState::Fail);

    house.outside.lock().calls.clear();
    let (restore, operation) = house.restore(checkpoint).await;
    let failed = house.ended(operation).await;
    let fared = ["web", "app", "db", "lone"].map(|id| status(&failed, id));
    assert_eq!(fared, ["failed", "skipped", "done", "done"]);
    let calls = |id: &str| {
        let things = house.outside.lock();
        let main = |call: &&(OperationKind, Hook, String)| {
            call.0 == OperationKind::Restore && call.1 == Hook::Main && call.2 == id
        };
        things.calls.iter().filter(main).count()
    };

    // It fails once more, and then goes through; what was restored is left alone.
    let again = house.resume(operation).await;
    assert_eq!((again.state, status(&again, "web").as_str()), (OperationState::Failed, "failed"));
    assert_eq!(house.store.get_restore(restore).await.unwrap().state, RunState::Fail);
    let again = house.resume(operation).await;
    assert_eq!(again.state, OperationState::Succeeded, "{:?}", again.reason);
    for id in ["app", "web", "db", "lone"] {
        assert_eq!(status(&again, id), "done");
    }
    assert_eq!((calls("web"), calls("db"), calls("lone"), calls("app")), (3, 1, 1, 1));
    let row = house.store.get_restore(restore).await.unwrap();
    assert_eq!((row.state, row.reason), (RunState::Success, None));
    assert_eq!(house.outside.lock().restored.len(), 4);
    let over = house.reopen(operation, Reopening::Resume).await;
    assert!(matches!(over, Err(karbor_store::Error::Conflict { .. })), "{over:?}");

    worker.end().await;
    house.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_that_crashes_again_and_again_is_given_up() {
    let house = Arc::new(house().await);
    let checkpoint = house.protect(&["app"]).await;
    let settings = WorkerConfig { operation_attempts: 2.try_into().unwrap(), ..config() };
    for _ in 0..2 {
        let there = Arc::new(tokio::sync::Notify::new());
        let tell = Arc::clone(&there);
        let crash = CrashPoints::act_at("protect.hook_done*3", Arc::new(move || tell.notify_one())).unwrap();
        let worker = house.worker_with(settings.clone(), crash);
        there.notified().await;
        worker.kill().await;
        house.pass_leases();
    }
    let worker = house.worker_with(settings, CrashPoints::default());
    let operation = house.ended(checkpoint).await;
    assert_eq!(operation.state, OperationState::Failed);
    assert!(operation.reason.unwrap().starts_with("given up after 2 attempts"));
    assert_eq!(house.checkpoint(checkpoint).await.state, CheckpointState::Error);
    house.outside.assert_tidy();
    assert!(house.outside.lock().copies.is_empty());
    worker.end().await;
    house.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_of_a_type_without_a_plugin_can_be_deleted_if_nothing_is_kept_outside() {
    let house = House::new().await;
    let worker = house.worker();
    let mut nothing = resource("7");
    nothing.key.kind = NOTHING.into();
    let checkpoint = house.protect_resources(vec![nothing]).await;
    house.succeeded(checkpoint).await;
    worker.end().await;
    let mut poorer = house;
    poorer.forget_plugins();
    let worker = poorer.worker();
    let (_, operation) = poorer.restore(checkpoint).await;
    let reason = poorer.ended(operation).await.reason.unwrap();
    assert!(reason.contains("does not handle resources of type Test::Nothing"), "{reason}");
    let delete = poorer.delete(checkpoint).await;
    poorer.succeeded(delete).await;
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_provider_fails_the_operation() {
    let mut house = house().await;
    house.registry = Arc::new(karbor_plugin::Registry::default());
    let worker = house.worker();
    let checkpoint = house.protect(&["app"]).await;
    let operation = house.ended(checkpoint).await;
    assert!(operation.reason.unwrap().starts_with("there is no provider"));
    assert_eq!(house.checkpoint(checkpoint).await.state, CheckpointState::Error);
    worker.end().await;
}
