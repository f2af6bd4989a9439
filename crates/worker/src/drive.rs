//! Runs the steps of an operation: hooks in parallel, outcomes recorded together, dependents after that.
//!
//! Order of one step, and why a crash between any two lines is harmless:
//!
//! 1. a `prepare_begin` is recorded as started before its hook runs, so that what was made to hold still is let go
//!    whatever happens; other hooks are recorded as started a little later, for people to see;
//! 2. the hook runs; run again after a crash it ends in the same;
//! 3. what it wrote to the bank is flushed: an outcome never names what is not there;
//! 4. its outcome is recorded, under the claim's epoch;
//! 5. only then the schedule hears of it, and what depends on it begins.
//!
//! Lines 3 and 4 are done for all steps that ended meanwhile, in one flush and one transaction. A step that wrote
//! streams waits a little for others, since a flush closes packs that are not full.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use karbor_flow::{Ready, Room, Schedule, SkipReason};
use karbor_plugin::{ErrorKind, IdMap, Outcome, Severity};
use karbor_store::{RunChange, StepChange, StepEnd};
use karbor_types::{CheckpointId, Hook, Progress, ResourceKey, StepState};
use karbor_vault::{CheckpointReader, CheckpointWriter, SavedResource};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::attempt::Attempt;
use crate::crash::Place;
use crate::hook::{self, HookEnd};
use crate::metrics::Counted;
use crate::outcome::{Member, ResourceFailure, StepOutcome};
use crate::progress::StepProgress;
use crate::record::{Recorded, Recording};
use crate::stop::{Failure, Stop};

/// What an operation does with the checkpoint's data.
#[derive(Clone)]
pub(crate) enum Vault {
    /// Protect.
    Write(CheckpointWriter),
    /// Restore, verify.
    Read(Arc<CheckpointReader>),
    /// Delete.
    Records,
}

/// The steps of an operation on their way.
pub(crate) struct Drive {
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) checkpoint: CheckpointId,
    pub(crate) vault: Vault,
    /// Protect: the checkpoint before.
    pub(crate) base: Option<Arc<CheckpointReader>>,
    pub(crate) members: Vec<Member>,
    pub(crate) schedule: Schedule,
    /// Why the operation only lets go of what was begun, where nobody asked for its end.
    pub(crate) hopeless: Option<Failure>,
    /// Restore: what has become of the resources so far.
    pub(crate) restored: IdMap,
    /// What was last told of the resources in the restore's or verification's row.
    pub(crate) told: RunChange,
    hooks: JoinSet<HookEnd>,
    running: HashMap<Id, Running>,
    pending: Pending,
    /// When the hooks are told to stop, once the service ends.
    stop_at: Option<Instant>,
    /// When hooks that were told to stop are dropped.
    drop_at: Option<Instant>,
}

/// A hook at work.
struct Running {
    step: usize,
    cleanup: bool,
    cancel: CancellationToken,
    progress: Arc<StepProgress>,
    reported: Progress,
    abort: AbortHandle,
}

/// What is to be recorded next.
#[derive(Default)]
struct Pending {
    /// Steps whose hooks begin once that is recorded.
    starts: Vec<Ready>,
    /// Changes that need not be hurried.
    notes: Vec<StepChange>,
    /// Steps that ended without writing streams.
    ended: Vec<Ended>,
    /// Steps that ended and wrote streams.
    wrote: Vec<Ended>,
    /// When the first of those ended.
    wrote_since: Option<Instant>,
    /// When notes and progress were last recorded.
    noted_at: Option<Instant>,
}

/// A step whose hook has returned.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) step: usize,
    pub(crate) hook: Hook,
    pub(crate) outcome: StepOutcome,
    pub(crate) failure: Option<ResourceFailure>,
    pub(crate) progress: Progress,
    /// It wrote streams, which are to be flushed before its outcome is recorded.
    pub(crate) wrote: bool,
}

impl Ended {
    pub(crate) fn change(&self) -> StepChange {
        let end = StepEnd {
            state: if self.failure.is_some() { StepState::Failed } else { StepState::Done },
            outcome: self.outcome.to_json(),
            reason: self.failure.as_ref().map(|failure| failure.message.clone()),
            progress: (self.progress != Progress::default()).then_some(self.progress),
        };
        StepChange::Finished { ordinal: ordinal(self.step), end }
    }
}

/// Returns the number by which the store knows a step.
pub(crate) fn ordinal(step: usize) -> u32 {
    u32::try_from(step).expect("a graph has at most a million resources")
}

/// Lets all that come after know what a resource and its parts have become.
pub(crate) fn announce(restored: &mut IdMap, own: &ResourceKey, outcome: &Outcome) {
    restored.extend(outcome.announced(own).map(|(from, to)| (from.clone(), to.clone())));
}

impl Drive {
    pub(crate) fn new(
        attempt: Arc<Attempt>,
        checkpoint: CheckpointId,
        vault: Vault,
        members: Vec<Member>,
        schedule: Schedule,
    ) -> Self {
        Self {
            attempt,
            checkpoint,
            vault,
            base: None,
            members,
            schedule,
            hopeless: None,
            restored: IdMap::new(),
            told: RunChange::default(),
            hooks: JoinSet::new(),
            running: HashMap::new(),
            pending: Pending::default(),
            stop_at: None,
            drop_at: None,
        }
    }

    /// Runs until every step has ended and all of that is recorded.
    ///
    /// A resource that failed is no error here: see the members.
    pub(crate) async fn run(&mut self) -> Result<(), Stop> {
        let attempt = Arc::clone(&self.attempt);
        let lease = &attempt.lease;
        if lease.cancelled.is_cancelled() || attempt.operation.cancel_requested || self.hopeless.is_some() {
            self.schedule.cancel();
        }
        self.note_skipped();
        let mut recording: Option<BoxFuture<'static, Result<Recorded, Stop>>> = None;
        loop {
            self.start_ready();
            self.enforce_stops();
            if recording.is_none() {
                if let Some(next) = self.due() {
                    recording = Some(next.run().boxed());
                } else if self.running.is_empty() {
                    if self.schedule.is_finished() {
                        break;
                    }
                    if self.stop_at.is_some() {
                        return Err(Stop::Drained);
                    }
                }
            }
            let wake_at = self.wake_at();
            tokio::select! {
                biased;
                () = lease.lost.cancelled() => return Err(Stop::LeaseLost),
                recorded = async { recording.as_mut().expect("checked before").await }, if recording.is_some() => {
                    recording = None;
                    self.recorded(recorded?);
                }
                Some(end) = self.hooks.join_next_with_id(), if !self.running.is_empty() => {
                    attempt.pass(Place::HookDone).await;
                    self.hook_ended(end)?;
                }
                () = lease.cancelled.cancelled(), if !self.schedule.is_cancelled() => {
                    self.schedule.cancel();
                    self.note_skipped();
                    self.stop_doomed();
                }
                () = lease.drained.cancelled(), if self.stop_at.is_none() => {
                    let patience = Duration::from_secs(self.attempt.shared.config.drain_seconds.into());
                    self.stop_at = Some(Instant::now() + patience);
                }
                () = sleep_until(wake_at) => {}
            }
        }
        attempt.pass(Place::FlowDone).await;
        Ok(())
    }

    /// Begins what may begin now, as far as there is room.
    fn start_ready(&mut self) {
        if self.stop_at.is_some() {
            return;
        }
        let config = &self.attempt.shared.config;
        let steps = self.schedule.flow().steps();
        let moving = self.running.values().filter(|running| steps[running.step].hook == Hook::Main).count();
        let others = self.running.len() - moving + self.pending.starts.len();
        let room = Room {
            moving: config.moving.get().saturating_sub(moving),
            others: config.hooks.get().saturating_sub(others),
        };
        for ready in self.schedule.ready(room) {
            if self.schedule.flow().steps()[ready.step].hook == Hook::PrepareBegin {
                self.pending.starts.push(ready);
            } else {
                self.pending.notes.push(StepChange::Started { ordinal: ordinal(ready.step) });
                self.spawn(ready);
            }
        }
    }

    fn spawn(&mut self, ready: Ready) {
        let step = self.schedule.flow().steps()[ready.step];
        let cancel = self.attempt.lease.lost.child_token();
        let progress = Arc::new(StepProgress::default());
        let member = &mut self.members[step.resource];
        member.begun = true;
        let protection = member.protection.clone();
        let counted = Counted {
            step: Some(progress.clone()),
            bytes: self.attempt.shared.metrics.bytes(self.attempt.operation.kind),
        };
        let task = self.task(step.resource, Arc::new(counted), cancel.clone());
        debug!(
            operation.id = %self.attempt.operation.id, resource = %task.resource.key, hook = %step.hook,
            "Begin {} of {}", step.hook, task.resource.key
        );
        let retries = hook::Retries::new(&self.attempt.shared.config);
        let call = hook::call(protection, step.hook, task, Arc::clone(&progress), retries);
        let abort = self.hooks.spawn(call);
        let running = Running {
            step: ready.step,
            cleanup: ready.cleanup,
            cancel,
            progress,
            reported: Progress::default(),
            abort: abort.clone(),
        };
        self.running.insert(abort.id(), running);
    }

    /// Takes in that a hook returned.
    fn hook_ended(&mut self, end: Result<(Id, HookEnd), tokio::task::JoinError>) -> Result<(), Stop> {
        let (id, end) = match end {
            Ok((id, end)) => (id, Some(end)),
            Err(err) => (err.id(), None),
        };
        let Some(running) = self.running.remove(&id) else { return Ok(()) };
        let step = self.schedule.flow().steps()[running.step];
        let told_to_stop = running.cancel.is_cancelled();
        let (result, attempts) = match end {
            Some(HookEnd { result, attempts }) => (result, attempts),
            None if told_to_stop => (Err(karbor_plugin::Error::cancelled()), 1),
            None => {
                let text = "the plugin failed in a way that it did not foresee; see the service's log";
                (Err(karbor_plugin::Error::new(ErrorKind::Other, text)), 1)
            }
        };
        for _ in 1..attempts {
            self.pending.notes.push(StepChange::Started { ordinal: ordinal(running.step) });
        }
        let mut ended = Ended {
            step: running.step,
            hook: step.hook,
            outcome: StepOutcome::default(),
            failure: None,
            progress: running.progress.get(),
            wrote: false,
        };
        let failed = |kind, message: String| ResourceFailure { hook: step.hook, kind, message };
        match result {
            Ok(outcome) => {
                let error = outcome.findings.iter().find(|finding| finding.severity == Severity::Error);
                if let Some(finding) = error {
                    let text = format!("{}: {}", finding.subject, finding.message);
                    ended.failure = Some(failed(ErrorKind::Damaged, text));
                }
                ended.outcome.outcome = outcome;
                self.ended_well(step.resource, ended);
                return Ok(());
            }
            Err(err) if err.kind() == ErrorKind::Fenced => {
                let text = format!("another attempt has taken over: {}", err.message());
                return Err(Stop::Later(Failure::new(ErrorKind::Fenced, text)));
            }
            Err(err) if err.kind() == ErrorKind::Cancelled && told_to_stop => {
                if self.stop_at.is_some() && !self.schedule.is_cancelled() {
                    // The service ends: the step stays as it is, to be begun again.
                    return Ok(());
                }
                if step.hook != Hook::PrepareBegin {
                    // Nothing hangs on it: it counts as not run.
                    let end = self.schedule.finished(running.step, karbor_flow::End::NotRun);
                    end.expect("it was handed out and has not ended");
                    self.note_skipped();
                    return Ok(());
                }
                ended.failure = Some(failed(ErrorKind::Cancelled, "cancelled".to_owned()));
            }
            Err(err) => {
                let resource = self.members[step.resource].key();
                warn!(
                    operation.id = %self.attempt.operation.id, resource = %resource, hook = %step.hook,
                    error = &err as &dyn std::error::Error,
                    "{} of {resource} failed after {attempts} attempts: {}", step.hook, err.message()
                );
                // Nobody told it to stop, so this is a failure like any other.
                let kind = if err.kind() == ErrorKind::Cancelled { ErrorKind::Other } else { err.kind() };
                ended.failure = Some(failed(kind, err.message().to_owned()));
            }
        }
        if matches!(self.vault, Vault::Records) {
            // Whoever deletes again needs them again.
            ended.outcome.records = Some(self.members[step.resource].records.clone());
        }
        self.pending.ended.push(ended);
        Ok(())
    }

    /// Takes in a hook that went through, together with what it wrote.
    fn ended_well(&mut self, resource: usize, mut ended: Ended) {
        let member = &self.members[resource];
        if let Vault::Write(writer) = &self.vault {
            let saved = writer.resource(member.key()).save();
            let nothing = SavedResource::default();
            let before = member.saved.as_ref().unwrap_or(&nothing);
            ended.wrote = before.streams != saved.streams;
            ended.outcome.saved = (*before != saved).then_some(saved);
        }
        if ended.wrote {
            self.pending.wrote_since.get_or_insert_with(Instant::now);
            self.pending.wrote.push(ended);
        } else {
            self.pending.ended.push(ended);
        }
    }

    /// Returns what is to be recorded now, if anything is.
    fn due(&mut self) -> Option<Recording> {
        let config = &self.attempt.shared.config;
        let now = Instant::now();
        let idle = self.running.is_empty();
        let linger = Duration::from_millis(config.flush_milliseconds.into());
        let flush = self.pending.wrote_since.is_some_and(|since| {
            (idle && self.pending.starts.is_empty()) || now >= since + linger || self.stop_at.is_some()
        });
        let tick = Duration::from_millis(config.progress_milliseconds.get().into());
        let noted_at = *self.pending.noted_at.get_or_insert(now);
        let note = now >= noted_at + tick;
        let notes = (idle || note) && !self.pending.notes.is_empty();
        let starts = !self.pending.starts.is_empty() && self.stop_at.is_none();
        let moved = note && self.running.values().any(|running| running.progress.get() != running.reported);
        if !flush && !notes && !starts && !moved && self.pending.ended.is_empty() {
            if note {
                self.pending.noted_at = Some(now);
            }
            return None;
        }
        let mut changes = std::mem::take(&mut self.pending.notes);
        if note {
            self.pending.noted_at = Some(now);
            for running in self.running.values_mut() {
                let progress = running.progress.get();
                if progress != running.reported {
                    running.reported = progress;
                    changes.push(StepChange::Progressed { ordinal: ordinal(running.step), progress });
                }
            }
        }
        let mut ended = std::mem::take(&mut self.pending.ended);
        let mut flusher = None;
        if flush {
            self.pending.wrote_since = None;
            ended.append(&mut self.pending.wrote);
            if let Vault::Write(writer) = &self.vault {
                flusher = Some(writer.clone());
            }
        }
        let starts = if starts { std::mem::take(&mut self.pending.starts) } else { Vec::new() };
        changes.extend(starts.iter().map(|ready| StepChange::Started { ordinal: ordinal(ready.step) }));
        let subject = if note { self.news() } else { None };
        Some(Recording { attempt: Arc::clone(&self.attempt), changes, ended, starts, flusher, subject })
    }

    /// Lets the schedule hear of what is durable now.
    fn recorded(&mut self, recorded: Recorded) {
        for ended in recorded.ended {
            let step = self.schedule.flow().steps()[ended.step];
            let member = &mut self.members[step.resource];
            member.open_steps -= 1;
            let end = if ended.failure.is_some() { karbor_flow::End::Failed } else { karbor_flow::End::Done };
            announce(&mut self.restored, member.key(), &ended.outcome.outcome);
            member.merge(ended.outcome);
            if member.failure.is_none() {
                member.failure = ended.failure;
            }
            self.schedule.finished(ended.step, end).expect("it was handed out and has not ended");
        }
        self.note_skipped();
        self.stop_doomed();
        for ready in recorded.starts {
            let resource = self.schedule.flow().steps()[ready.step].resource;
            if self.schedule.doom(resource).is_some() && !ready.cleanup {
                let end = self.schedule.finished(ready.step, karbor_flow::End::NotRun);
                end.expect("it was handed out and has not ended");
            } else {
                self.spawn(ready);
            }
        }
        self.note_skipped();
    }

    /// Notes what the schedule has skipped since the last look.
    fn note_skipped(&mut self) {
        for skipped in self.schedule.take_skipped() {
            let step = self.schedule.flow().steps()[skipped.step];
            let reason = self.skip_reason(skipped.reason);
            let member = &mut self.members[step.resource];
            member.open_steps = member.open_steps.saturating_sub(1);
            if skipped.reason != SkipReason::Own {
                member.skipped.get_or_insert_with(|| reason.clone());
            }
            let (state, reason) = if skipped.interrupted {
                (StepState::Failed, format!("it was interrupted, and not begun again: {reason}"))
            } else {
                (StepState::Skipped, reason)
            };
            let end =
                StepEnd { state, outcome: serde_json::Value::Null, reason: Some(reason), progress: None };
            self.pending.notes.push(StepChange::Finished { ordinal: ordinal(skipped.step), end });
        }
    }

    fn skip_reason(&self, reason: SkipReason) -> String {
        match reason {
            SkipReason::Own => "an earlier step of this resource failed".to_owned(),
            SkipReason::Dependency { resource } => {
                format!("{} failed, which this resource depends on", self.members[resource].key())
            }
            SkipReason::Operation { resource } => format!("{} failed", self.members[resource].key()),
            SkipReason::Cancelled => match &self.hopeless {
                Some(failure) => failure.message.clone(),
                None => "cancelled".to_owned(),
            },
            SkipReason::NotRun => "stopped".to_owned(),
        }
    }

    /// Tells hooks to stop whose work is worth nothing any more.
    fn stop_doomed(&mut self) {
        let steps = self.schedule.flow().steps();
        let mut stopped = false;
        for running in self.running.values() {
            let step = steps[running.step];
            // What lets go is never stopped, and what holds still only when somebody asked for the end.
            let stoppable = match step.hook {
                Hook::Main | Hook::Complete => true,
                Hook::PrepareBegin => self.schedule.is_cancelled(),
                Hook::PrepareFinish => false,
            };
            let doomed = self.schedule.doom(step.resource).is_some();
            if doomed && stoppable && !running.cleanup && !running.cancel.is_cancelled() {
                running.cancel.cancel();
                stopped = true;
            }
        }
        if stopped && self.drop_at.is_none() {
            self.drop_at = Some(Instant::now() + self.stop_patience());
        }
    }

    fn stop_patience(&self) -> Duration {
        Duration::from_secs(self.attempt.shared.config.stop_seconds.into())
    }

    /// Returns when something is to be done although nothing happens.
    fn wake_at(&self) -> Instant {
        let config = &self.attempt.shared.config;
        let now = Instant::now();
        let mut at = now + Duration::from_millis(config.progress_milliseconds.get().into());
        if let Some(since) = self.pending.wrote_since {
            at = at.min(since + Duration::from_millis(config.flush_milliseconds.into()));
        }
        for deadline in [self.stop_at, self.drop_at].into_iter().flatten() {
            if deadline > now {
                at = at.min(deadline);
            }
        }
        at
    }

    /// Tells hooks to stop when the service has waited long enough, and drops those that do not.
    fn enforce_stops(&mut self) {
        let now = Instant::now();
        if self.stop_at.is_some_and(|at| now >= at) {
            let mut stopped = false;
            for running in self.running.values().filter(|running| !running.cancel.is_cancelled()) {
                running.cancel.cancel();
                stopped = true;
            }
            if stopped {
                self.drop_at = Some(now + self.stop_patience());
            }
        }
        if self.drop_at.is_some_and(|at| now >= at) {
            self.drop_at = None;
            for running in self.running.values().filter(|running| running.cancel.is_cancelled()) {
                let step = self.schedule.flow().steps()[running.step];
                let resource = self.members[step.resource].key();
                warn!(
                    operation.id = %self.attempt.operation.id, resource = %resource, hook = %step.hook,
                    "{} of {resource} does not stop although it was told to: it is dropped", step.hook
                );
                running.abort.abort();
            }
        }
    }
}
