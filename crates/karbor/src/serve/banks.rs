//! The banks of the service, and each project's account in them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use async_trait::async_trait;
use karbor_actions::BoxError;
use karbor_bank::{Bank, Key};
use karbor_plugin::{Error, ErrorKind, Provider};
use karbor_store::{Checkpoint, CheckpointStats, PlanSnapshot};
use karbor_types::{AccountId, CheckpointId, CheckpointMetadata, CheckpointState, ProjectId, ProviderId};
use karbor_vault::{Account, AccountOptions, CheckpointInfo, MasterKey};
use tokio::sync::Mutex;
use tracing::{info, warn};

use crate::serve::config::{BankConfig, EngineConfig, ProviderConfig};

/// Under what the accounts of a bank stand.
const ACCOUNTS: &str = "accounts/";

/// By what open accounts are found: the bank's name, and the project.
type AccountKey = (String, ProjectId);

/// Opens accounts when they are first asked for, and keeps them open.
pub(crate) struct ServiceBanks {
    /// Bank by provider.
    by_provider: HashMap<ProviderId, Arc<dyn Bank>>,
    /// The names of banks, for cache directories.
    names: HashMap<ProviderId, String>,
    masters: Vec<MasterKey>,
    options: AccountOptions,
    cache: PathBuf,
    accounts: Mutex<HashMap<AccountKey, Account>>,
}

impl std::fmt::Debug for ServiceBanks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceBanks").field("names", &self.names).finish_non_exhaustive()
    }
}

impl ServiceBanks {
    /// Attaches all banks: each is tried, and what it cannot do is told.
    pub(crate) async fn attach(
        banks: &[BankConfig],
        providers: &[ProviderConfig],
        masters: Vec<MasterKey>,
        engine: &EngineConfig,
    ) -> Result<Self> {
        let mut attached: HashMap<&str, Arc<dyn Bank>> = HashMap::new();
        for config in banks {
            let bank = crate::place::create(&config.url)
                .await
                .with_context(|| format!("opening the bank `{}`", config.name))?;
            let (descriptor, capabilities) = karbor_bank::attach(&*bank)
                .await
                .with_context(|| format!("trying the bank `{}` at {}", config.name, bank.name()))?;
            for shortcoming in capabilities.shortcomings() {
                warn!(bank.name = %config.name, "Bank {}: {shortcoming}", config.name);
            }
            info!(bank.name = %config.name, bank.id = %descriptor.id, "Attached bank {} at {}", config.name, bank.name());
            attached.insert(&config.name, bank);
        }
        let mut by_provider = HashMap::new();
        let mut names = HashMap::new();
        for provider in providers {
            if let Some(bank) = attached.get(provider.bank.as_str()) {
                by_provider.insert(provider.id, Arc::clone(bank));
                names.insert(provider.id, provider.bank.clone());
            }
        }
        let options = AccountOptions {
            memory_bytes: engine.memory_mib << 20,
            pack_bytes: engine.pack_mib << 20,
            compression_level: engine.compression_level,
            ..AccountOptions::default()
        };
        let cache = engine.cache_directory.clone().unwrap_or_default();
        Ok(Self { by_provider, names, masters, options, cache, accounts: Mutex::default() })
    }

    /// Opens an account if it is there.
    async fn open_existing(
        &self,
        provider: ProviderId,
        project: &ProjectId,
    ) -> karbor_plugin::Result<Option<Account>> {
        let (bank, key) = self.place(provider, project)?;
        if let Some(account) = self.accounts.lock().await.get(&key) {
            return Ok(Some(account.clone()));
        }
        let id = account_id(project)?;
        // Only to see whether it is there: the cache is its keeper's.
        let options = self.options.clone();
        match Account::open(Arc::clone(bank), id, &self.masters, options).await {
            Err(karbor_vault::Error::NotFound { .. }) => Ok(None),
            Err(err) => Err(Error::from(err)),
            // Somebody else may have opened it meanwhile; one cache has one keeper.
            Ok(_) => self.open(provider, project).await.map(Some),
        }
    }

    fn place(
        &self,
        provider: ProviderId,
        project: &ProjectId,
    ) -> karbor_plugin::Result<(&Arc<dyn Bank>, AccountKey)> {
        match (self.by_provider.get(&provider), self.names.get(&provider)) {
            (Some(bank), Some(name)) => Ok((bank, (name.clone(), project.clone()))),
            _ => Err(Error::new(ErrorKind::NotFound, format!("provider {provider} is not configured here"))),
        }
    }

    /// Lists the projects that have an account in a provider's bank.
    pub(crate) async fn projects(&self, provider: ProviderId) -> Result<Vec<ProjectId>> {
        let bank = self.by_provider.get(&provider).context("the provider has no bank")?;
        let mut found = Vec::new();
        let mut after: Option<Key> = None;
        loop {
            let first =
                bank.list(ACCOUNTS, after.as_ref(), 1).await.context("listing the accounts of a bank")?;
            let Some(first) = first.first() else { return Ok(found) };
            let name = first.key.as_str().strip_prefix(ACCOUNTS).and_then(|rest| rest.split('/').next());
            let name = name.context("a bank lists what was not asked for")?;
            if let Ok(project) = ProjectId::new(name) {
                found.push(project);
            }
            // `0` comes right after `/`: everything below this account is passed over.
            after = Some(Key::new(format!("{ACCOUNTS}{name}0")).context("naming the next account")?);
        }
    }

    async fn open(&self, provider: ProviderId, project: &ProjectId) -> karbor_plugin::Result<Account> {
        let (bank, key) = self.place(provider, project)?;
        // Held while opening: two operations of a project must not open its account, and its cache, twice.
        let mut accounts = self.accounts.lock().await;
        if let Some(account) = accounts.get(&key) {
            return Ok(account.clone());
        }
        let id = account_id(project)?;
        let options = AccountOptions { cache_dir: Some(self.cache.join(&key.0)), ..self.options.clone() };
        let account = Account::open_or_create(Arc::clone(bank), id, &self.masters, options)
            .await
            .map_err(Error::from)?;
        accounts.insert(key, account.clone());
        Ok(account)
    }
}

fn account_id(project: &ProjectId) -> karbor_plugin::Result<AccountId> {
    AccountId::new(project.as_str()).map_err(|err| {
        Error::new(ErrorKind::Invalid, "the project's id cannot name a bank account").with_source(err)
    })
}

#[async_trait]
impl karbor_worker::Banks for ServiceBanks {
    async fn account(&self, provider: ProviderId, project: &ProjectId) -> karbor_plugin::Result<Account> {
        self.open(provider, project).await
    }
}

#[async_trait]
impl karbor_actions::Evidence for ServiceBanks {
    async fn is_committed(
        &self,
        project: &ProjectId,
        provider: &Provider,
        checkpoint: CheckpointId,
    ) -> std::result::Result<bool, BoxError> {
        let account = self.open(provider.id(), project).await?;
        Ok(account.find(checkpoint).await?.is_some())
    }

    async fn living(
        &self,
        project: &ProjectId,
        provider: &Provider,
    ) -> std::result::Result<Option<Vec<CheckpointId>>, BoxError> {
        let Some(account) = self.open_existing(provider.id(), project).await? else { return Ok(None) };
        let sessions = account.living_sessions().await?;
        // A directory whose file system is not mounted lists nothing; then this is no bank either.
        karbor_bank::read_descriptor(account.bank().as_ref()).await?;
        Ok(Some(sessions.into_iter().map(|session| CheckpointId(session.operation)).collect()))
    }

    async fn committed(
        &self,
        project: &ProjectId,
        provider: &Provider,
        checkpoint: CheckpointId,
    ) -> std::result::Result<Option<Checkpoint>, BoxError> {
        let Some(account) = self.open_existing(provider.id(), project).await? else { return Ok(None) };
        let Some(info) = account.find(checkpoint).await? else { return Ok(None) };
        let metadata = CheckpointMetadata::from_json(&info.metadata)?;
        if metadata.project != *project || info.id != checkpoint {
            return Ok(None);
        }
        Ok(Some(row(info, metadata)))
    }
}

/// Makes the index's row of a commit record.
fn row(info: CheckpointInfo, metadata: CheckpointMetadata) -> Checkpoint {
    Checkpoint {
        id: info.id,
        project: metadata.project,
        provider: metadata.provider.id,
        plan: PlanSnapshot {
            id: metadata.plan.id,
            name: metadata.plan.name,
            provider_id: metadata.provider.id,
            resources: metadata.plan.resources,
        },
        state: CheckpointState::Available,
        graph: Some(metadata.graph),
        extra_info: metadata.extra_info,
        stats: Some(CheckpointStats {
            logical_bytes: info.logical_bytes,
            stored_bytes: info.stored_bytes,
            new_bytes: info.stored_bytes,
        }),
        reason: None,
        session: Some(info.session),
        committed_at: Some(info.created_at),
        created_at: info.created_at,
        updated_at: None,
    }
}
