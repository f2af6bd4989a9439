//! From a graph to steps under way: made and stored at first, taken up as they stand after that.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use karbor_flow::{Flow, Schedule, Step};
use karbor_plugin::{ErrorKind, Provider};
use karbor_store::NewStep;
use karbor_types::{
    CheckpointId, Graph, Hook, OperationKind, Parameters, ResourceKey, ResourceType, StepState,
};
use serde_json::Value;

use crate::attempt::Attempt;
use crate::crash::Place;
use crate::drive::{Drive, Vault, announce, ordinal};
use crate::outcome::{Member, ResourceFailure, StepOutcome};
use crate::stop::{Failure, Stop};

/// What an operation is run on.
pub(crate) struct Subject<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) provider: &'a Provider,
    pub(crate) parameters: &'a Parameters,
    pub(crate) checkpoint: CheckpointId,
    pub(crate) vault: Vault,
    /// Resources that plugins keep something of outside the bank, as far as that can be told; only for delete.
    pub(crate) with_records: BTreeSet<ResourceKey>,
}

/// How many steps are read at once.
const PAGE: u32 = 5000;

/// Returns the operation's steps as they stand; makes and stores them if there are none yet.
pub(crate) async fn prepare(attempt: &Arc<Attempt>, subject: Subject<'_>) -> Result<Drive, Stop> {
    let members = members(attempt, &subject)?;
    let graph = subject.graph;
    let kind = attempt.operation.kind;
    let stored = stored_steps(attempt, attempt.operation.id).await?;
    let hooks = |kind: &ResourceType| hooks(subject.provider, kind, attempt.operation.kind);
    let (flow, states) = if stored.is_empty() {
        let flow = Flow::new(graph, kind, hooks);
        let new: Vec<NewStep> = new_steps(graph, &flow);
        if !new.is_empty() {
            let store = &attempt.shared.store;
            attempt.store(|| store.save_steps(&attempt.lease.claim, &new)).await?;
        }
        let states = vec![StepState::Pending; flow.steps().len()];
        (flow, states)
    } else {
        let steps = steps_of(graph, &stored)?;
        let flow = Flow::from_steps(graph, kind, steps).map_err(|err| malformed(&err))?;
        (flow, stored.iter().map(|step| step.state).collect())
    };
    attempt.pass(Place::StepsStored).await;
    let schedule = Schedule::resume(flow, &states).map_err(|err| malformed(&err))?;
    let mut drive = Drive::new(Arc::clone(attempt), subject.checkpoint, subject.vault, members, schedule);
    drive.hopeless.clone_from(&attempt.hopeless);
    for member in &drive.members {
        if let Some(protection) = needed(member, &drive.schedule, graph) {
            return Err(protection.into());
        }
    }
    drive.take_up(stored)?;
    Ok(drive)
}

/// Returns the failure of a resource that has steps and no plugin.
fn needed(member: &Member, schedule: &Schedule, graph: &Graph) -> Option<Failure> {
    if member.protection.is_some() {
        return None;
    }
    let resource = graph.position(member.key())?;
    let hook = Hook::ALL.iter().find(|hook| schedule.flow().step(resource, **hook).is_some())?;
    let text = format!("the plugin of {} that began this operation is gone; add it again", member.key().kind);
    Some(Failure::new(ErrorKind::Unsupported, text).of(member.key()).at(*hook))
}

fn malformed(err: &karbor_flow::Error) -> Failure {
    Failure::new(ErrorKind::Other, format!("the stored steps do not fit the resources: {err}"))
}

fn new_steps(graph: &Graph, flow: &Flow) -> Vec<NewStep> {
    let new = |(index, step): (usize, &Step)| NewStep {
        resource: graph.nodes()[step.resource].key.clone(),
        hook: step.hook.as_str().to_owned(),
        ordinal: ordinal(index),
    };
    flow.steps().iter().enumerate().map(new).collect()
}

/// Reads all steps of an operation, in order.
pub(crate) async fn stored_steps(
    attempt: &Attempt,
    operation: karbor_types::OperationId,
) -> Result<Vec<karbor_store::Step>, Stop> {
    let mut all: Vec<karbor_store::Step> = Vec::new();
    loop {
        let after = all.last().map(|step| step.ordinal);
        let page = attempt.store(|| attempt.shared.store.list_steps(operation, after, PAGE)).await?;
        let last = page.len() < usize::try_from(PAGE).expect("a small number");
        all.extend(page);
        if last {
            return Ok(all);
        }
    }
}

/// Finds each stored step's resource in the graph.
fn steps_of(graph: &Graph, stored: &[karbor_store::Step]) -> Result<Vec<Step>, Failure> {
    let places: HashMap<&ResourceKey, usize> =
        graph.nodes().iter().enumerate().map(|(index, node)| (&node.key, index)).collect();
    let broken = |reason: String| Failure::new(ErrorKind::Other, reason);
    let mut steps = Vec::with_capacity(stored.len());
    for (index, row) in stored.iter().enumerate() {
        if row.ordinal != ordinal(index) {
            return Err(broken(format!("step {index} of the operation is missing")));
        }
        let resource = *places.get(&row.resource).ok_or_else(|| {
            broken(format!("a stored step belongs to {}, which is not in the graph", row.resource))
        })?;
        let hook: Hook = row.hook.parse().map_err(|err| broken(format!("a stored step: {err}")))?;
        steps.push(Step { resource, hook });
    }
    Ok(steps)
}

/// Returns the hooks of a type that do something in an operation.
pub(crate) fn hooks(provider: &Provider, kind: &ResourceType, operation: OperationKind) -> BTreeSet<Hook> {
    let Some(description) = provider.kind(kind) else { return BTreeSet::new() };
    if !description.operations.contains(&operation) {
        return BTreeSet::new();
    }
    description.hooks.get(&operation).cloned().unwrap_or_default()
}

/// Finds plugin and parameters of each resource, before anything is begun.
pub(crate) fn members(attempt: &Attempt, subject: &Subject<'_>) -> Result<Vec<Member>, Failure> {
    let operation = attempt.operation.kind;
    let Subject { graph, provider, parameters, .. } = subject;
    let mut members = Vec::with_capacity(graph.len());
    for (index, resource) in graph.nodes().iter().enumerate() {
        let key = &resource.key;
        let failed = |err: karbor_plugin::Error| Failure::from(err).of(key);
        let protection = match operation {
            OperationKind::Protect | OperationKind::Restore | OperationKind::Copy => {
                Some(Arc::clone(provider.require(&key.kind, operation).map_err(failed)?))
            }
            // What a plugin does not do there is nothing to be done; the data engine does its own part.
            OperationKind::Verify | OperationKind::Delete | OperationKind::Sweep => {
                let gone = provider.kind(&key.kind).is_none();
                if gone && subject.with_records.contains(key) {
                    provider.require(&key.kind, operation).map_err(failed)?;
                }
                provider.protection(&key.kind).cloned()
            }
        };
        let parameters = if provider.kind(&key.kind).is_some() {
            provider.resolve_parameters(operation, parameters, key).map_err(failed)?
        } else {
            serde_json::Map::new()
        };
        members.push(Member {
            resource: resource.clone(),
            protection,
            parameters,
            children: graph.children(index).to_vec(),
            state: Value::Null,
            restored: None,
            mapped: Vec::new(),
            plan: Vec::new(),
            findings: Vec::new(),
            saved: None,
            records: std::collections::BTreeMap::new(),
            failure: None,
            skipped: None,
            begun: false,
            open_steps: 0,
        });
    }
    Ok(members)
}

impl Drive {
    /// Takes up what earlier attempts reached.
    fn take_up(&mut self, stored: Vec<karbor_store::Step>) -> Result<(), Failure> {
        let steps = self.schedule.flow().steps().to_vec();
        for step in &steps {
            self.members[step.resource].open_steps += 1;
        }
        for (row, step) in stored.into_iter().zip(&steps) {
            let member = &mut self.members[step.resource];
            let outcome = StepOutcome::from_json(&row.outcome).map_err(|err| {
                let text = format!("what an earlier attempt left cannot be read: {err}");
                Failure::new(ErrorKind::Other, text).of(&row.resource).at(step.hook)
            })?;
            announce(&mut self.restored, &row.resource, &outcome.outcome);
            member.merge(outcome);
            member.begun |= row.state != StepState::Pending;
            let reason = row.reason.unwrap_or_default();
            match row.state {
                StepState::Pending | StepState::Running => continue,
                StepState::Done => {}
                StepState::Failed => {
                    let failure =
                        ResourceFailure { hook: step.hook, kind: ErrorKind::Other, message: reason };
                    member.failure.get_or_insert(failure);
                }
                StepState::Skipped => {
                    member.skipped.get_or_insert(reason);
                }
            }
            member.open_steps -= 1;
        }
        Ok(())
    }

    /// Takes steps as done, or as never run, without running them.
    pub(crate) fn restate(&mut self, changes: &[(usize, StepState)]) -> Result<(), Failure> {
        let flow = self.schedule.flow().clone();
        let mut states: Vec<StepState> = (0..flow.steps().len())
            .map(|step| self.schedule.state(step).unwrap_or(StepState::Pending))
            .collect();
        for &(step, state) in changes {
            let open = |state| matches!(state, StepState::Pending | StepState::Running);
            let member = &mut self.members[flow.steps()[step].resource];
            match (open(states[step]), open(state)) {
                (true, false) => member.open_steps -= 1,
                (false, true) => member.open_steps += 1,
                _ => {}
            }
            states[step] = state;
        }
        self.schedule = Schedule::resume(flow, &states).map_err(|err| malformed(&err))?;
        Ok(())
    }
}
