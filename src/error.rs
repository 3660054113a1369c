//! What can be refused, and how a call ended.

use std::fmt;

use thiserror::Error;

/// Why a subscription was refused. Nothing is left behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The key is the empty string.
    #[error("the key is empty")]
    EmptyKey,
    /// The key has more bytes than a key may have.
    #[error("the key is longer than {max} bytes")]
    KeyTooLong {
        /// The most bytes a key may have.
        max: usize,
    },
    /// A cap on subscribers was reached.
    #[error("{cap} has {limit} subscribers already, the most that are allowed")]
    Full {
        /// Whose cap was reached.
        cap: Cap,
        /// How many it allows.
        limit: usize,
    },
    /// The key's shard has no room for the first notice's gate ([`subscribe_gated`](crate::Registry::subscribe_gated) only).
    #[error("the shard's queue is full, the first notice cannot be gated")]
    QueueFull,
    /// The registry is closed.
    #[error("the registry is closed")]
    Closed,
}

/// Which cap on subscribers was reached, see [`SubscribeError::Full`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Cap {
    /// That of one key, [`Builder::max_subscribers_per_key`](crate::Builder::max_subscribers_per_key).
    Key,
    /// That of all keys together, [`Builder::max_subscribers`](crate::Builder::max_subscribers).
    Registry,
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "the key",
            Self::Registry => "the registry",
        })
    }
}

/// Why a key was not resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key is the empty string.
    #[error("the key is empty")]
    Empty,
    /// The key has more bytes than a key may have.
    #[error("the key is longer than {max} bytes")]
    TooLong {
        /// The most bytes a key may have.
        max: usize,
    },
    /// The registry is closed.
    #[error("the registry is closed")]
    Closed,
}

impl From<KeyError> for SubscribeError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Empty => Self::EmptyKey,
            KeyError::TooLong { max } => Self::KeyTooLong { max },
            KeyError::Closed => Self::Closed,
        }
    }
}

/// Why a registry could not be built.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A size is zero that must not be.
    #[error("`{setting}` must be at least 1")]
    Zero {
        /// The builder's method.
        setting: &'static str,
    },
    /// A size is larger than can be handled.
    #[error("`{setting}` is {value}, the most is {max}")]
    TooLarge {
        /// The builder's method.
        setting: &'static str,
        /// What was asked for.
        value: usize,
        /// The most that is accepted.
        max: usize,
    },
    /// A core was named that this process cannot use.
    #[error("there is no core {core} here, the usable ones are {usable:?}")]
    NoSuchCore {
        /// The core that was named.
        core: usize,
        /// The cores that can be named.
        usable: Vec<usize>,
    },
    /// A shard's thread could not be started.
    #[error(transparent)]
    Thread(#[from] ThreadError),
}

/// The operating system gave no thread. Its own error is the [source](std::error::Error::source),
/// shared, so that the errors which carry this can be cloned.
#[derive(Clone, Debug, Error)]
#[error("a thread could not be started")]
pub struct ThreadError(#[source] std::sync::Arc<std::io::Error>);

impl ThreadError {
    pub(crate) fn new(error: std::io::Error) -> Self {
        Self(std::sync::Arc::new(error))
    }

    /// What kind of failure it was.
    #[must_use]
    pub fn kind(&self) -> std::io::ErrorKind {
        self.0.kind()
    }
}

/// Equal if they are of the same kind.
impl PartialEq for ThreadError {
    fn eq(&self, other: &Self) -> bool {
        self.kind() == other.kind()
    }
}

impl Eq for ThreadError {}

/// There is no notice yet, or there will be none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum TryRecvError {
    /// Nothing has come.
    #[error("there is no notice yet")]
    Empty,
    /// The subscription has ended, and all it had is read.
    #[error("the subscription has ended")]
    Ended,
}

/// No notice came in time, or none will come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum RecvTimeoutError {
    /// Nothing has come in time.
    #[error("no notice came in time")]
    Timeout,
    /// The subscription has ended, and all it had is read.
    #[error("the subscription has ended")]
    Ended,
}

/// The registry did not end in time; it goes on closing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the registry has not ended in time: {waiting} of its shards are still at work")]
#[non_exhaustive]
pub struct CloseTimeout {
    /// Shards whose thread has not ended.
    pub waiting: usize,
}

/// How a submit ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[must_use = "a submit may be refused; then subscribers only learn that they missed it"]
pub enum Submitted {
    /// The key's shard has it: it will be pushed, or reported as missed. (Unless a later gate takes its
    /// place, with [`Builder::coalesce`](crate::Builder::coalesce), or it expires with
    /// [`Expiry::Skip`](crate::Expiry::Skip); both are counted.)
    Queued,
    /// Nobody subscribes to the key (or the key is empty): nothing to do.
    NoSubscribers,
    /// The shard's queue, or a cap on waiting gates, is full. The key keeps its newest refused
    /// producer, and its subscribers get [`Missed`](crate::Notice::Missed) once that one's gate has
    /// opened or expired.
    QueueFull,
    /// The registry is closed.
    Closed,
}

/// How a publish ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[must_use = "a publish may be refused; then subscribers only learn that they missed it"]
#[non_exhaustive]
pub enum Published {
    /// This many subscribers have it (those with a full buffer are not among them, and will learn
    /// that they missed it). 0 also if the key has none, or is one that nobody can subscribe to.
    Reached(usize),
    /// Another push of the key was under way: the key's shard has it, and pushes it in the order of
    /// what was published, ahead of gates that wait.
    HandedOver,
    /// The shard's queue was full: the key's subscribers get [`Missed`](crate::Notice::Missed).
    QueueFull,
    /// The registry is closed.
    Closed,
}

/// How the submits of a batch ended; the four numbers add up to the batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[must_use = "submits of a batch may be refused; then subscribers only learn that they missed them"]
#[non_exhaustive]
pub struct BatchOutcome {
    /// As [`Submitted::Queued`].
    pub queued: usize,
    /// As [`Submitted::NoSubscribers`].
    pub no_subscribers: usize,
    /// As [`Submitted::QueueFull`].
    pub queue_full: usize,
    /// As [`Submitted::Closed`].
    pub closed: usize,
}

impl BatchOutcome {
    pub(crate) fn count(&mut self, submitted: Submitted) {
        match submitted {
            Submitted::Queued => self.queued += 1,
            Submitted::NoSubscribers => self.no_subscribers += 1,
            Submitted::QueueFull => self.queue_full += 1,
            Submitted::Closed => self.closed += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::io;

    use super::*;

    #[test]
    fn a_thread_that_is_not_given_is_told_with_its_cause() {
        let thread = || ThreadError::new(io::ErrorKind::WouldBlock.into());
        let build = BuildError::from(thread());
        assert_eq!(build.clone(), BuildError::Thread(thread()));
        assert_eq!(build.to_string(), "a thread could not be started");
        let cause = build.source().map(ToString::to_string);
        assert_eq!(cause, Some(io::ErrorKind::WouldBlock.to_string()));
        let follow = crate::FollowError::from(thread());
        assert_ne!(follow, crate::FollowError::ZeroInterval);
        assert_eq!(follow.to_string(), build.to_string());
    }
}
