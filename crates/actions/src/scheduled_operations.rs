//! Scheduled operations: what is done when a trigger fires.

use karbor_policy::Attributes;
use karbor_store::{DelegationOwner, Filter, ScheduledOperation, ScheduledOperationColumn};
use karbor_types::{PlanId, ProviderId, RetentionPolicy, ScheduledOperationId, TriggerId};
use serde_json::{Map, Value, json};

use crate::list::{ListRules, Meaning, query};
use crate::triggers::marker_is_invalid;
use crate::{Actions, Caller, Error, ListRequest, Page, Result};

/// What can be scheduled.
const TYPES: [&str; 2] = ["protect", "retention_protect"];

/// A scheduled operation to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewScheduledOperation {
    /// Its name.
    pub name: String,
    /// What people say about it.
    pub description: Option<String>,
    /// `protect` or `retention_protect`.
    pub operation_type: String,
    /// The trigger.
    pub trigger: TriggerId,
    /// `provider_id`, `plan_id`, for retention `max_backups` and `retention_duration`; plain values only.
    pub definition: Map<String, Value>,
}

impl Actions {
    /// Makes a scheduled operation.
    ///
    /// # Errors
    /// [`Error::NotFound`] of trigger and plan; [`Error::Invalid`] for what is not understood.
    pub async fn create_scheduled_operation(
        &self,
        caller: &Caller,
        new: NewScheduledOperation,
    ) -> Result<ScheduledOperation> {
        self.allow(caller, "scheduled_operation:create")?;
        if !TYPES.contains(&new.operation_type.as_str()) {
            return Err(Error::invalid(format!(
                "scheduled_operation.operation_type must be one of {}",
                TYPES.join(", ")
            )));
        }
        let trigger = self.store().get_trigger(new.trigger).await?;
        if trigger.project != caller.project {
            return Err(if caller.is_admin {
                Error::invalid(format!("trigger {} belongs to another project", new.trigger))
            } else {
                Error::not_found("trigger", &new.trigger)
            });
        }
        self.check_definition(caller, &new.definition).await?;
        let operation = ScheduledOperation {
            id: ScheduledOperationId(self.new_id()),
            name: new.name,
            description: new.description,
            operation_type: new.operation_type,
            user: caller.user.clone(),
            project: caller.project.clone(),
            trigger: new.trigger,
            definition: new.definition,
            enabled: true,
            created_at: self.now(),
            updated_at: None,
        };
        let owner = DelegationOwner::ScheduledOperation(operation.id);
        let queue = async { Ok(self.store().create_scheduled_operation(&operation).await?) };
        self.entrusted(caller, owner, &operation.project, None, queue).await?;
        Ok(operation)
    }

    /// Returns a scheduled operation.
    ///
    /// # Errors
    /// [`Error::NotFound`], also when the policy does not let the caller see it.
    pub async fn get_scheduled_operation(
        &self,
        caller: &Caller,
        id: ScheduledOperationId,
    ) -> Result<ScheduledOperation> {
        let found = self.store().get_scheduled_operation(id).await?;
        let what = "scheduled operation";
        self.allow_seeing(caller, "scheduled_operation:get", attributes(&found), what, &id)?;
        Ok(found)
    }

    /// Lists scheduled operations.
    ///
    /// # Errors
    /// [`Error::Invalid`], also for an unknown marker.
    pub async fn list_scheduled_operations(
        &self,
        caller: &Caller,
        request: &ListRequest,
    ) -> Result<Page<ScheduledOperation>> {
        use ScheduledOperationColumn as Column;
        self.allow(caller, "scheduled_operation:list")?;
        let rules = ListRules {
            open_filters: &["name", "operation_type", "trigger_id", "operation_definition"],
            column: Column::from_name,
            meaning: |name, value| match name {
                "name" => Meaning::Condition(Filter::Contains(Column::Name, value.to_owned())),
                "operation_definition" => {
                    Meaning::Condition(Filter::Contains(Column::Definition, value.to_owned()))
                }
                "operation_type" => Meaning::Condition(Filter::Equals(Column::OperationType, value.into())),
                "trigger_id" => Meaning::Condition(Filter::Equals(Column::Trigger, value.into())),
                _ => Meaning::Ignored,
            },
        };
        let request = &ListRequest { offset: 0, ..request.clone() };
        let Some(query) = query(caller, request, &rules).map_err(marker_is_invalid)? else {
            return Ok(Page::empty());
        };
        let found = self.store().list_scheduled_operations(&query).await;
        let found = found.map_err(|err| marker_is_invalid(err.into()))?;
        Ok(Page::cut(found, request.limit))
    }

    /// Deletes a scheduled operation.
    ///
    /// # Errors
    /// [`Error::NotFound`], also when the policy does not let the caller see it.
    pub async fn delete_scheduled_operation(&self, caller: &Caller, id: ScheduledOperationId) -> Result<()> {
        let found = self.get_scheduled_operation(caller, id).await?;
        self.allow_on(caller, "scheduled_operation:delete", attributes(&found))?;
        Ok(self.store().delete_scheduled_operation(id).await?)
    }

    async fn check_definition(&self, caller: &Caller, definition: &Map<String, Value>) -> Result<()> {
        let wrong = |name: &str, reason: &str| {
            Error::invalid(format!("scheduled_operation.operation_definition.{name} {reason}"))
        };
        let text = |name: &str| definition.get(name).and_then(Value::as_str).unwrap_or_default();
        let provider: ProviderId =
            text("provider_id").parse().map_err(|_| wrong("provider_id", "must be a provider's id"))?;
        let plan: PlanId = text("plan_id").parse().map_err(|_| wrong("plan_id", "must be a plan's id"))?;
        for name in ["max_backups", "retention_duration"] {
            let fine = match definition.get(name) {
                None => true,
                Some(Value::Number(number)) => number.is_i64(),
                Some(Value::String(text)) => text.trim().parse::<i64>().is_ok(),
                Some(_) => false,
            };
            if !fine {
                return Err(wrong(name, "must be a whole number"));
            }
        }
        RetentionPolicy::from_definition(definition)
            .map_err(|err| wrong(err.field, &format!("must be {}", err.expected)))?;
        let plan = self.usable_plan(caller, plan).await?;
        if plan.project != caller.project {
            return Err(Error::not_found("plan", &plan.id));
        }
        if plan.provider != provider {
            return Err(wrong(
                "provider_id",
                &format!("must be {}, the provider of the plan", plan.provider),
            ));
        }
        Ok(())
    }
}

/// What a policy sees of a scheduled operation.
fn attributes(operation: &ScheduledOperation) -> Attributes {
    let value = json!({
        "id": operation.id, "name": operation.name, "project_id": operation.project,
        "user_id": operation.user, "operation_type": operation.operation_type,
        "trigger_id": operation.trigger, "enabled": operation.enabled,
    });
    match value {
        Value::Object(members) => members,
        _ => Attributes::new(),
    }
}
