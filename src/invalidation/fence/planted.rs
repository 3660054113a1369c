//! Faults that models plant; the simulator plants some too. Constants, and compiled away, in every other
//! build.

use std::sync::atomic::Ordering;

/// Every fault of the fence and of coherent caches, so that none is left without a model.
#[cfg(afterwrite_loom)]
pub const FAULTS: &[&str] = &[
    "coherent_end_silently",
    "coherent_join_older_flight",
    "coherent_keep_turn",
    "fence_attach_acquire",
    "fence_check_then_insert",
    "fence_detach_release",
    "fence_no_epoch_on_doubt",
    "fence_no_epoch_on_leaving",
    "fence_no_stripes",
    "fence_raise_release",
    "fence_raise_reread",
    "fence_restore_release",
    "fence_version_acquire",
    "fence_version_release",
    "fence_word_acquire",
];

/// Whether a model has planted this fault.
#[inline(always)]
pub(crate) fn planted(_fault: &str) -> bool {
    #[cfg(afterwrite_loom)]
    {
        assert!(FAULTS.contains(&_fault), "{_fault} is not listed");
        return crate::sync::mutant(_fault);
    }
    #[cfg(all(test, not(afterwrite_loom)))]
    return crate::invalidation::protocol::planted(_fault);
    #[cfg(not(any(test, afterwrite_loom)))]
    false
}

/// `order`, or `Relaxed` if a model has planted this fault.
#[inline(always)]
pub(crate) fn unless(fault: &str, order: Ordering) -> Ordering {
    if planted(fault) {
        Ordering::Relaxed
    } else {
        order
    }
}
