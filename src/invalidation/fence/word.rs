//! One word that says which entries are old and how far the cache may be trusted.
//!
//! ```text
//!  63                                        4   3           2        1 0
//! +-------------------------------------------+-----------+--------+-------+
//! | epoch: raised by whatever makes all older | RESTORING | CAPPED | state |
//! | entries worthless                         |           |        |       |
//! +-------------------------------------------+-----------+--------+-------+
//! ```
//!
//! | state | bits | entries of this epoch are served |
//! |---|---|---|
//! | Standalone | 00 | always |
//! | Coherent | 10 | always |
//! | Joining | 01 | for one lease from the beginning of their load |
//! | Suspect | 11 | for one lease from the beginning of their load |
//!
//! `CAPPED` adds an age limit in any state. The low bit of the state and `CAPPED` together tell in
//! one test whether a hit has to look at the clock. `RESTORING` stands beside Suspect alone, and in one
//! epoch alone: a flush has begun in Coherent, and means to go back there when it has cleared.

use std::fmt;

/// How far a node may trust what its cache holds.
///
/// Read in one atomic load by [`Fence::coherence`](super::Fence::coherence).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coherence {
    /// No other node is listened to: right for a single process, and for nothing more.
    Standalone,
    /// Subscribing; nothing is proved yet. Entries are served for one lease at most.
    Joining,
    /// Every known publisher's invalidations arrive: entries are served for as long as they last.
    Coherent,
    /// An invalidation may have been missed. Older entries are bypassed, and what is loaded now is
    /// served for one lease at most.
    Suspect,
}

impl fmt::Display for Coherence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Standalone => "standalone",
            Self::Joining => "joining",
            Self::Coherent => "coherent",
            Self::Suspect => "suspect",
        })
    }
}

const STATE: u64 = 0b011;
const TIMED_STATE: u64 = 0b001;
pub(crate) const CAPPED: u64 = 0b100;
const RESTORING: u64 = 0b1000;
const EPOCH_SHIFT: u32 = 4;
const EPOCH_ONE: u64 = 1 << EPOCH_SHIFT;

const fn bits(state: Coherence) -> u64 {
    match state {
        Coherence::Standalone => 0b00,
        Coherence::Joining => 0b01,
        Coherence::Coherent => 0b10,
        Coherence::Suspect => 0b11,
    }
}

/// A reading of the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) u64);

impl Word {
    pub(crate) const fn first() -> Self {
        Self(EPOCH_ONE | bits(Coherence::Standalone))
    }

    #[inline(always)]
    pub(crate) const fn epoch(self) -> u64 {
        self.0 >> EPOCH_SHIFT
    }

    #[inline(always)]
    pub(crate) const fn state(self) -> Coherence {
        match self.0 & STATE {
            0b00 => Coherence::Standalone,
            0b01 => Coherence::Joining,
            0b10 => Coherence::Coherent,
            _ => Coherence::Suspect,
        }
    }

    /// Whether an entry's age decides if it may be served.
    #[inline(always)]
    pub(crate) const fn timed(self) -> bool {
        self.0 & (TIMED_STATE | CAPPED) != 0
    }

    pub(crate) const fn leased(self) -> bool {
        self.0 & TIMED_STATE != 0
    }

    /// The next epoch, in `state`. Sixty bits do not wrap in the life of a process.
    pub(crate) const fn next(self, state: Coherence) -> Self {
        Self((self.with(state).0).wrapping_add(EPOCH_ONE))
    }

    /// The same epoch, in `state`.
    pub(crate) const fn with(self, state: Coherence) -> Self {
        Self((self.0 & !(STATE | RESTORING)) | bits(state))
    }

    /// The next epoch, `Suspect` until what clears has done so.
    pub(crate) const fn clearing(self) -> Self {
        Self(self.next(Coherence::Suspect).0 | RESTORING)
    }

    /// Whether it says `Coherent`, or will without any further proof.
    pub(crate) const fn trusted(self) -> bool {
        matches!(self.state(), Coherence::Coherent) || self.0 & RESTORING != 0
    }

    /// Equal but for the age limit, which makes no entry old.
    pub(crate) const fn same_but_cap(self, other: Self) -> bool {
        (self.0 ^ other.0) & !CAPPED == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [Coherence; 4] = [
        Coherence::Standalone,
        Coherence::Joining,
        Coherence::Coherent,
        Coherence::Suspect,
    ];

    #[test]
    fn state_and_epoch_round_trip() {
        for from in STATES {
            for to in STATES {
                for cap in [0, CAPPED] {
                    let word = Word((41 << EPOCH_SHIFT) | bits(from) | cap);
                    assert_eq!(word.with(to).state(), to);
                    assert_eq!(word.with(to).epoch(), 41);
                    assert_eq!(word.next(to).state(), to);
                    assert_eq!(word.next(to).epoch(), 42);
                    assert_eq!(word.next(to).0 & CAPPED, cap);
                }
            }
        }
    }

    #[test]
    fn each_state_has_a_word() {
        let words = STATES.map(|state| state.to_string());
        assert_eq!(words, ["standalone", "joining", "coherent", "suspect"]);
    }

    #[test]
    fn only_unproved_states_and_caps_look_at_the_clock() {
        for state in STATES {
            let word = Word(EPOCH_ONE).with(state);
            let leased = matches!(state, Coherence::Joining | Coherence::Suspect);
            assert_eq!(word.leased(), leased);
            assert_eq!(word.timed(), leased);
            assert!(Word(word.0 | CAPPED).timed());
        }
    }

    #[test]
    fn only_one_epoch_is_restored() {
        let word = Word(EPOCH_ONE | CAPPED).with(Coherence::Coherent);
        let clearing = word.clearing();
        assert_eq!(clearing.state(), Coherence::Suspect);
        assert_eq!(clearing.epoch(), 2);
        assert!(word.trusted() && clearing.trusted() && clearing.timed());
        for state in STATES {
            let trusted = state == Coherence::Coherent;
            assert_eq!(clearing.next(state).trusted(), trusted);
            assert_eq!(clearing.with(state), word.next(state));
        }
    }

    #[test]
    fn a_cap_is_no_other_epoch() {
        let word = Word::first();
        assert!(word.same_but_cap(Word(word.0 | CAPPED)));
        assert!(!word.same_but_cap(word.next(Coherence::Standalone)));
        assert!(!word.same_but_cap(word.with(Coherence::Suspect)));
    }
}
