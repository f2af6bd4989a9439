//! Occurrences from their time to their end.

use karbor_store::{Occurrence, OccurrenceQuery, RunRules, ScheduledOperation};
use karbor_types::{CatchUp, OccurrenceReason, OccurrenceState, TriggerId};
use serde_json::json;

use super::world::{PROVIDER, World, at, id, members, operation};
use crate::{Round, Scheduler};

/// A world with a daily trigger at one o'clock, and what is done then.
async fn daily(change: impl FnOnce(&mut ScheduledOperation)) -> (World, Scheduler) {
    let world = World::new().await;
    world.add_plan(1, "p").await;
    world.add_trigger(2, "p", "0 1 * * *").await;
    let mut new = operation(3, 2, 1, "p");
    change(&mut new);
    world.add_operation(new).await;
    let mut scheduler = world.scheduler(world.store.clone());
    rounds(&mut scheduler).await;
    (world, scheduler)
}

async fn rounds(scheduler: &mut Scheduler) {
    loop {
        let mut round = Round::default();
        scheduler.round(&mut round).await.expect("a round");
        if !round.has_done_something() {
            return;
        }
    }
}

async fn occurrences(world: &World) -> Vec<Occurrence> {
    let mut found = world.store.list_occurrences(&OccurrenceQuery::default()).await.expect("listed");
    found.sort_by_key(|one| one.at);
    found
}

async fn work(world: &World, goes_well: bool) -> bool {
    World::work(&world.store, world.now(), goes_well).await.expect("worked")
}

const ONE: i64 = 3600;
const DAY: i64 = 86_400;

#[tokio::test]
async fn an_occurrence_succeeds_as_its_checkpoint_does() {
    let (world, mut scheduler) = daily(|_| {}).await;
    assert!(occurrences(&world).await.is_empty());
    world.set(at(ONE));
    rounds(&mut scheduler).await;
    let started = occurrences(&world).await.remove(0);
    assert_eq!((started.state, started.at), (OccurrenceState::Started, at(ONE)));
    assert!(work(&world, true).await);
    rounds(&mut scheduler).await;
    let ended = occurrences(&world).await.remove(0);
    assert_eq!(ended.state, OccurrenceState::Succeeded);
    let checkpoint =
        world.store.get_checkpoint(ended.checkpoint.expect("one was made")).await.expect("found");
    assert_eq!(checkpoint.extra_info["created_by"], "operation-engine");
    assert_eq!(checkpoint.extra_info["scheduled_operation_id"], json!(id(3)));
    assert!(!work(&world, true).await, "nothing more was queued");
}

#[tokio::test]
async fn a_failure_is_tried_again_inside_the_window_only() {
    let (world, mut scheduler) = daily(|_| {}).await;
    world.set(at(ONE));
    rounds(&mut scheduler).await;
    for (attempt, pause) in [(2, 60), (3, 120), (4, 240)] {
        assert!(work(&world, false).await);
        rounds(&mut scheduler).await;
        let one = occurrences(&world).await.remove(0);
        assert_eq!((one.state, one.attempt), (OccurrenceState::Waiting, attempt));
        assert_eq!(one.reason, Some(OccurrenceReason::OperationFailed));
        world.set(world.now().plus_seconds(pause));
        rounds(&mut scheduler).await;
    }
    assert!(work(&world, false).await);
    rounds(&mut scheduler).await;
    let one = occurrences(&world).await.remove(0);
    assert_eq!((one.state, one.attempt), (OccurrenceState::Failed, 4));
    assert_eq!(one.detail.as_deref(), Some("the volume is gone"));
}

#[tokio::test]
async fn what_failed_and_finds_no_time_to_be_tried_again_has_failed() {
    let (world, mut scheduler) = daily(|_| {}).await;
    world.set(at(ONE));
    rounds(&mut scheduler).await;
    assert!(work(&world, false).await);
    rounds(&mut scheduler).await;
    world.set(at(2 * ONE));
    rounds(&mut scheduler).await;
    let one = occurrences(&world).await.remove(0);
    assert_eq!((one.state, one.reason), (OccurrenceState::Failed, Some(OccurrenceReason::OperationFailed)));
    let detail = "the volume is gone; it was not tried again: there was no room inside its window";
    assert_eq!(one.detail.as_deref(), Some(detail));
}

#[tokio::test]
async fn a_right_that_was_taken_back_fails_its_run_at_once_and_no_other() {
    let (world, mut scheduler) = daily(|_| {}).await;
    world.add_operation(operation(4, 2, 1, "p")).await;
    world.set(at(ONE));
    rounds(&mut scheduler).await;
    let result = json!({"failure": karbor_plugin::ErrorKind::Revoked});
    assert!(World::end(&world.store, world.now(), false, result).await.expect("worked"));
    assert!(work(&world, true).await);
    rounds(&mut scheduler).await;
    let found = occurrences(&world).await;
    let ends: std::collections::BTreeSet<_> = found.iter().map(|one| (one.state, one.reason)).collect();
    let revoked = (OccurrenceState::Failed, Some(OccurrenceReason::TrustRevoked));
    assert_eq!(ends, [(OccurrenceState::Succeeded, None), revoked].into());
    let failed = found.iter().find(|one| one.state == OccurrenceState::Failed).expect("one failed");
    assert_eq!((failed.attempt, failed.detail.as_deref()), (1, Some("the volume is gone")));
}

#[tokio::test]
async fn what_was_missed_is_recorded_and_the_last_one_caught_up() {
    for (rule, last) in
        [(CatchUp::RunOnce, OccurrenceState::Started), (CatchUp::Skip, OccurrenceState::Skipped)]
    {
        let rules = RunRules { catch_up: Some(rule), ..RunRules::default() };
        let (world, mut scheduler) = daily(|new| new.rules = rules).await;
        world.set(at(3 * DAY));
        rounds(&mut scheduler).await;
        let found = occurrences(&world).await;
        let states: Vec<_> = found.iter().map(|one| one.state).collect();
        assert_eq!(states, [OccurrenceState::Skipped, OccurrenceState::Skipped, last], "{rule}");
        assert_eq!(found[0].reason, Some(OccurrenceReason::WindowMissed));
    }
}

#[tokio::test]
async fn an_occurrence_does_not_overtake_the_one_before() {
    let (world, mut scheduler) = daily(|_| {}).await;
    world.set(at(ONE));
    rounds(&mut scheduler).await;
    world.set(at(ONE + DAY));
    rounds(&mut scheduler).await;
    let found = occurrences(&world).await;
    assert_eq!(found[0].state, OccurrenceState::Started);
    assert_eq!(found[1].reason, Some(OccurrenceReason::StillRunning));
}

#[tokio::test]
async fn a_paused_operation_is_skipped_and_one_whose_plan_is_gone_too() {
    let (world, mut scheduler) = daily(|new| new.enabled = false).await;
    let gone = ScheduledOperation {
        definition: members(json!({"plan_id": id(99), "provider_id": PROVIDER})),
        ..operation(4, 2, 1, "p")
    };
    world.add_operation(gone).await;
    world.set(at(ONE));
    rounds(&mut scheduler).await;
    let mut reasons: Vec<_> = occurrences(&world).await.iter().map(|one| one.reason).collect();
    reasons.sort();
    assert_eq!(reasons, [Some(OccurrenceReason::Paused), Some(OccurrenceReason::Gone)]);
}

#[tokio::test]
async fn a_trigger_that_cannot_be_read_stops_nobody_else() {
    let (world, mut scheduler) = daily(|_| {}).await;
    world.add_trigger(5, "p", "61 25 * * *").await;
    world.set(at(ONE));
    rounds(&mut scheduler).await;
    assert_eq!(occurrences(&world).await.len(), 1);
    let broken = world.store.get_trigger(TriggerId(id(5))).await.expect("found");
    assert!(broken.fault.is_some() && broken.next_at.is_none(), "{broken:?}");
}

#[tokio::test]
async fn retention_keeps_the_newest_and_asks_again_for_what_failed() {
    let (world, mut scheduler) = daily(|new| {
        new.operation_type = "retention_protect".to_owned();
        new.definition.insert("max_backups".to_owned(), json!("2"));
    })
    .await;
    for day in 0..4 {
        world.set(at(ONE + day * DAY));
        rounds(&mut scheduler).await;
        let goes_well = day != 2;
        while work(&world, true).await {}
        rounds(&mut scheduler).await;
        // The deletion of the first one fails once.
        work(&world, goes_well).await;
    }
    world.set(at(ONE + 3 * DAY + 700));
    rounds(&mut scheduler).await;
    while work(&world, true).await {}
    let left = world.store.list_checkpoints(&Default::default()).await.expect("listed");
    let mut made: Vec<_> = left.iter().map(|one| one.created_at).collect();
    made.sort();
    assert_eq!(made, [at(ONE + 2 * DAY), at(ONE + 3 * DAY)]);
}

#[tokio::test]
async fn limits_are_shared_in_turns() {
    let mut world = World::new().await;
    world.config.provider_concurrency = 3;
    world.add_trigger(2, "p", "0 1 * * *").await;
    for (number, project) in [(10, "a"), (11, "a"), (12, "a"), (13, "a"), (20, "b"), (30, "c")] {
        world.add_plan(number, project).await;
        world.add_operation(operation(number + 100, 2, number, project)).await;
    }
    let mut scheduler = world.scheduler(world.store.clone());
    rounds(&mut scheduler).await;
    world.set(at(ONE));
    rounds(&mut scheduler).await;
    let found = occurrences(&world).await;
    let started = found.iter().filter(|one| one.state == OccurrenceState::Started);
    let mut projects: Vec<_> = started.map(|one| one.project.to_string()).collect();
    projects.sort();
    assert_eq!(projects, ["a", "b", "c"]);
    while work(&world, true).await {
        rounds(&mut scheduler).await;
    }
    assert!(occurrences(&world).await.iter().all(|one| one.state == OccurrenceState::Succeeded));
}
