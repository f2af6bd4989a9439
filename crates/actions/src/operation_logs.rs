//! Operation logs: what was done.

use karbor_policy::Attributes;
use karbor_store::{Filter, OperationLog, OperationLogColumn};
use karbor_types::OperationLogId;
use serde_json::{Value, json};

use crate::list::{ListRules, Meaning, query};
use crate::{Actions, Caller, ListRequest, Page, Result};

impl Actions {
    /// Returns one record.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound), also when the policy does not let the caller see it.
    pub async fn get_operation_log(&self, caller: &Caller, id: OperationLogId) -> Result<OperationLog> {
        let log = self.store().get_operation_log(id).await?;
        self.allow_seeing(caller, "operation_log:get", attributes(&log), "operation log", &id)?;
        Ok(log)
    }

    /// Lists records.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid), [`Error::UnknownMarker`](crate::Error::UnknownMarker).
    pub async fn list_operation_logs(
        &self,
        caller: &Caller,
        request: &ListRequest,
    ) -> Result<Page<OperationLog>> {
        self.allow(caller, "operation_log:list")?;
        let rules = ListRules {
            open_filters: &["checkpoint_id", "plan_id", "restore_id", "status"],
            column: OperationLogColumn::from_name,
            meaning: |name, value| match OperationLogColumn::from_name(name) {
                Some(column) => Meaning::Condition(Filter::Equals(column, value.into())),
                None => Meaning::Impossible,
            },
        };
        let Some(query) = query(caller, request, &rules)? else { return Ok(Page::empty()) };
        Ok(Page::cut(self.store().list_operation_logs(&query).await?, request.limit))
    }
}

/// What a policy sees of a record.
fn attributes(log: &OperationLog) -> Attributes {
    let value = json!({
        "id": log.id, "project_id": log.project, "operation_type": log.kind, "checkpoint_id": log.checkpoint,
        "plan_id": log.plan, "provider_id": log.provider, "restore_id": log.restore, "status": log.status,
    });
    match value {
        Value::Object(members) => members,
        _ => Attributes::new(),
    }
}
