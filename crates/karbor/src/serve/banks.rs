//! The banks of the service, and each project's account in them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use async_trait::async_trait;
use karbor_bank::Bank;
use karbor_plugin::{Error, ErrorKind, Provider};
use karbor_types::{AccountId, CheckpointId, ProjectId, ProviderId};
use karbor_vault::{Account, AccountOptions, MasterKey};
use tokio::sync::Mutex;
use tracing::{info, warn};

use crate::serve::config::{BankConfig, EngineConfig, ProviderConfig};

/// Opens accounts when they are first asked for, and keeps them open.
pub(crate) struct ServiceBanks {
    /// Bank by provider.
    by_provider: HashMap<ProviderId, Arc<dyn Bank>>,
    /// The names of banks, for cache directories.
    names: HashMap<ProviderId, String>,
    masters: Vec<MasterKey>,
    options: AccountOptions,
    cache: PathBuf,
    accounts: Mutex<HashMap<(String, ProjectId), Account>>,
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

    async fn open(&self, provider: ProviderId, project: &ProjectId) -> karbor_plugin::Result<Account> {
        let (Some(bank), Some(name)) = (self.by_provider.get(&provider), self.names.get(&provider)) else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("provider {provider} is not configured here"),
            ));
        };
        // Held while opening: two operations of a project must not open its account, and its cache, twice.
        let mut accounts = self.accounts.lock().await;
        let key = (name.clone(), project.clone());
        if let Some(account) = accounts.get(&key) {
            return Ok(account.clone());
        }
        let id = AccountId::new(project.as_str()).map_err(|err| {
            Error::new(ErrorKind::Invalid, "the project's id cannot name a bank account").with_source(err)
        })?;
        let options = AccountOptions { cache_dir: Some(self.cache.join(name)), ..self.options.clone() };
        let account = Account::open_or_create(Arc::clone(bank), id, &self.masters, options)
            .await
            .map_err(Error::from)?;
        accounts.insert(key, account.clone());
        Ok(account)
    }
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
    ) -> std::result::Result<bool, Box<dyn std::error::Error + Send + Sync>> {
        let account = self.open(provider.id(), project).await?;
        Ok(account.find(checkpoint).await?.is_some())
    }
}
