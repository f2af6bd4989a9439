//! Volumes: each plugin by the kit.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use karbor_openstack_client::cinder::{NewVolume, Volume};
use karbor_plugin::conformance::{self, Fixture};
use karbor_plugin::{Context, Protectable, Protection, Resource, ResourceKey, Restored};
use serde_json::{Map, Value, json};

use crate::world::World;

/// Where the known bytes are.
const AT: u64 = 700 << 20;

/// A volume of a project of its own, and the plugin that protects it.
struct Fixed {
    world: World,
    plugin: &'static str,
    settings: Map<String, Value>,
    stores_data: bool,
    volume: Mutex<Option<Volume>>,
}

/// Returns the known bytes: some that compress, some that do not.
fn bytes() -> Vec<u8> {
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(state >> 56).expect("eight bits")
    });
    noise.take(3 << 20).chain(std::iter::repeat_n(7, 1 << 20)).collect()
}

impl Fixed {
    async fn wait(&self, id: &str, wanted: &str) -> Volume {
        let wait = async {
            loop {
                let volume = self.world.cinder().volume(id).await.expect("the volume");
                assert!(!volume.status.contains("error"), "{volume:?}");
                if volume.status == wanted {
                    return volume;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(300), wait).await.expect("within minutes")
    }

    /// Makes the volume and writes the known bytes.
    async fn create(&self) -> Volume {
        let new = NewVolume {
            name: "data".to_owned(),
            description: Some("of a test".to_owned()),
            size: 1,
            metadata: BTreeMap::from([("purpose".to_owned(), "kit".to_owned())]),
            ..NewVolume::default()
        };
        let volume = self.world.cinder().create_volume(&new).await.expect("a volume");
        self.wait(&volume.id, "available").await;
        let path = self.place(&volume.id).await;
        let file = OpenOptions::new().write(true).open(path).expect("the volume's file");
        file.write_all_at(&bytes(), AT).expect("written");
        self.wait(&volume.id, "available").await
    }

    /// Returns the file of a volume that has no snapshots.
    async fn place(&self, id: &str) -> PathBuf {
        let cinder = self.world.cinder();
        let connector = json!({"host": "test", "ip": "127.0.0.1", "initiator": "iqn.test"});
        let attachment = cinder.create_attachment(id, &connector, false).await.expect("attached");
        cinder.delete_attachment(&attachment.id).await.expect("detached");
        let info = &attachment.connection_info;
        assert_eq!(info["format"], "raw");
        let export = info["export"].as_str().expect("an export");
        let digest =
            Command::new("sh").args(["-c", "printf %s \"$0\" | md5sum", export]).output().expect("md5sum");
        let digest = String::from_utf8(digest.stdout).expect("text")[..32].to_owned();
        let base = PathBuf::from(info["mount_point_base"].as_str().expect("a place"));
        base.join(digest).join(info["name"].as_str().expect("a name"))
    }

    /// Removes everything that the project has.
    async fn clear(&self) {
        let (cinder, glance) = (self.world.cinder(), self.world.glance());
        let gone = async {
            loop {
                let images =
                    glance.images(&[("owner", &self.world.own.project)]).all().await.expect("images");
                for image in &images {
                    let _ = glance.delete_image(&image.id).await;
                }
                let backups = cinder.backups(&[]).all().await.expect("backups");
                for backup in backups.iter().filter(|backup| !backup.has_dependent_backups) {
                    let _ = cinder.delete_backup(&backup.id).await;
                }
                let volumes = cinder.volumes(&[]).all().await.expect("volumes");
                for volume in &volumes {
                    for attachment in cinder.attachments_of(&volume.id).await.unwrap_or_default() {
                        let _ = cinder.delete_attachment(&attachment.id).await;
                    }
                }
                let snapshots = cinder.snapshots(&[]).all().await.expect("snapshots");
                for snapshot in &snapshots {
                    let _ = cinder.delete_snapshot(&snapshot.id).await;
                }
                for volume in &volumes {
                    let _ = cinder.delete_volume(&volume.id).await;
                }
                if volumes.is_empty() && snapshots.is_empty() && images.is_empty() && backups.is_empty() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(600), gone).await.expect("within minutes");
    }

    fn volume(&self) -> Volume {
        self.volume.lock().expect("no panic").clone().expect("it was reset")
    }
}

#[async_trait]
impl Fixture for Fixed {
    fn protection(&self) -> Arc<dyn Protection> {
        self.world.openstack().protection(self.plugin, &self.settings).expect("the plugin")
    }

    fn protectables(&self) -> Vec<Arc<dyn Protectable>> {
        let all = self.world.openstack().protectables();
        all.into_iter().filter(|one| one.kind().as_str() == "OS::Cinder::Volume").collect()
    }

    fn context(&self) -> Context {
        self.world.context()
    }

    fn stranger(&self) -> Context {
        self.world.stranger()
    }

    fn resource(&self) -> Resource {
        let volume = self.volume();
        Resource {
            key: ResourceKey::new("OS::Cinder::Volume", volume.id),
            name: volume.name,
            extra_info: json!({"availability_zone": volume.availability_zone}),
        }
    }

    fn restore_parameters(&self) -> Map<String, Value> {
        Map::from_iter([("restore_name".to_owned(), json!("data"))])
    }

    fn verify_parameters(&self) -> Map<String, Value> {
        if self.stores_data { Map::from_iter([("deep".to_owned(), json!(true))]) } else { Map::new() }
    }

    fn stores_data(&self) -> bool {
        self.stores_data
    }

    async fn reset(&self) {
        let volumes = self.world.cinder().volumes(&[]).all().await.expect("volumes");
        let snapshots = self.world.cinder().snapshots(&[]).all().await.expect("snapshots");
        let known = self.volume.lock().expect("no panic").clone();
        // Nothing changes the original itself.
        if let ([only], [], Some(known)) = (volumes.as_slice(), snapshots.as_slice(), known)
            && only.id == known.id
            && only.status == "available"
            && only.attachments.is_empty()
        {
            return;
        }
        self.clear().await;
        let volume = self.create().await;
        *self.volume.lock().expect("no panic") = Some(volume);
    }

    async fn lose(&self) {
        let id = self.volume().id;
        // A volume with snapshots cannot be lost.
        if self.plugin != "karbor-volume-snapshot-plugin" {
            self.world.cinder().delete_volume(&id).await.expect("removed");
            let gone = async {
                while self.world.cinder().volume(&id).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(300), gone).await.expect("within minutes");
        }
    }

    async fn check(&self, restored: &Restored) -> Result<(), String> {
        let (original, volume) = (self.volume(), self.wait(&restored.key.id, "available").await);
        let same = |volume: &Volume| {
            let Volume {
                name, description, size, volume_type, availability_zone, bootable, metadata, ..
            } = volume.clone();
            (name, description, size, volume_type, availability_zone, bootable, metadata)
        };
        if same(&original) != same(&volume) {
            return Err(format!("{volume:?} is not {original:?}"));
        }
        let path = self.place(&volume.id).await;
        let read = std::fs::read(&path).map_err(|err| format!("{}: {err}", path.display()))?;
        let mut wanted = vec![0; 1 << 30];
        let (from, known) = (usize::try_from(AT).expect("small"), bytes());
        wanted[from..from + known.len()].copy_from_slice(&known);
        if read == wanted { Ok(()) } else { Err("the bytes are not the original's".to_owned()) }
    }

    async fn fingerprint(&self) -> String {
        let (cinder, glance) = (self.world.cinder(), self.world.glance());
        let mut all: Vec<String> = Vec::new();
        for volume in cinder.volumes(&[]).all().await.expect("volumes") {
            all.push(format!("volume {} {} {} {:?}", volume.id, volume.name, volume.status, volume.metadata));
        }
        // What a plugin keeps in the cloud for good is what it is for.
        let is_kept = |metadata: &BTreeMap<String, String>| {
            !self.stores_data && !metadata.contains_key("karbor_scaffold")
        };
        let snapshots = cinder.snapshots(&[]).all().await.expect("snapshots");
        for snapshot in snapshots.iter().filter(|snapshot| !is_kept(&snapshot.metadata)) {
            all.push(format!("snapshot {} {}", snapshot.id, snapshot.status));
        }
        for image in glance.images(&[("owner", &self.world.own.project)]).all().await.expect("images") {
            all.push(format!("image {} {}", image.id, image.status));
        }
        let backups = cinder.backups(&[]).all().await.expect("backups");
        for backup in backups.iter().filter(|backup| !is_kept(&backup.metadata)) {
            all.push(format!("backup {} {}", backup.id, backup.status));
        }
        all.sort();
        all.join("\n")
    }
}

async fn keeps_the_contract(plugin: &'static str, settings: Value, stores_data: bool) {
    let world = World::open().await;
    let Value::Object(settings) = settings else { panic!("settings are an object") };
    let fixed = Fixed { world, plugin, settings, stores_data, volume: Mutex::default() };
    let kept = conformance::run(&fixed).await;
    fixed.clear().await;
    fixed.world.close().await;
    assert_eq!(kept, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_in_the_vault_keep_the_contract() {
    keeps_the_contract("karbor-volume-vault-plugin", json!({"poll_interval": 1}), true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_through_glance_keep_the_contract() {
    keeps_the_contract("karbor-volume-glance-plugin", json!({"poll_interval": 1}), true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_as_snapshots_keep_the_contract() {
    keeps_the_contract("karbor-volume-snapshot-plugin", json!({"poll_interval": 1}), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_as_backups_keep_the_contract() {
    keeps_the_contract("karbor-volume-protection-plugin", json!({"poll_interval": 1}), false).await;
}
