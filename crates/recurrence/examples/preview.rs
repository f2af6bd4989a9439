//! Measures patterns: `cargo run --release -p karbor-recurrence --example preview`.
//!
//! For each pattern: reading it, its next hundred occurrences, one occurrence ten years after its start, and its gaps.
#![expect(clippy::print_stdout, reason = "it is there to print figures")]

use std::hint::black_box;
use std::time::{Duration, Instant as Clock};

use karbor_recurrence::{Bounds, Error, Format, Recurrence};
use karbor_types::Instant;

/// 2026-01-01T00:00:00Z
const START: Instant = Instant::from_micros(1_767_225_600_000_000);

/// How often each is measured; the shortest time counts, as the others are somebody else's.
const ROUNDS: u32 = 200;

const PATTERNS: [(Format, &str, &str); 8] = [
    (Format::Crontab, "0 3 * * *", "UTC"),
    (Format::Crontab, "30 2 * * mon-fri", "Europe/Rome"),
    (Format::Crontab, "0 * * * *", "Europe/Rome"),
    (Format::Crontab, "0 0 29 2 *", "Europe/Rome"),
    (Format::Calendar, "RRULE:FREQ=DAILY;BYHOUR=3;BYMINUTE=0", "Europe/Rome"),
    (Format::Calendar, "RRULE:FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1", "Europe/Rome"),
    (Format::Calendar, "RRULE:FREQ=HOURLY;INTERVAL=6\nRRULE:FREQ=WEEKLY;BYDAY=SU", "Europe/Rome"),
    (Format::Calendar, "RRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29", "Europe/Rome"),
];

fn main() -> Result<(), Error> {
    println!("{:>9} {:>9} {:>9} {:>9}  microseconds", "read", "preview", "late", "gaps");
    for (format, text, zone) in PATTERNS {
        let pattern = match format {
            Format::Calendar => format!("BEGIN:VEVENT\n{text}\nEND:VEVENT"),
            Format::Crontab => text.to_owned(),
        };
        let bounds = Bounds { start: START, end: None };
        let recurrence = Recurrence::parse(format, &pattern, bounds, zone)?;
        let later = START.plus_seconds(10 * 365 * 86_400);
        let figures = [
            shortest(|| drop(black_box(Recurrence::parse(format, &pattern, bounds, zone)))),
            shortest(|| drop(black_box(recurrence.upcoming(START).take(100).collect::<Vec<_>>()))),
            shortest(|| _ = black_box(recurrence.next_after(later))),
            shortest(|| _ = black_box(recurrence.extent())),
        ];
        for figure in figures {
            print!("{:>9.1} ", figure.as_secs_f64() * 1e6);
        }
        println!(" {} in {zone}", text.replace('\n', " + "));
    }
    Ok(())
}

fn shortest(mut work: impl FnMut()) -> Duration {
    let timed = |_| {
        let started = Clock::now();
        work();
        started.elapsed()
    };
    (0..ROUNDS).map(timed).min().unwrap_or_default()
}
