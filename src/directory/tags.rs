//! A set of tags in one atomic word: what a bucket may hold, answered without its snapshot.
//!
//! ```text
//!   byte    7   6   5   4   3   2   1   0
//!         ┌───┬───┬───┬───┬───┬───┬───┬───┐
//!   some  │ 0 │ 0 │ 0 │ 0 │ 0 │ 9a│ 17│ c4│   tags 1..=254; 0 is an empty place
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
    /// No tags.
    pub(super) const EMPTY: Self = Self(0);
    /// All tags.
    pub(super) const WILD: Self = Self(u64::MAX);

    /// Whether `tag` may be in the set: `false` is certain.
    #[inline]
    pub(super) fn may_contain(self, tag: u8) -> bool {
        // Not short-circuited: one branch, and that one predictable.
        self.has(tag) | (self == Self::WILD)
    }

    /// The tags among these.
    #[inline]
    pub(super) fn of(tags: impl Iterator<Item = Option<u8>>) -> Self {
        let (mut word, mut places) = (0, 0);
        // No branch on which ones there are: that would be guessed wrong half the time.
        for tag in tags {
            word |= u64::from(tag.unwrap_or(0)) << (places % TAGS * 8);
            places += u32::from(tag.is_some());
        }
        if places > TAGS {
            Self::WILD
        } else {
            Self(word)
        }
    }

    /// The place of the first `tag`, if it is there.
    #[inline]
    pub(super) fn place(self, tag: u8) -> Option<usize> {
        // The lowest of the marks is where a byte is equal; those above it may be wrong.
        let equal = self.equal(tag);
        (equal != 0).then(|| (equal.trailing_zeros() / u8::BITS) as usize)
    }

    /// How many places are taken.
    #[inline]
    pub(super) fn len(self) -> usize {
        ((u64::BITS - self.0.leading_zeros()).div_ceil(u8::BITS)) as usize
    }

    /// Whether any byte equals `tag`.
    #[inline]
    fn has(self, tag: u8) -> bool {
        self.equal(tag) != 0
    }

    /// Marks in the bytes that equal `tag`, and perhaps in some above one that does.
    #[inline]
    fn equal(self, tag: u8) -> u64 {
        let zero_where_equal = self.0 ^ (u64::from(tag) * EVERY_BYTE);
        zero_where_equal.wrapping_sub(EVERY_BYTE) & !zero_where_equal & HIGH_BITS
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_empty_set_has_nothing_and_the_wild_one_everything() {
        for tag in 1..=254 {
            assert!(!TagWord::EMPTY.may_contain(tag));
            assert!(TagWord::WILD.may_contain(tag));
        }
    }

    proptest! {
        #[test]
        fn a_set_has_what_it_is_made_of_and_no_more(
            tags in prop::collection::vec(prop::option::of(1..=254_u8), 0..12),
        ) {
            let word = TagWord::of(tags.iter().copied());
            let full = tags.iter().flatten().count() > TAGS as usize;
            prop_assert_eq!(word == TagWord::WILD, full);
            for tag in 1..=254 {
                prop_assert_eq!(word.may_contain(tag), full || tags.contains(&Some(tag)));
            }
            let tags: Vec<u8> = tags.into_iter().flatten().collect();
            prop_assert_eq!(word.len(), tags.len().min(TAGS as usize));
            for tag in tags.iter().filter(|_| !full) {
                prop_assert_eq!(word.place(*tag), tags.iter().position(|it| it == tag));
            }
        }
    }
}
