//! Durations, counted in buckets that grow with them: bounded memory, quantiles within 2 %.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Buckets of each power of two.
const STEPS: u64 = 64;
/// Powers of two beyond the first `STEPS` nanoseconds, up to a good 18 minutes.
const POWERS: u64 = 34;

/// A histogram that many threads may add to.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: Box<[AtomicU64]>,
}

impl Default for Histogram {
    fn default() -> Self {
        let buckets = (0..STEPS * (POWERS + 1)).map(|_| AtomicU64::new(0));
        Self {
            buckets: buckets.collect(),
        }
    }
}

fn bucket(nanos: u64) -> usize {
    if nanos < STEPS {
        return nanos as usize;
    }
    let power = u64::from(nanos.ilog2() - STEPS.ilog2());
    let bucket = (power + 1) * STEPS + (nanos >> power) - STEPS;
    bucket.min(STEPS * (POWERS + 1) - 1) as usize
}

/// The middle of a bucket.
fn middle(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let power = bucket / STEPS - 1;
    ((STEPS + bucket % STEPS) << power) + (1 << power) / 2
}

impl Histogram {
    pub(crate) fn add(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)].fetch_add(1, Relaxed);
    }

    /// The duration that this share of all stays at or under; `None` without any.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        let counts: Vec<u64> = self.buckets.iter().map(|b| b.load(Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let rank = ((total as f64 * share).ceil() as u64).max(1);
        let mut below = 0;
        let found = counts.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        Some(Duration::from_nanos(middle(found)))
    }
}
