//! Banks by their URL, with what every use of them wants: credentials from the environment, and retries.

use std::sync::Arc;

use anyhow::{Context, Result};
use karbor_bank::wrap::{RetryOptions, Retrying};
use karbor_bank::{Bank, BankUrl, OpenOptions};
use karbor_openstack_client::Profile;

/// Opens a bank that exists.
pub(crate) async fn open(url: &str) -> Result<Arc<dyn Bank>> {
    let parsed: BankUrl = url.parse().with_context(|| format!("`{url}` names no bank"))?;
    let bank = karbor_bank::open_url(&parsed, &options()).await;
    let bank =
        bank.with_context(|| format!("there is no bank at {url}: `karbor bank init {url}` makes one"))?;
    Ok(retrying(bank))
}

/// Opens a bank, and makes its directory or container if it is none yet.
pub(crate) async fn create(url: &str) -> Result<Arc<dyn Bank>> {
    create_in(url, None).await
}

/// As [`create`]; a bank in Swift that names no cloud is in this one, if there is one, else where the environment says.
pub(crate) async fn create_in(url: &str, cloud: Option<Profile>) -> Result<Arc<dyn Bank>> {
    let parsed: BankUrl = url.parse().with_context(|| format!("`{url}` names no bank"))?;
    let mut options = options();
    if let Some(cloud) = cloud {
        options.swift.default = Ok(Some(cloud));
    }
    let bank = karbor_bank::create_url(&parsed, &options).await;
    Ok(retrying(bank.with_context(|| format!("opening the bank {url}"))?))
}

/// Opens a bank as [`create`], with credentials of its own: nothing that lets anybody in comes from the environment.
pub(crate) async fn create_with(
    url: &str,
    credential: impl Fn(&str) -> Option<String> + Send,
) -> Result<Arc<dyn Bank>> {
    let parsed: BankUrl = url.parse().with_context(|| format!("`{url}` names no bank"))?;
    let options = OpenOptions::from_environment(|name| {
        let is_setting = SETTINGS.contains(&name);
        credential(name).or_else(|| is_setting.then(|| std::env::var(name).ok()).flatten())
    });
    let bank = karbor_bank::create_url(&parsed, &options).await;
    Ok(retrying(bank.with_context(|| format!("opening the bank {url}"))?))
}

/// What drivers read from the environment that lets nobody in.
const SETTINGS: [&str; 5] =
    ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "OS_REGION_NAME"];

fn options() -> OpenOptions {
    OpenOptions::from_environment(|name| std::env::var(name).ok())
}

fn retrying(bank: Arc<dyn Bank>) -> Arc<dyn Bank> {
    // Only spreads retries of many clients over time: any number that differs between processes will do.
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    let bank: Arc<dyn Bank> = Arc::new(Retrying::new(bank, RetryOptions::default(), seed));
    #[cfg(feature = "failpoints")]
    let bank = mortal(bank);
    bank
}

/// Lets the process die before or after one of the calls that change the bank: KARBOR_CRASH_AT_CALL is the number of
/// the moment, counted from one, two for each such call. What the call was is written to standard error.
#[cfg(feature = "failpoints")]
#[expect(clippy::print_stderr, reason = "the last words of a process, for the test that kills it")]
fn mortal(bank: Arc<dyn Bank>) -> Arc<dyn Bank> {
    use std::sync::atomic::{AtomicU64, Ordering};

    use karbor_bank::wrap::{Hooked, Moment, Operation};

    static MOMENTS: AtomicU64 = AtomicU64::new(0);
    let Some(last) = std::env::var("KARBOR_CRASH_AT_CALL").ok().and_then(|text| text.parse::<u64>().ok())
    else {
        return bank;
    };
    Arc::new(Hooked::new(bank, move |moment, call| async move {
        let changes = matches!(call.operation, Operation::Put | Operation::Delete);
        if changes && MOMENTS.fetch_add(1, Ordering::SeqCst) + 1 == last {
            let when = if moment == Moment::Before { "before" } else { "after" };
            eprintln!("dies {when} {} {}", call.operation, call.key);
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
        Ok(())
    }))
}
