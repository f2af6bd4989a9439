//! Images by the kit.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use karbor_openstack_client::Upload;
use karbor_openstack_client::glance::Image;
use karbor_plugin::conformance::{self, Fixture};
use karbor_plugin::{Context, Protectable, Protection, Resource, ResourceKey, Restored};
use serde_json::{Map, Value, json};

use crate::world::World;

/// An image of a project of its own.
struct Fixed {
    world: World,
    image: Mutex<Option<Image>>,
}

/// Returns the known bytes.
fn bytes() -> Bytes {
    (0..6_u32 << 18).flat_map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()).collect()
}

impl Fixed {
    async fn images(&self) -> Vec<Image> {
        let glance = self.world.glance();
        glance.images(&[("owner", &self.world.own.project)]).all().await.expect("images")
    }

    async fn create(&self) -> Image {
        let glance = self.world.glance();
        let document = json!({
            "name": "base", "disk_format": "raw", "container_format": "bare", "min_disk": 1, "min_ram": 64,
            "tags": ["one", "two"], "visibility": "shared", "hw_disk_bus": "scsi"});
        let Value::Object(document) = document else { panic!("an object was written") };
        let image = glance.create_image(&document).await.expect("an image");
        let bytes = futures::stream::iter([Ok(bytes())]);
        glance.upload(&image.id, Upload::new(bytes)).await.expect("uploaded");
        let stranger = self.world.stranger().project.as_str().to_owned();
        glance.add_member(&image.id, &stranger).await.expect("shared");
        let protected = Map::from_iter([("protected".to_owned(), json!(true))]);
        glance.set(&image.id, &protected).await.expect("protected")
    }

    async fn remove(&self, image: &Image) {
        let glance = self.world.glance();
        if image.protected {
            let open = Map::from_iter([("protected".to_owned(), json!(false))]);
            glance.set(&image.id, &open).await.expect("open");
        }
        let gone = async {
            while glance.delete_image(&image.id).await.ok() != Some(false) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), gone).await.expect("within minutes");
    }

    fn image(&self) -> Image {
        self.image.lock().expect("no panic").clone().expect("it was reset")
    }
}

#[async_trait]
impl Fixture for Fixed {
    fn protection(&self) -> Arc<dyn Protection> {
        let settings = Map::from_iter([("poll_interval".to_owned(), json!(1))]);
        let plugin = self.world.openstack().protection("karbor-image-protection-plugin", &settings);
        plugin.expect("the plugin")
    }

    fn protectables(&self) -> Vec<Arc<dyn Protectable>> {
        let all = self.world.openstack().protectables();
        all.into_iter().filter(|one| one.kind().as_str() == "OS::Glance::Image").collect()
    }

    fn context(&self) -> Context {
        self.world.context()
    }

    fn stranger(&self) -> Context {
        self.world.nobody()
    }

    fn resource(&self) -> Resource {
        let image = self.image();
        let name = image.name.unwrap_or_default();
        Resource { key: ResourceKey::new("OS::Glance::Image", image.id), name, extra_info: Value::Null }
    }

    fn restore_parameters(&self) -> Map<String, Value> {
        Map::new()
    }

    fn verify_parameters(&self) -> Map<String, Value> {
        Map::from_iter([("deep".to_owned(), json!(true))])
    }

    async fn reset(&self) {
        let known = self.image.lock().expect("no panic").clone();
        let images = self.images().await;
        if let ([only], Some(known)) = (images.as_slice(), known)
            && only.id == known.id
        {
            return;
        }
        for image in &images {
            self.remove(image).await;
        }
        let image = self.create().await;
        *self.image.lock().expect("no panic") = Some(image);
    }

    async fn lose(&self) {
        self.remove(&self.image()).await;
    }

    async fn check(&self, restored: &Restored) -> Result<(), String> {
        let (original, glance) = (self.image(), self.world.glance());
        let image = glance.image(&restored.key.id).await.map_err(|err| err.to_string())?;
        let same = |image: &Image| {
            let Image { name, disk_format, container_format, size, min_disk, min_ram, visibility, .. } =
                image.clone();
            let mut tags = image.tags.clone();
            tags.sort();
            let what = (name, disk_format, container_format, size, min_disk, min_ram, visibility);
            (what, image.protected, tags, image.properties(), image.os_hash_value.clone())
        };
        if same(&original) != same(&image) {
            return Err(format!("{image:?} is not {original:?}"));
        }
        let members = glance.members(&image.id).await.map_err(|err| err.to_string())?;
        if members != [self.world.stranger().project.as_str()] {
            return Err(format!("it is shared with {members:?}"));
        }
        let download = glance.download(&image.id).await.map_err(|err| err.to_string())?;
        let read: Vec<Bytes> = download.try_collect().await.map_err(|err| err.to_string())?;
        if read.concat() == bytes() { Ok(()) } else { Err("the bytes are not the original's".to_owned()) }
    }

    async fn fingerprint(&self) -> String {
        let images = self.images().await;
        let line = |image: &Image| {
            format!("{} {} {:?}", image.id, image.status, image.others.get("karbor_operation"))
        };
        let mut all: Vec<String> = images.iter().map(line).collect();
        all.sort();
        all.join("\n")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_in_the_vault_keep_the_contract() {
    let world = World::open().await;
    let fixed = Fixed { world, image: Mutex::default() };
    let kept = conformance::run(&fixed).await;
    for image in fixed.images().await {
        fixed.remove(&image).await;
    }
    fixed.world.close().await;
    assert_eq!(kept, Ok(()));
}
