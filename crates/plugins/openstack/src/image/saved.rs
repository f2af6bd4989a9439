//! What is remembered of an image, and how another one is given all of it.

use karbor_openstack_client::glance::{Glance, Image};
use karbor_plugin::{Finding, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::Doing;
use crate::frame;
use crate::made::{SCAFFOLD_KEY, TAG_KEY};

/// What Nova says of the server in an image that it took of it: true of that server only.
const OF_SERVER: &[&str] = &[
    "base_image_ref",
    "boot_roles",
    "image_location",
    "image_state",
    "image_type",
    "instance_uuid",
    "owner_id",
    "owner_project_name",
    "owner_user_name",
    "user_id",
];

/// What is remembered of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) format: u32,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) disk_format: Option<String>,
    pub(super) container_format: Option<String>,
    pub(super) size_bytes: u64,
    pub(super) min_disk: u64,
    pub(super) min_ram: u64,
    pub(super) visibility: String,
    pub(super) protected: bool,
    pub(super) hidden: bool,
    pub(super) tags: Vec<String>,
    pub(super) properties: Map<String, Value>,
    pub(super) members: Vec<String>,
    /// The server whose disk it is.
    pub(super) server_id: Option<String>,
    /// Glance's digest of the bytes.
    #[serde(default)]
    pub(super) digest: Option<String>,
}

/// Returns what is remembered of an image, or of what was taken of a server's disk.
pub(super) fn saved(
    image: &Image,
    name: String,
    size_bytes: u64,
    members: Vec<String>,
    server: Option<String>,
) -> Saved {
    let mut properties = image.properties();
    properties.retain(|key, _| key != TAG_KEY && key != SCAFFOLD_KEY);
    if server.is_some() {
        properties.retain(|key, _| !OF_SERVER.contains(&key.as_str()));
    }
    Saved {
        format: frame::RECORD_FORMAT,
        id: image.id.clone(),
        name,
        disk_format: image.disk_format.clone(),
        container_format: image.container_format.clone(),
        size_bytes,
        min_disk: image.min_disk,
        min_ram: image.min_ram,
        visibility: image.visibility.clone(),
        protected: image.protected && server.is_none(),
        hidden: image.os_hidden,
        tags: image.tags.clone(),
        properties,
        members,
        server_id: server,
        digest: image.os_hash_value.clone(),
    }
}

/// Returns the new image as Glance is told to make it: private, until its bytes are whole.
pub(super) fn document(saved: &Saved, name: &str) -> Map<String, Value> {
    let mut document = saved.properties.clone();
    let own = [
        ("name", json!(name)),
        ("disk_format", json!(saved.disk_format)),
        ("container_format", json!(saved.container_format)),
        ("min_disk", json!(saved.min_disk)),
        ("min_ram", json!(saved.min_ram)),
        ("tags", json!(saved.tags)),
        ("visibility", json!("private")),
    ];
    document.extend(own.map(|(key, value)| (key.to_owned(), value)));
    document
}

/// Gives a whole image what the original had beside its bytes.
pub(super) async fn finish(glance: &Glance, saved: &Saved, id: &str) -> Result<Vec<Finding>> {
    let doing = || format!("finishing image {id}");
    let mut findings = Vec::new();
    let there = glance.image(id).await.doing(doing)?;
    if there.visibility != saved.visibility && !saved.visibility.is_empty() {
        let open = Map::from_iter([("visibility".to_owned(), json!(saved.visibility))]);
        if let Err(err) = glance.set(id, &open).await {
            // What an administrator gave to all, the tenant may not.
            let text = format!(
                "the original was {} and the new image is {}: {}",
                saved.visibility,
                there.visibility,
                err.reason()
            );
            findings.push(frame::warning(id, text));
        }
    }
    for member in &saved.members {
        if let Err(err) = glance.add_member(id, member).await {
            let text = format!("it could not be shared with project {member} again: {}", err.reason());
            findings.push(frame::warning(id, text));
        }
    }
    let mut last = Map::new();
    if saved.hidden != there.os_hidden {
        last.insert("os_hidden".to_owned(), json!(saved.hidden));
    }
    if saved.protected != there.protected {
        last.insert("protected".to_owned(), json!(saved.protected));
    }
    if !last.is_empty() {
        glance.set(id, &last).await.doing(doing)?;
    }
    Ok(findings)
}
