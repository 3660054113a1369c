//! The ring of `DropNewest`: plain stores only, one stamp a payload.
//!
//! The pusher looks at the stamp of the slot at its private index (Acquire): a stamp that stands
//! there means that the ring is full. Otherwise it writes the payload and stores the ticket's stamp
//! (Release). The receiver at its own index loads the stamp (Acquire), takes the payload and clears
//! the stamp (Release). Neither side reads or writes the other's index, so all that passes between
//! them is the one line that holds the slot (the idea is that of FastForward: Giacomoni, Moseley
//! and Vachharajani, PPoPP 2008).
//!
//! A slot is written again only after the pusher saw its stamp cleared, so the two sides never touch
//! one payload at a time. Stamps are tickets, not indices: a push that found the ring full leaves no
//! hole in it, and the receiver sees the loss as a gap.

use std::alloc::Layout;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use super::{Header, extended};
use crate::sync::{AtomicU32, Ordering::Relaxed, UnsafeCell, order, panics::contain};
use crate::topic::Stamp;

#[repr(C)]
pub(super) struct Slot<T> {
    stamp: AtomicU32,
    payload: UnsafeCell<MaybeUninit<T>>,
}

pub(super) fn layout<T>(capacity: usize) -> Layout {
    extended::<Slot<T>>(Layout::new::<Header>(), capacity)
        .0
        .pad_to_align()
}

#[inline(always)]
fn slots<T>(header: NonNull<Header>) -> *mut Slot<T> {
    let align = align_of::<Slot<T>>();
    let offset = size_of::<Header>().next_multiple_of(align);
    header.as_ptr().cast::<u8>().wrapping_add(offset).cast()
}

/// # Safety
/// Freshly allocated by `layout::<T>(capacity)`.
pub(super) unsafe fn init<T>(header: NonNull<Header>, capacity: usize) {
    for index in 0..capacity {
        // SAFETY: within the allocation.
        unsafe {
            slots::<T>(header).add(index).write(Slot {
                stamp: AtomicU32::new(Stamp::EMPTY),
                payload: UnsafeCell::new(MaybeUninit::uninit()),
            });
        }
    }
}

/// # Safety
/// Nobody touches the slots, now or later.
pub(super) unsafe fn drain<T>(header: NonNull<Header>, capacity: usize) {
    if !std::mem::needs_drop::<T>() {
        return;
    }
    for index in 0..capacity {
        // SAFETY: within the allocation; initialised by `init`.
        let slot = unsafe { &*slots::<T>(header).add(index) };
        if slot.stamp.load(Relaxed) != Stamp::EMPTY {
            slot.stamp.store(Stamp::EMPTY, Relaxed);
            // SAFETY: a stamp stands only over a payload that was written and not taken.
            let payload = slot
                .payload
                .with_mut(|p| unsafe { (*p).assume_init_read() });
            // A drop that panics must not cost the others theirs.
            contain(|| drop(payload));
        }
    }
}

/// # Safety
/// The last reference is being given up; the ring is drained.
pub(super) unsafe fn deinit<T>(header: NonNull<Header>, capacity: usize) {
    for index in 0..capacity {
        // SAFETY: within the allocation; initialised by `init`.
        unsafe { slots::<T>(header).add(index).drop_in_place() };
    }
}

/// The pusher's side of one mailbox, as it stands in a topic's chunk. 16 bytes.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Entry {
    mailbox: Option<NonNull<Header>>,
    /// The slot that the next payload goes to.
    next: u16,
    /// How many slots there are; 0 marks an evicting mailbox.
    capacity: u16,
}

impl Entry {
    pub(crate) const EMPTY: Self = Self {
        mailbox: None,
        next: 0,
        capacity: 0,
    };

    pub(crate) fn ring(mailbox: NonNull<Header>, capacity: u16) -> Self {
        Self {
            mailbox: Some(mailbox),
            next: 0,
            capacity,
        }
    }

    pub(crate) fn evicting(mailbox: NonNull<Header>) -> Self {
        Self {
            mailbox: Some(mailbox),
            ..Self::EMPTY
        }
    }

    #[inline(always)]
    pub(crate) fn mailbox(&self) -> Option<NonNull<Header>> {
        self.mailbox
    }

    #[inline(always)]
    pub(crate) fn is_evicting(&self) -> bool {
        self.capacity == 0
    }

    /// Delivers into an evicting mailbox; see [`super::evict`].
    ///
    /// # Safety
    /// The caller holds the turn, the entry is that of a registered evicting mailbox of `T`.
    #[inline(never)]
    pub(crate) unsafe fn replace<T>(
        &mut self,
        ticket: u64,
        lost: u64,
        payload: impl FnOnce() -> T,
    ) {
        // SAFETY: forwarded; a registered entry names its mailbox.
        unsafe { super::evict::deliver(self.mailbox.unwrap_unchecked(), ticket, lost, payload) }
    }

    /// Brings the line that the next delivery writes towards this core.
    #[inline(always)]
    pub(crate) fn prefetch<T>(&self) {
        #[cfg(all(target_arch = "x86_64", not(afterwrite_loom)))]
        if let Some(mailbox) = self.mailbox {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let slot = slots::<T>(mailbox).wrapping_add(usize::from(self.next));
            // SAFETY: a prefetch reads nothing and may be given any address; SSE is part of x86_64.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(slot.cast()) };
        }
    }

    /// The slot that the next payload goes to, if the receiver has taken what was in it. Wait-free.
    ///
    /// # Safety
    /// The caller holds the turn, the entry is that of a registered ring of `T`.
    #[inline(always)]
    pub(crate) unsafe fn vacant<T>(&self) -> Option<Vacant<T>> {
        // SAFETY: a registered entry names its mailbox, which the topic's reference keeps alive.
        let mailbox = unsafe { self.mailbox.unwrap_unchecked() };
        let slot = slots::<T>(mailbox).wrapping_add(usize::from(self.next));
        // SAFETY: `next < capacity`.
        let stamp = unsafe { &(*slot).stamp };
        (stamp.load(order::head_reload()) == Stamp::EMPTY).then_some(Vacant(slot))
    }

    /// Delivers into a ring. Wait-free, and moves the payload only: nothing here can panic.
    ///
    /// # Safety
    /// As for [`Entry::vacant`], which has just given `slot`.
    #[inline(always)]
    pub(crate) unsafe fn fill<T>(&mut self, slot: Vacant<T>, stamp: Stamp, payload: T) {
        // SAFETY: `vacant` found it in the mailbox, which is still registered.
        let slot = unsafe { &*slot.0 };
        // SAFETY: the receiver has taken what was here, which the Acquire of `vacant` saw, and it
        // looks again only after the stamp.
        slot.payload.with_mut(|p| unsafe { (*p).write(payload) });
        // The fault by which the sanitizers' run proves that it would notice one.
        let published = if cfg!(afterwrite_planted_race) {
            Relaxed
        } else {
            order::stamp_publish()
        };
        slot.stamp.store(stamp.0, published);
        self.next = if self.next + 1 == self.capacity {
            0
        } else {
            self.next + 1
        };
    }
}

/// A slot that awaits a payload.
pub(crate) struct Vacant<T>(*const Slot<T>);

/// The receiver's side of a ring.
#[derive(Debug)]
pub(crate) struct RingReader {
    next: u16,
}

impl RingReader {
    pub(super) fn new() -> Self {
        Self { next: 0 }
    }

    /// The stamp of the next payload, if there is one. Wait-free.
    ///
    /// # Safety
    /// The caller is the receiver of this mailbox of `T`, alive.
    #[inline(always)]
    pub(crate) unsafe fn peek<T>(&self, mailbox: NonNull<Header>) -> Option<Stamp> {
        // SAFETY: `next < capacity`.
        let slot = unsafe { &*slots::<T>(mailbox).add(usize::from(self.next)) };
        match slot.stamp.load(order::stamp_take()) {
            Stamp::EMPTY => None,
            stamp => Some(Stamp(stamp)),
        }
    }

    /// Takes the next payload. Wait-free.
    ///
    /// # Safety
    /// As for [`RingReader::peek`], which has just answered `Some`.
    #[inline(always)]
    pub(crate) unsafe fn take<T>(&mut self, mailbox: NonNull<Header>) -> T {
        // SAFETY: `next < capacity`.
        let slot = unsafe { &*slots::<T>(mailbox).add(usize::from(self.next)) };
        // SAFETY: the stamp was seen with Acquire: the payload is complete and ours to take.
        let payload = slot.payload.with(|p| unsafe { (*p).assume_init_read() });
        slot.stamp.store(Stamp::EMPTY, order::head_release());
        // SAFETY: alive, by contract. A ring's capacity bears no flag.
        let capacity = unsafe { mailbox.as_ref() }.capacity;
        self.next = if self.next + 1 == capacity {
            0
        } else {
            self.next + 1
        };
        payload
    }
}
