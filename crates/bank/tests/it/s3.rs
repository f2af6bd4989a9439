use std::sync::Arc;

use hyper::Method;
use karbor_bank::wrap::{Counting, Operation, RetryOptions, Retrying};
use karbor_bank::{
    Bank, BankUrl, Error, ErrorKind, OpenOptions, PutMode, S3Bank, S3Location, attach, open_url,
};

use crate::s3_server::{Misbehavior, S3Server};
use crate::{body, key};

/// Puts, gets and lists in turn, each refused in the same way, and returns the kinds of the errors.
async fn kinds_of(server: &S3Server, status: u16, code: &'static str) -> Vec<ErrorKind> {
    let bank = server.bank("");
    server.misbehave(Method::PUT, Misbehavior::Refuse(status, code));
    server.misbehave(Method::GET, Misbehavior::Refuse(status, code));
    server.misbehave(Method::GET, Misbehavior::Refuse(status, code));
    let kinds = vec![
        bank.put(&key("k"), body("x"), PutMode::Create).await.expect_err("refused").kind,
        bank.get(&key("k"), None).await.expect_err("refused").kind,
        bank.list("", None, 1).await.expect_err("refused").kind,
    ];
    assert!(server.has_misbehaved());
    kinds
}

#[tokio::test]
async fn refusals_have_kinds() {
    let server = S3Server::start().await;
    let cases = [
        (403, "AccessDenied", ErrorKind::Denied),
        (403, "QuotaExceeded", ErrorKind::Full),
        (403, "ExpiredToken", ErrorKind::Unauthenticated),
        (404, "NoSuchBucket", ErrorKind::Other),
        (409, "ConditionalRequestConflict", ErrorKind::Unavailable),
        (500, "InternalError", ErrorKind::Unavailable),
        (501, "NotImplemented", ErrorKind::Unsupported),
        (503, "SlowDown", ErrorKind::Unavailable),
        (507, "", ErrorKind::Full),
    ];
    for (status, code, kind) in cases {
        assert_eq!(kinds_of(&server, status, code).await, [kind; 3], "{status} {code}");
    }
}

#[tokio::test]
async fn the_reason_of_a_refusal_is_told() {
    let server = S3Server::start().await;
    server.misbehave(Method::GET, Misbehavior::Refuse(503, "SlowDown"));
    let error = server.bank("").get(&key("k"), None).await.expect_err("refused");
    assert!(chain(&error).contains("503: SlowDown: on purpose"), "{}", chain(&error));
}

#[tokio::test]
async fn wrong_credentials_are_not_accepted() {
    let server = S3Server::start().await;
    let bank =
        S3Bank::open(server.location(""), &S3Server::options("wrong")).expect("the settings are complete");
    let error = bank.put(&key("k"), body("x"), PutMode::Create).await.expect_err("the key is wrong");
    assert_eq!(error.kind, ErrorKind::Unauthenticated, "{}", chain(&error));
    assert!(!format!("{bank:?} {error:?}").contains("wrong"), "secrets are not shown");
}

#[tokio::test]
async fn a_missing_bucket_is_no_missing_object() {
    let server = S3Server::start().await;
    let location = S3Location { bucket: "other".to_owned(), ..server.location("") };
    let bank = S3Bank::open(location, &S3Server::options("secret")).expect("the settings are complete");
    let error = attach(&bank).await.expect_err("there is no bucket");
    assert_ne!(error.kind, ErrorKind::NotFound, "{}", chain(&error));
}

#[tokio::test]
async fn nobody_there_may_pass() {
    let server = S3Server::start().await;
    let location = server.location("");
    drop(server);
    // Its port is free now, and nobody listens.
    let bank = S3Bank::open(location, &S3Server::options("secret")).expect("the settings are complete");
    let gone = async {
        loop {
            match bank.get(&key("k"), None).await {
                Err(error) if error.kind == ErrorKind::Unavailable => return,
                outcome => assert_eq!(outcome.expect_err("nothing is there").kind, ErrorKind::NotFound),
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.expect("the server stops");
}

#[tokio::test]
async fn a_put_whose_reply_the_network_lost_is_found_out() {
    let server = S3Server::start().await;
    let counting = Arc::new(Counting::new(Arc::new(server.bank("p"))));
    let options = RetryOptions { first_delay_ms: 1, ..RetryOptions::default() };
    let bank = Retrying::new(Arc::clone(&counting) as Arc<dyn Bank>, options, 1);

    server.misbehave(Method::PUT, Misbehavior::LoseReply);
    let version = bank.put(&key("own"), body("own"), PutMode::Create).await.expect("it had succeeded");
    assert_eq!(bank.head(&key("own")).await.expect("it stands").version, Some(version.clone()));
    assert_eq!(counting.stats().of(Operation::Put).calls, 2, "the driver itself tries once");

    server.misbehave(Method::PUT, Misbehavior::LoseReply);
    bank.put(&key("own"), body("swapped"), PutMode::Swap(version)).await.expect("it had succeeded");

    server.misbehave(Method::PUT, Misbehavior::Refuse(503, "SlowDown"));
    let error = bank.put(&key("own"), body("other"), PutMode::Create).await.expect_err("it is taken");
    assert_eq!(error.kind, ErrorKind::AlreadyExists);

    server.misbehave(Method::DELETE, Misbehavior::LoseReply);
    bank.delete(&key("own")).await.expect("it had succeeded");
    assert!(server.has_misbehaved());
}

#[tokio::test]
async fn a_large_overwrite_goes_in_parts_and_a_broken_one_leaves_what_stood() {
    let server = S3Server::start().await;
    let bank = server.bank("");
    bank.put(&key("k"), body("before"), PutMode::Create).await.expect("the first put");
    let (first, rest) = (vec![1_u8; 60 << 20], vec![2_u8; 10 << 20]);
    let large = vec![first.into(), rest.into()];
    server.misbehave(Method::PUT, Misbehavior::Refuse(503, "SlowDown"));
    let error = bank.put(&key("k"), large.clone(), PutMode::Overwrite).await.expect_err("a part is refused");
    assert_eq!(error.kind, ErrorKind::Unavailable, "{}", chain(&error));
    assert_eq!(bank.get(&key("k"), None).await.expect("it stands").bytes, "before");

    let version = bank.put(&key("k"), large, PutMode::Overwrite).await.expect("nothing is refused");
    let border = 60 << 20;
    let part = bank.get(&key("k"), Some(border - 3..border + 2)).await.expect("a get");
    assert_eq!(part.bytes[..], [1, 1, 1, 2, 2]);
    assert_eq!((part.size_bytes, part.version), (70 << 20, version));
    let end = bank.get(&key("k"), Some((64 << 20) - 1..(64 << 20) + 1)).await.expect("a get");
    assert_eq!(end.bytes[..], [2, 2], "across the border of two parts");
}

#[tokio::test]
async fn a_prefix_is_a_bank_of_its_own() {
    let server = S3Server::start().await;
    let (inner, outer, beside) = (server.bank("a/b"), server.bank("a"), server.bank("a/b-c"));
    inner.put(&key("k"), body("inner"), PutMode::Create).await.expect("a put");
    beside.put(&key("k"), body("beside"), PutMode::Create).await.expect("a put");
    let keys = |listed: Vec<karbor_bank::Meta>| -> Vec<String> {
        listed.into_iter().map(|meta| meta.key.to_string()).collect()
    };
    assert_eq!(keys(inner.list("", None, 10).await.expect("a listing")), ["k"]);
    assert_eq!(keys(outer.list("b", None, 10).await.expect("a listing")), ["b-c/k", "b/k"]);
}

#[tokio::test]
async fn attaching_finds_a_store_that_can_do_everything() {
    let server = S3Server::start().await;
    let text = format!("{}&region=us-east-1", server.location("p"));
    let url: BankUrl = text.parse().expect("it is one");
    let options = OpenOptions { s3: S3Server::options("secret"), ..OpenOptions::default() };
    let opened = open_url(&url, &options).await.expect("the settings are complete");
    let retries = RetryOptions { first_delay_ms: 1, ..RetryOptions::default() };
    let bank = Retrying::new(opened, retries, 1);
    let (descriptor, capabilities) = attach(&bank).await.expect("it is a bank");
    assert_eq!(capabilities.shortcomings(), Vec::<&str>::new());
    let keys = bank.list("", None, 10).await.expect("a listing");
    assert_eq!(keys.len(), 1, "only the descriptor is left: {keys:?}");
    assert_eq!(karbor_bank::read_descriptor(&bank).await.expect("it was put"), descriptor);
    assert_eq!(bank.name(), text);
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
