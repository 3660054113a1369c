//! Calls into the user's code, kept from unwinding into ours.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Calls `f`; `None` if it panicked.
///
/// Under `panic = "abort"` a panic ends the process, as it does everywhere.
#[cfg(not(afterwrite_loom))]
#[inline(always)]
pub(crate) fn contain<R>(f: impl FnOnce() -> R) -> Option<R> {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    // Unwind safety: callers leave nothing of ours half changed while the user's code runs.
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => Some(result),
        Err(payload) => {
            discard(payload);
            None
        }
    }
}

/// What was thrown may itself panic when dropped; then what *that* throws is leaked.
#[cfg(not(afterwrite_loom))]
#[cold]
fn discard(payload: Box<dyn std::any::Any + Send>) {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
}

/// Calls `f`. The model checker reports what it finds by panicking: that must not be caught.
#[cfg(afterwrite_loom)]
pub(crate) fn contain<R>(f: impl FnOnce() -> R) -> Option<R> {
    Some(f())
}

/// Wakers that panicked, ever, in this process.
static WAKERS: AtomicU64 = AtomicU64::new(0);

/// Wakes, and keeps a panic of the waker from the caller.
pub(crate) fn wake(waker: std::task::Waker) {
    if contain(|| waker.wake()).is_none() {
        WAKERS.fetch_add(1, Relaxed);
    }
}

/// How many wakers of receivers panicked, ever, in this process.
pub(crate) fn panicked_wakers() -> u64 {
    WAKERS.load(Relaxed)
}
