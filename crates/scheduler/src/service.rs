//! The service: rounds, as long as it is not told to stop.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use karbor_actions::Actions;
use karbor_store::{DueTrigger, Engine, Enlisted, HandOut, NewOccurrence, Store, Trigger};
use karbor_types::{Instant, ProjectId, ProviderId, ScheduledOperationId, TriggerId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::handout::hand_out;
use crate::{Clock, Firing, Result, SchedulerConfig, SchedulerMetrics, Timetable, while_doing};

/// How many operations of one trigger are handed out in one transaction.
const PAGE: u32 = 1000;

/// How many transactions one round hands out, before the other steps have their turn.
const HANDOUTS: u32 = 4;

/// How many transactions are under way at once where the database can do more than one.
const LANES: usize = 4;

/// How often old occurrences are removed.
const FORGET_SECONDS: i64 = 600;

/// What the scheduler works with.
#[derive(Clone)]
pub struct Dependencies {
    /// The database.
    pub store: Store,
    /// What can be asked for.
    pub actions: Actions,
    /// When triggers fire.
    pub timetable: Timetable,
    /// The time.
    pub clock: Clock,
}

impl fmt::Debug for Dependencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dependencies").finish_non_exhaustive()
    }
}

/// What a round has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Round {
    /// Triggers that moved on, or a page further.
    pub handed_out: u64,
    /// Occurrences that became ready.
    pub ripened: u64,
    /// Occurrences that were started.
    pub started: u64,
    /// Occurrences that were decided about.
    pub judged: u64,
    /// Occurrences on whose behalf retention was applied.
    pub retained: u64,
}

impl Round {
    /// Returns whether there may be more to do at once.
    pub fn has_done_something(&self) -> bool {
        self.handed_out + self.ripened + self.started + self.judged > 0
    }
}

/// The service.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) parts: Dependencies,
    pub(crate) config: SchedulerConfig,
    pub(crate) metrics: SchedulerMetrics,
    /// Behind which project the next turn begins; only fairness is lost with it.
    pub(crate) turns: BTreeMap<ProviderId, ProjectId>,
    handle: SchedulerHandle,
    forgot_at: Option<Instant>,
}

/// Wakes the scheduler of the same process, or lets it rest. Cheap to clone; it outlives the scheduler harmlessly.
#[derive(Debug, Clone, Default)]
pub struct SchedulerHandle {
    wake: Arc<Notify>,
    resting: Arc<AtomicBool>,
}

impl SchedulerHandle {
    /// Lets the scheduler look for what is due now, rather than at its next look.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Lets the scheduler hand out and start nothing, or work again.
    pub fn rest(&self, rests: bool) {
        self.resting.store(rests, Ordering::Relaxed);
    }
}

impl Scheduler {
    /// Makes a scheduler.
    pub fn new(parts: Dependencies, config: SchedulerConfig) -> Self {
        Self {
            parts,
            config,
            metrics: SchedulerMetrics::default(),
            turns: BTreeMap::new(),
            handle: SchedulerHandle::default(),
            forgot_at: None,
        }
    }

    /// Has it count in these counters.
    #[must_use]
    pub fn with_metrics(self, metrics: SchedulerMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// Returns a handle on it.
    pub fn handle(&self) -> SchedulerHandle {
        self.handle.clone()
    }

    /// Works until it is told to stop. What a round has begun it ends first.
    ///
    /// Handing out and starting go on beside each other, as in two schedulers: when many are due at once, the first are
    /// started while the others are still handed out.
    pub async fn run(mut self, stop: CancellationToken) {
        let giver = self.twin();
        let handed_out = Notify::new();
        tokio::join!(giver.give(&stop, &handed_out), self.see_through(&stop, &handed_out));
    }

    /// Makes a scheduler that shares all but the turns.
    fn twin(&self) -> Self {
        Self {
            parts: self.parts.clone(),
            config: self.config.clone(),
            metrics: self.metrics.clone(),
            turns: BTreeMap::new(),
            handle: self.handle.clone(),
            forgot_at: None,
        }
    }

    /// Hands out until it is told to stop, and tells of it.
    async fn give(&self, stop: &CancellationToken, handed_out: &Notify) {
        let pause = self.poll();
        while !stop.is_cancelled() {
            let mut round = Round::default();
            if self.is_at_work() {
                let done = self.hand_out(&mut round).await;
                let done = self.went(done);
                if round.has_done_something() {
                    handed_out.notify_one();
                    if done {
                        continue;
                    }
                }
            }
            let pause = self.pause_until_due(pause).await;
            tokio::select! {
                () = stop.cancelled() => {}
                // Who wakes the scheduler may have made something ready.
                () = self.handle.wake.notified() => handed_out.notify_one(),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Sees through what was handed out, until it is told to stop.
    async fn see_through(&mut self, stop: &CancellationToken, handed_out: &Notify) {
        let pause = self.poll();
        while !stop.is_cancelled() {
            let mut round = Round::default();
            if self.is_at_work() {
                let done = self.further(&mut round).await;
                if self.went(done) && round.has_done_something() {
                    continue;
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = handed_out.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn poll(&self) -> Duration {
        Duration::from_millis(u64::from(self.config.poll_milliseconds.get()))
    }

    fn is_at_work(&self) -> bool {
        !self.handle.resting.load(Ordering::Relaxed)
    }

    /// Tells whether a round went well, and logs why not.
    fn went(&self, done: Result<()>) -> bool {
        let Err(err) = done else { return true };
        self.metrics.failed();
        let err: &dyn std::error::Error = &err;
        warn!(error = err, "A round of the scheduler ended early, the next one goes on: {err}");
        false
    }

    /// Returns how long to rest: no longer than until the next trigger is due.
    async fn pause_until_due(&self, pause: Duration) -> Duration {
        let Ok(Some(next)) = self.parts.store.next_due().await else { return pause };
        // One that is due already was not dealt with in this round, and another one at once would not do better.
        match u64::try_from(next.as_micros().saturating_sub(self.now().as_micros())) {
            Ok(micros) if micros > 0 => pause.min(Duration::from_micros(micros)),
            _ => pause,
        }
    }

    /// Takes each step once. A step that fails ends the round; nothing of what the others did is undone.
    ///
    /// # Errors
    /// Whatever the database or the actions answer; the next round tries again.
    pub async fn round(&mut self, round: &mut Round) -> Result<()> {
        self.hand_out(round).await?;
        self.further(round).await
    }

    /// Takes each step behind handing out once.
    async fn further(&mut self, round: &mut Round) -> Result<()> {
        let ripened = self.parts.store.ripen(self.now(), self.config.batch.get()).await;
        round.ripened += ripened.map_err(while_doing("making occurrences ready"))?;
        self.expire(round).await?;
        self.start(round).await?;
        self.follow(round).await?;
        self.retain(round).await?;
        self.forget().await
    }

    pub(crate) fn now(&self) -> Instant {
        (self.parts.clock)()
    }

    /// Hands out what is due, a few transactions of it.
    async fn hand_out(&self, round: &mut Round) -> Result<()> {
        for _ in 0..HANDOUTS {
            let (now, batch) = (self.now(), self.config.batch.get());
            let due = self.parts.store.due_triggers(now, batch).await;
            let due = due.map_err(while_doing("looking for due triggers"))?;
            self.metrics.behind(due.iter().map(|one| one.next_at).filter(is_worked_out).min(), now);
            let is_last = due.len() < batch as usize;
            let mut fired = Vec::with_capacity(due.len());
            for trigger in due {
                let after = if is_worked_out(&trigger.next_at) { trigger.next_at } else { now };
                match (self.parts.timetable)(&trigger, after) {
                    Ok(firing) => fired.push((trigger, firing)),
                    Err(fault) => self.set_aside(&trigger, &fault, now).await?,
                }
            }
            if fired.is_empty() {
                return Ok(());
            }
            let moved = self.hand_out_in_lanes(fired, now).await?;
            round.handed_out += moved;
            if is_last && moved > 0 {
                continue;
            }
            if is_last {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Returns how many transactions are worth beginning at once.
    pub(crate) fn lanes(&self) -> usize {
        match self.parts.store.engine() {
            // It has one writer, and larger transactions cost it less.
            Engine::Sqlite => 1,
            _ => LANES,
        }
    }

    /// Moves due triggers on, in lanes beside each other; returns how many.
    async fn hand_out_in_lanes(&self, mut fired: Vec<(DueTrigger, Firing)>, now: Instant) -> Result<u64> {
        let size = fired.len().div_ceil(self.lanes()).max(1);
        let mut lanes = Vec::new();
        while !fired.is_empty() {
            let rest = fired.split_off(size.min(fired.len()));
            lanes.push(self.hand_out_batch(std::mem::replace(&mut fired, rest), now));
        }
        let mut moved = 0;
        for lane in join_all(lanes).await {
            moved += lane?;
        }
        Ok(moved)
    }

    /// Moves a batch of due triggers on, as many as fit into one transaction; returns how many.
    async fn hand_out_batch(&self, mut fired: Vec<(DueTrigger, Firing)>, now: Instant) -> Result<u64> {
        // A trigger that is handed out page by page goes alone.
        let alone = fired.iter().position(|(trigger, _)| trigger.handed_to.is_some());
        if let Some(alone) = alone {
            fired = vec![fired.swap_remove(alone)];
        }
        let ids: Vec<TriggerId> = fired.iter().map(|(trigger, _)| trigger.id).collect();
        let after = fired.first().and_then(|(trigger, _)| trigger.handed_to).filter(|_| alone.is_some());
        let mut operations = self.enlisted(&ids, after).await?;
        let mut more = None;
        if operations.len() > PAGE as usize {
            let first = operations.first().map(|one| one.trigger);
            let cut = operations.last().map(|one| one.trigger);
            if first == cut {
                // More operations than one transaction should hold: this trigger alone, and a page of it.
                operations.truncate(PAGE as usize);
                more = operations.last().map(|one| one.id);
                fired.retain(|(trigger, _)| Some(trigger.id) == first);
            } else {
                // Of the last trigger not all were read: it and those behind it have to wait.
                operations.retain(|one| Some(one.trigger) != cut);
                let last = cut.map(|id| id.to_string()).unwrap_or_default();
                fired.retain(|(trigger, _)| trigger.id.to_string() < last);
            }
        }
        let mut of: BTreeMap<TriggerId, Vec<Enlisted>> = BTreeMap::new();
        for operation in operations {
            of.entry(operation.trigger).or_default().push(operation);
        }
        let mut handouts: Vec<HandOut> = Vec::with_capacity(fired.len());
        let mut occurrences: Vec<NewOccurrence> = Vec::new();
        let mut late = 0;
        for (trigger, firing) in &fired {
            let operations = of.remove(&trigger.id).unwrap_or_default();
            let (handout, new) = hand_out(trigger, *firing, &operations, more, &self.config, now);
            handouts.push(handout);
            if now > trigger.next_at.plus_seconds(i64::from(firing.window_seconds)) {
                late += new.len();
            }
            occurrences.extend(new);
        }
        let done = self.parts.store.hand_out(&handouts, &occurrences, now).await;
        if !done.map_err(while_doing("handing out occurrences"))? {
            // Another scheduler was faster with one of them; what is left is read again.
            return Ok(0);
        }
        self.metrics.handed_out(occurrences.len(), late);
        Ok(handouts.len() as u64)
    }

    async fn enlisted(
        &self,
        triggers: &[TriggerId],
        after: Option<ScheduledOperationId>,
    ) -> Result<Vec<Enlisted>> {
        let enlisted = self.parts.store.enlisted(triggers, after, PAGE + 1).await;
        enlisted.map_err(while_doing("looking whom a trigger concerns"))
    }

    async fn set_aside(&self, trigger: &DueTrigger, fault: &str, now: Instant) -> Result<()> {
        let aside = self.parts.store.set_trigger_aside(trigger, fault, now).await;
        if aside.map_err(while_doing("setting a trigger aside"))? {
            self.metrics.set_aside();
            error!(
                trigger.id = %trigger.id, fault,
                "Trigger {} cannot be read and does not fire until it is changed: {fault}", trigger.id
            );
        }
        Ok(())
    }

    /// Removes what is long over, now and then.
    async fn forget(&mut self) -> Result<()> {
        let now = self.now();
        if self.forgot_at.is_some_and(|at| (0..FORGET_SECONDS).contains(&now.seconds_since(at))) {
            return Ok(());
        }
        let before = now.plus_seconds(-i64::from(self.config.keep_days.get()) * 86_400);
        let batch = self.config.batch.get();
        let forgotten = self.parts.store.forget_occurrences(before, batch).await;
        // A full batch means that there is more: the next round goes on.
        if forgotten.map_err(while_doing("removing old occurrences"))? < u64::from(batch) {
            self.forgot_at = Some(now);
        }
        Ok(())
    }
}

/// Returns whether it was worked out when a trigger fires.
fn is_worked_out(next_at: &Instant) -> bool {
    *next_at != Trigger::UNPLANNED
}
