//! Faults that models plant; the simulator plants some too. Constants, and compiled away, in every other
//! build.

use std::sync::atomic::Ordering;

/// Whether a model has planted this fault.
#[inline(always)]
pub(crate) fn planted(_fault: &str) -> bool {
    #[cfg(afterwrite_loom)]
    return crate::sync::mutant(_fault);
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
