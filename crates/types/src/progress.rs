//! How far a piece of work has come.

use serde::{Deserialize, Serialize};

/// Progress of one resource or one operation. All counts only grow, but for `bytes_total`, which may be learnt late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes of the source that are dealt with (read, known unchanged, or holes).
    pub bytes_done: u64,
    /// Bytes of the source in all, as far as known.
    pub bytes_total: Option<u64>,
    /// Bytes that were new and had to be stored, as they lie in the bank.
    pub bytes_stored: u64,
}

impl Progress {
    /// Adds another resource's progress.
    pub fn plus(self, other: Self) -> Self {
        let total = match (self.bytes_total, other.bytes_total) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(self.bytes_done) + b.unwrap_or(other.bytes_done)),
        };
        Self {
            bytes_done: self.bytes_done + other.bytes_done,
            bytes_total: total,
            bytes_stored: self.bytes_stored + other.bytes_stored,
        }
    }
}
