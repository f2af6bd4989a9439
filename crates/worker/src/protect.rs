//! Protect: from a plan to a commit record, and only then to an `available` checkpoint.
//!
//! The commit record decides. Each attempt begins its session by fencing those before it; if one of them has
//! committed, the operation is done and its row is brought up to date from the record. If this attempt fails, it
//! closes its commit key before it says so, so that a row in `error` never hides a living checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use karbor_plugin::{ErrorKind, Provider};
use karbor_store::{
    Checkpoint, CheckpointChange, CheckpointColumn, CheckpointQuery, CheckpointStats, Direction, Filter,
    FilterValue, SubjectChange,
};
use karbor_types::{
    CheckpointEvent, CheckpointId, CheckpointMetadata, CheckpointState, Graph, Hook, PlanRecord,
    PluginRecord, ProviderRecord, StepState,
};
use karbor_vault::{Account, BeginOptions, CheckpointInfo, CheckpointWriter};
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::attempt::{Attempt, End};
use crate::backoff::Backoff;
use crate::cleanup::Goes;
use crate::crash::Place;
use crate::drive::{Drive, Vault};
use crate::prepare::{Subject, prepare};
use crate::stop::{Failure, Stop};
use crate::sweep;

/// What the steps of a checkpoint came to.
enum Made {
    /// The commit record stands.
    Committed { info: Box<CheckpointInfo>, resources: Value },
    /// Resources failed, or somebody asked for the end; nothing is committed.
    Failed { failure: Failure, resources: Value },
}

pub(crate) async fn run(attempt: &Arc<Attempt>) -> Result<(), Stop> {
    let id = attempt.required(attempt.operation.checkpoint, "checkpoint")?;
    let row = attempt.store(|| attempt.shared.store.get_checkpoint(id)).await?;
    let provider = attempt.provider(row.provider)?;
    let account = attempt.account(row.provider, &row.project).await?;
    let options = BeginOptions { base: base(attempt, &row).await? };
    let writer = match account.begin(&attempt.session(), &options).await {
        Ok(writer) => writer,
        Err(karbor_vault::Error::AlreadyCommitted(info)) => return recover(attempt, &row, &info).await,
        Err(err) => return Err(err.into()),
    };
    attempt.pass(Place::Opened).await;

    let made = match make(attempt, &row, &provider, &account, &writer).await {
        Err(Stop::Drained) => {
            // What is finished becomes findable for the next attempt; if not, it is stored again.
            if let Err(err) = writer.flush().await {
                let id = attempt.operation.id;
                warn!(operation.id = %id, error = &err as &dyn std::error::Error, "Flushing failed: {err}");
            }
            return Err(Stop::Drained);
        }
        // The session is left to the next attempt, which fences it: what it stored may be adopted.
        Err(stop @ (Stop::LeaseLost | Stop::Store(_) | Stop::Later(_))) if !is_last(attempt, &stop) => {
            return Err(stop);
        }
        made => made,
    };
    let failed = match made {
        Ok(Made::Committed { info, resources }) => return available(attempt, &row, &info, resources).await,
        Ok(Made::Failed { failure, resources }) => Ok((failure, resources)),
        Err(stop) => Err(stop),
    };
    if let Some(info) = abandon(attempt, &writer).await? {
        return available(attempt, &row, &info, Value::Null).await;
    }
    attempt.pass(Place::Abandoned).await;
    sweep::queue_soon(attempt, row.provider, &row.project).await?;
    let (failure, resources) = failed?;
    let change = CheckpointChange { event: Some(CheckpointEvent::Failed), ..Default::default() };
    let subject = SubjectChange::Checkpoint(change);
    attempt.finish(End { result: json!({"resources": resources}), subject, failure: Some(failure) }).await
}

/// Returns whether a stop will end the operation, so that nobody comes after us.
pub(crate) fn is_last(attempt: &Attempt, stop: &Stop) -> bool {
    matches!(stop, Stop::Later(_))
        && attempt.operation.attempt >= attempt.shared.config.operation_attempts.get()
}

/// Returns the checkpoint with which new streams are compared first: the newest of the same plan.
async fn base(attempt: &Attempt, row: &Checkpoint) -> Result<Option<CheckpointId>, Stop> {
    let equals = |column, value: String| Filter::Equals(column, FilterValue::Text(value));
    let query = CheckpointQuery {
        project: Some(row.project.clone()),
        filters: vec![
            equals(CheckpointColumn::Plan, row.plan.id.to_string()),
            equals(CheckpointColumn::Provider, row.provider.to_string()),
            equals(CheckpointColumn::State, CheckpointState::Available.to_string()),
        ],
        sort: vec![(CheckpointColumn::CreatedAt, Direction::Descending)],
        limit: 1,
        ..CheckpointQuery::default()
    };
    let newest = attempt.store(|| attempt.shared.store.list_checkpoints(&query)).await?;
    Ok(newest.first().map(|checkpoint| checkpoint.id))
}

async fn make(
    attempt: &Arc<Attempt>,
    row: &Checkpoint,
    provider: &Provider,
    account: &Account,
    writer: &CheckpointWriter,
) -> Result<Made, Stop> {
    let graph = graph(attempt, row).await?;
    let subject = Subject {
        graph: &graph,
        provider,
        parameters: &attempt.request.parameters,
        checkpoint: row.id,
        vault: Vault::Write(writer.clone()),
        with_records: std::collections::BTreeSet::new(),
    };
    let mut drive = prepare(attempt, subject).await?;
    drive.base = writer.base().await?.map(Arc::new);
    adopt(&mut drive, writer).await?;
    drive.run().await?;
    let mut failure = drive.failure();
    if failure.is_none() && attempt.lease.cancelled.is_cancelled() {
        failure = Some(Failure::new(ErrorKind::Cancelled, "cancelled"));
    }
    if failure.is_none() {
        failure = over_quota(attempt, row, provider, account, writer).await?;
    }
    drive.clean_up(if failure.is_some() { Goes::Everything } else { Goes::Scaffolds }).await?;
    let resources = drive.resources_result();
    if let Some(failure) = failure {
        return Ok(Made::Failed { failure, resources });
    }
    sweep::queue_later(attempt, row.provider, &row.project).await?;
    let metadata = metadata(attempt, row, provider, &graph, &drive).to_json();
    let info = Box::new(commit(attempt, row, writer, metadata).await?);
    attempt.pass(Place::Committed).await;
    Ok(Made::Committed { info, resources })
}

/// Tells when the project has more bytes in the bank than it may, with what was just written.
async fn over_quota(
    attempt: &Attempt,
    row: &Checkpoint,
    provider: &Provider,
    account: &Account,
    writer: &CheckpointWriter,
) -> Result<Option<Failure>, Stop> {
    let store = &attempt.shared.store;
    let known = attempt.store(|| store.known_bank_account(&row.project, provider.bank())).await?;
    let Some(limit) = known.and_then(|known| known.quota_bytes) else { return Ok(None) };
    writer.flush().await?;
    let used = account.stats().await?.total_bytes;
    let text = format!(
        "the project's quota of {limit} bytes in the bank {} is used up: with this checkpoint it has {used}",
        provider.bank()
    );
    Ok((used > limit).then(|| Failure::new(ErrorKind::Denied, text)))
}

/// Returns the resource graph: the one that is stored, or one that is collected and stored now.
async fn graph(attempt: &Attempt, row: &Checkpoint) -> Result<Graph, Stop> {
    if let Some(packed) = &row.graph {
        return Graph::unpack(packed).map_err(|err| {
            Failure::new(ErrorKind::Other, format!("the stored resource graph cannot be read: {err}")).into()
        });
    }
    if let Some(failure) = &attempt.hopeless {
        return Err(failure.clone().into());
    }
    if row.plan.resources.is_empty() {
        return Err(Failure::new(ErrorKind::Invalid, "the plan has no resources; add some").into());
    }
    let context = attempt.context();
    let lease = &attempt.lease;
    let graph = tokio::select! {
        graph = karbor_plugin::graph::collect(&attempt.shared.registry, &context, &row.plan.resources) => graph?,
        () = lease.lost.cancelled() => return Err(Stop::LeaseLost),
        () = lease.cancelled.cancelled() => return Err(Stop::Cancelled),
        () = lease.drained.cancelled() => return Err(Stop::Drained),
    };
    let change = CheckpointChange { graph: Some(graph.pack()), ..Default::default() };
    let subject = SubjectChange::Checkpoint(change);
    attempt.store(|| attempt.shared.store.change_subject(&lease.claim, &subject, attempt.now())).await?;
    attempt.pass(Place::GraphStored).await;
    Ok(graph)
}

/// How many resources are adopted at once.
const ADOPTING: usize = 16;

/// Takes over what earlier attempts stored. What is not there any more is stored again.
async fn adopt(drive: &mut Drive, writer: &CheckpointWriter) -> Result<(), Stop> {
    let saved = drive.members.iter().enumerate().filter_map(|(index, member)| {
        let saved = member.saved.clone()?;
        Some((index, member.key().clone(), saved))
    });
    let answers: Vec<(usize, karbor_vault::Result<bool>)> = futures::stream::iter(saved.collect::<Vec<_>>())
        .map(|(index, key, saved)| async move { (index, writer.adopt(&key, &saved).await) })
        .buffer_unordered(ADOPTING)
        .collect()
        .await;
    let mut again = Vec::new();
    for (index, adopted) in answers {
        if !adopted? {
            again.push(index);
        }
    }
    for resource in again {
        reopen(drive, resource)?;
    }
    Ok(())
}

/// Lets a resource's data be stored again.
///
/// Only `main` is run again: `complete` may have taken away what it reads from, and what the other hooks did
/// stands. A resource that is completed already cannot be read a second time.
fn reopen(drive: &mut Drive, resource: usize) -> Result<(), Failure> {
    let flow = drive.schedule.flow();
    let state = |hook| flow.step(resource, hook).and_then(|step| drive.schedule.state(step));
    let key = drive.members[resource].key().clone();
    info!(
        operation.id = %drive.attempt.operation.id, resource = %key,
        "What an earlier attempt stored of {key} is gone, and is stored again"
    );
    if state(Hook::Complete) == Some(StepState::Done) || state(Hook::Main) != Some(StepState::Done) {
        let text = "what an earlier attempt stored was freed since, and its source is gone; protect again";
        return Err(Failure::new(ErrorKind::Damaged, text).of(&key));
    }
    let main = flow.step(resource, Hook::Main).expect("it has a state, so there is such a step");
    drive.members[resource].saved = None;
    drive.restate(&[(main, StepState::Pending)])
}

/// Makes what the commit record says beside records and streams.
fn metadata(
    attempt: &Attempt,
    row: &Checkpoint,
    provider: &Provider,
    graph: &Graph,
    drive: &Drive,
) -> CheckpointMetadata {
    let plugins = graph.nodes().iter().filter_map(|node| {
        let (name, version) = provider.plugin(&node.key.kind)?;
        Some((node.key.kind.clone(), PluginRecord { name: name.to_owned(), version: version.to_owned() }))
    });
    let parameters = drive.members.iter().filter(|member| !member.parameters.is_empty());
    CheckpointMetadata {
        format: CheckpointMetadata::FORMAT,
        project: row.project.clone(),
        provider: ProviderRecord { id: row.provider, name: provider.name().to_owned() },
        plan: PlanRecord {
            id: row.plan.id,
            name: row.plan.name.clone(),
            resources: row.plan.resources.clone(),
            parameters: attempt.request.parameters.clone(),
        },
        extra_info: row.extra_info.clone(),
        graph: graph.pack(),
        parameters: parameters.map(|member| (member.key().to_string(), member.parameters.clone())).collect(),
        plugins: plugins.collect::<BTreeMap<_, _>>(),
    }
}

async fn commit(
    attempt: &Attempt,
    row: &Checkpoint,
    writer: &CheckpointWriter,
    metadata: Value,
) -> Result<CheckpointInfo, Stop> {
    let config = &attempt.shared.config;
    let mut pauses = Backoff::new(
        Duration::from_millis(config.retry_milliseconds.into()),
        Duration::from_secs(config.retry_limit_seconds.into()),
    );
    for tried in 1.. {
        match writer.commit(row.id, row.created_at, metadata.clone()).await {
            Ok(info) => return Ok(info),
            Err(karbor_vault::Error::AlreadyCommitted(info)) => return Ok(*info),
            Err(err) if err.is_retryable() && tried < config.hook_attempts.get() => {
                let id = attempt.operation.id;
                warn!(operation.id = %id, error = &err as &dyn std::error::Error, "Committing failed: {err}");
                tokio::select! {
                    () = tokio::time::sleep(pauses.pause()) => {}
                    () = attempt.lease.lost.cancelled() => return Err(Stop::LeaseLost),
                }
            }
            Err(err) => return Err(err.into()),
        }
    }
    unreachable!("the loop ends by a return")
}

/// Closes the session's commit key. Answers the commit record if one stands there after all.
async fn abandon(attempt: &Attempt, writer: &CheckpointWriter) -> Result<Option<CheckpointInfo>, Stop> {
    let mut pauses = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    for tried in 1.. {
        if attempt.lease.lost.is_cancelled() {
            return Err(Stop::LeaseLost);
        }
        match writer.abandon().await {
            // Fenced is closed, too: nothing can be committed there.
            Ok(()) | Err(karbor_vault::Error::Fenced { .. }) => return Ok(None),
            Err(karbor_vault::Error::AlreadyCommitted(info)) => return Ok(Some(*info)),
            Err(err) if tried < 4 => {
                let id = attempt.operation.id;
                warn!(operation.id = %id, error = &err as &dyn std::error::Error, "Closing the session failed: {err}");
                tokio::time::sleep(pauses.pause()).await;
            }
            Err(err) => {
                // A bank that does not answer may hold our commit record. The next attempt looks; after the last
                // one the row says `error`, and a record that stands there after all is found by a rebuild.
                let failure = Failure::from(karbor_plugin::Error::from(err));
                let text = format!("the bank session could not be closed: {}", failure.message);
                return Err(Stop::Later(Failure::new(ErrorKind::Unavailable, text)));
            }
        }
    }
    unreachable!("the loop ends by a return")
}

/// Brings the row up to date: an earlier attempt has committed.
async fn recover(attempt: &Arc<Attempt>, row: &Checkpoint, info: &CheckpointInfo) -> Result<(), Stop> {
    let id = attempt.operation.id;
    info!(operation.id = %id, checkpoint.id = %row.id, "Checkpoint {} was committed by an earlier attempt", row.id);
    let metadata = CheckpointMetadata::from_json(&info.metadata).ok();
    let graph = metadata.as_ref().and_then(|metadata| metadata.graph().ok());
    let resources = graph.map(|graph| {
        let nodes = graph.nodes().iter().map(
            |node| json!({"type": node.key.kind, "id": node.key.id, "name": node.name, "status": "done"}),
        );
        nodes.collect::<Value>()
    });
    available(attempt, row, info, resources.unwrap_or_default()).await
}

/// Ends the operation: the commit record stands.
pub(crate) async fn available(
    attempt: &Attempt,
    row: &Checkpoint,
    info: &CheckpointInfo,
    resources: Value,
) -> Result<(), Stop> {
    let graph = if row.graph.is_none() {
        CheckpointMetadata::from_json(&info.metadata).ok().map(|metadata| metadata.graph)
    } else {
        None
    };
    let change = CheckpointChange {
        event: Some(CheckpointEvent::Finished),
        graph,
        stats: Some(CheckpointStats {
            logical_bytes: info.logical_bytes,
            stored_bytes: info.stored_bytes,
            new_bytes: info.stored_bytes,
        }),
        session: Some(info.session.clone()),
        committed_at: Some(attempt.now()),
        ..CheckpointChange::default()
    };
    let mut result = json!({
        "resources": resources, "logical_bytes": info.logical_bytes, "stored_bytes": info.stored_bytes,
    });
    if let Some(short_phase) = short_phase(attempt).await? {
        result["short_phase"] = short_phase;
    }
    attempt.finish(End { result, subject: SubjectChange::Checkpoint(change), failure: None }).await
}

/// Tells for how long the application was held: from the first `prepare_begin` to the last `prepare_finish`, between
/// which all snapshots were taken.
async fn short_phase(attempt: &Attempt) -> Result<Option<Value>, Stop> {
    let hooks = [Hook::PrepareBegin.as_str(), Hook::PrepareFinish.as_str()];
    let id = attempt.operation.id;
    let span = attempt.store(|| attempt.shared.store.span_of_hooks(id, &hooks)).await?;
    Ok(span.map(|(began_at, ended_at)| {
        let milliseconds = (ended_at.as_micros() - began_at.as_micros()).max(0) / 1000;
        json!({"began_at": began_at.to_string(), "ended_at": ended_at.to_string(), "milliseconds": milliseconds})
    }))
}
