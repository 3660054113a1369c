//! The bus: the seam between invalidation and whatever carries its messages.
//!
//! *Role.* A [`Bus`] moves small messages between nodes and says what it knows of its own
//! failings. [`LocalBus`] carries them inside a process, `NatsBus` over a NATS server,
//! [`ChaosNet`] through a seeded network that loses, doubles, delays and cuts.
//!
//! *Who takes part.* One [`Publisher`] for each task that sends; one [`Inbox`] for each
//! [`Interest`], called by the bus, one delivery at a time, in the order of arrival.
//!
//! *What a bus promises.* Every message that an inbox is shown was published to a subject that its
//! pattern matches, unaltered. A publisher's messages reach an inbox in the order in which they
//! were published, unless a reconnect lies between (a [`ChaosNet`] told to reorder breaks this
//! on purpose). A message that is dropped on this side of the wire, because an inbox was slow, is
//! told as [`Event::Lost`]. Publishing never waits.
//!
//! *What a bus does not promise.* Delivery. An `Ok` from publishing or flushing means that the
//! message was handed on, not that it arrived, nor that it left: a reconnect may discard it.
//! [`Bus::generation`] tells that a reconnect happened, and proves nothing about what reached the
//! server since. Events may be lost. So the protocol above believes one thing only: its own
//! message, come back through its own subscription, with the generation unchanged.
//!
//! | | [`Publisher::publish`] | [`Bus::subscribe`] | the inbox runs on |
//! |---|---|---|---|
//! | [`LocalBus`] | short locks | starts a thread | the subscription's own thread |
//! | `NatsBus` | short lock, copies | the client's queue | the bus's runtime |
//! | [`ChaosBus`] | short lock | short lock | the thread that steps the network |

mod chaos;
mod local;
#[cfg(feature = "nats")]
mod nats;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll};

use crate::error::ThreadError;
use crate::invalidation::subject::{Pattern, Subject};
use crate::limit::Limit;

pub use chaos::{ChaosBus, ChaosCounts, ChaosNet, Faults, Flow, NodeId, ServerId};
pub use local::LocalBus;
#[cfg(feature = "nats")]
#[cfg_attr(docsrs, doc(cfg(feature = "nats")))]
pub use nats::{EventTap, NatsBuilder, NatsBus, NatsError};

/// Something that carries messages between nodes. See the [module](self) for what it promises.
///
/// All methods return at once. Object-safe: `Arc<dyn Bus>` is how the layers above hold one.
pub trait Bus: fmt::Debug + Send + Sync + 'static {
    /// A new sending side. Each has its own place in the queue to the wire.
    fn publisher(&self) -> Box<dyn Publisher>;

    /// Delivers every message that matches `pattern` to `inbox`, until the [`Interest`] is
    /// dropped or the bus closes. Returns before the other side knows of it.
    ///
    /// What this bus's own publishers send afterwards is asked for before it is sent, so that it
    /// comes back if nothing fails.
    ///
    /// # Errors
    /// [`SubscribeError`], when it is known at once that nothing will be delivered.
    fn subscribe(
        &self,
        pattern: &Pattern,
        inbox: Box<dyn Inbox>,
    ) -> Result<Interest, SubscribeError>;

    /// How often the connection was made: it changes when messages may have been lost with the
    /// old one. One atomic load.
    fn generation(&self) -> u64;

    /// What is known of the connection.
    fn status(&self) -> Status;

    /// The longest payload that the other side takes, in bytes. It may change with a reconnect.
    fn max_payload(&self) -> usize;

    /// Ends the bus: publishers get [`PublishError::Closed`], inboxes [`Event::Closed`] after
    /// what they had already been sent. Idempotent, does not wait.
    fn close(&self);
}

/// The sending side of a [`Bus`]. One owner: sending takes `&mut self`.
pub trait Publisher: fmt::Debug + Send + 'static {
    /// Hands one message over. Never waits; may be called on any thread, in or out of a runtime.
    ///
    /// # Errors
    /// [`PublishError::Full`] if there is no room now: nothing was taken, and
    /// [`Publisher::poll_ready`] says when to try again. [`PublishError::TooLarge`] and
    /// [`PublishError::Closed`] are final for this message.
    fn publish(&mut self, subject: Subject<'_>, payload: &[u8]) -> Result<(), PublishError>;

    /// Ready when there is room for one message. Wakes the last caller's waker.
    ///
    /// # Errors
    /// [`PublishError::Closed`].
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PublishError>>;

    /// Ready when everything handed over earlier was written out **or discarded** by a reconnect:
    /// good for pacing and for an orderly end, worthless as a confirmation.
    ///
    /// # Errors
    /// [`PublishError::Closed`].
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PublishError>>;
}

/// The receiving side: called by the bus, never from two threads at once.
///
/// It should return soon: while it runs, nothing else is delivered to it, and what piles up
/// behind it beyond the subscription's capacity is lost. A panic is caught and logged.
///
/// Any `FnMut(Delivery<'_>) + Send + 'static` is one.
pub trait Inbox: Send + 'static {
    /// Takes a message or an event.
    fn deliver(&mut self, delivery: Delivery<'_>);
}

impl<F: FnMut(Delivery<'_>) + Send + 'static> Inbox for F {
    fn deliver(&mut self, delivery: Delivery<'_>) {
        self(delivery);
    }
}

/// What an [`Inbox`] is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery<'a> {
    /// A message, from anyone: nothing about its subject or payload may be taken for granted.
    Message {
        /// The subject to which it was published.
        subject: &'a str,
        /// Its contents.
        payload: &'a [u8],
    },
    /// Something happened to the connection or the subscription.
    Event(&'a Event),
}

/// What happened to a connection or a subscription. A hint: events may come late or be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The connection was made, for the `generation`-th time.
    Connected {
        /// The new [`Bus::generation`].
        generation: u64,
    },
    /// The connection was lost; the bus tries again by itself.
    Disconnected,
    /// Messages for this connection were dropped on this side, because an inbox was slow.
    Lost {
        /// How many, as far as known; at least 1.
        n: u64,
    },
    /// The server refused a publish: we lack the right.
    PublishDenied {
        /// The subject that was refused.
        subject: String,
    },
    /// The server refused or removed a subscription: we lack the right.
    SubscribeDenied {
        /// The pattern that was refused.
        subject: String,
    },
    /// Another error that the server or the client reports.
    Error {
        /// Its text.
        message: String,
    },
    /// The bus has ended: nothing follows.
    Closed,
}

/// Whether there is a connection.
///
/// ```
/// assert_eq!(afterwrite::bus::Link::Down.to_string(), "down");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Link {
    /// There is one.
    Up,
    /// There is none now; the bus tries to make one.
    Down,
    /// There is none, and there will be none.
    Closed,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Closed => "closed",
        })
    }
}

/// What a bus knows of its connection. Counters only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Whether there is a connection.
    pub link: Link,
    /// [`Bus::generation`].
    pub generation: u64,
    /// Messages dropped on this side because an inbox was slow, as far as known.
    pub lost: u64,
    /// Publishes that the server refused, as far as known.
    pub publish_denied: u64,
    /// Subscriptions that the server refused or removed, as far as known.
    pub subscribe_denied: u64,
    /// Panics of inboxes, each caught.
    pub inbox_panics: u64,
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// There is no room now.
    #[error("the way to the bus is full")]
    Full,
    /// The payload is longer than the other side takes.
    #[error("payload of {len} bytes is over the bus's limit of {max}")]
    TooLarge {
        /// Its length in bytes.
        len: usize,
        /// [`Bus::max_payload`].
        max: usize,
    },
    /// The bus has ended.
    #[error("the bus is closed")]
    Closed,
}

/// Why nothing will be delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The bus has ended.
    #[error("the bus is closed")]
    Closed,
    /// The thread that delivers could not be started.
    #[error(transparent)]
    Thread(#[from] ThreadError),
}

/// That messages of a pattern are wanted: a running subscription to the bus, which NATS calls an
/// interest. (A [`Subscription`](crate::Subscription) is a registry's.) Dropping it ends it: a
/// delivery under way may finish, none begins afterwards. Dropping does not wait, and may happen
/// inside the inbox itself.
#[must_use = "dropping an interest ends it"]
pub struct Interest {
    end: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Interest {
    /// An interest that runs `end`, once, when it is dropped. For those who write a [`Bus`].
    pub fn new(end: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self {
            end: Some(Box::new(end)),
        }
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            end();
        }
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interest").finish_non_exhaustive()
    }
}

/// Of a process: the line says nothing that two buses would say differently.
static PANICS: Limit = Limit::new();

/// Delivers, and says whether the inbox panicked.
fn deliver(inbox: &mut dyn Inbox, delivery: Delivery<'_>) -> bool {
    // A panicking inbox is its owner's trouble: it keeps whatever state it left behind.
    let outcome = catch_unwind(AssertUnwindSafe(|| inbox.deliver(delivery)));
    if outcome.is_err() {
        PANICS.say(|| tracing::error!("an inbox panicked; the subscription goes on"));
    }
    outcome.is_err()
}
