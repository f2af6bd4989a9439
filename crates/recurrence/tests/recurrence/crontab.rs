//! Crontab: tables, a model that looks at every minute, and `croner`.

use jiff::{Timestamp, ToSpan};
use karbor_recurrence::Format;
use proptest::prelude::*;

use crate::{at, first, read};

fn cron(pattern: &str, count: usize) -> Vec<String> {
    first(&read(Format::Crontab, pattern, "2026-01-31T10:00:00Z", "UTC").expect(pattern), count)
}

#[test]
fn crontabs_name_their_times() {
    for (pattern, times) in [
        ("0 3 * * *", ["2026-02-01T03:00:00Z", "2026-02-02T03:00:00Z", "2026-02-03T03:00:00Z"]),
        ("30 */8 * * *", ["2026-01-31T16:30:00Z", "2026-02-01T00:30:00Z", "2026-02-01T08:30:00Z"]),
        ("0 10 * * *", ["2026-01-31T10:00:00Z", "2026-02-01T10:00:00Z", "2026-02-02T10:00:00Z"]),
        ("0 4 29 2 *", ["2028-02-29T04:00:00Z", "2032-02-29T04:00:00Z", "2036-02-29T04:00:00Z"]),
        ("0 4 31 * *", ["2026-03-31T04:00:00Z", "2026-05-31T04:00:00Z", "2026-07-31T04:00:00Z"]),
        ("0 4 * * mon", ["2026-02-02T04:00:00Z", "2026-02-09T04:00:00Z", "2026-02-16T04:00:00Z"]),
        ("0 4 * feb,Mar fri-sun", ["2026-02-01T04:00:00Z", "2026-02-06T04:00:00Z", "2026-02-07T04:00:00Z"]),
        ("0 4 * * 7", ["2026-02-01T04:00:00Z", "2026-02-08T04:00:00Z", "2026-02-15T04:00:00Z"]),
        // Day of the month *or* day of the week, when both are given.
        ("0 4 15 * 1", ["2026-02-02T04:00:00Z", "2026-02-09T04:00:00Z", "2026-02-15T04:00:00Z"]),
        ("5/40 11 * * *", ["2026-01-31T11:05:00Z", "2026-01-31T11:45:00Z", "2026-02-01T11:05:00Z"]),
        ("0 11 * * * 0,30", ["2026-01-31T11:00:00Z", "2026-01-31T11:00:30Z", "2026-02-01T11:00:00Z"]),
    ] {
        assert_eq!(cron(pattern, 3), times, "{pattern}");
    }
}

#[test]
fn what_is_no_crontab_is_refused_with_its_field() {
    for (pattern, part) in [
        ("", "five fields"),
        ("@daily", "five fields"),
        ("* * * *", "five fields"),
        ("* * * * * * *", "five fields"),
        ("60 * * * *", "`60` is no minute"),
        ("* 24 * * *", "`24` is no hour"),
        ("* * 0 * *", "day of the month"),
        ("* * * 13 *", "`13` is no month"),
        ("* * * * 8", "day of the week"),
        ("5-1 * * * *", "minute"),
        ("*/0 * * * *", "minute"),
        ("a * * * *", "minute"),
        ("1, * * * *", "minute"),
        ("-1 * * * *", "minute"),
        ("0-sun * * * *", "minute"),
        ("* * * * * 60", "second"),
        ("* * 31 feb *", "no month has"),
        ("* * 31 4,6,9,11 *", "no month has"),
        ("9999999999999999999999 * * * *", "minute"),
    ] {
        let err = read(Format::Crontab, pattern, "2026-01-31T10:00:00Z", "UTC").expect_err(pattern);
        assert!(err.to_string().contains(part), "{pattern}: {err}");
    }
}

/// Makes one field from ranges, steps and lists.
fn field(min: u32, max: u32) -> impl Strategy<Value = String> {
    let single = (min..=max).prop_map(|value| value.to_string());
    let range = (min..=max, min..=max).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b)));
    let step = (1..=max).prop_map(|step| format!("*/{step}"));
    let list = proptest::collection::vec((min..=max).prop_map(|value| value.to_string()), 1..4);
    prop_oneof![3 => Just("*".to_owned()), 2 => single, 1 => range, 1 => step, 1 => list.prop_map(|all| all.join(","))]
}

fn pattern() -> impl Strategy<Value = String> {
    (field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 6))
        .prop_map(|(minute, hour, day, month, weekday)| format!("{minute} {hour} {day} {month} {weekday}"))
}

/// Whether a field of a pattern, written as [`field`] writes it, holds a value.
fn holds(field: &str, min: u32, value: u32) -> bool {
    field.split(',').any(|part| match (part.split_once('-'), part.split_once('/')) {
        _ if part == "*" => true,
        (Some((low, high)), _) => (number(low)..=number(high)).contains(&value),
        (_, Some((_, step))) => (value - min).is_multiple_of(number(step)),
        _ => number(part) == value,
    })
}

fn number(text: &str) -> u32 {
    text.parse().expect("a number")
}

fn matches(pattern: &str, at: &jiff::Zoned) -> bool {
    let fields: Vec<&str> = pattern.split(' ').collect();
    let part = |value: i8| u32::try_from(value).expect("not negative");
    let day = holds(fields[2], 1, part(at.day()));
    let weekday = holds(fields[4], 0, part(at.weekday().to_sunday_zero_offset()));
    let either = fields[2] != "*" && fields[4] != "*";
    holds(fields[0], 0, part(at.minute()))
        && holds(fields[1], 0, part(at.hour()))
        && holds(fields[3], 1, part(at.month()))
        && if either { day || weekday } else { day && weekday }
}

proptest! {
    #[test]
    fn occurrences_are_the_minutes_that_match(pattern in pattern(), start in 0_i64..4_000_000_000) {
        let start = Timestamp::from_second(start).expect("in range");
        let recurrence = read(Format::Crontab, &pattern, &start.to_string(), "UTC").expect("a good pattern");
        let begin = at(&start.to_string());
        let before = karbor_types::Instant::from_micros(begin.as_micros() - 1);
        let mut expected = Vec::new();
        let first_minute = (start.as_second() + 59).div_euclid(60);
        for minute in first_minute..first_minute + 3 * 24 * 60 {
            let zoned = Timestamp::from_second(minute * 60).expect("in range").to_zoned(jiff::tz::TimeZone::UTC);
            if matches(&pattern, &zoned) {
                expected.push(minute * 60_000_000);
            }
        }
        let end = start + (3 * 24 - 1).hours();
        let within = |micros: &i64| *micros < end.as_microsecond();
        let found: Vec<i64> = recurrence.upcoming(before).map(|at| at.as_micros()).take_while(within).collect();
        let expected: Vec<i64> = expected.into_iter().filter(within).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn croner_finds_the_same(pattern in pattern(), start in 0_i64..4_000_000_000) {
        let start = Timestamp::from_second(start).expect("in range");
        let recurrence = read(Format::Crontab, &pattern, &start.to_string(), "UTC").expect("a good pattern");
        let found: Vec<i64> = recurrence.upcoming(at(&start.to_string())).map(|at| at.as_micros()).take(20).collect();
        let other: croner::Cron = pattern.parse().expect("a good pattern");
        let zoned = start.to_zoned(jiff::tz::TimeZone::UTC);
        let expected: Vec<i64> = other.iter_after(zoned).take(20).map(|at| at.timestamp().as_microsecond()).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn in_any_zone_occurrences_only_go_forward(
        pattern in pattern(),
        start in 0_i64..4_000_000_000,
        zone in prop_oneof![Just("Europe/Rome"), Just("Australia/Lord_Howe"), Just("America/St_Johns"), Just("Pacific/Apia")],
    ) {
        let start = Timestamp::from_second(start).expect("in range");
        let recurrence = read(Format::Crontab, &pattern, &start.to_string(), zone).expect("a good pattern");
        let mut last = at(&start.to_string());
        for next in recurrence.upcoming(last).take(50) {
            prop_assert!(next > last);
            // Asked from anywhere in between, the answer is the same.
            let between = karbor_types::Instant::from_micros(last.as_micros().midpoint(next.as_micros()));
            prop_assert_eq!(recurrence.next_after(between), Some(next));
            last = next;
        }
    }
}
