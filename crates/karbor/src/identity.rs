//! `karbor identity …`: who may use a service that has the local identity. Works on its file, which the service reads
//! again when it changes; the service need not run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use karbor_api::identity::local::{LocalFile, LocalProject, LocalToken, LocalUser, hash_token, new_token};
use karbor_types::{ProjectId, UserId};
use karbor_vault::{Entropy, SystemEntropy};
use secrecy::ExposeSecret;
use serde_json::json;
use uuid::Uuid;

use crate::client::Output;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The identity file; without it, identity.toml in the state directory
    #[arg(long, global = true, value_name = "PATH")]
    file: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the tokens: whose they are, and what they allow
    List,
    /// Add a project
    AddProject {
        /// Its name, for people
        name: String,
        /// Its id; drawn by lot without it
        #[arg(long)]
        id: Option<String>,
    },
    /// Add a token, and print it; it is not kept anywhere
    AddToken {
        /// Id or name of the project
        #[arg(long)]
        project: String,
        /// Id or name of the user; one who is not known is added
        #[arg(long)]
        user: String,
        /// A role in the project, such as member, reader or admin; may be given several times
        #[arg(long = "role", default_value = "member")]
        roles: Vec<String>,
        /// When it ends, such as 2030-01-31T00:00:00Z; never without it
        #[arg(long, value_name = "TIME")]
        expires_at: Option<jiff::Timestamp>,
        /// What it is for
        #[arg(long)]
        comment: Option<String>,
    },
    /// Remove a token: it is refused from now on
    RemoveToken {
        /// The token's hash as the list shows it, or its beginning
        hash: String,
    },
}

pub(crate) fn run(options: Options, state_dir: &Path, output: &Output) -> Result<()> {
    let path = options.file.unwrap_or_else(|| state_dir.join("identity.toml"));
    let mut file = LocalFile::read(&path)
        .context("`karbor serve` makes one at its first start; name yours with --file")?;
    match options.command {
        Command::List => list(&file, output),
        Command::AddProject { name, id } => {
            if file.projects.iter().any(|project| project.name == name) {
                bail!("there is a project `{name}` already");
            }
            let id = ProjectId::new(id.unwrap_or_else(|| Uuid::new_v4().simple().to_string()))?;
            let shown = json!({"id": id, "name": name});
            file.projects.push(LocalProject { id, name });
            file.write(&path)?;
            output.object(&shown)
        }
        Command::AddToken { project, user, roles, expires_at, comment } => {
            let known =
                file.projects.iter().find(|known| known.id.as_str() == project || known.name == project);
            let Some(project) = known.map(|known| known.id.clone()) else {
                let names: Vec<&str> = file.projects.iter().map(|known| known.name.as_str()).collect();
                bail!("there is no project `{project}`; there are: {}", names.join(", "));
            };
            let known = file.users.iter().find(|known| known.id.as_str() == user || known.name == user);
            let user = match known {
                Some(known) => known.id.clone(),
                None => {
                    let id = UserId::new(Uuid::new_v4().simple().to_string())?;
                    file.users.push(LocalUser { id: id.clone(), name: user });
                    id
                }
            };
            let mut random = [0; 32];
            SystemEntropy.fill(&mut random).context("drawing a token")?;
            let token = new_token(&random);
            let hash = hash_token(&token);
            let shown = json!({
                "token": token.expose_secret(), "hash": hash, "project_id": project, "user_id": user, "roles": roles,
            });
            file.tokens.push(LocalToken { hash, user, project, roles, expires_at, comment });
            file.write(&path)?;
            output.object(&shown)
        }
        Command::RemoveToken { hash } => {
            let meant: Vec<usize> =
                (0..file.tokens.len()).filter(|&at| is_meant(&file.tokens[at].hash, &hash)).collect();
            let [one] = meant.as_slice() else {
                bail!("`{hash}` means {} tokens; `karbor identity list` shows them", meant.len());
            };
            let removed = file.tokens.remove(*one);
            file.write(&path)?;
            output.say(&format!("Removed the token {}.", removed.hash))
        }
    }
}

fn is_meant(hash: &str, given: &str) -> bool {
    let digits = hash.split_once(':').map_or(hash, |(_, digits)| digits);
    !given.is_empty() && (hash == given || digits.starts_with(given))
}

fn list(file: &LocalFile, output: &Output) -> Result<()> {
    let tokens = file.tokens.iter().map(|token| {
        let project = file.projects.iter().find(|project| project.id == token.project);
        let user = file.users.iter().find(|user| user.id == token.user);
        json!({
            "hash": token.hash, "project_id": token.project, "project": project.map(|project| &project.name),
            "user_id": token.user, "user": user.map(|user| &user.name), "roles": token.roles,
            "expires_at": token.expires_at, "comment": token.comment,
        })
    });
    let columns = [
        ("Token's hash", "hash"),
        ("Project", "project"),
        ("Project id", "project_id"),
        ("User", "user"),
        ("Roles", "roles"),
        ("Ends", "expires_at"),
        ("Comment", "comment"),
    ];
    output.list(&tokens.collect::<Vec<_>>(), &columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_meant_by_its_hash_or_the_beginning_of_it() {
        assert!(is_meant("blake3:00ff", "00"));
        assert!(is_meant("blake3:00ff", "blake3:00ff"));
        assert!(!is_meant("blake3:00ff", "ff"));
        assert!(!is_meant("blake3:00ff", ""));
    }
}
