//! What is sent, how often, and what is made of refusals.

use std::num::NonZeroUsize;
use std::time::Duration;

use karbor_openstack_client::{
    Cloud, ErrorKind, Ignored, Interface, Login, Method, Service, ServiceType, Session,
};
use serde_json::{Value, json};

use crate::cloud::{FakeCloud, PASSWORD, Said, TOKEN, json, login};

async fn compute(fake: &FakeCloud) -> Service {
    fake.session().await.service(ServiceType::Compute).expect("it is in the catalog")
}

#[tokio::test]
async fn calls_carry_token_query_and_microversion() {
    let fake = FakeCloud::start().await;
    let session = fake.session().await;
    for (kind, path, expected) in [
        (ServiceType::Compute, "/compute/v2.1/x", Some(("openstack-api-version", "compute 2.90"))),
        (ServiceType::Compute, "/compute/v2.1/x", Some(("x-openstack-nova-api-version", "2.90"))),
        (ServiceType::BlockStorage, "/volume/v3/p1/x", Some(("openstack-api-version", "volume 2.90"))),
        (ServiceType::SharedFileSystem, "/share/v2/x", Some(("x-openstack-manila-api-version", "2.90"))),
        (ServiceType::Network, "/network/v2.0/x", None),
        (ServiceType::Image, "/image/v2/x", None),
        (ServiceType::Identity, "/v3/x", None),
    ] {
        let service = session.service(kind).expect("it is in the catalog").at_microversion("2.90");
        let _: Ignored =
            service.request(Method::GET, "/x").query("a b", "c&d").read().await.expect("an answer");
        let asked = fake.asked().pop().expect("it was asked");
        assert_eq!((asked.path.as_str(), asked.query.as_str()), (path, "a+b=c%26d"));
        assert_eq!(asked.header("x-auth-token"), Some(format!("{TOKEN}-1").as_str()));
        match expected {
            Some((name, value)) => assert_eq!(asked.header(name), Some(value), "{kind}"),
            None => assert_eq!(asked.header("openstack-api-version"), None, "{kind}"),
        }
    }
    let once = session.service(ServiceType::Compute).expect("it is in the catalog");
    once.request(Method::POST, "/y").microversion("2.1").json(&json!({"z": 1})).send().await.expect("sent");
    let asked = fake.asked().pop().expect("it was asked");
    assert_eq!(asked.header("x-openstack-nova-api-version"), Some("2.1"));
    assert_eq!((asked.method.as_str(), &asked.body[..]), ("POST", &br#"{"z":1}"#[..]));
}

#[tokio::test]
async fn what_may_help_is_tried_again_and_nothing_else() {
    for (method, status, attempts) in [
        (Method::GET, 500, 2),
        (Method::GET, 503, 2),
        (Method::DELETE, 502, 2),
        (Method::POST, 429, 2),
        (Method::POST, 503, 1),
        (Method::DELETE, 500, 1),
        (Method::GET, 409, 1),
    ] {
        let fake = FakeCloud::start().await;
        let service = compute(&fake).await;
        fake.say(Said::Reply(status, vec![("retry-after", "0".to_owned())], "wait".into()));
        let outcome = service.request(method.clone(), "/x").send().await;
        assert_eq!(fake.asked().len(), attempts, "{method} {status}");
        assert_eq!(outcome.is_ok(), attempts == 2, "{method} {status}");
    }
}

#[tokio::test]
async fn a_pause_that_is_asked_for_is_kept_within_patience() {
    let fake = FakeCloud::start().await;
    let service = compute(&fake).await;
    fake.say(Said::Reply(503, vec![("retry-after", "3600".to_owned())], "".into()));
    let error = service.get::<Value>("/x").await.expect_err("an hour is too long");
    assert_eq!((error.kind(), fake.asked().len()), (ErrorKind::Unavailable, 1));
    assert_eq!(error.asked_pause(), Some(Duration::from_secs(3600)));
}

#[tokio::test]
async fn refusals_tell_service_request_and_reason() {
    let fake = FakeCloud::start().await;
    let service = compute(&fake).await;
    let fault = json!({"itemNotFound": {"code": 404, "message": "Instance x could not be found."}});
    let id = ("x-openstack-request-id", "req-7".to_owned());
    fake.say(Said::Reply(404, vec![id], fault.to_string().into()));
    let error = service.get::<Value>("/servers/x").await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let text = "compute: GET /servers/x: Instance x could not be found. (404, request req-7)";
    assert_eq!(error.to_string(), text);

    fake.say(json(404, &json!({})));
    assert!(!service.delete("/servers/x").await.expect("what is gone is gone"));
    fake.say(Said::Reply(204, Vec::new(), "".into()));
    assert!(service.delete("/servers/x").await.expect("deleted"));
}

#[tokio::test]
async fn no_secret_is_shown() {
    let fake = FakeCloud::start().await;
    let session = fake.session().await;
    let service = session.service(ServiceType::Compute).expect("it is in the catalog");
    fake.say(json(400, &json!({"badRequest": {"message": format!("your token {TOKEN}-1 is odd")}})));
    let refused = service.get::<Value>("/x").await.expect_err("refused");
    assert_eq!(refused.reason(), "your token [REDACTED] is odd");
    fake.say(Said::Reply(200, Vec::new(), format!("{{\"secret\": \"{PASSWORD}").into()));
    let strange = service.get::<Value>("/x").await.expect_err("no JSON");
    let request = service.request(Method::GET, "/x");
    let by_trust = login().for_trust("t1").expect("there is a password");
    let shown = format!("{session:?} {service:?} {refused:?} {strange:?} {strange} {request:?} {by_trust:?}");
    for secret in [PASSWORD, TOKEN] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let token = Login::Token(TOKEN.into());
    assert_eq!(
        (format!("{token:?}"), token.for_trust("t").is_none()),
        ("Token([REDACTED])".to_owned(), true)
    );
}

#[tokio::test]
async fn no_more_calls_run_at_once_than_allowed() {
    let fake = FakeCloud::start().await;
    let mut settings = fake.settings();
    settings.concurrency = NonZeroUsize::new(3).expect("not zero");
    let cloud = Cloud::new(settings).expect("fine");
    // Two sessions of one cloud have one limit.
    let one = Session::open(&cloud, login()).await.expect("it logs in");
    let two = Session::open(&cloud, login()).await.expect("it logs in");
    let calls = (0..24).map(|number| {
        let session = if number % 2 == 0 { &one } else { &two };
        let service = session.service(ServiceType::Compute).expect("it is in the catalog");
        async move { service.get::<Ignored>("/x").await }
    });
    for outcome in futures::future::join_all(calls).await {
        outcome.expect("answered");
    }
    assert!((2..=3).contains(&fake.most_at_once()), "{}", fake.most_at_once());
}

#[tokio::test]
async fn silence_ends() {
    let fake = FakeCloud::start().await;
    let mut settings = fake.settings();
    settings.request_timeout = Duration::from_millis(200);
    settings.patience = Duration::ZERO;
    let session = Session::open(&Cloud::new(settings).expect("fine"), login()).await.expect("it logs in");
    let service = session.service(ServiceType::Compute).expect("it is in the catalog");
    fake.say(Said::Silence);
    let error = service.get::<Value>("/x").await.expect_err("no answer");
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Timeout, "no answer came in time"));
}

#[tokio::test]
async fn paths_do_not_lead_out_of_the_service() {
    let fake = FakeCloud::start().await;
    let service = compute(&fake).await;
    for path in ["/servers/../../x", "/servers/%2e%2e/x", "/x?y", "/x#y", "servers", "/a\\b"] {
        let error = service.get::<Value>(path).await.expect_err(path);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{path}");
    }
    assert_eq!(Service::path(&["servers", "a/b c", "ü"]), "/servers/a%2Fb%20c/%C3%BC");
    assert!(service.get::<Value>(Service::path(&["servers", ".."])).await.is_err());
    assert!(fake.asked().is_empty());
}

#[tokio::test]
async fn what_the_cloud_has_not_is_said() {
    let fake = FakeCloud::start().await;
    let mut settings = fake.settings();
    settings.region = Some("elsewhere".to_owned());
    settings.interface = Interface::Internal;
    settings.endpoints.insert("image".to_owned(), "http://glance:9292".to_owned());
    let session = Session::open(&Cloud::new(settings).expect("fine"), login()).await.expect("it logs in");
    assert!(!session.has(ServiceType::Compute) && session.has(ServiceType::Image));
    let error = session.service(ServiceType::Compute).expect_err("not there");
    assert_eq!(error.reason(), "the catalog has no `compute` for interface internal and region elsewhere");
    let image = session.service(ServiceType::Image).expect("it was named");
    assert_eq!(image.endpoint(), "http://glance:9292/v2");
    for url in ["keystone:5000", "ftp://k", "http://ann:sesame@k", "http://k/?x=y", "http://k/v2.0"] {
        let mut settings = fake.settings();
        settings.auth_url = url.to_owned();
        let error = Cloud::new(settings).expect_err(url);
        assert!(!error.to_string().contains("sesame"), "{error}");
    }
}
