//! Plans.

use karbor_types::{Instant, Parameters, PlanId, ProjectId, ProviderId, Resource};

/// A protection plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Its id.
    pub id: PlanId,
    /// The project that it belongs to.
    pub project: ProjectId,
    /// Its name.
    pub name: String,
    /// What people say about it.
    pub description: Option<String>,
    /// The provider that protects it.
    pub provider: ProviderId,
    /// Its status: `suspended` from the start; any text that a client has set, or none.
    pub status: Option<String>,
    /// What is protected, in the order given.
    pub resources: Vec<Resource>,
    /// Parameters by type or resource.
    pub parameters: Parameters,
    /// When it was made.
    pub created_at: Instant,
    /// When it was last changed.
    pub updated_at: Option<Instant>,
}

/// What is changed of a plan; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlanUpdate {
    /// A new name.
    pub name: Option<String>,
    /// A new description, or none.
    pub description: Option<Option<String>>,
    /// A new status, or none.
    pub status: Option<Option<String>>,
    /// All new resources.
    pub resources: Option<Vec<Resource>>,
    /// The status that the plan must still have (`Conflict` if not); `None` asks for nothing.
    pub only_if_status: Option<String>,
}
