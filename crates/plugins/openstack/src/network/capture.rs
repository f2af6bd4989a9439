//! From what Neutron lists to a topology.

use std::collections::{BTreeMap, BTreeSet};

use karbor_openstack_client::neutron;

use crate::frame::RECORD_FORMAT;
use crate::network::topology::{
    AddressPair, DhcpOption, FixedIp, FloatingIp, Foreign, ForeignSubnet, Gateway, Interface, Network, Pool,
    Port, Route, Router, Rule, SecurityGroup, Subnet, Topology,
};

/// What Neutron lists for a project.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listing {
    pub(crate) project: String,
    /// The project's networks.
    pub(crate) networks: Vec<neutron::Network>,
    /// The project's subnets.
    pub(crate) subnets: Vec<neutron::Subnet>,
    /// The project's routers.
    pub(crate) routers: Vec<neutron::Router>,
    /// The project's ports.
    pub(crate) ports: Vec<neutron::Port>,
    /// The project's security groups.
    pub(crate) security_groups: Vec<neutron::SecurityGroup>,
    /// The project's floating addresses.
    pub(crate) floating_ips: Vec<neutron::FloatingIp>,
    /// Networks that are not the project's, as far as they are used and can be seen.
    pub(crate) foreign_networks: Vec<neutron::Network>,
    /// Subnets of those.
    pub(crate) foreign_subnets: Vec<neutron::Subnet>,
}

/// How Neutron marks the ports that are a router's interfaces.
const INTERFACES: [&str; 3] = [
    "network:router_interface",
    "network:router_interface_distributed",
    "network:ha_router_replicated_interface",
];

impl Listing {
    /// Returns the networks that the project uses although they are not its own, or it could not make them.
    pub(crate) fn foreign_ids(&self) -> BTreeSet<&str> {
        let own: BTreeSet<&str> = self.own_networks().map(|network| network.id.as_str()).collect();
        let gateways = self.routers.iter().filter_map(|router| router.external_gateway_info.as_ref());
        gateways
            .map(|gateway| gateway.network_id.as_str())
            .chain(self.floating_ips.iter().map(|address| address.floating_network_id.as_str()))
            .chain(self.ports.iter().map(|port| port.network_id.as_str()))
            .filter(|id| !id.is_empty() && !own.contains(id))
            .collect()
    }

    fn own_networks(&self) -> impl Iterator<Item = &neutron::Network> {
        // Making an external network is an administrator's.
        self.networks.iter().filter(|network| !network.external)
    }

    /// Returns the topology, and what could not be kept of it, in words.
    pub(crate) fn topology(&self) -> (Topology, Vec<String>) {
        let mut left_out = Vec::new();
        let networks: Vec<Network> = self.own_networks().map(own_network).collect();
        let own: BTreeSet<&str> = networks.iter().map(|network| network.id.as_str()).collect();
        let subnets: Vec<Subnet> = self
            .subnets
            .iter()
            .filter(|subnet| own.contains(subnet.network_id.as_str()))
            .map(own_subnet)
            .collect();
        let foreign = self.foreign();
        let known: BTreeSet<&str> =
            foreign.iter().map(|network| network.id.as_str()).chain(own.iter().copied()).collect();

        let mut interfaces: BTreeMap<&str, Vec<Interface>> = BTreeMap::new();
        let (mut ports, mut port_ids) = (Vec::new(), BTreeSet::new());
        for port in &self.ports {
            if is_interface(port) {
                interfaces.entry(&port.device_id).or_default().push(Interface {
                    port_id: port.id.clone(),
                    network_id: port.network_id.clone(),
                    fixed_ips: port.fixed_ips.iter().map(fixed_ip).collect(),
                });
            } else if port.device_id.is_empty() && port.device_owner.is_empty() {
                port_ids.insert(port.id.as_str());
                ports.push(own_port(port));
            }
        }
        let mut routers = Vec::new();
        for router in &self.routers {
            let mut interfaces = interfaces.remove(router.id.as_str()).unwrap_or_default();
            interfaces.sort_by(|one, two| one.port_id.cmp(&two.port_id));
            interfaces.retain(|interface| known.contains(interface.network_id.as_str()));
            let gateway = router.external_gateway_info.as_ref();
            let gateway = gateway.filter(|gateway| {
                let known = known.contains(gateway.network_id.as_str());
                if !known {
                    let text = format!(
                        "the external network {} of router {} cannot be seen, so it is restored without a gateway",
                        gateway.network_id, router.id
                    );
                    left_out.push(text);
                }
                known
            });
            routers.push(Router {
                id: router.id.clone(),
                name: router.name.clone(),
                description: router.description.clone(),
                admin_state_up: router.admin_state_up,
                gateway: gateway.map(|gateway| Gateway {
                    network_id: gateway.network_id.clone(),
                    enable_snat: gateway.enable_snat,
                    fixed_ips: gateway.external_fixed_ips.iter().map(fixed_ip).collect(),
                }),
                interfaces,
                routes: sorted(router.routes.iter().map(route)),
                availability_zone_hints: router.availability_zone_hints.clone(),
                tags: sorted(router.tags.iter().cloned()),
            });
        }
        let floating_ips = self.floating_ips.iter().map(|address| {
            let port = address.port_id.as_deref().filter(|id| port_ids.contains(id));
            FloatingIp {
                id: address.id.clone(),
                address: address.floating_ip_address.clone(),
                network_id: address.floating_network_id.clone(),
                port_id: port.map(str::to_owned),
                fixed_ip_address: port.and(address.fixed_ip_address.clone()),
                description: address.description.clone(),
                tags: sorted(address.tags.iter().cloned()),
            }
        });
        let floating_ips =
            floating_ips.filter(|address| known.contains(address.network_id.as_str())).collect();
        let topology = Topology {
            format: RECORD_FORMAT,
            project: self.project.clone(),
            networks,
            subnets,
            routers,
            ports,
            security_groups: self.security_groups.iter().map(own_group).collect(),
            floating_ips,
            foreign,
        };
        (topology, left_out)
    }

    fn foreign(&self) -> Vec<Foreign> {
        let used = self.foreign_ids();
        let external = self.networks.iter().filter(|network| network.external);
        let all = self.foreign_networks.iter().chain(external).filter(|one| used.contains(one.id.as_str()));
        let mut seen = BTreeSet::new();
        let mut foreign = Vec::new();
        for network in all {
            if !seen.insert(network.id.as_str()) {
                continue;
            }
            let subnets = self.foreign_subnets.iter().chain(&self.subnets);
            let mut subnets: Vec<ForeignSubnet> = subnets
                .filter(|subnet| subnet.network_id == network.id)
                .map(|subnet| ForeignSubnet { id: subnet.id.clone(), cidr: subnet.cidr.clone() })
                .collect();
            subnets.sort_by(|one, two| one.id.cmp(&two.id));
            subnets.dedup();
            foreign.push(Foreign {
                id: network.id.clone(),
                name: network.name.clone(),
                external: network.external,
                subnets,
            });
        }
        foreign
    }
}

/// Returns whether a port is a router's interface.
pub(crate) fn is_interface(port: &neutron::Port) -> bool {
    INTERFACES.contains(&port.device_owner.as_str())
}

fn sorted<T: Ord>(things: impl Iterator<Item = T>) -> Vec<T> {
    let mut things: Vec<T> = things.collect();
    things.sort();
    things
}

fn own_network(network: &neutron::Network) -> Network {
    Network {
        id: network.id.clone(),
        name: network.name.clone(),
        description: network.description.clone(),
        admin_state_up: network.admin_state_up,
        mtu: network.mtu,
        port_security_enabled: network.port_security_enabled,
        shared: network.shared,
        availability_zone_hints: network.availability_zone_hints.clone(),
        dns_domain: network.dns_domain.clone(),
        tags: sorted(network.tags.iter().cloned()),
    }
}

fn own_subnet(subnet: &neutron::Subnet) -> Subnet {
    let pool = |pool: &neutron::Pool| Pool { start: pool.start.clone(), end: pool.end.clone() };
    Subnet {
        id: subnet.id.clone(),
        network_id: subnet.network_id.clone(),
        name: subnet.name.clone(),
        description: subnet.description.clone(),
        ip_version: subnet.ip_version,
        cidr: subnet.cidr.clone(),
        gateway_ip: subnet.gateway_ip.clone(),
        allocation_pools: subnet.allocation_pools.iter().map(pool).collect(),
        dns_nameservers: subnet.dns_nameservers.clone(),
        host_routes: sorted(subnet.host_routes.iter().map(route)),
        enable_dhcp: subnet.enable_dhcp,
        ipv6_address_mode: subnet.ipv6_address_mode.clone(),
        ipv6_ra_mode: subnet.ipv6_ra_mode.clone(),
        subnetpool_id: subnet.subnetpool_id.clone(),
        service_types: sorted(subnet.service_types.iter().cloned()),
        tags: sorted(subnet.tags.iter().cloned()),
    }
}

fn route(route: &neutron::Route) -> Route {
    Route { destination: route.destination.clone(), nexthop: route.nexthop.clone() }
}

fn fixed_ip(address: &neutron::FixedIp) -> FixedIp {
    FixedIp { subnet_id: address.subnet_id.clone(), ip_address: address.ip_address.clone() }
}

/// Returns a port as it is kept.
pub(crate) fn own_port(port: &neutron::Port) -> Port {
    let option = |option: &neutron::DhcpOption| DhcpOption {
        name: option.opt_name.clone(),
        value: option.opt_value.clone(),
        ip_version: option.ip_version,
    };
    let pair = |pair: &neutron::AddressPair| AddressPair {
        ip_address: pair.ip_address.clone(),
        // Neutron fills in the port's own, which a new port need not have.
        mac_address: pair.mac_address.clone().filter(|mac| *mac != port.mac_address),
    };
    Port {
        id: port.id.clone(),
        network_id: port.network_id.clone(),
        name: port.name.clone(),
        description: port.description.clone(),
        admin_state_up: port.admin_state_up,
        mac_address: port.mac_address.clone(),
        fixed_ips: port.fixed_ips.iter().map(fixed_ip).collect(),
        security_groups: sorted(port.security_groups.iter().cloned()),
        allowed_address_pairs: sorted(port.allowed_address_pairs.iter().map(pair)),
        extra_dhcp_opts: sorted(port.extra_dhcp_opts.iter().map(option)),
        port_security_enabled: port.port_security_enabled,
        vnic_type: port.vnic_type.clone(),
        dns_name: port.dns_name.clone(),
        tags: sorted(port.tags.iter().cloned()),
    }
}

fn own_group(group: &neutron::SecurityGroup) -> SecurityGroup {
    SecurityGroup {
        id: group.id.clone(),
        name: group.name.clone(),
        description: group.description.clone(),
        stateful: group.stateful,
        rules: sorted(group.security_group_rules.iter().map(rule)),
        tags: sorted(group.tags.iter().cloned()),
    }
}

/// Returns a rule as it is kept.
pub(crate) fn rule(rule: &neutron::SecurityGroupRule) -> Rule {
    Rule {
        direction: rule.direction.clone(),
        ethertype: rule.ethertype.clone(),
        protocol: rule.protocol.clone(),
        port_range_min: rule.port_range_min,
        port_range_max: rule.port_range_max,
        remote_ip_prefix: rule.remote_ip_prefix.clone(),
        remote_group_id: rule.remote_group_id.clone(),
        remote_address_group_id: rule.remote_address_group_id.clone(),
        description: rule.description.clone(),
    }
}
