//! Does what a plan says, step by step, on whatever builds: Neutron, or a model of it in tests.
//!
//! Every step ends in the same when it is done again, so that a restore that died goes on from its beginning.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use async_trait::async_trait;
use karbor_openstack_client::neutron::{self, Kind};
use karbor_plugin::{Error, ErrorKind, Result};
use serde_json::{Map, Value, json};

use crate::network::capture;
use crate::network::plan::{Part, Plan, Step, Target, rule_part};
use crate::network::topology::{
    FixedIp, FloatingIp, Interface, Network, Port, Router, Rule, SecurityGroup, Subnet,
};

/// What can make the parts of a topology.
#[async_trait]
pub(crate) trait Builder: Send + Sync {
    /// Returns whether an earlier attempt has begun to make what stands for a part.
    fn began(&self, part: &Part) -> bool;

    /// Makes a thing that stands for the part `old`, once, and returns its id.
    async fn make(&self, part: &Part, body: Map<String, Value>, tags: &[String]) -> Result<String>;

    /// Changes a thing.
    async fn update(&self, kind: Kind, id: &str, body: Value) -> Result<()>;

    /// Returns the ports of a router.
    async fn router_ports(&self, router: &str) -> Result<Vec<neutron::Port>>;

    /// Connects a router.
    async fn connect(&self, router: &str, interface: Value) -> Result<()>;

    /// Returns the rules of a group.
    async fn rules(&self, group: &str) -> Result<Vec<neutron::SecurityGroupRule>>;

    /// Adds a rule to a group, unless it has it. `part` names it where the group is not new, and keeps it otherwise.
    async fn add_rule(&self, part: Option<&Part>, body: Map<String, Value>) -> Result<()>;

    /// Removes a rule.
    async fn remove_rule(&self, id: &str) -> Result<()>;
}

/// What came of a plan.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Built {
    /// What stands for each part.
    pub(crate) map: BTreeMap<Part, String>,
    /// What could not be as it was: the part, and what is different.
    pub(crate) notes: Vec<(Part, String)>,
}

/// Does what a plan says.
///
/// # Errors
/// What the first step that fails answers. What was made stays, and stands in the ledger.
pub(crate) async fn build(plan: &Plan, builder: &dyn Builder) -> Result<Built> {
    let existing = plan.targets.iter().filter_map(|(part, target)| match target {
        Target::Existing(id) => Some((part.clone(), id.clone())),
        Target::New | Target::Missing => None,
    });
    let mut built = Built { map: existing.collect(), notes: Vec::new() };
    for step in &plan.steps {
        built.step(step, builder).await?;
    }
    Ok(built)
}

impl Built {
    async fn step(&mut self, step: &Step, builder: &dyn Builder) -> Result<()> {
        match step {
            Step::Group(group) => {
                let part = (Kind::SecurityGroup, group.id.clone());
                let new = builder.make(&part, group_body(group), &group.tags).await?;
                self.map.insert(part, new);
            }
            Step::Network(network) => {
                let part = (Kind::Network, network.id.clone());
                let body = network_body(network);
                let new = match builder.make(&part, body.clone(), &network.tags).await {
                    Err(err) if is_refusal(&err) && body.contains_key("availability_zone_hints") => {
                        let without = without(&body, &["availability_zone_hints"]);
                        let new = builder.make(&part, without, &network.tags).await?;
                        self.note(&part, "it is in no particular zone: those it was in are not there");
                        new
                    }
                    made => made?,
                };
                self.map.insert(part, new);
            }
            Step::Subnet(subnet) => {
                let part = (Kind::Subnet, subnet.id.clone());
                let mut body = subnet_body(subnet);
                body.insert("network_id".to_owned(), json!(self.of(Kind::Network, &subnet.network_id)?));
                let new = match builder.make(&part, body.clone(), &subnet.tags).await {
                    Err(err) if is_refusal(&err) && subnet.subnetpool_id.is_some() => {
                        let new =
                            builder.make(&part, without(&body, &["subnetpool_id"]), &subnet.tags).await?;
                        self.note(&part, "it is in no subnet pool: its addresses there are taken");
                        new
                    }
                    made => made?,
                };
                self.map.insert(part, new);
            }
            Step::Router(router) => self.router(router, builder).await?,
            Step::Interface { router, interface, by_subnet } => {
                self.interface(router, interface, *by_subnet, builder).await?;
            }
            Step::Routes(router) => {
                let id = self.of(Kind::Router, &router.id)?.to_owned();
                builder.update(Kind::Router, &id, json!({"routes": router.routes})).await?;
            }
            Step::Rules { group, fresh } => self.rules(group, *fresh, builder).await?,
            Step::Port(port) => {
                let part = (Kind::Port, port.id.clone());
                let new = self.port(&part, port, Map::new(), builder).await?;
                self.map.insert(part, new);
            }
            Step::Address(address) => self.address(address, builder).await?,
            Step::Associate(address) => {
                let id = self.of(Kind::FloatingIp, &address.id)?.to_owned();
                let body = self.association(address)?;
                builder.update(Kind::FloatingIp, &id, Value::Object(body)).await?;
            }
        }
        Ok(())
    }

    async fn router(&mut self, router: &Router, builder: &dyn Builder) -> Result<()> {
        let part = (Kind::Router, router.id.clone());
        let mut body = common(&router.name, &router.description);
        body.insert("admin_state_up".to_owned(), json!(router.admin_state_up));
        if !router.availability_zone_hints.is_empty() {
            body.insert("availability_zone_hints".to_owned(), json!(router.availability_zone_hints));
        }
        let mut gateway = Map::new();
        if let Some(info) = &router.gateway {
            gateway.insert("network_id".to_owned(), json!(self.of(Kind::Network, &info.network_id)?));
            body.insert("external_gateway_info".to_owned(), json!(gateway));
        }
        // Most clouds let only administrators choose a gateway's address, or switch off translation.
        let mut full = gateway.clone();
        if let Some(info) = &router.gateway {
            if info.enable_snat == Some(false) {
                full.insert("enable_snat".to_owned(), json!(false));
            }
            let addresses = info.fixed_ips.iter().map(|address| self.fixed(address, true));
            let addresses: Option<Vec<Value>> = addresses.collect();
            if let Some(addresses) = addresses.filter(|addresses| !addresses.is_empty()) {
                full.insert("external_fixed_ips".to_owned(), json!(addresses));
            }
        }
        let mut first = body.clone();
        if !full.is_empty() {
            first.insert("external_gateway_info".to_owned(), json!(full));
        }
        let mut last = without(&body, &["availability_zone_hints"]);
        let mut variants = vec![first];
        if full != gateway {
            variants.push(body.clone());
        }
        if last != body {
            variants.push(std::mem::take(&mut last));
        }
        let (new, used) = first_that_goes(builder, &part, variants, &router.tags).await?;
        if used > 0 {
            let snat = router.gateway.as_ref().is_some_and(|info| info.enable_snat == Some(false));
            if snat {
                self.note(&part, "it translates addresses: only an administrator can switch that off");
            }
        }
        self.map.insert(part, new);
        Ok(())
    }

    async fn interface(
        &mut self,
        router: &str,
        interface: &Interface,
        by_subnet: bool,
        builder: &dyn Builder,
    ) -> Result<()> {
        let id = self.of(Kind::Router, router)?.to_owned();
        let there = builder.router_ports(&id).await?;
        let subnets: Vec<String> =
            interface.fixed_ips.iter().filter_map(|one| self.get(Kind::Subnet, &one.subnet_id)).collect();
        let has = |subnet: &String| {
            there.iter().any(|port| port.fixed_ips.iter().any(|address| address.subnet_id == *subnet))
        };
        if !subnets.is_empty() && subnets.iter().all(has) {
            return Ok(());
        }
        if by_subnet && let [subnet] = subnets.as_slice() {
            return builder.connect(&id, json!({"subnet_id": subnet})).await;
        }
        let part = (Kind::Port, interface.port_id.clone());
        let port = Port {
            network_id: interface.network_id.clone(),
            fixed_ips: interface.fixed_ips.clone(),
            admin_state_up: true,
            ..Port::default()
        };
        let new = self.port(&part, &port, Map::new(), builder).await?;
        builder.connect(&id, json!({"port_id": new})).await
    }

    async fn rules(&mut self, group: &SecurityGroup, fresh: bool, builder: &dyn Builder) -> Result<()> {
        let part = (Kind::SecurityGroup, group.id.clone());
        let id = self.of(Kind::SecurityGroup, &group.id)?.to_owned();
        let mut wanted: Vec<(Part, Rule)> =
            group.rules.iter().map(|rule| (rule_part(&group.id, rule), rule.clone())).collect();
        for (_, rule) in &mut wanted {
            if let Some(remote) = rule.remote_group_id.take() {
                rule.remote_group_id = Some(self.get(Kind::SecurityGroup, &remote).unwrap_or(remote));
            }
        }
        let there = builder.rules(&id).await?;
        if fresh {
            // Neutron gives every new group rules of its own.
            for rule in &there {
                let kept = wanted.iter().any(|(_, one)| one.bare() == capture::rule(rule).bare());
                if !kept {
                    builder.remove_rule(&rule.id).await?;
                }
            }
        }
        for (name, rule) in wanted {
            let is_there = there.iter().any(|one| capture::rule(one).bare() == rule.bare());
            if is_there && !builder.began(&name) {
                continue;
            }
            let address_group = rule.remote_address_group_id.clone();
            let mut body = rule_body(&rule);
            body.insert("security_group_id".to_owned(), json!(id));
            match builder.add_rule((!fresh).then_some(&name), body).await {
                Err(err) if err.kind() == ErrorKind::NotFound && address_group.is_some() => {
                    let text = format!(
                        "a rule is left out: the address group {} is not there",
                        address_group.unwrap_or_default()
                    );
                    self.note(&part, &text);
                }
                added => added?,
            }
        }
        Ok(())
    }

    /// Makes a port: as it was, or as near to that as the cloud allows.
    pub(crate) async fn port(
        &mut self,
        part: &Part,
        port: &Port,
        more: Map<String, Value>,
        builder: &dyn Builder,
    ) -> Result<String> {
        let mut body = common(&port.name, &port.description);
        body.insert("network_id".to_owned(), json!(self.of(Kind::Network, &port.network_id)?));
        body.insert("admin_state_up".to_owned(), json!(port.admin_state_up));
        if port.port_security_enabled == Some(false) {
            body.insert("port_security_enabled".to_owned(), json!(false));
        } else if !part_is_interface(port) {
            let groups = port.security_groups.iter().filter_map(|id| self.get(Kind::SecurityGroup, id));
            body.insert("security_groups".to_owned(), groups.collect());
        }
        if let Some(kind) = port.vnic_type.as_ref().filter(|kind| *kind != "normal") {
            body.insert("binding:vnic_type".to_owned(), json!(kind));
        }
        if !port.dns_name.is_empty() {
            body.insert("dns_name".to_owned(), json!(port.dns_name));
        }
        let options = port.extra_dhcp_opts.iter().map(|option| {
            let mut written = json!({"opt_name": option.name, "opt_value": option.value});
            if let Some(version) = option.ip_version {
                written["ip_version"] = json!(version);
            }
            written
        });
        let options: Vec<Value> = options.collect();
        if !options.is_empty() {
            body.insert("extra_dhcp_opts".to_owned(), Value::Array(options));
        }
        body.extend(more);
        let pairs = port.allowed_address_pairs.iter().map(|pair| match &pair.mac_address {
            Some(mac) => json!({"ip_address": pair.ip_address, "mac_address": mac}),
            None => json!({"ip_address": pair.ip_address}),
        });
        let pairs: Vec<Value> = pairs.collect();

        let fixed = |with_addresses: bool| -> Vec<Value> {
            let keeps = |address: &&FixedIp| !is_made_of_mac(&address.ip_address, &port.mac_address);
            let all = port.fixed_ips.iter();
            all.filter_map(|address| self.fixed(address, with_addresses && keeps(&address))).collect()
        };
        let variant = |mac: bool, addresses: bool, with_pairs: bool| {
            let mut body = body.clone();
            if mac && !port.mac_address.is_empty() {
                body.insert("mac_address".to_owned(), json!(port.mac_address));
            }
            let fixed = fixed(addresses);
            if !fixed.is_empty() {
                body.insert("fixed_ips".to_owned(), Value::Array(fixed));
            }
            if with_pairs && !pairs.is_empty() {
                body.insert("allowed_address_pairs".to_owned(), json!(pairs));
            }
            body
        };
        let bare = without(&variant(false, false, false), &["port_security_enabled", "binding:vnic_type"]);
        let variants = [
            (variant(true, true, true), ""),
            (
                variant(false, true, true),
                "it has another hardware address: the one it had is taken or not allowed",
            ),
            (variant(false, false, true), "it has other addresses: those it had are taken or not allowed"),
            (bare, "it has other addresses and no allowed address pairs: the project may not set them there"),
        ];
        let mut seen: Vec<(Map<String, Value>, &str)> = Vec::new();
        for (body, text) in variants {
            if !seen.iter().any(|(one, _)| *one == body) {
                seen.push((body, text));
            }
        }
        let bodies = seen.iter().map(|(body, _)| body.clone()).collect();
        let (new, used) = first_that_goes(builder, part, bodies, &port.tags).await?;
        if used > 0 {
            self.note(part, seen[used].1);
        }
        Ok(new)
    }

    /// Makes a floating address: the same, if the cloud allows that.
    pub(crate) async fn address(&mut self, address: &FloatingIp, builder: &dyn Builder) -> Result<()> {
        let part = (Kind::FloatingIp, address.id.clone());
        let mut body = Map::new();
        body.insert("description".to_owned(), json!(address.description));
        let network = self.of(Kind::Network, &address.network_id)?.to_owned();
        body.insert("floating_network_id".to_owned(), json!(network));
        body.extend(self.association(address)?);
        let mut same = body.clone();
        same.insert("floating_ip_address".to_owned(), json!(address.address));
        let variants = if address.address.is_empty() { vec![body] } else { vec![same, body] };
        let (new, used) = first_that_goes(builder, &part, variants, &address.tags).await?;
        if used > 0 {
            let text =
                format!("{} is taken, or the project may not choose: it is another address", address.address);
            self.note(&part, &text);
        }
        self.map.insert(part, new);
        Ok(())
    }

    fn association(&self, address: &FloatingIp) -> Result<Map<String, Value>> {
        let mut body = Map::new();
        if let Some(port) = &address.port_id
            && let Some(port) = self.get(Kind::Port, port)
        {
            body.insert("port_id".to_owned(), json!(port));
            if let Some(fixed) = &address.fixed_ip_address {
                body.insert("fixed_ip_address".to_owned(), json!(fixed));
            }
        }
        Ok(body)
    }

    /// Returns an address as it would be asked for; nothing where nothing stands for its subnet.
    fn fixed(&self, address: &FixedIp, with_address: bool) -> Option<Value> {
        let subnet = self.get(Kind::Subnet, &address.subnet_id)?;
        Some(match with_address {
            true => json!({"subnet_id": subnet, "ip_address": address.ip_address}),
            false => json!({"subnet_id": subnet}),
        })
    }

    fn get(&self, kind: Kind, id: &str) -> Option<String> {
        self.map.get(&(kind, id.to_owned())).cloned()
    }

    fn of(&self, kind: Kind, id: &str) -> Result<&str> {
        self.map.get(&(kind, id.to_owned())).map(String::as_str).ok_or_else(|| {
            let text = format!("nothing stands for the {} {id}", kind.member());
            Error::new(ErrorKind::NotFound, text)
        })
    }

    fn note(&mut self, part: &Part, message: &str) {
        self.notes.push((part.clone(), message.to_owned()));
    }
}

/// An interface of a router is guarded by nothing, and Neutron refuses to be told so.
fn part_is_interface(port: &Port) -> bool {
    port.mac_address.is_empty()
}

/// Makes a part in the first way that is not refused; returns which one it was.
async fn first_that_goes(
    builder: &dyn Builder,
    part: &Part,
    bodies: Vec<Map<String, Value>>,
    tags: &[String],
) -> Result<(String, usize)> {
    let last = bodies.len().saturating_sub(1);
    for (index, body) in bodies.into_iter().enumerate() {
        match builder.make(part, body, tags).await {
            Ok(new) => return Ok((new, index)),
            Err(err) if is_refusal(&err) && index < last => {}
            Err(err) => return Err(err),
        }
    }
    unreachable!("the last way answers or fails")
}

/// Returns whether asking for less may help.
pub(crate) fn is_refusal(err: &Error) -> bool {
    matches!(err.kind(), ErrorKind::Conflict | ErrorKind::Denied | ErrorKind::Invalid | ErrorKind::NotFound)
}

/// Returns whether an address of IPv6 follows from the hardware address, and so cannot be asked for.
fn is_made_of_mac(address: &str, mac: &str) -> bool {
    let Ok(address) = address.parse::<Ipv6Addr>() else { return false };
    let mac: Option<Vec<u8>> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    let Some([a, b, c, d, e, f]) = mac.as_deref() else { return false };
    address.octets()[8..] == [a ^ 2, *b, *c, 0xff, 0xfe, *d, *e, *f]
}

fn without(body: &Map<String, Value>, names: &[&str]) -> Map<String, Value> {
    let kept = body.iter().filter(|(name, _)| !names.contains(&name.as_str()));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn common(name: &str, description: &str) -> Map<String, Value> {
    let members = [("name", name), ("description", description)];
    members.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect()
}

fn group_body(group: &SecurityGroup) -> Map<String, Value> {
    let mut body = common(&group.name, &group.description);
    if group.stateful == Some(false) {
        body.insert("stateful".to_owned(), json!(false));
    }
    body
}

fn network_body(network: &Network) -> Map<String, Value> {
    let mut body = common(&network.name, &network.description);
    body.insert("admin_state_up".to_owned(), json!(network.admin_state_up));
    if let Some(mtu) = network.mtu {
        body.insert("mtu".to_owned(), json!(mtu));
    }
    if let Some(enabled) = network.port_security_enabled {
        body.insert("port_security_enabled".to_owned(), json!(enabled));
    }
    if !network.availability_zone_hints.is_empty() {
        body.insert("availability_zone_hints".to_owned(), json!(network.availability_zone_hints));
    }
    if !network.dns_domain.is_empty() {
        body.insert("dns_domain".to_owned(), json!(network.dns_domain));
    }
    body
}

fn subnet_body(subnet: &Subnet) -> Map<String, Value> {
    let mut body = common(&subnet.name, &subnet.description);
    let members = [
        ("ip_version", json!(subnet.ip_version)),
        ("cidr", json!(subnet.cidr)),
        ("gateway_ip", json!(subnet.gateway_ip)),
        ("allocation_pools", json!(subnet.allocation_pools)),
        ("dns_nameservers", json!(subnet.dns_nameservers)),
        ("host_routes", json!(subnet.host_routes)),
        ("enable_dhcp", json!(subnet.enable_dhcp)),
    ];
    body.extend(members.map(|(name, value)| (name.to_owned(), value)));
    let optional = [
        ("ipv6_address_mode", &subnet.ipv6_address_mode),
        ("ipv6_ra_mode", &subnet.ipv6_ra_mode),
        ("subnetpool_id", &subnet.subnetpool_id),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            body.insert(name.to_owned(), json!(value));
        }
    }
    if !subnet.service_types.is_empty() {
        body.insert("service_types".to_owned(), json!(subnet.service_types));
    }
    body
}

fn rule_body(rule: &Rule) -> Map<String, Value> {
    let Value::Object(mut body) = json!(rule) else { return Map::new() };
    body.retain(|_, value| !value.is_null());
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_follow_from_the_hardware_are_told() {
        for (address, want) in [
            ("2001:db8::f816:3eff:fe12:3456", true),
            ("2001:db8::f816:3eff:fe12:3457", false),
            ("2001:db8::7", false),
            ("10.0.0.4", false),
        ] {
            assert_eq!(is_made_of_mac(address, "fa:16:3e:12:34:56"), want, "{address}");
        }
    }
}
