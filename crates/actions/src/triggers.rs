//! Triggers: when something is done.

mod events;
mod preview;
mod times;

use karbor_policy::Attributes;
use karbor_store::{Filter, Trigger, TriggerColumn, TriggerUpdate};
use karbor_types::{Instant, TriggerId};
use serde_json::{Map, Value, json};

use crate::list::{ListRules, Meaning, query};
use crate::{Actions, Caller, Error, ListRequest, Page, Result};

pub use self::events::EventAddress;
pub use self::preview::{MAX_PREVIEW, Preview};
pub(crate) use self::times::has_begun;
pub use self::times::{Asked, TriggerTimes};

/// The type of triggers that fire at times.
pub(crate) const TIME: &str = "time";

/// The type of triggers that fire when they are called.
pub(crate) const EVENT: &str = "event";

/// How often a change is tried while the trigger fires at the same time.
const UPDATE_ATTEMPTS: u32 = 5;

/// A trigger to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTrigger {
    /// Its name.
    pub name: String,
    /// Its type: `time`, or `event` for one that fires when it is called.
    pub kind: String,
    /// `format`, `pattern`, `start_time`, `end_time` (texts) and `window` (a number).
    pub properties: Map<String, Value>,
}

/// What is changed of a trigger; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TriggerChange {
    /// A new name.
    pub name: Option<String>,
    /// The type, for those who send all they know; it cannot be changed.
    pub kind: Option<String>,
    /// Properties that replace those of the same name.
    pub properties: Map<String, Value>,
}

impl Actions {
    /// Makes a trigger.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another type than `time`, or properties that name no times.
    pub async fn create_trigger(&self, caller: &Caller, new: NewTrigger) -> Result<Trigger> {
        self.allow(caller, "trigger:create")?;
        if new.kind != TIME {
            return Err(Error::invalid(format!(
                "trigger_info.type must be `{TIME}`, the only type there is"
            )));
        }
        self.made_trigger(caller, new).await
    }

    /// Checks and stores a trigger of any type.
    async fn made_trigger(&self, caller: &Caller, new: NewTrigger) -> Result<Trigger> {
        let now = self.now();
        let (properties, times) = self.checked_times(&new.kind, new.properties)?;
        let trigger = Trigger {
            id: TriggerId(self.new_id()),
            name: new.name,
            project: caller.project.clone(),
            kind: new.kind,
            properties,
            next_at: times.next_after(now),
            fault: None,
            created_at: now,
            updated_at: None,
        };
        self.store().create_trigger(&trigger).await?;
        Ok(trigger)
    }

    /// Returns a trigger.
    ///
    /// # Errors
    /// [`Error::NotFound`], also when the policy does not let the caller see it.
    pub async fn get_trigger(&self, caller: &Caller, id: TriggerId) -> Result<Trigger> {
        let trigger = self.store().get_trigger(id).await?;
        self.allow_seeing(caller, "trigger:get", attributes(&trigger), "trigger", &id)?;
        Ok(trigger)
    }

    /// Lists triggers.
    ///
    /// # Errors
    /// [`Error::Invalid`], also for an unknown marker.
    pub async fn list_triggers(&self, caller: &Caller, request: &ListRequest) -> Result<Page<Trigger>> {
        self.allow(caller, "trigger:list")?;
        let rules = ListRules {
            open_filters: &["name", "type", "properties"],
            column: TriggerColumn::from_name,
            meaning: |name, value| match name {
                "name" => Meaning::Condition(Filter::Contains(TriggerColumn::Name, value.to_owned())),
                "properties" => {
                    Meaning::Condition(Filter::Contains(TriggerColumn::Properties, value.to_owned()))
                }
                "type" => Meaning::Condition(Filter::Equals(TriggerColumn::Kind, value.into())),
                _ => Meaning::Ignored,
            },
        };
        let request = &ListRequest { offset: 0, ..request.clone() };
        let Some(query) = query(caller, request, &rules).map_err(marker_is_invalid)? else {
            return Ok(Page::empty());
        };
        let found = self.store().list_triggers(&query).await.map_err(|err| marker_is_invalid(err.into()))?;
        Ok(Page::cut(found, request.limit))
    }

    /// Changes a trigger.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another type, or properties that together name no times.
    pub async fn update_trigger(
        &self,
        caller: &Caller,
        id: TriggerId,
        change: TriggerChange,
    ) -> Result<Trigger> {
        let mut attempts = 1;
        loop {
            match self.try_update_trigger(caller, id, change.clone()).await {
                // It fired since it was read: decide again from what it is now.
                Err(Error::Conflict { .. }) if attempts < UPDATE_ATTEMPTS => attempts += 1,
                done => return done,
            }
        }
    }

    async fn try_update_trigger(
        &self,
        caller: &Caller,
        id: TriggerId,
        change: TriggerChange,
    ) -> Result<Trigger> {
        let trigger = self.get_trigger(caller, id).await?;
        self.allow_on(caller, "trigger:update", attributes(&trigger))?;
        if change.kind.as_ref().is_some_and(|kind| *kind != trigger.kind) {
            return Err(Error::invalid(format!(
                "trigger_info.type cannot be changed; it is `{}`",
                trigger.kind
            )));
        }
        let mut update = TriggerUpdate { name: change.name, ..TriggerUpdate::default() };
        if !change.properties.is_empty() {
            let mut properties = trigger.properties.clone();
            properties.extend(change.properties);
            let (properties, times) = self.checked_times(&trigger.kind, properties)?;
            update.properties = Some(properties);
            update.planned = Some(trigger.next_at);
            let now = self.now();
            let unplanned = Instant::from_micros(0);
            // What is due already is handed out before the new times hold: a change loses no occurrence.
            let is_due = trigger.next_at.is_some_and(|at| unplanned < at && at <= now);
            if trigger.kind == TIME && !is_due {
                update.next_at = Some(times.next_after(now));
            }
        }
        if update == TriggerUpdate::default() {
            return Ok(trigger);
        }
        Ok(self.store().update_trigger(id, &update, self.now()).await?)
    }

    /// Deletes a trigger.
    ///
    /// # Errors
    /// [`Error::InUse`] while a scheduled operation refers to it.
    pub async fn delete_trigger(&self, caller: &Caller, id: TriggerId) -> Result<()> {
        let trigger = self.get_trigger(caller, id).await?;
        self.allow_on(caller, "trigger:delete", attributes(&trigger))?;
        Ok(self.store().delete_trigger(id).await?)
    }
}

/// Lists of triggers and scheduled operations call an unknown marker a wrong request.
pub(crate) fn marker_is_invalid(err: Error) -> Error {
    match err {
        Error::UnknownMarker { marker } => {
            Error::invalid(format!("the marker `{marker}` is not in the list"))
        }
        err => err,
    }
}

/// What a policy sees of a trigger.
fn attributes(trigger: &Trigger) -> Attributes {
    let value = json!({
        "id": trigger.id, "name": trigger.name, "project_id": trigger.project, "type": trigger.kind,
    });
    match value {
        Value::Object(members) => members,
        _ => Attributes::new(),
    }
}
