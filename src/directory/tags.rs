//! A set of tags in one atomic word: what a bucket may hold, answered without its snapshot.
//!
//! ```text
//!   byte    7   6   5   4   3   2   1   0
//!         ┌───┬───┬───┬───┬───┬───┬───┬───┐
//!   some  │ 0 │ 0 │ 0 │ 0 │ 0 │ 9a│ 17│ c4│   tags 1..=254, each once; 0 is an empty place
//!         ├───┼───┼───┼───┼───┼───┼───┼───┤
//!   wild  │ ff│ ff│ ff│ ff│ ff│ ff│ ff│ ff│   more tags than places: everything may be there
//!         └───┴───┴───┴───┴───┴───┴───┴───┘
//! ```
//!
//! A word is one value: a reader sees a whole set, never half of a change. Pure arithmetic; the
//! compare of all places at once is the zero-byte test of Mycroft (1987), exact when asked only
//! whether there is any.

use super::sizes::TAGS;

const EVERY_BYTE: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// A set of tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TagWord(pub(super) u64);

impl TagWord {
    pub(super) const EMPTY: Self = Self(0);
    pub(super) const WILD: Self = Self(u64::MAX);

    /// Whether `tag` may be in the set: `false` is certain.
    #[inline]
    pub(super) fn may_contain(self, tag: u8) -> bool {
        // Not short-circuited: one branch, and that one predictable.
        self.has(tag) | (self == Self::WILD)
    }

    /// The set with `tag`.
    pub(super) fn with(self, tag: u8) -> Self {
        if self.may_contain(tag) {
            return self;
        }
        let used = (u64::BITS - self.0.leading_zeros()).div_ceil(8);
        if used == TAGS {
            Self::WILD
        } else {
            Self(self.0 | u64::from(tag) << (used * 8))
        }
    }

    /// The set of these tags.
    pub(super) fn of(tags: impl Iterator<Item = u8>) -> Self {
        tags.fold(Self::EMPTY, Self::with)
    }

    /// Whether any byte equals `tag`.
    #[inline]
    fn has(self, tag: u8) -> bool {
        let zero_where_equal = self.0 ^ (u64::from(tag) * EVERY_BYTE);
        zero_where_equal.wrapping_sub(EVERY_BYTE) & !zero_where_equal & HIGH_BITS != 0
    }
}
