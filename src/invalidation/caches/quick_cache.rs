//! quick_cache as the cache.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use quick_cache::sync::{Cache as Inner, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, Lifecycle, UnitWeighter, Weighter};

use crate::invalidation::cache::{Cache, Entry, Reason, Store, Unfinished};

/// A [`quick_cache::sync::Cache`], keyed by anything that is made from and borrows as a `str`.
///
/// As a [`Store`] it holds [`Entry`]s, which only a fence makes. Over other values it only drops.
///
/// # What it can't promise
/// - `clear` goes shard by shard, so that for a moment a raw `get` may still find some entries. Through
///   the fence none of them is served.
/// - quick_cache's own `get_or_insert_with` gives up a fill whose id was removed meanwhile, but
///   knows neither positions, nor doubt, nor a plain `get` followed by `insert`.
/// - A `Lifecycle` runs inside insertions, under the fence's lock. It should not take long.
/// - An entry heavier than a shard is not kept; that is a miss, never a stale hit.
///
/// ```
/// use afterwrite::invalidation::{caches::QuickCache, coherent::Coherent};
///
/// let cache = QuickCache::<String, _>::new(quick_cache::sync::Cache::new(10_000));
/// let users = Coherent::new(cache);
/// let load = || Ok::<_, std::io::Error>(Some(7));
/// assert_eq!(users.get_or_load_blocking("42", load).unwrap(), Some(7));
/// ```
pub struct QuickCache<K, T, We = UnitWeighter, B = DefaultHashBuilder, L = DefaultLifecycle<K, T>> {
    cache: Arc<Inner<K, T, We, B, L>>,
}

impl<K, T, We, B, L> QuickCache<K, T, We, B, L> {
    /// Wraps a cache, or a shared handle to one.
    pub fn new(cache: impl Into<Arc<Inner<K, T, We, B, L>>>) -> Self {
        Self {
            cache: cache.into(),
        }
    }

    /// The cache itself, to read its figures.
    pub fn inner(&self) -> &Inner<K, T, We, B, L> {
        &self.cache
    }
}

impl<K, T, We, B, L> Cache for QuickCache<K, T, We, B, L>
where
    K: Borrow<str> + Hash + Eq + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
    We: Weighter<K, T> + Clone + Send + Sync + 'static,
    B: BuildHasher + Clone + Send + Sync + 'static,
    L: Lifecycle<K, T> + Clone + Send + Sync + 'static,
{
    fn remove(&self, id: &str) -> Result<(), Unfinished> {
        self.cache.remove(id);
        Ok(())
    }

    fn clear(&self, _reason: Reason) -> Result<(), Unfinished> {
        self.cache.clear();
        Ok(())
    }
}

impl<K, V, We, B, L> Store for QuickCache<K, Entry<V>, We, B, L>
where
    K: for<'a> From<&'a str> + Borrow<str> + Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    We: Weighter<K, Entry<V>> + Clone + Send + Sync + 'static,
    B: BuildHasher + Clone + Send + Sync + 'static,
    L: Lifecycle<K, Entry<V>> + Clone + Send + Sync + 'static,
{
    type Value = V;

    #[inline]
    fn get(&self, id: &str) -> Option<Entry<V>> {
        self.cache.get(id)
    }

    fn insert(&self, id: &str, entry: Entry<V>) -> Result<(), Unfinished> {
        self.cache.insert(id.into(), entry);
        Ok(())
    }
}

impl<K, T, We, B, L> fmt::Debug for QuickCache<K, T, We, B, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuickCache").finish_non_exhaustive()
    }
}
