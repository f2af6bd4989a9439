//! Recurrences against tables, simple models and other libraries.

mod calendar;
mod crontab;
mod daylight;
mod gaps;
mod hostile;

use jiff::Timestamp;
use karbor_recurrence::{Bounds, Error, Format, Recurrence};
use karbor_types::Instant;

/// Returns the instant that RFC 3339 text names.
fn at(text: &str) -> Instant {
    let timestamp: Timestamp = text.parse().unwrap_or_else(|_| panic!("{text} is a time"));
    Instant::from_micros(timestamp.as_microsecond())
}

/// Reads a pattern that begins at `start` and has no end.
fn read(format: Format, pattern: &str, start: &str, zone: &str) -> Result<Recurrence, Error> {
    Recurrence::parse(format, pattern, Bounds { start: at(start), end: None }, zone)
}

/// Returns the first occurrences as text, without the zeros of whole seconds.
fn first(recurrence: &Recurrence, count: usize) -> Vec<String> {
    let before = Instant::from_micros(at("1970-01-01T00:00:00Z").as_micros() - 1);
    recurrence.upcoming(before).take(count).map(|at| at.to_string().replace(".000000Z", "Z")).collect()
}

/// Puts lines into a VEVENT.
fn event(lines: &str) -> String {
    format!("BEGIN:VEVENT\n{lines}\nEND:VEVENT")
}

#[test]
fn bounds_hold_on_both_sides() {
    let bounds = |start: &str, end: &str| Bounds { start: at(start), end: Some(at(end)) };
    for (format, pattern) in
        [(Format::Crontab, "0 3 * * *".to_owned()), (Format::Calendar, event("RRULE:FREQ=DAILY;BYHOUR=3"))]
    {
        let bounds = bounds("2026-05-01T03:00:00Z", "2026-05-03T03:00:00Z");
        let recurrence = Recurrence::parse(format, &pattern, bounds, "UTC").expect("a good pattern");
        let days = ["2026-05-01T03:00:00Z", "2026-05-02T03:00:00Z", "2026-05-03T03:00:00Z"];
        assert_eq!(first(&recurrence, 9), days);
        assert_eq!(recurrence.next_after(at("2026-05-01T03:00:00Z")), Some(at("2026-05-02T03:00:00Z")));
        assert_eq!(recurrence.next_after(at("2026-05-03T03:00:00Z")), None);
        assert_eq!(recurrence.next_after(Instant::from_micros(i64::MAX)), None);
        assert_eq!(recurrence.next_after(Instant::from_micros(i64::MIN)), None);
    }
}

#[test]
fn what_is_wrong_is_named() {
    let bounds = Bounds { start: at("2026-05-01T00:00:00Z"), end: None };
    let until = |end: &str| Bounds { end: Some(at(end)), ..bounds };
    for (format, pattern, bounds, zone, field) in [
        (Format::Crontab, "0 3 * * *", bounds, "Europe/Atlantis", "time_zone"),
        (Format::Crontab, "0 3 * * *", bounds, "", "time_zone"),
        (Format::Crontab, "0 3 * * *", until("2026-04-01T00:00:00Z"), "UTC", "end_time"),
        (Format::Crontab, "0 3 * * *", until("2026-05-01T00:00:00Z"), "UTC", "end_time"),
        (Format::Crontab, "0 3 * * *", until("2026-05-01T02:00:00Z"), "UTC", "pattern"),
        (Format::Crontab, "0 3 30 2 *", bounds, "UTC", "pattern"),
        (Format::Calendar, "0 3 * * *", bounds, "UTC", "pattern"),
        (Format::Crontab, &event("RRULE:FREQ=DAILY"), bounds, "UTC", "pattern"),
    ] {
        let err = Recurrence::parse(format, pattern, bounds, zone).expect_err(pattern);
        assert_eq!(err.field(), field, "{pattern}: {err}");
        assert!(!err.reason().is_empty());
    }
}
