//! One hash per operation, and the bits that each part of the directory takes out of it.
//!
//! ```text
//! bit 63            48 47    42 41         32 31  28 27               8 7      0
//!     ├──── shard ────┤├ stripe ┤├─ unused ──┤├ word ┤├──── bucket ────┤├─ tag ─┤
//!                                             └────────── fingerprint ──────────┘
//! ```
//!
//! The parts do not overlap, so that knowing one says nothing about the next: keys that share a
//! shard or a stripe still spread over all buckets, and keys that share a bucket over all tags.

use std::hash::{BuildHasher, Hasher as _};

use super::sizes::{LARGE, MAX_BUCKETS, STRIPES, WORDS};

/// Hashes keys, each once; what follows works on the [`KeyHash`].
#[derive(Clone, Debug)]
pub(crate) struct Hasher {
    state: ahash::RandomState,
}

impl Hasher {
    /// A hasher that nobody outside the process can predict, so that keys cannot be chosen to collide.
    pub(crate) fn random() -> Self {
        Self {
            state: ahash::RandomState::new(),
        }
    }

    /// A hasher that gives the same hashes in every run of one build, for figures that repeat.
    pub(crate) fn with_seed(seed: u64) -> Self {
        // The further words are the fraction of pi, as good as any that hide nothing.
        Self {
            state: ahash::RandomState::with_seeds(
                seed,
                0x243f_6a88_85a3_08d3,
                0x1319_8a2e_0370_7344,
                0xa409_3822_299f_31d0,
            ),
        }
    }

    /// The hash of `key`.
    #[inline]
    pub(crate) fn hash(&self, key: &str) -> KeyHash {
        let mut hasher = self.state.build_hasher();
        // The bytes alone: nothing follows a key, so that no terminator is needed.
        hasher.write(key.as_bytes());
        KeyHash(hasher.finish())
    }
}

/// The hash of one key, made by a [`Hasher`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyHash(u64);

impl KeyHash {
    const SHARD_SHIFT: u32 = 48;
    const STRIPE_SHIFT: u32 = 42;

    /// A hash with chosen bits, for tests and models that need collisions.
    #[cfg(any(test, afterwrite_loom))]
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Which of `shards` shards the key belongs to; 0 if there are none.
    ///
    /// Multiply and shift (Lemire, "Fast random integer generation in an interval", 2019) instead
    /// of a division. Even for up to some thousands of shards.
    #[inline]
    pub(crate) fn shard(self, shards: usize) -> usize {
        let high = u128::from(self.0 >> Self::SHARD_SHIFT);
        // Below `shards`, so it fits.
        ((high * shards as u128) >> (64 - Self::SHARD_SHIFT)) as usize
    }

    /// Which stripe of a directory the key belongs to.
    #[inline]
    pub(super) fn stripe(self) -> usize {
        (self.0 >> Self::STRIPE_SHIFT) as usize & (STRIPES - 1)
    }

    /// What a stripe keeps of the hash.
    #[inline]
    pub(super) fn fingerprint(self) -> Fingerprint {
        Fingerprint(self.0 as u32)
    }
}

/// The part of a hash that a snapshot keeps beside each entry, so that neither a probe nor a split
/// needs to touch the entry's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Fingerprint(pub(super) u32);

const _ALL_BUCKETS_HAVE_A_NUMBER: () =
    assert!(MAX_BUCKETS <= 1 << (Fingerprint::WORD_SHIFT - Fingerprint::BUCKET_SHIFT));

impl Fingerprint {
    const BUCKET_SHIFT: u32 = 8;
    const WORD_SHIFT: u32 = 28;

    /// The key's tag in its bucket's tag word.
    #[inline]
    pub(super) fn tag(self) -> u8 {
        // Both ends are taken: an empty place, and the word that matches everything.
        (self.0 as u8).clamp(1, 254)
    }

    /// Which of its bucket's tag words the key belongs to.
    #[inline]
    pub(super) fn word(self) -> usize {
        ((self.0 >> Self::WORD_SHIFT) as usize * WORDS) >> (32 - Self::WORD_SHIFT)
    }

    /// The key's bucket among `buckets`, by linear hashing (Litwin, "Linear hashing: a new tool
    /// for file and table addressing", 1980): buckets are split in order, one at a time, so that
    /// those below `buckets` are numbered by one bit more than those that still wait.
    #[inline]
    pub(super) fn bucket(self, buckets: Buckets) -> u32 {
        let index = (self.0 >> Self::BUCKET_SHIFT) & buckets.mask();
        if index < buckets.count() {
            index
        } else {
            index & (buckets.mask() >> 1)
        }
    }
}

/// How many buckets there are, at least one, and what follows from it; in one word.
///
/// ```text
/// bit 63            32 31             0
///     ├──── mask ─────┤├──── count ───┤    mask: as many ones as the count has bits
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Buckets(pub(super) u64);

impl Buckets {
    /// `count` of them.
    pub(super) fn new(count: u32) -> Self {
        let mask = u32::MAX.checked_shr(count.leading_zeros()).unwrap_or(0);
        Self((u64::from(mask) << 32) | u64::from(count))
    }

    /// How many there are.
    #[inline]
    pub(super) fn count(self) -> u32 {
        self.0 as u32
    }

    /// Whether they are those of a directory that outgrows the nearer caches.
    #[inline]
    pub(super) fn is_large(self) -> bool {
        self.count() > LARGE
    }

    /// Whether they are, or will be when there are twice as many.
    pub(super) fn is_soon_large(self) -> bool {
        self.count() > LARGE / 2
    }

    /// One more.
    pub(super) fn next(self) -> Self {
        Self::new(self.count() + 1)
    }

    /// The one whose keys are shared out when there is one more.
    pub(super) fn next_source(self) -> u32 {
        self.count() & (self.mask() >> 1)
    }

    #[inline]
    fn mask(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_seed_repeats_and_chance_does_not() {
        let key = "order/1";
        assert_eq!(
            Hasher::with_seed(1).hash(key),
            Hasher::with_seed(1).hash(key)
        );
        assert_ne!(
            Hasher::with_seed(1).hash(key),
            Hasher::with_seed(2).hash(key)
        );
        assert_ne!(Hasher::random().hash(key), Hasher::random().hash(key));
    }

    #[test]
    fn every_part_is_used_evenly() {
        let hasher = Hasher::with_seed(1);
        let mut shards = [0; 5];
        let mut stripes = [0; STRIPES];
        let mut words = [0; WORDS];
        let mut tags = [0; 256];
        let mut buckets = [0; 8];
        const KEYS: usize = 100_000;
        for key in 0..KEYS {
            let hash = hasher.hash(&format!("order/{key}"));
            shards[hash.shard(5)] += 1;
            stripes[hash.stripe()] += 1;
            words[hash.fingerprint().word()] += 1;
            tags[usize::from(hash.fingerprint().tag())] += 1;
            buckets[hash.fingerprint().bucket(Buckets::new(8)) as usize] += 1;
        }
        assert_eq!((tags[0], tags[255]), (0, 0));
        let near = |counts: &[usize], slack: f64| {
            let even = KEYS as f64 / counts.len() as f64;
            (counts.iter()).all(|it| (*it as f64 / even - 1.0).abs() < slack)
        };
        // Six sigma and more; a word takes 5 or 6 of 16 parts, the outermost tags two of 256.
        assert!(near(&shards, 0.05) && near(&stripes, 0.16) && near(&buckets, 0.06));
        assert!(near(&words, 0.15) && near(&tags[2..254], 0.35));
    }

    #[test]
    fn no_shards_are_no_panic() {
        assert_eq!(KeyHash::from_bits(u64::MAX).shard(0), 0);
        assert_eq!(KeyHash::from_bits(u64::MAX).shard(1), 0);
    }

    proptest! {
        /// One more bucket moves keys into it from the one that is its source, and no others.
        #[test]
        fn a_split_moves_keys_from_its_source_alone(bits: u32, buckets in 1..MAX_BUCKETS) {
            let fingerprint = Fingerprint(bits);
            let now = Buckets::new(buckets);
            let (before, after) = (fingerprint.bucket(now), fingerprint.bucket(now.next()));
            prop_assert!(before < buckets && now.count() == buckets);
            if after == buckets {
                prop_assert_eq!(before, now.next_source());
            } else {
                prop_assert_eq!(after, before);
            }
        }

        /// About half of its source's keys move.
        #[test]
        fn a_split_moves_half(buckets in 1..MAX_BUCKETS) {
            let now = Buckets::new(buckets);
            let source = now.next_source();
            let moved = Fingerprint(buckets << 8).bucket(now.next());
            let stayed = Fingerprint(source << 8).bucket(now.next());
            prop_assert_eq!((moved, stayed), (buckets, source));
        }
    }
}
