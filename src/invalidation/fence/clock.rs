//! The fence's clock: monotone nanoseconds since the fence was made.

#[cfg(not(afterwrite_loom))]
use std::time::Instant;

/// Read on a miss and on hits whose age matters; never on a plain hit.
#[derive(Debug)]
pub(crate) struct Clock {
    #[cfg(not(afterwrite_loom))]
    origin: Instant,
    #[cfg(test)]
    by_hand: Option<std::sync::Arc<std::sync::atomic::AtomicU64>>,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            #[cfg(not(afterwrite_loom))]
            origin: Instant::now(),
            #[cfg(test)]
            by_hand: None,
        }
    }

    /// A clock that a test moves.
    #[cfg(test)]
    pub(crate) fn by_hand(nanos: std::sync::Arc<std::sync::atomic::AtomicU64>) -> Self {
        Self {
            by_hand: Some(nanos),
            ..Self::start()
        }
    }

    /// Nanoseconds since the start; 584 years fit.
    pub(crate) fn now(&self) -> u64 {
        #[cfg(test)]
        if let Some(nanos) = &self.by_hand {
            return nanos.load(std::sync::atomic::Ordering::SeqCst);
        }
        // A model explores orders, not durations.
        #[cfg(afterwrite_loom)]
        return 0;
        #[cfg(not(afterwrite_loom))]
        return nanos(self.origin.elapsed());
    }
}

/// A duration in whole nanoseconds, saturating.
pub(crate) fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
