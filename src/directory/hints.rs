//! Where a bucket's values are, as far as it remembers: a look-up has the value fetched while the snapshot,
//! which alone says where it is, is still on its way. In a directory larger than the cache that is one
//! cache miss in place of two.
//!
//! There is one for each tag of the bucket, in their order, as far as there is room: so a tag's place is that of
//! its hint as well.
//!
//! A hint is fetched and nothing else: it may be of another key, while a writer is at work, or of
//! memory that has been freed. So it needs no protection, and is 32 bits of an address; the rest is that
//! of the snapshot, which comes from the same heap as a rule.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::sizes::WORDS;
use super::snapshot::Snapshot;
use crate::sync::prefetch::prefetch;

/// As many as are left of a cache line; a bucket holds six keys on average.
const PLACES: usize = 8;

const LINE: usize = 64;

/// Bits of an address that a hint stands for.
const BITS: u32 = u32::BITS + LINE.ilog2();

/// The hints of one bucket. Not `crate::sync`'s atomics: they order nothing, and models need none of them.
#[derive(Debug)]
pub(super) struct Hints([AtomicU32; PLACES]);

impl Hints {
    pub(super) fn new<V>(snapshot: Option<&Snapshot<V>>) -> Self {
        let hints = Self(std::array::from_fn(|_| AtomicU32::new(0)));
        if let Some(snapshot) = snapshot {
            hints.follow(snapshot);
        }
        hints
    }

    /// Remembers where the values of a snapshot are.
    pub(super) fn follow<V>(&self, snapshot: &Snapshot<V>) {
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
                hint.store((first_byte(value).addr() / LINE) as u32, Relaxed);
            }
            *place += 1;
        }
    }

    /// Asks for the value whose tag has this place.
    #[inline]
    pub(super) fn prefetch<V>(&self, place: usize, snapshot: &Snapshot<V>) {
        if let Some(first) = self.first_line(place, snapshot.as_raw().addr()) {
            for nth in 0..lines_of::<V>() {
                prefetch(std::ptr::without_provenance::<u8>(first + nth * LINE));
            }
        }
    }

    /// Where the first line is of the value whose tag has this place, if it is in the heap of `near`.
    #[inline]
    fn first_line(&self, place: usize, near: usize) -> Option<usize> {
        let line = u64::from(self.0.get(place)?.load(Relaxed));
        Some((near as u64 >> BITS << BITS | line << LINE.ilog2()) as usize)
    }
}

/// The counts of an `Arc` lie before its value, and whoever finds it counts.
fn first_byte<V>(value: NonNull<V>) -> *const u8 {
    const COUNTS: usize = 2 * size_of::<usize>();
    value
        .as_ptr()
        .cast::<u8>()
        .cast_const()
        .wrapping_sub(COUNTS)
}

/// How many lines a value with its counts lies on, at most.
const fn lines_of<V>() -> usize {
    (2 * size_of::<usize>() + size_of::<V>()).div_ceil(LINE) + 1
}

#[cfg(all(test, not(afterwrite_loom)))]
mod tests {
    use super::super::hash::Fingerprint;
    use super::super::tags::TagWord;
    use super::*;

    #[test]
    fn a_tag_has_the_place_of_its_hint() {
        type Value = [u64; 20];
        let near = 0x7f12_3456_7890_usize;
        let address = |n: usize| near & !0xffff | n << 12 | 0x250;
        // Three to a word: one has no place.
        let fingerprints: Vec<_> = (0..9_u32)
            .map(|n| Fingerprint((n % 3 * 6) << 28 | (n + 1)))
            .collect();
        let mut snapshot = None;
        for (n, fingerprint) in fingerprints.iter().enumerate() {
            // Never looked through.
            let value = std::ptr::without_provenance_mut::<Value>(address(n));
            let entry = (*fingerprint, NonNull::new(value).expect("not null"));
            snapshot = Some(Snapshot::with(snapshot.as_ref(), entry));
        }
        let snapshot = snapshot.expect("nine entries");
        let hints = Hints::new(Some(&snapshot));
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
                assert_eq!(first, (address(n) - 16) / LINE * LINE, "{n}");
                assert!(first + lines_of::<Value>() * LINE >= address(n) + size_of::<Value>());
                hinted += 1;
            }
        }
        assert_eq!(hinted, PLACES);
    }
}
