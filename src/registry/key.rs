//! A key that was looked up once.

use std::fmt;
use std::future::Future;

use super::{Core, SubscribeOptions};
use crate::arena::Shared;
use crate::error::{Published, Submitted, SubscribeError};
use crate::gate::{Attempt, Gate, Reached};
use crate::shard::Channel;
use crate::subscription::Subscription;
use crate::sync::Arc;

/// A resolved key: publishes, submits and subscribes without looking the key up.
///
/// Keeps the key known to the registry, subscribed or not, but not the registry open: once the last
/// [`Registry`](crate::Registry) is dropped, calls answer `Closed`. Made by
/// [`Registry::key`](crate::Registry::key).
///
/// ```
/// use afterwrite::{Notice, Published, Registry};
///
/// let registry: Registry<u64> = Registry::new()?;
/// let ticker = registry.key("price/ACME")?;
/// let mut price = ticker.subscribe()?;
/// assert_eq!(ticker.publish(101), Published::Reached(1));
/// assert_eq!(price.try_recv(), Ok(Notice::Changed(101)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Key<T> {
    core: Arc<Core<T>>,
    channel: Shared<Channel<T>>,
}

impl<T> Key<T> {
    pub(super) fn new(core: Arc<Core<T>>, channel: Shared<Channel<T>>) -> Self {
        Self { core, channel }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &str {
        self.channel.attached.key()
    }

    /// How many subscribers the key has. Wait-free.
    #[must_use]
    pub fn subscriber_count(&self) -> usize {
        self.channel.subscribers()
    }

    /// Whether the key has subscribers. Wait-free.
    #[must_use]
    pub fn has_subscribers(&self) -> bool {
        self.subscriber_count() > 0
    }
}

impl<T: Clone + Send + 'static> Key<T> {
    /// As [`Registry::subscribe`](crate::Registry::subscribe).
    ///
    /// # Errors
    /// [`SubscribeError`], and nothing is left behind.
    pub fn subscribe(&self) -> Result<Subscription<T>, SubscribeError> {
        self.subscribe_with(SubscribeOptions::new())
    }

    /// As [`Registry::subscribe_with`](crate::Registry::subscribe_with).
    ///
    /// # Errors
    /// [`SubscribeError`], and nothing is left behind.
    pub fn subscribe_with(
        &self,
        options: SubscribeOptions,
    ) -> Result<Subscription<T>, SubscribeError> {
        self.subscribe_any(options, None)
    }

    /// As [`Registry::subscribe_gated`](crate::Registry::subscribe_gated).
    ///
    /// # Errors
    /// [`SubscribeError`], and nothing is left behind.
    pub fn subscribe_gated<F>(&self, producer: F) -> Result<Subscription<T>, SubscribeError>
    where
        F: FnMut(&Attempt) -> Option<T> + Send + 'static,
    {
        self.subscribe_any(SubscribeOptions::new(), Some(Gate::read(producer)))
    }

    /// As [`Registry::subscribe_gated_with`](crate::Registry::subscribe_gated_with).
    ///
    /// # Errors
    /// [`SubscribeError`], and nothing is left behind.
    pub fn subscribe_gated_with(
        &self,
        options: SubscribeOptions,
        gate: Gate<T>,
    ) -> Result<Subscription<T>, SubscribeError> {
        self.subscribe_any(options, Some(gate))
    }

    fn subscribe_any(
        &self,
        options: SubscribeOptions,
        gate: Option<Gate<T>>,
    ) -> Result<Subscription<T>, SubscribeError> {
        if self.core.is_closing() {
            return Err(SubscribeError::Closed);
        }
        // The pin of this handle allows another.
        self.channel.attached.pin();
        Core::subscribe_to(&self.core, self.channel.clone(), options, gate)
    }

    /// As [`Registry::publish`](crate::Registry::publish).
    #[inline]
    pub fn publish(&self, payload: T) -> Published {
        self.core.publish_to(&self.channel, payload)
    }

    /// As [`Registry::submit`](crate::Registry::submit).
    pub fn submit<F>(&self, producer: F) -> Submitted
    where
        F: FnMut(&Attempt) -> Option<T> + Send + 'static,
    {
        self.core.submit_to(&self.channel, || Gate::read(producer))
    }

    /// As [`Registry::submit_async`](crate::Registry::submit_async).
    pub fn submit_async<F, Fut>(&self, producer: F) -> Submitted
    where
        F: FnMut(Attempt) -> Fut + Send + 'static,
        Fut: Future<Output = Option<T>> + 'static,
    {
        self.core
            .submit_to(&self.channel, || Gate::read_async(producer))
    }

    /// As [`Registry::submit_at`](crate::Registry::submit_at).
    pub fn submit_at(&self, reached: Reached, payload: T) -> Submitted {
        self.core
            .submit_to(&self.channel, || Gate::reached(reached, payload))
    }

    /// As [`Registry::submit_gate`](crate::Registry::submit_gate).
    pub fn submit_gate(&self, gate: Gate<T>) -> Submitted {
        self.core.submit_to(&self.channel, || gate)
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        self.channel.attached.pin();
        Self {
            core: self.core.clone(),
            channel: self.channel.clone(),
        }
    }
}

impl<T> Drop for Key<T> {
    fn drop(&mut self) {
        self.core.unpin(&self.channel);
    }
}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.key()).finish()
    }
}
