//! `karbor provider …`

use anyhow::Result;
use clap::Subcommand;

use crate::client::{Client, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the providers
    List,
    /// Show one provider, with the parameters that each type takes
    Show {
        /// Id or name
        provider: String,
    },
}

pub(crate) async fn run(client: &Client, output: &Output, command: Command) -> Result<()> {
    match command {
        Command::List => {
            let providers = client.list("/providers", "providers", &[], None).await?;
            output.list(&providers, &[("ID", "id"), ("Name", "name"), ("Description", "description")])
        }
        Command::Show { provider } => {
            output.object(&client.find("/providers", "providers", "provider", &provider).await?)
        }
    }
}

/// Finds the provider that is meant: the named one, or the only one there is.
pub(crate) async fn resolve(client: &Client, text: Option<&str>) -> Result<String> {
    let provider = match text {
        Some(text) => client.find("/providers", "providers", "provider", text).await?,
        None => {
            let providers = client.list("/providers", "providers", &[], None).await?;
            match providers.as_slice() {
                [one] => one.clone(),
                [] => anyhow::bail!("this service offers no provider"),
                many => {
                    let names: Vec<&str> = many.iter().filter_map(|one| one["name"].as_str()).collect();
                    anyhow::bail!(
                        "there are several providers; choose one with --provider: {}",
                        names.join(", ")
                    )
                }
            }
        }
    };
    Ok(provider["id"].as_str().unwrap_or_default().to_owned())
}
