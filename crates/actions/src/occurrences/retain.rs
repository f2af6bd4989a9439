//! Retention: what a scheduled operation made goes when its rules let it go.
//!
//! It is applied on behalf of an occurrence that made a checkpoint which is `available`, never before. One deletion that
//! fails does not keep the others from being asked for, and is asked for again later; one that is being restored, verified
//! or copied is let go afterwards.

use karbor_store::Occurrence;
use karbor_types::{CheckpointState, RetentionPolicy};
use tracing::{info, warn};

use crate::retention::{maker, plan_of};
use crate::{Actions, Result};

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
        let Some(plan) = plan_of(&operation) else { return Ok(true) };
        let mut checkpoints = self.checkpoints_of(&operation.project, plan).await?;
        checkpoints.retain(|checkpoint| maker(checkpoint) == Some(operation.id));
        let candidates = self.candidates(&checkpoints).await?;
        let verdicts = policy.decide(operation.id, self.now(), &candidates);
        let caller = self.caller_of(&operation, occurrence);
        let mut is_done = true;
        let holds = candidates.iter().map(|candidate| candidate.held);
        for ((checkpoint, (_, verdict)), is_held) in checkpoints.iter().zip(verdicts).zip(holds) {
            // A deletion that failed is asked for again; one that is under way is looked at again.
            let goes =
                verdict.is_expired() || (checkpoint.state == CheckpointState::ErrorDeleting && !is_held);
            is_done &= !goes && checkpoint.state != CheckpointState::Deleting;
            if !goes {
                continue;
            }
            let asked = self.expire_checkpoint(&caller, checkpoint).await;
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
}
