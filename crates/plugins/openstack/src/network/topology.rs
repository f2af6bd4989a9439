//! The topology of a project as a checkpoint keeps it.
//!
//! Invariant: everything that one part says of another is an id that stands in the topology, among its own parts or
//! among the foreign ones; what could not be found when it was captured is left out and told of. So a topology can
//! be restored by what it holds alone.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The topology of a project.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Topology {
    /// The format of the record.
    pub(crate) format: u32,
    /// Whose it was.
    pub(crate) project: String,
    pub(crate) networks: Vec<Network>,
    pub(crate) subnets: Vec<Subnet>,
    pub(crate) routers: Vec<Router>,
    /// Ports that belong to no device: addresses that are kept free, or shared by several servers.
    pub(crate) ports: Vec<Port>,
    pub(crate) security_groups: Vec<SecurityGroup>,
    pub(crate) floating_ips: Vec<FloatingIp>,
    /// Networks that the project uses and cannot make: external ones, and those of others.
    #[serde(default)]
    pub(crate) foreign: Vec<Foreign>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Network {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) admin_state_up: bool,
    pub(crate) mtu: Option<u32>,
    pub(crate) port_security_enabled: Option<bool>,
    /// Others could use it. That is an administrator's to give.
    pub(crate) shared: bool,
    pub(crate) availability_zone_hints: Vec<String>,
    pub(crate) dns_domain: String,
    pub(crate) tags: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pool {
    pub(crate) start: String,
    pub(crate) end: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Route {
    pub(crate) destination: String,
    pub(crate) nexthop: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Subnet {
    pub(crate) id: String,
    pub(crate) network_id: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) ip_version: u8,
    pub(crate) cidr: String,
    pub(crate) gateway_ip: Option<String>,
    pub(crate) allocation_pools: Vec<Pool>,
    pub(crate) dns_nameservers: Vec<String>,
    pub(crate) host_routes: Vec<Route>,
    pub(crate) enable_dhcp: bool,
    pub(crate) ipv6_address_mode: Option<String>,
    pub(crate) ipv6_ra_mode: Option<String>,
    pub(crate) subnetpool_id: Option<String>,
    pub(crate) service_types: Vec<String>,
    pub(crate) tags: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct FixedIp {
    pub(crate) subnet_id: String,
    pub(crate) ip_address: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Gateway {
    pub(crate) network_id: String,
    pub(crate) enable_snat: Option<bool>,
    pub(crate) fixed_ips: Vec<FixedIp>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Interface {
    /// The port by which the router had it.
    pub(crate) port_id: String,
    pub(crate) network_id: String,
    pub(crate) fixed_ips: Vec<FixedIp>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Router {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) admin_state_up: bool,
    pub(crate) gateway: Option<Gateway>,
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) routes: Vec<Route>,
    pub(crate) availability_zone_hints: Vec<String>,
    pub(crate) tags: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct AddressPair {
    pub(crate) ip_address: String,
    pub(crate) mac_address: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DhcpOption {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) ip_version: Option<u8>,
}

/// A port, of the topology or of a server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Port {
    pub(crate) id: String,
    pub(crate) network_id: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) admin_state_up: bool,
    pub(crate) mac_address: String,
    pub(crate) fixed_ips: Vec<FixedIp>,
    pub(crate) security_groups: Vec<String>,
    pub(crate) allowed_address_pairs: Vec<AddressPair>,
    pub(crate) extra_dhcp_opts: Vec<DhcpOption>,
    pub(crate) port_security_enabled: Option<bool>,
    pub(crate) vnic_type: Option<String>,
    pub(crate) dns_name: String,
    pub(crate) tags: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SecurityGroup {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) stateful: Option<bool>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) tags: Vec<String>,
}

/// A rule; its order is that of its members.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Rule {
    pub(crate) direction: String,
    pub(crate) ethertype: String,
    pub(crate) protocol: Option<String>,
    pub(crate) port_range_min: Option<i64>,
    pub(crate) port_range_max: Option<i64>,
    pub(crate) remote_ip_prefix: Option<String>,
    pub(crate) remote_group_id: Option<String>,
    pub(crate) remote_address_group_id: Option<String>,
    pub(crate) description: String,
}

impl Rule {
    /// Returns the rule without what does not tell two rules apart.
    pub(crate) fn bare(&self) -> Self {
        let any = |prefix: &String| prefix != "0.0.0.0/0" && prefix != "::/0";
        Self {
            description: String::new(),
            remote_ip_prefix: self.remote_ip_prefix.clone().filter(any),
            ..self.clone()
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct FloatingIp {
    pub(crate) id: String,
    pub(crate) address: String,
    /// The external network, which is a foreign one.
    pub(crate) network_id: String,
    /// The port of the topology that had it. A server's port is told of by the server.
    pub(crate) port_id: Option<String>,
    pub(crate) fixed_ip_address: Option<String>,
    pub(crate) description: String,
    pub(crate) tags: Vec<String>,
}

/// A network that the project uses and cannot make.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Foreign {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) external: bool,
    pub(crate) subnets: Vec<ForeignSubnet>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ForeignSubnet {
    pub(crate) id: String,
    pub(crate) cidr: String,
}

impl Topology {
    /// Returns what refers to something that is not there, in words.
    pub(crate) fn gaps(&self) -> Vec<String> {
        let networks = self.networks.iter().map(|one| one.id.as_str());
        let networks: BTreeSet<&str> =
            networks.chain(self.foreign.iter().map(|one| one.id.as_str())).collect();
        let mut gaps = Vec::new();
        let mut look = |kind: &str, id: &str, network: &str| {
            if !networks.contains(network) {
                gaps.push(format!("{kind} {id} is on the network {network}, of which nothing is known"));
            }
        };
        for subnet in &self.subnets {
            look("subnet", &subnet.id, &subnet.network_id);
        }
        for port in &self.ports {
            look("port", &port.id, &port.network_id);
        }
        for router in &self.routers {
            let interfaces = router.interfaces.iter().map(|interface| interface.network_id.as_str());
            let gateway = router.gateway.iter().map(|gateway| gateway.network_id.as_str());
            interfaces.chain(gateway).for_each(|network| look("router", &router.id, network));
        }
        for address in &self.floating_ips {
            look("floating address", &address.id, &address.network_id);
        }
        gaps
    }
}

/// The name of the group that every project has and nobody can make.
pub(crate) const DEFAULT_GROUP: &str = "default";
