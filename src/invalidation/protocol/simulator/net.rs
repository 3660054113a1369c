//! The network: a [`ChaosNet`] of two servers, and for each way what is wrong with it until when.
//!
//! A way keeps its order and takes its time, unless a fault says otherwise until a given time.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::event::Event;
use super::store::ENTITIES;
use super::world::{MS, World};
use crate::bus::{self, Bus, ChaosBus, ChaosNet, Delivery, Faults, Flow, Interest, Link};
use crate::invalidation::subject::{Address, Pattern, Prefix, Subject};

/// What waits for a process at most, and what waits for its connection.
const ROOM: usize = 65_536;
const SEND: usize = 2_048;

/// Simulated time, in microseconds of no clock in particular.
pub(super) type Time = u64;

/// One direction of one connection.
#[derive(Debug, Clone, Copy, Hash)]
pub(super) enum Way {
    /// From a host to its server.
    Up(usize),
    /// From a server to a host.
    Down(usize),
    /// From this server to the other.
    Route(usize),
}

/// What is wrong with a way, and until when.
#[derive(Debug, Clone, Default)]
pub(super) struct Troubles {
    pub(super) cut_until: Time,
    pub(super) stalled_until: Time,
    pub(super) lossy_until: Time,
    pub(super) loss_percent: u64,
    pub(super) doubled_until: Time,
    pub(super) shuffled_until: Time,
    pub(super) shuffle: Time,
    pub(super) slow_until: Time,
    pub(super) slowness: Time,
}

impl Troubles {
    fn faults(&self, now: Time) -> Faults {
        let slowness = if now < self.slow_until {
            self.slowness
        } else {
            0
        };
        let shuffled = now < self.shuffled_until;
        let shuffle = if shuffled { self.shuffle } else { 0 };
        let percent = |percent: u64, until| {
            if now < until {
                percent as f64 / 100.0
            } else {
                0.0
            }
        };
        Faults {
            loss: percent(self.loss_percent, self.lossy_until),
            duplication: percent(50, self.doubled_until),
            reordering: percent(50, self.shuffled_until),
            delay: span(slowness + 100)..span(slowness + shuffle + 900),
        }
    }

    fn flow(&self, now: Time) -> Flow {
        match now {
            _ if now < self.cut_until => Flow::Drop,
            _ if now < self.stalled_until => Flow::Hold,
            _ => Flow::Open,
        }
    }
}

/// The way of one host to its server and back, and its process' client.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) server: usize,
    pub(super) bus: ChaosBus,
    /// Those of processes before, from whom something may be held up.
    former: Vec<ChaosBus>,
    /// Whether the host hears that the subscription was denied.
    pub(super) told: bool,
    pub(super) up: Troubles,
    pub(super) down: Troubles,
    /// Counts connections: what arrived by an older one and was not looked at is gone.
    pub(super) connection: u64,
    /// Until when the server denies the subscription.
    pub(super) denied_until: Time,
    /// An entity for which the server denies publishing, and until when.
    pub(super) muted: (usize, Time),
    /// Until when the client hands nothing to its process, and drops what it has no room for.
    pub(super) stuck_until: Time,
}

impl Access {
    pub(super) fn new(net: &ChaosNet, server: usize) -> Self {
        Self {
            server,
            bus: client(net, server),
            former: Vec::new(),
            told: false,
            up: Troubles::default(),
            down: Troubles::default(),
            connection: 0,
            denied_until: 0,
            muted: (0, 0),
            stuck_until: 0,
        }
    }

    fn is_connected(&self) -> bool {
        self.bus.status().link == Link::Up
    }
}

/// A message that has arrived.
#[derive(Debug, Hash)]
pub(super) struct Packet {
    pub(super) subject: String,
    pub(super) payload: Vec<u8>,
}

/// What an inbox was given.
#[derive(Debug)]
pub(super) enum Arrival {
    Message(Packet),
    /// A server refused to publish to this subject.
    PublishDenied(String),
    /// A server refused the subscription, or took it away.
    SubscribeDenied,
}

/// What has come, and to which host: inboxes lay it down, the world takes it up.
#[derive(Debug, Clone, Default)]
pub(super) struct Post(Arc<Mutex<VecDeque<(usize, Arrival)>>>);

impl Post {
    fn take(&self) -> Option<(usize, Arrival)> {
        self.0.lock().pop_front()
    }

    /// Subscribes a host's client; what comes is laid down here.
    pub(super) fn subscribe(&self, bus: &ChaosBus, host: usize) -> Interest {
        let post = self.clone();
        let inbox = move |delivery: Delivery<'_>| {
            let arrival = match delivery {
                Delivery::Message { subject, payload } => Arrival::Message(Packet {
                    subject: subject.to_owned(),
                    payload: payload.to_owned(),
                }),
                Delivery::Event(bus::Event::PublishDenied { subject }) => {
                    Arrival::PublishDenied(subject.clone())
                }
                Delivery::Event(bus::Event::SubscribeDenied { .. }) => Arrival::SubscribeDenied,
                // The process looks at what the client counts instead.
                Delivery::Event(_) => return,
            };
            post.0.lock().push_back((host, arrival));
        };
        let everything = Prefix::default().everything();
        bus.subscribe(&everything, Box::new(inbox)).unwrap()
    }
}

pub(super) const fn span(time: Time) -> Duration {
    Duration::from_micros(time)
}

/// Never early.
fn time(span: Duration) -> Time {
    span.as_nanos().div_ceil(1_000) as Time
}

impl World {
    /// Lets the network do what is due before anything else; false if that is nothing.
    pub(super) fn carry(&mut self, before: Option<Time>) -> bool {
        let Some(at) = self.net.next_at().map(time) else {
            return false;
        };
        if before.is_some_and(|before| before < at) {
            return false;
        }
        self.now = self.now.max(at);
        self.net.step(span(self.now));
        while let Some((host, arrival)) = self.post.take() {
            self.arrived(host, arrival);
        }
        true
    }

    fn arrived(&mut self, host: usize, arrival: Arrival) {
        let pid = self.hosts[host].process.as_ref().map(|it| it.pid);
        let connection = self.hosts[host].access.connection;
        match (arrival, pid) {
            (Arrival::Message(packet), _) => {
                let packet = Rc::new(packet);
                self.after(
                    0,
                    Event::AtHost {
                        host,
                        connection,
                        packet,
                    },
                );
            }
            // Not every event is heard.
            (Arrival::PublishDenied(subject), Some(pid)) if self.rng.chance(80) => {
                let delay = self.rng.range(0, 100 * MS);
                if let Some(entity) = entity_of(&subject) {
                    self.after(delay, Event::Denied { host, pid, entity });
                }
            }
            (Arrival::SubscribeDenied, Some(pid)) if self.hosts[host].access.told => {
                let delay = self.rng.range(0, 100 * MS);
                self.after(delay, Event::Unsubscribed { host, pid });
            }
            _ => {}
        }
    }

    /// Something is wrong with a way from now on, until then.
    pub(super) fn trouble(&mut self, way: Way, until: Time, change: impl FnOnce(&mut Troubles)) {
        change(self.troubles(way));
        self.apply(way);
        self.push(until, Event::Heal { way });
    }

    fn troubles(&mut self, way: Way) -> &mut Troubles {
        match way {
            Way::Up(host) => &mut self.hosts[host].access.up,
            Way::Down(host) => &mut self.hosts[host].access.down,
            Way::Route(from) => &mut self.routes[from],
        }
    }

    /// Has the network treat a way as its troubles say.
    pub(super) fn apply(&mut self, way: Way) {
        let now = self.now;
        let troubles = self.troubles(way);
        let (faults, flow) = (troubles.faults(now), troubles.flow(now));
        let net = &self.net;
        match way {
            Way::Up(host) => {
                let access = &mut self.hosts[host].access;
                for bus in access.former.iter().chain([&access.bus]) {
                    net.set_up_faults(bus.node(), faults.clone());
                    net.set_up_flow(bus.node(), flow);
                }
                if flow == Flow::Open {
                    access.former.clear();
                }
            }
            Way::Down(host) => {
                let node = self.hosts[host].access.bus.node();
                net.set_down_faults(node, faults);
                net.set_down_flow(node, flow);
            }
            Way::Route(from) => {
                let (from, to) = (net.server(from), net.server(1 - from));
                net.set_route_faults(from, to, faults);
                net.set_route_flow(from, to, flow);
            }
        }
    }

    /// A host's client hands nothing over until then, and has room for so many messages.
    pub(super) fn get_stuck(&mut self, host: usize, room: usize, until: Time) {
        let access = &mut self.hosts[host].access;
        access.stuck_until = until;
        self.net.set_capacity(access.bus.node(), room, SEND);
        self.net.pause(access.bus.node());
        self.push(until, Event::ResumeClient { host });
    }

    pub(super) fn resume_client(&self, host: usize) {
        let access = &self.hosts[host].access;
        if self.now >= access.stuck_until {
            self.net.set_capacity(access.bus.node(), ROOM, SEND);
            self.net.resume(access.bus.node());
        }
    }

    /// Has a host's server give and deny rights as the host's time has come.
    pub(super) fn set_rights(&mut self, host: usize) {
        let access = &self.hosts[host].access;
        let node = access.bus.node();
        if self.now < access.denied_until {
            self.net.deny_subscribing(node);
        } else {
            self.net.allow_subscribing(node);
        }
        let (entity, until) = access.muted;
        if self.now < until {
            let subjects = format!("cache.invalidate.{}.>", ENTITIES[entity]);
            let subjects = Pattern::new(&subjects).unwrap();
            self.net.deny_publishing(node, &subjects);
        } else {
            self.net.allow_publishing(node);
        }
    }

    pub(super) fn connect(&mut self, host: usize, connection: u64) {
        let access = &self.hosts[host].access;
        if access.connection != connection || access.is_connected() {
            return;
        }
        let node = access.bus.node();
        // What was handed over meanwhile is sent, or was discarded.
        if self.rng.chance(50) {
            self.net.discard(node);
        }
        // The client counts the connection before it asks for its subscriptions again, which the server learns
        // of some time later.
        let late = span(self.rng.range(0, 200 * MS));
        let mut faults = self.hosts[host].access.up.faults(self.now);
        faults.delay = faults.delay.start + late..faults.delay.end + late;
        self.net.set_up_faults(node, faults);
        self.net.connect(node);
        self.apply(Way::Up(host));
    }

    /// Breaks a host's connection, if there is one. It is made anew some time later.
    pub(super) fn disconnect(&mut self, host: usize, span: Time) {
        let access = &mut self.hosts[host].access;
        access.connection += 1;
        let connection = access.connection;
        self.net.disconnect(access.bus.node());
        self.after(span, Event::Connect { host, connection });
    }

    /// A client for a host's next process, with no connection yet.
    pub(super) fn renew_client(&mut self, host: usize) {
        let access = &mut self.hosts[host].access;
        let fresh = client(&self.net, access.server);
        (access.former).push(std::mem::replace(&mut access.bus, fresh));
        self.apply(Way::Up(host));
        self.apply(Way::Down(host));
        self.set_rights(host);
    }
}

fn client(net: &ChaosNet, server: usize) -> ChaosBus {
    let bus = net.bus_at(net.server(server));
    net.disconnect(bus.node());
    bus
}

/// Publishes what no process has.
pub(super) fn publish(bus: &ChaosBus, subject: &str, payload: &[u8]) {
    let subject = Subject::new(subject).unwrap();
    // If there is no room it is lost: nobody relies on it.
    let _ = bus.publisher().publish(subject, payload);
}

/// The entity of a subject, by its number.
pub(super) fn entity_of(subject: &str) -> Option<usize> {
    match Prefix::default().parse(subject) {
        Ok(Address::One { entity, .. } | Address::All { entity } | Address::Batch { entity }) => {
            ENTITIES.iter().position(|name| *name == entity.as_str())
        }
        _ => None,
    }
}
