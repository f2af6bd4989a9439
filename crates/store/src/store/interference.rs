//! Coming between: tests let others act before any call of the database, let calls fail, and lose replies.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::store::Inner;
use crate::{Error, Result, Store};

/// What comes between the store and its database.
pub trait Interference: fmt::Debug + Send + Sync {
    /// Is waited for before each read and each transaction; `false` lets it fail, with nothing done.
    fn before<'a>(&'a self, doing: &'static str) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>>;

    /// Returns whether the reply to a commit is lost, although it was done.
    fn loses_reply(&self, doing: &'static str) -> bool;
}

impl Store {
    /// Returns another view of the same database, with something that comes between.
    #[must_use]
    pub fn with_interference(&self, interference: Arc<dyn Interference>) -> Self {
        let database = self.inner.database.clone();
        let interference = Some(interference);
        Self { inner: Arc::new(Inner { database, retries: AtomicU64::new(0), interference }) }
    }

    pub(crate) async fn come_between(&self, doing: &'static str) -> Result<()> {
        match &self.inner.interference {
            Some(interference) if !interference.before(doing).await => Err(failure(doing)),
            _ => Ok(()),
        }
    }

    pub(crate) fn may_lose_reply<T>(&self, doing: &'static str, done: Result<T>) -> Result<T> {
        match &self.inner.interference {
            Some(interference) if done.is_ok() && interference.loses_reply(doing) => Err(failure(doing)),
            _ => done,
        }
    }
}

fn failure(doing: &'static str) -> Error {
    Error::Database { doing, source: sqlx::Error::Io(std::io::Error::other("a test wanted it so")) }
}
