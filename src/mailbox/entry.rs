//! A mailbox as the pusher sees it.

use std::ptr::NonNull;
// Not `crate::sync`'s: what is read by it orders nothing, and models see the cell around it.
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use super::ring::{self, Vacant};
use super::{CONFLATING, Header, LATEST, NO_RING, Stamp, evict, latest};

/// A mailbox as it stands in a topic's chunk.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Entry(Option<NonNull<Header>>);

impl Entry {
    /// No mailbox.
    pub(crate) const EMPTY: Self = Self(None);

    /// Puts a mailbox in a place that is free. Atomic, for who reads it meanwhile by [`peek`](Self::peek).
    ///
    /// # Safety
    ///
    /// The place is valid, and nobody else writes there, or reads but by `peek`.
    pub(crate) unsafe fn put(place: *mut Self, mailbox: NonNull<Header>) {
        // SAFETY: an entry is a pointer or null; valid, as the caller promises.
        unsafe { AtomicPtr::from_ptr(place.cast::<*mut Header>()) }
            .store(mailbox.as_ptr(), Relaxed);
    }

    /// What stands there now: a mailbox that may be gone as soon as it was read, good for being fetched ahead.
    ///
    /// # Safety
    ///
    /// The place is valid, and whoever writes there meanwhile does so by [`put`](Self::put).
    #[inline(always)]
    pub(crate) unsafe fn peek(place: *const Self) -> Self {
        // SAFETY: as above.
        let mailbox = unsafe { AtomicPtr::from_ptr(place.cast_mut().cast::<*mut Header>()) };
        Self(NonNull::new(mailbox.load(Relaxed)))
    }

    #[inline(always)]
    pub(crate) fn mailbox(self) -> Option<NonNull<Header>> {
        self.0
    }

    /// Brings what the next delivery writes towards this core; the mailbox may be gone.
    #[inline(always)]
    pub(crate) fn prefetch<T>(self) {
        if let Some(header) = self.0 {
            ring::prefetch::<T>(header);
        }
    }

    /// Whether the mailbox is no ring.
    ///
    /// # Safety
    /// The entry is that of a registered mailbox.
    #[inline(always)]
    pub(crate) unsafe fn is_no_ring(self) -> bool {
        // SAFETY: a registered entry names its mailbox, which the topic's reference keeps alive.
        unsafe { self.0.unwrap_unchecked().as_ref() }.capacity & NO_RING != 0
    }

    /// Delivers into a mailbox that is no ring (see [`evict`] and [`latest`]); whether a payload was lost
    /// for it, as opposed to merged.
    ///
    /// # Safety
    /// The caller holds the turn, the entry is that of a registered mailbox of `T` that is no ring.
    #[inline(never)]
    pub(crate) unsafe fn replace<T>(
        self,
        ticket: u64,
        lost: u64,
        payload: impl FnOnce() -> T,
    ) -> bool {
        // SAFETY: forwarded; a registered entry names its mailbox.
        unsafe {
            let mailbox = self.0.unwrap_unchecked();
            if mailbox.as_ref().capacity == LATEST {
                // A `()`, as it is delivered.
                payload();
                latest::mark(mailbox, ticket, lost);
                return false;
            }
            let replaced = evict::deliver(mailbox, ticket, lost, payload);
            replaced && mailbox.as_ref().capacity != CONFLATING
        }
    }

    /// The slot that the next payload goes to, if there is room. Wait-free.
    ///
    /// # Safety
    /// The caller holds the turn, the entry is that of a registered ring.
    #[inline(always)]
    pub(crate) unsafe fn vacant(self) -> Option<Vacant> {
        // SAFETY: forwarded; a registered entry names its mailbox.
        unsafe { ring::vacant(self.0.unwrap_unchecked()) }
    }

    /// Delivers into a ring. Wait-free, and moves the payload only: nothing here can panic.
    ///
    /// # Safety
    /// As for [`Entry::vacant`], which has just given `slot`; a ring of `T`.
    #[inline(always)]
    pub(crate) unsafe fn fill<T>(slot: Vacant, stamp: Stamp, payload: T) {
        // SAFETY: forwarded.
        unsafe { ring::fill(slot, stamp, payload) }
    }
}
