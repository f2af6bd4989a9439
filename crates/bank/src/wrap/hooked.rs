//! Calls a hook before and after each call: a scheduling point for model tests, a point to be killed at.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;

use crate::wrap::{Call, Operation};
use crate::{Bank, Body, Capabilities, ErrorKind, Key, Meta, Object, PutMode, Result, Version};

/// Where a hook is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Moment {
    /// The call has not been made. An error from the hook is returned in its stead.
    Before,
    /// The call has been made. An error from the hook takes the place of its reply, which is lost.
    After {
        /// How the call failed, if it did.
        error: Option<ErrorKind>,
    },
}

/// What is called: it may wait (for its turn), never return (the caller is dead), or fail.
pub type Hook = Arc<dyn Fn(Moment, Call) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// Calls a hook around each call to another bank.
#[derive(Clone)]
pub struct Hooked {
    inner: Arc<dyn Bank>,
    hook: Hook,
}

impl Hooked {
    /// Wraps `inner`.
    pub fn new<F, Fut>(inner: Arc<dyn Bank>, hook: F) -> Self
    where
        F: Fn(Moment, Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        Self { inner, hook: Arc::new(move |moment, call| Box::pin(hook(moment, call))) }
    }

    async fn around<T>(&self, call: Call, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        (self.hook)(Moment::Before, call.clone()).await?;
        let outcome = work.await;
        let error = outcome.as_ref().err().map(|error| error.kind);
        (self.hook)(Moment::After { error }, call).await?;
        outcome
    }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooked").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[async_trait]
impl Bank for Hooked {
    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<Version> {
        let call = Call::put(key, &body, &mode);
        self.around(call, self.inner.put(key, body, mode)).await
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<Object> {
        self.around(Call::other(Operation::Get, key.as_str()), self.inner.get(key, range)).await
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        self.around(Call::other(Operation::Head, key.as_str()), self.inner.head(key)).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.around(Call::other(Operation::Delete, key.as_str()), self.inner.delete(key)).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Meta>> {
        let call = Call::other(Operation::List, prefix);
        self.around(call, self.inner.list(prefix, after, limit)).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn name(&self) -> String {
        self.inner.name()
    }
}
