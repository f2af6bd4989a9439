//! Holds on checkpoints.

use karbor_types::{CheckpointId, Instant, UserId};

/// A hold: the checkpoint cannot be deleted, by nobody and nothing, until it is released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// Who holds it.
    pub user: UserId,
    /// Why.
    pub reason: Option<String>,
    /// Since when.
    pub since: Instant,
}
