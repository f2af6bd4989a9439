//! `OS::Neutron::Network`: the networks of a project and all that hangs on them, as one resource.
//!
//! Its id is the project's, as it always was. What it holds (networks, subnets, routers, ports, security groups,
//! floating addresses) is restored as one thing, and what has become of each part is announced by the types that the
//! old Karbor had names for, so that servers find the networks that stand for theirs.

mod build;
mod capture;
mod live;
mod plan;
mod plugin;
mod site;
#[cfg(test)]
mod tests;
mod topology;

use std::sync::Arc;

use async_trait::async_trait;
use karbor_openstack_client::neutron::{Kind, Neutron};
use karbor_openstack_client::{ServiceType, Session};
use karbor_plugin::{
    Context, Error, ErrorKind, InstancePage, Page, Protectable, Resource, ResourceKey, ResourceType, Result,
};
use serde::Deserialize;
use serde_json::{Map, Value};

pub(crate) use build::{Builder, Built};
pub(crate) use capture::own_port;
pub(crate) use live::Live;
pub(crate) use plan::{Choices, Existing, find_foreign, pairs};
pub(crate) use plugin::{NAME, PLANNED, make, part_type};
pub(crate) use site::existing;
pub(crate) use topology::{FloatingIp, Foreign, ForeignSubnet, Port};

use crate::error::Doing;
use crate::{Shared, kinds, listing};

/// The project's topology.
#[derive(Debug)]
pub(crate) struct NetworkProtectable {
    shared: Arc<Shared>,
}

/// The name that the old Karbor gave it.
const TITLE: &str = "Network Topology";

impl NetworkProtectable {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Returns the topology, if there is any.
    async fn own(&self, ctx: &Context) -> Result<Option<Resource>> {
        let view = self.shared.view(ctx).await?;
        if !view.has_topology().await? {
            return Ok(None);
        }
        let key = ResourceKey::new(kinds::NETWORK, ctx.project.as_str());
        Ok(Some(Resource { key, name: TITLE.to_owned(), extra_info: Value::Null }))
    }
}

#[async_trait]
impl Protectable for NetworkProtectable {
    fn kind(&self) -> ResourceType {
        ResourceType::from(kinds::NETWORK)
    }

    fn parents(&self) -> Vec<ResourceType> {
        [kinds::PROJECT, kinds::SERVER].map(ResourceType::from).into()
    }

    async fn list(&self, ctx: &Context, page: &Page) -> Result<InstancePage> {
        Ok(listing::page(self.own(ctx).await?.into_iter().collect(), page))
    }

    async fn show(&self, ctx: &Context, id: &str, _parameters: &Map<String, Value>) -> Result<Resource> {
        let own = self.own(ctx).await?.filter(|own| own.key.id == id);
        own.ok_or_else(|| {
            let text = format!("there is no network topology {id} in your project; its id is your project's");
            Error::new(ErrorKind::NotFound, text)
        })
    }

    async fn dependents(&self, ctx: &Context, _parent: &Resource) -> Result<Vec<Resource>> {
        Ok(self.own(ctx).await?.into_iter().collect())
    }
}

/// Returns whether a project has anything that would have to be made again.
pub(crate) async fn has_topology(session: &Session) -> Result<bool> {
    #[derive(Deserialize)]
    struct Named {
        #[serde(default)]
        name: String,
    }
    if !session.has(ServiceType::Network) {
        return Ok(false);
    }
    let doing = || "looking at the networks of the project".to_owned();
    let project = session.project_id().doing(doing)?;
    let neutron = Neutron::new(session).doing(doing)?;
    for kind in [Kind::Network, Kind::Router, Kind::FloatingIp] {
        let query = [("project_id", project), ("fields", "id"), ("limit", "1")];
        let first = neutron.list::<Named>(kind, &query).next().await;
        if first.doing(doing)?.is_some_and(|page| !page.is_empty()) {
            return Ok(true);
        }
    }
    let query = [("project_id", project), ("fields", "name"), ("limit", "2")];
    let groups = neutron.list::<Named>(Kind::SecurityGroup, &query).next().await.doing(doing)?;
    // Every project has one by that name.
    Ok(groups.into_iter().flatten().any(|group| group.name != topology::DEFAULT_GROUP))
}
