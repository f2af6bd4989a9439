//! Logging in, and tokens that run out.

use karbor_openstack_client::keystone::Keystone;
use karbor_openstack_client::{ErrorKind, Ignored, Login, ServiceType, Session};
use serde_json::{Value, json};

use crate::cloud::{FakeCloud, PASSWORD, Said, TOKEN, json, login, token};

fn body(asked: &crate::cloud::Asked) -> Value {
    serde_json::from_slice(&asked.body).expect("JSON")
}

#[tokio::test]
async fn each_login_asks_in_its_own_way() {
    let fake = FakeCloud::start().await;
    let password = json!({"methods": ["password"], "password": {"user": {
        "name": "ann", "domain": {"id": "default"}, "password": PASSWORD}}});
    let credential = Login::ApplicationCredential { id: "c1".to_owned(), secret: "s".into() };
    for (login, expected) in [
        (login(), json!({"auth": {"identity": password, "scope": {"project": {"id": "p1"}}}})),
        (
            login().for_trust("t1").expect("there is a password"),
            json!({"auth": {"identity": password, "scope": {"OS-TRUST:trust": {"id": "t1"}}}}),
        ),
        (
            credential,
            json!({"auth": {"identity": {"methods": ["application_credential"],
                "application_credential": {"id": "c1", "secret": "s"}}}}),
        ),
    ] {
        let session = Session::open(&fake.cloud(), login).await.expect("it logs in");
        assert_eq!(body(&fake.logins().pop().expect("it was asked")), expected);
        assert_eq!((session.identity().user_id.as_str(), session.project_id().expect("one")), ("u1", "p1"));
        assert_eq!(session.identity().roles, ["member"]);
    }
    // A token of somebody else is looked at and used, and no other is made.
    let session = Session::open(&fake.cloud(), Login::Token(TOKEN.into())).await.expect("it is valid");
    let asked = fake.logins().pop().expect("it was asked");
    assert_eq!((asked.method.as_str(), asked.header("x-subject-token")), ("GET", Some(TOKEN)));
    let _: Ignored = session.service(ServiceType::Compute).expect("there").get("/x").await.expect("answered");
    assert_eq!(fake.asked()[0].header("x-auth-token"), Some(TOKEN));
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let fake = FakeCloud::start().await;
    let session = fake.session().await;
    let service = session.service(ServiceType::Compute).expect("it is in the catalog");
    fake.say(json(401, &json!({"error": {"message": "expired"}})));
    let _: Ignored = service.get("/x").await.expect("with another token");
    let tokens: Vec<_> =
        fake.asked().iter().filter_map(|asked| asked.header("x-auth-token").map(str::to_owned)).collect();
    assert_eq!(tokens, [format!("{TOKEN}-1"), format!("{TOKEN}-2")]);

    for _ in 0..2 {
        fake.say(json(401, &json!({"error": {"message": "no"}})));
    }
    let error = service.get::<Value>("/x").await.expect_err("refused again");
    assert_eq!((error.kind(), fake.logins().len()), (ErrorKind::Unauthenticated, 3));

    let theirs = Session::open(&fake.cloud(), Login::Token(TOKEN.into())).await.expect("it is valid");
    let service = theirs.service(ServiceType::Compute).expect("it is in the catalog");
    fake.say(json(401, &json!({"error": {"message": "gone"}})));
    let error = service.get::<Value>("/x").await.expect_err("it cannot be renewed");
    assert_eq!((error.kind(), error.reason(), fake.logins().len()), (ErrorKind::Unauthenticated, "gone", 4));
}

#[tokio::test]
async fn many_who_find_it_refused_log_in_once() {
    let fake = FakeCloud::start().await;
    let session = fake.session().await;
    for _ in 0..8 {
        fake.say(json(401, &json!({})));
    }
    let calls = (0..8).map(|_| {
        let service = session.service(ServiceType::Compute).expect("it is in the catalog");
        async move { service.get::<Ignored>("/x").await }
    });
    for outcome in futures::future::join_all(calls).await {
        outcome.expect("with another token");
    }
    assert_eq!(fake.logins().len(), 2);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends_and_used_while_keystone_is_away() {
    let fake = FakeCloud::start().await;
    // It ends in a second by Keystone's clock: it is at its margin soon, and has ended a little later.
    fake.say_at_login(token(&fake.url, 90, "2000-01-01T00:00:02.000000Z"));
    let session = fake.session().await;
    let service = session.service(ServiceType::Compute).expect("it is in the catalog");
    fake.say_at_login(json(503, &json!({})));
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while fake.logins().len() < 3 {
        assert!(std::time::Instant::now() < limit, "the token was not renewed");
        let _: Ignored = service.get("/x").await.expect("the old token holds as long as it does");
        tokio::task::yield_now().await;
    }
    let last = fake.asked().pop().expect("it was asked");
    assert_eq!(last.header("x-auth-token"), Some(format!("{TOKEN}-1").as_str()));
}

#[tokio::test]
async fn what_is_not_found_at_login_is_no_missing_thing() {
    let fake = FakeCloud::start().await;
    for (status, kind) in
        [(404, ErrorKind::Unauthenticated), (401, ErrorKind::Unauthenticated), (403, ErrorKind::Denied)]
    {
        fake.say_at_login(json(status, &json!({"error": {"message": "Could not find trust: t1."}})));
        let refused = Session::open(&fake.cloud(), login()).await.expect_err("refused");
        assert_eq!((refused.kind(), refused.reason()), (kind, "Could not find trust: t1."));
    }
    let by_trust = login().for_trust("t1").expect("there is a password");
    for status in [404, 403, 401] {
        fake.say_at_login(json(status, &json!({"error": {"message": "Could not find trust: t1."}})));
        let refused = Session::open(&fake.cloud(), by_trust.clone()).await.expect_err("refused");
        assert_eq!(refused.kind(), ErrorKind::Revoked, "{status}, and without the trust it is let in");
    }
    for _ in ["by the trust", "without it"] {
        fake.say_at_login(json(
            401,
            &json!({"error": {"message": "The request you have made requires authentication."}}),
        ));
    }
    let refused = Session::open(&fake.cloud(), by_trust).await.expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::Unauthenticated, "its own password is wrong");
    fake.say_at_login(Said::Reply(201, Vec::new(), "{}".into()));
    let strange = Session::open(&fake.cloud(), login()).await.expect_err("no token");
    assert_eq!(strange.kind(), ErrorKind::Other);
    fake.say_at_login(json(503, &json!({})));
    Session::open(&fake.cloud(), login()).await.expect("it answers when asked again");
}

#[tokio::test]
async fn trusts_are_made_listed_and_deleted() {
    let fake = FakeCloud::start().await;
    let keystone = Keystone::new(&fake.session().await).expect("it has just answered");
    let trust = json!({"id": "t1", "trustor_user_id": "u1", "trustee_user_id": "karbor", "project_id": "p1",
        "expires_at": "2030-01-01T00:00:00.000000Z"});
    fake.say(json(201, &json!({"trust": trust})));
    let made = keystone.create_trust("karbor", 1_893_456_000).await.expect("made");
    assert_eq!(made.id, "t1");
    assert_eq!(
        body(&fake.asked()[0]),
        json!({"trust": {"trustor_user_id": "u1", "trustee_user_id": "karbor", "project_id": "p1",
            "impersonation": true, "roles": [{"name": "member"}], "expires_at": "2030-01-01T00:00:00.000000Z"}})
    );
    fake.say(json(200, &json!({"trusts": [trust], "links": {"next": null}})));
    assert_eq!(keystone.trusts_given_to("karbor").await.expect("listed"), [made]);
    fake.say(Said::Reply(204, Vec::new(), "".into()));
    assert!(keystone.delete_trust("t1").await.expect("deleted"));
}
