//! `karbor restore …`

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::client::elsewhere::Elsewhere;
use crate::client::output::bytes;
use crate::client::{Client, Output, checkpoint, follow, plan};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the restores
    List {
        /// Only in this state: in_progress, success or fail
        #[arg(long)]
        status: Option<String>,
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Show one restore
    Show {
        /// Id
        restore: String,
    },
    /// Bring a checkpoint back
    Create {
        /// Checkpoint, by id
        checkpoint: String,
        /// Parameter as TYPE.member=value or TYPE#ID.member=value; can be given several times
        #[arg(long = "parameter", short = 'p', value_name = "KEY=VALUE")]
        parameters: Vec<String>,
        /// The Keystone of another site, whose cloud the checkpoint is restored into
        #[arg(long, value_name = "URL", requires = "as_user")]
        into_site: Option<String>,
        #[command(flatten)]
        elsewhere: Elsewhere,
        /// Only show what would be done, and what would fail
        #[arg(long)]
        dry_run: bool,
        /// Follow it until it has ended, and fail if it does
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
            output.list(&client.list("/restores", "restores", &query, limit).await?, &COLUMNS)
        }
        Command::Show { restore } => {
            output.object(&client.get(&format!("/restores/{restore}"), &[]).await?["restore"].take())
        }
        Command::Create { checkpoint, parameters, into_site, elsewhere, dry_run, wait } => {
            let (provider, found) = checkpoint::find(client, &checkpoint).await?;
            let mut body = json!({"restore": {
                "provider_id": provider, "checkpoint_id": found["id"],
                "parameters": plan::parse_parameters(&parameters)?}});
            if let Some(auth) = elsewhere.auth()? {
                body["restore"]["restore_auth"] = auth;
                body["restore"]["restore_target"] = json!(into_site);
            }
            if dry_run {
                body["restore"]["dry_run"] = Value::Bool(true);
            }
            let made = client.post("/restores", &body).await?["restore"].take();
            let id = made["id"].as_str().context("the service sent a restore without an id")?.to_owned();
            if !wait && !dry_run {
                output.say(&format!("Restoring; follow it with `karbor operation watch {id}`"))?;
                return output.object(&made);
            }
            let operation = follow::to_the_end(client, output, &id).await?;
            if dry_run {
                let rows = planned(&operation);
                let columns = [
                    ("Resource", "resource"),
                    ("Effect", "effect"),
                    ("Subject", "subject"),
                    ("Problem", "problem"),
                ];
                output.list(&rows, &columns)?;
                if operation["state"] != "succeeded" {
                    bail!("{}", follow::failure("the restore would fail: it", &operation));
                }
                return match rows.iter().filter(|row| row["problem"].is_string()).count() {
                    0 => output.say("Nothing was done; the restore is expected to succeed"),
                    problems => bail!("nothing was done; {problems} of {} things would fail", rows.len()),
                };
            }
            let shown = client.get(&format!("/restores/{id}"), &[]).await?["restore"].take();
            if shown["status"] != "success" {
                bail!("{}", follow::failure(&format!("restore {id}"), &operation));
            }
            if output.is_json() {
                return output.json(&json!({"restore": shown, "operation": operation}));
            }
            let restored = operation["progress"]["bytes_done"].as_u64().unwrap_or(0);
            output.say(&format!("Restore {id} succeeded: {} restored and compared", bytes(restored)))
        }
    }
}

/// Returns what a dry run found, a row for each action and for each problem that is not of one action.
fn planned(operation: &Value) -> Vec<Value> {
    let mut rows = Vec::new();
    for resource in operation["result"]["plan"].as_array().into_iter().flatten() {
        let text = |member: &str| resource[member].as_str().unwrap_or_default();
        let name =
            format!("{} {}", text("type"), if text("name").is_empty() { text("id") } else { text("name") });
        for action in resource["actions"].as_array().into_iter().flatten() {
            let mut row = action.clone();
            row["resource"] = json!(name);
            rows.push(row);
        }
        for problem in resource["problems"].as_array().into_iter().flatten() {
            rows.push(json!({"resource": name, "effect": "none", "problem": problem}));
        }
    }
    rows
}
