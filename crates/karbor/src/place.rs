//! Banks by their URL, with what every use of them wants: credentials from the environment, and retries.

use std::sync::Arc;

use anyhow::{Context, Result};
use karbor_bank::wrap::{RetryOptions, Retrying};
use karbor_bank::{Bank, BankUrl, OpenOptions};

/// Opens a bank that exists.
pub(crate) async fn open(url: &str) -> Result<Arc<dyn Bank>> {
    let parsed: BankUrl = url.parse().with_context(|| format!("`{url}` names no bank"))?;
    let bank = karbor_bank::open_url(&parsed, &options()).await;
    let bank =
        bank.with_context(|| format!("there is no bank at {url}: `karbor bank init {url}` makes one"))?;
    Ok(retrying(bank))
}

/// Opens a bank, and makes its directory if it is none yet.
pub(crate) async fn create(url: &str) -> Result<Arc<dyn Bank>> {
    let parsed: BankUrl = url.parse().with_context(|| format!("`{url}` names no bank"))?;
    let bank = karbor_bank::create_url(&parsed, &options()).await;
    Ok(retrying(bank.with_context(|| format!("opening the bank {url}"))?))
}

fn options() -> OpenOptions {
    OpenOptions::from_environment(|name| std::env::var(name).ok())
}

fn retrying(bank: Arc<dyn Bank>) -> Arc<dyn Bank> {
    // Only spreads retries of many clients over time: any number that differs between processes will do.
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    Arc::new(Retrying::new(bank, RetryOptions::default(), seed))
}
