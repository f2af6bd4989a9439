//! A server as a checkpoint keeps it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::network::{FloatingIp, Foreign, Port};

/// A server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ServerRecord {
    /// The format of the record.
    pub(crate) format: u32,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    /// The state in which it was.
    pub(crate) status: String,
    pub(crate) flavor: FlavorRecord,
    /// The image that it was booted from, unless that was a volume.
    pub(crate) image_id: Option<String>,
    /// Its volumes, in the order of their devices.
    pub(crate) volumes: Vec<VolumeRecord>,
    /// Its ports, in its order.
    pub(crate) ports: Vec<PortRecord>,
    /// The networks of its ports and floating addresses, by which others are found that can stand for them.
    pub(crate) networks: Vec<Foreign>,
    pub(crate) key_pair: Option<KeyRecord>,
    pub(crate) metadata: Map<String, Value>,
    pub(crate) tags: Vec<String>,
    pub(crate) availability_zone: Option<String>,
    pub(crate) config_drive: bool,
    /// In base 64, where it could be read.
    pub(crate) user_data: Option<String>,
    pub(crate) group: Option<GroupRecord>,
}

/// A flavor: its name, and the values by which another can stand for it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct FlavorRecord {
    pub(crate) name: String,
    pub(crate) vcpus: u32,
    pub(crate) ram: u32,
    pub(crate) disk: u32,
    pub(crate) ephemeral: u32,
    pub(crate) swap: u32,
    pub(crate) extra_specs: Option<Map<String, Value>>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct VolumeRecord {
    pub(crate) id: String,
    pub(crate) device: Option<String>,
    /// The server boots from it.
    pub(crate) is_root: bool,
    pub(crate) tag: Option<String>,
    pub(crate) delete_on_termination: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PortRecord {
    #[serde(flatten)]
    pub(crate) port: Port,
    /// By which addresses it is reached from outside.
    pub(crate) floating_ips: Vec<FloatingIp>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct KeyRecord {
    pub(crate) name: String,
    /// The rest is known only to the user that has it.
    pub(crate) kind: Option<String>,
    pub(crate) public_key: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct GroupRecord {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) policy: String,
    pub(crate) rules: Map<String, Value>,
}

impl ServerRecord {
    /// Returns whether it was at work, so that the new one is to be.
    pub(crate) fn was_running(&self) -> bool {
        !matches!(self.status.as_str(), "SHUTOFF" | "PAUSED" | "SUSPENDED" | "SHELVED" | "SHELVED_OFFLOADED")
    }
}
