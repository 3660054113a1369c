//! What the models in `loom-tests` reach: the directory, with values that can be pinned.

use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::Ordering;

use super::hash::Buckets;
use super::{Directory, KeyHash, Keyed};
use crate::arena::{Memory, Shared};
use crate::sync::AtomicUsize;

/// Every fault that can be planted into the directory; the models fail for each.
pub fn faults() -> Vec<&'static str> {
    super::order::faults()
}

/// Whether a key of this hash goes to the new bucket when the first one is split.
pub(crate) fn moves_at_first_split(hash: KeyHash) -> bool {
    hash.fingerprint().bucket(Buckets::new(2)) == 1
}

/// A value with its key, and how many rely on it.
struct Value {
    key: &'static str,
    pins: AtomicUsize,
}

impl Keyed for Value {
    fn key(&self) -> &str {
        self.key
    }
}

/// A key with a chosen hash.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// What the key is called.
    pub name: &'static str,
    /// The bits of its hash.
    pub bits: u64,
}

impl Key {
    /// A key whose hash names this bucket, to any number of bits, and this tag.
    pub const fn new(name: &'static str, bucket: u64, tag: u8) -> Self {
        let bits = bucket << 8 | tag as u64;
        Self { name, bits }
    }

    fn hash(self) -> KeyHash {
        KeyHash::from_bits(self.bits)
    }
}

/// A directory with the sizes of a model.
pub struct Model(Directory<Value>);

impl Model {
    /// A directory that holds `keys`, none of them pinned.
    pub fn new(keys: &[Key]) -> Self {
        let model = Self(Directory::new());
        for key in keys {
            model.insert(*key, 0);
        }
        model
    }

    /// Inserts `key` if it is not there, and pins it `pins` times, as a subscriber does.
    pub fn insert(&self, key: Key, pins: usize) {
        let make = |memory: &mut Memory<'_>| {
            let value = Value {
                key: key.name,
                pins: AtomicUsize::new(0),
            };
            Ok::<_, Infallible>(Shared::new_in(memory, value))
        };
        let pin = |value: &Shared<Value>| {
            // Relaxed: the lock orders it, or nothing does.
            let before = value.pins.load(Ordering::Relaxed);
            value.pins.store(before + pins, Ordering::Relaxed);
        };
        match self.0.get_or_insert_with(key.hash(), key.name, make, pin) {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }

    /// Removes `key` unless it is pinned.
    pub fn remove_unpinned(&self, key: Key) -> bool {
        let unpinned = |value: &Value| value.pins.load(Ordering::Relaxed) == 0;
        self.0.remove_if(key.hash(), key.name, unpinned)
    }

    /// Whether `key` is found.
    pub fn has(&self, key: Key) -> bool {
        let found = self.0.get(key.hash(), key.name, |value| value.key);
        found == Some(key.name)
    }

    /// Whether `key` is found with a pin on it, as one is that can be pinned without the lock.
    pub fn has_pinned(&self, key: Key) -> bool {
        let pinned = |value: &Shared<Value>| value.pins.load(Ordering::Relaxed) > 0;
        self.0.get(key.hash(), key.name, pinned) == Some(true)
    }

    /// Whether `key` passes as far as the tags go.
    pub fn may_contain(&self, key: Key) -> bool {
        self.0.may_contain(key.hash())
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
