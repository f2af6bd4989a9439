//! A share: the plugin by the kit. The snapshot stays where the share was, so the share is not lost before it is
//! restored: Manila keeps no snapshot of a share that is gone.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use karbor_openstack_client::manila::{AccessRule, Manila, Share};
use karbor_plugin::conformance::{self, Fixture};
use karbor_plugin::{Context, Protectable, Protection, Resource, ResourceKey, Restored};
use serde_json::{Map, Value, json};

use crate::world::World;

const KIND: &str = "OS::Manila::Share";

/// A share of a project of its own, and the plugin that protects it.
struct Fixed {
    world: World,
    manila: Manila,
    share: Mutex<Option<Share>>,
}

impl Fixed {
    async fn open() -> Self {
        let world = World::open().await;
        let manila = Manila::new(&world.session).expect("Manila");
        Self { world, manila, share: Mutex::default() }
    }

    fn share(&self) -> Share {
        self.share.lock().expect("nobody panicked").clone().expect("it was made")
    }

    async fn wait(&self, id: &str) -> Share {
        let wait = async {
            loop {
                let share = self.manila.share(id).await.expect("the share");
                assert!(!share.status.contains("error"), "{share:?}");
                if share.status == "available" {
                    return share;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(300), wait).await.expect("within minutes")
    }

    async fn create(&self) {
        let body = json!({
            "name": "files", "description": "of a test", "size": 1, "share_proto": "NFS",
            "share_type": "default", "metadata": {"purpose": "kit"},
        });
        let id = self.manila.create_share(&body).await.expect("a share");
        self.wait(&id).await;
        for (to, level) in [("10.0.0.0/24", "rw"), ("10.1.0.7", "ro")] {
            let rule = AccessRule {
                access_type: "ip".to_owned(),
                access_to: to.to_owned(),
                access_level: level.to_owned(),
                ..AccessRule::default()
            };
            self.manila.allow(&id, &rule).await.expect("allowed");
        }
        *self.share.lock().expect("nobody panicked") = Some(self.wait(&id).await);
    }

    /// Removes what was restored; with `all` also the share itself and the snapshots that checkpoints live in.
    async fn clear(&self, all: bool) {
        let kept = self
            .share
            .lock()
            .expect("nobody panicked")
            .as_ref()
            .map(|share| share.id.clone())
            .filter(|_| !all);
        let gone = async {
            loop {
                let shares = self.manila.shares(&[]).all().await.expect("shares");
                let snapshots = self.manila.snapshots(&[]).all().await.expect("snapshots");
                let other: Vec<&Share> =
                    shares.iter().filter(|share| Some(&share.id) != kept.as_ref()).collect();
                if other.is_empty() && (snapshots.is_empty() || !all) {
                    return;
                }
                for snapshot in snapshots.iter().filter(|_| all) {
                    let _ = self.manila.delete_snapshot(&snapshot.id).await;
                }
                for share in other {
                    let _ = self.manila.delete_share(&share.id).await;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(300), gone).await.expect("within minutes");
    }

    async fn rules(&self, id: &str) -> Vec<(String, String, String)> {
        let rules = self.manila.access_rules(id).await.expect("rules");
        let mut rules: Vec<_> =
            rules.into_iter().map(|rule| (rule.access_type, rule.access_to, rule.access_level)).collect();
        rules.sort();
        rules
    }
}

#[async_trait]
impl Fixture for Fixed {
    fn protection(&self) -> Arc<dyn Protection> {
        let settings = json!({"poll_interval": 1, "wait_limit": 300}).as_object().cloned().expect("one");
        self.world.openstack().protection("karbor-share-protection-plugin", &settings).expect("the plugin")
    }

    fn protectables(&self) -> Vec<Arc<dyn Protectable>> {
        let mut all = self.world.openstack().protectables();
        all.retain(|protectable| protectable.kind().as_str() == KIND);
        all
    }

    fn context(&self) -> Context {
        self.world.context()
    }

    fn stranger(&self) -> Context {
        self.world.stranger()
    }

    fn resource(&self) -> Resource {
        let key = ResourceKey::new(KIND, self.share().id);
        Resource { key, name: "files".to_owned(), extra_info: Value::Null }
    }

    fn restore_parameters(&self) -> Map<String, Value> {
        Map::new()
    }

    fn stores_data(&self) -> bool {
        false
    }

    async fn reset(&self) {
        if self.share.lock().expect("nobody panicked").is_none() {
            self.create().await;
        }
        self.clear(false).await;
    }

    async fn lose(&self) {}

    async fn check(&self, restored: &Restored) -> Result<(), String> {
        let (was, now) = (self.share(), self.manila.share(&restored.key.id).await.expect("the share"));
        let of = |share: &Share| {
            let Share { name, description, size, share_proto, share_type, metadata, status, .. } =
                share.clone();
            json!([name, description, size, share_proto, share_type, metadata, status])
        };
        if of(&was) != of(&now) || was.id == now.id {
            return Err(format!("it was {was:?}, and is {now:?}"));
        }
        let (was, now) = (self.rules(&was.id).await, self.rules(&now.id).await);
        if was == now { Ok(()) } else { Err(format!("the rules were {was:?}, and are {now:?}")) }
    }

    async fn fingerprint(&self) -> String {
        // The snapshot is what the checkpoint lives in.
        let shares = self.manila.shares(&[]).all().await.expect("shares");
        let mut ids: Vec<&str> = shares.iter().map(|share| share.id.as_str()).collect();
        ids.sort_unstable();
        ids.join(",")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_keeps_the_contract() {
    let fixture = Fixed::open().await;
    let tried = conformance::run(&fixture).await;
    fixture.clear(true).await;
    if let Err(failure) = tried {
        panic!("{failure}");
    }
    fixture.world.close().await;
}
