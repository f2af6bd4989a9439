//! Glance: images, their bytes, and with whom they are shared.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::Ignored;
use crate::catalog::ServiceType;
use crate::error::Result;
use crate::page::Pages;
use crate::service::Service;
use crate::session::Session;
use crate::stream::{Download, Upload};

/// How much is asked for in one page.
const PAGE: &str = "500";
/// How many ids are asked for in one call.
const IDS: usize = 50;

/// Glance, as one identity sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Glance(Service);

/// An image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// What state it is in: `queued`, `saving`, `active`, ….
    pub status: String,
    /// How the bytes are to be understood.
    #[serde(default)]
    pub disk_format: Option<String>,
    /// What they are packed in.
    #[serde(default)]
    pub container_format: Option<String>,
    /// How many bytes there are.
    #[serde(default)]
    pub size: Option<u64>,
    /// The GiB that a disk must have for it.
    #[serde(default)]
    pub min_disk: u64,
    /// The MiB that a server must have for it.
    #[serde(default)]
    pub min_ram: u64,
    /// Who sees it: `private`, `shared`, `community`, `public`.
    #[serde(default)]
    pub visibility: String,
    /// Whether it cannot be removed.
    #[serde(default)]
    pub protected: bool,
    /// Whether lists leave it out.
    #[serde(default)]
    pub os_hidden: bool,
    /// The project that it belongs to.
    #[serde(default)]
    pub owner: Option<String>,
    /// The algorithm of the digest.
    #[serde(default)]
    pub os_hash_algo: Option<String>,
    /// The digest of the bytes, in hexadecimal digits.
    #[serde(default)]
    pub os_hash_value: Option<String>,
    /// The tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Everything else: the properties that tenants add, and what Glance tells beside.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// What Glance tells of an image that is no property of it.
const TOLD: &[&str] = &[
    "checksum",
    "created_at",
    "direct_url",
    "file",
    "locations",
    "schema",
    "self",
    "stores",
    "updated_at",
    "virtual_size",
];

impl Image {
    /// Returns the properties that tenants added.
    pub fn properties(&self) -> Map<String, Value> {
        let is_property = |name: &str| !TOLD.contains(&name) && !name.starts_with("os_glance_");
        self.others
            .iter()
            .filter(|(name, _)| is_property(name))
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect()
    }
}

impl Glance {
    /// Returns the session's Glance.
    ///
    /// # Errors
    /// When the catalog has none.
    pub fn new(session: &Session) -> Result<Self> {
        Ok(Self(session.service(ServiceType::Image)?))
    }

    /// Returns the service itself.
    pub fn service(&self) -> &Service {
        &self.0
    }

    /// Lists the images that are seen, in the order of their creation.
    pub fn images(&self, query: &[(&str, &str)]) -> Pages<Image> {
        let mut query = query.to_vec();
        if !query.iter().any(|(name, _)| *name == "limit") {
            query.push(("limit", PAGE));
        }
        self.0.pages("/images", &query, "images")
    }

    /// Returns those of these images that are seen, some dozens with a call.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn images_of(&self, ids: &[&str]) -> Result<Vec<Image>> {
        let mut all = Vec::new();
        for some in ids.chunks(IDS) {
            all.extend(self.images(&[("id", &format!("in:{}", some.join(",")))]).all().await?);
        }
        Ok(all)
    }

    /// Lists the project's images that have a property.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn images_with(&self, key: &str, value: &str) -> Result<Vec<Image>> {
        let mut all = self.images(&[(key, value)]).all().await?;
        all.retain(|image| image.others.get(key).and_then(Value::as_str) == Some(value));
        Ok(all)
    }

    /// Reads an image.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn image(&self, id: &str) -> Result<Image> {
        self.0.get(Service::path(&["images", id])).await
    }

    /// Makes an image without bytes.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn create_image(&self, document: &Map<String, Value>) -> Result<Image> {
        self.0.post("/images", document).await
    }

    /// Sets members of an image that it may have already.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn set(&self, id: &str, members: &Map<String, Value>) -> Result<Image> {
        let set =
            |(name, value): (&String, &Value)| json!({"op": "add", "path": pointer(name), "value": value});
        self.change(id, members.iter().map(set).collect()).await
    }

    /// Removes a property of an image.
    ///
    /// # Errors
    /// Those of the service; a property that is not there is a conflict.
    pub async fn remove_property(&self, id: &str, name: &str) -> Result<Image> {
        self.change(id, vec![json!({"op": "remove", "path": pointer(name)})]).await
    }

    async fn change(&self, id: &str, changes: Vec<Value>) -> Result<Image> {
        let request = self.0.request(Method::PATCH, Service::path(&["images", id]));
        let document = Value::Array(changes).to_string();
        let kind = "application/openstack-images-v2.1-json-patch";
        request.header("content-type", kind).body(document).read().await
    }

    /// Sends the bytes of an image that has none.
    ///
    /// # Errors
    /// Those of the service, or of the source of the bytes.
    pub async fn upload(&self, id: &str, bytes: Upload) -> Result<()> {
        let request = self.0.request(Method::PUT, Service::path(&["images", id, "file"]));
        request.header("content-type", "application/octet-stream").upload(bytes).await?;
        Ok(())
    }

    /// Returns the bytes of an image as they come.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn download(&self, id: &str) -> Result<Download> {
        let request = self.0.request(Method::GET, Service::path(&["images", id, "file"]));
        request.header("accept", "application/octet-stream").download().await
    }

    /// Removes an image, and says whether it was there.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn delete_image(&self, id: &str) -> Result<bool> {
        self.0.delete(Service::path(&["images", id])).await
    }

    /// Returns the projects that an image is shared with.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn members(&self, id: &str) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Answer {
            members: Vec<Member>,
        }
        #[derive(Deserialize)]
        struct Member {
            member_id: String,
        }
        let answer: Answer = self.0.get(Service::path(&["images", id, "members"])).await?;
        Ok(answer.members.into_iter().map(|member| member.member_id).collect())
    }

    /// Shares an image with a project; that it is shared already is success.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn add_member(&self, id: &str, project: &str) -> Result<()> {
        let path = Service::path(&["images", id, "members"]);
        match self.0.post::<Ignored>(path, &json!({"member": project})).await {
            Err(err) if err.kind() == crate::ErrorKind::Conflict => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

/// Returns where a member is, as a JSON pointer.
fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_what_is_left() {
        let image: Image = serde_json::from_value(json!({
            "id": "i", "name": null, "status": "active", "disk_format": "raw", "size": 3, "min_disk": 1, "tags": ["t"],
            "checksum": "c", "self": "/v2/images/i", "file": "f", "schema": "s", "os_glance_failed_import": "",
            "hw_disk_bus": "scsi", "created_at": "now", "stores": "a"}))
        .expect("an image");
        assert_eq!(Value::Object(image.properties()), json!({"hw_disk_bus": "scsi"}));
        assert_eq!(pointer("a/b~c"), "/a~1b~0c");
    }
}
