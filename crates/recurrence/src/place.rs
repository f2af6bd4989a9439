//! Time zones, and the instant at which a clock in one shows a time.

use std::sync::OnceLock;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};

use crate::Error;

/// Returns the zone of that name, from the rules that are built into the program.
///
/// The rules of the machine are not read: two machines of one service must agree on every occurrence.
pub(crate) fn zone(name: &str) -> Result<TimeZone, Error> {
    static ZONES: OnceLock<TimeZoneDatabase> = OnceLock::new();
    let name = name.trim();
    if name.eq_ignore_ascii_case("UTC") {
        return Ok(TimeZone::UTC);
    }
    let zones = ZONES.get_or_init(TimeZoneDatabase::bundled);
    zones.get(name).map_err(|_| Error::Zone { zone: name.to_owned() })
}

/// Returns the instant at which a clock in `zone` shows `at`.
///
/// A time that is shown twice is its first showing; one that is skipped is the instant of the jump. So a later
/// time on the clock is never an earlier instant.
pub(crate) fn instant(zone: &TimeZone, at: DateTime) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(at).offset() {
        AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { before: offset, .. } => {
            offset.to_timestamp(at).ok()
        }
        AmbiguousOffset::Gap { after, .. } => {
            let before_the_jump = after.to_timestamp(at).ok()?;
            zone.following(before_the_jump).next().map(|jump| jump.timestamp())
        }
    }
}
