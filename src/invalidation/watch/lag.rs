//! How long drops take, in a few counters that many threads may raise.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::invalidation::protocol::Micros;

/// Powers of two of microseconds, up to some 36 minutes.
const BUCKETS: usize = 32;

/// Counts delays by their magnitude.
#[derive(Debug, Default)]
pub(crate) struct LagMeter {
    buckets: [AtomicU64; BUCKETS],
    last: AtomicU64,
    max: AtomicU64,
}

/// How long drops took, from the emit on another node to their application here.
///
/// Each is an upper bound: it is measured across two clocks, and too large by at most what one of this
/// node's beats took to the publisher, which is less than [`e_max`](crate::invalidation::Settings::e_max)
/// while the cache is coherent. Only drops by calibrated publishers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Lag {
    /// Drops that were measured.
    pub count: u64,
    /// The latest.
    pub last: Duration,
    /// Half of them took no longer; rounded up to a power of two of microseconds.
    pub p50: Duration,
    /// Ninety-nine in a hundred took no longer; rounded alike.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

impl LagMeter {
    pub(crate) fn note(&self, lag: Micros) {
        let bucket = (u64::BITS - lag.leading_zeros()) as usize;
        self.buckets[bucket.min(BUCKETS - 1)].fetch_add(1, Relaxed);
        self.last.store(lag, Relaxed);
        if lag > self.max.load(Relaxed) {
            self.max.fetch_max(lag, Relaxed);
        }
    }

    pub(crate) fn read(&self) -> Lag {
        let buckets: Vec<u64> = self.buckets.iter().map(|n| n.load(Relaxed)).collect();
        let count = buckets.iter().sum::<u64>();
        let max = self.max.load(Relaxed);
        let quantile = |percent: u64| {
            let rank = (count * percent).div_ceil(100);
            let mut seen = 0;
            let bucket = buckets.iter().position(|n| {
                seen += n;
                seen >= rank
            });
            Duration::from_micros((1u64 << bucket.unwrap_or(0)).min(max))
        };
        Lag {
            count,
            last: Duration::from_micros(self.last.load(Relaxed)),
            p50: quantile(50),
            p99: quantile(99),
            max: Duration::from_micros(max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_bound_what_was_noted() {
        let meter = LagMeter::default();
        assert_eq!(meter.read(), Lag::default());
        for lag in 1..=1_000 {
            meter.note(lag);
        }
        meter.note(u64::MAX);
        let lag = meter.read();
        assert_eq!(lag.count, 1_001);
        assert_eq!(lag.p50, Duration::from_micros(512));
        assert_eq!(lag.p99, Duration::from_micros(1_024));
        assert_eq!(lag.max, Duration::from_micros(u64::MAX));
    }
}
