//! `OS::Cinder::Volume`: what there is, and the plugins that protect it.

pub(crate) mod backup;
mod connection;
mod definition;
mod disk;
pub(crate) mod group;
mod layers;
pub(crate) mod snapshot;
pub(crate) mod vault;
mod work;

use std::sync::Arc;

use async_trait::async_trait;
use karbor_openstack_client::cinder::{Cinder, Volume};
use karbor_plugin::{
    Context, Error, ErrorKind, InstancePage, Page, Protectable, Resource, ResourceKey, ResourceType, Result,
};
use serde_json::{Map, Value, json};

use crate::error::Doing;
use crate::{Shared, kinds, listing};

/// The project's volumes.
#[derive(Debug)]
pub(crate) struct VolumeProtectable {
    shared: Arc<Shared>,
}

impl VolumeProtectable {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

fn resource(volume: &Volume) -> Resource {
    Resource {
        key: ResourceKey::new(kinds::VOLUME, volume.id.clone()),
        name: volume.name.clone(),
        extra_info: json!({"availability_zone": volume.availability_zone}),
    }
}

/// States in which there is nothing to protect, so that lists leave such volumes out.
const GONE: &[&str] = &["error", "deleting", "error_deleting"];

#[async_trait]
impl Protectable for VolumeProtectable {
    fn kind(&self) -> ResourceType {
        ResourceType::from(kinds::VOLUME)
    }

    fn parents(&self) -> Vec<ResourceType> {
        [kinds::PROJECT, kinds::SERVER].map(ResourceType::from).into()
    }

    async fn list(&self, ctx: &Context, page: &Page) -> Result<InstancePage> {
        let view = self.shared.view(ctx).await?;
        let volumes = view.volumes().await?.iter().filter(|volume| !GONE.contains(&volume.status.as_str()));
        Ok(listing::page(volumes.map(resource).collect(), page))
    }

    async fn show(&self, ctx: &Context, id: &str, _parameters: &Map<String, Value>) -> Result<Resource> {
        let view = self.shared.view(ctx).await?;
        let found = if view.prefers_listing() {
            view.volumes().await?.iter().find(|volume| volume.id == id).cloned()
        } else {
            let shown = async { Cinder::new(&view.session)?.volume(id).await }.await;
            match shown {
                Err(err) if err.is_not_found() => None,
                shown => Some(shown.doing(|| format!("looking at volume {id}"))?),
            }
        };
        // Administrators see the volumes of all projects; here they are in one.
        let project = view.session.project_id().doing(|| "looking at the token".to_owned())?;
        let is_own = |volume: &Volume| volume.project_id.as_deref().is_none_or(|owner| owner == project);
        match found.filter(is_own) {
            Some(volume) if GONE.contains(&volume.status.as_str()) => {
                let text = format!("volume {id} is in the state {} and cannot be protected", volume.status);
                Err(Error::new(ErrorKind::Invalid, text))
            }
            Some(volume) => Ok(resource(&volume)),
            None => Err(Error::new(ErrorKind::NotFound, format!("there is no volume {id} in your project"))),
        }
    }

    async fn dependents(&self, ctx: &Context, parent: &Resource) -> Result<Vec<Resource>> {
        let view = self.shared.view(ctx).await?;
        let is_under = |volume: &&Volume| match parent.key.kind.as_str() {
            kinds::PROJECT => true,
            kinds::SERVER => {
                let mut users = volume.attachments.iter().filter_map(|one| one.server_id.as_deref());
                users.any(|server| server == parent.key.id)
            }
            _ => false,
        };
        // One that failed is named too: its plugin says that it cannot be protected, rather than nobody.
        let is_going = |volume: &&Volume| volume.status.contains("deleting");
        let volumes = view.volumes().await?.iter().filter(is_under).filter(|volume| !is_going(volume));
        Ok(volumes.map(resource).collect())
    }
}
