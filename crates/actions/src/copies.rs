//! Copies: bring a plan's checkpoints into the bank of another provider.

use std::collections::HashSet;

use karbor_store::{Checkpoint, CheckpointColumn, CheckpointQuery, Filter, NewCheckpoint, NewOperation};
use karbor_types::{
    CheckpointId, CheckpointState, CopySource, OperationId, OperationKind, OperationRequest, Parameters,
    PlanId, ProviderId,
};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::checkpoints::request_of;
use crate::{Actions, Caller, Error, Result};

/// The provider's setting that names the provider to which its checkpoints are copied.
const TARGET_SETTING: &str = "copy_to";

/// The member of a copy's extra info that names its source.
const COPIED_FROM: &str = "copied_from";

/// At most how many checkpoints one call copies; the next call copies the next ones.
const MOST: u32 = 1000;

/// A wish to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyRequest {
    /// The plan whose checkpoints are copied.
    pub plan: PlanId,
    /// The provider that the caller names; it must be the plan's.
    pub provider: ProviderId,
    /// The provider to whose bank; the provider's setting `copy_to` decides when none is given.
    pub target: Option<ProviderId>,
    /// Parameters that overlay the plan's for this run.
    pub parameters: Parameters,
}

/// One checkpoint that is being copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// The checkpoint.
    pub source: CheckpointId,
    /// Its copy.
    pub copy: CheckpointId,
}

impl Actions {
    /// Copies all available checkpoints of a plan that are no copies themselves and have none there yet.
    ///
    /// # Errors
    /// [`Error::NotFound`] of the plan; [`Error::Invalid`] when the provider is not the plan's, when the plan has no
    /// checkpoint, or when no target is known; [`Error::OverQuota`].
    pub async fn copy_checkpoints(&self, caller: &Caller, request: CopyRequest) -> Result<Vec<Copied>> {
        let (pairs, rows) = self.copies_to_make(caller, request, |_| self.new_id()).await?;
        if !rows.is_empty() {
            self.store().create_checkpoints(&rows, &self.settings().quota, self.now()).await?;
            self.wake();
        }
        Ok(pairs)
    }

    /// Makes the rows with which [`Actions::copy_checkpoints`] copies; `name` gives the copy of a checkpoint its id.
    pub(crate) async fn copies_to_make(
        &self,
        caller: &Caller,
        request: CopyRequest,
        name: impl Fn(CheckpointId) -> Uuid,
    ) -> Result<(Vec<Copied>, Vec<(NewCheckpoint, NewOperation)>)> {
        self.allow(caller, "copy:create")?;
        let plan = self.usable_plan(caller, request.plan).await?;
        if request.provider != plan.provider {
            return Err(Error::invalid(format!(
                "plan {} is protected by provider {}, not by {}",
                plan.id, plan.provider, request.provider
            )));
        }
        let from = self.provider(request.provider)?;
        let of_plan = |provider: ProviderId| CheckpointQuery {
            project: Some(plan.project.clone()),
            filters: vec![
                Filter::Equals(CheckpointColumn::Plan, plan.id.to_string().into()),
                Filter::Equals(CheckpointColumn::Provider, provider.to_string().into()),
            ],
            limit: MOST,
            ..CheckpointQuery::default()
        };
        let sources = self.store().list_checkpoints(&of_plan(request.provider)).await?;
        if sources.is_empty() {
            return Err(Error::invalid(format!("plan {} has no checkpoint to copy", plan.id)));
        }
        let target = match request.target {
            Some(target) => target,
            None => from.settings().get(TARGET_SETTING).and_then(Value::as_str).and_then(|id| id.parse().ok()).ok_or_else(
                || Error::invalid(format!("provider {} has no other provider to copy to: an administrator can name one in its setting `{TARGET_SETTING}`", from.name())),
            )?,
        };
        let to = self.registry().provider(target).ok_or_else(|| {
            Error::invalid(format!("provider {target}, the target of the copy, does not exist"))
        })?;
        if to.bank() == from.bank() {
            return Err(Error::invalid(format!(
                "provider {target} keeps its checkpoints in the same bank as provider {}",
                from.id()
            )));
        }
        self.has_room(&plan.project, to).await?;
        let there = self.store().list_checkpoints(&of_plan(target)).await?;
        let copied: HashSet<&str> = there.iter().filter_map(copied_from).collect();

        let mut pairs = Vec::new();
        let mut rows = Vec::new();
        for source in &sources {
            let is_wanted = source.state == CheckpointState::Available
                && copied_from(source).is_none()
                && !copied.contains(source.id.to_string().as_str());
            if !is_wanted {
                continue;
            }
            for resource in &source.plan.resources {
                // A plugin that keeps bytes outside the bank does not offer to copy.
                from.require(&resource.key.kind, OperationKind::Copy)?;
                to.require(&resource.key.kind, OperationKind::Restore)?;
            }
            let copy = CheckpointId(name(source.id));
            pairs.push(Copied { source: source.id, copy });
            rows.push(self.copy_of(
                caller,
                source,
                copy,
                target,
                &plan.parameters.overlaid(&request.parameters),
            ));
        }
        Ok((pairs, rows))
    }

    fn copy_of(
        &self,
        caller: &Caller,
        source: &Checkpoint,
        id: CheckpointId,
        target: ProviderId,
        parameters: &Parameters,
    ) -> (NewCheckpoint, NewOperation) {
        let created_by = source.extra_info.get("created_by").cloned().unwrap_or(Value::Null);
        let mut plan = source.plan.clone();
        plan.provider_id = target;
        let checkpoint = NewCheckpoint {
            id,
            project: source.project.clone(),
            provider: target,
            plan,
            state: CheckpointState::WaitCopying,
            extra_info: Map::from_iter([
                ("created_by".to_owned(), created_by),
                (COPIED_FROM.to_owned(), Value::from(source.id.to_string())),
            ]),
        };
        let request = OperationRequest {
            parameters: parameters.clone(),
            source: Some(CopySource { checkpoint: source.id, provider: source.provider }),
            ..OperationRequest::default()
        };
        let operation = NewOperation {
            plan: Some(source.plan.id),
            checkpoint: Some(id),
            provider: Some(target),
            request: request_of(caller, request),
            ..self.new_operation(OperationId::from(id), OperationKind::Copy, caller, &source.project)
        };
        (checkpoint, operation)
    }
}

fn copied_from(checkpoint: &Checkpoint) -> Option<&str> {
    checkpoint.extra_info.get(COPIED_FROM).and_then(Value::as_str)
}
