//! Europe/Rome: at 2026-03-29 01:00 UTC the clock goes from 02:00 to 03:00; at 2026-10-25 01:00 UTC back from
//! 03:00 to 02:00.

use karbor_recurrence::Format;

use crate::{event, first, read};

const SPRING: &str = "2026-03-28T00:30:00+01:00";
const AUTUMN: &str = "2026-10-24T00:30:00+02:00";

fn check(start: &str, crontab: &str, rule: &str, times: &[&str]) {
    let found = read(Format::Crontab, crontab, start, "Europe/Rome").expect(crontab);
    assert_eq!(first(&found, times.len()), times, "{crontab} from {start}");
    let digits: String = start.chars().filter(|char| !"-:".contains(*char)).take(15).collect();
    let anchored = event(&format!("DTSTART;TZID=Europe/Rome:{digits}\nRRULE:{rule}"));
    for (pattern, zone) in [(event(&format!("RRULE:{rule}")), "Europe/Rome"), (anchored, "UTC")] {
        let found = read(Format::Calendar, &pattern, start, zone).expect(&pattern);
        assert_eq!(first(&found, times.len()), times, "{pattern} from {start}");
    }
}

#[test]
fn a_skipped_time_occurs_at_the_jump() {
    check(
        SPRING,
        "30 2 * * *",
        "FREQ=DAILY;BYHOUR=2;BYMINUTE=30",
        &["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
    );
    check(
        SPRING,
        "0 2 * * *",
        "FREQ=DAILY;BYHOUR=2;BYMINUTE=0",
        &["2026-03-28T01:00:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"],
    );
}

#[test]
fn several_skipped_times_occur_once() {
    check(
        SPRING,
        "0,30 2,3 29 3 *",
        "FREQ=YEARLY;BYMONTH=3;BYMONTHDAY=29;BYHOUR=2,3;BYMINUTE=0,30",
        &["2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z", "2027-03-29T00:00:00Z"],
    );
}

#[test]
fn a_repeated_time_occurs_once_at_its_first_showing() {
    check(
        AUTUMN,
        "30 2 * * *",
        "FREQ=DAILY;BYHOUR=2;BYMINUTE=30",
        &["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
    );
    check(
        AUTUMN,
        "0,30 2,3 25 10 *",
        "FREQ=YEARLY;BYMONTH=10;BYMONTHDAY=25;BYHOUR=2,3;BYMINUTE=0,30",
        &["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T02:00:00Z", "2026-10-25T02:30:00Z"],
    );
}

#[test]
fn what_is_hourly_stays_hourly() {
    check(
        "2026-03-29T00:30:00+01:00",
        "30 * * * *",
        "FREQ=HOURLY;BYMINUTE=30",
        &["2026-03-28T23:30:00Z", "2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:30:00Z"],
    );
    check(
        "2026-10-25T00:30:00+02:00",
        "30 * * * *",
        "FREQ=HOURLY;BYMINUTE=30",
        &[
            "2026-10-24T22:30:00Z",
            "2026-10-24T23:30:00Z",
            "2026-10-25T00:30:00Z",
            "2026-10-25T01:30:00Z",
            "2026-10-25T02:30:00Z",
        ],
    );
}

#[test]
fn a_search_may_begin_anywhere_in_a_repeated_hour() {
    let daily = read(Format::Crontab, "30 2 * * *", AUTUMN, "Europe/Rome").expect("a good pattern");
    let hourly = read(Format::Crontab, "30 * * * *", AUTUMN, "Europe/Rome").expect("a good pattern");
    for (after, next_daily, next_hourly) in [
        ("2026-10-25T00:29:59Z", "2026-10-25T00:30:00Z", "2026-10-25T00:30:00Z"),
        ("2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z", "2026-10-25T01:30:00Z"),
        ("2026-10-25T01:00:00Z", "2026-10-26T01:30:00Z", "2026-10-25T01:30:00Z"),
        ("2026-10-25T01:29:59Z", "2026-10-26T01:30:00Z", "2026-10-25T01:30:00Z"),
        ("2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z", "2026-10-25T02:30:00Z"),
    ] {
        assert_eq!(daily.next_after(crate::at(after)), Some(crate::at(next_daily)), "daily after {after}");
        assert_eq!(hourly.next_after(crate::at(after)), Some(crate::at(next_hourly)), "hourly after {after}");
    }
}
