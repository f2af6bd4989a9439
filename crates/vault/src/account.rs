//! A bank account: one project's area in a bank, with its own key and its own deduplication domain.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use karbor_bank::Bank;
use karbor_types::{AccountId, CheckpointId};

use crate::maintain::{CopyCheckpoint, RebuildReport, VerifyMode, VerifyReport};
use crate::{
    AccountStats, BeginOptions, CheckpointInfo, CheckpointReader, CheckpointWriter, CopyOptions, Error,
    MasterKey, Result, SessionId, SweepOptions, SweepReport,
};

/// How an account is used by this process.
#[derive(Debug, Clone)]
pub struct AccountOptions {
    /// Where the index is cached; may be deleted at any time. Without it, a temporary directory is used.
    pub cache_dir: Option<PathBuf>,
    /// The memory that all streams of the account may use together, in bytes.
    pub memory_bytes: u64,
    /// How many threads read, hash, compress and seal.
    pub threads: NonZeroUsize,
    /// The size at which a pack is closed.
    pub pack_bytes: u32,
    /// The zstd level.
    pub compression_level: i32,
}

impl Default for AccountOptions {
    fn default() -> Self {
        Self {
            cache_dir: None,
            memory_bytes: 160 << 20,
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            pack_bytes: 32 << 20,
            compression_level: 1,
        }
    }
}

/// One project's area in a bank, opened with its key. Cheap to clone.
#[derive(Clone)]
pub struct Account {
    inner: Arc<Inner>,
}

struct Inner {
    bank: Arc<dyn Bank>,
    id: AccountId,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("bank", &self.inner.bank.name()).field("id", &self.inner.id).finish()
    }
}

fn unsupported<T>(what: &str) -> Result<T> {
    Err(Error::Unsupported { what: what.to_owned() })
}

impl Account {
    /// Creates an account with a new random key, wrapped by the master key.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] when there is one; [`Error::KeyDestroyed`] when its key was destroyed.
    pub async fn create(
        bank: Arc<dyn Bank>,
        id: AccountId,
        master: &MasterKey,
        options: AccountOptions,
    ) -> Result<Self> {
        let _ = (master, options, Self { inner: Arc::new(Inner { bank, id }) });
        unsupported("creating accounts")
    }

    /// Opens an account with whichever of the master keys fits.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongKey`], [`Error::KeyDestroyed`].
    pub async fn open(
        bank: Arc<dyn Bank>,
        id: AccountId,
        masters: &[MasterKey],
        options: AccountOptions,
    ) -> Result<Self> {
        let _ = (bank, id, masters, options);
        unsupported("opening accounts")
    }

    /// Opens an account, or creates it with the first of the master keys.
    ///
    /// # Errors
    /// As [`Account::open`], without [`Error::NotFound`].
    pub async fn open_or_create(
        bank: Arc<dyn Bank>,
        id: AccountId,
        masters: &[MasterKey],
        options: AccountOptions,
    ) -> Result<Self> {
        let _ = (bank, id, masters, options);
        unsupported("opening accounts")
    }

    /// Returns the account's id.
    pub fn id(&self) -> &AccountId {
        &self.inner.id
    }

    /// Returns the bank.
    pub fn bank(&self) -> &Arc<dyn Bank> {
        &self.inner.bank
    }

    /// Wraps the account's key with `to`, and then removes the slots that one of `from` opens. Nothing else is
    /// rewritten. Interrupted anywhere, it can be repeated; at every moment a key opens the account.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn rotate(&self, from: &[MasterKey], to: &MasterKey) -> Result<()> {
        let _ = (from, to);
        unsupported("rotating keys")
    }

    /// Destroys the account's key: its data is unreadable for good.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn destroy_key(bank: Arc<dyn Bank>, id: &AccountId) -> Result<()> {
        let _ = (bank, id);
        unsupported("destroying keys")
    }

    /// Begins to write a checkpoint. Earlier attempts of the same operation are fenced first.
    ///
    /// # Errors
    /// [`Error::AlreadyCommitted`] when one of them has committed, [`Error::Fenced`] when a later attempt has begun.
    pub async fn begin(&self, session: &SessionId, options: &BeginOptions) -> Result<CheckpointWriter> {
        let _ = (session, options);
        unsupported("writing")
    }

    /// Returns all living checkpoints, oldest first.
    ///
    /// # Errors
    /// What the bank says. A commit record that cannot be read is [`Error::Damaged`]; use
    /// [`Account::list_checkpoints`] to pass over it.
    pub async fn checkpoints(&self) -> Result<Vec<CheckpointInfo>> {
        unsupported("listing")
    }

    /// Returns living checkpoints in the order of their sessions, from after `after` (a session), at most `limit`.
    /// Fewer than `limit` means that there are no more. A record that cannot be read is an `Err` in the list.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn list_checkpoints(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(SessionId, Result<CheckpointInfo>)>> {
        let _ = (after, limit);
        unsupported("listing")
    }

    /// Returns a living checkpoint.
    ///
    /// # Errors
    /// What the bank says, or that the commit record is damaged.
    pub async fn find(&self, id: CheckpointId) -> Result<Option<CheckpointInfo>> {
        let _ = id;
        unsupported("finding")
    }

    /// Opens a checkpoint for reading, under a session of its own that pins it.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it does not exist or is deleted.
    pub async fn read(&self, id: CheckpointId) -> Result<CheckpointReader> {
        let _ = id;
        unsupported("reading")
    }

    /// Deletes a checkpoint: it is no longer listed, and a later sweep frees what only it used. Returns whether it
    /// was there; deleting again is harmless.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn delete(&self, id: CheckpointId) -> Result<bool> {
        let _ = id;
        unsupported("deleting")
    }

    /// Frees what no checkpoint reaches, beside running backups, restores and other sweeps.
    ///
    /// # Errors
    /// What the bank says; [`Error::Damaged`] when a living manifest cannot be read (then nothing is freed).
    pub async fn sweep(&self, options: &SweepOptions) -> Result<SweepReport> {
        let _ = options;
        unsupported("sweeping")
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
        let _ = (id, mode, options);
        unsupported("verifying")
    }

    /// Copies a checkpoint into another account, of this bank or another: only chunks that are missing there,
    /// checked on the way, sealed with the target's key.
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
        let _ = (id, to, session, copy);
        unsupported("copying")
    }

    /// Returns what the account holds.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn stats(&self) -> Result<AccountStats> {
        unsupported("statistics")
    }

    /// Writes the bank's index anew from the packs' trailers.
    ///
    /// # Errors
    /// What the bank says. A damaged pack is not an error here.
    pub async fn rebuild_index(&self) -> Result<RebuildReport> {
        unsupported("rebuilding the index")
    }
}
