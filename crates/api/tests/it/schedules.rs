//! Triggers: what is taken, what is refused and why, and when they fire.

use karbor_types::TriggerId;
use serde_json::{Value, json};

use crate::world::{Reply, World};

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
