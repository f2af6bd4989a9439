//! What the properties of a trigger say about its times.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use karbor_recurrence::{Bounds, Error as RecurrenceError, Extent, Recurrence};
use karbor_types::Instant;
use serde_json::{Map, Value};

use crate::triggers::{EVENT, TIME};
use crate::{Actions, Error, Result, Settings, TimeFormat};

/// How times are written in properties; always UTC.
const TIME_PATTERN: &str = "%Y-%m-%d %H:%M:%S";

/// The zone of a trigger that names none.
const DEFAULT_ZONE: &str = "UTC";

/// When a trigger fires.
#[derive(Debug, Clone)]
pub struct TriggerTimes {
    /// Nothing for a trigger that fires when it is called.
    recurrence: Option<Recurrence>,
    window_seconds: u32,
    start: Option<DateTime>,
    end: Option<DateTime>,
}

/// A property that is wrong, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{property}: {reason}")]
pub struct Asked {
    /// The property.
    pub property: &'static str,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

impl Asked {
    fn new(property: &'static str, reason: impl Into<String>) -> Self {
        Self { property, reason: reason.into() }
    }
}

impl From<RecurrenceError> for Asked {
    fn from(err: RecurrenceError) -> Self {
        Self::new(err.field(), err.reason())
    }
}

impl TriggerTimes {
    /// Reads what a trigger of a type has as properties; `now` is where one without `start_time` begins.
    ///
    /// What was once accepted is read, whatever the limits of the service are by now.
    ///
    /// # Errors
    /// The property that is wrong, and why.
    pub fn of(
        kind: &str,
        properties: &Map<String, Value>,
        settings: &Settings,
        now: Instant,
    ) -> std::result::Result<Self, Asked> {
        let text = |name: &str| properties.get(name).and_then(Value::as_str);
        let window_seconds = match properties.get("window") {
            None | Some(Value::Null) => settings.min_window_seconds,
            Some(window) => whole_number(window)
                .and_then(|window| u32::try_from(window).ok())
                .ok_or_else(|| Asked::new("window", "must be a whole number of seconds"))?,
        };
        match kind {
            TIME => {}
            EVENT => {
                for property in ["format", "pattern", "start_time", "end_time", "time_zone"] {
                    if properties.contains_key(property) {
                        return Err(Asked::new(
                            property,
                            "has no meaning for a trigger that fires when it is called",
                        ));
                    }
                }
                return Ok(Self { recurrence: None, window_seconds, start: None, end: None });
            }
            other => return Err(Asked::new("type", format!("`{other}` is no type of triggers"))),
        }
        let start = match text("start_time") {
            Some(start) => time(start).map_err(|reason| Asked::new("start_time", reason))?,
            None => whole_seconds(now),
        };
        let end = match text("end_time").filter(|end| !end.is_empty()) {
            Some(end) => Some(time(end).map_err(|reason| Asked::new("end_time", reason))?),
            None => None,
        };
        let format = match text("format") {
            None => settings.time_format,
            Some(name) => TimeFormat::from_name(name)
                .ok_or_else(|| Asked::new("format", "must be calendar or crontab"))?,
        };
        let pattern = text("pattern").ok_or_else(|| Asked::new("pattern", "is required"))?;
        let bound = |name, at: DateTime| instant(at).ok_or_else(|| Asked::new(name, "is too far away"));
        let bounds = Bounds {
            start: bound("start_time", start)?,
            end: end.map(|end| bound("end_time", end)).transpose()?,
        };
        let zone = text("time_zone").unwrap_or(DEFAULT_ZONE);
        let recurrence = Recurrence::parse(format, pattern, bounds, zone)?;
        Ok(Self { recurrence: Some(recurrence), window_seconds, start: Some(start), end })
    }

    /// Reads the properties of a trigger that fires at times, as [`TriggerTimes::of`] does.
    ///
    /// # Errors
    /// The property that is wrong, and why.
    pub fn read(
        properties: &Map<String, Value>,
        settings: &Settings,
        now: Instant,
    ) -> std::result::Result<Self, Asked> {
        Self::of(TIME, properties, settings, now)
    }

    /// Holds the times against the limits of the service.
    fn check(
        &self,
        settings: &Settings,
        window_is_given: bool,
    ) -> std::result::Result<Option<Extent>, Asked> {
        let range = settings.min_window_seconds..=settings.max_window_seconds;
        if window_is_given && !range.contains(&self.window_seconds) {
            let reason = format!("must be {} to {} seconds", range.start(), range.end());
            return Err(Asked::new("window", reason));
        }
        let extent = self.extent();
        let Some(Extent { shortest, .. }) = extent else { return Ok(None) };
        if shortest < i64::from(settings.min_interval_seconds) {
            let reason = format!(
                "comes round every {shortest} seconds at times; at least {} are asked for",
                settings.min_interval_seconds
            );
            return Err(Asked::new("pattern", reason));
        }
        if i64::from(self.window_seconds) > shortest {
            let reason =
                format!("must not be longer than {shortest} seconds, which is how soon the next one comes");
            return Err(Asked::new("window", reason));
        }
        Ok(extent)
    }

    /// Returns the first time after an instant; a trigger that fires when it is called has none.
    pub fn next_after(&self, after: Instant) -> Option<Instant> {
        self.recurrence.as_ref()?.next_after(after)
    }

    /// Returns all times after an instant, in order.
    pub fn upcoming(&self, after: Instant) -> impl Iterator<Item = Instant> {
        self.recurrence.iter().flat_map(move |recurrence| recurrence.upcoming(after))
    }

    /// Returns the shortest and the longest time between two of them; nothing where there are not two.
    pub fn extent(&self) -> Option<Extent> {
        self.recurrence.as_ref()?.extent()
    }

    /// Returns how many seconds after its time the trigger may still fire.
    pub const fn window_seconds(&self) -> u32 {
        self.window_seconds
    }

    /// Returns for how many seconds at most the trigger promises nothing new: its longest gap and the window.
    /// `None` when it fires only once.
    pub fn promise_seconds(&self) -> Option<i64> {
        self.extent().map(|extent| extent.longest + i64::from(self.window_seconds))
    }
}

impl Actions {
    /// Checks properties as a whole, fills in the start, and writes times in one way.
    pub(super) fn checked_times(
        &self,
        kind: &str,
        mut properties: Map<String, Value>,
    ) -> Result<(Map<String, Value>, TriggerTimes)> {
        let settings = self.settings();
        let wrong = |asked: Asked| {
            Error::invalid(format!("trigger_info.properties.{}: {}", asked.property, asked.reason))
        };
        let times = TriggerTimes::of(kind, &properties, settings, self.now()).map_err(wrong)?;
        let window_is_given = properties.get("window").is_some_and(|window| !window.is_null());
        times.check(settings, window_is_given).map_err(wrong)?;
        let written = |at: DateTime| Value::from(at.strftime(TIME_PATTERN).to_string());
        if let Some(start) = times.start {
            properties.insert("start_time".to_owned(), written(start));
        }
        if let Some(end) = times.end {
            properties.insert("end_time".to_owned(), written(end));
        }
        Ok((properties, times))
    }
}

/// Returns whether `now` is not before the start that properties name.
pub(crate) fn has_begun(properties: &Map<String, Value>, now: Instant) -> bool {
    let start = properties.get("start_time").and_then(Value::as_str);
    start.and_then(|start| instant(time(start).ok()?)).is_none_or(|start| start <= now)
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

/// Reads a number that came as one or, from the old database, as text.
fn whole_number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn instant(at: DateTime) -> Option<Instant> {
    let timestamp = TimeZone::UTC.to_timestamp(at).ok()?;
    Some(Instant::from_micros(timestamp.as_microsecond()))
}

/// Returns the time of an instant without its fraction of a second, which properties do not show.
fn whole_seconds(instant: Instant) -> DateTime {
    let seconds = instant.as_micros().div_euclid(1_000_000);
    let timestamp = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    TimeZone::UTC.to_datetime(timestamp)
}
