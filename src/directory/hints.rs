//! Where a bucket's values are, as far as it remembers: a look-up has the value fetched while the snapshot,
//! which alone says where it is, is still on its way. In a directory larger than the cache that is one
//! cache miss in place of two.
//!
//! There is one for each tag of the bucket, in their order, as far as there is room: so a tag's place is that of
//! its hint as well.
//!
//! A hint is fetched and nothing else: it may be of another key, while a writer is at work, or of
//! memory that has been freed. So it needs no protection, and is 32 bits of an address; the rest is that
//! of the snapshot, which as a rule comes from the same blocks. A value from before the directory was large may lie
//! elsewhere: of that there is no hint.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::sizes::WORDS;
use super::snapshot::Snapshot;
use crate::arena::Shared;
use crate::sync::prefetch::prefetch;

/// As many as are left of a cache line; a bucket holds six keys on average.
const PLACES: usize = 8;

const LINE: usize = 64;

/// No hint.
const NONE: u32 = 0;

/// Bits of an address that a hint stands for.
const BITS: u32 = u32::BITS + LINE.ilog2();

/// The hints of one bucket. Not `crate::sync`'s atomics: they order nothing, and models need none of them.
#[derive(Debug)]
pub(super) struct Hints([AtomicU32; PLACES]);

impl Hints {
    pub(super) fn new<V>(snapshot: Option<&Snapshot<V>>) -> Self {
        let hints = Self(std::array::from_fn(|_| AtomicU32::new(NONE)));
        if let Some(snapshot) = snapshot {
            hints.follow(snapshot);
        }
        hints
    }

    /// Remembers where the values of a snapshot are.
    pub(super) fn follow<V>(&self, snapshot: &Snapshot<V>) {
        self.follow_near(snapshot, snapshot.as_raw().addr());
    }

    /// As if the snapshot were at `near`.
    fn follow_near<V>(&self, snapshot: &Snapshot<V>, near: usize) {
        // Where the next hint of each tag word goes.
        let mut next = [0; WORDS + 1];
        for (fingerprint, _) in snapshot.entries() {
            next[fingerprint.word() + 1] += 1;
        }
        for word in 1..WORDS {
            next[word] += next[word - 1];
        }
        for (fingerprint, value) in snapshot.entries() {
            let place = &mut next[fingerprint.word()];
            if let Some(hint) = self.0.get(*place) {
                hint.store(hint_of(value, near), Relaxed);
            }
            *place += 1;
        }
    }

    /// Asks for the value whose tag has this place, if there is a hint of it.
    #[inline]
    pub(super) fn prefetch<V>(&self, place: usize, snapshot: &Snapshot<V>) {
        if let Some(first) = self.first_line(place, snapshot.as_raw().addr()) {
            for nth in 0..lines_of::<V>() {
                let line = first.wrapping_add(nth * LINE);
                prefetch(std::ptr::without_provenance::<u8>(line));
            }
        }
    }

    /// Whether a hint near the one address can be of the other. Allocators that keep sizes far apart, as
    /// AddressSanitizer's does, may leave none.
    pub(super) fn in_one_region(one: usize, other: usize) -> bool {
        one as u64 >> BITS == other as u64 >> BITS
    }

    /// Where the first line is of the value whose tag has this place; `near` is where the snapshot is.
    #[inline]
    pub(super) fn first_line(&self, place: usize, near: usize) -> Option<usize> {
        let line = self.0.get(place)?.load(Relaxed);
        let region = near as u64 >> BITS << BITS;
        (line != NONE).then(|| (region | u64::from(line) << LINE.ilog2()) as usize)
    }
}

/// What to remember of a value, if it is in the region of what is at `near`.
fn hint_of<V>(value: NonNull<V>, near: usize) -> u32 {
    let first = first_byte(value).addr();
    if Hints::in_one_region(first, near) {
        (first / LINE) as u32
    } else {
        NONE
    }
}

/// A handle's count lies before its value, and whoever finds it counts.
fn first_byte<V>(value: NonNull<V>) -> *const u8 {
    let value = value.as_ptr().cast::<u8>().cast_const();
    value.wrapping_sub(Shared::<V>::BEFORE)
}

/// How many lines a value with its count lies on, at most.
const fn lines_of<V>() -> usize {
    (Shared::<V>::BEFORE + size_of::<V>()).div_ceil(LINE) + 1
}

#[cfg(all(test, not(afterwrite_loom)))]
mod tests {
    use super::super::hash::Fingerprint;
    use super::super::tags::TagWord;
    use super::*;
    use crate::arena::Memory;

    type Value = [u64; 20];

    /// Never looked through.
    fn value_at(address: usize) -> NonNull<Value> {
        NonNull::new(std::ptr::without_provenance_mut(address)).expect("not null")
    }

    #[test]
    fn a_tag_has_the_place_of_its_hint() {
        let near = 0x1234_5678;
        let address = |n: usize| (n + 1) << 12 | 0x250;
        // Three to a word: one has no place.
        let fingerprints: Vec<_> = (0..9_u32)
            .map(|n| Fingerprint((n % 3 * 6) << 28 | (n + 1)))
            .collect();
        let mut snapshot = None;
        for (n, fingerprint) in fingerprints.iter().enumerate() {
            let entry = (*fingerprint, value_at(address(n)));
            snapshot = Some(Snapshot::with(
                &mut Memory::global(),
                snapshot.as_ref(),
                entry,
            ));
        }
        let hints = Hints::new::<Value>(None);
        hints.follow_near(&snapshot.expect("nine entries"), near);
        let words: [TagWord; WORDS] = std::array::from_fn(|word| {
            let of_word = |it: &Fingerprint| (it.word() == word).then_some(it.tag());
            TagWord::of(fingerprints.iter().map(of_word))
        });
        let mut hinted = 0;
        for (n, fingerprint) in fingerprints.iter().enumerate() {
            let word = fingerprint.word();
            let before: usize = words[..word].iter().map(|it| it.len()).sum();
            let place = words[word].place(fingerprint.tag()).expect("it is there");
            if let Some(first) = hints.first_line(before + place, near) {
                assert_eq!(first, (address(n) - 2 * size_of::<usize>()) / LINE * LINE);
                assert!(first + lines_of::<Value>() * LINE >= address(n) + size_of::<Value>());
                hinted += 1;
            }
        }
        assert_eq!(hinted, PLACES);
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn of_what_is_in_another_region_there_is_no_hint() {
        let (near, region) = (5 << BITS | 0x1000, 1 << BITS);
        let one = Snapshot::with(
            &mut Memory::global(),
            None,
            (Fingerprint(1), value_at(near + region)),
        );
        let both = Snapshot::with(
            &mut Memory::global(),
            Some(&one),
            (Fingerprint(2), value_at(near + 0x250)),
        );
        let hints = Hints::new::<Value>(None);
        hints.follow_near(&both, near);
        assert_eq!(hints.first_line(0, near), None);
        assert_eq!(hints.first_line(1, near), Some(near + 0x240));
        assert_eq!(hints.first_line(2, near), None, "never written");
    }
}
