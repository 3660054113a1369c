//! Where a bucket's current snapshot is found: arc-swap, or its stand-in for models.

#![allow(unsafe_code)]

use std::mem::ManuallyDrop;

use super::snapshot::{Header, Snapshot};

/// A place for one snapshot, read by anyone, replaced by one writer at a time.
pub(crate) trait SnapshotCell<V>: Sized {
    /// A cell that holds `snapshot`.
    fn new(snapshot: Option<Snapshot<V>>) -> Self;

    /// Runs `f` with the current snapshot, which stays readable until `f` returns.
    fn read<R>(&self, f: impl FnOnce(Option<&Snapshot<V>>) -> R) -> R;

    /// Puts `next` in, and returns what was there. From then on no reader begins to read it, and
    /// [`Snapshot::free_if_unread`] counts every one that still does.
    fn replace(&self, next: Option<Snapshot<V>>) -> Option<Snapshot<V>>;

    /// The current snapshot, without a reader's protection.
    ///
    /// # Safety
    ///
    /// Until the result is last used nobody may [`replace`](Self::replace) it and let go of what that returns.
    unsafe fn peek(&self) -> Option<ManuallyDrop<Snapshot<V>>> {
        self.read(|snapshot| {
            let raw = std::ptr::NonNull::new(snapshot?.as_raw())?;
            // SAFETY: never dropped, and alive as the caller promises.
            Some(ManuallyDrop::new(unsafe { Snapshot::from_raw(raw) }))
        })
    }
}

#[cfg(not(afterwrite_loom))]
pub(crate) use shipped::DefaultCell;
#[cfg(afterwrite_loom)]
pub(crate) use stand_in::DefaultCell;

#[cfg(not(afterwrite_loom))]
mod shipped {
    use std::ptr::NonNull;

    use arc_swap::strategy::Strategy;
    use arc_swap::{ArcSwapAny, RefCnt};

    use super::{Header, Snapshot, SnapshotCell};

    /// The cell that ships: eight bytes, wait-free for readers.
    pub(crate) type DefaultCell<V> = ArcSwapAny<Option<Snapshot<V>>>;

    // SAFETY: the pointer is the header's, unique to the allocation while any handle lives; clone and
    // drop move its count by one; a handle may be moved; nothing here unwinds; no tag is used.
    unsafe impl<V> RefCnt for Snapshot<V> {
        type Base = Header<V>;

        fn into_ptr(me: Self) -> *mut Header<V> {
            me.into_raw()
        }

        fn as_ptr(me: &Self) -> *mut Header<V> {
            me.as_raw()
        }

        unsafe fn from_ptr(ptr: *const Header<V>) -> Self {
            // SAFETY: arc-swap hands back only what `into_ptr` or `as_ptr` gave, never null, and
            // keeps the counts even.
            unsafe { Snapshot::from_raw(NonNull::new_unchecked(ptr.cast_mut())) }
        }
    }

    impl<V, S> SnapshotCell<V> for ArcSwapAny<Option<Snapshot<V>>, S>
    where
        S: Strategy<Option<Snapshot<V>>> + Default,
    {
        #[inline]
        fn new(snapshot: Option<Snapshot<V>>) -> Self {
            Self::from(snapshot)
        }

        #[inline]
        fn read<R>(&self, f: impl FnOnce(Option<&Snapshot<V>>) -> R) -> R {
            f(self.load().as_ref())
        }

        fn replace(&self, next: Option<Snapshot<V>>) -> Option<Snapshot<V>> {
            // Before `swap` returns arc-swap turns every debt on the old snapshot into a count:
            // a reader that it has not counted by then retries, and finds the new one.
            self.swap(next)
        }
    }
}

#[cfg(afterwrite_loom)]
mod stand_in {
    use std::mem::ManuallyDrop;
    use std::ptr::{NonNull, null_mut};

    use super::{Header, Snapshot, SnapshotCell};
    use crate::directory::order;
    use crate::sync::AtomicPtr;

    /// An atomic pointer: it protects nothing, since in a model a retired snapshot is freed only
    /// with its directory. Weaker than arc-swap in its orderings, which are all sequentially
    /// consistent, so that a model sees what the directory itself relies on.
    pub(crate) struct DefaultCell<V>(AtomicPtr<Header<V>>);

    impl<V> SnapshotCell<V> for DefaultCell<V> {
        fn new(snapshot: Option<Snapshot<V>>) -> Self {
            Self(AtomicPtr::new(
                snapshot.map_or(null_mut(), Snapshot::into_raw),
            ))
        }

        fn read<R>(&self, f: impl FnOnce(Option<&Snapshot<V>>) -> R) -> R {
            let raw = NonNull::new(self.0.load(order::cell_load()));
            // SAFETY: never dropped here; freed only with the directory.
            let current = raw.map(|raw| ManuallyDrop::new(unsafe { Snapshot::from_raw(raw) }));
            f(current.as_deref())
        }

        fn replace(&self, next: Option<Snapshot<V>>) -> Option<Snapshot<V>> {
            let next = next.map_or(null_mut(), Snapshot::into_raw);
            let last = NonNull::new(self.0.swap(next, order::cell_swap()));
            // SAFETY: the cell's own count, which the swap handed over.
            last.map(|raw| unsafe { Snapshot::from_raw(raw) })
        }

        unsafe fn peek(&self) -> Option<ManuallyDrop<Snapshot<V>>> {
            // loom remembers one access only, and would take a load here for the one that the
            // writer's own swap may race with, instead of a reader's.
            // SAFETY: nobody else replaces, as the caller promises.
            let raw = NonNull::new(unsafe { self.0.unsync_load() });
            // SAFETY: never dropped, and alive as the caller promises.
            raw.map(|raw| ManuallyDrop::new(unsafe { Snapshot::from_raw(raw) }))
        }
    }

    impl<V> Drop for DefaultCell<V> {
        fn drop(&mut self) {
            drop(self.replace(None));
        }
    }
}
