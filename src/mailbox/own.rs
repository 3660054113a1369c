//! What the receiver of a mailbox keeps in it.
//!
//! Only the receiver touches it. It lies in the mailbox, not in the receiver's handle, so that a
//! receive finds all that it needs beside the first payload; a handle is then a few words that are
//! cheap to move and lie densely.

use super::stamp::At;
use crate::sync::{AtomicU16, Ordering::Relaxed};

/// Where the receiver stands: what every receive reads and writes. 12 bytes, at the start of a header,
/// so that `last` is aligned all the same.
#[derive(Debug)]
#[repr(C, packed(4))]
pub(crate) struct Place {
    /// The last ticket that was accounted for; with [`Flags::SETTLED`], how many the end discarded.
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
    /// The accounts are closed: no ticket is looked at any more.
    pub(crate) const SETTLED: Self = Self(1 << 5);
    /// The mailbox has a mark alone.
    pub(crate) const LATEST: Self = Self(1 << 6);

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
    /// The last ticket that does not count here: what was received is what is left of `last`. With
    /// [`Flags::SETTLED`], how many were received.
    pub(crate) start: u64,
    pub(crate) missed: u64,
    /// What few receivers have need of, which the receiver alone knows the type of; null without.
    pub(crate) extra: *mut (),
}

/// Up to which ticket pushes were ordered before the end; written once, by a closer that is not the
/// receiver, which knows. 6 bytes: three digits, each one more than it is worth, so that all are there when
/// none is 0.
#[derive(Debug)]
pub(super) struct Ended([AtomicU16; 3]);

impl Ended {
    const BASE: u64 = u16::MAX as u64;

    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU16::new(0)))
    }

    pub(super) fn set(&self, ticket: u64) {
        // After 2 * 10^14 pushes of one key it is left unsaid, and reckoned from the turn.
        if ticket >= Self::BASE.pow(3) {
            return;
        }
        let mut rest = ticket;
        for digit in &self.0 {
            digit.store((rest % Self::BASE) as u16 + 1, Relaxed);
            rest /= Self::BASE;
        }
    }

    pub(super) fn get(&self) -> Option<u64> {
        self.0.iter().rev().try_fold(0, |ticket, digit| {
            let digit = u64::from(digit.load(Relaxed)).checked_sub(1)?;
            Some(ticket * Self::BASE + digit)
        })
    }

    /// For the models: every use by another thread happened before this.
    #[cfg(afterwrite_loom)]
    pub(super) fn assert_exclusive(&mut self) {
        for digit in &mut self.0 {
            digit.with_mut(|_| ());
        }
    }
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
            extra: std::ptr::null_mut(),
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
        assert_eq!(size_of::<Ended>(), 6);
    }

    #[test]
    fn an_end_is_said_whole_or_not_at_all() {
        const MOST: u64 = Ended::BASE.pow(3) - 1;
        for ticket in [0, 1, 65_534, 65_535, 65_536, 1 << 32, (1 << 47) + 5, MOST] {
            let ended = Ended::new();
            assert_eq!(ended.get(), None);
            ended.set(ticket);
            assert_eq!(ended.get(), Some(ticket));
            for digit in &ended.0 {
                let said = digit.swap(0, Relaxed);
                assert_eq!(ended.get(), None);
                digit.store(said, Relaxed);
            }
        }
    }

    #[test]
    fn flags_are_apart() {
        let all = [
            Flags::EVICTING,
            Flags::CONFLATE,
            Flags::FIRST,
            Flags::ENDED,
            Flags::DETACHED,
            Flags::SETTLED,
            Flags::LATEST,
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
