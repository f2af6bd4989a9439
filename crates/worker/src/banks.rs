//! Where an operation finds its project's area in a bank.

use std::fmt;

use async_trait::async_trait;
use karbor_types::{ProjectId, ProviderId};
use karbor_vault::Account;

/// Opens bank accounts: of a project, in the bank of a provider.
///
/// Contract: an account that does not exist yet is created. The error's kind tells whether trying again may
/// help ([`karbor_plugin::ErrorKind::Unavailable`]); its message names the bank and what to do, and is safe for
/// the tenant. It is called once per operation and attempt, so an implementation keeps accounts open.
#[async_trait]
pub trait Banks: fmt::Debug + Send + Sync {
    /// Returns the project's account in the provider's bank.
    async fn account(&self, provider: ProviderId, project: &ProjectId) -> karbor_plugin::Result<Account>;
}
