//! A bank account: one project's area in a bank, with its own key and its own deduplication domain.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use karbor_bank::Bank;
use karbor_chunk::{AccountKey, Entropy, MasterKey, Namer, SystemEntropy};
use karbor_sweep::{LivingCommits, Place, SessionId};
use karbor_types::{AccountId, CheckpointId};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::index::IndexCache;
use crate::write::buffers::{Buffers, Codecs};
use crate::{
    BeginOptions, CheckpointInfo, CheckpointReader, CheckpointWriter, Error, Result, keys, record, session,
};

/// What packs need not share with readers, manifests and the rest.
const BESIDE_PACKS_BYTES: u64 = 32 << 20;
/// Packs are not made smaller than this, however little memory there is.
const LEAST_PACK_BYTES: u64 = 1 << 20;
/// What trailing indexes may add to a pack before its buffer must grow.
const PACK_SLACK_BYTES: u64 = 2 << 20;

/// How many commit records are read at once.
const RECORDS_AT_ONCE: usize = 8;

/// How an account is used by this process.
#[derive(Clone)]
pub struct AccountOptions {
    /// Where the index is cached; may be deleted at any time. Without it, nameless temporary files are used.
    pub cache_dir: Option<PathBuf>,
    /// The memory that all streams of the account may use together, in bytes.
    pub memory_bytes: u64,
    /// How many threads read, hash, compress and seal.
    pub threads: NonZeroUsize,
    /// The size at which a pack is closed; smaller if memory does not allow for two per thread.
    pub pack_bytes: u32,
    /// The zstd level.
    pub compression_level: i32,
    /// How often a session that writes looks for sweeps that wait for it.
    pub sweep_check: Duration,
    /// Who this is, for people: written into sessions and fences.
    pub by: String,
    /// Where keys, salts and nonces come from.
    pub entropy: Arc<dyn Entropy>,
}

impl fmt::Debug for AccountOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountOptions")
            .field("cache_dir", &self.cache_dir)
            .field("memory_bytes", &self.memory_bytes)
            .field("threads", &self.threads)
            .field("pack_bytes", &self.pack_bytes)
            .field("compression_level", &self.compression_level)
            .finish_non_exhaustive()
    }
}

impl Default for AccountOptions {
    fn default() -> Self {
        Self {
            cache_dir: None,
            memory_bytes: 160 << 20,
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            pack_bytes: 32 << 20,
            compression_level: 1,
            sweep_check: Duration::from_secs(20),
            by: String::new(),
            entropy: Arc::new(SystemEntropy),
        }
    }
}

/// One project's area in a bank, opened with its key. Cheap to clone.
#[derive(Clone)]
pub struct Account {
    pub(crate) shared: Arc<Shared>,
}

/// What all sessions of an account use.
pub(crate) struct Shared {
    pub(crate) bank: Arc<dyn Bank>,
    pub(crate) id: AccountId,
    pub(crate) place: Place,
    pub(crate) key: AccountKey,
    pub(crate) namer: Namer,
    pub(crate) options: AccountOptions,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) cache: IndexCache,
    pub(crate) codecs: Codecs,
    pub(crate) buffers: Arc<Buffers>,
    pub(crate) pack_target: u64,
    pub(crate) pack_permits: Arc<Semaphore>,
    pub(crate) workers: Arc<Semaphore>,
    /// Uploads and other tasks that sessions begin; a session waits for its own before it commits.
    pub(crate) tasks: TaskTracker,
}

impl Shared {
    fn new(bank: Arc<dyn Bank>, id: AccountId, key: AccountKey, options: AccountOptions) -> Result<Self> {
        let place = Place::of_account(bank.clone(), &id);
        let entropy = options.entropy.clone();
        let cache = IndexCache::open(options.cache_dir.clone(), place.clone(), key.clone(), entropy.clone())?;
        let threads = options.threads.get();
        let for_packs = options.memory_bytes.saturating_sub(BESIDE_PACKS_BYTES);
        let each = for_packs / (2 * threads as u64);
        let largest = bank.capabilities().max_object_bytes.saturating_sub(PACK_SLACK_BYTES);
        let pack_target = each.min(u64::from(options.pack_bytes)).min(largest).max(LEAST_PACK_BYTES);
        // One pack of every session comes on top.
        let packs = usize::try_from(for_packs / pack_target).unwrap_or(usize::MAX).clamp(2, 4 * threads);
        let buffer = usize::try_from(pack_target + PACK_SLACK_BYTES)
            .map_err(|_| Error::invalid("the pack size is beyond what memory can hold"))?;
        Ok(Self {
            namer: key.namer(),
            codecs: Codecs::new(options.compression_level),
            buffers: Arc::new(Buffers::new(packs, buffer)),
            pack_permits: Arc::new(Semaphore::new(packs - 1)),
            workers: Arc::new(Semaphore::new(2 * threads + 2)),
            tasks: TaskTracker::new(),
            bank,
            id,
            place,
            key,
            options,
            entropy,
            cache,
            pack_target,
        })
    }

    /// Draws a UUID.
    pub(crate) fn random_uuid(&self) -> Result<Uuid> {
        let mut bytes = [0; 16];
        self.entropy.fill(&mut bytes).map_err(|err| Error::chunk("a new id", err))?;
        Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// Draws what tells one's own session record from another's.
    pub(crate) fn nonce(&self) -> Result<String> {
        Ok(self.random_uuid()?.simple().to_string())
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("bank", &self.shared.bank.name())
            .field("id", &self.shared.id)
            .finish_non_exhaustive()
    }
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
        let key = keys::create(bank.as_ref(), &id, master, options.entropy.as_ref()).await?;
        Ok(Self { shared: Arc::new(Shared::new(bank, id, key, options)?) })
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
        let key = keys::open(bank.as_ref(), &id, masters).await?;
        Ok(Self { shared: Arc::new(Shared::new(bank, id, key, options)?) })
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
        let Some(first) = masters.first() else { return Err(Error::WrongKey { account: id }) };
        match Self::open(bank.clone(), id.clone(), masters, options.clone()).await {
            Err(Error::NotFound { .. }) => {}
            other => return other,
        }
        match Self::create(bank.clone(), id.clone(), first, options.clone()).await {
            // Somebody was quicker.
            Err(Error::AlreadyExists { .. }) => Self::open(bank, id, masters, options).await,
            other => other,
        }
    }

    /// Returns the account's id.
    pub fn id(&self) -> &AccountId {
        &self.shared.id
    }

    /// Returns the bank.
    pub fn bank(&self) -> &Arc<dyn Bank> {
        &self.shared.bank
    }

    /// Wraps the account's key with `to`, and then removes the slots that one of `from` opens. Nothing else is
    /// rewritten. Interrupted anywhere, it can be repeated; at every moment a key opens the account.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn rotate(&self, from: &[MasterKey], to: &MasterKey) -> Result<()> {
        let shared = &self.shared;
        keys::rotate(shared.bank.as_ref(), &shared.id, &shared.key, from, to, shared.entropy.as_ref()).await
    }

    /// Destroys the account's key: its data is unreadable for good.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn destroy_key(bank: Arc<dyn Bank>, id: &AccountId) -> Result<()> {
        keys::destroy(bank.as_ref(), id).await
    }

    /// Begins to write a checkpoint. Earlier attempts of the same operation are fenced first.
    ///
    /// # Errors
    /// [`Error::AlreadyCommitted`] when one of them has committed, [`Error::Fenced`] when a later attempt has begun,
    /// [`Error::BaseGone`] when the base was deleted at that very moment.
    pub async fn begin(&self, session: &SessionId, options: &BeginOptions) -> Result<CheckpointWriter> {
        session::begin(self.shared.clone(), *session, options).await
    }

    /// Returns all living checkpoints, oldest first.
    ///
    /// # Errors
    /// What the bank says. A commit record that cannot be read is [`Error::Damaged`]; use
    /// [`Account::list_checkpoints`] to pass over it.
    pub async fn checkpoints(&self) -> Result<Vec<CheckpointInfo>> {
        let sessions = karbor_sweep::living_commits(&self.shared.place).await.map_err(Error::protocol)?;
        let read = futures::stream::iter(sessions).map(|session| async move { self.info(&session).await });
        let all: Vec<Option<CheckpointInfo>> = read.buffered(RECORDS_AT_ONCE).boxed().try_collect().await?;
        let mut all: Vec<CheckpointInfo> = all.into_iter().flatten().collect();
        all.sort_by_key(|info| (info.created_at, info.id));
        Ok(all)
    }

    /// Returns living checkpoints in the order of their sessions, from after `after`, at most `limit`.
    /// Fewer than `limit` means that there are no more. A record that cannot be read is an `Err` in the list.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn list_checkpoints(
        &self,
        after: Option<&SessionId>,
        limit: usize,
    ) -> Result<Vec<(SessionId, Result<CheckpointInfo>)>> {
        let mut pages = LivingCommits::new(&self.shared.place);
        let mut all = Vec::new();
        while let Some(page) = pages.next_page().await.map_err(Error::protocol)? {
            for session in page {
                if after.is_some_and(|after| session <= *after) {
                    continue;
                }
                if all.len() == limit {
                    return Ok(all);
                }
                match self.info(&session).await {
                    Ok(None) => {}
                    Ok(Some(info)) => all.push((session, Ok(info))),
                    Err(err @ (Error::Bank { .. } | Error::BankFull { .. })) => return Err(err),
                    Err(err) => all.push((session, Err(err))),
                }
            }
        }
        Ok(all)
    }

    /// Returns what a living commit says; `None` if it was deleted meanwhile.
    pub(crate) async fn info(&self, session: &SessionId) -> Result<Option<CheckpointInfo>> {
        let bytes = karbor_sweep::read_commit(&self.shared.place, session).await.map_err(Error::protocol)?;
        let Some(bytes) = bytes else { return Ok(None) };
        let commit = record::open(&self.shared.key, session, &bytes)?;
        Ok(Some(record::info(session, &commit)))
    }

    /// Returns a living checkpoint.
    ///
    /// # Errors
    /// What the bank says, or that the commit record is damaged.
    pub async fn find(&self, id: CheckpointId) -> Result<Option<CheckpointInfo>> {
        let found = karbor_sweep::find_commit(&self.shared.place, id.as_uuid()).await;
        let Some(session) = found.map_err(Error::protocol)? else { return Ok(None) };
        self.info(&session).await
    }

    /// Opens a checkpoint for reading, under a session of its own that pins it.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it does not exist or is deleted.
    pub async fn read(&self, id: CheckpointId) -> Result<CheckpointReader> {
        CheckpointReader::open(self.shared.clone(), id).await
    }

    /// Deletes a checkpoint: it is no longer listed, and a later sweep frees what only it used. Returns whether it
    /// was there; deleting again is harmless.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn delete(&self, id: CheckpointId) -> Result<bool> {
        let found = karbor_sweep::find_commit(&self.shared.place, id.as_uuid()).await;
        let Some(session) = found.map_err(Error::protocol)? else { return Ok(false) };
        karbor_sweep::delete(&self.shared.place, &session).await.map_err(Error::protocol)
    }
}
