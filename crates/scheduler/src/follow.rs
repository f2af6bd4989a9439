//! What becomes of what was started, and retention after it went well.

use std::collections::{HashMap, HashSet};

use karbor_store::{Occurrence, StartedOperation, Verdict};
use karbor_types::{
    Instant, OccurrenceEvent, OccurrenceId, OccurrenceReason, OccurrenceState, OperationId, OperationState,
    ScheduledOperationId,
};
use tracing::warn;

use crate::service::{Round, Scheduler};
use crate::start::verdict;
use crate::{Result, SchedulerConfig, while_doing};

/// When an occurrence is looked at again whose operations have not all ended.
const LOOK_SECONDS: i64 = 3600;

/// The longest pause before a retry.
const LONGEST_PAUSE_SECONDS: i64 = 900;

/// How many occurrences of one round have retention applied.
const RETAINED: u32 = 50;

impl Scheduler {
    /// Judges occurrences whose operations have ended.
    pub(crate) async fn follow(&self, round: &mut Round) -> Result<()> {
        loop {
            let (now, batch) = (self.now(), self.config.batch.get());
            let ended = self.parts.store.occurrences_to_look_at(OccurrenceState::Started, now, batch);
            let ended = ended.await.map_err(while_doing("looking for operations that have ended"))?;
            let ids: Vec<OccurrenceId> = ended.iter().map(|one| one.id).collect();
            let operations = self.parts.store.started_operations(&ids).await;
            let mut started: HashMap<OccurrenceId, Vec<StartedOperation>> = HashMap::new();
            for operation in operations.map_err(while_doing("looking what became of occurrences"))? {
                started.entry(operation.occurrence).or_default().push(operation);
            }
            let rules = self.rules_of_failed(&ended, &started).await?;
            let revoked = self.revoked(&started).await?;
            let mut verdicts = Vec::new();
            let mut unfinished = Vec::new();
            for one in &ended {
                let mut operations = started.remove(&one.id).unwrap_or_default();
                operations.retain(|operation| operation.attempt == one.attempt);
                let retries = rules.get(&one.operation).copied().unwrap_or(self.config.retries);
                let is_revoked = operations.iter().any(|operation| revoked.contains(&operation.id));
                match outcome(one, &operations, (&self.config, retries, is_revoked), now) {
                    Some(verdict) => verdicts.push(verdict),
                    None => unfinished.push(one.clone()),
                }
            }
            self.judge(&verdicts, round).await?;
            let again = now.plus_seconds(LOOK_SECONDS);
            let looked = self.parts.store.look_again(&unfinished, again).await;
            looked.map_err(while_doing("noting what still runs"))?;
            if ended.len() < batch as usize {
                return Ok(());
            }
        }
    }

    /// Returns how often those are tried again of whose operations one has failed, where they say.
    async fn rules_of_failed(
        &self,
        ended: &[Occurrence],
        started: &HashMap<OccurrenceId, Vec<StartedOperation>>,
    ) -> Result<HashMap<ScheduledOperationId, u32>> {
        let has_failed = |one: &&Occurrence| {
            let operations = started.get(&one.id).map(Vec::as_slice).unwrap_or_default();
            operations.iter().any(|operation| operation.state == OperationState::Failed)
        };
        let failed: Vec<_> = ended.iter().filter(has_failed).map(|one| one.operation).collect();
        if failed.is_empty() {
            return Ok(HashMap::new());
        }
        let operations = self.parts.store.scheduled_operations(&failed).await;
        let operations = operations.map_err(while_doing("looking how often is tried again"))?;
        Ok(operations.iter().filter_map(|one| Some((one.id, one.rules.retries?))).collect())
    }

    /// Returns those of the operations for which the right by which they act was taken back.
    async fn revoked(
        &self,
        started: &HashMap<OccurrenceId, Vec<StartedOperation>>,
    ) -> Result<HashSet<OperationId>> {
        let failed = started.values().flatten().filter(|operation| operation.state == OperationState::Failed);
        let failed: Vec<OperationId> = failed.map(|operation| operation.id).collect();
        let revoked = self.parts.store.revoked_operations(&failed).await;
        revoked.map_err(while_doing("looking why operations failed"))
    }

    /// Applies retention where it is due.
    pub(crate) async fn retain(&self, round: &mut Round) -> Result<()> {
        let now = self.now();
        let due = self.parts.store.occurrences_to_retain(now, RETAINED).await;
        for one in due.map_err(while_doing("looking for retention that is due"))? {
            let Some(expected) = one.retain_at else { continue };
            let is_done = match self.parts.actions.apply_retention(&one).await {
                Ok(is_done) => is_done,
                Err(err) => {
                    warn!(
                        error = &err as &dyn std::error::Error, scheduled_operation.id = %one.operation,
                        "Retention of scheduled operation {} failed, it is tried again: {err}", one.operation
                    );
                    false
                }
            };
            let seconds = i64::from(self.config.retention_retry_seconds.get());
            let next = (!is_done).then(|| self.now().plus_seconds(seconds));
            let noted = self.parts.store.set_retention(one.id, expected, next, self.now()).await;
            noted.map_err(while_doing("noting when retention is due"))?;
            round.retained += 1;
        }
        Ok(())
    }
}

/// Decides over an occurrence by what became of all that its attempt started: pure. `None` while some of it runs.
fn outcome(
    one: &Occurrence,
    operations: &[StartedOperation],
    (config, retries, is_revoked): (&SchedulerConfig, u32, bool),
    now: Instant,
) -> Option<Verdict> {
    if operations.iter().any(|operation| !operation.state.is_final()) {
        return None;
    }
    let failed = |reason, detail: &str| Some(verdict(one, OccurrenceEvent::Failed, Some(reason), detail));
    if operations.is_empty() {
        return failed(OccurrenceReason::OperationFailed, "what it started is not known any more");
    }
    if operations.iter().any(|operation| operation.state == OperationState::Cancelled) {
        return failed(OccurrenceReason::Cancelled, "somebody cancelled it");
    }
    let Some(broken) = operations.iter().find(|operation| operation.state != OperationState::Succeeded)
    else {
        let mut done = verdict(one, OccurrenceEvent::Succeeded, None, "");
        if let ("protect" | "retention_protect", [operation]) = (one.operation_type.as_str(), operations) {
            done.outcome.checkpoint = operation.checkpoint;
            done.outcome.retain_at = Some(now);
        }
        return Some(done);
    };
    let detail = broken.reason.as_deref().unwrap_or("the operation failed");
    if is_revoked {
        // Trying again would find no more right than before.
        return failed(OccurrenceReason::TrustRevoked, detail);
    }
    let doublings = one.attempt.saturating_sub(1).min(16);
    let pause = (i64::from(config.retry_seconds.get()) << doublings).min(LONGEST_PAUSE_SECONDS);
    let again = now.plus_seconds(pause);
    if one.attempt > retries || again > one.until {
        return failed(OccurrenceReason::OperationFailed, detail);
    }
    let mut verdict = verdict(one, OccurrenceEvent::PutOff, Some(OccurrenceReason::OperationFailed), detail);
    verdict.outcome.act_at = Some(again);
    Some(verdict)
}
