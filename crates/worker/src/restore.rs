//! Restore: children before parents, each new identity announced to all that come after it.
//!
//! A resource that fails takes along only what depends on it. What was restored stays, and stands in the ledger.
//! A dry run asks every hook what it would do, changes nothing anywhere, and is not stored until it is over. A test is a
//! dry run that also reads all that would be restored, and fails where the restore would.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::join_all;
use karbor_flow::{End as StepResult, Flow, Room, Schedule};
use karbor_plugin::{ErrorKind, PlannedAction, Provider};
use karbor_store::{Checkpoint, SubjectChange};
use karbor_types::{CheckpointMetadata, CheckpointState, Parameters, RunEvent};
use karbor_vault::CheckpointReader;
use serde_json::{Value, json};
use tracing::warn;

use crate::attempt::{Attempt, End};
use crate::cleanup::Goes;
use crate::crash::Place;
use crate::drive::{Drive, Vault, announce};
use crate::hook::{self, Retries};
use crate::outcome::{Member, StepOutcome};
use crate::prepare::{self, Subject, prepare};
use crate::progress::StepProgress;
use crate::stop::{Failure, Stop};
use crate::verify;

pub(crate) async fn run(attempt: &Arc<Attempt>) -> Result<(), Stop> {
    let opened = open(attempt).await?;
    let end = if attempt.request.dry_run {
        rehearse(attempt, &opened).await
    } else {
        restore(attempt, &opened).await
    };
    close(attempt, opened.reader).await;
    let end = end?;
    attempt.pass(Place::Closed).await;
    attempt.finish(end).await
}

/// A checkpoint that can be read, and all that its commit record and its provider tell.
pub(crate) struct Opened {
    pub(crate) row: Checkpoint,
    pub(crate) provider: Arc<Provider>,
    pub(crate) reader: Arc<CheckpointReader>,
    pub(crate) metadata: CheckpointMetadata,
}

/// Opens the operation's checkpoint for reading.
pub(crate) async fn open(attempt: &Attempt) -> Result<Opened, Stop> {
    let id = attempt.required(attempt.operation.checkpoint, "checkpoint")?;
    let row = attempt.store(|| attempt.shared.store.get_checkpoint(id)).await?;
    if row.state != CheckpointState::Available {
        let text = format!("checkpoint {id} is {}; only an available one can be read", row.state);
        return Err(Failure::new(ErrorKind::Conflict, text).into());
    }
    let provider = attempt.provider(row.provider)?;
    let account = attempt.account(row.provider, &row.project).await?;
    let reader = account.read_as(&attempt.session(), id).await?;
    let metadata = match CheckpointMetadata::from_json(&reader.info().metadata) {
        Ok(metadata) => metadata,
        Err(err) => {
            close(attempt, Arc::new(reader)).await;
            return Err(Failure::new(ErrorKind::Damaged, format!("checkpoint {id}: {err}")).into());
        }
    };
    attempt.pass(Place::Opened).await;
    Ok(Opened { row, provider, reader: Arc::new(reader), metadata })
}

/// Ends the reader's session, so that sweeps need not keep what it pins.
pub(crate) async fn close(attempt: &Attempt, reader: Arc<CheckpointReader>) {
    // A hook that was dropped may hold the reader a little longer; then its drop ends the session.
    let Ok(reader) = Arc::try_unwrap(reader) else { return };
    if let Err(err) = reader.close().await {
        let id = attempt.operation.id;
        warn!(operation.id = %id, error = &err as &dyn std::error::Error, "Closing the reader failed: {err}");
    }
}

/// Returns the parameters: those of the row where there is one.
pub(crate) async fn parameters(attempt: &Attempt) -> Result<Parameters, Stop> {
    match attempt.operation.restore {
        Some(id) if attempt.request.parameters.is_empty() => {
            Ok(attempt.store(|| attempt.shared.store.get_restore(id)).await?.parameters)
        }
        _ => Ok(attempt.request.parameters.clone()),
    }
}

async fn restore(attempt: &Arc<Attempt>, opened: &Opened) -> Result<End, Stop> {
    let parameters = parameters(attempt).await?;
    let mut drive = drive(attempt, opened, &parameters).await?;
    drive.run().await?;
    drive.clean_up(Goes::Scaffolds).await?;
    Ok(ending(&drive, None))
}

/// Returns the steps of an operation that reads a checkpoint.
pub(crate) async fn drive(
    attempt: &Arc<Attempt>,
    opened: &Opened,
    parameters: &Parameters,
) -> Result<Drive, Stop> {
    let graph = opened.metadata.graph().map_err(|err| Failure::new(ErrorKind::Damaged, err.to_string()))?;
    let subject = Subject {
        graph: &graph,
        provider: &opened.provider,
        parameters,
        checkpoint: opened.row.id,
        vault: Vault::Read(Arc::clone(&opened.reader)),
        with_records: BTreeSet::new(),
    };
    prepare(attempt, subject).await
}

/// Returns how a restore or a verification ends.
pub(crate) fn ending(drive: &Drive, more: Option<(&str, Value)>) -> End {
    let failure = drive.failure();
    let mut result = json!({"resources": drive.resources_result()});
    if let (Some((name, value)), Some(members)) = (more, result.as_object_mut()) {
        members.insert(name.to_owned(), value);
    }
    let subject = drive.run_change().map_or(SubjectChange::None, |mut change| {
        change.event = Some(if failure.is_some() { RunEvent::Failed } else { RunEvent::Finished });
        SubjectChange::Run(change)
    });
    End { result, subject, failure }
}

/// Asks every hook what it would do.
async fn rehearse(attempt: &Arc<Attempt>, opened: &Opened) -> Result<End, Stop> {
    let parameters = parameters(attempt).await?;
    let graph = opened.metadata.graph().map_err(|err| Failure::new(ErrorKind::Damaged, err.to_string()))?;
    let subject = Subject {
        graph: &graph,
        provider: &opened.provider,
        parameters: &parameters,
        checkpoint: opened.row.id,
        vault: Vault::Read(Arc::clone(&opened.reader)),
        with_records: BTreeSet::new(),
    };
    let kind = attempt.operation.kind;
    let flow = Flow::new(&graph, kind, |kind| prepare::hooks(&opened.provider, kind, attempt.operation.kind));
    let members = prepare::members(attempt, &subject)?;
    let mut drive =
        Drive::new(Arc::clone(attempt), opened.row.id, subject.vault, members, Schedule::new(flow));
    let mut problems: Vec<Vec<String>> = vec![Vec::new(); graph.len()];
    while !drive.schedule.is_finished() {
        attempt.check()?;
        if attempt.lease.cancelled.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        let config = &attempt.shared.config;
        let wave = drive.schedule.ready(Room { moving: config.hooks.get(), others: config.hooks.get() });
        let calls = wave.iter().map(|ready| {
            let step = drive.schedule.flow().steps()[ready.step];
            let progress = Arc::new(StepProgress::default());
            let sink = Arc::clone(&progress);
            let task = drive.task(step.resource, sink, attempt.lease.cancelled.child_token());
            let protection = drive.members[step.resource].protection.clone();
            hook::call(protection, step.hook, task, progress, Retries::new(config))
        });
        let ends = join_all(calls).await;
        for (ready, end) in wave.iter().zip(ends) {
            let resource = drive.schedule.flow().steps()[ready.step].resource;
            match end.result {
                Ok(outcome) => {
                    let member = &mut drive.members[resource];
                    announce(&mut drive.restored, member.key(), &outcome);
                    member.merge(StepOutcome { outcome, ..StepOutcome::default() });
                }
                Err(err) if err.kind() == ErrorKind::Cancelled => return Err(Stop::Cancelled),
                Err(err) => problems[resource].push(err.message().to_owned()),
            }
            // Whatever would fail, the rest is asked too: people want to see all of it at once.
            let end = drive.schedule.finished(ready.step, StepResult::Done);
            end.expect("it was handed out and has not ended");
        }
    }
    for (needing, text) in shortfalls(&drive.members) {
        needing.into_iter().for_each(|resource| problems[resource].push(text.clone()));
    }
    let problems: Vec<Vec<String>> =
        drive.members.iter().zip(problems).map(|(member, own)| all_problems(member, own)).collect();
    let rows = drive.members.iter().zip(&problems);
    let plan: Value = rows.map(|(member, problems)| planned(member, problems)).collect();
    let mut end = End { result: json!({"plan": plan}), subject: SubjectChange::None, failure: None };
    if attempt.request.test {
        let first =
            drive.members.iter().zip(&problems).find_map(|(member, own)| Some((member, own.first()?)));
        let count: usize = problems.iter().map(Vec::len).sum();
        end.failure = first.map(|(member, problem)| {
            let more = if count > 1 { format!("; its result has {} more", count - 1) } else { String::new() };
            let text = format!("it could not be restored now: {problem}{more}");
            Failure::new(ErrorKind::Conflict, text).of(member.key())
        });
        let report = verify::look(attempt, opened).await?;
        if let Some(lost) = verify::blame(&mut drive, &report.damaged) {
            end.failure = Some(lost);
        } else if !report.is_whole() {
            end.failure = Some(verify::unnamed_damage());
        }
        end.result["data"] = json!(report);
    }
    Ok(end)
}

/// Returns all that stands against restoring one resource: what its hooks answered, what their plans say, and what they
/// found.
fn all_problems(member: &Member, mut problems: Vec<String>) -> Vec<String> {
    problems.extend(member.plan.iter().filter_map(|action: &PlannedAction| action.problem.clone()));
    let errors = member.findings.iter().filter(|finding| finding.severity == karbor_plugin::Severity::Error);
    problems.extend(errors.map(|finding| format!("{}: {}", finding.subject, finding.message)));
    problems
}

/// Returns what there is too little of for all resources together, each with the resources that need it.
fn shortfalls(members: &[Member]) -> Vec<(BTreeSet<usize>, String)> {
    let mut limits: BTreeMap<&str, (u64, Option<u64>, BTreeSet<usize>)> = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        for need in member.plan.iter().flat_map(|action| &action.needs).filter(|need| need.amount > 0) {
            let (sum, free, needing) = limits.entry(&need.of).or_default();
            *sum = sum.saturating_add(need.amount);
            *free = [*free, need.free].into_iter().flatten().min();
            needing.insert(index);
        }
    }
    let short = limits.into_iter().filter_map(|(of, (sum, free, needing))| {
        let free = free.filter(|free| *free < sum)?;
        let text = format!(
            "the whole needs {sum} {of}, and the quota leaves {free}: free some, have it raised, or restore fewer resources"
        );
        Some((needing, text))
    });
    short.collect()
}

/// Returns what would be done for one resource.
fn planned(member: &Member, problems: &[String]) -> Value {
    json!({
        "type": member.key().kind, "id": member.key().id, "name": member.resource.name,
        "actions": member.plan, "problems": problems,
    })
}
