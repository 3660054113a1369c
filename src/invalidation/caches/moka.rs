//! moka as the cache: [`Moka`] over `moka::sync::Cache`, [`MokaFuture`] over `moka::future::Cache`.

use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, Hash, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::invalidation::cache::{Cache, Entry, Reason, Store, Unfinished};

/// A [`moka::sync::Cache`], keyed by anything that is made from and borrows as a `str`.
///
/// As a [`Store`] it holds [`Entry`]s, which only a fence makes; moka's own `get_with` therefore
/// can't put anything in around the fence. Over other values it only drops.
///
/// # What it can't promise
/// - An eviction listener runs inside insertions, under the fence's lock. It may call the library; it
///   should not take long.
/// - `clear` hides everything at once, and frees the memory in later maintenance.
/// - moka's admission may turn a new entry away at once; that is a miss, never a stale hit.
///
/// ```
/// use afterwrite::invalidation::{caches::Moka, coherent::Coherent};
///
/// let users = Coherent::new(Moka::<String, _>::new(moka::sync::Cache::new(10_000)));
/// let load = || Ok::<_, std::io::Error>(Some(7));
/// assert_eq!(users.get_or_load_blocking("42", load).unwrap(), Some(7));
/// ```
pub struct Moka<K, T, S = RandomState> {
    cache: moka::sync::Cache<K, T, S>,
}

impl<K, T, S> Moka<K, T, S> {
    /// Wraps a handle to a cache.
    pub const fn new(cache: moka::sync::Cache<K, T, S>) -> Self {
        Self { cache }
    }

    /// The cache itself, to read its figures.
    pub const fn inner(&self) -> &moka::sync::Cache<K, T, S> {
        &self.cache
    }
}

impl<K, T, S> Cache for Moka<K, T, S>
where
    K: Borrow<str> + Hash + Eq + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    fn remove(&self, id: &str) -> Result<(), Unfinished> {
        self.cache.invalidate(id);
        Ok(())
    }

    fn clear(&self, _reason: Reason) -> Result<(), Unfinished> {
        self.cache.invalidate_all();
        Ok(())
    }
}

impl<K, V, S> Store for Moka<K, Entry<V>, S>
where
    K: for<'a> From<&'a str> + Borrow<str> + Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
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

impl<K, T, S> fmt::Debug for Moka<K, T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Moka")
            .field("entries", &self.cache.entry_count())
            .finish_non_exhaustive()
    }
}

/// How long an insertion or removal may wait for somebody else's eviction listener.
const PATIENCE: Duration = Duration::from_millis(10);

/// A [`moka::future::Cache`], keyed by anything that is made from and borrows as a `str`.
///
/// Its operations are driven to their end on the calling thread. Without an asynchronous eviction
/// listener they never wait.
///
/// # What it can't promise
/// - With a listener that awaits, an insertion or removal may have to wait for it, an insertion while
///   the fence's lock is held. It does so for 10 ms at most, and then answers [`Unfinished`]: nothing
///   stale is served, but all that is older is bypassed. Where that happens often, use [`Moka`].
/// - A `get` that would have to wait is a miss.
/// - What is said of [`Moka`].
pub struct MokaFuture<K, T, S = RandomState> {
    cache: moka::future::Cache<K, T, S>,
}

impl<K, T, S> MokaFuture<K, T, S> {
    /// Wraps a handle to a cache.
    pub const fn new(cache: moka::future::Cache<K, T, S>) -> Self {
        Self { cache }
    }

    /// The cache itself, to read its figures.
    pub const fn inner(&self) -> &moka::future::Cache<K, T, S> {
        &self.cache
    }
}

impl<K, T, S> Cache for MokaFuture<K, T, S>
where
    K: Borrow<str> + Hash + Eq + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    fn remove(&self, id: &str) -> Result<(), Unfinished> {
        finish(self.cache.invalidate(id))
    }

    fn clear(&self, _reason: Reason) -> Result<(), Unfinished> {
        self.cache.invalidate_all();
        Ok(())
    }
}

impl<K, V, S> Store for MokaFuture<K, Entry<V>, S>
where
    K: for<'a> From<&'a str> + Borrow<str> + Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    type Value = V;

    fn get(&self, id: &str) -> Option<Entry<V>> {
        let get = pin!(self.cache.get(id));
        match get.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(entry) => entry,
            Poll::Pending => None,
        }
    }

    fn insert(&self, id: &str, entry: Entry<V>) -> Result<(), Unfinished> {
        finish(self.cache.insert(id.into(), entry))
    }
}

impl<K, T, S> fmt::Debug for MokaFuture<K, T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MokaFuture")
            .field("entries", &self.cache.entry_count())
            .finish_non_exhaustive()
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls to the end, or for as long as patience lasts. moka resumes by itself what is dropped
/// half-way; that the entry may appear or disappear late is what `Unfinished` says.
fn finish(operation: impl Future<Output = ()>) -> Result<(), Unfinished> {
    let mut operation = pin!(operation);
    if let Poll::Ready(()) = operation
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        return Ok(());
    }
    let deadline = Instant::now() + PATIENCE;
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(()) = operation.as_mut().poll(&mut cx) {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Unfinished);
        }
        thread::park_timeout(left);
    }
}
