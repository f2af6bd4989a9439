//! What Cinder tells of, and what it is told to make.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// A volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// What people say of it.
    #[serde(default)]
    pub description: Option<String>,
    /// What state it is in: `available`, `in-use`, `error`, ….
    pub status: String,
    /// Its size in GiB.
    pub size: u64,
    /// The name of its type.
    #[serde(default)]
    pub volume_type: Option<String>,
    /// Its zone.
    #[serde(default)]
    pub availability_zone: Option<String>,
    /// Whether a server can be booted from it.
    #[serde(default, deserialize_with = "truth")]
    pub bootable: bool,
    /// Whether its bytes are encrypted below the server.
    #[serde(default)]
    pub encrypted: bool,
    /// Whether several servers can have it at once.
    #[serde(default)]
    pub multiattach: bool,
    /// The tenant's own properties.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// The properties of the image that it was made from, which guide servers that boot from it.
    #[serde(default)]
    pub volume_image_metadata: Map<String, Value>,
    /// By whom it is used.
    #[serde(default)]
    pub attachments: Vec<VolumeAttachment>,
    /// The project, where the caller may see it.
    #[serde(default, rename = "os-vol-tenant-attr:tenant_id")]
    pub project_id: Option<String>,
    /// The group that it belongs to.
    #[serde(default)]
    pub group_id: Option<String>,
}

/// One use of a volume, as the volume tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeAttachment {
    /// The attachment.
    #[serde(default)]
    pub attachment_id: Option<String>,
    /// The server, if it is one that uses it.
    #[serde(default)]
    pub server_id: Option<String>,
    /// The device's name there.
    #[serde(default)]
    pub device: Option<String>,
}

/// What a new volume is to be; what is `None` is left to Cinder.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NewVolume {
    /// Its name.
    pub name: String,
    /// What people say of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its size in GiB.
    pub size: u64,
    /// The name or id of its type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_type: Option<String>,
    /// Its zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// The snapshot that it begins as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// The image that it begins as.
    #[serde(rename = "imageRef", skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The tenant's own properties.
    pub metadata: BTreeMap<String, String>,
}

/// A snapshot of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// What state it is in.
    pub status: String,
    /// The volume.
    pub volume_id: String,
    /// The volume's size in GiB.
    pub size: u64,
    /// When it was taken.
    #[serde(default, deserialize_with = "or_default")]
    pub created_at: String,
    /// The tenant's own properties.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// The snapshot of a whole group that it belongs to.
    #[serde(default)]
    pub group_snapshot_id: Option<String>,
}

/// A snapshot of all volumes of a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupSnapshot {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// What state it is in.
    #[serde(default, deserialize_with = "or_default")]
    pub status: String,
}

/// A use of a volume, and how its bytes are reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its id.
    pub id: String,
    /// What state it is in.
    #[serde(default, deserialize_with = "or_default")]
    pub status: String,
    /// The volume.
    pub volume_id: String,
    /// The server; none for a host's own use.
    #[serde(default)]
    pub instance: Option<String>,
    /// Where the bytes are, in the words of the driver.
    #[serde(default)]
    pub connection_info: Value,
}

/// A backup of a volume that Cinder keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// What state it is in.
    pub status: String,
    /// The volume.
    pub volume_id: String,
    /// The volume's size in GiB.
    pub size: u64,
    /// Whether it needs an earlier one.
    #[serde(default)]
    pub is_incremental: bool,
    /// Whether a later one needs it.
    #[serde(default)]
    pub has_dependent_backups: bool,
    /// Why it failed.
    #[serde(default)]
    pub fail_reason: Option<String>,
    /// When it was made.
    #[serde(default, deserialize_with = "or_default")]
    pub created_at: String,
    /// The tenant's own properties.
    #[serde(default, deserialize_with = "or_none")]
    pub metadata: BTreeMap<String, String>,
}

/// What a new backup is to be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NewBackup {
    /// The volume.
    pub volume_id: String,
    /// Its name.
    pub name: String,
    /// What people say of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The snapshot whose bytes are meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// Whether it keeps only what changed since the newest backup.
    pub incremental: bool,
    /// Whether the volume may be in use.
    pub force: bool,
    /// The tenant's own properties.
    pub metadata: BTreeMap<String, String>,
}

/// How much of something a project has, and may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// How much it may have; none for any number.
    pub limit: Option<u64>,
    /// How much it has.
    pub used: u64,
}

impl Usage {
    /// Returns how much more there may be; none for any number.
    pub fn free(&self) -> Option<u64> {
        self.limit.map(|limit| limit.saturating_sub(self.used))
    }
}

/// What a project may have of block storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Volumes.
    pub volumes: Usage,
    /// GiB of volumes.
    pub gigabytes: Usage,
    /// Snapshots.
    pub snapshots: Usage,
}

fn or_default<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<String, D::Error> {
    Option::<String>::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn or_none<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<BTreeMap<String, String>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads a truth that is written as one, or as a text.
fn truth<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<bool, D::Error> {
    Value::deserialize(deserializer).map(|value| match value {
        Value::Bool(truth) => truth,
        Value::String(text) => text.eq_ignore_ascii_case("true"),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn volumes_are_read_as_cinder_writes_them() {
        let volume: Volume = serde_json::from_value(json!({
            "id": "v1", "name": null, "status": "in-use", "size": 2, "bootable": "true", "encrypted": false,
            "volume_type": "nfs", "metadata": {"a": "b"}, "os-vol-tenant-attr:tenant_id": "p",
            "attachments": [{"attachment_id": "a", "server_id": null, "device": "na", "host_name": null}],
            "volume_image_metadata": {"min_disk": "0"}, "links": []}))
        .expect("a volume");
        assert!(volume.bootable && volume.name.is_empty());
        assert_eq!(volume.attachments[0].server_id, None);
        assert_eq!(volume.project_id.as_deref(), Some("p"));
        let again = serde_json::to_value(&volume).expect("to JSON");
        assert_eq!(serde_json::from_value::<Volume>(again).expect("read back"), volume);
    }

    #[test]
    fn any_number_has_room_for_more() {
        assert_eq!(Usage { limit: None, used: 10 }.free(), None);
        assert_eq!(Usage { limit: Some(10), used: 9 }.free(), Some(1));
        assert_eq!(Usage { limit: Some(10), used: 11 }.free(), Some(0));
    }
}
