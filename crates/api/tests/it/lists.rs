//! Lists: pages, order, filters, links.

use serde_json::{Value, json};

use crate::world::{NOOP, PROJECT, World, plan_body};

fn ids(list: &Value) -> Vec<String> {
    list.as_array()
        .expect("a list")
        .iter()
        .filter_map(|item| item["id"].as_str())
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn pages_follow_each_other_by_their_links() {
    let world = World::new().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(world.plan("member").await);
    }
    made.reverse();
    let mut seen = Vec::new();
    let mut path = "/v1/{P}/plans?limit=2".to_owned();
    for page in 0..3 {
        let reply = world.get("member", &path).await.ok();
        seen.extend(ids(&reply["plans"]));
        match reply.get("plans_links") {
            Some(links) => {
                assert_eq!(links[0]["rel"], "next");
                let href = links[0]["href"].as_str().expect("an address");
                let last = &seen[seen.len() - 1];
                assert_eq!(href, format!("http://karbor.test:8799/v1/{PROJECT}/plans?limit=2&marker={last}"));
                path = href.strip_prefix("http://karbor.test:8799").expect("our host").to_owned();
            }
            None => assert_eq!(page, 2, "only the last page has no link"),
        }
    }
    assert_eq!(seen, made, "newest first, each once");
    let full = world.get("member", "/v1/{P}/plans?limit=5").await.ok();
    assert!(full.get("plans_links").is_none(), "a full last page has no next one");
}

#[tokio::test]
async fn checkpoints_and_instances_have_pages_too() {
    let world = World::new().await;
    for _ in 0..3 {
        world.checkpoint("member").await;
    }
    let volumes = "/v1/{P}/protectables/OS::Cinder::Volume/instances".to_owned();
    let checkpoints = format!("/v1/{{P}}/providers/{NOOP}/checkpoints");
    for (path, member, count) in [
        (checkpoints, "checkpoints", 3),
        (volumes, "instances", 2),
        ("/v1/{P}/providers".into(), "providers", 2),
    ] {
        let all = ids(&world.get("member", &path).await.ok()[member]);
        assert_eq!(all.len(), count);
        let mut seen = Vec::new();
        let mut next = format!("{path}?limit=1");
        for _ in 0..count {
            let reply = world.get("member", &next).await.ok();
            seen.extend(ids(&reply[member]));
            let Some(href) = reply[format!("{member}_links")][0]["href"].as_str() else { break };
            next = href.strip_prefix("http://karbor.test:8799").expect("our host").to_owned();
        }
        assert_eq!(seen, all, "{member}");
    }
}

#[tokio::test]
async fn links_point_to_where_the_client_came_in() {
    let world = World::new().await;
    world.plan("member").await;
    world.plan("member").await;
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[], "http://own:1"),
        (&[("x-forwarded-host", "a.example, b.example:8443")], "http://b.example:8443"),
        (&[("x-forwarded-host", "api.example"), ("x-forwarded-proto", "https")], "https://api.example"),
        (&[("x-forwarded-prefix", "/data-protect/")], "http://own:1/data-protect"),
        (&[("x-forwarded-host", "evil\"<x>"), ("x-forwarded-proto", "javascript")], "http://own:1"),
        (&[("x-forwarded-host", "a b")], "http://own:1"),
    ];
    for (headers, base) in cases {
        let mut request = axum::http::Request::builder()
            .uri(format!("/v1/{PROJECT}/plans?limit=1&name=plan%20a%26"))
            .header("host", "own:1")
            .header("x-auth-token", format!("member:{PROJECT}"));
        for (name, value) in *headers {
            request = request.header(*name, *value);
        }
        let request =
            request.uri(format!("/v1/{PROJECT}/plans?limit=1&name=plan%2Da")).body(axum::body::Body::empty());
        let reply = world.send(request.expect("a request")).await.ok();
        let href = reply["plans_links"][0]["href"].as_str().expect("a link");
        assert!(
            href.starts_with(&format!("{base}/v1/{PROJECT}/plans?limit=1&name=plan-a&marker=")),
            "{href}"
        );
    }
}

#[tokio::test]
async fn limits_offsets_and_sort_keys_are_checked() {
    let world = World::new().await;
    for name in ["b", "a", "c"] {
        let mut plan = plan_body();
        plan["name"] = name.into();
        world.post("member", "/v1/{P}/plans", json!({ "plan": plan })).await.ok();
    }
    let names = |list: &Value| -> String {
        list["plans"].as_array().expect("a list").iter().filter_map(|plan| plan["name"].as_str()).collect()
    };
    for (query, expected) in [
        ("sort=name:asc", "abc"),
        ("sort=name", "cba"),
        ("sort= name : asc ", "abc"),
        ("sort_key=name&sort_dir=asc", "abc"),
        ("sort_key=name", "cba"),
        ("sort=status:asc,name:desc", "cba"),
        ("sort=created_at:asc", "bac"),
        ("sort=deleted:asc,name:asc", "abc"),
        ("", "cab"),
        ("limit=1&limit=2&sort=name:asc", "ab"),
        ("limit=99999999999999999999&sort=name:asc", "abc"),
        ("offset=1&sort=name:asc", "bc"),
        ("offset=2147483647", ""),
        ("name=b", "b"),
        ("name=B", ""),
        ("name=123", ""),
        ("name=.", ""),
        ("description=irs&sort=name:asc", "abc"),
        ("status=suspended&sort=name:asc", "abc"),
        ("status=started", ""),
        ("colour=red&sort=name:asc", "abc"),
    ] {
        let reply = world.get("member", &format!("/v1/{{P}}/plans?{}", query.replace(' ', "%20"))).await;
        assert_eq!(names(&reply.ok()), expected, "{query}");
    }
    for query in [
        "limit=x",
        "limit=",
        "limit=0",
        "limit=-1",
        "limit=1.5",
        "offset=x",
        "offset=-1",
        "offset=2147483648",
        "sort=colour",
        "sort=",
        "sort=name:up",
        "sort=resources",
        "sort=name&sort_key=name",
        "sort_key=name&sort_dir=up",
    ] {
        let reply = world.get("member", &format!("/v1/{{P}}/plans?{query}")).await;
        assert_eq!(reply.status, 400, "{query}");
        reply.fault();
    }
    for marker in ["abc", "deadbeef-dead-4eef-8ead-beefdeadbeef"] {
        assert_eq!(world.get("member", &format!("/v1/{{P}}/plans?marker={marker}")).await.status, 404);
        for collection in ["triggers", "scheduled_operations", &format!("providers/{NOOP}/checkpoints")] {
            let reply = world.get("member", &format!("/v1/{{P}}/{collection}?marker={marker}")).await;
            assert_eq!(reply.status, 400, "{collection}");
        }
    }
    assert_eq!(world.get("admin", "/v1/{P}/plans?all_tenants=maybe").await.status, 400);
    assert_eq!(world.get("member", "/v1/{P}/plans?all_tenants=maybe").await.status, 200);
    assert_eq!(world.get("member", "/v1/{P}/triggers?all_tenants=maybe").await.status, 400);
}

#[tokio::test]
async fn checkpoints_are_found_by_plan_and_day() {
    let world = World::new().await;
    let id = world.checkpoint("member").await;
    let path = format!("/v1/{{P}}/providers/{NOOP}/checkpoints");
    let shown = world.get("member", &format!("{path}/{id}")).await.ok();
    let plan = shown["checkpoint"]["protection_plan"]["id"].as_str().expect("an id").to_owned();
    assert_eq!(shown["checkpoint"]["created_at"], "2026-11-22");
    for (query, found) in [
        (format!("plan_id={plan}"), true),
        ("plan_id=abc".into(), false),
        ("start_date=2026-11-22".into(), true),
        ("start_date=2026-11-23".into(), false),
        ("start_date=2026-11-01&end_date=2026-11-22".into(), true),
        ("start_date=2026-11-01&end_date=2026-11-21".into(), false),
        ("start_date=2099-01-01&end_date=2020-01-01".into(), false),
        ("end_date=2020-01-01".into(), true),
        ("start_date=2026-11-1".into(), true),
        ("status=error".into(), true),
        ("sort=colour".into(), true),
        ("sort=created_at:sideways".into(), true),
        ("sort_key=id&sort_dir=asc".into(), true),
    ] {
        let list = world.get("member", &format!("{path}?{query}")).await.ok();
        assert_eq!(ids(&list["checkpoints"]).contains(&id), found, "{query}");
    }
    for query in
        ["start_date=yesterday", "end_date=2026-1-32", "start_date=2026-13-01", "start_date=%202026-1-1"]
    {
        assert_eq!(world.get("member", &format!("{path}?{query}")).await.status, 400, "{query}");
    }
    let later = world.call_at("1.1", "member", "GET", &format!("{path}?status=error"), None).await.ok();
    assert_eq!(later["checkpoints"], json!([]));
    let later =
        world.call_at("1.1", "member", "GET", &format!("{path}?end_date=2020-01-01"), None).await.ok();
    assert_eq!(later["checkpoints"], json!([]));
}
