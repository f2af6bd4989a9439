//! When a trigger's occurrences are.
//!
//! A [`Recurrence`] is read from a crontab or an iCalendar pattern and answers one question: which occurrence
//! comes next after an instant. The answer depends on nothing but the pattern, its bounds and its zone: there
//! is no clock, no I/O and no state in between, so any number of schedulers agree on it, and a restart loses
//! nothing.
//!
//! # Daylight saving
//!
//! A pattern names times on a clock in its zone. One rule holds for both formats:
//!
//! - A time that the clock shows twice, when it is set back, occurs once, at its first showing.
//! - A time that the clock skips, when it is set forward, occurs at the instant of the jump. If several times
//!   of a pattern are skipped by one jump, they occur there together, once.
//! - A pattern for *every* hour follows the time that passes and not the clock: a crontab whose hour is `*`,
//!   and rules with FREQ=HOURLY, MINUTELY or SECONDLY without BYHOUR. It occurs whenever the clock shows one
//!   of its times: in both showings of a repeated hour, and not at all in a skipped one. So an hourly backup
//!   stays hourly.
//!
//! # Bounds
//!
//! Every search is bounded ([`expand`]), as are the length of a pattern and the numbers of its rules and dates.
//! What cannot be found within the bounds is refused when the pattern is read.
//!
//! # Why no crate expands the patterns
//!
//! Both formats have good crates (`croner`, `rrule`), and the tests compare with them. But a scheduler needs
//! what they do not give: the next occurrence of a rule that began years ago, without walking all that lie
//! between (`rrule` begins at the start each time); no occurrence lost in a skipped hour (both leave some out);
//! and the shortest gap of a whole pattern.

mod clock;
mod crontab;
mod error;
mod expand;
mod gaps;
mod place;
mod rule;
mod text;

use std::collections::BTreeSet;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use karbor_types::Instant;

use crate::crontab::Crontab;
pub use crate::error::Error;
pub use crate::gaps::Extent;
use crate::rule::{End, Rule};
use crate::text::{Event, Moment};

/// The longest pattern that is read, in bytes.
const MAX_PATTERN_BYTES: usize = 64 * 1024;

/// How a pattern is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// iCalendar: a VEVENT with recurrence rules.
    #[default]
    Calendar,
    /// Crontab: five fields, or six with seconds last.
    Crontab,
}

impl Format {
    /// Returns the text that clients write.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Calendar => "calendar",
            Self::Crontab => "crontab",
        }
    }

    /// Returns the format of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Calendar, Self::Crontab].into_iter().find(|format| format.as_str() == name)
    }
}

/// Between which instants a recurrence occurs, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Nothing occurs before. It also stands for what an iCalendar pattern without DTSTART leaves open.
    pub start: Instant,
    /// Nothing occurs later.
    pub end: Option<Instant>,
}

/// All occurrences of a pattern.
#[derive(Debug, Clone)]
pub struct Recurrence {
    zone: TimeZone,
    start: Timestamp,
    end: Option<Timestamp>,
    patterns: Vec<Pattern>,
    /// Single occurrences beside those of the patterns.
    dates: BTreeSet<Timestamp>,
    excluded: BTreeSet<Timestamp>,
    excluded_days: BTreeSet<Date>,
}

/// What occurs again and again.
#[derive(Debug, Clone)]
struct Pattern {
    times: Times,
    until: Option<Timestamp>,
}

#[derive(Debug, Clone)]
enum Times {
    Crontab(Crontab),
    Rule(Box<Rule>),
}

impl Times {
    fn next_after(&self, after: DateTime) -> Option<DateTime> {
        match self {
            Self::Crontab(crontab) => crontab.next_after(after),
            Self::Rule(rule) => rule.next_after(after),
        }
    }

    fn runs_round_the_clock(&self) -> bool {
        match self {
            Self::Crontab(crontab) => crontab.runs_round_the_clock(),
            Self::Rule(rule) => rule.round_the_clock,
        }
    }
}

impl Recurrence {
    /// Reads a pattern.
    ///
    /// `zone` is a name of the IANA database; an iCalendar pattern whose DTSTART names a zone or UTC has its own.
    ///
    /// # Errors
    /// [`Error`] says which field is wrong and why: the pattern cannot be read or names no time within its
    /// bounds, the zone does not exist, or the end is not after the start.
    pub fn parse(format: Format, pattern: &str, bounds: Bounds, zone: &str) -> Result<Self, Error> {
        let zone = place::zone(zone)?;
        if bounds.end.is_some_and(|end| end <= bounds.start) {
            return Err(Error::EndBeforeStart);
        }
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(Error::pattern(format!("is longer than {MAX_PATTERN_BYTES} bytes")));
        }
        let too_late = || Error::pattern("begins at a time that no calendar has");
        let start = timestamp(bounds.start).ok_or_else(too_late)?;
        let end = bounds.end.and_then(timestamp);
        let empty = Self {
            zone,
            start,
            end,
            patterns: Vec::new(),
            dates: BTreeSet::new(),
            excluded: BTreeSet::new(),
            excluded_days: BTreeSet::new(),
        };
        let recurrence = match format {
            Format::Crontab => {
                let times = Times::Crontab(Crontab::parse(pattern)?);
                Self { patterns: vec![Pattern { times, until: None }], ..empty }
            }
            Format::Calendar => empty.with_event(Event::parse(pattern)?)?,
        };
        if recurrence.next_after(just_before(bounds.start)).is_none() {
            return Err(Error::pattern(if bounds.end.is_some() {
                "names no time between start_time and end_time"
            } else {
                "names no time that comes after start_time"
            }));
        }
        Ok(recurrence)
    }

    /// Takes in what a VEVENT says.
    fn with_event(mut self, event: Event) -> Result<Self, Error> {
        let impossible = || Error::pattern("holds a time that no calendar has");
        // Occurrences are whole seconds.
        let whole = self.start.round(jiff::Unit::Second).map_err(|_| impossible())?;
        let mut anchor = if whole < self.start { whole + 1.second() } else { whole };
        if let Some(start) = &event.start {
            match (start.moment, &start.zone) {
                (Moment::Utc(_), _) => self.zone = TimeZone::UTC,
                (_, Some(zone)) => self.zone = zone.clone(),
                (_, None) => {}
            }
            anchor = start.moment.instant(&self.zone).ok_or_else(impossible)?;
        }
        let local = self.zone.to_datetime(anchor);
        for text in &event.rules {
            let rule = Rule::parse(text, local)?;
            let end = rule.end;
            let mut pattern = Pattern { times: Times::Rule(Box::new(rule)), until: None };
            if pattern.times.next_after(local.checked_sub(1.second()).map_err(|_| impossible())?).is_none() {
                return Err(Error::pattern(format!("its RRULE `{text}` names no time at all")));
            }
            pattern.until = match end {
                End::Never => None,
                End::Until(moment) => Some(moment.instant(&self.zone).ok_or_else(impossible)?),
                End::Count(count) => self.last_of(&pattern, anchor, count),
            };
            self.patterns.push(pattern);
        }
        for date in event.dates {
            let zone = date.zone.as_ref().unwrap_or(&self.zone);
            self.dates.insert(date.moment.instant(zone).ok_or_else(impossible)?);
        }
        for date in event.excluded {
            let zone = date.zone.as_ref().unwrap_or(&self.zone);
            match date.moment {
                Moment::Day(day) => _ = self.excluded_days.insert(day),
                moment => _ = self.excluded.insert(moment.instant(zone).ok_or_else(impossible)?),
            }
        }
        Ok(self)
    }

    /// Returns the occurrence of a pattern that its COUNT ends with.
    fn last_of(&self, pattern: &Pattern, anchor: Timestamp, count: u32) -> Option<Timestamp> {
        let mut last = anchor - 1.nanosecond();
        for _ in 0..count {
            match self.next_of(pattern, last) {
                Some(next) => last = next,
                None => break,
            }
        }
        Some(last)
    }

    /// Returns the first occurrence after `after`.
    pub fn next_after(&self, after: Instant) -> Option<Instant> {
        let mut after = timestamp(after)?.max(self.start - 1.nanosecond());
        // Each turn passes an excluded time or day.
        loop {
            let dated =
                self.dates.range((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded)).next();
            let repeated = self.patterns.iter().filter_map(|pattern| self.next_of(pattern, after));
            let next = repeated.chain(dated.copied()).min()?;
            if self.end.is_some_and(|end| next > end) {
                return None;
            }
            let day = self.zone.to_datetime(next).date();
            if self.excluded_days.contains(&day) {
                let midnight = place::instant(
                    &self.zone,
                    day.tomorrow().ok()?.to_datetime(jiff::civil::Time::midnight()),
                )?;
                after = next.max(midnight - 1.nanosecond());
            } else if self.excluded.contains(&next) {
                after = next;
            } else {
                return Some(Instant::from_micros(next.as_microsecond()));
            }
        }
    }

    /// Returns all occurrences after `after`, in order.
    pub fn upcoming(&self, after: Instant) -> Upcoming<'_> {
        Upcoming { recurrence: self, after: Some(after) }
    }

    /// Returns the first occurrence of one pattern after `after`.
    fn next_of(&self, pattern: &Pattern, after: Timestamp) -> Option<Timestamp> {
        let next = if pattern.times.runs_round_the_clock() {
            self.next_as_time_passes(&pattern.times, after)
        } else {
            self.next_on_the_wall(&pattern.times, after)
        };
        next.filter(|next| pattern.until.is_none_or(|until| *next <= until))
    }

    /// Searches by the clock on the wall, which may jump.
    fn next_on_the_wall(&self, times: &Times, after: Timestamp) -> Option<Timestamp> {
        let mut local = self.zone.to_datetime(after);
        loop {
            local = times.next_after(local)?;
            let next = place::instant(&self.zone, local)?;
            // In the second showing of an hour its times have been already.
            if next > after {
                return Some(next);
            }
        }
    }

    /// Searches from one jump of the clock to the next, as if the clock did not jump in between.
    fn next_as_time_passes(&self, times: &Times, after: Timestamp) -> Option<Timestamp> {
        let mut offset = self.zone.to_offset(after);
        let mut searched = offset.to_datetime(after);
        let mut next = times.next_after(searched)?;
        for jump in self.zone.following(after) {
            if offset.to_timestamp(next).is_ok_and(|next| next < jump.timestamp()) {
                break;
            }
            offset = jump.offset();
            // The time that the clock jumps to may be one of the pattern itself.
            let shown = offset.to_datetime(jump.timestamp() - 1.nanosecond());
            if shown < searched || next <= shown {
                next = times.next_after(shown)?;
            }
            searched = shown;
        }
        offset.to_timestamp(next).ok()
    }
}

/// Iterates over the occurrences of a recurrence.
#[derive(Debug, Clone)]
pub struct Upcoming<'a> {
    recurrence: &'a Recurrence,
    after: Option<Instant>,
}

impl Iterator for Upcoming<'_> {
    type Item = Instant;

    fn next(&mut self) -> Option<Instant> {
        self.after = self.recurrence.next_after(self.after?);
        self.after
    }
}

/// Returns the instant before, so that a search for what comes after it finds `instant` too.
fn just_before(instant: Instant) -> Instant {
    Instant::from_micros(instant.as_micros().saturating_sub(1))
}

fn timestamp(instant: Instant) -> Option<Timestamp> {
    Timestamp::from_microsecond(instant.as_micros()).ok()
}
