//! A cloud: where it is, and how it may be used.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::catalog::{Interface, ServiceType};
use crate::error::{Error, ErrorKind, Result};

/// Where a cloud is, and how it may be used.
#[derive(Debug, Clone)]
pub struct CloudSettings {
    /// The address of Keystone, with or without `/v3`.
    pub auth_url: String,
    /// The region; without it, the first that the catalog names.
    pub region: Option<String>,
    /// Which of the services' addresses are used.
    pub interface: Interface,
    /// A file with certificates (PEM) that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long one attempt of a call may take to be answered.
    pub request_timeout: Duration,
    /// How long a stream of bytes may stand still.
    pub stall_timeout: Duration,
    /// For how long a call is tried again before it fails.
    pub patience: Duration,
    /// How many calls run at one service at once, and how many streams beside them.
    pub concurrency: NonZeroUsize,
    /// Addresses to be used in place of the catalog's, by the service's official name.
    pub endpoints: BTreeMap<String, String>,
}

impl CloudSettings {
    /// Returns the usual settings for a cloud.
    pub fn new(auth_url: impl Into<String>) -> Self {
        Self {
            auth_url: auth_url.into(),
            region: None,
            interface: Interface::Public,
            ca_file: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(60),
            patience: Duration::from_secs(120),
            concurrency: const { NonZeroUsize::new(16).expect("16 is not zero") },
            endpoints: BTreeMap::new(),
        }
    }
}

/// A cloud that can be asked: connections and limits that all its sessions share. Cheap to clone.
#[derive(Clone)]
pub struct Cloud(Arc<Inner>);

struct Inner {
    settings: CloudSettings,
    /// The address of Keystone up to its version, without a slash at the end.
    identity: String,
    http: reqwest::Client,
    lanes: BTreeMap<ServiceType, Lanes>,
}

/// What bounds the calls to one service. Streams have their own bound: they are long, and what moves bytes makes
/// calls meanwhile.
pub(crate) struct Lanes {
    pub(crate) calls: Arc<Semaphore>,
    pub(crate) streams: Arc<Semaphore>,
}

impl Cloud {
    /// Prepares for a cloud. It is not asked yet.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the address, the certificates or an endpoint cannot be used.
    pub fn new(settings: CloudSettings) -> Result<Self> {
        let invalid = |reason: String| Error::new(ErrorKind::Invalid, "identity", "setting up", reason);
        let auth_url = checked(&settings.auth_url).map_err(&invalid)?;
        let identity = crate::catalog::complete(ServiceType::Identity, auth_url)
            .ok_or_else(|| invalid(format!("{auth_url} is not an address of Keystone v3")))?;
        for (name, url) in &settings.endpoints {
            if !ServiceType::ALL.iter().any(|service| service.name() == name) {
                let names = ServiceType::ALL.map(ServiceType::name).join(", ");
                return Err(invalid(format!("there is no service `{name}`: there are {names}")));
            }
            checked(url).map_err(&invalid)?;
        }
        let mut http = reqwest::Client::builder()
            .connect_timeout(settings.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("karbor/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &settings.ca_file {
            let unusable = |reason: &str| invalid(format!("{reason} the certificates in {}", path.display()));
            let pem = std::fs::read(path).map_err(|err| unusable("cannot read").with_source(err))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|err| unusable("cannot understand").with_source(err))?;
            http = http.tls_certs_merge(certificates);
        }
        let http = http
            .build()
            .map_err(|err| invalid("the HTTP client cannot be made".to_owned()).with_source(err))?;
        let permits = settings.concurrency.get();
        let lane = || Arc::new(Semaphore::new(permits));
        let lanes = ServiceType::ALL
            .map(|service| (service, Lanes { calls: lane(), streams: lane() }))
            .into_iter()
            .collect();
        Ok(Self(Arc::new(Inner { settings, identity, http, lanes })))
    }

    /// Returns another cloud, or another region of this one, that is used in the same way.
    ///
    /// # Errors
    /// As [`Cloud::new`].
    pub fn elsewhere(&self, auth_url: Option<String>, region: Option<String>) -> Result<Self> {
        let mut settings = self.0.settings.clone();
        // Another Keystone has another catalog, and regions of its own.
        if let Some(auth_url) = auth_url {
            settings.auth_url = auth_url;
            settings.region = None;
            settings.endpoints.clear();
        }
        if region.is_some() {
            settings.region = region;
        }
        Self::new(settings)
    }

    /// Returns its settings.
    pub fn settings(&self) -> &CloudSettings {
        &self.0.settings
    }

    pub(crate) fn identity(&self) -> &str {
        &self.0.identity
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.0.http
    }

    pub(crate) fn lanes(&self, service: ServiceType) -> &Lanes {
        self.0.lanes.get(&service).expect("there are lanes for every service")
    }
}

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cloud").field(&self.0.settings).finish()
    }
}

/// Returns an address that can be asked and holds no credentials.
fn checked(url: &str) -> Result<&str, String> {
    let parsed = reqwest::Url::parse(url).ok().filter(reqwest::Url::has_host);
    let Some(parsed) = parsed.filter(|parsed| matches!(parsed.scheme(), "http" | "https")) else {
        return Err("an address of a service is `http://` or `https://`, a host and a path".to_owned());
    };
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("credentials do not belong into a service's address".to_owned());
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err("an address of a service ends with its path".to_owned());
    }
    Ok(url)
}
