//! A topology: the plugin by the kit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use karbor_openstack_client::neutron::{Kind, Neutron};
use karbor_plugin::conformance::{self, Fixture};
use karbor_plugin::{Context, Protectable, Protection, Resource, ResourceKey, Restored};
use serde_json::{Map, Value, json};

use crate::world::World;

const KIND: &str = "OS::Neutron::Network";

/// The kinds that a topology is made of.
const KINDS: [Kind; 6] =
    [Kind::Network, Kind::Subnet, Kind::Router, Kind::Port, Kind::SecurityGroup, Kind::FloatingIp];

/// What Neutron says of a thing and nobody chose, or what is another's.
const VOLATILE: &[&str] =
    &["created_at", "updated_at", "revision_number", "status", "external_fixed_ips", "standard_attr_id"];

/// Networks of a project of its own, and the plugin that protects them.
struct Fixed {
    world: World,
    neutron: Neutron,
    original: Mutex<Option<BTreeMap<String, Value>>>,
}

/// Returns everything that Neutron has for a project, with names in place of ids; `names` has those of other things.
pub(crate) async fn describe(
    neutron: &Neutron,
    project: &str,
    mut names: BTreeMap<String, String>,
) -> BTreeMap<String, Value> {
    let mut things = Vec::new();
    for kind in KINDS {
        let listed: Vec<Value> = neutron.list(kind, &[("project_id", project)]).all().await.expect("listed");
        things.extend(listed.into_iter().map(|thing| (kind, thing)));
    }
    for (kind, thing) in &things {
        let name = match kind {
            Kind::FloatingIp => thing["floating_ip_address"].to_string(),
            // Routers' own ports have no names.
            _ if thing["name"] == "" => thing["fixed_ips"][0]["ip_address"].to_string(),
            _ => thing["name"].to_string(),
        };
        names.insert(thing["id"].as_str().expect("an id").to_owned(), format!("{} {name}", kind.member()));
    }
    fn rename(value: &mut Value, names: &BTreeMap<String, String>) {
        match value {
            Value::String(text) => {
                if let Some(name) = names.get(text.as_str()) {
                    text.clone_from(name);
                }
            }
            Value::Array(items) => {
                items.iter_mut().for_each(|item| rename(item, names));
                items.sort_by_key(Value::to_string);
            }
            Value::Object(members) => {
                members.retain(|name, _| !VOLATILE.contains(&name.as_str()));
                // Rules have ids that nothing refers to.
                if members.contains_key("direction") {
                    members.remove("id");
                }
                if members.get("device_owner").is_some_and(|owner| owner == "network:router_interface") {
                    members.remove("mac_address");
                }
                members.values_mut().for_each(|member| rename(member, names));
            }
            _ => {}
        }
    }
    let mut described = BTreeMap::new();
    for (_, mut thing) in things {
        rename(&mut thing, &names);
        described.insert(thing["id"].as_str().expect("an id").to_owned(), thing);
    }
    described
}

/// Removes everything of a project but its floating addresses, which a project cannot choose again.
pub(crate) async fn clear(neutron: &Neutron, project: &str, addresses: bool) {
    let own = [("project_id", project)];
    if addresses {
        for address in neutron.list::<Value>(Kind::FloatingIp, &own).all().await.expect("listed") {
            let id = address["id"].as_str().expect("an id");
            neutron.delete(Kind::FloatingIp, id).await.expect("removed");
        }
    }
    let ports: Vec<Value> = neutron.list(Kind::Port, &own).all().await.expect("listed");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for port in ports.iter().filter(|port| text(&port["device_owner"]).is_empty()) {
        neutron.delete(Kind::Port, &text(&port["id"])).await.expect("removed");
    }
    for router in neutron.list::<Value>(Kind::Router, &own).all().await.expect("listed") {
        let id = text(&router["id"]);
        neutron.update(Kind::Router, &id, &json!({"routes": []})).await.expect("changed");
        for port in ports.iter().filter(|port| text(&port["device_id"]) == id) {
            neutron.remove_router_interface(&id, &text(&port["id"])).await.expect("disconnected");
        }
        neutron.delete(Kind::Router, &id).await.expect("removed");
    }
    for network in neutron.list::<Value>(Kind::Network, &own).all().await.expect("listed") {
        neutron.delete(Kind::Network, &text(&network["id"])).await.expect("removed");
    }
    for group in neutron.list::<Value>(Kind::SecurityGroup, &own).all().await.expect("listed") {
        if group["name"] != "default" {
            neutron.delete(Kind::SecurityGroup, &text(&group["id"])).await.expect("removed");
            continue;
        }
        for rule in group["security_group_rules"].as_array().into_iter().flatten() {
            if rule["protocol"] != Value::Null {
                neutron.delete(Kind::SecurityGroupRule, &text(&rule["id"])).await.expect("removed");
            }
        }
    }
}

impl Fixed {
    async fn open() -> Self {
        let world = World::open().await;
        let neutron = Neutron::new(&world.session).expect("Neutron");
        Self { world, neutron, original: Mutex::default() }
    }

    fn project(&self) -> &str {
        &self.world.own.project
    }

    async fn make(&self, kind: Kind, body: Value) -> String {
        self.neutron.create(kind, &body).await.unwrap_or_else(|err| panic!("{body}: {err}"))
    }

    /// Makes a network for the web and one behind it, a router, groups that refer to each other, and an address.
    async fn create(&self) {
        let outside: Vec<Value> =
            self.neutron.list(Kind::Network, &[("router:external", "true")]).all().await.expect("listed");
        let outside = outside[0]["id"].as_str().expect("an id").to_owned();
        let front =
            self.make(Kind::Network, json!({"name": "front", "description": "the web", "mtu": 1400})).await;
        let back = self.make(Kind::Network, json!({"name": "back", "port_security_enabled": false})).await;
        self.neutron.set_tags(Kind::Network, &front, &["blue".to_owned()]).await.expect("tagged");
        let four = self
            .make(
                Kind::Subnet,
                json!({
                    "name": "four", "network_id": front, "ip_version": 4, "cidr": "10.50.0.0/24",
                    "gateway_ip": "10.50.0.254", "dns_nameservers": ["9.9.9.9", "1.1.1.1"],
                    "allocation_pools": [{"start": "10.50.0.10", "end": "10.50.0.99"}],
                    "host_routes": [{"destination": "10.60.0.0/16", "nexthop": "10.50.0.7"}],
                }),
            )
            .await;
        let six = self
            .make(
                Kind::Subnet,
                json!({
                    "name": "six", "network_id": front, "ip_version": 6, "cidr": "fd00:50::/64",
                    "ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac",
                }),
            )
            .await;
        let back_four = self
            .make(
                Kind::Subnet,
                json!({"name": "none", "network_id": back, "ip_version": 4, "cidr": "10.51.0.0/24", "gateway_ip": null}),
            )
            .await;
        let router = json!({"name": "router", "external_gateway_info": {"network_id": outside}});
        let router = self.make(Kind::Router, router).await;
        for subnet in [&four, &six] {
            let body = json!({"subnet_id": subnet});
            self.neutron.add_router_interface(&router, &body).await.expect("connected");
        }
        let fixed = json!([{"subnet_id": back_four, "ip_address": "10.51.0.77"}]);
        let leg = self.make(Kind::Port, json!({"network_id": back, "fixed_ips": fixed})).await;
        self.neutron.add_router_interface(&router, &json!({"port_id": leg})).await.expect("connected");
        let routes = json!({"routes": [{"destination": "192.168.9.0/24", "nexthop": "10.50.0.9"}]});
        self.neutron.update(Kind::Router, &router, &routes).await.expect("changed");

        let groups: Vec<Value> = self
            .neutron
            .list(Kind::SecurityGroup, &[("project_id", self.project())])
            .all()
            .await
            .expect("listed");
        let default = groups[0]["id"].as_str().expect("an id").to_owned();
        let web = self.make(Kind::SecurityGroup, json!({"name": "web", "description": "in front"})).await;
        let db = self.make(Kind::SecurityGroup, json!({"name": "db"})).await;
        for (group, remote, port) in [(&web, &db, 80), (&db, &web, 5432), (&default, &web, 22)] {
            self.make(
                Kind::SecurityGroupRule,
                json!({
                    "security_group_id": group, "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp",
                    "port_range_min": port, "port_range_max": port, "remote_group_id": remote,
                    "description": "from each other",
                }),
            )
            .await;
        }
        let port = self
            .make(
                Kind::Port,
                json!({
                    "name": "shared address", "network_id": front, "security_groups": [web, db],
                    "mac_address": "fa:16:3e:50:00:01",
                    "fixed_ips": [{"subnet_id": four, "ip_address": "10.50.0.50"}, {"subnet_id": six}],
                    "allowed_address_pairs": [{"ip_address": "10.50.0.51"}],
                }),
            )
            .await;
        let addresses: Vec<Value> = self
            .neutron
            .list(Kind::FloatingIp, &[("project_id", self.project())])
            .all()
            .await
            .expect("listed");
        let association = json!({"port_id": port, "fixed_ip_address": "10.50.0.50"});
        match addresses.first() {
            Some(address) => {
                let id = address["id"].as_str().expect("an id");
                self.neutron.update(Kind::FloatingIp, id, &association).await.expect("changed");
            }
            None => {
                let mut body = association;
                body["floating_network_id"] = json!(outside);
                self.make(Kind::FloatingIp, body).await;
            }
        }
    }

    async fn now(&self) -> BTreeMap<String, Value> {
        describe(&self.neutron, self.project(), BTreeMap::new()).await
    }

    fn original(&self) -> Option<BTreeMap<String, Value>> {
        self.original.lock().expect("nobody panicked").clone()
    }
}

#[async_trait]
impl Fixture for Fixed {
    fn protection(&self) -> Arc<dyn Protection> {
        let made = self.world.openstack().protection("karbor-network-protection-plugin", &Map::new());
        made.expect("the plugin")
    }

    fn protectables(&self) -> Vec<Arc<dyn Protectable>> {
        let mut all = self.world.openstack().protectables();
        all.retain(|protectable| protectable.kind().as_str() == KIND);
        all
    }

    fn context(&self) -> Context {
        self.world.context()
    }

    fn stranger(&self) -> Context {
        self.world.stranger()
    }

    fn resource(&self) -> Resource {
        let key = ResourceKey::new(KIND, self.project());
        Resource { key, name: "Network Topology".to_owned(), extra_info: Value::Null }
    }

    fn restore_parameters(&self) -> Map<String, Value> {
        Map::new()
    }

    fn stores_data(&self) -> bool {
        false
    }

    async fn reset(&self) {
        let original = self.original();
        if original.is_some() && original == Some(self.now().await) {
            return;
        }
        clear(&self.neutron, self.project(), false).await;
        self.create().await;
        *self.original.lock().expect("nobody panicked") = Some(self.now().await);
    }

    async fn lose(&self) {
        clear(&self.neutron, self.project(), false).await;
    }

    async fn check(&self, _restored: &Restored) -> Result<(), String> {
        let (original, now) = (self.original().expect("it was made"), self.now().await);
        for (name, thing) in &original {
            match now.get(name) {
                Some(now) if now == thing => {}
                now => return Err(format!("{name} was {thing}, and is {now:?}")),
            }
        }
        match now.keys().find(|name| !original.contains_key(*name)) {
            Some(more) => Err(format!("there was no {more}")),
            None => Ok(()),
        }
    }

    async fn fingerprint(&self) -> String {
        json!(self.now().await).to_string()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topology_keeps_the_contract() {
    let fixture = Fixed::open().await;
    let tried = conformance::run(&fixture).await;
    clear(&fixture.neutron, fixture.project(), true).await;
    if let Err(failure) = tried {
        panic!("{failure}");
    }
    fixture.world.close().await;
}
