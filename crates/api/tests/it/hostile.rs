//! Whatever comes in: never a 5xx, always a fault with its reason.

use axum::body::Body;
use axum::http::Request;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};

use crate::world::{INFRA, NOBODY, NOOP, PROJECT, VOLUME, World, plan_body, token_of};

/// Values of every kind, and those that mean something somewhere.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,40}".prop_map(Value::from),
        prop::sample::select(vec![
            NOOP,
            INFRA,
            NOBODY,
            VOLUME,
            PROJECT,
            "",
            " ",
            "time",
            "protect",
            "available",
            "calendar",
            "0 3 * * *",
            "2030-01-01 00:00:00",
            "OS::Cinder::Volume",
            "\u{0}",
            "\u{202e}",
            "{",
            "a=b,c=d",
            "-1",
            "99999999999999999999",
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(names(), inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "plan",
            "restore",
            "verification",
            "checkpoint",
            "copy",
            "trigger_info",
            "scheduled_operation",
            "quota",
            "quota_class",
            "os-resetState",
            "status",
            "disabled_reason",
            "name",
            "description",
            "provider_id",
            "plan_id",
            "checkpoint_id",
            "parameters",
            "resources",
            "id",
            "type",
            "properties",
            "pattern",
            "format",
            "window",
            "start_time",
            "end_time",
            "operation_type",
            "operation_definition",
            "trigger_id",
            "extra-info",
            "extra_info",
            "state",
            "plans",
            "checkpoints",
            "restore_auth",
            "restore_target",
            "cancel",
            "dry_run",
            "mode",
            "OS::Cinder::Volume",
            "max_backups",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,8}",
    ]
}

/// Well formed bodies with some members replaced by anything.
fn bent() -> impl Strategy<Value = Value> {
    let whole = prop::sample::select(vec![
        json!({ "plan": plan_body() }),
        json!({"restore": {"provider_id": NOOP, "checkpoint_id": NOBODY, "parameters": {}, "restore_auth": {}}}),
        json!({"verification": {"provider_id": NOOP, "checkpoint_id": NOBODY, "parameters": {}}}),
        json!({"checkpoint": {"plan_id": NOBODY, "extra-info": {"a": "b"}}}),
        json!({"copy": {"plan_id": NOBODY, "parameters": {}}}),
        json!({"trigger_info": {"name": "t", "type": "time", "properties": {"format": "crontab", "pattern": "0 3 * * *"}}}),
        json!({"scheduled_operation": {"name": "s", "operation_type": "protect", "trigger_id": NOBODY,
            "operation_definition": {"plan_id": NOBODY, "provider_id": NOOP}}}),
        json!({"quota": {"plans": 1, "checkpoints": 2}}),
        json!({"os-resetState": {"state": "error"}}),
        json!({"status": "disabled", "disabled_reason": "x"}),
    ]);
    (whole, prop::collection::vec((any::<prop::sample::Index>(), values()), 0..3)).prop_map(
        |(mut whole, changes)| {
            for (index, value) in changes {
                let mut places = Vec::new();
                pointers(&whole, String::new(), &mut places);
                let place = index.get(&places).clone();
                if let Some(there) = whole.pointer_mut(&place) {
                    *there = value;
                }
            }
            whole
        },
    )
}

fn pointers(value: &Value, at: String, places: &mut Vec<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            pointers(value, format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), places);
        }),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(index, value)| pointers(value, format!("{at}/{index}"), places)),
        _ => {}
    }
    places.push(at);
}

const TARGETS: [(&str, &str); 17] = [
    ("POST", "/plans"),
    ("PUT", "/plans/{plan}"),
    ("POST", "/restores"),
    ("POST", "/verifications"),
    ("POST", "/providers/b766f37c-d011-4026-8228-28730d734a3f/checkpoints"),
    ("PUT", "/providers/b766f37c-d011-4026-8228-28730d734a3f/checkpoints/{checkpoint}"),
    ("POST", "/providers/b766f37c-d011-4026-8228-28730d734a3f/checkpoints/action"),
    ("POST", "/triggers"),
    ("PUT", "/triggers/deadbeef-dead-4eef-8ead-beefdeadbeef"),
    ("POST", "/scheduled_operations"),
    ("PUT", "/quotas/0123456789abcdef0123456789abcdef"),
    ("PUT", "/quota_classes/x"),
    ("PUT", "/os-services/1"),
    ("POST", "/operations/{checkpoint}/action"),
    ("GET", "/plans"),
    ("DELETE", "/plans/deadbeef-dead-4eef-8ead-beefdeadbeef"),
    ("POST", "/protectables"),
];

fn run_cases<S: Strategy>(cases: u32, strategy: &S, check: impl Fn(&S::Value) -> Result<(), TestCaseError>)
where
    S::Value: Clone,
{
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    runner.run(strategy, |value| check(&value)).expect("holds for every case");
}

fn judge(reply: &crate::world::Reply, what: &str) -> Result<(), TestCaseError> {
    prop_assert!(reply.status < 500, "{}: {:?}", what, reply);
    if reply.status >= 400 {
        prop_assert!(!reply.fault().is_empty());
        prop_assert!(reply.header("retry-after").is_none() || reply.status == 413);
    }
    Ok(())
}

#[test]
fn no_body_brings_a_fault_of_the_service() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let world = runtime.block_on(World::new());
    let plan = runtime.block_on(world.plan("admin"));
    let checkpoint = runtime.block_on(world.checkpoint("admin"));
    runtime.block_on(async {
        world.store.heartbeat("karbor-operationengine", "h", world.now()).await.expect("a heartbeat")
    });
    let strategy =
        (prop::sample::select(TARGETS.to_vec()), prop_oneof![2 => bent(), 1 => values()], any::<bool>());
    run_cases(800, &strategy, |((method, path), body, later)| {
        let path = format!("/v1/{{P}}{}", path.replace("{plan}", &plan).replace("{checkpoint}", &checkpoint));
        let version = if *later { "1.1" } else { "" };
        let reply = runtime.block_on(world.call_at(version, "admin", method, &path, Some(body)));
        judge(&reply, &format!("{method} {path} {body}"))
    });
}

#[test]
fn no_address_brings_a_fault_of_the_service() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let world = runtime.block_on(World::new());
    runtime.block_on(world.checkpoint("admin"));
    let parts = prop::collection::vec(
        prop_oneof![
            prop::sample::select(vec![
                "plans",
                "restores",
                "verifications",
                "triggers",
                "scheduled_operations",
                "operation_logs",
                "operations",
                "providers",
                "protectables",
                "os-services",
                "quotas",
                "quota_classes",
                "checkpoints",
                "instances",
                "defaults",
                "detail",
                "action",
                "resources",
                "edit",
                "new",
                NOOP,
                NOBODY,
                PROJECT,
                VOLUME,
                "OS::Cinder::Volume",
                "%2e%2e",
                "..",
                "%00",
                "%ff",
                "a%2Fb",
                "x.json",
                "",
            ])
            .prop_map(str::to_owned),
            "[a-zA-Z0-9._~%-]{0,12}",
        ],
        0..5,
    );
    let query = prop::collection::vec(
        (
            prop::sample::select(vec![
                "limit",
                "offset",
                "marker",
                "sort",
                "sort_key",
                "sort_dir",
                "all_tenants",
                "project_id",
                "name",
                "status",
                "parameters",
                "start_date",
                "end_date",
                "plan_id",
                "checkpoint_id",
                "created_at",
                "id",
                "properties",
                "resources_status",
                "enabled",
                "x",
            ]),
            prop_oneof![
                prop::sample::select(vec![
                    "1",
                    "0",
                    "-1",
                    "name:asc",
                    "created_at",
                    "id:desc,name:asc",
                    NOBODY,
                    "2030-01-01",
                    "9999-12-31",
                    "-9999-01-01",
                    "%7B%27a%27:1%7D",
                    "%00",
                    "%ff",
                    "%25",
                    "_",
                    "'",
                    "true",
                    "99999999999999999999",
                ])
                .prop_map(str::to_owned),
                "[a-zA-Z0-9%:,._-]{0,10}",
            ],
        ),
        0..4,
    );
    let strategy = (prop::sample::select(vec!["GET", "POST", "PUT", "DELETE"]), parts, query, any::<bool>());
    run_cases(800, &strategy, |(method, parts, query, later)| {
        let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let uri = format!("/v1/{PROJECT}/{}?{}", parts.join("/"), query.join("&"));
        let mut request =
            Request::builder().method(*method).uri(&uri).header("x-auth-token", token_of("admin"));
        if *later {
            request = request.header("openstack-api-version", "data-protect latest");
        }
        let Ok(request) = request.body(Body::empty()) else { return Ok(()) };
        let reply = runtime.block_on(world.send(request));
        judge(&reply, &format!("{method} {uri}"))
    });
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_given_up() {
    let config = karbor_api::ApiConfig { body_seconds: 0, ..karbor_api::ApiConfig::default() };
    let world = World::with(crate::world::Setup { config, ..Default::default() }).await;
    let never = Body::from_stream(futures::stream::pending::<Result<String, std::io::Error>>());
    let request = Request::builder()
        .method("POST")
        .uri(format!("/v1/{PROJECT}/plans"))
        .header("x-auth-token", token_of("member"));
    let reply =
        world.send(request.header("content-type", "application/json").body(never).expect("a request")).await;
    assert_eq!(reply.status, 408);
    reply.fault();

    let config =
        karbor_api::ApiConfig { request_seconds: 0, body_seconds: 60, ..karbor_api::ApiConfig::default() };
    let world = World::with(crate::world::Setup { config, ..Default::default() }).await;
    let never = Body::from_stream(futures::stream::pending::<Result<String, std::io::Error>>());
    let request = Request::builder()
        .method("POST")
        .uri(format!("/v1/{PROJECT}/plans"))
        .header("x-auth-token", token_of("member"));
    let reply =
        world.send(request.header("content-type", "application/json").body(never).expect("a request")).await;
    assert_eq!(reply.status, 503);
    reply.fault();
}

#[tokio::test]
async fn headers_of_every_kind_are_survived() {
    let world = World::new().await;
    let long = "x".repeat(100_000);
    for (name, value) in [
        ("x-auth-token", long.as_bytes()),
        ("x-auth-token", &b"\xff\xfe"[..]),
        ("x-forwarded-host", &b"\xff"[..]),
        ("x-forwarded-proto", b"https, \xff"),
        ("openstack-api-version", &b"\xff"[..]),
        ("content-type", &b"\xff"[..]),
        ("content-length", b"99999999999999999999"),
        ("accept", b"application/xml"),
        ("x-openstack-request-id", b"req-00000000-0000-4000-8000-000000000000"),
    ] {
        let value = axum::http::HeaderValue::from_bytes(value).expect("a header");
        let mut request = Request::builder().uri(format!("/v1/{PROJECT}/plans"));
        if name != "x-auth-token" {
            request = request.header("x-auth-token", token_of("member"));
        }
        let reply = world.send(request.header(name, value).body(Body::empty()).expect("a request")).await;
        assert!(reply.status < 500, "{name}: {reply:?}");
        let id = reply.header("x-openstack-request-id").expect("an id");
        assert!(id != "req-00000000-0000-4000-8000-000000000000", "a client's id is never repeated");
    }
}
