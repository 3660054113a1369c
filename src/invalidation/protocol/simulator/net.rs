//! The network: two servers with a route between them, a link each way for every host.
//!
//! A link keeps its order and takes its time, unless a fault says otherwise until a given time.

use std::rc::Rc;

use super::rng::Rng;

/// Simulated time, in microseconds of no clock in particular.
pub(super) type Time = u64;

/// One direction of one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Link {
    /// When the last message arrives: the next does so later.
    last: Time,
    pub(super) cut_until: Time,
    pub(super) stall_until: Time,
    pub(super) lossy_until: Time,
    pub(super) loss_percent: u64,
    pub(super) doubled_until: Time,
    pub(super) shuffled_until: Time,
    pub(super) shuffle: Time,
    pub(super) slow_until: Time,
    pub(super) slowness: Time,
}

impl Link {
    /// When a message that is sent now arrives: not at all, once, or twice.
    pub(super) fn pass(&mut self, now: Time, rng: &mut Rng) -> [Option<Time>; 2] {
        if now < self.cut_until || (now < self.lossy_until && rng.chance(self.loss_percent)) {
            return [None, None];
        }
        let copies = 1 + usize::from(now < self.doubled_until && rng.chance(50));
        let mut arrivals = [None, None];
        for arrival in arrivals.iter_mut().take(copies) {
            let mut at = now.max(self.stall_until) + rng.range(100, 900);
            if now < self.slow_until {
                at += self.slowness;
            }
            if now < self.shuffled_until {
                at += rng.range(0, self.shuffle);
            } else {
                at = at.max(self.last + 1);
                self.last = at;
            }
            *arrival = Some(at);
        }
        arrivals
    }
}

/// The way of one host to its server and back.
#[derive(Debug, Clone, Default)]
pub(super) struct Access {
    pub(super) server: usize,
    pub(super) up: Link,
    pub(super) down: Link,
    /// Counts connections: what was under way on an older one is gone.
    pub(super) connection: u64,
    pub(super) connected: bool,
    /// Whether the server has the subscription.
    pub(super) subscribed: bool,
    /// Until when the server denies it.
    pub(super) denied_until: Time,
    /// An entity for which the server denies publishing, and until when.
    pub(super) mute: (usize, Time),
    /// An entity of which the next message is lost on its way up.
    pub(super) loses_next: Option<usize>,
    /// What the client holds back while there is no connection.
    pub(super) backlog: Vec<Rc<Packet>>,
    /// The client drops what arrives, and counts it.
    pub(super) overrun_until: Time,
    pub(super) overrun: bool,
}

/// A message.
#[derive(Debug, Hash)]
pub(super) struct Packet {
    pub(super) subject: String,
    pub(super) payload: Vec<u8>,
    /// Somebody else sent it in a host's name.
    pub(super) twin: bool,
}

impl Packet {
    /// What a host sends.
    pub(super) fn new(subject: String, payload: Vec<u8>) -> Rc<Self> {
        Rc::new(Self {
            subject,
            payload,
            twin: false,
        })
    }
}
