//! One subscriber's mailbox: the only place where payloads pass from thread to thread.
//!
//! # Who takes part
//! - *the pusher*: whoever holds the topic's turn; one at a time, so its side has plain fields. The
//!   topic's chunks hold an [`Entry`] for each mailbox, which names it, so that a walk reads them in
//!   order and fetches what they name ahead;
//! - *the receiver*: the one owner of the subscription, whose side has plain fields as well (`own.rs`);
//! - *closers*: any thread, any number.
//!
//! # Layout
//! One allocation. What a push and a receive touch is the [`Header`] and what lies next to it; the
//! [`Tail`] is for coming, going and sleeping.
//!
//! ```text
//!            +--------------------+--------+--------------+------+-------+
//! DropNewest | payloads, last..=0 | Header | stamps, 0..  | Tail | Ended |                  ring.rs
//!            +--------------------+--------+------+-------+------+-------+-+-----------+
//! evicting                        | Header | Tail | Evict | entries x cap | records.. |   evict.rs
//!                                 +--------+------+-------+-------+-------+-----------+
//! Conflate, ()                    | Header | Tail | Cell  | Ended |                      latest.rs
//!                                 +--------+------+-------+-------+
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

mod entry;
mod evict;
mod latest;
mod own;
mod ring;
mod stamp;
mod waiter;

use std::alloc::{Layout, handle_alloc_error};
use std::any::TypeId;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::task::Waker;

use crate::sync::{AtomicPtr, AtomicU8, AtomicU32, Ordering::Relaxed, UnsafeCell, alloc, order};

pub(crate) use entry::Entry;
pub(crate) use evict::Own as EvictOwn;
pub(crate) use latest::Mark;
pub(crate) use own::{Flags, Ledger, Place};
pub(crate) use ring::Found as InRing;
pub(crate) use stamp::{MAX_CAPACITY, Stamp};

use own::Ended;
use stamp::At;

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

/// What every push and every receive touch. 24 bytes; aligned as the tail is.
#[repr(C, align(8))]
pub(crate) struct Header {
    /// Where the receiver stands; touched by it alone.
    place: UnsafeCell<Place>,
    /// Where a ring's last payload went; touched by the holder of the turn alone.
    pusher: UnsafeCell<At>,
    capacity: u16,
    state: AtomicU8,
    waker_state: AtomicU8,
    /// The entry's bit in its chunk. Set once, before the mailbox is shared.
    bit: AtomicU8,
    /// The receiver, the topic while it is registered, and every closer.
    refs: AtomicU32,
}

/// What all policies need besides, for coming, going and sleeping. 56 bytes.
#[repr(C)]
pub(crate) struct Tail {
    /// The receiver's waker; guarded by `waker_state` (see `waiter.rs`).
    waker: UnsafeCell<Option<Waker>>,
    /// The next mailbox in the topic's list of retired, then of swept ones.
    pub(crate) next: AtomicPtr<Header>,
    /// The topic's chunk that this mailbox's entry is in. Set once, before the mailbox is shared.
    home: AtomicPtr<()>,
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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cells {
    Ring,
    Evicting,
    /// One mark, since the payload is nothing and only the latest counts.
    Latest,
}

impl Cells {
    fn of<T: 'static>(overflow: Overflow) -> Self {
        match overflow {
            Overflow::DropNewest => Cells::Ring,
            Overflow::Conflate if TypeId::of::<T>() == TypeId::of::<()>() => Cells::Latest,
            Overflow::DropOldest | Overflow::Conflate => Cells::Evicting,
        }
    }
}

/// A mailbox that is no ring sets the top bit of `capacity`.
const NO_RING: u16 = 0x8000;
/// One that conflates shows nothing else: it has one place.
const CONFLATING: u16 = NO_RING;
/// One that has a mark alone; more than any capacity.
const LATEST: u16 = u16::MAX;

impl<T: 'static> Mailbox<T> {
    /// A mailbox with two references: the caller's two handles are the receiver's and the topic's.
    pub(crate) fn new(overflow: Overflow, capacity: u16) -> (Self, Self) {
        debug_assert!((1..=MAX_CAPACITY).contains(&usize::from(capacity)));
        let cells = Cells::of::<T>(overflow);
        let (shown, capacity) = match (cells, overflow) {
            (Cells::Ring, _) => (capacity, capacity),
            (Cells::Latest, _) => (LATEST, 1),
            (Cells::Evicting, Overflow::Conflate) => (CONFLATING, 1),
            (Cells::Evicting, _) => (capacity | NO_RING, capacity),
        };
        let (layout, at) = Self::layout(cells, capacity);
        // SAFETY: the layout is never of size zero, it contains a `Header`.
        let Some(base) = NonNull::new(unsafe { alloc::alloc(layout) }) else {
            handle_alloc_error(layout)
        };
        // SAFETY: freshly allocated for a `Header` at this place, a `Tail` behind it, and what `layout`
        // adds around them.
        unsafe {
            let header = base.byte_add(at).cast::<Header>();
            header.write(Header {
                place: UnsafeCell::new(Place::new()),
                pusher: UnsafeCell::new(At::START),
                capacity: shown,
                state: AtomicU8::new(0),
                waker_state: AtomicU8::new(0),
                bit: AtomicU8::new(0),
                refs: AtomicU32::new(2),
            });
            let stamps = header.as_ref().stamps();
            tail_ptr(header, stamps).write(Tail {
                waker: UnsafeCell::new(None),
                next: AtomicPtr::new(std::ptr::null_mut()),
                home: AtomicPtr::new(std::ptr::null_mut()),
                ledger: UnsafeCell::new(Ledger::new()),
            });
            match cells {
                Cells::Ring => {
                    ended_ptr(header, cells, stamps).write(Ended::new());
                    ring::init::<T>(header, capacity);
                }
                Cells::Evicting => evict::init::<T>(header, capacity),
                Cells::Latest => latest::init(header),
            }
            (Self::from_header(header), Self::from_header(header))
        }
    }
}

impl<T> Mailbox<T> {
    fn from_header(header: NonNull<Header>) -> Self {
        Self {
            header,
            _payload: PhantomData,
        }
    }

    /// The whole layout, and where the header is in it.
    fn layout(cells: Cells, capacity: u16) -> (Layout, usize) {
        let capacity = usize::from(capacity);
        match cells {
            Cells::Ring => ring::layout::<T>(capacity),
            Cells::Evicting => (evict::layout::<T>(capacity), 0),
            Cells::Latest => (latest::layout(), 0),
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

    /// Which cells it has.
    pub(crate) fn cells(&self) -> Cells {
        self.header().shape().0
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

    pub(crate) fn tail(&self) -> &Tail {
        // SAFETY: this handle's reference keeps the allocation alive.
        unsafe { Header::tail(self.header) }
    }

    /// Takes the receiver's waker out, for the caller to wake. Lock-free.
    pub(crate) fn take_waker(&self) -> Option<Waker> {
        // SAFETY: this handle's reference keeps the mailbox alive.
        unsafe { Header::take_waker(self.header) }
    }

    /// What the receiver has accounted for.
    ///
    /// # Safety
    /// As for [`Header::place`].
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn ledger(&self) -> &mut Ledger {
        // SAFETY: nobody but the receiver comes here, and it holds no other reference.
        self.tail()
            .ledger
            .with_mut(|ledger| unsafe { &mut *ledger })
    }

    /// What the receiver of an evicting mailbox keeps besides.
    ///
    /// # Safety
    /// As for [`Header::place`], and the mailbox evicts.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn evict_own(&self) -> &mut EvictOwn {
        // SAFETY: forwarded; alive by this handle's reference.
        unsafe { evict::own(self.header).with_mut(|own| &mut *own) }
    }

    /// How many pushes a later one replaced, with a mark alone.
    ///
    /// # Safety
    /// As for [`Header::place`], and the mailbox has a mark alone.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn merged(&self) -> &mut u64 {
        // SAFETY: forwarded; alive by this handle's reference.
        unsafe { latest::merged(self.header).with_mut(|merged| &mut *merged) }
    }

    /// As [`Mailbox::merged`], to look only.
    ///
    /// # Safety
    /// As for [`Header::peek_place`], and the mailbox has a mark alone.
    pub(crate) unsafe fn peek_merged(&self) -> u64 {
        // SAFETY: forwarded; alive by this handle's reference.
        unsafe { latest::merged(self.header).with(|merged| *merged) }
    }

    /// Says after which push the receiver begins, to a mailbox that has a mark alone. Before it is
    /// registered.
    pub(crate) fn begin_after(&self, ticket: u64, lost: u64) {
        if self.cells() == Cells::Latest {
            // SAFETY: alive by this handle's reference, of this kind, and not registered.
            unsafe { latest::mark(self.header, ticket, lost) };
        }
    }

    /// The last push. Wait-free.
    ///
    /// # Safety
    /// The mailbox has a mark alone.
    pub(crate) unsafe fn mark(&self) -> Mark {
        // SAFETY: forwarded; alive by this handle's reference.
        unsafe { latest::look(self.header) }
    }

    /// The payload of a mark.
    ///
    /// # Safety
    /// The mailbox has a mark alone, which was delivered.
    pub(crate) unsafe fn payload_of_mark(&self) -> T {
        debug_assert_eq!(self.cells(), Cells::Latest);
        // SAFETY: only for `()` are there marks, so `T` is that, and takes no memory to read.
        unsafe { NonNull::<T>::dangling().read() }
    }

    /// As [`Mailbox::ledger`], to look only.
    ///
    /// # Safety
    /// As for [`Header::peek_place`].
    pub(crate) unsafe fn peek_ledger(&self) -> &Ledger {
        // SAFETY: what is written here is written with the receiver borrowed exclusively.
        self.tail().ledger.with(|ledger| unsafe { &*ledger })
    }

    /// As [`Mailbox::evict_own`], to look only.
    ///
    /// # Safety
    /// As for [`Header::peek_place`], and the mailbox evicts.
    pub(crate) unsafe fn peek_evict_own(&self) -> &EvictOwn {
        // SAFETY: forwarded; alive by this handle's reference.
        unsafe { evict::own(self.header).with(|own| &*own) }
    }

    /// Says up to which ticket pushes were ordered before the end. For the one caller that raised the
    /// closed bit.
    pub(crate) fn end_after(&self, ticket: u64) {
        self.ended().set(ticket);
    }

    /// What was said of the end, if anything was.
    pub(crate) fn ended_after(&self) -> Option<u64> {
        self.ended().get()
    }

    fn ended(&self) -> &Ended {
        let (cells, stamps) = (self.cells(), self.header().stamps());
        // SAFETY: this handle's reference keeps the allocation alive; every mailbox is made with it.
        unsafe { &*ended_ptr(self.header, cells, stamps) }
    }

    /// Says where the topic keeps this mailbox's entry: the chunk, and the bit there. Before it is
    /// registered.
    pub(crate) fn set_home(&self, chunk: NonNull<()>, bit: u32) {
        self.tail().home.store(chunk.as_ptr(), Relaxed);
        self.header().bit.store(bit as u8, Relaxed);
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
                // Nothing lies there.
                Cells::Latest => {}
            }
        }
    }
}

/// Where a mailbox's tail is: behind its stamps, which only a ring has.
#[inline(always)]
fn tail_ptr(header: NonNull<Header>, stamps: u16) -> *mut Tail {
    let end = size_of::<Header>() + usize::from(stamps) * size_of::<AtomicU32>();
    let base = header.as_ptr().cast::<u8>();
    // A header is aligned for a tail as well, so rounding the offset up is enough.
    const { assert!(align_of::<Tail>() <= align_of::<Header>()) };
    base.wrapping_add(end.next_multiple_of(align_of::<Tail>()))
        .cast()
}

/// Where it says up to where pushes came: behind a ring's tail, or with what evicts.
#[inline]
fn ended_ptr(header: NonNull<Header>, cells: Cells, stamps: u16) -> *mut Ended {
    match cells {
        Cells::Ring => tail_ptr(header, stamps).wrapping_add(1).cast(),
        Cells::Evicting => evict::ended_ptr(header),
        Cells::Latest => latest::ended_ptr(header),
    }
}

impl Header {
    /// For the models: every use of the mailbox by another thread happened before this.
    #[cfg(afterwrite_loom)]
    unsafe fn assert_exclusive(mut this: NonNull<Self>) {
        // SAFETY: the caller has the last reference.
        unsafe {
            let (cells, _) = this.as_ref().shape();
            let stamps = this.as_ref().stamps();
            let tail = &mut *tail_ptr(this, stamps);
            tail.next.with_mut(|_| ());
            tail.home.with_mut(|_| ());
            (*ended_ptr(this, cells, stamps)).assert_exclusive();
            tail.ledger.with_mut(|_| ());
            tail.waker.with_mut(|_| ());
            let it = this.as_mut();
            it.refs.with_mut(|_| ());
            it.place.with_mut(|_| ());
            it.pusher.with_mut(|_| ());
            it.state.with_mut(|_| ());
            it.waker_state.with_mut(|_| ());
            it.bit.with_mut(|_| ());
        }
    }

    #[inline(always)]
    fn shape(&self) -> (Cells, u16) {
        match self.capacity {
            capacity if capacity & NO_RING == 0 => (Cells::Ring, capacity),
            LATEST => (Cells::Latest, 1),
            CONFLATING => (Cells::Evicting, 1),
            capacity => (Cells::Evicting, capacity & !NO_RING),
        }
    }

    /// How many stamps it has.
    #[inline(always)]
    fn stamps(&self) -> u16 {
        match self.capacity & NO_RING {
            0 => self.capacity,
            _ => 0,
        }
    }

    /// What lies behind a ring's stamps, or behind the header. By the mailbox's own pointer, since a
    /// reference to the header reaches no further than the header.
    ///
    /// # Safety
    /// The mailbox is alive for as long as the result is used.
    #[inline(always)]
    pub(crate) unsafe fn tail<'a>(this: NonNull<Self>) -> &'a Tail {
        // SAFETY: alive, by contract; every header is made with a tail.
        unsafe { &*tail_ptr(this, this.as_ref().stamps()) }
    }

    /// The entry's bit in its chunk.
    pub(crate) fn bit(&self) -> u32 {
        u32::from(self.bit.load(Relaxed))
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

    /// As [`Header::place`], to look only.
    ///
    /// # Safety
    /// The caller holds a shared reference to the receiver, and lets go of the result before that.
    pub(crate) unsafe fn peek_place(&self) -> &Place {
        // SAFETY: what is written here is written with the receiver borrowed exclusively.
        self.place.with(|place| unsafe { &*place })
    }
}

impl Tail {
    /// The chunk that the mailbox's entry is in.
    pub(crate) fn home(&self) -> *mut () {
        self.home.load(Relaxed)
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
            Header::assert_exclusive(self.header);
        }
        let (cells, capacity) = self.header().shape();
        let (layout, at) = Self::layout(cells, capacity);
        let stamps = self.header().stamps();
        // SAFETY: the last reference. Both the receiver and the topic gave theirs up, and each set
        // its bit before that, so the payloads have been dropped. The layout is that of `new`.
        unsafe {
            match cells {
                Cells::Ring => {
                    ended_ptr(self.header, cells, stamps).drop_in_place();
                    ring::deinit::<T>(self.header, capacity);
                }
                Cells::Evicting => evict::deinit::<T>(self.header, capacity),
                Cells::Latest => latest::deinit(self.header),
            }
            tail_ptr(self.header, stamps).drop_in_place();
            self.header.drop_in_place();
            alloc::dealloc(self.header.cast::<u8>().byte_sub(at).as_ptr(), layout);
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
    let array = Layout::array::<U>(count).expect("at most 16,386 cells");
    before.extend(array).expect("at most 16,386 cells")
}

#[cfg(all(test, not(afterwrite_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_a_push_and_a_receive_touch_is_small() {
        assert_eq!(size_of::<Header>(), 24);
        assert_eq!(size_of::<Tail>(), 56);
        assert_eq!(size_of::<Entry>(), 8);
        let (ring, _) = Mailbox::<u64>::layout(Cells::Ring, 20);
        assert_eq!(ring.size(), 24 + 56 + 6 + 20 * (4 + 8));
    }
}
