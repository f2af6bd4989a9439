//! Plans.

use karbor_types::{Instant, PlanId};

use crate::{Plan, PlanQuery, PlanUpdate, QuotaDefaults, Result, Store};

impl Store {
    /// Adds a plan and charges its project for it.
    ///
    /// # Errors
    /// [`Error::OverQuota`](crate::Error::OverQuota), [`Error::AlreadyExists`](crate::Error::AlreadyExists).
    pub async fn create_plan(&self, plan: &Plan, quota: &QuotaDefaults) -> Result<()> {
        self.pending((plan, quota))
    }

    /// Returns a plan that is not deleted.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound).
    pub async fn get_plan(&self, id: PlanId) -> Result<Plan> {
        self.pending((id,))
    }

    /// Changes a plan and returns it as it is then.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound); [`Error::Conflict`](crate::Error::Conflict) when its status is not the one that the update asks for.
    pub async fn update_plan(&self, id: PlanId, update: &PlanUpdate, now: Instant) -> Result<Plan> {
        self.pending((id, update, now))
    }

    /// Deletes a plan and takes the charge for it back. Its checkpoints stay.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound).
    pub async fn delete_plan(&self, id: PlanId, now: Instant) -> Result<()> {
        self.pending((id, now))
    }

    /// Lists plans that are not deleted.
    ///
    /// # Errors
    /// [`Error::UnknownMarker`](crate::Error::UnknownMarker).
    pub async fn list_plans(&self, query: &PlanQuery) -> Result<Vec<Plan>> {
        self.pending((query,))
    }
}
