//! Chance that can be replayed.

use std::ops::Range;
use std::time::Duration;

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): one word of state, every seed good.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// True with this probability. Draws nothing for what is certain, so that a network without
    /// faults runs the same whatever the seed.
    pub(super) fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && ((self.next() >> 11) as f64 / (1u64 << 53) as f64) < probability
    }

    /// A duration within the range; its beginning if it is empty.
    pub(super) fn within(&mut self, range: &Range<Duration>) -> Duration {
        let width = range.end.saturating_sub(range.start).as_nanos();
        match u64::try_from(width).unwrap_or(u64::MAX) {
            0 => range.start,
            width => range.start + Duration::from_nanos(self.next() % width),
        }
    }
}
