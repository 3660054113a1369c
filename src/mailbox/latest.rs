//! The mailbox of `Conflate` for a payload that says nothing, `()`: one word.
//!
//! ```text
//!   63                 32   31                  0
//!  +----------------------+----------------------+
//!  |  ticket modulo 2^32  |  losses modulo 2^32  |
//!  +----------------------+----------------------+
//! ```
//!
//! A push is one store, in place of whatever stands there; the receiver only reads (Acquire). Since no
//! payload passes, there is nothing to hand back: a mark is new if its ticket is later than the last one
//! that was accounted for, and taking it is the receiver's own affair. So the word has one writer at a
//! time.
//!
//! The turn's ticket, read after the word, is no earlier than the word's, and the losses that the
//! receiver knows of are about as many: by them the full numbers are found again, unless four thousand
//! million pushes come between the two looks, or two thousand million losses with no push between them.
//! After a close, where pushes go on and marks do not, it is not looked at.

use std::alloc::Layout;
use std::ptr::NonNull;

use super::own::Ended;
use super::{Header, Tail, extended};
use crate::sync::{AtomicU64, UnsafeCell, order};

const TICKET_SHIFT: u32 = 32;

/// What follows the tail, but for the last thing, [`Ended`].
#[repr(C)]
struct Cell {
    word: AtomicU64,
    /// Pushes that a later one replaced; touched by the receiver alone.
    merged: UnsafeCell<u64>,
}

/// What stands there: the last push.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark(u64);

impl Mark {
    fn new(ticket: u64, lost: u64) -> Self {
        Self(ticket << TICKET_SHIFT | u64::from(lost as u32))
    }

    /// Its ticket, given one that is no earlier.
    pub(crate) fn ticket_until(self, now: u64) -> u64 {
        let since = (now as u32).wrapping_sub((self.0 >> TICKET_SHIFT) as u32);
        now - u64::from(since)
    }

    /// How many pushes of the key were lost up to it, given how many of those are known.
    pub(crate) fn lost_from(self, known: u64) -> u64 {
        let more = (self.0 as u32).wrapping_sub(known as u32).cast_signed();
        known.wrapping_add_signed(i64::from(more))
    }
}

fn cell(header: NonNull<Header>) -> *mut Cell {
    let (at, _) = offsets();
    header.as_ptr().cast::<u8>().wrapping_add(at).cast()
}

fn offsets() -> (usize, Layout) {
    let (layout, _) = extended::<Tail>(Layout::new::<Header>(), 1);
    let (layout, at) = extended::<Cell>(layout, 1);
    (at, extended::<Ended>(layout, 1).0)
}

pub(super) fn layout() -> Layout {
    offsets().1
}

/// Where it says up to where pushes came.
pub(super) fn ended_ptr(header: NonNull<Header>) -> *mut Ended {
    cell(header).wrapping_add(1).cast()
}

/// # Safety
/// Freshly allocated by [`layout`].
pub(super) unsafe fn init(header: NonNull<Header>) {
    // SAFETY: within the allocation.
    unsafe {
        cell(header).write(Cell {
            word: AtomicU64::new(0),
            merged: UnsafeCell::new(0),
        });
        ended_ptr(header).write(Ended::new());
    }
}

/// # Safety
/// The last reference is being given up.
pub(super) unsafe fn deinit(header: NonNull<Header>) {
    // SAFETY: initialised by `init`. Neither has a drop, save in models.
    unsafe {
        cell(header).drop_in_place();
        ended_ptr(header).drop_in_place();
    }
}

/// Marks a push, or, before any, where the receiver begins. Wait-free.
///
/// # Safety
/// The caller holds the turn, and the mailbox is a registered one of this kind; or it is not registered
/// yet.
pub(super) unsafe fn mark(header: NonNull<Header>, ticket: u64, lost: u64) {
    // SAFETY: initialised by `init`; alive, the topic's reference keeps it.
    let word = unsafe { &(*cell(header)).word };
    word.store(Mark::new(ticket, lost).0, order::mark_publish());
}

/// The last push. Wait-free.
///
/// # Safety
/// A mailbox of this kind, alive.
pub(super) unsafe fn look(header: NonNull<Header>) -> Mark {
    // SAFETY: initialised by `init`; alive, by contract.
    Mark(unsafe { &(*cell(header)).word }.load(order::mark_take()))
}

/// How many pushes a later one replaced.
///
/// # Safety
/// A mailbox of this kind, alive for as long as the result is used.
pub(super) unsafe fn merged<'a>(header: NonNull<Header>) -> &'a UnsafeCell<u64> {
    // SAFETY: initialised by `init`; alive, by contract.
    unsafe { &(*cell(header)).merged }
}

#[cfg(all(test, not(afterwrite_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_two_words_beside_what_all_have() {
        assert_eq!(layout().size(), 24 + 56 + 16 + 6);
    }

    proptest! {
        #[test]
        fn a_mark_gives_both_numbers_back(
            ticket in 1..1u64 << 55,
            later in 0..1u64 << 32,
            known in 0..1u64 << 55,
            more in -(1i64 << 31)..1 << 31,
        ) {
            let lost = known.saturating_add_signed(more);
            let mark = Mark::new(ticket, lost);
            prop_assert_eq!(mark.ticket_until(ticket + later), ticket);
            prop_assert_eq!(mark.lost_from(known), lost);
        }
    }
}
