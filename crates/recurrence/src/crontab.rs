//! Crontab: minute, hour, day of the month, month, day of the week; the old service's sixth field is the second.

use jiff::ToSpan;
use jiff::civil::{Date, DateTime, Time};

use crate::clock::{Clock, all, lowest, one};
use crate::{Error, Extent};

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// How many days are looked at for the next one that matches: 29 February comes back after eight years at most.
const HORIZON_YEARS: i16 = 12;

/// How many days the calendar takes until days of the month fall on the same weekdays again, as long as no
/// century lies between.
const CYCLE_DAYS: i32 = 28 * 365 + 7;

/// A crontab pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Crontab {
    clock: Clock,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether a day has to match both, which is so when one of them is `*`; otherwise one is enough.
    both: bool,
}

impl Crontab {
    pub(crate) fn parse(pattern: &str) -> Result<Self, Error> {
        let fields: Vec<&str> = pattern.split_whitespace().collect();
        let (minute, hour, day, month, weekday, second) = match fields.as_slice() {
            [minute, hour, day, month, weekday] => (minute, hour, day, month, weekday, &"0"),
            [minute, hour, day, month, weekday, second] => (minute, hour, day, month, weekday, second),
            _ => {
                let count = fields.len();
                return Err(Error::pattern(format!(
                    "must have five fields (minute, hour, day of the month, month, day of the week), \
                     or six with seconds last, not {count}"
                )));
            }
        };
        let clock = Clock {
            minutes: field("minute", minute, 0, 59, &[])?,
            hours: field("hour", hour, 0, 23, &[])?,
            seconds: field("second", second, 0, 59, &[])?,
        };
        let days = field("day of the month", day, 1, 31, &[])?;
        let months = field("month", month, 1, 12, &MONTHS)?;
        let weekdays = field("day of the week", weekday, 0, 7, &WEEKDAYS)?;
        let weekdays = (weekdays | weekdays >> 7) & all(7);
        let both = *day == "*" || *weekday == "*";
        let exists = |month: u32| {
            let length = match month {
                2 => 29,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            lowest(days, 1).is_some_and(|day| day <= length)
        };
        if both && !(1..=12).any(|month| months & (1 << month) != 0 && exists(month)) {
            return Err(Error::pattern("names a day that no month has"));
        }
        Ok(Self { clock, days, months, weekdays, both })
    }

    /// Whether the pattern means every hour: then it follows the time that passes, not the clock on the wall.
    pub(crate) fn runs_round_the_clock(&self) -> bool {
        self.clock.hours == all(24)
    }

    /// Returns the first local time after `after`.
    pub(crate) fn next_after(&self, after: DateTime) -> Option<DateTime> {
        let mut date = after.date();
        if self.matches(date) {
            let from = after.time().checked_add(1.nanosecond()).ok();
            if let Some(time) = from.and_then(|from| self.clock.first_from(from)) {
                return Some(date.to_datetime(time));
            }
        }
        date = date.tomorrow().ok()?;
        Some(self.next_day(date)?.to_datetime(self.clock.first_from(Time::midnight())?))
    }

    /// Returns the first day from `date` on that matches.
    fn next_day(&self, mut date: Date) -> Option<Date> {
        let last_year = date.year().saturating_add(HORIZON_YEARS);
        while date.year() <= last_year {
            let month = u32::from(date.month().unsigned_abs());
            if self.months & (1 << month) == 0 {
                date = date.last_of_month().tomorrow().ok()?;
            } else if self.matches(date) {
                return Some(date);
            } else {
                date = date.tomorrow().ok()?;
            }
        }
        None
    }

    fn matches(&self, date: Date) -> bool {
        if self.months & one(date.month()) == 0 {
            return false;
        }
        let day = self.days & one(date.day()) != 0;
        let weekday = self.weekdays & one(date.weekday().to_sunday_zero_offset()) != 0;
        if self.both { day && weekday } else { day || weekday }
    }

    /// Returns the shortest and the longest gap between two occurrences on the clock, over a whole cycle of
    /// the calendar from `from` on.
    pub(crate) fn extent(&self, from: Date) -> Option<Extent> {
        let overnight = self.clock.overnight()?;
        let (mut shortest, mut longest) = (i64::MAX, 0);
        if let Some((low, high)) = self.clock.gaps() {
            (shortest, longest) = (low, high);
        }
        let mut last = self.next_day(from)?;
        let end = from.checked_add(CYCLE_DAYS.days()).ok()?;
        while let Some(next) = last.tomorrow().ok().and_then(|day| self.next_day(day)) {
            let days = i64::from((next - last).get_days());
            let gap = overnight + (days - 1) * 86_400;
            (shortest, longest) = (shortest.min(gap), longest.max(gap));
            last = next;
            if next > end {
                break;
            }
        }
        (longest > 0).then_some(Extent { shortest, longest })
    }
}

/// Reads one field: `*`, numbers, names, ranges, steps, and lists of them.
fn field(what: &str, text: &str, min: u32, max: u32, names: &[&str]) -> Result<u64, Error> {
    let refuse = || Error::pattern(format!("`{text}` is no {what}"));
    let number = |text: &str| -> Result<u32, Error> {
        let lower = text.to_ascii_lowercase();
        if let Some(at) = names.iter().position(|name| *name == lower) {
            return Ok(min + u32::try_from(at).map_err(|_| refuse())?);
        }
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { text.parse::<u32>().ok() } else { None };
        number.filter(|number| (min..=max).contains(number)).ok_or_else(refuse)
    };
    let mut values = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                let step = step.parse::<u32>().ok().filter(|step| (1..=max.max(1)).contains(step));
                (range, Some(step.ok_or_else(refuse)?))
            }
            None => (part, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (min, max),
            Some((from, to)) => {
                let from = number(from)?;
                // A week that ends on Sunday is written so: `fri-sun`.
                let ends_the_week = names == WEEKDAYS && to.eq_ignore_ascii_case("sun");
                let to = if ends_the_week { max } else { number(to)? };
                (from, to)
            }
            None => {
                let from = number(range)?;
                (from, if step.is_some() { max } else { from })
            }
        };
        if from > to {
            return Err(refuse());
        }
        for value in (from..=to).step_by(usize::try_from(step.unwrap_or(1)).unwrap_or(1)) {
            values |= 1 << value;
        }
    }
    Ok(values)
}
