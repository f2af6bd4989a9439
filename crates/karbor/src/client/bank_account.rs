//! `karbor bank-account …`: a project's areas in banks.

use anyhow::{Result, bail};
use clap::Subcommand;
use serde_json::{Value, json};

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
    /// Set how many bytes an area may hold (administrators)
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
        Command::Set { bank, project, quota_bytes, no_quota } => {
            if quota_bytes.is_none() && !no_quota {
                bail!("nothing to set: give --quota-bytes or --no-quota");
            }
            let body = json!({"bank_account": {"quota_bytes": quota_bytes}});
            output.object(&client.put(&of(&bank, project), &body).await?["bank_account"].take())
        }
    }
}
