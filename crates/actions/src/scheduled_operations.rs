//! Scheduled operations: what is done when a trigger fires.

use karbor_policy::Attributes;
use karbor_store::{
    DelegationOwner, Filter, RunRules, ScheduledOperation, ScheduledOperationColumn, ScheduledOperationUpdate,
};
use karbor_types::{
    CatchUp, PlanId, ProjectId, ProviderId, RetentionPolicy, ScheduledOperationId, TriggerId,
};
use serde_json::{Map, Value, json};

use crate::list::{ListRules, Meaning, query};
use crate::occurrences::{target, thoroughness};
use crate::triggers::marker_is_invalid;
use crate::{Actions, Caller, Error, ListRequest, Page, Result};

/// What can be scheduled; the first two are those of the old service.
const TYPES: [&str; 5] = ["protect", "retention_protect", "verify", "copy", "restore_test"];

/// The longest time over which starts are spread.
const MAX_JITTER_SECONDS: u32 = 86_400;

/// The most retries.
const MAX_RETRIES: u32 = 100;

/// The range of priorities, both ways.
const MAX_PRIORITY: i32 = 1000;

/// A scheduled operation to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewScheduledOperation {
    /// Its name.
    pub name: String,
    /// What people say about it.
    pub description: Option<String>,
    /// `protect`, `retention_protect`, `verify`, `copy` or `restore_test`.
    pub operation_type: String,
    /// The trigger.
    pub trigger: TriggerId,
    /// `provider_id`, `plan_id`, for retention `max_backups` and `retention_duration`; plain values only.
    pub definition: Map<String, Value>,
    /// Whether it is done when the trigger fires.
    pub enabled: bool,
    /// How its occurrences are run. Its roles are the caller's.
    pub rules: RunRules,
}

/// What is changed of a scheduled operation; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ScheduledOperationChange {
    /// A new name.
    pub name: Option<String>,
    /// What people say about it now, or nothing.
    pub description: Option<Option<String>>,
    /// Another trigger.
    pub trigger: Option<TriggerId>,
    /// All of the new definition.
    pub definition: Option<Map<String, Value>>,
    /// Whether it is done when the trigger fires: `false` pauses it.
    pub enabled: Option<bool>,
    /// What is done with the last occurrence that was missed; `Some(None)` is as the service is set, here and below.
    pub catch_up: Option<Option<CatchUp>>,
    /// Over how many seconds starts are spread.
    pub jitter_seconds: Option<Option<u32>>,
    /// How often a failed occurrence is tried again.
    pub retries: Option<Option<u32>>,
    /// The higher, the sooner.
    pub priority: Option<i32>,
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
        self.check_trigger(caller, new.trigger, &caller.project).await?;
        self.check_definition(caller, &new.operation_type, &new.definition).await?;
        check_rules(&new.rules)?;
        let operation = ScheduledOperation {
            id: ScheduledOperationId(self.new_id()),
            name: new.name,
            description: new.description,
            operation_type: new.operation_type,
            user: caller.user.clone(),
            project: caller.project.clone(),
            trigger: new.trigger,
            definition: new.definition,
            enabled: new.enabled,
            rules: RunRules { roles: Some(caller.roles.clone()), ..new.rules },
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

    /// Changes a scheduled operation. It goes on to act for who made it.
    ///
    /// # Errors
    /// [`Error::NotFound`], also of trigger and plan; [`Error::Forbidden`]; [`Error::Invalid`] for what is not understood.
    pub async fn update_scheduled_operation(
        &self,
        caller: &Caller,
        id: ScheduledOperationId,
        change: ScheduledOperationChange,
    ) -> Result<ScheduledOperation> {
        let found = self.get_scheduled_operation(caller, id).await?;
        self.allow_on(caller, "scheduled_operation:update", attributes(&found))?;
        if let Some(trigger) = change.trigger {
            self.check_trigger(caller, trigger, &found.project).await?;
        }
        if let Some(definition) = &change.definition {
            self.check_definition(caller, &found.operation_type, definition).await?;
        }
        let rules = RunRules {
            catch_up: change.catch_up.unwrap_or(found.rules.catch_up),
            jitter_seconds: change.jitter_seconds.unwrap_or(found.rules.jitter_seconds),
            retries: change.retries.unwrap_or(found.rules.retries),
            priority: change.priority.unwrap_or(found.rules.priority),
            roles: found.rules.roles.clone(),
        };
        check_rules(&rules)?;
        let update = ScheduledOperationUpdate {
            name: change.name,
            description: change.description,
            trigger: change.trigger,
            definition: change.definition,
            enabled: change.enabled,
            rules: (rules != found.rules).then_some(rules),
        };
        if update == ScheduledOperationUpdate::default() {
            return Ok(found);
        }
        Ok(self.store().update_scheduled_operation(id, &update, self.now()).await?)
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

    async fn check_trigger(&self, caller: &Caller, id: TriggerId, project: &ProjectId) -> Result<()> {
        let trigger = self.store().get_trigger(id).await?;
        if trigger.project == *project {
            return Ok(());
        }
        Err(if caller.is_admin {
            Error::invalid(format!("trigger {id} belongs to another project"))
        } else {
            Error::not_found("trigger", &id)
        })
    }

    async fn check_definition(
        &self,
        caller: &Caller,
        operation_type: &str,
        definition: &Map<String, Value>,
    ) -> Result<()> {
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
        check_kind(operation_type, definition)?;
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

/// Checks the members of a definition that only one type has.
fn check_kind(operation_type: &str, definition: &Map<String, Value>) -> Result<()> {
    match operation_type {
        "verify" => thoroughness(definition).map(drop),
        "copy" => target(definition).map(drop),
        _ => Ok(()),
    }
}

fn check_rules(rules: &RunRules) -> Result<()> {
    let over = |number: Option<u32>, most: u32| number.is_some_and(|number| number > most);
    if over(rules.jitter_seconds, MAX_JITTER_SECONDS) {
        return Err(Error::invalid(format!(
            "scheduled_operation.jitter_seconds must be 0 to {MAX_JITTER_SECONDS}"
        )));
    }
    if over(rules.retries, MAX_RETRIES) {
        return Err(Error::invalid(format!("scheduled_operation.retries must be 0 to {MAX_RETRIES}")));
    }
    if !(-MAX_PRIORITY..=MAX_PRIORITY).contains(&rules.priority) {
        return Err(Error::invalid(format!(
            "scheduled_operation.priority must be {} to {MAX_PRIORITY}",
            -MAX_PRIORITY
        )));
    }
    Ok(())
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
