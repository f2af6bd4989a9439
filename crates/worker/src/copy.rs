//! Copy: the data engine brings a checkpoint, records and all, into the bank of another provider.
//!
//! It is a protect whose source is a checkpoint: the commit record in the target's bank decides, each attempt fences
//! those before it, and what is there already is found and not stored again. The source is pinned by its reader while
//! it is read. The copy's record names the target's provider and needs nothing of the first bank.

use std::sync::Arc;

use karbor_plugin::{ErrorKind, OperationKind, Provider, Purpose};
use karbor_store::{Checkpoint, CheckpointChange, SubjectChange};
use karbor_types::{CheckpointEvent, CheckpointMetadata, CheckpointState, OperationId, ProviderRecord};
use karbor_vault::{Account, CheckpointInfo, CopyCheckpoint};
use serde_json::{Value, json};
use tracing::info;

use crate::attempt::Attempt;
use crate::crash::Place;
use crate::ledger::as_plugins_see;
use crate::metrics::Counted;
use crate::protect;
use crate::stop::{Failure, Stop};
use crate::sweep;

pub(crate) async fn run(attempt: &Arc<Attempt>) -> Result<(), Stop> {
    let id = attempt.required(attempt.operation.checkpoint, "checkpoint")?;
    let row = attempt.store(|| attempt.shared.store.get_checkpoint(id)).await?;
    let to = attempt.account(row.provider, &row.project).await?;
    attempt.pass(Place::Opened).await;

    let copied = match copy(attempt, &row, &to).await {
        // What is stored is found by the next attempt, which fences this one's session.
        Err(stop @ (Stop::LeaseLost | Stop::Drained | Stop::Store(_))) => return Err(stop),
        Err(stop @ Stop::Later(_)) if !protect::is_last(attempt, &stop) => return Err(stop),
        copied => copied,
    };
    let stop = match copied {
        Ok(info) => return end(attempt, &row, &info).await,
        Err(stop) => stop,
    };
    // The row may say `error` only when no commit record can come to stand there any more.
    to.end_session(&attempt.session(), "the copy failed").await?;
    if let Some(info) = to.find(row.id).await? {
        return end(attempt, &row, &info).await;
    }
    attempt.pass(Place::Abandoned).await;
    sweep::queue_soon(attempt, row.provider, &row.project).await?;
    Err(stop)
}

async fn copy(attempt: &Arc<Attempt>, row: &Checkpoint, to: &Account) -> Result<CheckpointInfo, Stop> {
    if let Some(info) = to.find(row.id).await? {
        info!(checkpoint.id = %row.id, "Checkpoint {} was copied by an earlier attempt", row.id);
        return Ok(info);
    }
    if let Some(failure) = &attempt.hopeless {
        return Err(failure.clone().into());
    }
    let source = attempt.required(attempt.request.source.as_ref(), "source")?;
    let original = attempt.store(|| attempt.shared.store.get_checkpoint(source.checkpoint)).await?;
    if original.state != CheckpointState::Available {
        let text =
            format!("checkpoint {} is {}; only an available one can be copied", original.id, original.state);
        return Err(Failure::new(ErrorKind::Conflict, text).into());
    }
    let from = attempt.account(source.provider, &original.project).await?;
    let provider = attempt.provider(row.provider)?;
    let found = from.find(original.id).await?.ok_or_else(|| {
        let text = format!("checkpoint {} does not stand in its bank any more", original.id);
        Failure::new(ErrorKind::NotFound, text)
    })?;
    let mut metadata = CheckpointMetadata::from_json(&found.metadata)
        .map_err(|err| Failure::new(ErrorKind::Damaged, format!("checkpoint {}: {err}", original.id)))?;
    holds_all(attempt, &original, &metadata).await?;
    begin(attempt, row, &metadata).await?;

    metadata.provider = ProviderRecord { id: row.provider, name: provider.name().to_owned() };
    metadata.extra_info.clone_from(&row.extra_info);
    sweep::queue_later(attempt, row.provider, &row.project).await?;
    let lease = &attempt.lease;
    let bytes = attempt.shared.metrics.bytes(OperationKind::Copy);
    let counted = Counted { step: None, bytes };
    let wish = CopyCheckpoint {
        new_id: row.id,
        created_at: row.created_at,
        metadata: Some(metadata.to_json()),
        progress: Some(Arc::new(counted)),
        cancel: lease.cancelled.child_token(),
    };
    let session = attempt.session();
    let info = tokio::select! {
        copied = from.copy(original.id, to, &session, &wish) => copied?,
        () = lease.lost.cancelled() => return Err(Stop::LeaseLost),
        () = lease.drained.cancelled() => return Err(Stop::Drained),
    };
    attempt.pass(Place::Committed).await;
    Ok(info)
}

/// Fails when a plugin keeps something of the checkpoint outside the bank: a copy would not be whole without it.
async fn holds_all(
    attempt: &Attempt,
    original: &Checkpoint,
    metadata: &CheckpointMetadata,
) -> Result<(), Stop> {
    let graph = metadata.graph().map_err(|err| Failure::new(ErrorKind::Damaged, err.to_string()))?;
    let provider: Arc<Provider> = attempt.provider(original.provider)?;
    for node in graph.nodes() {
        if let Err(err) = provider.require(&node.key.kind, OperationKind::Copy) {
            let text = format!("what is stored of it lies outside the bank: {}", err.message());
            return Err(Failure::new(ErrorKind::Unsupported, text).of(&node.key).into());
        }
    }
    let store = &attempt.shared.store;
    let made = OperationId::from(original.id);
    let outside = attempt.store(|| store.list_ledger(made)).await?;
    let kept = outside.into_iter().find_map(|row| {
        let key = row.resource.clone();
        let entry = as_plugins_see(row);
        (entry.purpose == Purpose::Product && entry.is_open()).then_some((key, entry))
    });
    match kept {
        None => Ok(()),
        Some((key, entry)) => {
            let text =
                format!("it cannot be copied: its {} {} lies outside the bank", entry.kind, entry.reference);
            Err(Failure::new(ErrorKind::Unsupported, text).of(&key).into())
        }
    }
}

/// Notes that the copy is being made, with the graph of its source.
async fn begin(attempt: &Attempt, row: &Checkpoint, metadata: &CheckpointMetadata) -> Result<(), Stop> {
    let event = (row.state == CheckpointState::WaitCopying).then_some(CheckpointEvent::Started);
    let graph = row.graph.is_none().then(|| metadata.graph.clone());
    if event.is_none() && graph.is_none() {
        return Ok(());
    }
    let subject = SubjectChange::Checkpoint(CheckpointChange { event, graph, ..CheckpointChange::default() });
    let (store, claim) = (&attempt.shared.store, &attempt.lease.claim);
    attempt.store(|| store.change_subject(claim, &subject, attempt.now())).await?;
    attempt.pass(Place::GraphStored).await;
    Ok(())
}

/// Ends the operation: the copy's commit record stands.
async fn end(attempt: &Arc<Attempt>, row: &Checkpoint, info: &CheckpointInfo) -> Result<(), Stop> {
    let metadata = CheckpointMetadata::from_json(&info.metadata).ok();
    if let Some(metadata) = &metadata {
        // An attempt that died right after its commit may not have got here.
        let row = attempt.store(|| attempt.shared.store.get_checkpoint(row.id)).await?;
        begin(attempt, &row, metadata).await?;
    }
    let graph = metadata.and_then(|metadata| metadata.graph().ok());
    let resources = graph.map(|graph| {
        let nodes = graph.nodes().iter();
        nodes
            .map(
                |node| json!({"type": node.key.kind, "id": node.key.id, "name": node.name, "status": "done"}),
            )
            .collect::<Value>()
    });
    protect::available(attempt, row, info, resources.unwrap_or_default()).await
}
