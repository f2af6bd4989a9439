//! Who somebody is: the local file, nobody at all, and Keystone.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State as AxumState;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use karbor_actions::{Authority, Clock, PolicyFiles};
use karbor_api::Identity;
use karbor_api::identity::IdentityError;
use karbor_api::identity::keystone::{Keystone, KeystoneConfig};
use karbor_api::identity::local::{LocalError, LocalFile, LocalIdentity, hash_token, new_token};
use karbor_api::identity::noauth::NoAuth;
use karbor_types::{Instant, ProjectId, UserId};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::world::{OTHER, PROJECT, Setup, World};

fn clock() -> (Clock, Arc<AtomicI64>) {
    let now = Arc::new(AtomicI64::new(1_795_386_554_000_000));
    let shared = Arc::clone(&now);
    (Arc::new(move || Instant::from_micros(shared.load(Ordering::Relaxed))), now)
}

fn first(path: &Path) -> String {
    let token = new_token(&[7; 32]);
    let file =
        LocalFile::first(ProjectId::new(PROJECT).expect("an id"), UserId::new("u1").expect("an id"), &token);
    file.write(path).expect("the file is written");
    token.expose_secret().to_owned()
}

#[tokio::test]
async fn the_first_token_is_an_administrators_and_only_its_hash_is_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("identity.toml");
    let token = first(&path);
    assert!(token.starts_with("karbor-") && token.len() == 71, "{token}");
    let text = std::fs::read_to_string(&path).expect("the file");
    assert!(!text.contains(&token) && text.contains("blake3:"), "{text}");
    let mode = std::fs::metadata(&path).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let (clock, _) = clock();
    let identity = LocalIdentity::open(&path, clock).expect("opens");
    let world = World::with(Setup { identity: Arc::new(identity), ..Setup::default() }).await;
    let send = |token: &str| {
        let request = axum::http::Request::builder()
            .uri(format!("/v1/{PROJECT}/os-services"))
            .header("x-auth-token", token);
        world.send(request.body(axum::body::Body::empty()).expect("a request"))
    };
    assert_eq!(send(&token).await.status, 200);
    for wrong in ["", "karbor-", &token[..70], &token.to_uppercase(), &format!("{token} ")] {
        let reply = send(wrong).await;
        assert_eq!(reply.status, 401, "{wrong}");
        assert_eq!(reply.header("www-authenticate"), Some("Token realm=\"karbor\""));
        reply.fault();
    }
}

#[tokio::test]
async fn a_changed_identity_file_holds_at_once_and_a_broken_one_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("identity.toml");
    let old = first(&path);
    let (clock, now) = clock();
    let identity = LocalIdentity::open(&path, clock).expect("opens");
    assert!(identity.authenticate(&old).await.is_ok());

    let mut file = LocalFile::read(&path).expect("reads");
    let new = new_token(&[8; 32]);
    file.tokens[0].hash = hash_token(&new);
    file.tokens[0].roles = vec!["reader".to_owned()];
    file.tokens[0].expires_at =
        Some(jiff::Timestamp::from_microsecond(now.load(Ordering::Relaxed) + 1_000_000).expect("a time"));
    file.write(&path).expect("writes");
    let new = new.expose_secret();
    assert_eq!(identity.authenticate(new).await.expect("known").roles, ["reader"]);
    assert!(matches!(identity.authenticate(&old).await, Err(IdentityError::Refused { .. })));

    std::fs::write(&path, "format = 1\n[[token]]\n").expect("writes");
    assert!(identity.authenticate(new).await.is_ok(), "what held before holds on");
    now.fetch_add(1_000_000, Ordering::Relaxed);
    let Err(IdentityError::Refused { reason }) = identity.authenticate(new).await else {
        panic!("it has expired")
    };
    assert!(reason.contains("expired"));
}

#[test]
fn a_wrong_identity_file_is_refused_with_its_reason() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("identity.toml");
    let hash = hash_token(&new_token(&[1; 32]));
    let token = format!("[[token]]\nhash = \"{hash}\"\nuser = \"u\"\nproject = \"p\"\n");
    let both = "[[project]]\nid = \"p\"\nname = \"x\"\n[[user]]\nid = \"u\"\nname = \"x\"\n";
    for (text, reason) in [
        (String::new(), "malformed"),
        ("format = 2".into(), "format 2"),
        ("format = 1\ncolour = 1".into(), "malformed"),
        (format!("format = 1\n{token}"), "project p, which is not there"),
        (format!("format = 1\n[[project]]\nid = \"p\"\nname = \"x\"\n{token}"), "user u, who is not there"),
        (format!("format = 1\n{both}{token}{token}"), "stands twice"),
        (format!("format = 1\n{both}{}", token.replace("blake3:", "md5:")), "no hash"),
        ("format = 1\n[[project]]\nid = \"a/b\"\nname = \"x\"".into(), "malformed"),
    ] {
        std::fs::write(&path, &text).expect("writes");
        let err = LocalFile::read(&path).expect_err(&text);
        assert!(err.to_string().contains(reason), "{text}: {err}");
    }
    let missing = LocalFile::read(&directory.path().join("none.toml"));
    assert!(matches!(missing, Err(LocalError::Io { .. })));
}

#[tokio::test]
async fn without_identity_everybody_is_who_they_say() {
    let world = World::with(Setup { identity: Arc::new(NoAuth), ..Setup::default() }).await;
    let send = |headers: &[(&str, &str)]| {
        let mut request =
            axum::http::Request::builder().uri(format!("/v1/{PROJECT}/os-services")).header("host", "h:1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        world.send(request.body(axum::body::Body::empty()).expect("a request"))
    };
    let welcome = send(&[("x-auth-user", "joe"), ("x-auth-project-id", "p9")]).await;
    assert_eq!((welcome.status, welcome.text.as_str()), (204, ""));
    assert_eq!(welcome.header("x-auth-token"), Some("joe:p9"));
    assert_eq!(
        welcome.header("x-server-management-url"),
        Some(format!("http://h:1/v1/{PROJECT}/os-services/p9").as_str())
    );
    assert_eq!(send(&[]).await.header("x-auth-token"), Some("admin:admin"));
    assert_eq!(send(&[("x-auth-token", &format!("joe:{PROJECT}"))]).await.status, 200);
    assert_eq!(send(&[("x-auth-token", PROJECT)]).await.status, 200, "the user is the project then");
    assert_eq!(send(&[("x-auth-token", &format!("joe:{OTHER}"))]).await.status, 400);
    assert_eq!(send(&[("x-auth-token", "a/b:c")]).await.status, 401);
}

/// A Keystone that knows two tokens, and counts what it is asked.
#[derive(Default)]
struct FakeKeystone {
    logins: AtomicUsize,
    validations: AtomicUsize,
    broken: AtomicUsize,
}

async fn login(AxumState(fake): AxumState<Arc<FakeKeystone>>) -> impl IntoResponse {
    let number = fake.logins.fetch_add(1, Ordering::Relaxed);
    (StatusCode::CREATED, [("X-Subject-Token", format!("own-{number}"))], "{}")
}

async fn validate(AxumState(fake): AxumState<Arc<FakeKeystone>>, headers: HeaderMap) -> (StatusCode, String) {
    fake.validations.fetch_add(1, Ordering::Relaxed);
    if fake.broken.load(Ordering::Relaxed) == 1 {
        return (StatusCode::INTERNAL_SERVER_ERROR, String::new());
    }
    let newest = format!("own-{}", fake.logins.load(Ordering::Relaxed).wrapping_sub(1));
    if headers.get("x-auth-token").and_then(|token| token.to_str().ok()) != Some(&newest) {
        return (StatusCode::UNAUTHORIZED, String::new());
    }
    let domain = json!({"id": "default", "name": "Default"});
    let mut token = json!({
        "user": {"id": "u1", "name": "joe", "domain": domain}, "expires_at": "2026-11-22T23:00:00.000000Z",
        "roles": [{"id": "r", "name": "member"}], "methods": ["password"]});
    match headers.get("x-subject-token").and_then(|token| token.to_str().ok()) {
        Some("good") => token["project"] = json!({"id": PROJECT, "name": "demo", "domain": domain}),
        Some("unscoped") => {}
        _ => return (StatusCode::NOT_FOUND, String::new()),
    }
    (StatusCode::OK, json!({ "token": token }).to_string())
}

async fn fake_keystone() -> (Arc<FakeKeystone>, String, tokio::task::JoinHandle<()>) {
    let fake = Arc::new(FakeKeystone::default());
    let router =
        Router::new().route("/v3/auth/tokens", get(validate).post(login)).route("/other", post(login));
    let router = router.with_state(Arc::clone(&fake));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let server = tokio::spawn(async move {
        axum::serve(listener, router).await.expect("serves");
    });
    (fake, url, server)
}

fn keystone(url: &str, clock: Clock) -> Keystone {
    let config: KeystoneConfig = serde_json::from_value(json!({
        "auth-url": format!("{url}/v3/"), "username": "karbor", "password": "secret"}))
    .expect("a configuration");
    assert!(!format!("{config:?}").contains("secret"));
    Keystone::new(config, clock).expect("a client")
}

#[tokio::test]
async fn keystone_is_asked_once_per_token_and_believed_until_it_expires() {
    let (fake, url, server) = fake_keystone().await;
    let (clock, now) = clock();
    let identity = Arc::new(keystone(&url, clock));
    let asked: Vec<_> = (0..8)
        .map(|_| {
            let identity = Arc::clone(&identity);
            tokio::spawn(async move { identity.authenticate("good").await })
        })
        .collect();
    for answer in asked {
        let principal = answer.await.expect("no panic").expect("accepted");
        assert_eq!((principal.project.as_str(), principal.user.as_str()), (PROJECT, "u1"));
        assert_eq!(
            (principal.project_name.as_deref(), principal.roles.as_slice()),
            (Some("demo"), &["member".to_owned()][..])
        );
    }
    assert_eq!((fake.logins.load(Ordering::Relaxed), fake.validations.load(Ordering::Relaxed)), (1, 1));
    for (token, reason) in [("unscoped", "no project"), ("unknown", "not valid"), ("", "empty")] {
        let Err(IdentityError::Refused { reason: told }) = identity.authenticate(token).await else {
            panic!("{token}")
        };
        assert!(told.contains(reason), "{token}: {told}");
    }
    // The token's end is heeded although the answer is still kept.
    now.fetch_add(3600 * 1_000_000, Ordering::Relaxed);
    let Err(IdentityError::Refused { reason }) = identity.authenticate("good").await else {
        panic!("it has expired")
    };
    assert!(reason.contains("expired"));
    server.abort();
}

#[tokio::test]
async fn a_lost_login_is_renewed_and_an_absent_keystone_is_told_apart() {
    let (fake, url, server) = fake_keystone().await;
    let (clock, _) = clock();
    let identity = keystone(&url, Arc::clone(&clock));
    assert!(identity.authenticate("unknown").await.is_err());
    // Somebody else logged in: our own token is no longer the newest and is refused.
    fake.logins.fetch_add(1, Ordering::Relaxed);
    assert!(identity.authenticate("good").await.is_ok());
    assert_eq!(fake.logins.load(Ordering::Relaxed), 3);

    fake.broken.store(1, Ordering::Relaxed);
    assert!(matches!(identity.authenticate("x").await, Err(IdentityError::Unavailable { .. })));
    server.abort();

    let world =
        World::with(Setup { identity: Arc::new(keystone("http://127.0.0.1:1", clock)), ..Setup::default() })
            .await;
    let reply = world.get("member", "/v1/{P}/plans").await;
    assert_eq!(reply.status, 503);
    assert!(!reply.fault().contains("127.0.0.1"), "no cause in a 5xx: {}", reply.text);
    assert_eq!(reply.header("retry-after"), None);
    let refused = world.get("nobody", "/v1/{P}/plans").await;
    assert_eq!(refused.header("www-authenticate"), Some("Keystone uri=\"http://127.0.0.1:1/v3/\""));
}

#[tokio::test]
async fn a_changed_policy_file_holds_within_a_second_and_a_broken_one_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let (file, extra) = (directory.path().join("policy.yaml"), directory.path().join("policy.d"));
    std::fs::create_dir(&extra).expect("a directory");
    std::fs::write(&file, "plan:get_all: '!'\n").expect("writes");
    let files = PolicyFiles {
        files: vec![directory.path().join("policy.json"), file.clone()],
        directories: vec![extra.clone()],
    };
    let authority = Authority::from_files(files.clone()).expect("good rules");
    let world = World::with(Setup { authority, ..Setup::default() }).await;
    let status = async || {
        world.clock.fetch_add(1_000_000, Ordering::Relaxed);
        world.get("member", "/v1/{P}/plans").await.status
    };
    assert_eq!(status().await, 403);
    std::fs::write(extra.join("10.yaml"), "plan:get_all: '@' # over the file before\n").expect("writes");
    assert_eq!(status().await, 200);
    std::fs::write(extra.join("20.yaml"), "plan:get_all: 'role:'x\n").expect("writes");
    assert_eq!(status().await, 200, "a broken file changes nothing");
    let err = Authority::from_files(files).expect_err("a broken file stops the start");
    let text = format!("{err}: {}", std::error::Error::source(&err).expect("a cause"));
    assert!(text.contains("20.yaml") && text.contains("line 1"), "{text}");
    std::fs::remove_file(extra.join("20.yaml")).expect("removes");
    std::fs::remove_file(extra.join("10.yaml")).expect("removes");
    assert_eq!(status().await, 403);
}

#[tokio::test]
async fn the_rule_for_administrators_can_be_changed() {
    let source = karbor_policy::Source { name: "p".into(), text: "context_is_admin: role:reader".into() };
    let policy = karbor_policy::Policy::builtin().overridden(&[source]).expect("good rules");
    let world = World::with(Setup { authority: Authority::with_policy(policy), ..Setup::default() }).await;
    assert_eq!(world.get("reader", "/v1/{P}/os-services").await.status, 200);
    let foreign = world.plan("other").await;
    assert_eq!(world.get("reader", &format!("/v1/{{P}}/plans/{foreign}")).await.status, 200);
    let list: Value = world.get("reader", "/v1/{P}/plans?all_tenants=1").await.ok();
    assert_eq!(list["plans"].as_array().map(Vec::len), Some(1));
}
