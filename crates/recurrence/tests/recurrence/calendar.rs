//! iCalendar: tables, what clients send, and `rrule`.

use jiff::Timestamp;
use karbor_recurrence::{Bounds, Format, Recurrence};
use proptest::prelude::*;

use crate::{at, event, first, read};

fn calendar(pattern: &str, count: usize) -> Vec<String> {
    first(&read(Format::Calendar, pattern, "2026-01-31T10:30:00Z", "UTC").expect(pattern), count)
}

#[test]
fn rules_name_their_times() {
    for (lines, times) in [
        (
            "RRULE:FREQ=DAILY",
            ["2026-01-31T10:30:00Z", "2026-02-01T10:30:00Z", "2026-02-02T10:30:00Z"].as_slice(),
        ),
        ("RRULE:FREQ=MONTHLY", &["2026-01-31T10:30:00Z", "2026-03-31T10:30:00Z", "2026-05-31T10:30:00Z"]),
        (
            "RRULE:FREQ=MONTHLY;BYMONTHDAY=-1",
            &["2026-01-31T10:30:00Z", "2026-02-28T10:30:00Z", "2026-03-31T10:30:00Z"],
        ),
        (
            "RRULE:FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,SA;BYHOUR=3;BYMINUTE=0",
            &["2026-02-09T03:00:00Z", "2026-02-14T03:00:00Z", "2026-02-23T03:00:00Z"],
        ),
        (
            "RRULE:FREQ=MONTHLY;BYDAY=-1FR",
            &["2026-02-27T10:30:00Z", "2026-03-27T10:30:00Z", "2026-04-24T10:30:00Z"],
        ),
        (
            "RRULE:FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1",
            &["2026-02-27T10:30:00Z", "2026-03-31T10:30:00Z", "2026-04-30T10:30:00Z"],
        ),
        (
            "RRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29",
            &["2028-02-29T10:30:00Z", "2032-02-29T10:30:00Z", "2036-02-29T10:30:00Z"],
        ),
        (
            "RRULE:FREQ=YEARLY;BYWEEKNO=1;BYDAY=MO",
            &["2027-01-04T10:30:00Z", "2028-01-03T10:30:00Z", "2029-01-01T10:30:00Z"],
        ),
        (
            "RRULE:FREQ=YEARLY;BYYEARDAY=-1",
            &["2026-12-31T10:30:00Z", "2027-12-31T10:30:00Z", "2028-12-31T10:30:00Z"],
        ),
        (
            "RRULE:FREQ=HOURLY;INTERVAL=7",
            &["2026-01-31T10:30:00Z", "2026-01-31T17:30:00Z", "2026-02-01T00:30:00Z"],
        ),
        (
            "RRULE:FREQ=MINUTELY;INTERVAL=90",
            &["2026-01-31T10:30:00Z", "2026-01-31T12:00:00Z", "2026-01-31T13:30:00Z"],
        ),
        ("RRULE:FREQ=DAILY;COUNT=2", &["2026-01-31T10:30:00Z", "2026-02-01T10:30:00Z"]),
        ("RRULE:FREQ=DAILY;UNTIL=20260201T103000", &["2026-01-31T10:30:00Z", "2026-02-01T10:30:00Z"]),
        ("RRULE:FREQ=DAILY;UNTIL=20260201T102959Z", &["2026-01-31T10:30:00Z"]),
        ("RRULE:FREQ=DAILY;UNTIL=20260201", &["2026-01-31T10:30:00Z"]),
        (
            "RRULE:FREQ=DAILY;INTERVAL=2\nRRULE:FREQ=DAILY;INTERVAL=3",
            &["2026-01-31T10:30:00Z", "2026-02-02T10:30:00Z", "2026-02-03T10:30:00Z", "2026-02-04T10:30:00Z"],
        ),
        (
            "RRULE:FREQ=DAILY;COUNT=4\nEXDATE:20260201T103000,20260202T103000Z",
            &["2026-01-31T10:30:00Z", "2026-02-03T10:30:00Z"],
        ),
        (
            "RRULE:FREQ=DAILY;COUNT=4\nEXDATE;VALUE=DATE:20260201",
            &["2026-01-31T10:30:00Z", "2026-02-02T10:30:00Z", "2026-02-03T10:30:00Z"],
        ),
        (
            "RRULE:FREQ=DAILY;COUNT=1\nRDATE:20260301T000000",
            &["2026-01-31T10:30:00Z", "2026-03-01T00:00:00Z"],
        ),
        ("RDATE;VALUE=PERIOD:20260301T000000Z/PT1H", &["2026-03-01T00:00:00Z"]),
        ("DTSTART:20260130T100000Z\nRRULE:FREQ=DAILY;COUNT=3", &["2026-02-01T10:00:00Z"]),
        (
            "DTSTART;TZID=America/New_York:20260301T090000\nRRULE:FREQ=WEEKLY",
            &["2026-03-01T14:00:00Z", "2026-03-08T13:00:00Z"],
        ),
        ("DTSTART;VALUE=DATE:20260301\nRRULE:FREQ=WEEKLY", &["2026-03-01T00:00:00Z", "2026-03-08T00:00:00Z"]),
        (
            "SUMMARY:Nightly\\, all\nBEGIN:VALARM\nTRIGGER:-PT5M\nRRULE:FREQ=YEARLY\nEND:VALARM\nRRULE:FREQ=DAILY",
            &["2026-01-31T10:30:00Z", "2026-02-01T10:30:00Z"],
        ),
    ] {
        assert_eq!(calendar(&event(lines), times.len() + usize::from(times.len() < 2)), times, "{lines}");
    }
}

#[test]
fn calendars_are_read_as_clients_write_them() {
    let days = ["2026-01-31T10:30:00Z", "2026-02-01T10:30:00Z"];
    for pattern in [
        "BEGIN:VEVENT\nRRULE:FREQ=DAILY;INTERVAL=1;\nEND:VEVENT",
        "BEGIN:VEVENT\\nRRULE:FREQ=DAILY\\nEND:VEVENT",
        "BEGIN:VEVENT\\nRRULE:FREQ=DAILY\\nEND:VEVENT\n",
        "BEGIN:VEVENT\\r\\nRRULE:FREQ=DAILY\\r\\nEND:VEVENT\\r\\n",
        "begin:vevent\nrrule:freq=daily\nend:vevent",
        "BEGIN:VEVENT\nRRULE:FREQ=DAI\n LY;INTERVAL=1\nEND:VEVENT",
        "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nBEGIN:VEVENT\r\nRRULE:FREQ=DAILY\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n",
        "BEGIN:VCALENDAR\nBEGIN:VTIMEZONE\nBEGIN:STANDARD\nRRULE:FREQ=YEARLY\nEND:STANDARD\nEND:VTIMEZONE\n\
         BEGIN:VEVENT\nRRULE:FREQ=DAILY\nEND:VEVENT\nEND:VCALENDAR",
    ] {
        assert_eq!(calendar(pattern, 2), days, "{pattern}");
    }
}

#[test]
fn what_is_no_calendar_is_refused_with_its_reason() {
    for (pattern, part) in [
        ("", "no VEVENT"),
        ("x", "no VEVENT"),
        ("0 0 * * *", "no VEVENT"),
        ("BEGIN:VCALENDAR\nEND:VCALENDAR", "no VEVENT"),
        ("BEGIN:VEVENT\nRRULE:FREQ=DAILY", "no end"),
        ("BEGIN:VEVENT\\xRRULE:FREQ=DAILY\\nEND:VEVENT", "escape"),
        (&event("SUMMARY:x"), "no RRULE"),
        (&event("RRULE:INTERVAL=1"), "no FREQ"),
        (&event("RRULE:FREQ=SOMETIMES"), "`SOMETIMES` is no FREQ"),
        (&event("RRULE:FREQ=DAILY;INTERVAL=0"), "INTERVAL"),
        (&event("RRULE:FREQ=DAILY;INTERVAL=99999999999"), "INTERVAL"),
        (&event("RRULE:FREQ=DAILY;FREQ=DAILY"), "twice"),
        (&event("RRULE:FREQ=DAILY;COUNT=1;UNTIL=20300131"), "both COUNT and UNTIL"),
        (&event("RRULE:FREQ=DAILY;COUNT=0"), "COUNT"),
        (&event("RRULE:FREQ=DAILY;COUNT=1000000"), "use UNTIL"),
        (&event("RRULE:FREQ=DAILY;UNTIL=20301331"), "UNTIL"),
        (&event("RRULE:FREQ=DAILY;UNTIL=20250101"), "names no time"),
        (&event("RRULE:FREQ=DAILY;BYDAY=XX"), "BYDAY"),
        (&event("RRULE:FREQ=DAILY;BYDAY=1MO"), "FREQ=MONTHLY"),
        (&event("RRULE:FREQ=DAILY;BYWEEKNO=1"), "FREQ=YEARLY"),
        (&event("RRULE:FREQ=DAILY;BYHOUR=24"), "BYHOUR"),
        (&event("RRULE:FREQ=DAILY;BYSETPOS=1"), "BYSETPOS"),
        (&event("RRULE:FREQ=DAILY;COLOUR=RED"), "COLOUR"),
        (&event("RRULE:FREQ"), "no value"),
        (&event("RRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"), "names no time"),
        (&event("RRULE:FREQ=YEARLY;BYMONTHDAY=31;BYMONTH=4,6"), "names no time"),
        (&event("RRULE:FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30"), "names no time"),
        (&event("DTSTART;TZID=Europe/Atlantis:20260301T090000\nRRULE:FREQ=DAILY"), "Europe/Atlantis"),
        (&event("DTSTART:tomorrow\nRRULE:FREQ=DAILY"), "DTSTART"),
        (&event("DTSTART:20260301\nDTSTART:20260302\nRRULE:FREQ=DAILY"), "twice"),
        (&event("RRULE:FREQ=DAILY\nEXRULE:FREQ=WEEKLY"), "EXDATE"),
        (&event("RRULE:FREQ=DAILY\nEXDATE:20260230"), "EXDATE"),
    ] {
        let err = read(Format::Calendar, pattern, "2026-01-31T10:30:00Z", "UTC").expect_err(pattern);
        assert!(err.to_string().contains(part), "{pattern}: {err}");
        assert_eq!(err.field(), "pattern");
    }
}

/// Makes a rule as both libraries understand it: what the standard leaves open is left out, and so are the
/// first and the last weeks of years, which `rrule` takes for those of other years.
fn rule() -> impl Strategy<Value = String> {
    let list = |name: &'static str, values: Vec<&'static str>| {
        let most = values.len().min(3);
        proptest::sample::subsequence(values, 1..=most)
            .prop_map(move |some| format!(";{name}={}", some.join(",")))
    };
    let maybe = |strategy: BoxedStrategy<String>| prop_oneof![2 => Just(String::new()), 1 => strategy];
    let months = list("BYMONTH", vec!["1", "2", "3", "6", "11", "12"]).boxed();
    let month_days = list("BYMONTHDAY", vec!["1", "13", "28", "31", "-1", "-3"]).boxed();
    let days = list("BYDAY", vec!["MO", "WE", "FR", "SU"]).boxed();
    let nth = list("BYDAY", vec!["1MO", "-1FR", "3SU", "-2WE"]).boxed();
    let weeks = list("BYWEEKNO", vec!["2", "20", "40", "50"]).boxed();
    let year_days = list("BYYEARDAY", vec!["1", "60", "200", "366", "-1", "-366"]).boxed();
    let hours = list("BYHOUR", vec!["0", "3", "12", "23"]).boxed();
    let minutes = list("BYMINUTE", vec!["0", "17", "59"]).boxed();
    let positions = list("BYSETPOS", vec!["1", "2", "-1"]).boxed();
    let none = || Just(String::new()).boxed();
    let frequency = prop_oneof![
        Just((
            "YEARLY",
            months.clone(),
            prop_oneof![days.clone(), nth.clone()].boxed(),
            month_days.clone(),
            prop_oneof![3 => Just(String::new()), 1 => year_days].boxed()
        )),
        Just(("YEARLY", none(), days.clone(), none(), weeks)),
        Just(("MONTHLY", months.clone(), prop_oneof![days.clone(), nth].boxed(), month_days.clone(), none())),
        Just(("WEEKLY", months.clone(), days.clone(), none(), none())),
        Just(("DAILY", months.clone(), days.clone(), month_days.clone(), none())),
        Just(("HOURLY", months, days, month_days, none())),
    ];
    (frequency, 1_u32..5, hours, minutes, positions).prop_flat_map(
        move |(frequency, interval, hours, minutes, positions)| {
            let (name, months, days, month_days, special) = frequency;
            let positions = if name == "WEEKLY" {
                Just(String::new()).boxed()
            } else {
                maybe(Just(positions).boxed()).boxed()
            };
            (
                maybe(months),
                maybe(days),
                maybe(month_days),
                special,
                maybe(Just(hours).boxed()),
                maybe(Just(minutes).boxed()),
                positions,
            )
                .prop_map(
                    move |(months, days, month_days, special, hours, minutes, positions)| {
                        let lists = format!("{months}{days}{month_days}{special}{hours}{minutes}");
                        let positions = if lists.is_empty() { "" } else { &positions };
                        format!("FREQ={name};INTERVAL={interval}{lists}{positions}")
                    },
                )
        },
    )
}

proptest! {
    #[test]
    fn rrule_finds_the_same(rule in rule(), start in 946_684_800_i64..1_900_000_000) {
        let start = Timestamp::from_second(start).expect("in range");
        let bounds = Bounds { start: at(&start.to_string()), end: None };
        let text = format!("DTSTART:{}\nRRULE:{rule}", start.strftime("%Y%m%dT%H%M%SZ"));
        let other: rrule::RRuleSet = text.parse().expect(&rule);
        let expected = other.all(15);
        let found = Recurrence::parse(Format::Calendar, &event(&format!("RRULE:{rule}")), bounds, "UTC");
        let before = karbor_types::Instant::from_micros(bounds.start.as_micros() - 1);
        let found: Vec<i64> = match &found {
            Ok(recurrence) => recurrence.upcoming(before).take(expected.dates.len()).map(|at| at.as_micros()).collect(),
            Err(_) => Vec::new(),
        };
        let expected: Vec<i64> = expected.dates.iter().map(|date| date.timestamp_micros()).collect();
        prop_assert_eq!(found, expected, "{}", rule);
    }

    #[test]
    fn a_search_from_the_middle_finds_the_same(rule in rule(), start in 946_684_800_i64..1_900_000_000, skip in 1_usize..40) {
        let bounds = Bounds { start: karbor_types::Instant::from_micros(start * 1_000_000), end: None };
        let Ok(recurrence) = Recurrence::parse(Format::Calendar, &event(&format!("RRULE:{rule}")), bounds, "Europe/Rome") else {
            return Ok(());
        };
        let all: Vec<_> = recurrence.upcoming(bounds.start).take(skip + 5).collect();
        for pair in all.windows(2) {
            prop_assert!(pair[0] < pair[1]);
            let between = karbor_types::Instant::from_micros(pair[0].as_micros().midpoint(pair[1].as_micros()));
            prop_assert_eq!(recurrence.next_after(between), Some(pair[1]));
        }
    }
}
