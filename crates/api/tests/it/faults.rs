//! What is refused, with which status, and what the refusal says.

use axum::body::Body;
use axum::http::Request;
use karbor_actions::Authority;
use karbor_api::ApiConfig;
use karbor_policy::{Policy, Source};
use serde_json::{Value, json};

use crate::world::{INFRA, NOBODY, NOOP, PROJECT, Setup, VOLUME, World, plan_body, token_of};

/// The plan that works, with one member changed (or taken out, by null under `"-"`).
fn plan_with(name: &str, value: Value) -> Value {
    let mut plan = plan_body();
    plan[name] = value;
    json!({ "plan": plan })
}

fn without(name: &str) -> Value {
    let mut plan = plan_body();
    plan.as_object_mut().expect("an object").remove(name);
    json!({ "plan": plan })
}

#[tokio::test]
async fn a_wrong_plan_is_refused_and_the_member_named() {
    let world = World::new().await;
    let volume = |id: &str| json!({"id": id, "type": "OS::Cinder::Volume", "name": "v"});
    let infra = |parameters: Value| {
        let mut plan = plan_body();
        plan["provider_id"] = INFRA.into();
        plan["parameters"] = parameters;
        json!({ "plan": plan })
    };
    let long = "x".repeat(256);
    for (body, names) in [
        (json!([]), "plan"),
        (json!({}), "plan"),
        (json!({"plan": plan_body(), "type": 1}), "type"),
        (json!({"plan": []}), "plan"),
        (without("name"), "plan.name"),
        (without("provider_id"), "plan.provider_id"),
        (without("parameters"), "plan.parameters"),
        (without("resources"), "plan.resources"),
        (plan_with("name", json!(null)), "plan.name"),
        (plan_with("name", json!("  ")), "plan.name"),
        (plan_with("name", json!(5)), "plan.name"),
        (plan_with("name", json!(long)), "plan.name"),
        (plan_with("name", json!("a\u{0}b")), "NUL"),
        (plan_with("description", json!(long)), "plan.description"),
        (plan_with("description", json!({})), "plan.description"),
        (plan_with("provider_id", json!("abc")), "plan.provider_id"),
        (plan_with("provider_id", json!(NOBODY)), NOBODY),
        (plan_with("provider_id", json!(NOOP.to_uppercase())), "plan.provider_id"),
        (plan_with("colour", json!("red")), "plan.colour"),
        (plan_with("status", json!("started")), "plan.status"),
        (plan_with("parameters", json!([])), "plan.parameters"),
        (plan_with("parameters", json!({"a/b": {}})), "plan.parameters.a/b"),
        (plan_with("parameters", json!({"T#abc": {}})), "plan.parameters.T#abc"),
        (
            plan_with("parameters", json!({"OS::Cinder::Volume": {"x": 1.5}})),
            "plan.parameters.OS::Cinder::Volume.x",
        ),
        (
            plan_with("parameters", json!({"OS::Cinder::Volume": {"x": []}})),
            "plan.parameters.OS::Cinder::Volume.x",
        ),
        (plan_with("parameters", json!({"OS::Cinder::Volume": "x"})), "plan.parameters.OS::Cinder::Volume"),
        (plan_with("parameters", json!({"OS::No::Thing": {"a": "b"}})), "OS::No::Thing"),
        (infra(json!({"OS::Cinder::Volume": {"colour": "red"}})), "colour"),
        (infra(json!({"OS::Cinder::Volume": {"backup_mode": "sideways"}})), "backup_mode"),
        (infra(json!({"OS::Cinder::Volume": {"force": "maybe"}})), "force"),
        (plan_with("resources", json!([])), "plan.resources"),
        (plan_with("resources", json!({})), "plan.resources"),
        (plan_with("resources", json!([5])), "plan.resources[0]"),
        (
            plan_with("resources", json!([volume("a"), {"type": "OS::Cinder::Volume", "name": "v"}])),
            "plan.resources[1].id",
        ),
        (plan_with("resources", json!([{"id": "a", "name": "v"}])), "plan.resources[0].type"),
        (plan_with("resources", json!([{"id": "a", "type": "T"}])), "plan.resources[0].name"),
        (plan_with("resources", json!([volume("")])), "plan.resources[0].id"),
        (plan_with("resources", json!([volume(&long)])), "plan.resources[0].id"),
        (
            plan_with("resources", json!([{"id": "a", "type": "OS::No::Thing", "name": "v"}])),
            "plan.resources[0].type",
        ),
        (
            plan_with("resources", json!([{"id": "a", "type": "OS::Cinder::Volume", "name": "v", "x": {}}])),
            "plan.resources[0].x",
        ),
        (plan_with("resources", json!([volume("a"), volume("b"), volume("a")])), "plan.resources[2]"),
    ] {
        let reply = world.post("member", "/v1/{P}/plans", body.clone()).await;
        assert_eq!(reply.status, 400, "{body}: {}", reply.text);
        assert!(reply.fault().contains(names), "{body} must name {names}: {}", reply.text);
    }
    assert_eq!(world.get("member", "/v1/{P}/plans").await.ok()["plans"], json!([]));
    assert_eq!(world.wakes.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_plan_is_changed_within_its_rules() {
    let world = World::new().await;
    let plan = world.plan("member").await;
    let path = format!("/v1/{{P}}/plans/{plan}");
    for (change, status, names) in [
        (json!({}), 400, "plan"),
        (json!({"name": ""}), 400, "plan.name"),
        (json!({"provider_id": INFRA}), 400, "plan.provider_id"),
        (json!({"status": "running"}), 400, "plan.status"),
        (json!({"resources": []}), 409, "emptied"),
        (
            json!({"resources": [{"id": "1", "type": "OS::No::Thing", "name": "x"}]}),
            400,
            "plan.resources[0].type",
        ),
    ] {
        let reply = world.put("member", &path, json!({"plan": change})).await;
        assert_eq!(reply.status, status, "{change}: {}", reply.text);
        assert!(reply.fault().contains(names), "{change}: {}", reply.text);
    }
    assert_eq!(
        world.put("member", &path, json!({"plan": {"status": "started"}})).await.ok()["plan"]["status"],
        "started"
    );
    assert_eq!(world.put("member", &path, json!({"plan": {"name": "x"}})).await.status, 400);
    let back =
        world.put("member", &path, json!({"plan": {"status": "suspended", "description": null}})).await.ok();
    assert_eq!((&back["plan"]["status"], &back["plan"]["description"]), (&json!("suspended"), &Value::Null));
    assert_eq!(world.put("member", &path, json!({"plan": {"name": "x"}})).await.ok()["plan"]["name"], "x");
}

#[tokio::test]
async fn a_plan_in_use_by_a_schedule_is_not_deleted() {
    let world = World::new().await;
    let plan = world.plan("member").await;
    let properties = json!({"format": "crontab", "pattern": "0 3 * * *"});
    let trigger = json!({"trigger_info": {"name": "t", "type": "time", "properties": properties}});
    let trigger = world.post("member", "/v1/{P}/triggers", trigger).await.ok();
    let trigger = trigger["trigger_info"]["id"].as_str().expect("an id").to_owned();
    let definition = format!("plan_id={plan}, provider_id={NOOP}");
    let scheduled = json!({"name": "s", "operation_type": "protect", "trigger_id": trigger, "operation_definition": definition});
    let scheduled = world
        .post("member", "/v1/{P}/scheduled_operations", json!({"scheduled_operation": scheduled}))
        .await
        .ok();
    let reply = world.delete("member", &format!("/v1/{{P}}/plans/{plan}")).await;
    assert_eq!(reply.status, 409);
    assert!(reply.fault().contains("scheduled operation"));
    let reply = world.delete("member", &format!("/v1/{{P}}/triggers/{trigger}")).await;
    assert_eq!(reply.status, 424);
    reply.fault();
    let id = scheduled["scheduled_operation"]["id"].as_str().expect("an id");
    assert_eq!(world.delete("member", &format!("/v1/{{P}}/scheduled_operations/{id}")).await.status, 200);
    assert_eq!(world.delete("member", &format!("/v1/{{P}}/triggers/{trigger}")).await.status, 200);
    assert_eq!(world.delete("member", &format!("/v1/{{P}}/plans/{plan}")).await.status, 200);
    assert_eq!(world.delete("member", &format!("/v1/{{P}}/plans/{plan}")).await.status, 404);
}

#[tokio::test]
async fn a_checkpoint_is_deleted_once_and_stays_readable() {
    let world = World::new().await;
    let id = world.protecting("member").await;
    let path = format!("/v1/{{P}}/providers/{NOOP}/checkpoints/{id}");
    let early = world.delete("member", &path).await;
    assert_eq!(early.status, 409);
    assert!(early.fault().contains("cancel its operation"), "{}", early.text);
    world.work().await;
    assert_eq!(world.delete("member", &path).await.ok(), json!({}));
    let again = world.delete("member", &path).await;
    assert_eq!((again.status, again.fault().contains("already")), (409, true));
    world.work().await;
    let again = world.delete("member", &path).await;
    assert_eq!((again.status, again.fault().contains("already")), (409, true));
    assert_eq!(world.get("member", &path).await.ok()["checkpoint"]["status"], "deleted");
    let list = world.get("member", &format!("/v1/{{P}}/providers/{NOOP}/checkpoints")).await.ok();
    assert_eq!(list["checkpoints"], json!([]));
}

#[tokio::test]
async fn a_reset_believes_the_bank_and_nobody_else() {
    let world = World::new().await;
    let whole = world.checkpoint("member").await;
    let path = |id: &str| format!("/v1/{{P}}/providers/{NOOP}/checkpoints/{id}");
    let reset = |state: &str| json!({"os-resetState": {"state": state}});
    assert_eq!(world.put("member", &path(&whole), reset("error")).await.ok(), json!({}));
    assert_eq!(world.get("member", &path(&whole)).await.ok()["checkpoint"]["status"], "error");
    assert_eq!(world.put("member", &path(&whole), reset("available")).await.status, 200);
    world.evidence.commit(whole.parse().expect("an id"), false);
    assert_eq!(world.put("member", &path(&whole), reset("error")).await.status, 200);
    let reply = world.put("member", &path(&whole), reset("available")).await;
    assert_eq!((reply.status, reply.fault().contains("commit record")), (409, true));
    let early = world.protecting("member").await;
    for state in ["available", "error"] {
        assert_eq!(world.put("member", &path(&early), reset(state)).await.status, 400);
    }
    for body in [
        json!({}),
        reset("deleted"),
        json!({"os-resetState": {}}),
        json!({"os-resetState": {"state": "error", "x": 1}}),
    ] {
        let reply = world.put("member", &path(&whole), body).await;
        assert_eq!(reply.status, 400);
        assert!(reply.fault().contains("os-resetState"), "{}", reply.text);
    }
}

#[tokio::test]
async fn a_restore_is_checked_before_it_is_made() {
    let world = World::new().await;
    let available = world.checkpoint("member").await;
    let foreign = world.checkpoint("other").await;
    let protecting = world.protecting("member").await;
    let run = |checkpoint: &str, parameters: Value| json!({"provider_id": NOOP, "checkpoint_id": checkpoint, "parameters": parameters});
    let unknown = format!("OS::Cinder::Volume#{NOBODY}");
    for (body, status, names) in [
        (run(NOBODY, json!({})), 404, NOBODY),
        (run(&protecting, json!({})), 409, "protecting"),
        (run(&foreign, json!({})), 403, "another project"),
        (run("abc", json!({})), 400, "checkpoint_id"),
        (run(&available, json!({"OS::No::Thing": {"a": 1}})), 400, "OS::No::Thing"),
        (run(&available, json!({ unknown.as_str(): {"a": "b"} })), 400, NOBODY),
        (json!({"provider_id": NOBODY, "checkpoint_id": available, "parameters": {}}), 404, NOBODY),
        (
            json!({"provider_id": INFRA, "checkpoint_id": available, "parameters": {}}),
            404,
            available.as_str(),
        ),
        (json!({"checkpoint_id": available, "parameters": {}}), 400, "provider_id"),
    ] {
        for (collection, name) in [("restores", "restore"), ("verifications", "verification")] {
            let reply = world.post("member", &format!("/v1/{{P}}/{collection}"), json!({ name: body })).await;
            assert_eq!(reply.status, status, "{body}: {}", reply.text);
            assert!(reply.fault().contains(names), "{body}: {}", reply.text);
        }
    }
    for collection in ["restores", "verifications"] {
        assert_eq!(world.get("member", &format!("/v1/{{P}}/{collection}")).await.ok()[collection], json!([]));
    }
    // What the dashboard sends: nulls that mean nothing.
    let body = json!({"restore": {
        "provider_id": NOOP, "checkpoint_id": available, "parameters": {"OS::Cinder::Volume": {"restore_name": null}},
        "restore_target": "http://other/v3", "restore_auth": {"type": "password", "username": null, "password": null}}});
    let made = world.post("member", "/v1/{P}/restores", body).await.ok();
    assert_eq!(made["restore"]["parameters"], json!({"OS::Cinder::Volume": {}}));
    assert!(made["restore"].get("restore_auth").is_none());
}

#[tokio::test]
async fn quotas_are_held_and_told() {
    let world = World::new().await;
    let path = format!("/v1/{{P}}/quotas/{PROJECT}");
    assert_eq!(
        world.put("admin", &path, json!({"quota": {"plans": 1, "checkpoints": "1"}})).await.ok()["quota"],
        json!({"plans": 1, "checkpoints": 1})
    );
    let plan = world.plan("member").await;
    let over = world.post("member", "/v1/{P}/plans", json!({ "plan": plan_body() })).await;
    assert_eq!((over.status, over.header("retry-after")), (413, Some("0")));
    assert_eq!(over.json["overLimit"]["retryAfter"], "0");
    assert!(over.fault().contains("quota of 1 plans"));
    let checkpoints = format!("/v1/{{P}}/providers/{NOOP}/checkpoints");
    let body = json!({"checkpoint": {"plan_id": plan}});
    assert_eq!(world.post("member", &checkpoints, body.clone()).await.status, 200);
    assert_eq!(world.post("member", &checkpoints, body).await.status, 413);
    let usage = world.get("member", &format!("{path}/detail")).await.ok();
    assert_eq!(usage["quota"]["plans"]["in_use"], 1);
    assert_eq!(usage["quota"]["plans"]["limit"], 1);
    for (body, names) in [
        (json!({"plans": -2}), "quota.plans"),
        (json!({"plans": 1.5}), "quota.plans"),
        (json!({"plans": null}), "quota.plans"),
        (json!({"plans": true}), "quota.plans"),
        (json!({"plans": ""}), "quota.plans"),
        (json!({"plans": "many"}), "quota.plans"),
        (json!({"colours": 1}), "quota.colours"),
        (json!(null), "quota"),
    ] {
        let reply = world.put("admin", &path, json!({"quota": body})).await;
        assert_eq!(reply.status, 400, "{body}");
        assert!(reply.fault().contains(names), "{body}: {}", reply.text);
    }
}

#[tokio::test]
async fn bodies_are_json_of_a_bounded_size() {
    let config = ApiConfig { max_body_bytes: 1000, ..ApiConfig::default() };
    let world = World::with(Setup { config, ..Setup::default() }).await;
    let deep = format!("{{\"plan\": {}{}}}", "[".repeat(400), "]".repeat(400));
    let large = format!("{{\"plan\": \"{}\"}}", "x".repeat(2000));
    let send = |method: &str, path: &str, media_type: Option<&str>, body: Body| {
        let mut request =
            Request::builder().method(method).uri(path).header("x-auth-token", token_of("member"));
        if let Some(media_type) = media_type {
            request = request.header("content-type", media_type);
        }
        world.send(request.body(body).expect("a request"))
    };
    let plans = format!("/v1/{PROJECT}/plans");
    const JSON: Option<&str> = Some("application/json");
    for (method, media_type, body, status) in [
        ("POST", JSON, Body::from("{"), 400),
        ("POST", JSON, Body::from("{\"plan\": NaN}"), 400),
        ("POST", JSON, Body::from("\u{feff}{}"), 400),
        ("POST", JSON, Body::from(&b"\xff\xfe"[..]), 400),
        ("POST", JSON, Body::from("{\"plan\": \"\\ud800\"}"), 400),
        ("POST", JSON, Body::from("{\"plan\": 1e999}"), 400),
        ("POST", JSON, Body::from(deep), 400),
        ("POST", JSON, Body::from(format!("{}{}", "[".repeat(400), "]".repeat(400))), 400),
        ("POST", JSON, Body::empty(), 400),
        ("POST", None, Body::empty(), 400),
        ("POST", Some("text/plain"), Body::from("x"), 415),
        ("POST", None, Body::from("{}"), 415),
        ("POST", Some("application/jsonx"), Body::from("{}"), 415),
        ("POST", Some("Application/JSON ; charset=utf-8"), Body::from("{}"), 400),
        ("POST", JSON, Body::from(large.clone()), 413),
        ("GET", JSON, Body::from("{}"), 400),
        ("GET", JSON, Body::from("{"), 400),
        ("GET", Some("text/plain"), Body::from("x"), 200),
        ("PATCH", JSON, Body::from("{}"), 405),
        ("OPTIONS", None, Body::empty(), 405),
    ] {
        let reply = send(method, &plans, media_type, body).await;
        assert_eq!(reply.status, status, "{method} {media_type:?}: {}", reply.text);
        if status != 200 {
            reply.fault();
        }
    }
    // A body whose length is not told beforehand is cut off as well.
    assert_eq!(send("POST", &plans, JSON, in_pieces(&large)).await.status, 413);
    let head = send("HEAD", &plans, None, Body::empty()).await;
    assert_eq!((head.status, head.text.as_str()), (405, ""));
}

/// A body that comes in pieces, so that nobody knows its length beforehand.
fn in_pieces(text: &str) -> Body {
    let piece = |piece: &[u8]| Ok::<_, std::io::Error>(String::from_utf8_lossy(piece).into_owned());
    let pieces: Vec<_> = text.as_bytes().chunks(100).map(piece).collect();
    Body::from_stream(futures::stream::iter(pieces))
}

#[tokio::test]
async fn addresses_that_do_not_exist_are_faults() {
    let world = World::new().await;
    let plan = world.plan("member").await;
    for (method, path, status) in [
        ("GET", "/v1/{P}", 404),
        ("GET", "/v1/{P}/", 404),
        ("GET", "/v1/{P}/nothings", 404),
        ("GET", "/v1/{P}/plans/", 404),
        ("GET", "/v1/{P}/plans/new", 404),
        ("GET", &format!("/v1/{{P}}/plans/{plan}/edit"), 404),
        ("POST", &format!("/v1/{{P}}/plans/{plan}/action"), 404),
        ("DELETE", "/v1/{P}/restores/x", 404),
        ("PUT", "/v1/{P}/scheduled_operations/x", 404),
        ("GET", "/v1/{P}/quotas", 404),
        ("GET", "/v1/{P}/os-services/1", 404),
        ("POST", "/v1/{P}/providers", 404),
        ("PATCH", &format!("/v1/{{P}}/plans/{plan}"), 405),
        ("DELETE", "/v1/{P}/plans", 405),
        ("POST", &format!("/v1/{{P}}/providers/{NOOP}/checkpoints/{NOBODY}"), 405),
        ("GET", &format!("/v1/{{P}}/plans/{}", plan.replace('-', "")), 404),
        ("GET", &format!("/v1/{{P}}/plans/{}", plan.to_uppercase()), 404),
        ("GET", "/v1/{P}/plans/abc", 400),
        ("GET", "/v1/{P}/plans/%00", 400),
        ("GET", "/v1/{P}/plans/%ff", 400),
        ("GET", "/v1/{P}/plans?name=%00", 400),
        ("GET", "/v1/{P}/operations", 404),
        ("GET", "/v1/{P}/protectables/OS::No::Thing", 400),
        ("GET", "/v1/{P}/protectables/OS::No::Thing/instances", 400),
        ("GET", &format!("/v1/{{P}}/protectables/OS::Cinder::Volume/instances/{NOBODY}"), 404),
        ("GET", "/v1/{P}/protectables/OS::Cinder::Volume/instances?parameters=x", 400),
    ] {
        let reply = world.call("member", method, path, None).await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text);
        reply.fault();
        assert!(reply.header("x-openstack-request-id").is_some());
    }
    let path = format!("/v1/{{P}}/protectables/OS::Cinder::Volume/instances/{VOLUME}");
    assert_eq!(world.get("member", &path.replace("::", "%3A%3A")).await.status, 200);
}

#[tokio::test]
async fn the_policy_refuses_in_its_place() {
    let rules = json!({
        "plan:get": "role:admin", "plan:get_all": "!", "plan:create": "role:admin", "provider:get": "!",
        "provider:checkpoint_get": "!", "service:get_all": "@", "service:update": "@", "quota_class:get": "@",
        "trigger:get": "!", "plan:delete": "user_id:nobody",
    });
    let source = Source { name: "policy.json".to_owned(), text: rules.to_string() };
    let policy = Policy::builtin().overridden(&[source]).expect("good rules");
    let setup = || Setup { authority: Authority::with_policy(policy.clone()), ..Setup::default() };
    let world = World::with(setup()).await;
    let plan = world.plan("admin").await;
    let trigger = json!({"trigger_info": {"name": "t", "type": "time",
        "properties": {"format": "crontab", "pattern": "0 3 * * *"}}});
    let trigger = world.post("member", "/v1/{P}/triggers", trigger).await.ok();
    let trigger = trigger["trigger_info"]["id"].as_str().expect("an id").to_owned();
    for (who, method, path, status) in [
        ("member", "GET", format!("/v1/{{P}}/plans/{plan}"), 404),
        ("admin", "GET", format!("/v1/{{P}}/plans/{plan}"), 200),
        ("admin", "GET", "/v1/{P}/plans".into(), 403),
        ("admin", "DELETE", format!("/v1/{{P}}/plans/{plan}"), 403),
        ("member", "DELETE", format!("/v1/{{P}}/plans/{plan}"), 404),
        ("member", "GET", format!("/v1/{{P}}/providers/{NOOP}"), 404),
        ("member", "GET", format!("/v1/{{P}}/providers/{NOOP}/checkpoints/{NOBODY}"), 404),
        ("member", "GET", format!("/v1/{{P}}/triggers/{trigger}"), 404),
        // Loosening the policy is not enough where the service itself asks for an administrator.
        ("member", "GET", "/v1/{P}/os-services".into(), 403),
        ("member", "GET", "/v1/{P}/quota_classes/default".into(), 403),
    ] {
        let reply = world.call(who, method, &path, None).await;
        assert_eq!(reply.status, status, "{method} {path} as {who}: {}", reply.text);
    }
    // A wrong body is told before a missing permission, as ever.
    assert_eq!(world.post("member", "/v1/{P}/plans", json!({"plan": {}})).await.status, 400);
    assert_eq!(world.post("member", "/v1/{P}/plans", json!({ "plan": plan_body() })).await.status, 403);
    assert_eq!(world.put("member", "/v1/{P}/os-services/1", json!([])).await.status, 403);
}

#[tokio::test]
async fn services_are_switched_with_a_reason() {
    let world = World::new().await;
    for binary in ["karbor-operationengine", "karbor-protection"] {
        world.store.heartbeat(binary, "h", world.now()).await.expect("a heartbeat");
    }
    let list = world.get("admin", "/v1/{P}/os-services").await.ok();
    assert_eq!(list["services"][0]["state"], "up");
    for (id, body, status) in [
        ("1", json!({}), 400),
        ("1", json!([]), 400),
        ("1", json!({"status": "off"}), 400),
        ("1", json!({"status": "enabled", "disabled_reason": "x"}), 400),
        ("1", json!({"status": "disabled", "disabled_reason": {}}), 400),
        ("1", json!({"status": "disabled", "colour": "red"}), 400),
        ("2", json!({"status": "disabled"}), 400),
        ("99", json!({"status": "disabled"}), 404),
        ("abc", json!({"status": "disabled"}), 404),
        ("1", json!({"status": "disabled", "disabled_reason": "upgrade"}), 200),
        ("1", json!({"status": "enabled"}), 200),
    ] {
        let reply = world.put("admin", &format!("/v1/{{P}}/os-services/{id}"), body.clone()).await;
        assert_eq!(reply.status, status, "{id} {body}: {}", reply.text);
    }
    world.clock.fetch_add(61_000_000, std::sync::atomic::Ordering::Relaxed);
    let list = world.get("admin", "/v1/{P}/os-services?binary=karbor-protection").await.ok();
    assert_eq!(
        (list["services"].as_array().map(Vec::len), &list["services"][0]["state"]),
        (Some(1), &json!("down"))
    );
}
