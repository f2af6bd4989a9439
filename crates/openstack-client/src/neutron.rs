//! Neutron: networks and what hangs on them, quotas.

use reqwest::Method;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::Ignored;
use crate::catalog::ServiceType;
use crate::error::{Error, ErrorKind, Result};
use crate::page::Pages;
use crate::service::Service;
use crate::session::Session;

/// Neutron, as one identity sees it.
#[derive(Debug, Clone)]
pub struct Neutron(Service);

/// The kinds of things that Neutron has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Networks.
    Network,
    /// Subnets.
    Subnet,
    /// Routers.
    Router,
    /// Ports.
    Port,
    /// Security groups, with their rules.
    SecurityGroup,
    /// Rules of security groups.
    SecurityGroupRule,
    /// Floating addresses.
    FloatingIp,
    /// Subnet pools.
    SubnetPool,
}

impl Kind {
    /// Returns the name of one, as documents have it.
    pub const fn member(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Subnet => "subnet",
            Self::Router => "router",
            Self::Port => "port",
            Self::SecurityGroup => "security_group",
            Self::SecurityGroupRule => "security_group_rule",
            Self::FloatingIp => "floatingip",
            Self::SubnetPool => "subnetpool",
        }
    }

    /// Returns the name of all, as documents have it.
    pub const fn collection(self) -> &'static str {
        match self {
            Self::Network => "networks",
            Self::Subnet => "subnets",
            Self::Router => "routers",
            Self::Port => "ports",
            Self::SecurityGroup => "security_groups",
            Self::SecurityGroupRule => "security_group_rules",
            Self::FloatingIp => "floatingips",
            Self::SubnetPool => "subnetpools",
        }
    }

    const fn segment(self) -> &'static str {
        match self {
            Self::SecurityGroup => "security-groups",
            Self::SecurityGroupRule => "security-group-rules",
            _ => self.collection(),
        }
    }
}

/// A network. Members that only administrators see are not here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
    /// Its description.
    #[serde(deserialize_with = "null_is_default")]
    pub description: String,
    /// Whose it is.
    #[serde(deserialize_with = "null_is_default")]
    pub project_id: String,
    /// Whether it is switched on.
    pub admin_state_up: bool,
    /// The largest packet.
    pub mtu: Option<u32>,
    /// Whether its ports are guarded.
    pub port_security_enabled: Option<bool>,
    /// Whether other projects may use it.
    pub shared: bool,
    /// Whether it leads outside.
    #[serde(rename = "router:external")]
    pub external: bool,
    /// Where it is wanted.
    #[serde(deserialize_with = "null_is_default")]
    pub availability_zone_hints: Vec<String>,
    /// The domain of its ports.
    #[serde(deserialize_with = "null_is_default")]
    pub dns_domain: String,
    /// The quality of service.
    pub qos_policy_id: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
}

/// A range of addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Pool {
    /// The first.
    pub start: String,
    /// The last.
    pub end: String,
}

/// A route.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Route {
    /// Where to.
    pub destination: String,
    /// By which neighbour.
    pub nexthop: String,
}

/// A subnet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Subnet {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
    /// Its description.
    #[serde(deserialize_with = "null_is_default")]
    pub description: String,
    /// Its network.
    pub network_id: String,
    /// Whose it is.
    #[serde(deserialize_with = "null_is_default")]
    pub project_id: String,
    /// 4 or 6.
    pub ip_version: u8,
    /// Its addresses.
    pub cidr: String,
    /// The address of its router, if there is to be one.
    pub gateway_ip: Option<String>,
    /// From which addresses are given out.
    pub allocation_pools: Vec<Pool>,
    /// The servers of names.
    pub dns_nameservers: Vec<String>,
    /// Routes that hosts are told.
    pub host_routes: Vec<Route>,
    /// Whether addresses are given out by DHCP.
    pub enable_dhcp: bool,
    /// How addresses of IPv6 are made.
    pub ipv6_address_mode: Option<String>,
    /// Who announces routers of IPv6.
    pub ipv6_ra_mode: Option<String>,
    /// The pool that its addresses come from.
    pub subnetpool_id: Option<String>,
    /// For which ports it is.
    #[serde(deserialize_with = "null_is_default")]
    pub service_types: Vec<String>,
    /// Its tags.
    pub tags: Vec<String>,
}

/// The side of a router that leads outside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Gateway {
    /// The external network.
    pub network_id: String,
    /// Whether addresses are translated.
    pub enable_snat: Option<bool>,
    /// Its addresses there.
    pub external_fixed_ips: Vec<FixedIp>,
}

/// A router.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Router {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
    /// Its description.
    #[serde(deserialize_with = "null_is_default")]
    pub description: String,
    /// Whose it is.
    #[serde(deserialize_with = "null_is_default")]
    pub project_id: String,
    /// Whether it is switched on.
    pub admin_state_up: bool,
    /// Where it leads outside.
    pub external_gateway_info: Option<Gateway>,
    /// Its static routes.
    pub routes: Vec<Route>,
    /// Where it is wanted.
    #[serde(deserialize_with = "null_is_default")]
    pub availability_zone_hints: Vec<String>,
    /// Its tags.
    pub tags: Vec<String>,
}

/// An address of a port.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default)]
pub struct FixedIp {
    /// In which subnet.
    pub subnet_id: String,
    /// The address.
    pub ip_address: String,
}

/// An address that a port may also use.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default)]
pub struct AddressPair {
    /// The address, or a range of them.
    pub ip_address: String,
    /// The hardware address.
    pub mac_address: Option<String>,
}

/// An option that a port is told by DHCP.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default)]
pub struct DhcpOption {
    /// Its name.
    pub opt_name: String,
    /// Its value.
    #[serde(deserialize_with = "text_of_any")]
    pub opt_value: String,
    /// 4 or 6.
    pub ip_version: Option<u8>,
}

/// A port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Port {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
    /// Its description.
    #[serde(deserialize_with = "null_is_default")]
    pub description: String,
    /// Its network.
    pub network_id: String,
    /// Whose it is.
    #[serde(deserialize_with = "null_is_default")]
    pub project_id: String,
    /// Whether it is switched on.
    pub admin_state_up: bool,
    /// Its hardware address.
    pub mac_address: String,
    /// Its addresses.
    pub fixed_ips: Vec<FixedIp>,
    /// What it belongs to.
    #[serde(deserialize_with = "null_is_default")]
    pub device_id: String,
    /// What kind of thing that is.
    #[serde(deserialize_with = "null_is_default")]
    pub device_owner: String,
    /// Which security groups guard it.
    #[serde(deserialize_with = "null_is_default")]
    pub security_groups: Vec<String>,
    /// What it may also use as its address.
    #[serde(deserialize_with = "null_is_default")]
    pub allowed_address_pairs: Vec<AddressPair>,
    /// What it is told by DHCP.
    #[serde(deserialize_with = "null_is_default")]
    pub extra_dhcp_opts: Vec<DhcpOption>,
    /// Whether it is guarded.
    pub port_security_enabled: Option<bool>,
    /// How it is bound to a host.
    #[serde(rename = "binding:vnic_type")]
    pub vnic_type: Option<String>,
    /// Its name for DNS.
    #[serde(deserialize_with = "null_is_default")]
    pub dns_name: String,
    /// The quality of service.
    pub qos_policy_id: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
}

/// A rule of a security group.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default)]
pub struct SecurityGroupRule {
    /// Its id.
    pub id: String,
    /// Its group.
    pub security_group_id: String,
    /// `ingress` or `egress`.
    pub direction: String,
    /// `IPv4` or `IPv6`.
    pub ethertype: String,
    /// The protocol; any, if there is none.
    #[serde(deserialize_with = "optional_text_of_any")]
    pub protocol: Option<String>,
    /// The first port, or a type of ICMP.
    pub port_range_min: Option<i64>,
    /// The last port, or a code of ICMP.
    pub port_range_max: Option<i64>,
    /// The addresses of the other side.
    pub remote_ip_prefix: Option<String>,
    /// The group of the other side.
    pub remote_group_id: Option<String>,
    /// The address group of the other side.
    pub remote_address_group_id: Option<String>,
    /// Its description.
    #[serde(deserialize_with = "null_is_default")]
    pub description: String,
}

/// A security group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SecurityGroup {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
    /// Its description.
    #[serde(deserialize_with = "null_is_default")]
    pub description: String,
    /// Whose it is.
    #[serde(deserialize_with = "null_is_default")]
    pub project_id: String,
    /// Whether answers are let through.
    pub stateful: Option<bool>,
    /// Its rules.
    pub security_group_rules: Vec<SecurityGroupRule>,
    /// Its tags.
    pub tags: Vec<String>,
}

/// A floating address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct FloatingIp {
    /// Its id.
    pub id: String,
    /// Whose it is.
    #[serde(deserialize_with = "null_is_default")]
    pub project_id: String,
    /// The address.
    pub floating_ip_address: String,
    /// The external network that it is of.
    pub floating_network_id: String,
    /// The port that has it.
    pub port_id: Option<String>,
    /// Which of the port's addresses has it.
    pub fixed_ip_address: Option<String>,
    /// Its description.
    #[serde(deserialize_with = "null_is_default")]
    pub description: String,
    /// The quality of service.
    pub qos_policy_id: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
}

/// How much of a kind a project may have, and has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Quota {
    /// At most; negative for no limit.
    pub limit: i64,
    /// What it has.
    #[serde(default)]
    pub used: i64,
    /// What is being made.
    #[serde(default)]
    pub reserved: i64,
}

impl Quota {
    /// Returns how many more there may be; nothing if there is no limit.
    pub fn free(&self) -> Option<u64> {
        let free = self.limit.saturating_sub(self.used).saturating_sub(self.reserved);
        (self.limit >= 0).then(|| u64::try_from(free).unwrap_or(0))
    }
}

impl Neutron {
    /// Returns Neutron for a session.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the cloud has none.
    pub fn new(session: &Session) -> Result<Self> {
        session.service(ServiceType::Network).map(Self)
    }

    /// Lists the things of a kind that a query finds: `T` is the type of the kind.
    pub fn list<T: DeserializeOwned>(&self, kind: Kind, query: &[(&str, &str)]) -> Pages<T> {
        let path = Service::path(&[kind.segment()]);
        // Neutron gives everything at once unless it is asked for pages.
        let mut query = query.to_vec();
        if !query.iter().any(|(name, _)| *name == "limit") {
            query.push(("limit", "1000"));
        }
        self.0.pages(path, &query, kind.collection())
    }

    /// Reads a thing.
    ///
    /// # Errors
    /// Those of Neutron.
    pub async fn show<T: DeserializeOwned>(&self, kind: Kind, id: &str) -> Result<T> {
        let mut document: Map<String, Value> = self.0.get(Service::path(&[kind.segment(), id])).await?;
        let thing = document.remove(kind.member()).unwrap_or_default();
        serde_json::from_value(thing).map_err(|err| strange(kind, id).with_source(err))
    }

    /// Makes a thing, and returns its id.
    ///
    /// # Errors
    /// Those of Neutron.
    pub async fn create(&self, kind: Kind, body: &Value) -> Result<String> {
        let path = Service::path(&[kind.segment()]);
        let document: Value = self.0.post(path, &json!({kind.member(): body})).await?;
        let id = document[kind.member()]["id"].as_str();
        id.map(str::to_owned).ok_or_else(|| strange(kind, "the new one"))
    }

    /// Changes a thing.
    ///
    /// # Errors
    /// Those of Neutron.
    pub async fn update(&self, kind: Kind, id: &str, body: &Value) -> Result<()> {
        let path = Service::path(&[kind.segment(), id]);
        self.0.put::<Ignored>(path, &json!({kind.member(): body})).await.map(drop)
    }

    /// Removes a thing, and says whether it was there.
    ///
    /// # Errors
    /// Those of Neutron.
    pub async fn delete(&self, kind: Kind, id: &str) -> Result<bool> {
        self.0.delete(Service::path(&[kind.segment(), id])).await
    }

    /// Replaces the tags of a thing.
    ///
    /// # Errors
    /// Those of Neutron.
    pub async fn set_tags(&self, kind: Kind, id: &str, tags: &[String]) -> Result<()> {
        let path = Service::path(&[kind.segment(), id, "tags"]);
        self.0.put::<Ignored>(path, &json!({"tags": tags})).await.map(drop)
    }

    /// Gives a router an interface: `{"subnet_id": …}` or `{"port_id": …}`.
    ///
    /// # Errors
    /// Those of Neutron.
    pub async fn add_router_interface(&self, router: &str, interface: &Value) -> Result<()> {
        let path = Service::path(&["routers", router, "add_router_interface"]);
        self.0.put::<Ignored>(path, interface).await.map(drop)
    }

    /// Takes an interface from a router, and says whether it had it.
    ///
    /// # Errors
    /// Those of Neutron.
    pub async fn remove_router_interface(&self, router: &str, port: &str) -> Result<bool> {
        let path = Service::path(&["routers", router, "remove_router_interface"]);
        match self.0.request(Method::PUT, path).json(&json!({"port_id": port})).send().await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns what the session's project may have of a kind, and has; nothing if the cloud does not tell.
    ///
    /// # Errors
    /// Those of Neutron.
    pub async fn quota(&self, project: &str) -> Result<Quotas> {
        #[derive(Deserialize)]
        struct Document {
            quota: Map<String, Value>,
        }
        let path = Service::path(&["quotas", project, "details.json"]);
        match self.0.get::<Document>(path).await {
            Ok(document) => Ok(Quotas(document.quota)),
            // An extension that a cloud need not have, or does not show to everybody.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Denied) => {
                Ok(Quotas(Map::new()))
            }
            Err(error) => Err(error),
        }
    }
}

/// What a project may have, by kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Quotas(Map<String, Value>);

impl Quotas {
    /// Returns what it may have of a kind, if that is known.
    pub fn of(&self, kind: Kind) -> Option<Quota> {
        Quota::deserialize(self.0.get(kind.member())?).ok()
    }
}

fn strange(kind: Kind, id: &str) -> Error {
    let doing = format!("reading {} {id}", kind.member());
    Error::new(ErrorKind::Other, "network", doing, "the answer is not what was expected")
}

/// Reads null, which is written where nothing was ever set, as nothing.
pub(crate) fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn text_of_any<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(optional_text_of_any(from)?.unwrap_or_default())
}

/// Some values are texts or numbers, as they were once given.
fn optional_text_of_any<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_set_is_read_as_nothing() {
        let port = json!({
            "id": "p", "name": null, "network_id": "n", "security_groups": null, "dns_name": null,
            "extra_dhcp_opts": [{"opt_name": "mtu", "opt_value": 1400}], "binding:vnic_type": "normal",
        });
        let port = Port::deserialize(port).unwrap();
        assert_eq!((port.name.as_str(), port.security_groups.len()), ("", 0));
        assert_eq!(port.extra_dhcp_opts[0].opt_value, "1400");
    }

    #[test]
    fn quotas_say_how_many_more_there_may_be() {
        let quota = |limit, used| Quota { limit, used, reserved: 1 };
        assert_eq!([quota(10, 4).free(), quota(3, 9).free(), quota(-1, 9).free()], [Some(5), Some(0), None]);
    }
}
