//! Until the crates below have theirs: the master key and the name of a session.

use std::fmt;

use karbor_types::{CheckpointId, Epoch, OperationId};

/// The key that wraps account keys: 32 secret bytes from a file or the environment.
#[derive(Clone)]
pub struct MasterKey([u8; 32]);

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey([REDACTED])")
    }
}

impl MasterKey {
    /// Wraps the bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// One attempt of one operation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    operation: OperationId,
    epoch: Epoch,
}

impl SessionId {
    /// Names an attempt.
    pub fn new(operation: OperationId, epoch: Epoch) -> Self {
        Self { operation, epoch }
    }

    /// Names the checkpoint that this attempt may make.
    pub fn checkpoint(&self) -> CheckpointId {
        CheckpointId(self.operation.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.operation, self.epoch)
    }
}
