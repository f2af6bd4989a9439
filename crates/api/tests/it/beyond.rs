//! What goes beyond version 1.0, and that those who do not ask for it see nothing of it.

use karbor_store::{ClaimOptions, Finish, SubjectChange};
use karbor_types::{OperationKind, OperationState};
use serde_json::{Value, json};

use crate::world::{INFRA, NOOP, PROJECT, World, plan_body};

#[tokio::test]
async fn versions_are_negotiated() {
    let world = World::new().await;
    let send = |header: Option<&str>| {
        let mut request = axum::http::Request::builder()
            .uri(format!("/v1/{PROJECT}/plans"))
            .header("x-auth-token", format!("member:{PROJECT}"));
        if let Some(header) = header {
            request = request.header("OpenStack-API-Version", header);
        }
        world.send(request.body(axum::body::Body::empty()).expect("a request"))
    };
    for (header, status, answer) in [
        (None, 200, None),
        (Some("data-protect 1.0"), 200, Some("data-protect 1.0")),
        (Some("data-protect 1.1"), 200, Some("data-protect 1.1")),
        (Some("data-protect 1.2"), 200, Some("data-protect 1.2")),
        (Some("Data-Protect latest"), 200, Some("data-protect 1.2")),
        (Some("compute 2.79, data-protect 1.1"), 200, Some("data-protect 1.1")),
        (Some("compute 2.79"), 200, None),
        (Some("data-protect"), 200, None),
        (Some("data-protect 1.3"), 406, None),
        (Some("data-protect 2.0"), 406, None),
        (Some("data-protect 1.-1"), 406, None),
        (Some("data-protect 1.99999999999999999999"), 406, None),
        (Some("data-protect x"), 406, None),
    ] {
        let reply = send(header).await;
        assert_eq!(reply.status, status, "{header:?}: {}", reply.text);
        assert_eq!(reply.header("openstack-api-version"), answer, "{header:?}");
        assert_eq!(reply.header("vary").is_some(), answer.is_some(), "{header:?}");
        if status != 200 {
            reply.fault();
        }
    }
}

#[tokio::test]
async fn later_versions_tell_more() {
    let world = World::new().await;
    let id = world.checkpoint("member").await;
    let path = format!("/v1/{{P}}/providers/{NOOP}/checkpoints/{id}");
    let shown = world.call_at("1.1", "member", "GET", &path, None).await.ok();
    let checkpoint = &shown["checkpoint"];
    assert!(
        checkpoint["created_at"]
            .as_str()
            .is_some_and(|at| at.starts_with("2026-11-22T") && at.ends_with('Z'))
    );
    assert_eq!(checkpoint["size"], json!({"logical_bytes": 1024, "stored_bytes": 100, "new_bytes": 100}));
    assert_eq!((&checkpoint["operation_id"], &checkpoint["reason"]), (&json!(id), &Value::Null));
    let mut body = plan_body();
    body["provider_id"] = INFRA.into();
    body["parameters"] = json!({"OS::Cinder::Volume": {"force": "true"}});
    let plan =
        world.call_at("1.1", "member", "POST", "/v1/{P}/plans", Some(&json!({ "plan": body }))).await.ok();
    assert_eq!(plan["plan"]["parameters"], json!({"OS::Cinder::Volume": {"force": true}}));
    assert_eq!(plan["plan"]["project_id"], PROJECT);
    assert!(plan["plan"]["created_at"].is_string());
    let provider =
        world.call_at("1.1", "member", "GET", &format!("/v1/{{P}}/providers/{NOOP}"), None).await.ok();
    assert!(provider["provider"]["extended_info_schema"]["verify_schema"].is_object());
}

#[tokio::test]
async fn an_operation_is_watched() {
    let world = World::new().await;
    let id = world.protecting("member").await;
    let path = format!("/v1/{{P}}/operations/{id}");
    assert_eq!(world.get("member", &path).await.status, 404, "version 1.0 has no operations");
    let queued = world.call_at("1.1", "member", "GET", &path, None).await.ok();
    let operation = &queued["operation"];
    assert_eq!(
        (&operation["kind"], &operation["state"], &operation["checkpoint_id"]),
        (&json!("protect"), &json!("queued"), &json!(id))
    );
    world.work().await;
    let done = world.call_at("1.1", "member", "GET", &path, None).await.ok();
    assert_eq!(done["operation"]["state"], "succeeded");
    assert_eq!(
        done["operation"]["progress"],
        json!({
        "bytes_done": 1024, "bytes_total": 1024, "bytes_stored": 100,
        "steps": {"pending": 0, "running": 0, "done": 1, "failed": 0, "skipped": 0}})
    );
    let resources = world.call_at("1.1", "member", "GET", &format!("{path}/resources"), None).await.ok();
    let resource = &resources["resources"][0];
    assert_eq!((&resource["type"], &resource["status"]), (&json!("OS::Cinder::Volume"), &json!("done")));
    assert_eq!(resource["progress"]["bytes_done"], 1024);
    assert_eq!(
        (&resource["steps"][0]["hook"], &resource["steps"][0]["attempts"]),
        (&json!("main"), &json!(1))
    );
    let list = world
        .call_at("1.1", "member", "GET", "/v1/{P}/operations?kind=protect&state=succeeded", None)
        .await
        .ok();
    assert_eq!(list["operations"][0]["id"], json!(id));
    let none = world.call_at("1.1", "member", "GET", "/v1/{P}/operations?kind=restore", None).await.ok();
    assert_eq!(none["operations"], json!([]));
}

#[tokio::test]
async fn an_operation_is_cancelled() {
    let world = World::new().await;
    let id = world.protecting("member").await;
    let path = format!("/v1/{{P}}/operations/{id}/action");
    let cancel = json!({"cancel": {}});
    assert_eq!(world.post("member", &path, cancel.clone()).await.status, 404);
    for body in [json!({}), json!({"cancel": 1}), json!({"cancel": {"x": 1}}), json!({"stop": {}})] {
        assert_eq!(world.call_at("1.1", "member", "POST", &path, Some(&body)).await.status, 400, "{body}");
    }
    assert_eq!(world.call_at("1.1", "other", "POST", &path, Some(&cancel)).await.status, 404);
    let woken = world.wakes.load(std::sync::atomic::Ordering::Relaxed);
    let asked = world.call_at("1.1", "member", "POST", &path, Some(&cancel)).await.ok();
    assert_eq!(
        (&asked["operation"]["cancel_requested"], &asked["operation"]["state"]),
        (&json!(true), &json!("queued"))
    );
    assert_eq!(world.wakes.load(std::sync::atomic::Ordering::Relaxed), woken + 1);
    world.work().await;
    let ended = world.call_at("1.1", "member", "GET", &format!("/v1/{{P}}/operations/{id}"), None).await.ok();
    assert_eq!(
        (&ended["operation"]["state"], &ended["operation"]["reason"]),
        (&json!("cancelled"), &json!("cancelled"))
    );
    let again = world.call_at("1.1", "member", "POST", &path, Some(&cancel)).await;
    assert_eq!((again.status, again.fault().contains("ended already")), (409, true));
    let checkpoint = format!("/v1/{{P}}/providers/{NOOP}/checkpoints/{id}");
    assert_eq!(world.get("member", &checkpoint).await.ok()["checkpoint"]["status"], "error");
    let deleted = world.call_at("1.1", "member", "DELETE", &checkpoint, None).await.ok();
    let deletion = deleted["operation_id"].as_str().expect("the operation");
    let shown =
        world.call_at("1.1", "member", "GET", &format!("/v1/{{P}}/operations/{deletion}"), None).await.ok();
    assert_eq!(
        (&shown["operation"]["kind"], &shown["operation"]["checkpoint_id"]),
        (&json!("delete"), &json!(id))
    );
}

#[tokio::test]
async fn a_restore_that_was_undone_is_not_resumed() {
    let world = World::new().await;
    let checkpoint = world.checkpoint("member").await;
    let body = json!({"restore": {"provider_id": NOOP, "checkpoint_id": checkpoint, "parameters": {}}});
    let made = world.post("member", "/v1/{P}/restores", body).await.ok();
    let path = format!("/v1/{{P}}/operations/{}/action", made["restore"]["id"].as_str().expect("an id"));
    let act = async |version, who, body| world.call_at(version, who, "POST", &path, Some(&body)).await;
    let (resume, undo) = (json!({"resume": {}}), json!({"undo": {}}));
    assert_eq!(act("1.2", "member", undo.clone()).await.status, 409, "it has not ended");
    act("1.1", "member", json!({"cancel": {}})).await.ok();
    world.work().await;
    assert_eq!(act("1.1", "member", resume.clone()).await.status, 400, "1.1 does not know it");
    assert_eq!(act("1.2", "other", undo.clone()).await.status, 404);
    let login = json!({"undo": {"restore_auth": {"type": "password", "username": "u", "password": "p"}}});
    assert_eq!(act("1.2", "member", login).await.status, 400, "it went nowhere else");

    let queued = act("1.2", "member", undo).await.ok();
    assert_eq!(queued["operation"]["state"], "queued");
    let options = ClaimOptions {
        owner: "test".to_owned(),
        lease_seconds: 60,
        kinds: vec![OperationKind::Restore],
        skip_projects: Vec::new(),
    };
    let claimed = world.store.claim(&options, world.now()).await.expect("claims").expect("it is queued");
    let finish = Finish {
        state: OperationState::Cancelled,
        reason: Some("undone".to_owned()),
        result: Value::Null,
        subject: SubjectChange::None,
        extra_info: Value::Null,
    };
    world.store.finish(&claimed.claim, &finish, world.now()).await.expect("finishes");
    let refused = act("1.2", "member", resume).await;
    assert_eq!((refused.status, refused.fault().contains("was undone")), (409, true), "{}", refused.text);
}

#[tokio::test]
async fn a_dry_run_makes_no_restore() {
    let world = World::new().await;
    let checkpoint = world.checkpoint("member").await;
    let body = json!({"restore": {"provider_id": NOOP, "checkpoint_id": checkpoint, "parameters": {}, "dry_run": true}});
    assert_eq!(
        world.post("member", "/v1/{P}/restores", body.clone()).await.status,
        400,
        "1.0 does not know it"
    );
    let run = world.call_at("1.1", "member", "POST", "/v1/{P}/restores", Some(&body)).await.ok();
    let id = run["restore"]["id"].as_str().expect("an id").to_owned();
    assert_eq!(
        (&run["restore"]["dry_run"], &run["restore"]["status"]),
        (&json!(true), &json!("in_progress"))
    );
    world.work().await;
    let operation =
        world.call_at("1.1", "member", "GET", &format!("/v1/{{P}}/operations/{id}"), None).await.ok();
    assert_eq!(
        (&operation["operation"]["state"], &operation["operation"]["result"]),
        (&json!("succeeded"), &json!({"plan": []}))
    );
    let path = format!("/v1/{{P}}/restores/{id}");
    let shown = world.call_at("1.1", "member", "GET", &path, None).await.ok();
    assert_eq!(
        (&shown["restore"]["dry_run"], &shown["restore"]["status"]),
        (&json!(true), &json!("success"))
    );
    assert_eq!(world.get("member", &path).await.status, 404);
    assert_eq!(world.call_at("1.1", "other", "GET", &path, None).await.status, 404);
    assert_eq!(world.get("member", "/v1/{P}/restores").await.ok()["restores"], json!([]));
    let mut wrong = body;
    wrong["restore"]["checkpoint_id"] = "deadbeef-dead-4eef-8ead-beefdeadbeef".into();
    assert_eq!(world.call_at("1.1", "member", "POST", "/v1/{P}/restores", Some(&wrong)).await.status, 404);
}

#[tokio::test]
async fn how_much_is_verified_is_asked_for() {
    let world = World::new().await;
    let checkpoint = world.checkpoint("member").await;
    for (extra, version, status) in [
        (json!({}), "1.1", 200),
        (json!({"mode": "structure"}), "1.1", 200),
        (json!({"mode": "sample", "sample_percent": 5}), "1.1", 200),
        (json!({"mode": "sample"}), "1.1", 400),
        (json!({"mode": "sample", "sample_percent": 0}), "1.1", 400),
        (json!({"mode": "sample", "sample_percent": 101}), "1.1", 400),
        (json!({"sample_percent": 5}), "1.1", 400),
        (json!({"mode": "some"}), "1.1", 400),
        (json!({"mode": "all"}), "", 400),
    ] {
        let mut body = json!({"verification": {"provider_id": NOOP, "checkpoint_id": checkpoint}});
        for (name, value) in extra.as_object().expect("members") {
            body["verification"][name] = value.clone();
        }
        let reply = world.call_at(version, "member", "POST", "/v1/{P}/verifications", Some(&body)).await;
        assert_eq!(reply.status, status, "{extra}: {}", reply.text);
        if extra["sample_percent"] == 5 && status == 200 {
            let id = reply.json["verification"]["id"].as_str().expect("an id").parse().expect("an id");
            let operation = world.store.get_operation(id).await.expect("is there");
            let request: karbor_types::OperationRequest =
                serde_json::from_value(operation.request).expect("a request");
            assert_eq!(request.thoroughness, karbor_types::Thoroughness::Sample { percent: 5 });
            assert!(request.request_id.is_some_and(|id| id.starts_with("req-")));
        }
    }
}

#[tokio::test]
async fn copies_go_to_another_bank_once() {
    let world = World::new().await;
    let checkpoint = world.checkpoint("member").await;
    let at = format!("/v1/{{P}}/providers/{NOOP}/checkpoints");
    let shown = world.get("member", &format!("{at}/{checkpoint}")).await.ok();
    let plan = shown["checkpoint"]["protection_plan"]["id"].clone();
    let path = format!("{at}/action");
    let copy = |extra: Value| {
        let mut body = json!({"copy": {"plan_id": plan}});
        for (name, value) in extra.as_object().expect("members") {
            body["copy"][name] = value.clone();
        }
        body
    };
    let reply = world.post("member", &path, copy(json!({}))).await;
    assert_eq!((reply.status, reply.fault().contains("copy_to")), (400, true), "{}", reply.text);
    let same =
        world.call_at("1.1", "member", "POST", &path, Some(&copy(json!({"target_provider_id": NOOP})))).await;
    assert_eq!((same.status, same.fault().contains("same bank")), (400, true));
    let wish = copy(json!({"target_provider_id": INFRA}));
    let made = world.call_at("1.1", "member", "POST", &path, Some(&wish)).await.ok();
    let pair = &made["copy"]["checkpoint_id"][0];
    assert_eq!(pair["checkpoint_protect_id"], json!(checkpoint));
    assert_eq!((&made["copy"]["plan_id"], &made["copy"]["parameters"]), (&plan, &Value::Null));
    let copied = pair["checkpoint_copy_id"].as_str().expect("an id").to_owned();
    let there = format!("/v1/{{P}}/providers/{INFRA}/checkpoints/{copied}");
    assert_eq!(world.get("member", &there).await.ok()["checkpoint"]["status"], "wait_copying");
    let operation = world.store.get_operation(copied.parse().expect("an id")).await.expect("is there");
    let request: karbor_types::OperationRequest =
        serde_json::from_value(operation.request).expect("a request");
    assert_eq!(request.source.map(|source| source.checkpoint.to_string()), Some(checkpoint));
    world.work().await;
    assert_eq!(world.get("member", &there).await.ok()["checkpoint"]["status"], "available");
    let again = world.call_at("1.1", "member", "POST", &path, Some(&wish)).await.ok();
    assert_eq!(again["copy"]["checkpoint_id"], json!([]), "each is copied once");
}

#[tokio::test]
async fn a_project_has_an_area_in_each_bank() {
    let world = World::new().await;
    let at = |who: &'static str, method: &'static str, path: &'static str, body: Option<Value>| {
        let world = &world;
        async move { world.call_at("1.1", who, method, path, body.as_ref()).await }
    };
    let listed = at("member", "GET", "/v1/{P}/bank_accounts", None).await.ok();
    let banks: Vec<_> =
        listed["bank_accounts"].as_array().expect("a list").iter().map(|one| &one["bank"]).collect();
    assert_eq!(banks, ["files", "objects"], "made with defaults on first use");
    assert_eq!(listed["bank_accounts"][0]["quota_bytes"], Value::Null);
    let shown = at("member", "GET", "/v1/{P}/bank_accounts/files", None).await.ok();
    assert_eq!(shown["bank_account"]["usage"]["stored_bytes"], 0);
    assert_eq!(shown["bank_account"]["provider_ids"], json!([NOOP]));
    assert_eq!(
        world.get("member", "/v1/{P}/bank_accounts").await.status,
        404,
        "version 1.0 does not know it"
    );
    assert_eq!(at("member", "GET", "/v1/{P}/bank_accounts/nowhere", None).await.status, 404);

    let full = json!({"bank_account": {"quota_bytes": 0}});
    let path = "/v1/{P}/bank_accounts/files";
    assert_eq!(at("member", "PUT", path, Some(full.clone())).await.status, 403);
    for wrong in [
        json!({}),
        json!({"quota_bytes": -1}),
        json!({"quota_bytes": "1"}),
        json!({"quota_bytes": 1, "more": 1}),
    ] {
        let reply = at("admin", "PUT", path, Some(json!({"bank_account": wrong}))).await;
        assert_eq!(reply.status, 400, "{}", reply.text);
    }
    let set = at("admin", "PUT", path, Some(full)).await.ok();
    assert_eq!(set["bank_account"]["quota_bytes"], 0);
    let plan = world.plan("member").await;
    let protect = format!("/v1/{{P}}/providers/{NOOP}/checkpoints");
    let refused = world.post("member", &protect, json!({"checkpoint": {"plan_id": plan}})).await;
    assert_eq!(refused.status, 413);
    assert!(refused.fault().contains("quota of 0 bytes in the bank files"), "{}", refused.text);
    at("admin", "PUT", path, Some(json!({"bank_account": {"quota_bytes": null}}))).await.ok();
    world.post("member", &protect, json!({"checkpoint": {"plan_id": plan}})).await.ok();
    let all = at("admin", "GET", "/v1/{P}/bank_accounts?all_tenants=1", None).await.ok();
    assert_eq!(all["bank_accounts"].as_array().map(Vec::len), Some(2));
}
