//! Actors that do at random what the parts of the service do.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::rc::Rc;

use async_trait::async_trait;
use karbor_types::Epoch;

use crate::io::list_sessions;
use crate::model::rng::Rng;
use crate::model::vault::{Reach, Service};
use crate::model::world::FirstPut;
use crate::{
    Area, CommitOutcome, Kind, Patience, Progress, Result, SessionId, SessionRecord, SweepOptions, Sweeper,
};

/// What happened in a run, to see that something did.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) commits: u64,
    pub(crate) fenced: u64,
    pub(crate) deleted: u64,
    pub(crate) reads: u64,
    pub(crate) done: u64,
    pub(crate) waiting: u64,
    pub(crate) freed: u64,
    pub(crate) folds: u64,
    pub(crate) rewrites: u64,
    pub(crate) merges: u64,
    pub(crate) calls: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.commits += other.commits;
        self.fenced += other.fenced;
        self.deleted += other.deleted;
        self.reads += other.reads;
        self.done += other.done;
        self.waiting += other.waiting;
        self.freed += other.freed;
        self.folds += other.folds;
        self.rewrites += other.rewrites;
        self.merges += other.merges;
        self.calls += other.calls;
    }
}

/// An actor at random.
#[derive(Clone)]
pub(crate) struct Actor {
    pub(crate) service: Service,
    pub(crate) rng: Rc<RefCell<Rng>>,
    pub(crate) tally: Rc<RefCell<Tally>>,
    /// How many chunks there are in this world.
    pub(crate) chunks: usize,
    /// Whether everything is done once only.
    pub(crate) once: bool,
}

impl Actor {
    fn below(&self, limit: usize) -> usize {
        self.rng.borrow_mut().below(limit)
    }

    /// Returns how often to do something: at least once, at most `most` times.
    fn times(&self, most: usize) -> usize {
        1 + self.below(if self.once { 1 } else { most })
    }

    fn chance(&self, percent: usize) -> bool {
        self.rng.borrow_mut().chance(percent)
    }

    fn count(&self, what: impl FnOnce(&mut Tally)) {
        what(&mut self.tally.borrow_mut());
    }

    fn some_chunks(&self) -> Vec<u8> {
        let count = 1 + self.below(3);
        (0..count)
            .map(|_| u8::try_from(self.below(self.chunks)).expect("few chunks"))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    fn living(&self) -> Option<SessionId> {
        let living: Vec<SessionId> = self.service.oracle(|oracle| oracle.living().map(|(s, _)| *s).collect());
        self.rng.borrow_mut().pick(&living)
    }

    /// Attempts operations until each has committed, was given up, or was done by another.
    pub(crate) async fn write(self) {
        for _ in 0..self.times(3) {
            let operation = self.service.uuid();
            self.operate(operation).await;
        }
    }

    /// Works on an operation that another works on too: its lease was over, or was believed to be.
    pub(crate) async fn hijack(self) {
        let id = self.service.oracle(|oracle| {
            let ends: Vec<SessionId> = oracle.ends.keys().copied().collect();
            self.rng.borrow_mut().pick(&ends)
        });
        if let Some(id) = id {
            self.operate(id.operation).await;
        }
    }

    async fn operate(&self, operation: uuid::Uuid) {
        for _ in 0..4 {
            let id = self.service.attempt(operation);
            match self.attempt(id).await {
                Ok(Some(CommitOutcome::Committed)) => {
                    self.count(|tally| tally.commits += 1);
                    return;
                }
                Ok(None) => return,
                Ok(Some(CommitOutcome::Fenced)) | Err(crate::Error::Fenced { .. }) => {
                    self.count(|tally| tally.fenced += 1);
                }
                Err(_) => {}
            }
        }
    }

    async fn attempt(&self, id: SessionId) -> Result<Option<CommitOutcome>> {
        let service = &self.service;
        if id.epoch > Epoch(0) && crate::take_over(&service.place, &id, None, "test").await?.is_some() {
            return Ok(None);
        }
        let pins = if self.chance(40) { self.living().into_iter().collect() } else { Vec::new() };
        let mut writer = service.begin_writer(id, Kind::Writer, pins).await?;
        if self.chance(70) {
            writer.lean_on_base();
        }
        for _ in 0..self.times(3) {
            writer.refer(&self.some_chunks(), self.chance(25)).await?;
            if self.chance(40) {
                writer.look().await?;
            }
        }
        if self.chance(8) {
            match writer.session.close().await {
                Ok(()) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        writer.commit().await.map(Some)
    }

    pub(crate) async fn delete(self) {
        for _ in 0..self.times(3) {
            let _ = self.delete_one().await;
        }
    }

    async fn delete_one(&self) -> Result<()> {
        let service = &self.service;
        let before: BTreeSet<SessionId> = service.oracle(|oracle| oracle.living().map(|(s, _)| *s).collect());
        let dead = service.oracle(|oracle| oracle.deleted.clone());
        let listed = crate::living_commits(&service.place).await?;
        service.oracle(|oracle| {
            for session in &listed {
                if dead.contains(session) || !matches!(oracle.ends.get(session), Some(FirstPut::Record(_))) {
                    oracle.complain(format!("{session} is listed as living"));
                }
            }
            let missed =
                before.iter().find(|session| !oracle.deleted.contains(session) && !listed.contains(session));
            if let Some(session) = missed {
                oracle.complain(format!("{session} lives and is not listed"));
            }
        });
        let choice = self.rng.borrow_mut().pick(&listed);
        let Some(session) = choice else {
            return Ok(());
        };
        service.expected(crate::delete(&service.place, &session).await)?;
        self.count(|tally| tally.deleted += 1);
        Ok(())
    }

    pub(crate) async fn read(self) {
        for _ in 0..self.times(2) {
            if let Some(pin) = self.living()
                && self.service.read(pin).await.is_ok()
            {
                self.count(|tally| tally.reads += 1);
            }
        }
    }

    pub(crate) async fn sweep(self) {
        let mut left = self.times(4);
        while let Some(rest) = left.checked_sub(1) {
            left = rest;
            let reach = Reach { place: self.service.place.clone() };
            let patience = Moody(self.rng.borrow().clone().into());
            let parallel = NonZeroUsize::new(1 + self.below(3)).expect("at least one");
            let fold_after = NonZeroUsize::new(1 + self.below(3)).expect("at least one");
            let options = SweepOptions { parallel, fold_after, ..SweepOptions::default() };
            let sweeper = Sweeper::new(&self.service.place, &reach, &patience, options);
            let Ok(report) = self.service.expected(sweeper.sweep(self.service.uuid()).await) else {
                continue;
            };
            if report.progress == Progress::Waiting && self.chance(70) {
                left += 1;
            }
            self.count(|tally| match report.progress {
                Progress::Done => tally.done += 1,
                Progress::Waiting => tally.waiting += 1,
                Progress::Idle => {}
            });
            self.count(|tally| tally.freed += report.packs_freed);
        }
    }

    pub(crate) async fn fold(self) {
        if let Ok(report) = crate::fold(&self.service.place, self.service.uuid()).await {
            self.count(|tally| tally.folds += u64::from(report.lists > 0));
        }
    }

    pub(crate) async fn rewrite(self) {
        let seed = self.rng.borrow_mut().next();
        if self
            .service
            .rewrite(|pack| Rng::new(seed ^ u64::from(pack.hash.as_bytes()[0])).chance(50))
            .await
            .is_ok()
        {
            self.count(|tally| tally.rewrites += 1);
        }
    }

    pub(crate) async fn merge(self) {
        let seed = self.rng.borrow_mut().next();
        if self.service.merge(|n| Rng::new(seed ^ n as u64).chance(60)).await.is_ok() {
            self.count(|tally| tally.merges += 1);
        }
    }

    pub(crate) async fn fence(self) {
        let sessions =
            list_sessions(&self.service.place, Area::Sessions, "listing sessions").await.unwrap_or_default();
        let sessions: Vec<SessionId> = sessions.into_iter().map(|(session, _)| session).collect();
        let choice = self.rng.borrow_mut().pick(&sessions);
        if let Some(session) = choice {
            let _ = self.service.fence(session).await;
        }
    }
}

/// Fences now and then.
struct Moody(std::sync::Mutex<Rng>);

#[async_trait]
impl Patience for Moody {
    async fn may_fence(&self, _session: &SessionId, _record: &SessionRecord) -> bool {
        self.0.lock().expect("nothing panics here").chance(25)
    }
}
