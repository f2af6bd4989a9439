//! Cinder: volumes, snapshots, attachments, backups.

mod things;

use std::collections::BTreeMap;

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::Ignored;
use crate::catalog::ServiceType;
use crate::error::Result;
use crate::page::Pages;
use crate::service::Service;
use crate::session::Session;
pub use things::{
    Attachment, Backup, GroupSnapshot, Limits, NewBackup, NewVolume, Snapshot, Usage, Volume,
    VolumeAttachment,
};

/// The version that is spoken: attachments without servers and their completion need it (Queens).
const MICROVERSION: &str = "3.44";
/// How much is asked for in one page.
const PAGE: &str = "1000";

/// Cinder, as one identity sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cinder(Service);

#[derive(Deserialize)]
struct VolumeBody {
    volume: Volume,
}

#[derive(Deserialize)]
struct SnapshotBody {
    snapshot: Snapshot,
}

#[derive(Deserialize)]
struct GroupSnapshotBody {
    group_snapshot: GroupSnapshot,
}

#[derive(Deserialize)]
struct AttachmentBody {
    attachment: Attachment,
}

#[derive(Deserialize)]
struct BackupBody {
    backup: Backup,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Made {
    id: String,
}

impl Cinder {
    /// Returns the session's Cinder.
    ///
    /// # Errors
    /// When the catalog has none.
    pub fn new(session: &Session) -> Result<Self> {
        Ok(Self(session.service(ServiceType::BlockStorage)?.at_microversion(MICROVERSION)))
    }

    /// Returns the service itself.
    pub fn service(&self) -> &Service {
        &self.0
    }

    /// Lists the project's volumes with all they tell.
    pub fn volumes(&self, query: &[(&str, &str)]) -> Pages<Volume> {
        self.0.pages("/volumes/detail", &paged(query), "volumes")
    }

    /// Lists the volumes that carry a property.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn volumes_with(&self, key: &str, value: &str) -> Result<Vec<Volume>> {
        let mut all = self.volumes(&[("metadata", &property(key, value))]).all().await?;
        // Where the filter is not known, it is ignored.
        all.retain(|volume| volume.metadata.get(key).is_some_and(|found| found == value));
        Ok(all)
    }

    /// Reads a volume.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn volume(&self, id: &str) -> Result<Volume> {
        let body: VolumeBody = self.0.get(Service::path(&["volumes", id])).await?;
        Ok(body.volume)
    }

    /// Begins to make a volume.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn create_volume(&self, new: &NewVolume) -> Result<Volume> {
        let body: VolumeBody = self.0.post("/volumes", &json!({"volume": new})).await?;
        Ok(body.volume)
    }

    /// Changes name and description.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn update_volume(&self, id: &str, name: &str, description: Option<&str>) -> Result<()> {
        let mut volume = json!({"name": name});
        if let Some(description) = description {
            volume["description"] = json!(description);
        }
        self.0.put::<Ignored>(Service::path(&["volumes", id]), &json!({"volume": volume})).await?;
        Ok(())
    }

    /// Begins to remove a volume, and says whether it was there.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn delete_volume(&self, id: &str) -> Result<bool> {
        self.0.delete(Service::path(&["volumes", id])).await
    }

    /// Sets whether a server can be booted from it.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn set_bootable(&self, id: &str, bootable: bool) -> Result<()> {
        self.act(id, &json!({"os-set_bootable": {"bootable": bootable}})).await
    }

    /// Adds properties of an image to a volume.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn set_image_metadata(&self, id: &str, metadata: &Map<String, Value>) -> Result<()> {
        self.act(id, &json!({"os-set_image_metadata": {"metadata": metadata}})).await
    }

    /// Removes a property of an image from a volume; that it is not there is success.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn unset_image_metadata(&self, id: &str, key: &str) -> Result<()> {
        match self.act(id, &json!({"os-unset_image_metadata": {"key": key}})).await {
            Err(err) if err.is_not_found() => Ok(()),
            other => other,
        }
    }

    /// Adds properties to a volume.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn set_metadata(&self, id: &str, metadata: &BTreeMap<String, String>) -> Result<()> {
        let path = Service::path(&["volumes", id, "metadata"]);
        let request = self.0.request(Method::POST, path).json(&json!({"metadata": metadata})).idempotent();
        request.read::<Ignored>().await?;
        Ok(())
    }

    /// Removes a property of a volume, and says whether it was there.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn delete_metadata(&self, id: &str, key: &str) -> Result<bool> {
        self.0.delete(Service::path(&["volumes", id, "metadata", key])).await
    }

    /// Begins to upload a volume as a raw image, and returns the image's id.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn upload_to_image(&self, id: &str, name: &str, force: bool) -> Result<String> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(rename = "os-volume_upload_image")]
            image: Uploading,
        }
        #[derive(Deserialize)]
        struct Uploading {
            image_id: String,
        }
        let body = json!({"os-volume_upload_image": {
            "image_name": name, "force": force, "disk_format": "raw", "container_format": "bare",
            "visibility": "private", "protected": false}});
        let answer: Answer = self.0.post(Service::path(&["volumes", id, "action"]), &body).await?;
        Ok(answer.image.image_id)
    }

    async fn act(&self, id: &str, body: &Value) -> Result<()> {
        let path = Service::path(&["volumes", id, "action"]);
        self.0.request(Method::POST, path).json(body).idempotent().read::<Ignored>().await?;
        Ok(())
    }

    /// Lists the project's snapshots.
    pub fn snapshots(&self, query: &[(&str, &str)]) -> Pages<Snapshot> {
        self.0.pages("/snapshots/detail", &paged(query), "snapshots")
    }

    /// Lists the snapshots that carry a property.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn snapshots_with(&self, key: &str, value: &str) -> Result<Vec<Snapshot>> {
        let mut all = self.snapshots(&[("metadata", &property(key, value))]).all().await?;
        all.retain(|snapshot| snapshot.metadata.get(key).is_some_and(|found| found == value));
        Ok(all)
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn snapshot(&self, id: &str) -> Result<Snapshot> {
        let body: SnapshotBody = self.0.get(Service::path(&["snapshots", id])).await?;
        Ok(body.snapshot)
    }

    /// Begins to make a snapshot; `force` also of a volume that is in use.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn create_snapshot(
        &self,
        volume: &str,
        name: &str,
        description: Option<&str>,
        force: bool,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Snapshot> {
        let body = json!({"snapshot": {"volume_id": volume, "name": name, "description": description,
            "force": force, "metadata": metadata}});
        let body: SnapshotBody = self.0.post("/snapshots", &body).await?;
        Ok(body.snapshot)
    }

    /// Begins to remove a snapshot, and says whether it was there.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn delete_snapshot(&self, id: &str) -> Result<bool> {
        self.0.delete(Service::path(&["snapshots", id])).await
    }

    /// Begins to make a snapshot of all volumes of a group, and returns its id. That of each volume is there by then.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn create_group_snapshot(&self, group: &str, name: &str) -> Result<String> {
        let body = json!({"group_snapshot": {"group_id": group, "name": name}});
        let body: GroupSnapshotBody = self.0.post("/group_snapshots", &body).await?;
        Ok(body.group_snapshot.id)
    }

    /// Lists the snapshots of groups.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn group_snapshots(&self) -> Result<Vec<GroupSnapshot>> {
        self.0.pages("/group_snapshots/detail", &paged(&[]), "group_snapshots").all().await
    }

    /// Reads the snapshot of a group.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn group_snapshot(&self, id: &str) -> Result<GroupSnapshot> {
        let body: GroupSnapshotBody = self.0.get(Service::path(&["group_snapshots", id])).await?;
        Ok(body.group_snapshot)
    }

    /// Begins to remove the snapshot of a group with those of its volumes, and says whether it was there.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn delete_group_snapshot(&self, id: &str) -> Result<bool> {
        self.0.delete(Service::path(&["group_snapshots", id])).await
    }

    /// Lists the uses of a volume.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn attachments_of(&self, volume: &str) -> Result<Vec<Attachment>> {
        self.0.pages("/attachments", &[("volume_id", volume)], "attachments").all().await
    }

    /// Reads an attachment.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn attachment(&self, id: &str) -> Result<Attachment> {
        let body: AttachmentBody = self.0.get(Service::path(&["attachments", id])).await?;
        Ok(body.attachment)
    }

    /// Takes a volume for a host, without a server, and returns how its bytes are reached.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn create_attachment(
        &self,
        volume: &str,
        connector: &Value,
        read_only: bool,
    ) -> Result<Attachment> {
        let mut connector = connector.clone();
        connector["mode"] = json!(if read_only { "ro" } else { "rw" });
        let body = json!({"attachment": {"volume_uuid": volume, "connector": connector}});
        let body: AttachmentBody = self.0.post("/attachments", &body).await?;
        Ok(body.attachment)
    }

    /// Tells that the bytes are reached.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn complete_attachment(&self, id: &str) -> Result<()> {
        let path = Service::path(&["attachments", id, "action"]);
        let request = self.0.request(Method::POST, path).json(&json!({"os-complete": {}})).idempotent();
        request.read::<Ignored>().await?;
        Ok(())
    }

    /// Gives a volume back, and says whether it was taken.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn delete_attachment(&self, id: &str) -> Result<bool> {
        self.0.delete(Service::path(&["attachments", id])).await
    }

    /// Lists the project's backups.
    pub fn backups(&self, query: &[(&str, &str)]) -> Pages<Backup> {
        self.0.pages("/backups/detail", &paged(query), "backups")
    }

    /// Reads a backup.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn backup(&self, id: &str) -> Result<Backup> {
        let body: BackupBody = self.0.get(Service::path(&["backups", id])).await?;
        Ok(body.backup)
    }

    /// Begins to make a backup, and returns its id.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn create_backup(&self, new: &NewBackup) -> Result<String> {
        #[derive(Deserialize)]
        struct Answer {
            backup: Made,
        }
        let answer: Answer = self.0.post("/backups", &json!({"backup": new})).await?;
        Ok(answer.backup.id)
    }

    /// Replaces the properties of a backup.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn set_backup_metadata(&self, id: &str, metadata: &BTreeMap<String, String>) -> Result<()> {
        let path = Service::path(&["backups", id]);
        self.0.put::<Ignored>(path, &json!({"backup": {"metadata": metadata}})).await?;
        Ok(())
    }

    /// Begins to restore a backup into a volume that is there.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn restore_backup(&self, id: &str, volume: &str) -> Result<()> {
        let path = Service::path(&["backups", id, "restore"]);
        self.0.post::<Ignored>(path, &json!({"restore": {"volume_id": volume}})).await?;
        Ok(())
    }

    /// Begins to remove a backup, and says whether it was there.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn delete_backup(&self, id: &str) -> Result<bool> {
        self.0.delete(Service::path(&["backups", id])).await
    }

    /// Returns names and ids of the types that the project can use.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn volume_types(&self) -> Result<Vec<String>> {
        let all: Vec<Named> = self.0.pages("/types", &[("limit", PAGE)], "volume_types").all().await?;
        Ok(all.into_iter().flat_map(|kind| [kind.name, kind.id]).collect())
    }

    /// Returns the names of the zones that take volumes.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn availability_zones(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(rename = "availabilityZoneInfo")]
            zones: Vec<Zone>,
        }
        #[derive(Deserialize)]
        struct Zone {
            #[serde(rename = "zoneName")]
            name: String,
            #[serde(rename = "zoneState")]
            state: ZoneState,
        }
        #[derive(Deserialize)]
        struct ZoneState {
            available: bool,
        }
        let answer: Answer = self.0.get("/os-availability-zone").await?;
        Ok(answer.zones.into_iter().filter(|zone| zone.state.available).map(|zone| zone.name).collect())
    }

    /// Returns what the project has and may have.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn limits(&self) -> Result<Limits> {
        #[derive(Deserialize)]
        struct Answer {
            limits: All,
        }
        #[derive(Deserialize)]
        struct All {
            absolute: Map<String, Value>,
        }
        let answer: Answer = self.0.get("/limits").await?;
        let usage = |limit: &str, used: &str| Usage {
            limit: answer.limits.absolute.get(limit).and_then(Value::as_u64),
            used: answer.limits.absolute.get(used).and_then(Value::as_u64).unwrap_or_default(),
        };
        Ok(Limits {
            volumes: usage("maxTotalVolumes", "totalVolumesUsed"),
            gigabytes: usage("maxTotalVolumeGigabytes", "totalGigabytesUsed"),
            snapshots: usage("maxTotalSnapshots", "totalSnapshotsUsed"),
        })
    }
}

/// Adds the size of pages.
fn paged<'a>(query: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut query = query.to_vec();
    if !query.iter().any(|(name, _)| *name == "limit") {
        query.push(("limit", PAGE));
    }
    query
}

/// Returns a filter by one property, as Cinder reads it.
fn property(key: &str, value: &str) -> String {
    format!("{{'{key}':'{value}'}}")
}
