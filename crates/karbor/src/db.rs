//! `karbor db …`: the database's schema, its old rows, and what it can be filled from again.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use karbor_store::{OldKarbor, Store, StoreOptions};
use serde_json::{Value, json};

use crate::client::Output;
use crate::serve;

/// Where the settings are.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// Settings (TOML) of the service; without it, its defaults
    #[arg(long, env = "KARBOR_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Commands on the database.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bring the schema to this program's version
    #[command(alias = "migrate")]
    Sync {
        #[command(flatten)]
        place: Place,
    },
    /// Show the version of the schema
    Version {
        #[command(flatten)]
        place: Place,
    },
    /// Remove what was deleted, or has ended, longer ago
    Purge {
        #[command(flatten)]
        place: Place,
        /// How many days it is kept
        days: u32,
    },
    /// Find all checkpoints of all banks again
    ///
    /// The banks are the truth about checkpoints: after the database was lost, their commit records make its rows anew.
    Rebuild {
        #[command(flatten)]
        place: Place,
    },
    /// Take over plans, triggers, scheduled operations, restores and logs of a Python Karbor
    Import {
        #[command(flatten)]
        place: Place,
        /// Its database: mysql://…, postgres://… or sqlite:PATH
        url: String,
    },
}

/// Runs a command.
pub(crate) async fn run(output: &Output, state_dir: &Path, command: Command) -> Result<()> {
    let (Command::Sync { place }
    | Command::Version { place }
    | Command::Purge { place, .. }
    | Command::Rebuild { place }
    | Command::Import { place, .. }) = &command;
    let config = serve::Config::load(place.config.as_deref(), state_dir)?;
    let url = config.database.url.clone().unwrap_or_default();
    let store = Store::open(&url, &StoreOptions::default()).await.context("opening the database")?;
    let done = match command {
        Command::Sync { .. } => {
            store.migrate().await.context("bringing the database up to date")?;
            json!({"version": store.version().await?})
        }
        Command::Version { .. } => json!({"version": store.version().await?}),
        Command::Purge { days, .. } => {
            store.check_version().await?;
            let before = serve::now().plus_seconds(-86_400 * i64::from(days));
            let purged = store.purge(before).await.context("purging")?;
            json!({"plans": purged.plans, "checkpoints": purged.checkpoints, "operations": purged.operations})
        }
        Command::Rebuild { .. } => {
            store.migrate().await.context("bringing the database up to date")?;
            rebuild(&config, state_dir, store.clone()).await?
        }
        Command::Import { url, .. } => {
            store.migrate().await.context("bringing the database up to date")?;
            import(&url, &store).await?
        }
    };
    store.close().await;
    output.object(&done)
}

/// Makes the rows of all checkpoints that stand in the banks of all providers.
async fn rebuild(config: &serve::Config, state_dir: &Path, store: Store) -> Result<Value> {
    let serve::Bare { actions, banks, registry } = serve::bare(config, state_dir, store).await?;
    let (mut projects, mut added, mut gone, mut passed_over) = (0u64, 0, 0, 0);
    for provider in registry.providers() {
        for project in banks.projects(provider.id()).await? {
            let done = actions.refresh(&project, provider).await.with_context(|| {
                format!("reading the checkpoints of {project} at provider {}", provider.name())
            })?;
            projects += 1;
            (added, gone) = (added + done.added, gone + done.gone);
            // A record is seen once for each provider of its bank, and is of one of them.
            passed_over += done.passed_over;
        }
    }
    Ok(json!({"accounts": projects, "added": added, "gone": gone, "passed_over": passed_over}))
}

async fn import(url: &str, store: &Store) -> Result<Value> {
    if let Some(path) = url.strip_prefix("sqlite:").map(|path| path.trim_start_matches("//"))
        && !Path::new(path).exists()
    {
        bail!("there is no file {path}");
    }
    let old = OldKarbor::open(url).await.context("opening the old database")?;
    let done = old.import_into(store, serve::now()).await.context("taking over the old database")?;
    let skipped: Vec<Value> = done
        .skipped
        .iter()
        .map(|one| json!({"what": one.what, "id": one.id, "reason": one.reason}))
        .collect();
    Ok(json!({"taken": done.taken, "known_already": done.known, "left_out": skipped}))
}
