//! iCalendar text (RFC 5545), as far as a recurrence is told by it.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};

use crate::{Error, place};

/// How many RRULE properties a pattern may have.
const MAX_RULES: usize = 16;

/// How many dates RDATE and EXDATE may name together.
const MAX_DATES: usize = 2_000;

/// A date or a time as a property writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// `20300131`
    Day(Date),
    /// `20300131T235900`
    Local(DateTime),
    /// `20300131T235900Z`
    Utc(DateTime),
}

impl Moment {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (text, utc) = match text.strip_suffix(['Z', 'z']) {
            Some(text) => (text, true),
            None => (text, false),
        };
        let number = |from: usize, to: usize| -> Option<i16> {
            let digits = text.get(from..to)?;
            if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
        };
        let part = |from: usize| number(from, from + 2).and_then(|part| i8::try_from(part).ok());
        let date = Date::new(number(0, 4)?, part(4)?, part(6)?).ok()?;
        if text.len() == 8 && !utc {
            return Some(Self::Day(date));
        }
        if text.len() != 15 || !matches!(text.as_bytes().get(8), Some(b'T' | b't')) {
            return None;
        }
        // A leap second is the second before it.
        let time = Time::new(part(9)?, part(11)?, part(13)?.min(59), 0).ok()?;
        let at = date.to_datetime(time);
        Some(if utc { Self::Utc(at) } else { Self::Local(at) })
    }

    /// Returns the instant in a zone; a day is its midnight.
    pub(crate) fn instant(self, zone: &TimeZone) -> Option<jiff::Timestamp> {
        match self {
            Self::Day(date) => place::instant(zone, date.to_datetime(Time::midnight())),
            Self::Local(at) => place::instant(zone, at),
            Self::Utc(at) => Offset::UTC.to_timestamp(at).ok(),
        }
    }
}

/// A moment and the zone that its property names.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) moment: Moment,
    pub(crate) zone: Option<TimeZone>,
}

/// What the VEVENT of a pattern says of its recurrence.
#[derive(Debug, Default)]
pub(crate) struct Event {
    pub(crate) start: Option<Placed>,
    pub(crate) rules: Vec<String>,
    pub(crate) dates: Vec<Placed>,
    pub(crate) excluded: Vec<Placed>,
}

impl Event {
    /// Reads the first VEVENT of a text, with or without a VCALENDAR around it.
    pub(crate) fn parse(pattern: &str) -> Result<Self, Error> {
        let pattern = pattern.trim();
        let written_in_one_line = !pattern.contains('\n') && pattern.contains('\\');
        let text = if written_in_one_line { unescaped(pattern)? } else { pattern.to_owned() };
        let mut event = None;
        // Components inside the VEVENT, such as alarms, have properties of their own.
        let mut inner: Vec<String> = Vec::new();
        for line in unfolded(&text) {
            let line = line.trim();
            let upper = line.to_ascii_uppercase();
            match (upper.split_once(':'), &mut event) {
                (Some(("BEGIN", "VEVENT")), None) => event = Some(Self::default()),
                (Some(("BEGIN", name)), Some(_)) => inner.push(name.to_owned()),
                (Some(("END", name)), Some(_)) if inner.last().is_some_and(|last| last == name) => {
                    inner.pop();
                }
                (Some(("END", "VEVENT")), Some(event)) if inner.is_empty() => {
                    return std::mem::take(event).finished();
                }
                (Some(_), Some(event)) if inner.is_empty() => event.property(line)?,
                _ => {}
            }
        }
        Err(Error::pattern(match event {
            Some(_) => "its VEVENT has no end (END:VEVENT)",
            None => {
                "holds no VEVENT: a calendar pattern is iCalendar text, such as BEGIN:VEVENT, \
                 RRULE:FREQ=DAILY, END:VEVENT on three lines"
            }
        }))
    }

    fn finished(self) -> Result<Self, Error> {
        if self.rules.is_empty() && self.dates.is_empty() {
            return Err(Error::pattern("its VEVENT holds no RRULE"));
        }
        Ok(self)
    }

    /// Takes in one property of the VEVENT.
    fn property(&mut self, line: &str) -> Result<(), Error> {
        let Some((name, parameters, value)) = split(line) else { return Ok(()) };
        match name.to_ascii_uppercase().as_str() {
            "RRULE" => {
                if self.rules.len() == MAX_RULES {
                    return Err(Error::pattern(format!("has more than {MAX_RULES} RRULE properties")));
                }
                self.rules.push(value.to_owned());
            }
            "DTSTART" => {
                if self.start.is_some() {
                    return Err(Error::pattern("DTSTART stands twice in its VEVENT"));
                }
                self.start = Some(Placed { moment: moment("DTSTART", value)?, zone: zone(parameters)? });
            }
            "RDATE" => list("RDATE", parameters, value, &mut self.dates)?,
            "EXDATE" => list("EXDATE", parameters, value, &mut self.excluded)?,
            "EXRULE" => {
                return Err(Error::pattern(
                    "EXRULE is no longer part of iCalendar; name the days with EXDATE",
                ));
            }
            _ => {}
        }
        if self.dates.len() + self.excluded.len() > MAX_DATES {
            return Err(Error::pattern(format!("names more than {MAX_DATES} dates in RDATE and EXDATE")));
        }
        Ok(())
    }
}

fn list(name: &str, parameters: &str, value: &str, into: &mut Vec<Placed>) -> Result<(), Error> {
    let zone = zone(parameters)?;
    for one in value.split(',') {
        // Of a period only its start counts.
        let one = one.split_once('/').map_or(one, |(start, _)| start);
        into.push(Placed { moment: moment(name, one)?, zone: zone.clone() });
    }
    Ok(())
}

fn moment(name: &str, value: &str) -> Result<Moment, Error> {
    let refuse = || Error::pattern(format!("`{value}` is no {name}; write 20300131T235900, with Z for UTC"));
    Moment::parse(value.trim()).ok_or_else(refuse)
}

/// Returns the zone that parameters name with TZID.
fn zone(parameters: &str) -> Result<Option<TimeZone>, Error> {
    for parameter in parameters.split(';') {
        if let Some((name, value)) = parameter.split_once('=')
            && name.eq_ignore_ascii_case("TZID")
        {
            return place::zone(value.trim_matches('"')).map(Some).map_err(|_| {
                Error::pattern(format!(
                    "its time zone `{value}` does not exist; names are those of the IANA database, such as \
                     Europe/Rome"
                ))
            });
        }
    }
    Ok(None)
}

/// Splits a line into name, parameters and value; a colon within quotes is part of a parameter.
fn split(line: &str) -> Option<(&str, &str, &str)> {
    let mut quoted = false;
    let colon = line.char_indices().find_map(|(at, char)| {
        quoted ^= char == '"';
        (char == ':' && !quoted).then_some(at)
    })?;
    let (head, value) = (line.get(..colon)?, line.get(colon + 1..)?);
    let (name, parameters) = head.split_once(';').unwrap_or((head, ""));
    Some((name, parameters, value))
}

/// Undoes the escapes of a JSON string: clients that cannot send line breaks send `\n`.
fn unescaped(pattern: &str) -> Result<String, Error> {
    let refuse = || Error::pattern("holds an escape that is none");
    let mut text = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            text.push(char);
            continue;
        }
        text.push(match chars.next() {
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some(same @ ('\\' | '/' | '"' | ',' | ';')) => same,
            _ => return Err(refuse()),
        });
    }
    Ok(text)
}

/// Returns the lines of iCalendar text; one that begins with a blank goes on with the line before.
fn unfolded(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix([' ', '\t']), lines.last_mut()) {
            (Some(rest), Some(last)) => last.push_str(rest),
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}
