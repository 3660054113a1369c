//! The settings of a coherent cache.

use std::time::Duration;

use super::Coherent;
use crate::invalidation::cache::Store;
use crate::invalidation::fence::{Fence, nanos};

/// Sets up a [`Coherent`].
///
/// ```
/// use std::time::Duration;
/// use afterwrite::invalidation::caches::BoundedMap;
/// use afterwrite::invalidation::coherent::Builder;
///
/// let prices = Builder::new()
///     .loads(16)
///     .max_age(Duration::from_secs(60))
///     .build(BoundedMap::<u64>::new(10_000));
/// # drop(prices);
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    loads: usize,
    waiting: usize,
    ramp: Duration,
    settle: Duration,
    max_age: Option<Duration>,
}

impl Builder {
    /// The defaults.
    pub const fn new() -> Self {
        Self {
            loads: 64,
            waiting: 10_000,
            ramp: Duration::from_secs(1),
            settle: Duration::ZERO,
            max_age: None,
        }
    }

    /// How many loaders may run at once, of different ids; 64. Zero counts as one. Loads that a loader
    /// begins do not count.
    pub const fn loads(mut self, loads: usize) -> Self {
        self.loads = loads;
        self
    }

    /// How many loads may wait for their turn; 10,000. Further ones answer
    /// [`LoadError::Overloaded`](super::LoadError::Overloaded). Callers that share a load
    /// count once.
    pub const fn waiting(mut self, waiting: usize) -> Self {
        self.waiting = waiting;
        self
    }

    /// After everything was dropped, loads start at an eighth of [`loads`](Self::loads) and come to
    /// the full number over this time; one second. Each node stretches it by a random factor from
    /// a half to one and a half, so that a fleet that drops at once does not load in step.
    /// Zero turns it off.
    pub const fn refill_over(mut self, ramp: Duration) -> Self {
        self.ramp = ramp;
        self
    }

    /// See [`Fence::with_settle`]; zero, off.
    pub const fn settle(mut self, settle: Duration) -> Self {
        self.settle = settle;
        self
    }

    /// Serves no entry for longer than this after its load began; no limit. Hits then look at the
    /// clock. See [`Fence::with_max_age`].
    pub const fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }

    /// Wraps a cache. What it holds already is of no use: only entries that a fence has stamped are.
    pub fn build<C: Store>(self, store: C) -> Coherent<C> {
        self.build_with(store, Fence::new())
    }

    pub(super) fn build_with<C: Store>(self, store: C, fence: Fence) -> Coherent<C> {
        let fence = fence.with_settle(self.settle);
        let fence = match self.max_age {
            Some(max_age) => fence.with_max_age(max_age),
            None => fence,
        };
        Coherent::assemble(store, fence, self.loads, self.waiting, nanos(self.ramp))
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}
