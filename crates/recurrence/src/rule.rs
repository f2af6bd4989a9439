//! One recurrence rule (RRULE) of RFC 5545, read and checked.

use jiff::civil::{DateTime, Weekday};

use crate::clock::{Clock, all, one};
use crate::{Error, text};

/// How many occurrences a rule may count: all of them are walked through when it is read.
const MAX_COUNT: u32 = 10_000;

/// The periods of a rule, from the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Frequency {
    Yearly,
    Monthly,
    Weekly,
    Daily,
    Hourly,
    Minutely,
    Secondly,
}

/// Where a rule ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Never,
    Count(u32),
    Until(text::Moment),
}

/// One rule, with all that it leaves open filled in from its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) frequency: Frequency,
    pub(crate) interval: i64,
    /// Bits 1 to 12; zero means every month.
    pub(crate) months: u64,
    pub(crate) week_numbers: Vec<i16>,
    pub(crate) year_days: Vec<i16>,
    pub(crate) month_days: Vec<i16>,
    /// Bits 0 (Monday) to 6; with `nth_weekdays` empty, zero means every day.
    pub(crate) weekdays: u64,
    pub(crate) nth_weekdays: Vec<(i16, Weekday)>,
    pub(crate) clock: Clock,
    pub(crate) positions: Vec<i64>,
    pub(crate) week_start: Weekday,
    pub(crate) start: DateTime,
    pub(crate) end: End,
    /// Whether the rule follows the time that passes, not the clock on the wall.
    pub(crate) round_the_clock: bool,
}

impl Rule {
    /// Reads the value of an RRULE property; `start` is a whole second.
    pub(crate) fn parse(text: &str, start: DateTime) -> Result<Self, Error> {
        let upper = text.to_ascii_uppercase();
        let parts = Parts::split(&upper)?;
        let frequency = match parts.get("FREQ") {
            Some("YEARLY") => Frequency::Yearly,
            Some("MONTHLY") => Frequency::Monthly,
            Some("WEEKLY") => Frequency::Weekly,
            Some("DAILY") => Frequency::Daily,
            Some("HOURLY") => Frequency::Hourly,
            Some("MINUTELY") => Frequency::Minutely,
            Some("SECONDLY") => Frequency::Secondly,
            Some(other) => return Err(no_part("FREQ", other)),
            None => return Err(Error::pattern("its RRULE has no FREQ")),
        };
        let (weekdays, nth_weekdays) = parts.weekdays(frequency)?;
        let hours = parts.set("BYHOUR", 0, 23)?;
        let minutes = parts.set("BYMINUTE", 0, 59)?;
        let seconds = parts.set("BYSECOND", 0, 60)?;
        let round_the_clock = frequency >= Frequency::Hourly && hours == 0;
        let or = |set: u64, every: Frequency, count: u32, value: i8| match set {
            0 if frequency >= every => all(count),
            0 => one(value),
            set => set,
        };
        let clock = Clock {
            hours: or(hours, Frequency::Hourly, 24, start.hour()),
            minutes: or(minutes, Frequency::Minutely, 60, start.minute()),
            // A leap second is the second before it: clocks of computers do not show it.
            seconds: or(
                if seconds > all(60) { seconds & all(60) | one(59) } else { seconds },
                Frequency::Secondly,
                60,
                start.second(),
            ),
        };
        let mut rule = Self {
            frequency,
            interval: i64::from(parts.number("INTERVAL", u32::MAX)?.unwrap_or(1)),
            months: parts.set("BYMONTH", 1, 12)?,
            week_numbers: parts.list("BYWEEKNO", 53)?,
            year_days: parts.list("BYYEARDAY", 366)?,
            month_days: parts.list("BYMONTHDAY", 31)?,
            weekdays,
            nth_weekdays,
            clock,
            positions: parts.list("BYSETPOS", 366)?.into_iter().map(i64::from).collect(),
            week_start: match parts.get("WKST") {
                None => Weekday::Monday,
                Some(day) => weekday(day).ok_or_else(|| no_part("WKST", day))?,
            },
            start,
            end: parts.end()?,
            round_the_clock,
        };
        rule.check(&parts)?;
        rule.fill_in_days();
        Ok(rule)
    }

    /// Refuses what the standard does not define.
    fn check(&self, parts: &Parts<'_>) -> Result<(), Error> {
        let yearly = self.frequency == Frequency::Yearly;
        if !self.week_numbers.is_empty() && !yearly {
            return Err(Error::pattern("BYWEEKNO in its RRULE needs FREQ=YEARLY"));
        }
        if !self.week_numbers.is_empty() && !self.nth_weekdays.is_empty() {
            return Err(Error::pattern("BYDAY with numbers and BYWEEKNO cannot stand in one RRULE"));
        }
        let no_year_days = [Frequency::Monthly, Frequency::Weekly, Frequency::Daily];
        if !self.year_days.is_empty() && no_year_days.contains(&self.frequency) {
            return Err(Error::pattern("BYYEARDAY in its RRULE needs FREQ=YEARLY"));
        }
        if !self.month_days.is_empty() && self.frequency == Frequency::Weekly {
            return Err(Error::pattern("BYMONTHDAY in its RRULE cannot stand with FREQ=WEEKLY"));
        }
        let lists =
            ["BYMONTH", "BYWEEKNO", "BYYEARDAY", "BYMONTHDAY", "BYDAY", "BYHOUR", "BYMINUTE", "BYSECOND"];
        if !self.positions.is_empty() && lists.iter().all(|name| parts.get(name).is_none()) {
            return Err(Error::pattern("BYSETPOS in its RRULE chooses from no other BY list"));
        }
        Ok(())
    }

    /// Takes from the start which day is meant, where no list says it.
    fn fill_in_days(&mut self) {
        let days_are_named = !self.week_numbers.is_empty()
            || !self.year_days.is_empty()
            || !self.month_days.is_empty()
            || self.weekdays != 0
            || !self.nth_weekdays.is_empty();
        if days_are_named {
            return;
        }
        match self.frequency {
            Frequency::Yearly => {
                if self.months == 0 {
                    self.months = one(self.start.month());
                }
                self.month_days = vec![i16::from(self.start.day())];
            }
            Frequency::Monthly => self.month_days = vec![i16::from(self.start.day())],
            Frequency::Weekly => self.weekdays = one(self.start.weekday().to_monday_zero_offset()),
            _ => {}
        }
    }
}

/// The parts of a rule, by their names.
struct Parts<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Parts<'a> {
    fn split(rule: &'a str) -> Result<Self, Error> {
        const KNOWN: [&str; 14] = [
            "FREQ",
            "INTERVAL",
            "COUNT",
            "UNTIL",
            "WKST",
            "BYSETPOS",
            "BYMONTH",
            "BYWEEKNO",
            "BYYEARDAY",
            "BYMONTHDAY",
            "BYDAY",
            "BYHOUR",
            "BYMINUTE",
            "BYSECOND",
        ];
        let mut parts: Vec<(&str, &str)> = Vec::new();
        for part in rule.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let Some((name, value)) = part.split_once('=') else {
                return Err(Error::pattern(format!("`{part}` of its RRULE has no value")));
            };
            if !KNOWN.contains(&name) {
                return Err(Error::pattern(format!("`{name}` is no part of an RRULE")));
            }
            if parts.iter().any(|(known, _)| *known == name) {
                return Err(Error::pattern(format!("{name} stands twice in its RRULE")));
            }
            parts.push((name, value));
        }
        Ok(Self(parts))
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// Reads one number from 1 to `max`.
    fn number(&self, name: &str, max: u32) -> Result<Option<u32>, Error> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = digits(value).filter(|number| (1..=max).contains(number));
        number.map(Some).ok_or_else(|| no_part(name, value))
    }

    /// Reads a list of numbers from `min` to `max` as a set of bits; empty when it is not there.
    fn set(&self, name: &str, min: u32, max: u32) -> Result<u64, Error> {
        let Some(value) = self.get(name) else { return Ok(0) };
        let mut set = 0;
        for one in value.split(',') {
            let number = digits(one).filter(|number| (min..=max).contains(number));
            set |= 1 << number.ok_or_else(|| no_part(name, value))?;
        }
        Ok(set)
    }

    /// Reads a list of numbers from 1 to `max`, or from -1 to -`max`.
    fn list(&self, name: &str, max: u32) -> Result<Vec<i16>, Error> {
        let Some(value) = self.get(name) else { return Ok(Vec::new()) };
        let mut list = Vec::new();
        for one in value.split(',') {
            list.push(signed(one, max).ok_or_else(|| no_part(name, value))?);
        }
        list.sort_unstable();
        list.dedup();
        Ok(list)
    }

    /// Reads BYDAY: plain days, and those that are counted within a month or a year.
    fn weekdays(&self, frequency: Frequency) -> Result<(u64, Vec<(i16, Weekday)>), Error> {
        let (mut plain, mut counted) = (0, Vec::new());
        let Some(value) = self.get("BYDAY") else { return Ok((plain, counted)) };
        let refuse = || no_part("BYDAY", value);
        for entry in value.split(',') {
            let at = entry.len().saturating_sub(2);
            let (Some(number), Some(day)) = (entry.get(..at), entry.get(at..)) else { return Err(refuse()) };
            let day = weekday(day).ok_or_else(refuse)?;
            if number.is_empty() {
                plain |= one(day.to_monday_zero_offset());
            } else {
                counted.push((signed(number, 53).ok_or_else(refuse)?, day));
            }
        }
        if !counted.is_empty() && frequency > Frequency::Monthly {
            return Err(Error::pattern("BYDAY with numbers in its RRULE needs FREQ=MONTHLY or FREQ=YEARLY"));
        }
        Ok((plain, counted))
    }

    fn end(&self) -> Result<End, Error> {
        match (self.get("COUNT"), self.get("UNTIL")) {
            (Some(_), Some(_)) => Err(Error::pattern("its RRULE has both COUNT and UNTIL")),
            (Some(value), None) => match self.number("COUNT", u32::MAX)? {
                Some(count) if count <= MAX_COUNT => Ok(End::Count(count)),
                _ => {
                    let reason = format!("COUNT={value} in its RRULE is above {MAX_COUNT}; use UNTIL");
                    Err(Error::pattern(reason))
                }
            },
            (None, Some(value)) => {
                text::Moment::parse(value).map(End::Until).ok_or_else(|| no_part("UNTIL", value))
            }
            (None, None) => Ok(End::Never),
        }
    }
}

fn no_part(name: &str, value: &str) -> Error {
    Error::pattern(format!("`{value}` is no {name} of an RRULE"))
}

fn digits(text: &str) -> Option<u32> {
    let all_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits { text.parse().ok() } else { None }
}

fn signed(text: &str, max: u32) -> Option<i16> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let number = digits(unsigned).filter(|number| (1..=max).contains(number))?;
    let number = i16::try_from(number).ok()?;
    Some(if text.starts_with('-') { -number } else { number })
}

fn weekday(text: &str) -> Option<Weekday> {
    Some(match text {
        "MO" => Weekday::Monday,
        "TU" => Weekday::Tuesday,
        "WE" => Weekday::Wednesday,
        "TH" => Weekday::Thursday,
        "FR" => Weekday::Friday,
        "SA" => Weekday::Saturday,
        "SU" => Weekday::Sunday,
        _ => return None,
    })
}
