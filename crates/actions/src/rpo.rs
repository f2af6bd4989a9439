//! Whether plans keep what their triggers promise (their recovery point objective).
//!
//! A trigger promises a new checkpoint at least every so often: its longest gap, and the window in which it may still
//! fire. A plan is late when its newest `available` checkpoint is older than the shortest of these promises. The promise
//! holds from when it was made: an operation that was just scheduled, or whose trigger has not begun, is not late.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use karbor_store::{
    Filter, Plan, PlanColumn, PlanQuery, ScheduledOperation, ScheduledOperationColumn,
    ScheduledOperationQuery, Trigger,
};
use karbor_types::{Instant, PlanId, ProjectId, TriggerId};

use crate::retention::plan_of;
use crate::{Actions, Caller, Result, TriggerTimes};

/// How many rows are read at once.
const PAGE: u32 = 500;

/// Of how many triggers the promises are remembered.
const REMEMBERED: usize = 100_000;

/// The types of operations that make checkpoints.
const PROTECTING: [&str; 2] = ["protect", "retention_protect"];

/// How a plan stands against what its triggers promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rpo {
    /// When its newest `available` checkpoint was made.
    pub newest_at: Option<Instant>,
    /// How old that is, in seconds.
    pub age_seconds: Option<i64>,
    /// How old it may become, in seconds; nothing when no trigger promises anything.
    pub promise_seconds: Option<i64>,
    /// Whether it is older than that.
    pub is_late: bool,
}

/// What triggers promised when they were last read: measuring a pattern takes longer than remembering it.
pub(crate) type Promises = Mutex<HashMap<(TriggerId, Option<Instant>), Option<i64>>>;

impl Actions {
    /// Returns how plans that the caller was shown stand, in their order.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn rpo_of(&self, plans: &[Plan]) -> Result<Vec<Rpo>> {
        let mut projects: Vec<&ProjectId> = plans.iter().map(|plan| &plan.project).collect();
        projects.sort_unstable();
        projects.dedup();
        let mut operations: HashMap<PlanId, Vec<ScheduledOperation>> = HashMap::new();
        for project in projects {
            let mut query = protecting(Some(project.clone()));
            loop {
                let page = self.store().list_scheduled_operations(&query).await?;
                query.marker = page.last().map(|operation| operation.id);
                let is_last = page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
                for operation in page {
                    if let Some(plan) = plan_of(&operation) {
                        operations.entry(plan).or_default().push(operation);
                    }
                }
                if is_last {
                    break;
                }
            }
        }
        self.judged(plans, &operations).await
    }

    /// Lists the plans that are late, with how they stand: those of the caller's project, or of all projects for an
    /// administrator who asks for them.
    ///
    /// # Errors
    /// [`crate::Error::Forbidden`].
    pub async fn late_plans(&self, caller: &Caller, all_tenants: bool) -> Result<Vec<(Plan, Rpo)>> {
        self.allow(caller, "plan:get_all")?;
        let project = (!(all_tenants && caller.is_admin)).then(|| caller.project.clone());
        let mut late = Vec::new();
        self.each_late(project, |plan, rpo| late.push((plan, rpo))).await?;
        late.sort_by_key(|(plan, _)| plan.id);
        Ok(late)
    }

    /// Counts the plans of all projects that are late.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn count_late_plans(&self) -> Result<u64> {
        let mut count = 0;
        self.each_late(None, |_, _| count += 1).await?;
        Ok(count)
    }

    /// Walks over all plans for which something is promised.
    async fn each_late(&self, project: Option<ProjectId>, mut found: impl FnMut(Plan, Rpo)) -> Result<()> {
        let mut operations: HashMap<PlanId, Vec<ScheduledOperation>> = HashMap::new();
        let mut query = protecting(project);
        loop {
            let page = self.store().list_scheduled_operations(&query).await?;
            query.marker = page.last().map(|operation| operation.id);
            let is_last = page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
            for operation in page {
                if let Some(plan) = plan_of(&operation) {
                    operations.entry(plan).or_default().push(operation);
                }
            }
            if is_last {
                break;
            }
        }
        let ids: Vec<PlanId> = operations.keys().copied().collect();
        for some in ids.chunks(usize::try_from(PAGE).unwrap_or(usize::MAX)) {
            let ids = some.iter().map(|id| id.to_string().into()).collect();
            let query = PlanQuery {
                filters: vec![Filter::OneOf(PlanColumn::Id, ids)],
                limit: PAGE,
                ..PlanQuery::default()
            };
            let plans = self.store().list_plans(&query).await?;
            let judged = self.judged(&plans, &operations).await?;
            for (plan, rpo) in plans.into_iter().zip(judged).filter(|(_, rpo)| rpo.is_late) {
                found(plan, rpo);
            }
        }
        Ok(())
    }

    /// Holds plans against what the triggers of their operations promise.
    async fn judged(
        &self,
        plans: &[Plan],
        operations: &HashMap<PlanId, Vec<ScheduledOperation>>,
    ) -> Result<Vec<Rpo>> {
        let now = self.now();
        let ids: Vec<PlanId> = plans.iter().map(|plan| plan.id).collect();
        let newest = self.store().newest_available(&ids).await?;
        let of = |plan: &Plan| operations.get(&plan.id).map(Vec::as_slice).unwrap_or_default();
        let mut wanted: Vec<TriggerId> = plans.iter().flat_map(of).map(|one| one.trigger).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut triggers: HashMap<TriggerId, Trigger> = HashMap::new();
        for some in wanted.chunks(usize::try_from(PAGE).unwrap_or(usize::MAX)) {
            let found = self.store().triggers(some).await?;
            triggers.extend(found.into_iter().map(|trigger| (trigger.id, trigger)));
        }
        let mut judged = Vec::with_capacity(plans.len());
        for plan in plans {
            let newest_at = newest.get(&(plan.id, plan.provider)).copied();
            let mut rpo =
                Rpo { newest_at, age_seconds: newest_at.map(|at| now.seconds_since(at)), ..Rpo::default() };
            for operation in of(plan) {
                let Some(trigger) = triggers.get(&operation.trigger) else { continue };
                let Some(promise) = self.promise_of(trigger, now) else { continue };
                rpo.promise_seconds = Some(rpo.promise_seconds.map_or(promise, |known| known.min(promise)));
                let made_at = operation.updated_at.unwrap_or(operation.created_at);
                let changed_at = trigger.updated_at.unwrap_or(trigger.created_at);
                let since = newest_at.unwrap_or(made_at).max(made_at).max(changed_at);
                rpo.is_late |= now.seconds_since(since) > promise;
            }
            judged.push(rpo);
        }
        Ok(judged)
    }

    /// Returns what a trigger promises, in seconds; nothing when it is over, has not begun, or fires when it is called.
    fn promise_of(&self, trigger: &Trigger, now: Instant) -> Option<i64> {
        trigger.next_at?;
        let key = (trigger.id, trigger.updated_at);
        let known = &self.parts.promises;
        if let Some(promise) = known.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return *promise;
        }
        let times = TriggerTimes::of(&trigger.kind, &trigger.properties, self.settings(), trigger.created_at);
        let times = times.ok()?;
        if !times.has_begun(now) {
            return None;
        }
        let promise = times.promise_seconds();
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(key, promise);
        promise
    }
}

/// Asks for the operations that make checkpoints and are done at all.
fn protecting(project: Option<ProjectId>) -> ScheduledOperationQuery {
    let types = PROTECTING.iter().map(|kind| (*kind).into()).collect();
    ScheduledOperationQuery {
        project,
        filters: vec![
            Filter::OneOf(ScheduledOperationColumn::OperationType, types),
            Filter::Equals(ScheduledOperationColumn::Enabled, 1_i64.into()),
        ],
        limit: PAGE,
        ..ScheduledOperationQuery::default()
    }
}
