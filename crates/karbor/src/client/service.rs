//! `karbor service …`: the processes, for administrators.

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::client::{Client, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the processes that have reported themselves
    List,
    /// Let the workers of a host take operations again
    Enable {
        /// Number of its karbor-operationengine
        service: u64,
    },
    /// Let the workers of a host take no new operation
    Disable {
        /// Number of its karbor-operationengine
        service: u64,
        /// Why
        #[arg(long)]
        reason: Option<String>,
    },
}

const COLUMNS: [(&str, &str); 7] = [
    ("ID", "id"),
    ("Binary", "binary"),
    ("Host", "host"),
    ("Status", "status"),
    ("State", "state"),
    ("Seen", "updated_at"),
    ("Reason", "disabled_reason"),
];

pub(crate) async fn run(client: &Client, output: &Output, command: Command) -> Result<()> {
    let (service, body) = match command {
        Command::List => {
            let mut answer = client.get("/os-services", &[]).await?;
            let Value::Array(services) = answer["services"].take() else { return output.list(&[], &COLUMNS) };
            return output.list(&services, &COLUMNS);
        }
        Command::Enable { service } => (service, json!({"status": "enabled"})),
        Command::Disable { service, reason } => {
            (service, json!({"status": "disabled", "disabled_reason": reason}))
        }
    };
    output.object(&client.put(&format!("/os-services/{service}"), &body).await?["service"].take())
}
