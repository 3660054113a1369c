//! The thread that ends trust when its time is over.
//!
//! It takes no lock that a cache, a runtime or the bus could hold: whatever else stands still,
//! `Coherent` does not outlive its deadline by more than this thread's own delay.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use super::inner::{Inner, Waking};
use crate::invalidation::protocol::Micros;

/// When the thread looks next.
#[derive(Debug)]
pub(super) struct Deadline {
    next: AtomicU64,
    pub(super) thread: Waking,
}

impl Default for Deadline {
    fn default() -> Self {
        Self {
            next: AtomicU64::new(Micros::MAX),
            thread: Waking::default(),
        }
    }
}

impl Deadline {
    /// Makes sure that the thread looks at `until`.
    #[inline]
    pub(super) fn no_later_than(&self, until: Micros) {
        if until < self.next.load(Acquire) && until < self.next.fetch_min(until, AcqRel) {
            self.thread.wake();
        }
    }
}

/// Runs until the invalidator is gone. At most `nap` passes between two looks at whether it is.
pub(super) fn run(inner: &Weak<Inner>, nap: Duration) {
    while let Some(inner) = inner.upgrade() {
        let wait = look(&inner).map_or(nap, |wait| wait.min(nap));
        drop(inner);
        // Woken by `no_later_than`, whose token is kept if it came before this.
        thread::park_timeout(wait);
    }
}

/// Ends what is over; says how long the rest lasts.
fn look(inner: &Arc<Inner>) -> Option<Duration> {
    let remote = inner.remote.as_ref()?;
    // From here on, whoever sets an earlier deadline wakes this thread again.
    remote.deadline.next.store(Micros::MAX, Release);
    let now = inner.clock.now();
    // Walked under the lock, so that this thread never has the last handle on a cache, whose drop
    // is foreign code. Whoever writes here drops nothing under the lock either.
    let listeners = inner.listeners.read();
    let mut next = Micros::MAX;
    for listener in listeners.by_entity.values().flatten() {
        listener.wake(listener.feed.enforce(now));
        if let Some(until) = listener.feed.trusted_until().filter(|&until| until > now) {
            next = next.min(until);
        }
    }
    drop(listeners);
    remote.deadline.next.fetch_min(next, AcqRel);
    let next = remote.deadline.next.load(Acquire);
    (next < Micros::MAX).then(|| Duration::from_micros(next.saturating_sub(now).max(100)))
}
