//! `karbor quota …`

use anyhow::{Result, bail};
use clap::Subcommand;
use serde_json::{Map, Value, json};

use crate::client::{Client, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show a project's limits and what it uses of them
    Show {
        /// Project, by id
        project: String,
    },
    /// Show the limits of projects that have none of their own
    Defaults {
        /// Project, by id
        project: String,
    },
    /// Go back to the defaults (administrators)
    Delete {
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
        Command::Defaults { project } => {
            output.object(&client.get(&format!("/quotas/{project}/defaults"), &[]).await?["quota"].take())
        }
        Command::Delete { project } => {
            client.delete(&format!("/quotas/{project}")).await?;
            output.say(&format!("Project {project} has the default limits again"))
        }
        Command::Set { project, plans, checkpoints } => {
            let limits = limits(plans, checkpoints)?;
            let answer = client.put(&format!("/quotas/{project}"), &json!({"quota": limits})).await;
            output.object(&answer?["quota"].take())
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClassCommand {
    /// Show the limits of a class
    Show {
        /// Class, by name
        class: String,
    },
    /// Set the limits of a class (administrators)
    Set {
        /// Class, by name
        class: String,
        /// How many plans; -1 for any number
        #[arg(long, allow_negative_numbers = true)]
        plans: Option<i64>,
        /// How many checkpoints; -1 for any number
        #[arg(long, allow_negative_numbers = true)]
        checkpoints: Option<i64>,
    },
}

pub(crate) async fn run_class(client: &Client, output: &Output, command: ClassCommand) -> Result<()> {
    let answer = match command {
        ClassCommand::Show { class } => client.get(&format!("/quota_classes/{class}"), &[]).await,
        ClassCommand::Set { class, plans, checkpoints } => {
            let body = json!({"quota_class": limits(plans, checkpoints)?});
            client.put(&format!("/quota_classes/{class}"), &body).await
        }
    };
    output.object(&answer?["quota_class"].take())
}

fn limits(plans: Option<i64>, checkpoints: Option<i64>) -> Result<Map<String, Value>> {
    let mut limits = Map::new();
    limits.extend(plans.map(|count| ("plans".to_owned(), json!(count))));
    limits.extend(checkpoints.map(|count| ("checkpoints".to_owned(), json!(count))));
    if limits.is_empty() {
        bail!("nothing to set: give --plans or --checkpoints");
    }
    Ok(limits)
}
