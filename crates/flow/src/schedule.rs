//! Which step may run next.
//!
//! A step is handed out by [`Schedule::ready`] once everything before it is over, and ends by
//! [`Schedule::finished`]; each moves forward only, so nothing that is done is ever handed out again.
//!
//! What a failure does depends on the operation:
//!
//! | operation | after a failure of R |
//! | --- | --- |
//! | protect, copy | nothing new is begun for any resource |
//! | restore | nothing new is begun for R and what is above it; the rest goes on |
//! | verify, delete, sweep | nothing new is begun for R; the rest goes on |
//!
//! Whatever happened, a resource whose `prepare_begin` was begun gets its `prepare_finish`: an application
//! that was made to hold still must be let go. Such a step is handed out with `cleanup` set.
//! A step that will not run is skipped when its turn comes, not before, so that the order also holds among
//! the cleanups; since every step ends or is skipped, so does the flow.

use std::collections::VecDeque;

use karbor_types::{Hook, OperationKind, StepState};

use crate::flow::{Flow, node, resource_of};
use crate::{Error, Result};

/// How many more steps may be handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Steps that move bytes: `main`.
    pub moving: usize,
    /// All others. They have room of their own, so that no application is held still behind a long copy.
    pub others: usize,
}

impl Room {
    /// As much of everything as there is.
    pub const UNLIMITED: Self = Self { moving: usize::MAX, others: usize::MAX };
}

/// A step that may run now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The step.
    pub step: usize,
    /// The work is lost already; only what was begun is to be let go.
    pub cleanup: bool,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It did what it should, and its outcome is durable.
    Done,
    /// It failed for good.
    Failed,
    /// It was handed out and not begun after all.
    NotRun,
}

/// Why a step is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// An earlier hook of its own resource failed.
    Own,
    /// A resource that it depends on failed.
    Dependency {
        /// The one that failed.
        resource: usize,
    },
    /// Another resource failed, and the operation is worth nothing without it.
    Operation {
        /// The one that failed.
        resource: usize,
    },
    /// The operation was cancelled.
    Cancelled,
    /// It was handed out and not begun after all.
    NotRun,
}

/// A step that was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// The step.
    pub step: usize,
    /// Why.
    pub reason: SkipReason,
    /// The step was begun by a process that died, and nobody knows how far it came. It counts as failed and is to
    /// be stored so: the next process must still know that there is something to let go.
    pub interrupted: bool,
}

/// How many steps are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All.
    pub total: usize,
    /// Done.
    pub done: usize,
    /// Failed for good.
    pub failed: usize,
    /// Skipped.
    pub skipped: usize,
    /// Handed out and not ended.
    pub running: usize,
}

/// The state of a flow that runs.
#[derive(Debug, Clone)]
pub struct Schedule {
    flow: Flow,
    states: Vec<StepState>,
    /// For each node whether it is over.
    over: Vec<bool>,
    /// For each node how many before it are not over.
    waiting: Vec<usize>,
    /// Steps whose turn has come, by hook.
    queues: [VecDeque<usize>; Hook::ALL.len()],
    /// For each resource why nothing new may be begun.
    doom: Vec<Option<SkipReason>>,
    /// For each resource whether its `prepare_begin` was ever handed out and not given back.
    begun: Vec<bool>,
    /// For each resource whether its `prepare_begin` was begun by a process that died.
    interrupted: Vec<bool>,
    skipped: Vec<Skipped>,
    counts: Counts,
    first_failure: Option<usize>,
    cancelled: bool,
}

/// In which order what is ready is handed out: first let go, then hold still, so that both stay close.
const PRIORITY: [Hook; 4] = [Hook::PrepareFinish, Hook::PrepareBegin, Hook::Complete, Hook::Main];

const fn queue(hook: Hook) -> usize {
    node(0, hook)
}

impl Schedule {
    /// Starts a flow from its beginning.
    pub fn new(flow: Flow) -> Self {
        let states = vec![StepState::Pending; flow.steps().len()];
        Self::with_states(flow, states)
    }

    /// Goes on with a flow from the states that were stored, one per step.
    ///
    /// What was running is handed out again. What follows from a stored failure is found again.
    ///
    /// # Errors
    /// When there are not as many states as steps.
    pub fn resume(flow: Flow, states: &[StepState]) -> Result<Self> {
        if states.len() != flow.steps().len() {
            return Err(Error::StateCount { states: states.len(), steps: flow.steps().len() });
        }
        Ok(Self::with_states(flow, states.to_vec()))
    }

    fn with_states(flow: Flow, states: Vec<StepState>) -> Self {
        let nodes = flow.step_of().len();
        let mut schedule = Self {
            over: vec![false; nodes],
            waiting: flow.before().to_vec(),
            queues: Default::default(),
            doom: vec![None; flow.resources()],
            begun: vec![false; flow.resources()],
            interrupted: vec![false; flow.resources()],
            skipped: Vec::new(),
            counts: Counts { total: states.len(), ..Counts::default() },
            first_failure: None,
            cancelled: false,
            states,
            flow,
        };
        let mut failed = Vec::new();
        for (index, step) in schedule.flow.steps().iter().enumerate() {
            let state = &mut schedule.states[index];
            if step.hook == Hook::PrepareBegin && !matches!(state, StepState::Pending | StepState::Skipped) {
                schedule.begun[step.resource] = true;
                schedule.interrupted[step.resource] = *state == StepState::Running;
            }
            match state {
                StepState::Pending | StepState::Running => {
                    *state = StepState::Pending;
                    continue;
                }
                StepState::Done => schedule.counts.done += 1,
                StepState::Skipped => schedule.counts.skipped += 1,
                StepState::Failed => {
                    schedule.counts.failed += 1;
                    failed.push(step.resource);
                }
            }
            let node = node(step.resource, step.hook);
            schedule.over[node] = true;
            for &next in schedule.flow.after(node) {
                schedule.waiting[next] -= 1;
            }
        }
        for resource in failed {
            schedule.fail(resource);
        }
        let open = (0..nodes).filter(|&node| schedule.waiting[node] == 0 && !schedule.over[node]);
        let open: Vec<usize> = open.collect();
        schedule.advance(open);
        schedule
    }

    /// Returns the flow.
    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    /// Returns the state of a step; `None` when there is no such step.
    ///
    /// A `prepare_begin` that a process began and died over is running until its end is known, handed out again or
    /// not: a schedule that is resumed from these states knows what is to be let go.
    pub fn state(&self, step: usize) -> Option<StepState> {
        let state = *self.states.get(step)?;
        let at = self.flow.steps()[step];
        let interrupted = at.hook == Hook::PrepareBegin && self.interrupted[at.resource];
        Some(if interrupted && state == StepState::Pending { StepState::Running } else { state })
    }

    /// Returns how many steps are in which state.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns whether every step has ended.
    pub fn is_finished(&self) -> bool {
        self.counts.done + self.counts.failed + self.counts.skipped == self.counts.total
    }

    /// Returns the resource that failed first, if one did.
    pub fn first_failure(&self) -> Option<usize> {
        self.first_failure
    }

    /// Returns why nothing new may be begun for a resource, if so.
    pub fn doom(&self, resource: usize) -> Option<SkipReason> {
        self.doom.get(resource).copied().flatten()
    }

    /// Hands out steps that may run now, and takes them as running.
    pub fn ready(&mut self, room: Room) -> Vec<Ready> {
        let mut room = room;
        let mut ready = Vec::new();
        for hook in PRIORITY {
            let left = if hook == Hook::Main { &mut room.moving } else { &mut room.others };
            while *left > 0 {
                let Some(step) = self.queues[queue(hook)].pop_front() else { break };
                *left -= 1;
                let resource = self.flow.steps()[step].resource;
                self.states[step] = StepState::Running;
                self.counts.running += 1;
                if hook == Hook::PrepareBegin {
                    self.begun[resource] = true;
                }
                ready.push(Ready { step, cleanup: self.doom[resource].is_some() });
            }
        }
        ready
    }

    /// Takes in how a step ended.
    ///
    /// # Errors
    /// When that step was not handed out, or ended before.
    pub fn finished(&mut self, step: usize, end: End) -> Result<()> {
        let state = *self.states.get(step).ok_or(Error::NoSuchStep { step, steps: self.states.len() })?;
        if state != StepState::Running {
            return Err(Error::NotRunning { step, state });
        }
        let at = self.flow.steps()[step];
        self.counts.running -= 1;
        match end {
            End::Done => {
                self.states[step] = StepState::Done;
                self.counts.done += 1;
            }
            End::Failed => {
                self.states[step] = StepState::Failed;
                self.counts.failed += 1;
                self.fail(at.resource);
            }
            End::NotRun => {
                if at.hook == Hook::PrepareBegin {
                    self.begun[at.resource] = self.interrupted[at.resource];
                }
                let reason = self.doom[at.resource].unwrap_or(SkipReason::NotRun);
                // What comes after it in the same resource would lack it.
                self.doom[at.resource].get_or_insert(SkipReason::NotRun);
                self.skip(step, reason);
            }
        }
        let mut open = Vec::new();
        self.close(node(at.resource, at.hook), &mut open);
        self.advance(open);
        Ok(())
    }

    /// Begins nothing new but what lets go of what was begun.
    pub fn cancel(&mut self) {
        self.cancelled = true;
        for resource in 0..self.flow.resources() {
            self.doom[resource].get_or_insert(SkipReason::Cancelled);
        }
        self.sift();
    }

    /// Returns whether the flow was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled
    }

    /// Returns the steps that were skipped since the last call, in order.
    pub fn take_skipped(&mut self) -> Vec<Skipped> {
        std::mem::take(&mut self.skipped)
    }

    /// Dooms what a failure of `resource` makes pointless.
    fn fail(&mut self, resource: usize) {
        self.first_failure.get_or_insert(resource);
        // What was doomed for another's sake has now a reason of its own, unless it only let go.
        if !matches!(self.doom[resource], Some(SkipReason::Own)) {
            self.doom[resource] = Some(SkipReason::Own);
        }
        match self.flow.kind() {
            OperationKind::Protect | OperationKind::Copy => {
                for other in 0..self.flow.resources() {
                    self.doom[other].get_or_insert(SkipReason::Operation { resource });
                }
            }
            OperationKind::Restore => {
                let mut above = self.flow.parents(resource).to_vec();
                while let Some(parent) = above.pop() {
                    if self.doom[parent].is_none() {
                        self.doom[parent] = Some(SkipReason::Dependency { resource });
                        above.extend(self.flow.parents(parent));
                    }
                }
            }
            OperationKind::Verify | OperationKind::Delete | OperationKind::Sweep => {}
        }
        self.sift();
    }

    /// Returns whether a step is to run although its resource is doomed.
    fn lets_go(&self, step: usize) -> bool {
        let at = self.flow.steps()[step];
        at.hook == Hook::PrepareFinish && self.begun[at.resource]
    }

    /// Takes steps of doomed resources out of the queues.
    fn sift(&mut self) {
        let mut open = Vec::new();
        for hook in Hook::ALL {
            for step in std::mem::take(&mut self.queues[queue(*hook)]) {
                let at = self.flow.steps()[step];
                match self.doom[at.resource] {
                    Some(reason) if !self.lets_go(step) => {
                        self.skip(step, reason);
                        self.close(node(at.resource, at.hook), &mut open);
                    }
                    _ => self.queues[queue(*hook)].push_back(step),
                }
            }
        }
        self.advance(open);
    }

    fn skip(&mut self, step: usize, reason: SkipReason) {
        let at = self.flow.steps()[step];
        let interrupted = at.hook == Hook::PrepareBegin && self.interrupted[at.resource];
        if interrupted {
            self.states[step] = StepState::Failed;
            self.counts.failed += 1;
        } else {
            self.states[step] = StepState::Skipped;
            self.counts.skipped += 1;
        }
        self.skipped.push(Skipped { step, reason, interrupted });
    }

    /// Takes a node as over and collects those whose turn has come by that.
    fn close(&mut self, node: usize, open: &mut Vec<usize>) {
        self.over[node] = true;
        for &next in self.flow.after(node) {
            self.waiting[next] -= 1;
            if self.waiting[next] == 0 && !self.over[next] {
                open.push(next);
            }
        }
    }

    /// Queues the steps whose turn has come, opens gates, skips what is doomed.
    fn advance(&mut self, mut open: Vec<usize>) {
        while let Some(node) = open.pop() {
            let Some(step) = self.flow.step_of()[node] else {
                self.close(node, &mut open);
                continue;
            };
            match self.doom[resource_of(node)] {
                Some(reason) if !self.lets_go(step) => {
                    self.skip(step, reason);
                    self.close(node, &mut open);
                }
                _ => self.queues[queue(self.flow.steps()[step].hook)].push_back(step),
            }
        }
    }
}

#[cfg(test)]
mod tests;
