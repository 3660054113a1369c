//! The bus over a NATS server.
//!
//! *Role.* Fits an async-nats client to [`Bus`]: what the client keeps to itself, or tells in
//! passing only, is turned into [`Event`]s and counters that the protocol above can act on.
//!
//! *Who takes part.* The client's own connection task; one [pump](self::pump) a subscription, which
//! takes messages from the client and calls the inbox; one [courier](self::courier) a publisher,
//! which takes to the client what the publisher has laid down without waiting; and the
//! [tap](EventTap), to which the client's events are forwarded. They run on a thread of the bus's own,
//! or on the caller's runtime.
//!
//! *What was tried and found* (async-nats 0.51, nats-server 2.15.1), and what follows from it:
//! - The client's events pass through 128 slots and are dropped beyond. So losses are also counted:
//!   on a connection of our own, messages that came in and were not received were dropped.
//! - The client's count of connections grows before subscriptions are sent again. So
//!   [`Bus::generation`] is that count, and proves nothing but a change.
//! - A flush may succeed for what a reconnect has thrown away. So it confirms nothing.
//! - A server that denies a subscription says so in an event alone; requests and pings go on.
//! - A client built with `no_echo` never sees its own messages, and nothing in its public face
//!   tells. So [`NatsBuilder`] sends itself a message and asks for a report if nobody got it.
//! - A dead peer is noticed after about 180 s by default. So our own connections ping every 5 s.

mod connect;
mod courier;
mod events;
mod home;
mod publisher;
mod pump;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use async_nats::client::Statistics;
use async_nats::connection::State;
use parking_lot::Mutex;

use super::{Bus, Inbox, Interest, Link, PublishError, Publisher, Status, SubscribeError};
use crate::invalidation::subject::Pattern;
use courier::{Tray, carry};
use events::Shared;
use home::Home;
use publisher::NatsPublisher;
use pump::Pump;

pub use connect::{NatsBuilder, NatsError};
pub use events::EventTap;

/// A [`Bus`] over a NATS server. Clones share it.
///
/// By default it has a connection and a thread of its own, so that neither a blocked runtime nor
/// other traffic delays an invalidation, and so that losses can be counted exactly. See
/// [`NatsBus::builder`] for the rest.
///
/// ```no_run
/// use afterwrite::bus::NatsBus;
///
/// let bus = NatsBus::connect_blocking("nats://127.0.0.1:4222")?;
/// # Ok::<(), afterwrite::bus::NatsError>(())
/// ```
#[derive(Debug, Clone)]
pub struct NatsBus {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: async_nats::Client,
    /// What pumps and the tap share with the bus; holds no client.
    shared: Arc<Shared>,
    home: Home,
    /// What the publishers have laid down is still sent when the bus closes.
    trays: Mutex<Vec<Weak<Tray>>>,
    /// The connection is ours alone: losses can be counted, and closing drains it.
    dedicated: bool,
    closed: AtomicBool,
}

impl NatsBus {
    /// Settings for a bus: credentials, runtime, or a client that exists already.
    pub fn builder() -> NatsBuilder {
        NatsBuilder::default()
    }

    /// Connects with default settings. Needs no runtime: any executor may await it.
    ///
    /// # Errors
    /// [`NatsError`].
    pub async fn connect(url: &str) -> Result<Self, NatsError> {
        Self::builder().connect(url).await
    }

    /// Connects with default settings, and blocks the thread until that is done or has failed.
    ///
    /// # Errors
    /// [`NatsError`].
    pub fn connect_blocking(url: &str) -> Result<Self, NatsError> {
        Self::builder().connect_blocking(url)
    }
}

impl Bus for NatsBus {
    fn publisher(&self) -> Box<dyn Publisher> {
        let inner = &self.inner;
        let tray = Arc::new(Tray::default());
        let mut trays = inner.trays.lock();
        trays.retain(|tray| tray.strong_count() > 0);
        trays.push(Arc::downgrade(&tray));
        drop(trays);
        inner.home.handle().spawn(carry(
            Arc::clone(&tray),
            inner.client.clone(),
            Arc::clone(&inner.shared),
        ));
        Box::new(NatsPublisher::new(Arc::clone(inner), tray))
    }

    fn subscribe(
        &self,
        pattern: &Pattern,
        inbox: Box<dyn Inbox>,
    ) -> Result<Interest, SubscribeError> {
        let inner = &self.inner;
        if inner.is_closed() {
            return Err(SubscribeError::Closed);
        }
        let (pump, subscription) = Pump::new(
            &inner.client,
            Arc::clone(&inner.shared),
            inner.dedicated,
            pattern,
            inbox,
        );
        inner.home.handle().spawn(pump);
        Ok(subscription)
    }

    fn generation(&self) -> u64 {
        self.inner.shared.generation()
    }

    fn status(&self) -> Status {
        let inner = &self.inner;
        let link = match inner.client.connection_state() {
            _ if inner.is_closed() => Link::Closed,
            State::Connected => Link::Up,
            State::Pending | State::Disconnected => Link::Down,
        };
        inner.shared.status(link)
    }

    fn max_payload(&self) -> usize {
        self.inner.client.max_payload()
    }

    fn close(&self) {
        self.inner.close();
    }
}

impl Inner {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire) || self.shared.has_ended()
    }

    fn check_open(&self) -> Result<(), PublishError> {
        match self.is_closed() {
            true => Err(PublishError::Closed),
            false => Ok(()),
        }
    }

    fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        if self.dedicated {
            // What was published before is written out; pumps then see the end of their streams.
            let trays = self.trays.lock().iter().filter_map(Weak::upgrade).collect();
            self.home.drain(self.client.clone(), trays);
        } else {
            self.shared.end();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

/// The count of connections, from the client's own statistics.
fn connects(statistics: &Statistics) -> u64 {
    statistics.connects.load(Ordering::Acquire)
}
