//! Verifications: check that a checkpoint is whole.

use karbor_policy::Attributes;
use karbor_store::{
    DelegationOwner, Filter, NewOperation, NewVerification, Verification, VerificationColumn,
};
use karbor_types::{
    CheckpointId, OperationId, OperationKind, OperationRequest, Parameters, ProviderId, Thoroughness,
    VerificationId,
};
use serde_json::{Value, json};
use tracing::info;

use crate::checkpoints::request_of;
use crate::list::{ListRules, Meaning, query};
use crate::{Actions, Caller, ListRequest, Page, Result};

/// A verification that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVerificationRequest {
    /// The provider of the checkpoint.
    pub provider: ProviderId,
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// Parameters by type or resource.
    pub parameters: Parameters,
    /// How much is read.
    pub thoroughness: Thoroughness,
}

impl Actions {
    /// Verifies a checkpoint: checks that it can be, makes the verification and queues the work.
    ///
    /// # Errors
    /// As [`Actions::create_restore`].
    pub async fn create_verification(
        &self,
        caller: &Caller,
        request: NewVerificationRequest,
    ) -> Result<Verification> {
        let id = VerificationId(self.new_id());
        let (verification, operation) = self.verification_to_make(caller, request, id).await?;
        let owner = DelegationOwner::Operation(operation.id);
        let queue =
            async { Ok(self.store().create_verification(&verification, &operation, self.now()).await?) };
        let made = self.entrusted(caller, owner, &verification.project, None, queue).await?;
        self.wake();
        info!(
            verification.id = %id, checkpoint.id = %made.checkpoint, project.id = %made.project,
            "Queued verification {id} of checkpoint {}", made.checkpoint
        );
        Ok(made)
    }

    /// Makes the rows with which [`Actions::create_verification`] verifies.
    pub(crate) async fn verification_to_make(
        &self,
        caller: &Caller,
        request: NewVerificationRequest,
        id: VerificationId,
    ) -> Result<(NewVerification, NewOperation)> {
        self.allow(caller, "verification:create")?;
        let provider = self.provider(request.provider)?;
        let checkpoint = self.restorable(caller, request.provider, request.checkpoint).await?;
        let kind = OperationKind::Verify;
        let parameters = self.check_run_parameters(&provider, kind, &checkpoint, &request.parameters)?;
        let verification = NewVerification {
            id,
            project: caller.project.clone(),
            provider: request.provider,
            checkpoint: request.checkpoint,
            parameters: parameters.clone(),
        };
        let thoroughness = request.thoroughness;
        let wish = OperationRequest { parameters, thoroughness, ..OperationRequest::default() };
        let operation = NewOperation {
            checkpoint: Some(checkpoint.id),
            verification: Some(id),
            provider: Some(request.provider),
            request: request_of(caller, wish),
            ..self.new_operation(OperationId(id.0), kind, caller, &caller.project)
        };
        Ok((verification, operation))
    }

    /// Returns a verification.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound), also when the policy does not let the caller see it.
    pub async fn get_verification(&self, caller: &Caller, id: VerificationId) -> Result<Verification> {
        let found = self.store().get_verification(id).await?;
        self.allow_seeing(caller, "verification:get", attributes(&found), "verification", &id)?;
        Ok(found)
    }

    /// Lists verifications.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid), [`Error::UnknownMarker`](crate::Error::UnknownMarker).
    pub async fn list_verifications(
        &self,
        caller: &Caller,
        request: &ListRequest,
        open_filters: &[&str],
    ) -> Result<Page<Verification>> {
        self.allow(caller, "verification:get_all")?;
        let rules = ListRules {
            open_filters,
            column: VerificationColumn::from_name,
            meaning: |name, value| match VerificationColumn::from_name(name) {
                Some(column) => Meaning::Condition(Filter::Equals(column, value.into())),
                None => Meaning::Impossible,
            },
        };
        let Some(query) = query(caller, request, &rules)? else { return Ok(Page::empty()) };
        Ok(Page::cut(self.store().list_verifications(&query).await?, request.limit))
    }
}

/// What a policy sees of a verification.
fn attributes(verification: &Verification) -> Attributes {
    let value = json!({
        "id": verification.id, "project_id": verification.project, "provider_id": verification.provider,
        "checkpoint_id": verification.checkpoint, "status": verification.state,
    });
    match value {
        Value::Object(members) => members,
        _ => Attributes::new(),
    }
}
