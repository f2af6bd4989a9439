//! Where the service is and who we are: options, environment, `clouds.yaml`, or a local state directory.
//!
//! Looked at in this order, and the first that gives an answer is taken: `--url` with `--token` (or `KARBOR_URL`,
//! `KARBOR_TOKEN`); `--os-cloud` or `OS_CLOUD`; `OS_AUTH_URL` with its fellows; the file that a service on this
//! machine writes into its state directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::client::{Connection, keystone};

/// An address with its project, and a token for it.
#[derive(Clone)]
pub(crate) struct Endpoint {
    /// `http://host:port/v1/<project>`, without a slash at the end.
    pub(crate) url: String,
    /// The token. Not shown by `Debug`.
    pub(crate) token: String,
    /// Where the two came from, for error messages.
    pub(crate) origin: String,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("url", &self.url)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// What a local service leaves in its state directory for the clients of its owner.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnectionFile {
    /// The endpoint with the project.
    pub(crate) url: String,
    /// The project's id.
    pub(crate) project_id: String,
    /// The token.
    pub(crate) token: String,
}

impl ConnectionFile {
    /// The file's name inside a state directory.
    pub(crate) const NAME: &str = "client.json";

    /// Reads the file, if it is there.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(err).with_context(|| format!("reading {}", path.display())),
        };
        serde_json::from_str(&text).map(Some).with_context(|| format!("{} is damaged", path.display()))
    }
}

/// Returns the state directory that is used when none is named.
pub(crate) fn default_state_dir() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into()));
    std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .unwrap_or_else(|| home().join(".local/state"))
        .join("karbor")
}

/// Finds the endpoint, logging in to Keystone where that is asked for.
pub(crate) async fn find(connection: &Connection, http: &reqwest::Client) -> Result<Endpoint> {
    let state_dir = connection.state_dir.clone().unwrap_or_else(default_state_dir);
    let file = state_dir.join(ConnectionFile::NAME);
    if let Some(url) = &connection.url {
        let token = match &connection.token {
            Some(token) => token.clone(),
            None => match ConnectionFile::read(&file)? {
                Some(local) if local.url == url.trim_end_matches('/') => local.token,
                _ => bail!("--url (or KARBOR_URL) is given without a token: add --token or KARBOR_TOKEN"),
            },
        };
        let origin = "--url or KARBOR_URL".to_owned();
        return Ok(Endpoint { url: url.trim_end_matches('/').to_owned(), token, origin });
    }
    if let Some(cloud) = &connection.os_cloud {
        let auth = clouds_yaml(cloud)?;
        return keystone::login(http, &auth, &format!("cloud `{cloud}` of clouds.yaml")).await;
    }
    if std::env::var_os("OS_AUTH_URL").is_some() {
        return keystone::login(http, &keystone::Auth::from_environment()?, "the OS_* variables").await;
    }
    let Some(local) = ConnectionFile::read(&file)? else {
        bail!(
            "no service is named: start one here with `karbor serve`, or give --url and --token (KARBOR_URL, \
             KARBOR_TOKEN), --os-cloud, or the OS_* variables ({} does not exist)",
            file.display()
        );
    };
    let token = connection.token.clone().unwrap_or(local.token);
    Ok(Endpoint { url: local.url, token, origin: file.display().to_string() })
}

#[derive(Deserialize)]
struct Clouds {
    clouds: BTreeMap<String, keystone::Cloud>,
}

fn clouds_yaml(cloud: &str) -> Result<keystone::Auth> {
    let mut places = Vec::new();
    if let Some(path) = std::env::var_os("OS_CLIENT_CONFIG_FILE") {
        places.push(PathBuf::from(path));
    }
    places.push(PathBuf::from("clouds.yaml"));
    if let Some(home) = std::env::var_os("HOME") {
        places.push(PathBuf::from(home).join(".config/openstack/clouds.yaml"));
    }
    places.push(PathBuf::from("/etc/openstack/clouds.yaml"));
    for path in &places {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => continue,
            Err(err) => return Err(err).with_context(|| format!("reading {}", path.display())),
        };
        let mut clouds: Clouds = serde_saphyr::from_str(&text)
            .with_context(|| format!("{} is not a clouds.yaml", path.display()))?;
        let names: Vec<String> = clouds.clouds.keys().cloned().collect();
        let Some(found) = clouds.clouds.remove(cloud) else {
            bail!("{} has no cloud `{cloud}`; it has: {}", path.display(), names.join(", "));
        };
        return keystone::Auth::from_cloud(found);
    }
    let places: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
    bail!("no clouds.yaml was found; looked at {}", places.join(", "))
}
