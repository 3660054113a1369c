//! The machine: servers, nodes, and a heap of what is under way.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::leg::{Faults, Flow, Leg};
use super::node::{Cargo, Interest, Item, Node, Packet, Parcel, Sub, SubId, To};
use super::rng::Rng;
use super::{ChaosCounts, Event, Inbox, NodeId, ServerId};
use crate::bus::{PublishError, Status, SubscribeError};
use crate::invalidation::subject::{Pattern, Subject};

struct Arrival {
    at: Duration,
    /// Breaks ties in the order of causes.
    order: u64,
    to: To,
    cargo: Cargo,
}

pub(super) struct Net {
    now: Duration,
    order: u64,
    rng: Rng,
    arrivals: BinaryHeap<Reverse<Arrival>>,
    /// Each server's knowledge, in the order of its coming.
    servers: Vec<Vec<Interest>>,
    /// From `from` to `to` at `from * servers + to`.
    routes: Vec<Leg<Cargo>>,
    nodes: Vec<Node>,
    /// Nodes that have something to hand out; each may stand here more than once.
    ready: VecDeque<usize>,
    next_sub: u64,
    counts: ChaosCounts,
}

impl Net {
    pub(super) fn new(seed: u64, servers: usize) -> Self {
        Self {
            now: Duration::ZERO,
            order: 0,
            rng: Rng::new(seed),
            arrivals: BinaryHeap::new(),
            servers: vec![Vec::new(); servers],
            routes: (0..servers * servers)
                .map(|_| Leg::new(Faults::NONE))
                .collect(),
            nodes: Vec::new(),
            ready: VecDeque::new(),
            next_sub: 0,
            counts: ChaosCounts::default(),
        }
    }

    pub(super) fn servers(&self) -> usize {
        self.servers.len()
    }

    pub(super) fn now(&self) -> Duration {
        self.now
    }

    pub(super) fn counts(&self) -> ChaosCounts {
        self.counts
    }

    pub(super) fn home(&self, node: NodeId) -> ServerId {
        ServerId(self.nodes[node.0].server)
    }

    pub(super) fn next_at(&mut self) -> Option<Duration> {
        while let Some(&node) = self.ready.front() {
            if self.nodes[node].has_items() {
                return Some(self.now);
            }
            self.ready.pop_front();
        }
        self.arrivals.peek().map(|Reverse(next)| next.at)
    }

    pub(super) fn reach(&mut self, until: Duration) {
        self.now = self.now.max(until);
    }

    pub(super) fn add_node(&mut self, server: ServerId, generation: Arc<AtomicU64>) -> NodeId {
        self.nodes.push(Node::new(server.0, generation));
        NodeId(self.nodes.len() - 1)
    }

    // What nodes do.

    pub(super) fn publish(
        &mut self,
        id: NodeId,
        subject: Subject<'_>,
        payload: &[u8],
    ) -> Result<(), PublishError> {
        let node = &self.nodes[id.0];
        if node.closed {
            return Err(PublishError::Closed);
        }
        if node.backlog() >= node.send {
            return Err(PublishError::Full);
        }
        let packet = Packet {
            subject: subject.as_str().into(),
            payload: payload.into(),
        };
        self.send_up(id.0, Cargo::Publish(packet));
        Ok(())
    }

    pub(super) fn poll_ready(
        &mut self,
        id: NodeId,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), PublishError>> {
        let node = &mut self.nodes[id.0];
        let room = node.send;
        node.poll_below(room, cx)
    }

    pub(super) fn poll_flush(
        &mut self,
        id: NodeId,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), PublishError>> {
        self.nodes[id.0].poll_below(1, cx)
    }

    pub(super) fn subscribe(
        &mut self,
        id: NodeId,
        pattern: &Pattern,
        inbox: Box<dyn Inbox>,
        ended: Arc<AtomicBool>,
    ) -> Result<u64, SubscribeError> {
        if self.nodes[id.0].closed {
            return Err(SubscribeError::Closed);
        }
        let sub = self.next_sub;
        self.next_sub += 1;
        self.nodes[id.0].subs.push(Sub {
            id: sub,
            pattern: Arc::new(pattern.clone()),
            ended,
            inbox: Some(inbox),
            queue: VecDeque::new(),
            lost: 0,
        });
        if self.nodes[id.0].connected {
            self.announce(id.0, sub);
        }
        Ok(sub)
    }

    pub(super) fn unsubscribe(&mut self, id: NodeId, sub: u64) -> Option<Box<dyn Inbox>> {
        let node = &mut self.nodes[id.0];
        let at = node.subs.iter().position(|each| each.id == sub)?;
        let gone = node.subs.remove(at);
        if node.connected && !node.closed {
            let id = node.sub_id(id.0, sub);
            self.send_up(id.node, Cargo::Unsubscribe(id));
        }
        gone.inbox
    }

    pub(super) fn close(&mut self, id: NodeId) -> Vec<Waker> {
        if self.nodes[id.0].closed {
            return Vec::new();
        }
        self.forget_connection(id.0);
        self.nodes[id.0].closed = true;
        self.nodes[id.0].paused = false;
        self.tell(id.0, &Event::Closed);
        mem::take(&mut self.nodes[id.0].wakers)
    }

    pub(super) fn status(&self, id: NodeId, generation: u64) -> Status {
        self.nodes[id.0].status(generation)
    }

    // What is done to nodes and routes.

    pub(super) fn set_up_faults(&mut self, id: NodeId, faults: Faults) {
        self.nodes[id.0].up.faults = faults;
    }

    pub(super) fn set_down_faults(&mut self, id: NodeId, faults: Faults) {
        self.nodes[id.0].down.faults = faults;
    }

    pub(super) fn set_route_faults(&mut self, from: ServerId, to: ServerId, faults: Faults) {
        let at = from.0 * self.servers.len() + to.0;
        self.routes[at].faults = faults;
    }

    pub(super) fn set_capacity(&mut self, id: NodeId, receive: usize, send: usize) -> Vec<Waker> {
        let node = &mut self.nodes[id.0];
        node.receive = receive.max(1);
        node.send = send.max(1);
        mem::take(&mut node.wakers)
    }

    pub(super) fn set_up_flow(&mut self, id: NodeId, flow: Flow) -> Vec<Waker> {
        let released = self.nodes[id.0].up.set_flow(flow, &mut self.counts);
        for cargo in released {
            self.send_up(id.0, cargo);
        }
        mem::take(&mut self.nodes[id.0].wakers)
    }

    pub(super) fn set_down_flow(&mut self, id: NodeId, flow: Flow) {
        let to = self.nodes[id.0].end(id.0, false);
        let released = self.nodes[id.0].down.set_flow(flow, &mut self.counts);
        for cargo in released {
            self.send(to, cargo);
        }
    }

    pub(super) fn set_route_flow(&mut self, from: ServerId, to: ServerId, flow: Flow) {
        let (from, to) = (from.0, to.0);
        let at = from * self.servers.len() + to;
        let released = self.routes[at].set_flow(flow, &mut self.counts);
        for cargo in released {
            self.send(To::Route { from, to }, cargo);
        }
    }

    pub(super) fn disconnect(&mut self, id: NodeId) -> Vec<Waker> {
        let node = &self.nodes[id.0];
        if node.connected && !node.closed {
            self.forget_connection(id.0);
            self.counts.disconnects += 1;
            self.tell(id.0, &Event::Disconnected);
        }
        mem::take(&mut self.nodes[id.0].wakers)
    }

    pub(super) fn connect(&mut self, id: NodeId, server: ServerId) -> Vec<Waker> {
        if self.nodes[id.0].closed {
            return Vec::new();
        }
        let mut wakers = self.disconnect(id);
        let node = &mut self.nodes[id.0];
        node.server = server.0;
        node.connected = true;
        let generation = node.generation.fetch_add(1, Ordering::AcqRel) + 1;
        let subs: Vec<_> = node.subs.iter().map(|sub| sub.id).collect();
        let waiting = mem::take(&mut node.waiting);
        for sub in subs {
            self.announce(id.0, sub);
        }
        for cargo in waiting {
            self.send_up(id.0, cargo);
        }
        self.tell(id.0, &Event::Connected { generation });
        wakers.append(&mut self.nodes[id.0].wakers);
        wakers
    }

    pub(super) fn discard(&mut self, id: NodeId) -> Vec<Waker> {
        let node = &mut self.nodes[id.0];
        // Subscriptions do not wait here: they are sent with the connection.
        self.counts.broken += mem::take(&mut node.waiting).len() as u64;
        mem::take(&mut node.wakers)
    }

    pub(super) fn deny_publishing(&mut self, id: NodeId, subjects: Pattern) {
        self.nodes[id.0].may_not_publish = Some(subjects);
    }

    pub(super) fn allow_publishing(&mut self, id: NodeId) {
        self.nodes[id.0].may_not_publish = None;
    }

    pub(super) fn deny_subscribing(&mut self, id: NodeId) {
        let node = &mut self.nodes[id.0];
        node.may_subscribe = false;
        let home = node.server;
        let gone: Vec<_> = self.servers[home]
            .extract_if(.., |it| it.home == home && it.id.node == id.0)
            .collect();
        for interest in gone {
            self.forward(home, &Cargo::Unsubscribe(interest.id));
            self.refuse_interest(id.0, &interest);
        }
    }

    pub(super) fn allow_subscribing(&mut self, id: NodeId) {
        self.nodes[id.0].may_subscribe = true;
    }

    /// Tells a node that its server does not take this subscription.
    fn refuse_interest(&mut self, index: usize, interest: &Interest) {
        let subject = interest.pattern.as_str().to_owned();
        self.refuse(index, Event::SubscribeDenied { subject });
    }

    fn refuse(&mut self, index: usize, event: Event) {
        self.counts.denied += 1;
        let to = self.nodes[index].end(index, false);
        self.send(to, Cargo::Denied(event));
    }

    /// Whether a node's server takes this from it. If not, the node will hear so.
    fn takes(&mut self, index: usize, cargo: &Cargo) -> bool {
        let node = &self.nodes[index];
        match cargo {
            Cargo::Subscribe(interest) if !node.may_subscribe => {
                self.refuse_interest(index, interest);
                false
            }
            Cargo::Publish(packet)
                if (node.may_not_publish.as_ref())
                    .is_some_and(|it| it.matches(&packet.subject)) =>
            {
                let subject = packet.subject.to_string();
                self.refuse(index, Event::PublishDenied { subject });
                false
            }
            _ => true,
        }
    }

    pub(super) fn pause(&mut self, id: NodeId) {
        self.nodes[id.0].paused = !self.nodes[id.0].closed;
    }

    pub(super) fn resume(&mut self, id: NodeId) {
        self.nodes[id.0].paused = false;
        self.ready.push_back(id.0);
    }

    /// Both ends drop what they know of a connection.
    fn forget_connection(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.connected = false;
        self.counts.broken += (node.up.held() + node.down.held()) as u64;
        node.up.forget();
        node.down.forget();
        let generation = node.generation.load(Ordering::Acquire);
        let home = node.server;
        let gone: Vec<_> = self.servers[home]
            .extract_if(.., |it| {
                it.id.node == index && it.id.generation == generation
            })
            .collect();
        for interest in gone {
            self.forward(home, &Cargo::Unsubscribe(interest.id));
        }
    }

    /// Shows an event to all of a node's inboxes.
    fn tell(&mut self, index: usize, event: &Event) {
        for sub in &mut self.nodes[index].subs {
            sub.queue.push_back(Item::Event(event.clone()));
        }
        self.ready.push_back(index);
    }

    // What is under way.

    fn announce(&mut self, index: usize, sub: u64) {
        let node = &self.nodes[index];
        let Some(known) = node.subs.iter().find(|each| each.id == sub) else {
            return;
        };
        let interest = Interest {
            id: node.sub_id(index, sub),
            home: node.server,
            pattern: Arc::clone(&known.pattern),
        };
        self.send_up(index, Cargo::Subscribe(interest));
    }

    fn send_up(&mut self, index: usize, cargo: Cargo) {
        let node = &mut self.nodes[index];
        if node.connected {
            let to = node.end(index, true);
            self.send(to, cargo);
        } else {
            node.waiting.push_back(cargo);
        }
    }

    fn send(&mut self, to: To, cargo: Cargo) {
        let servers = self.servers.len();
        let leg = match to {
            To::Server { node, .. } => &mut self.nodes[node].up,
            To::Route { from, to } => &mut self.routes[from * servers + to],
            To::Node { node, .. } => &mut self.nodes[node].down,
        };
        let certain = !matches!(cargo, Cargo::Publish(_) | Cargo::Deliver(..));
        let (arrivals, order) = (&mut self.arrivals, &mut self.order);
        let arrive = |at, cargo| {
            *order += 1;
            arrivals.push(Reverse(Arrival {
                at,
                order: *order,
                to,
                cargo,
            }));
        };
        leg.send(
            self.now,
            cargo,
            certain,
            &mut self.rng,
            &mut self.counts,
            arrive,
        );
    }

    /// The next arrival due up to `until`; nothing if there is none. Gives wakers to wake.
    pub(super) fn step(&mut self, until: Duration) -> Option<Vec<Waker>> {
        if self.arrivals.peek()?.0.at > until {
            return None;
        }
        let Reverse(Arrival { at, to, cargo, .. }) = self.arrivals.pop()?;
        self.now = self.now.max(at);
        match (to, cargo) {
            (To::Server { node, generation }, cargo) => {
                if self.is_current(node, generation) {
                    if self.takes(node, &cargo) {
                        self.at_server(self.nodes[node].server, cargo, None);
                    }
                    return Some(mem::take(&mut self.nodes[node].wakers));
                }
                self.counts.broken += 1;
            }
            (To::Route { from, to }, cargo) => self.at_server(to, cargo, Some(from)),
            (To::Node { node, generation }, Cargo::Deliver(sub, packet)) => {
                if self.is_current(node, generation) {
                    self.at_node(node, sub, packet);
                } else {
                    self.counts.broken += 1;
                }
            }
            (To::Node { node, generation }, Cargo::Denied(event)) => {
                if self.is_current(node, generation) {
                    self.at_denied(node, &event);
                }
            }
            (To::Node { .. }, _) => {}
        }
        Some(Vec::new())
    }

    fn is_current(&self, node: usize, generation: u64) -> bool {
        let node = &self.nodes[node];
        node.connected && node.generation.load(Ordering::Acquire) == generation
    }

    /// A server acts on what a node or, over a route, another server has sent.
    fn at_server(&mut self, server: usize, cargo: Cargo, from: Option<usize>) {
        if from.is_none() && !matches!(cargo, Cargo::Publish(_)) {
            self.forward(server, &cargo);
        }
        match cargo {
            Cargo::Publish(packet) => self.fan_out(server, &packet, from.is_none()),
            Cargo::Subscribe(interest) => self.servers[server].push(interest),
            Cargo::Unsubscribe(id) => self.servers[server].retain(|it| it.id != id),
            Cargo::Deliver(..) | Cargo::Denied(_) => {}
        }
    }

    fn fan_out(&mut self, server: usize, packet: &Packet, over_routes: bool) {
        // Taken out meanwhile: sending does not change what a server knows.
        let known = mem::take(&mut self.servers[server]);
        let mut routed = vec![false; self.servers.len()];
        for interest in &known {
            if !interest.pattern.matches(&packet.subject) {
                continue;
            }
            if interest.home != server {
                routed[interest.home] = over_routes;
                continue;
            }
            let SubId {
                node,
                sub,
                generation,
            } = interest.id;
            let to = To::Node { node, generation };
            self.send(to, Cargo::Deliver(sub, packet.clone()));
        }
        self.servers[server] = known;
        for (to, _) in routed.iter().enumerate().filter(|(_, routed)| **routed) {
            let to = To::Route { from: server, to };
            self.send(to, Cargo::Publish(packet.clone()));
        }
    }

    fn forward(&mut self, from: usize, cargo: &Cargo) {
        for to in (0..self.servers.len()).filter(|to| *to != from) {
            self.send(To::Route { from, to }, cargo.clone());
        }
    }

    fn at_node(&mut self, index: usize, sub: u64, packet: Packet) {
        let node = &mut self.nodes[index];
        let Some(sub) = node.subs.iter_mut().find(|each| each.id == sub) else {
            return;
        };
        if sub.queue.len() < node.receive {
            sub.queue.push_back(Item::Message(packet));
        } else {
            sub.lost += 1;
            node.lost += 1;
            self.counts.overflowed += 1;
        }
        self.ready.push_back(index);
    }

    fn at_denied(&mut self, index: usize, event: &Event) {
        let node = &mut self.nodes[index];
        match event {
            Event::PublishDenied { .. } => node.publish_denied += 1,
            _ => node.subscribe_denied += 1,
        }
        self.tell(index, event);
    }

    // Calls of inboxes.

    pub(super) fn take_parcel(&mut self) -> Option<Parcel> {
        while let Some(&index) = self.ready.front() {
            let parcel = self.nodes[index].take_parcel(index);
            if parcel.is_some() {
                return parcel;
            }
            self.ready.pop_front();
        }
        None
    }

    /// Puts an inbox back; returns it if its subscription is over.
    pub(super) fn give_back(&mut self, parcel: Parcel, panicked: bool) -> Option<Box<dyn Inbox>> {
        let node = &mut self.nodes[parcel.node];
        node.panics += u64::from(panicked);
        self.counts.delivered += u64::from(matches!(parcel.item, Item::Message(_)));
        let at = node.subs.iter().position(|each| each.id == parcel.sub);
        match (at, parcel.item) {
            (Some(at), Item::Event(Event::Closed)) => {
                node.subs.remove(at);
                Some(parcel.inbox)
            }
            (Some(at), _) => {
                node.subs[at].inbox = Some(parcel.inbox);
                if node.has_items() {
                    // It may have been passed over while its inbox was away.
                    self.ready.push_back(parcel.node);
                }
                None
            }
            (None, _) => Some(parcel.inbox),
        }
    }
}

impl PartialEq for Arrival {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Arrival {}

impl PartialOrd for Arrival {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Arrival {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net")
            .field("now", &self.now)
            .field("servers", &self.servers.len())
            .field("nodes", &self.nodes.len())
            .field("under_way", &self.arrivals.len())
            .finish_non_exhaustive()
    }
}
