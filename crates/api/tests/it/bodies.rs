//! What version 1.0 answers, member for member.

use serde_json::{Value, json};

use crate::world::{INFRA, NOOP, PROJECT, VOLUME, World, plan_body};

#[tokio::test]
async fn a_plan_is_shown_as_ever() {
    let world = World::new().await;
    let mut body = plan_body();
    body["provider_id"] = INFRA.into();
    body["parameters"] = json!({
        "OS::Cinder::Volume": {"force": true, "backup_name": "b", "container": null},
        format!("OS::Cinder::Volume#{VOLUME}"): {"force": "false"}, "OS::Nova::Server": {}});
    body["resources"] = json!([
        {"id": VOLUME, "type": "OS::Cinder::Volume", "name": "vol-1", "extra_info": {"az": "1", "n": [1]}, "x": 1},
        {"id": "s", "type": "OS::Nova::Server", "name": null}]);
    let made = world.post("member", "/v1/{P}/plans", json!({ "plan": body })).await.ok();
    let id = made["plan"]["id"].as_str().expect("an id").to_owned();
    let expected = json!({"plan": {
        "id": id, "name": "plan-a", "description": "first", "provider_id": INFRA, "status": "suspended",
        "resources": [
            {"id": VOLUME, "name": "vol-1", "type": "OS::Cinder::Volume", "extra_info": {"az": "1", "n": [1]}},
            {"id": "s", "name": "", "type": "OS::Nova::Server"}],
        "parameters": {
            "OS::Cinder::Volume": {"force": "True", "backup_name": "b"},
            format!("OS::Cinder::Volume#{VOLUME}"): {"force": "False"}, "OS::Nova::Server": {}}}});
    assert_eq!(made, expected);
    for suffix in ["", ".json", ".xml"] {
        assert_eq!(world.get("member", &format!("/v1/{{P}}/plans/{id}{suffix}")).await.ok(), expected);
        let list = world.get("member", &format!("/v1/{{P}}/plans{suffix}")).await.ok();
        assert_eq!(list, json!({"plans": [expected["plan"]]}));
    }
    let gone = world.delete("member", &format!("/v1/{{P}}/plans/{id}")).await;
    assert_eq!(
        (gone.status, gone.text.as_str(), gone.header("content-type")),
        (200, "", Some("application/json"))
    );
    assert_eq!(gone.header("openstack-api-version"), None);
}

#[tokio::test]
async fn a_checkpoint_is_shown_as_ever() {
    let world = World::new().await;
    let mut body = plan_body();
    body["resources"][0]["extra_info"] = json!({"az": "1"});
    let plan = world.post("member", "/v1/{P}/plans", json!({ "plan": body })).await.ok();
    let plan = plan["plan"]["id"].as_str().expect("an id").to_owned();
    let path = format!("/v1/{{P}}/providers/{NOOP}/checkpoints");
    let body = json!({"checkpoint": {"plan_id": plan, "extra-info": {"why": "test", "n": 1}}});
    let made = world.post("member", &path, body).await.ok();
    let id = made["checkpoint"]["id"].as_str().expect("an id").to_owned();
    let resource =
        json!({"id": VOLUME, "type": "OS::Cinder::Volume", "name": "vol-1", "extra_info": "{\"az\": \"1\"}"});
    let extra_info = "{\"created_by\": \"manual\", \"n\": 1, \"why\": \"test\"}";
    assert_eq!(
        made,
        json!({"checkpoint": {
        "id": id, "project_id": PROJECT, "status": "protecting", "created_at": null, "extra_info": extra_info,
        "protection_plan": {"id": plan, "name": "plan-a", "resources": [resource]}}})
    );
    assert_eq!(world.wakes.load(std::sync::atomic::Ordering::Relaxed), 1);
    world.work().await;
    let graph =
        format!("[{{\"0x0\": [\"OS::Cinder::Volume\", \"{VOLUME}\", \"vol-1\", {{\"az\": \"1\"}}]}}, []]");
    let expected = json!({
        "id": id, "project_id": PROJECT, "status": "available", "created_at": "2026-11-22",
        "extra_info": extra_info, "resource_graph": graph,
        "protection_plan": {"id": plan, "name": "plan-a", "provider_id": NOOP, "resources": [resource]}});
    assert_eq!(world.get("member", &format!("{path}/{id}")).await.ok(), json!({"checkpoint": expected}));
    assert_eq!(world.get("member", &path).await.ok(), json!({"checkpoints": [expected]}));
    for (body, status) in [
        (json!({"plan_id": plan, "extra-info": null}), 200),
        (json!({"plan_id": plan, "extra_info": {"a": "b"}}), 200),
        (json!({"plan_id": plan, "extra_info": {"a": null}}), 400),
        // Retention goes by it: whoever could write it could have others' checkpoints counted, or their own deleted.
        (json!({"plan_id": plan, "extra_info": {"scheduled_operation_id": VOLUME}}), 400),
        (json!({"plan_id": plan, "extra-info": {"scheduled_operation_id": VOLUME}}), 400),
        (json!({"plan_id": plan, "extra-info": {}, "extra_info": {}}), 400),
        (json!({"plan_id": plan, "extra_info": [1]}), 400),
        (json!({"plan_id": plan, "colour": 1}), 400),
        (json!({"plan_id": "abc"}), 400),
        (json!({}), 400),
    ] {
        assert_eq!(world.post("member", &path, json!({"checkpoint": body})).await.status, status, "{body}");
    }
    let wrong = format!("/v1/{{P}}/providers/{INFRA}/checkpoints");
    assert_eq!(world.post("member", &wrong, json!({"checkpoint": {"plan_id": plan}})).await.status, 400);
}

#[tokio::test]
async fn restores_verifications_and_logs_are_shown_as_ever() {
    let world = World::new().await;
    let checkpoint = world.checkpoint("member").await;
    let parameters = json!({"OS::Cinder::Volume": {"n": 5, "yes": true}});
    let shown = json!({"OS::Cinder::Volume": {"n": "5", "yes": "True"}});
    let restore = json!({"restore": {"provider_id": NOOP, "checkpoint_id": checkpoint, "parameters": parameters,
        "restore_target": null, "restore_auth": null}});
    let made = world.post("member", "/v1/{P}/restores", restore).await.ok();
    let id = made["restore"]["id"].as_str().expect("an id").to_owned();
    let mut expected = json!({"restore": {
        "id": id, "project_id": PROJECT, "provider_id": NOOP, "checkpoint_id": checkpoint, "restore_target": null,
        "parameters": shown, "status": "in_progress", "resources_status": {}, "resources_reason": {}}});
    assert_eq!(made, expected);
    world.work().await;
    expected["restore"]["status"] = "success".into();
    assert_eq!(world.get("member", &format!("/v1/{{P}}/restores/{id}")).await.ok(), expected);

    let verification = json!({"verification": {"provider_id": NOOP, "checkpoint_id": checkpoint}});
    let made = world.post("member", "/v1/{P}/verifications", verification).await.ok();
    assert_eq!(
        made,
        json!({"verification": {
        "id": made["verification"]["id"], "project_id": PROJECT, "provider_id": NOOP, "checkpoint_id": checkpoint,
        "parameters": {}, "status": "in_progress", "resources_status": {}, "resources_reason": {}}})
    );

    let logs = world.get("member", "/v1/{P}/operation_logs?status=success").await.ok();
    let log = &logs["operation_logs"][0];
    assert_eq!(
        *log,
        json!({
        "id": log["id"], "operation_type": "restore", "checkpoint_id": checkpoint, "plan_id": log["plan_id"],
        "provider_id": NOOP, "restore_id": id, "scheduled_operation_id": null, "status": "success",
        "started_at": log["started_at"], "ended_at": log["ended_at"], "error_info": null, "extra_info": null})
    );
    let started = log["started_at"].as_str().expect("a time");
    assert!(started.starts_with("2026-11-22T22:29:") && started.len() == 26, "{started}");
    let path = format!("/v1/{{P}}/operation_logs/{}", log["id"].as_str().expect("an id"));
    assert_eq!(world.get("member", &path).await.ok(), json!({"operation_log": log}));
}

#[tokio::test]
async fn providers_and_protectables_are_shown_as_ever() {
    let world = World::new().await;
    let list = world.get("member", "/v1/{P}/providers").await.ok();
    let noop = &list["providers"][0];
    assert_eq!((&noop["id"], &noop["name"]), (&json!(NOOP), &json!("No-Op Provider")));
    let schemas = noop["extended_info_schema"].as_object().expect("schemas");
    let names: Vec<&str> = schemas.keys().map(String::as_str).collect();
    assert_eq!(names, ["options_schema", "restore_schema", "saved_info_schema"]);
    assert_eq!(schemas["options_schema"]["OS::Cinder::Volume"], json!({}));
    let one = world.get("member", &format!("/v1/{{P}}/providers/{NOOP}")).await.ok();
    assert_eq!(one, json!({"provider": noop}));

    let types = world.get("member", "/v1/{P}/protectables").await.ok();
    assert_eq!(types["protectable_type"].as_array().map(Vec::len), Some(8));
    assert_eq!(
        world.get("member", "/v1/{P}/protectables/OS::Nova::Server").await.ok(),
        json!({"protectable_type": {"name": "OS::Nova::Server",
            "dependent_types": ["OS::Cinder::Volume", "OS::Glance::Image"]}})
    );
    let server = json!({
        "id": "22222222-2222-4222-8222-000000000001", "type": "OS::Nova::Server", "name": "vm-1", "extra_info": null,
        "dependent_resources": [{"id": "11111111-1111-4111-8111-000000000002", "type": "OS::Cinder::Volume",
                                 "name": "vol-2", "extra_info": null}]});
    let path = "/v1/{P}/protectables/OS::Nova::Server/instances";
    assert_eq!(world.get("member", path).await.ok(), json!({"instances": [server]}));
    let path =
        format!("{path}/22222222-2222-4222-8222-000000000001?parameters=%7B%27name%27%3A+%27ns%3Apod1%27%7D");
    assert_eq!(world.get("member", &path).await.ok(), json!({"instance": server}));
    assert_eq!(
        world.get("other", "/v1/{P}/protectables/OS::Nova::Server/instances").await.ok(),
        json!({"instances": []})
    );
}

#[tokio::test]
async fn triggers_and_schedules_are_shown_as_ever() {
    let world = World::new().await;
    let pattern = "BEGIN:VEVENT\nRRULE:FREQ=DAILY;INTERVAL=1;\nEND:VEVENT";
    let trigger = |properties: Value| json!({"trigger_info": {"name": "daily", "type": "time", "properties": properties}});
    let full = json!({"format": "calendar", "pattern": pattern, "start_time": "2030-12-17T08:30:00Z",
                      "end_time": "2031-12-17 08:30:00", "window": 900});
    let made = world.post("member", "/v1/{P}/triggers", trigger(full)).await.ok();
    let id = made["trigger_info"]["id"].as_str().expect("an id").to_owned();
    assert_eq!(
        made,
        json!({"trigger_info": {"id": id, "name": "daily", "type": "time", "properties": {
        "format": "calendar", "pattern": pattern, "start_time": "2030-12-17 08:30:00",
        "end_time": "2031-12-17 08:30:00", "window": "900"}}})
    );
    assert_eq!(world.get("member", &format!("/v1/{{P}}/triggers/{id}")).await.ok(), made);
    let least = world
        .post("member", "/v1/{P}/triggers", trigger(json!({"format": "calendar", "pattern": pattern})))
        .await
        .ok();
    assert_eq!(least["trigger_info"]["properties"]["start_time"], "2026-11-22 22:29:14");
    assert!(least["trigger_info"]["properties"].get("window").is_none());
    for properties in [
        json!({}),
        json!({"pattern": pattern}),
        json!({"format": "calendar"}),
        json!({"format": "sundial", "pattern": pattern}),
        json!({"format": "calendar", "pattern": "x"}),
        json!({"format": "calendar", "pattern": 5}),
        json!({"format": "calendar", "pattern": "BEGIN:VEVENT\nRRULE:FREQ=MINUTELY\nEND:VEVENT"}),
        json!({"format": "crontab", "pattern": "*/5 * * * *"}),
        json!({"format": "crontab", "pattern": pattern}),
        json!({"format": "calendar", "pattern": pattern, "window": 1}),
        json!({"format": "calendar", "pattern": pattern, "window": 100_000}),
        json!({"format": "calendar", "pattern": pattern, "window": "900"}),
        json!({"format": "calendar", "pattern": pattern, "window": 900.5}),
        json!({"format": "calendar", "pattern": pattern, "start_time": ""}),
        json!({"format": "calendar", "pattern": pattern, "start_time": " 2030-01-01 00:00:00 "}),
        json!({"format": "calendar", "pattern": pattern, "start_time": "2030-1-1 00:00:00"}),
        json!({"format": "calendar", "pattern": pattern, "start_time": "2030-02-30 00:00:00"}),
        json!({"format": "calendar", "pattern": pattern, "start_time": "2030-01-01 00:00:00", "end_time": "2029-01-01 00:00:00"}),
        json!({"format": "calendar", "pattern": pattern, "colour": "red"}),
        json!([]),
    ] {
        let reply = world.post("member", "/v1/{P}/triggers", trigger(properties.clone())).await;
        assert_eq!(reply.status, 400, "{properties}: {}", reply.text);
        assert!(reply.fault().contains("trigger_info.properties"), "{properties}: {}", reply.text);
    }
    let path = format!("/v1/{{P}}/triggers/{id}");
    for (change, status) in [
        (json!({}), 200),
        (json!({"properties": {}}), 200),
        (json!({"name": ""}), 200),
        (json!({"type": "time", "name": "nightly"}), 200),
        (json!({"type": "event"}), 400),
        (json!({"name": "x".repeat(256)}), 400),
        (json!({"properties": {"pattern": "x"}}), 400),
        (json!({"properties": {"start_time": "2032-01-01 00:00:00"}}), 400),
        (json!({"properties": {"window": 1800}}), 200),
    ] {
        let reply = world.put("member", &path, json!({"trigger_info": change})).await;
        assert_eq!(reply.status, status, "{change}: {}", reply.text);
    }
    let changed = world.get("member", &path).await.ok();
    assert_eq!(changed["trigger_info"]["name"], "nightly");
    assert_eq!(changed["trigger_info"]["properties"]["window"], "1800");
    assert_eq!(changed["trigger_info"]["properties"]["end_time"], "2031-12-17 08:30:00");

    let plan = world.plan("member").await;
    let body = json!({"name": "so", "operation_type": "retention_protect", "trigger_id": id,
        "operation_definition": {"provider_id": NOOP, "plan_id": plan, "max_backups": 3, "retention_duration": "5"}});
    let made =
        world.post("member", "/v1/{P}/scheduled_operations", json!({"scheduled_operation": body})).await.ok();
    assert_eq!(
        made,
        json!({"scheduled_operation": {
        "id": made["scheduled_operation"]["id"], "name": "so", "description": null,
        "operation_type": "retention_protect", "trigger_id": id, "enabled": true,
        "operation_definition": {"provider_id": NOOP, "plan_id": plan, "max_backups": "3", "retention_duration": "5"}}})
    );
    let list = world.get("member", "/v1/{P}/scheduled_operations").await.ok();
    assert_eq!(list, json!({"operations": [made["scheduled_operation"]]}));
    let foreign = world.plan("other").await;
    for (name, value, status) in [
        ("operation_type", json!("explode"), 400),
        ("operation_type", json!(""), 400),
        ("name", json!(""), 400),
        ("trigger_id", json!("abc"), 400),
        ("trigger_id", json!("deadbeef-dead-4eef-8ead-beefdeadbeef"), 404),
        ("operation_definition", json!({}), 400),
        ("operation_definition", json!("plan"), 400),
        ("operation_definition", json!({"provider_id": NOOP, "plan_id": "abc"}), 400),
        ("operation_definition", json!({"provider_id": INFRA, "plan_id": plan}), 400),
        ("operation_definition", json!({"provider_id": NOOP, "plan_id": foreign}), 404),
        ("operation_definition", json!({"provider_id": NOOP, "plan_id": plan, "max_backups": "many"}), 400),
        ("operation_definition", json!({"provider_id": NOOP, "plan_id": plan, "max_backups": null}), 400),
        ("operation_definition", json!({"provider_id": NOOP, "plan_id": plan, "other": "kept"}), 200),
    ] {
        let mut changed = body.clone();
        changed[name] = value.clone();
        let reply = world
            .post("member", "/v1/{P}/scheduled_operations", json!({"scheduled_operation": changed}))
            .await;
        assert_eq!(reply.status, status, "{name} {value}: {}", reply.text);
    }
}

#[tokio::test]
async fn quotas_are_shown_as_ever() {
    let world = World::new().await;
    let path = format!("/v1/{{P}}/quotas/{PROJECT}");
    let limits = json!({"plans": 50, "checkpoints": -1, "id": PROJECT});
    assert_eq!(world.get("member", &path).await.ok(), json!({"quota": limits}));
    assert_eq!(world.get("member", &format!("{path}/defaults")).await.ok(), json!({"quota": limits}));
    world.plan("member").await;
    let usage = |limit: i64, used: u64| json!({"limit": limit, "in_use": used, "reserved": 0});
    assert_eq!(
        world.get("member", &format!("{path}/detail")).await.ok(),
        json!({"quota": {"plans": usage(50, 1), "checkpoints": usage(-1, 0), "id": PROJECT}})
    );
    assert_eq!(
        world.put("admin", &path, json!({"quota": {"plans": "7", "tenant_id": "x"}})).await.ok(),
        json!({"quota": {"plans": 7, "checkpoints": -1}})
    );
    assert_eq!(world.delete("admin", &path).await.text, "");
    assert_eq!(world.get("member", &path).await.ok(), json!({"quota": limits}));
    assert_eq!(
        world.get("admin", "/v1/{P}/quota_classes/gold").await.ok(),
        json!({"quota_class": {"plans": 50, "checkpoints": -1, "id": "gold"}})
    );
    assert_eq!(
        world.put("admin", "/v1/{P}/quota_classes/gold", json!({"quota_class": {"plans": 5}})).await.ok(),
        json!({"quota_class": {"plans": 5, "checkpoints": -1}})
    );
}

#[tokio::test]
async fn versions_and_health_need_no_token() {
    let world = World::new().await;
    for path in ["/", "/v2/x/plans", "/anything", "/v1x"] {
        let reply = world.get("nobody", path).await;
        assert_eq!(reply.status, 300, "{path}");
        assert_eq!(
            reply.json,
            json!({"versions": [{"id": "v1.0", "status": "CURRENT",
            "links": [{"rel": "self", "href": "http://karbor.test:8799/v1/"}]}]})
        );
    }
    for path in ["/v1", "/v1/"] {
        let version = world.get("nobody", path).await.ok();
        assert_eq!(
            (&version["version"]["min_version"], &version["version"]["version"]),
            (&json!("1.0"), &json!("1.2"))
        );
        let reply = world.post("nobody", path, json!({})).await;
        assert_eq!(reply.status, 405);
        reply.fault();
    }
    assert_eq!(world.get("nobody", "/healthcheck").await.ok(), json!({"status": "ok"}));
    world.store.close().await;
    let sick = world.get("nobody", "/healthcheck").await;
    assert_eq!(sick.status, 503);
    sick.fault();
}
