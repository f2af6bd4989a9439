//! Nova: servers, flavors, key pairs, server groups, limits.

use std::fmt;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::Ignored;
use crate::catalog::ServiceType;
use crate::error::Result;
use crate::page::Pages;
use crate::service::Service;
use crate::session::Session;

/// What is spoken: the first that tells whether a volume goes with its server.
const MICROVERSION: &str = "2.79";

/// Nova, as one identity sees it.
#[derive(Debug, Clone)]
pub struct Nova(Service);

/// A flavor, as a server carries it: its values, not its id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServerFlavor {
    /// Its name.
    pub original_name: String,
    /// Processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub ram: u32,
    /// The root disk in GiB; zero for as large as the image.
    pub disk: u32,
    /// A further disk in GiB.
    pub ephemeral: u32,
    /// Swap in MiB.
    pub swap: u32,
    /// What else is asked of a host, where one may see it.
    pub extra_specs: Option<Map<String, Value>>,
}

/// A flavor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Flavor {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub ram: u32,
    /// The root disk in GiB; zero for as large as the image.
    pub disk: u32,
    /// A further disk in GiB.
    #[serde(rename = "OS-FLV-EXT-DATA:ephemeral")]
    pub ephemeral: u32,
    /// Swap in MiB; an empty text stands for none.
    #[serde(deserialize_with = "number_or_nothing")]
    pub swap: u32,
    /// What else is asked of a host, where one may see it.
    pub extra_specs: Option<Map<String, Value>>,
}

/// An address of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Address {
    /// The address.
    pub addr: String,
    /// The hardware address of its port.
    #[serde(rename = "OS-EXT-IPS-MAC:mac_addr")]
    pub mac_address: String,
}

/// Why a server is in error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Fault {
    /// The reason.
    pub message: String,
}

/// A server. What only administrators see may be missing.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Server {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: Option<String>,
    /// Its state.
    pub status: String,
    /// Whose it is.
    pub tenant_id: String,
    /// Its flavor.
    pub flavor: ServerFlavor,
    /// The image that it was booted from; an empty text stands for none.
    #[serde(deserialize_with = "image_id")]
    pub image: Option<String>,
    /// The name of its key pair.
    pub key_name: Option<String>,
    /// Its addresses by network, in the order of its ports.
    #[serde(deserialize_with = "in_order")]
    pub addresses: Vec<(String, Vec<Address>)>,
    /// Its metadata.
    pub metadata: Map<String, Value>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its zone.
    #[serde(rename = "OS-EXT-AZ:availability_zone")]
    pub availability_zone: Option<String>,
    /// Whether it has a drive with its configuration.
    pub config_drive: String,
    /// The groups that it is in.
    pub server_groups: Vec<String>,
    /// What is done with it.
    #[serde(rename = "OS-EXT-STS:task_state")]
    pub task_state: Option<String>,
    /// The device that it boots from, where one may see it.
    #[serde(rename = "OS-EXT-SRV-ATTR:root_device_name")]
    pub root_device_name: Option<String>,
    /// What its user gave it, in base 64, where one may see it.
    #[serde(rename = "OS-EXT-SRV-ATTR:user_data")]
    pub user_data: Option<String>,
    /// Why it is in error.
    pub fault: Option<Fault>,
}

/// A volume of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct VolumeAttachment {
    /// The volume.
    #[serde(rename = "volumeId")]
    pub volume_id: String,
    /// The name of its device.
    pub device: Option<String>,
    /// Its tag.
    pub tag: Option<String>,
    /// Whether it goes with the server.
    pub delete_on_termination: bool,
}

/// A key pair.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct KeyPair {
    /// Its name.
    pub name: String,
    /// Its public half.
    pub public_key: String,
    /// `ssh` or `x509`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its fingerprint.
    pub fingerprint: String,
}

/// A group of servers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServerGroup {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// How its servers are placed.
    pub policy: String,
    /// More about how.
    pub rules: Map<String, Value>,
    /// Its servers.
    pub members: Vec<String>,
}

/// A zone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Zone {
    /// Its name.
    #[serde(rename = "zoneName")]
    pub name: String,
    /// Whether it can be used.
    #[serde(rename = "zoneState")]
    pub state: ZoneState,
}

/// Whether a zone can be used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ZoneState {
    /// Whether it can be used.
    pub available: bool,
}

/// How much a project may have, and has. A negative limit is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Limits {
    /// How many servers there may be.
    pub max_total_instances: i64,
    /// How many processors there may be.
    pub max_total_cores: i64,
    /// How much memory in MiB there may be.
    #[serde(rename = "maxTotalRAMSize")]
    pub max_total_ram: i64,
    /// How many groups of servers there may be.
    pub max_server_groups: i64,
    /// How many servers there are.
    pub total_instances_used: i64,
    /// How many processors there are.
    pub total_cores_used: i64,
    /// How much memory in MiB there is.
    #[serde(rename = "totalRAMUsed")]
    pub total_ram_used: i64,
    /// How many groups of servers there are.
    pub total_server_groups_used: i64,
}

impl Nova {
    /// Returns Nova for a session.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if the cloud has none.
    pub fn new(session: &Session) -> Result<Self> {
        Ok(Self(session.service(ServiceType::Compute)?.at_microversion(MICROVERSION)))
    }

    /// Lists the servers that a query finds.
    pub fn servers(&self, query: &[(&str, &str)]) -> Pages<Server> {
        self.0.pages("/servers/detail", query, "servers")
    }

    /// Reads a server.
    ///
    /// # Errors
    /// Those of Nova.
    pub async fn server(&self, id: &str) -> Result<Server> {
        #[derive(Deserialize)]
        struct Document {
            server: Server,
        }
        Ok(self.0.get::<Document>(Service::path(&["servers", id])).await?.server)
    }

    /// Makes a server, and returns its id. `hints` are those of the scheduler.
    ///
    /// # Errors
    /// Those of Nova.
    pub async fn create_server(&self, server: &Value, hints: &Map<String, Value>) -> Result<String> {
        #[derive(Deserialize)]
        struct Made {
            id: String,
        }
        #[derive(Deserialize)]
        struct Document {
            server: Made,
        }
        let mut body = json!({"server": server});
        if !hints.is_empty() {
            body["os:scheduler_hints"] = Value::Object(hints.clone());
        }
        Ok(self.0.post::<Document>("/servers", &body).await?.server.id)
    }

    /// Has something done with a server: `{"os-stop": null}`.
    ///
    /// # Errors
    /// Those of Nova.
    pub async fn act(&self, id: &str, action: &Value) -> Result<()> {
        self.0.post::<Ignored>(Service::path(&["servers", id, "action"]), action).await.map(drop)
    }

    /// Removes a server, and says whether it was there.
    ///
    /// # Errors
    /// Those of Nova.
    pub async fn delete_server(&self, id: &str) -> Result<bool> {
        self.0.delete(Service::path(&["servers", id])).await
    }

    /// Removes one member of a server's metadata, and says whether it was there.
    ///
    /// # Errors
    /// Those of Nova.
    pub async fn delete_metadata(&self, id: &str, key: &str) -> Result<bool> {
        self.0.delete(Service::path(&["servers", id, "metadata", key])).await
    }

    /// Lists the volumes of a server.
    ///
    /// # Errors
    /// Those of Nova.
    pub async fn volume_attachments(&self, id: &str) -> Result<Vec<VolumeAttachment>> {
        let path = Service::path(&["servers", id, "os-volume_attachments"]);
        self.0.pages(path, &[], "volumeAttachments").all().await
    }

    /// Lists the flavors that the project may use.
    ///
    /// # Errors
    /// Those of Nova.
    pub async fn flavors(&self) -> Result<Vec<Flavor>> {
        self.0.pages("/flavors/detail", &[], "flavors").all().await
    }

    /// Reads a key pair of the user.
    ///
    /// # Errors
    /// Those of Nova.
    pub async fn key_pair(&self, name: &str) -> Result<KeyPair> {
        #[derive(Deserialize)]
        struct Document {
            keypair: KeyPair,
        }
        Ok(self.0.get::<Document>(Service::path(&["os-keypairs", name])).await?.keypair)
    }

    /// Gives the user a key pair of which the private half stays where it is.
    ///
    /// # Errors
    /// Those of Nova.
    pub async fn import_key_pair(&self, pair: &KeyPair) -> Result<()> {
        let body = json!({"keypair": {
            "name": pair.name, "public_key": pair.public_key, "type": pair.kind,
        }});
        self.0.post::<Ignored>("/os-keypairs", &body).await.map(drop)
    }

    /// Removes a key pair of the user, and says whether it was there.
    ///
    /// # Errors
    /// Those of Nova.
    pub async fn delete_key_pair(&self, name: &str) -> Result<bool> {
        self.0.delete(Service::path(&["os-keypairs", name])).await
    }

    /// Lists the groups of servers.
    ///
    /// # Errors
    /// Those of Nova.
    pub async fn server_groups(&self) -> Result<Vec<ServerGroup>> {
        self.0.pages("/os-server-groups", &[], "server_groups").all().await
    }

    /// Makes a group of servers, and returns its id.
    ///
    /// # Errors
    /// Those of Nova.
    pub async fn create_server_group(
        &self,
        name: &str,
        policy: &str,
        rules: &Map<String, Value>,
    ) -> Result<String> {
        #[derive(Deserialize)]
        struct Document {
            server_group: ServerGroup,
        }
        let mut group = json!({"name": name, "policy": policy});
        if !rules.is_empty() {
            group["rules"] = Value::Object(rules.clone());
        }
        let body = json!({"server_group": group});
        Ok(self.0.post::<Document>("/os-server-groups", &body).await?.server_group.id)
    }

    /// Removes a group of servers, and says whether it was there.
    ///
    /// # Errors
    /// Those of Nova.
    pub async fn delete_server_group(&self, id: &str) -> Result<bool> {
        self.0.delete(Service::path(&["os-server-groups", id])).await
    }

    /// Lists the zones.
    ///
    /// # Errors
    /// Those of Nova.
    pub async fn zones(&self) -> Result<Vec<Zone>> {
        self.0.pages("/os-availability-zone", &[], "availabilityZoneInfo").all().await
    }

    /// Returns what the session's project may have, and has.
    ///
    /// # Errors
    /// Those of Nova.
    pub async fn limits(&self) -> Result<Limits> {
        #[derive(Deserialize)]
        struct Absolute {
            absolute: Limits,
        }
        #[derive(Deserialize)]
        struct Document {
            limits: Absolute,
        }
        Ok(self.0.get::<Document>("/limits").await?.limits.absolute)
    }
}

/// Nova writes an object for an image and an empty text for none.
fn image_id<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let image = Value::deserialize(from)?;
    Ok(image.get("id").and_then(Value::as_str).map(str::to_owned))
}

fn number_or_nothing<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let number = Value::deserialize(from)?;
    Ok(number.as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or_default())
}

/// Reads an object as pairs, in the order in which they stand there.
fn in_order<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Vec<(String, T)>, D::Error> {
    struct Pairs<T>(std::marker::PhantomData<T>);

    impl<'de, T: DeserializeOwned> Visitor<'de> for Pairs<T> {
        type Value = Vec<(String, T)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }

    from.deserialize_map(Pairs(std::marker::PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_the_order_of_the_networks() {
        let text = r#"{"id": "s", "image": "", "addresses": {
            "zulu": [{"addr": "10.0.0.4", "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:00:00:01", "version": 4}],
            "alpha": [{"addr": "10.1.0.4", "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:00:00:02"}]}}"#;
        let server: Server = serde_json::from_str(text).unwrap();
        let names: Vec<&str> = server.addresses.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, server.image), (vec!["zulu", "alpha"], None));
    }

    #[test]
    fn swap_may_be_an_empty_text() {
        let flavor: Flavor = serde_json::from_str(r#"{"id": "1", "swap": "", "ram": 64}"#).unwrap();
        assert_eq!((flavor.swap, flavor.ram), (0, 64));
    }
}
