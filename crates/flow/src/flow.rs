//! Steps and their order.
//!
//! Every resource has four nodes, one per hook, whether or not there is a step behind it. A node without a
//! step is a gate: it opens by itself once all before it are over. So the order is kept transitively through
//! hooks that do nothing, and the number of edges stays linear.

use std::collections::{BTreeSet, HashMap};

use karbor_types::{Graph, Hook, OperationKind, ResourceType};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// One call of a plugin: a hook for a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Step {
    /// The resource's index in the graph's nodes.
    pub resource: usize,
    /// The hook to call.
    pub hook: Hook,
}

/// The steps of one operation and what must come before what.
#[derive(Debug, Clone)]
pub struct Flow {
    kind: OperationKind,
    steps: Vec<Step>,
    /// For each node its step, if there is one.
    step_of: Vec<Option<usize>>,
    /// For each node those that come right after it.
    after: Vec<Vec<usize>>,
    /// For each node how many come right before it.
    before: Vec<usize>,
    /// For each resource its direct parents.
    parents: Vec<Vec<usize>>,
}

/// The number of hooks, and so of nodes per resource.
const HOOKS: usize = Hook::ALL.len();

/// Returns a hook's place among the four.
const fn place(hook: Hook) -> usize {
    match hook {
        Hook::PrepareBegin => 0,
        Hook::PrepareFinish => 1,
        Hook::Main => 2,
        Hook::Complete => 3,
    }
}

/// Returns the node of a resource's hook.
pub(crate) const fn node(resource: usize, hook: Hook) -> usize {
    resource * HOOKS + place(hook)
}

/// Returns the resource that a node belongs to.
pub(crate) const fn resource_of(node: usize) -> usize {
    node / HOOKS
}

impl Flow {
    /// Makes the steps of an operation on a graph; `hooks` tells which hooks of a type are not no-ops.
    ///
    /// It is asked once per type. Steps are numbered by resource, children first, then by hook.
    pub fn new(
        graph: &Graph,
        kind: OperationKind,
        mut hooks: impl FnMut(&ResourceType) -> BTreeSet<Hook>,
    ) -> Self {
        let mut known: HashMap<&ResourceType, BTreeSet<Hook>> = HashMap::new();
        let mut steps = Vec::new();
        for (resource, instance) in graph.nodes().iter().enumerate() {
            let kind = &instance.key.kind;
            let present = known.entry(kind).or_insert_with(|| hooks(kind));
            steps.extend(present.iter().map(|&hook| Step { resource, hook }));
        }
        Self::ordered(graph, kind, steps)
    }

    /// Rebuilds a flow from the steps that were stored when it was made.
    ///
    /// What is stored decides, not what today's plugins say: a restart may come with newer ones.
    ///
    /// # Errors
    /// When a step names a resource that is not in the graph, or stands there twice.
    pub fn from_steps(graph: &Graph, kind: OperationKind, steps: Vec<Step>) -> Result<Self> {
        let mut seen = vec![false; graph.len() * HOOKS];
        for (index, step) in steps.iter().enumerate() {
            let Step { resource, hook } = *step;
            if resource >= graph.len() {
                return Err(Error::UnknownResource { step: index, resource, resources: graph.len() });
            }
            if std::mem::replace(&mut seen[node(resource, hook)], true) {
                return Err(Error::Repeated { step: index, resource, hook });
            }
        }
        Ok(Self::ordered(graph, kind, steps))
    }

    fn ordered(graph: &Graph, kind: OperationKind, steps: Vec<Step>) -> Self {
        let nodes = graph.len() * HOOKS;
        let mut flow = Self {
            kind,
            step_of: vec![None; nodes],
            after: vec![Vec::new(); nodes],
            before: vec![0; nodes],
            parents: vec![Vec::new(); graph.len()],
            steps: Vec::new(),
        };
        for (index, step) in steps.iter().enumerate() {
            flow.step_of[node(step.resource, step.hook)] = Some(index);
        }
        flow.steps = steps;
        for resource in 0..graph.len() {
            for pair in Hook::ALL.windows(2) {
                flow.edge(node(resource, pair[0]), node(resource, pair[1]));
            }
            for &child in graph.children(resource) {
                flow.parents[child].push(resource);
                flow.edge(node(resource, Hook::PrepareBegin), node(child, Hook::PrepareBegin));
                flow.edge(node(child, Hook::PrepareFinish), node(resource, Hook::PrepareFinish));
                flow.edge(node(child, Hook::Complete), node(resource, Hook::Complete));
                if kind == OperationKind::Restore {
                    flow.edge(node(child, Hook::Complete), node(resource, Hook::Main));
                }
            }
        }
        flow
    }

    fn edge(&mut self, from: usize, to: usize) {
        self.after[from].push(to);
        self.before[to] += 1;
    }

    /// Returns what the operation does.
    pub fn kind(&self) -> OperationKind {
        self.kind
    }

    /// Returns the steps. A step is named by its index in this list everywhere.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Returns how many resources there are.
    pub fn resources(&self) -> usize {
        self.parents.len()
    }

    /// Returns the step of a resource's hook, if that hook is not a no-op.
    pub fn step(&self, resource: usize, hook: Hook) -> Option<usize> {
        if resource < self.resources() { self.step_of[node(resource, hook)] } else { None }
    }

    /// Returns the direct parents of a resource.
    pub fn parents(&self, resource: usize) -> &[usize] {
        self.parents.get(resource).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn step_of(&self) -> &[Option<usize>] {
        &self.step_of
    }

    pub(crate) fn after(&self, node: usize) -> &[usize] {
        &self.after[node]
    }

    pub(crate) fn before(&self) -> &[usize] {
        &self.before
    }
}
