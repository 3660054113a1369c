//! Wakers taken under the turn and woken, as far as they fit, after it.

use std::mem::MaybeUninit;
use std::task::Waker;

use crate::sync::panics::wake;

/// Wakers that are kept until the turn is free.
pub(super) const BATCH: usize = 32;

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
