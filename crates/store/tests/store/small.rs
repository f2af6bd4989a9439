//! Quotas, services, triggers and ledgers.

use karbor_store::{
    BankAccountUpdate, DeletionCause, Error, LedgerPurpose, LedgerState, Limit, NewLedgerEntry, NewStep,
    OperationQuery, Purged, QuotaResource, Quotas, RunRules, ScheduledOperation, ServiceStatus,
    SubjectChange, Trigger, TriggerUpdate,
};
use karbor_types::{
    CheckpointEvent, CheckpointState, OperationId, OperationKind, OperationLogId, OperationState, ProviderId,
    ResourceKey, ScheduledOperationId, TriggerId, UserId,
};
use serde_json::{Map, Value, json};

use crate::checkpoints::import;
use crate::kit::World;
use crate::operations::{claim, ends, happened};
use crate::rows::{UNLIMITED, about, at, checkpoint, operation, plan, project, protect, quotas, used, uuid};

pub(crate) async fn limits_are_those_of_the_project_else_the_defaults(world: World) {
    let store = &world.store;
    let defaults = quotas(Limit::At(50), Limit::Unlimited);
    let (p, q) = (project("p"), project("q"));
    assert_eq!(store.get_quotas(&p, &defaults).await.expect("read"), defaults.0);
    store.set_quotas(&p, &[(QuotaResource::Plans, Limit::At(1))], at(1)).await.expect("set");
    store.set_quotas(&p, &[(QuotaResource::Checkpoints, Limit::At(7))], at(2)).await.expect("set");
    let own = Quotas { plans: Limit::At(1), checkpoints: Limit::At(7) };
    assert_eq!(store.get_quotas(&p, &defaults).await.expect("read"), own);
    assert_eq!(store.get_quotas(&q, &defaults).await.expect("read"), defaults.0);

    store.create_plan(&plan(1, "p"), &defaults).await.expect("the first");
    let refused = store.create_plan(&plan(2, "p"), &defaults).await;
    assert!(matches!(refused, Err(Error::OverQuota { resource: QuotaResource::Plans, limit: 1 })));
    store.set_quotas(&p, &[(QuotaResource::Plans, Limit::Unlimited)], at(3)).await.expect("set");
    store
        .create_plan(&plan(2, "p"), &quotas(Limit::At(0), Limit::At(0)))
        .await
        .expect("its own limit counts");
    store.delete_quotas(&p).await.expect("removed");
    assert_eq!(store.get_quotas(&p, &defaults).await.expect("read"), defaults.0);
    assert_eq!(used(store, "p", QuotaResource::Plans).await, (2, 0), "what is used stays counted");

    assert_eq!(store.get_quota_class("gold", &defaults).await.expect("any class exists"), defaults.0);
    store.set_quota_class("gold", &[(QuotaResource::Plans, Limit::At(9))], at(4)).await.expect("set");
    let gold = store.get_quota_class("gold", &defaults).await.expect("read");
    assert_eq!(gold, Quotas { plans: Limit::At(9), ..defaults.0 });
    let long = store.set_quota_class(&"é".repeat(256), &[], at(4)).await;
    assert!(matches!(long, Err(Error::Invalid { .. })), "{long:?}");
}

pub(crate) async fn a_wrong_count_is_put_right(world: World) {
    let store = &world.store;
    assert!(!store.recount_usage(&project("p")).await.expect("counted"), "nothing there, nothing wrong");
    store.create_plan(&plan(1, "p"), &UNLIMITED).await.expect("created");
    store.create_plan(&plan(2, "p"), &UNLIMITED).await.expect("created");
    store.delete_plan(plan(1, "p").id, at(1)).await.expect("deleted");
    assert!(!store.recount_usage(&project("p")).await.expect("counted"));
    assert_eq!(used(store, "p", QuotaResource::Plans).await, (1, 0));
    world.run("UPDATE quota_usages SET in_use = 77, reserved = 5").await;
    assert_eq!(used(store, "p", QuotaResource::Plans).await, (77, 5));
    assert!(store.recount_usage(&project("p")).await.expect("counted"), "it was wrong");
    assert_eq!(used(store, "p", QuotaResource::Plans).await, (1, 0));
    assert_eq!(used(store, "p", QuotaResource::Checkpoints).await, (0, 0));
}

pub(crate) async fn a_service_reports_itself(world: World) {
    let store = &world.store;
    let first = store.heartbeat("karbor-protection", "node1", at(1)).await.expect("noted");
    assert_eq!((first.created_at, first.updated_at, &first.status), (at(1), None, &ServiceStatus::Enabled));
    let again = store.heartbeat("karbor-protection", "node1", at(9)).await.expect("noted");
    assert_eq!((again.id, again.updated_at), (first.id, Some(at(9))));
    let second = store.heartbeat("karbor-protection", "node2", at(2)).await.expect("noted");
    assert_eq!(store.list_services().await.expect("listed"), [again.clone(), second]);

    let off = ServiceStatus::Disabled { reason: Some("moving".to_owned()) };
    let disabled = store.set_service_status(first.id, &off).await.expect("set");
    assert_eq!((disabled.status.clone(), disabled.updated_at), (off, again.updated_at));
    assert_eq!(store.get_service(first.id).await.expect("found"), disabled);
    let on = store.set_service_status(first.id, &ServiceStatus::Enabled).await.expect("set");
    assert_eq!(on, again);
    let missing = store.set_service_status(99, &ServiceStatus::Enabled).await;
    assert!(matches!(missing, Err(Error::NotFound { what: "service", .. })), "{missing:?}");
}

pub(crate) async fn services_that_start_together_get_different_numbers(world: World) {
    let other = world.other().await;
    let mut tasks = Vec::new();
    for number in 0..8 {
        let store = if number % 2 == 0 { world.store.clone() } else { other.clone() };
        // Two processes on each of four hosts.
        let host = format!("node{}", number / 2);
        tasks.push(tokio::spawn(async move { store.heartbeat("karbor-protection", &host, at(1)).await }));
    }
    for task in tasks {
        task.await.expect("no panic").expect("noted");
    }
    let numbers: Vec<i64> = world.store.list_services().await.expect("listed").iter().map(|s| s.id).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
}

pub(crate) async fn a_purge_removes_what_is_long_over(world: World) {
    let store = &world.store;
    for number in 1..=3 {
        store.create_plan(&plan(number, "p"), &UNLIMITED).await.expect("created");
        let new = checkpoint(number, "p");
        let state = if number < 3 { CheckpointState::ErrorDeleting } else { CheckpointState::Available };
        import(&world, &new, state).await;
    }
    // Number 1 is over at second 10, number 2 at second 20, number 3 lives.
    for (number, second) in [(1, 10), (2, 20)] {
        store.delete_plan(plan(number, "p").id, at(second)).await.expect("deleted");
        let new = checkpoint(number, "p");
        store
            .start_delete(new.id, DeletionCause::Request, &about(number, OperationKind::Delete, &new), at(1))
            .await
            .expect("started");
        let claimed = claim(store, 1).await.claim;
        store
            .save_steps(
                &claimed,
                &[NewStep { resource: ResourceKey::new("T", "x"), hook: "main".to_owned(), ordinal: 0 }],
            )
            .await
            .expect("saved");
        let end = ends(OperationState::Succeeded, happened(CheckpointEvent::Removed));
        store.finish(&claimed, &end, at(second)).await.expect("ended");
    }
    // An operation that left something behind, and one that runs.
    store.create_operation(&operation(8, OperationKind::Protect, "p"), at(0)).await.expect("queued");
    let claimed = claim(store, 1).await.claim;
    let entry = NewLedgerEntry {
        resource: ResourceKey::new("T", "x"),
        kind: "snapshot".to_owned(),
        reference: "s".to_owned(),
        purpose: LedgerPurpose::Scaffold,
        data: Value::Null,
    };
    store.ledger_intend(&claimed, &entry, at(2)).await.expect("intended");
    store.finish(&claimed, &ends(OperationState::Failed, SubjectChange::None), at(3)).await.expect("ended");
    store.create_operation(&operation(9, OperationKind::Protect, "p"), at(0)).await.expect("queued");
    claim(store, 1).await;

    assert_eq!(
        store.purge(at(10)).await.expect("purged"),
        Purged::default(),
        "at that instant is not before it"
    );
    let one = Purged { plans: 1, checkpoints: 1, operations: 1 };
    assert_eq!(store.purge(at(11)).await.expect("purged"), one);
    assert_eq!(store.purge(at(1_000)).await.expect("purged"), one);
    assert_eq!(store.purge(at(1_000)).await.expect("purged"), Purged::default());
    let left: Vec<u128> = store
        .list_operations(&OperationQuery::default())
        .await
        .expect("listed")
        .iter()
        .map(|o| o.id.0.as_u128())
        .collect();
    assert_eq!(left, [9, 8], "one runs, one left a snapshot behind");
    assert_eq!(store.list_ledger(claimed.operation()).await.expect("listed").len(), 1);
    assert_eq!(store.list_steps(OperationId(uuid(1)), None, 9).await.expect("listed"), [], "they went along");
    let log = store.get_operation_log(OperationLogId(uuid(1 + (1 << 64)))).await.expect("kept");
    assert_eq!(log.status, "deleted");
    store.get_plan(plan(3, "p").id).await.expect("kept");
    store.get_checkpoint(checkpoint(3, "p").id).await.expect("kept");
    assert!(matches!(store.get_checkpoint(checkpoint(1, "p").id).await, Err(Error::NotFound { .. })));
    assert!(!store.recount_usage(&project("p")).await.expect("counted"));
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { panic!("{value} is no object") };
    map
}

pub(crate) async fn a_trigger_in_use_stays(world: World) {
    let store = &world.store;
    let trigger = Trigger {
        id: TriggerId(uuid(1)),
        name: "nightly".to_owned(),
        project: project("p"),
        kind: "time".to_owned(),
        properties: object(json!({"format": "crontab", "pattern": "0 1 * * *"})),
        next_at: None,
        fault: None,
        created_at: at(0),
        updated_at: None,
    };
    let scheduled = ScheduledOperation {
        id: ScheduledOperationId(uuid(2)),
        name: "so".to_owned(),
        description: None,
        operation_type: "retention_protect".to_owned(),
        user: UserId::new("someone").expect("a valid user id"),
        project: project("p"),
        trigger: trigger.id,
        definition: object(json!({"plan_id": uuid(3), "max_backups": "3"})),
        enabled: true,
        rules: RunRules { priority: 3, ..RunRules::default() },
        created_at: at(1),
        updated_at: None,
    };
    let early = store.create_scheduled_operation(&scheduled).await;
    assert!(matches!(early, Err(Error::NotFound { what: "trigger", .. })), "{early:?}");
    store.create_trigger(&trigger).await.expect("created");
    assert_eq!(store.get_trigger(trigger.id).await.expect("found"), trigger);
    store.create_scheduled_operation(&scheduled).await.expect("created");
    assert_eq!(store.get_scheduled_operation(scheduled.id).await.expect("found"), scheduled);
    assert_eq!(
        store.list_triggers(&Default::default()).await.expect("listed"),
        std::slice::from_ref(&trigger)
    );
    assert_eq!(
        store.list_scheduled_operations(&Default::default()).await.expect("listed"),
        std::slice::from_ref(&scheduled)
    );

    let update = TriggerUpdate { next_at: Some(Some(at(50))), ..TriggerUpdate::default() };
    let changed = store.update_trigger(trigger.id, &update, at(2)).await.expect("changed");
    assert_eq!(changed, Trigger { next_at: Some(at(50)), updated_at: Some(at(2)), ..trigger.clone() });
    let used = store.delete_trigger(trigger.id).await;
    assert!(matches!(used, Err(Error::InUse { what: "trigger", .. })), "{used:?}");
    store.delete_scheduled_operation(scheduled.id).await.expect("deleted");
    store.delete_trigger(trigger.id).await.expect("deleted");
    for gone in [
        store.get_trigger(trigger.id).await.err(),
        store.delete_trigger(trigger.id).await.err(),
        store.update_trigger(trigger.id, &update, at(3)).await.err(),
        store.delete_scheduled_operation(scheduled.id).await.err(),
    ] {
        assert!(matches!(gone, Some(Error::NotFound { .. })), "{gone:?}");
    }
}

pub(crate) async fn a_ledger_is_numbered_and_found_again(world: World) {
    let store = &world.store;
    store.create_operation(&operation(1, OperationKind::Protect, "p"), at(0)).await.expect("queued");
    let claim = claim(store, 0).await.claim;
    let entry = |id: &str, reference: &str| NewLedgerEntry {
        resource: ResourceKey::new("T", id),
        kind: "snapshot".to_owned(),
        reference: reference.to_owned(),
        purpose: LedgerPurpose::Scaffold,
        data: json!({"of": id}),
    };
    assert_eq!(store.ledger_intend(&claim, &entry("a", "x"), at(1)).await.expect("intended"), 0);
    assert_eq!(store.ledger_intend(&claim, &entry("b", "x"), at(1)).await.expect("intended"), 1);
    assert_eq!(store.ledger_intend(&claim, &entry("a", "x"), at(1)).await.expect("the same"), 0);
    store.ledger_created(&claim, 0, "snap-1", at(2)).await.expect("noted");
    store.ledger_removed(&claim, 1, at(2)).await.expect("noted");
    let changed = NewLedgerEntry { purpose: LedgerPurpose::Product, data: Value::Null, ..entry("b", "x") };
    assert_eq!(store.ledger_intend(&claim, &changed, at(3)).await.expect("again"), 1);
    let ledger = store.list_ledger(claim.operation()).await.expect("listed");
    let told: Vec<_> = ledger.iter().map(|e| (e.id, e.reference.as_str(), e.state, e.purpose)).collect();
    assert_eq!(
        told,
        [
            (0, "snap-1", LedgerState::Created, LedgerPurpose::Scaffold),
            (1, "x", LedgerState::Intended, LedgerPurpose::Product),
        ]
    );
    assert_eq!((&ledger[0].data, &ledger[1].data), (&json!({"of": "a"}), &Value::Null));
    assert_eq!(ledger[0].resource, ResourceKey::new("T", "a"));
    let of_b = store.list_ledger_of(claim.operation(), &ResourceKey::new("T", "b")).await.expect("listed");
    assert_eq!(of_b, &ledger[1..]);
    let of_none = store.list_ledger_of(claim.operation(), &ResourceKey::new("U", "b")).await.expect("listed");
    assert_eq!(of_none, []);
    for missing in [
        store.ledger_created(&claim, 2, "y", at(4)).await.err(),
        store.ledger_removed(&claim, 2, at(4)).await.err(),
    ] {
        assert!(matches!(missing, Some(Error::NotFound { what: "ledger entry", .. })), "{missing:?}");
    }
}

pub(crate) async fn a_bank_account_is_made_once_with_defaults(world: World) {
    let store = &world.store;
    let project = crate::rows::project("p");
    assert_eq!(store.known_bank_account(&project, "files").await.expect("looked up"), None);
    let mut tasks = Vec::new();
    for second in 1..5 {
        let (store, project) = (world.other().await, project.clone());
        tasks.push(tokio::spawn(async move { store.bank_account(&project, "files", at(second)).await }));
    }
    let mut made = Vec::new();
    for task in tasks {
        made.push(task.await.expect("no panic").expect("made or found"));
    }
    assert!(made.iter().all(|account| *account == made[0]), "{made:?}");
    assert_eq!((made[0].quota_bytes, made[0].updated_at), (None, None));

    let quota = |bytes| BankAccountUpdate { quota_bytes: Some(bytes), ..BankAccountUpdate::default() };
    let set = store.update_bank_account(&project, "files", &quota(Some(7)), &[], at(9)).await.expect("set");
    assert_eq!((set.quota_bytes, set.created_at, set.updated_at), (Some(7), made[0].created_at, Some(at(9))));
    let other =
        store.update_bank_account(&project, "objects", &quota(None), &[], at(9)).await.expect("made and set");
    assert_eq!(store.list_bank_accounts(Some(&project)).await.expect("listed"), [set.clone(), other]);
    assert_eq!(store.bank_account(&project, "files", at(20)).await.expect("found"), set);
    let refused = store.update_bank_account(&project, "files", &quota(Some(u64::MAX)), &[], at(9)).await;
    assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    assert!(store.list_bank_accounts(Some(&crate::rows::project("q"))).await.expect("listed").is_empty());
}

pub(crate) async fn a_bank_account_moves_only_while_nothing_is_in_it(world: World) {
    let store = &world.store;
    let project = crate::rows::project("p");
    let text = |text: &str| Some(Some(text.to_owned()));
    let made = checkpoint(1, "p");
    let providers = [made.provider];
    let settings = BankAccountUpdate {
        place: text("s3://theirs"),
        credentials: text("sealed"),
        key_source: text("finance"),
        ..BankAccountUpdate::default()
    };
    let set = store.update_bank_account(&project, "files", &settings, &providers, at(1)).await.expect("set");
    let shown =
        (set.place.as_deref(), set.credentials.as_deref(), set.key_source.as_deref(), set.quota_bytes);
    assert_eq!(shown, (Some("s3://theirs"), Some("sealed"), Some("finance"), None));
    store.create_checkpoint(&made, &protect(&made), &UNLIMITED, at(2)).await.expect("made");

    let back = BankAccountUpdate { place: Some(None), ..BankAccountUpdate::default() };
    let refused = store.update_bank_account(&project, "files", &back, &providers, at(3)).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    // The same place again, and all else, can be said at any time; and so it can of a bank that holds nothing.
    let same = BankAccountUpdate { credentials: Some(None), ..settings };
    let set = store.update_bank_account(&project, "files", &same, &providers, at(4)).await.expect("set");
    assert_eq!((set.credentials, set.place.as_deref()), (None, Some("s3://theirs")));
    let elsewhere = [ProviderId(uuid(99))];
    store.update_bank_account(&project, "objects", &back, &elsewhere, at(5)).await.expect("set");
    let other = crate::rows::project("q");
    store
        .update_bank_account(&other, "files", &back, &providers, at(6))
        .await
        .expect("another project's is empty");
}

pub(crate) async fn the_default_class_holds_for_projects_without_limits(world: World) {
    let store = &world.store;
    let (own, other) = (crate::rows::project("own"), crate::rows::project("other"));
    let one = [(QuotaResource::Plans, Limit::At(1))];
    store.set_quota_class("default", &one, at(1)).await.expect("set");
    store.set_quota_class("gold", &[(QuotaResource::Plans, Limit::At(9))], at(1)).await.expect("set");
    store.set_quotas(&own, &[(QuotaResource::Plans, Limit::At(2))], at(1)).await.expect("set");
    let defaults = crate::rows::UNLIMITED;
    assert_eq!(store.get_quotas(&own, &defaults).await.expect("read").plans, Limit::At(2));
    assert_eq!(store.get_quotas(&other, &defaults).await.expect("read").plans, Limit::At(1));
    assert_eq!(store.default_quotas(&defaults).await.expect("read").plans, Limit::At(1));
    store.create_plan(&crate::rows::plan(1, "other"), &defaults).await.expect("the first");
    let second = store.create_plan(&crate::rows::plan(2, "other"), &defaults).await;
    assert!(matches!(second, Err(Error::OverQuota { limit: 1, .. })), "{second:?}");
    for number in [3, 4] {
        store.create_plan(&crate::rows::plan(number, "own"), &defaults).await.expect("its own limit is two");
    }
}
