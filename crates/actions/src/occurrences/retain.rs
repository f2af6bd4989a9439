//! Retention: what a scheduled operation made goes when its rules let it go.
//!
//! It is applied on behalf of an occurrence that made a checkpoint which is `available`, never before. One deletion that
//! fails does not keep the others from being asked for, and is asked for again later.

use karbor_store::{Checkpoint, CheckpointColumn, CheckpointQuery, Filter, Occurrence};
use karbor_types::{CheckpointState, PlanId, RetentionCandidate, RetentionPolicy, ScheduledOperationId};
use serde_json::Value;
use tracing::{info, warn};

use crate::{Actions, Result};

/// How many checkpoints are read at once.
const PAGE: u32 = 1000;

impl Actions {
    /// Deletes what the rules of an occurrence's scheduled operation let go; returns whether nothing is left to do.
    ///
    /// # Errors
    /// What keeps the rules or the checkpoints from being read.
    pub async fn apply_retention(&self, occurrence: &Occurrence) -> Result<bool> {
        let ids = [occurrence.operation];
        let Some(operation) = self.store().scheduled_operations(&ids).await?.pop() else { return Ok(true) };
        let policy = match RetentionPolicy::from_definition(&operation.definition) {
            Ok(policy) if policy.has_rules() => policy,
            Ok(_) => return Ok(true),
            Err(err) => {
                warn!(
                    error = &err as &dyn std::error::Error, scheduled_operation.id = %operation.id,
                    "The retention rules of scheduled operation {} cannot be read: {err}", operation.id
                );
                return Ok(true);
            }
        };
        let plan = operation.definition.get("plan_id").and_then(Value::as_str).unwrap_or_default();
        let Ok(plan) = plan.parse::<PlanId>() else { return Ok(true) };
        let checkpoints = self.made_by(&operation.project, plan, operation.id).await?;
        let candidates: Vec<RetentionCandidate> = checkpoints.iter().map(candidate).collect();
        let verdicts = policy.decide(operation.id, self.now(), &candidates);
        let caller = self.caller_of(&operation, occurrence);
        let mut is_done = true;
        for (checkpoint, (_, verdict)) in checkpoints.iter().zip(verdicts) {
            let is_held = candidate(checkpoint).held;
            // A deletion that failed is asked for again; one that is under way is looked at again.
            let goes =
                verdict.is_expired() || (checkpoint.state == CheckpointState::ErrorDeleting && !is_held);
            is_done &= !goes && checkpoint.state != CheckpointState::Deleting;
            if !goes {
                continue;
            }
            let asked = self.delete_checkpoint(&caller, checkpoint.provider, checkpoint.id).await;
            match asked {
                Ok(_) => info!(
                    checkpoint.id = %checkpoint.id, scheduled_operation.id = %operation.id,
                    "Retention lets checkpoint {} go: {}", checkpoint.id, verdict.word()
                ),
                Err(err) => warn!(
                    error = &err as &dyn std::error::Error, checkpoint.id = %checkpoint.id,
                    "Checkpoint {} could not be deleted, it is tried again later: {err}", checkpoint.id
                ),
            }
        }
        Ok(is_done)
    }

    /// Lists what a scheduled operation made of a plan and is not deleted.
    async fn made_by(
        &self,
        project: &karbor_types::ProjectId,
        plan: PlanId,
        operation: ScheduledOperationId,
    ) -> Result<Vec<Checkpoint>> {
        let mut query = CheckpointQuery {
            project: Some(project.clone()),
            filters: vec![Filter::Equals(CheckpointColumn::Plan, plan.to_string().into())],
            limit: PAGE,
            ..CheckpointQuery::default()
        };
        let mut made = Vec::new();
        loop {
            let page = self.store().list_checkpoints(&query).await?;
            let is_last = page.len() < PAGE as usize;
            query.marker = page.last().map(|checkpoint| checkpoint.id);
            made.extend(page.into_iter().filter(|one| maker(one) == Some(operation)));
            if is_last {
                return Ok(made);
            }
        }
    }
}

fn candidate(checkpoint: &Checkpoint) -> RetentionCandidate {
    RetentionCandidate {
        id: checkpoint.id,
        created_at: checkpoint.created_at,
        state: checkpoint.state,
        operation: maker(checkpoint),
        held: false,
    }
}

/// Returns the scheduled operation that made a checkpoint. A copy is nobody's.
fn maker(checkpoint: &Checkpoint) -> Option<ScheduledOperationId> {
    let id = checkpoint.extra_info.get("scheduled_operation_id")?.as_str()?;
    id.parse().ok()
}
