//! Occurrences: handed out once, begun once, judged by what they were.

use karbor_store::{
    Advance, Beginning, DueTrigger, Engine, Error, HandOut, Limit, NewOccurrence, NewOperation, NewWork,
    OccurrenceLimits, OccurrenceQuery, OperationLog, OperationLogQuery, Origin, Outcome, Plan, PlanUpdate,
    RunRules, ScheduledOperation, Store, SubjectChange, Trigger, TriggerUpdate, Verdict,
};
use karbor_types::{
    CheckpointId, Instant, OccurrenceEvent, OccurrenceId, OccurrenceReason, OccurrenceState, OperationId,
    OperationLogId, OperationState, PlanId, ScheduledOperationId, TriggerId, UserId,
};
use serde_json::{Map, Value, json};

use crate::kit::World;
use crate::operations::{claim, ends};
use crate::rows::{UNLIMITED, at, checkpoint, plan, project, protect, provider, quotas, uuid, verification};

fn members(value: Value) -> Map<String, Value> {
    let Value::Object(members) = value else { panic!("{value} is no object") };
    members
}

fn trigger(number: u128, next_at: Option<Instant>) -> Trigger {
    Trigger {
        id: TriggerId(uuid(number)),
        name: "nightly".to_owned(),
        project: project("p"),
        kind: "time".to_owned(),
        properties: members(json!({"format": "crontab", "pattern": "0 1 * * *"})),
        next_at,
        fault: None,
        created_at: at(0),
        updated_at: None,
    }
}

fn scheduled(number: u128, trigger: u128, owner: &str) -> ScheduledOperation {
    ScheduledOperation {
        id: ScheduledOperationId(uuid(number)),
        name: "so".to_owned(),
        description: None,
        operation_type: "protect".to_owned(),
        user: UserId::new("someone").expect("a valid user id"),
        project: project(owner),
        trigger: TriggerId(uuid(trigger)),
        definition: members(json!({"plan_id": uuid(3), "provider_id": provider()})),
        enabled: true,
        rules: RunRules::default(),
        created_at: at(1),
        updated_at: None,
    }
}

fn occurrence(of: &ScheduledOperation, instant: Instant) -> NewOccurrence {
    NewOccurrence {
        operation: of.id,
        operation_type: of.operation_type.clone(),
        trigger: of.trigger,
        project: of.project.clone(),
        provider: provider(),
        at: instant,
        origin: Origin::Trigger,
        state: OccurrenceState::Ready,
        reason: None,
        priority: of.rules.priority,
        act_at: instant,
        until: instant.plus_seconds(900),
    }
}

/// A protect operation of an occurrence's attempt.
fn beginning(of: &ScheduledOperation, instant: Instant, attempt: u32) -> Beginning {
    let id = OccurrenceId::of(of.id, instant);
    let started = id.started(attempt, "");
    let mut checkpoint = checkpoint(started.as_u128(), of.project.as_str());
    checkpoint.id = CheckpointId(started);
    let operation = NewOperation {
        id: OperationId(started),
        log: Some(OperationLogId(id.started(attempt, "log"))),
        scheduled_operation: Some(of.id),
        occurrence: Some((id, attempt)),
        ..protect(&checkpoint)
    };
    Beginning { occurrence: id, attempt, work: vec![NewWork::Checkpoint(Box::new((checkpoint, operation)))] }
}

fn to(trigger: &DueTrigger, next: Option<Instant>) -> HandOut {
    HandOut { trigger: trigger.clone(), advance: Advance::To(next) }
}

/// A trigger, numbers 10 and up, and operations of it, one for each owner, numbers 100 and up.
pub(crate) async fn set_up(store: &Store, owners: &[&str]) -> (DueTrigger, Vec<ScheduledOperation>) {
    store.create_trigger(&trigger(10, Some(at(100)))).await.expect("created");
    let mut operations = Vec::new();
    for (number, owner) in (100..).zip(owners) {
        let operation = scheduled(number, 10, owner);
        store.create_scheduled_operation(&operation).await.expect("created");
        operations.push(operation);
    }
    let due = store.due_triggers(at(100), 10).await.expect("listed");
    (due.into_iter().next().expect("one is due"), operations)
}

/// Occurrences at 100 of new operations, handed out and ready.
async fn ready(store: &Store, owners: &[&str]) -> Vec<ScheduledOperation> {
    let (due, operations) = set_up(store, owners).await;
    let new: Vec<_> = operations.iter().map(|operation| occurrence(operation, at(100))).collect();
    assert!(store.hand_out(&[to(&due, None)], &new, at(100)).await.expect("handed out"));
    operations
}

async fn begin(store: &Store, beginnings: &[Beginning], limits: OccurrenceLimits) -> bool {
    store.begin_occurrences(beginnings, limits, &UNLIMITED, at(101)).await.expect("begun or lost")
}

pub(crate) async fn a_due_trigger_is_handed_out_once(world: World) {
    let store = &world.store;
    assert_eq!(store.next_due().await.expect("asked"), None);
    let (due, operations) = set_up(store, &["p", "q"]).await;
    assert!(store.due_triggers(at(99), 10).await.expect("listed").is_empty());
    assert_eq!(store.next_due().await.expect("asked"), Some(at(100)));
    let enlisted = store.enlisted(&[due.id], None, 10).await.expect("listed");
    assert_eq!(enlisted.iter().map(|one| one.id).collect::<Vec<_>>(), [operations[0].id, operations[1].id]);
    assert_eq!(enlisted[0].provider, provider());

    let new: Vec<_> = operations.iter().map(|operation| occurrence(operation, at(100))).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (store, due, new) = (world.other().await, due.clone(), new.clone());
        tasks.spawn(async move { store.hand_out(&[to(&due, Some(at(200)))], &new, at(101)).await });
    }
    let won = tasks.join_all().await.into_iter().map(|done| usize::from(done.expect("won or lost")));
    assert_eq!(won.sum::<usize>(), 1);
    assert_eq!(store.list_occurrences(&OccurrenceQuery::default()).await.expect("listed").len(), 2);
    assert_eq!(store.next_due().await.expect("asked"), Some(at(200)));
    let first = store.get_occurrence(OccurrenceId::of(operations[0].id, at(100))).await.expect("found");
    assert_eq!((first.state, first.attempt, first.until), (OccurrenceState::Ready, 1, at(1000)));
}

pub(crate) async fn a_trigger_that_was_changed_is_not_handed_out_by_what_it_said_before(world: World) {
    let store = &world.store;
    let (due, operations) = set_up(store, &["p"]).await;
    let update = TriggerUpdate {
        properties: Some(members(json!({"pattern": "0 2 * * *"}))),
        next_at: Some(Some(due.next_at)),
        ..TriggerUpdate::default()
    };
    store.update_trigger(due.id, &update, at(99)).await.expect("changed");
    let new = [occurrence(&operations[0], at(100))];
    assert!(!store.hand_out(&[to(&due, Some(at(200)))], &new, at(101)).await.expect("lost"));
    assert!(store.list_occurrences(&OccurrenceQuery::default()).await.expect("listed").is_empty());
    // An occurrence that stands already stays as it is when its instant comes round again.
    let again = store.due_triggers(at(100), 10).await.expect("listed");
    assert!(store.hand_out(&[to(&again[0], Some(at(100)))], &new, at(101)).await.expect("won"));
    let again = store.due_triggers(at(100), 10).await.expect("listed");
    assert!(store.hand_out(&[to(&again[0], None)], &new, at(150)).await.expect("won"));
    let found = store.list_occurrences(&OccurrenceQuery::default()).await.expect("listed");
    assert_eq!(found.iter().map(|one| one.created_at).collect::<Vec<_>>(), [at(101)]);
}

pub(crate) async fn a_large_trigger_is_handed_out_page_by_page(world: World) {
    let store = &world.store;
    let (mut due, operations) = set_up(store, &["p"; 1000]).await;
    let mut pages = 0;
    loop {
        let page = store.enlisted(&[due.id], due.handed_to, 450).await.expect("listed");
        let advance = match page.last() {
            Some(last) if page.len() == 450 => Advance::Beyond(last.id),
            _ => Advance::To(Some(at(200))),
        };
        let new: Vec<_> = page
            .iter()
            .map(|one| occurrence(operations.iter().find(|o| o.id == one.id).expect("known"), at(100)))
            .collect();
        let handout = HandOut { trigger: due.clone(), advance };
        assert!(store.hand_out(std::slice::from_ref(&handout), &new, at(101)).await.expect("won"));
        assert!(!store.hand_out(&[handout], &new, at(101)).await.expect("a page is handed out once"));
        pages += 1;
        match store.due_triggers(at(101), 10).await.expect("listed").pop() {
            Some(next) => due = next,
            None => break,
        }
    }
    assert_eq!(pages, 3);
    let query = OccurrenceQuery { limit: 2000, ..OccurrenceQuery::default() };
    assert_eq!(store.list_occurrences(&query).await.expect("listed").len(), 1000);
}

pub(crate) async fn an_unreadable_trigger_is_set_aside_until_it_is_changed(world: World) {
    let store = &world.store;
    let (due, _) = set_up(store, &[]).await;
    world.run("UPDATE triggers SET properties = '{broken'").await;
    let damaged = store.due_triggers(at(100), 10).await.expect("listed all the same").remove(0);
    assert_eq!(damaged.properties, "{broken");
    assert!(store.set_trigger_aside(&damaged, "it is broken", at(101)).await.expect("set aside"));
    assert!(!store.set_trigger_aside(&damaged, "it is broken", at(101)).await.expect("only once"));
    assert!(store.due_triggers(at(9999), 10).await.expect("listed").is_empty());
    let update = TriggerUpdate {
        properties: Some(Map::new()),
        next_at: Some(Some(at(300))),
        ..TriggerUpdate::default()
    };
    let mended = store.update_trigger(due.id, &update, at(102)).await.expect("changed");
    assert_eq!((mended.fault, mended.next_at), (None, Some(at(300))));
}

pub(crate) async fn a_trigger_without_a_time_can_be_fired(world: World) {
    let store = &world.store;
    store.create_trigger(&trigger(10, None)).await.expect("created");
    let id = TriggerId(uuid(10));
    assert!(store.due_triggers(at(9999), 10).await.expect("listed").is_empty());
    assert!(store.fire_trigger(id, at(5)).await.expect("fired"));
    assert!(!store.fire_trigger(id, at(6)).await.expect("it fires already"));
    assert_eq!(store.due_triggers(at(5), 10).await.expect("listed")[0].next_at, at(5));
}

pub(crate) async fn an_occurrence_begins_once(world: World) {
    let store = &world.store;
    let operations = ready(store, &["p", "p", "q"]).await;
    let all: Vec<_> = operations.iter().map(|operation| beginning(operation, at(100), 1)).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (store, all) = (world.other().await, all.clone());
        tasks.spawn(async move {
            store.begin_occurrences(&all, OccurrenceLimits::default(), &UNLIMITED, at(101)).await
        });
    }
    let won = tasks.join_all().await.into_iter().map(|done| usize::from(done.expect("won or lost")));
    assert_eq!(won.sum::<usize>(), 1);
    let usage = store.get_usage(&project("p"), &UNLIMITED).await.expect("told");
    assert_eq!(usage.iter().map(|one| one.reserved).sum::<u64>(), 2);
    let log = store.list_operation_logs(&Default::default()).await.expect("listed");
    assert_eq!(log.len(), 3);
    assert!(log.iter().all(|one| one.scheduled_operation.is_some() && one.status == "protecting"));
    let id = OccurrenceId::of(operations[0].id, at(100));
    let started = store.started_operations(&[id]).await.expect("listed");
    assert_eq!(started.len(), 1);
    assert_eq!((started[0].attempt, started[0].state), (1, OperationState::Queued));
    assert_eq!(started[0].id.0, id.started(1, ""));
    let open = store.open_operations(&[operations[2].id, ScheduledOperationId(uuid(9))]).await;
    assert_eq!(open.expect("listed").into_iter().collect::<Vec<_>>(), [operations[2].id]);
}

pub(crate) async fn two_occurrences_of_one_operation_do_not_run_at_once(world: World) {
    let store = &world.store;
    let operation = ready(store, &["p"]).await.remove(0);
    store.create_occurrence(&occurrence(&operation, at(200)), at(200)).await.expect("recorded");
    let none = OccurrenceLimits::default();
    assert!(begin(store, &[beginning(&operation, at(100), 1)], none).await);
    assert!(!begin(store, &[beginning(&operation, at(200), 1)], none).await);
    let ended = Verdict {
        occurrence: OccurrenceId::of(operation.id, at(100)),
        state: OccurrenceState::Started,
        attempt: 1,
        outcome: Outcome::of(OccurrenceEvent::Succeeded),
    };
    assert_eq!(store.judge(&[ended], at(300)).await.expect("judged"), 1);
    assert!(begin(store, &[beginning(&operation, at(200), 1)], none).await);
}

pub(crate) async fn limits_hold_however_many_begin_at_once(world: World) {
    let store = &world.store;
    let operations = ready(store, &["p", "p", "p", "q", "q", "q"]).await;
    let limits = OccurrenceLimits { provider: Some(3), project: Some(2) };
    let mut tasks = tokio::task::JoinSet::new();
    for operation in &operations {
        let (store, one) = (world.other().await, beginning(operation, at(100), 1));
        tasks.spawn(async move { store.begin_occurrences(&[one], limits, &UNLIMITED, at(101)).await });
    }
    let won = tasks.join_all().await.into_iter().map(|done| usize::from(done.expect("won or lost")));
    assert_eq!(won.sum::<usize>(), 3);
    let counts = store.started_counts().await.expect("counted");
    assert!(counts.iter().all(|count| count.number <= 2 && count.provider == provider()), "{counts:?}");
    assert_eq!(counts.iter().map(|count| count.number).sum::<u32>(), 3);
}

pub(crate) async fn what_cannot_begin_leaves_nothing_behind(world: World) {
    let store = &world.store;
    let operations = ready(store, &["p", "p"]).await;
    let both: Vec<_> = operations.iter().map(|operation| beginning(operation, at(100), 1)).collect();
    let small = quotas(Limit::Unlimited, Limit::At(1));
    let refused = store.begin_occurrences(&both, OccurrenceLimits::default(), &small, at(101)).await;
    assert!(matches!(refused, Err(Error::OverQuota { limit: 1, .. })), "{refused:?}");
    let none = OccurrenceLimits::default();
    // A verification of a checkpoint that is not available.
    let missing = verification(7, &checkpoint(9, "p"));
    let mut verify = beginning(&operations[0], at(100), 1);
    let operation = NewOperation { occurrence: Some((verify.occurrence, 1)), ..missing.1 };
    verify.work = vec![NewWork::Verification(Box::new((missing.0, operation.clone())))];
    let refused = store.begin_occurrences(&[verify.clone()], none, &UNLIMITED, at(101)).await;
    assert!(matches!(refused, Err(Error::NotFound { what: "checkpoint", .. })), "{refused:?}");
    // Work of another occurrence.
    verify.attempt = 2;
    let refused = store.begin_occurrences(&[verify], none, &UNLIMITED, at(101)).await;
    assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    assert!(store.list_operations(&Default::default()).await.expect("listed").is_empty());
    let all = store.list_occurrences(&OccurrenceQuery::default()).await.expect("listed");
    assert!(all.iter().all(|one| one.state == OccurrenceState::Ready));
    assert!(begin(store, &both, none).await);
}

pub(crate) async fn an_operation_that_ends_has_its_occurrence_looked_at(world: World) {
    let store = &world.store;
    let operation = ready(store, &["p"]).await.remove(0);
    assert!(begin(store, &[beginning(&operation, at(100), 1)], OccurrenceLimits::default()).await);
    let started = OccurrenceState::Started;
    assert!(store.occurrences_to_look_at(started, at(200), 10).await.expect("listed").is_empty());
    let claim = claim(store, 150).await.claim;
    let end = ends(OperationState::Failed, SubjectChange::None);
    store.finish(&claim, &end, at(160)).await.expect("ended");
    let ended = store.occurrences_to_look_at(started, at(160), 10).await.expect("listed");
    assert_eq!(ended.len(), 1);
    let told = store.started_operations(&[ended[0].id]).await.expect("listed");
    assert_eq!(
        (told[0].state, told[0].reason.as_deref()),
        (OperationState::Failed, Some("the disk is gone"))
    );
}

pub(crate) async fn a_verdict_about_what_has_changed_is_void(world: World) {
    let store = &world.store;
    let operation = ready(store, &["p"]).await.remove(0);
    let id = OccurrenceId::of(operation.id, at(100));
    let none = OccurrenceLimits::default();
    assert!(begin(store, &[beginning(&operation, at(100), 1)], none).await);
    let verdict = |state, attempt, outcome| Verdict { occurrence: id, state, attempt, outcome };
    let again = Outcome {
        reason: Some(OccurrenceReason::OperationFailed),
        detail: Some("the disk was on fire".to_owned()),
        act_at: Some(at(160)),
        ..Outcome::of(OccurrenceEvent::PutOff)
    };
    let put_off = verdict(OccurrenceState::Started, 1, again);
    assert_eq!(store.judge(std::slice::from_ref(&put_off), at(130)).await.expect("judged"), 1);
    assert_eq!(store.judge(&[put_off], at(131)).await.expect("void"), 0);
    let found = store.get_occurrence(id).await.expect("found");
    assert_eq!((found.state, found.attempt), (OccurrenceState::Waiting, 2));
    assert_eq!(found.detail.as_deref(), Some("the disk was on fire"));
    assert_eq!(store.ripen(at(159), 10).await.expect("too early"), 0);
    assert_eq!(store.ripen(at(160), 10).await.expect("ripe"), 1);
    assert!(!begin(store, &[beginning(&operation, at(100), 1)], none).await, "an attempt that is over");
    assert!(begin(store, &[beginning(&operation, at(100), 2)], none).await);
    let passed = verdict(OccurrenceState::Ready, 2, Outcome::of(OccurrenceEvent::Passed));
    assert_eq!(store.judge(&[passed], at(170)).await.expect("void"), 0);
    let wrong = verdict(OccurrenceState::Skipped, 2, Outcome::of(OccurrenceEvent::Succeeded));
    assert!(matches!(store.judge(&[wrong], at(170)).await, Err(Error::Conflict { .. })));
    let checkpoint = Some(CheckpointId(uuid(8)));
    let done = Outcome { checkpoint, retain_at: Some(at(171)), ..Outcome::of(OccurrenceEvent::Succeeded) };
    assert_eq!(store.judge(&[verdict(OccurrenceState::Started, 2, done)], at(171)).await.expect("judged"), 1);
    let found = store.get_occurrence(id).await.expect("found");
    assert_eq!((found.state, found.act_at, found.checkpoint), (OccurrenceState::Succeeded, None, checkpoint));
    assert_eq!((found.ended_at, found.reason), (Some(at(171)), None));
    // Retention is moved by compare-and-swap.
    assert_eq!(store.occurrences_to_retain(at(171), 10).await.expect("listed"), [found]);
    assert!(store.set_retention(id, at(171), Some(at(180)), at(172)).await.expect("moved"));
    assert!(!store.set_retention(id, at(171), None, at(172)).await.expect("moved already"));
    assert!(store.set_retention(id, at(180), None, at(180)).await.expect("done"));
    assert!(store.occurrences_to_retain(at(9999), 10).await.expect("listed").is_empty());
}

pub(crate) async fn what_is_ready_is_found_by_provider_and_project(world: World) {
    let store = &world.store;
    let operations = ready(store, &["p", "p", "q"]).await;
    let urgent = NewOccurrence { priority: 5, ..occurrence(&operations[1], at(150)) };
    store.create_occurrence(&urgent, at(150)).await.expect("recorded");
    assert_eq!(store.next_ready_provider(None).await.expect("asked"), Some(provider()));
    assert_eq!(store.next_ready_provider(Some(provider())).await.expect("asked"), None);
    let found = store.ready_occurrences(provider(), None, 10).await.expect("listed");
    let told: Vec<_> = found.iter().map(|one| (one.project.as_str(), one.priority, one.at)).collect();
    assert_eq!(told, [("p", 5, at(150)), ("p", 0, at(100)), ("p", 0, at(100)), ("q", 0, at(100))]);
    let after = store.ready_occurrences(provider(), Some(&project("p")), 10).await.expect("listed");
    assert_eq!(after, &found[3..]);
    // What is ready is looked at when its window is over.
    let over = store.occurrences_to_look_at(OccurrenceState::Ready, at(1000), 10).await.expect("listed");
    assert_eq!(over.len(), 4);
}

pub(crate) async fn what_is_long_over_is_forgotten(world: World) {
    let store = &world.store;
    let (due, operations) = set_up(store, &["p", "q"]).await;
    let skipped = NewOccurrence {
        state: OccurrenceState::Skipped,
        reason: Some(OccurrenceReason::Paused),
        ..occurrence(&operations[0], at(100))
    };
    let new = [skipped, occurrence(&operations[1], at(100))];
    assert!(store.hand_out(&[to(&due, None)], &new, at(100)).await.expect("handed out"));
    assert_eq!(store.forget_occurrences(at(100), 10).await.expect("nothing is old"), 0);
    assert_eq!(store.forget_occurrences(at(101), 10).await.expect("removed"), 1);
    let left = store.list_occurrences(&OccurrenceQuery::default()).await.expect("listed");
    assert_eq!(left.iter().map(|one| one.operation).collect::<Vec<_>>(), [operations[1].id]);
    let logs = store.list_operation_logs(&OperationLogQuery::default()).await.expect("listed");
    assert_eq!(logs, [], "what was told of it goes with it");
}

pub(crate) async fn what_was_skipped_stands_in_the_log(world: World) {
    let store = &world.store;
    let (due, operations) = set_up(store, &["p", "q"]).await;
    let missed = NewOccurrence {
        operation_type: "retention_protect".to_owned(),
        state: OccurrenceState::Skipped,
        reason: Some(OccurrenceReason::WindowMissed),
        ..occurrence(&operations[0], at(100))
    };
    let ready = NewOccurrence { state: OccurrenceState::Ready, ..occurrence(&operations[1], at(100)) };
    assert!(store.hand_out(&[to(&due, None)], &[missed, ready], at(110)).await.expect("handed out"));
    let outcome = Outcome {
        reason: Some(OccurrenceReason::Quota),
        detail: Some("there is no room".to_owned()),
        ..Outcome::of(OccurrenceEvent::Passed)
    };
    let full = Verdict {
        occurrence: OccurrenceId::of(operations[1].id, at(100)),
        state: OccurrenceState::Ready,
        attempt: 1,
        outcome,
    };
    // Told twice, it is recorded once.
    for (judged, second) in [(1, 120), (0, 130)] {
        assert_eq!(store.judge(std::slice::from_ref(&full), at(second)).await.expect("judged"), judged);
    }
    let mut logs = store.list_operation_logs(&OperationLogQuery::default()).await.expect("listed");
    logs.sort_by_key(|log| log.ended_at);
    let told: Vec<_> = logs
        .iter()
        .map(|log| (log.scheduled_operation, log.kind.as_str(), log.ended_at, log.error_info.as_deref()))
        .collect();
    assert_eq!(
        told,
        [
            (Some(operations[0].id), "protect", Some(at(110)), Some("window_missed")),
            (Some(operations[1].id), "protect", Some(at(120)), Some("quota: there is no room")),
        ]
    );
    let same = |log: &OperationLog| (log.status.clone(), log.started_at, log.checkpoint, log.operation);
    assert!(logs.iter().all(|log| same(log) == ("skipped".to_owned(), at(100), None, None)), "{logs:?}");
}

pub(crate) async fn a_plan_is_suspended_only_after_it_was_started(world: World) {
    let store = &world.store;
    let new: Plan = plan(1, "p");
    store.create_plan(&new, &UNLIMITED).await.expect("created");
    let since = async || {
        let found = store.plans_to_run(&[PlanId(uuid(1)), PlanId(uuid(2))]).await.expect("found");
        assert_eq!(found.len(), 1);
        found[0].1
    };
    let set = async |status: &str, second| {
        let update = PlanUpdate { status: Some(Some(status.to_owned())), ..PlanUpdate::default() };
        store.update_plan(new.id, &update, at(second)).await.expect("changed")
    };
    assert_eq!(since().await, None, "a new plan is suspended, and is run all the same");
    set("suspended", 1).await;
    assert_eq!(since().await, None);
    set("started", 2).await;
    assert_eq!(since().await, None);
    set("suspended", 3).await;
    assert_eq!(since().await, Some(at(3)));
    set("suspended", 4).await;
    assert_eq!(since().await, Some(at(3)));
    set("started", 5).await;
    assert_eq!(since().await, None);
}

pub(crate) async fn no_statement_of_the_schedule_scans(world: World) {
    // Little is due, as always; engines scan tables that are small; one that is told not to if it can help it shows what it can do.
    if world.store.engine() == Engine::Postgres {
        world.run("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET enable_seqscan = off', current_database()); END $$").await;
    }
    let operations = ready(&world.store, &["p"; 600]).await;
    let all: Vec<_> = operations.iter().take(300).map(|one| beginning(one, at(100), 1)).collect();
    assert!(begin(&world.store, &all, OccurrenceLimits::default()).await);
    let rights = "INSERT INTO delegations (owner_id, owner_kind, project_id, user_id, expires_at, created_at, standing) \
                  SELECT id, 'scheduled_operation', project_id, user_id, 0, 0, 1 FROM scheduled_operations";
    world.run(rights).await;
    if world.store.engine() != Engine::Sqlite {
        for table in ["delegations", "triggers", "scheduled_operations", "occurrences", "operations"] {
            let verb = if world.store.engine() == Engine::Postgres { "ANALYZE" } else { "ANALYZE TABLE" };
            world.run(&format!("{verb} {table}")).await;
        }
    }
    let store = world.other().await;
    for (name, plan) in store.explain_schedule(at(50)).await.expect("explained") {
        let scans = plan.lines().any(|line| match store.engine() {
            Engine::Sqlite => {
                line.contains("SCAN") && !line.contains("USING") || line.contains("TEMP B-TREE")
            }
            Engine::Postgres => line.contains("Seq Scan"),
            Engine::Mysql => line.contains("\"access_type\": \"ALL\""),
        });
        assert!(!scans, "{name} scans: {plan}");
    }
}

/// What is due comes at once: statistics that were taken a moment before know of nothing that is.
pub(crate) async fn what_is_known_by_its_id_is_looked_for_by_it(world: World) {
    let operations = ready(&world.store, &["p"; 600]).await;
    let all: Vec<_> = operations.iter().map(|one| beginning(one, at(100), 1)).collect();
    for some in all.chunks(300) {
        assert!(begin(&world.store, some, OccurrenceLimits::default()).await);
    }
    for number in 2000..2600 {
        world.store.create_trigger(&trigger(number, Some(at(5000)))).await.expect("created");
    }
    for table in ["triggers", "occurrences"] {
        let verb = if world.store.engine() == Engine::Mysql { "ANALYZE TABLE" } else { "ANALYZE" };
        world.run(&format!("{verb} {table}")).await;
    }
    let store = world.other().await;
    let due = store.due_triggers(at(5000), 200).await.expect("listed");
    let due: Vec<_> = due.into_iter().map(|one| DueTrigger { next_at: at(4000), ..one }).collect();
    let ids: Vec<_> = operations[..200].iter().map(|one| OccurrenceId::of(one.id, at(100))).collect();
    let told = store.explain_changes(&due, &ids, at(101)).await.expect("explained");
    assert_eq!((due.len(), told.len()), (200, 4));
    for (name, plan) in told {
        let index = plan.lines().find(|line| line.contains("_by_") && !line.contains("possible_keys"));
        assert!(index.is_none(), "{name} goes by another index: {plan}");
    }
}
