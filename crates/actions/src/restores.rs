//! Restores: bring a checkpoint back, or find out what that would do.

use karbor_plugin::{Login, Provider};
use karbor_policy::Attributes;
use karbor_store::{
    Checkpoint, DelegationOwner, Filter, NewOperation, NewRestore, Operation, Restore, RestoreColumn,
};
use karbor_types::{
    CheckpointId, CheckpointState, Graph, OperationId, OperationKind, OperationRequest, Parameters,
    ProviderId, RestoreId,
};
use serde_json::{Value, json};
use tracing::info;

use crate::checkpoints::request_of;
use crate::list::{ListRules, Meaning, query};
use crate::{Actions, Caller, Error, ListRequest, Page, Result};

/// A restore that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRestoreRequest {
    /// The provider of the checkpoint.
    pub provider: ProviderId,
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// Parameters by type or resource.
    pub parameters: Parameters,
    /// Where to, as the client wrote it; kept and shown.
    pub target: Option<String>,
    /// The credentials for there; kept sealed until the restore has ended, and never shown.
    pub login: Option<Login>,
}

/// A restore, or the dry run of one.
#[derive(Debug, Clone, PartialEq)]
pub enum RestoreView {
    /// A restore.
    Restore(Restore),
    /// A dry run.
    DryRun(DryRun),
}

/// A restore that is only thought through.
#[derive(Debug, Clone, PartialEq)]
pub struct DryRun {
    /// The operation that does it; its result holds the plan.
    pub operation: Operation,
    /// Where to, as the client wrote it.
    pub target: Option<String>,
    /// Parameters by type or resource.
    pub parameters: Parameters,
}

impl Actions {
    /// Restores a checkpoint: checks that it can be, makes the restore and queues the work.
    ///
    /// # Errors
    /// [`Error::NotFound`] of provider and checkpoint; [`Error::Foreign`] of another project's checkpoint;
    /// [`Error::Conflict`] when it is not available; [`Error::Invalid`] for parameters that the provider's schemas do
    /// not allow.
    pub async fn create_restore(&self, caller: &Caller, request: NewRestoreRequest) -> Result<Restore> {
        self.allow(caller, "restore:create")?;
        let (checkpoint, parameters) = self.check_restore(caller, &request).await?;
        let id = RestoreId(self.new_id());
        let restore = NewRestore {
            id,
            project: caller.project.clone(),
            provider: request.provider,
            checkpoint: request.checkpoint,
            target: request.target.clone(),
            parameters: parameters.clone(),
        };
        let operation = NewOperation {
            checkpoint: Some(checkpoint.id),
            restore: Some(id),
            provider: Some(request.provider),
            request: request_of(
                caller,
                OperationRequest {
                    parameters,
                    elsewhere: request.login.is_some(),
                    ..OperationRequest::default()
                },
            ),
            ..self.new_operation(OperationId(id.0), OperationKind::Restore, caller, &caller.project)
        };
        let owner = DelegationOwner::Operation(operation.id);
        let queue = async { Ok(self.store().create_restore(&restore, &operation, self.now()).await?) };
        let made = self.entrusted(caller, owner, &restore.project, request.login.as_ref(), queue).await?;
        self.wake();
        info!(
            restore.id = %id, checkpoint.id = %checkpoint.id, project.id = %made.project,
            "Queued restore {id} of checkpoint {}", checkpoint.id
        );
        Ok(made)
    }

    /// Queues the work of finding out what a restore would do. Nothing is restored, and no restore is listed.
    ///
    /// # Errors
    /// As [`Actions::create_restore`].
    pub async fn dry_run_restore(&self, caller: &Caller, request: NewRestoreRequest) -> Result<DryRun> {
        let id = OperationId(self.new_id());
        let (operation, parameters) = self.dry_run_to_make(caller, &request, id).await?;
        let owner = DelegationOwner::Operation(operation.id);
        let queue = async { Ok(self.store().create_operation(&operation, self.now()).await?) };
        let operation = self.entrusted(caller, owner, &caller.project, request.login.as_ref(), queue).await?;
        self.wake();
        Ok(DryRun { operation, target: request.target, parameters })
    }

    /// Makes the operation with which [`Actions::dry_run_restore`] finds out.
    async fn dry_run_to_make(
        &self,
        caller: &Caller,
        request: &NewRestoreRequest,
        id: OperationId,
    ) -> Result<(NewOperation, Parameters)> {
        self.trial_to_make(caller, request, id, OperationRequest::default()).await
    }

    /// Makes an operation that finds out whether a restore would succeed, and fails if not.
    pub(crate) async fn restore_test_to_make(
        &self,
        caller: &Caller,
        request: &NewRestoreRequest,
        id: OperationId,
    ) -> Result<(NewOperation, Parameters)> {
        let test = OperationRequest { test: true, ..OperationRequest::default() };
        self.trial_to_make(caller, request, id, test).await
    }

    /// Makes the operation of a restore that restores nothing.
    async fn trial_to_make(
        &self,
        caller: &Caller,
        request: &NewRestoreRequest,
        id: OperationId,
        wish: OperationRequest,
    ) -> Result<(NewOperation, Parameters)> {
        self.allow(caller, "restore:create")?;
        let (checkpoint, parameters) = self.check_restore(caller, request).await?;
        let wish = OperationRequest { parameters: parameters.clone(), dry_run: true, ..wish };
        let operation = NewOperation {
            checkpoint: Some(checkpoint.id),
            provider: Some(request.provider),
            request: request_of(caller, wish),
            log: None,
            ..self.new_operation(id, OperationKind::Restore, caller, &caller.project)
        };
        Ok((operation, parameters))
    }

    /// Returns a restore.
    ///
    /// # Errors
    /// [`Error::NotFound`], also when the policy does not let the caller see it.
    pub async fn get_restore(&self, caller: &Caller, id: RestoreId) -> Result<Restore> {
        let restore = self.store().get_restore(id).await?;
        self.allow_seeing(caller, "restore:get", attributes(&restore), "restore", &id)?;
        Ok(restore)
    }

    /// Returns a restore, or the dry run whose operation has that id.
    ///
    /// # Errors
    /// [`Error::NotFound`], also when the policy does not let the caller see it.
    pub async fn view_restore(&self, caller: &Caller, id: RestoreId) -> Result<RestoreView> {
        match self.get_restore(caller, id).await {
            Ok(restore) => Ok(RestoreView::Restore(restore)),
            Err(missing @ Error::NotFound { .. }) => {
                let Ok(operation) = self.get_operation(caller, OperationId(id.0)).await else {
                    return Err(missing);
                };
                let request = serde_json::from_value::<OperationRequest>(operation.request.clone());
                match request {
                    Ok(request) if request.dry_run => Ok(RestoreView::DryRun(DryRun {
                        operation,
                        target: None,
                        parameters: request.parameters,
                    })),
                    _ => Err(missing),
                }
            }
            Err(err) => Err(err),
        }
    }

    /// Lists restores.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::UnknownMarker`].
    pub async fn list_restores(
        &self,
        caller: &Caller,
        request: &ListRequest,
        open_filters: &[&str],
    ) -> Result<Page<Restore>> {
        self.allow(caller, "restore:get_all")?;
        let rules = ListRules {
            open_filters,
            column: RestoreColumn::from_name,
            meaning: |name, value| match RestoreColumn::from_name(name) {
                Some(column) => Meaning::Condition(Filter::Equals(column, value.into())),
                None => Meaning::Impossible,
            },
        };
        let Some(query) = query(caller, request, &rules)? else { return Ok(Page::empty()) };
        Ok(Page::cut(self.store().list_restores(&query).await?, request.limit))
    }

    /// Looks whether a restore can begin, and returns its checkpoint and its checked parameters.
    async fn check_restore(
        &self,
        caller: &Caller,
        request: &NewRestoreRequest,
    ) -> Result<(Checkpoint, Parameters)> {
        let provider = self.provider(request.provider)?;
        let checkpoint = self.restorable(caller, request.provider, request.checkpoint).await?;
        let operation = OperationKind::Restore;
        let parameters = self.check_run_parameters(&provider, operation, &checkpoint, &request.parameters)?;
        Ok((checkpoint, parameters))
    }

    /// Returns a checkpoint that can be restored or verified.
    pub(crate) async fn restorable(
        &self,
        caller: &Caller,
        provider: ProviderId,
        id: CheckpointId,
    ) -> Result<Checkpoint> {
        let checkpoint = self.checkpoint_of(caller, provider, id).await?;
        if checkpoint.state != CheckpointState::Available {
            return Err(Error::conflict(format!("checkpoint {id} is {}, not available", checkpoint.state)));
        }
        Ok(checkpoint)
    }

    /// Checks parameters for all resources of a checkpoint: each member that is given, then for each resource that
    /// nothing is missing, and that a parameter of one resource names one that is there.
    pub(crate) fn check_run_parameters(
        &self,
        provider: &Provider,
        operation: OperationKind,
        checkpoint: &Checkpoint,
        parameters: &Parameters,
    ) -> Result<Parameters> {
        let checked = provider.check_parameters(operation, parameters)?;
        let Some(packed) = &checkpoint.graph else { return Ok(checked) };
        let graph = Graph::unpack(packed).map_err(|source| Error::Internal {
            doing: "reading a resource graph",
            source: Box::new(source),
        })?;
        for (kind, id, _) in checked.entries() {
            let known = |node: &karbor_types::Resource| {
                node.key.kind.as_str() == kind && id.is_none_or(|id| node.key.id == id)
            };
            if id.is_some() && !graph.nodes().iter().any(known) {
                return Err(Error::invalid(format!(
                    "parameters of `{kind}#{}`: checkpoint {} holds no such resource",
                    id.unwrap_or_default(),
                    checkpoint.id
                )));
            }
        }
        for node in graph.nodes() {
            provider.require(&node.key.kind, operation)?;
            provider.resolve_parameters(operation, &checked, &node.key)?;
        }
        Ok(checked)
    }
}

/// What a policy sees of a restore.
fn attributes(restore: &Restore) -> Attributes {
    let value = json!({
        "id": restore.id, "project_id": restore.project, "provider_id": restore.provider,
        "checkpoint_id": restore.checkpoint, "restore_target": restore.target, "status": restore.state,
    });
    match value {
        Value::Object(members) => members,
        _ => Attributes::new(),
    }
}
