//! A checkpoint that is read is not let go by itself.

use karbor_store::{
    ClaimOptions, DeletionCause, Error, NewCheckpoint, NewOperation, QuotaResource, RunChange, Store,
    SubjectChange,
};
use karbor_types::{
    CheckpointEvent, CheckpointState, CopySource, OperationId, OperationKind, OperationRequest,
    OperationState, RunEvent,
};

use crate::checkpoints::import;
use crate::kit::World;
use crate::operations::{ends, happened};
use crate::rows::{UNLIMITED, about, at, checkpoint, claim_as, provider, restore, used, uuid, verification};

/// A copy of one checkpoint, and the operation that makes it.
fn copy(number: u128, of: &NewCheckpoint) -> (NewCheckpoint, NewOperation) {
    let made = NewCheckpoint { state: CheckpointState::WaitCopying, ..checkpoint(number, "p") };
    let source = Some(CopySource { checkpoint: of.id, provider: provider() });
    let request = serde_json::to_value(OperationRequest { source, ..OperationRequest::default() });
    let operation =
        NewOperation { request: request.expect("JSON"), ..about(number, OperationKind::Copy, &made) };
    (made, operation)
}

async fn expire(store: &Store, number: u128, which: &NewCheckpoint) -> Result<CheckpointState, Error> {
    let operation = about(number, OperationKind::Delete, which);
    store
        .start_delete(which.id, DeletionCause::Expiry, &operation, at(5))
        .await
        .map(|checkpoint| checkpoint.state)
}

/// Begins to read a checkpoint, in one of four ways; returns the operation that does.
async fn read(store: &Store, way: u128, number: u128, which: &NewCheckpoint) -> Result<OperationId, Error> {
    match way {
        0 => {
            let (row, operation) = restore(number, which);
            store.create_restore(&row, &operation, at(2)).await?;
        }
        1 => {
            let (row, operation) = verification(number, which);
            store.create_verification(&row, &operation, at(2)).await?;
        }
        2 => {
            let (row, operation) = copy(number, which);
            store.create_checkpoint(&row, &operation, &UNLIMITED, at(2)).await?;
        }
        _ => {
            let tried = about(number, OperationKind::Restore, which);
            store.create_operation(&tried, at(2)).await?;
        }
    }
    Ok(OperationId(uuid(number)))
}

/// Ends what [`read`] began.
async fn end(store: &Store, way: u128, reader: OperationId) {
    let kinds = vec![store.get_operation(reader).await.expect("there").kind];
    let options = ClaimOptions { kinds, ..claim_as("w") };
    let claimed = store.claim(&options, at(6)).await.expect("claimed").expect("it is due");
    assert_eq!(claimed.operation.id, reader);
    let subject = match way {
        0 | 1 => SubjectChange::Run(RunChange { event: Some(RunEvent::Finished), ..RunChange::default() }),
        2 => happened(CheckpointEvent::Failed),
        _ => SubjectChange::None,
    };
    let state = if way == 2 { OperationState::Failed } else { OperationState::Succeeded };
    store.finish(&claimed.claim, &ends(state, subject), at(7)).await.expect("ended");
}

pub(crate) async fn what_is_read_does_not_go_by_itself(world: World) {
    let store = &world.store;
    for way in 0..4 {
        let new = checkpoint(100 + way, "p");
        import(&world, &new, CheckpointState::Available).await;
        let reader = read(store, way, 200 + way, &new).await.expect("it can be read");
        let before = used(store, "p", QuotaResource::Checkpoints).await;

        let refused = expire(store, 300 + way, &new).await;
        assert!(
            matches!(&refused, Err(Error::Conflict { state, .. }) if state == "being read"),
            "{refused:?}"
        );
        assert_eq!(store.get_checkpoint(new.id).await.expect("there").state, CheckpointState::Available);
        assert_eq!(used(store, "p", QuotaResource::Checkpoints).await, before);
        let queued = store.get_operation(OperationId(uuid(300 + way))).await;
        assert!(matches!(queued, Err(Error::NotFound { .. })), "{queued:?}");
        // One that nobody reads goes meanwhile.
        let other = checkpoint(400 + way, "p");
        import(&world, &other, CheckpointState::Available).await;
        assert_eq!(expire(store, 500 + way, &other).await.expect("begun"), CheckpointState::Deleting);

        end(store, way, reader).await;
        assert_eq!(expire(store, 600 + way, &new).await.expect("begun"), CheckpointState::Deleting);
        let late = read(store, way, 700 + way, &new).await;
        assert!(matches!(&late, Err(Error::Conflict { state, .. }) if state == "deleting"), "{late:?}");
    }
}

pub(crate) async fn of_a_reader_and_an_expiry_at_once_one_wins(world: World) {
    let other = world.other().await;
    for number in 0..24 {
        let new = checkpoint(100 + number, "p");
        import(&world, &new, CheckpointState::Available).await;
        let (begun, expired) = tokio::join!(
            read(&world.store, number % 3, 200 + number, &new),
            expire(&other, 300 + number, &new)
        );
        let state = world.store.get_checkpoint(new.id).await.expect("there").state;
        match (begun, expired) {
            (Ok(_), Err(Error::Conflict { .. })) => assert_eq!(state, CheckpointState::Available),
            (Err(Error::Conflict { .. }), Ok(_)) => assert_eq!(state, CheckpointState::Deleting),
            both => panic!("not exactly one: {both:?}"),
        }
    }
    other.close().await;
}
