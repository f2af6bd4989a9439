//! How many requests a project may make, and how many calls a trigger takes: so many a second, and a burst beyond.
//!
//! Each has the time at which its account would be level again; a request moves it on by one share. Nothing runs in the
//! background: one whose time has passed is forgotten when room is needed.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Of how many the times are kept at most before those that have passed are forgotten.
const KEPT: usize = 10_000;

/// The limit.
#[derive(Debug)]
pub(crate) struct Rate<K> {
    /// What one request takes; nothing when there is no limit.
    share: Option<Duration>,
    /// How far ahead of the clock one may be.
    burst: Duration,
    level: Mutex<HashMap<K, Instant>>,
}

impl<K: Clone + Eq + Hash> Rate<K> {
    /// Makes a limit of requests a second; zero is none.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let share = (per_second > 0).then(|| Duration::from_secs(1) / per_second);
        let burst = share.unwrap_or_default() * burst.max(1);
        Self { share, burst, level: Mutex::default() }
    }

    /// Takes one request; answers how long to wait where there are too many.
    pub(crate) fn take(&self, whose: &K, now: Instant) -> Result<(), Duration> {
        let Some(share) = self.share else { return Ok(()) };
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        if level.len() >= KEPT && !level.contains_key(whose) {
            level.retain(|_, at| *at > now);
        }
        let at = level.get(whose).copied().unwrap_or(now).max(now);
        let next = at + share;
        let ahead = next.duration_since(now);
        if ahead > self.burst {
            return Err(ahead - self.burst);
        }
        level.insert(whose.clone(), next);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use karbor_types::ProjectId;

    use super::*;

    #[test]
    fn a_project_has_its_burst_and_then_its_share() {
        let rate = Rate::new(10, 3);
        let (one, two) = (ProjectId::new("one").expect("an id"), ProjectId::new("two").expect("an id"));
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(rate.take(&one, now), Ok(()));
        }
        assert_eq!(rate.take(&one, now), Err(Duration::from_millis(100)));
        assert_eq!(rate.take(&two, now), Ok(()), "another project has its own");
        let later = now + Duration::from_millis(100);
        assert_eq!(rate.take(&one, later), Ok(()));
        assert!(rate.take(&one, later).is_err());
        assert_eq!(Rate::new(0, 0).take(&one, now), Ok(()), "no limit");
    }
}
