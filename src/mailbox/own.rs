//! What the receiver of a mailbox keeps in it.
//!
//! Only the receiver touches it. It lies in the mailbox, not in the receiver's handle, so that a
//! receive finds all that it needs beside the first payload; a handle is then a few words that are
//! cheap to move and lie densely.

use super::stamp::At;

/// Where the receiver stands: what every receive reads and writes. 12 bytes, at the start of a header,
/// so that `last` is aligned all the same.
#[derive(Debug)]
#[repr(C, packed(4))]
pub(crate) struct Place {
    /// The last ticket that was accounted for.
    pub(crate) last: u64,
    /// Where a ring's last payload was taken.
    pub(super) ring: At,
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

/// What became of the tickets. 24 bytes; what only an evicting mailbox needs is with its cells.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// The last ticket that does not count here: what was received is what is left of `last`.
    pub(crate) start: u64,
    pub(crate) missed: u64,
    /// Until the end: pushes up to this ticket overlapped the registration, so they may be here, and are
    /// not missed if they are not. From the end on: how many the end discarded.
    pub(crate) overlapped_or_discarded: u64,
}

impl Place {
    pub(super) fn new() -> Self {
        Self {
            last: 0,
            ring: At::START,
            flags: Flags::NONE,
        }
    }
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self {
            start: 0,
            missed: 0,
            overlapped_or_discarded: 0,
        }
    }
}

#[cfg(all(test, not(afterwrite_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_every_receive_touches_is_small() {
        assert_eq!(size_of::<Place>(), 12);
        assert_eq!(size_of::<Ledger>(), 24);
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
