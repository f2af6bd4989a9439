//! Points in time: microseconds UTC, as the database stores them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A point in time, in microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Instant(i64);

impl Instant {
    /// Wraps microseconds since the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Returns the microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Returns the instant that many seconds later (or earlier), held at the ends of the range.
    pub const fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }

    /// Returns the seconds from `earlier` to this; negative when this is the earlier one.
    pub const fn seconds_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0) / 1_000_000
    }

    /// Returns the UTC date as `YYYY-MM-DD`.
    pub fn date(self) -> String {
        self.format("%Y-%m-%d")
    }

    /// Returns the instant as `YYYY-MM-DDTHH:MM:SS.ffffff` without zone, as the v1 API writes times.
    pub fn naive_iso(self) -> String {
        self.format("%Y-%m-%dT%H:%M:%S%.6f")
    }

    fn format(self, pattern: &str) -> String {
        let Ok(timestamp) = jiff::Timestamp::from_microsecond(self.0) else {
            return format!("@{}us", self.0);
        };
        timestamp.strftime(pattern).to_string()
    }
}

impl fmt::Display for Instant {
    /// Writes RFC 3339 with microseconds: `2026-11-22T22:29:14.505248Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}Z", self.naive_iso())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_read_as_the_old_api_wrote_them() {
        let instant = Instant::from_micros(1_795_386_554_505_248);
        assert_eq!(instant.naive_iso(), "2026-11-22T22:29:14.505248");
        assert_eq!(instant.date(), "2026-11-22");
        assert_eq!(instant.to_string(), "2026-11-22T22:29:14.505248Z");
        assert_eq!(Instant::from_micros(i64::MAX).date(), format!("@{}us", i64::MAX));
    }
}
