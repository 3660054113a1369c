//! Hints to the processor.

#![allow(unsafe_code)]

/// Whether there is such a hint here. Models see none of it.
pub(crate) const WORKS: bool = cfg!(all(target_arch = "x86_64", not(afterwrite_loom)));

/// Asks for the cache line at `address`, which need not be valid. Nothing where there is no such hint.
#[inline(always)]
pub(crate) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint: it reads nothing that the program can see, and faults nowhere.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
