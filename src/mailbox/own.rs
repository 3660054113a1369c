//! What the receiver of a mailbox keeps in it.
//!
//! Only the receiver touches it. It lies in the mailbox, not in the receiver's handle, so that a
//! receive finds all that it needs beside `state`, in one line, and the payload in another; a
//! handle is then a few words that are cheap to move and lie densely.

use super::{EvictReader, RingReader};
use crate::topic::Stamp;

/// Where the receiver stands: what every receive reads and writes. 16 bytes.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Place {
    /// The last ticket that was accounted for.
    pub(crate) last: u64,
    /// The stamp of the ticket after `last`.
    pub(crate) expected: Stamp,
    pub(crate) ring: RingReader,
    pub(crate) flags: Flags,
}

/// What makes the next receive more than a look into the ring; see the constants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Flags(u8);

impl Flags {
    pub(crate) const NONE: Self = Self(0);
    /// The mailbox evicts.
    pub(crate) const EVICTING: Self = Self(1);
    /// What was replaced counts as merged, not as missed.
    pub(crate) const CONFLATE: Self = Self(1 << 1);
    /// A first notice is awaited.
    pub(crate) const FIRST: Self = Self(1 << 2);
    /// Nothing comes any more.
    pub(crate) const ENDED: Self = Self(1 << 3);
    /// The receiver left the mailbox to the pusher.
    pub(crate) const DETACHED: Self = Self(1 << 4);

    #[inline(always)]
    pub(crate) fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    pub(crate) fn set(&mut self, flag: Self) {
        self.0 |= flag.0;
    }

    pub(crate) fn clear(&mut self, flag: Self) {
        self.0 &= !flag.0;
    }
}

/// What became of the tickets, and what only an evicting mailbox needs. 64 bytes.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) evicting: EvictReader,
    /// Losses of the key that were accounted for (`Conflate` only).
    pub(crate) lost: u64,
    /// The last ticket that does not count here: what was received is what is left of `last`.
    pub(crate) start: u64,
    /// Pushes up to this ticket overlapped the registration: they may be here, and are not missed if
    /// they are not.
    pub(crate) overlapped: u64,
    pub(crate) missed: u64,
    pub(crate) merged: u64,
    pub(crate) discarded: u64,
}

impl Place {
    pub(super) fn new() -> Self {
        Self {
            last: 0,
            expected: Stamp::of(1),
            ring: RingReader::new(),
            flags: Flags::NONE,
        }
    }

    /// Moves on to a ticket.
    #[inline]
    pub(crate) fn stand_at(&mut self, ticket: u64) {
        self.last = ticket;
        self.expected = Stamp::of(ticket + 1);
    }

    /// Moves on by one ticket.
    #[inline(always)]
    pub(crate) fn advance(&mut self) {
        self.last += 1;
        self.expected = self.expected.successor();
    }
}

impl Ledger {
    pub(super) fn new(capacity: u16) -> Self {
        Self {
            evicting: EvictReader::new(capacity),
            lost: 0,
            start: 0,
            overlapped: 0,
            missed: 0,
            merged: 0,
            discarded: 0,
        }
    }
}

#[cfg(all(test, not(afterwrite_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_every_receive_touches_is_small() {
        assert_eq!(size_of::<Place>(), 16);
        assert_eq!(size_of::<Ledger>(), 64);
    }

    #[test]
    fn flags_are_apart() {
        let all = [
            Flags::EVICTING,
            Flags::CONFLATE,
            Flags::FIRST,
            Flags::ENDED,
            Flags::DETACHED,
        ];
        for (index, &flag) in all.iter().enumerate() {
            let mut flags = Flags::NONE;
            flags.set(flag);
            for (other, &asked) in all.iter().enumerate() {
                assert_eq!(flags.has(asked), index == other);
            }
            flags.clear(flag);
            assert_eq!(flags, Flags::NONE);
        }
    }
}
