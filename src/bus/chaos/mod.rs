//! A bus over a network that can go wrong on purpose, and again in the same way.
//!
//! *Role.* Tests of whatever stands on a [`Bus`]: loss, duplication, reordering, delay,
//! partitions, black holes, paused processes, lost connections, rights that are taken away, and
//! servers that learn of a subscription later than others. Nothing happens by itself: the network has its own time, and
//! moves when it is stepped. The same seed and the same calls give the same run.
//!
//! ```text
//!  node a --up--> server 0 ==route==> server 1 --down--> node b
//!         <-down-          <=route==           <---up---
//! ```
//!
//! *Who takes part.* [`ChaosNet`] holds servers, nodes and what is under way; a [`ChaosBus`] is
//! one node's connection. A subscription travels like a message: first to the node's own server,
//! then over the routes. Until it has arrived, what is published at another server does not come
//! back over the route. That is how real clusters behave.
//!
//! *Order.* Each direction of each connection keeps order, whatever its delays, unless told to
//! reorder. Events due at the same time happen in the order in which they were caused.
//!
//! *Threads.* Inboxes run on the thread that steps the network, outside its lock; they may
//! publish, subscribe and unsubscribe, and step not.

mod leg;
mod net;
mod node;
mod rng;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;

use super::{
    Bus, Delivery, Event, Inbox, Interest, PublishError, Publisher, Status, SubscribeError, deliver,
};
use crate::invalidation::subject::{Pattern, Subject};
use net::Net;
use node::Item;

pub use leg::{Faults, Flow};

/// The limit of a NATS server's default configuration.
const MAX_PAYLOAD: usize = 1 << 20;

/// How often each kind of fault has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ChaosCounts {
    /// Messages lost by chance.
    pub lost: u64,
    /// Messages that arrived twice.
    pub duplicated: u64,
    /// Messages that later ones could overtake.
    pub reordered: u64,
    /// Messages swallowed by [`Flow::Drop`].
    pub partitioned: u64,
    /// Messages kept back by [`Flow::Hold`].
    pub held: u64,
    /// Messages lost because their connection broke under them, or before they had one.
    pub broken: u64,
    /// Messages lost because an inbox, or a paused process, did not take them in time.
    pub overflowed: u64,
    /// Connections that were broken.
    pub disconnects: u64,
    /// Publishes and subscriptions that a server refused, and subscriptions that it took away.
    pub denied: u64,
    /// Messages delivered to an inbox.
    pub delivered: u64,
}

/// One server of a [`ChaosNet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServerId(usize);

/// One node of a [`ChaosNet`]: what holds a [`ChaosBus`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId(usize);

/// A network of servers and nodes, in its own time. Clones share it.
///
/// ```
/// use std::time::Duration;
///
/// use afterwrite::bus::{Bus, ChaosNet, Delivery, Faults};
/// use afterwrite::invalidation::subject::{Pattern, Subject};
///
/// let net = ChaosNet::new(7);
/// let (sender, receiver) = (net.bus(), net.bus());
/// net.set_faults(sender.node(), Faults { loss: 0.5, ..Faults::NONE });
/// let interest = receiver.subscribe(&Pattern::new(">")?, Box::new(|_: Delivery<'_>| {}))?;
/// net.advance(Duration::from_secs(1));
/// let mut publisher = sender.publisher();
/// for _ in 0..100 {
///     publisher.publish(Subject::new("cache.user.42")?, b"")?;
/// }
/// net.advance(Duration::from_secs(1));
/// let counts = net.counts();
/// assert_eq!(counts.lost + counts.delivered, 100);
/// assert!(counts.lost > 20 && counts.delivered > 20);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ChaosNet {
    net: Arc<Mutex<Net>>,
}

impl ChaosNet {
    /// One server, no fault, time at zero.
    pub fn new(seed: u64) -> Self {
        Self::with_servers(seed, 1)
    }

    /// A cluster of so many servers, each with a route to each other; 0 counts as 1.
    pub fn with_servers(seed: u64, servers: usize) -> Self {
        Self {
            net: Arc::new(Mutex::new(Net::new(seed, servers.max(1)))),
        }
    }

    /// A server by its number, counted from 0; the last one if there are not so many.
    pub fn server(&self, number: usize) -> ServerId {
        ServerId(number.min(self.net.lock().servers() - 1))
    }

    /// A new node, connected to the first server.
    pub fn bus(&self) -> ChaosBus {
        self.bus_at(ServerId(0))
    }

    /// A new node, connected to this server.
    pub fn bus_at(&self, server: ServerId) -> ChaosBus {
        let generation = Arc::new(AtomicU64::new(1));
        let node = self.net.lock().add_node(server, Arc::clone(&generation));
        ChaosBus {
            node,
            generation,
            net: self.clone(),
        }
    }

    /// The time that the network has reached, from its beginning.
    pub fn now(&self) -> Duration {
        self.net.lock().now()
    }

    /// When the next thing happens, if anything is under way.
    pub fn next_at(&self) -> Option<Duration> {
        self.net.lock().next_at()
    }

    /// Lets everything happen that is due within `time` from now, in order, and moves on so far.
    pub fn advance(&self, time: Duration) {
        let until = self.now().saturating_add(time);
        self.advance_to(until);
    }

    /// Lets everything happen that is due up to `until`, in order, and moves on so far. Time
    /// never runs backwards.
    pub fn advance_to(&self, until: Duration) {
        while self.step(until) {}
        self.net.lock().reach(until);
    }

    /// Lets the next thing happen, if it is due up to `until`; false if there was none.
    pub fn step(&self, until: Duration) -> bool {
        self.hand_out() || {
            let moved = self.net.lock().step(until);
            // Woken outside the lock: a waker may do anything.
            moved
                .map(|wakers| wakers.into_iter().for_each(|waker| waker.wake()))
                .is_some()
        }
    }

    /// Faults of both directions between a node and its server.
    pub fn set_faults(&self, node: NodeId, faults: Faults) {
        let mut net = self.net.lock();
        net.set_up_faults(node, faults.clone());
        net.set_down_faults(node, faults);
    }

    /// Faults of the way from a node to its server.
    pub fn set_up_faults(&self, node: NodeId, faults: Faults) {
        self.net.lock().set_up_faults(node, faults);
    }

    /// Faults of the way from a server to a node.
    pub fn set_down_faults(&self, node: NodeId, faults: Faults) {
        self.net.lock().set_down_faults(node, faults);
    }

    /// Faults of the route from one server to another.
    pub fn set_route_faults(&self, from: ServerId, to: ServerId, faults: Faults) {
        self.net.lock().set_route_faults(from, to, faults);
    }

    /// Opens or closes the way from a node to its server. Its connection stays up.
    pub fn set_up_flow(&self, node: NodeId, flow: Flow) {
        let wakers = self.net.lock().set_up_flow(node, flow);
        wakers.into_iter().for_each(|waker| waker.wake());
    }

    /// Opens or closes the way from a server to a node. Its connection stays up.
    pub fn set_down_flow(&self, node: NodeId, flow: Flow) {
        self.net.lock().set_down_flow(node, flow);
    }

    /// Opens or closes the route from one server to another, one way.
    pub fn set_route_flow(&self, from: ServerId, to: ServerId, flow: Flow) {
        self.net.lock().set_route_flow(from, to, flow);
    }

    /// Breaks a node's connection: what is under way on it is lost, its subscriptions are gone
    /// from the server. Until [`ChaosNet::connect`], what the node publishes waits.
    pub fn disconnect(&self, node: NodeId) {
        let wakers = self.net.lock().disconnect(node);
        wakers.into_iter().for_each(|waker| waker.wake());
    }

    /// Makes a node's connection anew, to its own server: the generation grows, subscriptions are
    /// sent again, then what waited.
    pub fn connect(&self, node: NodeId) {
        let server = self.net.lock().home(node);
        self.connect_to(node, server);
    }

    /// Makes a node's connection anew, to this server.
    pub fn connect_to(&self, node: NodeId, server: ServerId) {
        let wakers = self.net.lock().connect(node, server);
        wakers.into_iter().for_each(|waker| waker.wake());
    }

    /// Throws away what a node has published while it had no connection: some clients do, and tell nobody.
    pub fn discard(&self, node: NodeId) {
        let wakers = self.net.lock().discard(node);
        wakers.into_iter().for_each(|waker| waker.wake());
    }

    /// Takes a node's right to subscribe away: its server ends the subscriptions that it knows, takes
    /// none, and says so by [`Event::SubscribeDenied`]. The connection stays.
    pub fn deny_subscribing(&self, node: NodeId) {
        self.net.lock().deny_subscribing(node);
    }

    /// Gives the right to subscribe back. What was ended or refused stays so, until it is asked for again or
    /// the connection is made anew.
    pub fn allow_subscribing(&self, node: NodeId) {
        self.net.lock().allow_subscribing(node);
    }

    /// Takes a node's right to publish to these subjects away: its server passes nothing of that on, and
    /// says so by [`Event::PublishDenied`]. The connection stays. One pattern at a time: this replaces an earlier one.
    pub fn deny_publishing(&self, node: NodeId, subjects: &Pattern) {
        self.net.lock().deny_publishing(node, subjects.clone());
    }

    /// Gives the right to publish back.
    pub fn allow_publishing(&self, node: NodeId) {
        self.net.lock().allow_publishing(node);
    }

    /// Stops a process: nothing is delivered to it, what comes piles up to its capacity.
    pub fn pause(&self, node: NodeId) {
        self.net.lock().pause(node);
    }

    /// Lets a stopped process go on: what has piled up is delivered at the next step.
    pub fn resume(&self, node: NodeId) {
        self.net.lock().resume(node);
    }

    /// How many messages wait for one inbox of this node before newer ones are lost, and how many
    /// for its connection before publishing is refused. 65,536 and 2,048 at first.
    pub fn set_capacity(&self, node: NodeId, receive: usize, send: usize) {
        let wakers = self.net.lock().set_capacity(node, receive, send);
        wakers.into_iter().for_each(|waker| waker.wake());
    }

    /// How often each kind of fault has happened.
    pub fn counts(&self) -> ChaosCounts {
        self.net.lock().counts()
    }

    /// Delivers one item that has arrived; false if there is none.
    fn hand_out(&self) -> bool {
        let Some(mut parcel) = self.net.lock().take_parcel() else {
            return false;
        };
        let delivery = match &parcel.item {
            Item::Message(packet) => Delivery::Message {
                subject: &packet.subject,
                payload: &packet.payload,
            },
            Item::Event(event) => Delivery::Event(event),
        };
        let panicked =
            !parcel.ended.load(Ordering::Acquire) && deliver(parcel.inbox.as_mut(), delivery);
        let over = self.net.lock().give_back(parcel, panicked);
        // Dropped after the lock: what an inbox owns may call back into the network.
        drop(over);
        true
    }
}

/// One node's connection to a [`ChaosNet`]. Clones share it; it stays until it is closed, also
/// when the last one is dropped.
#[derive(Debug, Clone)]
pub struct ChaosBus {
    net: ChaosNet,
    node: NodeId,
    generation: Arc<AtomicU64>,
}

impl ChaosBus {
    /// The node, to do it harm.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The network.
    pub fn net(&self) -> &ChaosNet {
        &self.net
    }
}

impl Bus for ChaosBus {
    fn publisher(&self) -> Box<dyn Publisher> {
        Box::new(ChaosPublisher {
            net: self.net.clone(),
            node: self.node,
        })
    }

    fn subscribe(
        &self,
        pattern: &Pattern,
        inbox: Box<dyn Inbox>,
    ) -> Result<Interest, SubscribeError> {
        let ended = Arc::new(AtomicBool::new(false));
        let mut net = self.net.net.lock();
        let id = net.subscribe(self.node, pattern, inbox, Arc::clone(&ended))?;
        let (node, net) = (self.node, Arc::downgrade(&self.net.net));
        Ok(Interest::new(move || {
            ended.store(true, Ordering::Release);
            let inbox = net.upgrade().map(|net| net.lock().unsubscribe(node, id));
            drop(inbox);
        }))
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn status(&self) -> Status {
        self.net.net.lock().status(self.node, self.generation())
    }

    fn max_payload(&self) -> usize {
        MAX_PAYLOAD
    }

    fn close(&self) {
        let wakers = self.net.net.lock().close(self.node);
        wakers.into_iter().for_each(|waker| waker.wake());
    }
}

/// The sending side of a [`ChaosBus`].
#[derive(Debug)]
struct ChaosPublisher {
    net: ChaosNet,
    node: NodeId,
}

impl Publisher for ChaosPublisher {
    fn publish(&mut self, subject: Subject<'_>, payload: &[u8]) -> Result<(), PublishError> {
        if payload.len() > MAX_PAYLOAD {
            return Err(PublishError::TooLarge {
                len: payload.len(),
                max: MAX_PAYLOAD,
            });
        }
        self.net.net.lock().publish(self.node, subject, payload)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PublishError>> {
        self.net.net.lock().poll_ready(self.node, cx)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PublishError>> {
        self.net.net.lock().poll_flush(self.node, cx)
    }
}
