//! Steps and ledgers of operations.

use karbor_types::{Instant, OperationId, Progress};

use crate::{
    Claim, LedgerEntry, NewLedgerEntry, NewStep, OperationProgress, Result, Step, StepChange, StepEnd, Store,
};

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

    /// Writes into the operation's ledger what is about to be made, and returns the entry's number. The same
    /// resource, kind and reference a second time is the same entry, intended again if it had been removed.
    ///
    /// # Errors
    /// [`Error::LeaseLost`](crate::Error::LeaseLost).
    pub async fn ledger_intend(&self, claim: &Claim, entry: &NewLedgerEntry, now: Instant) -> Result<i64> {
        self.pending((claim, entry, now))
    }

    /// Notes that an entry's thing was made, and by what it is found from now on.
    ///
    /// # Errors
    /// [`Error::LeaseLost`](crate::Error::LeaseLost); [`Error::NotFound`](crate::Error::NotFound) of the entry.
    pub async fn ledger_created(&self, claim: &Claim, id: i64, reference: &str, now: Instant) -> Result<()> {
        self.pending((claim, id, reference, now))
    }

    /// Notes that an entry's thing is gone.
    ///
    /// # Errors
    /// [`Error::LeaseLost`](crate::Error::LeaseLost); [`Error::NotFound`](crate::Error::NotFound) of the entry.
    pub async fn ledger_removed(&self, claim: &Claim, id: i64, now: Instant) -> Result<()> {
        self.pending((claim, id, now))
    }

    /// Returns the ledger of an operation, over all attempts, oldest first.
    ///
    /// # Errors
    /// [`Error::Database`](crate::Error::Database).
    pub async fn list_ledger(&self, operation: OperationId) -> Result<Vec<LedgerEntry>> {
        self.pending((operation,))
    }
}
