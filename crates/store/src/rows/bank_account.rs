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
    /// Where it lies, when not in the bank's own place.
    pub place: Option<String>,
    /// How to be let in there, sealed; the store cannot read it.
    pub credentials: Option<String>,
    /// The name of the master key that wraps its key, when not the first.
    pub key_source: Option<String>,
    /// When it was first used.
    pub created_at: Instant,
    /// When it was last changed.
    pub updated_at: Option<Instant>,
}

/// What is changed of an account; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BankAccountUpdate {
    /// How many bytes it may hold, or as many as there is room for.
    pub quota_bytes: Option<Option<u64>>,
    /// Where it lies, or the bank's own place.
    pub place: Option<Option<String>>,
    /// How to be let in there, sealed, or as in the bank itself.
    pub credentials: Option<Option<String>>,
    /// The name of the master key, or the first.
    pub key_source: Option<Option<String>>,
}
