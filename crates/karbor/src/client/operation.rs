//! `karbor operation …`

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::client::elsewhere::Elsewhere;
use crate::client::{Client, Output, follow};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List operations, newest first
    List {
        /// protect, restore, verify, copy or delete
        #[arg(long)]
        kind: Option<String>,
        /// queued, running, succeeded, failed or cancelled
        #[arg(long)]
        state: Option<String>,
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Show one operation and how each of its resources fared
    Show {
        /// Id; that of a checkpoint, restore or verification is the id of the operation that makes it
        operation: String,
    },
    /// Follow an operation to its end
    Watch {
        /// Id
        operation: String,
    },
    /// End an operation; what it has stored is freed
    Cancel {
        /// Id
        operation: String,
        /// Follow it until it has ended
        #[arg(long)]
        wait: bool,
    },
    /// Go on with a restore that failed or was cancelled: what was restored stays, the rest is tried again
    Resume {
        /// Id
        operation: String,
        #[command(flatten)]
        again: Again,
    },
    /// Remove what a protect or restore that failed or was cancelled made outside the bank, or left there
    Undo {
        /// Id
        operation: String,
        #[command(flatten)]
        again: Again,
    },
    /// List the operation log
    Log {
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
    },
}

/// How an operation is taken up again.
#[derive(Debug, Args)]
pub(crate) struct Again {
    #[command(flatten)]
    elsewhere: Elsewhere,
    /// Follow it until it has ended
    #[arg(long)]
    wait: bool,
}

pub(crate) async fn run(client: &Client, output: &Output, command: Command) -> Result<()> {
    match command {
        Command::List { kind, state, limit } => {
            let query: Vec<(&str, String)> = [("kind", kind), ("state", state)]
                .into_iter()
                .filter_map(|(key, value)| Some((key, value?)))
                .collect();
            let operations = client.list("/operations", "operations", &query, limit).await?;
            let columns = [
                ("ID", "id"),
                ("Kind", "kind"),
                ("State", "state"),
                ("Started", "started_at"),
                ("Ended", "ended_at"),
                ("Reason", "reason"),
            ];
            output.list(&operations, &columns)
        }
        Command::Show { operation } => {
            let mut shown = client.get(&format!("/operations/{operation}"), &[]).await?["operation"].take();
            let mut resources =
                client.get(&format!("/operations/{operation}/resources"), &[]).await?["resources"].take();
            if output.is_json() {
                shown["resources"] = resources;
                return output.json(&shown);
            }
            output.object(&shown)?;
            let resources = resources.as_array_mut().map(std::mem::take).unwrap_or_default();
            let columns = [
                ("Type", "type"),
                ("ID", "id"),
                ("Status", "status"),
                ("Done", "progress.bytes_done"),
                ("Added", "progress.bytes_stored"),
                ("Reason", "reason"),
            ];
            output.list(&resources, &columns)
        }
        Command::Watch { operation } => {
            let ended = follow::to_the_end(client, output, &operation).await?;
            if output.is_json() {
                output.json(&ended)?;
            }
            match ended["state"].as_str() {
                Some("succeeded") => output.say(&format!("Operation {operation} succeeded")),
                _ => bail!("{}", follow::failure(&format!("operation {operation}"), &ended)),
            }
        }
        Command::Cancel { operation, wait } => {
            client.post(&format!("/operations/{operation}/action"), &json!({"cancel": {}})).await?;
            if wait {
                let ended = follow::to_the_end(client, output, &operation).await?;
                let state = ended["state"].as_str().unwrap_or("?");
                return output.say(&format!("Operation {operation} is {state}"));
            }
            output.say(&format!("Cancelling operation {operation}"))
        }
        Command::Resume { operation, again } => {
            let ended = reopen(client, output, &operation, "resume", &again).await?;
            tell(output, &operation, ended, "Going on with operation", ("succeeded", "succeeded"))
        }
        Command::Undo { operation, again } => {
            let ended = reopen(client, output, &operation, "undo", &again).await?;
            tell(output, &operation, ended, "Undoing operation", ("cancelled", "is undone"))
        }
        Command::Log { limit } => {
            let logs = client.list("/operation_logs", "operation_logs", &[], limit).await?;
            let columns = [
                ("ID", "id"),
                ("Type", "operation_type"),
                ("Status", "status"),
                ("Checkpoint", "checkpoint_id"),
                ("Started", "started_at"),
                ("Ended", "ended_at"),
                ("Error", "error_info"),
            ];
            output.list(&logs, &columns)
        }
    }
}

/// Takes an operation up again, and returns it as it has ended where that is waited for.
async fn reopen(
    client: &Client,
    output: &Output,
    operation: &str,
    wish: &str,
    again: &Again,
) -> Result<Option<Value>> {
    let body = json!({wish: again.elsewhere.body()?});
    client.post(&format!("/operations/{operation}/action"), &body).await?;
    if !again.wait {
        return Ok(None);
    }
    follow::to_the_end(client, output, operation).await.map(Some)
}

/// Says what became of an operation that was taken up again: that it goes on, that it has ended in the state that was
/// wanted, in the words for that, or why it has not.
fn tell(
    output: &Output,
    operation: &str,
    ended: Option<Value>,
    goes_on: &str,
    (wanted, done): (&str, &str),
) -> Result<()> {
    let Some(ended) = ended else { return output.say(&format!("{goes_on} {operation}")) };
    if ended["state"] == wanted {
        return output.say(&format!("Operation {operation} {done}"));
    }
    bail!("{}", follow::failure(&format!("operation {operation}"), &ended))
}
