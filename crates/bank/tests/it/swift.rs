//! The driver of Swift against a real Swift. It takes seconds to start: one test runs all cases.

use std::sync::Arc;

use bytes::Bytes;
use karbor_bank::conformance::{self, Options};
use karbor_bank::wrap::{RetryOptions, Retrying};
use karbor_bank::{
    Bank, BankUrl, DESCRIPTOR_KEY, ErrorKind, OpenOptions, PutMode, SwiftLocation, attach, create_url,
};

use crate::swift_server::SwiftServer;
use crate::{body, key};

fn location(container: &str) -> SwiftLocation {
    SwiftLocation { container: container.to_owned(), consistent_listing: true, ..SwiftLocation::default() }
}

async fn made(server: &SwiftServer, location: SwiftLocation) -> Arc<dyn Bank> {
    let bank = server.bank(location);
    bank.create().await.expect("a container");
    Arc::new(Retrying::new(Arc::new(bank), RetryOptions { first_delay_ms: 1, ..RetryOptions::default() }, 1))
}

const EFFORT: Options = Options {
    large_object_bytes: 40 << 20,
    racers: 6,
    races: 3,
    model_steps: 30,
    // The longest keys need longer names of objects than Swift takes behind a prefix.
    long_keys: false,
    seed: 1,
};

#[tokio::test(flavor = "multi_thread")]
async fn swift_is_a_bank() {
    let server = SwiftServer::start().await;
    it_conforms(&server).await;
    what_is_claimed_is_what_can_be_relied_on(&server).await;
    accounts_have_containers_of_their_own(&server).await;
    a_missing_container_is_no_missing_object(&server).await;
    a_url_makes_the_container(&server).await;
}

async fn it_conforms(server: &SwiftServer) {
    let bank = made(server, SwiftLocation { prefix: "some/prefix".to_owned(), ..location("conforms") }).await;
    conformance::run(&bank, EFFORT).await;
    let bank = made(server, location("bare")).await;
    conformance::long_keys_name_objects(&bank).await;
    // Not claimed, as more than one racer may win; alone it holds.
    conformance::create_only_refuses_to_replace(&bank).await;
    conformance::lost_replies_are_found_out(&bank).await;
    let split = made(server, SwiftLocation { per_account: true, ..location("split") }).await;
    conformance::run(&split, Options { large_object_bytes: 1 << 20, races: 2, ..EFFORT }).await;
}

async fn what_is_claimed_is_what_can_be_relied_on(server: &SwiftServer) {
    let bank = made(server, SwiftLocation { consistent_listing: false, ..location("attached") }).await;
    let (first, capabilities) = attach(&*bank).await.expect("it can be attached");
    let claims = (capabilities.create_only, capabilities.compare_and_swap, capabilities.consistent_listing);
    assert_eq!(claims, (false, false, false), "what went well once is not relied on");
    assert_eq!(attach(&*bank).await.expect("again").0, first);
    let listed = bank.list("", None, 10).await.expect("a listing");
    assert_eq!(listed.len(), 1, "only the descriptor is left: {listed:?}");
    let swap = PutMode::Swap(listed[0].version.clone().expect("listings tell versions"));
    let refused = bank.put(&key(DESCRIPTOR_KEY), body("x"), swap).await.expect_err("it cannot");
    assert_eq!(refused.kind, ErrorKind::Unsupported);
}

async fn accounts_have_containers_of_their_own(server: &SwiftServer) {
    let bank = made(server, SwiftLocation { per_account: true, ..location("per") }).await;
    let keys = ["accounts/a-b/k", "accounts/a/k", "accounts/a/l", "accounts/a0/k", "b", "karbor-bank"];
    for text in keys {
        bank.put(&key(text), body(text), PutMode::Create).await.expect("a put");
    }
    let list = async |prefix: &str, after: Option<&str>, limit: usize| -> Vec<String> {
        let listed = bank.list(prefix, after.map(key).as_ref(), limit).await.expect("a listing");
        listed.into_iter().map(|meta| meta.key.as_str().to_owned()).collect()
    };
    assert_eq!(list("", None, 100).await, keys);
    assert_eq!(list("", Some("accounts/a/k"), 2).await, keys[2..4]);
    assert_eq!(list("accounts/a/", None, 100).await, keys[1..3]);
    assert_eq!(list("accounts/a", None, 100).await, keys[..4]);
    assert_eq!(list("accounts/none/", None, 100).await, Vec::<String>::new());
    let absent = bank.get(&key("accounts/none/k"), None).await.expect_err("its account has no container");
    assert_eq!(absent.kind, ErrorKind::NotFound);
    // The objects of an account are in a container that can be given away, or counted, by itself.
    let one = server.bank(location("per-a"));
    assert_eq!(one.get(&key("accounts/a/k"), None).await.expect("it is there").bytes, "accounts/a/k");
    for text in keys {
        bank.delete(&key(text)).await.expect("deleted");
    }
    assert_eq!(list("", None, 100).await, Vec::<String>::new());
}

async fn a_missing_container_is_no_missing_object(server: &SwiftServer) {
    let bank = server.bank(location("nowhere"));
    let calls = [
        bank.get(&key("k"), None).await.map(drop),
        bank.put(&key("k"), body("x"), PutMode::Create).await.map(drop),
        bank.list("", None, 1).await.map(drop),
        bank.delete(&key("k")).await,
    ];
    for call in calls {
        let error = call.expect_err("there is no container");
        assert_eq!(error.kind, ErrorKind::Other, "{error:?}");
    }
}

async fn a_url_makes_the_container(server: &SwiftServer) {
    let url: BankUrl = "swift://fresh/p?consistent-listing=true".parse().expect("a URL");
    let options = OpenOptions { swift: server.options(), ..OpenOptions::default() };
    let bank = create_url(&url, &options).await.expect("a bank");
    let large = Bytes::from(vec![7; 3 << 20]);
    let pieces = vec![large.clone(), Bytes::new(), Bytes::from_static(b"end")];
    bank.put(&key("k"), pieces, PutMode::Create).await.expect("a put");
    let end = bank.get(&key("k"), Some((3 << 20)..u64::MAX)).await.expect("its end");
    assert_eq!((end.bytes, end.size_bytes), (Bytes::from_static(b"end"), (3 << 20) + 3));
    let shown = format!("{bank:?} {options:?}");
    assert!(!shown.contains("sesame") && !shown.contains("a-token"), "{shown}");
}
