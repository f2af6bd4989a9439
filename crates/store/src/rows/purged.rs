//! What a purge removed.

/// How many rows a purge removed for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purged {
    /// Plans that were deleted.
    pub plans: u64,
    /// Checkpoints that were deleted.
    pub checkpoints: u64,
    /// Operations that had ended.
    pub operations: u64,
}
