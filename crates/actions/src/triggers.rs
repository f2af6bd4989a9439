//! Triggers: when something is done.

mod pattern;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use karbor_policy::Attributes;
use karbor_store::{Filter, Trigger, TriggerColumn, TriggerUpdate};
use karbor_types::{Instant, TriggerId};
use serde_json::{Map, Value, json};

use crate::list::{ListRules, Meaning, query};
use crate::{Actions, Caller, Error, ListRequest, Page, Result, TimeFormat};

/// The only type of trigger.
const TIME: &str = "time";

/// How times are written in properties; always UTC.
const TIME_PATTERN: &str = "%Y-%m-%d %H:%M:%S";

/// A trigger to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTrigger {
    /// Its name.
    pub name: String,
    /// Its type: `time`.
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
        let trigger = Trigger {
            id: TriggerId(self.new_id()),
            name: new.name,
            project: caller.project.clone(),
            kind: new.kind,
            properties: self.checked_properties(new.properties)?,
            next_at: None,
            created_at: self.now(),
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
            update.properties = Some(self.checked_properties(properties)?);
            update.next_at = Some(None);
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

    /// Checks properties as a whole, fills in the start, and writes times in one way.
    fn checked_properties(&self, mut properties: Map<String, Value>) -> Result<Map<String, Value>> {
        let settings = self.settings();
        let text = |name: &str| properties.get(name).and_then(Value::as_str).map(str::to_owned);
        let wrong =
            |name: &str, reason: &str| Error::invalid(format!("trigger_info.properties.{name}: {reason}"));

        let start = match text("start_time") {
            Some(start) => time(&start).map_err(|reason| wrong("start_time", &reason))?,
            None => instant_to_time(self.now()),
        };
        let end = match text("end_time").filter(|end| !end.is_empty()) {
            Some(end) => Some(time(&end).map_err(|reason| wrong("end_time", &reason))?),
            None => None,
        };
        if end.is_some_and(|end| end <= start) {
            return Err(wrong("end_time", "must be later than start_time"));
        }
        if let Some(window) = properties.get("window").and_then(Value::as_i64) {
            let range = i64::from(settings.min_window_seconds)..=i64::from(settings.max_window_seconds);
            if !range.contains(&window) {
                let reason = format!("must be {} to {} seconds", range.start(), range.end());
                return Err(wrong("window", &reason));
            }
        }
        let format = match text("format").as_deref() {
            None => settings.time_format,
            Some("calendar") => TimeFormat::Calendar,
            Some("crontab") => TimeFormat::Crontab,
            Some(_) => return Err(wrong("format", "must be calendar or crontab")),
        };
        let pattern = text("pattern").ok_or_else(|| wrong("pattern", "is required"))?;
        let clock =
            [start.hour(), start.minute(), start.second()].map(|part| u32::try_from(part).unwrap_or(0));
        let second_of_day = clock[0] * 3600 + clock[1] * 60 + clock[2];
        let shortest = pattern::shortest_gap(format, &pattern, second_of_day)
            .map_err(|reason| wrong("pattern", &reason))?;
        if shortest < settings.min_interval_seconds {
            let reason = format!(
                "comes round every {shortest} seconds at times; at least {} are asked for",
                settings.min_interval_seconds
            );
            return Err(wrong("pattern", &reason));
        }
        properties.insert("start_time".to_owned(), Value::from(start.strftime(TIME_PATTERN).to_string()));
        if let Some(end) = end {
            properties.insert("end_time".to_owned(), Value::from(end.strftime(TIME_PATTERN).to_string()));
        }
        Ok(properties)
    }
}

/// Reads `YYYY-MM-DD HH:MM:SS` or the ISO form with `T`, with or without an offset; without one it is UTC.
fn time(text: &str) -> std::result::Result<DateTime, String> {
    let refuse = || "must be a UTC time such as 2030-01-31 23:59:00 or 2030-01-31T23:59:00Z".to_owned();
    if let Ok(timestamp) = text.parse::<jiff::Timestamp>()
        && text.contains('T')
    {
        return Ok(TimeZone::UTC.to_datetime(timestamp));
    }
    let pattern = if text.contains('T') { "%Y-%m-%dT%H:%M:%S" } else { TIME_PATTERN };
    let read = DateTime::strptime(pattern, text).map_err(|_| refuse())?;
    // The reader is lenient about blanks and missing zeros; what it read must be what was written.
    if read.strftime(pattern).to_string() == text { Ok(read) } else { Err(refuse()) }
}

fn instant_to_time(instant: Instant) -> DateTime {
    let timestamp =
        jiff::Timestamp::from_microsecond(instant.as_micros()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    TimeZone::UTC.to_datetime(timestamp)
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
