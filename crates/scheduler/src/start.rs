//! Starting what is ready.
//!
//! A batch is asked for together and begun in one transaction, or in a few beside each other where the database can do
//! more than one at once. If one is refused because of one of them, it is halved until the one is found: the others do
//! not suffer.

use std::collections::HashSet;

use futures::future::join_all;
use karbor_actions::Decision;
use karbor_store::{Beginning, Occurrence, OccurrenceLimits, Outcome, Verdict};
use karbor_types::{OccurrenceEvent, OccurrenceReason, OccurrenceState};
use tracing::info;

use crate::ring::{Room, choose, spread};
use crate::service::{Round, Scheduler};
use crate::{Error, Result, while_doing};

/// When something that could not be reached is tried again.
const LATER_SECONDS: i64 = 30;

impl Scheduler {
    /// Starts what is ready, provider by provider and in turn between projects.
    pub(crate) async fn start(&mut self, round: &mut Round) -> Result<()> {
        let limits = self.config.limits();
        let mut room = self.room(limits).await?;
        let mut provider = None;
        let doing = "looking for what is ready";
        while let Some(next) =
            self.parts.store.next_ready_provider(provider).await.map_err(while_doing(doing))?
        {
            provider = Some(next);
            // Once round the ring: from where the last turn ended to its end, and from its beginning.
            let mut after = self.turns.get(&next).cloned();
            let mut is_first_lap = after.is_some();
            while room.has_provider(next) {
                let limit = self.config.batch.get();
                let page = self.parts.store.ready_occurrences(next, after.as_ref(), limit).await;
                let page = page.map_err(while_doing(doing))?;
                let is_full = page.len() >= limit as usize;
                let turn = choose(page, is_full, &mut room);
                after.clone_from(&turn.next);
                self.turns.remove(&next);
                if let Some(project) = turn.next {
                    self.turns.insert(next, project);
                }
                let started = self.start_in_lanes(turn.chosen, limits, round).await?;
                if limits.any() && !started {
                    room = self.room(limits).await?;
                }
                if !is_full && !std::mem::take(&mut is_first_lap) {
                    break;
                }
                if !is_full {
                    after = None;
                }
            }
        }
        Ok(())
    }

    async fn room(&self, limits: OccurrenceLimits) -> Result<Room> {
        if !limits.any() {
            return Ok(Room::default());
        }
        let counts = self.parts.store.started_counts().await;
        Ok(Room::new(limits, &counts.map_err(while_doing("counting what is started"))?))
    }

    /// Starts these, in lanes beside each other; returns whether all that could be prepared were.
    async fn start_in_lanes(
        &self,
        chosen: Vec<Occurrence>,
        limits: OccurrenceLimits,
        round: &mut Round,
    ) -> Result<bool> {
        // Under limits only one at a time begins.
        let lanes = if limits.any() { 1 } else { self.lanes() };
        let lanes = spread(chosen, lanes).into_iter().map(|lane| async {
            let mut round = Round::default();
            let started = self.start_batch(lane, limits, &mut round).await;
            (started, round)
        });
        let mut all = Ok(true);
        for (started, done) in join_all(lanes).await {
            round.started += done.started;
            round.judged += done.judged;
            all = match (all, started) {
                (Ok(all), Ok(started)) => Ok(all && started),
                (Err(err), _) | (_, Err(err)) => Err(err),
            };
        }
        all
    }

    /// Starts these; returns whether all that could be prepared were.
    async fn start_batch(
        &self,
        mut batch: Vec<Occurrence>,
        limits: OccurrenceLimits,
        round: &mut Round,
    ) -> Result<bool> {
        if batch.is_empty() {
            return Ok(true);
        }
        let now = self.now();
        let mut verdicts = Vec::new();
        let operations: Vec<_> = batch.iter().map(|one| one.operation).collect();
        let open = self.parts.store.open_operations(&operations).await;
        let open = open.map_err(while_doing("looking what still runs"))?;
        let mut seen = HashSet::new();
        batch.retain(|one| {
            if one.until < now {
                verdicts.push(passed(
                    one,
                    OccurrenceReason::WindowMissed,
                    "there was no room inside its window",
                ));
                return false;
            }
            if open.contains(&one.operation) {
                verdicts.push(passed(
                    one,
                    OccurrenceReason::StillRunning,
                    "the one before it was still running",
                ));
                return false;
            }
            seen.insert(one.operation)
        });
        let decisions = self.parts.actions.prepare_occurrences(&batch).await;
        let decisions =
            decisions.map_err(|source| Error::Action { doing: "preparing what is ready", source })?;
        let mut beginnings = Vec::new();
        for (one, decision) in batch.iter().zip(decisions) {
            match decision {
                Decision::Begin(work) => {
                    let beginning = Beginning { occurrence: one.id, attempt: one.attempt, work };
                    beginnings.push((one, beginning));
                }
                Decision::Pass(reason, detail) => verdicts.push(passed(one, reason, &detail)),
                Decision::Fail(reason, detail) => {
                    verdicts.push(verdict(one, OccurrenceEvent::Failed, Some(reason), &detail));
                }
                Decision::Later(detail) => verdicts.push(self.later(one, &detail)),
            }
        }
        let all = beginnings.len();
        let begun = self.begin(beginnings, limits, &mut verdicts, round).await?;
        self.judge(&verdicts, round).await?;
        if begun > 0 {
            self.parts.actions.wake();
        }
        Ok(begun == all)
    }

    /// Begins these, halving what is refused; returns how many were begun.
    async fn begin(
        &self,
        beginnings: Vec<(&Occurrence, Beginning)>,
        limits: OccurrenceLimits,
        verdicts: &mut Vec<Verdict>,
        round: &mut Round,
    ) -> Result<usize> {
        let mut begun = 0;
        let mut halves = vec![beginnings];
        while let Some(mut batch) = halves.pop() {
            if batch.is_empty() {
                continue;
            }
            let work: Vec<Beginning> = batch.iter().map(|(_, beginning)| beginning.clone()).collect();
            let now = self.now();
            let quota = &self.parts.actions.settings().quota;
            let refusal = match self.parts.store.begin_occurrences(&work, limits, quota, now).await {
                Ok(true) => {
                    begun += batch.len();
                    for (one, _) in batch {
                        round.started += 1;
                        self.metrics.started(one, now);
                    }
                    continue;
                }
                // Somebody else has begun or changed one of them, or there is no room for all.
                Ok(false) => None,
                Err(
                    err @ (karbor_store::Error::OverQuota { .. }
                    | karbor_store::Error::Conflict { .. }
                    | karbor_store::Error::NotFound { .. }
                    | karbor_store::Error::AlreadyExists { .. }
                    | karbor_store::Error::Invalid { .. }),
                ) => Some(err),
                Err(err) => return Err(while_doing("starting what is ready")(err)),
            };
            if batch.len() > 1 {
                let half = batch.split_off(batch.len() / 2);
                halves.push(half);
                halves.push(batch);
                continue;
            }
            if let (Some(err), Some((one, _))) = (refusal, batch.pop()) {
                let detail = err.to_string();
                verdicts.push(match err {
                    karbor_store::Error::OverQuota { .. } => passed(one, OccurrenceReason::Quota, &detail),
                    // The checkpoint that was to be looked at has just gone.
                    karbor_store::Error::Conflict { .. } | karbor_store::Error::NotFound { .. } => {
                        self.later(one, &detail)
                    }
                    _ => verdict(one, OccurrenceEvent::Failed, Some(OccurrenceReason::Refused), &detail),
                });
            }
        }
        Ok(begun)
    }

    fn later(&self, one: &Occurrence, detail: &str) -> Verdict {
        let mut verdict = verdict(one, OccurrenceEvent::PutOff, one.reason, detail);
        verdict.outcome.act_at = Some(self.now().plus_seconds(LATER_SECONDS));
        verdict
    }

    /// Writes verdicts down.
    pub(crate) async fn judge(&self, verdicts: &[Verdict], round: &mut Round) -> Result<()> {
        if verdicts.is_empty() {
            return Ok(());
        }
        let judged = self.parts.store.judge(verdicts, self.now()).await;
        round.judged += judged.map_err(while_doing("writing down what is decided"))?;
        for verdict in verdicts {
            self.metrics.judged(verdict);
            if verdict.outcome.event == OccurrenceEvent::PutOff {
                continue;
            }
            let reason = verdict.outcome.reason.map_or("", |reason| reason.as_str());
            info!(
                occurrence.id = %verdict.occurrence, reason, detail = verdict.outcome.detail,
                "Occurrence {}: {}", verdict.occurrence, verdict.outcome.event
            );
        }
        Ok(())
    }

    /// Skips what has been ready for longer than its window.
    pub(crate) async fn expire(&self, round: &mut Round) -> Result<()> {
        let over = self.parts.store.occurrences_to_look_at(
            OccurrenceState::Ready,
            self.now(),
            self.config.batch.get(),
        );
        let over = over.await.map_err(while_doing("looking for windows that are over"))?;
        let over = over.iter().filter(|one| one.until < self.now());
        let verdicts: Vec<Verdict> = over
            .map(|one| passed(one, OccurrenceReason::WindowMissed, "there was no room inside its window"))
            .collect();
        self.judge(&verdicts, round).await
    }
}

/// Decides that an occurrence is not started, or not again: who was started and failed is no one who was skipped.
fn passed(one: &Occurrence, reason: OccurrenceReason, detail: &str) -> Verdict {
    if one.reason == Some(OccurrenceReason::OperationFailed) {
        let before = one.detail.as_deref().unwrap_or("the operation failed");
        let detail = format!("{before}; it was not tried again: {detail}");
        return verdict(one, OccurrenceEvent::Failed, one.reason, &detail);
    }
    verdict(one, OccurrenceEvent::Passed, Some(reason), detail)
}

pub(crate) fn verdict(
    one: &Occurrence,
    event: OccurrenceEvent,
    reason: Option<OccurrenceReason>,
    detail: &str,
) -> Verdict {
    let detail = (!detail.is_empty()).then(|| detail.to_owned());
    let outcome = Outcome { reason, detail, ..Outcome::of(event) };
    Verdict { occurrence: one.id, state: one.state, attempt: one.attempt, outcome }
}
