//! What ends the service itself. What ends an operation is written to its row.

/// The result of running the service.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the service cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database has not this program's schema.
    #[error("looking at the database's schema")]
    Schema {
        /// What the store said.
        source: karbor_store::Error,
    },
}
