//! Checkpoints.

use karbor_types::{CheckpointEvent, CheckpointId, Instant};

use crate::{Checkpoint, CheckpointQuery, NewCheckpoint, NewOperation, QuotaDefaults, Result, Store};

impl Store {
    /// Adds a checkpoint, queues the operation that makes it, records it in the operation log and charges the
    /// checkpoint's project, all in one transaction.
    ///
    /// # Errors
    /// [`Error::OverQuota`](crate::Error::OverQuota), [`Error::AlreadyExists`](crate::Error::AlreadyExists).
    pub async fn create_checkpoint(
        &self,
        checkpoint: &NewCheckpoint,
        operation: &NewOperation,
        quota: &QuotaDefaults,
        now: Instant,
    ) -> Result<Checkpoint> {
        self.pending((checkpoint, operation, quota, now))
    }

    /// Does [`Store::create_checkpoint`] for several in one transaction: all are added, or none.
    ///
    /// # Errors
    /// [`Error::OverQuota`](crate::Error::OverQuota), [`Error::AlreadyExists`](crate::Error::AlreadyExists).
    pub async fn create_checkpoints(
        &self,
        checkpoints: &[(NewCheckpoint, NewOperation)],
        quota: &QuotaDefaults,
        now: Instant,
    ) -> Result<Vec<Checkpoint>> {
        self.pending((checkpoints, quota, now))
    }

    /// Adds a checkpoint that was found in a bank, and charges its project beyond any limit; returns whether it
    /// was added. One that is known already stays as it is.
    ///
    /// # Errors
    /// [`Error::Database`](crate::Error::Database).
    pub async fn import_checkpoint(&self, checkpoint: &Checkpoint) -> Result<bool> {
        self.pending((checkpoint,))
    }

    /// Returns a checkpoint, also a deleted one.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound).
    pub async fn get_checkpoint(&self, id: CheckpointId) -> Result<Checkpoint> {
        self.pending((id,))
    }

    /// Lists checkpoints; deleted ones only when a filter names the state.
    ///
    /// # Errors
    /// [`Error::UnknownMarker`](crate::Error::UnknownMarker).
    pub async fn list_checkpoints(&self, query: &CheckpointQuery) -> Result<Vec<Checkpoint>> {
        self.pending((query,))
    }

    /// Moves a checkpoint to `deleting` and queues the operation that deletes it.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound); [`Error::Conflict`](crate::Error::Conflict) when its state does not allow to delete it.
    pub async fn start_delete(
        &self,
        id: CheckpointId,
        operation: &NewOperation,
        now: Instant,
    ) -> Result<Checkpoint> {
        self.pending((id, operation, now))
    }

    /// Moves a checkpoint as somebody asks (`ResetAvailable`, `ResetError`), without an operation.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound); [`Error::Conflict`](crate::Error::Conflict) when its state does not allow it.
    pub async fn reset_checkpoint(
        &self,
        id: CheckpointId,
        event: CheckpointEvent,
        now: Instant,
    ) -> Result<Checkpoint> {
        self.pending((id, event, now))
    }
}
