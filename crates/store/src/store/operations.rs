//! Operations: queued, claimed, renewed, ended.

use karbor_types::{Instant, OperationId, OperationLogId};

use crate::{
    Claim, ClaimOptions, Claimed, Finish, NewOperation, Operation, OperationLog, OperationLogQuery,
    OperationQuery, Renewal, Result, Store, SubjectChange,
};

impl Store {
    /// Queues an operation that is about no row of its own (a sweep).
    ///
    /// # Errors
    /// [`Error::AlreadyExists`](crate::Error::AlreadyExists).
    pub async fn create_operation(&self, operation: &NewOperation, now: Instant) -> Result<Operation> {
        self.pending((operation, now))
    }

    /// Returns an operation.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound).
    pub async fn get_operation(&self, id: OperationId) -> Result<Operation> {
        self.pending((id,))
    }

    /// Lists operations.
    ///
    /// # Errors
    /// [`Error::UnknownMarker`](crate::Error::UnknownMarker).
    pub async fn list_operations(&self, query: &OperationQuery) -> Result<Vec<Operation>> {
        self.pending((query,))
    }

    /// Claims the operation that is most urgent among those that are due and that nobody holds: queued ones, and
    /// running ones whose lease ran out. `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Busy`](crate::Error::Busy), [`Error::Database`](crate::Error::Database).
    pub async fn claim(&self, options: &ClaimOptions, now: Instant) -> Result<Option<Claimed>> {
        self.pending((options, now))
    }

    /// Prolongs the lease to `now` + `lease_seconds`.
    ///
    /// # Errors
    /// [`Error::LeaseLost`](crate::Error::LeaseLost).
    pub async fn renew(&self, claim: &Claim, lease_seconds: u32, now: Instant) -> Result<Renewal> {
        self.pending((claim, lease_seconds, now))
    }

    /// Gives an operation back unfinished, to be claimed by anybody at once; the attempt is not counted. For a
    /// worker that is told to stop.
    ///
    /// # Errors
    /// [`Error::LeaseLost`](crate::Error::LeaseLost).
    pub async fn release(&self, claim: &Claim, now: Instant) -> Result<()> {
        self.pending((claim, now))
    }

    /// Gives an operation back unfinished, to be claimed from `due_at` on; the attempt counts. For what is expected to
    /// succeed later.
    ///
    /// # Errors
    /// [`Error::LeaseLost`](crate::Error::LeaseLost).
    pub async fn postpone(&self, claim: &Claim, due_at: Instant, reason: &str, now: Instant) -> Result<()> {
        self.pending((claim, due_at, reason, now))
    }

    /// Asks for an operation's end. A queued one becomes due at once, so that a worker ends it.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound); [`Error::Conflict`](crate::Error::Conflict) when it has ended.
    pub async fn request_cancel(&self, id: OperationId, now: Instant) -> Result<()> {
        self.pending((id, now))
    }

    /// Returns whether somebody asked for the end of the operation that is claimed.
    ///
    /// # Errors
    /// [`Error::LeaseLost`](crate::Error::LeaseLost).
    pub async fn cancel_requested(&self, claim: &Claim) -> Result<bool> {
        self.pending((claim,))
    }

    /// Changes the row that the operation is about, while it goes on. The operation log follows the state.
    ///
    /// # Errors
    /// [`Error::LeaseLost`](crate::Error::LeaseLost); [`Error::Conflict`](crate::Error::Conflict) when the row's state does not know the event.
    pub async fn change_subject(&self, claim: &Claim, change: &SubjectChange, now: Instant) -> Result<()> {
        self.pending((claim, change, now))
    }

    /// Ends an operation: its state, the row that it is about, the operation log and the project's usage, in one
    /// transaction. The claim is used up.
    ///
    /// # Errors
    /// [`Error::LeaseLost`](crate::Error::LeaseLost); [`Error::Conflict`](crate::Error::Conflict) when the row's state does not know the event.
    pub async fn finish(&self, claim: &Claim, finish: &Finish, now: Instant) -> Result<()> {
        self.pending((claim, finish, now))
    }

    /// Returns one record of the operation log.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound).
    pub async fn get_operation_log(&self, id: OperationLogId) -> Result<OperationLog> {
        self.pending((id,))
    }

    /// Lists the operation log.
    ///
    /// # Errors
    /// [`Error::UnknownMarker`](crate::Error::UnknownMarker).
    pub async fn list_operation_logs(&self, query: &OperationLogQuery) -> Result<Vec<OperationLog>> {
        self.pending((query,))
    }
}
