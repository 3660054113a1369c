//! Counts of an `Arc` that share one pointer to it.
#![allow(unsafe_code)]

use std::mem::{self, ManuallyDrop};
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use super::Arc;

/// Where an `Arc`'s value is, kept in one place for many who each hold a count.
///
/// No count of its own, and so no part in a cycle.
#[derive(Debug)]
pub(crate) struct Home(AtomicPtr<()>);

impl Home {
    /// That of this `Arc`.
    pub(crate) fn of<T>(arc: &Arc<T>) -> Self {
        // Atomic for what it says of itself, that it may be seen from all threads; never written again.
        Self(AtomicPtr::new(Arc::as_ptr(arc).cast_mut().cast()))
    }

    /// Whether this is where that `Arc` is.
    fn is_of<T>(&self, arc: &Arc<T>) -> bool {
        self.0.load(Relaxed).cast_const().cast() == Arc::as_ptr(arc)
    }

    /// Leaves a count here, to be found again by [`Home::count`].
    ///
    /// # Panics
    /// If the count is of another `Arc`.
    #[inline]
    pub(crate) fn keep<T>(&self, count: Arc<T>) {
        assert!(self.is_of(&count), "a count of another");
        mem::forget(count);
    }

    /// A count that was kept, which is still where it was: drop it to give it up.
    ///
    /// # Safety
    /// The caller has kept a count of a `T` here, and has not dropped it.
    #[inline]
    pub(crate) unsafe fn count<T>(&self) -> ManuallyDrop<Arc<T>> {
        // SAFETY: a pointer of an `Arc<T>`, which is alive by the caller's count.
        ManuallyDrop::new(unsafe { Arc::from_raw(self.0.load(Relaxed).cast_const().cast()) })
    }
}

#[cfg(all(test, not(afterwrite_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_was_kept_is_one() {
        let arc = Arc::new(7);
        let home = Home::of(&arc);
        home.keep(arc.clone());
        assert_eq!(Arc::strong_count(&arc), 2);
        // SAFETY: kept above, dropped below.
        let count = unsafe { home.count::<i32>() };
        assert_eq!(**count, 7);
        assert_eq!(Arc::strong_count(&arc), 2);
        drop(ManuallyDrop::into_inner(count));
        assert_eq!(Arc::strong_count(&arc), 1);
    }

    #[test]
    #[should_panic(expected = "a count of another")]
    fn a_count_of_another_is_not_kept() {
        Home::of(&Arc::new(7)).keep(Arc::new(7));
    }
}
