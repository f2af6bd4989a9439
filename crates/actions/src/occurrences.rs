//! Occurrences of scheduled operations: what was done when, and what was not, and why.

mod prepare;
mod retain;

use karbor_policy::Attributes;
use karbor_store::{DueTrigger, Filter, NewOccurrence, Occurrence, OccurrenceColumn, Origin};
use karbor_types::{Instant, OccurrenceState, ProviderId, ScheduledOperationId};
use serde_json::{Map, Value};
use tracing::info;
use uuid::Uuid;

use crate::list::{ListRules, Meaning, query};
use crate::{Actions, Caller, Error, ListRequest, Page, Result, TriggerTimes};

pub use prepare::Decision;
pub(crate) use prepare::{target, thoroughness};

/// A wish to run a scheduled operation now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunNow {
    /// The scheduled operation.
    pub operation: ScheduledOperationId,
}

impl Actions {
    /// Lists the occurrences of a scheduled operation, newest first, also after it was deleted.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::NotFound`] where there is none and the scheduled operation is none of the caller's.
    pub async fn list_occurrences(
        &self,
        caller: &Caller,
        operation: ScheduledOperationId,
        request: &ListRequest,
    ) -> Result<Page<Occurrence>> {
        self.allow(caller, "scheduled_operation:list")?;
        let rules = ListRules {
            open_filters: &["status", "reason", "origin"],
            column: OccurrenceColumn::from_name,
            meaning: |name, value| match OccurrenceColumn::from_name(name) {
                Some(column) => Meaning::Condition(Filter::Equals(column, value.into())),
                None => Meaning::Impossible,
            },
        };
        let Some(mut query) = query(caller, request, &rules)? else { return Ok(Page::empty()) };
        query.filters.push(Filter::Equals(OccurrenceColumn::Operation, operation.to_string().into()));
        let found = self.store().list_occurrences(&query).await?;
        if found.is_empty() {
            self.get_scheduled_operation(caller, operation).await?;
        }
        Ok(Page::cut(found, request.limit))
    }

    /// Runs a scheduled operation now, also a paused one: the occurrence is recorded, and started as soon as there is room.
    ///
    /// # Errors
    /// [`Error::NotFound`], also when the policy does not let the caller see it; [`Error::Forbidden`].
    pub async fn run_now(&self, caller: &Caller, wish: RunNow) -> Result<Occurrence> {
        let found = self.get_scheduled_operation(caller, wish.operation).await?;
        let target = Attributes::from_iter([
            ("project_id".to_owned(), Value::from(found.project.as_str())),
            ("user_id".to_owned(), Value::from(found.user.as_str())),
        ]);
        self.allow_on(caller, "scheduled_operation:run", target)?;
        let provider = found.definition.get("provider_id").and_then(Value::as_str);
        let provider = provider.and_then(|id| id.parse().ok()).unwrap_or(ProviderId(Uuid::nil()));
        let now = self.now();
        let until = now.plus_seconds(i64::from(self.settings().max_window_seconds));
        let new = NewOccurrence {
            operation: found.id,
            operation_type: found.operation_type,
            trigger: found.trigger,
            project: found.project,
            provider,
            at: now,
            origin: Origin::Manual,
            state: OccurrenceState::Ready,
            reason: None,
            priority: found.rules.priority,
            act_at: until,
            until,
        };
        let made = self.store().create_occurrence(&new, now).await?;
        info!(
            occurrence.id = %made.id, scheduled_operation.id = %made.operation, project.id = %made.project,
            "Scheduled operation {} is run by hand", made.operation
        );
        Ok(made)
    }
}

impl Actions {
    /// Returns how long the window of a due trigger is, in seconds, and when it fires next after an instant.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn fires_after(
        &self,
        trigger: &DueTrigger,
        after: Instant,
    ) -> std::result::Result<(u32, Option<Instant>), String> {
        let properties: Map<String, Value> =
            serde_json::from_str(&trigger.properties).map_err(|err| format!("its properties: {err}"))?;
        if trigger.kind != "time" {
            let window = properties.get("window").and_then(Value::as_u64);
            let window = window.and_then(|window| u32::try_from(window).ok());
            return Ok((window.unwrap_or(self.settings().max_window_seconds), None));
        }
        let times = TriggerTimes::read(&properties, self.settings(), after).map_err(|err| err.to_string())?;
        Ok((times.window_seconds(), times.next_after(after)))
    }
}

/// Says that a definition cannot be run, with the member that is wrong.
fn wrong(name: &str, reason: &str) -> Error {
    Error::invalid(format!("operation_definition.{name} {reason}"))
}
