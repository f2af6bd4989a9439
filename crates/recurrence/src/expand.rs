//! The occurrences of a rule on the clock of its place.
//!
//! A search does not walk from the start of the rule: it begins with the period that holds the asked time, and
//! leaps over months, days, hours and minutes that cannot match. Every leap goes forward and the number of them
//! is bounded, so that no pattern, however it is made, holds its reader for long.

use jiff::ToSpan;
use jiff::civil::{Date, DateTime, Time, Weekday};

use crate::clock::{Clock, lowest, one};
use crate::rule::{Frequency, Rule};

/// How many years from the asked time on are searched: after 400 years the calendar repeats itself.
const HORIZON_YEARS: i16 = 400;

/// How many steps a search in periods below a day takes before it gives up.
const MAX_STEPS: u32 = 50_000;

impl Rule {
    /// Returns the first local time of the rule after `after`, without regard to where the rule ends.
    pub(crate) fn next_after(&self, after: DateTime) -> Option<DateTime> {
        let second = after.with().subsec_nanosecond(0).build().ok()?;
        let from = second.checked_add(1.second()).ok()?.max(self.start);
        if self.frequency >= Frequency::Hourly { self.next_by_clock(from) } else { self.next_by_days(from) }
    }

    /// Searches periods of a day and more.
    fn next_by_days(&self, from: DateTime) -> Option<DateTime> {
        let mut place = self.period_of(from.date());
        place -= place.rem_euclid(self.interval);
        let last_year = from.year().saturating_add(HORIZON_YEARS);
        loop {
            let (first, last) = self.period(place)?;
            if first.year() > last_year {
                return None;
            }
            let found = if self.positions.is_empty() {
                self.first_in(first, last, from)
            } else {
                self.position_in(first, last, from)
            };
            if found.is_some() {
                return found;
            }
            place = place.checked_add(self.interval)?;
        }
    }

    /// Returns how many periods after that of the start a day lies.
    fn period_of(&self, date: Date) -> i64 {
        let start = self.start.date();
        let years = i64::from(date.year()) - i64::from(start.year());
        match self.frequency {
            Frequency::Yearly => years,
            Frequency::Monthly => years * 12 + i64::from(date.month()) - i64::from(start.month()),
            Frequency::Weekly => days_between(self.week_of(start), date).div_euclid(7),
            _ => days_between(start, date),
        }
    }

    /// Returns the first and the last day of a period, counted from that of the start.
    fn period(&self, place: i64) -> Option<(Date, Date)> {
        let start = self.start.date();
        match self.frequency {
            Frequency::Yearly => {
                let year = i16::try_from(place).ok()?.checked_add(start.year())?;
                Some((Date::new(year, 1, 1).ok()?, Date::new(year, 12, 31).ok()?))
            }
            Frequency::Monthly => {
                let month = i64::from(start.month()) - 1 + place;
                let year = i16::try_from(month.div_euclid(12)).ok()?.checked_add(start.year())?;
                let first = Date::new(year, i8::try_from(month.rem_euclid(12)).ok()? + 1, 1).ok()?;
                Some((first, first.last_of_month()))
            }
            Frequency::Weekly => {
                let first = plus_days(self.week_of(start), place.checked_mul(7)?)?;
                Some((first, plus_days(first, 6)?))
            }
            _ => plus_days(start, place).map(|day| (day, day)),
        }
    }

    /// Returns the first day of the week that a day lies in.
    fn week_of(&self, date: Date) -> Date {
        let back = days_into_week(date, self.week_start);
        plus_days(date, -i64::from(back)).unwrap_or(date)
    }

    /// Returns the first occurrence of a period that is not before `from`.
    fn first_in(&self, first: Date, last: Date, from: DateTime) -> Option<DateTime> {
        let mut date = first.max(from.date());
        while date <= last {
            if !self.month_matches(date) {
                date = date.last_of_month().tomorrow().ok()?;
                continue;
            }
            if self.matches(date) {
                let earliest = if date == from.date() { from.time() } else { Time::midnight() };
                if let Some(time) = self.clock.first_from(earliest) {
                    return Some(date.to_datetime(time));
                }
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// Returns the first of the chosen occurrences (BYSETPOS) of a period that is not before `from`.
    fn position_in(&self, first: Date, last: Date, from: DateTime) -> Option<DateTime> {
        let mut days = Vec::new();
        let mut date = first;
        while date <= last {
            if !self.month_matches(date) {
                date = date.last_of_month().tomorrow().ok()?;
                continue;
            }
            if self.matches(date) {
                days.push(date);
            }
            date = date.tomorrow().ok()?;
        }
        let times = i64::try_from(self.clock.count()).ok()?;
        let count = i64::try_from(days.len()).ok()?.checked_mul(times)?;
        let mut found: Option<DateTime> = None;
        for place in self.places(count) {
            let day = usize::try_from(place / times).ok().and_then(|at| days.get(at))?;
            let time = self.clock.nth(u64::try_from(place % times).ok()?)?;
            let at = day.to_datetime(time);
            if at >= from && found.is_none_or(|found| at < found) {
                found = Some(at);
            }
        }
        found
    }

    /// Returns the places of the chosen occurrences among `count`, from zero.
    fn places(&self, count: i64) -> impl Iterator<Item = i64> {
        let place = move |position: &i64| if *position > 0 { position - 1 } else { count + position };
        self.positions.iter().map(place).filter(move |place| (0..count).contains(place))
    }

    /// Searches periods below a day.
    fn next_by_clock(&self, from: DateTime) -> Option<DateTime> {
        let unit = match self.frequency {
            Frequency::Hourly => 3600,
            Frequency::Minutely => 60,
            _ => 1,
        };
        let start = seconds_of(self.start)?;
        let base = start - start.rem_euclid(unit);
        let stride = unit.checked_mul(self.interval)?;
        let last_year = from.year().saturating_add(HORIZON_YEARS);
        let mut place = (seconds_of(from)? - base).div_euclid(stride).max(0);
        for _ in 0..MAX_STEPS {
            let seconds = base.checked_add(place.checked_mul(stride)?)?;
            let at = date_time(seconds)?;
            if at.year() > last_year {
                return None;
            }
            match self.leap(at) {
                Some(target) => {
                    let needed = (seconds_of(target)? - base + stride - 1).div_euclid(stride);
                    place = needed.max(place + 1);
                }
                None => {
                    if let Some(found) = self.in_clock_period(at, from) {
                        return Some(found);
                    }
                    place += 1;
                }
            }
        }
        None
    }

    /// Returns the next time that can match, when the period at `at` cannot.
    fn leap(&self, at: DateTime) -> Option<DateTime> {
        let date = at.date();
        let midnight = |date: Date| date.tomorrow().ok().map(|day| day.to_datetime(Time::midnight()));
        if !self.month_matches(date) {
            return midnight(date.last_of_month());
        }
        if !self.matches(date) {
            return midnight(date);
        }
        let [hour, minute, second] =
            [at.hour(), at.minute(), at.second()].map(|part| u32::from(part.unsigned_abs()));
        let to = |hour: u32, minute: u32, second: u32| {
            let [hour, minute, second] = [hour, minute, second].map(|part| i8::try_from(part).unwrap_or(0));
            Some(date.at(hour, minute, second, 0))
        };
        match lowest(self.clock.hours, hour) {
            None => return midnight(date),
            Some(next) if next > hour => return to(next, 0, 0),
            Some(_) => {}
        }
        let next_hour = || if hour < 23 { to(hour + 1, 0, 0) } else { midnight(date) };
        if self.frequency >= Frequency::Minutely {
            match lowest(self.clock.minutes, minute) {
                None => return next_hour(),
                Some(next) if next > minute => return to(hour, next, 0),
                Some(_) => {}
            }
        }
        if self.frequency == Frequency::Secondly {
            match lowest(self.clock.seconds, second) {
                None if minute < 59 => return to(hour, minute + 1, 0),
                None => return next_hour(),
                Some(next) if next > second => return to(hour, minute, next),
                Some(_) => {}
            }
        }
        None
    }

    /// Returns the first occurrence in the period at `at` that is not before `from`.
    fn in_clock_period(&self, at: DateTime, from: DateTime) -> Option<DateTime> {
        let below = |frequency: Frequency, set: u64, value: i8| {
            if self.frequency < frequency { set } else { one(value) }
        };
        let clock = Clock {
            hours: one(at.hour()),
            minutes: below(Frequency::Minutely, self.clock.minutes, at.minute()),
            seconds: below(Frequency::Secondly, self.clock.seconds, at.second()),
        };
        let date = at.date();
        if date < from.date() {
            return None;
        }
        if self.positions.is_empty() {
            let earliest = if date == from.date() { from.time() } else { Time::midnight() };
            return clock.first_from(earliest).map(|time| date.to_datetime(time));
        }
        let count = i64::try_from(clock.count()).ok()?;
        let times = self.places(count).filter_map(|place| clock.nth(u64::try_from(place).ok()?));
        times.map(|time| date.to_datetime(time)).filter(|found| *found >= from).min()
    }

    fn month_matches(&self, date: Date) -> bool {
        self.months == 0 || self.months & one(date.month()) != 0
    }

    /// Whether the lists of days, weeks and weekdays allow a day; the month was looked at before.
    fn matches(&self, date: Date) -> bool {
        let counts = |list: &[i16], number: i16, of: i16| {
            list.is_empty() || list.iter().any(|entry| *entry == number || *entry == number - of - 1)
        };
        let (day, month_length) = (i16::from(date.day()), i16::from(date.days_in_month()));
        if !counts(&self.month_days, day, month_length)
            || !counts(&self.year_days, date.day_of_year(), date.days_in_year())
            || !self.weekday_matches(date)
        {
            return false;
        }
        if self.week_numbers.is_empty() {
            return true;
        }
        let (number, weeks) = week_number(date, self.week_start);
        counts(&self.week_numbers, number, weeks)
    }

    fn weekday_matches(&self, date: Date) -> bool {
        if self.weekdays == 0 && self.nth_weekdays.is_empty() {
            return true;
        }
        let weekday = date.weekday();
        if self.weekdays & one(weekday.to_monday_zero_offset()) != 0 {
            return true;
        }
        let within_month = self.frequency == Frequency::Monthly || self.months != 0;
        let (place, length) = if within_month {
            (i16::from(date.day()), i16::from(date.days_in_month()))
        } else {
            (date.day_of_year(), date.days_in_year())
        };
        let (from_start, from_end) = ((place - 1) / 7 + 1, (length - place) / 7 + 1);
        let counted = |(number, day): &(i16, Weekday)| {
            *day == weekday && (*number == from_start || *number == -from_end)
        };
        self.nth_weekdays.iter().any(counted)
    }
}

/// Returns the number of the week that a day lies in, and how many weeks the year of that week has.
///
/// A week belongs to the year in which most of its days lie, which is that of its fourth.
fn week_number(date: Date, week_start: Weekday) -> (i16, i16) {
    let into = i64::from(days_into_week(date, week_start));
    let Some(fourth) = plus_days(date, 3 - into) else { return (0, 0) };
    let number = (fourth.day_of_year() - 1) / 7 + 1;
    (number, number + (fourth.days_in_year() - fourth.day_of_year()) / 7)
}

fn days_into_week(date: Date, week_start: Weekday) -> i8 {
    (date.weekday().to_monday_zero_offset() - week_start.to_monday_zero_offset()).rem_euclid(7)
}

fn days_between(from: Date, to: Date) -> i64 {
    i64::from((to - from).get_days())
}

fn plus_days(date: Date, days: i64) -> Option<Date> {
    date.checked_add(jiff::Span::new().try_days(days).ok()?).ok()
}

/// Returns the seconds of a local time, counted as if its clock never jumped.
pub(crate) fn seconds_of(at: DateTime) -> Option<i64> {
    jiff::tz::Offset::UTC.to_timestamp(at).ok().map(jiff::Timestamp::as_second)
}

fn date_time(seconds: i64) -> Option<DateTime> {
    Some(jiff::tz::Offset::UTC.to_datetime(jiff::Timestamp::from_second(seconds).ok()?))
}
