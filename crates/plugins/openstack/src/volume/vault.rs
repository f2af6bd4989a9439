//! `karbor-volume-vault-plugin`: a volume's bytes, in the bank.
//!
//! Protect takes a snapshot in the short phase, so that those of a whole plan lie close together, and reads the bytes
//! of it afterwards: where they lie, or of a temporary volume that Cinder makes of it. Restore writes them into a new
//! volume, and reads them back from there before anybody sees it as restored. By which way the bytes move is the
//! provider's choice ([`Transport`]); a checkpoint can be restored by another way than it was made by.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use karbor_openstack_client::glance::{Glance, Image};
use karbor_plugin::{
    Description, Error, ErrorKind, Finding, Hook, LedgerEntry, OperationKind, Outcome, Protection,
    ResourceKey, ResourceType, Restored, Result, Schemas, Task,
};
use karbor_vault::{BlockOptions, BlockSource, CopyOptions, StreamReader};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::Doing;
use crate::image::work as images;
use crate::made::{Made, SCAFFOLD_KEY};
use crate::poll::Patience;
use crate::volume::connection::{self, Machine, Place};
use crate::volume::definition::{self, Definition, RECORD, Wanted};
use crate::volume::disk::Disk;
use crate::volume::layers;
use crate::volume::work::{SNAPSHOT, SnapshotOptions, VOLUME, Work};
use crate::{Shared, frame, kinds};

/// The plugin's name.
pub(crate) const NAME: &str = "karbor-volume-vault-plugin";

/// The name of the old plugin whose bytes went through Glance: it is this one with another default.
pub(crate) const GLANCE_NAME: &str = "karbor-volume-glance-plugin";

/// The stream's name.
const STREAM: &str = "data";

/// By which way the bytes move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Transport {
    /// The volume is attached to this machine and read where it is.
    #[default]
    Attach,
    /// Cinder uploads it as an image, which is read from Glance.
    Image,
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Self::Attach => "attach",
            Self::Image => "image",
        }
    }
}

/// What a provider sets.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    transport: Transport,
    /// Where shares are mounted on this machine, if not where Cinder has them.
    mount_base: Option<PathBuf>,
    /// Where this machine has the configurations of Ceph.
    ceph_config: PathBuf,
    /// Whether a snapshot that is a file of a share is read there.
    in_place: bool,
    /// Who this machine is, for drivers that let in those only whom they know.
    host: String,
    ip: String,
    initiator: String,
    poll_interval: u32,
    wait_limit: u32,
}

impl Default for Settings {
    fn default() -> Self {
        let Patience { poll_interval, wait_limit } = Patience::default();
        Self {
            transport: Transport::default(),
            mount_base: None,
            ceph_config: PathBuf::from("/etc/ceph"),
            in_place: true,
            host: "karbor".to_owned(),
            ip: "127.0.0.1".to_owned(),
            initiator: "iqn.2026-11.org.openstack.karbor:karbor".to_owned(),
            poll_interval,
            wait_limit,
        }
    }
}

/// What one hook leaves for the next.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct State {
    snapshot: Option<String>,
    volume: Option<Definition>,
    taken_at: String,
}

/// What a provider sets for the old plugin. How it cut the bytes is read and means nothing.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct GlanceSettings {
    poll_interval: u32,
    wait_limit: u32,
    #[serde(rename = "backup_from_snapshot")]
    _from_snapshot: Option<bool>,
    #[serde(rename = "backup_image_object_size")]
    _object_size: Option<u64>,
}

impl Default for GlanceSettings {
    fn default() -> Self {
        let Patience { poll_interval, wait_limit } = Patience::default();
        Self { poll_interval, wait_limit, _from_snapshot: None, _object_size: None }
    }
}

/// Stores volumes in the bank.
#[derive(Debug)]
struct VolumeVault {
    name: &'static str,
    shared: Arc<Shared>,
    settings: Settings,
}

/// Makes the plugin.
pub(crate) fn make(shared: &Arc<Shared>, settings: &Map<String, Value>) -> Result<Arc<dyn Protection>> {
    let settings = frame::settings(NAME, settings)?;
    Ok(Arc::new(VolumeVault { name: NAME, shared: Arc::clone(shared), settings }))
}

/// Makes the plugin under the name and with the parameters of the old one that used Glance.
pub(crate) fn make_glance(
    shared: &Arc<Shared>,
    settings: &Map<String, Value>,
) -> Result<Arc<dyn Protection>> {
    let GlanceSettings { poll_interval, wait_limit, .. } = frame::settings(GLANCE_NAME, settings)?;
    let settings = Settings { transport: Transport::Image, poll_interval, wait_limit, ..Settings::default() };
    Ok(Arc::new(VolumeVault { name: GLANCE_NAME, shared: Arc::clone(shared), settings }))
}

#[async_trait]
impl Protection for VolumeVault {
    fn describe(&self) -> Description {
        use OperationKind as Op;
        let is_old = self.name == GLANCE_NAME;
        let default_name = match is_old {
            true => "The new volume's name; <checkpoint>@<volume> when left out.",
            false => "The new volume's name; the original's when left out.",
        };
        let unused = "Accepted for old clients.";
        let options = match is_old {
            true => json!({
                "backup_name": frame::text("Backup Name", unused),
                "description": frame::text("Description", unused),
            }),
            false => json!({}),
        };
        let deep = frame::flag("Deep", false, "Read every byte.");
        let schemas = Schemas {
            options: frame::schema("Volume Protection Options", options),
            restore: frame::schema("Volume Protection Restore", definition::restore_parameters(default_name)),
            verify: frame::schema("Volume Protection Verify", json!({"deep": deep})),
            saved_info: definition::saved_info("A protected volume", json!({})),
        };
        let hooks: &[(Op, &[Hook])] = &[
            (Op::Protect, Hook::ALL),
            (Op::Restore, &[Hook::Main, Hook::Complete]),
            (Op::Verify, &[Hook::Main]),
            // Everything that is stored lies in the bank.
            (Op::Copy, &[]),
            (Op::Delete, &[]),
        ];
        frame::describe(self.name, ResourceType::from(kinds::VOLUME), schemas, hooks)
    }

    async fn run(&self, hook: Hook, task: &Task) -> Result<Outcome> {
        task.check_cancelled()?;
        frame::require_kind(task, kinds::VOLUME)?;
        match (task.operation, hook) {
            (OperationKind::Protect, Hook::PrepareBegin) => self.begin(&self.work(task).await?).await,
            (OperationKind::Protect, Hook::PrepareFinish) => self.work(task).await?.taken().await,
            (OperationKind::Protect, Hook::Main) => self.store(&self.work(task).await?).await,
            (OperationKind::Protect, Hook::Complete) => {
                if !task.dry_run {
                    self.work(task).await?.remove_scaffolds().await?;
                }
                Ok(Outcome::default())
            }
            (OperationKind::Restore, Hook::Main) => self.restore(&self.work(task).await?).await,
            (OperationKind::Restore, Hook::Complete) => self.work(task).await?.publish().await,
            (OperationKind::Verify, Hook::Main) => verify(task).await,
            _ => Ok(Outcome::default()),
        }
    }

    async fn clean_up(&self, task: &Task, entry: &LedgerEntry) -> Result<()> {
        self.work(task).await?.clean_up(entry).await
    }
}

impl VolumeVault {
    async fn work<'a>(&self, task: &'a Task) -> Result<Work<'a>> {
        let session = self.shared.sessions.of(&task.context).await?;
        let Settings { poll_interval, wait_limit, .. } = self.settings;
        Work::new(task, session, Patience { poll_interval, wait_limit })
    }

    async fn begin(&self, work: &Work<'_>) -> Result<Outcome> {
        let volume = work.original().await?;
        if volume.encrypted {
            let text = format!(
                "volume {} is encrypted below the server, and its bytes cannot be read without that key; \
                 protect it with Cinder's backups (karbor-volume-protection-plugin)",
                volume.id
            );
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        if work.task.dry_run {
            return Ok(Outcome::default());
        }
        let mut findings = Vec::new();
        let group = volume.group_id.as_deref().filter(|group| !group.is_empty());
        let in_group = match group {
            Some(group) => work.snapshot_in_group(&self.shared.group_turn, group, &volume.id).await.map(Some),
            None => Ok(None),
        };
        let snapshot = match in_group {
            Ok(Some(snapshot)) => snapshot,
            Ok(None) => self.snapshot_alone(work, &volume.id).await?,
            Err(err) if is_final(err.kind()) => {
                work.without_group().await?;
                let text = format!("it was taken by itself and not with its group: {}", err.message());
                findings.push(frame::warning(volume.id.clone(), text));
                self.snapshot_alone(work, &volume.id).await?
            }
            Err(err) => return Err(err),
        };
        let volume = Definition::of(&volume, self.settings.transport.name());
        let state = json!({"snapshot": snapshot, "volume": volume});
        Ok(Outcome { state, findings, ..Outcome::default() })
    }

    async fn snapshot_alone(&self, work: &Work<'_>, volume: &str) -> Result<String> {
        let made = Made::scaffold(SNAPSHOT, "snapshot");
        let options = SnapshotOptions { force: true, is_scaffold: true, ..SnapshotOptions::default() };
        work.snapshot(&made, volume, options).await
    }

    async fn store(&self, work: &Work<'_>) -> Result<Outcome> {
        let task = work.task;
        if task.dry_run {
            return Ok(Outcome::default());
        }
        let State { snapshot: Some(snapshot), volume: Some(mut definition), taken_at } = frame::state(task)?
        else {
            let text = format!("no snapshot was taken of {}", task.resource.key);
            return Err(Error::new(ErrorKind::Other, text));
        };
        match self.in_place(&definition.id, &snapshot).await {
            Some(place) => {
                self.store_from(work, &place).await?;
                work.snapshot_stands(&snapshot).await?;
            }
            None => {
                let volume = work.volume_of_snapshot(&snapshot, definition.size_gib).await?;
                match self.settings.transport {
                    Transport::Attach => {
                        let place = self.attach(work, &volume, true).await?;
                        self.store_from(work, &place).await?;
                    }
                    Transport::Image => store_image(work, &volume).await?,
                }
            }
        }
        definition.taken_at = taken_at;
        task.writer()?.put_record(RECORD, json!(definition))?;
        Ok(Outcome::default())
    }

    /// Finds where a snapshot can be read without anything being made of it first.
    async fn in_place(&self, volume: &str, snapshot: &str) -> Option<Place> {
        if self.settings.transport != Transport::Attach || !self.settings.in_place {
            return None;
        }
        let base = self.settings.mount_base.as_deref().unwrap_or(Path::new(layers::MOUNT_BASE));
        layers::find(base, volume, snapshot).await
    }

    async fn store_from(&self, work: &Work<'_>, place: &Place) -> Result<()> {
        let task = work.task;
        let disk = self.open(work, place, true).await?;
        let source: Arc<dyn BlockSource> = disk.source()?;
        let options = BlockOptions {
            progress: Some(Arc::clone(&task.progress)),
            cancel: task.cancel.clone(),
            ..BlockOptions::default()
        };
        let stored = task.writer()?.put_blocks(STREAM, source, &options).await;
        stored?;
        disk.close().await
    }

    /// Attaches one of our volumes to this machine.
    async fn attach(&self, work: &Work<'_>, volume: &str, read_only: bool) -> Result<Place> {
        let Settings { host, ip, initiator, mount_base, ceph_config, .. } = &self.settings;
        let connector = json!({
            "host": host, "ip": ip, "initiator": initiator, "multipath": false, "platform": "x86_64",
            "os_type": "linux",
        });
        let attachment = work.attach(volume, &connector, read_only).await?;
        let machine = Machine { mount_base: mount_base.as_deref(), ceph_config, initiator };
        connection::parse(&attachment.connection_info, &machine)
    }

    async fn open(&self, work: &Work<'_>, place: &Place, read_only: bool) -> Result<Disk> {
        let name = format!("volume {}", work.task.resource.key.id);
        Disk::open(place, &self.shared.spool, name, read_only).await
    }

    async fn restore(&self, work: &Work<'_>) -> Result<Outcome> {
        let task = work.task;
        let definition: Definition = frame::record(task, RECORD)?;
        let wanted: Wanted = frame::parameters(task)?;
        let default_name = match self.name {
            GLANCE_NAME => format!("{}@{}", task.checkpoint, definition.id),
            _ => definition.name.clone(),
        };
        let mut new = definition.new_volume(&wanted, &default_name);
        if task.dry_run {
            let plan = vec![definition::plan(work, &new).await?];
            return Ok(Outcome { plan, ..Outcome::default() });
        }
        let stream = task.reader()?.open_stream(&task.resource.key, STREAM).await?;
        if stream.size_bytes() > new.size.saturating_mul(1 << 30) {
            let text =
                format!("{} has {} bytes and {} GiB", task.resource.key, stream.size_bytes(), new.size);
            return Err(Error::new(ErrorKind::Damaged, text));
        }
        let made = Made::product(VOLUME, "restored");
        let name = new.name.clone();
        let id = match self.settings.transport {
            Transport::Attach => {
                let id = work.volume(&made, new).await?;
                work.volume_made(&id).await?;
                self.write_attached(work, &id, &stream).await?;
                work.detach(&id).await?;
                id
            }
            Transport::Image => {
                let image = fill_image(work, &definition, stream).await?;
                new.image = Some(image.clone());
                let id = work.volume(&made, new).await?;
                work.volume_in(&id, &["available", "uploading"]).await?;
                read_back(work, &id, &image).await?;
                id
            }
        };
        definition.apply(work, &id).await?;
        let restored = Restored { key: ResourceKey::new(kinds::VOLUME, id.clone()), name };
        Ok(Outcome { state: json!({"restored": id}), restored: Some(restored), ..Outcome::default() })
    }

    async fn write_attached(&self, work: &Work<'_>, volume: &str, stream: &StreamReader) -> Result<()> {
        let task = work.task;
        let options = CopyOptions { progress: Some(Arc::clone(&task.progress)), cancel: task.cancel.clone() };
        let place = self.attach(work, volume, false).await?;
        let disk = self.open(work, &place, false).await?;
        let report = stream.copy_to(disk.target()?, &options).await?;
        if let Some(first) = report.damaged.first() {
            let text = format!(
                "the stored data is damaged in {} places, the first from byte {} to {}: {}",
                report.damaged.len(),
                first.range.start,
                first.range.end,
                first.reason
            );
            return Err(Error::new(ErrorKind::Damaged, text));
        }
        disk.close().await?;
        // Opened anew: what is read back is what whoever attaches the volume next will find.
        let place = self.attach(work, volume, false).await?;
        let disk = self.open(work, &place, false).await?;
        let options = CopyOptions { progress: None, cancel: task.cancel.clone() };
        let report = stream.compare(disk.source()?, &options).await?;
        if let Some(first) = report.different.first() {
            let text = format!(
                "volume {volume} does not read back as it was protected: {} ranges differ, the first from byte {} to \
                 {}; look after the storage that it was written to",
                report.different.len(),
                first.start,
                first.end
            );
            return Err(Error::new(ErrorKind::Damaged, text));
        }
        disk.close().await
    }
}

/// Returns whether Cinder takes no snapshot of the group, now or later.
const fn is_final(kind: ErrorKind) -> bool {
    use ErrorKind::{Conflict, Denied, Invalid, NoSpace, NotFound, Unsupported};
    matches!(kind, Conflict | Denied | Invalid | NoSpace | NotFound | Unsupported)
}

/// Has Cinder upload a volume, and stores the image's bytes.
async fn store_image(work: &Work<'_>, volume: &str) -> Result<()> {
    let glance = work.glance()?;
    let image = uploaded(work, &glance, volume, "upload").await?;
    images::store(work.task, &glance, &image, STREAM).await?;
    Ok(())
}

/// Has Cinder upload a volume as an image, once.
async fn uploaded(work: &Work<'_>, glance: &Glance, volume: &str, role: &'static str) -> Result<Image> {
    let made = Made::scaffold(images::IMAGE, role);
    let tag = made.tag(work.task);
    let make = async {
        let begun = work.cinder.upload_to_image(volume, &tag, false).await;
        begun.doing(|| format!("uploading volume {volume} as an image"))
    };
    let id = made.once(work.task, || images::find(glance, &tag), make).await?;
    images::active(work.task, glance, work.patience, &id).await
}

/// Has Cinder upload the new volume once more: Glance's digest of it must be that of the image it was made of.
async fn read_back(work: &Work<'_>, volume: &str, image: &str) -> Result<()> {
    let glance = work.glance()?;
    let sent = glance.image(image).await.doing(|| format!("looking at image {image}"))?;
    let back = uploaded(work, &glance, volume, "read-back").await?;
    work.volume_in(volume, &["available"]).await?;
    let digest = |image: &Image| (image.os_hash_algo.clone(), image.os_hash_value.clone());
    // A larger volume has zeros behind what was sent, and a digest that tells nothing of it.
    if back.size < sent.size || back.size == sent.size && digest(&sent) != digest(&back) {
        let text = format!(
            "volume {volume} does not read back as it was protected: its digest is not that of the image it was made \
             of; look after the storage that it was written to"
        );
        return Err(Error::new(ErrorKind::Damaged, text));
    }
    Ok(())
}

/// Makes the image from which Cinder makes the new volume.
async fn fill_image(work: &Work<'_>, definition: &Definition, stream: StreamReader) -> Result<String> {
    let (task, glance) = (work.task, work.glance()?);
    let made = Made::scaffold(images::IMAGE, "restore");
    let document = json!({
        "name": made.name(task), "disk_format": "raw", "container_format": "bare", "visibility": "private",
        "min_disk": definition.size_gib, SCAFFOLD_KEY: "true",
    });
    let Value::Object(document) = document else { unreachable!("an object was written") };
    images::filled(task, &glance, work.patience, &made, document, stream).await
}

async fn verify(task: &Task) -> Result<Outcome> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Parameters {
        deep: bool,
    }
    let wanted: Parameters = frame::parameters(task)?;
    let definition: Definition = frame::record(task, RECORD)?;
    let stream = task.reader()?.open_stream(&task.resource.key, STREAM).await?;
    let mut findings: Vec<Finding> = Vec::new();
    if stream.size_bytes() > definition.size_gib.saturating_mul(1 << 30) {
        let text =
            format!("it has {} bytes, and the volume had {} GiB", stream.size_bytes(), definition.size_gib);
        findings.push(frame::wrong(STREAM, text));
    }
    if wanted.deep {
        findings.extend(frame::read_all(task, STREAM).await?);
    }
    Ok(Outcome { findings, ..Outcome::default() })
}
