//! Seeded random numbers for jitter and for faults: small, repeatable, not for secrets.

use std::sync::atomic::{AtomicU64, Ordering};

/// SplitMix64 behind a shared reference; two callers at once get two different numbers.
#[derive(Debug)]
pub(super) struct SplitMix(AtomicU64);

impl SplitMix {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    pub(super) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Returns the next number from 0 up to, but not including, 1.
    pub(super) fn unit(&self) -> f64 {
        let state = self.0.fetch_add(Self::STEP, Ordering::Relaxed).wrapping_add(Self::STEP);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mixed = mixed ^ (mixed >> 31);
        // 32 bits are exact in an `f64`.
        let high = u32::try_from(mixed >> 32).expect("32 bits were shifted out");
        f64::from(high) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_and_repeat_for_a_seed() {
        let numbers = |seed| {
            let random = SplitMix::new(seed);
            std::iter::repeat_with(|| random.unit()).take(1000).collect::<Vec<_>>()
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        assert!(numbers(7).iter().all(|number| (0.0..1.0).contains(number)));
        let mean = numbers(7).iter().sum::<f64>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
    }
}
