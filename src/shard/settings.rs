//! What all shards of a registry have in common.

use crate::gate::Retry;
use crate::observer::{DropReason, Expiry, Observer, SkipReason, Timing};
use crate::sync::{Arc, AtomicBool, panics::contain};
use crate::topic::Pushed;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Shared by the front door and every shard.
#[cfg_attr(all(test, not(afterwrite_loom)), derive(Default))]
pub(crate) struct Settings {
    pub(crate) retry: Retry,
    pub(crate) expiry: Expiry,
    pub(crate) coalesce: bool,
    pub(crate) wait: WaitStrategy,
    /// Whether a core is left for whoever feeds a shard that spins.
    pub(crate) may_spin: bool,
    pub(crate) pending_per_key: u16,
    pub(crate) observer: Watched,
    /// Raised when the registry begins to close.
    pub(crate) closing: Arc<AtomicBool>,
    #[cfg(feature = "tokio")]
    pub(crate) runtime: Option<tokio::runtime::Handle>,
}

/// What a shard's thread does when it has nothing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[non_exhaustive]
pub enum WaitStrategy {
    /// Looks again and again: the least latency, a whole core for each shard. Only for machines with
    /// more cores than shards.
    Spin,
    /// Looks again for at most 20 µs, then sleeps; with as many workers as cores it sleeps at
    /// once.
    #[default]
    SpinThenPark,
    /// Sleeps at once.
    Park,
}

/// The observer, called so that its panics stay with it.
#[derive(Default)]
pub(crate) struct Watched {
    observer: Option<std::sync::Arc<dyn Observer>>,
    wants_timing: bool,
    panicked: AtomicU64,
    panicked_payloads: AtomicU64,
}

impl Watched {
    pub(crate) fn new(observer: Option<std::sync::Arc<dyn Observer>>) -> Self {
        let wants_timing = observer
            .as_ref()
            .is_some_and(|o| contain(|| o.wants_timing()).unwrap_or(false));
        Self {
            observer,
            wants_timing,
            panicked: AtomicU64::new(0),
            panicked_payloads: AtomicU64::new(0),
        }
    }

    #[inline(always)]
    pub(crate) fn wants_timing(&self) -> bool {
        self.wants_timing
    }

    /// The time, if the observer wants it.
    #[inline(always)]
    pub(crate) fn time(&self) -> Option<Instant> {
        self.wants_timing.then(Instant::now)
    }

    #[inline(always)]
    pub(crate) fn tell(&self, event: impl FnOnce(&dyn Observer)) {
        if let Some(observer) = &self.observer {
            self.call(&**observer, event);
        }
    }

    #[cold]
    fn call(&self, observer: &dyn Observer, event: impl FnOnce(&dyn Observer)) {
        if contain(|| event(observer)).is_none() {
            self.panicked.fetch_add(1, Relaxed);
            tracing::error!("an observer panicked");
        }
    }

    /// Whether there is one.
    #[inline(always)]
    pub(crate) fn watches(&self) -> bool {
        self.observer.is_some()
    }

    /// A push came to its end.
    #[inline(always)]
    pub(crate) fn pushed(&self, key: &str, pushed: Pushed, timing: Option<Timing>) {
        if self.observer.is_some() {
            self.tell(|o| o.pushed(key, pushed.reached as usize, timing));
            if pushed.full > 0 {
                self.tell(|o| o.channel_full(key, pushed.full as usize));
            }
        }
    }

    #[cold]
    pub(crate) fn payload_panicked(&self, key: &str, n: u32) {
        self.panicked_payloads.fetch_add(u64::from(n), Relaxed);
        tracing::error!(key, n, "a payload panicked while it was pushed");
        self.tell(|o| o.payload_panicked(key, n as usize));
    }

    /// A gate ended without a push; the observer is told unless it was told of that notice before.
    pub(crate) fn skipped(&self, key: &str, reason: SkipReason, tell: bool) {
        tracing::debug!(key, %reason, "a gate ended without a push");
        if tell {
            self.tell(|o| o.push_skipped(key, reason));
        }
    }

    pub(crate) fn dropped(&self, key: &str, reason: DropReason) {
        tracing::debug!(key, %reason, "a notice was given up");
        self.tell(|o| o.dropped(key, reason));
    }

    /// Calls of the observer that panicked.
    pub(crate) fn panicked(&self) -> u64 {
        self.panicked.load(Relaxed)
    }

    /// Payloads that panicked while they were pushed.
    pub(crate) fn panicked_payloads(&self) -> u64 {
        self.panicked_payloads.load(Relaxed)
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("retry", &self.retry)
            .field("expiry", &self.expiry)
            .field("coalesce", &self.coalesce)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}
