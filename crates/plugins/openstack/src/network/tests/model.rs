//! A small Neutron in memory: enough of its behaviour for topologies to be made, listed and lost.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use karbor_openstack_client::neutron::{self, Kind};
use karbor_plugin::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::network::build::Builder;
use crate::network::capture::{self, Listing};
use crate::network::plan::{Existing, Part};

/// The external network that every model has.
pub(super) const OUTSIDE: &str = "outside";

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) networks: Vec<neutron::Network>,
    pub(super) subnets: Vec<neutron::Subnet>,
    pub(super) routers: Vec<neutron::Router>,
    pub(super) ports: Vec<neutron::Port>,
    pub(super) groups: Vec<neutron::SecurityGroup>,
    pub(super) addresses: Vec<neutron::FloatingIp>,
    count: u32,
    /// What was made for which part, as a ledger remembers.
    made: BTreeMap<Part, String>,
}

/// One project's view of the model.
#[derive(Debug)]
pub(super) struct Model {
    state: Mutex<State>,
    project: Mutex<String>,
}

impl Model {
    pub(super) fn new() -> Self {
        let mut state = State::default();
        state.networks.push(neutron::Network {
            id: OUTSIDE.to_owned(),
            name: "public".to_owned(),
            project_id: "admin".to_owned(),
            external: true,
            ..neutron::Network::default()
        });
        let model = Self { state: Mutex::new(state), project: Mutex::new(String::new()) };
        for project in ["two", "one"] {
            model.become_project(project);
            model.new_group("default");
        }
        model
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn project(&self) -> String {
        self.project.lock().unwrap().clone()
    }

    pub(super) fn become_project(&self, project: &str) {
        *self.project.lock().unwrap() = project.to_owned();
        self.state().made.clear();
    }

    pub(super) fn listing(&self) -> Listing {
        let (project, state) = (self.project(), self.state());
        let mut listing = Listing {
            project: project.clone(),
            networks: state.networks.iter().filter(|one| one.project_id == project).cloned().collect(),
            subnets: state.subnets.iter().filter(|one| one.project_id == project).cloned().collect(),
            routers: state.routers.iter().filter(|one| one.project_id == project).cloned().collect(),
            ports: state.ports.iter().filter(|one| one.project_id == project).cloned().collect(),
            security_groups: state.groups.iter().filter(|one| one.project_id == project).cloned().collect(),
            floating_ips: state.addresses.iter().filter(|one| one.project_id == project).cloned().collect(),
            ..Listing::default()
        };
        let foreign = listing.foreign_ids();
        let used = state.networks.iter().filter(|one| foreign.contains(one.id.as_str())).cloned().collect();
        listing.foreign_networks = used;
        listing
    }

    pub(super) fn existing(&self) -> Existing {
        let (project, state) = (self.project(), self.state());
        let visible = |one: &&neutron::Network| one.project_id == project || one.external || one.shared;
        let own = |owner: &str| owner == project;
        Existing {
            project: project.clone(),
            began: state.made.keys().cloned().collect(),
            made: state.made.clone(),
            networks: state.networks.iter().filter(visible).cloned().collect(),
            subnets: state.subnets.iter().filter(|one| own(&one.project_id)).cloned().collect(),
            routers: state.routers.iter().filter(|one| own(&one.project_id)).cloned().collect(),
            ports: state.ports.iter().filter(|one| own(&one.project_id)).cloned().collect(),
            security_groups: state.groups.iter().filter(|one| own(&one.project_id)).cloned().collect(),
            floating_ips: state.addresses.iter().filter(|one| own(&one.project_id)).cloned().collect(),
            ..Existing::default()
        }
    }

    /// Loses everything of the project but its group `default`, of which the rules are lost.
    pub(super) fn lose(&self) {
        let (project, mut state) = (self.project(), self.state());
        state.networks.retain(|one| one.project_id != project);
        state.subnets.retain(|one| one.project_id != project);
        state.routers.retain(|one| one.project_id != project);
        state.ports.retain(|one| one.project_id != project);
        state.addresses.retain(|one| one.project_id != project);
        state.groups.retain(|one| one.project_id != project || one.name == "default");
        for group in state.groups.iter_mut().filter(|one| one.project_id == project) {
            group.security_group_rules.clear();
        }
    }

    fn new_group(&self, name: &str) -> String {
        let (project, mut state) = (self.project(), self.state());
        let id = state.id("group");
        let rules = ["IPv4", "IPv6"].map(|ethertype| neutron::SecurityGroupRule {
            id: state.id("rule"),
            security_group_id: id.clone(),
            direction: "egress".to_owned(),
            ethertype: ethertype.to_owned(),
            ..neutron::SecurityGroupRule::default()
        });
        state.groups.push(neutron::SecurityGroup {
            id: id.clone(),
            name: name.to_owned(),
            project_id: project,
            stateful: Some(true),
            security_group_rules: rules.into(),
            ..neutron::SecurityGroup::default()
        });
        id
    }

    /// Makes a thing of a document, without remembering for which part.
    pub(super) fn create(&self, kind: Kind, mut body: Map<String, Value>) -> Result<String> {
        if kind == Kind::SecurityGroup {
            let id = self.new_group(body["name"].as_str().unwrap_or_default());
            let mut state = self.state();
            let group = state.groups.iter_mut().find(|one| one.id == id).unwrap();
            group.description = body["description"].as_str().unwrap_or_default().to_owned();
            group.stateful = Some(body.get("stateful") != Some(&json!(false)));
            return Ok(id);
        }
        let (project, mut state) = (self.project(), self.state());
        let id = state.id(kind.member());
        body.insert("id".to_owned(), json!(id));
        body.insert("project_id".to_owned(), json!(project));
        let conflict = |text: &str| Error::new(ErrorKind::Conflict, text);
        let document = Value::Object(body);
        match kind {
            Kind::Network => state.networks.push(neutron::Network::deserialize(document).unwrap()),
            Kind::Subnet => {
                let subnet = neutron::Subnet::deserialize(document).unwrap();
                if !state.networks.iter().any(|one| one.id == subnet.network_id) {
                    return Err(Error::new(ErrorKind::NotFound, "no such network"));
                }
                state.subnets.push(subnet);
            }
            Kind::Router => {
                let mut router = neutron::Router::deserialize(document).unwrap();
                if let Some(gateway) = &mut router.external_gateway_info {
                    gateway.enable_snat.get_or_insert(true);
                }
                state.routers.push(router);
            }
            Kind::Port => {
                let mut port = neutron::Port::deserialize(document).unwrap();
                let on_network = |one: &&neutron::Port| one.network_id == port.network_id;
                for other in state.ports.iter().filter(on_network) {
                    if !port.mac_address.is_empty() && other.mac_address == port.mac_address {
                        return Err(conflict("the hardware address is taken"));
                    }
                    if port.fixed_ips.iter().any(|address| other.fixed_ips.contains(address)) {
                        return Err(conflict("the address is taken"));
                    }
                }
                if port.mac_address.is_empty() {
                    port.mac_address = format!("fa:16:3e:00:00:{:02x}", state.count);
                }
                state.ports.push(port);
            }
            Kind::FloatingIp => {
                let mut address = neutron::FloatingIp::deserialize(document).unwrap();
                let taken = |text: &str| state.addresses.iter().any(|one| one.floating_ip_address == text);
                if taken(&address.floating_ip_address) {
                    return Err(conflict("the address is taken"));
                }
                if address.floating_ip_address.is_empty() {
                    address.floating_ip_address = format!("203.0.113.{}", state.count % 250);
                }
                state.addresses.push(address);
            }
            Kind::SecurityGroup | Kind::SecurityGroupRule | Kind::SubnetPool => unreachable!(),
        }
        Ok(id)
    }

    pub(super) fn connect_by(&self, router: &str, interface: &Value) {
        let (project, mut state) = (self.project(), self.state());
        let owner = "network:router_interface".to_owned();
        if let Some(id) = interface["port_id"].as_str() {
            let port = state.ports.iter_mut().find(|one| one.id == id).unwrap();
            (port.device_id, port.device_owner) = (router.to_owned(), owner);
            return;
        }
        let subnet = interface["subnet_id"].as_str().unwrap();
        let subnet = state.subnets.iter().find(|one| one.id == subnet).unwrap().clone();
        let id = state.id("port");
        state.ports.push(neutron::Port {
            id,
            network_id: subnet.network_id,
            project_id: project,
            device_id: router.to_owned(),
            device_owner: owner,
            fixed_ips: vec![neutron::FixedIp {
                subnet_id: subnet.id,
                ip_address: subnet.gateway_ip.unwrap_or_default(),
            }],
            ..neutron::Port::default()
        });
    }

    pub(super) fn add_rule_now(&self, body: Map<String, Value>) {
        let mut state = self.state();
        let id = state.id("rule");
        let mut rule = neutron::SecurityGroupRule::deserialize(Value::Object(body)).unwrap();
        rule.id = id;
        let group = state.groups.iter_mut().find(|one| one.id == rule.security_group_id).unwrap();
        let bare = capture::rule(&rule).bare();
        if !group.security_group_rules.iter().any(|one| capture::rule(one).bare() == bare) {
            group.security_group_rules.push(rule);
        }
    }
}

impl State {
    fn id(&mut self, kind: &str) -> String {
        self.count += 1;
        format!("{kind}-{:04}", self.count)
    }
}

#[async_trait]
impl Builder for Model {
    fn began(&self, _part: &Part) -> bool {
        false
    }

    async fn make(&self, part: &Part, mut body: Map<String, Value>, tags: &[String]) -> Result<String> {
        if let Some(made) = self.state().made.get(part) {
            return Ok(made.clone());
        }
        body.insert("tags".to_owned(), json!(tags));
        let id = self.create(part.0, body)?;
        self.state().made.insert(part.clone(), id.clone());
        Ok(id)
    }

    async fn update(&self, kind: Kind, id: &str, body: Value) -> Result<()> {
        let mut state = self.state();
        match kind {
            Kind::Router => {
                let router = state.routers.iter_mut().find(|one| one.id == id).unwrap();
                router.routes = Deserialize::deserialize(body["routes"].clone()).unwrap();
            }
            Kind::FloatingIp => {
                let address = state.addresses.iter_mut().find(|one| one.id == id).unwrap();
                address.port_id = body["port_id"].as_str().map(str::to_owned);
                address.fixed_ip_address = body["fixed_ip_address"].as_str().map(str::to_owned);
            }
            other => panic!("nothing changes a {}", other.member()),
        }
        Ok(())
    }

    async fn router_ports(&self, router: &str) -> Result<Vec<neutron::Port>> {
        Ok(self.state().ports.iter().filter(|port| port.device_id == router).cloned().collect())
    }

    async fn connect(&self, router: &str, interface: Value) -> Result<()> {
        self.connect_by(router, &interface);
        Ok(())
    }

    async fn rules(&self, group: &str) -> Result<Vec<neutron::SecurityGroupRule>> {
        let state = self.state();
        Ok(state.groups.iter().find(|one| one.id == group).unwrap().security_group_rules.clone())
    }

    async fn add_rule(&self, _part: Option<&Part>, body: Map<String, Value>) -> Result<()> {
        self.add_rule_now(body);
        Ok(())
    }

    async fn remove_rule(&self, id: &str) -> Result<()> {
        for group in &mut self.state().groups {
            group.security_group_rules.retain(|rule| rule.id != id);
        }
        Ok(())
    }
}
