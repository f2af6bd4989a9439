//! Bank accounts: what is said of a project's area in a bank.

use karbor_types::{Instant, ProjectId};

/// A project's area in a bank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BankAccount {
    /// The project.
    pub project: ProjectId,
    /// The bank, as providers call it.
    pub bank: String,
    /// How many bytes it may hold; `None` for as many as there is room for.
    pub quota_bytes: Option<u64>,
    /// When it was first used.
    pub created_at: Instant,
    /// When it was last changed.
    pub updated_at: Option<Instant>,
}
