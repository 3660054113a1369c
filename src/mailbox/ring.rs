//! The ring of `DropNewest`: plain stores only, one stamp a payload.
//!
//! The pusher looks at the stamp of a slot (Acquire): a stamp that stands there means that its payload
//! has not been taken. Where none stands it writes the payload and stores the ticket's stamp
//! (Release). The receiver loads the stamp (Acquire), takes the payload and clears the stamp
//! (Release). Neither side reads or writes the other's index, so all that passes between them is
//! the line that holds the slot (the idea is that of FastForward: Giacomoni, Moseley and
//! Vachharajani, PPoPP 2008).
//!
//! A slot is written again only after the pusher saw its stamp cleared, so the two sides never touch
//! one payload at a time. Stamps are tickets, not indices: a push that found the ring full leaves no
//! hole in it, and the receiver sees the loss as a gap.
//!
//! # Runs
//! An empty ring is filled from its first slot again, so that a subscriber that keeps up has all its
//! traffic in one slot, which lies beside the header; a walk over a hundred thousand such subscribers
//! touches a line of each, and so does each receive.
//!
//! The pusher knows that the ring is empty when the slot that it filled last is: the receiver takes
//! in order. It then begins a new *run* at slot 0, and says so by a bit of the stamp. For a receiver
//! that took from run r last, and for which i is the index after that:
//!
//! 1. *Slot 0 bears the other run*: the ring was empty since, so nothing older is anywhere: take it.
//! 2. *Slot i bears run r*: no run has begun since, for that would have taken an empty ring: take it.
//! 3. *Slot i bears the other run*: a run began after the look at slot 0, and has come this far; slot 0
//!    shows it now, since it was filled before.
//! 4. *Neither*: with no run begun, the next payload goes to slot i, which is empty; with one
//!    begun, to slot 0. Nothing has come, or what came overlaps the two looks, and the protocol of
//!    waiting finds it.
//!
//! A second run cannot begin before the receiver has taken from the first, so one bit is enough.
//!
//! # Layout
//! Payloads lie before the header, in descending order, and stamps behind it, in ascending order. The
//! first payload, what every receive touches, and the first stamps are so neighbours.

use std::alloc::Layout;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use super::own::Ended;
use super::stamp::{At, Run};
use super::{Header, Place, Stamp, Tail};
use crate::sync::{AtomicU32, Ordering::Relaxed, UnsafeCell, order, panics::contain, prefetch};

type Payload<T> = UnsafeCell<MaybeUninit<T>>;

/// The whole layout, and where the header is in it.
pub(super) fn layout<T>(capacity: usize) -> (Layout, usize) {
    let payloads = Layout::array::<Payload<T>>(capacity).expect("16,384 payloads fit");
    let align = payloads.align().max(align_of::<Header>());
    // The payloads end where the header begins.
    let header = payloads.size().next_multiple_of(align);
    let stamps = size_of::<Header>() + capacity * size_of::<AtomicU32>();
    let behind = stamps.next_multiple_of(align_of::<Tail>()) + size_of::<Tail>();
    let size = header + behind + size_of::<Ended>();
    let layout = Layout::from_size_align(size, align).expect("16,384 payloads fit");
    (layout, header)
}

#[inline(always)]
fn stamp_ptr(header: NonNull<Header>, index: u16) -> *mut AtomicU32 {
    const { assert!(size_of::<Header>().is_multiple_of(align_of::<AtomicU32>())) };
    let stamps = header
        .as_ptr()
        .cast::<u8>()
        .wrapping_add(size_of::<Header>());
    stamps.cast::<AtomicU32>().wrapping_add(usize::from(index))
}

/// # Safety
/// `index` is below the capacity of this ring, which is alive and initialised.
#[inline(always)]
unsafe fn stamp<'a>(header: NonNull<Header>, index: u16) -> &'a AtomicU32 {
    // SAFETY: by contract.
    unsafe { &*stamp_ptr(header, index) }
}

#[inline(always)]
fn payload_ptr<T>(header: NonNull<Header>, index: u16) -> *mut Payload<T> {
    let end = header.as_ptr().cast::<Payload<T>>();
    end.wrapping_sub(usize::from(index) + 1)
}

/// # Safety
/// `index` is below the capacity of this ring of `T`, which is alive and initialised.
#[inline(always)]
unsafe fn payload<'a, T>(header: NonNull<Header>, index: u16) -> &'a Payload<T> {
    // SAFETY: by contract.
    unsafe { &*payload_ptr(header, index) }
}

/// # Safety
/// The header lies in a fresh allocation by `layout::<T>(capacity)`.
pub(super) unsafe fn init<T>(header: NonNull<Header>, capacity: u16) {
    for index in 0..capacity {
        // SAFETY: within the allocation.
        unsafe {
            stamp_ptr(header, index).write(AtomicU32::new(Stamp::EMPTY));
            // Nothing is written there, save in models, which keep accounts of their cells.
            payload_ptr::<T>(header, index).write(UnsafeCell::new(MaybeUninit::uninit()));
        }
    }
}

/// # Safety
/// Nobody touches the slots, now or later.
pub(super) unsafe fn drain<T>(header: NonNull<Header>, capacity: u16) {
    if !std::mem::needs_drop::<T>() {
        return;
    }
    for index in 0..capacity {
        // SAFETY: below the capacity; alive, by contract.
        let stamp = unsafe { stamp(header, index) };
        if stamp.load(Relaxed) != Stamp::EMPTY {
            stamp.store(Stamp::EMPTY, Relaxed);
            // SAFETY: a stamp stands only over a payload that was written and not taken.
            let payload = unsafe { payload::<T>(header, index) }
                .with_mut(|p| unsafe { (*p).assume_init_read() });
            // A drop that panics must not cost the others theirs.
            contain(|| drop(payload));
        }
    }
}

/// # Safety
/// The last reference is being given up; the ring is drained.
pub(super) unsafe fn deinit<T>(header: NonNull<Header>, capacity: u16) {
    for index in 0..capacity {
        // SAFETY: within the allocation; initialised by `init`. Neither has a drop, save in models.
        unsafe {
            stamp_ptr(header, index).drop_in_place();
            payload_ptr::<T>(header, index).drop_in_place();
        }
    }
}

/// Brings the lines that the next delivery most likely writes towards this core.
#[inline(always)]
pub(super) fn prefetch<T>(header: NonNull<Header>) {
    prefetch::prefetch(payload_ptr::<T>(header, 0).cast_const());
    prefetch::prefetch(stamp_ptr(header, 0).cast_const());
}

/// A slot that awaits a payload. The first is told apart: it lies at a fixed distance from the header, so
/// that nothing waits for an index to be read.
pub(crate) enum Vacant {
    First(NonNull<Header>, Run),
    Next(NonNull<Header>, At),
}

/// The slot that the next payload goes to, if there is room. Wait-free.
///
/// # Safety
/// The caller holds the turn, and this is a registered ring.
#[inline(always)]
pub(super) unsafe fn vacant(header: NonNull<Header>) -> Option<Vacant> {
    // SAFETY: alive, by contract; only the holder of the turn touches the pusher's side.
    let last = unsafe { header.as_ref().pusher.with(|at| *at) };
    // SAFETY: indices are below the capacity.
    let is_empty =
        |at: At| unsafe { stamp(header, at.index()) }.load(order::head_reload()) == Stamp::EMPTY;
    if is_empty(last) {
        return Some(Vacant::First(header, last.run().other()));
    }
    // SAFETY: alive, by contract. A ring's capacity bears no flag.
    let at = last.next(unsafe { header.as_ref() }.capacity);
    is_empty(at).then_some(Vacant::Next(header, at))
}

/// Delivers into a ring. Wait-free, and moves the payload only: nothing here can panic.
///
/// # Safety
/// As for [`vacant`], which has just given `slot`, for a ring of `T`.
#[inline(always)]
pub(super) unsafe fn fill<T>(slot: Vacant, ticket: Stamp, value: T) {
    // SAFETY: forwarded.
    unsafe {
        match slot {
            Vacant::First(header, run) => fill_at(header, At::first(run), ticket, value),
            Vacant::Next(header, at) => fill_at(header, at, ticket, value),
        }
    }
}

/// # Safety
/// As for [`fill`]: `at` is vacant.
#[inline(always)]
unsafe fn fill_at<T>(header: NonNull<Header>, at: At, ticket: Stamp, value: T) {
    // SAFETY: the receiver has taken what was here, which the Acquire of `vacant` saw, and it
    // looks again only after the stamp.
    unsafe { payload::<T>(header, at.index()) }.with_mut(|p| unsafe { (*p).write(value) });
    // The fault by which the sanitizers' run proves that it would notice one.
    let published = if cfg!(afterwrite_planted_races) {
        Relaxed
    } else {
        order::stamp_publish()
    };
    // SAFETY: below the capacity, as `vacant` found it.
    unsafe { stamp(header, at.index()) }.store(ticket.in_run(at.run()), published);
    // SAFETY: alive, by contract; only the holder of the turn touches the pusher's side.
    unsafe { header.as_ref() }
        .pusher
        .with_mut(|pusher| unsafe { *pusher = at });
}

/// A payload that the receiver has found in a ring.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    index: u16,
    stamp: Stamp,
}

impl Place {
    /// Takes the payload of the ticket after the last, if that is the oldest here. Wait-free.
    ///
    /// # Safety
    /// The caller is the receiver of this ring of `T`, alive, and this its place.
    #[inline(always)]
    pub(crate) unsafe fn take_next<T>(&mut self, header: NonNull<Header>) -> Option<T> {
        let ticket = Stamp::of(self.last + 1);
        // SAFETY: indices are below the capacity.
        let look = |at: At| unsafe { stamp(header, at.index()) }.load(order::stamp_take());
        // SAFETY: a field of ours. Volatile, so that it is read as narrow as it was written: a wider load,
        // which the compiler would make of it, has to wait until the store has reached the cache.
        let last = unsafe { std::ptr::read_volatile(&raw const self.ring) };
        // Two ways to the end, for the reason that [`Vacant`] gives.
        let first = At::first(last.run().other());
        if look(first) == ticket.in_run(first.run()) {
            self.last += 1;
            // SAFETY: just found, with Acquire.
            return Some(unsafe { self.take_at(header, first) });
        }
        // SAFETY: alive, by contract. A ring's capacity bears no flag.
        let next = last.next(unsafe { header.as_ref() }.capacity);
        if look(next) == ticket.in_run(next.run()) {
            self.last += 1;
            // SAFETY: as above.
            return Some(unsafe { self.take_at(header, next) });
        }
        None
    }

    /// The oldest payload in the ring, if there is one. Wait-free.
    ///
    /// # Safety
    /// The caller is the receiver of this ring, alive, and this its place.
    pub(crate) unsafe fn oldest(&self, header: NonNull<Header>) -> Option<Found> {
        let look = |at: At| {
            // SAFETY: indices are below the capacity.
            let word = unsafe { stamp(header, at.index()) }.load(order::stamp_take());
            Stamp::from_slot(word)
        };
        let of_run = |stamp: &Stamp, at: At| stamp.run() == at.run();
        let first = At::first(self.ring.run().other());
        if let Some(stamp) = look(first).filter(|stamp| of_run(stamp, first)) {
            return Some(Found { index: 0, stamp });
        }
        // SAFETY: alive, by contract. A ring's capacity bears no flag.
        let next = self.ring.next(unsafe { header.as_ref() }.capacity);
        let stamp = look(next)?;
        if of_run(&stamp, next) {
            let index = next.index();
            return Some(Found { index, stamp });
        }
        // A run that began after the look at slot 0 has come this far.
        look(first).map(|stamp| Found { index: 0, stamp })
    }

    /// The ticket of what was found.
    pub(crate) fn ticket_of(&self, found: Found) -> u64 {
        found.stamp.ticket_after(self.last)
    }

    /// Takes what was found. Wait-free.
    ///
    /// # Safety
    /// As for [`Place::oldest`], which has just found it, in a ring of `T`.
    pub(crate) unsafe fn take<T>(&mut self, header: NonNull<Header>, found: Found) -> T {
        // SAFETY: forwarded.
        unsafe { self.take_at(header, At::new(found.index, found.stamp.run())) }
    }

    /// # Safety
    /// The caller is the receiver of this ring of `T`, alive, and has seen a stamp at this index with
    /// Acquire.
    #[inline(always)]
    unsafe fn take_at<T>(&mut self, header: NonNull<Header>, at: At) -> T {
        // SAFETY: the payload is complete and ours to take.
        let payload = unsafe { payload::<T>(header, at.index()) }
            .with(|p| unsafe { (*p).assume_init_read() });
        // SAFETY: below the capacity.
        unsafe { stamp(header, at.index()) }.store(Stamp::EMPTY, order::head_release());
        self.ring = at;
        payload
    }
}
