//! What an operator wants to hear of.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::subscription::SubscriptionId;

/// Is told what the registry does. Every method does nothing unless it is overridden.
///
/// Methods are called on whichever thread did the work, concurrently, after a push has reached its
/// last subscriber and given its key free: a slow observer delays the shard (or the publisher) that
/// calls it, never a push under way. A panic is caught and counted.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
/// use afterwrite::{DropReason, Observer, Registry, SkipReason};
///
/// /// What an operator looks at first: whatever subscribers had to be told that they missed.
/// #[derive(Default)]
/// struct Losses(AtomicUsize);
///
/// impl Observer for Losses {
///     fn push_skipped(&self, _key: &str, _reason: SkipReason) {
///         self.0.fetch_add(1, Relaxed);
///     }
///
///     fn dropped(&self, _key: &str, _reason: DropReason) {
///         self.0.fetch_add(1, Relaxed);
///     }
///
///     fn channel_full(&self, _key: &str, subscribers: usize) {
///         self.0.fetch_add(subscribers, Relaxed);
///     }
/// }
///
/// let losses = Arc::new(Losses::default());
/// let registry = Registry::<u64>::builder()
///     .buffer_capacity(1)
///     .observer(losses.clone())
///     .build()?;
/// let slow = registry.subscribe("order/17")?;
/// let _ = registry.publish("order/17", 1);
/// let _ = registry.publish("order/17", 2);
/// assert_eq!(losses.0.load(Relaxed), 1);
/// # drop(slow);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Whether [`Observer::pushed`] wants its timing; asked once, when the registry is built. No clock
    /// is read otherwise.
    fn wants_timing(&self) -> bool {
        false
    }

    /// A push reached this many subscribers; `timing` is there if [`Observer::wants_timing`] said so.
    fn pushed(&self, key: &str, recipients: usize, timing: Option<Timing>) {
        let _ = (key, recipients, timing);
    }

    /// A gate ended without a push.
    ///
    /// The gate of a submit that was refused is not told of again: [`Observer::dropped`] was called for
    /// each of those.
    fn push_skipped(&self, key: &str, reason: SkipReason) {
        let _ = (key, reason);
    }

    /// A notice was not taken over, or was given up; once for each.
    fn dropped(&self, key: &str, reason: DropReason) {
        let _ = (key, reason);
    }

    /// A push found the buffers of `n` subscribers full; once for each such push.
    ///
    /// Each of them lost one notice, the new one or its oldest
    /// ([`Overflow`](crate::Overflow)). What [`Overflow::Conflate`](crate::Overflow::Conflate) replaces
    /// is merged, not lost, and does not count.
    fn channel_full(&self, key: &str, n: usize) {
        let _ = (key, n);
    }

    /// A payload's clone panicked for `n` subscribers of a push, or the drop of one that it evicted.
    ///
    /// Each of them gets [`Missed`](crate::Notice::Missed) for a clone that panicked.
    fn payload_panicked(&self, key: &str, n: usize) {
        let _ = (key, n);
    }

    /// Somebody subscribed. Not called for a subscription that was refused.
    fn subscribed(&self, key: &str, id: SubscriptionId) {
        let _ = (key, id);
    }

    /// A subscription was closed or dropped; also one that ended with the registry, but only then.
    fn unsubscribed(&self, key: &str, id: SubscriptionId) {
        let _ = (key, id);
    }
}

/// Calls the one inside, so that its owner can keep a handle to it.
impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn wants_timing(&self) -> bool {
        (**self).wants_timing()
    }

    fn pushed(&self, key: &str, recipients: usize, timing: Option<Timing>) {
        (**self).pushed(key, recipients, timing);
    }

    fn push_skipped(&self, key: &str, reason: SkipReason) {
        (**self).push_skipped(key, reason);
    }

    fn dropped(&self, key: &str, reason: DropReason) {
        (**self).dropped(key, reason);
    }

    fn channel_full(&self, key: &str, n: usize) {
        (**self).channel_full(key, n);
    }

    fn payload_panicked(&self, key: &str, n: usize) {
        (**self).payload_panicked(key, n);
    }

    fn subscribed(&self, key: &str, id: SubscriptionId) {
        (**self).subscribed(key, id);
    }

    fn unsubscribed(&self, key: &str, id: SubscriptionId) {
        (**self).unsubscribed(key, id);
    }
}

/// How long a push took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Timing {
    /// From the submit to the begin of the push: the queue, the gate, and earlier pushes of the key.
    /// Zero for a publish that found its key free.
    pub waited: Duration,
    /// From the begin of the push until it had given its key free: the walk over the subscribers, the
    /// wakes, and what a shard did for other keys between the slices of a long walk.
    pub walked: Duration,
    /// How often the read view was asked; 0 for what was published.
    pub attempts: u32,
}

impl Timing {
    /// A timing, to test an observer with.
    #[must_use]
    pub const fn new(waited: Duration, walked: Duration, attempts: u32) -> Self {
        Self {
            waited,
            walked,
            attempts,
        }
    }
}

/// Why a gate ended without a push. The key's subscribers, if there are any, get
/// [`Missed`](crate::Notice::Missed), unless [`Expiry::Skip`] was chosen for the expired.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum SkipReason {
    /// The read view did not show the change within the budget.
    Expired,
    /// The producer panicked.
    Panicked,
    /// All who had subscribed have left: the view is not read any more.
    Abandoned,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "expired",
            Self::Panicked => "producer panicked",
            Self::Abandoned => "abandoned",
        })
    }
}

/// Why a notice was given up. The key's subscribers get [`Missed`](crate::Notice::Missed).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The shard's queue or a cap on waiting gates was full.
    QueueFull,
    /// The registry closed while the notice was queued, or waited for its gate or its turn.
    Closed,
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QueueFull => "queue full",
            Self::Closed => "registry closed",
        })
    }
}

/// What subscribers get when a gate's budget is used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[non_exhaustive]
pub enum Expiry {
    /// [`Missed`](crate::Notice::Missed) with `visible: false`.
    #[default]
    Missed,
    /// Nothing, also of a first notice; [`Subscription::skipped`](crate::Subscription::skipped) counts it.
    Skip,
}
