//! foyer's in-memory cache as the cache.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash};

use foyer::DefaultHasher;

use crate::invalidation::cache::{Cache, Entry, Reason, Store, Unfinished};

/// A [`foyer::Cache`], the in-memory one, keyed by anything that is made from and borrows as a `str`.
///
/// As a [`Store`] it holds [`Entry`]s, which only a fence makes; foyer's own `get_or_fetch`
/// therefore can't put anything in around the fence. Over other values it only drops, and a fetch
/// that began before a removal still stores: use [`Coherent`](crate::invalidation::coherent::Coherent).
///
/// # What it can't promise
/// - Handles that readers hold keep a removed value alive and readable.
/// - An event listener runs inside insertions, under the fence's lock. It may call the library; it
///   should not take long.
/// - The hybrid cache is not covered: its copy on disk would need a fence of its own.
///
/// ```
/// use afterwrite::invalidation::{caches::Foyer, coherent::Coherent};
///
/// let cache = foyer::CacheBuilder::new(10_000).build();
/// let users = Coherent::new(Foyer::<String, _>::new(cache));
/// let load = || Ok::<_, std::io::Error>(Some(7));
/// assert_eq!(users.get_or_load_blocking("42", load).unwrap(), Some(7));
/// ```
pub struct Foyer<K, T, S = DefaultHasher>
where
    K: Hash + Eq + Send + Sync + 'static,
    T: Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    cache: foyer::Cache<K, T, S>,
}

impl<K, T, S> Foyer<K, T, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    T: Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// Wraps a handle to a cache.
    pub const fn new(cache: foyer::Cache<K, T, S>) -> Self {
        Self { cache }
    }

    /// The cache itself, to read its figures.
    pub const fn inner(&self) -> &foyer::Cache<K, T, S> {
        &self.cache
    }
}

impl<K, T, S> Cache for Foyer<K, T, S>
where
    K: Borrow<str> + Hash + Eq + Send + Sync + 'static,
    T: Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    fn remove(&self, id: &str) -> Result<(), Unfinished> {
        drop(self.cache.remove(id));
        Ok(())
    }

    fn clear(&self, _reason: Reason) -> Result<(), Unfinished> {
        self.cache.clear();
        Ok(())
    }
}

impl<K, V, S> Store for Foyer<K, Entry<V>, S>
where
    K: for<'a> From<&'a str> + Borrow<str> + Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    type Value = V;

    #[inline]
    fn get(&self, id: &str) -> Option<Entry<V>> {
        self.cache.get(id).map(|kept| kept.value().clone())
    }

    fn insert(&self, id: &str, entry: Entry<V>) -> Result<(), Unfinished> {
        drop(self.cache.insert(id.into(), entry));
        Ok(())
    }
}

impl<K, T, S> fmt::Debug for Foyer<K, T, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    T: Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foyer")
            .field("entries", &self.cache.entries())
            .finish_non_exhaustive()
    }
}
