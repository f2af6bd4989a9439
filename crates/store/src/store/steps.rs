//! Steps and ledgers of operations.

use karbor_types::{Instant, OperationId, Progress};

use crate::{Claim, LedgerEntry, NewStep, OperationProgress, Result, Step, StepChange, StepEnd, Store};

impl Store {
    /// Saves the steps of an operation as pending, all or none. Steps that stand already (same ordinal) stay as they
    /// are, so that a later attempt may save them again.
    ///
    /// # Errors
    /// [`Error::LeaseLost`](crate::Error::LeaseLost).
    pub async fn save_steps(&self, claim: &Claim, steps: &[NewStep], now: Instant) -> Result<()> {
        self.pending((claim, steps, now))
    }

    /// Notes changes to many steps in one transaction, in their order. Steps that do not exist are an error.
    ///
    /// # Errors
    /// [`Error::LeaseLost`](crate::Error::LeaseLost); [`Error::NotFound`](crate::Error::NotFound) of a step.
    pub async fn record_steps(&self, claim: &Claim, changes: &[StepChange], now: Instant) -> Result<()> {
        self.pending((claim, changes, now))
    }

    /// Notes that a step was started.
    ///
    /// # Errors
    /// As [`Store::record_steps`].
    pub async fn step_started(&self, claim: &Claim, ordinal: u32, now: Instant) -> Result<()> {
        self.pending((claim, ordinal, now))
    }

    /// Notes how a step ended.
    ///
    /// # Errors
    /// As [`Store::record_steps`].
    pub async fn step_finished(&self, claim: &Claim, ordinal: u32, end: StepEnd, now: Instant) -> Result<()> {
        self.pending((claim, ordinal, end, now))
    }

    /// Notes how far a step has come.
    ///
    /// # Errors
    /// As [`Store::record_steps`].
    pub async fn step_progress(
        &self,
        claim: &Claim,
        ordinal: u32,
        progress: Progress,
        now: Instant,
    ) -> Result<()> {
        self.pending((claim, ordinal, progress, now))
    }

    /// Returns up to `limit` steps of an operation in order, those behind `after` if it is given.
    ///
    /// # Errors
    /// [`Error::Database`](crate::Error::Database).
    pub async fn list_steps(
        &self,
        operation: OperationId,
        after: Option<u32>,
        limit: u32,
    ) -> Result<Vec<Step>> {
        self.pending((operation, after, limit))
    }

    /// Returns how far an operation has come. It is all zero for an operation without steps.
    ///
    /// # Errors
    /// [`Error::Database`](crate::Error::Database).
    pub async fn operation_progress(&self, operation: OperationId) -> Result<OperationProgress> {
        self.pending((operation,))
    }

    /// Writes entries of the operation's ledger, new ones or new states of known ones (same tag).
    ///
    /// # Errors
    /// [`Error::LeaseLost`](crate::Error::LeaseLost); [`Error::Invalid`](crate::Error::Invalid) for an entry of another operation.
    pub async fn record_ledger(&self, claim: &Claim, entries: &[LedgerEntry], now: Instant) -> Result<()> {
        self.pending((claim, entries, now))
    }

    /// Returns the ledger of an operation in the order of its first writing.
    ///
    /// # Errors
    /// [`Error::Database`](crate::Error::Database).
    pub async fn list_ledger(&self, operation: OperationId) -> Result<Vec<LedgerEntry>> {
        self.pending((operation,))
    }
}
