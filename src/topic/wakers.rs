//! Wakers taken under the turn and woken, as far as they fit, after it.

use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use crate::sync::Ordering::Relaxed;

/// Wakers that panicked, ever, in this process.
pub(crate) static PANICKED: Panics = Panics::new();

/// A count that stays out of the models' sight.
#[derive(Debug)]
pub(crate) struct Panics(std::sync::atomic::AtomicU64);

impl Panics {
    const fn new() -> Self {
        Self(std::sync::atomic::AtomicU64::new(0))
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Wakes, and keeps a panic of the waker from the caller.
pub(crate) fn wake(waker: Waker) {
    if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
        PANICKED.add();
    }
}

const BATCH: usize = 32;

/// Up to 32 wakers; a further one wakes them first. Never allocates.
pub(crate) struct Wakers {
    taken: [MaybeUninit<Waker>; BATCH],
    len: usize,
}

impl Wakers {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self {
            taken: [const { MaybeUninit::uninit() }; BATCH],
            len: 0,
        }
    }

    pub(crate) fn push(&mut self, waker: Waker) {
        if self.len == BATCH {
            self.wake_all();
        }
        self.taken[self.len].write(waker);
        self.len += 1;
    }

    #[inline(always)]
    pub(crate) fn wake_all(&mut self) {
        if self.len > 0 {
            self.wake_some();
        }
    }

    #[inline(never)]
    fn wake_some(&mut self) {
        let len = std::mem::take(&mut self.len);
        for waker in &self.taken[..len] {
            // SAFETY: the first `len` were written by `push`; `len` is 0 now, so each is read once.
            wake(unsafe { waker.assume_init_read() });
        }
    }
}

impl Drop for Wakers {
    fn drop(&mut self) {
        self.wake_all();
    }
}
