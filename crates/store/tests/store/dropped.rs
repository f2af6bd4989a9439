//! A call may be dropped at any await (a client that hangs up): it has happened whole or not at all, and the next call
//! finds everything in order.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use karbor_store::QuotaResource;
use karbor_types::{OperationId, OperationLogId};

use crate::kit::World;
use crate::rows::{UNLIMITED, at, checkpoint, project, protect, used, uuid};

pub(crate) async fn a_call_that_is_dropped_happens_whole_or_not_at_all(world: World) {
    const CALLS: u128 = 60;
    let store = &world.store;
    let mut answered = 0;
    for number in 0..CALLS {
        let (new, operation) = (checkpoint(number, "p"), protect(&checkpoint(number, "p")));
        // Further and further, so that it is dropped at every place where it waits; the last ones go to their end.
        let polls = if number + 3 < CALLS { usize::try_from(number).expect("small") } else { usize::MAX };
        let call = store.create_checkpoint(&new, &operation, &UNLIMITED, at(0));
        if let Some(made) = polled(polls, call).await {
            made.expect("created");
            answered += 1;
        }
    }
    assert!(answered >= 3, "those that had time were answered");
    let mut there = 0;
    for number in 0..CALLS {
        let checkpoint = store.get_checkpoint(checkpoint(number, "p").id).await.is_ok();
        let operation = store.get_operation(OperationId(uuid(number))).await.is_ok();
        let log = store.get_operation_log(OperationLogId(uuid(number + (1 << 64)))).await.is_ok();
        assert_eq!((checkpoint, checkpoint), (operation, log), "call {number}");
        there += u64::from(checkpoint);
    }
    assert!(there >= answered);
    assert!(there < u64::try_from(CALLS).expect("small"), "some were dropped before they had happened");
    assert_eq!(used(store, "p", QuotaResource::Checkpoints).await, (0, there));
    assert!(!store.recount_usage(&project("p")).await.expect("counted"));
}

/// Polls a future this many times and then drops it; returns its output when it ended before.
async fn polled<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}
