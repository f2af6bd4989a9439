//! Sweeping: what no commit reaches is condemned, waited for, and freed.

use std::num::NonZeroUsize;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Error, Place, Reachability, Result, SessionId, SessionRecord, SweepEpoch};

/// Decides whether a silent session may be fenced. A question of patience, never of safety: a fenced writer that
/// was alive begins again.
#[async_trait]
pub trait Patience: Send + Sync {
    /// Returns whether this session, which has neither answered nor ended, may be fenced.
    async fn may_fence(&self, session: &SessionId, record: &SessionRecord) -> bool;
}

/// Fences nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Endless;

#[async_trait]
impl Patience for Endless {
    async fn may_fence(&self, _session: &SessionId, _record: &SessionRecord) -> bool {
        false
    }
}

/// Fences everybody who has not answered: the operator knows that nobody is at work.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPatience;

#[async_trait]
impl Patience for NoPatience {
    async fn may_fence(&self, _session: &SessionId, _record: &SessionRecord) -> bool {
        true
    }
}

/// How sweeping is done.
#[derive(Debug, Clone)]
pub struct SweepOptions {
    /// How many objects are read or deleted at once.
    pub parallel: NonZeroUsize,
    /// Free what is not needed although chunks that commits reach are missing.
    pub despite_missing_chunks: bool,
    /// Fold when that many final lists are not folded.
    pub fold_after: u32,
    /// Who sweeps, for people, in fences.
    pub by: String,
}

impl Default for SweepOptions {
    fn default() -> Self {
        Self {
            parallel: NonZeroUsize::new(16).expect("sixteen is not zero"),
            despite_missing_chunks: false,
            fold_after: 16,
            by: String::new(),
        }
    }
}

/// How far a sweep came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Progress {
    /// There was nothing to free.
    #[default]
    Idle,
    /// An epoch waits for sessions: sweep again later.
    Waiting,
    /// An epoch is done.
    Done,
}

/// What a sweep did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SweepReport {
    /// How far it came.
    pub progress: Progress,
    /// The epoch that was worked on.
    pub epoch: Option<SweepEpoch>,
    /// Writers that have neither answered nor ended, and may not be fenced.
    pub waiting_for: Vec<SessionId>,
    /// Sessions that were fenced.
    pub fenced: Vec<SessionId>,
    /// Packs in the bank that were not gone when it was last looked.
    pub packs: u64,
    /// Packs that are needed.
    pub packs_needed: u64,
    /// Packs that were condemned, as far as they could be counted.
    pub packs_condemned: u64,
    /// Packs that were deleted.
    pub packs_freed: u64,
    /// Their bytes.
    pub bytes_freed: u64,
    /// Small objects that were deleted.
    pub objects_freed: u64,
}

/// Sweeps one account. Several may work on the same one at once, and each can be stopped anywhere and begun again.
pub struct Sweeper<'a> {
    place: Place,
    reachability: &'a dyn Reachability,
    patience: &'a dyn Patience,
    options: SweepOptions,
}

impl std::fmt::Debug for Sweeper<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sweeper")
            .field("place", &self.place)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<'a> Sweeper<'a> {
    /// Makes a sweeper.
    pub fn new(
        place: &Place,
        reachability: &'a dyn Reachability,
        patience: &'a dyn Patience,
        options: SweepOptions,
    ) -> Self {
        Self { place: place.clone(), reachability, patience, options }
    }

    /// Goes on with the epoch that is open, or begins the next, as far as it can without waiting.
    ///
    /// `run` is a new random UUID for every call.
    ///
    /// # Errors
    /// What the bank and the reachability say. Sweep again.
    pub async fn sweep(&self, run: Uuid) -> Result<SweepReport> {
        let _ = (run, &self.place, self.reachability, self.patience, &self.options);
        Err(Error::Unsettled { doing: "sweeping" })
    }
}
