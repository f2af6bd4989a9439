//! Times of a day: the hours, minutes and seconds at which something happens.

use jiff::civil::Time;

/// A set of times of day: every second of its seconds, in every minute of its minutes, in every hour of its
/// hours.
///
/// Invariant: no part is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clock {
    pub(crate) hours: u64,
    pub(crate) minutes: u64,
    pub(crate) seconds: u64,
}

/// Every value below `count`.
pub(crate) const fn all(count: u32) -> u64 {
    (1 << count) - 1
}

/// The one value.
pub(crate) fn one(value: i8) -> u64 {
    1 << value.clamp(0, 63)
}

/// Returns the lowest value of a set that is at least `from`.
pub(crate) fn lowest(set: u64, from: u32) -> Option<u32> {
    let rest = if from < 64 { set >> from << from } else { 0 };
    (rest != 0).then(|| rest.trailing_zeros())
}

/// Returns the value at a place of a set, counted from zero upwards.
fn at(set: u64, place: u64) -> u32 {
    let mut rest = set;
    for _ in 0..place {
        rest &= rest.wrapping_sub(1);
    }
    rest.trailing_zeros()
}

impl Clock {
    /// Returns the first time of day that is not before `from`.
    pub(crate) fn first_from(&self, from: Time) -> Option<Time> {
        let [hour, minute, second] =
            [from.hour(), from.minute(), from.second()].map(|part| u32::from(part.unsigned_abs()));
        // A fraction of a second belongs to the next.
        let second = second + u32::from(from.subsec_nanosecond() > 0);
        let first_minute = self.minutes.trailing_zeros();
        let first_second = self.seconds.trailing_zeros();
        let this_hour = lowest(self.hours, hour)?;
        if this_hour > hour {
            return time(this_hour, first_minute, first_second);
        }
        if let Some(this_minute) = lowest(self.minutes, minute) {
            if this_minute > minute {
                return time(hour, this_minute, first_second);
            }
            if let Some(this_second) = lowest(self.seconds, second) {
                return time(hour, minute, this_second);
            }
            if let Some(next_minute) = lowest(self.minutes, minute + 1) {
                return time(hour, next_minute, first_second);
            }
        }
        time(lowest(self.hours, hour + 1)?, first_minute, first_second)
    }

    /// Returns how many times of day there are.
    pub(crate) fn count(&self) -> u64 {
        u64::from(self.hours.count_ones())
            * u64::from(self.minutes.count_ones())
            * u64::from(self.seconds.count_ones())
    }

    /// Returns the time at a place, counted from zero; `place` is below the count.
    pub(crate) fn nth(&self, place: u64) -> Option<Time> {
        let seconds = u64::from(self.seconds.count_ones());
        let minutes = u64::from(self.minutes.count_ones());
        let (rest, second) = (place / seconds, place % seconds);
        let (hour, minute) = (rest / minutes, rest % minutes);
        time(at(self.hours, hour), at(self.minutes, minute), at(self.seconds, second))
    }

    /// Returns the shortest and the longest time in seconds between neighbours of one day; `None` when there
    /// is one time only.
    pub(crate) fn gaps(&self) -> Option<(i64, i64)> {
        let mut gaps: Option<(i64, i64)> = None;
        let mut last = self.nth(0)?;
        while let Some(next) =
            last.checked_add(jiff::SignedDuration::from_secs(1)).ok().and_then(|from| self.first_from(from))
        {
            let gap = seconds_of(next) - seconds_of(last);
            gaps = Some(gaps.map_or((gap, gap), |(low, high)| (low.min(gap), high.max(gap))));
            last = next;
        }
        gaps
    }

    /// Returns the seconds from the last time of a day to the first of the next.
    pub(crate) fn overnight(&self) -> Option<i64> {
        let last = self.nth(self.count() - 1)?;
        Some(seconds_of(self.nth(0)?) + 86_400 - seconds_of(last))
    }
}

fn time(hour: u32, minute: u32, second: u32) -> Option<Time> {
    let part = |value: u32| i8::try_from(value).ok();
    Time::new(part(hour)?, part(minute)?, part(second)?, 0).ok()
}

fn seconds_of(time: Time) -> i64 {
    i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second())
}
