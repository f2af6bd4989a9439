//! Protectables and protection plugins for a project of an OpenStack cloud.
//!
//! Each plugin has the name, and understands the parameters, that it had in the old Karbor; the first of each type is
//! the one that a provider has when its configuration names none.
//!
//! Invariants: only the caller's own rights are used, and what is listed is the context's project alone. A listing
//! that fails is an error. Whatever is made in the cloud stands in the ledger first and carries a tag, so that it is
//! found again after any crash ([`made`]); what was needed only on the way is gone when the operation ends. Nothing
//! that waits for the cloud waits for ever ([`poll`]).

mod access;
mod error;
mod frame;
mod image;
mod listing;
mod made;
mod network;
mod poll;
mod project;
mod server;
mod share;
mod volume;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use karbor_openstack_client::{Cloud, Login};
use karbor_plugin::{Error, ErrorKind, Protectable, Protection, Result};
use serde_json::{Map, Value};

use access::Sessions;
use listing::Listings;

/// The types of this crate, as the old Karbor calls them.
pub mod kinds {
    /// A project as a whole.
    pub const PROJECT: &str = "OS::Keystone::Project";
    /// A server.
    pub const SERVER: &str = "OS::Nova::Server";
    /// A volume.
    pub const VOLUME: &str = "OS::Cinder::Volume";
    /// An image, or what a server made of one.
    pub const IMAGE: &str = "OS::Glance::Image";
    /// All networks of a project.
    pub const NETWORK: &str = "OS::Neutron::Network";
    /// A share.
    pub const SHARE: &str = "OS::Manila::Share";
}

/// What the plugins of this crate need to know.
#[derive(Clone)]
pub struct OpenStackOptions {
    /// The cloud.
    pub cloud: Cloud,
    /// Who this service is there, by which trusts are used; without it only tokens and given credentials are.
    pub login: Option<Login>,
    /// A directory for sockets and bytes on the way; it is made if it does not exist.
    pub spool: PathBuf,
}

impl fmt::Debug for OpenStackOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenStackOptions")
            .field("cloud", &self.cloud)
            .field("spool", &self.spool)
            .finish_non_exhaustive()
    }
}

/// What can be protected in a cloud, and how.
#[derive(Debug, Clone)]
pub struct OpenStack {
    shared: Arc<Shared>,
}

/// What all plugins of a cloud use. It holds nothing that a hook leaves for another: sessions can be opened again, and
/// listings are forgotten within seconds.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) sessions: Sessions,
    pub(crate) listings: Listings,
    pub(crate) restored_images: image::Places,
    pub(crate) group_turn: volume::group::GroupTurn,
    pub(crate) spool: PathBuf,
}

/// Makes a plugin of its settings.
type Make = fn(&Arc<Shared>, &Map<String, Value>) -> Result<Arc<dyn Protection>>;

/// The plugins by name. The first ones of each type are the defaults.
const PLUGINS: &[(&str, bool, Make)] = &[
    (project::NAME, true, project::make),
    (server::NAME, true, server::make),
    (volume::vault::NAME, true, volume::vault::make),
    (image::plugin::NAME, true, image::plugin::make),
    (network::NAME, true, network::make),
    (share::NAME, true, share::make),
    (volume::backup::NAME, false, volume::backup::make),
    (volume::snapshot::NAME, false, volume::snapshot::make),
    (volume::vault::GLANCE_NAME, false, volume::vault::make_glance),
];

impl OpenStack {
    /// Prepares for a cloud. It is not asked yet.
    pub fn open(options: OpenStackOptions) -> Self {
        let OpenStackOptions { cloud, login, spool } = options;
        let shared = Shared {
            sessions: Sessions::new(cloud, login),
            listings: Listings::default(),
            restored_images: image::Places::default(),
            group_turn: volume::group::GroupTurn::default(),
            spool,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Returns the protectables, one for each type.
    pub fn protectables(&self) -> Vec<Arc<dyn Protectable>> {
        let shared = &self.shared;
        vec![
            Arc::new(project::ProjectProtectable),
            Arc::new(volume::VolumeProtectable::new(Arc::clone(shared))),
            Arc::new(image::ImageProtectable::new(Arc::clone(shared))),
            Arc::new(server::ServerProtectable::new(Arc::clone(shared))),
            Arc::new(network::NetworkProtectable::new(Arc::clone(shared))),
            Arc::new(share::ShareProtectable::new(Arc::clone(shared))),
        ]
    }

    /// Returns the names of the plugins.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PLUGINS.iter().map(|(name, _, _)| *name)
    }

    /// Returns the plugins that a provider has when it names none: one for each type, with the usual settings.
    ///
    /// # Errors
    /// As [`OpenStack::protection`].
    pub fn protections(&self) -> Result<Vec<Arc<dyn Protection>>> {
        let defaults = PLUGINS.iter().filter(|(_, is_default, _)| *is_default);
        defaults.map(|(_, _, make)| make(&self.shared, &Map::new())).collect()
    }

    /// Returns the plugin of that name, with the settings that a provider gives it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when there is none of that name, or the settings are wrong.
    pub fn protection(&self, name: &str, settings: &Map<String, Value>) -> Result<Arc<dyn Protection>> {
        let Some((_, _, make)) = PLUGINS.iter().find(|(known, _, _)| *known == name) else {
            let known: Vec<&str> = Self::names().collect();
            let text = format!("there is no plugin `{name}`; known are: {}", known.join(", "));
            return Err(Error::new(ErrorKind::Invalid, text));
        };
        make(&self.shared, settings)
    }
}
