//! Bytes into a service and out of it.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use karbor_openstack_client::swift::{Put, Swift};
use karbor_openstack_client::{Cloud, ErrorKind, Method, ServiceType, Session, Upload};
use serde_json::json;

use crate::cloud::{FakeCloud, Said, TOKEN, json, login};

fn pieces() -> Vec<io::Result<Bytes>> {
    vec![Ok(Bytes::from_static(b"abc")), Ok(Bytes::from_static(b"defg"))]
}

#[tokio::test]
async fn bytes_come_as_they_are_sent() {
    let fake = FakeCloud::start().await;
    let image = fake.session().await.service(ServiceType::Image).expect("it is in the catalog");
    fake.say(json(503, &json!({})));
    fake.say(Said::Stream(futures::stream::iter(pieces()).boxed()));
    let download = image.request(Method::GET, "/images/i/file").download().await.expect("it begins");
    let all: Vec<Bytes> = download.try_collect().await.expect("all of it");
    assert_eq!(all.concat(), b"abcdefg");

    fake.say(Said::Reply(204, Vec::new(), "".into()));
    let upload = Upload::new(futures::stream::iter(pieces()));
    image.request(Method::PUT, "/images/i/file").upload(upload).await.expect("stored");
    fake.say(Said::Reply(204, Vec::new(), "".into()));
    let upload = Upload::of_length(7, futures::stream::iter(pieces()));
    image.request(Method::PUT, "/images/i/file").upload(upload).await.expect("stored");
    let asked = fake.asked();
    let [.., unknown, known] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((&unknown.body[..], unknown.header("transfer-encoding")), (&b"abcdefg"[..], Some("chunked")));
    assert_eq!((&known.body[..], known.header("content-length")), (&b"abcdefg"[..], Some("7")));
}

#[tokio::test]
async fn what_breaks_off_or_stands_still_is_an_error() {
    let fake = FakeCloud::start().await;
    let mut settings = fake.settings();
    settings.stall_timeout = Duration::from_millis(200);
    settings.request_timeout = Duration::from_millis(200);
    settings.patience = Duration::ZERO;
    let session = Session::open(&Cloud::new(settings).expect("fine"), login()).await.expect("it logs in");
    let image = session.service(ServiceType::Image).expect("it is in the catalog");
    let first = || futures::stream::iter([Ok(Bytes::from_static(b"abc"))]);
    let broken = futures::stream::once(async {
        // What came before is on its way first.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        Err(io::Error::other("cut"))
    });
    for (rest, kind) in
        [(broken.boxed(), ErrorKind::Unavailable), (futures::stream::pending().boxed(), ErrorKind::Timeout)]
    {
        fake.say(Said::Stream(first().chain(rest).boxed()));
        let download = image.request(Method::GET, "/images/i/file").download().await.expect("it begins");
        let error = download.try_collect::<Vec<_>>().await.expect_err("it is not whole");
        assert_eq!(error.kind(), kind, "{error}");
    }
    fake.say(Said::Silence);
    let upload = Upload::new(futures::stream::iter(pieces()));
    let error = image.request(Method::PUT, "/images/i/file").upload(upload).await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
}

#[tokio::test]
async fn a_source_that_fails_is_told_from_a_service_that_fails() {
    let fake = FakeCloud::start().await;
    let image = fake.session().await.service(ServiceType::Image).expect("it is in the catalog");
    let source = |length, failing: Option<&'static str>| {
        let end = failing.map(|reason| Err(io::Error::other(reason)));
        Upload::of_length(length, futures::stream::iter(pieces().into_iter().chain(end)))
    };
    for (upload, cause) in [
        (source(9, Some("the disk is gone")), "the disk is gone"),
        (source(9, None), "fewer bytes came than were announced"),
        (source(5, None), "more bytes came than were announced"),
    ] {
        let error = image.request(Method::PUT, "/images/i/file").upload(upload).await.expect_err(cause);
        assert_eq!(error.reason(), "the source of the bytes failed");
        let source = std::error::Error::source(&error).expect("the cause is kept");
        assert_eq!(source.to_string(), cause);
    }
}

#[tokio::test]
async fn an_object_goes_again_with_another_token() {
    let fake = FakeCloud::start().await;
    let swift = Swift::new(&fake.session().await).expect("it is in the catalog");
    fake.say(json(401, &json!({})));
    fake.say(Said::Reply(201, vec![("etag", "x".to_owned())], "".into()));
    let body = [Bytes::from_static(b"abc"), Bytes::new(), Bytes::from_static(b"d")];
    let stored =
        swift.put("c", "a/b", &body, Put::Create, &[("x-object-meta-k", "v")]).await.expect("stored");
    assert_eq!(stored.header("etag"), Some("x"));
    let asked = fake.asked();
    for (asked, number) in asked.iter().zip(1..) {
        assert_eq!((asked.path.as_str(), &asked.body[..]), ("/swift/v1/A/c/a/b", &b"abcd"[..]));
        assert_eq!(asked.header("x-auth-token"), Some(format!("{TOKEN}-{number}").as_str()));
        let condition = (asked.header("if-none-match"), asked.header("content-length"));
        assert_eq!((condition, asked.header("x-object-meta-k")), ((Some("*"), Some("4")), Some("v")));
    }
    assert_eq!(asked.len(), 2);
    // Whoever keeps objects there tries again by itself.
    fake.say(json(503, &json!({})));
    let error = swift.delete("c", "k").await.expect_err("refused");
    assert_eq!((error.kind(), fake.asked().len()), (ErrorKind::Unavailable, 3));
}
