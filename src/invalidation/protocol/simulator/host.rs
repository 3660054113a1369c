//! One host: a clock, and the process that runs on it, which is the code that ships.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll};

use parking_lot::Mutex;

use super::net::{Time, entity_of};
use super::rng::Rng;
use super::store::{ENTITIES, Key, MIXED, PLAIN, STAMPED};
use super::world::{MAX_LAG, MAX_RATE, SECOND};
use crate::bus::{Interest, PublishError, Publisher};
use crate::invalidation::cache::{Cache, Reason, Unfinished};
use crate::invalidation::fence::{Clock, Fence, Mark, Stamp};
use crate::invalidation::frame::Incarnation;
use crate::invalidation::outbox::{Outbox, OutboxRules, Ticket};
use crate::invalidation::protocol::{Effects, Micros, Node, OwnMarks, RowId, Rules};
use crate::invalidation::subject::{Address, Entity, IdRef, Prefix, Subject};
use crate::invalidation::target::Target;
use crate::invalidation::watch::{Budget, Feed};

/// A clock that runs a little fast or slow.
#[derive(Debug, Clone)]
pub(super) struct SimClock {
    anchor: (Time, Micros),
    rate_ppm: i64,
}

impl SimClock {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            anchor: (0, rng.range(1_000_000, 1_000_000_000_000)),
            rate_ppm: any_rate(rng),
        }
    }

    pub(super) fn read(&self, now: Time) -> Micros {
        let passed = (now - self.anchor.0) as i64;
        self.anchor.1 + (passed + passed * self.rate_ppm / 1_000_000) as u64
    }

    pub(super) fn change_rate(&mut self, now: Time, rng: &mut Rng) {
        self.anchor = (now, self.read(now));
        self.rate_ppm = any_rate(rng);
    }
}

fn any_rate(rng: &mut Rng) -> i64 {
    rng.range(0, 2 * MAX_RATE + 1) as i64 - MAX_RATE as i64
}

/// The bus's publisher, with what can go wrong before the bus has anything.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) bus: Box<dyn Publisher>,
    pub(super) full: bool,
    /// The next message for this entity is lost.
    pub(super) loses_next: Option<usize>,
}

impl Publisher for Wire {
    fn publish(&mut self, subject: Subject<'_>, payload: &[u8]) -> Result<(), PublishError> {
        if self.full {
            return Err(PublishError::Full);
        }
        if self.loses_next.is_some() && entity_of(subject.as_str()) == self.loses_next {
            self.loses_next = None;
            return Ok(());
        }
        self.bus.publish(subject, payload)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PublishError>> {
        self.bus.poll_ready(cx)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PublishError>> {
        self.bus.poll_flush(cx)
    }
}

/// For how long a drop without a position keeps what a replica shows out of the mixed cache.
const SETTLE: std::time::Duration = std::time::Duration::from_micros(MAX_LAG + SECOND);

/// A cached version.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cached {
    pub(super) stamp: Stamp,
    pub(super) version: u64,
    pub(super) began: Micros,
}

/// The cache under a watch.
#[derive(Debug, Default, Clone)]
pub(super) struct SimCache(pub(super) Arc<Mutex<BTreeMap<String, Cached>>>);

impl Cache for SimCache {
    fn remove(&self, id: &str) -> Result<(), Unfinished> {
        self.0.lock().remove(id);
        Ok(())
    }

    fn clear(&self, _: Reason) -> Result<(), Unfinished> {
        self.0.lock().clear();
        Ok(())
    }
}

/// A watch: a cache, its fence, its feed.
#[derive(Debug)]
pub(super) struct SimWatch {
    pub(super) entity: usize,
    pub(super) cache: SimCache,
    pub(super) fence: Arc<Fence>,
    pub(super) feed: Feed,
    pub(super) queued: bool,
    /// Nobody listens for the cache at present.
    pub(super) ended: bool,
    /// Feeds of earlier watches whose lanes may still hold something.
    pub(super) old: Vec<Feed>,
    /// The lane stands still until then.
    pub(super) slow_until: Time,
    /// Loads under way, by id.
    pub(super) flights: BTreeMap<usize, u64>,
}

/// A load under way.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) watch: usize,
    pub(super) key: Key,
    pub(super) mark: Mark,
    pub(super) began: Micros,
    /// The version that was read, and the position of what it was read from.
    pub(super) read: Option<(u64, u64)>,
    /// Admitted early: only by a mutant.
    pub(super) admitted: Option<Stamp>,
    /// Who waits: when each came, and whether the cache was coherent then.
    pub(super) waiters: Vec<(Time, bool)>,
}

/// A write under a guard.
#[derive(Debug)]
pub(super) struct OpenWrite {
    pub(super) key: Key,
    pub(super) guard: crate::invalidation::outbox::GuardId,
    pub(super) version: Option<u64>,
    pub(super) rolled_back: bool,
}

/// A running process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u64,
    pub(super) began: Time,
    pub(super) incarnation: Incarnation,
    pub(super) node: Node,
    pub(super) outbox: Outbox,
    pub(super) wire: Wire,
    /// The subscription.
    pub(super) interest: Option<Interest>,
    pub(super) own: Arc<OwnMarks>,
    pub(super) rows: Vec<RowId>,
    pub(super) watches: Vec<SimWatch>,
    /// The client's counter: read by the process.
    pub(super) generation: u64,
    /// What the client had counted as lost.
    pub(super) lost: u64,
    /// Since the end began: until when it waits for guards.
    pub(super) closing: Option<Time>,
    pub(super) loads: BTreeMap<u64, Load>,
    pub(super) writes: BTreeMap<u64, OpenWrite>,
    pub(super) next: u64,
    pub(super) tickets: VecDeque<(Incarnation, usize, u64, Arc<Ticket>)>,
    /// Publishers whose beats came, and since when.
    pub(super) known: BTreeMap<Incarnation, Time>,
    pub(super) forked: bool,
}

impl Process {
    /// A process that starts now on a host, whose clock is moved by hand.
    pub(super) fn start(
        (pid, began, host, incarnation): (u64, Time, usize, Incarnation),
        reader: bool,
        now: Micros,
        rules: Rules,
        write_limit: Micros,
        clock: &Arc<AtomicU64>,
        bus: Box<dyn Publisher>,
    ) -> Self {
        let own = Arc::<OwnMarks>::default();
        let mut node = Node::new(rules, incarnation, now, own.clone());
        let mut outbox = Outbox::new(
            OutboxRules {
                prefix: Prefix::default(),
                name: format!("host-{host}").into(),
                reader,
                plain_peers: host.is_multiple_of(2),
                lease: rules.lease,
                write_limit,
                capacity: 12,
                max_entities: 8,
                mutant: rules.mutant,
            },
            incarnation,
            now,
            own.clone(),
        );
        let mut rows = Vec::new();
        for name in ENTITIES {
            let entity = Entity::new(name).unwrap();
            rows.push(node.track(&entity, now).unwrap());
            outbox.topic(&entity).unwrap();
        }
        let lease = std::time::Duration::from_micros(rules.lease);
        let watch = |entity: usize, queued: bool| {
            let cache = SimCache::default();
            let by_hand = Clock::by_hand(clock.clone());
            let settle = match entity {
                MIXED => SETTLE,
                _ => std::time::Duration::ZERO,
            };
            let fence = Arc::new(Fence::new().with_settle(settle).with_clock(by_hand));
            let target = Target::with_fence(fence.clone(), cache.clone());
            let driver = target.attach(lease).unwrap();
            let feed = match queued {
                true => Feed::queued(driver, Budget::new(24), rules.min_flush),
                false => Feed::inline(driver, rules.min_flush),
            };
            SimWatch {
                entity,
                cache,
                fence,
                feed,
                queued,
                ended: false,
                old: Vec::new(),
                slow_until: 0,
                flights: BTreeMap::new(),
            }
        };
        Self {
            pid,
            began,
            incarnation,
            node,
            outbox,
            wire: Wire {
                bus,
                full: false,
                loses_next: None,
            },
            interest: None,
            own,
            rows,
            watches: vec![
                watch(STAMPED, false),
                watch(PLAIN, false),
                watch(PLAIN, true),
                watch(MIXED, false),
            ],
            generation: 0,
            lost: 0,
            closing: None,
            loads: BTreeMap::new(),
            writes: BTreeMap::new(),
            next: 0,
            tickets: VecDeque::new(),
            known: BTreeMap::new(),
            forked: false,
        }
    }

    /// The node, and what carries out its effects.
    pub(super) fn parts(&mut self, now: Micros) -> (&mut Node, Hands<'_>) {
        let hands = Hands {
            now,
            rows: &self.rows,
            watches: &self.watches,
            outbox: &mut self.outbox,
            forked: &mut self.forked,
        };
        (&mut self.node, hands)
    }

    /// Whether an inline watch keeps what a message told it to drop.
    pub(super) fn keeps(&self, address: &Address<'_>) -> bool {
        let Address::One { entity, id } = address else {
            return false;
        };
        let inline = |watch: &&SimWatch| {
            !watch.queued && !watch.ended && ENTITIES[watch.entity] == entity.as_str()
        };
        let mut watches = self.watches.iter().filter(inline);
        watches.any(|watch| watch.cache.0.lock().contains_key(&*id.decode()))
    }

    /// Notes what caches have to be asked for that come later.
    pub(super) fn note_position(&self, entity: usize, position: Option<u64>) {
        if let Some(position) = position {
            let entity = Entity::new(ENTITIES[entity]).unwrap();
            self.own.note_position(&entity, position);
        }
    }

    /// Drops an id in this process' own caches.
    pub(super) fn drop_here(&self, (entity, id): Key, position: Option<u64>) {
        self.note_position(entity, position);
        let name = id_name(id);
        let id = IdRef::new(&name).unwrap();
        let fed = |watch: &&SimWatch| watch.entity == entity && !watch.ended;
        for watch in self.watches.iter().filter(fed) {
            watch.feed.remove_now(id, position);
        }
    }
}

pub(super) fn id_name(id: usize) -> String {
    // One id in three needs an escape.
    match id % 3 {
        0 => format!("id.{id}"),
        _ => format!("id-{id}"),
    }
}

pub(super) fn set(clock: &AtomicU64, now: Micros) {
    clock.store(now * 1_000, SeqCst);
}

/// Carries out what the node wants.
#[derive(Debug)]
pub(super) struct Hands<'a> {
    now: Micros,
    rows: &'a [RowId],
    watches: &'a [SimWatch],
    outbox: &'a mut Outbox,
    forked: &'a mut bool,
}

impl Hands<'_> {
    fn of(&self, row: RowId) -> impl Iterator<Item = &Feed> {
        let entity = self.rows.iter().position(|&known| known == row);
        self.watches
            .iter()
            .filter(move |watch| Some(watch.entity) == entity && !watch.ended)
            .map(|watch| &watch.feed)
    }
}

impl Effects for Hands<'_> {
    fn remove(&mut self, row: RowId, id: IdRef<'_>, position: Option<u64>, age: Option<Micros>) {
        self.of(row).for_each(|feed| {
            feed.remove(id, position, age, self.now);
        });
    }

    fn flush(&mut self, row: RowId, reason: Reason, floor: Option<u64>) {
        self.of(row).for_each(|feed| {
            feed.flush(reason, floor);
        });
    }

    fn doubt(&mut self, row: RowId, _: Reason) {
        self.of(row).for_each(Feed::doubt);
    }

    fn recover(&mut self, row: RowId, reason: Reason, floor: Option<u64>) {
        self.of(row).for_each(|feed| {
            feed.recover(reason, floor, || self.now);
        });
    }

    fn trust_until(&mut self, until: Micros) {
        for watch in self.watches.iter().filter(|watch| !watch.ended) {
            watch.feed.trust(until, self.now, || self.now);
        }
    }

    fn proved(&mut self, sent: Micros) {
        self.outbox.expire(sent);
    }

    fn returned(&mut self, entity: &str, sequence: u64) {
        self.outbox.returned(entity, sequence);
    }

    fn tracked(&mut self, _: RowId, _: &Entity) {}

    fn forked(&mut self) {
        *self.forked = true;
    }
}
