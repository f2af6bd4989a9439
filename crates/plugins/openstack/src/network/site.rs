//! What Neutron has: for a checkpoint, and for a restore.

use futures::future::{BoxFuture, try_join_all};
use karbor_openstack_client::Session;
use karbor_openstack_client::neutron::{self, Kind, Neutron};
use karbor_plugin::Result;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::Doing;
use crate::network::capture::Listing;
use crate::network::plan::Existing;

/// How many networks are asked for in one query.
const IDS_AT_ONCE: usize = 50;

/// Boxed, since many of them run at once.
fn list<'a, T: DeserializeOwned + Send + 'a>(
    neutron: &'a Neutron,
    kind: Kind,
    query: &'a [(&'a str, &'a str)],
) -> BoxFuture<'a, Result<Vec<T>>> {
    let listed = async move {
        let listed = neutron.list(kind, query).all().await;
        listed.doing(|| format!("listing the {}", kind.collection().replace('_', " ")))
    };
    Box::pin(listed)
}

async fn by_ids<T: DeserializeOwned + Send>(
    neutron: &Neutron,
    kind: Kind,
    name: &str,
    ids: &[&str],
) -> Result<Vec<T>> {
    let parts = ids.chunks(IDS_AT_ONCE).map(|ids| async move {
        let query: Vec<(&str, &str)> = ids.iter().map(|id| (name, *id)).collect();
        list(neutron, kind, &query).await
    });
    Ok(try_join_all(parts).await?.into_iter().flatten().collect())
}

/// Lists what a project has.
pub(crate) async fn listing(session: &Session) -> Result<Listing> {
    let doing = || "looking at the networks of the project".to_owned();
    let project = session.project_id().doing(doing)?;
    let neutron = Neutron::new(session).doing(doing)?;
    let own = [("project_id", project)];
    let (networks, subnets, routers, ports, security_groups, floating_ips) = tokio::try_join!(
        list::<neutron::Network>(&neutron, Kind::Network, &own),
        list(&neutron, Kind::Subnet, &own),
        list(&neutron, Kind::Router, &own),
        list(&neutron, Kind::Port, &own),
        list(&neutron, Kind::SecurityGroup, &own),
        list(&neutron, Kind::FloatingIp, &own),
    )?;
    let mut listing = Listing {
        project: project.to_owned(),
        networks,
        subnets,
        routers,
        ports,
        security_groups,
        floating_ips,
        ..Listing::default()
    };
    let foreign: Vec<&str> = listing.foreign_ids().into_iter().collect();
    let (networks, subnets) = tokio::try_join!(
        by_ids(&neutron, Kind::Network, "id", &foreign),
        by_ids(&neutron, Kind::Subnet, "network_id", &foreign),
    )?;
    (listing.foreign_networks, listing.foreign_subnets) = (networks, subnets);
    Ok(listing)
}

/// Lists what a project has and may use.
pub(crate) async fn existing(session: &Session) -> Result<Existing> {
    #[derive(Deserialize)]
    struct Id {
        id: String,
    }
    let doing = || "looking at the networks of the project".to_owned();
    let project = session.project_id().doing(doing)?;
    let neutron = Neutron::new(session).doing(doing)?;
    let own = [("project_id", project)];
    let (networks, subnets, routers, ports, security_groups, floating_ips, pools) = tokio::try_join!(
        list::<neutron::Network>(&neutron, Kind::Network, &[]),
        list(&neutron, Kind::Subnet, &[]),
        list(&neutron, Kind::Router, &own),
        list(&neutron, Kind::Port, &own),
        list::<neutron::SecurityGroup>(&neutron, Kind::SecurityGroup, &[]),
        list(&neutron, Kind::FloatingIp, &own),
        list::<Id>(&neutron, Kind::SubnetPool, &[("fields", "id")]),
    )?;
    Ok(Existing {
        project: project.to_owned(),
        networks,
        subnets,
        routers,
        ports,
        security_groups,
        floating_ips,
        subnet_pools: pools.into_iter().map(|pool| pool.id).collect(),
        ..Existing::default()
    })
}
