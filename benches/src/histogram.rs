//! Latencies in fixed memory: buckets of at most 1/32 of their value.
//!
//! The bucketing is that of HdrHistogram (Tene): the position of the highest bit, and the five bits
//! below it. Recording is one relaxed addition, so any number of threads may.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const SUB_BITS: u32 = 5;
const SUB: usize = 1 << SUB_BITS;
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) * SUB;

fn bucket(value: u64) -> usize {
    if value < SUB as u64 {
        return value as usize;
    }
    let shift = 63 - value.leading_zeros() - SUB_BITS;
    (shift as usize + 1) * SUB + ((value >> shift) as usize - SUB)
}

/// The largest value of a bucket.
fn highest(bucket: usize) -> u64 {
    if bucket < SUB {
        return bucket as u64;
    }
    let shift = (bucket / SUB - 1) as u32;
    let low = ((bucket % SUB + SUB) as u64) << shift;
    low + ((1_u64 << shift) - 1)
}

/// Counts of values, in nanoseconds or whatever unit the user has.
#[derive(Debug)]
pub struct Histogram {
    counts: Box<[AtomicU64]>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Histogram {
    /// Counts a value. Wait-free.
    #[inline]
    pub fn record(&self, value: u64) {
        self.counts[bucket(value)].fetch_add(1, Relaxed);
    }

    /// How many values were counted.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.counts.iter().map(|c| c.load(Relaxed)).sum()
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value that a share of all do not exceed (0.99 for p99), to 1/32; 0 without values.
    #[must_use]
    pub fn quantile(&self, share: f64) -> u64 {
        let total = self.len();
        let rank = ((total as f64 * share).ceil() as u64).clamp(1, total.max(1));
        let mut sum = 0;
        for (index, count) in self.counts.iter().enumerate() {
            sum += count.load(Relaxed);
            if sum >= rank {
                return highest(index);
            }
        }
        0
    }

    /// Adds another's counts to this.
    pub fn add(&self, other: &Self) {
        for (mine, theirs) in self.counts.iter().zip(&other.counts) {
            mine.fetch_add(theirs.load(Relaxed), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, Histogram, bucket, highest};

    #[test]
    fn a_bucket_holds_its_highest_and_the_next_one_more() {
        for index in 0..BUCKETS - 1 {
            assert_eq!(bucket(highest(index)), index);
            assert_eq!(bucket(highest(index) + 1), index + 1);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_within_a_thirty_second() {
        let histogram = Histogram::default();
        (1..=10_000).for_each(|v| histogram.record(v));
        for (share, exact) in [(0.5, 5_000), (0.99, 9_900), (0.999, 9_990)] {
            let found = histogram.quantile(share);
            assert!(found >= exact && found <= exact + exact / 32 + 1, "{found}");
        }
        assert_eq!(histogram.len(), 10_000);
        assert_eq!(Histogram::default().quantile(0.5), 0);
    }
}
