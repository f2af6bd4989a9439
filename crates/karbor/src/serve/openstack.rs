//! The cloud whose things are protected, and the user that this service is there.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use karbor_openstack_client::{Cloud, CloudSettings, Domain, Interface, Login, Profile, Project, User};
use secrecy::SecretString;
use serde::Deserialize;
use tracing::info;

/// The variable that holds the password where no file is named.
const PASSWORD_VARIABLE: &str = "KARBOR_OPENSTACK_PASSWORD";

/// The `[openstack]` table.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct OpenStackConfig {
    /// The entry of a `clouds.yaml` from which the address, the region, the user and the password are taken.
    cloud: Option<String>,
    /// That `clouds.yaml`; without it, the usual places.
    clouds_file: Option<PathBuf>,
    /// The address of Keystone, with or without `/v3`.
    auth_url: Option<String>,
    /// The region; without it, the first of the catalog.
    region: Option<String>,
    /// Which addresses of the services are used.
    interface: Option<Interface>,
    /// A file of certificates (PEM) that are trusted besides the system's.
    ca_file: Option<PathBuf>,
    /// The service's user, to whom users give trusts.
    username: Option<String>,
    /// The domain of that user.
    user_domain_name: String,
    /// The file with its password; without it, the variable `KARBOR_OPENSTACK_PASSWORD`.
    password_file: Option<PathBuf>,
    /// The project in which the service's user works.
    project_name: String,
    /// The domain of that project.
    project_domain_name: String,
    /// How long a connection may take to be made.
    connect_timeout_seconds: u64,
    /// How long one attempt of a call may take to be answered.
    request_timeout_seconds: u64,
    /// How long a stream of bytes may stand still.
    stall_timeout_seconds: u64,
    /// For how long a call is tried again before it fails.
    patience_seconds: u64,
    /// How many calls run at one service at once, and how many streams beside them.
    concurrency: NonZeroUsize,
    /// The addresses of other Keystones into whose clouds users may restore; their beginnings are enough.
    pub(crate) restore_targets: Vec<String>,
    /// Addresses in place of the catalog's, by the service's type: `image = "https://…"`.
    endpoints: BTreeMap<String, String>,
}

impl Default for OpenStackConfig {
    fn default() -> Self {
        let usual = CloudSettings::new("");
        Self {
            cloud: None,
            clouds_file: None,
            auth_url: None,
            region: None,
            interface: None,
            ca_file: None,
            username: None,
            user_domain_name: "Default".to_owned(),
            password_file: None,
            project_name: "service".to_owned(),
            project_domain_name: "Default".to_owned(),
            connect_timeout_seconds: usual.connect_timeout.as_secs(),
            request_timeout_seconds: usual.request_timeout.as_secs(),
            stall_timeout_seconds: usual.stall_timeout.as_secs(),
            patience_seconds: usual.patience.as_secs(),
            concurrency: usual.concurrency,
            restore_targets: Vec::new(),
            endpoints: BTreeMap::new(),
        }
    }
}

/// The cloud, and how this service logs in there.
#[derive(Debug, Clone)]
pub(crate) struct ServiceCloud {
    /// The cloud.
    pub(crate) cloud: Cloud,
    /// The service's own login.
    pub(crate) login: Login,
}

impl ServiceCloud {
    /// Returns the cloud and the login for a client of its own.
    pub(crate) fn profile(&self) -> Profile {
        Profile { cloud: self.cloud.settings().clone(), login: self.login.clone() }
    }
}

impl OpenStackConfig {
    /// Prepares for the cloud; it is first asked when something is to be done there.
    pub(crate) fn connect(&self, variable: impl Fn(&str) -> Option<String>) -> Result<ServiceCloud> {
        let Profile { cloud, login } = self.profile(&variable).context("the table [openstack]")?;
        let settings = CloudSettings {
            region: self.region.clone().or(cloud.region),
            interface: self.interface.unwrap_or(cloud.interface),
            ca_file: self.ca_file.clone().or(cloud.ca_file),
            connect_timeout: Duration::from_secs(self.connect_timeout_seconds),
            request_timeout: Duration::from_secs(self.request_timeout_seconds),
            stall_timeout: Duration::from_secs(self.stall_timeout_seconds),
            patience: Duration::from_secs(self.patience_seconds),
            concurrency: self.concurrency,
            endpoints: self.endpoints.clone(),
            auth_url: cloud.auth_url,
        };
        let url = settings.auth_url.clone();
        let cloud = Cloud::new(settings).context("the table [openstack]")?;
        info!(cloud.url = url, "The things of the cloud at {url} can be protected");
        Ok(ServiceCloud { cloud, login })
    }

    fn profile(&self, variable: &impl Fn(&str) -> Option<String>) -> Result<Profile> {
        if let Some(name) = &self.cloud {
            if self.auth_url.is_some() || self.username.is_some() || self.password_file.is_some() {
                bail!(
                    "`cloud` names an entry of clouds.yaml: leave out auth-url, username and password-file"
                );
            }
            let places = match &self.clouds_file {
                Some(file) => vec![file.clone()],
                None => Profile::places(variable),
            };
            let Some(file) = places.iter().find(|place| place.exists()) else {
                let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
                bail!("no clouds.yaml was found; looked at {}", places.join(", "));
            };
            return Profile::from_clouds_file(file, name)
                .with_context(|| format!("reading {}", file.display()));
        }
        let auth_url = self.auth_url.clone().context("auth-url is missing, or `cloud` in place of it")?;
        let username = self.username.clone().context("username is missing")?;
        let password = match &self.password_file {
            Some(file) => std::fs::read_to_string(file)
                .with_context(|| format!("reading the password from {}", file.display()))?,
            None => variable(PASSWORD_VARIABLE)
                .with_context(|| format!("name a password-file, or set {PASSWORD_VARIABLE}"))?,
        };
        let domain = |name: &String| Domain::Name(name.clone());
        let login = Login::Password {
            user: User::Name(username, domain(&self.user_domain_name)),
            password: SecretString::from(password.trim_end_matches(['\r', '\n'])),
            project: Some(Project::Name(self.project_name.clone(), domain(&self.project_domain_name))),
        };
        Ok(Profile { cloud: CloudSettings::new(auth_url), login })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(text: &str) -> Result<ServiceCloud> {
        let config: OpenStackConfig = toml::from_str(text)?;
        config.connect(|name| (name == PASSWORD_VARIABLE).then(|| "open sesame".to_owned()))
    }

    #[test]
    fn a_table_becomes_a_cloud_and_a_login() {
        let text = "auth-url = \"http://keystone:5000\"\nusername = \"karbor\"\ninterface = \"internal\"\n\
                    concurrency = 3\n[endpoints]\nimage = \"http://glance:9292\"";
        let found = connect(text).expect("a cloud");
        assert_eq!(found.cloud.settings().concurrency.get(), 3);
        assert_eq!(found.cloud.settings().interface, Interface::Internal);
        let shown = format!("{found:?}");
        assert!(shown.contains("karbor") && !shown.contains("sesame"), "{shown}");
    }

    #[test]
    fn what_is_missing_or_does_not_fit_is_named() {
        for (text, wanted) in [
            ("username = \"karbor\"", "auth-url is missing"),
            ("auth-url = \"http://k\"", "username is missing"),
            ("auth-url = \"http://k\"\nusername = \"k\"\npassword-file = \"/nowhere\"", "/nowhere"),
            ("auth-url = \"k\"\nusername = \"k\"", "http://"),
            (
                "auth-url = \"http://k\"\nusername = \"k\"\n[endpoints]\nglance = \"http://g\"",
                "no service `glance`",
            ),
            ("cloud = \"c\"\nauth-url = \"http://k\"", "leave out"),
            ("cloud = \"c\"\nclouds-file = \"/nowhere\"", "/nowhere"),
            ("user = \"k\"", "user"),
        ] {
            let err = format!("{:#}", connect(text).expect_err("refused"));
            assert!(err.contains(wanted), "{text}: {err}");
        }
    }
}
