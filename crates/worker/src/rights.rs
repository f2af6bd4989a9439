//! By what right an operation reaches a cloud.

use std::fmt;

use async_trait::async_trait;
use karbor_plugin::Access;
use karbor_types::OperationId;

/// Finds the right that the caller of an operation gave for it.
///
/// Contract: an operation for which none was given has [`Access::None`]. The error's kind tells whether trying again
/// may help; its message is safe for the tenant. It is called once per attempt.
#[async_trait]
pub trait Rights: fmt::Debug + Send + Sync {
    /// Returns the right of an operation.
    async fn of(&self, operation: OperationId) -> karbor_plugin::Result<Access>;
}

/// No operation needs any.
#[derive(Debug)]
pub(crate) struct NoRights;

#[async_trait]
impl Rights for NoRights {
    async fn of(&self, _: OperationId) -> karbor_plugin::Result<Access> {
        Ok(Access::None)
    }
}
