//! Patterns made to break their reader, or to keep it busy.

use karbor_recurrence::{Bounds, Format, Recurrence};
use karbor_types::Instant;
use proptest::prelude::*;

use crate::{at, event};

/// Does with a pattern all that a service does; that it comes to an end is what is tested.
fn exercise(format: Format, pattern: &str) {
    let bounds = Bounds { start: at("2026-01-31T10:30:00Z"), end: None };
    if let Ok(recurrence) = Recurrence::parse(format, pattern, bounds, "Europe/Rome") {
        let mut last = Instant::from_micros(0);
        for next in recurrence.upcoming(last).take(20) {
            assert!(next > last, "{pattern}");
            last = next;
        }
        if let Some(extent) = recurrence.extent() {
            assert!(0 < extent.shortest && extent.shortest <= extent.longest, "{pattern}: {extent:?}");
        }
    }
}

#[test]
fn patterns_that_never_come_true_end() {
    for rule in [
        "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=SECONDLY;INTERVAL=2;BYSECOND=1",
        "FREQ=SECONDLY;INTERVAL=86400;BYHOUR=3",
        "FREQ=SECONDLY;INTERVAL=4294967295;BYMONTH=2;BYMONTHDAY=29;BYHOUR=0;BYMINUTE=0;BYSECOND=0",
        "FREQ=MINUTELY;INTERVAL=1440;BYHOUR=3",
        "FREQ=HOURLY;INTERVAL=24;BYHOUR=3",
        "FREQ=HOURLY;INTERVAL=4294967295",
        "FREQ=DAILY;INTERVAL=7;BYDAY=MO",
        "FREQ=DAILY;INTERVAL=4294967295",
        "FREQ=WEEKLY;INTERVAL=4294967295",
        "FREQ=MONTHLY;INTERVAL=4294967295",
        "FREQ=YEARLY;INTERVAL=4294967295",
        "FREQ=MONTHLY;INTERVAL=12;BYMONTH=7",
        "FREQ=YEARLY;BYWEEKNO=53;BYMONTH=6",
        "FREQ=YEARLY;BYYEARDAY=1;BYMONTHDAY=2",
        "FREQ=YEARLY;BYDAY=53MO;BYMONTH=1",
        "FREQ=YEARLY;BYHOUR=0,1,2,3,4,5,6,7,8,9,10,11,12;BYMINUTE=0,1,2,3,4,5;BYSECOND=0,1,2,3;BYSETPOS=366,-366",
        "FREQ=SECONDLY;BYSECOND=0,1,2;BYSETPOS=2",
        "FREQ=MINUTELY;BYSECOND=59,60;BYSETPOS=-1",
    ] {
        exercise(Format::Calendar, &event(&format!("RRULE:{rule}")));
        let many = vec![format!("RRULE:{rule}"); 16].join("\n");
        exercise(Format::Calendar, &event(&many));
    }
}

#[test]
fn what_is_too_much_is_refused() {
    let bounds = Bounds { start: at("2026-01-31T10:30:00Z"), end: None };
    let parse = |format, pattern: &str| Recurrence::parse(format, pattern, bounds, "UTC");
    let rules = vec!["RRULE:FREQ=DAILY"; 17].join("\n");
    let dates = format!("RRULE:FREQ=DAILY\nEXDATE:{}", vec!["20300101"; 2001].join(","));
    let long = format!("SUMMARY:{}\nRRULE:FREQ=DAILY", "x".repeat(70_000));
    for lines in [rules, dates, long] {
        parse(Format::Calendar, &event(&lines)).expect_err("too much");
    }
    parse(Format::Crontab, &format!("{} * * * *", vec!["1"; 70_000].join(","))).expect_err("too long");
    for start in [i64::MAX, i64::MIN, 253_402_200_000_000_000] {
        let bounds = Bounds { start: Instant::from_micros(start), end: None };
        _ = Recurrence::parse(Format::Calendar, &event("RRULE:FREQ=DAILY"), bounds, "Europe/Rome");
        _ = Recurrence::parse(Format::Crontab, "* * * * *", bounds, "Europe/Rome");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(pattern in ".{0,60}") {
        exercise(Format::Crontab, &pattern);
        exercise(Format::Calendar, &pattern);
        exercise(Format::Calendar, &event(&pattern));
        exercise(Format::Calendar, &event(&format!("RRULE:{pattern}")));
    }

    #[test]
    fn anything_like_a_crontab_is_read_or_refused(pattern in "([0-9*,/-]{1,4}|mon|jan|[*]) ([0-9*,/-]{1,4}|[*]) ([0-9*,/-]{1,4}|[*]) ([0-9*,/a-z-]{1,4}|[*]) ([0-9*,/-]{1,4}|[*])") {
        exercise(Format::Crontab, &pattern);
    }

    #[test]
    fn anything_like_a_rule_is_read_or_refused(
        frequency in "YEARLY|MONTHLY|WEEKLY|DAILY|HOURLY|MINUTELY|SECONDLY",
        parts in proptest::collection::vec(
            "INTERVAL=[1-9][0-9]{0,9}|COUNT=[0-9]{1,4}|UNTIL=20[0-9]{6}T[0-9]{6}Z?|BYMONTH=[0-9]{1,2}(,[0-9]{1,2})?\
             |BYMONTHDAY=-?[0-9]{1,2}|BYDAY=(-?[1-5])?(MO|TU|SU)(,FR)?|BYHOUR=[0-9]{1,2}|BYMINUTE=[0-9]{1,2}(,[0-9]{1,2})?\
             |BYSECOND=[0-9]{1,2}|BYSETPOS=-?[1-9][0-9]{0,2}|BYWEEKNO=-?[0-9]{1,2}|BYYEARDAY=-?[0-9]{1,3}|WKST=(SU|MO)",
            0..5,
        ),
    ) {
        exercise(Format::Calendar, &event(&format!("RRULE:FREQ={frequency};{}", parts.join(";"))));
    }
}
