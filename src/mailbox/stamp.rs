//! A ticket as it stands in a slot, and a place in a ring: bit arithmetic only.
//!
//! ```text
//!            31 ...                      2     1      0
//!           +------------------------------+-------+------+
//!  Stamp    |     ticket modulo 2^30       |  run  | full |     0: the slot is empty
//!           +------------------------------+-------+------+
//!                     15 ...             2     1      0
//!                    +---------------------+-------+------+
//!  At                |        index        |  run  |  0   |
//!                    +---------------------+-------+------+
//! ```
//!
//! A receiver knows the last ticket it accounted for and takes the nearest later one, so the full
//! number is found again unless it left more than a thousand million pushes unread; then the
//! difference is reported by a later `Missed`, and no count is lost. The *run* tells whether the
//! pusher has gone back to the ring's first slot since (see `ring.rs`). It is the same bit in both
//! words, so that they are compared without a shift.

const FULL: u32 = 1;
const RUN: u32 = 1 << 1;
const SHIFT: u32 = 2;
const TICKETS: u32 = u32::MAX >> SHIFT;

/// How many slots a ring may have.
pub(crate) const MAX_CAPACITY: usize = 1 << (u16::BITS - SHIFT);

/// A ticket as it stands in a slot; never 0, which means an empty slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp(u32);

/// One of two alternating runs through a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run(u32);

/// An index into a ring, and the run it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct At(u16);

impl Stamp {
    pub(super) const EMPTY: u32 = 0;

    #[inline(always)]
    pub(crate) fn of(ticket: u64) -> Self {
        Self((ticket as u32) << SHIFT | FULL)
    }

    /// What a slot shows that is not empty.
    #[inline(always)]
    pub(super) fn from_slot(word: u32) -> Option<Self> {
        (word != Self::EMPTY).then_some(Self(word))
    }

    /// As it stands in a slot that is filled in this run; from [`Stamp::of`].
    #[inline(always)]
    pub(super) fn in_run(self, run: Run) -> u32 {
        self.0 | run.0
    }

    #[inline(always)]
    pub(super) fn run(self) -> Run {
        Run(self.0 & RUN)
    }

    /// The first ticket after `last` that bears this stamp.
    #[inline(always)]
    pub(super) fn ticket_after(self, last: u64) -> u64 {
        let next = last + 1;
        next + u64::from((self.0 >> SHIFT).wrapping_sub(next as u32) & TICKETS)
    }
}

impl Run {
    #[inline(always)]
    pub(super) fn other(self) -> Self {
        Self(self.0 ^ RUN)
    }
}

impl At {
    pub(super) const START: Self = Self(0);

    /// The first slot, in this run.
    #[inline(always)]
    pub(super) fn first(run: Run) -> Self {
        Self(run.0 as u16)
    }

    #[inline(always)]
    pub(super) fn new(index: u16, run: Run) -> Self {
        Self(index << SHIFT | run.0 as u16)
    }

    #[inline(always)]
    pub(super) fn index(self) -> u16 {
        self.0 >> SHIFT
    }

    #[inline(always)]
    pub(super) fn run(self) -> Run {
        Run(u32::from(self.0) & RUN)
    }

    /// The next slot of the same run, in a ring of so many.
    #[inline(always)]
    pub(super) fn next(self, capacity: u16) -> Self {
        let next = self.index() + 1;
        Self::new(if next == capacity { 0 } else { next }, self.run())
    }
}

#[cfg(all(test, not(afterwrite_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LAP: u64 = 1 << 30;

    fn run(other: bool) -> Run {
        let first = At::START.run();
        if other { first.other() } else { first }
    }

    proptest! {
        #[test]
        fn a_stamp_gives_its_ticket_back(last in 0..1u64 << 55, ahead in 1..LAP, other: bool) {
            let ticket = last + ahead;
            let stamp = Stamp::from_slot(Stamp::of(ticket).in_run(run(other)));
            prop_assert_eq!(stamp.map(|it| it.ticket_after(last)), Some(ticket));
            prop_assert_eq!(stamp.map(Stamp::run), Some(run(other)));
        }

        #[test]
        fn laps_meet_without_a_seam(lap in 1..1u64 << 20, offset in -3i64..3) {
            let ticket = (lap * LAP).wrapping_add_signed(offset);
            prop_assert_eq!(Stamp::of(ticket).ticket_after(ticket - 1), ticket);
            prop_assert_eq!(Stamp::of(ticket).ticket_after(ticket), ticket + LAP);
        }

        #[test]
        fn an_index_and_its_run_are_kept_apart(index in 0..MAX_CAPACITY as u16, other: bool) {
            let at = At::new(index, run(other));
            prop_assert_eq!((at.index(), at.run()), (index, run(other)));
            let next = at.next(MAX_CAPACITY as u16);
            let wrapped = usize::from(index) + 1 == MAX_CAPACITY;
            prop_assert_eq!(next.index(), if wrapped { 0 } else { index + 1 });
            prop_assert_eq!(next.run(), run(other));
        }
    }

    #[test]
    fn an_empty_slot_has_no_stamp() {
        assert_eq!(Stamp::from_slot(Stamp::EMPTY), None);
    }

    #[test]
    fn the_first_slot_is_that_of_index_0() {
        for other in [false, true] {
            assert_eq!(At::first(run(other)), At::new(0, run(other)));
        }
    }
}
