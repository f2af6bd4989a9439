//! `karbor quota …`

use anyhow::{Result, bail};
use clap::Subcommand;
use serde_json::{Map, json};

use crate::client::{Client, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show a project's limits and what it uses of them
    Show {
        /// Project, by id
        project: String,
    },
    /// Set a project's limits (administrators)
    Set {
        /// Project, by id
        project: String,
        /// How many plans; -1 for any number
        #[arg(long, allow_negative_numbers = true)]
        plans: Option<i64>,
        /// How many checkpoints; -1 for any number
        #[arg(long, allow_negative_numbers = true)]
        checkpoints: Option<i64>,
    },
}

pub(crate) async fn run(client: &Client, output: &Output, command: Command) -> Result<()> {
    match command {
        Command::Show { project } => {
            output.object(&client.get(&format!("/quotas/{project}/detail"), &[]).await?["quota"].take())
        }
        Command::Set { project, plans, checkpoints } => {
            let mut limits = Map::new();
            limits.extend(plans.map(|count| ("plans".to_owned(), json!(count))));
            limits.extend(checkpoints.map(|count| ("checkpoints".to_owned(), json!(count))));
            if limits.is_empty() {
                bail!("nothing to set: give --plans or --checkpoints");
            }
            let answer = client.put(&format!("/quotas/{project}"), &json!({"quota": limits})).await;
            output.object(&answer?["quota"].take())
        }
    }
}
