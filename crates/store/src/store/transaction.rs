//! Transactions that are tried again when they lose against another one.
//!
//! PostgreSQL and MariaDB may pick a transaction as a deadlock's victim, and Galera answers a conflict between two
//! nodes as a deadlock at commit. In each such case it was rolled back whole, so that running it again is safe; any
//! other failure is not tried again, because at a commit it is not known what became of it.

use std::sync::atomic::Ordering;

use crate::sql::{Transaction, pause};
use crate::{Result, Store};

/// How often a transaction is tried before its caller is told that the database is busy.
const ATTEMPTS: u32 = 12;

/// The attempts at one transaction.
#[derive(Debug)]
pub(crate) struct Attempts<'a> {
    store: &'a Store,
    doing: &'static str,
    made: u32,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(store: &'a Store, doing: &'static str) -> Self {
        Self { store, doing, made: 0 }
    }

    pub(crate) async fn begin(&mut self) -> Result<Transaction> {
        self.made += 1;
        #[cfg(feature = "failpoints")]
        self.store.come_between(self.doing).await?;
        self.store.inner.database.begin(self.doing).await
    }

    /// Ends an attempt: commits it if it went well. `None` asks for another one.
    pub(crate) async fn settle<T>(&mut self, tx: Transaction, outcome: Result<T>) -> Option<Result<T>> {
        let settled = match outcome {
            Ok(value) => {
                let done = tx.commit().await.map(|()| value);
                #[cfg(feature = "failpoints")]
                let done = self.store.may_lose_reply(self.doing, done);
                done
            }
            Err(error) => {
                tx.roll_back().await;
                Err(error)
            }
        };
        match settled {
            Err(error) if error.is_retryable() && self.made < ATTEMPTS => {
                let salt = self.store.inner.retries.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "Trying again after attempt {} at {}",
                    self.made,
                    self.doing
                );
                tokio::time::sleep(pause(self.made, salt)).await;
                None
            }
            settled => Some(settled),
        }
    }
}

/// Runs a block as one transaction, again and again while it loses against others: it must do nothing but use `$tx`.
macro_rules! transaction {
    ($store:expr, $doing:expr, |$tx:ident| $body:block) => {{
        let mut attempts = $crate::store::transaction::Attempts::new($store, $doing);
        loop {
            let mut begun = attempts.begin().await?;
            let outcome: $crate::Result<_> = async {
                let $tx = &mut begun;
                $body
            }
            .await;
            if let Some(settled) = attempts.settle(begun, outcome).await {
                break settled;
            }
        }
    }};
}

pub(crate) use transaction;
