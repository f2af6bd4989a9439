//! Pauses that grow.

use std::time::Duration;

/// How long to wait before trying again: each time twice as long, up to a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    next: Duration,
    limit: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, limit: Duration) -> Self {
        Self { next: first, limit }
    }

    /// Returns the pause before the next attempt.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next.min(self.limit);
        self.next = self.next.saturating_mul(2);
        pause
    }

    /// Returns the pause before the attempt after `attempts` of them.
    pub(crate) fn after(mut self, attempts: u32) -> Duration {
        for _ in 1..attempts.min(64) {
            self.next = self.next.saturating_mul(2);
        }
        self.pause()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let pauses: Vec<u64> = (0..5).map(|_| backoff.pause().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        assert_eq!([0, 1, 2, 3, 99].map(|n| backoff.after(n).as_secs()), [1, 1, 2, 4, 60]);
    }
}
