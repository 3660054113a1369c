//! The world: hosts, servers, the queue of what happens next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ahash::RandomState;

use super::event::{Entry, Event, Plan, Tally};
use super::host::{Process, SimClock, set};
use super::net::{Access, Packet, Post, Time, Troubles, Way, entity_of, span};
use super::rng::Rng;
use super::roles::EXPECTED;
use super::store::Store;
use crate::bus::{Bus, ChaosBus, ChaosNet};
use crate::invalidation::frame::{Body, Frame, Incarnation};
use crate::invalidation::protocol::offset::drift;
use crate::invalidation::protocol::{Micros, Rules};
use crate::invalidation::subject::Prefix;

pub(super) const MS: Time = 1_000;
pub(super) const SECOND: Time = 1_000 * MS;
/// The deadline thread's period, which bounds its delay as well.
pub(super) const TICK: Time = 50 * MS;
pub(super) const WRITE_LIMIT: Micros = 2 * SECOND;
/// A replica is never further behind.
pub(super) const MAX_LAG: Time = 8 * SECOND;

pub(super) const RULES: Rules = Rules {
    beat: SECOND,
    lease: 3 * SECOND,
    e_max: 500 * MS,
    min_flush: 100 * MS,
    retire_after: 10 * SECOND,
    max_publishers: 64,
    max_entities: 16,
    mutant: None,
};

/// B, and not a microsecond more, though the world's time is nobody's clock: what the clocks' rates add is
/// taken off the error that a publisher may have, see [`LONGEST`].
pub(super) const BOUND: Time = RULES.lease + RULES.e_max + TICK;

/// Clocks run fast or slow by as many parts of a million at most.
pub(super) const MAX_RATE: u64 = 500;

/// How long a span of a host's clock lasts at most, rounded up.
pub(super) const fn slowest(span: Micros) -> Time {
    (span * 1_000_000).div_ceil(1_000_000 - MAX_RATE)
}

/// A beat was sent at most so long before the end of what it vouches for. Of that span the publisher's
/// clock measures the way to the watcher, and the watcher's the rest; both may be slow. Of the error, what
/// two clocks drift apart within a lease is not allowed, see `Peer::beat`. The readings are rounded down:
/// four of them, one of each clock at either end.
const LONGEST: Time = slowest(RULES.lease + RULES.e_max - drift(RULES.lease) as u64 + 4);
const _: () = assert!(LONGEST + TICK <= BOUND);

/// A host's place.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) clock: SimClock,
    pub(super) by_hand: Arc<AtomicU64>,
    pub(super) access: Access,
    pub(super) process: Option<Process>,
    pub(super) paused_until: Time,
    pub(super) blocked_until: Time,
    pub(super) lag_until: Time,
    pub(super) lag: Time,
}

/// Everything there is.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) rng: Rng,
    pub(super) now: Time,
    order: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    pub(super) hosts: Vec<Host>,
    pub(super) net: ChaosNet,
    /// From the first server to the second, and back.
    pub(super) routes: [Troubles; 2],
    pub(super) post: Post,
    /// Who speaks as another process does, one at each server.
    pub(super) ghosts: [ChaosBus; 2],
    /// What they have said.
    pub(super) twins: BTreeSet<Vec<u8>>,
    pub(super) store: Store,
    pub(super) tally: Tally,
    pub(super) next_pid: u64,
    pub(super) failure: Option<String>,
    /// Of all that has happened, in its order.
    pub(super) digest: u64,
    hasher: RandomState,
    /// Incarnations with which a twin has spoken, and when whose they are heard of it: until then
    /// nothing is promised for them.
    pub(super) haunted: BTreeMap<Incarnation, Time>,
    /// The incarnations of the host that another waits for.
    pub(super) expected: BTreeSet<Incarnation>,
    /// Counts only once everybody has joined.
    pub(super) measure_from: Time,
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        let mut rng = Rng::new(plan.seed);
        let net = ChaosNet::with_servers(rng.next(), 2);
        let hosts = (0..plan.hosts)
            .map(|host| Host {
                clock: SimClock::new(&mut rng),
                by_hand: Arc::default(),
                access: Access::new(&net, host % 2),
                process: None,
                paused_until: 0,
                blocked_until: 0,
                lag_until: 0,
                lag: 0,
            })
            .collect();
        let mut world = Self {
            plan,
            rng,
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            hosts,
            routes: [Troubles::default(), Troubles::default()],
            post: Post::default(),
            ghosts: [0, 1].map(|server| net.bus_at(net.server(server))),
            twins: BTreeSet::new(),
            net,
            store: Store::default(),
            tally: Tally::default(),
            next_pid: 1,
            failure: None,
            digest: 0,
            hasher: RandomState::with_seeds(1, 2, 3, 4),
            haunted: BTreeMap::new(),
            expected: BTreeSet::new(),
            measure_from: 10 * SECOND,
        };
        for from in 0..2 {
            world.apply(Way::Route(from));
        }
        for host in 0..plan.hosts {
            world.apply(Way::Up(host));
            world.apply(Way::Down(host));
            let at = world.rng.range(0, SECOND);
            world.push(at, Event::Boot { host });
        }
        if plan.rolling_every > 0 {
            world.push(10 * SECOND, Event::Roll { host: 0 });
        }
        if plan.fault_every > 0 {
            world.push(5 * SECOND, Event::Fault);
        }
        world
    }

    pub(super) fn push(&mut self, at: Time, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Entry {
            at,
            order: self.order,
            event,
        }));
    }

    pub(super) fn after(&mut self, span: Time, event: Event) {
        self.push(self.now + span, event);
    }

    /// A span around a mean, never far from it.
    pub(super) fn around(&mut self, mean: Time) -> Time {
        self.rng.range(mean / 2, mean + mean / 2 + 1)
    }

    /// Takes into the digest what has happened.
    pub(super) fn note(&mut self, what: impl Hash) {
        self.digest = self.hasher.hash_one((self.digest, what));
    }

    pub(super) fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    /// Runs until all writes are done and what they ask for has had its time.
    pub(super) fn run(&mut self) -> Result<&Tally, String> {
        let mut end = None;
        loop {
            while self.carry(self.queue.peek().map(|Reverse(next)| next.at)) {}
            let Some(Reverse(entry)) = self.queue.pop() else {
                break;
            };
            self.now = entry.at;
            self.net.advance_to(span(self.now));
            if self.tally.writes >= self.plan.writes && end.is_none() {
                end = Some(self.now + 2 * BOUND);
            }
            if end.is_some_and(|end| self.now > end) {
                break;
            }
            self.note((self.now, &entry.event));
            self.happen(entry.event);
            if let Some(failure) = &self.failure {
                let Plan {
                    name, seed, mutant, ..
                } = self.plan;
                let mutant = mutant.map_or(String::new(), |mutant| format!(" with {mutant:?}"));
                return Err(format!(
                    "plan {name}{mutant}, seed {seed}, at {} us, write {}: {failure}",
                    self.now, self.tally.writes
                ));
            }
        }
        for host in 0..self.hosts.len() {
            self.harvest(host);
        }
        self.tally.net.push(self.net.counts());
        Ok(&self.tally)
    }

    fn happen(&mut self, event: Event) {
        if let Some((host, pid)) = event.process() {
            let place = &self.hosts[host];
            if place
                .process
                .as_ref()
                .is_none_or(|p| pid.is_some_and(|pid| p.pid != pid))
            {
                return;
            }
            if self.now < place.paused_until {
                self.push(place.paused_until, event);
                return;
            }
        }
        match event {
            Event::AtHost {
                host,
                connection,
                packet,
            } => self.at_host(host, connection, &packet),
            Event::Poll { host, pid } => {
                self.poll(host);
                self.after(TICK, Event::Poll { host, pid });
            }
            Event::Resume { host, .. } => self.poll(host),
            Event::Write { host, pid } => self.write(host, pid),
            Event::Commit { host, pid, write } => self.commit(host, pid, write),
            Event::CloseGuard { host, write, .. } => self.close_guard(host, write),
            Event::Look { host, pid } => {
                self.look(host, pid);
                let next = self.around(12 * MS);
                self.after(next, Event::Look { host, pid });
            }
            Event::LoadReads { host, load, .. } => self.load_reads(host, load),
            Event::LoadEnds { host, load, .. } => self.load_ends(host, load),
            Event::Connect { host, connection } => self.connect(host, connection),
            Event::Heal { way } => self.apply(way),
            Event::Allow { host } => self.set_rights(host),
            Event::ResumeClient { host } => self.resume_client(host),
            Event::Watch { host, watch, .. } => self.watch_again(host, watch),
            Event::Denied { host, entity, .. } => {
                self.with(host, |process, now| {
                    process.outbox.deny(super::store::ENTITIES[entity], now);
                });
            }
            Event::Unsubscribed { host, .. } => {
                self.with(host, |process, now| {
                    let (node, mut hands) = process.parts(now);
                    node.unsubscribed(now, &mut hands);
                    process.outbox.expire(Micros::MAX);
                });
            }
            Event::Boot { host } => self.boot(host),
            Event::Fault => self.fault(),
            Event::Roll { host } => {
                if let Some(pid) = self.hosts[host].process.as_ref().map(|p| p.pid) {
                    self.after(0, Event::Restart { host, pid });
                }
                let host = (host + 1) % self.hosts.len();
                self.after(self.plan.rolling_every, Event::Roll { host });
            }
            Event::Restart { host, pid } => self.restart(host, pid),
        }
    }

    /// Lets a process act at its own time.
    pub(super) fn with<R>(
        &mut self,
        host: usize,
        act: impl FnOnce(&mut Process, Micros) -> R,
    ) -> Option<R> {
        let place = &mut self.hosts[host];
        let now = place.clock.read(self.now);
        set(&place.by_hand, now);
        let process = place.process.as_mut()?;
        process.wire.full = self.now < place.blocked_until;
        process.generation = place.access.bus.generation();
        let result = act(process, now);
        if process.forked {
            process.forked = false;
            let incarnation = Incarnation(self.rng.next());
            process.incarnation = incarnation;
            process.node.reincarnate(incarnation, now);
            process.outbox.reincarnate(incarnation, now);
            if host == EXPECTED {
                self.expected.insert(incarnation);
            }
        }
        Some(result)
    }

    fn at_host(&mut self, host: usize, connection: u64, packet: &Packet) {
        let access = &mut self.hosts[host].access;
        if access.connection != connection {
            return;
        }
        let Ok(address) = Prefix::default().parse(&packet.subject) else {
            return;
        };
        let time = self.now;
        let twin = self.twins.contains(&packet.payload);
        let kept = self.with(host, |process, now| {
            let frame = Frame::decode(&packet.payload);
            if let Ok(Frame {
                header,
                body: Body::Beat(_),
            }) = frame
            {
                process.known.entry(header.incarnation).or_insert(time);
            }
            let own = frame.is_ok_and(|frame| frame.header.incarnation == process.incarnation);
            let haunted = (own && twin).then_some(process.incarnation);
            let returned = frame
                .ok()
                .filter(|_| own && !twin)
                .map(|frame| frame.header);
            let generation = process.generation;
            let (node, mut hands) = process.parts(now);
            node.generation(now, generation, &mut hands);
            node.message(now, &address, &packet.payload, &mut hands);
            (!own && process.keeps(&address), haunted, returned)
        });
        let Some((kept, haunted, returned)) = kept else {
            return;
        };
        if let (Some(header), Some(entity)) = (returned, entity_of(&packet.subject)) {
            let frame = (header.incarnation, entity, header.sequence);
            self.store.returned.insert(frame);
        }
        if let Some(heard) = haunted.and_then(|who| self.haunted.get_mut(&who)) {
            *heard = time.min(*heard);
        }
        if kept {
            self.fail(format!("host {host} did not apply {}", packet.subject));
        }
    }

    fn boot(&mut self, host: usize) {
        if self.hosts[host].process.is_some() {
            return;
        }
        let pid = self.next_pid;
        self.next_pid += 1;
        let incarnation = Incarnation(self.rng.next());
        let rules = Rules {
            mutant: self.plan.mutant,
            ..RULES
        };
        self.renew_client(host);
        let (reader, expects) = (self.only_reads(host), self.expects(host));
        if host == EXPECTED {
            self.expected.insert(incarnation);
        }
        let place = &mut self.hosts[host];
        place.paused_until = self.now;
        let now = place.clock.read(self.now);
        set(&place.by_hand, now);
        let mut process = Process::start(
            (pid, self.now, host, incarnation),
            reader,
            now,
            rules,
            self.plan.write_limit,
            &place.by_hand,
            place.access.bus.publisher(),
        );
        process.node.expect(expects);
        process.interest = Some(self.post.subscribe(&place.access.bus, host));
        place.process = Some(process);
        self.disconnect(host, 5 * MS);
        if self.plan.fault_every > 0 {
            let span = self.rng.range(SECOND, 4 * SECOND);
            self.lose_some(host, span);
        }
        self.after(1, Event::Poll { host, pid });
        self.after(20 * MS, Event::Look { host, pid });
        let write = self.around(self.plan.write_every);
        self.after(write, Event::Write { host, pid });
    }

    /// The end of a process: its counts are taken over. What it has sent is on its way, and nobody takes that back.
    pub(super) fn stop(&mut self, host: usize) {
        self.harvest(host);
        let place = &mut self.hosts[host];
        place.process = None;
        place.access.connection += 1;
    }

    fn harvest(&mut self, host: usize) {
        let Some(process) = &self.hosts[host].process else {
            return;
        };
        let counts = process.node.counts();
        self.tally.doubts += counts.doubts;
        self.tally.retired += counts.retired;
        self.tally.forks += counts.forks;
        self.tally.flushes += counts.flushes;
        self.tally.collapsed += process.outbox.counts().collapsed;
        self.tally.overflows += process
            .watches
            .iter()
            .map(|watch| watch.feed.overflows())
            .sum::<u64>();
    }
}
