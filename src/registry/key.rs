//! A key that was looked up once.

use std::fmt;
use std::future::Future;

use super::Core;
use crate::error::{Published, Submitted};
use crate::gate::{Attempt, Gate, Reached};
use crate::shard::Channel;
use crate::sync::Arc;

/// A resolved key: publishes and submits without looking the key up.
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
/// let mut price = registry.subscribe("price/ACME")?;
/// assert_eq!(ticker.publish(101), Published::Reached(1));
/// assert_eq!(price.try_recv(), Ok(Notice::Changed(101)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Key<T: Clone + Send + 'static> {
    core: Arc<Core<T>>,
    channel: Arc<Channel<T>>,
}

impl<T: Clone + Send + 'static> Key<T> {
    pub(super) fn new(core: Arc<Core<T>>, channel: Arc<Channel<T>>) -> Self {
        Self { core, channel }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &str {
        self.channel.attached.key()
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

    /// How many subscribers the key has. Wait-free.
    #[must_use]
    pub fn subscriber_count(&self) -> usize {
        self.channel.subscribers()
    }
}

impl<T: Clone + Send + 'static> Clone for Key<T> {
    fn clone(&self) -> Self {
        self.channel.attached.pin();
        Self {
            core: self.core.clone(),
            channel: self.channel.clone(),
        }
    }
}

impl<T: Clone + Send + 'static> Drop for Key<T> {
    fn drop(&mut self) {
        self.core.release(&self.channel);
    }
}

impl<T: Clone + Send + 'static> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.key()).finish()
    }
}
