//! From a topology, and what is there already, to what is to be made in which order. Pure.
//!
//! The order is that of what refers to what: groups, networks, subnets, routers, their interfaces, their routes; rules
//! once all groups are there, since they refer to each other in circles; ports and floating addresses last.

use std::collections::{BTreeMap, BTreeSet};

use karbor_openstack_client::neutron::{self, Kind};
use serde_json::{Map, Value};

use crate::network::capture;
use crate::network::topology::{
    DEFAULT_GROUP, FloatingIp, Foreign, Interface, Network, Port, Router, Rule, SecurityGroup, Subnet,
    Topology,
};

/// One part of a topology: its kind and its id in the checkpoint.
pub(crate) type Part = (Kind, String);

/// What is there already, where the topology is to go.
#[derive(Debug, Clone, Default)]
pub(crate) struct Existing {
    pub(crate) project: String,
    /// All networks that can be seen.
    pub(crate) networks: Vec<neutron::Network>,
    /// All subnets that can be seen.
    pub(crate) subnets: Vec<neutron::Subnet>,
    /// The project's routers.
    pub(crate) routers: Vec<neutron::Router>,
    /// The project's ports.
    pub(crate) ports: Vec<neutron::Port>,
    /// All security groups that can be seen.
    pub(crate) security_groups: Vec<neutron::SecurityGroup>,
    /// The project's floating addresses.
    pub(crate) floating_ips: Vec<neutron::FloatingIp>,
    /// The ids of all subnet pools that can be seen.
    pub(crate) subnet_pools: BTreeSet<String>,
    /// Parts that an earlier attempt of the same restore has begun; they are gone on with, not taken for others.
    pub(crate) began: BTreeSet<Part>,
    /// What it has made of them, as far as that is known.
    pub(crate) made: BTreeMap<Part, String>,
}

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choices {
    /// What still exists is used as it is; otherwise all is made new beside it.
    pub(crate) reuse: bool,
    /// Networks, by id or name in the checkpoint, that are taken in place of them, by id or name.
    pub(crate) networks: BTreeMap<String, String>,
    /// The same for security groups.
    pub(crate) security_groups: BTreeMap<String, String>,
    /// The network that is taken for every external one.
    pub(crate) external: Option<String>,
}

impl Choices {
    fn network(&self, id: &str, name: &str, external: bool) -> Option<&str> {
        let chosen = self.networks.get(id).or_else(|| self.networks.get(name).filter(|_| !name.is_empty()));
        chosen.or(self.external.as_ref().filter(|_| external)).map(String::as_str)
    }

    fn group(&self, group: &SecurityGroup) -> Option<&str> {
        self.security_groups
            .get(&group.id)
            .or_else(|| self.security_groups.get(&group.name))
            .map(String::as_str)
    }
}

/// What becomes of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// It is this thing, which exists.
    Existing(String),
    /// It is made.
    New,
    /// Nothing stands for it.
    Missing,
}

/// One step of a restore.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    Group(SecurityGroup),
    Network(Network),
    Subnet(Subnet),
    Router(Router),
    /// A router's interface; by its subnet where it has the gateway's address, else by a port of its own.
    Interface {
        router: String,
        interface: Interface,
        by_subnet: bool,
    },
    Routes(Router),
    /// Rules that the group is to have; if it is new, it is to have no others.
    Rules {
        group: SecurityGroup,
        fresh: bool,
    },
    Port(Port),
    Address(FloatingIp),
    /// An address that exists is given to a port.
    Associate(FloatingIp),
}

/// Something that is to be known before or after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) part: Part,
    pub(crate) message: String,
    /// Nothing can be restored as long as that is so.
    pub(crate) blocks: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) targets: BTreeMap<Part, Target>,
    pub(crate) steps: Vec<Step>,
    pub(crate) notes: Vec<Note>,
    /// Networks for which another one was chosen.
    chosen: BTreeSet<String>,
}

impl Plan {
    /// Plans a restore.
    pub(crate) fn new(topology: &Topology, existing: &Existing, choices: &Choices) -> Self {
        let mut plan = Self::default();
        plan.foreign(topology, existing, choices);
        plan.groups(topology, existing, choices);
        plan.networks(topology, existing, choices);
        plan.subnets(topology, existing);
        plan.routers(topology, existing, choices);
        plan.rules(topology, existing, choices);
        plan.ports(topology, existing, choices);
        plan.addresses(topology, existing);
        plan
    }

    /// Returns how many things of each kind would be made.
    pub(crate) fn wanted(&self) -> BTreeMap<Kind, u64> {
        let mut wanted = BTreeMap::new();
        for ((kind, _), target) in &self.targets {
            if *target == Target::New {
                *wanted.entry(*kind).or_default() += 1;
            }
        }
        let interfaces = self.steps.iter().filter(|step| matches!(step, Step::Interface { .. })).count();
        *wanted.entry(Kind::Port).or_default() += interfaces as u64;
        wanted
    }

    fn note(&mut self, part: Part, message: impl Into<String>, blocks: bool) {
        self.notes.push(Note { part, message: message.into(), blocks });
    }

    fn set(&mut self, kind: Kind, id: &str, target: Target) {
        self.targets.insert((kind, id.to_owned()), target);
    }

    fn foreign(&mut self, topology: &Topology, existing: &Existing, choices: &Choices) {
        for foreign in &topology.foreign {
            let part = (Kind::Network, foreign.id.clone());
            match find_foreign(foreign, existing, choices) {
                Ok(network) => {
                    self.targets.insert(part, Target::Existing(network.id.clone()));
                    for subnet in &foreign.subnets {
                        let there = subnet_of(existing, &network.id, &subnet.id, &subnet.cidr);
                        let target = there.map_or(Target::Missing, Target::Existing);
                        self.set(Kind::Subnet, &subnet.id, target);
                    }
                }
                Err(reason) => {
                    self.targets.insert(part.clone(), Target::Missing);
                    for subnet in &foreign.subnets {
                        self.set(Kind::Subnet, &subnet.id, Target::Missing);
                    }
                    // Whoever needs it says so.
                    self.note(part, reason, false);
                }
            }
        }
    }

    fn groups(&mut self, topology: &Topology, existing: &Existing, choices: &Choices) {
        for group in &topology.security_groups {
            let part = (Kind::SecurityGroup, group.id.clone());
            if let Some(chosen) = choices.group(group) {
                let found =
                    existing.security_groups.iter().find(|one| one.id == chosen || one.name == chosen);
                let target = match found {
                    Some(found) => Target::Existing(found.id.clone()),
                    None => {
                        let text = format!(
                            "there is no security group {chosen}, which was to be taken for {}; name another",
                            group.name
                        );
                        self.note(part.clone(), text, true);
                        Target::Missing
                    }
                };
                self.targets.insert(part, target);
                continue;
            }
            let own = existing.security_groups.iter().filter(|one| one.project_id == existing.project);
            let mut own = own.filter(|one| match group.name == DEFAULT_GROUP {
                true => one.name == DEFAULT_GROUP,
                false => choices.reuse && one.id == group.id,
            });
            match own.next() {
                Some(found) => {
                    self.targets.insert(part, Target::Existing(found.id.clone()));
                }
                None if group.name == DEFAULT_GROUP => {
                    let text =
                        "the project has no security group `default`, and Neutron lets nobody make one";
                    self.note(part.clone(), text, true);
                    self.targets.insert(part, Target::Missing);
                }
                None => {
                    self.targets.insert(part, Target::New);
                    self.steps.push(Step::Group(group.clone()));
                }
            }
        }
    }

    fn networks(&mut self, topology: &Topology, existing: &Existing, choices: &Choices) {
        for network in &topology.networks {
            let part = (Kind::Network, network.id.clone());
            if let Some(chosen) = choices.network(&network.id, &network.name, false) {
                match named(existing, chosen) {
                    Ok(found) => {
                        self.chosen.insert(network.id.clone());
                        self.targets.insert(part, Target::Existing(found.id.clone()));
                    }
                    Err(reason) => {
                        self.targets.insert(part.clone(), Target::Missing);
                        self.note(part, reason, true);
                    }
                }
                continue;
            }
            let own = |one: &&neutron::Network| one.project_id == existing.project && one.id == network.id;
            if choices.reuse && existing.networks.iter().any(|one| own(&one)) {
                self.targets.insert(part, Target::Existing(network.id.clone()));
                continue;
            }
            if network.shared {
                let text = "it was shared with other projects; only an administrator can share the new one";
                self.note(part.clone(), text, false);
            }
            self.targets.insert(part, Target::New);
            self.steps.push(Step::Network(network.clone()));
        }
    }

    fn subnets(&mut self, topology: &Topology, existing: &Existing) {
        for subnet in &topology.subnets {
            let part = (Kind::Subnet, subnet.id.clone());
            let network = (Kind::Network, subnet.network_id.clone());
            let there = match self.targets.get(&network) {
                Some(Target::Existing(_)) if existing.began.contains(&part) => None,
                Some(Target::Existing(network)) => subnet_of(existing, network, &subnet.id, &subnet.cidr),
                _ => None,
            };
            let target = match (self.targets.get(&network), there) {
                (_, Some(there)) => Target::Existing(there),
                (Some(Target::Missing) | None, None) => Target::Missing,
                (Some(_), None) if self.chosen.contains(&subnet.network_id) => {
                    let text = format!(
                        "the network that was chosen has no subnet {}: what had addresses there gets others",
                        subnet.cidr
                    );
                    self.note(part.clone(), text, false);
                    Target::Missing
                }
                (Some(_), None) => {
                    let mut subnet = subnet.clone();
                    subnet.subnetpool_id.take_if(|pool| !existing.subnet_pools.contains(pool));
                    self.steps.push(Step::Subnet(subnet));
                    Target::New
                }
            };
            self.targets.insert(part, target);
        }
    }

    fn routers(&mut self, topology: &Topology, existing: &Existing, choices: &Choices) {
        let gateways: BTreeSet<(&str, &str)> = topology
            .subnets
            .iter()
            .filter_map(|subnet| Some((subnet.id.as_str(), subnet.gateway_ip.as_deref()?)))
            .collect();
        for router in &topology.routers {
            let part = (Kind::Router, router.id.clone());
            let reused = choices.reuse && existing.routers.iter().any(|one| one.id == router.id);
            if reused {
                self.targets.insert(part.clone(), Target::Existing(router.id.clone()));
            } else {
                if let Some(gateway) = &router.gateway
                    && !self.has(Kind::Network, &gateway.network_id)
                {
                    let text = format!(
                        "nothing stands for its external network {}; say which with public_network_id",
                        gateway.network_id
                    );
                    self.note(part.clone(), text, true);
                }
                self.targets.insert(part.clone(), Target::New);
                self.steps.push(Step::Router(router.clone()));
            }
            for interface in &router.interfaces {
                if self.chosen.contains(&interface.network_id) {
                    let text =
                        "it is not connected to a network that was chosen: that one has its own router";
                    self.note(part.clone(), text, false);
                    continue;
                }
                if reused && self.is_connected(existing, router, interface) {
                    continue;
                }
                if !self.has(Kind::Network, &interface.network_id) {
                    let text = format!("nothing stands for the network {} of it", interface.network_id);
                    self.note(part.clone(), text, true);
                    continue;
                }
                let by_subnet = match interface.fixed_ips.as_slice() {
                    [one] => gateways.contains(&(one.subnet_id.as_str(), one.ip_address.as_str())),
                    _ => false,
                };
                let (router, interface) = (router.id.clone(), interface.clone());
                self.steps.push(Step::Interface { router, interface, by_subnet });
            }
            if !router.routes.is_empty() && !reused {
                self.steps.push(Step::Routes(router.clone()));
            }
        }
    }

    fn is_connected(&self, existing: &Existing, router: &Router, interface: &Interface) -> bool {
        interface.fixed_ips.iter().all(|address| {
            let part = (Kind::Subnet, address.subnet_id.clone());
            let Some(Target::Existing(subnet)) = self.targets.get(&part) else { return false };
            existing.ports.iter().any(|port| {
                port.device_id == router.id && port.fixed_ips.iter().any(|one| one.subnet_id == *subnet)
            })
        })
    }

    fn rules(&mut self, topology: &Topology, existing: &Existing, choices: &Choices) {
        for group in &topology.security_groups {
            if choices.group(group).is_some() {
                continue;
            }
            let part = (Kind::SecurityGroup, group.id.clone());
            let mut wanted = group.clone();
            wanted.rules.retain(|rule| {
                let Some(remote) = &rule.remote_group_id else { return true };
                let known = self.has(Kind::SecurityGroup, remote)
                    || existing.security_groups.iter().any(|one| one.id == *remote);
                if !known {
                    let message =
                        format!("a rule for the security group {remote} is left out: it is not there");
                    self.notes.push(Note { part: part.clone(), message, blocks: false });
                }
                known
            });
            match self.targets.get(&part) {
                Some(Target::New) => self.steps.push(Step::Rules { group: wanted, fresh: true }),
                Some(Target::Existing(id)) => {
                    let there = existing.security_groups.iter().find(|one| one.id == *id);
                    let there = there.map(|one| one.security_group_rules.as_slice()).unwrap_or_default();
                    let there: BTreeSet<Rule> = there.iter().map(|rule| capture::rule(rule).bare()).collect();
                    wanted.rules.retain(|rule| {
                        let began = existing.began.contains(&rule_part(&group.id, rule));
                        began || !there.contains(&self.as_it_would_be(rule))
                    });
                    if !wanted.rules.is_empty() {
                        self.steps.push(Step::Rules { group: wanted, fresh: false });
                    }
                }
                Some(Target::Missing) | None => {}
            }
        }
    }

    /// Returns a rule with what stands for the group that it refers to.
    fn as_it_would_be(&self, rule: &Rule) -> Rule {
        let mut rule = rule.bare();
        if let Some(remote) = &rule.remote_group_id
            && let Some(Target::Existing(id)) = self.targets.get(&(Kind::SecurityGroup, remote.clone()))
        {
            rule.remote_group_id = Some(id.clone());
        }
        rule
    }

    fn ports(&mut self, topology: &Topology, existing: &Existing, choices: &Choices) {
        for port in &topology.ports {
            let part = (Kind::Port, port.id.clone());
            if choices.reuse && existing.ports.iter().any(|one| one.id == port.id) {
                self.targets.insert(part, Target::Existing(port.id.clone()));
            } else if self.has(Kind::Network, &port.network_id) {
                self.targets.insert(part, Target::New);
                self.steps.push(Step::Port(port.clone()));
            } else {
                let text = format!(
                    "nothing stands for its network {}; say which with the parameter networks",
                    port.network_id
                );
                self.note(part.clone(), text, true);
                self.targets.insert(part, Target::Missing);
            }
        }
    }

    fn addresses(&mut self, topology: &Topology, existing: &Existing) {
        for address in &topology.floating_ips {
            let part = (Kind::FloatingIp, address.id.clone());
            let same = |one: &&neutron::FloatingIp| {
                one.id == address.id || one.floating_ip_address == address.address
            };
            let there = existing.floating_ips.iter().find(same).filter(|_| !existing.began.contains(&part));
            let made = address.port_id.as_ref().and_then(|id| existing.made.get(&(Kind::Port, id.clone())));
            let wanted = address.port_id.as_ref().map(|id| self.targets.get(&(Kind::Port, id.clone())));
            match (there, wanted) {
                // A server of ours may use it; whether it still does is the server's to see.
                (Some(there), None) => {
                    self.targets.insert(part, Target::Existing(there.id.clone()));
                }
                (Some(there), Some(port)) => match (&there.port_id, port) {
                    (None, Some(Target::New | Target::Existing(_))) => {
                        self.targets.insert(part, Target::Existing(there.id.clone()));
                        self.steps.push(Step::Associate(address.clone()));
                    }
                    (Some(now), Some(Target::Existing(wanted))) if now == wanted => {
                        self.targets.insert(part, Target::Existing(there.id.clone()));
                    }
                    (Some(now), _) if Some(now) == made => {
                        self.targets.insert(part, Target::Existing(there.id.clone()));
                    }
                    (None, _) => {
                        self.targets.insert(part, Target::Existing(there.id.clone()));
                    }
                    (Some(_), _) => {
                        let text = format!("{} is in use: another address is taken", address.address);
                        self.note(part.clone(), text, false);
                        self.targets.insert(part, Target::New);
                        // Not the same: it would be asked for in vain.
                        let other = FloatingIp { address: String::new(), ..address.clone() };
                        self.steps.push(Step::Address(other));
                    }
                },
                (None, _) if self.has(Kind::Network, &address.network_id) => {
                    self.targets.insert(part, Target::New);
                    self.steps.push(Step::Address(address.clone()));
                }
                (None, _) => {
                    let text = format!(
                        "nothing stands for its external network {}; say which with public_network_id",
                        address.network_id
                    );
                    self.note(part.clone(), text, true);
                    self.targets.insert(part, Target::Missing);
                }
            }
        }
    }

    fn has(&self, kind: Kind, id: &str) -> bool {
        matches!(self.targets.get(&(kind, id.to_owned())), Some(Target::New | Target::Existing(_)))
    }
}

/// Names a rule, the same in every attempt: by what it said in the checkpoint.
pub(crate) fn rule_part(group: &str, rule: &Rule) -> Part {
    let number = |number: Option<i64>| number.map(|number| number.to_string()).unwrap_or_default();
    let remote = [&rule.remote_ip_prefix, &rule.remote_group_id, &rule.remote_address_group_id];
    let remote = remote.into_iter().flatten().cloned().collect::<Vec<_>>().join(",");
    let protocol = rule.protocol.as_deref().unwrap_or_default();
    let (from, to) = (number(rule.port_range_min), number(rule.port_range_max));
    let name = format!("{group}:{}:{}:{protocol}:{from}-{to}:{remote}", rule.direction, rule.ethertype);
    (Kind::SecurityGroupRule, name)
}

/// Finds a network by id, or by a name that only one has.
pub(crate) fn named<'a>(existing: &'a Existing, chosen: &str) -> Result<&'a neutron::Network, String> {
    if let Some(found) = existing.networks.iter().find(|one| one.id == chosen) {
        return Ok(found);
    }
    let mut found = existing.networks.iter().filter(|one| one.name == chosen);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(format!("there is no network {chosen} that the project may use")),
        (Some(_), Some(_)) => Err(format!("several networks have the name {chosen}; give the id of one")),
    }
}

/// Finds what stands for a network that the project cannot make: what was chosen, the same, or one like it.
pub(crate) fn find_foreign<'a>(
    foreign: &Foreign,
    existing: &'a Existing,
    choices: &Choices,
) -> Result<&'a neutron::Network, String> {
    if let Some(chosen) = choices.network(&foreign.id, &foreign.name, foreign.external) {
        return named(existing, chosen);
    }
    if let Some(same) = existing.networks.iter().find(|one| one.id == foreign.id) {
        return Ok(same);
    }
    let others = || existing.networks.iter().filter(|one| one.external == foreign.external);
    let alike = |one: &&neutron::Network| {
        let has = |cidr: &str| subnet_of(existing, &one.id, "", cidr).is_some();
        one.name == foreign.name
            && (foreign.external || foreign.subnets.iter().all(|subnet| has(&subnet.cidr)))
    };
    let mut found = others().filter(alike);
    if let (Some(one), None) = (found.next(), found.next()) {
        return Ok(one);
    }
    if foreign.external {
        let mut all = others();
        if let (Some(one), None) = (all.next(), all.next()) {
            return Ok(one);
        }
    }
    Err(format!(
        "nothing like the network {} ({}) is there; say what stands for it with the parameter networks",
        foreign.name, foreign.id
    ))
}

/// Finds a subnet of a network: the same, or the one that has the same addresses.
fn subnet_of(existing: &Existing, network: &str, id: &str, cidr: &str) -> Option<String> {
    let mut there = existing.subnets.iter().filter(|subnet| subnet.network_id == network);
    let same = there.clone().find(|subnet| subnet.id == id);
    same.or_else(|| there.find(|subnet| subnet.cidr == cidr)).map(|subnet| subnet.id.clone())
}

/// Reads a parameter that maps texts to texts.
pub(crate) fn pairs(object: Option<&Map<String, Value>>) -> BTreeMap<String, String> {
    let texts = object.into_iter().flatten();
    texts.filter_map(|(from, to)| Some((from.clone(), to.as_str()?.to_owned()))).collect()
}
