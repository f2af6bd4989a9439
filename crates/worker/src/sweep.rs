//! Sweep: frees what no checkpoint of an account reaches any more.
//!
//! Sweeps are queued by what makes garbage: a deletion or a failure queues one soon, a new checkpoint one for later.
//! Their ids follow from the account and the time, so that many reasons lead to one sweep; one is queued before
//! the operation that wants it ends, so a crash in between costs at most a sweep too many.
//!
//! Patience: a session may be fenced when the store knows that nobody is at work on it, that is, its operation is
//! not running or was claimed again since. A session that the store does not know may be another site's: it is
//! left alone, and an operator decides.

use std::sync::Arc;

use karbor_store::{Error, NewOperation, SubjectChange};
use karbor_types::{Instant, OperationId, OperationKind, OperationState, ProjectId, ProviderId};
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

    end_dead_sessions(attempt, &account).await?;
    attempt.pass(Place::Fenced).await;
    let report = sweep(attempt, &account).await?;
    attempt.pass(Place::Swept).await;
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

async fn sweep(attempt: &Attempt, account: &Account) -> Result<SweepReport, Stop> {
    let lease = &attempt.lease;
    let options = SweepOptions { cancel: lease.cancelled.child_token(), ..SweepOptions::default() };
    // A sweep can be dropped anywhere and gone on with.
    tokio::select! {
        report = account.sweep(&options) => Ok(report?),
        () = lease.lost.cancelled() => Err(Stop::LeaseLost),
        () = lease.drained.cancelled() => Err(Stop::Drained),
    }
}

/// Ends the sessions on which nobody can be at work, so that nothing waits for them and nothing is kept for them.
async fn end_dead_sessions(attempt: &Attempt, account: &Account) -> Result<(), Stop> {
    let store = &attempt.shared.store;
    for session in account.open_sessions().await? {
        attempt.check()?;
        let id = OperationId(session.operation);
        let known = attempt
            .store(|| async {
                match store.get_operation(id).await {
                    Err(Error::NotFound { .. }) => Ok(None),
                    other => other.map(Some),
                }
            })
            .await?;
        let Some(operation) = known else { continue };
        if operation.state != OperationState::Running || operation.epoch > session.epoch {
            info!(
                operation.id = %attempt.operation.id, session.id = %session,
                "End session {session}: its operation is {}", operation.state
            );
            account.end_session(&session, "its operation has ended or was taken over").await?;
        }
    }
    Ok(())
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
        occurrence: None,
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
}
