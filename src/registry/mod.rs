//! The front door: subscribe, submit, publish, close.

mod builder;
mod closing;
mod core;
mod key;
#[cfg(all(test, not(afterwrite_loom)))]
mod tests;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use crate::error::{BatchOutcome, CloseTimeout, KeyError, Published, Submitted, SubscribeError};
use crate::gate::{Attempt, Gate, Reached};
use crate::shard::ShardStats;
use crate::subscription::Subscription;
use crate::sync::{Arc, panics};

#[cfg(afterwrite_loom)]
pub(crate) use builder::Limits;
pub use builder::{Builder, Pinning, SubscribeOptions};
pub(crate) use core::Core;
pub use key::Key;

/// Subscribers by key, told of a change once this replica's read view shows it.
///
/// A `Registry` is a handle: clones share one set of subscribers and shards. When the last is
/// dropped the registry begins to close, as [`Registry::close`] does, without waiting.
///
/// ```
/// use afterwrite::{Notice, Registry, Submitted};
///
/// let registry: Registry<u64> = Registry::new()?;
/// let mut orders = registry.subscribe("order/17")?;
///
/// // After the commit: the producer runs on a shard until the read view shows version 3.
/// let read_view = |_order: &str| Some(3);
/// let submitted = registry.submit("order/17", move |_attempt| {
///     read_view("order/17").filter(|&version| version >= 3)
/// });
/// assert_eq!(submitted, Submitted::Queued);
/// assert_eq!(orders.recv_blocking(), Some(Notice::Changed(3)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Registry<T> {
    handle: Arc<Handle<T>>,
}

/// Counts the clones of a registry; the last one closes it.
struct Handle<T> {
    core: Arc<Core<T>>,
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        self.core.begin_closing();
    }
}

impl<T> Clone for Registry<T> {
    fn clone(&self) -> Self {
        Self {
            handle: self.handle.clone(),
        }
    }
}

impl<T> Registry<T> {
    /// Settings for a registry.
    ///
    /// ```
    /// use afterwrite::Registry;
    ///
    /// let registry = Registry::<u64>::builder().workers(2).build()?;
    /// // Or, where the payload is known from elsewhere:
    /// let another: Registry<u64> = Registry::builder().workers(2).build()?;
    /// # Ok::<(), afterwrite::BuildError>(())
    /// ```
    pub fn builder() -> Builder<T> {
        Builder::new()
    }
}

impl<T: Clone + Send + 'static> Registry<T> {
    /// A registry with the [`Builder`]'s defaults.
    ///
    /// # Errors
    /// [`BuildError::Thread`](crate::BuildError::Thread) if a shard's thread cannot be started.
    pub fn new() -> Result<Self, crate::BuildError> {
        Builder::new().build()
    }

    pub(crate) fn from_core(core: Arc<Core<T>>) -> Self {
        Self {
            handle: Arc::new(Handle { core }),
        }
    }

    fn core(&self) -> &Arc<Core<T>> {
        &self.handle.core
    }

    /// Subscribes to a key, with the registry's buffer and overflow policy.
    ///
    /// Whatever is submitted or published once this has returned reaches the subscription, or is
    /// reported as missed. Blocks for other threads that subscribe or unsubscribe, never for a push.
    ///
    /// # Errors
    /// [`SubscribeError`], and nothing is left behind.
    pub fn subscribe(&self, key: &str) -> Result<Subscription<T>, SubscribeError> {
        self.subscribe_with(key, SubscribeOptions::new())
    }

    /// Subscribes to a key, with a buffer and an overflow policy of its own.
    ///
    /// ```
    /// use afterwrite::{Notice, Overflow, Registry, SubscribeOptions};
    ///
    /// let registry: Registry<u64> = Registry::new()?;
    /// let latest = SubscribeOptions::new().overflow(Overflow::Conflate);
    /// let mut price = registry.subscribe_with("price/ACME", latest)?;
    /// let _ = registry.publish("price/ACME", 1);
    /// let _ = registry.publish("price/ACME", 2);
    /// assert_eq!(price.try_recv(), Ok(Notice::Changed(2)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SubscribeError`], and nothing is left behind.
    pub fn subscribe_with(
        &self,
        key: &str,
        options: SubscribeOptions,
    ) -> Result<Subscription<T>, SubscribeError> {
        Core::subscribe(self.core(), key, options, None)
    }

    /// Subscribes, and delivers one first notice through a gate, to this subscription alone.
    ///
    /// For a client that queried before it subscribed: a change between the two would otherwise go
    /// unnoticed. The first notice stands in the key's order: behind gates that were submitted
    /// earlier, before those that are submitted later. It is no push of the key: the
    /// [`Tally`](crate::Tally) does not count it.
    ///
    /// ```
    /// use afterwrite::{Notice, Registry};
    ///
    /// let registry: Registry<u64> = Registry::new()?;
    /// # let read_view = |_key: &str| 3u64;
    /// let shown = 2; // the version that the client's query has brought
    /// let mut order = registry.subscribe_gated("order/17", move |_attempt| {
    ///     // Once the view is at least as far: what is there now?
    ///     Some(read_view("order/17")).filter(|&version| version >= shown)
    /// })?;
    /// assert_eq!(order.recv_blocking(), Some(Notice::Changed(3)));
    /// assert_eq!(order.tally().received, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SubscribeError`], and nothing is left behind; also when the shard has no room for the gate
    /// ([`SubscribeError::QueueFull`]).
    pub fn subscribe_gated<F>(
        &self,
        key: &str,
        producer: F,
    ) -> Result<Subscription<T>, SubscribeError>
    where
        F: FnMut(&Attempt) -> Option<T> + Send + 'static,
    {
        self.subscribe_gated_with(key, SubscribeOptions::new(), Gate::read(producer))
    }

    /// As [`Registry::subscribe_gated`], with any kind of gate, and a buffer and an overflow policy of
    /// its own.
    ///
    /// # Errors
    /// As [`Registry::subscribe_gated`].
    pub fn subscribe_gated_with(
        &self,
        key: &str,
        options: SubscribeOptions,
        gate: Gate<T>,
    ) -> Result<Subscription<T>, SubscribeError> {
        Core::subscribe(self.core(), key, options, Some(gate))
    }

    /// Hands a producer to the key's shard, which asks it until the read view shows the change, and
    /// then pushes its payload to every subscriber of the key.
    ///
    /// Never runs the producer on the calling thread; takes only the queue's short lock, and waits for
    /// no gate, read, push or receiver. Without subscribers nothing is queued.
    ///
    /// The producer answers `None` while the view does not show the change, also when it could not
    /// be read. **The view must be fed by the stream of the very event that triggered this submit**
    /// (the projection of the table that was written, say): a gate on anything else may never open.
    /// A synchronous producer should not block: it holds up every key of its shard.
    pub fn submit<F>(&self, key: &str, producer: F) -> Submitted
    where
        F: FnMut(&Attempt) -> Option<T> + Send + 'static,
    {
        self.core().submit(key, || Gate::read(producer))
    }

    /// As [`Registry::submit`], with an asynchronous producer.
    ///
    /// Its futures are created, polled and dropped on the shard's thread and need not be `Send`. They
    /// run in the context of the runtime given to the [`Builder`], if one was. A read that
    /// is under way when the budget ends is dropped.
    ///
    /// ```
    /// # #[cfg(feature = "tokio")] {
    /// use afterwrite::{Notice, Registry, Submitted};
    /// # async fn version_of(_order: u64) -> Option<u64> { tokio::task::yield_now().await; Some(3) }
    ///
    /// let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    /// let registry = Registry::builder().runtime(runtime.handle().clone()).build()?;
    /// let mut order = registry.subscribe("order/17")?;
    ///
    /// // Asks the replica, over the network, until it shows version 3.
    /// let submitted = registry.submit_async("order/17", |_attempt| async {
    ///     version_of(17).await.filter(|&version| version >= 3)
    /// });
    /// assert_eq!(submitted, Submitted::Queued);
    /// assert_eq!(runtime.block_on(order.recv()), Some(Notice::Changed(3)));
    /// registry.close(); // before its runtime
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn submit_async<F, Fut>(&self, key: &str, producer: F) -> Submitted
    where
        F: FnMut(Attempt) -> Fut + Send + 'static,
        Fut: Future<Output = Option<T>> + 'static,
    {
        self.core().submit(key, || Gate::read_async(producer))
    }

    /// As [`Registry::submit`]: pushes `payload` once a watermark has reached a position. Nothing
    /// polls.
    ///
    /// ```
    /// use afterwrite::{Notice, Registry, Watermark};
    ///
    /// let registry: Registry<&str> = Registry::new()?;
    /// let watermark = Watermark::new(0);
    /// let mut order = registry.subscribe("order/17")?;
    /// let submitted = registry.submit_at("order/17", watermark.reached(5), "paid");
    /// assert_eq!(submitted, afterwrite::Submitted::Queued);
    /// watermark.advance(5);
    /// assert_eq!(order.recv_blocking(), Some(Notice::Changed("paid")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn submit_at(&self, key: &str, reached: Reached, payload: T) -> Submitted {
        self.core().submit(key, || Gate::reached(reached, payload))
    }

    /// As [`Registry::submit`], with any kind of gate.
    pub fn submit_gate(&self, key: &str, gate: Gate<T>) -> Submitted {
        self.core().submit(key, || gate)
    }

    /// Submits many gates with one hand-over for each shard; the order within a key is that of the
    /// iterator.
    ///
    /// Jobs count one by one against `queue_capacity`: a batch larger than what is free is taken
    /// over in part, from its front.
    ///
    /// ```
    /// use afterwrite::{Gate, Notice, Registry, Watermark};
    ///
    /// let registry: Registry<&str> = Registry::new()?;
    /// let view = Watermark::new(0);
    /// let mut order = registry.subscribe("order/17")?;
    /// // One transaction changed three things, at position 5.
    /// let outcome = registry.submit_batch(
    ///     ["order/17", "order/18", "basket/3"].map(|key| (key, Gate::reached(view.reached(5), "new"))),
    /// );
    /// assert_eq!((outcome.queued, outcome.no_subscribers), (1, 2));
    /// view.advance(5);
    /// assert_eq!(order.recv_blocking(), Some(Notice::Changed("new")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn submit_batch<K: AsRef<str>>(
        &self,
        batch: impl IntoIterator<Item = (K, Gate<T>)>,
    ) -> BatchOutcome {
        self.core().submit_batch(batch)
    }

    /// Pushes a payload to every subscriber of the key, at once and on the calling thread: it
    /// overtakes gates that wait. Without subscribers it answers
    /// [`Published::Reached(0)`](Published::Reached), also for a key that nobody can subscribe to,
    /// empty or overlong.
    ///
    /// If another push of the key is under way the payload goes to the key's shard, which pushes it
    /// next, ahead of gates that wait as well. Lock-free, but for the queue's short lock in that
    /// case. Payloads published by one thread keep their order.
    ///
    /// ```
    /// use afterwrite::{Notice, Published, Registry};
    ///
    /// let registry: Registry<&str> = Registry::new()?;
    /// let mut order = registry.subscribe("order/17")?;
    /// assert_eq!(registry.publish("order/17", "paid"), Published::Reached(1));
    /// assert_eq!(order.try_recv(), Ok(Notice::Changed("paid")));
    /// assert_eq!(registry.publish("order/18", "paid"), Published::Reached(0));
    /// assert_eq!(registry.publish("", "paid"), Published::Reached(0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn publish(&self, key: &str, payload: T) -> Published {
        self.core().publish(key, payload)
    }

    /// Resolves a key once, for those who publish or submit to it often.
    ///
    /// # Errors
    /// [`KeyError`] for an empty or overlong key, and for a closed registry.
    pub fn key(&self, key: &str) -> Result<Key<T>, KeyError> {
        Core::resolve(self.core(), key)
    }

    /// How many subscribers the key has. Lock-free.
    #[must_use]
    pub fn subscriber_count(&self, key: &str) -> usize {
        self.core().subscriber_count(key)
    }

    /// Whether the key has subscribers. Lock-free.
    #[must_use]
    pub fn has_subscribers(&self, key: &str) -> bool {
        self.subscriber_count(key) > 0
    }

    /// How the registry and its shards are doing. Lock-free.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let core = self.core();
        Stats {
            shards: core.shards.iter().map(|shard| shard.stats()).collect(),
            subscribers: core.subscribers(),
            keys: core.keys(),
            panicked_observers: core.settings.observer.panicked(),
            panicked_payloads: core.settings.observer.panicked_payloads(),
            panicked_wakers: panics::panicked_wakers(),
        }
    }

    /// Whether the registry is closed or closing.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.core().is_closing()
    }

    /// Closes the registry and waits until its shards have ended. Idempotent.
    ///
    /// Gates that wait are cancelled, jobs that never started are given up, and their subscribers
    /// told; a push under way is finished. Then subscriptions yield what they have, and end.
    /// Called on one of the registry's own shards (by a producer or an observer) it begins to close
    /// and returns.
    ///
    /// Not for asynchronous code: it holds up the thread; there is [`close_async`](Self::close_async).
    /// Two registries whose shards each close the other wait for each other for ever: close another
    /// registry from a thread that is no shard, or by [`close_async`](Self::close_async), whose future
    /// need not be awaited.
    pub fn close(&self) {
        self.core().begin_closing();
        self.core().wait_closed(None);
    }

    /// As [`Registry::close`], for at most this long.
    ///
    /// A timeout of zero begins to close and looks once. One that goes beyond what the clock can
    /// represent, such as [`Duration::MAX`], is none.
    ///
    /// # Errors
    /// [`CloseTimeout`] if a shard is still at work then, in a producer that blocks, say. The registry
    /// goes on closing.
    pub fn close_timeout(&self, timeout: Duration) -> Result<(), CloseTimeout> {
        self.core().begin_closing();
        match self.core().wait_closed(Some(timeout)) {
            0 => Ok(()),
            waiting => Err(CloseTimeout { waiting }),
        }
    }

    /// As [`Registry::close`], without blocking: closing begins at once, whether the future is polled or
    /// not; it waits for the end.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use afterwrite::Registry;
    ///
    /// let registry: Registry<u64> = Registry::new()?;
    /// let mut order = registry.subscribe("order/17")?;
    /// registry.close_async().await;
    /// assert_eq!(order.recv().await, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn close_async(&self) -> impl Future<Output = ()> + Send + 'static {
        self.core().begin_closing();
        closing::Closed::new(self.core().clone())
    }

    /// Holds every writer of the registry off while it lives; for tests.
    #[cfg(test)]
    pub(crate) fn lock_all_writers(&self) -> impl Drop + '_ {
        self.core().lock_all_writers()
    }
}

/// How a registry is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// One entry for each shard.
    pub shards: Vec<ShardStats>,
    /// Subscriptions that were neither closed nor dropped; those that ended with the registry stay
    /// among them until they are dropped.
    pub subscribers: usize,
    /// Keys with subscribers, or resolved by a [`Key`].
    pub keys: usize,
    /// Calls of the observer that panicked.
    pub panicked_observers: u64,
    /// Clones of payloads that panicked in a push, and drops of payloads that a push evicted.
    pub panicked_payloads: u64,
    /// Wakers of receivers that panicked, of all registries of this process.
    pub panicked_wakers: u64,
}

impl<T> fmt::Debug for Registry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("keys", &self.handle.core.keys())
            .field("subscribers", &self.handle.core.subscribers())
            .field("closing", &self.handle.core.is_closing())
            .finish_non_exhaustive()
    }
}
