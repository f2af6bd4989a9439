//! `karbor checkpoint …`

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::client::output::bytes;
use crate::client::{Client, Output, follow, plan, provider};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List checkpoints, newest first
    List {
        /// Only of this plan, by id or name
        #[arg(long)]
        plan: Option<String>,
        /// Only of this provider, by id or name; all when left out
        #[arg(long)]
        provider: Option<String>,
        /// Made on or after this day (YYYY-MM-DD)
        #[arg(long)]
        start_date: Option<String>,
        /// Made on or before this day (YYYY-MM-DD)
        #[arg(long)]
        end_date: Option<String>,
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Show one checkpoint
    Show {
        /// Id
        checkpoint: String,
    },
    /// Protect a plan now
    Create {
        /// Plan, by id or name
        plan: String,
        /// Follow it until it has ended, and fail if it does
        #[arg(long)]
        wait: bool,
        /// A fact to keep with it, as KEY=VALUE; can be given several times
        #[arg(long = "info", value_name = "KEY=VALUE")]
        info: Vec<String>,
    },
    /// Copy a plan's checkpoints into the bank of another provider
    Copy {
        /// Plan, by id or name
        plan: String,
        /// The provider to whose bank, by id or name; an administrator may have named one
        #[arg(long, value_name = "PROVIDER")]
        to: Option<String>,
        /// Follow the copies until they have ended, and fail if one does
        #[arg(long)]
        wait: bool,
    },
    /// Delete checkpoints, and free what only they needed
    Delete {
        /// Ids
        #[arg(required = true)]
        checkpoints: Vec<String>,
        /// Follow it until they are gone
        #[arg(long)]
        wait: bool,
    },
    /// Keep checkpoints from being deleted, by anybody and by retention
    Hold {
        /// Ids
        #[arg(required = true)]
        checkpoints: Vec<String>,
        /// Why
        #[arg(long)]
        reason: Option<String>,
    },
    /// Let held checkpoints be deleted again
    Release {
        /// Ids
        #[arg(required = true)]
        checkpoints: Vec<String>,
    },
    /// Set the state of a checkpoint to `available` or `error`
    Reset {
        /// Id
        checkpoint: String,
        /// available or error
        state: String,
    },
    /// Follow a checkpoint that is being made or deleted
    Watch {
        /// Id
        checkpoint: String,
    },
}

pub(crate) async fn run(client: &Client, output: &Output, command: Command) -> Result<()> {
    match command {
        Command::List { plan, provider, start_date, end_date, limit } => {
            let mut query = Vec::new();
            if let Some(plan) = plan {
                // A plan may be deleted while its checkpoints live: an id need not be found.
                let id = if is_uuid(&plan) { plan } else { plan::resolve(client, &plan).await? };
                query.push(("plan_id", id));
            }
            query.extend(start_date.map(|date| ("start_date", date)));
            query.extend(end_date.map(|date| ("end_date", date)));
            let providers = match provider {
                Some(provider) => vec![provider::resolve(client, Some(&provider)).await?],
                None => provider_ids(client).await?,
            };
            let mut all = Vec::new();
            for provider in providers {
                let path = format!("/providers/{provider}/checkpoints");
                all.extend(client.list(&path, "checkpoints", &query, limit).await?);
            }
            let columns = [
                ("ID", "id"),
                ("Plan", "protection_plan.name"),
                ("Status", "status"),
                ("Created", "created_at"),
                ("Provider", "protection_plan.provider_id"),
            ];
            output.list(&all, &columns)
        }
        Command::Show { checkpoint } => output.object(&find(client, &checkpoint).await?.1),
        Command::Copy { plan, to, wait } => {
            let plan = client.find("/plans", "plans", "plan", &plan).await?;
            let from = plan["provider_id"].as_str().context("the service sent a plan without a provider")?;
            let mut body = json!({"copy": {"plan_id": plan["id"]}});
            if to.is_some() {
                body["copy"]["target_provider_id"] = json!(provider::resolve(client, to.as_deref()).await?);
            }
            let path = format!("/providers/{from}/checkpoints/action");
            let made = client.post(&path, &body).await?["copy"].take();
            let pairs = made["checkpoint_id"].as_array().cloned().unwrap_or_default();
            if wait {
                for id in pairs.iter().filter_map(|pair| pair["checkpoint_copy_id"].as_str()) {
                    let operation = follow::to_the_end(client, output, id).await?;
                    if operation["state"] != "succeeded" {
                        bail!("{}", follow::failure(&format!("copy {id}"), &operation));
                    }
                }
            }
            output.list(&pairs, &[("Checkpoint", "checkpoint_protect_id"), ("Copy", "checkpoint_copy_id")])
        }
        Command::Create { plan, wait, info } => {
            let plan = client.find("/plans", "plans", "plan", &plan).await?;
            let provider =
                plan["provider_id"].as_str().context("the service sent a plan without a provider")?;
            let mut extra = serde_json::Map::new();
            for text in &info {
                let Some((key, value)) = text.split_once('=') else {
                    bail!("`{text}` is not KEY=VALUE");
                };
                extra.insert(key.to_owned(), json!(value));
            }
            let path = format!("/providers/{provider}/checkpoints");
            let mut body = json!({"checkpoint": {"plan_id": plan["id"]}});
            if !extra.is_empty() {
                body["checkpoint"]["extra-info"] = Value::Object(extra);
            }
            let made = client.post(&path, &body).await?["checkpoint"].take();
            let id = made["id"].as_str().context("the service sent a checkpoint without an id")?.to_owned();
            if !wait {
                output.say(&format!("Protecting; follow it with `karbor checkpoint watch {id}`"))?;
                return output.object(&made);
            }
            let operation = follow::to_the_end(client, output, &id).await?;
            let shown = client.get(&format!("{path}/{id}"), &[]).await?["checkpoint"].take();
            if shown["status"] != "available" {
                bail!("{}", follow::failure(&format!("checkpoint {id}"), &operation));
            }
            let progress = &operation["progress"];
            let count = |name: &str| bytes(progress[name].as_u64().unwrap_or(0));
            output.say(&format!(
                "Checkpoint {id} is available: {} protected, {} added to the bank",
                count("bytes_done"),
                count("bytes_stored")
            ))?;
            if output.is_json() {
                return output.json(&json!({"checkpoint": shown, "operation": operation}));
            }
            Ok(())
        }
        Command::Delete { checkpoints, wait } => {
            for text in checkpoints {
                let (provider, checkpoint) = find(client, &text).await?;
                let id = checkpoint["id"].as_str().unwrap_or(&text);
                client.delete(&format!("/providers/{provider}/checkpoints/{id}")).await?;
                if wait {
                    follow::until_deleted(client, &provider, id).await?;
                    output.say(&format!("Deleted checkpoint {id}"))?;
                } else {
                    output.say(&format!("Deleting checkpoint {id}"))?;
                }
            }
            Ok(())
        }
        Command::Hold { checkpoints, reason } => {
            for text in checkpoints {
                let (provider, found) = find(client, &text).await?;
                let id = found["id"].as_str().unwrap_or(&text);
                let path = format!("/providers/{provider}/checkpoints/{id}/hold");
                client.put(&path, &json!({"hold": {"reason": reason}})).await?;
                output.say(&format!("Checkpoint {id} is held"))?;
            }
            Ok(())
        }
        Command::Release { checkpoints } => {
            for text in checkpoints {
                let (provider, found) = find(client, &text).await?;
                let id = found["id"].as_str().unwrap_or(&text);
                client.delete(&format!("/providers/{provider}/checkpoints/{id}/hold")).await?;
                output.say(&format!("Checkpoint {id} is released"))?;
            }
            Ok(())
        }
        Command::Reset { checkpoint, state } => {
            let (provider, found) = find(client, &checkpoint).await?;
            let id = found["id"].as_str().unwrap_or(&checkpoint);
            let body = json!({"os-resetState": {"state": state}});
            client.put(&format!("/providers/{provider}/checkpoints/{id}"), &body).await?;
            output.say(&format!("Checkpoint {id} is now {state}"))
        }
        Command::Watch { checkpoint } => {
            let (_, found) = find(client, &checkpoint).await?;
            let id = found["id"].as_str().unwrap_or(&checkpoint);
            let operation = follow::to_the_end(client, output, id).await?;
            match operation["state"].as_str() {
                Some("succeeded") => output.say(&format!("Checkpoint {id}: done")),
                _ => bail!("{}", follow::failure(&format!("checkpoint {id}"), &operation)),
            }
        }
    }
}

fn is_uuid(text: &str) -> bool {
    text.parse::<uuid::Uuid>().is_ok()
}

async fn provider_ids(client: &Client) -> Result<Vec<String>> {
    let providers = client.list("/providers", "providers", &[], None).await?;
    Ok(providers.iter().filter_map(|provider| provider["id"].as_str()).map(str::to_owned).collect())
}

/// Finds a checkpoint by its id at whatever provider has it; returns the provider's id and the checkpoint.
pub(crate) async fn find(client: &Client, id: &str) -> Result<(String, Value)> {
    if !is_uuid(id) {
        bail!("`{id}` is not a checkpoint's id: `karbor checkpoint list` shows them");
    }
    let mut refused = None;
    for provider in provider_ids(client).await? {
        match client.get(&format!("/providers/{provider}/checkpoints/{id}"), &[]).await {
            Ok(mut answer) => return Ok((provider, answer["checkpoint"].take())),
            Err(err) => refused = Some(err),
        }
    }
    Err(refused.unwrap_or_else(|| anyhow::anyhow!("this service offers no provider")))
}
