//! Sweep: frees what no checkpoint of an account reaches any more.
//!
//! Sweeps are queued by what makes garbage: a deletion or a failure queues one soon, a new checkpoint one for later.
//! Their ids follow from the account and the time, so that many reasons lead to one sweep; one is queued before
//! the operation that wants it ends, so a crash in between costs at most a sweep too many.
//!
//! Patience: a session may be fenced when the store knows that nobody is at work on it, that is, its operation is
//! not running or was claimed again since. A session that the store does not know may be another site's: it is
//! left alone, and an operator decides.

use std::collections::BTreeSet;
use std::sync::Arc;

use karbor_store::{Error, NewOperation, SubjectChange};
use karbor_types::{Epoch, Instant, OperationId, OperationKind, OperationState, ProjectId, ProviderId};
use karbor_vault::{Account, SweepOptions, SweepReport};
use serde_json::json;
use tracing::info;
use uuid::Uuid;

use crate::attempt::{Attempt, End};
use crate::crash::Place;
use crate::stop::Stop;

pub(crate) async fn run(attempt: &Arc<Attempt>) -> Result<(), Stop> {
    let provider = attempt.required(attempt.operation.provider, "provider")?;
    attempt.provider(provider)?;
    let project = &attempt.operation.project;
    let account = attempt.account(provider, project).await?;
    attempt.pass(Place::Opened).await;

    let mut report = sweep(attempt, &account, BTreeSet::new()).await?;
    attempt.pass(Place::Swept).await;
    if !report.waiting_for.is_empty() {
        let dead = dead_sessions(attempt, &report.waiting_for).await?;
        if !dead.is_empty() {
            let first = report;
            report = sweep(attempt, &account, dead).await?;
            report.deleted_packs += first.deleted_packs;
            report.deleted_bytes += first.deleted_bytes;
        }
    }
    info!(
        operation.id = %attempt.operation.id, project.id = %project,
        "Swept the account of {project}: freed {} bytes in {} packs", report.deleted_bytes, report.deleted_packs
    );
    if !report.finished || report.rewritten_packs > 0 {
        queue_soon(attempt, provider, project).await?;
    }
    let end = End { result: json!(report), subject: SubjectChange::None, failure: None };
    attempt.finish(end).await
}

async fn sweep(attempt: &Attempt, account: &Account, dead: BTreeSet<String>) -> Result<SweepReport, Stop> {
    let lease = &attempt.lease;
    let options = SweepOptions {
        may_fence: Some(Arc::new(move |session: &str| dead.contains(session))),
        cancel: lease.cancelled.child_token(),
        ..SweepOptions::default()
    };
    // A sweep can be dropped anywhere and gone on with.
    tokio::select! {
        report = account.sweep(&options) => Ok(report?),
        () = lease.lost.cancelled() => Err(Stop::LeaseLost),
        () = lease.drained.cancelled() => Err(Stop::Drained),
    }
}

/// Returns those of the sessions on which nobody can be at work.
async fn dead_sessions(attempt: &Attempt, sessions: &[String]) -> Result<BTreeSet<String>, Stop> {
    let mut dead = BTreeSet::new();
    for session in sessions {
        let Some((operation, epoch)) = parse(session) else { continue };
        let store = &attempt.shared.store;
        let known = attempt
            .store(|| async {
                match store.get_operation(operation).await {
                    Err(Error::NotFound { .. }) => Ok(None),
                    other => other.map(Some),
                }
            })
            .await?;
        let Some(operation) = known else { continue };
        if operation.state != OperationState::Running || operation.epoch > epoch {
            dead.insert(session.clone());
        }
    }
    Ok(dead)
}

/// Takes the name of a session apart.
fn parse(session: &str) -> Option<(OperationId, Epoch)> {
    let (operation, epoch) = session.rsplit_once('-')?;
    Some((operation.parse().ok()?, Epoch(u32::from_str_radix(epoch, 16).ok()?)))
}

/// Queues a sweep of an account, after the usual delay.
pub(crate) async fn queue_soon(
    attempt: &Attempt,
    provider: ProviderId,
    project: &ProjectId,
) -> Result<(), Stop> {
    queue(attempt, provider, project, attempt.shared.config.sweep_delay_seconds).await
}

/// Queues a sweep of an account for the end of the present period.
pub(crate) async fn queue_later(
    attempt: &Attempt,
    provider: ProviderId,
    project: &ProjectId,
) -> Result<(), Stop> {
    queue(attempt, provider, project, attempt.shared.config.sweep_period_seconds.get()).await
}

/// In which names the ids of sweeps are made.
const NAMESPACE: Uuid = Uuid::from_u128(0x7e0c_54a9_5bb0_4f0e_9d62_1d1f_6d1a_52c7);

async fn queue(
    attempt: &Attempt,
    provider: ProviderId,
    project: &ProjectId,
    every_seconds: u32,
) -> Result<(), Stop> {
    let now = attempt.now();
    let (turn, due_at) = turn(now, every_seconds);
    let name = format!("{provider}/{project}/{every_seconds}/{turn}");
    let operation = NewOperation {
        id: OperationId(Uuid::new_v5(&NAMESPACE, name.as_bytes())),
        kind: OperationKind::Sweep,
        project: project.clone(),
        user: None,
        plan: None,
        checkpoint: None,
        restore: None,
        verification: None,
        provider: Some(provider),
        priority: -1,
        due_at,
        request: serde_json::Value::Null,
        log: None,
        scheduled_operation: None,
    };
    let store = &attempt.shared.store;
    attempt
        .store(|| async {
            match store.create_operation(&operation, now).await {
                Ok(_) | Err(Error::AlreadyExists { .. }) => Ok(()),
                Err(err) => Err(err),
            }
        })
        .await?;
    attempt.pass(Place::SweepQueued).await;
    Ok(())
}

/// Returns the number of the present turn and when it is over. Without a length every moment is a turn.
fn turn(now: Instant, every_seconds: u32) -> (i64, Instant) {
    let length = i64::from(every_seconds) * 1_000_000;
    if length == 0 {
        return (now.as_micros(), now);
    }
    let turn = now.as_micros().div_euclid(length);
    (turn, Instant::from_micros(turn.saturating_add(1).saturating_mul(length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_reasons_of_one_turn_lead_to_one_sweep_after_it() {
        let second = |s: i64| Instant::from_micros(s * 1_000_000);
        assert_eq!(turn(second(61), 60), (1, second(120)));
        assert_eq!(turn(second(119), 60), (1, second(120)));
        assert_eq!(turn(second(120), 60), (2, second(180)));
        assert_eq!(turn(second(5), 0), (5_000_000, second(5)));
    }

    #[test]
    fn sessions_are_taken_apart() {
        let id = "6c6d6ad4-9fc4-41e7-bc65-e4d315421283";
        assert_eq!(parse(&format!("{id}-0000001f")), Some((id.parse().unwrap(), Epoch(31))));
        assert_eq!(parse("x-y"), None);
    }
}
