//! Keeping an account healthy: sweep, verify, scrub, copy, statistics, rebuilding the index.

mod copy;
pub(crate) mod mark;
mod merge;
mod rebuild;
mod rewrite;
mod scrub;
mod state;
mod stats;
mod sweep;
mod verify;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use karbor_types::{AccountId, CheckpointId, Instant};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{Account, CheckpointInfo, CopyOptions, DamagedRange, ProgressSink, Result, SessionId};
pub use scrub::scrub;

/// Decides whether a session, given as text, may be fenced.
pub type MayFence = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// How a sweep is done.
#[derive(Clone, Default)]
pub struct SweepOptions {
    /// Sessions that may be fenced if they do not answer: those whose lease is over, or all that an operator gives
    /// up. Given the session's text, returns whether it may be fenced. `None` fences nobody.
    pub may_fence: Option<MayFence>,
    /// Rewrite packs of which at least this part is dead, in hundredths; `None` is 50, more than 100 is never.
    pub rewrite_dead_percent: Option<u8>,
    /// Free what is unused although chunks that living checkpoints need are missing.
    pub despite_missing_chunks: bool,
    /// Stops the work; it can be gone on with at any time.
    pub cancel: CancellationToken,
}

impl fmt::Debug for SweepOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SweepOptions")
            .field("rewrite_dead_percent", &self.rewrite_dead_percent)
            .finish_non_exhaustive()
    }
}

/// What a sweep did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SweepReport {
    /// The epoch that was worked on.
    pub epoch: u64,
    /// Whether the epoch was finished. If not, it waits for the sessions below.
    pub finished: bool,
    /// Sessions that have neither answered nor ended.
    pub waiting_for: Vec<String>,
    /// Sessions that were fenced.
    #[serde(default)]
    pub fenced: Vec<String>,
    /// Packs that were deleted.
    pub deleted_packs: u64,
    /// Bytes that were freed.
    pub deleted_bytes: u64,
    /// Packs whose living chunks were stored again; they go with the next sweep.
    pub rewritten_packs: u64,
}

/// How thoroughly a checkpoint is verified.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum VerifyMode {
    /// All manifests are read, and every chunk they name must be in the index and its pack in the bank.
    Structure,
    /// Beside that, this part of the chunks is read, chosen by the seed.
    Sample {
        /// From 0 to 1.
        fraction: f64,
        /// Another seed chooses other chunks.
        seed: u64,
    },
    /// Beside that, every chunk is read.
    All,
}

/// What verifying found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Chunks that the checkpoint names, each counted once.
    pub chunks: u64,
    /// Chunks that were read.
    pub read_chunks: u64,
    /// Bytes of the chunks that were read, as stored.
    pub read_bytes: u64,
    /// What cannot be restored.
    pub damaged: Vec<DamagedRange>,
}

impl VerifyReport {
    /// Returns whether nothing is damaged.
    pub fn is_whole(&self) -> bool {
        self.damaged.is_empty()
    }
}

/// How a bank is scrubbed.
#[derive(Clone)]
pub struct ScrubOptions {
    /// Where the scrub notes how far it came and when each object was last checked; without it, it starts anew.
    pub state: Option<PathBuf>,
    /// Only this account; `None` is the whole bank.
    pub account: Option<AccountId>,
    /// The present time, which is noted as the time of the check.
    pub now: Instant,
    /// Objects checked later than this are passed over.
    pub checked_before: Option<Instant>,
    /// At most this many bytes a second.
    pub bytes_per_second: Option<u64>,
    /// How many objects are checked at once.
    pub threads: NonZeroUsize,
    /// Hears of progress.
    pub progress: Option<Arc<dyn ProgressSink>>,
    /// Stops the work; the next run goes on.
    pub cancel: CancellationToken,
}

impl fmt::Debug for ScrubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScrubOptions")
            .field("state", &self.state)
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

/// What a scrub found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScrubReport {
    /// Objects that were checked.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects passed over because they were checked lately.
    pub fresh: u64,
    /// Objects that are not what their name says: key and what is wrong.
    pub damaged: Vec<(String, String)>,
    /// The oldest check among all objects, after this run.
    pub oldest_check: Option<Instant>,
    /// Whether every object was looked at.
    pub finished: bool,
}

/// What an account holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AccountStats {
    /// Living checkpoints.
    pub checkpoints: u64,
    /// The sum of the sizes of all streams of all of them, with holes.
    pub logical_bytes: u64,
    /// Chunks in the index.
    pub chunks: u64,
    /// Packs.
    pub packs: u64,
    /// Bytes of packs.
    pub stored_bytes: u64,
    /// Bytes of chunks in packs that no checkpoint reaches: what sweeping and rewriting would free.
    pub dead_bytes: u64,
    /// All bytes of the account, with index and records.
    pub total_bytes: u64,
}

impl AccountStats {
    /// Returns how many logical bytes stand for one stored byte.
    pub fn ratio(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let (logical, stored) = (self.logical_bytes as f64, self.stored_bytes.max(1) as f64);
        logical / stored
    }
}

/// What rebuilding the index did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RebuildReport {
    /// Packs whose trailers were read.
    pub packs: u64,
    /// Packs that the index did not name.
    pub added_packs: u64,
    /// Packs that cannot be read: key and why.
    pub damaged: Vec<(String, String)>,
}

/// How a checkpoint is copied into another account.
#[derive(Clone)]
pub struct CopyCheckpoint {
    /// The id of the copy; its session's operation.
    pub new_id: CheckpointId,
    /// When the copy is made.
    pub created_at: Instant,
    /// The copy's metadata; `None` takes the original's.
    pub metadata: Option<Value>,
    /// Hears of progress.
    pub progress: Option<Arc<dyn ProgressSink>>,
    /// Stops the work; the next attempt finds what is stored.
    pub cancel: CancellationToken,
}

impl fmt::Debug for CopyCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyCheckpoint").field("new_id", &self.new_id).finish_non_exhaustive()
    }
}

impl Account {
    /// Frees what no checkpoint reaches, beside running backups, restores and other sweeps.
    ///
    /// # Errors
    /// What the bank says; [`Error::Damaged`] when a living manifest cannot be read (then nothing is freed).
    pub async fn sweep(&self, options: &SweepOptions) -> Result<SweepReport> {
        sweep::sweep(&self.shared, options).await
    }

    /// Checks a checkpoint and names what of it is damaged.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Cancelled`], and what the bank says. Damage is not an error here.
    pub async fn verify(
        &self,
        id: CheckpointId,
        mode: VerifyMode,
        options: &CopyOptions,
    ) -> Result<VerifyReport> {
        verify::verify(self, id, mode, options).await
    }

    /// Copies a checkpoint into another account, of this bank or another: only chunks that are missing there,
    /// checked on the way, sealed with the target's key. Returns what stands there if it was copied before.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Damaged`], as [`Account::begin`], and what the banks say.
    pub async fn copy(
        &self,
        id: CheckpointId,
        to: &Self,
        session: &SessionId,
        copy: &CopyCheckpoint,
    ) -> Result<CheckpointInfo> {
        copy::copy(self, id, to, session, copy).await
    }

    /// Returns what the account holds.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn stats(&self) -> Result<AccountStats> {
        stats::stats(self).await
    }

    /// Writes the bank's index anew from the packs' trailing indexes, as far as it does not name them already.
    ///
    /// # Errors
    /// What the bank says. A damaged pack is not an error here.
    pub async fn rebuild_index(&self) -> Result<RebuildReport> {
        rebuild::rebuild(self).await
    }
}
