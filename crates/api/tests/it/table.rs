//! Invariant 9: every request is authorised for its project. A table of all routes × who asks × whose object.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::description;
use crate::world::{INFRA, NOBODY, NOOP, OTHER, PROJECT, VOLUME, World, plan_body, project_of};

/// Who asks. `reader` has a role that the policy does not name.
const WHO: [&str; 7] = ["admin", "member", "reader", "other", "otheradmin", "nobody", "expired"];

/// Whose object is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Of the project of `admin`, `member` and `reader`.
    Theirs,
    /// Of nobody: it does not exist.
    Missing,
}

/// What a route does when everything is allowed and the object is there.
#[derive(Clone, Copy)]
struct Route {
    method: &'static str,
    /// `{id}` stands for the object's id, `{cp}` for its checkpoint.
    path: &'static str,
    /// Which of the prepared objects is meant.
    object: &'static str,
    body: fn(&Objects) -> Option<Value>,
    /// What those get who may, for an object that exists.
    own: u16,
    /// What somebody of another project gets who is no administrator, for an object that exists.
    foreign: u16,
    /// What an administrator of another project gets, where that is not what those get who may.
    foreign_admin: Option<u16>,
    /// What is answered for an object that does not exist.
    missing: u16,
    /// Whether only administrators may.
    admin: bool,
}

/// The ids of one project's objects.
struct Objects {
    plan: String,
    checkpoint: String,
    restore: String,
    verification: String,
    trigger: String,
    scheduled: String,
    log: String,
    operation: String,
}

impl Objects {
    async fn of(world: &World, who: &str) -> Self {
        let checkpoint = world.checkpoint(who).await;
        let id = |value: &Value, name: &str| value[name]["id"].as_str().expect("an id").to_owned();
        let run = json!({"provider_id": NOOP, "checkpoint_id": checkpoint, "parameters": {}});
        let restore = world.post(who, "/v1/{P}/restores", json!({"restore": run})).await.ok();
        let verification = world.post(who, "/v1/{P}/verifications", json!({"verification": run})).await.ok();
        world.work().await;
        let shown =
            world.get(who, &format!("/v1/{{P}}/providers/{NOOP}/checkpoints/{checkpoint}")).await.ok();
        let plan = id(&shown["checkpoint"], "protection_plan");
        world.store.heartbeat("karbor-operationengine", "host1", world.now()).await.expect("a heartbeat");
        let trigger = world.post(who, "/v1/{P}/triggers", json!({"trigger_info": trigger_body()})).await.ok();
        let trigger = id(&trigger, "trigger_info");
        let scheduled = json!({"name": "s", "operation_type": "protect", "trigger_id": trigger,
                               "operation_definition": {"plan_id": plan, "provider_id": NOOP}});
        let scheduled = world
            .post(who, "/v1/{P}/scheduled_operations", json!({"scheduled_operation": scheduled}))
            .await
            .ok();
        let logs = world.get(who, "/v1/{P}/operation_logs?limit=1").await.ok();
        Self {
            plan,
            restore: id(&restore, "restore"),
            verification: id(&verification, "verification"),
            trigger,
            scheduled: id(&scheduled, "scheduled_operation"),
            log: logs["operation_logs"][0]["id"].as_str().expect("a log").to_owned(),
            operation: checkpoint.clone(),
            checkpoint,
        }
    }

    fn id<'a>(&'a self, object: &'a str) -> &'a str {
        match object {
            "plan" => &self.plan,
            "checkpoint" => &self.checkpoint,
            "restore" => &self.restore,
            "verification" => &self.verification,
            "trigger" => &self.trigger,
            "scheduled" => &self.scheduled,
            "log" => &self.log,
            "operation" => &self.operation,
            "project" => PROJECT,
            "volume" => VOLUME,
            "service" => "1",
            other => other,
        }
    }
}

fn trigger_body() -> Value {
    json!({"name": "t", "type": "time", "properties": {
        "format": "calendar", "pattern": "BEGIN:VEVENT\nRRULE:FREQ=DAILY\nEND:VEVENT"}})
}

const fn route(method: &'static str, path: &'static str, object: &'static str) -> Route {
    Route {
        method,
        path,
        object,
        body: |_| None,
        own: 200,
        foreign: 404,
        foreign_admin: None,
        missing: 404,
        admin: false,
    }
}

/// Every route. What changes its object stands at the end, so that the others find it.
const ROUTES: &[Route] = &[
    route("GET", "/providers", ""),
    route("GET", "/providers/b766f37c-d011-4026-8228-28730d734a3f", ""),
    route("GET", "/protectables", ""),
    route("GET", "/protectables/OS::Cinder::Volume", ""),
    route("GET", "/protectables/OS::Cinder::Volume/instances", ""),
    // Administrators see their own project's things only: the clouds answer for one project.
    Route {
        foreign_admin: Some(404),
        ..route("GET", "/protectables/OS::Cinder::Volume/instances/{id}", "volume")
    },
    route("GET", "/plans", ""),
    Route { body: |_| Some(json!({ "plan": plan_body() })), ..route("POST", "/plans", "") },
    route("GET", "/late_plans", ""),
    route("GET", "/plans/{id}", "plan"),
    Route { body: |_| Some(json!({"plan": {"name": "x"}})), ..route("PUT", "/plans/{id}", "plan") },
    route("GET", "/providers/b766f37c-d011-4026-8228-28730d734a3f/checkpoints", ""),
    Route {
        body: |objects| Some(json!({"checkpoint": {"plan_id": objects.plan}})),
        ..route("POST", "/providers/b766f37c-d011-4026-8228-28730d734a3f/checkpoints", "plan")
    },
    Route {
        foreign: 403,
        ..route("GET", "/providers/b766f37c-d011-4026-8228-28730d734a3f/checkpoints/{id}", "checkpoint")
    },
    Route {
        body: |objects| Some(json!({"copy": {"plan_id": objects.plan, "target_provider_id": INFRA}})),
        ..route("POST", "/providers/b766f37c-d011-4026-8228-28730d734a3f/checkpoints/action", "plan")
    },
    route("GET", "/restores", ""),
    route("GET", "/restores/{id}", "restore"),
    Route {
        foreign: 403,
        body: |objects| {
            Some(
                json!({"restore": {"provider_id": NOOP, "checkpoint_id": objects.checkpoint, "parameters": {}}}),
            )
        },
        ..route("POST", "/restores", "checkpoint")
    },
    route("GET", "/verifications", ""),
    route("GET", "/verifications/{id}", "verification"),
    Route {
        foreign: 403,
        body: |objects| {
            Some(json!({"verification": {"provider_id": NOOP, "checkpoint_id": objects.checkpoint}}))
        },
        ..route("POST", "/verifications", "checkpoint")
    },
    route("GET", "/operation_logs", ""),
    route("GET", "/operation_logs/{id}", "log"),
    route("GET", "/operations", ""),
    route("GET", "/operations/{id}", "operation"),
    route("GET", "/operations/{id}/resources", "operation"),
    Route {
        body: |_| Some(json!({"cancel": {}})),
        // It has ended.
        own: 409,
        ..route("POST", "/operations/{id}/action", "operation")
    },
    route("GET", "/triggers", ""),
    Route { body: |_| Some(json!({"trigger_info": trigger_body()})), ..route("POST", "/triggers", "") },
    route("GET", "/triggers/{id}", "trigger"),
    Route {
        body: |_| Some(json!({"trigger_info": {"name": "y"}})),
        ..route("PUT", "/triggers/{id}", "trigger")
    },
    route("GET", "/triggers/{id}/preview", "trigger"),
    Route {
        body: |_| Some(json!({"preview": {"properties": trigger_body()["properties"]}})),
        ..route("POST", "/trigger_previews", "")
    },
    route("GET", "/scheduled_operations", ""),
    route("GET", "/scheduled_operations/{id}", "scheduled"),
    route("GET", "/scheduled_operations/{id}/retention", "scheduled"),
    route("GET", "/scheduled_operations/{id}/runs", "scheduled"),
    Route {
        body: |_| Some(json!({"run": {}})),
        ..route("POST", "/scheduled_operations/{id}/runs", "scheduled")
    },
    Route {
        body: |_| Some(json!({"scheduled_operation": {"name": "z"}})),
        ..route("PUT", "/scheduled_operations/{id}", "scheduled")
    },
    // The trigger is there, and fires at times: it has no address.
    Route { own: 400, ..route("PUT", "/triggers/{id}/address", "trigger") },
    Route {
        body: |_| Some(json!({"hold": {}})),
        ..route("PUT", "/providers/b766f37c-d011-4026-8228-28730d734a3f/checkpoints/{id}/hold", "checkpoint")
    },
    route("DELETE", "/providers/b766f37c-d011-4026-8228-28730d734a3f/checkpoints/{id}/hold", "checkpoint"),
    // What is scheduled belongs to the caller's project, with all that it names.
    Route {
        foreign_admin: Some(400),
        body: |objects| {
            Some(json!({"scheduled_operation": {
                "name": "s", "operation_type": "protect", "trigger_id": objects.trigger,
                "operation_definition": {"plan_id": objects.plan, "provider_id": NOOP}}}))
        },
        ..route("POST", "/scheduled_operations", "trigger")
    },
    Route { admin: true, ..route("GET", "/os-services", "") },
    Route {
        admin: true,
        body: |_| Some(json!({"status": "enabled"})),
        ..route("PUT", "/os-services/{id}", "service")
    },
    route("GET", "/bank_accounts", ""),
    Route { missing: 200, ..route("GET", "/bank_accounts/files?project_id={id}", "project") },
    Route {
        admin: true,
        body: |_| Some(json!({"bank_account": {"quota_bytes": null}})),
        missing: 200,
        ..route("PUT", "/bank_accounts/files?project_id={id}", "project")
    },
    Route { foreign: 403, missing: 200, ..route("GET", "/quotas/{id}", "project") },
    Route { foreign: 403, missing: 200, ..route("GET", "/quotas/{id}/detail", "project") },
    Route { foreign: 200, missing: 200, ..route("GET", "/quotas/{id}/defaults", "project") },
    Route {
        admin: true,
        body: |_| Some(json!({"quota": {"plans": 100}})),
        missing: 200,
        ..route("PUT", "/quotas/{id}", "project")
    },
    Route { admin: true, missing: 200, ..route("DELETE", "/quotas/{id}", "project") },
    Route { admin: true, ..route("GET", "/quota_classes/default", "") },
    Route {
        admin: true,
        body: |_| Some(json!({"quota_class": {"plans": 60}})),
        ..route("PUT", "/quota_classes/default", "")
    },
    Route {
        body: |_| Some(json!({"os-resetState": {"state": "available"}})),
        foreign: 403,
        ..route("PUT", "/providers/b766f37c-d011-4026-8228-28730d734a3f/checkpoints/{id}", "checkpoint")
    },
    Route {
        foreign: 403,
        ..route("DELETE", "/providers/b766f37c-d011-4026-8228-28730d734a3f/checkpoints/{id}", "checkpoint")
    },
    route("DELETE", "/scheduled_operations/{id}", "scheduled"),
    route("DELETE", "/triggers/{id}", "trigger"),
    route("DELETE", "/plans/{id}", "plan"),
];

/// The microversions that differ in what a route tells those who may not.
fn versions(route: &Route) -> &'static [&'static str] {
    if is_told_foreign(route) { &["1.1", "1.2"] } else { &["1.2"] }
}

/// Whether old clients are told that there is such a thing and that it is not theirs.
fn is_told_foreign(route: &Route) -> bool {
    route.object == "checkpoint" && route.foreign == 403
}

/// What the table says that somebody gets.
fn expected(route: &Route, version: &str, who: &str, whose: Whose) -> u16 {
    if matches!(who, "nobody" | "expired") {
        return 401;
    }
    let is_admin = matches!(who, "admin" | "otheradmin");
    if route.admin && !is_admin {
        return 403;
    }
    if route.object.is_empty() {
        return 200;
    }
    if whose == Whose::Missing {
        // Nobody's project is not the caller's.
        return if route.object == "project" && route.missing == 200 && !is_admin {
            route.foreign
        } else {
            route.missing
        };
    }
    let own = project_of(who) == PROJECT;
    if own {
        return route.own;
    }
    if is_admin {
        return route.foreign_admin.unwrap_or(route.own);
    }
    if is_told_foreign(route) && version == "1.2" { 404 } else { route.foreign }
}

#[test]
fn the_table_has_every_route() {
    let all: BTreeSet<(&str, &str)> =
        description::operations().into_iter().filter(|(_, path)| path.starts_with("/v1/{project}")).collect();
    let asked = ROUTES.iter().map(|route| {
        let path = format!("/v1/{PROJECT}{}", route.path.replace("{id}", NOBODY));
        let (template, _) = description::described(path.split('?').next().unwrap_or_default())
            .unwrap_or_else(|| panic!("{} is not described", route.path));
        (route.method, template)
    });
    let asked: BTreeSet<_> = asked.collect();
    let missing: Vec<_> = all.difference(&asked).collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
}

#[tokio::test]
async fn every_route_is_authorised_for_its_project() {
    for route in ROUTES {
        let cases =
            versions(route).iter().flat_map(|version| [(version, Whose::Theirs), (version, Whose::Missing)]);
        for (version, whose) in cases {
            if route.object.is_empty() && whose == Whose::Missing {
                continue;
            }
            let world = World::new().await;
            let mut objects = Objects::of(&world, "member").await;
            for who in WHO {
                let changes = matches!(route.method, "DELETE") && whose == Whose::Theirs;
                if changes && expected(route, version, who, whose) == 200 {
                    objects = Objects::of(&world, "member").await;
                    if route.object == "trigger" || route.object == "plan" {
                        // What is in use cannot be deleted.
                        let path = format!("/v1/{{P}}/scheduled_operations/{}", objects.scheduled);
                        assert_eq!(world.delete("member", &path).await.status, 200);
                    }
                }
                let missing = Objects {
                    plan: NOBODY.into(),
                    checkpoint: NOBODY.into(),
                    restore: NOBODY.into(),
                    verification: NOBODY.into(),
                    trigger: NOBODY.into(),
                    scheduled: NOBODY.into(),
                    log: NOBODY.into(),
                    operation: NOBODY.into(),
                };
                let named = if whose == Whose::Missing { &missing } else { &objects };
                let id = if whose == Whose::Missing { NOBODY } else { named.id(route.object) };
                let path = format!("/v1/{{P}}{}", route.path.replace("{id}", id));
                let body = (route.body)(named);
                let reply = world.call_at(version, who, route.method, &path, body.as_ref()).await;
                let expected = expected(route, version, who, whose);
                assert_eq!(
                    reply.status, expected,
                    "{} {} of {whose:?} at {version} as {who}: {}",
                    route.method, route.path, reply.text
                );
                if expected != 200 {
                    reply.fault();
                }
                assert!(reply.header("x-openstack-request-id").is_some_and(|id| id.starts_with("req-")));
                assert_eq!(reply.header("x-compute-request-id"), reply.header("x-openstack-request-id"));
                if who == "other" && expected == 200 {
                    assert!(
                        !reply.text.contains(PROJECT) || route.object == "project",
                        "leaks: {}",
                        reply.text
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn nobody_reaches_another_project_by_its_address() {
    let world = World::new().await;
    for who in ["other", "otheradmin"] {
        for path in ["/plans", "/providers", "/quotas/x", "/plans/x"] {
            let reply = world.call(who, "GET", &format!("/v1/{PROJECT}{path}"), None).await;
            assert_eq!(reply.status, 400, "{who} {path}");
            reply.fault();
        }
        let upper = format!("/v1/{}/plans", OTHER.to_uppercase());
        assert_eq!(world.get(who, &upper).await.status, 400);
    }
}

#[tokio::test]
async fn lists_hold_the_own_project_only_unless_an_administrator_asks_for_all() {
    let world = World::new().await;
    let own = Objects::of(&world, "member").await;
    let foreign = Objects::of(&world, "other").await;
    let checkpoints = format!("/providers/{NOOP}/checkpoints");
    for (path, member, object) in [
        ("/plans", "plans", "plan"),
        (checkpoints.as_str(), "checkpoints", "checkpoint"),
        ("/restores", "restores", "restore"),
        ("/verifications", "verifications", "verification"),
        ("/triggers", "triggers", "trigger"),
        ("/scheduled_operations", "operations", "scheduled"),
        ("/operation_logs", "operation_logs", "log"),
        ("/operations", "operations", "operation"),
    ] {
        for (who, query, sees_own, sees_foreign) in [
            ("member", "", true, false),
            ("member", "?all_tenants=1", true, false),
            ("member", &format!("?all_tenants=1&project_id={OTHER}"), true, false),
            ("member", &format!("?project_id={OTHER}"), true, false),
            ("admin", "", true, false),
            ("admin", "?all_tenants=0", true, false),
            ("admin", &format!("?project_id={OTHER}"), true, false),
            ("admin", "?all_tenants=1", true, true),
            ("admin", "?all_tenants=True", true, true),
            ("admin", &format!("?all_tenants=1&project_id={OTHER}"), false, true),
            ("other", "", false, true),
        ] {
            let reply = world.call_at("1.1", who, "GET", &format!("/v1/{{P}}{path}{query}"), None).await.ok();
            let ids: Vec<&str> = reply[member]
                .as_array()
                .expect("a list")
                .iter()
                .filter_map(|item| item["id"].as_str())
                .collect();
            assert_eq!(ids.contains(&own.id(object)), sees_own, "{path}{query} as {who}: {ids:?}");
            assert_eq!(ids.contains(&foreign.id(object)), sees_foreign, "{path}{query} as {who}: {ids:?}");
        }
    }
}

#[tokio::test]
async fn a_checkpoint_is_found_at_its_own_provider_only() {
    let world = World::new().await;
    let checkpoint = world.checkpoint("member").await;
    for (provider, status) in [(NOOP, 200), (INFRA, 404), (NOBODY, 404), ("abc", 400)] {
        let path = format!("/v1/{{P}}/providers/{provider}/checkpoints/{checkpoint}");
        assert_eq!(world.get("member", &path).await.status, status, "{provider}");
        if status != 200 {
            assert_eq!(world.delete("member", &path).await.status, status, "{provider}");
            let restore = json!({"provider_id": provider, "checkpoint_id": checkpoint, "parameters": {}});
            let reply = world.post("member", "/v1/{P}/restores", json!({"restore": restore})).await;
            assert_eq!(reply.status, status, "{provider}: {}", reply.text);
        }
    }
}
