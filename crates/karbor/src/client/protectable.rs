//! `karbor protectable …`

use anyhow::{Result, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::client::{Client, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the types that can be protected
    List,
    /// Show one type and what may depend on it
    Show {
        /// Such as Host::Directory or OS::Cinder::Volume
        kind: String,
    },
    /// List what there is of one type, or of all types
    Instances {
        /// Such as Host::Directory; all types when left out
        kind: Option<String>,
    },
    /// Show one instance and what depends on it
    Instance {
        /// Such as Host::Directory
        kind: String,
        /// Id or name
        id: String,
    },
}

pub(crate) async fn run(client: &Client, output: &Output, command: Command) -> Result<()> {
    match command {
        Command::List => {
            let kinds: Vec<Value> =
                kinds(client).await?.into_iter().map(|kind| json!({"type": kind})).collect();
            output.list(&kinds, &[("Type", "type")])
        }
        Command::Show { kind } => {
            let mut answer = client.get(&format!("/protectables/{kind}"), &[]).await?;
            output.object(&answer["protectable_type"].take())
        }
        Command::Instances { kind } => {
            let kinds = match kind {
                Some(kind) => vec![kind],
                None => kinds(client).await?,
            };
            let mut all = Vec::new();
            for kind in kinds {
                all.extend(instances(client, &kind).await?);
            }
            output.list(&all, &[("Type", "type"), ("Name", "name"), ("ID", "id"), ("Info", "extra_info")])
        }
        Command::Instance { kind, id } => output.object(&find_instance(client, &kind, &id).await?),
    }
}

async fn kinds(client: &Client) -> Result<Vec<String>> {
    let answer = client.get("/protectables", &[]).await?;
    let kinds = answer["protectable_type"].as_array().into_iter().flatten();
    Ok(kinds.filter_map(Value::as_str).map(str::to_owned).collect())
}

async fn instances(client: &Client, kind: &str) -> Result<Vec<Value>> {
    client.list(&format!("/protectables/{kind}/instances"), "instances", &[], None).await
}

async fn find_instance(client: &Client, kind: &str, text: &str) -> Result<Value> {
    let path = format!("/protectables/{kind}/instances");
    let found = client.find(&path, "instances", "protectable", text).await?;
    let id = found["id"].as_str().unwrap_or(text);
    let mut answer = client.get(&format!("{path}/{id}"), &[]).await?;
    Ok(answer["instance"].take())
}

/// Finds the instances that `TYPE=NAME`, `TYPE=ID` or a bare name stand for, as resources of a plan.
pub(crate) async fn resolve(client: &Client, texts: &[String]) -> Result<Vec<Value>> {
    let mut resources = Vec::new();
    let mut everything: Option<Vec<Value>> = None;
    for text in texts {
        let instance = match text.split_once('=') {
            Some((kind, name)) => find_instance(client, kind, name).await?,
            None => {
                if everything.is_none() {
                    let mut all = Vec::new();
                    for kind in kinds(client).await? {
                        all.extend(instances(client, &kind).await?);
                    }
                    everything = Some(all);
                }
                let all = everything.as_deref().unwrap_or_default();
                let fits = |item: &&Value| item["name"] == text.as_str() || item["id"] == text.as_str();
                let found: Vec<&Value> = all.iter().filter(fits).collect();
                match found.as_slice() {
                    [one] => (*one).clone(),
                    [] => bail!(
                        "nothing that can be protected is called `{text}`: `karbor protectable instances` lists all"
                    ),
                    many => {
                        let all: Vec<String> = many
                            .iter()
                            .map(|item| {
                                format!(
                                    "{}={}",
                                    item["type"].as_str().unwrap_or_default(),
                                    item["id"].as_str().unwrap_or_default()
                                )
                            })
                            .collect();
                        bail!("`{text}` could be any of {}: say which", all.join(", "))
                    }
                }
            }
        };
        let mut resource = json!({"id": instance["id"], "type": instance["type"], "name": instance["name"]});
        if !instance["extra_info"].is_null() {
            resource["extra_info"] = instance["extra_info"].clone();
        }
        resources.push(resource);
    }
    Ok(resources)
}
