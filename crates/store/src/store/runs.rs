//! Restores and verifications.

use karbor_types::{Instant, RestoreId, VerificationId};

use crate::{
    NewOperation, NewRestore, NewVerification, Restore, RestoreQuery, Result, Store, Verification,
    VerificationQuery,
};

impl Store {
    /// Adds a restore and queues its operation, if its checkpoint is available.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) and [`Error::Conflict`](crate::Error::Conflict) of the checkpoint; [`Error::AlreadyExists`](crate::Error::AlreadyExists).
    pub async fn create_restore(
        &self,
        restore: &NewRestore,
        operation: &NewOperation,
        now: Instant,
    ) -> Result<Restore> {
        self.pending((restore, operation, now))
    }

    /// Adds a restore that has failed before it began.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`](crate::Error::AlreadyExists).
    pub async fn create_failed_restore(
        &self,
        restore: &NewRestore,
        reason: &str,
        now: Instant,
    ) -> Result<Restore> {
        self.pending((restore, reason, now))
    }

    /// Returns a restore.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound).
    pub async fn get_restore(&self, id: RestoreId) -> Result<Restore> {
        self.pending((id,))
    }

    /// Lists restores.
    ///
    /// # Errors
    /// [`Error::UnknownMarker`](crate::Error::UnknownMarker).
    pub async fn list_restores(&self, query: &RestoreQuery) -> Result<Vec<Restore>> {
        self.pending((query,))
    }

    /// Adds a verification and queues its operation, if its checkpoint is available.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) and [`Error::Conflict`](crate::Error::Conflict) of the checkpoint; [`Error::AlreadyExists`](crate::Error::AlreadyExists).
    pub async fn create_verification(
        &self,
        verification: &NewVerification,
        operation: &NewOperation,
        now: Instant,
    ) -> Result<Verification> {
        self.pending((verification, operation, now))
    }

    /// Adds a verification that has failed before it began.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`](crate::Error::AlreadyExists).
    pub async fn create_failed_verification(
        &self,
        verification: &NewVerification,
        reason: &str,
        now: Instant,
    ) -> Result<Verification> {
        self.pending((verification, reason, now))
    }

    /// Returns a verification.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound).
    pub async fn get_verification(&self, id: VerificationId) -> Result<Verification> {
        self.pending((id,))
    }

    /// Lists verifications.
    ///
    /// # Errors
    /// [`Error::UnknownMarker`](crate::Error::UnknownMarker).
    pub async fn list_verifications(&self, query: &VerificationQuery) -> Result<Vec<Verification>> {
        self.pending((query,))
    }
}
