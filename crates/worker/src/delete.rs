//! Delete: the commit record first, then what plugins keep outside the bank, then the row.
//!
//! Plugins need the records that protect put into the commit record, and may need them after it is gone: so they
//! are copied into the operation's steps before the tombstone is put. A delete that failed can be asked for
//! again: it takes over the steps of the one before, with what is done and the records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karbor_plugin::ErrorKind;
use karbor_store::{
    Checkpoint, CheckpointChange, Direction, Filter, FilterValue, OperationColumn, OperationQuery,
    StepChange, StepEnd, SubjectChange,
};
use karbor_types::{
    CheckpointEvent, CheckpointMetadata, Graph, OperationKind, OperationState, Parameters, ResourceKey,
    StepState,
};
use karbor_vault::Account;
use serde_json::{Value, json};

use crate::attempt::{Attempt, End};
use crate::cleanup::Goes;
use crate::crash::Place;
use crate::drive::{Drive, Vault};
use crate::outcome::StepOutcome;
use crate::prepare::{self, Subject, prepare};
use crate::restore::close;
use crate::stop::{Failure, Stop};
use crate::sweep;

/// What plugins saved of each resource.
type Records = BTreeMap<ResourceKey, BTreeMap<String, Value>>;

pub(crate) async fn run(attempt: &Arc<Attempt>) -> Result<(), Stop> {
    let id = attempt.required(attempt.operation.checkpoint, "checkpoint")?;
    let row = attempt.store(|| attempt.shared.store.get_checkpoint(id)).await?;
    let provider = attempt.provider(row.provider)?;
    let account = attempt.account(row.provider, &row.project).await?;
    attempt.pass(Place::Opened).await;

    let earlier = earlier(attempt, &row).await?;
    let (graph, records) = match living(attempt, &account, &row).await? {
        Some((graph, records)) => {
            remember(attempt, &row, &graph).await?;
            (graph, Some(records))
        }
        // The record is gone, by this operation or one before, which left what plugins need in their steps. If
        // there are none, it never was: what its maker began was cleaned up by its maker.
        None if !earlier.is_empty() || attempt.has_steps().await? => (known_graph(&row)?, None),
        None => (Graph::default(), None),
    };
    let with_records = match &records {
        Some(records) => records.keys().cloned().collect(),
        None => earlier.iter().map(|step| step.resource.clone()).collect::<BTreeSet<_>>(),
    };
    let subject = Subject {
        graph: &graph,
        provider: &provider,
        parameters: &Parameters::default(),
        checkpoint: row.id,
        vault: Vault::Records,
        with_records,
    };
    let mut drive = prepare(attempt, subject).await?;
    keep_records(attempt, &mut drive, &graph, records.as_ref(), &earlier).await?;
    attempt.pass(Place::RecordsStored).await;

    account.delete(row.id).await?;
    attempt.pass(Place::Tombstoned).await;
    drive.run().await?;
    drive.clean_up(Goes::Scaffolds).await?;

    sweep::queue_soon(attempt, row.provider, &row.project).await?;
    let failure = drive.failure();
    let event = if failure.is_some() { CheckpointEvent::DeleteFailed } else { CheckpointEvent::Removed };
    let change = CheckpointChange { event: Some(event), ..Default::default() };
    let subject = SubjectChange::Checkpoint(change);
    attempt.finish(End { result: json!({"resources": drive.resources_result()}), subject, failure }).await
}

/// Returns graph and records of a checkpoint whose commit record lives.
async fn living(
    attempt: &Attempt,
    account: &Account,
    row: &Checkpoint,
) -> Result<Option<(Graph, Records)>, Stop> {
    let Some(info) = account.find(row.id).await? else { return Ok(None) };
    let graph = match CheckpointMetadata::from_json(&info.metadata) {
        Ok(metadata) => metadata.graph().map_err(|err| Failure::new(ErrorKind::Damaged, err.to_string()))?,
        // Whatever stands there, it must be possible to be rid of it.
        Err(_) => known_graph(row)?,
    };
    let reader = match account.read_as(&attempt.session(), row.id).await {
        Ok(reader) => reader,
        Err(err) if err.kind() == karbor_vault::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(err.into()),
    };
    let mut records = Records::new();
    for key in reader.resources() {
        let of_resource: BTreeMap<String, Value> = reader
            .record_names(key)
            .filter_map(|name| Some((name.to_owned(), reader.record(key, name)?.clone())))
            .collect();
        records.insert(key.clone(), of_resource);
    }
    close(attempt, Arc::new(reader)).await;
    Ok(Some((graph, records)))
}

/// Writes the graph into a row that has none (it was found in the bank) or another one.
async fn remember(attempt: &Attempt, row: &Checkpoint, graph: &Graph) -> Result<(), Stop> {
    let packed = graph.pack();
    if row.graph.as_ref() == Some(&packed) {
        return Ok(());
    }
    let subject =
        SubjectChange::Checkpoint(CheckpointChange { graph: Some(packed), ..CheckpointChange::default() });
    let store = &attempt.shared.store;
    attempt.store(|| store.change_subject(&attempt.lease.claim, &subject, attempt.now())).await
}

/// Returns the graph that the row knows; without one there is nothing to ask plugins about.
pub(crate) fn known_graph(row: &Checkpoint) -> Result<Graph, Failure> {
    match &row.graph {
        None => Ok(Graph::default()),
        Some(packed) => Graph::unpack(packed).map_err(|err| {
            Failure::new(ErrorKind::Other, format!("the stored resource graph cannot be read: {err}"))
        }),
    }
}

/// Returns the steps of the last delete of this checkpoint that failed.
async fn earlier(attempt: &Attempt, row: &Checkpoint) -> Result<Vec<karbor_store::Step>, Stop> {
    let equals = |column, value: &str| Filter::Equals(column, FilterValue::from(value));
    let query = OperationQuery {
        filters: vec![
            equals(OperationColumn::Kind, OperationKind::Delete.as_str()),
            equals(OperationColumn::Checkpoint, &row.id.to_string()),
        ],
        sort: vec![(OperationColumn::CreatedAt, Direction::Descending)],
        limit: 10,
        ..OperationQuery::default()
    };
    let operations = attempt.store(|| attempt.shared.store.list_operations(&query)).await?;
    let mut failed = operations.iter().filter(|operation| {
        operation.id != attempt.operation.id
            && matches!(operation.state, OperationState::Failed | OperationState::Cancelled)
    });
    match failed.next() {
        Some(operation) => prepare::stored_steps(attempt, operation.id).await,
        None => Ok(Vec::new()),
    }
}

/// Writes what plugins will need into the steps, and takes over what an earlier delete did.
async fn keep_records(
    attempt: &Attempt,
    drive: &mut Drive,
    graph: &Graph,
    records: Option<&Records>,
    earlier: &[karbor_store::Step],
) -> Result<(), Stop> {
    let mut kept: BTreeMap<&ResourceKey, BTreeMap<String, Value>> = BTreeMap::new();
    for row in earlier {
        if let Some(records) = StepOutcome::from_json(&row.outcome).unwrap_or_default().records {
            kept.insert(&row.resource, records);
        }
    }
    let mut changes = Vec::new();
    let mut done: Vec<(usize, StepState)> = Vec::new();
    for (index, step) in drive.schedule.flow().steps().iter().enumerate() {
        if drive.schedule.state(index) != Some(StepState::Pending) {
            continue;
        }
        let key = &graph.nodes()[step.resource].key;
        let before = earlier.iter().find(|row| row.resource == *key && row.hook == step.hook.as_str());
        let mut outcome = match before {
            Some(row) => StepOutcome::from_json(&row.outcome).unwrap_or_default(),
            None => StepOutcome::default(),
        };
        let records = records.and_then(|records| records.get(key)).or_else(|| kept.get(key));
        outcome.records = records.cloned();
        let is_done = before.is_some_and(|row| row.state == StepState::Done);
        if outcome == StepOutcome::default() && !is_done {
            continue;
        }
        if is_done {
            done.push((index, StepState::Done));
        }
        let end = StepEnd {
            state: if is_done { StepState::Done } else { StepState::Pending },
            outcome: outcome.to_json(),
            reason: None,
            progress: None,
        };
        changes.push(StepChange::Finished { ordinal: crate::drive::ordinal(index), end });
        drive.members[step.resource].merge(outcome);
    }
    if changes.is_empty() {
        return Ok(());
    }
    let store = &attempt.shared.store;
    attempt.store(|| store.record_steps(&attempt.lease.claim, &changes, attempt.now())).await?;
    drive.restate(&done)?;
    Ok(())
}
