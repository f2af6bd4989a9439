//! `karbor schedule …`: scheduled operations.

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Map, json};

use crate::client::trigger::{self, id};
use crate::client::{Client, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List what is scheduled
    List {
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Show one scheduled operation
    Show {
        /// Scheduled operation, by id or name
        scheduled_operation: String,
    },
    /// Protect a plan whenever a trigger says so
    Create {
        /// Its name
        name: String,
        /// Plan, by id or name
        plan: String,
        /// Trigger, by id or name
        trigger: String,
        /// What it is for
        #[arg(long)]
        description: Option<String>,
        /// Keep so many checkpoints, and delete older ones
        #[arg(long, value_name = "COUNT")]
        max_backups: Option<u32>,
        /// Keep checkpoints for so many days, and delete older ones
        #[arg(long, value_name = "DAYS")]
        retention_days: Option<u32>,
    },
    /// List what was run of a scheduled operation, and what was not, and why
    Runs {
        /// Scheduled operation, by id or name
        scheduled_operation: String,
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Pause a scheduled operation: what is due meanwhile is skipped
    Pause {
        /// Scheduled operation, by id or name
        scheduled_operation: String,
    },
    /// Resume a scheduled operation that was paused
    Resume {
        /// Scheduled operation, by id or name
        scheduled_operation: String,
    },
    /// Run a scheduled operation now
    Run {
        /// Scheduled operation, by id or name
        scheduled_operation: String,
    },
    /// Show which checkpoints retention would delete, and why
    Retention {
        /// Scheduled operation, by id or name
        scheduled_operation: String,
    },
    /// Delete scheduled operations
    Delete {
        /// Scheduled operations, by id or name
        #[arg(required = true)]
        scheduled_operations: Vec<String>,
    },
}

const COLUMNS: [(&str, &str); 5] = [
    ("ID", "id"),
    ("Name", "name"),
    ("Type", "operation_type"),
    ("Plan", "operation_definition.plan_id"),
    ("Trigger", "trigger_id"),
];
const RUN_COLUMNS: [(&str, &str); 6] = [
    ("Occurrence", "occurrence"),
    ("Origin", "origin"),
    ("Status", "status"),
    ("Reason", "reason"),
    ("Attempt", "attempt"),
    ("Checkpoint", "checkpoint_id"),
];
const PATH: &str = "/scheduled_operations";

pub(crate) async fn run(client: &Client, output: &Output, command: Command) -> Result<()> {
    let what = "scheduled operation";
    match command {
        Command::List { limit } => output.list(&client.list(PATH, "operations", &[], limit).await?, &COLUMNS),
        Command::Show { scheduled_operation } => {
            output.object(&client.find(PATH, "operations", what, &scheduled_operation).await?)
        }
        Command::Create { name, plan, trigger, description, max_backups, retention_days } => {
            let plan = client.find("/plans", "plans", "plan", &plan).await?;
            let trigger = trigger::find(client, &trigger).await?;
            let mut definition = Map::from_iter([
                ("plan_id".to_owned(), plan["id"].clone()),
                ("provider_id".to_owned(), plan["provider_id"].clone()),
            ]);
            definition.extend(max_backups.map(|count| ("max_backups".to_owned(), json!(count))));
            definition.extend(retention_days.map(|days| ("retention_duration".to_owned(), json!(days))));
            let retains = max_backups.is_some() || retention_days.is_some();
            let body = json!({"scheduled_operation": {
                "name": name, "description": description, "trigger_id": trigger["id"],
                "operation_type": if retains { "retention_protect" } else { "protect" },
                "operation_definition": definition}});
            output.object(&client.post(PATH, &body).await?["scheduled_operation"].take())
        }
        Command::Runs { scheduled_operation, limit } => {
            let found = client.find(PATH, "operations", what, &scheduled_operation).await?;
            let path = format!("{PATH}/{}/runs", id(&found));
            output.list(&client.list(&path, "runs", &[], limit).await?, &RUN_COLUMNS)
        }
        Command::Pause { scheduled_operation } => {
            set_enabled(client, output, &scheduled_operation, false).await
        }
        Command::Resume { scheduled_operation } => {
            set_enabled(client, output, &scheduled_operation, true).await
        }
        Command::Run { scheduled_operation } => {
            let found = client.find(PATH, "operations", what, &scheduled_operation).await?;
            let path = format!("{PATH}/{}/runs", id(&found));
            output.object(&client.post(&path, &json!({"run": {}})).await?["run"].take())
        }
        Command::Retention { scheduled_operation } => {
            let found = client.find(PATH, "operations", what, &scheduled_operation).await?;
            let mut answer = client.get(&format!("{PATH}/{}/retention", id(&found)), &[]).await?;
            let retention = answer["retention"].take();
            if output.is_json() {
                return output.json(&retention);
            }
            let columns = [
                ("ID", "id"),
                ("Created", "created_at"),
                ("Status", "status"),
                ("Would", "action"),
                ("Because", "reason"),
            ];
            output.list(retention["checkpoints"].as_array().map_or(&[], Vec::as_slice), &columns)
        }
        Command::Delete { scheduled_operations } => {
            for name in scheduled_operations {
                let found = client.find(PATH, "operations", what, &name).await?;
                client.delete(&format!("{PATH}/{}", id(&found))).await?;
                output.say(&format!("Deleted scheduled operation {name}"))?;
            }
            Ok(())
        }
    }
}

async fn set_enabled(client: &Client, output: &Output, name: &str, enabled: bool) -> Result<()> {
    let found = client.find(PATH, "operations", "scheduled operation", name).await?;
    let body = json!({"scheduled_operation": {"enabled": enabled}});
    let mut changed = client.put(&format!("{PATH}/{}", id(&found)), &body).await?;
    output.object(&changed["scheduled_operation"].take())
}
