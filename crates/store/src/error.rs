//! What can go wrong, as kinds that a caller decides on.

use karbor_types::OperationId;

use crate::QuotaResource;

/// The result of a call on the store.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call on the store failed. Nothing of the call's transaction was kept, whatever the variant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such row.
    #[error("{what} {id} does not exist")]
    NotFound {
        /// Which kind of row.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// A row with that id (or name) stands already.
    #[error("{what} {id} exists already")]
    AlreadyExists {
        /// Which kind of row.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// The row is in a state in which this cannot be done.
    #[error("{what} {id} is {state}")]
    Conflict {
        /// Which kind of row.
        what: &'static str,
        /// Its id.
        id: String,
        /// The state that it is in.
        state: String,
    },
    /// Other rows refer to the row.
    #[error("{what} {id} is in use")]
    InUse {
        /// Which kind of row.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// Somebody else has claimed the operation since: stop at once, write nothing more.
    #[error("the lease of operation {operation} is lost")]
    LeaseLost {
        /// The operation.
        operation: OperationId,
    },
    /// The project's limit would be passed.
    #[error("the quota of {limit} {resource} is used up")]
    OverQuota {
        /// What is limited.
        resource: QuotaResource,
        /// The limit.
        limit: u64,
    },
    /// A list was asked for from behind a row that is not in it.
    #[error("marker {marker} is not in the list")]
    UnknownMarker {
        /// The marker.
        marker: String,
    },
    /// The caller passed something that cannot be stored.
    #[error("{what} cannot be stored: {reason}")]
    Invalid {
        /// What was passed.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The database is busy or chose this transaction as a deadlock's victim, and did so at each retry.
    #[error("the database is too busy while {doing}")]
    Busy {
        /// What the store was doing.
        doing: &'static str,
        /// The last refusal of the database; `None` when another caller kept being faster.
        source: Option<sqlx::Error>,
    },
    /// The database refused or cannot be reached.
    #[error("the database failed while {doing}")]
    Database {
        /// What the store was doing.
        doing: &'static str,
        /// The cause.
        source: sqlx::Error,
    },
    /// A row holds what this program cannot read.
    #[error("column {column} of {what} {id} cannot be read: {reason}")]
    Malformed {
        /// Which kind of row.
        what: &'static str,
        /// Its id, as far as known.
        id: String,
        /// The column.
        column: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The URL names no database that this program can use.
    #[error("the database URL cannot be used: {reason}")]
    Url {
        /// Why not; never with the URL's password.
        reason: String,
    },
    /// The database holds the tables of another program (such as the old Karbor's), and is left alone.
    #[error("the database holds a table {table} that is not this program's: give it a database of its own")]
    ForeignSchema {
        /// The table that was found.
        table: &'static str,
    },
    /// The database was migrated by a newer program.
    #[error("the database has schema version {found}, newer than version {known} of this program")]
    NewerSchema {
        /// The version of the database.
        found: u32,
        /// The newest version that this program knows.
        known: u32,
    },
    /// The database has not been migrated to this program's version.
    #[error("the database has schema version {found}, this program needs version {known}: migrate it first")]
    OlderSchema {
        /// The version of the database; 0 for an empty one.
        found: u32,
        /// The version that this program needs.
        known: u32,
    },
}

impl Error {
    /// Returns whether the same call may succeed if it is made again a little later.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy { .. })
    }
}
