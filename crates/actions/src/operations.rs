//! Operations: how far the work has come, how each resource fared, and ending it.

use std::collections::BTreeMap;

use karbor_policy::Attributes;
use karbor_store::{Filter, Operation, OperationColumn, OperationProgress, Step};
use karbor_types::{Instant, OperationId, Progress, ResourceKey, StepState};
use serde_json::{Value, json};
use tracing::info;

use crate::list::{ListRules, Meaning, query};
use crate::{Actions, Caller, Error, ListRequest, Page, Result};

/// How many steps are read at once.
const STEPS: u32 = 1000;

/// An operation, and how far it has come.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationView {
    /// The operation.
    pub operation: Operation,
    /// Its steps, counted and summed.
    pub progress: OperationProgress,
}

/// How one resource of an operation fared.
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceResult {
    /// The resource.
    pub resource: ResourceKey,
    /// The state of its steps taken together.
    pub state: StepState,
    /// Why it failed or was skipped.
    pub reason: Option<String>,
    /// How far it has come.
    pub progress: Progress,
    /// Its steps, in their order.
    pub steps: Vec<StepView>,
}

/// One step of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepView {
    /// Which hook of its plugin.
    pub hook: String,
    /// Its state.
    pub state: StepState,
    /// How often it was started.
    pub attempts: u32,
    /// Why it failed or was skipped.
    pub reason: Option<String>,
    /// When it was last started.
    pub started_at: Option<Instant>,
    /// When it ended.
    pub ended_at: Option<Instant>,
}

impl Actions {
    /// Returns an operation and how far it has come.
    ///
    /// # Errors
    /// [`Error::NotFound`], also when the policy does not let the caller see it.
    pub async fn view_operation(&self, caller: &Caller, id: OperationId) -> Result<OperationView> {
        let operation = self.get_operation(caller, id).await?;
        let progress = self.store().operation_progress(id).await?;
        Ok(OperationView { operation, progress })
    }

    /// Lists operations, without their progress.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::UnknownMarker`].
    pub async fn list_operations(&self, caller: &Caller, request: &ListRequest) -> Result<Page<Operation>> {
        self.allow(caller, "operation:get_all")?;
        let rules = ListRules {
            open_filters: &[
                "kind",
                "state",
                "plan_id",
                "checkpoint_id",
                "provider_id",
                "restore_id",
                "verification_id",
            ],
            column: OperationColumn::from_name,
            meaning: |name, value| match OperationColumn::from_name(name) {
                Some(column) => Meaning::Condition(Filter::Equals(column, value.into())),
                None => Meaning::Impossible,
            },
        };
        let Some(query) = query(caller, request, &rules)? else { return Ok(Page::empty()) };
        Ok(Page::cut(self.store().list_operations(&query).await?, request.limit))
    }

    /// Returns how each resource of an operation fared, in the order in which they were first looked at.
    ///
    /// # Errors
    /// [`Error::NotFound`], also when the policy does not let the caller see it.
    pub async fn operation_resources(&self, caller: &Caller, id: OperationId) -> Result<Vec<ResourceResult>> {
        self.get_operation(caller, id).await?;
        let mut places: BTreeMap<ResourceKey, usize> = BTreeMap::new();
        let mut results: Vec<ResourceResult> = Vec::new();
        let mut after = None;
        loop {
            let steps = self.store().list_steps(id, after, STEPS).await?;
            let Some(last) = steps.last() else { break };
            after = Some(last.ordinal);
            for step in steps {
                let place = *places.entry(step.resource.clone()).or_insert_with(|| {
                    results.push(ResourceResult {
                        resource: step.resource.clone(),
                        state: StepState::Pending,
                        reason: None,
                        progress: Progress::default(),
                        steps: Vec::new(),
                    });
                    results.len() - 1
                });
                results[place].add(step);
            }
        }
        for result in &mut results {
            result.state = together(result.steps.iter().map(|step| step.state));
        }
        Ok(results)
    }

    /// Asks for an operation's end. It has ended when the worker has cleaned up behind it.
    ///
    /// # Errors
    /// As [`Actions::view_operation`]; [`Error::Conflict`] when it has ended already.
    pub async fn cancel_operation(&self, caller: &Caller, id: OperationId) -> Result<OperationView> {
        let operation = self.get_operation(caller, id).await?;
        self.allow_on(caller, "operation:cancel", attributes(&operation))?;
        self.store().request_cancel(id, self.now()).await.map_err(|err| match Error::from(err) {
            Error::Conflict { .. } => Error::conflict(format!("operation {id} has ended already")),
            err => err,
        })?;
        self.wake();
        info!(operation.id = %id, project.id = %operation.project, "Operation {id} shall end: {} asks for it", caller.user);
        self.view_operation(caller, id).await
    }

    pub(crate) async fn get_operation(&self, caller: &Caller, id: OperationId) -> Result<Operation> {
        let operation = self.store().get_operation(id).await?;
        self.allow_seeing(caller, "operation:get", attributes(&operation), "operation", &id)?;
        Ok(operation)
    }
}

impl ResourceResult {
    fn add(&mut self, step: Step) {
        self.progress = self.progress.plus(step.progress);
        if self.reason.is_none() {
            self.reason.clone_from(&step.reason);
        }
        self.steps.push(StepView {
            hook: step.hook,
            state: step.state,
            attempts: step.attempts,
            reason: step.reason,
            started_at: step.started_at,
            ended_at: step.ended_at,
        });
    }
}

/// Returns what several steps are, taken together.
fn together(states: impl Iterator<Item = StepState>) -> StepState {
    let states: Vec<StepState> = states.collect();
    let any = |state| states.contains(&state);
    if any(StepState::Failed) {
        StepState::Failed
    } else if any(StepState::Running) || (any(StepState::Done) && any(StepState::Pending)) {
        StepState::Running
    } else if any(StepState::Pending) {
        StepState::Pending
    } else if any(StepState::Done) {
        StepState::Done
    } else {
        StepState::Skipped
    }
}

/// What a policy sees of an operation.
pub(crate) fn attributes(operation: &Operation) -> Attributes {
    let value = json!({
        "id": operation.id, "project_id": operation.project, "kind": operation.kind, "state": operation.state,
        "user_id": operation.user, "plan_id": operation.plan, "checkpoint_id": operation.checkpoint,
        "provider_id": operation.provider,
    });
    match value {
        Value::Object(members) => members,
        _ => Attributes::new(),
    }
}
