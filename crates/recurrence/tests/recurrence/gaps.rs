//! The shortest and the longest gap of whole patterns.

use karbor_recurrence::{Extent, Format};

use crate::{event, read};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

fn check(format: Format, pattern: &str, gaps: Option<(i64, i64)>) {
    let recurrence = read(format, pattern, "2026-01-31T08:00:00Z", "UTC").expect(pattern);
    let gaps = gaps.map(|(shortest, longest)| Extent { shortest, longest });
    assert_eq!(recurrence.extent(), gaps, "{pattern}");
}

#[test]
fn crontabs_are_measured_as_a_whole() {
    for (pattern, shortest, longest) in [
        ("0 0 * * *", DAY, DAY),
        ("0 * * * *", HOUR, HOUR),
        ("*/15 * * * *", 900, 900),
        ("*/25 * * * *", 600, 1500),
        ("5,50 2 * * mon-fri", 2700, 3 * DAY - 2700),
        ("0 23,0 * * *", HOUR, 23 * HOUR),
        // Both times on one day only: the short way over midnight is never gone.
        ("0 23,0 * * 1", 23 * HOUR, 6 * DAY + HOUR),
        ("0 0 * * * 0,30", 30, DAY - 30),
        ("0 0 1 1 *", 365 * DAY, 366 * DAY),
        ("0 0 29 2 *", 1461 * DAY, 1461 * DAY),
        // Only in years in which the 13th is a Thursday do both come close.
        ("0 0 13 * fri", DAY, 7 * DAY),
        ("* * * * * *", 1, 1),
    ] {
        check(Format::Crontab, pattern, Some((shortest, longest)));
    }
}

#[test]
fn calendars_are_measured_as_a_whole() {
    for (lines, shortest, longest) in [
        ("RRULE:FREQ=DAILY;INTERVAL=1;", DAY, DAY),
        ("RRULE:FREQ=HOURLY;INTERVAL=2;", 2 * HOUR, 2 * HOUR),
        ("RRULE:FREQ=MINUTELY;INTERVAL=90", 5400, 5400),
        ("RRULE:FREQ=SECONDLY", 1, 1),
        ("RRULE:FREQ=SECONDLY;BYMINUTE=0;BYSECOND=0", HOUR, HOUR),
        ("RRULE:FREQ=WEEKLY;BYDAY=MO;BYHOUR=3,4;BYMINUTE=0", HOUR, 7 * DAY - HOUR),
        ("RRULE:FREQ=DAILY;BYHOUR=3;BYMINUTE=0,30", 1800, DAY - 1800),
        ("RRULE:FREQ=DAILY;BYHOUR=3;BYMINUTE=0,30;BYSETPOS=1", DAY, DAY),
        ("RRULE:FREQ=DAILY\nRRULE:FREQ=HOURLY;BYMINUTE=20", 1200, HOUR),
        // Once in ten years, beside every hour.
        (
            "RRULE:FREQ=HOURLY\nRRULE:FREQ=YEARLY;INTERVAL=10;BYMONTH=6;BYMONTHDAY=1;BYHOUR=3;BYMINUTE=59",
            60,
            HOUR,
        ),
        ("RRULE:FREQ=HOURLY\nRDATE:20390101T001000", 600, HOUR),
        ("RRULE:FREQ=DAILY;COUNT=2", DAY, DAY),
    ] {
        check(Format::Calendar, &event(lines), Some((shortest, longest)));
    }
    check(Format::Calendar, &event("RRULE:FREQ=SECONDLY;COUNT=1"), None);
    check(Format::Calendar, &event("RDATE:20300101T000000"), None);
}
