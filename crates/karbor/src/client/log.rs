//! `karbor log …`: what was done.

use anyhow::Result;
use clap::Subcommand;

use crate::client::{Client, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List what was done, newest first
    List {
        /// Only of this plan, by id
        #[arg(long)]
        plan: Option<String>,
        /// Only of this checkpoint, by id
        #[arg(long)]
        checkpoint: Option<String>,
        /// Only what came to this status
        #[arg(long)]
        status: Option<String>,
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Show one record
    Show {
        /// Id
        log: String,
    },
}

const COLUMNS: [(&str, &str); 6] = [
    ("ID", "id"),
    ("Type", "operation_type"),
    ("Status", "status"),
    ("Checkpoint", "checkpoint_id"),
    ("Started", "started_at"),
    ("Ended", "ended_at"),
];

pub(crate) async fn run(client: &Client, output: &Output, command: Command) -> Result<()> {
    match command {
        Command::List { plan, checkpoint, status, limit } => {
            let filters = [("plan_id", plan), ("checkpoint_id", checkpoint), ("status", status)];
            let query: Vec<(&str, String)> =
                filters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            output.list(&client.list("/operation_logs", "operation_logs", &query, limit).await?, &COLUMNS)
        }
        Command::Show { log } => {
            output.object(&client.get(&format!("/operation_logs/{log}"), &[]).await?["operation_log"].take())
        }
    }
}
