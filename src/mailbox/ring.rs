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
//! in run r that looks for what comes next after index i:
//!
//! 1. *Slot 0 bears the other run*: the ring was empty since, so nothing older is anywhere: take it.
//! 2. *Slot i bears run r*: no run has begun since, for that would have taken an empty ring: take it.
//! 3. *Neither*: with no run begun, the next payload goes to slot i, which is empty; with one
//!    begun, to slot 0, which is empty or bears the other run. Nothing has come, or what came overlaps
//!    the two looks, and the protocol of waiting finds it.
//!
//! A second run cannot begin before the receiver has taken from the first, so one bit is enough.
//!
//! # Layout
//! Payloads lie before the header, in descending order, and stamps behind it, in ascending order. The
//! first payload, what every receive touches, and the first stamps are so neighbours.

use std::alloc::Layout;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use super::stamp::At;
use super::{Header, Place, Stamp};
use crate::sync::{AtomicU32, Ordering::Relaxed, UnsafeCell, order, panics::contain};

type Payload<T> = UnsafeCell<MaybeUninit<T>>;

/// The layout of all that lies before the header, and behind it up to the stamps' end; and where the
/// header is in it.
pub(super) fn layout<T>(capacity: usize) -> (Layout, usize) {
    let payloads = array::<Payload<T>>(capacity);
    let header = Layout::new::<Header>();
    // The payloads end where the header begins.
    let start = payloads
        .size()
        .next_multiple_of(payloads.align().max(header.align()));
    let before = Layout::from_size_align(start, payloads.align()).expect("32,767 payloads fit");
    let (layout, at) = super::extended::<Header>(before, 1);
    (super::extended::<AtomicU32>(layout, capacity).0, at)
}

fn array<U>(count: usize) -> Layout {
    Layout::array::<U>(count).expect("at most 32,767 cells")
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
            // Of the payloads' memory nothing is written; but the models keep accounts of their cells.
            #[cfg(afterwrite_loom)]
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
            #[cfg(afterwrite_loom)]
            payload_ptr::<T>(header, index).drop_in_place();
        }
    }
}

/// Brings the lines that the next delivery most likely writes towards this core.
#[inline(always)]
pub(super) fn prefetch<T>(header: NonNull<Header>) {
    #[cfg(all(target_arch = "x86_64", not(afterwrite_loom)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and may be given any address; SSE is part of x86_64.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(payload_ptr::<T>(header, 0).cast());
            _mm_prefetch::<_MM_HINT_T0>(stamp_ptr(header, 0).cast());
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(afterwrite_loom))))]
    let _ = header;
}

/// A slot that awaits a payload.
pub(crate) struct Vacant {
    header: NonNull<Header>,
    at: At,
}

/// The slot that the next payload goes to, if there is room. Wait-free.
///
/// # Safety
/// The caller holds the turn, and this is a registered ring.
#[inline(always)]
pub(super) unsafe fn vacant(header: NonNull<Header>) -> Option<Vacant> {
    // SAFETY: alive, by contract; only the holder of the turn touches the pusher's side.
    let (capacity, at) = unsafe {
        let it = header.as_ref();
        (it.capacity, it.pusher.with(|at| *at))
    };
    // SAFETY: indices are below the capacity.
    let is_empty =
        |index| unsafe { stamp(header, index) }.load(order::head_reload()) == Stamp::EMPTY;
    let at = if is_empty(at.before(capacity)) {
        At::new(0, at.run().other())
    } else if is_empty(at.index()) {
        at
    } else {
        return None;
    };
    Some(Vacant { header, at })
}

/// Delivers into a ring. Wait-free, and moves the payload only: nothing here can panic.
///
/// # Safety
/// As for [`vacant`], which has just given `slot`, for a ring of `T`.
#[inline(always)]
pub(super) unsafe fn fill<T>(slot: Vacant, stamp_of_ticket: Stamp, value: T) {
    let Vacant { header, at } = slot;
    // SAFETY: the receiver has taken what was here, which the Acquire of `vacant` saw, and it
    // looks again only after the stamp.
    unsafe { payload::<T>(header, at.index()) }.with_mut(|p| unsafe { (*p).write(value) });
    // The fault by which the sanitizers' run proves that it would notice one.
    let published = if cfg!(afterwrite_planted_race) {
        Relaxed
    } else {
        order::stamp_publish()
    };
    // SAFETY: below the capacity, as `vacant` found it.
    unsafe { stamp(header, at.index()) }.store(stamp_of_ticket.in_run(at.run()), published);
    // SAFETY: alive, by contract; only the holder of the turn touches the pusher's side.
    unsafe {
        let it = header.as_ref();
        let next = At::after(at.index(), it.capacity, at.run());
        it.pusher.with_mut(|pusher| *pusher = next);
    }
}

/// A payload that the receiver has found in a ring.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    index: u16,
    stamp: Stamp,
}

impl Place {
    /// The oldest payload in the ring, if there is one. Wait-free.
    ///
    /// # Safety
    /// The caller is the receiver of this ring, alive, and this its place.
    #[inline(always)]
    pub(crate) unsafe fn oldest(&self, header: NonNull<Header>) -> Option<Found> {
        let at = self.ring;
        // SAFETY: indices are below the capacity.
        let look = |index| unsafe { stamp(header, index) }.load(order::stamp_take());
        let first = Stamp::from_slot(look(0)).filter(|first| first.run() != at.run());
        let (index, stamp) = match first {
            Some(first) => (0, first),
            None => {
                let stamp = Stamp::from_slot(look(at.index()))?;
                if stamp.run() != at.run() {
                    // A run that began after the look at slot 0 has come this far.
                    (0, Stamp::from_slot(look(0))?)
                } else {
                    (at.index(), stamp)
                }
            }
        };
        Some(Found { index, stamp })
    }

    /// Its ticket, if that is not simply the next one.
    #[inline(always)]
    pub(crate) fn ticket_of(&self, found: Found) -> u64 {
        found.stamp.ticket_after(self.last)
    }

    /// Whether it bears the ticket after the last.
    #[inline(always)]
    pub(crate) fn is_next(&self, found: Found) -> bool {
        found.stamp.is_of(self.last + 1)
    }

    /// Takes what was found. Wait-free.
    ///
    /// # Safety
    /// As for [`Place::oldest`], which has just found it, in a ring of `T`.
    #[inline(always)]
    pub(crate) unsafe fn take<T>(&mut self, header: NonNull<Header>, found: Found) -> T {
        let Found { index, stamp: seen } = found;
        // SAFETY: the stamp was seen with Acquire: the payload is complete and ours to take.
        let payload =
            unsafe { payload::<T>(header, index) }.with(|p| unsafe { (*p).assume_init_read() });
        // SAFETY: below the capacity.
        unsafe { stamp(header, index) }.store(Stamp::EMPTY, order::head_release());
        // SAFETY: alive, by contract. A ring's capacity bears no flag.
        let capacity = unsafe { header.as_ref() }.capacity;
        self.ring = At::after(index, capacity, seen.run());
        payload
    }
}
