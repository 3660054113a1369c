//! The thread that ends trust when its time is over.
//!
//! It takes no lock that a cache, a runtime or the bus could hold: whatever else stands still,
//! `Coherent` does not outlive its deadline by more than this thread's own delay. That delay is
//! measured, since B allows [`TICK`] for it and no more: from when a look was due to its end, by which
//! all that was over is doubted. A look that is still owed counts as well, up to the moment at which
//! somebody asks, so that whoever finds trust that has outlived its time finds the delay beside it.
//!
//! # Orderings
//! What is owed is in `next` until a look begins, and in `looking` until it has ended and is counted.
//! A look writes the later place before it clears the earlier one (Release), and whoever asks reads them
//! in the same order (Acquire): it finds the debt in one of them, or counted.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use super::inner::{Clock, Inner, Waking};
use crate::invalidation::protocol::Micros;
use crate::invalidation::settings::TICK;

/// The same in microseconds.
const ALLOWED: Micros = TICK.as_micros() as Micros;

/// When the thread looks next, and how late it was.
#[derive(Debug)]
pub(super) struct Deadline {
    next: AtomicU64,
    /// When the look was due that is under way.
    looking: AtomicU64,
    /// How many looks were late by more than is allowed.
    late: AtomicU64,
    /// The longest that one was late.
    worst: AtomicU64,
    pub(super) thread: Waking,
}

/// How late the thread was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lateness {
    /// Looks that were late by more than [`TICK`].
    pub(super) late: u64,
    /// The longest that one was late.
    pub(super) worst: Duration,
}

impl Default for Deadline {
    fn default() -> Self {
        Self {
            next: AtomicU64::new(Micros::MAX),
            looking: AtomicU64::new(Micros::MAX),
            late: AtomicU64::new(0),
            worst: AtomicU64::new(0),
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

    /// A look begins. Says when it was due.
    fn begin(&self) -> Micros {
        let mut due = self.next.load(Acquire);
        loop {
            self.looking.store(due, Release);
            // From here on, whoever sets an earlier deadline wakes this thread again.
            match self
                .next
                .compare_exchange(due, Micros::MAX, AcqRel, Acquire)
            {
                Ok(_) => return due,
                Err(earlier) => due = earlier,
            }
        }
    }

    /// The look is over that began at `begun` and was due at `due`. What was not due then is left to
    /// the next look.
    fn end(&self, due: Micros, begun: Micros, now: Micros) {
        if due <= begun {
            let late = now.saturating_sub(due);
            self.worst.fetch_max(late, Release);
            if late > ALLOWED {
                self.late.fetch_add(1, Release);
            }
        }
        self.looking.store(Micros::MAX, Release);
    }

    /// How late the thread was, a look that it owes by now included.
    pub(super) fn lateness(&self, clock: Clock) -> Lateness {
        self.lateness_at(|| clock.now())
    }

    fn lateness_at(&self, now: impl Fn() -> Micros) -> Lateness {
        loop {
            let late = self.late.load(Acquire);
            let next = self.next.load(Acquire);
            let due = next.min(self.looking.load(Acquire));
            // Read last: what is owed now was owed at some time since this call began.
            let owed = now().saturating_sub(due);
            let worst = self.worst.load(Acquire).max(owed);
            // Else a look has ended in between, and may be counted twice.
            if self.late.load(Acquire) == late {
                return Lateness {
                    late: late + u64::from(owed > ALLOWED),
                    worst: Duration::from_micros(worst),
                };
            }
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
    let due = remote.deadline.begin();
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
    remote.deadline.end(due, now, inner.clock.now());
    let next = remote.deadline.next.load(Acquire);
    (next < Micros::MAX).then(|| Duration::from_micros(next.saturating_sub(now).max(100)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Micros = 1_000;

    fn lateness(late: u64, worst: Micros) -> Lateness {
        let worst = Duration::from_micros(worst);
        Lateness { late, worst }
    }

    #[test]
    fn i6_lateness_beyond_a_tick_is_counted_once() {
        let deadline = Deadline::default();
        assert_eq!(deadline.lateness_at(|| 500 * MS), lateness(0, 0));
        deadline.no_later_than(20 * MS);
        deadline.no_later_than(10 * MS);
        assert_eq!(deadline.lateness_at(|| 10 * MS), lateness(0, 0));
        // Owed, under way, over.
        assert_eq!(deadline.lateness_at(|| 60 * MS), lateness(0, 50 * MS));
        assert_eq!(deadline.lateness_at(|| 61 * MS), lateness(1, 51 * MS));
        let due = deadline.begin();
        assert_eq!(due, 10 * MS);
        assert_eq!(deadline.lateness_at(|| 62 * MS), lateness(1, 52 * MS));
        deadline.end(due, 61 * MS, 63 * MS);
        assert_eq!(deadline.lateness_at(|| 500 * MS), lateness(1, 53 * MS));
        // In time.
        deadline.no_later_than(600 * MS);
        let due = deadline.begin();
        deadline.end(due, 601 * MS, 602 * MS);
        assert_eq!(deadline.lateness_at(|| 900 * MS), lateness(1, 53 * MS));
    }

    #[test]
    fn i6_a_look_that_comes_early_leaves_its_deadline_to_the_next() {
        let deadline = Deadline::default();
        deadline.no_later_than(100 * MS);
        let due = deadline.begin();
        // Found trusted still, as of 90 ms.
        deadline.no_later_than(100 * MS);
        deadline.end(due, 90 * MS, 200 * MS);
        assert_eq!(deadline.lateness_at(|| 201 * MS), lateness(1, 101 * MS));
        let due = deadline.begin();
        deadline.end(due, 202 * MS, 203 * MS);
        assert_eq!(deadline.lateness_at(|| 900 * MS), lateness(1, 103 * MS));
    }
}
