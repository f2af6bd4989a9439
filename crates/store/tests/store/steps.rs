//! Steps, by the thousand.

use karbor_store::{Claim, Error, NewStep, OperationProgress, Step, StepChange, StepEnd, Store};
use karbor_types::{OperationKind, Progress, ResourceKey, StepState};
use serde_json::{Value, json};

use crate::kit::World;
use crate::operations::claim;
use crate::rows::{at, operation};

async fn claimed(store: &Store) -> Claim {
    store.create_operation(&operation(1, OperationKind::Protect, "p"), at(0)).await.expect("queued");
    claim(store, 0).await.claim
}

fn new_step(ordinal: u32) -> NewStep {
    let hook = ["prepare_begin", "prepare_finish", "main", "complete"][ordinal as usize % 4];
    let resource = ResourceKey::new("OS::Cinder::Volume", format!("volume {}", ordinal / 4));
    NewStep { resource, hook: hook.to_owned(), ordinal }
}

fn end(state: StepState, outcome: Value) -> StepEnd {
    StepEnd { state, outcome, reason: None, progress: None }
}

async fn all(store: &Store, claim: &Claim) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    loop {
        let after = steps.last().map(|step| step.ordinal);
        let page = store.list_steps(claim.operation(), after, 700).await.expect("listed");
        if page.is_empty() {
            return steps;
        }
        steps.extend(page);
    }
}

pub(crate) async fn thousands_of_steps_are_saved_and_changed_together(world: World) {
    const STEPS: u32 = 4000;
    let store = &world.store;
    let claim = claimed(store).await;
    let new: Vec<NewStep> = (0..STEPS).map(new_step).collect();
    store.save_steps(&claim, &new).await.expect("saved");
    let saved = all(store, &claim).await;
    assert_eq!(saved.len(), new.len());
    for (step, new) in saved.iter().zip(&new) {
        assert_eq!((step.ordinal, &step.resource, &step.hook), (new.ordinal, &new.resource, &new.hook));
        assert_eq!((step.state, step.attempts, &step.outcome), (StepState::Pending, 0, &Value::Null));
    }
    let started: Vec<StepChange> = (0..STEPS).map(|ordinal| StepChange::Started { ordinal }).collect();
    let span = || store.span_of_hooks(claim.operation(), &["prepare_begin", "prepare_finish"]);
    assert_eq!(span().await.expect("looked up"), None);
    store.record_steps(&claim, &started, at(5)).await.expect("noted");
    assert_eq!(span().await.expect("looked up"), None);
    let ended = (0..STEPS).map(|ordinal| {
        let outcome = if ordinal % 4 == 2 { json!({"stream": ordinal}) } else { Value::Null };
        StepChange::Finished { ordinal, end: end(StepState::Done, outcome) }
    });
    store.record_steps(&claim, &ended.collect::<Vec<_>>(), at(6)).await.expect("noted");
    assert_eq!(span().await.expect("looked up"), Some((at(5), at(6))));
    assert_eq!(store.span_of_hooks(claim.operation(), &["quiesce"]).await.expect("looked up"), None);
    for step in all(store, &claim).await {
        let outcome = if step.ordinal % 4 == 2 { json!({"stream": step.ordinal}) } else { Value::Null };
        assert_eq!((step.state, step.attempts, step.outcome), (StepState::Done, 1, outcome));
        assert_eq!((step.started_at, step.ended_at), (Some(at(5)), Some(at(6))));
    }
    let progress = store.operation_progress(claim.operation()).await.expect("summed");
    assert_eq!(progress, OperationProgress { done: u64::from(STEPS), ..OperationProgress::default() });
}

pub(crate) async fn several_changes_of_one_step_count_in_their_order(world: World) {
    let store = &world.store;
    let claim = claimed(store).await;
    store.save_steps(&claim, &[new_step(0), new_step(1)]).await.expect("saved");
    let progress = Progress { bytes_done: 5, bytes_total: Some(9), bytes_stored: 4 };
    let failed = StepEnd {
        reason: Some("no route".to_owned()),
        progress: Some(progress),
        ..end(StepState::Failed, json!("half"))
    };
    let changes = [
        StepChange::Started { ordinal: 0 },
        StepChange::Started { ordinal: 1 },
        StepChange::Progressed { ordinal: 1, progress: Progress { bytes_done: 1, ..Progress::default() } },
        StepChange::Finished { ordinal: 0, end: failed },
        StepChange::Finished { ordinal: 1, end: end(StepState::Done, Value::Null) },
        StepChange::Started { ordinal: 1 },
    ];
    store.record_steps(&claim, &changes, at(7)).await.expect("noted");
    let steps = all(store, &claim).await;
    assert_eq!((steps[0].state, steps[0].attempts, steps[0].progress), (StepState::Failed, 1, progress));
    assert_eq!((steps[0].reason.as_deref(), &steps[0].outcome), (Some("no route"), &json!("half")));
    assert_eq!((steps[1].state, steps[1].attempts, steps[1].ended_at), (StepState::Running, 2, None));
    assert_eq!(steps[1].progress.bytes_done, 1);

    store.step_started(&claim, 0, at(8)).await.expect("noted");
    let again = all(store, &claim).await.swap_remove(0);
    assert_eq!((again.state, again.attempts, again.reason), (StepState::Running, 2, None));
    assert_eq!((again.started_at, again.ended_at, again.progress), (Some(at(8)), None, progress));
    let later = StepEnd { reason: Some("busy".to_owned()), ..end(StepState::Pending, Value::Null) };
    store.step_finished(&claim, 0, later, at(9)).await.expect("noted");
    let again = all(store, &claim).await.swap_remove(0);
    assert_eq!(
        (again.state, again.ended_at, again.reason.as_deref()),
        (StepState::Pending, None, Some("busy"))
    );
}

pub(crate) async fn saving_again_keeps_what_was_done(world: World) {
    let store = &world.store;
    let claim = claimed(store).await;
    store.save_steps(&claim, &[new_step(0), new_step(1)]).await.expect("saved");
    store.step_finished(&claim, 1, end(StepState::Done, json!(1)), at(1)).await.expect("noted");
    store.save_steps(&claim, &[new_step(0), new_step(1), new_step(2)]).await.expect("saved again");
    let states: Vec<StepState> = all(store, &claim).await.iter().map(|step| step.state).collect();
    assert_eq!(states, [StepState::Pending, StepState::Done, StepState::Pending]);
    store.save_steps(&claim, &[]).await.expect("none at all");
}

pub(crate) async fn progress_is_summed(world: World) {
    let store = &world.store;
    let claim = claimed(store).await;
    let nothing = store.operation_progress(claim.operation()).await.expect("summed");
    assert_eq!(nothing, OperationProgress::default());
    store.save_steps(&claim, &(0..6).map(new_step).collect::<Vec<_>>()).await.expect("saved");
    let without_total = Progress { bytes_done: 10, bytes_total: None, bytes_stored: 1 };
    store.step_progress(&claim, 0, without_total, at(1)).await.expect("noted");
    let told = store.operation_progress(claim.operation()).await.expect("summed");
    assert_eq!((told.pending, told.bytes), (6, without_total));

    let with_total = Progress { bytes_done: 1 << 40, bytes_total: Some(1 << 41), bytes_stored: 1 << 39 };
    let changes = [
        StepChange::Started { ordinal: 1 },
        StepChange::Progressed { ordinal: 1, progress: with_total },
        StepChange::Finished { ordinal: 2, end: end(StepState::Failed, Value::Null) },
        StepChange::Finished { ordinal: 3, end: end(StepState::Skipped, Value::Null) },
        StepChange::Finished { ordinal: 4, end: end(StepState::Done, Value::Null) },
    ];
    store.record_steps(&claim, &changes, at(2)).await.expect("noted");
    let told = store.operation_progress(claim.operation()).await.expect("summed");
    let expected = OperationProgress {
        pending: 2,
        running: 1,
        done: 1,
        failed: 1,
        skipped: 1,
        bytes: Progress {
            bytes_done: 10 + (1 << 40),
            bytes_total: Some(10 + (1 << 41)),
            bytes_stored: 1 + (1 << 39),
        },
    };
    assert_eq!(told, expected);
}

pub(crate) async fn an_unknown_step_is_told(world: World) {
    let store = &world.store;
    let claim = claimed(store).await;
    store.save_steps(&claim, &[new_step(0)]).await.expect("saved");
    let changes = [StepChange::Started { ordinal: 0 }, StepChange::Started { ordinal: 7 }];
    let refused = store.record_steps(&claim, &changes, at(1)).await;
    assert!(matches!(refused, Err(Error::NotFound { what: "step", .. })), "{refused:?}");
    assert_eq!(all(store, &claim).await[0].state, StepState::Pending, "all of it or nothing");
}
