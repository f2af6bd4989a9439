//! Wrappers around a bank: limits, counts, retries, faults and hooks are never flags inside a driver.
//!
//! Invariant: a wrapper adds no state to the bank and keeps the contract of [`crate::Bank`], except where it
//! is told to break it ([`Faulty`]). Wrappers can be put around each other in any order; the useful one, from
//! the outside in, is counting, retrying, limiting, driver: then a retry pays for its bytes again, and the
//! counts are those of the caller.

mod counting;
mod faulty;
mod hooked;
mod limited;
mod random;
mod retrying;

use std::fmt;

pub use counting::{Counting, OperationStats, Stats};
pub use faulty::{Fault, Faulty, Fired, Rule};
pub use hooked::{Hook, Hooked, Moment};
pub use limited::{LimitOptions, Limited};
pub use retrying::{RetryOptions, Retrying};

use crate::{Body, Key, PutMode};

/// The calls that a bank serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// [`crate::Bank::put`].
    Put,
    /// [`crate::Bank::get`].
    Get,
    /// [`crate::Bank::head`].
    Head,
    /// [`crate::Bank::delete`].
    Delete,
    /// [`crate::Bank::list`].
    List,
}

/// One call, as wrappers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which call it is.
    pub operation: Operation,
    /// The key, or the prefix of a listing.
    pub key: String,
    /// When a put is refused; nothing for the other calls.
    pub mode: Option<PutMode>,
    /// How many bytes a put has; zero for the other calls.
    pub body_bytes: u64,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Put, Self::Get, Self::Head, Self::Delete, Self::List];

    /// Returns the name that errors and counts bear.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Head => "head",
            Self::Delete => "delete",
            Self::List => "list",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Call {
    fn put(key: &Key, body: &Body, mode: &PutMode) -> Self {
        let body_bytes = body_bytes(body);
        Self { operation: Operation::Put, key: key.as_str().to_owned(), mode: Some(mode.clone()), body_bytes }
    }

    fn other(operation: Operation, key: &str) -> Self {
        Self { operation, key: key.to_owned(), mode: None, body_bytes: 0 }
    }
}

/// Returns how many bytes a body has.
pub(crate) fn body_bytes(body: &Body) -> u64 {
    body.iter().map(|piece| piece.len() as u64).sum()
}
