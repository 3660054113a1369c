//! The smallest cache that serves: a map behind one lock, with a bound.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use ahash::RandomState;

use crate::invalidation::cache::{Cache, Entry, Reason, Store, Unfinished};
use crate::sync::Mutex;

/// A bounded map behind one lock. When full it evicts in the order of a clock's hand, whatever was
/// used: for tests, examples and small sets. It needs no feature.
///
/// It promises all that an adapter can: `remove` and `clear` have taken effect when they return.
/// Each call may block for as long as another one lasts.
pub struct BoundedMap<V> {
    capacity: usize,
    map: Mutex<Map<V>>,
}

struct Map<V> {
    /// Where each id stands in `entries`.
    places: HashMap<Arc<str>, usize, RandomState>,
    entries: Vec<(Arc<str>, Entry<V>)>,
    /// The next to go.
    hand: usize,
}

impl<V> BoundedMap<V> {
    /// A map of at most `capacity` ids; zero counts as one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        #[cfg(not(afterwrite_loom))]
        let hasher = RandomState::new();
        #[cfg(afterwrite_loom)]
        let hasher = RandomState::with_seeds(9, 10, 11, 12);
        Self {
            capacity: capacity.max(1),
            map: Mutex::new(Map {
                places: HashMap::with_hasher(hasher),
                entries: Vec::new(),
                hand: 0,
            }),
        }
    }

    /// How many ids it holds.
    pub fn len(&self) -> usize {
        self.map.lock().entries.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<V> Map<V> {
    fn insert(&mut self, id: &str, entry: Entry<V>, capacity: usize) -> Option<Entry<V>> {
        if let Some(&place) = self.places.get(id) {
            return Some(std::mem::replace(&mut self.entries[place].1, entry));
        }
        let id: Arc<str> = id.into();
        if self.entries.len() < capacity {
            self.places.insert(id.clone(), self.entries.len());
            self.entries.push((id, entry));
            return None;
        }
        let place = self.hand % capacity;
        self.hand = place + 1;
        self.places.insert(id.clone(), place);
        let (evicted, old) = std::mem::replace(&mut self.entries[place], (id, entry));
        self.places.remove(&evicted);
        Some(old)
    }

    fn remove(&mut self, id: &str) -> Option<Entry<V>> {
        let place = self.places.remove(id)?;
        let (_, removed) = self.entries.swap_remove(place);
        if let Some((moved, _)) = self.entries.get(place) {
            self.places.insert(moved.clone(), place);
        }
        Some(removed)
    }
}

impl<V: Send + Sync + 'static> Cache for BoundedMap<V> {
    fn remove(&self, id: &str) -> Result<(), Unfinished> {
        // Dropped after the lock: a value's drop is foreign code.
        let removed = self.map.lock().remove(id);
        drop(removed);
        Ok(())
    }

    fn clear(&self, _reason: Reason) -> Result<(), Unfinished> {
        let removed = {
            let mut map = self.map.lock();
            map.places.clear();
            std::mem::take(&mut map.entries)
        };
        drop(removed);
        Ok(())
    }
}

impl<V: Clone + Send + Sync + 'static> Store for BoundedMap<V> {
    type Value = V;

    fn get(&self, id: &str) -> Option<Entry<V>> {
        let map = self.map.lock();
        let place = *map.places.get(id)?;
        Some(map.entries[place].1.clone())
    }

    fn insert(&self, id: &str, entry: Entry<V>) -> Result<(), Unfinished> {
        let replaced = self.map.lock().insert(id, entry, self.capacity);
        drop(replaced);
        Ok(())
    }
}

impl<V> fmt::Debug for BoundedMap<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedMap")
            .field("capacity", &self.capacity)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invalidation::fence::Fence;

    fn entry(fence: &Fence, value: u32) -> Entry<u32> {
        let stamp = fence.token("any").store(|stamp| stamp).unwrap();
        Entry::new(stamp, Some(value))
    }

    #[test]
    fn keeps_its_bound_and_its_index_under_any_order_of_calls() {
        let fence = Fence::new();
        let map = BoundedMap::new(4);
        // A small deterministic walk over 7 ids.
        let mut step = 1u64;
        for turn in 0..10_000u32 {
            step = step.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let id = (step >> 40) % 7;
            let name = id.to_string();
            if (step >> 50).is_multiple_of(3) {
                map.remove(&name).unwrap();
                assert!(map.get(&name).is_none());
            } else {
                map.insert(&name, entry(&fence, turn)).unwrap();
                assert_eq!(map.get(&name).unwrap().value(), Some(&turn));
            }
            let inner = map.map.lock();
            assert!(inner.entries.len() <= 4);
            assert_eq!(inner.entries.len(), inner.places.len());
            for (place, (id, _)) in inner.entries.iter().enumerate() {
                assert_eq!(inner.places[id], place);
            }
        }
        map.clear(Reason::Requested).unwrap();
        assert!(map.is_empty());
        map.insert("a", entry(&fence, 1)).unwrap();
        assert_eq!(map.len(), 1);
    }
}
