//! A server: the plugin by the kit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use karbor_openstack_client::neutron::{Kind, Neutron};
use karbor_openstack_client::nova::{KeyPair, Nova};
use karbor_openstack_client::{ServiceType, Upload};
use karbor_plugin::conformance::{self, Fixture};
use karbor_plugin::{Context, Protectable, Protection, Resource, ResourceKey, Restored};
use serde_json::{Map, Value, json};

use crate::network::{clear, describe};
use crate::world::World;

const KIND: &str = "OS::Nova::Server";

/// What Nova says of a server and nobody chose.
const VOLATILE: &[&str] = &[
    "id",
    "links",
    "hostId",
    "created",
    "updated",
    "OS-SRV-USG:launched_at",
    "OS-SRV-USG:terminated_at",
    "server_groups",
];

/// A public key that nobody has the other half of.
const PUBLIC_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDGr9kqHbVBgkpGjqRkBDmQxNvTvPaCGJZtMkJdcMiFs nobody";

/// A stopped server of a project of its own, and the plugin that protects it.
struct Fixed {
    world: World,
    nova: Nova,
    neutron: Neutron,
    image: String,
    resource: Mutex<Option<Resource>>,
    original: Mutex<Option<BTreeMap<String, Value>>>,
}

impl Fixed {
    async fn open() -> Self {
        let world = World::open().await;
        let nova = Nova::new(&world.session).expect("Nova");
        let neutron = Neutron::new(&world.session).expect("Neutron");
        let document = json!({"name": "tiny", "disk_format": "raw", "container_format": "bare"});
        let image =
            world.glance().create_image(document.as_object().expect("one")).await.expect("an image").id;
        let bytes = futures::stream::iter([Ok(Bytes::from_static(&[7; 1024]))]);
        world.glance().upload(&image, Upload::of_length(1024, bytes)).await.expect("uploaded");
        let (resource, original) = (Mutex::default(), Mutex::default());
        let fixed = Self { world, nova, neutron, image, resource, original };
        fixed.make_surroundings().await;
        fixed
    }

    fn project(&self) -> &str {
        &self.world.own.project
    }

    async fn make(&self, kind: Kind, body: Value) -> String {
        self.neutron.create(kind, &body).await.unwrap_or_else(|err| panic!("{body}: {err}"))
    }

    async fn named(&self, kind: Kind, name: &str) -> String {
        let found: Vec<Value> = self.neutron.list(kind, &[("name", name)]).all().await.expect("listed");
        found[0]["id"].as_str().expect("an id").to_owned()
    }

    /// Makes what stays when the server is lost.
    async fn make_surroundings(&self) {
        let outside = self.named(Kind::Network, "public").await;
        let front = self.make(Kind::Network, json!({"name": "front"})).await;
        let subnet = json!({"name": "four", "network_id": front, "ip_version": 4, "cidr": "10.52.0.0/24"});
        let subnet = self.make(Kind::Subnet, subnet).await;
        let router = json!({"name": "router", "external_gateway_info": {"network_id": outside}});
        let router = self.make(Kind::Router, router).await;
        self.neutron.add_router_interface(&router, &json!({"subnet_id": subnet})).await.expect("connected");
        self.make(Kind::SecurityGroup, json!({"name": "web"})).await;
        self.make(Kind::FloatingIp, json!({"floating_network_id": outside})).await;
        self.nova.create_server_group("apart", "soft-anti-affinity", &Map::new()).await.expect("a group");
    }

    /// Makes the server, with a port that somebody chose everything of, and stops it.
    async fn create(&self) {
        let pair = KeyPair {
            name: "key".to_owned(),
            public_key: PUBLIC_KEY.to_owned(),
            kind: "ssh".to_owned(),
            ..KeyPair::default()
        };
        let _ = self.nova.import_key_pair(&pair).await;
        let front = self.named(Kind::Network, "front").await;
        let subnet = self.named(Kind::Subnet, "four").await;
        let mut ports = Vec::new();
        for (name, host) in [("second", 61), ("first", 60)] {
            ports.push(
                self.make(
                    Kind::Port,
                    json!({
                        "name": name, "network_id": front, "security_groups": [self.named(Kind::SecurityGroup, "web").await],
                        "mac_address": format!("fa:16:3e:52:00:{host}"),
                        "fixed_ips": [{"subnet_id": subnet, "ip_address": format!("10.52.0.{host}")}],
                        "allowed_address_pairs": [{"ip_address": "10.52.0.99"}],
                    }),
                )
                .await,
            );
        }
        let flavors = self.nova.flavors().await.expect("flavors");
        let flavor = flavors.iter().find(|flavor| flavor.name == "m1.tiny").expect("the flavor");
        let groups = self.nova.server_groups().await.expect("groups");
        let hints = json!({"group": groups[0].id}).as_object().cloned().expect("one");
        let networks: Value = ports.iter().map(|port| json!({"port": port})).collect();
        let body = json!({
            "name": "web", "flavorRef": flavor.id, "imageRef": self.image, "networks": networks,
            "key_name": "key", "metadata": {"purpose": "kit"}, "tags": ["blue", "green"], "description": "in front",
            "config_drive": true,
        });
        let id = self.nova.create_server(&body, &hints).await.expect("a server");
        self.wait(&id, "ACTIVE").await;
        let addresses: Vec<Value> = self
            .neutron
            .list(Kind::FloatingIp, &[("project_id", self.project())])
            .all()
            .await
            .expect("listed");
        let address = addresses[0]["id"].as_str().expect("an id");
        self.neutron.update(Kind::FloatingIp, address, &json!({"port_id": ports[0]})).await.expect("given");
        self.nova.act(&id, &json!({"os-stop": null})).await.expect("stopped");
        self.wait(&id, "SHUTOFF").await;
        let key = ResourceKey::new(KIND, id);
        *self.resource.lock().expect("nobody panicked") =
            Some(Resource { key, name: "web".to_owned(), extra_info: Value::Null });
    }

    async fn wait(&self, id: &str, wanted: &str) {
        let wait = async {
            loop {
                let server = self.nova.server(id).await.expect("the server");
                assert_ne!(server.status, "ERROR", "{server:?}");
                if server.status == wanted {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(300), wait).await.expect("within minutes");
    }

    async fn servers(&self) -> Vec<Value> {
        let nova = self.world.session.service(ServiceType::Compute).expect("Nova").at_microversion("2.79");
        nova.pages("/servers/detail", &[], "servers").all().await.expect("servers")
    }

    async fn clear(&self) {
        let gone = async {
            loop {
                let servers = self.servers().await;
                if servers.is_empty() {
                    return;
                }
                for server in servers {
                    self.nova.delete_server(server["id"].as_str().expect("an id")).await.expect("removed");
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(300), gone).await.expect("within minutes");
        let ports: Vec<Value> =
            self.neutron.list(Kind::Port, &[("project_id", self.project())]).all().await.expect("listed");
        for port in ports.iter().filter(|port| port["device_owner"] == "") {
            self.neutron.delete(Kind::Port, port["id"].as_str().expect("an id")).await.expect("removed");
        }
        self.nova.delete_key_pair("key").await.expect("removed");
    }

    async fn now(&self) -> BTreeMap<String, Value> {
        let servers = self.servers().await;
        let name = |server: &Value| {
            let text = |name: &str| server[name].as_str().expect("a text").to_owned();
            (text("id"), format!("server {}", text("name")))
        };
        let names = servers.iter().map(name).collect();
        let mut now = describe(&self.neutron, self.project(), names).await;
        for (index, mut server) in servers.into_iter().enumerate() {
            server.as_object_mut().expect("one").retain(|name, _| !VOLATILE.contains(&name.as_str()));
            for addresses in server["addresses"].as_object_mut().expect("one").values_mut() {
                let addresses = addresses.as_array_mut().expect("a list");
                // Nova hears of floating addresses late; Neutron is asked for them.
                addresses.retain(|address| address["OS-EXT-IPS:type"] == "fixed");
                addresses.sort_by_key(Value::to_string);
            }
            now.insert(format!("server {index}"), server);
        }
        now.insert("key".to_owned(), json!(self.nova.key_pair("key").await.is_ok()));
        let groups = self.nova.server_groups().await.expect("groups");
        let groups = groups.iter().map(|group| json!([group.name, group.policy, group.members.len()]));
        now.insert("groups".to_owned(), groups.collect());
        now
    }
}

#[async_trait]
impl Fixture for Fixed {
    fn protection(&self) -> Arc<dyn Protection> {
        let settings = json!({"poll_interval": 1, "wait_limit": 300}).as_object().cloned().expect("one");
        self.world.openstack().protection("karbor-server-protection-plugin", &settings).expect("the plugin")
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
        self.resource.lock().expect("nobody panicked").clone().expect("it was made")
    }

    fn options(&self) -> Map<String, Value> {
        json!({"quiesce": "pause"}).as_object().cloned().expect("one")
    }

    fn restore_parameters(&self) -> Map<String, Value> {
        Map::new()
    }

    fn stores_data(&self) -> bool {
        false
    }

    async fn reset(&self) {
        let original = self.original.lock().expect("nobody panicked").clone();
        let id =
            self.resource.lock().expect("nobody panicked").as_ref().map(|resource| resource.key.id.clone());
        let servers = self.servers().await;
        let is_there = servers.iter().any(|server| server["id"].as_str() == id.as_deref());
        if is_there && original.is_some() && original == Some(self.now().await) {
            return;
        }
        self.clear().await;
        self.create().await;
        *self.original.lock().expect("nobody panicked") = Some(self.now().await);
    }

    async fn lose(&self) {
        self.clear().await;
    }

    async fn check(&self, restored: &Restored) -> Result<(), String> {
        self.nova.server(&restored.key.id).await.map_err(|err| err.to_string())?;
        let original = self.original.lock().expect("nobody panicked").clone().expect("it was made");
        let now = self.now().await;
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
async fn a_server_keeps_the_contract() {
    let fixture = Fixed::open().await;
    let tried = conformance::run(&fixture).await;
    fixture.clear().await;
    clear(&fixture.neutron, fixture.project(), true).await;
    fixture.world.glance().delete_image(&fixture.image).await.expect("removed");
    for group in fixture.nova.server_groups().await.expect("groups") {
        fixture.nova.delete_server_group(&group.id).await.expect("removed");
    }
    if let Err(failure) = tried {
        panic!("{failure}");
    }
    fixture.world.close().await;
}
