//! Plans.

use karbor_store::{Error, Limit, Plan, PlanUpdate, QuotaResource};
use karbor_types::{Parameters, PlanId, ResourceKey};
use serde_json::json;

use crate::kit::World;
use crate::rows::{UNLIMITED, at, plan, quotas, resource, used, uuid};

pub(crate) async fn a_plan_is_read_as_it_was_written(world: World) {
    let mut second = resource("v2 ");
    second.extra_info = json!({"availability_zone": "nova", "deep": [1, {"é": null}]});
    let full = Plan {
        name: "Größe \u{1f680} 'quoted' \"twice\" \\ %_; DROP TABLE plans".to_owned(),
        description: Some(String::new()),
        status: None,
        resources: vec![second, resource("v1"), resource("v1")],
        parameters: Parameters::parse(&json!({"T": {"a": 1, "b": true}, "T#x": {"c": "d"}}))
            .expect("parameters"),
        updated_at: Some(at(9)),
        ..plan(1, "p")
    };
    world.store.create_plan(&full, &UNLIMITED).await.expect("created");
    assert_eq!(world.store.get_plan(full.id).await.expect("found"), full);
    let again = world.store.create_plan(&full, &UNLIMITED).await;
    assert!(matches!(again, Err(Error::AlreadyExists { what: "plan", .. })), "{again:?}");
    assert_eq!(used(&world.store, "p", QuotaResource::Plans).await, (1, 0));
    let missing = world.store.get_plan(PlanId(uuid(2))).await;
    assert!(matches!(missing, Err(Error::NotFound { what: "plan", .. })), "{missing:?}");
}

pub(crate) async fn an_update_changes_what_it_names(world: World) {
    let before = Plan { description: Some("old".to_owned()), ..plan(1, "p") };
    world.store.create_plan(&before, &UNLIMITED).await.expect("created");
    let nothing = world.store.update_plan(before.id, &PlanUpdate::default(), at(5)).await.expect("updated");
    assert_eq!(nothing, Plan { updated_at: Some(at(5)), ..before.clone() });
    let update = PlanUpdate {
        name: Some("new".to_owned()),
        description: Some(None),
        status: Some(Some("started".to_owned())),
        resources: Some(vec![resource("v7")]),
        only_if_status: None,
    };
    let after = world.store.update_plan(before.id, &update, at(6)).await.expect("updated");
    let expected = Plan {
        name: "new".to_owned(),
        description: None,
        status: Some("started".to_owned()),
        resources: vec![resource("v7")],
        updated_at: Some(at(6)),
        ..before.clone()
    };
    assert_eq!(after, expected);
    assert_eq!(world.store.get_plan(before.id).await.expect("found"), expected);
    assert_eq!(after.resources[0].key, ResourceKey::new("OS::Cinder::Volume", "v7"));
}

pub(crate) async fn an_update_can_ask_for_a_status(world: World) {
    let before = plan(1, "p");
    world.store.create_plan(&before, &UNLIMITED).await.expect("created");
    let start = PlanUpdate {
        status: Some(Some("started".to_owned())),
        only_if_status: Some("suspended".to_owned()),
        ..PlanUpdate::default()
    };
    world.store.update_plan(before.id, &start, at(1)).await.expect("it was suspended");
    let refused = world.store.update_plan(before.id, &start, at(2)).await;
    assert!(matches!(&refused, Err(Error::Conflict { state, .. }) if state == "started"), "{refused:?}");
    assert_eq!(world.store.get_plan(before.id).await.expect("found").updated_at, Some(at(1)));
    let missing = world.store.update_plan(PlanId(uuid(9)), &start, at(2)).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })), "{missing:?}");
}

pub(crate) async fn a_deleted_plan_is_gone_and_its_charge_too(world: World) {
    let one = plan(1, "p");
    world.store.create_plan(&one, &UNLIMITED).await.expect("created");
    world.store.delete_plan(one.id, at(1)).await.expect("deleted");
    assert_eq!(used(&world.store, "p", QuotaResource::Plans).await, (0, 0));
    for gone in [
        world.store.get_plan(one.id).await.err(),
        world.store.update_plan(one.id, &PlanUpdate::default(), at(2)).await.err(),
        world.store.delete_plan(one.id, at(2)).await.err(),
    ] {
        assert!(matches!(gone, Some(Error::NotFound { .. })), "{gone:?}");
    }
    assert_eq!(used(&world.store, "p", QuotaResource::Plans).await, (0, 0), "a second delete counts nothing");
    assert!(world.store.list_plans(&Default::default()).await.expect("listed").is_empty());
}

pub(crate) async fn the_last_free_place_is_given_once(world: World) {
    let limit = quotas(Limit::At(3), Limit::Unlimited);
    let other = world.other().await;
    let mut tasks = Vec::new();
    for number in 0..8 {
        let store = if number % 2 == 0 { world.store.clone() } else { other.clone() };
        tasks.push(tokio::spawn(async move { store.create_plan(&plan(number, "p"), &limit).await }));
    }
    let mut made = 0;
    for task in tasks {
        match task.await.expect("no panic") {
            Ok(()) => made += 1,
            Err(Error::OverQuota { resource: QuotaResource::Plans, limit: 3 }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(made, 3);
    assert_eq!(used(&world.store, "p", QuotaResource::Plans).await, (3, 0));
    assert_eq!(world.store.list_plans(&Default::default()).await.expect("listed").len(), 3);
    world.store.create_plan(&plan(9, "q"), &limit).await.expect("another project has places of its own");
}

pub(crate) async fn what_no_engine_could_hold_is_refused(world: World) {
    let bad = Plan { name: "a\0b".to_owned(), ..plan(1, "p") };
    let refused = world.store.create_plan(&bad, &UNLIMITED).await;
    assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    assert_eq!(used(&world.store, "p", QuotaResource::Plans).await, (0, 0));
}
