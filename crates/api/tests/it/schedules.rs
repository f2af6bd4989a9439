//! Triggers: what is taken, what is refused and why, and when they fire.

use karbor_store::{NewCheckpoint, NewOperation, PlanSnapshot, QuotaDefaults};
use karbor_types::{CheckpointId, CheckpointState, OperationId, OperationKind, TriggerId};
use serde_json::{Map, Value, json};

use crate::world::{NOOP, Reply, World};

/// The clock of a new world: 2026-11-22 22:29:14 UTC.
const DAILY: &str = "BEGIN:VEVENT\nRRULE:FREQ=DAILY;BYHOUR=3;BYMINUTE=0;BYSECOND=0\nEND:VEVENT";

async fn create(world: &World, version: &str, properties: Value) -> Reply {
    let body = json!({"trigger_info": {"name": "t", "type": "time", "properties": properties}});
    world.call_at(version, "member", "POST", "/v1/{P}/triggers", Some(&body)).await
}

/// Returns when the row says that the trigger fires next.
async fn next_at(world: &World, id: &str) -> Option<String> {
    let id: TriggerId = id.parse().expect("an id");
    let trigger = world.store.get_trigger(id).await.expect("a trigger");
    trigger.next_at.map(|at| at.to_string())
}

#[tokio::test]
async fn a_trigger_knows_when_it_fires_next() {
    let world = World::new().await;
    for (properties, next) in [
        (json!({"format": "crontab", "pattern": "0 3 * * *"}), Some("2026-11-23T03:00:00.000000Z")),
        (json!({"format": "calendar", "pattern": DAILY}), Some("2026-11-23T03:00:00.000000Z")),
        (
            json!({"format": "crontab", "pattern": "0 3 * * *", "start_time": "2027-01-01 00:00:00"}),
            Some("2027-01-01T03:00:00.000000Z"),
        ),
        // Over before it could fire again.
        (
            json!({"format": "crontab", "pattern": "0 3 * * *", "start_time": "2026-01-01 00:00:00",
                   "end_time": "2026-02-01 00:00:00"}),
            None,
        ),
    ] {
        let made = create(&world, "", properties.clone()).await.ok();
        let id = made["trigger_info"]["id"].as_str().expect("an id");
        assert_eq!(next_at(&world, id).await.as_deref(), next, "{properties}");
        assert_eq!(made["trigger_info"].get("next_at"), None, "version 1.0 does not tell");
    }
    let made = create(
        &world,
        "1.2",
        json!({"format": "crontab", "pattern": "0 3 * * *", "time_zone": "Europe/Rome"}),
    );
    let made = made.await.ok();
    assert_eq!(made["trigger_info"]["next_at"], "2026-11-23T02:00:00.000000Z");
    let path = format!("/v1/{{P}}/triggers/{}", made["trigger_info"]["id"].as_str().expect("an id"));
    let old = world.get("member", &path).await.ok();
    assert_eq!(old["trigger_info"]["properties"].get("time_zone"), None);
    let change = json!({"trigger_info": {"properties": {"pattern": "30 4 * * *"}}});
    let changed = world.call_at("1.2", "member", "PUT", &path, Some(&change)).await.ok();
    assert_eq!(changed["trigger_info"]["next_at"], "2026-11-23T03:30:00.000000Z");
    // A new name changes nothing else.
    let change = json!({"trigger_info": {"name": "other"}});
    let changed = world.call_at("1.2", "member", "PUT", &path, Some(&change)).await.ok();
    assert_eq!(changed["trigger_info"]["next_at"], "2026-11-23T03:30:00.000000Z");
    assert_eq!(changed["trigger_info"]["properties"]["time_zone"], "Europe/Rome");
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_field() {
    let world = World::new().await;
    let good = json!({"format": "crontab", "pattern": "0 */2 * * *"});
    let made = create(&world, "1.2", good.clone()).await.ok();
    let path = format!("/v1/{{P}}/triggers/{}", made["trigger_info"]["id"].as_str().expect("an id"));
    let event = |lines: &str| format!("BEGIN:VEVENT\n{lines}\nEND:VEVENT");
    for (properties, parts) in [
        (json!({"pattern": "0 3 30 2 *"}), ["pattern", "no month has"]),
        (json!({"pattern": "0 3 * *"}), ["pattern", "five fields"]),
        (json!({"pattern": "*/30 * * * *"}), ["pattern", "1800 seconds"]),
        (json!({"pattern": "* * * * * *"}), ["pattern", "every 1 seconds"]),
        (json!({"pattern": event("RRULE:FREQ=DAILY")}), ["pattern", "five fields"]),
        (json!({"format": "calendar"}), ["pattern", "no VEVENT"]),
        (
            json!({"format": "calendar", "pattern": event("RRULE:FREQ=SECONDLY")}),
            ["pattern", "every 1 seconds"],
        ),
        (
            json!({"format": "calendar", "pattern": event("RRULE:FREQ=DAILY\nRRULE:FREQ=DAILY;BYMINUTE=59;BYSECOND=0")}),
            ["pattern", "at times"],
        ),
        (
            json!({"format": "calendar", "pattern": event("RRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30")}),
            ["pattern", "names no time"],
        ),
        (
            json!({"format": "calendar", "pattern": event("DTSTART;TZID=Europe/Atlantis:20270101T000000\nRRULE:FREQ=DAILY")}),
            ["pattern", "Europe/Atlantis"],
        ),
        (json!({"format": "both"}), ["format", "calendar or crontab"]),
        (json!({"time_zone": "Europe/Atlantis"}), ["time_zone", "does not exist"]),
        (json!({"start_time": "tomorrow"}), ["start_time", "UTC time"]),
        (json!({"end_time": "2027-02-30 00:00:00"}), ["end_time", "UTC time"]),
        (
            json!({"start_time": "2027-02-01 00:00:00", "end_time": "2027-01-01T00:00:00Z"}),
            ["end_time", "later than start_time"],
        ),
        (json!({"window": 899}), ["window", "900 to 1800"]),
        (json!({"window": 1801}), ["window", "900 to 1800"]),
    ] {
        let mut whole = good.clone();
        for (name, value) in properties.as_object().expect("an object") {
            whole[name] = value.clone();
        }
        let change = json!({"trigger_info": {"properties": properties}});
        for reply in [
            create(&world, "1.2", whole).await,
            world.call_at("1.2", "member", "PUT", &path, Some(&change)).await,
        ] {
            assert_eq!(reply.status, 400, "{properties}: {}", reply.text);
            let fault = reply.fault();
            assert!(fault.contains(&format!("properties.{}", parts[0])), "{properties}: {fault}");
            assert!(fault.contains(parts[1]), "{properties}: {fault}");
        }
    }
    // What was refused has changed nothing.
    let still = world.call_at("1.2", "member", "GET", &path, None).await.ok();
    assert_eq!(still["trigger_info"], made["trigger_info"]);
    // Zones came later.
    let zoned = json!({"format": "crontab", "pattern": "0 3 * * *", "time_zone": "Europe/Rome"});
    assert_eq!(create(&world, "1.1", zoned).await.status, 400);
}

#[tokio::test]
async fn a_window_is_not_longer_than_the_interval() {
    let settings = karbor_actions::Settings {
        min_interval_seconds: 60,
        max_window_seconds: 7200,
        ..karbor_actions::Settings::default()
    };
    let world = World::with(crate::world::Setup { settings, ..Default::default() }).await;
    let properties = |window: u32| json!({"format": "crontab", "pattern": "0 * * * *", "window": window});
    assert_eq!(create(&world, "", properties(3600)).await.status, 200);
    let reply = create(&world, "", properties(3601)).await;
    assert!(reply.fault().contains("properties.window: must not be longer than 3600"), "{}", reply.text);
}

#[tokio::test]
async fn times_are_shown_before_they_come() {
    let world = World::new().await;
    let made = create(&world, "", json!({"format": "calendar", "pattern": DAILY})).await.ok();
    let path = format!("/v1/{{P}}/triggers/{}/preview", made["trigger_info"]["id"].as_str().expect("an id"));
    assert_eq!(world.get("member", &path).await.status, 404, "version 1.0 has no previews");
    let shown = world.call_at("1.2", "member", "GET", &format!("{path}?count=2"), None).await.ok();
    assert_eq!(
        shown["preview"],
        json!({
            "occurrences": ["2026-11-23T03:00:00.000000Z", "2026-11-24T03:00:00.000000Z"],
            "shortest_gap_seconds": 86400, "longest_gap_seconds": 86400, "window_seconds": 900,
        })
    );
    let shown = world.call_at("1.2", "member", "GET", &path, None).await.ok();
    assert_eq!(shown["preview"]["occurrences"].as_array().map(Vec::len), Some(10));
    for (query, status) in [("count=100", 200), ("count=101", 400), ("count=0", 400), ("count=x", 400)] {
        let reply = world.call_at("1.2", "member", "GET", &format!("{path}?{query}"), None).await;
        assert_eq!(reply.status, status, "{query}");
    }

    let ask = |properties: Value| json!({"preview": {"properties": properties, "count": 3}});
    let post = |body: Value| {
        let world = &world;
        async move { world.call_at("1.2", "member", "POST", "/v1/{P}/trigger_previews", Some(&body)).await }
    };
    let once = "BEGIN:VEVENT\nRRULE:FREQ=DAILY;COUNT=1;BYHOUR=3;BYMINUTE=0;BYSECOND=0\nEND:VEVENT";
    let shown = post(ask(json!({"format": "calendar", "pattern": once}))).await.ok();
    assert_eq!(shown["preview"]["occurrences"], json!(["2026-11-23T03:00:00.000000Z"]));
    assert_eq!(shown["preview"]["shortest_gap_seconds"], Value::Null);
    let refused = post(ask(json!({"format": "crontab", "pattern": "0 3 30 2 *"}))).await;
    assert_eq!(refused.status, 400);
    assert!(refused.fault().contains("properties.pattern"));
    for body in [json!({}), json!({"preview": {}}), json!({"preview": {"properties": {}, "count": "3"}})] {
        assert_eq!(post(body.clone()).await.status, 400, "{body}");
    }
}

async fn create_event(world: &World, who: &str, properties: Value) -> Reply {
    let body = json!({"trigger_info": {"name": "e", "type": "event", "properties": properties}});
    world.call_at("1.2", who, "POST", "/v1/{P}/triggers", Some(&body)).await
}

/// Calls an address as somebody without a token.
async fn call(world: &World, address: &str, key: Option<&str>) -> Reply {
    let path = address.strip_prefix("http://karbor.test:8799").unwrap_or(address);
    let mut request = axum::http::Request::builder().method("POST").uri(path);
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    world.send(request.body(axum::body::Body::empty()).expect("a request")).await
}

#[tokio::test]
async fn a_trigger_fires_when_its_address_is_called() {
    let world = World::new().await;
    let made = create_event(&world, "member", json!({})).await.ok();
    let id = made["trigger_info"]["id"].as_str().expect("an id");
    let address = made["trigger_info"]["address"].as_str().expect("an address").to_owned();
    assert!(address.starts_with(&format!("http://karbor.test:8799/webhooks/{id}/")), "{address}");
    assert_eq!(next_at(&world, id).await, None);
    let path = format!("/v1/{{P}}/triggers/{id}");
    let shown = world.call_at("1.2", "member", "GET", &path, None).await.ok();
    assert_eq!(shown["trigger_info"].get("address"), None, "an address is shown once");
    assert!(!shown.to_string().contains("webhooks"));

    let fired = call(&world, &address, Some("one")).await;
    assert_eq!(fired.status, 202, "{}", fired.text);
    assert_eq!(fired.json["event"]["fired"], true);
    let at = next_at(&world, id).await.expect("it is due");
    assert_eq!(fired.json["event"]["occurrence_at"], json!(at));
    // The same call again, and another before the first is handed out, fire nothing more.
    for key in [Some("one"), Some("two"), None] {
        let again = call(&world, &address, key).await;
        assert_eq!(again.json["event"], json!({"occurrence_at": at, "fired": false}), "{key:?}");
    }
    let trigger: TriggerId = id.parse().expect("an id");
    let handed_out = karbor_store::TriggerUpdate { next_at: Some(None), ..Default::default() };
    world.store.update_trigger(trigger, &handed_out, world.now()).await.expect("handed out");
    let again = call(&world, &address, Some("two")).await;
    assert_eq!(again.json["event"], json!({"occurrence_at": at, "fired": false}));
    let fresh = call(&world, &address, Some("three")).await;
    assert_eq!(fresh.json["event"]["fired"], true);
    assert_ne!(fresh.json["event"]["occurrence_at"], json!(at));
}

#[tokio::test]
async fn a_wrong_address_is_answered_like_one_that_does_not_exist() {
    let world = World::new().await;
    let made = create_event(&world, "member", json!({"window": 900})).await.ok();
    let address = made["trigger_info"]["address"].as_str().expect("an address").to_owned();
    let other = create_event(&world, "other", json!({})).await.ok();
    let other = other["trigger_info"]["address"].as_str().expect("an address").to_owned();
    let (_, signature) = address.rsplit_once('/').expect("a signature");
    let (theirs, _) = other.rsplit_once('/').expect("a signature");
    let flipped =
        format!("{}{}", &address[..address.len() - 1], if address.ends_with('0') { '1' } else { '0' });
    let timed = create(&world, "", json!({"format": "crontab", "pattern": "0 3 * * *"})).await.ok();
    let timed = timed["trigger_info"]["id"].as_str().expect("an id").to_owned();
    let mut bodies = Vec::new();
    for wrong in [
        flipped,
        format!("{theirs}/{signature}"),
        format!("/webhooks/{timed}/{signature}"),
        format!("/webhooks/deadbeef-dead-4eef-8ead-beefdeadbeef/{signature}"),
        format!("/webhooks/{timed}/x"),
    ] {
        let reply = call(&world, &wrong, None).await;
        assert_eq!(reply.status, 404, "{wrong}: {}", reply.text);
        bodies.push(reply.text);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert_eq!(next_at(&world, &timed).await.as_deref(), Some("2026-11-23T03:00:00.000000Z"));

    let path = format!("/v1/{{P}}/triggers/{}/address", made["trigger_info"]["id"].as_str().expect("an id"));
    let rotated = world.call_at("1.2", "member", "PUT", &path, None).await.ok();
    let fresh = rotated["trigger_info"]["address"].as_str().expect("an address");
    assert_ne!(fresh, address);
    assert_eq!(call(&world, &address, None).await.status, 404, "the old address answers no longer");
    assert_eq!(call(&world, fresh, None).await.status, 202);
    let path = format!("/v1/{{P}}/triggers/{timed}/address");
    assert_eq!(world.call_at("1.2", "member", "PUT", &path, None).await.status, 400);
}

#[tokio::test]
async fn a_trigger_is_called_only_so_often() {
    let world = World::new().await;
    let made = create_event(&world, "member", json!({})).await.ok();
    let address = made["trigger_info"]["address"].as_str().expect("an address").to_owned();
    let mut statuses = Vec::new();
    for _ in 0..30 {
        statuses.push(call(&world, &address, None).await.status);
    }
    assert_eq!(statuses[0], 202);
    assert!(statuses.contains(&429), "{statuses:?}");
}

#[tokio::test]
async fn event_triggers_are_unknown_to_old_clients_and_have_no_times() {
    let world = World::new().await;
    let body = json!({"trigger_info": {"name": "e", "type": "event", "properties":
        {"format": "crontab", "pattern": "0 3 * * *"}}});
    for version in ["", "1.1"] {
        let reply = world.call_at(version, "member", "POST", "/v1/{P}/triggers", Some(&body)).await;
        assert_eq!(reply.status, 400);
        assert!(reply.fault().contains("must be `time`"), "{}", reply.text);
    }
    let reply = world.call_at("1.2", "member", "POST", "/v1/{P}/triggers", Some(&body)).await;
    assert!(reply.fault().contains("properties.format"), "{}", reply.text);
    assert_eq!(create_event(&world, "member", json!({"window": 1})).await.status, 400);
    let made = create_event(&world, "member", json!({})).await.ok();
    let path = format!("/v1/{{P}}/triggers/{}", made["trigger_info"]["id"].as_str().expect("an id"));
    assert_eq!(world.call_at("1.2", "member", "GET", &format!("{path}/preview"), None).await.status, 400);
    let change = json!({"trigger_info": {"type": "time"}});
    assert_eq!(world.call_at("1.2", "member", "PUT", &path, Some(&change)).await.status, 400);
    assert_eq!(world.delete("member", &path).await.status, 200);
}

#[tokio::test]
async fn a_held_checkpoint_is_not_deleted() {
    let world = World::new().await;
    let id = world.checkpoint("member").await;
    let path = format!("/v1/{{P}}/providers/{NOOP}/checkpoints/{id}");
    let hold = format!("{path}/hold");
    let body = json!({"hold": {"reason": "an audit"}});
    assert_eq!(world.call("member", "PUT", &hold, Some(&body)).await.status, 404, "not in version 1.0");
    let held = world.call_at("1.2", "member", "PUT", &hold, Some(&body)).await.ok();
    assert_eq!(held["hold"]["reason"], "an audit");
    // Held again it stays held as it was.
    let again = world.call_at("1.2", "admin", "PUT", &hold, Some(&json!({"hold": {}}))).await.ok();
    assert_eq!(again["hold"], held["hold"]);
    let shown = world.call_at("1.2", "member", "GET", &path, None).await.ok();
    assert_eq!(shown["checkpoint"]["hold"], held["hold"]);
    let list = format!("/v1/{{P}}/providers/{NOOP}/checkpoints");
    let listed = world.call_at("1.2", "member", "GET", &list, None).await.ok();
    assert_eq!(listed["checkpoints"][0]["hold"], held["hold"]);
    assert_eq!(world.get("member", &path).await.ok()["checkpoint"].get("hold"), None);
    for who in ["member", "admin"] {
        let refused = world.delete(who, &path).await;
        assert_eq!(refused.status, 409, "{}", refused.text);
        assert!(refused.fault().contains("is held"), "{}", refused.text);
    }
    assert_eq!(world.call_at("1.2", "member", "DELETE", &hold, None).await.status, 200);
    assert_eq!(world.call_at("1.2", "member", "DELETE", &hold, None).await.status, 200);
    assert_eq!(world.delete("member", &path).await.status, 200);
    let late = world.call_at("1.2", "member", "PUT", &hold, Some(&body)).await;
    assert_eq!(late.status, 409, "{}", late.text);
}

/// Schedules a plan daily and returns the ids of plan and scheduled operation.
async fn schedule(world: &World, definition: Value) -> (String, String) {
    let plan = world.plan("member").await;
    let trigger = create(world, "", json!({"format": "calendar", "pattern": DAILY})).await.ok();
    let mut whole = json!({"provider_id": NOOP, "plan_id": plan});
    for (name, value) in definition.as_object().expect("an object") {
        whole[name] = value.clone();
    }
    let body = json!({"scheduled_operation": {"name": "s", "operation_type": "retention_protect",
        "trigger_id": trigger["trigger_info"]["id"], "operation_definition": whole}});
    let made = world.post("member", "/v1/{P}/scheduled_operations", body).await.ok();
    (plan, made["scheduled_operation"]["id"].as_str().expect("an id").to_owned())
}

/// Makes a checkpoint of a plan as a scheduled operation, or by hand.
async fn protect(world: &World, plan: &str, operation: Option<&str>) -> String {
    let Some(operation) = operation else {
        let path = format!("/v1/{{P}}/providers/{NOOP}/checkpoints");
        let made = world.post("member", &path, json!({"checkpoint": {"plan_id": plan}})).await.ok();
        world.work().await;
        return made["checkpoint"]["id"].as_str().expect("an id").to_owned();
    };
    // As the operation engine does it: no request may say so. The id comes behind those that were drawn before.
    let id: OperationId = world.plan("member").await.parse().expect("an id");
    let row = world.store.get_plan(plan.parse().expect("an id")).await.expect("the plan");
    let checkpoint = NewCheckpoint {
        id: CheckpointId(id.0),
        project: row.project.clone(),
        provider: row.provider,
        plan: PlanSnapshot {
            id: row.id,
            name: row.name,
            provider_id: row.provider,
            resources: row.resources,
        },
        state: CheckpointState::Protecting,
        extra_info: Map::from_iter([("scheduled_operation_id".to_owned(), json!(operation))]),
    };
    let queued = NewOperation {
        id,
        kind: OperationKind::Protect,
        project: row.project,
        user: None,
        plan: Some(row.id),
        checkpoint: Some(checkpoint.id),
        restore: None,
        verification: None,
        provider: Some(row.provider),
        priority: 0,
        due_at: world.now(),
        request: json!({}),
        log: None,
        scheduled_operation: None,
        occurrence: None,
    };
    let quota = QuotaDefaults::default();
    world.store.create_checkpoint(&checkpoint, &queued, &quota, world.now()).await.expect("queued");
    world.work().await;
    id.to_string()
}

#[tokio::test]
async fn rules_of_retention_that_cannot_be_read_are_refused() {
    let world = World::new().await;
    let (plan, _) = schedule(&world, json!({"keep_daily": 7, "keep_yearly": "2", "keep_minimum": 1})).await;
    let trigger = create(&world, "", json!({"format": "calendar", "pattern": DAILY})).await.ok();
    for (name, value) in [
        ("max_backups", json!("many")),
        ("retention_duration", json!("1.5")),
        ("keep_hourly", json!("x")),
        ("keep_minimum", json!("")),
    ] {
        let mut definition = json!({"provider_id": NOOP, "plan_id": plan});
        definition[name] = value;
        let body = json!({"scheduled_operation": {"name": "s", "operation_type": "retention_protect",
            "trigger_id": trigger["trigger_info"]["id"], "operation_definition": definition}});
        let refused = world.post("member", "/v1/{P}/scheduled_operations", body).await;
        assert_eq!(refused.status, 400, "{name}: {}", refused.text);
        assert!(
            refused.fault().contains(&format!("operation_definition.{name} must be")),
            "{}",
            refused.text
        );
    }
}

#[tokio::test]
async fn what_retention_would_delete_is_shown_with_its_reason() {
    let world = World::new().await;
    let (plan, operation) = schedule(&world, json!({"max_backups": 2})).await;
    let mut ids = Vec::new();
    for made_by in [Some(operation.as_str()), Some(&operation), None, Some(&operation), Some(&operation)] {
        ids.push(protect(&world, &plan, made_by).await);
    }
    let hold = format!("/v1/{{P}}/providers/{NOOP}/checkpoints/{}/hold", ids[1]);
    assert_eq!(world.call_at("1.2", "member", "PUT", &hold, Some(&json!({"hold": {}}))).await.status, 200);
    let path = format!("/v1/{{P}}/scheduled_operations/{operation}/retention");
    assert_eq!(world.get("member", &path).await.status, 404, "not in version 1.0");
    let shown = world.call_at("1.2", "member", "GET", &path, None).await.ok();
    assert_eq!(shown["retention"]["policy"]["max_backups"], 2);
    let verdicts: Vec<(&str, &str, &str)> = shown["retention"]["checkpoints"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| {
            let text = |name: &str| one[name].as_str().expect("a text");
            (text("id"), text("action"), text("reason"))
        })
        .collect();
    assert_eq!(
        verdicts,
        [
            (ids[4].as_str(), "keep", "newest"),
            (&ids[3], "keep", "within_limits"),
            (&ids[2], "keep", "not_of_this_operation"),
            (&ids[1], "keep", "held"),
            (&ids[0], "delete", "max_backups"),
        ]
    );
    let still = format!("/v1/{{P}}/providers/{NOOP}/checkpoints/{}", ids[0]);
    assert_eq!(world.get("member", &still).await.ok()["checkpoint"]["status"], "available");
}

#[tokio::test]
async fn a_plan_is_late_when_its_newest_checkpoint_is_older_than_promised() {
    let world = World::new().await;
    let (plan, _) = schedule(&world, json!({})).await;
    let path = format!("/v1/{{P}}/plans/{plan}");
    let rpo =
        || async { world.call_at("1.2", "member", "GET", &path, None).await.ok()["plan"]["rpo"].clone() };
    let late = |who: &'static str, query: &'static str| {
        let world = &world;
        async move {
            let path = format!("/v1/{{P}}/late_plans{query}");
            let plans = world.call_at("1.2", who, "GET", &path, None).await.ok();
            plans["plans"].as_array().map(Vec::len)
        }
    };
    // A day, and the window.
    assert_eq!(
        rpo().await,
        json!({"last_checkpoint_at": null, "age_seconds": null, "promise_seconds": 87_300, "late": false})
    );
    assert_eq!(late("member", "").await, Some(0));
    let advance = |seconds: i64| {
        world.clock.fetch_add(seconds * 1_000_000, std::sync::atomic::Ordering::Relaxed);
    };
    advance(87_400);
    assert_eq!(rpo().await["late"], true, "nothing was ever made");
    assert_eq!(late("member", "").await, Some(1));
    assert_eq!(late("other", "").await, Some(0));
    assert_eq!(late("other", "?all_tenants=true").await, Some(0));
    assert_eq!(late("otheradmin", "?all_tenants=true").await, Some(1));
    protect(&world, &plan, None).await;
    assert_eq!(rpo().await["late"], false);
    advance(87_000);
    let shown = rpo().await;
    assert_eq!(shown["late"], false);
    assert!(shown["age_seconds"].as_i64().is_some_and(|age| (87_000..87_100).contains(&age)), "{shown}");
    advance(400);
    assert_eq!(rpo().await["late"], true);
    let list = world.call_at("1.2", "member", "GET", "/v1/{P}/plans", None).await.ok();
    assert_eq!(list["plans"][0]["rpo"]["late"], true);
    assert_eq!(world.get("member", &path).await.ok()["plan"].get("rpo"), None);
}

#[tokio::test]
async fn a_change_loses_no_occurrence_that_is_due() {
    let world = World::new().await;
    let made = create(&world, "1.2", json!({"format": "crontab", "pattern": "0 3 * * *"})).await.ok();
    let path = format!("/v1/{{P}}/triggers/{}", made["trigger_info"]["id"].as_str().expect("an id"));
    let change = |pattern: &str| json!({"trigger_info": {"properties": {"pattern": pattern}}});
    let changed = world.call_at("1.2", "member", "PUT", &path, Some(&change("0 4 * * *"))).await.ok();
    assert_eq!(changed["trigger_info"]["next_at"], "2026-11-23T04:00:00.000000Z");
    // Four o'clock has come, and nobody has handed it out yet.
    world.clock.fetch_add(8 * 3600 * 1_000_000, std::sync::atomic::Ordering::Relaxed);
    let changed = world.call_at("1.2", "member", "PUT", &path, Some(&change("0 5 * * *"))).await.ok();
    assert_eq!(changed["trigger_info"]["next_at"], "2026-11-23T04:00:00.000000Z");
    assert_eq!(changed["trigger_info"]["properties"]["pattern"], "0 5 * * *");
}
