//! What the plugins of volumes do in Cinder: make things once, wait for them, and remove them.

use std::collections::BTreeMap;

use karbor_openstack_client::cinder::{Attachment, Cinder, NewVolume, Snapshot, Volume};
use karbor_openstack_client::glance::Glance;
use karbor_openstack_client::{ErrorKind as Cause, Session};
use karbor_plugin::{Error, ErrorKind, LedgerEntry, LedgerState, Outcome, Result, Task};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::Doing;
use crate::frame;
use crate::image::work as images;
use crate::made::{Made, SCAFFOLD_KEY, TAG_KEY, data_of, found, id_of, tag_of};
use crate::poll::{Patience, Reached, reached};
use crate::volume::group::{self, GROUP_SNAPSHOT};

/// The kinds of things in the ledger.
pub(crate) const SNAPSHOT: &str = "volume snapshot";
pub(crate) const VOLUME: &str = "volume";
pub(crate) const ATTACHMENT: &str = "volume attachment";
pub(crate) const BACKUP: &str = "volume backup";

/// What a volume comes out of by itself.
const BUSY: &[&str] = &[
    "attaching",
    "backing-up",
    "creating",
    "detaching",
    "downloading",
    "extending",
    "restoring-backup",
    "retyping",
    "reverting",
    "uploading",
];

/// Cinder, for one hook of one resource.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    pub(crate) task: &'a Task,
    pub(crate) session: Session,
    pub(crate) cinder: Cinder,
    pub(crate) patience: Patience,
}

impl<'a> Work<'a> {
    pub(crate) fn new(task: &'a Task, session: Session, patience: Patience) -> Result<Self> {
        let cinder = Cinder::new(&session).doing(|| "looking for Cinder".to_owned())?;
        Ok(Self { task, session, cinder, patience })
    }

    pub(crate) fn glance(&self) -> Result<Glance> {
        Glance::new(&self.session).doing(|| "looking for Glance".to_owned())
    }

    /// Returns the protected volume, once it is in a state in which a snapshot can be taken of it.
    pub(crate) async fn original(&self) -> Result<Volume> {
        let id = &self.task.resource.key.id;
        let volume = self.volume_in(id, &["available", "in-use"]).await.map_err(|err| {
            if err.kind() != ErrorKind::NotFound {
                return err;
            }
            Error::new(ErrorKind::NotFound, format!("there is no volume {id} in your project"))
        })?;
        let project = self.session.project_id().doing(|| "looking at the token".to_owned())?;
        if volume.project_id.as_deref().is_some_and(|owner| owner != project) {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no volume {id} in your project")));
        }
        Ok(volume)
    }

    /// Waits until a volume is in one of these states.
    pub(crate) async fn volume_in(&self, id: &str, wanted: &[&str]) -> Result<Volume> {
        let what = format!("volume {id} to become {}", wanted.join(" or "));
        let ask = || async {
            let volume = self.cinder.volume(id).await.doing(|| format!("looking at volume {id}"))?;
            match reached(&volume.status, wanted, BUSY) {
                Reached::Yes => Ok(Some(volume)),
                Reached::NotYet => Ok(None),
                Reached::Never => {
                    let text =
                        format!("volume {id} is in the state `{}`; see the log of Cinder", volume.status);
                    Err(Error::new(ErrorKind::Conflict, text))
                }
            }
        };
        self.patience.wait(self.task, &what, ask).await
    }

    /// Begins the snapshot of a volume, once. One that is on its way out, of a run that was dropped at its end, is let
    /// go first.
    pub(crate) async fn snapshot(
        &self,
        made: &Made,
        volume: &str,
        new: SnapshotOptions<'_>,
    ) -> Result<String> {
        let tag = made.tag(self.task);
        if let Some(known) = made.known(self.task).await?.filter(|known| known.state == LedgerState::Created)
        {
            let id = &known.reference;
            let there = match self.cinder.snapshot(id).await {
                Err(err) if err.is_not_found() => None,
                snapshot => Some(snapshot.doing(|| format!("looking at snapshot {id}"))?),
            };
            if there.is_none_or(|snapshot| snapshot.status.contains("deleting")) {
                self.remove_snapshot(id).await?;
                made.gone(self.task).await?;
            }
        }
        let make = async {
            let metadata = new.metadata(&tag);
            let name = new.name.clone().unwrap_or_else(|| made.name(self.task));
            let taken =
                self.cinder.create_snapshot(volume, &name, new.description, new.force, &metadata).await;
            Ok(taken.doing(|| format!("taking a snapshot of volume {volume}"))?.id)
        };
        made.once(self.task, || self.find_snapshot(&tag), make).await
    }

    /// Waits until a snapshot is taken.
    async fn snapshot_taken(&self, id: &str) -> Result<Snapshot> {
        let what = format!("snapshot {id} to become available");
        let ask = || async {
            let snapshot = self.cinder.snapshot(id).await.doing(|| format!("looking at snapshot {id}"))?;
            // A backup of it that an earlier run began may still be under way.
            match reached(&snapshot.status, &["available", "backing-up"], &["creating"]) {
                Reached::Yes => Ok(Some(snapshot)),
                Reached::NotYet => Ok(None),
                Reached::Never => {
                    let status = &snapshot.status;
                    let text = format!("snapshot {id} is in the state `{status}`; see the log of Cinder");
                    Err(Error::new(ErrorKind::Other, text))
                }
            }
        };
        self.patience.wait(self.task, &what, ask).await
    }

    /// Checks that a snapshot that was read where it lies was there until the end: from then on that it is removed, its
    /// file changes.
    pub(crate) async fn snapshot_stands(&self, id: &str) -> Result<()> {
        let status = match self.cinder.snapshot(id).await {
            Err(err) if err.is_not_found() => "deleted".to_owned(),
            snapshot => snapshot.doing(|| format!("looking at snapshot {id}"))?.status,
        };
        if ["available", "backing-up"].contains(&status.as_str()) {
            return Ok(());
        }
        let text = format!(
            "somebody removed snapshot {id} while it was read (it is `{status}`), and what was read may be no state that \
             ever was; protect it again"
        );
        Err(Error::new(ErrorKind::Conflict, text))
    }

    /// Ends the short phase: waits until the snapshot is taken, and remembers when that was.
    pub(crate) async fn taken(&self) -> Result<Outcome> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct State {
            snapshot: Option<String>,
        }
        let state: State = frame::state(self.task)?;
        let Some(snapshot) = state.snapshot else { return Ok(Outcome::default()) };
        let taken_at = self.snapshot_taken(&snapshot).await?.created_at;
        Ok(Outcome { state: json!({"taken_at": taken_at}), ..Outcome::default() })
    }

    /// Makes a volume, once; its tag stands in its metadata.
    pub(crate) async fn volume(&self, made: &Made, mut new: NewVolume) -> Result<String> {
        let tag = made.tag(self.task);
        new.metadata.insert(TAG_KEY.to_owned(), tag.clone());
        let name = new.name.clone();
        let make = async {
            let made = self.cinder.create_volume(&new).await;
            Ok(made.doing(|| format!("making volume `{name}`"))?.id)
        };
        made.once(self.task, || self.find_volume(&tag), make).await
    }

    /// Waits until a volume of ours is made; an earlier run may have attached it already.
    pub(crate) async fn volume_made(&self, id: &str) -> Result<Volume> {
        self.volume_in(id, &["available", "in-use", "attaching", "reserved"]).await
    }

    /// Makes the volume that is needed to read a snapshot, once, and waits until it is there.
    pub(crate) async fn volume_of_snapshot(&self, snapshot: &str, size_gib: u64) -> Result<String> {
        let made = Made::scaffold(VOLUME, "read");
        let new = NewVolume {
            name: made.name(self.task),
            size: size_gib,
            snapshot_id: Some(snapshot.to_owned()),
            metadata: BTreeMap::from([(SCAFFOLD_KEY.to_owned(), "true".to_owned())]),
            ..NewVolume::default()
        };
        let id = self.volume(&made, new).await?;
        self.volume_made(&id).await?;
        Ok(id)
    }

    /// Takes a volume of ours for this machine, once, and returns where its bytes are.
    pub(crate) async fn attach(
        &self,
        volume: &str,
        connector: &Value,
        read_only: bool,
    ) -> Result<Attachment> {
        let (made, doing) = (attachment(volume), || format!("attaching volume {volume} to this machine"));
        let make = async || match self.cinder.create_attachment(volume, connector, read_only).await {
            // The request of an earlier run was still on its way when it was looked for, and has come first.
            Err(err) if matches!(err.kind(), Cause::Invalid | Cause::Conflict) => {
                match self.find_attachment(volume).await? {
                    Some(id) => Ok(id),
                    None => Err(err).doing(doing),
                }
            }
            taken => Ok(taken.doing(doing)?.id),
        };
        let id = made.once(self.task, || self.find_attachment(volume), make()).await?;
        let known = found(async || match self.cinder.attachment(&id).await {
            // An earlier run gave the volume back, and died before it could say so.
            Err(err) if err.is_not_found() => Ok(Some(None)),
            Ok(known) if known.connection_info.get("driver_volume_type").is_some() => Ok(Some(Some(known))),
            // It has no place: a request that is still on its way gives it one, or never will. Of one that is being
            // begun, Cinder cannot even be asked.
            Err(err) if !matches!(err.kind(), Cause::Invalid) => Err(err).doing(doing),
            _ => Ok(None),
        });
        let taken = match known.await?.flatten() {
            Some(known) => known,
            None => {
                self.remove_attachment(&id).await?;
                made.gone(self.task).await?;
                let id = made.once(self.task, || self.find_attachment(volume), make()).await?;
                self.cinder.attachment(&id).await.doing(doing)?
            }
        };
        if taken.status != "attached" {
            self.cinder.complete_attachment(&taken.id).await.doing(doing)?;
        }
        Ok(taken)
    }

    /// Gives a volume back that was taken for this machine, and waits until it is free.
    pub(crate) async fn detach(&self, volume: &str) -> Result<()> {
        for attachment in self.entries(ATTACHMENT, volume).await? {
            self.remove_attachment(&attachment).await?;
        }
        attachment(volume).gone(self.task).await?;
        self.volume_in(volume, &["available"]).await?;
        Ok(())
    }

    async fn entries(&self, kind: &str, volume: &str) -> Result<Vec<String>> {
        let entries = self.task.ledger.entries().await?;
        let mine = |entry: &&LedgerEntry| {
            entry.is_open() && entry.kind == kind && data_of(entry, "volume") == Some(volume)
        };
        let mut ids = Vec::new();
        for entry in entries.iter().filter(mine) {
            ids.extend(id_of(entry, || self.find_attachment(volume)).await?);
        }
        Ok(ids)
    }

    async fn find_attachment(&self, volume: &str) -> Result<Option<String>> {
        match self.cinder.attachments_of(volume).await {
            Err(err) if err.is_not_found() => Ok(None),
            all => {
                let all = all.doing(|| format!("looking for the attachments of volume {volume}"))?;
                Ok(all.into_iter().find(|one| one.instance.is_none()).map(|one| one.id))
            }
        }
    }

    async fn remove_attachment(&self, id: &str) -> Result<()> {
        self.cinder.delete_attachment(id).await.doing(|| format!("removing attachment {id}"))?;
        Ok(())
    }

    /// Removes a volume, and waits until it is gone. One that somebody uses is left and named.
    pub(crate) async fn remove_volume(&self, id: &str) -> Result<()> {
        let what = format!("volume {id} to be removed");
        let doing = || format!("removing volume {id}");
        let ask = || async {
            let volume = match self.cinder.volume(id).await {
                Err(err) if err.is_not_found() => return Ok(Some(())),
                volume => volume.doing(doing)?,
            };
            match volume.status.as_str() {
                "deleting" => Ok(None),
                "error_deleting" => {
                    let text = format!("volume {id} could not be removed by Cinder; see its log");
                    Err(Error::new(ErrorKind::Other, text))
                }
                // It has just been given back.
                "in-use" if volume.attachments.is_empty() => Ok(None),
                "in-use" => {
                    let text = format!("volume {id} is in use and cannot be removed; detach it first");
                    Err(Error::new(ErrorKind::Conflict, text))
                }
                status if BUSY.contains(&status) => Ok(None),
                _ => match self.cinder.delete_volume(id).await {
                    Ok(_) => Ok(None),
                    // Its state changed meanwhile, or a snapshot of it is on its way out.
                    Err(err) if matches!(err.kind(), Cause::Invalid | Cause::Conflict) => Ok(None),
                    Err(err) => Err(err).doing(doing),
                },
            }
        };
        self.patience.for_removal().wait(self.task, &what, ask).await
    }

    /// Removes a snapshot, and waits until it is gone.
    pub(crate) async fn remove_snapshot(&self, id: &str) -> Result<()> {
        let what = format!("snapshot {id} to be removed");
        let doing = || format!("removing snapshot {id}");
        let ask = || async {
            let snapshot = match self.cinder.snapshot(id).await {
                Err(err) if err.is_not_found() => return Ok(Some(())),
                snapshot => snapshot.doing(doing)?,
            };
            match snapshot.status.as_str() {
                "deleting" | "creating" | "backing-up" | "unmanaging" => Ok(None),
                "error_deleting" => {
                    let text = format!("snapshot {id} could not be removed by Cinder; see its log");
                    Err(Error::new(ErrorKind::Other, text))
                }
                _ => match self.cinder.delete_snapshot(id).await {
                    Ok(_) => Ok(None),
                    Err(err) if matches!(err.kind(), Cause::Invalid | Cause::Conflict) => Ok(None),
                    Err(err) => Err(err).doing(doing),
                },
            }
        };
        self.patience.for_removal().wait(self.task, &what, ask).await
    }

    /// Removes a backup, and waits until it is gone.
    pub(crate) async fn remove_backup(&self, id: &str) -> Result<()> {
        let what = format!("backup {id} to be removed");
        let doing = || format!("removing backup {id}");
        let ask = || async {
            let backup = match self.cinder.backup(id).await {
                Err(err) if err.is_not_found() => return Ok(Some(())),
                backup => backup.doing(doing)?,
            };
            match backup.status.as_str() {
                "deleted" => Ok(Some(())),
                "deleting" | "creating" | "restoring" => Ok(None),
                "error_deleting" => {
                    let text = format!("backup {id} could not be removed by Cinder; see its log");
                    Err(Error::new(ErrorKind::Other, text))
                }
                _ if backup.has_dependent_backups => {
                    let text = format!(
                        "backup {id} is needed by later incremental backups; delete the checkpoints made after it first"
                    );
                    Err(Error::new(ErrorKind::Conflict, text))
                }
                _ => match self.cinder.delete_backup(id).await {
                    Ok(_) => Ok(None),
                    Err(err) if matches!(err.kind(), Cause::Invalid | Cause::Conflict) => Ok(None),
                    Err(err) => Err(err).doing(doing),
                },
            }
        };
        self.patience.for_removal().wait(self.task, &what, ask).await
    }

    /// Ends a restore: the new volume loses our tag, so that it is as the original was.
    pub(crate) async fn publish(&self) -> Result<Outcome> {
        if self.task.dry_run {
            return Ok(Outcome::default());
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct State {
            restored: Option<String>,
        }
        let state: State = frame::state(self.task)?;
        if let Some(id) = state.restored {
            let removed = self.cinder.delete_metadata(&id, TAG_KEY).await;
            removed.doing(|| format!("finishing volume {id}"))?;
        }
        self.remove_scaffolds().await?;
        Ok(Outcome::default())
    }

    /// Removes everything that this operation made on the way for this resource alone, newest first.
    pub(crate) async fn remove_scaffolds(&self) -> Result<()> {
        for entry in self.task.ledger.entries().await?.into_iter().rev() {
            let is_own = entry.kind != GROUP_SNAPSHOT;
            if is_own && entry.is_open() && entry.purpose == karbor_plugin::Purpose::Scaffold {
                self.clean_up(&entry).await?;
                self.task.ledger.removed(entry.id).await?;
            }
        }
        Ok(())
    }

    /// Removes what an entry of the ledger tells of.
    pub(crate) async fn clean_up(&self, entry: &LedgerEntry) -> Result<()> {
        let tag = tag_of(entry).to_owned();
        match entry.kind.as_str() {
            ATTACHMENT => {
                let volume = data_of(entry, "volume").unwrap_or_default();
                match id_of(entry, || self.find_attachment(volume)).await? {
                    Some(id) => self.remove_attachment(&id).await,
                    None => Ok(()),
                }
            }
            SNAPSHOT => match id_of(entry, || self.find_snapshot(&tag)).await? {
                Some(id) => self.remove_snapshot(&id).await,
                None => Ok(()),
            },
            GROUP_SNAPSHOT => {
                let name = data_of(entry, group::NAME).unwrap_or_default();
                match id_of(entry, || self.find_group_snapshot(name)).await? {
                    Some(id) => self.remove_group_snapshot(&id).await,
                    None => Ok(()),
                }
            }
            VOLUME => match id_of(entry, || self.find_volume(&tag)).await? {
                Some(id) => self.remove_volume(&id).await,
                None => Ok(()),
            },
            BACKUP => match id_of(entry, || self.find_backup(&tag)).await? {
                Some(id) => self.remove_backup(&id).await,
                None => Ok(()),
            },
            images::IMAGE => images::clean_up(self.task, &self.glance()?, self.patience, entry).await,
            other => {
                let text = format!("this plugin does not know how to remove {other} {}", entry.reference);
                Err(Error::new(ErrorKind::Unsupported, text))
            }
        }
    }

    async fn find_snapshot(&self, tag: &str) -> Result<Option<String>> {
        let found = self.cinder.snapshots_with(TAG_KEY, tag).await;
        let found = found.doing(|| "looking for a snapshot of ours".to_owned())?;
        Ok(found.into_iter().next().map(|snapshot| snapshot.id))
    }

    async fn find_volume(&self, tag: &str) -> Result<Option<String>> {
        let found = self.cinder.volumes_with(TAG_KEY, tag).await;
        let found = found.doing(|| "looking for a volume of ours".to_owned())?;
        Ok(found.into_iter().next().map(|volume| volume.id))
    }

    /// Finds the backup with a tag.
    pub(crate) async fn find_backup(&self, tag: &str) -> Result<Option<String>> {
        let all = self.cinder.backups(&[]).all().await.doing(|| "looking for a backup of ours".to_owned())?;
        let is_ours = |backup: &karbor_openstack_client::cinder::Backup| {
            backup.metadata.get(TAG_KEY).is_some_and(|found| found == tag)
        };
        Ok(all.into_iter().find(is_ours).map(|backup| backup.id))
    }
}

/// How a snapshot is to be taken.
#[derive(Debug, Default)]
pub(crate) struct SnapshotOptions<'a> {
    /// Its name; without it, one that says that it is ours.
    pub(crate) name: Option<String>,
    pub(crate) description: Option<&'a str>,
    /// Also of a volume that is in use.
    pub(crate) force: bool,
    /// Whether it is needed only on the way.
    pub(crate) is_scaffold: bool,
}

impl SnapshotOptions<'_> {
    fn metadata(&self, tag: &str) -> BTreeMap<String, String> {
        let mut metadata = BTreeMap::from([(TAG_KEY.to_owned(), tag.to_owned())]);
        if self.is_scaffold {
            metadata.insert(SCAFFOLD_KEY.to_owned(), "true".to_owned());
        }
        metadata
    }
}

/// Returns what a volume's use by this machine is in the ledger.
fn attachment(volume: &str) -> Made {
    Made::scaffold(ATTACHMENT, "attachment").with("volume", json!(volume))
}
