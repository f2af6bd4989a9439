//! `karbor plan …`

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde_json::{Map, Value, json};

use crate::client::{Client, Output, protectable, provider};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the plans
    List {
        /// Only plans whose name contains this
        #[arg(long)]
        name: Option<String>,
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Show one plan
    Show {
        /// Id or name
        plan: String,
    },
    /// Make a plan of resources
    Create {
        /// Name of the new plan
        name: String,
        /// What to protect: TYPE=NAME, TYPE=ID, or a name that is the only one of its kind
        #[arg(required = true, value_name = "RESOURCE")]
        resources: Vec<String>,
        /// Provider, by id or name; not needed when there is only one
        #[arg(long)]
        provider: Option<String>,
        /// Free text
        #[arg(long)]
        description: Option<String>,
        /// Parameter as TYPE.member=value or TYPE#ID.member=value; can be given several times
        #[arg(long = "parameter", short = 'p', value_name = "KEY=VALUE")]
        parameters: Vec<String>,
    },
    /// Change a plan
    Update {
        /// Id or name
        plan: String,
        /// New name
        #[arg(long)]
        name: Option<String>,
        /// New text
        #[arg(long)]
        description: Option<String>,
        /// suspended or started
        #[arg(long)]
        status: Option<String>,
        /// The resources it shall have from now on
        #[arg(long = "resource", value_name = "RESOURCE")]
        resources: Vec<String>,
    },
    /// Delete plans; their checkpoints stay
    Delete {
        /// Ids or names
        #[arg(required = true)]
        plans: Vec<String>,
    },
}

pub(crate) async fn run(client: &Client, output: &Output, command: Command) -> Result<()> {
    match command {
        Command::List { name, limit } => {
            let query: Vec<(&str, String)> = name.into_iter().map(|name| ("name", name)).collect();
            let plans = client.list("/plans", "plans", &query, limit).await?;
            let columns = [("ID", "id"), ("Name", "name"), ("Status", "status"), ("Provider", "provider_id")];
            output.list(&plans, &columns)
        }
        Command::Show { plan } => {
            let id = resolve(client, &plan).await?;
            output.object(&client.get(&format!("/plans/{id}"), &[]).await?["plan"].take())
        }
        Command::Create { name, resources, provider, description, parameters } => {
            let resources = protectable::resolve(client, &resources).await?;
            let provider = provider::resolve(client, provider.as_deref()).await?;
            let body = json!({"plan": {
                "name": name, "description": description, "provider_id": provider,
                "resources": resources, "parameters": parse_parameters(&parameters)?}});
            output.object(&client.post("/plans", &body).await?["plan"].take())
        }
        Command::Update { plan, name, description, status, resources } => {
            let id = resolve(client, &plan).await?;
            let mut changes = Map::new();
            for (member, value) in [("name", name), ("description", description), ("status", status)] {
                if let Some(value) = value {
                    changes.insert(member.to_owned(), Value::String(value));
                }
            }
            if !resources.is_empty() {
                changes.insert(
                    "resources".to_owned(),
                    Value::Array(protectable::resolve(client, &resources).await?),
                );
            }
            if changes.is_empty() {
                bail!("nothing to change: give --name, --description, --status or --resource");
            }
            output
                .object(&client.put(&format!("/plans/{id}"), &json!({"plan": changes})).await?["plan"].take())
        }
        Command::Delete { plans } => {
            for plan in plans {
                let id = resolve(client, &plan).await?;
                client.delete(&format!("/plans/{id}")).await?;
                output.say(&format!("Deleted plan {plan}"))?;
            }
            Ok(())
        }
    }
}

/// Returns the id of the plan that an id or a name stands for.
pub(crate) async fn resolve(client: &Client, text: &str) -> Result<String> {
    let plan = client.find("/plans", "plans", "plan", text).await?;
    Ok(plan["id"].as_str().context("the service sent a plan without an id")?.to_owned())
}

/// Reads `TYPE.member=value` and `TYPE#ID.member=value`. A value that is JSON keeps its type.
pub(crate) fn parse_parameters(texts: &[String]) -> Result<Value> {
    let mut all: Map<String, Value> = Map::new();
    for text in texts {
        let parsed = text.split_once('=').and_then(|(left, value)| {
            let (key, member) = left.rsplit_once('.')?;
            (!key.is_empty() && !member.is_empty()).then_some((key, member, value))
        });
        let Some((key, member, value)) = parsed else {
            bail!(
                "`{text}` is not a parameter: write TYPE.member=value, such as Host::Directory.overwrite=true"
            );
        };
        let value = match serde_json::from_str::<Value>(value) {
            Ok(json @ (Value::Bool(_) | Value::Number(_))) => json,
            _ => Value::String(value.to_owned()),
        };
        let members = all.entry(key.to_owned()).or_insert_with(|| json!({}));
        members[member] = value;
    }
    Ok(Value::Object(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_keep_the_types_of_their_values() {
        let texts = ["Host::Directory.overwrite=true", "Host::Disk#1f.path=/a=b", "Host::Directory.name=x"];
        let parsed = parse_parameters(&texts.map(str::to_owned)).expect("well formed");
        let wanted = json!({
            "Host::Directory": {"overwrite": true, "name": "x"}, "Host::Disk#1f": {"path": "/a=b"}});
        assert_eq!(parsed, wanted);
        assert!(parse_parameters(&["overwrite=true".to_owned()]).is_err());
    }
}
