//! From what Nova and Neutron tell of a server to its record.

use std::collections::BTreeSet;

use karbor_openstack_client::Session;
use karbor_openstack_client::neutron::{self, Kind, Neutron};
use karbor_openstack_client::nova::{Nova, Server, VolumeAttachment};
use karbor_plugin::Result;

use crate::error::Doing;
use crate::frame::RECORD_FORMAT;
use crate::made::TAG_KEY;
use crate::network::{FloatingIp, Foreign, ForeignSubnet, own_port};
use crate::server::record::{FlavorRecord, GroupRecord, KeyRecord, PortRecord, ServerRecord, VolumeRecord};

/// What is known of a server beside itself.
#[derive(Debug, Default)]
pub(crate) struct Around {
    pub(crate) volumes: Vec<VolumeAttachment>,
    pub(crate) ports: Vec<neutron::Port>,
    pub(crate) floating_ips: Vec<neutron::FloatingIp>,
    pub(crate) networks: Vec<neutron::Network>,
    pub(crate) subnets: Vec<neutron::Subnet>,
    pub(crate) key_pair: Option<KeyRecord>,
    pub(crate) group: Option<GroupRecord>,
}

/// Asks for a server's record.
pub(crate) async fn capture(session: &Session, id: &str) -> Result<ServerRecord> {
    let doing = || format!("looking at server {id}");
    let nova = Nova::new(session).doing(doing)?;
    let neutron = Neutron::new(session).doing(doing)?;
    let (server, volumes, ports) = tokio::try_join!(
        nova.server(id),
        nova.volume_attachments(id),
        neutron.list::<neutron::Port>(Kind::Port, &[("device_id", id)]).all(),
    )
    .doing(doing)?;
    let mut around = Around { volumes, ports, ..Around::default() };
    if !around.ports.is_empty() {
        let query: Vec<(&str, &str)> =
            around.ports.iter().map(|port| ("port_id", port.id.as_str())).collect();
        around.floating_ips = neutron.list(Kind::FloatingIp, &query).all().await.doing(doing)?;
        let own = around.ports.iter().map(|port| port.network_id.as_str());
        let outside = around.floating_ips.iter().map(|address| address.floating_network_id.as_str());
        let ids: BTreeSet<&str> = own.chain(outside).collect();
        let by = |name: &'static str| ids.iter().map(|id| (name, *id)).collect::<Vec<_>>();
        let (networks, subnets) = tokio::try_join!(
            neutron.list(Kind::Network, &by("id")).all(),
            neutron.list(Kind::Subnet, &by("network_id")).all(),
        )
        .doing(doing)?;
        (around.networks, around.subnets) = (networks, subnets);
    }
    if let Some(name) = &server.key_name {
        around.key_pair = Some(match nova.key_pair(name).await {
            Ok(pair) => KeyRecord {
                name: name.clone(),
                kind: Some(pair.kind).filter(|kind| !kind.is_empty()),
                public_key: Some(pair.public_key),
            },
            // It is another user's, or is gone since.
            Err(err) if err.is_not_found() => KeyRecord { name: name.clone(), ..KeyRecord::default() },
            Err(err) => return Err(err).doing(|| format!("looking at the key pair {name}")),
        });
    }
    if let Some(group) = server.server_groups.first() {
        let groups = nova.server_groups().await.doing(|| "listing the server groups".to_owned())?;
        around.group = groups.into_iter().find(|one| one.id == *group).map(|group| GroupRecord {
            id: group.id,
            name: group.name,
            policy: group.policy,
            rules: group.rules,
        });
    }
    Ok(record(&server, around))
}

/// Makes the record.
pub(crate) fn record(server: &Server, around: Around) -> ServerRecord {
    let Around { volumes, ports, floating_ips, networks, subnets, key_pair, group } = around;
    let flavor = &server.flavor;
    let mut metadata = server.metadata.clone();
    metadata.remove(TAG_KEY);
    ServerRecord {
        format: RECORD_FORMAT,
        id: server.id.clone(),
        name: server.name.clone(),
        description: server.description.clone(),
        status: server.status.clone(),
        flavor: FlavorRecord {
            name: flavor.original_name.clone(),
            vcpus: flavor.vcpus,
            ram: flavor.ram,
            disk: flavor.disk,
            ephemeral: flavor.ephemeral,
            swap: flavor.swap,
            extra_specs: flavor.extra_specs.clone(),
        },
        image_id: server.image.clone(),
        volumes: own_volumes(server, volumes),
        ports: own_ports(server, ports, &floating_ips),
        networks: own_networks(&networks, &subnets),
        key_pair,
        metadata,
        tags: server.tags.clone(),
        availability_zone: server.availability_zone.clone().filter(|zone| !zone.is_empty()),
        config_drive: server.config_drive.eq_ignore_ascii_case("true"),
        user_data: server.user_data.clone(),
        group,
    }
}

/// Orders volumes as their devices are: `/dev/vdb` before `/dev/vdc`, and that before `/dev/vdaa`.
fn own_volumes(server: &Server, mut volumes: Vec<VolumeAttachment>) -> Vec<VolumeRecord> {
    volumes.sort_by_cached_key(|volume| {
        let device = volume.device.clone().unwrap_or_default();
        (device.is_empty(), device.len(), device, volume.volume_id.clone())
    });
    // Nova tells only administrators which device it boots from: it is the first of them.
    let root = volumes
        .iter()
        .position(|volume| server.root_device_name.is_some() && volume.device == server.root_device_name);
    let root = if server.image.is_some() { None } else { Some(root.unwrap_or(0)) };
    let volumes = volumes.into_iter().enumerate();
    let record = |(index, volume): (usize, VolumeAttachment)| VolumeRecord {
        id: volume.volume_id,
        device: volume.device,
        is_root: root == Some(index),
        tag: volume.tag,
        delete_on_termination: volume.delete_on_termination,
    };
    volumes.map(record).collect()
}

/// Orders ports as the server's addresses are.
fn own_ports(
    server: &Server,
    mut ports: Vec<neutron::Port>,
    floating_ips: &[neutron::FloatingIp],
) -> Vec<PortRecord> {
    let macs: Vec<&str> = server
        .addresses
        .iter()
        .flat_map(|(_, addresses)| addresses)
        .map(|address| address.mac_address.as_str())
        .collect();
    ports.sort_by_cached_key(|port| {
        (macs.iter().position(|mac| *mac == port.mac_address).unwrap_or(usize::MAX), port.id.clone())
    });
    let record = |port: &neutron::Port| {
        let floating = floating_ips.iter().filter(|address| address.port_id.as_ref() == Some(&port.id));
        PortRecord {
            port: own_port(port),
            floating_ips: floating
                .map(|address| FloatingIp {
                    id: address.id.clone(),
                    address: address.floating_ip_address.clone(),
                    network_id: address.floating_network_id.clone(),
                    port_id: Some(port.id.clone()),
                    fixed_ip_address: address.fixed_ip_address.clone(),
                    description: address.description.clone(),
                    tags: address.tags.clone(),
                })
                .collect(),
        }
    };
    ports.iter().map(record).collect()
}

fn own_networks(networks: &[neutron::Network], subnets: &[neutron::Subnet]) -> Vec<Foreign> {
    let record = |network: &neutron::Network| Foreign {
        id: network.id.clone(),
        name: network.name.clone(),
        external: network.external,
        subnets: subnets
            .iter()
            .filter(|subnet| subnet.network_id == network.id)
            .map(|subnet| ForeignSubnet { id: subnet.id.clone(), cidr: subnet.cidr.clone() })
            .collect(),
    };
    networks.iter().map(record).collect()
}

#[cfg(test)]
mod tests {
    use karbor_openstack_client::nova::Address;

    use super::*;

    fn volume(id: &str, device: &str) -> VolumeAttachment {
        VolumeAttachment { volume_id: id.to_owned(), device: Some(device.to_owned()), ..Default::default() }
    }

    #[test]
    fn volumes_stand_in_the_order_of_their_devices_and_the_first_is_booted_from() {
        let volumes = || vec![volume("c", "/dev/vdaa"), volume("b", "/dev/vdb"), volume("a", "/dev/vda")];
        let ids = |server: &Server| {
            let volumes = own_volumes(server, volumes()).into_iter();
            volumes.map(|volume| (volume.id, volume.is_root)).collect::<Vec<_>>()
        };
        let of = |rows: [(&str, bool); 3]| rows.map(|(id, root)| (id.to_owned(), root)).to_vec();
        assert_eq!(ids(&Server::default()), of([("a", true), ("b", false), ("c", false)]));
        let told = Server { root_device_name: Some("/dev/vdb".to_owned()), ..Server::default() };
        assert_eq!(ids(&told), of([("a", false), ("b", true), ("c", false)]));
        let of_image = Server { image: Some("i".to_owned()), ..Server::default() };
        assert_eq!(ids(&of_image), of([("a", false), ("b", false), ("c", false)]));
    }

    #[test]
    fn ports_stand_in_the_order_of_the_addresses() {
        let port = |id: &str, mac: &str| neutron::Port {
            id: id.to_owned(),
            mac_address: mac.to_owned(),
            ..neutron::Port::default()
        };
        let address = |mac: &str| Address { mac_address: mac.to_owned(), ..Address::default() };
        let addresses = vec![
            ("zulu".to_owned(), vec![address("m2"), address("m2")]),
            ("alpha".to_owned(), vec![address("m1")]),
        ];
        let server = Server { addresses, ..Server::default() };
        let ports = own_ports(&server, vec![port("1", "m1"), port("2", "m2"), port("0", "m0")], &[]);
        let ids: Vec<&str> = ports.iter().map(|port| port.port.id.as_str()).collect();
        assert_eq!(ids, ["2", "1", "0"]);
    }
}
