//! A value with a count, in a slot or in memory of its own.

use std::alloc::Layout;
use std::fmt;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, offset_of};
use std::ops::Deref;
use std::ptr::NonNull;

use super::{Memory, Origin};
use crate::sync::order;
use crate::sync::{AtomicUsize, Ordering};

/// What is allocated: two words before the value, as in an `Arc`.
#[repr(C)]
struct Inner<V> {
    count: AtomicUsize,
    origin: Origin,
    value: V,
}

/// A counted handle to a value, as `std::sync::Arc` is one, which may lie in a slot; there are no weak ones.
///
/// Dropping the last drops the value and gives its memory back, on whatever thread.
pub(crate) struct Shared<V> {
    inner: NonNull<Inner<V>>,
    _owns: PhantomData<Inner<V>>,
}

// SAFETY: as for `Arc`: a handle gives `&V` and may be the one that drops the value. The origin's pool takes slots
// back from any thread.
unsafe impl<V: Send + Sync> Send for Shared<V> {}
// SAFETY: as above; a shared handle can be cloned into one of one's own.
unsafe impl<V: Send + Sync> Sync for Shared<V> {}

/// To move a handle moves no value.
impl<V> Unpin for Shared<V> {}

impl<V> Shared<V> {
    /// Bytes that stand before the value, and are touched by whoever counts.
    pub(crate) const BEFORE: usize = offset_of!(Inner<V>, value);

    /// A value in memory of its own.
    #[cfg(any(test, afterwrite_loom))]
    pub(crate) fn new(value: V) -> Self {
        Self::new_in(&mut Memory::global(), value)
    }

    /// A value in memory from there.
    pub(crate) fn new_in(memory: &mut Memory<'_>, value: V) -> Self {
        let (memory, origin) = memory.allocate(Layout::new::<Inner<V>>());
        let inner = memory.cast::<Inner<V>>();
        // SAFETY: fresh memory of this layout.
        unsafe {
            inner.write(Inner {
                count: AtomicUsize::new(1),
                origin,
                value,
            });
        }
        Self {
            inner,
            _owns: PhantomData,
        }
    }

    /// Gives this handle's count over to a plain pointer to the value.
    pub(crate) fn into_raw(this: Self) -> NonNull<V> {
        Self::as_ptr(&ManuallyDrop::new(this))
    }

    /// Where the value is.
    pub(crate) fn as_ptr(this: &Self) -> NonNull<V> {
        // SAFETY: a field of what the handle keeps alive; not by way of a reference, so that whoever gets it may find
        // the count again.
        unsafe { NonNull::new_unchecked(&raw mut (*this.inner.as_ptr()).value) }
    }

    /// The handle that a plain pointer stands for.
    ///
    /// # Safety
    ///
    /// `value` came from [`into_raw`](Self::into_raw), and its count is now this handle's; or it came from there or
    /// from [`as_ptr`](Self::as_ptr), the handle is never dropped, and not used after the last count is gone.
    pub(crate) unsafe fn from_raw(value: NonNull<V>) -> Self {
        Self {
            // SAFETY: it lies inside of what was allocated, as far behind its beginning.
            inner: unsafe { value.byte_sub(Self::BEFORE) }.cast(),
            _owns: PhantomData,
        }
    }
}

impl<V> Clone for Shared<V> {
    #[inline]
    fn clone(&self) -> Self {
        // SAFETY: alive by this handle's count.
        let count = unsafe { &self.inner.as_ref().count };
        // Relaxed: whoever has a handle to clone keeps the count above zero.
        if count.fetch_add(1, Ordering::Relaxed) > isize::MAX as usize {
            // Only by handles that were forgotten; to go on would let it come round to zero.
            std::process::abort();
        }
        Self {
            inner: self.inner,
            _owns: PhantomData,
        }
    }
}

impl<V> Deref for Shared<V> {
    type Target = V;

    #[inline]
    fn deref(&self) -> &V {
        // SAFETY: alive by this handle's count, and never moved.
        unsafe { &self.inner.as_ref().value }
    }
}

impl<V> Drop for Shared<V> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: alive by this handle's count.
        let count = unsafe { &self.inner.as_ref().count };
        if count.fetch_sub(1, order::shared_drop()) == 1 {
            // SAFETY: the last handle, and all that others did happened before, by the count.
            unsafe { end(self.inner) };
        }
    }
}

/// Drops the value and gives its memory back, even if the value's drop panics.
///
/// # Safety
///
/// There is no handle any more.
#[cold]
#[inline(never)]
unsafe fn end<V>(inner: NonNull<Inner<V>>) {
    struct GiveBack<V>(NonNull<Inner<V>>, Origin);
    impl<V> Drop for GiveBack<V> {
        fn drop(&mut self) {
            // SAFETY: allocated by `new_in` with this layout and origin; its value is gone.
            unsafe { self.1.free(self.0.cast(), Layout::new::<Inner<V>>()) };
        }
    }
    // SAFETY: nobody else is left.
    unsafe {
        let _memory = GiveBack(inner, inner.as_ref().origin);
        inner.drop_in_place();
    }
}

impl<V: fmt::Debug> fmt::Debug for Shared<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
