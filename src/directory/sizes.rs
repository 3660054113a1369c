//! The sizes of the directory's parts: as measured best, or as small as a model needs them.

/// Independent parts of a directory, each with its own writers' lock; a power of two, at most 64.
pub(super) const STRIPES: usize = if cfg!(afterwrite_loom) { 1 } else { 64 };

/// Tag words in a bucket. Three, so that a bucket with its cell and its hints is a cache line.
pub(super) const WORDS: usize = if cfg!(afterwrite_loom) { 1 } else { 3 };

/// Tags in a word; with more distinct ones the word matches everything.
pub(super) const TAGS: u32 = if cfg!(afterwrite_loom) { 2 } else { 8 };

/// A stripe splits a bucket when it holds more keys than this per bucket.
///
/// Buckets that wait for their split then hold up to twice as many, some four a tag word.
pub(super) const KEYS_PER_BUCKET: usize = if cfg!(afterwrite_loom) { 2 } else { 6 };

/// Buckets in a stripe's first segment, a power of two. Each further segment doubles.
pub(super) const FIRST_SEGMENT: u32 = if cfg!(afterwrite_loom) { 1 } else { 4 };

/// Segments a stripe can have.
pub(super) const SEGMENTS: usize = 18;

/// Buckets a stripe can have: all that the segments hold. With [`KEYS_PER_BUCKET`] and [`STRIPES`] that is
/// room for 400 million keys; beyond, buckets only get longer.
pub(super) const MAX_BUCKETS: u32 = FIRST_SEGMENT * ((1 << SEGMENTS) - 1);

/// With more buckets than this a stripe is one of a directory, of some 65,000 keys, that outgrows the nearer
/// caches, so that fetching ahead pays. Few in tests, so that they come there.
pub(super) const LARGE: u32 = if cfg!(any(test, afterwrite_loom)) {
    2 * FIRST_SEGMENT
} else {
    (65_536 / STRIPES / KEYS_PER_BUCKET) as u32
};
