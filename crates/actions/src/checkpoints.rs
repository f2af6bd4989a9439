//! Checkpoints: protect now, look, delete, reset.

use karbor_plugin::Provider;
use karbor_store::{
    Checkpoint, CheckpointColumn, CheckpointQuery, DelegationOwner, DeletionCause, Filter, NewCheckpoint,
    NewOperation, Plan, PlanSnapshot,
};
use karbor_types::{
    CheckpointEvent, CheckpointId, CheckpointState, Instant, OperationId, OperationKind, OperationLogId,
    OperationRequest, PlanId, ProjectId, ProviderId, UserId,
};
use serde_json::{Map, Value};
use tracing::{info, warn};

use crate::{Actions, Caller, Error, ListRequest, Page, Result};

/// What is said of who made a checkpoint, unless its maker says otherwise.
const CREATED_BY: &str = "manual";

/// What the operation engine tells of the checkpoints that it makes; retention goes by it, so nobody else may.
pub(crate) const SCHEDULED_OPERATION: &str = "scheduled_operation_id";

/// A checkpoint that somebody wants.
#[derive(Debug, Clone, PartialEq)]
pub struct NewCheckpointRequest {
    /// The plan.
    pub plan: PlanId,
    /// The provider that the caller names; it must be the plan's.
    pub provider: String,
    /// What its maker tells about it.
    pub extra_info: Map<String, Value>,
}

/// Which checkpoints a list shall hold, beside what all lists have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckpointFilter {
    /// Only of that plan.
    pub plan: Option<String>,
    /// Only in that state.
    pub state: Option<String>,
    /// Only those made at that time or later.
    pub since: Option<Instant>,
    /// Only those made before that time.
    pub before: Option<Instant>,
}

/// To what a checkpoint is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// It can be restored; believed only if its commit record stands.
    Available,
    /// It cannot.
    Error,
}

impl Actions {
    /// Protects a plan: makes a checkpoint and queues the work.
    ///
    /// # Errors
    /// [`Error::NotFound`] of the plan; [`Error::Invalid`] when the provider is not the plan's, does not exist any more
    /// or does not handle a resource; [`Error::OverQuota`].
    pub async fn create_checkpoint(
        &self,
        caller: &Caller,
        request: NewCheckpointRequest,
    ) -> Result<Checkpoint> {
        self.allow(caller, "provider:checkpoint_create")?;
        if request.extra_info.contains_key(SCHEDULED_OPERATION) {
            return Err(Error::invalid(format!(
                "checkpoint.extra_info.{SCHEDULED_OPERATION} is told by the operation engine alone; leave it out, or run \
                 the scheduled operation"
            )));
        }
        let plan = self.usable_plan(caller, request.plan).await?;
        if request.provider != plan.provider.to_string() {
            return Err(Error::invalid(format!(
                "plan {} is protected by provider {}, not by `{}`",
                plan.id, plan.provider, request.provider
            )));
        }
        let provider = self
            .registry()
            .provider(plan.provider)
            .ok_or_else(|| Error::invalid(format!("provider {} does not exist any more", plan.provider)))?;
        self.has_room(&plan.project, provider).await?;
        let mut extra_info = Map::from_iter([("created_by".to_owned(), Value::from(CREATED_BY))]);
        extra_info.extend(request.extra_info);
        let id = CheckpointId(self.new_id());
        let (checkpoint, operation) = self.checkpoint_of_plan(caller, plan, id, extra_info)?;
        let quota = &self.settings().quota;
        let owner = DelegationOwner::Operation(operation.id);
        let queue =
            async { Ok(self.store().create_checkpoint(&checkpoint, &operation, quota, self.now()).await?) };
        let made = self.entrusted(caller, owner, &checkpoint.project, None, queue).await?;
        self.wake();
        info!(checkpoint.id = %id, plan.id = %made.plan.id, project.id = %made.project, "Queued checkpoint {id}");
        Ok(made)
    }

    /// Makes the rows with which a plan is protected, if its provider handles all of its resources.
    pub(crate) fn checkpoint_of_plan(
        &self,
        caller: &Caller,
        plan: Plan,
        id: CheckpointId,
        extra_info: Map<String, Value>,
    ) -> Result<(NewCheckpoint, NewOperation)> {
        let provider = self
            .registry()
            .provider(plan.provider)
            .ok_or_else(|| Error::invalid(format!("provider {} does not exist any more", plan.provider)))?;
        for resource in &plan.resources {
            provider.require(&resource.key.kind, OperationKind::Protect)?;
        }
        let parameters = plan.parameters.clone();
        let checkpoint = NewCheckpoint {
            id,
            project: plan.project.clone(),
            provider: plan.provider,
            plan: PlanSnapshot {
                id: plan.id,
                name: plan.name,
                provider_id: plan.provider,
                resources: plan.resources,
            },
            state: CheckpointState::Protecting,
            extra_info,
        };
        let operation = NewOperation {
            plan: Some(plan.id),
            checkpoint: Some(id),
            provider: Some(plan.provider),
            request: request_of(caller, OperationRequest { parameters, ..OperationRequest::default() }),
            ..self.new_operation(OperationId::from(id), OperationKind::Protect, caller, &plan.project)
        };
        Ok((checkpoint, operation))
    }

    /// Returns a checkpoint, also a deleted one.
    ///
    /// # Errors
    /// [`Error::NotFound`], also when the policy refuses or the checkpoint is another provider's;
    /// [`Error::Foreign`] when it is another project's.
    pub async fn get_checkpoint(
        &self,
        caller: &Caller,
        provider: ProviderId,
        id: CheckpointId,
    ) -> Result<Checkpoint> {
        self.allow(caller, "provider:checkpoint_get").map_err(|_| Error::not_found("checkpoint", &id))?;
        self.provider(provider)?;
        self.checkpoint_of(caller, provider, id).await
    }

    /// Lists the checkpoints of a provider, newest first; deleted ones only when that state is asked for.
    ///
    /// # Errors
    /// [`Error::NotFound`] of the provider; [`Error::Invalid`] for an unknown marker.
    pub async fn list_checkpoints(
        &self,
        caller: &Caller,
        provider: ProviderId,
        filter: &CheckpointFilter,
        request: &ListRequest,
    ) -> Result<Page<Checkpoint>> {
        self.allow(caller, "provider:checkpoint_get_all")?;
        let from = self.provider(provider)?;
        let everybody = request.all_tenants && caller.is_admin;
        let mut project = (!everybody).then(|| caller.project.clone());
        if everybody && let Some((_, wanted)) = request.filters.iter().find(|(name, _)| name == "project_id")
        {
            let Ok(wanted) = ProjectId::new(wanted.clone()) else { return Ok(Page::empty()) };
            project = Some(wanted);
        }
        if let Some(project) = &project {
            self.look_into_bank(project, &from).await;
        }
        let mut filters = vec![Filter::Equals(CheckpointColumn::Provider, provider.to_string().into())];
        filters.extend(filter.plan.as_deref().map(|id| Filter::Equals(CheckpointColumn::Plan, id.into())));
        filters.extend(filter.state.as_deref().map(|s| Filter::Equals(CheckpointColumn::State, s.into())));
        filters.extend(filter.since.map(|at| Filter::Since(CheckpointColumn::CreatedAt, at)));
        filters.extend(filter.before.map(|at| Filter::Before(CheckpointColumn::CreatedAt, at)));
        let unknown = |marker: &str| Error::invalid(format!("the marker `{marker}` is not in the list"));
        let marker = match &request.marker {
            None => None,
            Some(marker) => Some(marker.parse::<CheckpointId>().map_err(|_| unknown(marker))?),
        };
        // Keys that checkpoints do not have are not heeded, as ever: the dashboard sends some.
        let sort = request.sort.iter();
        let sort = sort.filter_map(|(key, direction)| Some((CheckpointColumn::from_name(key)?, *direction)));
        let query = CheckpointQuery {
            project,
            filters,
            sort: sort.collect(),
            limit: request.limit.saturating_add(1),
            marker,
            foreign_marker: false,
            offset: 0,
        };
        let found = self.store().list_checkpoints(&query).await.map_err(|err| match Error::from(err) {
            Error::UnknownMarker { marker } => unknown(&marker),
            err => err,
        })?;
        Ok(Page::cut(found, request.limit))
    }

    /// Deletes a checkpoint: moves it to `deleting` and queues the work. Returns the operation that does it.
    ///
    /// # Errors
    /// As [`Actions::get_checkpoint`]; [`Error::Conflict`] when its state does not allow it.
    pub async fn delete_checkpoint(
        &self,
        caller: &Caller,
        provider: ProviderId,
        id: CheckpointId,
    ) -> Result<OperationId> {
        self.allow(caller, "provider:checkpoint_delete")?;
        let checkpoint = self.get_checkpoint(caller, provider, id).await?;
        self.begin_to_delete(caller, &checkpoint, DeletionCause::Request).await
    }

    /// Does what [`Actions::delete_checkpoint`] does, by itself.
    ///
    /// # Errors
    /// [`Error::Conflict`] when its state does not allow it, or while something reads it that has to end first.
    pub(crate) async fn expire_checkpoint(
        &self,
        caller: &Caller,
        checkpoint: &Checkpoint,
    ) -> Result<OperationId> {
        self.allow(caller, "provider:checkpoint_delete")?;
        self.begin_to_delete(caller, checkpoint, DeletionCause::Expiry).await
    }

    async fn begin_to_delete(
        &self,
        caller: &Caller,
        checkpoint: &Checkpoint,
        cause: DeletionCause,
    ) -> Result<OperationId> {
        let id = checkpoint.id;
        let operation = NewOperation {
            plan: Some(checkpoint.plan.id),
            checkpoint: Some(id),
            provider: Some(checkpoint.provider),
            ..self.new_operation(
                OperationId(self.new_id()),
                OperationKind::Delete,
                caller,
                &checkpoint.project,
            )
        };
        let queue = async {
            let started = self.store().start_delete(id, cause, &operation, self.now()).await;
            let is_held = started.is_err() && !self.store().holds(&[id]).await?.is_empty();
            started.map_err(|err| match Error::from(err) {
                Error::Conflict { .. } if is_held => Error::conflict(format!(
                    "checkpoint {id} is held and cannot be deleted: release it first"
                )),
                err @ Error::Conflict { .. } if cause == DeletionCause::Expiry => err,
                Error::Conflict { .. } => Error::conflict(refusal_to_delete(checkpoint)),
                err => err,
            })
        };
        let owner = DelegationOwner::Operation(operation.id);
        self.entrusted(caller, owner, &checkpoint.project, None, queue).await?;
        self.wake();
        info!(checkpoint.id = %id, project.id = %checkpoint.project, "Queued the deletion of checkpoint {id}");
        Ok(operation.id)
    }

    /// Sets a checkpoint's state by hand, where something outside knows better than the service.
    ///
    /// # Errors
    /// As [`Actions::get_checkpoint`]; [`Error::Invalid`] when its state does not allow it; [`Error::Conflict`] for
    /// `available` when its commit record does not stand in the bank.
    pub async fn reset_checkpoint(
        &self,
        caller: &Caller,
        provider: ProviderId,
        id: CheckpointId,
        reset: Reset,
    ) -> Result<Checkpoint> {
        self.allow(caller, "provider:checkpoint_update")?;
        let found = self.provider(provider)?;
        let checkpoint = self.checkpoint_of(caller, provider, id).await?;
        let event = match reset {
            Reset::Available => CheckpointEvent::ResetAvailable,
            Reset::Error => CheckpointEvent::ResetError,
        };
        let refuse = |state| {
            Error::invalid(format!(
                "checkpoint {id} is {state}: only available, error, copying and wait_copying can be reset"
            ))
        };
        if checkpoint.state.after(event).is_none() {
            return Err(refuse(checkpoint.state));
        }
        if reset == Reset::Available && !self.is_committed(&checkpoint, &found).await? {
            return Err(Error::conflict(format!(
                "checkpoint {id} is not whole: its commit record does not stand in the bank"
            )));
        }
        let reset = self.store().reset_checkpoint(id, event, self.now()).await;
        let reset = reset.map_err(|err| match Error::from(err) {
            Error::Conflict { .. } => refuse(checkpoint.state),
            err => err,
        })?;
        warn!(
            checkpoint.id = %id, project.id = %reset.project, user.id = %caller.user,
            "Checkpoint {id} was reset by hand from {} to {}", checkpoint.state, reset.state
        );
        Ok(reset)
    }

    async fn is_committed(&self, checkpoint: &Checkpoint, provider: &Provider) -> Result<bool> {
        let evidence = &self.parts.evidence;
        evidence
            .is_committed(&checkpoint.project, provider, checkpoint.id)
            .await
            .map_err(|source| Error::Unavailable { what: "the bank", source })
    }

    /// Returns a checkpoint that is this provider's and that the caller may touch.
    pub(crate) async fn checkpoint_of(
        &self,
        caller: &Caller,
        provider: ProviderId,
        id: CheckpointId,
    ) -> Result<Checkpoint> {
        let checkpoint = match self.store().get_checkpoint(id).await {
            Err(karbor_store::Error::NotFound { .. })
                if let Some(found) = self.registry().provider(provider).cloned()
                    && self.find_in_bank(&caller.project, &found, id).await? =>
            {
                self.store().get_checkpoint(id).await?
            }
            found => found?,
        };
        if checkpoint.provider != provider {
            return Err(Error::not_found("checkpoint", &id));
        }
        if !caller.may_touch(&checkpoint.project) {
            return Err(if caller.conceals {
                Error::not_found("checkpoint", &id)
            } else {
                Error::Foreign { what: "checkpoint", id: id.to_string() }
            });
        }
        Ok(checkpoint)
    }

    /// Makes an operation that is about nothing yet and is due at once.
    pub(crate) fn new_operation(
        &self,
        id: OperationId,
        kind: OperationKind,
        caller: &Caller,
        project: &ProjectId,
    ) -> NewOperation {
        NewOperation {
            id,
            kind,
            project: project.clone(),
            user: Some::<UserId>(caller.user.clone()),
            plan: None,
            checkpoint: None,
            restore: None,
            verification: None,
            provider: None,
            priority: 0,
            due_at: self.now(),
            request: request_of(caller, OperationRequest::default()),
            log: Some(OperationLogId(self.new_id())),
            scheduled_operation: None,
            occurrence: None,
        }
    }
}

/// Writes down what an operation is asked to do, and in which request.
pub(crate) fn request_of(caller: &Caller, request: OperationRequest) -> Value {
    let request = OperationRequest { request_id: Some(caller.request_id.clone()), ..request };
    serde_json::to_value(request).expect("maps with text keys and plain values are always JSON")
}

fn refusal_to_delete(checkpoint: &Checkpoint) -> String {
    let id = checkpoint.id;
    match checkpoint.state {
        CheckpointState::Deleted => format!("checkpoint {id} is deleted already"),
        CheckpointState::Deleting => format!("checkpoint {id} is being deleted already"),
        CheckpointState::Protecting | CheckpointState::Copying | CheckpointState::WaitCopying => {
            format!("checkpoint {id} is {}: cancel its operation, or wait for its end", checkpoint.state)
        }
        state => format!("checkpoint {id} was changed meanwhile (it was {state}): try again"),
    }
}
