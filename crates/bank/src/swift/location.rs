//! Where a container is, and how to be let in.

use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;

use karbor_openstack_client::{Error, ErrorKind, Profile};

/// Where the objects are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SwiftLocation {
    /// The container; with [`SwiftLocation::per_account`] also the beginning of the names of the others.
    pub container: String,
    /// What all names start with, without a slash at either end; empty for all of the container.
    pub prefix: String,
    /// The entry of `clouds.yaml` that tells cloud and credentials; nothing means what the environment says.
    pub cloud: Option<String>,
    /// The region; nothing means that of the cloud.
    pub region: Option<String>,
    /// Whether each account of the bank has a container of its own, `<container>-<account>`.
    pub per_account: bool,
    /// Whether a listing there shows all that was put before it began.
    pub consistent_listing: bool,
}

/// How to talk to Swift.
#[derive(Debug, Clone)]
pub struct SwiftOptions {
    /// What the environment says of a cloud: `OS_CLOUD`, or `OS_AUTH_URL` and its fellows. Or why that cannot be used.
    pub default: Result<Option<Profile>, String>,
    /// Where a `clouds.yaml` is looked for.
    pub places: Vec<PathBuf>,
    /// After how many seconds a request without answer counts as failed, and a stream that stands still.
    pub request_timeout_seconds: NonZeroU64,
}

impl Default for SwiftOptions {
    fn default() -> Self {
        let request_timeout_seconds = const { NonZeroU64::new(60).expect("it is not zero") };
        Self { default: Ok(None), places: Vec::new(), request_timeout_seconds }
    }
}

impl SwiftOptions {
    /// Takes what it can from the variables that OpenStack's tools use; `variable` looks one up.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let named = |name: &str| variable(name).filter(|text| !text.is_empty());
        let places = Profile::places(named);
        let default = match (named("OS_CLOUD"), named("OS_AUTH_URL")) {
            (Some(cloud), _) => read_cloud(&places, &cloud).map(Some),
            (None, Some(_)) => Profile::from_environment(named).map(Some),
            (None, None) => Ok(None),
        };
        Self { default: default.map_err(|error| error.to_string()), places, ..Self::default() }
    }

    /// Returns the cloud of a location, and how to log in there.
    pub(super) fn profile(&self, location: &SwiftLocation) -> Result<Profile, Error> {
        if let Some(cloud) = &location.cloud {
            return read_cloud(&self.places, cloud);
        }
        let invalid =
            |reason: &str| Error::new(ErrorKind::Invalid, "identity", "looking for a cloud", reason);
        match &self.default {
            Ok(Some(profile)) => Ok(profile.clone()),
            Ok(None) => Err(invalid(
                "nothing says which cloud: set OS_CLOUD, or OS_AUTH_URL and its fellows, or add `?cloud=NAME` to the \
                 bank's URL",
            )),
            Err(reason) => Err(invalid(reason)),
        }
    }
}

fn read_cloud(places: &[PathBuf], cloud: &str) -> Result<Profile, Error> {
    match places.iter().find(|place| place.exists()) {
        Some(place) => Profile::from_clouds_file(place, cloud),
        None => {
            let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
            let reason = format!("no clouds.yaml was found; looked at {}", places.join(", "));
            Err(Error::new(ErrorKind::Invalid, "identity", "looking for a cloud", reason))
        }
    }
}

impl fmt::Display for SwiftLocation {
    /// Writes the URL form, which [`crate::BankUrl`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "swift://{}", self.container)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        let flag = |is_set: bool| is_set.then(|| "true".to_owned());
        let settings = [
            ("cloud", self.cloud.clone()),
            ("region", self.region.clone()),
            ("container-per-account", flag(self.per_account)),
            ("consistent-listing", flag(self.consistent_listing)),
        ];
        let mut separator = '?';
        for (name, value) in settings {
            if let Some(value) = value {
                let value =
                    value.replace('%', "%25").replace('&', "%26").replace('#', "%23").replace('+', "%2B");
                write!(f, "{separator}{name}={value}")?;
                separator = '&';
            }
        }
        Ok(())
    }
}
