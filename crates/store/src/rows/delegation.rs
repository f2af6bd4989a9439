//! By what right work is done after its request has ended.

use karbor_types::{Instant, OperationId, ProjectId, ScheduledOperationId, UserId};

/// Whose right it is: it ends with its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DelegationOwner {
    /// One operation.
    Operation(OperationId),
    /// A scheduled operation, and all operations that come from it.
    ScheduledOperation(ScheduledOperationId),
}

impl DelegationOwner {
    pub(crate) const OPERATION: &'static str = "operation";
    pub(crate) const SCHEDULED_OPERATION: &'static str = "scheduled_operation";

    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Operation(_) => Self::OPERATION,
            Self::ScheduledOperation(_) => Self::SCHEDULED_OPERATION,
        }
    }

    pub(crate) fn id(self) -> String {
        match self {
            Self::Operation(id) => id.to_string(),
            Self::ScheduledOperation(id) => id.to_string(),
        }
    }
}

/// What somebody lets this service do in their place, as long as its owner lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegation {
    /// Whose it is.
    pub owner: DelegationOwner,
    /// The project in which the user acts.
    pub project: ProjectId,
    /// The user who gives the right.
    pub user: UserId,
    /// The trust; nothing while it is being made, and where there is none.
    pub trust: Option<String>,
    /// Until when the trust holds, to the second: by that it is found again if its id was lost.
    pub expires_at: Instant,
    /// A login that the user named, sealed; the text that `karbor-chunk` makes, in hexadecimal digits.
    pub sealed: Option<String>,
    /// When the right was asked for.
    pub created_at: Instant,
}
