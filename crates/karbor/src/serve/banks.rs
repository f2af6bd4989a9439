//! The banks of the service, and each project's account in them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use async_trait::async_trait;
use karbor_actions::{AccountRefusal, BankAccount, BankAccountChange, BankUsage, BoxError};
use karbor_bank::{Bank, Key};
use karbor_plugin::{Error, ErrorKind, Provider};
use karbor_store::{Checkpoint, CheckpointStats, PlanSnapshot, Store};
use karbor_types::{AccountId, CheckpointId, CheckpointMetadata, CheckpointState, ProjectId, ProviderId};
use karbor_vault::{Account, AccountOptions, CheckpointInfo, MasterKey};
use secrecy::ExposeSecret;
use tokio::sync::Mutex;
use tracing::{info, warn};

use crate::serve::accounts::{self, AccountSettings};
use crate::serve::config::{BankConfig, EngineConfig, ProviderConfig};
use crate::serve::first::MasterKeys;
use crate::serve::openstack::ServiceCloud;

/// Under what the accounts of a bank stand.
const ACCOUNTS: &str = "accounts/";

/// By what open accounts are found: the bank's name, and the project.
type AccountKey = (String, ProjectId);

/// Opens accounts when they are first asked for, and keeps them open until somebody says something else of them.
pub(crate) struct ServiceBanks {
    /// The banks as they are configured, by name.
    banks: HashMap<String, Attached>,
    /// The name of its bank, by provider.
    names: HashMap<ProviderId, String>,
    keys: MasterKeys,
    options: AccountOptions,
    cache: PathBuf,
    /// What is said of accounts stands there.
    store: Store,
    accounts: Mutex<HashMap<AccountKey, (AccountSettings, Account)>>,
}

/// A bank as it is configured.
struct Attached {
    url: String,
    bank: Arc<dyn Bank>,
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
        keys: MasterKeys,
        engine: &EngineConfig,
        store: Store,
        cloud: Option<&ServiceCloud>,
    ) -> Result<Self> {
        let mut attached = HashMap::new();
        for config in banks {
            let bank = crate::place::create_in(&config.url, cloud.map(ServiceCloud::profile))
                .await
                .with_context(|| format!("opening the bank `{}`", config.name))?;
            let (descriptor, capabilities) = karbor_bank::attach(&*bank)
                .await
                .with_context(|| format!("trying the bank `{}` at {}", config.name, bank.name()))?;
            for shortcoming in capabilities.shortcomings() {
                warn!(bank.name = %config.name, "Bank {}: {shortcoming}", config.name);
            }
            info!(bank.name = %config.name, bank.id = %descriptor.id, "Attached bank {} at {}", config.name, bank.name());
            attached.insert(config.name.clone(), Attached { url: config.url.clone(), bank });
        }
        let names = providers.iter().map(|provider| (provider.id, provider.bank.clone())).collect();
        let options = AccountOptions {
            memory_bytes: engine.memory_mib << 20,
            pack_bytes: engine.pack_mib << 20,
            compression_level: engine.compression_level,
            ..AccountOptions::default()
        };
        let cache = engine.cache_directory.clone().unwrap_or_default();
        Ok(Self { banks: attached, names, keys, options, cache, store, accounts: Mutex::default() })
    }

    /// Opens an account if it is there.
    async fn open_existing(
        &self,
        provider: ProviderId,
        project: &ProjectId,
    ) -> karbor_plugin::Result<Option<Account>> {
        let (name, settings) = self.settings(provider, project).await?;
        if let Some(account) = self.known(name, project, &settings).await {
            return Ok(Some(account));
        }
        let id = account_id(project)?;
        let bank = self.bank_of(name, project, &settings).await?;
        let keys = self.keys_of(&settings)?;
        // Only to see whether it is there: the cache is its keeper's.
        let options = self.options.clone();
        match Account::open(bank, id, &keys, options).await {
            Err(karbor_vault::Error::NotFound { .. }) => Ok(None),
            Err(err) => Err(Error::from(err)),
            // Somebody else may have opened it meanwhile; one cache has one keeper.
            Ok(_) => self.open(provider, project).await.map(Some),
        }
    }

    async fn known(&self, name: &str, project: &ProjectId, settings: &AccountSettings) -> Option<Account> {
        let accounts = self.accounts.lock().await;
        let (at, account) = accounts.get(&(name.to_owned(), project.clone()))?;
        (at == settings).then(|| account.clone())
    }

    fn name(&self, provider: ProviderId) -> karbor_plugin::Result<&str> {
        self.names.get(&provider).map(String::as_str).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("provider {provider} is not configured here"))
        })
    }

    /// Looks up what is said of an account: another process may have been told.
    async fn settings(
        &self,
        provider: ProviderId,
        project: &ProjectId,
    ) -> karbor_plugin::Result<(&str, AccountSettings)> {
        let name = self.name(provider)?;
        let row = self.store.known_bank_account(project, name).await.map_err(|err| {
            Error::new(ErrorKind::Unavailable, "the database cannot be asked about the bank account")
                .with_source(err)
        })?;
        Ok((name, AccountSettings::of(row)))
    }

    fn keys_of(&self, settings: &AccountSettings) -> karbor_plugin::Result<Vec<MasterKey>> {
        let name = settings.key_source.as_deref();
        self.keys.led_by(name).ok_or_else(|| {
            let name = name.unwrap_or_default();
            Error::new(ErrorKind::Invalid, format!("there is no master key `{name}` in keys.named"))
        })
    }

    /// Returns the bank in which an account lies.
    async fn bank_of(
        &self,
        name: &str,
        project: &ProjectId,
        settings: &AccountSettings,
    ) -> karbor_plugin::Result<Arc<dyn Bank>> {
        let attached = self.banks.get(name).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("the bank `{name}` is not configured here"))
        })?;
        if settings.is_in_bank() {
            return Ok(Arc::clone(&attached.bank));
        }
        let opened = async {
            let all: Vec<&str> = self.banks.values().map(|attached| attached.url.as_str()).collect();
            let url = accounts::url_of(&attached.url, settings.place.as_deref(), &all)?;
            match &settings.credentials {
                None => crate::place::create(&url).await,
                Some(sealed) => {
                    let credentials = accounts::open(&self.keys, project, name, sealed)?;
                    let one = |name: &str| Some(credentials.get(name)?.expose_secret().to_owned());
                    crate::place::create_with(&url, one).await
                }
            }
        };
        opened.await.map_err(|err| {
            Error::new(
                ErrorKind::Unavailable,
                format!("the account's own place in the bank `{name}` cannot be opened"),
            )
            .with_source(std::io::Error::other(format!("{err:#}")))
        })
    }

    /// Lists the projects that have an account in a provider's bank, or in a place of their own beside it.
    pub(crate) async fn projects(&self, provider: ProviderId) -> Result<Vec<ProjectId>> {
        let name = self.name(provider)?;
        let bank = &self.banks.get(name).context("the provider has no bank")?.bank;
        let placed = self.store.list_bank_accounts(None).await.context("listing what is said of accounts")?;
        let placed = placed.into_iter().filter(|row| row.bank == name && row.place.is_some());
        let mut found: Vec<ProjectId> = placed.map(|row| row.project).collect();
        let mut after: Option<Key> = None;
        loop {
            let first =
                bank.list(ACCOUNTS, after.as_ref(), 1).await.context("listing the accounts of a bank")?;
            let Some(first) = first.first() else { return Ok(found) };
            let name = first.key.as_str().strip_prefix(ACCOUNTS).and_then(|rest| rest.split('/').next());
            let name = name.context("a bank lists what was not asked for")?;
            if let Ok(project) = ProjectId::new(name)
                && !found.contains(&project)
            {
                found.push(project);
            }
            // `0` comes right after `/`: everything below this account is passed over.
            after = Some(Key::new(format!("{ACCOUNTS}{name}0")).context("naming the next account")?);
        }
    }

    async fn open(&self, provider: ProviderId, project: &ProjectId) -> karbor_plugin::Result<Account> {
        let (name, settings) = self.settings(provider, project).await?;
        // Held while opening: two operations of a project must not open its account, and its cache, twice.
        let mut accounts = self.accounts.lock().await;
        let key = (name.to_owned(), project.clone());
        if let Some((at, account)) = accounts.get(&key)
            && *at == settings
        {
            return Ok(account.clone());
        }
        let id = account_id(project)?;
        let bank = self.bank_of(name, project, &settings).await?;
        let keys = self.keys_of(&settings)?;
        let cache_dir = Some(self.cache.join(settings.cache_name(name)));
        let options = AccountOptions { cache_dir, ..self.options.clone() };
        let account = Account::open_or_create(bank, id, &keys, options).await.map_err(Error::from)?;
        accounts.insert(key, (settings, account.clone()));
        Ok(account)
    }

    /// Tries an account's new settings, and wraps its key as they say.
    async fn try_settings(
        &self,
        name: &str,
        project: &ProjectId,
        standing: &AccountSettings,
        wanted: &AccountSettings,
    ) -> std::result::Result<(), AccountRefusal> {
        let invalid = |err: &dyn std::error::Error| {
            let mut text = err.to_string();
            let mut next = err.source();
            while let Some(err) = next {
                text = format!("{text}: {err}");
                next = err.source();
            }
            AccountRefusal::Invalid(text)
        };
        let keys = self.keys_of(wanted).map_err(|_| {
            let names = self.keys.names().join(", ");
            AccountRefusal::Invalid(format!(
                "key_source must be one of the master keys of this service: {names}"
            ))
        })?;
        let bank = self.bank_of(name, project, wanted).await.map_err(|err| invalid(&err))?;
        if !wanted.is_in_bank() {
            karbor_bank::attach(&*bank).await.map_err(|err| invalid(&err))?;
        }
        if wanted.key_source == standing.key_source {
            return Ok(());
        }
        let id = account_id(project).map_err(|err| invalid(&err))?;
        match Account::open(bank, id, &keys, self.options.clone()).await {
            // It is made with the right key when it is first written to.
            Err(karbor_vault::Error::NotFound { .. }) => Ok(()),
            Err(err) => Err(AccountRefusal::Unavailable(Box::new(err))),
            Ok(account) => {
                let (to, from) =
                    keys.split_first().ok_or_else(|| AccountRefusal::Invalid("no master key".to_owned()))?;
                account.rotate(from, to).await.map_err(|err| AccountRefusal::Unavailable(Box::new(err)))
            }
        }
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

    async fn usage(
        &self,
        project: &ProjectId,
        provider: &Provider,
    ) -> std::result::Result<BankUsage, BoxError> {
        let Some(account) = self.open_existing(provider.id(), project).await? else {
            return Ok(BankUsage::default());
        };
        let stats = account.stats().await?;
        Ok(BankUsage {
            checkpoints: stats.checkpoints,
            logical_bytes: stats.logical_bytes,
            stored_bytes: stats.stored_bytes,
            dead_bytes: stats.dead_bytes,
            total_bytes: stats.total_bytes,
        })
    }

    async fn settle(
        &self,
        project: &ProjectId,
        provider: &Provider,
        standing: &BankAccount,
        change: &BankAccountChange,
    ) -> std::result::Result<Option<Option<String>>, AccountRefusal> {
        let name = provider.bank();
        let sealed = match &change.credentials {
            None => None,
            Some(None) => Some(None),
            Some(Some(credentials)) => match accounts::seal(&self.keys, project, name, credentials) {
                Ok(sealed) => Some(Some(sealed)),
                Err(err) => return Err(AccountRefusal::Unavailable(err.into())),
            },
        };
        let standing = AccountSettings::of(Some(standing.clone()));
        let mut wanted = standing.clone();
        if let Some(place) = &change.place {
            wanted.place.clone_from(place);
        }
        if let Some(sealed) = &sealed {
            wanted.credentials.clone_from(sealed);
        }
        if let Some(source) = &change.key_source {
            wanted.key_source.clone_from(source);
        }
        self.try_settings(name, project, &standing, &wanted).await?;
        Ok(sealed)
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
