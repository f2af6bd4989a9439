//! What is remembered of a volume beside its bytes, and the new volume that it describes.

use std::collections::BTreeMap;

use karbor_openstack_client::cinder::{NewVolume, Volume};
use karbor_plugin::{Need, PlannedAction, PlannedEffect, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::Doing;
use crate::frame::{self, RECORD_FORMAT};
use crate::made::{SCAFFOLD_KEY, TAG_KEY};
use crate::volume::work::Work;

/// The record's name.
pub(crate) const RECORD: &str = "volume";

/// What is remembered of a volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Definition {
    pub(crate) format: u32,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) size_gib: u64,
    pub(crate) volume_type: Option<String>,
    pub(crate) availability_zone: Option<String>,
    pub(crate) bootable: bool,
    pub(crate) multiattach: bool,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) image_metadata: Map<String, Value>,
    /// How the bytes came out of the cloud; empty where they stay there.
    #[serde(default)]
    pub(crate) transport: String,
    /// When its snapshot was taken, as Cinder says; those of one checkpoint tell how far apart they are.
    #[serde(default)]
    pub(crate) taken_at: String,
}

/// What Cinder puts between the tenant's own properties.
const TOLD: &[&str] = &["attached_mode", "readonly", TAG_KEY, SCAFFOLD_KEY];

impl Definition {
    /// Remembers a volume.
    pub(crate) fn of(volume: &Volume, transport: &str) -> Self {
        let mut metadata = volume.metadata.clone();
        metadata.retain(|key, _| !TOLD.contains(&key.as_str()));
        let mut image_metadata = volume.volume_image_metadata.clone();
        image_metadata.retain(|key, _| !TOLD.contains(&key.as_str()) && key != "signature_verified");
        Self {
            format: RECORD_FORMAT,
            id: volume.id.clone(),
            name: volume.name.clone(),
            description: volume.description.clone(),
            size_gib: volume.size,
            volume_type: volume.volume_type.clone(),
            availability_zone: volume.availability_zone.clone(),
            bootable: volume.bootable,
            multiattach: volume.multiattach,
            metadata,
            image_metadata,
            transport: transport.to_owned(),
            taken_at: String::new(),
        }
    }

    /// Returns the volume that a restore is to make.
    pub(crate) fn new_volume(&self, wanted: &Wanted, default_name: &str) -> NewVolume {
        let name = frame::given(wanted.restore_name.as_deref()).unwrap_or(default_name);
        let description = frame::given(wanted.restore_description.as_deref());
        let mapped = |wanted: &Option<String>, own: &Option<String>| {
            frame::given(wanted.as_deref()).map(str::to_owned).or_else(|| own.clone())
        };
        NewVolume {
            name: name.to_owned(),
            description: description.map(str::to_owned).or_else(|| self.description.clone()),
            size: self.size_gib,
            volume_type: mapped(&wanted.volume_type, &self.volume_type),
            availability_zone: mapped(&wanted.availability_zone, &self.availability_zone),
            metadata: self.metadata.clone(),
            ..NewVolume::default()
        }
    }
}

impl Definition {
    /// Gives a new volume what cannot be said when it is made.
    pub(crate) async fn apply(&self, work: &Work<'_>, id: &str) -> Result<()> {
        let doing = || format!("describing volume {id}");
        let there = work.cinder.volume(id).await.doing(doing)?;
        for key in there.volume_image_metadata.keys() {
            if !self.image_metadata.contains_key(key) {
                work.cinder.unset_image_metadata(id, key).await.doing(doing)?;
            }
        }
        if !self.image_metadata.is_empty() && there.volume_image_metadata != self.image_metadata {
            work.cinder.set_image_metadata(id, &self.image_metadata).await.doing(doing)?;
        }
        if there.bootable != self.bootable {
            work.cinder.set_bootable(id, self.bootable).await.doing(doing)?;
        }
        Ok(())
    }
}

/// Parameters of restore that all plugins of volumes have.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    pub(crate) restore_name: Option<String>,
    pub(crate) restore_description: Option<String>,
    pub(crate) volume_type: Option<String>,
    pub(crate) availability_zone: Option<String>,
}

/// Returns the schema's part for [`Wanted`].
pub(crate) fn restore_parameters(default_name: &str) -> Value {
    json!({
        "restore_name": frame::text("Restore Name", default_name),
        "restore_description": frame::text("Restore Description", "The new volume's description; the original's when left out."),
        "volume_type": frame::text("Volume Type", "The new volume's type; the original's when left out."),
        "availability_zone": frame::text("Availability Zone", "The new volume's zone; the original's when left out."),
    })
}

/// Returns the schema of the record.
pub(crate) fn saved_info(title: &str, more: Value) -> Value {
    let mut members = json!({
        "id": {"type": "string", "title": "Volume ID"},
        "name": {"type": "string", "title": "Name"},
        "size_gib": {"type": "integer", "title": "Size in GiB"},
        "volume_type": {"type": ["string", "null"], "title": "Volume Type"},
        "availability_zone": {"type": ["string", "null"], "title": "Availability Zone"},
        "bootable": {"type": "boolean", "title": "Bootable"},
        "metadata": {"type": "object", "title": "Properties"},
        "image_metadata": {"type": "object", "title": "Properties of the image"},
        "transport": {"type": "string", "title": "Transport"},
        "taken_at": {"type": "string", "title": "When the snapshot was taken"},
    });
    if let (Value::Object(members), Value::Object(more)) = (&mut members, more) {
        members.extend(more);
    }
    frame::saved_info(title, RECORD, members)
}

/// Returns what a restore would make, and what stands in the way.
pub(crate) async fn plan(work: &Work<'_>, new: &NewVolume) -> Result<PlannedAction> {
    let doing = || "looking at what block storage the project may have".to_owned();
    let mut problems = Vec::new();
    let limits = work.cinder.limits().await.doing(doing)?;
    let needs = vec![
        Need { of: "volumes".to_owned(), amount: 1, free: limits.volumes.free() },
        Need { of: "GiB of volumes".to_owned(), amount: new.size, free: limits.gigabytes.free() },
    ];
    if let Some(kind) = &new.volume_type {
        let types = work.cinder.volume_types().await.doing(doing)?;
        if !types.contains(kind) {
            problems.push(format!("there is no volume type `{kind}`; name another with volume_type"));
        }
    }
    if let Some(zone) = &new.availability_zone {
        let zones = work.cinder.availability_zones().await.doing(doing)?;
        if !zones.contains(zone) {
            problems
                .push(format!("there is no zone `{zone}` for volumes; name another with availability_zone"));
        }
    }
    let details = json!({
        "size_gib": new.size, "volume_type": new.volume_type, "availability_zone": new.availability_zone,
    });
    let problem = (!problems.is_empty()).then(|| problems.join("; "));
    let action = frame::planned(PlannedEffect::Create, format!("volume `{}`", new.name), details, problem);
    Ok(PlannedAction { needs, ..action })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_described_and_made_again_with_what_was_mapped() {
        let volume: Volume = serde_json::from_value(json!({
            "id": "v1", "name": "data", "status": "in-use", "size": 2, "bootable": "true", "volume_type": "fast",
            "availability_zone": "nova", "metadata": {"a": "b", "readonly": "False", TAG_KEY: "x"},
            "volume_image_metadata": {"image_id": "i", "signature_verified": "False"}}))
        .expect("a volume");
        let definition = Definition::of(&volume, "attach");
        assert_eq!(definition.metadata, BTreeMap::from([("a".to_owned(), "b".to_owned())]));
        assert_eq!(Value::Object(definition.image_metadata.clone()), json!({"image_id": "i"}));
        let same = definition.new_volume(&Wanted::default(), "data");
        assert_eq!((same.name.as_str(), same.volume_type.as_deref()), ("data", Some("fast")));
        let wanted = Wanted {
            restore_name: Some(String::new()),
            volume_type: Some("slow".to_owned()),
            ..Wanted::default()
        };
        let other = definition.new_volume(&wanted, "data");
        assert_eq!((other.name.as_str(), other.volume_type.as_deref()), ("data", Some("slow")));
        assert_eq!(other.availability_zone.as_deref(), Some("nova"));
    }
}
