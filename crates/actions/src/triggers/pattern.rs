//! Reads the pattern of a trigger as far as it must be known to accept it: that it names times, and how close
//! together they may come.
//!
//! What the times are is worked out by whoever fires the trigger. What is refused here can never be understood
//! there, so that a trigger that was accepted fires.

use std::collections::BTreeSet;

use crate::TimeFormat;

const DAY: u32 = 86_400;

/// Returns the shortest time in seconds between two occurrences, as far as it is below a day; a day for more.
///
/// `start_second` is the second of the day at which the trigger starts: it stands for what the pattern leaves
/// open.
pub(super) fn shortest_gap(format: TimeFormat, pattern: &str, start_second: u32) -> Result<u32, String> {
    match format {
        TimeFormat::Crontab => crontab(pattern),
        TimeFormat::Calendar => calendar(pattern, start_second),
    }
}

/// Which values of hour, minute and second an occurrence can have.
struct Times {
    hours: BTreeSet<u32>,
    minutes: BTreeSet<u32>,
    seconds: BTreeSet<u32>,
}

impl Times {
    /// Returns the shortest distance around the clock, at most a day.
    fn shortest_gap(&self) -> u32 {
        let mut first = None;
        let mut last = None;
        let mut shortest = DAY;
        for hour in &self.hours {
            for minute in &self.minutes {
                for second in &self.seconds {
                    let at = hour * 3600 + minute * 60 + second;
                    if let Some(last) = last {
                        shortest = shortest.min(at - last);
                    }
                    first = first.or(Some(at));
                    last = Some(at);
                }
            }
        }
        match (first, last) {
            (Some(first), Some(last)) if first != last => shortest.min(first + DAY - last),
            _ => DAY,
        }
    }
}

fn crontab(pattern: &str) -> Result<u32, String> {
    const MONTHS: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let fields: Vec<&str> = pattern.split_whitespace().collect();
    let (minute, hour, day, month, weekday, second) = match fields.as_slice() {
        [minute, hour, day, month, weekday] => (minute, hour, day, month, weekday, &"0"),
        [minute, hour, day, month, weekday, second] => (minute, hour, day, month, weekday, second),
        _ => return Err(format!("must have five fields, or six with seconds last, not {}", fields.len())),
    };
    let times = Times {
        minutes: cron_field("minute", minute, 0, 59, &[])?,
        hours: cron_field("hour", hour, 0, 23, &[])?,
        seconds: cron_field("second", second, 0, 59, &[])?,
    };
    let days = cron_field("day of the month", day, 1, 31, &[])?;
    let months = cron_field("month", month, 1, 12, &MONTHS)?;
    let any_weekday = *weekday == "*";
    cron_field("day of the week", weekday, 0, 7, &DAYS)?;
    let exists = |month: &u32| {
        let length = match month {
            2 => 29,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        days.iter().any(|day| *day <= length)
    };
    if any_weekday && !months.iter().any(exists) {
        return Err("names a day that no month has".to_owned());
    }
    Ok(times.shortest_gap())
}

/// Reads one field: `*`, numbers, names, ranges, steps, and lists of them.
fn cron_field(what: &str, text: &str, min: u32, max: u32, names: &[&str]) -> Result<BTreeSet<u32>, String> {
    let refuse = || format!("`{text}` is no {what}");
    let number = |text: &str| -> Result<u32, String> {
        let lower = text.to_ascii_lowercase();
        if let Some(at) = names.iter().position(|name| *name == lower) {
            return Ok(min + u32::try_from(at).map_err(|_| refuse())?);
        }
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { text.parse::<u32>().ok() } else { None };
        number.filter(|number| (min..=max).contains(number)).ok_or_else(refuse)
    };
    let mut values = BTreeSet::new();
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
            Some((from, to)) => (number(from)?, number(to)?),
            None => {
                let from = number(range)?;
                (from, if step.is_some() { max } else { from })
            }
        };
        if from > to {
            return Err(refuse());
        }
        values.extend((from..=to).step_by(usize::try_from(step.unwrap_or(1)).unwrap_or(1)));
    }
    Ok(values)
}

fn calendar(pattern: &str, start_second: u32) -> Result<u32, String> {
    let text = if pattern.contains('\\') { unescaped(pattern)? } else { pattern.to_owned() };
    let mut inside = false;
    let mut seen = false;
    let mut rules: Vec<String> = Vec::new();
    for line in unfolded(&text) {
        let upper = line.trim().to_ascii_uppercase();
        match upper.as_str() {
            "BEGIN:VEVENT" if !seen => {
                inside = true;
                seen = true;
            }
            "END:VEVENT" => inside = false,
            _ if inside => {
                let rule = upper.strip_prefix("RRULE");
                if let Some((_, rule)) = rule.and_then(|rest| rest.split_once(':')) {
                    rules.push(rule.to_owned());
                }
            }
            _ => {}
        }
    }
    if !seen {
        return Err("holds no VEVENT: a calendar pattern is iCalendar text, such as BEGIN:VEVENT, \
                    RRULE:FREQ=DAILY, END:VEVENT on three lines"
            .to_owned());
    }
    if inside {
        return Err("its VEVENT has no end (END:VEVENT)".to_owned());
    }
    if rules.is_empty() {
        return Err("its VEVENT holds no RRULE".to_owned());
    }
    let mut shortest = DAY;
    for rule in &rules {
        shortest = shortest.min(recurrence(rule, start_second)?);
    }
    Ok(shortest)
}

/// Undoes the escapes of a JSON string: clients that cannot send line breaks send `\n`.
fn unescaped(pattern: &str) -> Result<String, String> {
    let quoted: String = pattern
        .chars()
        .map(|char| match char {
            '"' => "\\\"".to_owned(),
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            other => other.to_string(),
        })
        .collect();
    serde_json::from_str(&format!("\"{quoted}\"")).map_err(|_| "holds an escape that is none".to_owned())
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

/// Reads one recurrence rule and returns its shortest gap.
fn recurrence(rule: &str, start_second: u32) -> Result<u32, String> {
    let mut parts: Vec<(&str, &str)> = Vec::new();
    for part in rule.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, value) =
            part.split_once('=').ok_or_else(|| format!("`{part}` of its RRULE has no value"))?;
        if parts.iter().any(|(known, _)| *known == name) {
            return Err(format!("{name} stands twice in its RRULE"));
        }
        check_part(name, value)?;
        parts.push((name, value));
    }
    let get = |name: &str| parts.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    if get("COUNT").is_some() && get("UNTIL").is_some() {
        return Err("its RRULE has both COUNT and UNTIL".to_owned());
    }
    let frequency = get("FREQ").ok_or("its RRULE has no FREQ")?;
    let interval: u32 = get("INTERVAL").and_then(|value| value.parse().ok()).unwrap_or(1);
    let numbers = |name: &str| -> Option<BTreeSet<u32>> {
        get(name).map(|value| {
            value.split(',').filter_map(|one| one.parse().ok()).map(|n: u32| n.min(59)).collect()
        })
    };
    let (hours, minutes, seconds) = (numbers("BYHOUR"), numbers("BYMINUTE"), numbers("BYSECOND"));
    if get("BYSETPOS").is_some() {
        // One of the set's times is taken from each period: the period is what counts.
        let period = match frequency {
            "SECONDLY" => 1,
            "MINUTELY" => 60,
            "HOURLY" => 3600,
            _ => DAY,
        };
        return Ok(interval.saturating_mul(period).min(DAY));
    }
    // Without lists, the frequencies below a day repeat at their interval exactly.
    let plain = match frequency {
        "SECONDLY" if hours.is_none() && minutes.is_none() && seconds.is_none() => Some(1),
        "MINUTELY" if hours.is_none() && minutes.is_none() && single(seconds.as_ref()) => Some(60),
        "HOURLY" if hours.is_none() && single(minutes.as_ref()) && single(seconds.as_ref()) => Some(3600),
        _ => None,
    };
    if let Some(unit) = plain {
        return Ok(interval.saturating_mul(unit).min(DAY));
    }
    let one = |value: u32| BTreeSet::from([value]);
    let all = |max: u32| (0..max).collect::<BTreeSet<u32>>();
    let every_second = frequency == "SECONDLY";
    let every_minute = every_second || frequency == "MINUTELY";
    let every_hour = every_minute || frequency == "HOURLY";
    let times = Times {
        hours: hours.unwrap_or_else(|| if every_hour { all(24) } else { one(start_second / 3600 % 24) }),
        minutes: minutes.unwrap_or_else(|| if every_minute { all(60) } else { one(start_second / 60 % 60) }),
        seconds: seconds.unwrap_or_else(|| if every_second { all(60) } else { one(start_second % 60) }),
    };
    Ok(times.shortest_gap())
}

fn single(values: Option<&BTreeSet<u32>>) -> bool {
    values.is_none_or(|values| values.len() == 1)
}

/// Checks one part of a recurrence rule for itself.
fn check_part(name: &str, value: &str) -> Result<(), String> {
    let refuse = || Err(format!("`{value}` is no {name} of an RRULE"));
    let numbers = |low: i64, high: i64, signed: bool| {
        value.split(',').all(|one| {
            let unsigned = one.strip_prefix(['+', '-']);
            let digits = unsigned.unwrap_or(one);
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            is_number
                && (signed || unsigned.is_none())
                && digits.parse::<i64>().is_ok_and(|number| (low..=high).contains(&number))
        })
    };
    let weekday = |one: &str| matches!(one, "MO" | "TU" | "WE" | "TH" | "FR" | "SA" | "SU");
    let fine = match name {
        "FREQ" => {
            matches!(value, "SECONDLY" | "MINUTELY" | "HOURLY" | "DAILY" | "WEEKLY" | "MONTHLY" | "YEARLY")
        }
        "INTERVAL" | "COUNT" => !value.contains(',') && numbers(1, i64::from(u32::MAX), false),
        "UNTIL" => is_until(value),
        "BYSECOND" => numbers(0, 60, false),
        "BYMINUTE" => numbers(0, 59, false),
        "BYHOUR" => numbers(0, 23, false),
        "BYMONTHDAY" => numbers(1, 31, true),
        "BYYEARDAY" | "BYSETPOS" => numbers(1, 366, true),
        "BYWEEKNO" => numbers(1, 53, true),
        "BYMONTH" => numbers(1, 12, false),
        "WKST" => weekday(value),
        "BYDAY" => value.split(',').all(|one| {
            let at = one.len().saturating_sub(2);
            let (Some(number), Some(day)) = (one.get(..at), one.get(at..)) else { return false };
            let digits = number.strip_prefix(['+', '-']).unwrap_or(number);
            let counted =
                number.is_empty() || digits.parse::<u32>().is_ok_and(|number| (1..=53).contains(&number));
            counted && weekday(day)
        }),
        _ => return Err(format!("`{name}` is no part of an RRULE")),
    };
    if fine { Ok(()) } else { refuse() }
}

fn is_until(value: &str) -> bool {
    let value = value.strip_suffix('Z').unwrap_or(value);
    let (date, time) = value.split_once('T').unwrap_or((value, "000000"));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    date.len() == 8
        && time.len() == 6
        && digits(date)
        && digits(time)
        && jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", format!("{date}{time}")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(format: TimeFormat, pattern: &str) -> Result<u32, String> {
        shortest_gap(format, pattern, 8 * 3600)
    }

    fn event(rule: &str) -> String {
        format!("BEGIN:VEVENT\n{rule}\nEND:VEVENT")
    }

    #[test]
    fn calendars_are_read_as_clients_write_them() {
        for (pattern, seconds) in [
            (event("RRULE:FREQ=DAILY;INTERVAL=1;"), DAY),
            (event("RRULE:FREQ=HOURLY;INTERVAL=2;"), 7200),
            (event("RRULE:FREQ=MINUTELY;INTERVAL=90"), 5400),
            (event("RRULE:FREQ=MINUTELY;INTERVAL=5"), 300),
            (event("RRULE:FREQ=SECONDLY"), 1),
            (event("RRULE:FREQ=SECONDLY;BYMINUTE=0;BYSECOND=0"), 3600),
            (event("RRULE:FREQ=WEEKLY;BYDAY=MO;BYHOUR=3,4;BYMINUTE=0"), 3600),
            (event("RRULE:FREQ=DAILY;BYHOUR=3;BYMINUTE=0,30"), 1800),
            (event("RRULE:FREQ=DAILY;BYHOUR=3;BYMINUTE=0,30;BYSETPOS=1"), DAY),
            (event("RRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29"), DAY),
            (event("RRULE:FREQ=MONTHLY;BYDAY=-1FR,+2MO;UNTIL=20300131T000000Z"), DAY),
            (event("RRULE:FREQ=DAILY\nRRULE:FREQ=HOURLY"), 3600),
            (event("RRULE:FREQ=DAI\n LY;INTERVAL=3"), DAY),
            (
                "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nRRULE:FREQ=DAILY\r\nEND:VEVENT\r\nEND:VCALENDAR".into(),
                DAY,
            ),
            ("BEGIN:VEVENT\\nRRULE:FREQ=WEEKLY;BYDAY=MO\\nEND:VEVENT".into(), DAY),
        ] {
            assert_eq!(gap(TimeFormat::Calendar, &pattern), Ok(seconds), "{pattern}");
        }
        for pattern in [
            "",
            "x",
            "0 0 * * *",
            "BEGIN:VCALENDAR\nEND:VCALENDAR",
            "BEGIN:VEVENT\nRRULE:FREQ=DAILY",
            "BEGIN:VEVENT\\xRRULE:FREQ=DAILY\\nEND:VEVENT",
            &event("SUMMARY:x"),
            &event("RRULE:INTERVAL=1"),
            &event("RRULE:FREQ=SOMETIMES"),
            &event("RRULE:FREQ=DAILY;INTERVAL=0"),
            &event("RRULE:FREQ=DAILY;FREQ=DAILY"),
            &event("RRULE:FREQ=DAILY;COUNT=1;UNTIL=20300131"),
            &event("RRULE:FREQ=DAILY;UNTIL=20301331"),
            &event("RRULE:FREQ=DAILY;BYDAY=XX"),
            &event("RRULE:FREQ=DAILY;BYHOUR=24"),
            &event("RRULE:FREQ=DAILY;COLOUR=RED"),
            &event("RRULE:FREQ"),
        ] {
            assert!(gap(TimeFormat::Calendar, pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn crontabs_have_five_or_six_fields() {
        for (pattern, seconds) in [
            ("0 0 * * *", DAY),
            ("0 * * * *", 3600),
            ("*/15 * * * *", 900),
            ("5,50 2 * * mon-fri", 2700),
            ("0 23,0 * * *", 3600),
            ("59 23 1 jan 7", DAY),
            ("0 0 * * * 0,30", 30),
            ("10/20 3 * * *", 1200),
        ] {
            assert_eq!(gap(TimeFormat::Crontab, pattern), Ok(seconds), "{pattern}");
        }
        for pattern in [
            "",
            "@daily",
            "* * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "5-1 * * * *",
            "*/0 * * * *",
            "a * * * *",
            "1, * * * *",
            "* * 31 feb *",
            "-1 * * * *",
        ] {
            assert!(gap(TimeFormat::Crontab, pattern).is_err(), "{pattern}");
        }
    }
}
