//! What an operator wants to hear of.

use std::time::Duration;

use crate::subscription::SubscriptionId;

/// Is told what the registry does. Every method does nothing unless it is overridden.
///
/// Methods are called on whichever thread did the work, concurrently, after a push has reached its
/// last subscriber and given its key free: a slow observer delays the shard (or the publisher) that
/// calls it, never a push under way. A panic is caught and counted.
pub trait Observer: Send + Sync + 'static {
    /// Whether [`Observer::pushed`] wants its timing; asked once, when the registry is built. No clock
    /// is read otherwise.
    fn wants_timing(&self) -> bool {
        false
    }

    /// A push reached this many subscribers.
    fn pushed(&self, key: &str, recipients: usize, timing: Option<Timing>) {
        let _ = (key, recipients, timing);
    }

    /// A gate ended without a push.
    fn push_skipped(&self, key: &str, reason: SkipReason) {
        let _ = (key, reason);
    }

    /// A notice was not taken over, or was given up.
    fn dropped(&self, key: &str, reason: DropReason) {
        let _ = (key, reason);
    }

    /// A push found the buffers of `n` subscribers full; once for each such push.
    fn channel_full(&self, key: &str, n: usize) {
        let _ = (key, n);
    }

    /// Somebody subscribed.
    fn subscribed(&self, key: &str, id: SubscriptionId) {
        let _ = (key, id);
    }

    /// A subscription ended.
    fn unsubscribed(&self, key: &str, id: SubscriptionId) {
        let _ = (key, id);
    }
}

/// How long a push took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Timing {
    /// From the submit to the begin of the push: the queue, the gate, and earlier pushes of the key.
    pub waited: Duration,
    /// From the begin of the push to its last subscriber.
    pub walked: Duration,
    /// How often the read view was asked.
    pub attempts: u32,
}

/// Why a gate ended without a push. The key's subscribers get
/// [`Missed`](crate::Notice::Missed), unless [`Expiry::Skip`] was chosen for the expired.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum SkipReason {
    /// The read view did not show the change within the budget.
    Expired,
    /// The producer panicked.
    Panicked,
}

/// Why a notice was given up. The key's subscribers get [`Missed`](crate::Notice::Missed).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The shard's queue or a cap on waiting gates was full.
    QueueFull,
    /// The registry closed while the notice was queued or its gate waited.
    Closed,
}

/// What subscribers get when a gate's budget is used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[non_exhaustive]
pub enum Expiry {
    /// [`Missed`](crate::Notice::Missed) with `visible: false`.
    #[default]
    Missed,
    /// Nothing; [`Subscription::skipped`](crate::Subscription::skipped) counts it.
    Skip,
}
