//! What the first start makes in the state directory: the directory itself, a master key, a first user.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use karbor_actions::Clock;
use karbor_api::identity::Identity;
use karbor_api::identity::local::{self, LocalFile, LocalIdentity};
use karbor_types::{ProjectId, UserId};
use karbor_vault::{Entropy, MasterKey, SystemEntropy};
use secrecy::ExposeSecret;
use tracing::info;
use uuid::Uuid;

use crate::client::ConnectionFile;
use crate::key;
use crate::serve::config::{Config, KeyConfig};

/// Makes the state directory, open to its owner only, if it is not there.
pub(crate) fn state_directory(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("making the state directory {}", path.display()))
}

/// The name of the first master key.
pub(crate) const FIRST_KEY: &str = "master-key";

/// The master keys.
#[derive(Debug, Clone)]
pub(crate) struct MasterKeys {
    /// The one that new accounts are wrapped with, where nothing else is said, and earlier ones.
    first: Vec<MasterKey>,
    /// Further ones by name.
    named: BTreeMap<String, MasterKey>,
}

impl MasterKeys {
    /// Returns all keys, the one of that name first; `None` when there is none of that name.
    pub(crate) fn led_by(&self, name: Option<&str>) -> Option<Vec<MasterKey>> {
        let mut keys = match name {
            None | Some(FIRST_KEY) => Vec::new(),
            Some(name) => vec![self.named.get(name)?.clone()],
        };
        keys.extend(self.first.iter().cloned());
        keys.extend(
            self.named.iter().filter(|(known, _)| Some(known.as_str()) != name).map(|(_, key)| key.clone()),
        );
        Some(keys)
    }

    /// Returns all keys, the first one first.
    pub(crate) fn all(&self) -> Vec<MasterKey> {
        self.first.iter().chain(self.named.values()).cloned().collect()
    }

    /// Returns the names that there are.
    pub(crate) fn names(&self) -> Vec<&str> {
        std::iter::once(FIRST_KEY).chain(self.named.keys().map(String::as_str)).collect()
    }
}

/// Reads the master keys: the one that new accounts are wrapped with first. Makes it if there is none.
pub(crate) fn master_keys(config: &KeyConfig) -> Result<MasterKeys> {
    let (master, made) = key::read_or_make(config.master_key_file.as_deref())?;
    if let (true, Some(path)) = (made, &config.master_key_file) {
        info!(
            "Made the master key {}: keep a copy of it elsewhere, without it nothing in the banks can be read",
            path.display()
        );
    }
    let mut masters = vec![master];
    for path in &config.previous_key_files {
        masters.push(key::read(Some(path))?);
    }
    let mut named = BTreeMap::new();
    for (name, path) in &config.named {
        anyhow::ensure!(name != FIRST_KEY, "keys.named: `{FIRST_KEY}` is the name of the first master key");
        named.insert(name.clone(), key::read(Some(path))?);
    }
    Ok(MasterKeys { first: masters, named })
}

/// Opens the local identity, making it with one project and one user at the first start, and leaves address and token
/// for the clients of this directory's owner.
pub(crate) fn local_identity(
    config: &Config,
    state_dir: &Path,
    bound: SocketAddr,
    clock: Clock,
) -> Result<Arc<dyn Identity>> {
    let file = config.identity.file.as_deref().context("the local identity has no file")?;
    let connection = state_dir.join(ConnectionFile::NAME);
    let base = match &config.public_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => format!("http://{}", reachable(bound)),
    };
    let known = if file.exists() {
        // The port may have changed since; project and token have not.
        ConnectionFile::read(&connection)?.map(|file| (file.project_id, file.token))
    } else {
        let mut random = [0; 32];
        SystemEntropy.fill(&mut random).context("drawing a token")?;
        let token = local::new_token(&random);
        let project = ProjectId::new(Uuid::new_v4().simple().to_string())?;
        let user = UserId::new(Uuid::new_v4().simple().to_string())?;
        let made = LocalFile::first(project.clone(), user, &token);
        // The token first: an identity without its token would lock its owner out.
        let known = (project.to_string(), token.expose_secret().to_owned());
        leave(&connection, &base, &known)?;
        made.write(file).context("making the local identity")?;
        info!("Made the local identity {} with project {project}", file.display());
        Some(known)
    };
    if let Some(known) = known {
        leave(&connection, &base, &known)?;
    }
    Ok(Arc::new(LocalIdentity::open(file, clock).context("opening the local identity")?))
}

fn leave(path: &Path, base: &str, (project_id, token): &(String, String)) -> Result<()> {
    let url = format!("{base}/v1/{project_id}");
    let file = ConnectionFile { url, project_id: project_id.clone(), token: token.clone() };
    local::write_owner_only(path, serde_json::to_string_pretty(&file)?.as_bytes())
        .with_context(|| format!("writing {}", path.display()))
}

/// An address that a client of this machine can use.
fn reachable(bound: SocketAddr) -> SocketAddr {
    match bound {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], v4.port())),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, v6.port()))
        }
        other => other,
    }
}
