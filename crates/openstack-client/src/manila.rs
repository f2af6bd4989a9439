//! Manila: shares, their snapshots and access rules.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::Ignored;
use crate::catalog::ServiceType;
use crate::error::Result;
use crate::neutron::null_is_default;
use crate::page::Pages;
use crate::service::Service;
use crate::session::Session;

/// What is spoken: access rules have their own collection and metadata since then.
const MICROVERSION: &str = "2.45";

/// Manila, as one identity sees it.
#[derive(Debug, Clone)]
pub struct Manila(Service);

/// A share.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Share {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// Its state; Manila has none for a moment while it makes or removes one.
    #[serde(deserialize_with = "null_is_default")]
    pub status: String,
    /// Whose it is.
    pub project_id: String,
    /// Its size in GiB.
    pub size: u64,
    /// By which protocol it is used.
    pub share_proto: String,
    /// The id of its type.
    pub share_type: Option<String>,
    /// The name of its type.
    pub share_type_name: Option<String>,
    /// The share network that it is on.
    pub share_network_id: Option<String>,
    /// The snapshot that it was made from.
    pub snapshot_id: Option<String>,
    /// Whether snapshots can be made of it.
    pub snapshot_support: Option<bool>,
    /// Whether shares can be made from its snapshots.
    pub create_share_from_snapshot_support: Option<bool>,
    /// Its zone.
    pub availability_zone: Option<String>,
    /// Whether everybody sees it.
    pub is_public: bool,
    /// Its metadata.
    pub metadata: Map<String, Value>,
}

/// A snapshot of a share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ShareSnapshot {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// Its state.
    #[serde(deserialize_with = "null_is_default")]
    pub status: String,
    /// Of which share.
    pub share_id: String,
    /// The share's size at that time, in GiB.
    pub share_size: Option<u64>,
}

/// Who may use a share.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AccessRule {
    /// Its id.
    pub id: String,
    /// Its state.
    #[serde(deserialize_with = "null_is_default")]
    pub state: String,
    /// By what a user is known: `ip`, `user`, `cert`, `cephx`.
    pub access_type: String,
    /// The user.
    pub access_to: String,
    /// `rw` or `ro`.
    pub access_level: String,
    /// Its metadata.
    pub metadata: Map<String, Value>,
}

/// A type of shares.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ShareType {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// A share network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ShareNetwork {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
}

/// How much a project may have, and has. A negative limit is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ShareLimits {
    /// How many shares there may be.
    pub max_total_shares: i64,
    /// How many GiB there may be in shares.
    pub max_total_share_gigabytes: i64,
    /// How many shares there are.
    pub total_shares_used: i64,
    /// How many GiB there are in shares.
    pub total_share_gigabytes_used: i64,
}

impl Manila {
    /// Returns Manila for a session.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if the cloud has none.
    pub fn new(session: &Session) -> Result<Self> {
        Ok(Self(session.service(ServiceType::SharedFileSystem)?.at_microversion(MICROVERSION)))
    }

    /// Lists the shares that a query finds.
    pub fn shares(&self, query: &[(&str, &str)]) -> Pages<Share> {
        self.0.pages("/shares/detail", query, "shares")
    }

    /// Reads a share.
    ///
    /// # Errors
    /// Those of Manila.
    pub async fn share(&self, id: &str) -> Result<Share> {
        #[derive(Deserialize)]
        struct Document {
            share: Share,
        }
        Ok(self.0.get::<Document>(Service::path(&["shares", id])).await?.share)
    }

    /// Makes a share, and returns its id.
    ///
    /// # Errors
    /// Those of Manila.
    pub async fn create_share(&self, share: &Value) -> Result<String> {
        #[derive(Deserialize)]
        struct Document {
            share: Share,
        }
        Ok(self.0.post::<Document>("/shares", &json!({"share": share})).await?.share.id)
    }

    /// Removes a share, and says whether it was there.
    ///
    /// # Errors
    /// Those of Manila.
    pub async fn delete_share(&self, id: &str) -> Result<bool> {
        self.0.delete(Service::path(&["shares", id])).await
    }

    /// Removes one member of a share's metadata, and says whether it was there.
    ///
    /// # Errors
    /// Those of Manila.
    pub async fn delete_metadata(&self, id: &str, key: &str) -> Result<bool> {
        self.0.delete(Service::path(&["shares", id, "metadata", key])).await
    }

    /// Lists the snapshots that a query finds.
    pub fn snapshots(&self, query: &[(&str, &str)]) -> Pages<ShareSnapshot> {
        self.0.pages("/snapshots/detail", query, "snapshots")
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// Those of Manila.
    pub async fn snapshot(&self, id: &str) -> Result<ShareSnapshot> {
        #[derive(Deserialize)]
        struct Document {
            snapshot: ShareSnapshot,
        }
        Ok(self.0.get::<Document>(Service::path(&["snapshots", id])).await?.snapshot)
    }

    /// Makes a snapshot, and returns its id.
    ///
    /// # Errors
    /// Those of Manila.
    pub async fn create_snapshot(&self, snapshot: &Value) -> Result<String> {
        #[derive(Deserialize)]
        struct Document {
            snapshot: ShareSnapshot,
        }
        Ok(self.0.post::<Document>("/snapshots", &json!({"snapshot": snapshot})).await?.snapshot.id)
    }

    /// Removes a snapshot, and says whether it was there.
    ///
    /// # Errors
    /// Those of Manila.
    pub async fn delete_snapshot(&self, id: &str) -> Result<bool> {
        self.0.delete(Service::path(&["snapshots", id])).await
    }

    /// Lists who may use a share.
    ///
    /// # Errors
    /// Those of Manila.
    pub async fn access_rules(&self, share: &str) -> Result<Vec<AccessRule>> {
        self.0.pages("/share-access-rules", &[("share_id", share)], "access_list").all().await
    }

    /// Lets somebody use a share.
    ///
    /// # Errors
    /// Those of Manila.
    pub async fn allow(&self, share: &str, rule: &AccessRule) -> Result<()> {
        let mut body = json!({
            "access_type": rule.access_type, "access_to": rule.access_to, "access_level": rule.access_level,
        });
        if !rule.metadata.is_empty() {
            body["metadata"] = Value::Object(rule.metadata.clone());
        }
        let path = Service::path(&["shares", share, "action"]);
        self.0.post::<Ignored>(path, &json!({"allow_access": body})).await.map(drop)
    }

    /// Lists the types that the project may use.
    ///
    /// # Errors
    /// Those of Manila.
    pub async fn share_types(&self) -> Result<Vec<ShareType>> {
        self.0.pages("/types", &[], "share_types").all().await
    }

    /// Lists the project's share networks.
    ///
    /// # Errors
    /// Those of Manila.
    pub async fn share_networks(&self) -> Result<Vec<ShareNetwork>> {
        self.0.pages("/share-networks/detail", &[], "share_networks").all().await
    }

    /// Returns what the session's project may have, and has.
    ///
    /// # Errors
    /// Those of Manila.
    pub async fn limits(&self) -> Result<ShareLimits> {
        #[derive(Deserialize)]
        struct Absolute {
            absolute: ShareLimits,
        }
        #[derive(Deserialize)]
        struct Document {
            limits: Absolute,
        }
        Ok(self.0.get::<Document>("/limits").await?.limits.absolute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_read_with_what_it_does_not_say() {
        let text = r#"{"id": "s", "name": null, "size": 1, "share_proto": "NFS", "status": null, "metadata": {"a": "b"}}"#;
        let share: Share = serde_json::from_str(text).unwrap();
        assert_eq!((share.name, share.status.as_str(), share.metadata["a"].as_str()), (None, "", Some("b")));
    }
}
