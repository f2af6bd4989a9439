//! `karbor bank-account …`: a project's areas in banks.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde_json::{Map, Value, json};

use crate::client::{Client, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the project's areas, one in each bank
    List {
        /// Those of all projects (administrators)
        #[arg(long)]
        all: bool,
    },
    /// Show an area and what it holds
    Show {
        /// Bank, by name
        bank: String,
        /// Another project, by id (administrators)
        #[arg(long)]
        project: Option<String>,
    },
    /// Set where an area lies, how it is opened, and how many bytes it may hold (administrators)
    Set {
        /// Bank, by name
        bank: String,
        /// Another project, by id
        #[arg(long)]
        project: Option<String>,
        /// How many bytes
        #[arg(long, conflicts_with = "no_quota")]
        quota_bytes: Option<u64>,
        /// As many bytes as there is room for
        #[arg(long)]
        no_quota: bool,
        /// Where it lies: a prefix below the bank's own place, or a URL
        #[arg(long, conflicts_with = "no_place")]
        place: Option<String>,
        /// In the bank's own place
        #[arg(long)]
        no_place: bool,
        /// A file of credentials, one NAME=value a line, by the names of the environment's variables; `-` reads them from
        /// the standard input
        #[arg(long, value_name = "FILE", conflicts_with = "no_credentials")]
        credentials: Option<PathBuf>,
        /// As the bank itself is opened
        #[arg(long)]
        no_credentials: bool,
        /// The name of the master key that wraps its key
        #[arg(long, value_name = "NAME", conflicts_with = "no_key_source")]
        key_source: Option<String>,
        /// The first master key
        #[arg(long)]
        no_key_source: bool,
    },
}

const COLUMNS: [(&str, &str); 4] =
    [("Bank", "bank"), ("Project", "project_id"), ("Place", "place"), ("Quota", "quota_bytes")];

pub(crate) async fn run(client: &Client, output: &Output, command: Command) -> Result<()> {
    let of = |bank: &str, project: Option<String>| match project {
        Some(project) => format!("/bank_accounts/{bank}?project_id={project}"),
        None => format!("/bank_accounts/{bank}"),
    };
    match command {
        Command::List { all } => {
            let query = if all { vec![("all_tenants", "1".to_owned())] } else { Vec::new() };
            let mut answer = client.get("/bank_accounts", &query).await?;
            let Value::Array(accounts) = answer["bank_accounts"].take() else {
                return output.list(&[], &COLUMNS);
            };
            output.list(&accounts, &COLUMNS)
        }
        Command::Show { bank, project } => {
            output.object(&client.get(&of(&bank, project), &[]).await?["bank_account"].take())
        }
        Command::Set {
            bank,
            project,
            quota_bytes,
            no_quota,
            place,
            no_place,
            credentials,
            no_credentials,
            key_source,
            no_key_source,
        } => {
            let credentials = credentials.map(|file| read_credentials(&file)).transpose()?;
            let mut change = Map::new();
            for (name, value, none) in [
                ("quota_bytes", quota_bytes.map(Value::from), no_quota),
                ("place", place.map(Value::from), no_place),
                ("credentials", credentials.map(Value::from), no_credentials),
                ("key_source", key_source.map(Value::from), no_key_source),
            ] {
                if value.is_some() || none {
                    change.insert(name.to_owned(), value.unwrap_or(Value::Null));
                }
            }
            if change.is_empty() {
                bail!(
                    "nothing to set: give --quota-bytes, --place, --credentials or --key-source, or one of --no-…"
                );
            }
            let body = json!({"bank_account": change});
            output.object(&client.put(&of(&bank, project), &body).await?["bank_account"].take())
        }
    }
}

/// Reads lines of `NAME=value`; empty ones, and those that begin with `#`, say nothing.
fn read_credentials(file: &Path) -> Result<Map<String, Value>> {
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin()).context("reading credentials from the standard input")?
    } else {
        std::fs::read_to_string(file)
            .with_context(|| format!("reading the credentials in {}", file.display()))?
    };
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| match line.split_once('=') {
            Some((name, value)) => Ok((name.trim().to_owned(), Value::from(value.trim()))),
            None => bail!("line {number} of the credentials is not NAME=value"),
        })
        .collect()
}
