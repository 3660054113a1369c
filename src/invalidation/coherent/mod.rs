//! A cache that loads through its fence: one load for all who wait, nothing stale stored.
//!
//! ```text
//!  get_or_load(id, loader)
//!     │
//!     ├─ cache.get ─ stamp still good? ───────────────► answer
//!     ├─ a flight for id that we may join? ─ wait ────► its answer, or start again if abandoned
//!     └─ lead: permit ─ mark ─ loader ─ store if the fence lets it ─ land ─► answer
//! ```
//!
//! # Who takes part
//! `flight` decides who may share a load, `admission` how many loads run at once, the
//! [fence](super::fence) what may be stored and what may still be served. None of them holds a lock
//! while a loader runs.
//!
//! # Why no caller gets what is older than an invalidation it came after
//! - *From the cache*: an invalidation raises the version under the lock under which a store checks,
//!   and then removes; a flush makes older stamps worthless. See the fence.
//! - *From a flight*: a caller joins only if nothing was dropped between the beginning of the
//!   read and its own arrival, and what was read then would still be served; or if the read has not begun.
//! - *From its own load*: it begins after the caller came.
//!
//! A caller who was there *before* the invalidation may get the older value; it is not stored.

mod admission;
mod block_on;
mod builder;
mod error;
mod flight;
mod loaded;
mod nested;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;
use std::future::{self, Future};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub use builder::Builder;
pub use error::LoadError;
pub use loaded::Loaded;

use super::cache::{Cache, Entry, Reason, Store, Unfinished};
use super::fence::{Coherence, Fence, FenceStats, Mark};
use super::target::{Target, caught};
use admission::{Admission, Moment};
use flight::{Boarding, Flights};
use nested::{InLoader, Place};

/// A cache with its fence. Cloning gives another handle to the same one.
///
/// Give it to a watch (it converts into a [`Target`]), load through
/// [`get_or_load`](Self::get_or_load), and call nothing on the cache itself.
///
/// No async runtime is needed, and any will do.
///
/// ```
/// use afterwrite::invalidation::caches::BoundedMap;
/// use afterwrite::invalidation::coherent::Coherent;
///
/// let users = Coherent::new(BoundedMap::<String>::new(1_000));
/// let load = || Ok::<_, std::io::Error>(Some("Ada".to_owned())); // a query
/// assert_eq!(users.get_or_load_blocking("42", load).unwrap().as_deref(), Some("Ada"));
/// assert!(users.get("42").is_some());
///
/// // After a write of this process, when no invalidator is there to tell it:
/// users.invalidate("42");
/// assert!(users.get("42").is_none());
/// ```
pub struct Coherent<C: Store> {
    inner: Arc<Inner<C>>,
}

struct Inner<C: Store> {
    fence: Arc<Fence>,
    store: C,
    flights: Flights<C::Value>,
    admission: Admission,
    counts: Counts,
}

/// Off the models' books: counters order nothing.
#[derive(Debug, Default)]
struct Counts {
    loads: AtomicU64,
    joined: AtomicU64,
    failed: AtomicU64,
    overloaded: AtomicU64,
    abandoned: AtomicU64,
}

/// Counts since a [`Coherent`] was made. Hits are not counted: that would cost more than the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CoherentStats {
    /// Loaders run.
    pub loads: u64,
    /// Callers that got another caller's load.
    pub joined: u64,
    /// Loaders that answered with an error.
    pub failed: u64,
    /// Callers turned away because too many waited.
    pub overloaded: u64,
    /// Waits that ended without an answer, mostly because the leader was cancelled or panicked. Each
    /// of these callers then went on by itself.
    pub abandoned: u64,
    /// Loads under way now.
    pub loading: usize,
    /// Loads that wait for their turn now.
    pub waiting: usize,
    /// What was stored and refused.
    pub fence: FenceStats,
}

impl<C: Store> Coherent<C> {
    /// Wraps an empty cache, with the defaults of [`Builder`], which sets limits and ages.
    pub fn new(store: C) -> Self {
        Builder::new().build(store)
    }

    fn assemble(store: C, fence: Fence, loads: usize, waiting: usize, ramp: u64) -> Self {
        let admission = Admission::new(loads, waiting, ramp, fence.epoch());
        Self {
            inner: Arc::new(Inner {
                fence: Arc::new(fence),
                store,
                flights: Flights::new(),
                admission,
                counts: Counts::default(),
            }),
        }
    }

    /// What the cache holds for `id` and may still serve: `Some(None)` when it is known that there
    /// is no such value, `None` when nothing is known.
    ///
    /// Never waits for a load. As fast as the cache's own `get`, and one atomic load.
    #[inline]
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Option<C::Value>> {
        let entry = self.inner.store.get(id)?;
        let serves = self.inner.fence.serves(entry.stamp());
        serves.then(|| entry.into_value())
    }

    /// What the cache holds, or else what `loader` answers.
    ///
    /// Callers that miss the same id at the same time share one load, but a caller who came after an
    /// invalidation never shares one whose read began before it. The answer is stored unless the id
    /// or everything was invalidated meanwhile; `Ok(None)`, no such value, is stored alike. A
    /// loader that reads a replica says what it had seen: see [`Loaded`]. What a replica answers that
    /// lags behind an invalidation is the callers' answer, and is not stored.
    ///
    /// `loader` runs at most once, and not at all if the value is there or another caller loads it.
    /// At most [`Builder::loads`] run at once. Cancel-safe: if the caller whose loader runs
    /// is cancelled or panics, one that waits takes over with its own. A call that has been polled
    /// should be polled on or dropped: others may wait for its load.
    ///
    /// A loader may load other ids, of this cache or another, but not its own: such loads run under
    /// their loader's permit, whatever the limit. What is called while a cache stores or clears, as an
    /// eviction listener is, may load too, for itself alone: nothing is shared, and nothing is stored
    /// where that would have to wait.
    ///
    /// # Errors
    ///
    /// [`LoadError::Failed`] with the loader's error, for all who shared the load; it is not cached.
    /// [`LoadError::Overloaded`] when too many loads wait.
    pub async fn get_or_load<F, Fut, L, E>(
        &self,
        id: &str,
        loader: F,
    ) -> Result<Option<C::Value>, LoadError>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<L, E>>,
        L: Into<Loaded<C::Value>>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let inner = &*self.inner;
        loop {
            if let Some(known) = self.get(id) {
                return Ok(known);
            }
            let place = Place::here();
            let arrived = inner.fence.mark(id);
            if place == Place::Callback {
                let loaded = inner.run(loader).await;
                return inner.keep(id, &arrived, loaded);
            }
            match inner
                .flights
                .enter(id, &arrived, &inner.fence, place == Place::Outside)
            {
                Boarding::Join(flight) => {
                    if let Some(answer) = flight.await {
                        inner.counts.joined.fetch_add(1, Relaxed);
                        return answer;
                    }
                    inner.counts.abandoned.fetch_add(1, Relaxed);
                }
                Boarding::Lead(lead) => {
                    // A flight may have landed between the look at the cache and the board. Those
                    // who joined this one look at the cache again as well.
                    if let Some(known) = self.get(id) {
                        return Ok(known);
                    }
                    let permit = match place {
                        Place::Outside => Some(inner.admission.permit(|| inner.moment()).await),
                        Place::Loader | Place::Callback => None,
                    };
                    let permit = match permit.transpose() {
                        Ok(permit) => permit,
                        Err(overloaded) => {
                            inner.counts.overloaded.fetch_add(1, Relaxed);
                            lead.land(arrived, Err(overloaded.clone()));
                            return Err(overloaded);
                        }
                    };
                    let mark = lead.begin(|| inner.fence.mark(id));
                    let loaded = inner.run(loader).await;
                    drop(permit);
                    let answer = inner.keep(id, &mark, loaded);
                    lead.land(mark, answer.clone());
                    return answer;
                }
            }
        }
    }

    /// [`get_or_load`](Self::get_or_load) for threads: waits by parking the calling one.
    ///
    /// It shares loads with asynchronous callers. On a thread that runs an async executor it may
    /// wait for a load that only this thread could drive: use `get_or_load` there.
    ///
    /// # Errors
    ///
    /// As for `get_or_load`.
    pub fn get_or_load_blocking<F, L, E>(
        &self,
        id: &str,
        loader: F,
    ) -> Result<Option<C::Value>, LoadError>
    where
        F: FnOnce() -> Result<L, E>,
        L: Into<Loaded<C::Value>>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        block_on::block_on(self.get_or_load(id, || future::ready(loader())))
    }

    /// Drops one id here: for writes of this process while nothing watches. An invalidator does the
    /// same when it emits, and tells the others.
    ///
    /// A cache that fails to remove, or panics, makes everything older bypassed. May block while a store on
    /// the same lock is under way.
    pub fn invalidate(&self, id: &str) {
        let removed = self
            .inner
            .fence
            .invalidate(id, || caught(|| self.inner.store.remove(id)));
        if removed.is_err() {
            self.inner.fence.bypass_older();
        }
    }

    /// Drops everything here. What the cache fails to clear is bypassed all the same.
    ///
    /// May block for as long as the slowest store under way.
    pub fn flush(&self) {
        // Whether the cache could clear does not matter: stamps of an older epoch are not served.
        let _cleared: Result<(), Unfinished> = self
            .inner
            .fence
            .flush(|| caught(|| self.inner.store.clear(Reason::Requested)));
    }

    /// How far the cache may be trusted now. Wait-free: one atomic load.
    #[inline]
    #[must_use]
    pub fn coherence(&self) -> Coherence {
        self.inner.fence.coherence()
    }

    /// The fence, for loads that are stored by other ways.
    #[must_use]
    pub fn fence(&self) -> &Fence {
        &self.inner.fence
    }

    /// The cache beneath, to read its own figures.
    #[must_use]
    pub fn store(&self) -> &C {
        &self.inner.store
    }

    /// What has happened so far.
    #[must_use]
    pub fn stats(&self) -> CoherentStats {
        let counts = &self.inner.counts;
        let (loading, waiting) = self.inner.admission.load();
        CoherentStats {
            loads: counts.loads.load(Relaxed),
            joined: counts.joined.load(Relaxed),
            failed: counts.failed.load(Relaxed),
            overloaded: counts.overloaded.load(Relaxed),
            abandoned: counts.abandoned.load(Relaxed),
            loading,
            waiting,
            fence: self.inner.fence.stats(),
        }
    }
}

impl<C: Store> Inner<C> {
    fn moment(&self) -> Moment {
        Moment {
            epoch: self.fence.epoch(),
            now: self.fence.now(),
        }
    }

    /// Runs a loader, which may load in its turn.
    async fn run<F, Fut, L, E>(&self, loader: F) -> Result<Loaded<C::Value>, E>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<L, E>>,
        L: Into<Loaded<C::Value>>,
    {
        self.counts.loads.fetch_add(1, Relaxed);
        let load = {
            let _inside = InLoader::enter();
            loader()
        };
        let mut load = pin!(load);
        let loaded = future::poll_fn(|cx| {
            let _inside = InLoader::enter();
            load.as_mut().poll(cx)
        });
        loaded.await.map(Into::into)
    }

    /// Stores what was loaded, if the fence lets it, and makes the answer of it.
    fn keep<E: Into<Box<dyn Error + Send + Sync>>>(
        &self,
        id: &str,
        mark: &Mark,
        loaded: Result<Loaded<C::Value>, E>,
    ) -> Result<Option<C::Value>, LoadError> {
        let loaded = loaded.map_err(|error| {
            self.counts.failed.fetch_add(1, Relaxed);
            LoadError::Failed(Arc::from(error.into()))
        })?;
        let value = loaded.value;
        let stored = self.fence.store(mark, loaded.view, |stamp| {
            let value = value.clone();
            caught(|| self.store.insert(id, Entry::new(stamp, value)))
        });
        // A refusal is counted by the fence; the caller has its answer either way.
        if let Ok(Err(Unfinished)) = stored {
            self.fence.bypass_older();
        }
        Ok(value)
    }
}

/// What a driver drops from: the cache beneath, on the other side of the fence.
struct Beneath<C: Store>(Arc<Inner<C>>);

impl<C: Store> Cache for Beneath<C> {
    fn remove(&self, id: &str) -> Result<(), Unfinished> {
        self.0.store.remove(id)
    }

    fn clear(&self, reason: Reason) -> Result<(), Unfinished> {
        self.0.store.clear(reason)
    }
}

impl<C: Store> From<&Coherent<C>> for Target {
    fn from(coherent: &Coherent<C>) -> Self {
        Self::with_fence(
            coherent.inner.fence.clone(),
            Beneath(coherent.inner.clone()),
        )
    }
}

impl<C: Store> From<Coherent<C>> for Target {
    fn from(coherent: Coherent<C>) -> Self {
        Self::from(&coherent)
    }
}

impl<C: Store> Clone for Coherent<C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

impl<C: Store> fmt::Debug for Coherent<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coherent")
            .field("coherence", &self.coherence())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
