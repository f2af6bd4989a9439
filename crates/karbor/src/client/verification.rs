//! `karbor verification …`

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde_json::json;

use crate::client::{Client, Output, checkpoint, follow, plan};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the verifications
    List {
        /// Only in this state: in_progress, success or fail
        #[arg(long)]
        status: Option<String>,
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Show one verification
    Show {
        /// Id
        verification: String,
    },
    /// Check that a checkpoint is whole
    Create {
        /// Checkpoint, by id
        checkpoint: String,
        /// Parameter as TYPE.member=value or TYPE#ID.member=value; can be given several times
        #[arg(long = "parameter", short = 'p', value_name = "KEY=VALUE")]
        parameters: Vec<String>,
        /// How much is read: structure, sample or all
        #[arg(long, value_parser = ["structure", "sample", "all"])]
        mode: Option<String>,
        /// How many percent of the chunks a sample reads
        #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100), requires = "mode")]
        sample_percent: Option<u8>,
        /// Follow it until it has ended, and fail if something is damaged
        #[arg(long)]
        wait: bool,
    },
}

const COLUMNS: [(&str, &str); 4] =
    [("ID", "id"), ("Status", "status"), ("Checkpoint", "checkpoint_id"), ("Resources", "resources_status")];

pub(crate) async fn run(client: &Client, output: &Output, command: Command) -> Result<()> {
    match command {
        Command::List { status, limit } => {
            let query: Vec<(&str, String)> = status.into_iter().map(|status| ("status", status)).collect();
            output.list(&client.list("/verifications", "verifications", &query, limit).await?, &COLUMNS)
        }
        Command::Show { verification } => {
            let path = format!("/verifications/{verification}");
            output.object(&client.get(&path, &[]).await?["verification"].take())
        }
        Command::Create { checkpoint, parameters, mode, sample_percent, wait } => {
            let (provider, found) = checkpoint::find(client, &checkpoint).await?;
            let mut body = json!({"verification": {
                "provider_id": provider, "checkpoint_id": found["id"],
                "parameters": plan::parse_parameters(&parameters)?}});
            if let Some(mode) = mode {
                body["verification"]["mode"] = json!(mode);
            }
            if let Some(percent) = sample_percent {
                body["verification"]["sample_percent"] = json!(percent);
            }
            let made = client.post("/verifications", &body).await?["verification"].take();
            let id = made["id"].as_str().context("the service sent a verification without an id")?.to_owned();
            if !wait {
                output.say(&format!("Verifying; follow it with `karbor operation watch {id}`"))?;
                return output.object(&made);
            }
            let operation = follow::to_the_end(client, output, &id).await?;
            let shown = client.get(&format!("/verifications/{id}"), &[]).await?["verification"].take();
            if shown["status"] != "success" {
                bail!("{}", follow::failure(&format!("verification {id}"), &operation));
            }
            if output.is_json() {
                return output.object(&shown);
            }
            output.say(&format!("Verification {id}: the checkpoint is whole"))
        }
    }
}
