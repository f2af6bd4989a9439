//! Triggers and scheduled operations.

use karbor_types::{Instant, ScheduledOperationId, TriggerId};

use crate::{
    Result, ScheduledOperation, ScheduledOperationQuery, Store, Trigger, TriggerQuery, TriggerUpdate,
};

impl Store {
    /// Adds a trigger.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`](crate::Error::AlreadyExists).
    pub async fn create_trigger(&self, trigger: &Trigger) -> Result<()> {
        self.pending((trigger,))
    }

    /// Returns a trigger.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound).
    pub async fn get_trigger(&self, id: TriggerId) -> Result<Trigger> {
        self.pending((id,))
    }

    /// Lists triggers.
    ///
    /// # Errors
    /// [`Error::UnknownMarker`](crate::Error::UnknownMarker).
    pub async fn list_triggers(&self, query: &TriggerQuery) -> Result<Vec<Trigger>> {
        self.pending((query,))
    }

    /// Changes a trigger and returns it as it is then.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound).
    pub async fn update_trigger(
        &self,
        id: TriggerId,
        update: &TriggerUpdate,
        now: Instant,
    ) -> Result<Trigger> {
        self.pending((id, update, now))
    }

    /// Deletes a trigger that no scheduled operation refers to.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound), [`Error::InUse`](crate::Error::InUse).
    pub async fn delete_trigger(&self, id: TriggerId) -> Result<()> {
        self.pending((id,))
    }

    /// Adds a scheduled operation.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`](crate::Error::AlreadyExists); [`Error::NotFound`](crate::Error::NotFound) of the trigger.
    pub async fn create_scheduled_operation(&self, operation: &ScheduledOperation) -> Result<()> {
        self.pending((operation,))
    }

    /// Returns a scheduled operation.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound).
    pub async fn get_scheduled_operation(&self, id: ScheduledOperationId) -> Result<ScheduledOperation> {
        self.pending((id,))
    }

    /// Lists scheduled operations.
    ///
    /// # Errors
    /// [`Error::UnknownMarker`](crate::Error::UnknownMarker).
    pub async fn list_scheduled_operations(
        &self,
        query: &ScheduledOperationQuery,
    ) -> Result<Vec<ScheduledOperation>> {
        self.pending((query,))
    }

    /// Deletes a scheduled operation.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound).
    pub async fn delete_scheduled_operation(&self, id: ScheduledOperationId) -> Result<()> {
        self.pending((id,))
    }
}
