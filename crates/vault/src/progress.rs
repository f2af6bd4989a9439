//! How callers hear how far a piece of work has come.

/// Hears of progress. Called from worker threads, many times a second: it must be cheap and must not block.
pub trait ProgressSink: Send + Sync {
    /// `done` more bytes of the source are dealt with (read, known unchanged, or holes), for which `stored` more
    /// bytes went to the bank.
    fn advance(&self, done: u64, stored: u64);

    /// It is known now how many bytes there are in all.
    fn total(&self, bytes: u64);
}
