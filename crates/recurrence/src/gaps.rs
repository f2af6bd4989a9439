//! How far apart the occurrences of a whole pattern are.
//!
//! Gaps are measured on a clock that never jumps: a pattern is not refused for the one night in which the clock
//! of its zone does. A crontab is measured over a whole cycle of the calendar. Of a calendar each rule is walked
//! for many occurrences, and around each of them all the others are looked at: so a rule that comes once a year
//! is compared with one that comes every hour.

use std::collections::BTreeSet;
use std::ops::Bound;

use jiff::civil::DateTime;
use jiff::{Timestamp, ToSpan};
use karbor_types::Instant;

use crate::expand::seconds_of;
use crate::{Recurrence, Times};

/// How many occurrences are looked at, shared among the rules, and of each at least.
const SAMPLES: usize = 1_000;
const SAMPLES_OF_EACH: usize = 100;

/// The shortest and the longest time between two occurrences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The shortest, in seconds.
    pub shortest: i64,
    /// The longest, in seconds.
    pub longest: i64,
}

impl Recurrence {
    /// Returns the shortest and the longest gap of the whole pattern; `None` when it occurs only once.
    pub fn extent(&self) -> Option<Extent> {
        if let [pattern] = self.patterns.as_slice()
            && let Times::Crontab(crontab) = &pattern.times
        {
            // A pattern that is over after its first occurrence has no gap, whatever would follow.
            let mut occurrences =
                self.upcoming(crate::just_before(Instant::from_micros(self.start.as_microsecond())));
            occurrences.nth(1)?;
            return crontab.extent(self.zone.to_datetime(self.start).date());
        }
        let wall = Wall::of(self);
        let mut extent: Option<Extent> = None;
        let samples = (SAMPLES / wall.patterns.len().max(1)).max(SAMPLES_OF_EACH);
        let begin = self.zone.to_datetime(self.start).checked_sub(1.second()).ok()?;
        for place in 0..wall.patterns.len() {
            let mut at = begin;
            for _ in 0..samples {
                let Some(next) = wall.next_of(place, at) else { break };
                at = next;
                wall.measure(at, &mut extent);
            }
        }
        for at in wall.dates.iter().take(samples) {
            wall.measure(*at, &mut extent);
        }
        extent
    }
}

/// The patterns of a recurrence on a clock that never jumps.
struct Wall<'a> {
    patterns: Vec<(&'a Times, Option<DateTime>)>,
    dates: BTreeSet<DateTime>,
}

impl<'a> Wall<'a> {
    fn of(recurrence: &'a Recurrence) -> Self {
        let local = |at: Timestamp| recurrence.zone.to_datetime(at);
        let patterns = recurrence.patterns.iter();
        Self {
            patterns: patterns.map(|pattern| (&pattern.times, pattern.until.map(local))).collect(),
            dates: recurrence.dates.iter().map(|date| local(*date)).collect(),
        }
    }

    fn next_of(&self, place: usize, after: DateTime) -> Option<DateTime> {
        let (times, until) = self.patterns.get(place)?;
        times.next_after(after).filter(|next| until.is_none_or(|until| *next <= until))
    }

    fn next(&self, after: DateTime) -> Option<DateTime> {
        let dated = self.dates.range((Bound::Excluded(after), Bound::Unbounded)).next().copied();
        (0..self.patterns.len()).filter_map(|place| self.next_of(place, after)).chain(dated).min()
    }

    /// Takes in the gap after an occurrence, and the one before as far as it is the shortest.
    fn measure(&self, at: DateTime, extent: &mut Option<Extent>) {
        if let Some(gap) = self.next(at).and_then(|next| seconds_between(at, next)) {
            let known = extent.get_or_insert(Extent { shortest: gap, longest: gap });
            known.shortest = known.shortest.min(gap);
            known.longest = known.longest.max(gap);
        }
        if self.patterns.len() + self.dates.len() == 1 {
            return;
        }
        while let Some(known) = extent
            && let Ok(early) = at.checked_sub(known.shortest.seconds())
            && let Some(before) = self.next(early).filter(|before| *before < at)
            && let Some(gap) = seconds_between(before, at)
        {
            known.shortest = gap;
        }
    }
}

fn seconds_between(from: DateTime, to: DateTime) -> Option<i64> {
    Some(seconds_of(to)? - seconds_of(from)?)
}
