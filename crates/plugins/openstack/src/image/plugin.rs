//! `karbor-image-protection-plugin`: images, and what servers made of theirs, in the bank.
//!
//! Of an image everything is stored that its project may say of it: bytes, formats, properties, tags, with whom it is
//! shared, whether it is protected. Below a server, Nova takes a snapshot of the server's disk in the short phase,
//! whether the server runs or not, and that image is stored in place of the one that the server was booted from.

use std::sync::Arc;

use async_trait::async_trait;
use karbor_openstack_client::glance::{Glance, Image};
use karbor_openstack_client::{Service, ServiceType, Session};
use karbor_plugin::{
    Description, Error, ErrorKind, Hook, LedgerEntry, OperationKind, Outcome, PlannedEffect, Protection,
    Purpose, Resource, ResourceKey, ResourceType, Restored, Result, Schemas, Task,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::Doing;
use crate::image::places::Replaced;
use crate::image::saved::{Saved, document, finish, saved};
use crate::image::{parts, work};
use crate::made::{Made, SCAFFOLD_KEY, TAG_KEY};
use crate::poll::{Patience, Reached, reached};
use crate::{Shared, frame, kinds};

/// The plugin's name.
pub(crate) const NAME: &str = "karbor-image-protection-plugin";

/// The record's and the stream's name.
const RECORD: &str = "image";
const STREAM: &str = "data";

/// The version in which Nova answers with the id of a server's image.
const NOVA: &str = "2.45";
/// What a provider sets.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    poll_interval: u32,
    wait_limit: u32,
    /// Whether what servers made of their images is stored, rather than the images themselves.
    enable_server_snapshot: bool,
    /// An old setting: how the old Karbor cut the bytes. It is read and means nothing.
    #[serde(rename = "backup_image_object_size")]
    _object_size: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        let Patience { poll_interval, wait_limit } = Patience::default();
        Self { poll_interval, wait_limit, enable_server_snapshot: true, _object_size: None }
    }
}

/// What one hook leaves for the next.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct State {
    snapshot: Option<String>,
    restored: Option<String>,
}

/// Stores images in the bank.
#[derive(Debug)]
struct ImageProtection {
    shared: Arc<Shared>,
    settings: Settings,
}

/// Makes the plugin.
pub(crate) fn make(shared: &Arc<Shared>, settings: &Map<String, Value>) -> Result<Arc<dyn Protection>> {
    let settings = frame::settings(NAME, settings)?;
    Ok(Arc::new(ImageProtection { shared: Arc::clone(shared), settings }))
}

#[async_trait]
impl Protection for ImageProtection {
    fn describe(&self) -> Description {
        use OperationKind as Op;
        let unused = "Accepted for old clients; the image itself has a name.";
        let options = json!({"backup_name": frame::text("Backup Name", unused)});
        let restore = json!({
            "restore_name": frame::text("Restore Name", "The new image's name; the original's when left out."),
        });
        let deep = frame::flag("Deep", false, "Read every byte.");
        let saved = json!({
            "id": {"type": "string", "title": "Image ID"},
            "name": {"type": "string", "title": "Name"},
            "disk_format": {"type": ["string", "null"], "title": "Disk Format"},
            "container_format": {"type": ["string", "null"], "title": "Container Format"},
            "size_bytes": {"type": "integer", "title": "Size in bytes"},
            "visibility": {"type": "string", "title": "Visibility"},
            "tags": {"type": "array", "title": "Tags"},
            "properties": {"type": "object", "title": "Properties"},
            "server_id": {"type": ["string", "null"], "title": "Server ID"},
        });
        let schemas = Schemas {
            options: frame::schema("Image Protection Options", options),
            restore: frame::schema("Image Protection Restore", restore),
            verify: frame::schema("Image Protection Verify", json!({"deep": deep})),
            saved_info: frame::saved_info("Image Protection Saved Info", RECORD, saved),
        };
        let hooks: &[(Op, &[Hook])] = &[
            (Op::Protect, &[Hook::PrepareBegin, Hook::Main, Hook::Complete]),
            (Op::Restore, &[Hook::Main, Hook::Complete]),
            (Op::Verify, &[Hook::Main]),
            (Op::Copy, &[]),
            (Op::Delete, &[]),
        ];
        frame::describe(NAME, ResourceType::from(kinds::IMAGE), schemas, hooks)
    }

    async fn run(&self, hook: Hook, task: &Task) -> Result<Outcome> {
        task.check_cancelled()?;
        frame::require_kind(task, kinds::IMAGE)?;
        match (task.operation, hook) {
            (OperationKind::Protect, Hook::PrepareBegin) => self.begin(task).await,
            (OperationKind::Protect, Hook::Main) => self.store(task).await,
            (OperationKind::Protect, Hook::Complete) => {
                self.remove(task, Purpose::Scaffold).await?;
                Ok(Outcome::default())
            }
            (OperationKind::Restore, Hook::Main) => self.restore(task).await,
            (OperationKind::Restore, Hook::Complete) => self.publish(task).await,
            (OperationKind::Verify, Hook::Main) => verify(task).await,
            _ => Ok(Outcome::default()),
        }
    }

    async fn clean_up(&self, task: &Task, entry: &LedgerEntry) -> Result<()> {
        let (_, glance) = self.glance(task).await?;
        work::clean_up(task, &glance, self.patience(), entry).await
    }
}

/// Returns the server whose disk is meant. Old plans name the image, and the server beside it, also as a text.
fn server_of(resource: &Resource) -> Option<String> {
    if let (_, Some(server)) = parts(&resource.key.id) {
        return Some(server.to_owned());
    }
    let told = match &resource.extra_info {
        Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
        other => other.clone(),
    };
    told.get("server_id").and_then(Value::as_str).map(str::to_owned)
}

impl ImageProtection {
    fn patience(&self) -> Patience {
        let Settings { poll_interval, wait_limit, .. } = self.settings;
        Patience { poll_interval, wait_limit }
    }

    async fn glance(&self, task: &Task) -> Result<(Session, Glance)> {
        let session = self.shared.sessions.of(&task.context).await?;
        let glance = Glance::new(&session).doing(|| "looking for Glance".to_owned())?;
        Ok((session, glance))
    }

    /// Takes the image of a server.
    async fn begin(&self, task: &Task) -> Result<Outcome> {
        let (session, glance) = self.glance(task).await?;
        let server = server_of(&task.resource).filter(|_| self.settings.enable_server_snapshot);
        let Some(server) = server else {
            self.original(task, &glance).await?;
            return Ok(Outcome::default());
        };
        let nova = session.service(ServiceType::Compute).doing(|| "looking for Nova".to_owned())?;
        let nova = nova.at_microversion(NOVA);
        self.ready(task, &nova, &server).await?;
        if task.dry_run {
            return Ok(Outcome::default());
        }
        let made = Made::scaffold(work::IMAGE, "server");
        let tag = made.tag(task);
        let make = async {
            #[derive(Deserialize)]
            struct Answer {
                image_id: String,
            }
            let body = json!({"createImage": {
                "name": made.name(task), "metadata": {TAG_KEY: tag, SCAFFOLD_KEY: "true"}}});
            let path = Service::path(&["servers", &server, "action"]);
            let taken: std::result::Result<Answer, _> = nova.post(path, &body).await;
            Ok(taken.doing(|| format!("taking an image of server {server}"))?.image_id)
        };
        let snapshot = made.once(task, || work::find(&glance, &tag), make).await?;
        Ok(Outcome { state: json!({"snapshot": snapshot}), ..Outcome::default() })
    }

    /// Waits until an image can be taken of a server.
    async fn ready(&self, task: &Task, nova: &Service, server: &str) -> Result<()> {
        let what = format!("server {server} to be ready for an image of it");
        let ask = || async {
            let row = look_at(nova, server).await?;
            let on_the_way = ["BUILD", "HARD_REBOOT", "PASSWORD", "REBOOT", "REBUILD", "REVERT_RESIZE"];
            match reached(&row.status, &["ACTIVE", "SHUTOFF", "SUSPENDED", "PAUSED", "STOPPED"], &on_the_way)
            {
                Reached::Yes if row.task_state.is_none() => Ok(Some(())),
                Reached::Yes | Reached::NotYet => Ok(None),
                Reached::Never => {
                    let text = format!(
                        "server {server} is in the state {}, in which Nova takes no image of it",
                        row.status
                    );
                    Err(Error::new(ErrorKind::Conflict, text))
                }
            }
        };
        self.patience().wait(task, &what, ask).await
    }

    /// Returns the image itself.
    async fn original(&self, task: &Task, glance: &Glance) -> Result<Image> {
        let (id, _) = parts(&task.resource.key.id);
        match glance.image(id).await {
            Err(err) if err.is_not_found() => {
                Err(Error::new(ErrorKind::NotFound, format!("there is no image {id} that you can use")))
            }
            image => image.doing(|| format!("looking at image {id}")),
        }
    }

    async fn store(&self, task: &Task) -> Result<Outcome> {
        if task.dry_run {
            return Ok(Outcome::default());
        }
        let (session, glance) = self.glance(task).await?;
        let state: State = frame::state(task)?;
        let (mut findings, mut server) = (Vec::new(), None);
        let taken = match state.snapshot {
            None => None,
            Some(snapshot) => {
                server = server_of(&task.resource);
                let taken = self.taken(task, &session, &glance, &snapshot, server.as_deref()).await?;
                if taken.is_none() {
                    findings.push(frame::warning(
                        server.take().unwrap_or_default(),
                        "the hypervisor of this server takes no images: what is stored is the image that the server was \
                         booted from, without what was written to its disk since",
                    ));
                }
                taken
            }
        };
        let image = match taken {
            Some(image) => image,
            None => {
                let Image { id, status, .. } = self.original(task, &glance).await?;
                if status == "queued" {
                    let text =
                        format!("image {id} has no bytes yet, and nobody knows whether it will have some");
                    return Err(Error::new(ErrorKind::Conflict, text));
                }
                work::active(task, &glance, self.patience(), &id).await?
            }
        };
        let size_bytes = work::store(task, &glance, &image, STREAM).await?;
        let members = if image.visibility == "shared" && server.is_none() {
            glance
                .members(&image.id)
                .await
                .doing(|| format!("looking with whom image {} is shared", image.id))
        } else {
            Ok(Vec::new())
        };
        // Only its owner is told; for the others there is nothing to share.
        let members = match members {
            Err(err) if matches!(err.kind(), ErrorKind::NotFound | ErrorKind::Denied) => Vec::new(),
            members => members?,
        };
        let name = if server.is_some() {
            task.resource.name.clone()
        } else {
            image.name.clone().unwrap_or_default()
        };
        let saved = saved(&image, name, size_bytes, members, server);
        task.writer()?.put_record(RECORD, json!(saved))?;
        Ok(Outcome { findings, ..Outcome::default() })
    }

    /// Waits for the image of a server; nothing if the hypervisor makes none.
    async fn taken(
        &self,
        task: &Task,
        session: &Session,
        glance: &Glance,
        snapshot: &str,
        server: Option<&str>,
    ) -> Result<Option<Image>> {
        let nova = session.service(ServiceType::Compute).doing(|| "looking for Nova".to_owned())?;
        let (nova, server) = (nova.at_microversion(NOVA), server.unwrap_or_default());
        let idle = std::sync::atomic::AtomicU32::new(0);
        let ask = || async {
            let image = glance.image(snapshot).await.doing(|| format!("looking at image {snapshot}"))?;
            if image.status == "active" {
                return Ok(Some(Some(image)));
            }
            if image.status == "queued" {
                // Nova is done with the server, and nobody has begun to write the image.
                let is_idle = match look_at(&nova, server).await {
                    Ok(row) => row.task_state.is_none(),
                    Err(err) if err.kind() == ErrorKind::NotFound => true,
                    Err(err) => return Err(err),
                };
                let seen = idle.fetch_add(u32::from(is_idle), std::sync::atomic::Ordering::Relaxed);
                return Ok((is_idle && seen >= IDLE_LOOKS).then_some(None));
            }
            match reached(&image.status, &[], &["saving", "uploading", "importing"]) {
                Reached::NotYet => Ok(None),
                _ => {
                    let text = format!(
                        "the image of server {server} came to the state `{}`; see the log of Nova",
                        image.status
                    );
                    Err(Error::new(ErrorKind::Other, text))
                }
            }
        };
        self.patience().wait(task, &format!("the image of server {server}"), ask).await
    }

    /// Removes everything that this operation made for a purpose, newest first.
    async fn remove(&self, task: &Task, purpose: Purpose) -> Result<()> {
        for entry in task.ledger.entries().await?.into_iter().rev() {
            if entry.is_open() && entry.purpose == purpose {
                self.clean_up(task, &entry).await?;
                task.ledger.removed(entry.id).await?;
            }
        }
        Ok(())
    }

    async fn restore(&self, task: &Task) -> Result<Outcome> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Wanted {
            restore_name: Option<String>,
        }
        let saved: Saved = frame::record(task, RECORD)?;
        let wanted: Wanted = frame::parameters(task)?;
        let name = frame::given(wanted.restore_name.as_deref()).unwrap_or(&saved.name).to_owned();
        if task.dry_run {
            let details = json!({
                "size_bytes": saved.size_bytes, "disk_format": saved.disk_format, "visibility": saved.visibility});
            let key = ResourceKey::new(kinds::IMAGE, saved.id.clone());
            let is_shared = key != task.resource.key && task.reader()?.resources().any(|other| *other == key);
            let effect = if is_shared { PlannedEffect::Reuse } else { PlannedEffect::Create };
            let plan = frame::planned(effect, format!("image `{name}`"), details, None);
            return Ok(Outcome { plan: vec![plan], ..Outcome::default() });
        }
        let (_, glance) = self.glance(task).await?;
        let made = Made::product(work::IMAGE, "restored");
        let document = document(&saved, &name);
        if saved.server_id.is_some() {
            let stream = task.reader()?.open_stream(&task.resource.key, STREAM).await?;
            let id = work::filled(task, &glance, self.patience(), &made, document, stream).await?;
            return finished(&glance, &saved, id, name).await;
        }
        // Whoever was booted from this image shall have one and the same again.
        let place = self.shared.restored_images.of(&format!("{}/{}", task.operation_id, saved.id));
        let mut known = place.lock().await;
        let own = &task.resource.key.id;
        let others = known.as_ref().filter(|made| made.by != *own).map(|made| made.image.clone());
        let mut id = others.or_else(|| restored_already(task, &saved.id));
        if id.is_none() && parts(own).1.is_some() {
            id = there_still(&glance, &saved).await?;
        }
        let outcome = match id {
            Some(id) => {
                // What an earlier run of ours made of it is not needed.
                self.remove(task, Purpose::Product).await?;
                used(id, name)
            }
            None => {
                let stream = task.reader()?.open_stream(&task.resource.key, STREAM).await?;
                let id = work::filled(task, &glance, self.patience(), &made, document, stream).await?;
                *known = Some(Replaced { image: id.clone(), by: own.clone() });
                finished(&glance, &saved, id, name).await?
            }
        };
        Ok(outcome)
    }

    /// Takes our tag away: from now on the image is as the original was.
    async fn publish(&self, task: &Task) -> Result<Outcome> {
        if task.dry_run {
            return Ok(Outcome::default());
        }
        let state: State = frame::state(task)?;
        if let Some(id) = state.restored {
            let (_, glance) = self.glance(task).await?;
            let doing = || format!("finishing image {id}");
            if glance.image(&id).await.doing(doing)?.others.contains_key(TAG_KEY) {
                glance.remove_property(&id, TAG_KEY).await.doing(doing)?;
            }
        }
        Ok(Outcome::default())
    }
}

/// Returns the image that another resource of this operation was restored as, if it means the same image.
fn restored_already(task: &Task, image: &str) -> Option<String> {
    let reader = task.reader().ok()?;
    let is_same = |key: &ResourceKey| {
        let record = reader.record(key, RECORD);
        key.kind.as_str() == kinds::IMAGE
            && *key != task.resource.key
            && record.is_some_and(|record| record["id"] == image && record["server_id"].is_null())
    };
    task.restored.iter().find(|(old, _)| is_same(old)).map(|(_, new)| new.id.clone())
}

/// Returns the image that a server was booted from, if it is still what it was.
async fn there_still(glance: &Glance, saved: &Saved) -> Result<Option<String>> {
    match glance.image(&saved.id).await {
        Err(err) if err.is_not_found() => Ok(None),
        image => {
            let image = image.doing(|| format!("looking at image {}", saved.id))?;
            let is_same =
                image.status == "active" && saved.digest.is_some() && image.os_hash_value == saved.digest;
            Ok(is_same.then_some(image.id))
        }
    }
}

/// Returns the outcome for an image that is there already: it is somebody else's to finish.
fn used(id: String, name: String) -> Outcome {
    let restored = Restored { key: ResourceKey::new(kinds::IMAGE, id), name };
    Outcome { restored: Some(restored), ..Outcome::default() }
}

/// Finishes an image of ours and returns its outcome.
async fn finished(glance: &Glance, saved: &Saved, id: String, name: String) -> Result<Outcome> {
    let findings = finish(glance, saved, &id).await?;
    Ok(Outcome { state: json!({"restored": id.clone()}), findings, ..used(id, name) })
}

/// How often a server is seen idle before its image is taken for one that never comes.
const IDLE_LOOKS: u32 = 6;

/// What is looked at of a server.
#[derive(Deserialize)]
struct Row {
    status: String,
    #[serde(default, rename = "OS-EXT-STS:task_state")]
    task_state: Option<String>,
}

async fn look_at(nova: &Service, server: &str) -> Result<Row> {
    #[derive(Deserialize)]
    struct Answer {
        server: Row,
    }
    let answer: std::result::Result<Answer, _> = nova.get(Service::path(&["servers", server])).await;
    Ok(answer.doing(|| format!("looking at server {server}"))?.server)
}

async fn verify(task: &Task) -> Result<Outcome> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Parameters {
        deep: bool,
    }
    let wanted: Parameters = frame::parameters(task)?;
    let saved: Saved = frame::record(task, RECORD)?;
    let stream = task.reader()?.open_stream(&task.resource.key, STREAM).await?;
    let mut findings = Vec::new();
    if stream.size_bytes() != saved.size_bytes {
        let text = format!("it has {} bytes, and the image had {}", stream.size_bytes(), saved.size_bytes);
        findings.push(frame::wrong(STREAM, text));
    }
    if wanted.deep {
        findings.extend(frame::read_all(task, STREAM).await?);
    }
    Ok(Outcome { findings, ..Outcome::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(id: &str, extra_info: Value) -> Resource {
        Resource { key: ResourceKey::new(kinds::IMAGE, id), name: "base".to_owned(), extra_info }
    }

    #[test]
    fn the_server_is_found_as_old_and_new_graphs_name_it() {
        for (id, extra_info, wanted) in [
            ("i@s", Value::Null, Some("s")),
            ("i", json!({"server_id": "s"}), Some("s")),
            ("i", json!("{\"server_id\": \"s\"}"), Some("s")),
            ("i", json!("no JSON"), None),
            ("i", Value::Null, None),
        ] {
            assert_eq!(server_of(&resource(id, extra_info)).as_deref(), wanted, "{id}");
        }
    }

    #[test]
    fn what_nova_says_of_the_server_is_not_kept() {
        let image: Image = serde_json::from_value(json!({
            "id": "i", "name": "n", "status": "active", "disk_format": "qcow2", "container_format": "bare",
            "visibility": "private", "protected": true, "tags": ["a"], "instance_uuid": "s", "hw_disk_bus": "scsi",
            TAG_KEY: "t", SCAFFOLD_KEY: "true"}))
        .expect("an image");
        let of_server = saved(&image, "base".to_owned(), 5, Vec::new(), Some("s".to_owned()));
        assert_eq!(Value::Object(of_server.properties.clone()), json!({"hw_disk_bus": "scsi"}));
        assert!(!of_server.protected);
        let own = saved(&image, "n".to_owned(), 5, Vec::new(), None);
        assert_eq!(own.properties["instance_uuid"], "s");
        let made = document(&own, "other");
        assert_eq!((made["name"].as_str(), made["visibility"].as_str()), (Some("other"), Some("private")));
        assert!(!made.contains_key(TAG_KEY));
    }
}
