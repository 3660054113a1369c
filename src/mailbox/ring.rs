//! The ring of `DropNewest`: plain stores only, one stamp a payload.
//!
//! The pusher writes the payload into the slot at its private index and stores the ticket's stamp
//! (Release); the receiver at its own index loads the stamp (Acquire), takes the payload, clears
//! the stamp and adds one to `head` (Release). The pusher counts the room it knows of down and
//! reloads `head` (Acquire) only when it has none left: a push into a full ring costs one read.
//!
//! A slot is written again only after the pusher saw a `head` that counts its last payload as
//! taken, so the two sides never touch one payload at a time. Stamps are tickets, not indices: a
//! push that found the ring full leaves no hole in it, and the receiver sees the loss as a gap.

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
    /// How many more payloads fit, as far as is known without looking; always 0 when evicting.
    room: u16,
    /// `head`, modulo 2^16, when `room` was last brought up to date.
    seen_head: u16,
    /// How many slots there are; 0 marks an evicting mailbox.
    capacity: u16,
}

/// How a delivery to one mailbox went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Delivered {
    Yes,
    Full,
}

impl Entry {
    pub(crate) const EMPTY: Self = Self {
        mailbox: None,
        next: 0,
        room: 0,
        seen_head: 0,
        capacity: 0,
    };

    pub(crate) fn ring(mailbox: NonNull<Header>, capacity: u16) -> Self {
        Self {
            mailbox: Some(mailbox),
            next: 0,
            room: capacity,
            seen_head: 0,
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

    /// Delivers into a ring. Wait-free but for `payload`, which may panic: nothing has then changed.
    ///
    /// # Safety
    /// The caller holds the turn, the entry is that of a registered ring of `T`.
    #[inline(always)]
    pub(crate) unsafe fn deliver<T>(
        &mut self,
        stamp: Stamp,
        payload: impl FnOnce() -> T,
    ) -> Delivered {
        // SAFETY: a registered entry names its mailbox, which the topic's reference keeps alive.
        let mailbox = unsafe { self.mailbox.unwrap_unchecked() };
        if self.room == 0 {
            // SAFETY: as above.
            let head = unsafe { mailbox.as_ref() }.head.load(order::head_reload()) as u16;
            self.room = head.wrapping_sub(self.seen_head);
            self.seen_head = head;
            if self.room == 0 {
                return Delivered::Full;
            }
        }
        // SAFETY: `next < capacity`.
        let slot = unsafe { &*slots::<T>(mailbox).add(usize::from(self.next)) };
        let payload = payload();
        // SAFETY: `room` says that the receiver has taken what was here, by the Acquire above or an
        // earlier one, and it looks again only after the stamp.
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
        self.room -= 1;
        Delivered::Yes
    }
}

/// The receiver's side of a ring.
#[derive(Debug)]
pub(crate) struct RingReader {
    next: u16,
    capacity: u16,
}

impl RingReader {
    pub(crate) fn new(capacity: u16) -> Self {
        Self { next: 0, capacity }
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
        slot.stamp.store(Stamp::EMPTY, Relaxed);
        self.next = if self.next + 1 == self.capacity {
            0
        } else {
            self.next + 1
        };
        // SAFETY: alive, by contract.
        let head = unsafe { &mailbox.as_ref().head };
        head.store(head.load(Relaxed).wrapping_add(1), order::head_release());
        payload
    }
}
