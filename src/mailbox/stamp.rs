//! A ticket as it stands in a slot: bit arithmetic only.
//!
//! ```text
//!   31     30      29                    0
//!  +------+-------+-----------------------+
//!  | full | run   | ticket modulo 2^30    |     0: the slot is empty
//!  +------+-------+-----------------------+
//! ```
//!
//! A receiver knows the last ticket it accounted for and takes the nearest later one, so the full
//! number is found again unless it left more than a thousand million pushes unread; then the
//! difference is reported by a later `Missed`, and no count is lost. The *run* tells whether the
//! pusher has gone back to the ring's first slot since (see `ring.rs`).

const FULL: u32 = 1 << 31;
const RUN: u32 = 1 << 30;
const TICKET: u32 = RUN - 1;

/// A ticket as it stands in a slot; never 0, which means an empty slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp(u32);

/// One of two alternating runs through a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run(u32);

impl Stamp {
    pub(super) const EMPTY: u32 = 0;

    #[inline(always)]
    pub(crate) fn of(ticket: u64) -> Self {
        Self(ticket as u32 & TICKET | FULL)
    }

    /// What a slot shows that is not empty.
    #[inline(always)]
    pub(super) fn from_slot(word: u32) -> Option<Self> {
        (word != Self::EMPTY).then_some(Self(word))
    }

    /// As it stands in a slot that is filled in this run.
    #[inline(always)]
    pub(super) fn in_run(self, run: Run) -> u32 {
        self.0 & !RUN | run.0
    }

    #[inline(always)]
    pub(super) fn run(self) -> Run {
        Run(self.0 & RUN)
    }

    /// Whether this is the stamp of `ticket`, in whatever run.
    #[inline(always)]
    pub(super) fn is_of(self, ticket: u64) -> bool {
        self.0 & !RUN == Self::of(ticket).0
    }

    /// The first ticket after `last` that bears this stamp.
    #[inline(always)]
    pub(super) fn ticket_after(self, last: u64) -> u64 {
        let next = last + 1;
        next + u64::from(self.0.wrapping_sub(next as u32) & TICKET)
    }
}

impl Run {
    /// How a run is kept beside an index of 15 bits: in the bit above.
    const SHIFT: u32 = 15;

    #[inline(always)]
    pub(super) fn other(self) -> Self {
        Self(self.0 ^ RUN)
    }
}

/// An index into a ring, and the run it belongs to, in two bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct At(u16);

impl At {
    pub(super) const START: Self = Self(0);

    #[inline(always)]
    pub(super) fn new(index: u16, run: Run) -> Self {
        Self(index | (run.0 >> Run::SHIFT) as u16)
    }

    #[inline(always)]
    pub(super) fn index(self) -> u16 {
        self.0 & 0x7fff
    }

    #[inline(always)]
    pub(super) fn run(self) -> Run {
        Run(u32::from(self.0 & 0x8000) << Run::SHIFT)
    }

    /// The index after `index`, in a ring of so many.
    #[inline(always)]
    pub(super) fn after(index: u16, capacity: u16, run: Run) -> Self {
        let next = if index + 1 == capacity { 0 } else { index + 1 };
        Self::new(next, run)
    }

    /// The index before this one, in a ring of so many.
    #[inline(always)]
    pub(super) fn before(self, capacity: u16) -> u16 {
        match self.index() {
            0 => capacity - 1,
            index => index - 1,
        }
    }
}

#[cfg(all(test, not(afterwrite_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LAP: u64 = 1 << 30;

    proptest! {
        #[test]
        fn a_stamp_gives_its_ticket_back(last in 0..1u64 << 55, ahead in 1..LAP, other: bool) {
            let ticket = last + ahead;
            let run = if other { At::START.run().other() } else { At::START.run() };
            let word = Stamp::of(ticket).in_run(run);
            let stamp = Stamp::from_slot(word);
            prop_assert_eq!(stamp.map(|it| it.ticket_after(last)), Some(ticket));
            prop_assert_eq!(stamp.map(Stamp::run), Some(run));
            prop_assert!(stamp.is_some_and(|it| it.is_of(ticket) && !it.is_of(ticket + 1)));
        }

        #[test]
        fn laps_meet_without_a_seam(lap in 1..1u64 << 20, offset in -3i64..3) {
            let ticket = (lap * LAP).wrapping_add_signed(offset);
            prop_assert_eq!(Stamp::of(ticket).ticket_after(ticket - 1), ticket);
            prop_assert_eq!(Stamp::of(ticket).ticket_after(ticket), ticket + LAP);
        }

        #[test]
        fn an_index_and_its_run_are_kept_apart(index in 0..0x7fffu16, other: bool) {
            let run = if other { At::START.run().other() } else { At::START.run() };
            let at = At::new(index, run);
            prop_assert_eq!((at.index(), at.run()), (index, run));
            let after = At::after(index, 0x7fff, run);
            prop_assert_eq!((after.before(0x7fff), after.run()), (index, run));
        }
    }

    #[test]
    fn an_empty_slot_has_no_stamp() {
        assert_eq!(Stamp::from_slot(Stamp::EMPTY), None);
    }
}
