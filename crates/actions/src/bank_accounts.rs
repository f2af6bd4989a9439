//! Bank accounts: a project's area in a bank, how much it may hold, and how much it does.

use std::collections::BTreeMap;

use karbor_plugin::Provider;
use karbor_store::{BankAccount, BankAccountUpdate};
use karbor_types::{ProjectId, ProviderId};
use secrecy::SecretString;
use tracing::info;

use crate::{Actions, BoxError, Caller, Error, Result};

/// What an account holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BankUsage {
    /// Living checkpoints.
    pub checkpoints: u64,
    /// The sizes of all their streams, with holes: what restoring all of them would write.
    pub logical_bytes: u64,
    /// Bytes of packs in the bank.
    pub stored_bytes: u64,
    /// Of these, what no checkpoint reaches: the next sweeps free it.
    pub dead_bytes: u64,
    /// All bytes of the account, with index and records: what its quota limits.
    pub total_bytes: u64,
}

impl BankUsage {
    /// Returns how many logical bytes needed none of their own: they were stored before, are holes, or were compressed.
    pub fn deduplicated_bytes(&self) -> u64 {
        self.logical_bytes.saturating_sub(self.stored_bytes.saturating_sub(self.dead_bytes))
    }
}

/// A project's area in a bank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BankAccountView {
    /// What is said of it.
    pub account: BankAccount,
    /// The providers that keep their checkpoints in that bank.
    pub providers: Vec<ProviderId>,
    /// What it holds, where that was asked for.
    pub usage: Option<BankUsage>,
}

/// What is changed of an account; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct BankAccountChange {
    /// How many bytes it may hold, or as many as there is room for.
    pub quota_bytes: Option<Option<u64>>,
    /// Where it lies: a prefix below the bank's own place, or a place of its own; or the bank's own place.
    pub place: Option<Option<String>>,
    /// How to be let in there, by the names that the bank's driver reads from the environment; or as in the bank itself.
    pub credentials: Option<Option<Credentials>>,
    /// The name of the master key that wraps its key; or the first.
    pub key_source: Option<Option<String>>,
}

impl BankAccountChange {
    /// Returns whether anything but the quota is changed.
    fn changes_access(&self) -> bool {
        self.place.is_some() || self.credentials.is_some() || self.key_source.is_some()
    }
}

/// Credentials by their names.
pub type Credentials = BTreeMap<String, SecretString>;

/// Why an account cannot be as somebody wants it.
#[derive(Debug)]
pub enum AccountRefusal {
    /// What was said is wrong; what and why.
    Invalid(String),
    /// Whatever keeps the bank from answering.
    Unavailable(BoxError),
}

impl Actions {
    /// Lists the accounts of the caller's project, one for each bank; or those of all projects that were used.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub async fn list_bank_accounts(&self, caller: &Caller, everybody: bool) -> Result<Vec<BankAccountView>> {
        self.allow(caller, "bank_account:get_all")?;
        let accounts = if everybody && caller.is_admin {
            self.store().list_bank_accounts(None).await?
        } else {
            let mut accounts = Vec::new();
            for bank in self.banks() {
                accounts.push(self.store().bank_account(&caller.project, &bank, self.now()).await?);
            }
            accounts
        };
        Ok(accounts.into_iter().map(|account| self.bank_account_view(account)).collect())
    }

    /// Returns an account with what it holds. Administrators may name another project.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::NotFound`] of the bank; [`crate::Kind::Unavailable`] when it does not answer.
    pub async fn get_bank_account(
        &self,
        caller: &Caller,
        bank: &str,
        project: Option<ProjectId>,
    ) -> Result<BankAccountView> {
        self.allow(caller, "bank_account:get")?;
        let project = project.unwrap_or_else(|| caller.project.clone());
        if !caller.may_touch(&project) {
            return Err(Error::not_found("bank account", &bank));
        }
        let provider = self.provider_of_bank(bank)?;
        let account = self.store().bank_account(&project, bank, self.now()).await?;
        let usage = self.bank_usage(&project, &provider).await?;
        Ok(BankAccountView { usage: Some(usage), ..self.bank_account_view(account) })
    }

    /// Changes what is said of a project's account in a bank. What is new is tried before it is believed.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::NotFound`] of the bank; [`Error::Invalid`] for a place, credentials or a key that
    /// cannot be used; [`Error::Conflict`] for another place while the account holds something.
    pub async fn update_bank_account(
        &self,
        caller: &Caller,
        bank: &str,
        project: Option<ProjectId>,
        change: BankAccountChange,
    ) -> Result<BankAccountView> {
        self.allow_admin(caller, "bank_account:update")?;
        let provider = self.provider_of_bank(bank)?;
        let project = project.unwrap_or_else(|| caller.project.clone());
        let standing = self.store().bank_account(&project, bank, self.now()).await?;
        if change.place.as_ref().is_some_and(|place| *place != standing.place) {
            let used = self.bank_usage(&project, &provider).await?;
            if used.checkpoints > 0 || used.stored_bytes > 0 {
                return Err(Error::conflict(format!(
                    "the account of {project} in the bank {bank} holds {} checkpoints and {} bytes: it can be moved when \
                     they are deleted and swept",
                    used.checkpoints, used.stored_bytes
                )));
            }
        }
        let settings = if change.changes_access() {
            let settled = self.parts.evidence.settle(&project, &provider, &standing, &change).await;
            settled.map_err(|refusal| match refusal {
                AccountRefusal::Invalid(message) => Error::invalid(message),
                AccountRefusal::Unavailable(source) => Error::Unavailable { what: "the bank", source },
            })?
        } else {
            None
        };
        let update = BankAccountUpdate {
            quota_bytes: change.quota_bytes,
            place: change.place,
            credentials: settings,
            key_source: change.key_source,
        };
        let providers = self.bank_account_view(standing).providers;
        let changed =
            self.store().update_bank_account(&project, bank, &update, &providers, self.now()).await?;
        info!(
            project.id = %project, user.id = %caller.user, bank.name = %bank,
            "Changed the account of project {project} in the bank {bank}"
        );
        Ok(self.bank_account_view(changed))
    }

    /// Fails when a project has used up its bytes in a provider's bank. What is being written is looked at again
    /// before it is committed.
    pub(crate) async fn has_room(&self, project: &ProjectId, provider: &Provider) -> Result<()> {
        let account = self.store().bank_account(project, provider.bank(), self.now()).await?;
        let Some(limit) = account.quota_bytes else { return Ok(()) };
        let used = self.bank_usage(project, provider).await?.total_bytes;
        if used < limit {
            return Ok(());
        }
        Err(Error::BankFull { bank: provider.bank().to_owned(), limit, used })
    }

    async fn bank_usage(&self, project: &ProjectId, provider: &Provider) -> Result<BankUsage> {
        let usage = self.parts.evidence.usage(project, provider).await;
        usage.map_err(|source| Error::Unavailable { what: "the bank", source })
    }

    fn bank_account_view(&self, account: BankAccount) -> BankAccountView {
        let providers = self.registry().providers().filter(|provider| provider.bank() == account.bank);
        BankAccountView { providers: providers.map(|provider| provider.id()).collect(), account, usage: None }
    }

    /// Returns the names of all banks, each once.
    fn banks(&self) -> Vec<String> {
        let mut banks: Vec<String> =
            self.registry().providers().map(|provider| provider.bank().to_owned()).collect();
        banks.sort_unstable();
        banks.dedup();
        banks
    }

    fn provider_of_bank(&self, bank: &str) -> Result<std::sync::Arc<Provider>> {
        let found = self.registry().providers().find(|provider| provider.bank() == bank);
        found.cloned().ok_or_else(|| Error::not_found("bank", &bank))
    }
}
