//! Holds: a checkpoint that is held is deleted by nobody and nothing until it is released.

use karbor_store::Hold;
use karbor_types::{CheckpointId, ProviderId};
use tracing::info;

use crate::{Actions, Caller, Error, Result};

/// A hold to be put on a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HoldRequest {
    /// Why, for those who will want to delete it.
    pub reason: Option<String>,
}

impl Actions {
    /// Holds a checkpoint; one that is held stays held as it was.
    ///
    /// # Errors
    /// As [`Actions::get_checkpoint`]; [`Error::Conflict`] when it is being deleted or is gone.
    pub async fn hold_checkpoint(
        &self,
        caller: &Caller,
        provider: ProviderId,
        id: CheckpointId,
        request: HoldRequest,
    ) -> Result<Hold> {
        self.allow(caller, "provider:checkpoint_hold")?;
        let checkpoint = self.get_checkpoint(caller, provider, id).await?;
        let hold =
            Hold { checkpoint: id, user: caller.user.clone(), reason: request.reason, since: self.now() };
        let held = self.store().hold_checkpoint(&hold).await.map_err(|err| match Error::from(err) {
            Error::Conflict { .. } => {
                Error::conflict(format!("checkpoint {id} is being deleted, or is gone, and cannot be held"))
            }
            err => err,
        })?;
        info!(
            checkpoint.id = %id, project.id = %checkpoint.project, user.id = %caller.user,
            "Checkpoint {id} is held by {}", held.user
        );
        Ok(held)
    }

    /// Releases a checkpoint; one that is not held stays as it is.
    ///
    /// # Errors
    /// As [`Actions::get_checkpoint`].
    pub async fn release_checkpoint(
        &self,
        caller: &Caller,
        provider: ProviderId,
        id: CheckpointId,
    ) -> Result<()> {
        self.allow(caller, "provider:checkpoint_hold")?;
        let checkpoint = self.get_checkpoint(caller, provider, id).await?;
        if self.store().release_checkpoint(id).await? {
            info!(
                checkpoint.id = %id, project.id = %checkpoint.project, user.id = %caller.user,
                "Checkpoint {id} was released"
            );
        }
        Ok(())
    }

    /// Returns the holds on checkpoints that the caller was shown.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn holds_on(&self, checkpoints: &[CheckpointId]) -> Result<Vec<Hold>> {
        Ok(self.store().holds(checkpoints).await?)
    }
}
