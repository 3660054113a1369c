//! The turn word of a topic: bit arithmetic only.
//!
//! One word orders everything that happens to one key. Its upper 56 bits count pushes and losses
//! (the *ticket*); its low bits say who is at work and what is asked of them.
//!
//! | flag     | set by                         | meaning, and who clears it                             |
//! |----------|--------------------------------|--------------------------------------------------------|
//! | `HELD`   | the holder, taking the turn    | one thread delivers; cleared by it, last               |
//! | `DONE`   | the holder                     | all that the ticket counts is delivered; with `HELD`   |
//! | `ATTN`   | a receiver about to sleep      | look again for sleepers; cleared by the holder         |
//! | `SWEEP`  | a closer                       | mailboxes were retired under the holder; likewise      |
//! | `OWED`   | whoever lost a push            | losses are to be counted; likewise                     |
//! | `MORE`   | the shard                      | ring the shard when the turn is free; likewise         |
//! | `SHUT`   | the closing registry           | nothing begins any more; never cleared. Comes with     |
//! |          |                                | `ATTN`, which goes when all that began is told          |
//!
//! Valid words: `ATTN`, `SWEEP`, `OWED`, `MORE` and `DONE` occur with `HELD` only.

const TICKET_SHIFT: u32 = 8;

pub(crate) const HELD: u64 = 1;
pub(crate) const DONE: u64 = 1 << 1;
pub(crate) const ATTN: u64 = 1 << 2;
pub(crate) const SWEEP: u64 = 1 << 3;
pub(crate) const MORE: u64 = 1 << 4;
pub(crate) const OWED: u64 = 1 << 5;
pub(crate) const SHUT: u64 = 1 << 6;

/// A value of the turn word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Turn(pub(crate) u64);

impl Turn {
    #[inline(always)]
    pub(crate) fn ticket(self) -> u64 {
        self.0 >> TICKET_SHIFT
    }

    #[inline(always)]
    pub(crate) fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    #[inline(always)]
    pub(crate) fn with(self, flag: u64) -> Self {
        Self(self.0 | flag)
    }

    #[inline(always)]
    pub(crate) fn without(self, flag: u64) -> Self {
        Self(self.0 & !flag)
    }

    /// Whether a push may begin.
    #[inline(always)]
    pub(crate) fn is_free(self) -> bool {
        self.0 & (HELD | SHUT) == 0
    }

    /// This word after a push of `n` tickets began or was counted.
    #[inline(always)]
    pub(crate) fn advanced(self, n: u64) -> Self {
        Self(self.0.wrapping_add(n << TICKET_SHIFT))
    }

    /// This word when the holder has left.
    #[inline(always)]
    pub(crate) fn left(self) -> Self {
        self.without(HELD | DONE | MORE)
    }

    /// The last ticket whose deliveries are all made.
    #[inline(always)]
    pub(crate) fn completed(self) -> u64 {
        if self.0 & (HELD | DONE) == HELD {
            self.ticket() - 1
        } else {
            self.ticket()
        }
    }

    /// Whether the ticket is still being delivered.
    #[inline(always)]
    pub(crate) fn in_flight(self) -> bool {
        self.0 & (HELD | DONE) == HELD
    }
}

#[cfg(all(test, not(afterwrite_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_word_keeps_ticket_and_flags_apart() {
        let turn = Turn(0).advanced(7).with(HELD | SHUT);
        assert_eq!(turn.ticket(), 7);
        assert!(turn.has(HELD) && turn.has(SHUT) && !turn.has(DONE));
        assert_eq!(turn.completed(), 6);
        assert_eq!(turn.with(DONE).completed(), 7);
        assert_eq!(
            turn.with(DONE | MORE).left(),
            Turn(0).advanced(7).with(SHUT)
        );
        assert!(!turn.left().is_free(), "a shut topic is never free");
        assert!(turn.left().without(SHUT).is_free());
    }
}
