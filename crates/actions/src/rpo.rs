//! Whether plans keep what their triggers promise (their recovery point objective).
//!
//! A trigger promises a new checkpoint at least every so often: its longest gap, and the window in which it may still
//! fire. A plan is late when its newest `available` checkpoint is older than the shortest of these promises. The promise
//! holds from when it was made: an operation that was just scheduled, or whose trigger has not begun, is not late.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use karbor_store::{
    Filter, Plan, PlanColumn, PlanQuery, Promising, ScheduledOperation, ScheduledOperationColumn,
    ScheduledOperationQuery, Trigger,
};
use karbor_types::{Instant, PlanId, ProjectId, TriggerId};
use serde_json::Value;

use crate::retention::plan_of;
use crate::triggers::has_begun;
use crate::{Actions, Caller, Result, TriggerTimes};

/// How many rows are read at once.
const PAGE: u32 = 500;

/// How many promises are remembered.
const REMEMBERED: usize = 20_000;

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
pub(crate) type Promises = Mutex<HashMap<String, Option<i64>>>;

/// How the plan of one operation stands against what the operation's trigger promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The plan; it may have other operations.
    pub plan: PlanId,
    /// How old its newest checkpoint may become, in seconds.
    pub promise_seconds: i64,
    /// Whether it is older than that: then the plan is late.
    pub is_late: bool,
}

/// What is found of some operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatePage {
    /// Those for which something is promised.
    pub standings: Vec<Standing>,
    last: Option<Promising>,
}

impl LatePage {
    /// Returns whether there may be more behind it.
    pub const fn has_more(&self) -> bool {
        self.last.is_some()
    }
}

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

    /// Holds the next operations of all projects against what their triggers promise, a page of them behind `after`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn late_page(&self, after: Option<&LatePage>) -> Result<LatePage> {
        let behind = after.and_then(|page| page.last.as_ref());
        let page = self.store().promising(None, behind, PAGE).await?;
        self.judged_page(page).await
    }

    /// Walks over all plans for which something is promised.
    async fn each_late(&self, project: Option<ProjectId>, mut found: impl FnMut(Plan, Rpo)) -> Result<()> {
        let mut promises: HashMap<PlanId, Standing> = HashMap::new();
        let mut last = None;
        loop {
            let page = self.store().promising(project.as_ref(), last.as_ref(), PAGE).await?;
            let page = self.judged_page(page).await?;
            for standing in page.standings {
                let known = promises.entry(standing.plan).or_insert(standing);
                known.promise_seconds = known.promise_seconds.min(standing.promise_seconds);
                known.is_late |= standing.is_late;
            }
            last = page.last;
            if last.is_none() {
                break;
            }
        }
        promises.retain(|_, standing| standing.is_late);
        let now = self.now();
        let ids: Vec<PlanId> = promises.keys().copied().collect();
        for some in ids.chunks(usize::try_from(PAGE).unwrap_or(usize::MAX)) {
            let newest = self.store().newest_available(some).await?;
            let ids = some.iter().map(|id| id.to_string().into()).collect();
            let filters = vec![Filter::OneOf(PlanColumn::Id, ids)];
            let query = PlanQuery { filters, limit: PAGE, ..PlanQuery::default() };
            for plan in self.store().list_plans(&query).await? {
                let Some(standing) = promises.get(&plan.id) else { continue };
                let newest_at = newest.get(&(plan.id, plan.provider)).copied();
                let rpo = Rpo {
                    newest_at,
                    age_seconds: newest_at.map(|at| now.seconds_since(at)),
                    promise_seconds: Some(standing.promise_seconds),
                    is_late: true,
                };
                found(plan, rpo);
            }
        }
        Ok(())
    }

    /// Tells of each of these operations whether its plan is late.
    async fn judged_page(&self, page: Vec<Promising>) -> Result<LatePage> {
        let now = self.now();
        let mut plans: Vec<PlanId> = page.iter().filter_map(|one| one.plan).collect();
        plans.sort_unstable();
        plans.dedup();
        let mut triggers: Vec<TriggerId> = page.iter().map(|one| one.trigger).collect();
        triggers.sort_unstable();
        triggers.dedup();
        let providers = self.store().providers_of_plans(&plans).await?;
        let newest = self.store().newest_available(&plans).await?;
        let triggers = self.store().triggers(&triggers).await?;
        let triggers: HashMap<TriggerId, Trigger> =
            triggers.into_iter().map(|trigger| (trigger.id, trigger)).collect();
        let mut standings = Vec::with_capacity(page.len());
        for one in &page {
            let Some(plan) = one.plan else { continue };
            let Some(provider) = providers.get(&plan) else { continue };
            let Some(trigger) = triggers.get(&one.trigger) else { continue };
            let Some(promise_seconds) = self.promise_of(trigger, now) else { continue };
            let made_at = one.updated_at.unwrap_or(one.created_at);
            let newest_at = newest.get(&(plan, *provider)).copied();
            let is_late = is_late(newest_at, made_at, trigger, promise_seconds, now);
            standings.push(Standing { plan, promise_seconds, is_late });
        }
        let is_full = page.len() >= usize::try_from(PAGE).unwrap_or(usize::MAX);
        Ok(LatePage { standings, last: page.into_iter().last().filter(|_| is_full) })
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
                rpo.is_late |= is_late(newest_at, made_at, trigger, promise, now);
            }
            judged.push(rpo);
        }
        Ok(judged)
    }

    /// Returns what a trigger promises, in seconds; nothing when it is over, has not begun, or fires when it is called.
    fn promise_of(&self, trigger: &Trigger, now: Instant) -> Option<i64> {
        trigger.next_at?;
        if !has_begun(&trigger.properties, now) {
            return None;
        }
        let key = promise_key(trigger);
        let known = &self.parts.promises;
        if let Some(promise) = known.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return *promise;
        }
        let times = TriggerTimes::of(&trigger.kind, &trigger.properties, self.settings(), trigger.created_at);
        let promise = times.ok()?.promise_seconds();
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(key, promise);
        promise
    }
}

/// Returns what a promise depends on. A crontab without an end comes round for ever: when it begins makes no difference,
/// and many triggers have the same one.
fn promise_key(trigger: &Trigger) -> String {
    let text = |name: &str| trigger.properties.get(name).and_then(Value::as_str).unwrap_or_default();
    let of = |name: &str| trigger.properties.get(name).map(Value::to_string).unwrap_or_default();
    if text("format") == "crontab" && text("end_time").is_empty() {
        return [of("pattern"), of("window"), of("time_zone")].join(" ");
    }
    format!("{} {}", trigger.id, trigger.updated_at.unwrap_or(trigger.created_at).as_micros())
}

fn is_late(
    newest_at: Option<Instant>,
    made_at: Instant,
    trigger: &Trigger,
    promise: i64,
    now: Instant,
) -> bool {
    let changed_at = trigger.updated_at.unwrap_or(trigger.created_at);
    let since = newest_at.unwrap_or(made_at).max(made_at).max(changed_at);
    now.seconds_since(since) > promise
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
