//! Operations that have failed or were cancelled: gone on with, or undone.

use karbor_plugin::Login;
use karbor_store::{DelegationOwner, Error as StoreError, Operation, Reopening};
use karbor_types::{CheckpointState, OperationId, OperationKind, OperationRequest, OperationState};
use tracing::info;

use crate::checkpoints::request_of;
use crate::operations::{OperationView, attributes};
use crate::{Actions, Caller, Error, Result};

impl Actions {
    /// Goes on with a restore that failed or was cancelled: what was restored stays, the rest is tried again.
    ///
    /// `login` is what the restore was asked for with, where it went to another project: it was not kept.
    ///
    /// # Errors
    /// As [`Actions::view_operation`]; [`Error::Conflict`] when it is no restore, has not ended, has succeeded or was
    /// undone, or when its checkpoint is gone; [`Error::Invalid`] without the login that it needs.
    pub async fn resume_operation(
        &self,
        caller: &Caller,
        id: OperationId,
        login: Option<Login>,
    ) -> Result<OperationView> {
        let operation = self.get_operation(caller, id).await?;
        self.allow_on(caller, "operation:resume", attributes(&operation))?;
        let (kind, checkpoint) = match (operation.kind, operation.restore, operation.checkpoint) {
            (kind @ OperationKind::Restore, Some(_), Some(checkpoint)) => (kind, checkpoint),
            (kind, ..) => {
                let text =
                    format!("operation {id} is a {kind}; only a restore can be resumed: start a new {kind}");
                return Err(Error::conflict(text));
            }
        };
        let state = self.store().get_checkpoint(checkpoint).await?.state;
        if state != CheckpointState::Available {
            return Err(Error::conflict(format!("checkpoint {checkpoint} is {state}, not available")));
        }
        self.reopen(caller, operation, Reopening::Resume, login).await?;
        info!(operation.id = %id, "Go on with {kind} {id}: {} asks for it", caller.user);
        self.view_operation(caller, id).await
    }

    /// Removes what a protect or restore that failed or was cancelled made outside the bank, or left there.
    ///
    /// `login` as for [`Actions::resume_operation`].
    ///
    /// # Errors
    /// As [`Actions::view_operation`]; [`Error::Conflict`] when it is of another kind, has not ended or has succeeded;
    /// [`Error::Invalid`] without the login that it needs.
    pub async fn undo_operation(
        &self,
        caller: &Caller,
        id: OperationId,
        login: Option<Login>,
    ) -> Result<OperationView> {
        let operation = self.get_operation(caller, id).await?;
        self.allow_on(caller, "operation:undo", attributes(&operation))?;
        let kind = operation.kind;
        let makes_things = match kind {
            OperationKind::Protect => true,
            OperationKind::Restore => operation.restore.is_some(),
            _ => false,
        };
        if !makes_things {
            let text = format!("operation {id} is a {kind}, which leaves nothing to undo");
            return Err(Error::conflict(text));
        }
        self.reopen(caller, operation, Reopening::CleanUp, login).await?;
        info!(operation.id = %id, "Undo {kind} {id}: {} asks for it", caller.user);
        self.view_operation(caller, id).await
    }

    async fn reopen(
        &self,
        caller: &Caller,
        operation: Operation,
        reopening: Reopening,
        login: Option<Login>,
    ) -> Result<()> {
        let Operation { id, kind, project, epoch, .. } = operation;
        match operation.state {
            OperationState::Failed | OperationState::Cancelled => {}
            OperationState::Succeeded => {
                return Err(Error::conflict(format!(
                    "{kind} {id} has succeeded: there is nothing to be done"
                )));
            }
            state => {
                let text = format!("{kind} {id} is {state}: cancel it first, or wait for its end");
                return Err(Error::conflict(text));
            }
        }
        let request: OperationRequest = serde_json::from_value(operation.request)
            .map_err(|source| Error::Internal { doing: "reading a request", source: Box::new(source) })?;
        if request.undo && reopening == Reopening::Resume {
            // Its steps say that things are there which are not any more.
            return Err(Error::conflict(format!("{kind} {id} was undone: start a new {kind}")));
        }
        let login = match (login, request.elsewhere) {
            (None, true) => {
                let text = "it restored into another project or site: give its restore_auth again, which was not kept";
                return Err(Error::invalid(text));
            }
            (Some(_), false) => {
                let text = "it restored into this project: restore_auth has no meaning for it";
                return Err(Error::invalid(text));
            }
            (login, _) => login,
        };
        let target = match operation.restore {
            Some(restore) => {
                self.store().get_restore(restore).await?.target.filter(|target| !target.is_empty())
            }
            None => None,
        };
        let login = login.map(|login| Login { auth_url: target, ..login });
        let request = OperationRequest { undo: reopening == Reopening::CleanUp, ..request };
        let request = request_of(caller, request);
        let owner = DelegationOwner::Operation(id);
        let queue = async {
            let reopened = self.store().reopen_operation(id, epoch, reopening, &request, self.now()).await;
            reopened.map_err(|err| changed_meanwhile(err, kind, id)).map(drop)
        };
        self.entrusted(caller, owner, &project, login.as_ref(), queue).await?;
        self.wake();
        Ok(())
    }
}

fn changed_meanwhile(err: StoreError, kind: OperationKind, id: OperationId) -> Error {
    match err {
        StoreError::Conflict { state, .. } => Error::conflict(format!("{kind} {id} is {state} meanwhile")),
        err => err.into(),
    }
}
