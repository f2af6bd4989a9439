//! `karbor bank …`: what can be done with a bank and its key alone, without service and database.

mod backup;
mod maintain;
mod meter;
mod restore;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use karbor_bank::Bank;
use karbor_types::{AccountId, CheckpointId, CheckpointMetadata};
use karbor_vault::{Account, AccountOptions, CheckpointInfo};
use serde_json::{Value, json};

use crate::client::{Output, bytes};
use crate::key;

/// Where the bank is.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// A directory, or s3://bucket/prefix
    #[arg(value_name = "BANK")]
    url: String,
}

/// How an account of the bank is opened.
#[derive(Debug, Clone, Args)]
pub(crate) struct Opening {
    #[command(flatten)]
    place: Place,
    /// File with the master key; without it, KARBOR_MASTER_KEY holds the key itself
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Account in the bank; the service has one for each project, under the project's id
    #[arg(long, default_value = "default", value_name = "ACCOUNT")]
    account: AccountId,
    /// Where the index is cached; can be deleted at any time [default: ~/.cache/karbor]
    #[arg(long, env = "KARBOR_CACHE_DIR", value_name = "DIR")]
    cache_dir: Option<PathBuf>,
}

/// Commands on a bank.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a bank and an account in it; makes the key if there is none
    Init {
        #[command(flatten)]
        opening: Opening,
    },
    /// Back up a file, block device or directory; prints the checkpoint's id
    Backup {
        #[command(flatten)]
        opening: Opening,
        /// What it is called from one backup to the next
        name: String,
        /// What to back up
        path: PathBuf,
        #[command(flatten)]
        options: backup::Options,
    },
    /// List the checkpoints
    List {
        #[command(flatten)]
        opening: Opening,
    },
    /// Restore a checkpoint to a file, block device or directory
    Restore {
        #[command(flatten)]
        opening: Opening,
        /// Id of the checkpoint, or `latest:NAME`
        checkpoint: String,
        /// Where to; a directory for a directory, a file or block device for what was one
        target: PathBuf,
        #[command(flatten)]
        options: restore::Options,
    },
    /// Check that checkpoints are whole
    Verify {
        #[command(flatten)]
        opening: Opening,
        /// Id of the checkpoint, or `latest:NAME`; all when left out
        checkpoint: Option<String>,
        /// Read every byte, and not only what says where they are
        #[arg(long)]
        read_data: bool,
    },
    /// Check every object of a bank against its name; needs no key
    Scrub {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        options: maintain::ScrubArguments,
    },
    /// Copy a checkpoint into another bank or account
    Copy {
        #[command(flatten)]
        opening: Opening,
        /// Id of the checkpoint, or `latest:NAME`
        checkpoint: String,
        /// The other bank
        to: String,
        /// File with the other bank's master key
        #[arg(long, value_name = "FILE")]
        to_key_file: PathBuf,
        /// Account in the other bank [default: as in this one]
        #[arg(long, value_name = "ACCOUNT")]
        to_account: Option<AccountId>,
    },
    /// Delete a checkpoint; a sweep frees what only it needed
    Delete {
        #[command(flatten)]
        opening: Opening,
        /// Id of the checkpoint, or `latest:NAME`
        checkpoint: String,
    },
    /// Free what no checkpoint needs; can run beside everything else
    Sweep {
        #[command(flatten)]
        opening: Opening,
        #[command(flatten)]
        options: maintain::SweepArguments,
    },
    /// Show what is in an account
    Stats {
        #[command(flatten)]
        opening: Opening,
    },
    /// Change the master key; nothing but the account's key slot is written anew
    Rotate {
        #[command(flatten)]
        opening: Opening,
        /// File with the new master key; made if there is none
        #[arg(long, value_name = "FILE")]
        new_key_file: PathBuf,
    },
    /// Build the bank's index again from the packs
    RebuildIndex {
        #[command(flatten)]
        opening: Opening,
    },
}

/// Something in the bank is damaged: the command did its work, and the exit status tells.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Damage(pub(crate) String);

/// Runs one command.
pub(crate) async fn run(output: &Output, command: Command) -> Result<()> {
    match command {
        Command::Init { opening } => init(output, &opening).await,
        Command::Backup { opening, name, path, options } => {
            backup::run(output, &opening, &name, &path, &options).await
        }
        Command::List { opening } => list(output, &opening).await,
        Command::Restore { opening, checkpoint, target, options } => {
            restore::run(output, &opening, &checkpoint, &target, &options).await
        }
        Command::Verify { opening, checkpoint, read_data } => {
            maintain::verify(output, &opening, checkpoint.as_deref(), read_data).await
        }
        Command::Scrub { place, options } => maintain::scrub(output, &place, &options).await,
        Command::Copy { opening, checkpoint, to, to_key_file, to_account } => {
            let target = Opening {
                place: Place { url: to },
                key_file: Some(to_key_file),
                account: to_account.unwrap_or_else(|| opening.account.clone()),
                cache_dir: opening.cache_dir.clone(),
            };
            maintain::copy(output, &opening, &checkpoint, &target).await
        }
        Command::Delete { opening, checkpoint } => {
            let account = opening.open().await?;
            let id = find(&account, &checkpoint).await?.id;
            account.delete(id).await.with_context(|| format!("deleting checkpoint {id}"))?;
            output.say(&format!("Deleted checkpoint {id}; `karbor bank sweep` frees what only it needed"))
        }
        Command::Sweep { opening, options } => maintain::sweep(output, &opening, &options).await,
        Command::Stats { opening } => maintain::stats(output, &opening).await,
        Command::Rotate { opening, new_key_file } => maintain::rotate(output, &opening, &new_key_file).await,
        Command::RebuildIndex { opening } => maintain::rebuild_index(output, &opening).await,
    }
}

impl Place {
    /// Opens the bank and tries what it can do.
    async fn open(&self) -> Result<Arc<dyn Bank>> {
        let bank = crate::place::open(&self.url).await?;
        karbor_bank::read_descriptor(&*bank).await.with_context(|| {
            format!("{} holds no bank: `karbor bank init {}` makes one", bank.name(), self.url)
        })?;
        Ok(bank)
    }
}

impl Opening {
    /// Opens an account that exists.
    async fn open(&self) -> Result<Account> {
        let bank = self.place.open().await?;
        let masters = [key::read(self.key_file.as_deref())?];
        Account::open(bank, self.account.clone(), &masters, self.options())
            .await
            .with_context(|| format!("opening account {} of {}", self.account, self.place.url))
    }

    fn options(&self) -> AccountOptions {
        let cache = self.cache_dir.clone().or_else(|| {
            let home = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let home =
                home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
            home.map(|home| home.join("karbor"))
        });
        AccountOptions { cache_dir: cache, ..AccountOptions::default() }
    }
}

async fn init(output: &Output, opening: &Opening) -> Result<()> {
    let url = &opening.place.url;
    let bank = crate::place::create(url).await?;
    let (descriptor, capabilities) =
        karbor_bank::attach(&*bank).await.with_context(|| format!("trying the bank {url}"))?;
    let (master, made) = key::read_or_make(opening.key_file.as_deref())?;
    let account = Account::open_or_create(
        Arc::clone(&bank),
        opening.account.clone(),
        std::slice::from_ref(&master),
        opening.options(),
    )
    .await
    .with_context(|| format!("making account {} of {url}", opening.account))?;
    if output.is_json() {
        return output
            .json(&json!({"bank": descriptor.id, "account": account.id(), "capabilities": capabilities}));
    }
    for shortcoming in capabilities.shortcomings() {
        output.say(&format!("note: {shortcoming}"))?;
    }
    if let (true, Some(path)) = (made, &opening.key_file) {
        output.say(&format!(
            "Made the master key {}: keep a copy of it elsewhere, without it nothing in the bank can be read",
            path.display()
        ))?;
    }
    output.say(&format!("Account {} of {} is ready", account.id(), bank.name()))
}

async fn list(output: &Output, opening: &Opening) -> Result<()> {
    let account = opening.open().await?;
    let mut checkpoints = account.checkpoints().await.context("listing the checkpoints")?;
    checkpoints.sort_by_key(|info| info.created_at);
    let rows: Vec<Value> = checkpoints.iter().map(row).collect();
    let columns =
        [("ID", "id"), ("Name", "name"), ("Created", "created_at"), ("Size", "size"), ("Added", "added")];
    output.list(&rows, &columns)
}

fn row(info: &CheckpointInfo) -> Value {
    json!({
        "id": info.id, "name": name_of(info), "created_at": info.created_at.to_string(),
        "size": bytes(info.logical_bytes), "added": bytes(info.stored_bytes),
        "logical_bytes": info.logical_bytes, "stored_bytes": info.stored_bytes})
}

/// Returns what a checkpoint is called: the name given to `backup`, or its plan's.
fn name_of(info: &CheckpointInfo) -> String {
    CheckpointMetadata::from_json(&info.metadata).map(|metadata| metadata.plan.name).unwrap_or_default()
}

/// Finds the checkpoint that an id or `latest:NAME` stands for.
async fn find(account: &Account, text: &str) -> Result<CheckpointInfo> {
    if let Some(name) = text.strip_prefix("latest:") {
        let found = latest(account, name).await?;
        return found.with_context(|| {
            format!("there is no checkpoint called `{name}`: `karbor bank list` shows all")
        });
    }
    let id: CheckpointId = text.parse().with_context(|| {
        format!("`{text}` names no checkpoint: give an id as `karbor bank list` shows them, or latest:NAME")
    })?;
    let found = account.find(id).await.with_context(|| format!("looking for checkpoint {id}"))?;
    found.with_context(|| format!("there is no checkpoint {id}: `karbor bank list` shows all"))
}

/// Returns the newest checkpoint of a name.
async fn latest(account: &Account, name: &str) -> Result<Option<CheckpointInfo>> {
    let checkpoints = account.checkpoints().await.context("listing the checkpoints")?;
    Ok(checkpoints.into_iter().filter(|info| name_of(info) == name).max_by_key(|info| info.created_at))
}

/// Returns the time.
fn now() -> karbor_types::Instant {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    karbor_types::Instant::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
