//! Snapshots of all volumes of a group at once, where the tenant's volumes are in groups of Cinder's.
//!
//! Where the group's type is consistent, all of them are taken at one instant. Whichever volume of the group comes first
//! has the group's snapshot taken, and the others use theirs of it. None of these can be removed alone: the group's
//! snapshot stays until the operation ends, when everything is removed that is still open in its ledger.

use karbor_openstack_client::ErrorKind as Cause;
use karbor_plugin::{Error, ErrorKind, LedgerState, Result};
use tokio::sync::Mutex;

use crate::error::Doing;
use crate::made::Made;
use crate::volume::work::Work;

/// The kind of thing in the ledger.
pub(crate) const GROUP_SNAPSHOT: &str = "volume group snapshot";

/// The name by which the snapshot is found again, in the ledger: it has no properties.
pub(crate) const NAME: &str = "name";

/// One at a time looks whether the snapshot of a group is there, and takes it.
#[derive(Debug, Default)]
pub(crate) struct GroupTurn(Mutex<()>);

impl Work<'_> {
    /// Begins the snapshot of a volume and all others of its group, once for all of them, and returns that of the volume.
    pub(crate) async fn snapshot_in_group(
        &self,
        turn: &GroupTurn,
        group: &str,
        volume: &str,
    ) -> Result<String> {
        let name = format!("karbor-{}-{group}", self.task.operation_id);
        let made = group_snapshot().with(NAME, name.clone());
        let _turn = turn.0.lock().await;
        let known = made.known(self.task).await?.filter(|known| known.state == LedgerState::Created);
        if let Some(known) = known {
            let there = self.group_snapshot_status(&known.reference).await?;
            if there.is_none_or(|status| status.contains("deleting")) {
                self.remove_group_snapshot(&known.reference).await?;
                made.gone(self.task).await?;
            }
        }
        let make = async {
            match self.find_group_snapshot(&name).await? {
                Some(id) => Ok(id),
                None => {
                    let taken = self.cinder.create_group_snapshot(group, &name).await;
                    taken.doing(|| format!("taking a snapshot of the volume group {group}"))
                }
            }
        };
        let id = made.once(self.task, || self.find_group_snapshot(&name), make).await?;
        let all = self.cinder.snapshots(&[("volume_id", volume)]).all().await;
        let all = all.doing(|| format!("looking for the snapshot of volume {volume}"))?;
        let mine = |one: &&karbor_openstack_client::cinder::Snapshot| {
            one.group_snapshot_id.as_deref() == Some(&id) && one.volume_id == volume
        };
        all.iter().find(mine).map(|one| one.id.clone()).ok_or_else(|| {
            let text = format!("the snapshot {id} of the volume group {group} has none of volume {volume}");
            Error::new(ErrorKind::Conflict, text)
        })
    }

    /// Notes that Cinder refused the snapshot of the group. One that others of its volumes were given is theirs.
    pub(crate) async fn without_group(&self) -> Result<()> {
        let made = group_snapshot();
        match made.known(self.task).await? {
            Some(known) if known.state == LedgerState::Intended => made.gone(self.task).await,
            // It goes when the operation ends.
            _ => Ok(()),
        }
    }

    async fn group_snapshot_status(&self, id: &str) -> Result<Option<String>> {
        match self.cinder.group_snapshot(id).await {
            Err(err) if err.is_not_found() => Ok(None),
            found => {
                Ok(Some(found.doing(|| format!("looking at the snapshot {id} of a volume group"))?.status))
            }
        }
    }

    /// Finds the snapshot of a group by its name; one that is on its way out is none.
    pub(crate) async fn find_group_snapshot(&self, name: &str) -> Result<Option<String>> {
        let all = self.cinder.group_snapshots().await;
        let all = all.doing(|| "looking for a snapshot of a volume group of ours".to_owned())?;
        let found = all.into_iter().find(|one| one.name == name && !one.status.contains("deleting"));
        Ok(found.map(|one| one.id))
    }

    /// Removes the snapshot of a group with those of its volumes, and waits until it is gone.
    pub(crate) async fn remove_group_snapshot(&self, id: &str) -> Result<()> {
        let what = format!("the snapshot {id} of a volume group to be removed");
        let doing = || format!("removing the snapshot {id} of a volume group");
        let ask = || async {
            match self.group_snapshot_status(id).await?.as_deref() {
                None => Ok(Some(())),
                Some("deleting" | "creating") => Ok(None),
                Some("error_deleting") => {
                    let text = format!(
                        "the snapshot {id} of a volume group could not be removed by Cinder; see its log"
                    );
                    Err(Error::new(ErrorKind::Other, text))
                }
                Some(_) => match self.cinder.delete_group_snapshot(id).await {
                    Ok(_) => Ok(None),
                    // A volume is still being made of one of its snapshots, or is on its way out.
                    Err(err) if matches!(err.kind(), Cause::Invalid | Cause::Conflict) => Ok(None),
                    Err(err) => Err(err).doing(doing),
                },
            }
        };
        self.patience.for_removal().wait(self.task, &what, ask).await
    }
}

fn group_snapshot() -> Made {
    Made::scaffold(GROUP_SNAPSHOT, "group-snapshot")
}
