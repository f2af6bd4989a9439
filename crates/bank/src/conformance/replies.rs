//! Replies that are lost after the work was done.

use std::sync::Arc;

use crate::conformance::{Place, body};
use crate::wrap::{Fault, Faulty, Operation, RetryOptions, Retrying, Rule};
use crate::{Bank, ErrorKind, PutMode};

/// A caller that tries again finds out whether a put whose reply was lost had its effect: its own object is
/// well, and somebody else's is not taken for it.
///
/// # Panics
/// When it does not.
pub async fn lost_replies_are_found_out(bank: &Arc<dyn Bank>) {
    let place = Place::enter(bank, "lost-replies-are-found-out").await;
    let options = RetryOptions { first_delay_ms: 1, max_delay_ms: 2, ..RetryOptions::default() };
    let lossy = || {
        let faulty = Arc::new(Faulty::new(Arc::clone(bank), 1));
        let retrying = Retrying::new(Arc::clone(&faulty) as Arc<dyn Bank>, options, 1);
        (faulty, retrying)
    };

    let (faulty, retrying) = lossy();
    faulty.add(Rule::new(Fault::LoseReply).times(2));
    let key = place.key("own");
    let put = retrying.put(&key, body(b"own"), PutMode::Create).await;
    let version = put.expect("the first attempt had succeeded");
    assert_eq!(retrying.get(&key, None).await.expect("it stands").version, version);
    assert_eq!(faulty.fired().len(), 2, "the replies to two calls were lost");

    let (faulty, retrying) = lossy();
    let key = place.key("foreign");
    place.create("foreign", b"foreign").await.expect("somebody else is first");
    faulty.add(Rule::new(Fault::Torn).on(Operation::Put).times(1));
    let error = retrying.put(&key, body(b"own"), PutMode::Create).await.expect_err("it is taken");
    assert_eq!(error.kind, ErrorKind::AlreadyExists);
    assert_eq!(place.read("foreign").await, "foreign");

    let (faulty, retrying) = lossy();
    faulty.add(Rule::new(Fault::LoseReply).on(Operation::Delete).times(1));
    retrying.delete(&key).await.expect("deleting twice is deleting");
    assert!(!place.keys().await.contains(&key));
    place.leave().await;
}
