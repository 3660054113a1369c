//! The client's events, and what the parts of one bus share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use async_nats::client::Statistics;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::super::{Event, Link, Status};
use super::connects;

/// Events that wait for one pump. Losses are counted apart from them, so that none is forgotten.
const PENDING: usize = 64;

/// Receives the events of a client that the caller builds, so that a bus on it hears of losses
/// and refusals.
///
/// A client tells its events to one callback, given when it is built; without this a bus on such
/// a client learns of a refused subscription from silence alone.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use afterwrite::bus::{EventTap, NatsBus};
///
/// let tap = EventTap::new();
/// let forward = tap.clone();
/// let client = async_nats::ConnectOptions::new()
///     .event_callback(move |event| {
///         forward.forward(&event);
///         async {}
///     })
///     .connect("nats://127.0.0.1:4222")
///     .await?;
/// let bus = NatsBus::builder().events(tap).client(client).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct EventTap {
    buses: Arc<Mutex<Vec<Weak<Shared>>>>,
}

impl EventTap {
    /// A tap for one client, and for all buses on it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one event. Never waits.
    pub fn forward(&self, event: &async_nats::Event) {
        let buses = self.buses.lock();
        buses
            .iter()
            .filter_map(Weak::upgrade)
            .for_each(|bus| bus.forward(event));
    }

    pub(super) fn attach(&self, bus: &Arc<Shared>) {
        let mut buses = self.buses.lock();
        buses.retain(|bus| bus.strong_count() > 0);
        buses.push(Arc::downgrade(bus));
    }
}

/// What a bus, its pumps and the tap share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    statistics: OnceLock<Arc<Statistics>>,
    listeners: Mutex<Vec<Weak<Listener>>>,
    /// Woken by a refusal, for the echo probe alone.
    pub(super) denied: Notify,
    ended: AtomicBool,
    /// Pumps that have been made and have not ended.
    active: AtomicU64,
    /// How often a pump began beside another, or ended beside another: counts made by one pump
    /// are exact only while this stands still.
    shared_since: AtomicU64,
    lost: AtomicU64,
    publish_denied: AtomicU64,
    subscribe_denied: AtomicU64,
    pub(super) inbox_panics: AtomicU64,
}

/// A pump's letter box.
#[derive(Debug, Default)]
pub(super) struct Listener {
    pub(super) waker: AtomicWaker,
    pub(super) ended: AtomicBool,
    /// The client reported a slow subscription; the pump has not looked yet.
    pub(super) slow: AtomicU64,
    any: AtomicBool,
    events: Mutex<VecDeque<Event>>,
}

impl Shared {
    pub(super) fn attach(&self, statistics: Arc<Statistics>) {
        self.statistics.set(statistics).ok();
    }

    pub(super) fn generation(&self) -> u64 {
        self.statistics.get().map_or(0, |it| connects(it))
    }

    /// Messages that came in on the connection, of whatever subscription.
    pub(super) fn in_messages(&self) -> u64 {
        self.statistics
            .get()
            .map_or(0, |it| it.in_messages.load(Ordering::Acquire))
    }

    pub(super) fn status(&self, link: Link) -> Status {
        Status {
            link,
            generation: self.generation(),
            lost: self.lost.load(Ordering::Relaxed),
            publish_denied: self.publish_denied.load(Ordering::Relaxed),
            subscribe_denied: self.subscribe_denied.load(Ordering::Relaxed),
            inbox_panics: self.inbox_panics.load(Ordering::Relaxed),
        }
    }

    /// Registers a pump. The token tells whether it is alone: see [`Shared::is_alone`].
    pub(super) fn enter(&self, listener: &Arc<Listener>) -> u64 {
        let mut listeners = self.listeners.lock();
        listeners.retain(|each| each.strong_count() > 0);
        listeners.push(Arc::downgrade(listener));
        if self.active.fetch_add(1, Ordering::AcqRel) > 0 {
            self.shared_since.fetch_add(1, Ordering::AcqRel);
        }
        self.shared_since.load(Ordering::Acquire)
    }

    /// Whether the pump with this token has been alone on the connection ever since.
    pub(super) fn is_alone(&self, token: u64) -> bool {
        self.active.load(Ordering::Acquire) == 1
            && self.shared_since.load(Ordering::Acquire) == token
    }

    pub(super) fn leave(&self) {
        let _turn = self.listeners.lock();
        if self.active.fetch_sub(1, Ordering::AcqRel) > 1 {
            self.shared_since.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(super) fn count_lost(&self, n: u64) {
        self.lost.fetch_add(n, Ordering::Relaxed);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// The connection is gone for good: every pump ends.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.each(|listener| listener.waker.wake());
    }

    fn each(&self, tell: impl Fn(&Listener)) {
        let listeners = self.listeners.lock();
        listeners
            .iter()
            .filter_map(Weak::upgrade)
            .for_each(|each| tell(&each));
    }

    pub(super) fn forward(&self, event: &async_nats::Event) {
        let event = match event {
            async_nats::Event::Connected => Event::Connected {
                generation: self.generation(),
            },
            async_nats::Event::Disconnected => Event::Disconnected,
            async_nats::Event::SlowConsumer(_) => {
                return self.each(|listener| {
                    listener.slow.fetch_add(1, Ordering::AcqRel);
                    listener.waker.wake();
                });
            }
            async_nats::Event::ServerError(error) => self.server_error(&error.to_string()),
            async_nats::Event::ClientError(error) => Event::Error {
                message: error.to_string(),
            },
            // The end is told by the pumps' streams; the others change nothing here.
            async_nats::Event::Closed
            | async_nats::Event::Draining
            | async_nats::Event::LameDuckMode => return,
        };
        self.each(|listener| listener.push(event.clone()));
    }

    fn server_error(&self, text: &str) -> Event {
        let event = read_error(text);
        match &event {
            Event::PublishDenied { .. } => self.publish_denied.fetch_add(1, Ordering::Relaxed),
            Event::SubscribeDenied { .. } => self.subscribe_denied.fetch_add(1, Ordering::Relaxed),
            _ => return event,
        };
        self.denied.notify_waiters();
        event
    }
}

impl Listener {
    fn push(&self, event: Event) {
        let mut events = self.events.lock();
        if events.len() == PENDING {
            events.pop_front();
        }
        events.push_back(event);
        self.any.store(true, Ordering::Release);
        drop(events);
        self.waker.wake();
    }

    /// The next event; one load when there is none.
    pub(super) fn pop(&self) -> Option<Event> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let mut events = self.events.lock();
        let event = events.pop_front();
        if events.is_empty() {
            self.any.store(false, Ordering::Release);
        }
        event
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

/// A server's error line. Refusals have the forms `Permissions Violation for Publish to "s"` and
/// `Permissions Violation for Subscription to "s"`, the latter with more to follow for queues.
pub(super) fn read_error(text: &str) -> Event {
    let after = |what: &str| {
        let at = text.find(what)? + what.len();
        let (subject, _) = text.get(at..)?.split_once('"')?;
        Some(subject.to_owned())
    };
    if let Some(subject) = after("Permissions Violation for Publish to \"") {
        Event::PublishDenied { subject }
    } else if let Some(subject) = after("Permissions Violation for Subscription to \"") {
        Event::SubscribeDenied { subject }
    } else {
        Event::Error {
            message: text.to_owned(),
        }
    }
}
