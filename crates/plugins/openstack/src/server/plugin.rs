//! The protection plugin of servers.
//!
//! What is stored is what the server is; the bytes are those of its volumes and of its image, which stand below it in
//! the graph. All their snapshots are taken between this plugin's `prepare_begin` and `prepare_finish`. With the option
//! `quiesce` the server is paused for that long, so that they are of one moment, whatever it writes.

use std::sync::Arc;

use async_trait::async_trait;
use karbor_openstack_client::nova::Nova;
use karbor_plugin::{
    Description, Error, ErrorKind, Hook, Intent, LedgerEntry, LedgerState, OperationKind, Outcome,
    Protection, Purpose, ResourceType, Result, Schemas, Task,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use crate::error::Doing;
use crate::network::Live;
use crate::poll::{Patience, Reached, reached};
use crate::server::capture::capture;
use crate::server::record::ServerRecord;
use crate::server::restore::{self, KEY_PAIR, Restoring, SERVER, SERVER_GROUP};
use crate::{Shared, frame, kinds, made};

/// The plugin's name.
pub(crate) const NAME: &str = "karbor-server-protection-plugin";
/// The name of its record.
const RECORD: &str = "server";
/// How the ledger knows a server that is held still.
const PAUSED: &str = "paused_server";

/// Protects servers.
#[derive(Debug)]
struct ServerProtection {
    shared: Arc<Shared>,
    patience: Patience,
    /// Held while something is made that several servers share.
    sharing: Mutex<()>,
}

/// Makes the plugin.
pub(crate) fn make(shared: &Arc<Shared>, settings: &Map<String, Value>) -> Result<Arc<dyn Protection>> {
    let patience = frame::settings(NAME, settings)?;
    Ok(Arc::new(ServerProtection { shared: Arc::clone(shared), patience, sharing: Mutex::default() }))
}

/// What protect is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Options {
    quiesce: Quiesce,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Quiesce {
    #[default]
    None,
    Pause,
}

impl ServerProtection {
    async fn nova(&self, task: &Task) -> Result<Nova> {
        let session = self.shared.sessions.of(&task.context).await?;
        Nova::new(&session).doing(|| "looking for Nova".to_owned())
    }

    /// Holds the server still, if that was asked for.
    async fn hold(&self, task: &Task) -> Result<Outcome> {
        let options: Options = frame::parameters(task)?;
        if options.quiesce == Quiesce::None || task.dry_run {
            return Ok(Outcome::default());
        }
        let (nova, id) = (self.nova(task).await?, task.resource.key.id.as_str());
        let doing = || format!("pausing server {id}");
        let status = nova.server(id).await.doing(doing)?.status;
        let held = held(task).await?;
        if status != "ACTIVE" && held.is_none() {
            return Ok(Outcome::default());
        }
        let intent = Intent {
            kind: PAUSED.to_owned(),
            reference: id.to_owned(),
            purpose: Purpose::Scaffold,
            data: Value::Null,
        };
        let entry = task.ledger.intend(intent).await?;
        if status == "ACTIVE" {
            nova.act(id, &json!({"pause": null})).await.doing(doing)?;
        }
        self.wait_for(&nova, task, "PAUSED", "ACTIVE").await?;
        task.ledger.created(entry, id).await?;
        Ok(Outcome::default())
    }

    /// Lets the server go on, if it was held.
    async fn let_go(&self, task: &Task) -> Result<()> {
        let Some(entry) = held(task).await? else { return Ok(()) };
        self.go_on(task, &entry.reference).await?;
        task.ledger.removed(entry.id).await
    }

    async fn go_on(&self, task: &Task, id: &str) -> Result<()> {
        let nova = self.nova(task).await?;
        let doing = || format!("letting server {id} go on");
        match nova.server(id).await {
            Err(err) if err.is_not_found() => return Ok(()),
            Ok(server) if server.status != "PAUSED" => return Ok(()),
            shown => shown.doing(doing)?,
        };
        nova.act(id, &json!({"unpause": null})).await.doing(doing)?;
        self.wait_for(&nova, task, "ACTIVE", "PAUSED").await
    }

    async fn wait_for(&self, nova: &Nova, task: &Task, wanted: &str, now: &str) -> Result<()> {
        let id = task.resource.key.id.as_str();
        let ask = || async {
            let status = nova.server(id).await.doing(|| format!("looking at server {id}"))?.status;
            match reached(&status, &[wanted], &[now]) {
                Reached::Yes => Ok(Some(())),
                Reached::NotYet => Ok(None),
                Reached::Never => Err(Error::new(ErrorKind::Changed, format!("server {id} became {status}"))),
            }
        };
        self.patience.wait(task, &format!("server {id} to become {wanted}"), ask).await
    }

    async fn protect(&self, task: &Task) -> Result<Outcome> {
        let session = self.shared.sessions.of(&task.context).await?;
        let record = capture(&session, &task.resource.key.id).await?;
        task.check_cancelled()?;
        let mut findings = Vec::new();
        if record.status == "ERROR" {
            let text = "it was in error when it was protected; restored, it will be at work";
            findings.push(frame::warning(record.name.clone(), text));
        }
        task.writer()?.put_record(RECORD, json!(record))?;
        Ok(Outcome { findings, ..Outcome::default() })
    }

    async fn restore(&self, task: &Task) -> Result<Outcome> {
        let session = self.shared.sessions.of(&task.context).await?;
        let restoring = Restoring {
            task,
            session: &session,
            nova: Nova::new(&session).doing(|| "looking for Nova".to_owned())?,
            patience: self.patience,
            sharing: &self.sharing,
            record: frame::record(task, RECORD)?,
            parameters: frame::parameters(task)?,
        };
        Box::pin(restoring.run()).await
    }
}

/// Returns the entry that says that the server is held still.
async fn held(task: &Task) -> Result<Option<LedgerEntry>> {
    let entries = task.ledger.entries().await?;
    Ok(entries.into_iter().find(|entry| entry.kind == PAUSED && entry.is_open()))
}

fn schemas() -> Schemas {
    let text = frame::text;
    let map = |title: &str, what: &str| {
        let description =
            format!("{what}, by id or name in the checkpoint, that others stand for: their ids or names.");
        json!({
            "type": ["object", "null"], "default": null, "title": title, "description": description,
            "additionalProperties": {"type": "string"},
        })
    };
    let options = json!({
        "quiesce": {
            "type": "string", "enum": ["none", "pause"], "default": "none", "title": "Quiesce",
            "description": "Whether the server is paused while the snapshots of its volumes are taken.",
        },
    });
    let restore = json!({
        "restore_name": text("Restore Name", "The name of the restored server; its own if none is given."),
        "restore_flavor_id": text("Restore Flavor ID", "The flavor (id or name) that it is to have."),
        "restore_net_id": text("Restore Network ID", "The network (id or name) that all its ports are to be on."),
        "networks": map("Networks", "Networks"),
        "security_groups": map("Security Groups", "Security groups"),
        "public_network_id": text("Public Network ID", "The network that floating addresses are taken from."),
        "restore_floating_ips": frame::flag("Restore Floating Addresses", true, "Whether it gets them back."),
        "key_name": text("Key Name", "The key pair that it is to have."),
        "availability_zone": text("Availability Zone", "The zone that it is to be in."),
        "image_id": text("Image ID", "The image that it is to be booted from."),
    });
    Schemas {
        options: frame::schema("Server Protection Options", options),
        restore: frame::schema("Server Protection Restore", restore),
        verify: frame::schema("Server Protection Verify", json!({})),
        saved_info: frame::saved_info("Server Protection Saved Info", RECORD, json!({})),
    }
}

#[async_trait]
impl Protection for ServerProtection {
    fn describe(&self) -> Description {
        use OperationKind as Op;
        let protect: &[Hook] = &[Hook::PrepareBegin, Hook::PrepareFinish, Hook::Main];
        let main: &[Hook] = &[Hook::Main];
        let hooks = [
            (Op::Protect, protect),
            (Op::Restore, main),
            (Op::Verify, main),
            (Op::Copy, &[][..]),
            (Op::Delete, &[][..]),
        ];
        frame::describe(NAME, ResourceType::from(kinds::SERVER), schemas(), &hooks)
    }

    async fn run(&self, hook: Hook, task: &Task) -> Result<Outcome> {
        // Letting go is never refused.
        if (task.operation, hook) != (OperationKind::Protect, Hook::PrepareFinish) {
            task.check_cancelled()?;
        }
        frame::require_kind(task, kinds::SERVER)?;
        match (task.operation, hook) {
            (OperationKind::Protect, Hook::PrepareBegin) => self.hold(task).await,
            (OperationKind::Protect, Hook::PrepareFinish) => {
                self.let_go(task).await.map(|()| Outcome::default())
            }
            (OperationKind::Protect, Hook::Main) => self.protect(task).await,
            (OperationKind::Restore, Hook::Main) => self.restore(task).await,
            (OperationKind::Verify, Hook::Main) => {
                frame::record::<ServerRecord>(task, RECORD).map(|_| Outcome::default())
            }
            _ => Ok(Outcome::default()),
        }
    }

    async fn clean_up(&self, task: &Task, entry: &LedgerEntry) -> Result<()> {
        if entry.kind == PAUSED {
            return self.go_on(task, &entry.reference).await;
        }
        let session = self.shared.sessions.of(&task.context).await?;
        if Live::new(&session, task).await?.clean_up(entry).await? {
            return Ok(());
        }
        let nova = self.nova(task).await?;
        match entry.kind.as_str() {
            SERVER => {
                let find = || restore::find(&nova, made::tag_of(entry));
                match made::id_of(entry, find).await? {
                    Some(id) => restore::remove(&nova, self.patience, task, &id).await,
                    None => Ok(()),
                }
            }
            KEY_PAIR if entry.state == LedgerState::Created => {
                let removed = nova.delete_key_pair(&entry.reference).await;
                removed.doing(|| format!("removing the key pair {}", entry.reference)).map(drop)
            }
            SERVER_GROUP if entry.state == LedgerState::Created => {
                let removed = nova.delete_server_group(&entry.reference).await;
                removed.doing(|| format!("removing the server group {}", entry.reference)).map(drop)
            }
            KEY_PAIR | SERVER_GROUP => self.unheard(&nova, entry).await,
            _ => {
                let text =
                    format!("this plugin does not know how to remove {} {}", entry.kind, entry.reference);
                Err(Error::new(ErrorKind::Unsupported, text))
            }
        }
    }
}

impl ServerProtection {
    /// Removes what was made and not heard of: it was not there when its entry was written.
    async fn unheard(&self, nova: &Nova, entry: &LedgerEntry) -> Result<()> {
        let name = made::data_of(entry, "name").unwrap_or_default();
        if entry.kind == KEY_PAIR {
            return nova
                .delete_key_pair(name)
                .await
                .doing(|| format!("removing the key pair {name}"))
                .map(drop);
        }
        let groups = nova.server_groups().await.doing(|| "listing the server groups".to_owned())?;
        let policy = made::data_of(entry, "policy").unwrap_or_default();
        let is_it = |group: &&karbor_openstack_client::nova::ServerGroup| {
            group.name == name && group.policy == policy && group.members.is_empty()
        };
        if let Some(group) = groups.iter().find(is_it) {
            let removed = nova.delete_server_group(&group.id).await;
            removed.doing(|| format!("removing the server group {name}"))?;
        }
        Ok(())
    }
}
