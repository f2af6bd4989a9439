//! A call may be dropped at any await (a client that hangs up): it has happened whole or not at all, and the next call
//! finds everything in order.

use std::time::Duration;

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
        // Longer and longer, so that it is cut off at every place; the last ones have all the time they need.
        let patience = if number + 3 < CALLS {
            Duration::from_micros(u64::try_from(number * 60).expect("small"))
        } else {
            Duration::from_secs(60)
        };
        let call = store.create_checkpoint(&new, &operation, &UNLIMITED, at(0));
        if let Ok(made) = tokio::time::timeout(patience, call).await {
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
