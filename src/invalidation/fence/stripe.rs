//! Striped locks, and the one rule that keeps callbacks from deadlocking on them.
//!
//! Role: an id hashes to a stripe. A store checks and inserts under the stripe's lock, a drop raises
//! the version under it, so that one of the two sees what the other did.
//!
//! The user's code runs under that lock: a cache's insert, an eviction listener. It may call the
//! library again, on this fence or on another. A thread that already is inside such a call therefore
//! never *waits* for a stripe: it tries, and on failure the caller falls back to something that needs
//! no lock (a drop raises the epoch, a store is refused). No thread waits while it holds, so there is
//! no cycle to wait in.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

use crate::sync::{AtomicU64, Mutex, MutexGuard, thread_local};

/// How many locks the ids of one fence share. A power of two.
#[cfg(not(afterwrite_loom))]
pub(crate) const STRIPES: usize = 1024;
#[cfg(afterwrite_loom)]
pub(crate) const STRIPES: usize = 2;

/// One lock, what it guards, and the version that tokens compare.
#[derive(Debug)]
pub(crate) struct Stripe {
    lock: Mutex<Marks>,
    /// Drops so far. Written under the lock only; read without it when a token is taken.
    pub(crate) version: AtomicU64,
}

/// What drops have left behind for the stores that come after them.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// The highest position that a drop was stamped with; 0 before the first.
    pub(crate) position: u64,
    /// Loads that began before this time may have read a replica that lags behind some drop.
    pub(crate) settles: u64,
    /// The same, for drops that carried no position.
    pub(crate) settles_unstamped: u64,
}

thread_local! {
    // loom's macro knows no `const` initialiser.
    #[allow(clippy::missing_const_for_thread_local)]
    static DEPTH: Cell<u32> = Cell::new(0);
}

/// Whether this thread is inside a callback that a fence made.
pub(crate) fn inside() -> bool {
    DEPTH.with(|depth| depth.get() > 0)
}

/// Marks this thread as inside a callback until dropped, also by a panic.
#[derive(Debug)]
pub(crate) struct Inside(());

impl Inside {
    pub(crate) fn enter() -> Self {
        DEPTH.with(|depth| depth.set(depth.get() + 1));
        Self(())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        DEPTH.with(|depth| depth.set(depth.get() - 1));
    }
}

/// A stripe's lock, held.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    marks: MutexGuard<'a, Marks>,
    _inside: Inside,
}

impl Deref for Held<'_> {
    type Target = Marks;

    fn deref(&self) -> &Marks {
        &self.marks
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Marks {
        &mut self.marks
    }
}

impl Stripe {
    pub(crate) fn new() -> Self {
        Self {
            lock: Mutex::new(Marks::default()),
            version: AtomicU64::new(0),
        }
    }

    /// Takes the lock; `None` when this thread is inside a callback and would have to wait.
    pub(crate) fn enter(&self) -> Option<Held<'_>> {
        let marks = if inside() {
            self.lock.try_lock()?
        } else {
            self.lock.lock()
        };
        Some(Held {
            marks,
            _inside: Inside::enter(),
        })
    }

    /// Waits until whoever holds the lock now has left.
    pub(crate) fn pass(&self) {
        drop(self.lock.lock());
    }
}
