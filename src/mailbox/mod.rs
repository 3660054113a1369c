//! One subscriber's mailbox: the only place where payloads pass from thread to thread.
//!
//! # Who takes part
//! - *the pusher*: whoever holds the topic's turn; one at a time, so its side has plain fields (an
//!   [`Entry`], packed sixteen bytes wide in the topic's chunks, so that a walk reads them in order);
//! - *the receiver*: the one owner of the subscription, whose side has plain fields as well. They
//!   are in the header (`own.rs`), so that a receive touches the start of the header, the payload
//!   and no other;
//! - *closers*: any thread, any number.
//!
//! # Layout
//! One allocation: a [`Header`], then the cells of the overflow policy.
//!
//! ```text
//!            +--------+---------------------------------------------+
//! DropNewest | Header | Slot { stamp, payload } x capacity          |  ring.rs
//!            +--------+-----------+---------------+-----------------+
//! evicting   | Header | EvictHead | entries x cap | records x (c+2) |  evict.rs
//!            +--------+-----------+---------------+-----------------+
//! ```
//!
//! # Life
//! | `state` bits        | the receiver | a push        | who may touch payloads               |
//! |---------------------|--------------|---------------|--------------------------------------|
//! | none                | lives        | may write     | both, by the stamps                  |
//! | `CLOSED`            | lives        | one may write | both; the receiver only to drop them |
//! | `CLOSED, QUIET`     | lives        | none ever     | the receiver                         |
//! | `CLOSED, DETACHED`  | is done      | one may write | the pusher                           |
//! | all three           | is done      | none ever     | whoever set the later bit: it drains |
//!
//! `QUIET` is set once the turn proves that no push can see the mailbox any more (see
//! [`crate::topic`]); `DETACHED` when the receiver takes nothing any more. Each is set by one read-modify-write on
//! the same word, so exactly one of the two finds the other bit set, and that one drops what is left.

mod evict;
mod own;
mod ring;
mod waiter;

use std::alloc::{Layout, handle_alloc_error};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use crate::sync::{AtomicPtr, AtomicU8, AtomicU32, Ordering::Relaxed, UnsafeCell, alloc, order};

pub(crate) use evict::EvictReader;
pub(crate) use own::{Flags, Ledger, Place};
pub(crate) use ring::{Entry, RingReader};

/// What happens when a subscriber's buffer is full.
///
/// Whatever is lost is reported, see [`Notice`](crate::Notice); a slow subscriber never slows a
/// push or another subscriber.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[non_exhaustive]
pub enum Overflow {
    /// The new payload is dropped: the subscriber reads the oldest ones, then
    /// [`Missed`](crate::Notice::Missed).
    #[default]
    DropNewest,
    /// The oldest payload is dropped: the subscriber reads `Missed`, then the newest ones.
    DropOldest,
    /// Only the latest payload is kept. What it replaces counts as merged, not as missed; the
    /// buffer's capacity does not matter.
    Conflate,
}

pub(crate) const CLOSED: u8 = 1;
const QUIET: u8 = 1 << 1;
const DETACHED: u8 = 1 << 2;

/// What all policies have in common; what a receive reads comes first. 120 bytes.
#[repr(C)]
pub(crate) struct Header {
    /// Where the receiver stands; touched by it alone.
    place: UnsafeCell<Place>,
    capacity: u16,
    state: AtomicU8,
    waker_state: AtomicU8,
    /// The receiver, the topic while it is registered, and every closer.
    refs: AtomicU32,
    /// Where the topic keeps this mailbox's entry; set once, before it is registered.
    position: AtomicU32,
    /// The receiver's waker; guarded by `waker_state` (see `waiter.rs`).
    waker: UnsafeCell<Option<std::task::Waker>>,
    /// The next mailbox in the topic's list of retired, then of swept ones.
    pub(crate) next: AtomicPtr<Header>,
    /// What the receiver has accounted for; touched by it alone.
    ledger: UnsafeCell<Ledger>,
}

/// A counted handle to one mailbox.
pub(crate) struct Mailbox<T> {
    header: NonNull<Header>,
    _payload: PhantomData<fn() -> T>,
}

// SAFETY: a mailbox moves `T` from the pusher's thread to the receiver's (`T: Send`); nothing in
// it gives out `&T`, so `T: Sync` is not needed. The header's fields are atomics, or guarded by one.
unsafe impl<T: Send> Send for Mailbox<T> {}
// SAFETY: as above; sides that need exclusive access say so in their contracts.
unsafe impl<T: Send> Sync for Mailbox<T> {}

/// Which cells follow the header.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cells {
    Ring,
    Evicting,
}

impl From<Overflow> for Cells {
    fn from(overflow: Overflow) -> Self {
        match overflow {
            Overflow::DropNewest => Cells::Ring,
            Overflow::DropOldest | Overflow::Conflate => Cells::Evicting,
        }
    }
}

/// An evicting mailbox sets the top bit of `capacity`; a ring may hold up to this many.
pub(crate) const MAX_CAPACITY: usize = 0x7fff;
const EVICTING: u16 = 0x8000;

impl<T> Mailbox<T> {
    /// A mailbox with two references: the caller's two handles are the receiver's and the topic's.
    pub(crate) fn new(cells: Cells, capacity: usize) -> (Self, Self) {
        debug_assert!((1..=MAX_CAPACITY).contains(&capacity));
        let layout = Self::layout(cells, capacity);
        // SAFETY: the layout is never of size zero, it begins with a `Header`.
        let raw = unsafe { alloc::alloc(layout) };
        let Some(header) = NonNull::new(raw.cast::<Header>()) else {
            handle_alloc_error(layout)
        };
        let flag = if cells == Cells::Evicting {
            EVICTING
        } else {
            0
        };
        // SAFETY: freshly allocated for a `Header` and what `layout` adds behind it.
        unsafe {
            header.write(Header {
                place: UnsafeCell::new(Place::new()),
                capacity: capacity as u16 | flag,
                state: AtomicU8::new(0),
                waker_state: AtomicU8::new(0),
                refs: AtomicU32::new(2),
                position: AtomicU32::new(0),
                waker: UnsafeCell::new(None),
                next: AtomicPtr::new(std::ptr::null_mut()),
                ledger: UnsafeCell::new(Ledger::new(capacity as u16)),
            });
            match cells {
                Cells::Ring => ring::init::<T>(header, capacity),
                Cells::Evicting => evict::init::<T>(header, capacity),
            }
        }
        (Self::from_header(header), Self::from_header(header))
    }

    fn from_header(header: NonNull<Header>) -> Self {
        Self {
            header,
            _payload: PhantomData,
        }
    }

    fn layout(cells: Cells, capacity: usize) -> Layout {
        match cells {
            Cells::Ring => ring::layout::<T>(capacity),
            Cells::Evicting => evict::layout::<T>(capacity),
        }
    }

    /// Gives this reference to a list or an entry; [`Mailbox::adopt`] takes it back.
    pub(crate) fn into_raw(self) -> NonNull<Header> {
        ManuallyDrop::new(self).header
    }

    /// # Safety
    /// `header` came from [`Mailbox::into_raw`] of the same `T`, and its reference is given up.
    pub(crate) unsafe fn adopt(header: NonNull<Header>) -> Self {
        Self::from_header(header)
    }

    #[inline(always)]
    pub(crate) fn header(&self) -> &Header {
        // SAFETY: this handle's reference keeps the allocation alive.
        unsafe { self.header.as_ref() }
    }

    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> NonNull<Header> {
        self.header
    }

    #[inline(always)]
    pub(crate) fn is_closed(&self) -> bool {
        self.header().state.load(Relaxed) & CLOSED != 0
    }

    /// Raises the closed bit; true for the one caller that raised it. The receiver sees it by the
    /// waker that is taken next, and by every later push.
    pub(crate) fn close(&self) -> bool {
        self.header().state.fetch_or(CLOSED, Relaxed) & CLOSED == 0
    }

    /// No push can touch the mailbox any more. Drops the payloads if the receiver is done.
    ///
    /// # Safety
    /// The turn proved it, and this is called once.
    pub(crate) unsafe fn set_quiet(&self) {
        // SAFETY: forwarded.
        unsafe { self.settle(QUIET, DETACHED) }
    }

    /// The receiver is done. Drops the payloads if no push can touch the mailbox any more.
    ///
    /// # Safety
    /// The caller is the receiver, and takes nothing afterwards.
    pub(crate) unsafe fn set_detached(&self) {
        // SAFETY: forwarded.
        unsafe { self.settle(DETACHED, QUIET) }
    }

    /// # Safety
    /// As its two callers'.
    unsafe fn settle(&self, mine: u8, other: u8) {
        let before = self.header().state.fetch_or(mine, order::settle());
        if before & other != 0 {
            // SAFETY: both bits are set, and only the later setter comes here: neither a push nor
            // the receiver touches the cells any more, and what they did is visible (`settle`).
            unsafe { self.drain() };
        }
    }

    /// Drops every payload.
    ///
    /// # Safety
    /// Nobody else touches the cells, now or later.
    unsafe fn drain(&self) {
        let (cells, capacity) = self.header().shape();
        // SAFETY: forwarded.
        unsafe {
            match cells {
                Cells::Ring => ring::drain::<T>(self.header, capacity),
                Cells::Evicting => evict::drain::<T>(self.header, capacity),
            }
        }
    }
}

impl Header {
    /// For the models: every use of the mailbox by another thread happened before this.
    #[cfg(afterwrite_loom)]
    fn assert_exclusive(&mut self) {
        self.next.with_mut(|_| ());
        self.refs.with_mut(|_| ());
        self.place.with_mut(|_| ());
        self.ledger.with_mut(|_| ());
        self.position.with_mut(|_| ());
        self.state.with_mut(|_| ());
        self.waker_state.with_mut(|_| ());
        self.waker.with_mut(|_| ());
    }

    fn shape(&self) -> (Cells, usize) {
        let capacity = usize::from(self.capacity & !EVICTING);
        if self.capacity & EVICTING != 0 {
            (Cells::Evicting, capacity)
        } else {
            (Cells::Ring, capacity)
        }
    }

    /// Where the receiver stands.
    ///
    /// # Safety
    /// The caller is the receiver, and lets go of the result before it asks again.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn place(&self) -> &mut Place {
        // SAFETY: nobody but the receiver comes here, and it holds no other reference.
        self.place.with_mut(|place| unsafe { &mut *place })
    }

    /// What the receiver has accounted for.
    ///
    /// # Safety
    /// As for [`Header::place`].
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn ledger(&self) -> &mut Ledger {
        // SAFETY: nobody but the receiver comes here, and it holds no other reference.
        self.ledger.with_mut(|ledger| unsafe { &mut *ledger })
    }

    /// As [`Header::place`], to look only.
    ///
    /// # Safety
    /// The caller holds a shared reference to the receiver, and lets go of the result before that.
    pub(crate) unsafe fn peek_place(&self) -> &Place {
        // SAFETY: what is written here is written with the receiver borrowed exclusively.
        self.place.with(|place| unsafe { &*place })
    }

    /// As [`Header::ledger`], to look only.
    ///
    /// # Safety
    /// As for [`Header::peek_place`].
    pub(crate) unsafe fn peek_ledger(&self) -> &Ledger {
        // SAFETY: what is written here is written with the receiver borrowed exclusively.
        self.ledger.with(|ledger| unsafe { &*ledger })
    }

    /// Where the topic keeps this mailbox's entry.
    pub(crate) fn position(&self) -> u32 {
        self.position.load(Relaxed)
    }

    pub(crate) fn set_position(&self, position: u32) {
        self.position.store(position, Relaxed);
    }
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        self.header().refs.fetch_add(1, Relaxed);
        Self::from_header(self.header)
    }
}

impl<T> Drop for Mailbox<T> {
    fn drop(&mut self) {
        if self.header().refs.fetch_sub(1, order::refs_drop()) != 1 {
            return;
        }
        // SAFETY: the last reference.
        #[cfg(afterwrite_loom)]
        unsafe {
            self.header.as_mut().assert_exclusive();
        }
        let (cells, capacity) = self.header().shape();
        // SAFETY: the last reference. Both the receiver and the topic gave theirs up, and each set
        // its bit before that, so the payloads have been dropped. The layout is that of `new`.
        unsafe {
            match cells {
                Cells::Ring => ring::deinit::<T>(self.header, capacity),
                Cells::Evicting => evict::deinit::<T>(self.header, capacity),
            }
            self.header.drop_in_place();
            alloc::dealloc(self.header.as_ptr().cast(), Self::layout(cells, capacity));
        }
    }
}

impl<T> std::fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox")
            .field("capacity", &self.header().shape().1)
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

/// The offset of an array of `U` behind `before`, and the layout with it.
fn extended<U>(before: Layout, count: usize) -> (Layout, usize) {
    let array = Layout::array::<U>(count).expect("at most 32,769 cells");
    before.extend(array).expect("at most 32,769 cells")
}
