//! Calls into the user's wakers, kept from unwinding into ours.

/// Calls `f`; answers whether it returned rather than panicked.
///
/// Under `panic = "abort"` a panic ends the process, as it does everywhere.
#[cfg(not(afterwrite_loom))]
pub(super) fn contain(f: impl FnOnce()) -> bool {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    // Unwind safety: `f` owns or borrows nothing of ours that a panic could leave half changed.
    let Err(payload) = catch_unwind(AssertUnwindSafe(f)) else {
        return true;
    };
    // What was thrown may itself panic when dropped; then what *that* throws is leaked.
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
    false
}

/// Calls `f`. The model checker reports what it finds by panicking: that must not be caught.
#[cfg(afterwrite_loom)]
pub(super) fn contain(f: impl FnOnce()) -> bool {
    f();
    true
}
