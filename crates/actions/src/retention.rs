//! What retention would let go, and why, before it does.

use std::collections::HashSet;

use karbor_store::{Checkpoint, CheckpointColumn, CheckpointQuery, Filter, ScheduledOperation};
use karbor_types::{
    CheckpointId, PlanId, ProjectId, Retention, RetentionCandidate, RetentionPolicy, ScheduledOperationId,
};
use serde_json::Value;

use crate::checkpoints::SCHEDULED_OPERATION;
use crate::{Actions, Caller, Error, Result};

/// How many checkpoints are read at once.
const PAGE: u32 = 1000;

/// What becomes of the checkpoints of a scheduled operation.
#[derive(Debug, Clone, PartialEq)]
pub struct RetentionPlan {
    /// The rules.
    pub policy: RetentionPolicy,
    /// Each checkpoint of its plan, newest first, with what becomes of it.
    pub verdicts: Vec<RetentionVerdict>,
}

/// What becomes of one checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct RetentionVerdict {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Whether it stays or goes, and why.
    pub retention: Retention,
}

impl Actions {
    /// Tells what retention would let go now, if the scheduled operation had just made a checkpoint; lets nothing go.
    ///
    /// # Errors
    /// [`Error::NotFound`], also when the policy does not let the caller see it; [`Error::Invalid`] when its rules cannot
    /// be read.
    pub async fn preview_retention(
        &self,
        caller: &Caller,
        id: ScheduledOperationId,
    ) -> Result<RetentionPlan> {
        let operation = self.get_scheduled_operation(caller, id).await?;
        let policy = RetentionPolicy::from_definition(&operation.definition).map_err(|err| {
            Error::invalid(format!("scheduled operation {id} has rules that cannot be read: {err}"))
        })?;
        let Some(plan) = plan_of(&operation) else {
            return Err(Error::invalid(format!("scheduled operation {id} names no plan")));
        };
        let checkpoints = self.checkpoints_of(&operation.project, plan).await?;
        let candidates = self.candidates(&checkpoints).await?;
        let verdicts = policy.decide(operation.id, self.now(), &candidates);
        let pair = |(checkpoint, (_, retention))| RetentionVerdict { checkpoint, retention };
        Ok(RetentionPlan { policy, verdicts: checkpoints.into_iter().zip(verdicts).map(pair).collect() })
    }

    /// Lists the checkpoints of a plan that are not deleted, newest first.
    pub(crate) async fn checkpoints_of(&self, project: &ProjectId, plan: PlanId) -> Result<Vec<Checkpoint>> {
        let mut query = CheckpointQuery {
            project: Some(project.clone()),
            filters: vec![Filter::Equals(CheckpointColumn::Plan, plan.to_string().into())],
            limit: PAGE,
            ..CheckpointQuery::default()
        };
        let mut all: Vec<Checkpoint> = Vec::new();
        loop {
            let page = self.store().list_checkpoints(&query).await?;
            let is_last = page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
            query.marker = page.last().map(|checkpoint| checkpoint.id);
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// Returns what retention has to know of checkpoints.
    pub(crate) async fn candidates(&self, checkpoints: &[Checkpoint]) -> Result<Vec<RetentionCandidate>> {
        let mut held: HashSet<CheckpointId> = HashSet::new();
        for some in checkpoints.chunks(400) {
            let ids: Vec<CheckpointId> = some.iter().map(|checkpoint| checkpoint.id).collect();
            held.extend(self.store().holds(&ids).await?.into_iter().map(|hold| hold.checkpoint));
        }
        let candidate = |checkpoint: &Checkpoint| RetentionCandidate {
            id: checkpoint.id,
            created_at: checkpoint.created_at,
            state: checkpoint.state,
            operation: maker(checkpoint),
            held: held.contains(&checkpoint.id),
        };
        Ok(checkpoints.iter().map(candidate).collect())
    }
}

/// Returns the plan that a scheduled operation is about.
pub(crate) fn plan_of(operation: &ScheduledOperation) -> Option<PlanId> {
    operation.definition.get("plan_id").and_then(Value::as_str)?.parse().ok()
}

/// Returns the scheduled operation that made a checkpoint; nothing for one made by hand.
pub(crate) fn maker(checkpoint: &Checkpoint) -> Option<ScheduledOperationId> {
    checkpoint.extra_info.get(SCHEDULED_OPERATION)?.as_str()?.parse().ok()
}
