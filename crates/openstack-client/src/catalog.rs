//! The catalog that comes with a token: where each service is.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// The services that there are calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServiceType {
    /// Keystone.
    Identity,
    /// Nova.
    Compute,
    /// Cinder.
    BlockStorage,
    /// Glance.
    Image,
    /// Neutron.
    Network,
    /// Manila.
    SharedFileSystem,
    /// Swift.
    ObjectStore,
}

impl ServiceType {
    /// All of them.
    pub(crate) const ALL: [Self; 7] = [
        Self::Identity,
        Self::Compute,
        Self::BlockStorage,
        Self::Image,
        Self::Network,
        Self::SharedFileSystem,
        Self::ObjectStore,
    ];

    /// Returns its official name.
    pub const fn name(self) -> &'static str {
        self.names()[0]
    }

    /// Returns the names under which it stands in catalogs, the official one first.
    const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Identity => &["identity"],
            Self::Compute => &["compute"],
            Self::BlockStorage => &["block-storage", "volumev3", "block-store", "volume"],
            Self::Image => &["image"],
            Self::Network => &["network"],
            Self::SharedFileSystem => &["shared-file-system", "sharev2", "share"],
            Self::ObjectStore => &["object-store"],
        }
    }

    /// Returns the version that is spoken, as the first segment of paths; `None` where the address is complete.
    const fn version(self) -> Option<&'static str> {
        match self {
            Self::Identity | Self::BlockStorage => Some("v3"),
            Self::Compute => Some("v2.1"),
            Self::Image | Self::SharedFileSystem => Some("v2"),
            Self::Network => Some("v2.0"),
            Self::ObjectStore => None,
        }
    }

    /// Returns the headers that ask for a microversion; none where the service has no microversions.
    pub(crate) fn microversion_headers(self, version: &str) -> Vec<(&'static str, String)> {
        let official = |name: &str| ("openstack-api-version", format!("{name} {version}"));
        match self {
            Self::Compute => {
                vec![official("compute"), ("x-openstack-nova-api-version", version.to_owned())]
            }
            Self::BlockStorage => vec![official("volume")],
            Self::SharedFileSystem => {
                vec![official("shared-file-system"), ("x-openstack-manila-api-version", version.to_owned())]
            }
            Self::Identity | Self::Image | Self::Network | Self::ObjectStore => Vec::new(),
        }
    }
}

impl fmt::Display for ServiceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which of a service's addresses is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interface {
    /// The one for everybody.
    #[default]
    Public,
    /// The one inside of the cloud.
    Internal,
    /// The one for administrators.
    Admin,
}

impl Interface {
    /// Returns its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Interface {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_suffix("URL").unwrap_or(text) {
            "public" => Ok(Self::Public),
            "internal" => Ok(Self::Internal),
            "admin" => Ok(Self::Admin),
            _ => Err(format!("`{text}` is not an interface: there are public, internal and admin")),
        }
    }
}

/// The catalog of one token.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Catalog(Vec<Entry>);

#[derive(Debug, Clone, Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone, Deserialize)]
struct Endpoint {
    interface: String,
    url: String,
    #[serde(default)]
    region: Option<String>,
    #[serde(default)]
    region_id: Option<String>,
}

impl Catalog {
    /// Returns a service's address, complete up to its version, without a slash at the end.
    ///
    /// Some catalogs name a service's root, some its version, some the project below it: the version that is spoken
    /// is added where there is none, and an entry for another version is passed over.
    pub(crate) fn endpoint(
        &self,
        service: ServiceType,
        region: Option<&str>,
        interface: Interface,
    ) -> Option<String> {
        let fits = |endpoint: &&Endpoint| {
            let is_here = |name: &Option<String>| name.as_deref() == region;
            endpoint.interface == interface.name()
                && (region.is_none() || is_here(&endpoint.region) || is_here(&endpoint.region_id))
        };
        for name in service.names() {
            let entries = self.0.iter().filter(|entry| entry.kind == *name);
            let endpoints = entries.flat_map(|entry| &entry.endpoints).filter(fits);
            if let Some(url) = endpoints.filter_map(|endpoint| complete(service, &endpoint.url)).next() {
                return Some(url);
            }
        }
        None
    }
}

/// Adds the version to an address that has none; nothing if it has another one.
pub(crate) fn complete(service: ServiceType, url: &str) -> Option<String> {
    let url = url.trim_end_matches('/');
    let Some(version) = service.version() else { return Some(url.to_owned()) };
    let is_version = |segment: &&str| {
        segment.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let path = url.split_once("://").map_or(url, |(_, rest)| rest);
    match path.split('/').skip(1).find(is_version) {
        None => Some(format!("{url}/{version}")),
        Some(found) if found == version => Some(url.to_owned()),
        // Nova serves the newer version under the older name too, and Neutron under both.
        Some(found) if found.split('.').next() == version.split('.').next() => Some(url.to_owned()),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        serde_json::from_value(serde_json::json!([
            {"type": "volumev2", "endpoints": [
                {"interface": "public", "region": "one", "url": "http://cinder:8776/v2/abc"}]},
            {"type": "volumev3", "endpoints": [
                {"interface": "public", "region": "one", "url": "http://cinder:8776/v3/abc"},
                {"interface": "internal", "region": "one", "url": "http://10.0.0.1:8776/v3/abc"},
                {"interface": "public", "region_id": "two", "url": "http://two:8776/v3/abc/"}]},
            {"type": "share", "endpoints": [
                {"interface": "public", "region": "one", "url": "http://manila/v1/abc"}]},
            {"type": "image", "endpoints": [{"interface": "public", "region": "one", "url": "https://v.example/image/"}]},
            {"type": "network", "endpoints": [{"interface": "public", "region": "one", "url": "http://n:9696"}]},
            {"type": "object-store", "endpoints": [
                {"interface": "public", "region": "one", "url": "http://s:8080/v1/AUTH_abc"}]},
        ]))
        .expect("a catalog")
    }

    #[test]
    fn services_are_found_by_alias_region_and_interface() {
        use Interface::{Admin, Internal, Public};
        use ServiceType::{BlockStorage, Compute, Image, Network, ObjectStore, SharedFileSystem};
        for (service, region, interface, expected) in [
            (BlockStorage, Some("one"), Public, Some("http://cinder:8776/v3/abc")),
            (BlockStorage, Some("one"), Internal, Some("http://10.0.0.1:8776/v3/abc")),
            (BlockStorage, Some("two"), Public, Some("http://two:8776/v3/abc")),
            (BlockStorage, Some("two"), Internal, None),
            (BlockStorage, None, Public, Some("http://cinder:8776/v3/abc")),
            (BlockStorage, None, Admin, None),
            (SharedFileSystem, None, Public, None),
            (Image, None, Public, Some("https://v.example/image/v2")),
            (Network, None, Public, Some("http://n:9696/v2.0")),
            (ObjectStore, None, Public, Some("http://s:8080/v1/AUTH_abc")),
            (Compute, None, Public, None),
        ] {
            let found = catalog().endpoint(service, region, interface);
            assert_eq!(found.as_deref(), expected, "{service} {region:?} {interface:?}");
        }
    }
}
