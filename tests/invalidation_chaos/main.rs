//! I6 to I8 over a network that goes wrong on purpose: fleets of whole nodes, with their threads, watches,
//! caches and loads, over a [`ChaosNet`].
//!
//! # A world
//! Three nodes at two servers; each writes rows of its own and reads everybody's. A round is a storm, a
//! calm, and one last thing that goes wrong as the writing ends: what that left behind is not flushed by
//! the next. Then one node goes down in order, and another takes its place.
//!
//! The seed says what goes wrong, and in which order. Threads run as the machine lets them, so that a seed is
//! the same weather again and not the same run: that is what the protocol's own simulator is for.
//!
//! # The oracle
//! - Whatever is served or loaded as coherent shows every write that was told longer ago than B and what
//!   a busy machine adds to it.
//! - Once nobody has written for as long, all that is served as coherent is what was written last:
//!   no gap has stayed unnoticed.
//! - Without faults nodes are coherent for most of the time.
//! - Who goes down in order says so, and leaves no doubt behind.

#[path = "../support/mod.rs"]
mod support;
mod weather;

use std::io;
use std::sync::Mutex;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;
use std::time::{Duration, Instant};

use afterwrite::bus::{ChaosBus, ChaosCounts, ChaosNet};
use afterwrite::invalidation::cache::{Cache, Entry, Reason, Store, Unfinished};
use afterwrite::invalidation::caches::BoundedMap;
use afterwrite::invalidation::coherent::Coherent;
use afterwrite::invalidation::fence::Coherence;
use afterwrite::invalidation::subject::Entity;
use afterwrite::invalidation::{Farewell, Invalidator, InvalidatorStats, Settings, TICK, Watch};

use support::stage::{Rows, Source, nap, settings};
use weather::{CALM, Dice, LAST, LASTS, Last, ms};

const NODES: usize = 3;
/// Rows of one writer: so many that most rest for longer than B between two writes.
const ROWS: usize = 400;
/// How long a fleet may take until all are coherent.
const JOINING: Duration = Duration::from_secs(10);

/// What is wrong with a world from its beginning, if anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Planted {
    Nothing,
    /// Caches do not do every drop that they are told.
    CarelessCaches,
    /// Nodes wait for one that is not there.
    AlwaysInDoubt,
}

/// A cache, which may be careless.
struct Cup {
    map: BoundedMap<u64>,
    careless: bool,
    drops: AtomicU64,
}

impl Cache for Cup {
    fn remove(&self, id: &str) -> Result<(), Unfinished> {
        let drops = self.drops.fetch_add(1, SeqCst);
        match self.careless && drops.is_multiple_of(10) {
            true => Ok(()),
            false => self.map.remove(id),
        }
    }

    fn clear(&self, reason: Reason) -> Result<(), Unfinished> {
        self.map.clear(reason)
    }
}

impl Store for Cup {
    type Value = u64;

    fn get(&self, id: &str) -> Option<Entry<u64>> {
        self.map.get(id)
    }

    fn insert(&self, id: &str, entry: Entry<u64>) -> Result<(), Unfinished> {
        self.map.insert(id, entry)
    }
}

/// One of the fleet.
struct Member {
    bus: ChaosBus,
    node: Invalidator,
    users: Coherent<Cup>,
    watch: Watch,
}

impl Member {
    fn is_coherent(&self) -> bool {
        self.watch.coherence() == Coherence::Coherent
    }

    /// What the machine has added to B up to now; see `Reader::starved`.
    fn starved(&self) -> Duration {
        self.node.stats().worst_lateness.saturating_sub(TICK)
    }

    fn hears_all(&self) -> bool {
        self.node.stats().publishers == NODES - 1
    }
}

/// What a world has counted.
#[derive(Debug, Default)]
struct Tally {
    writes: u64,
    hits: u64,
    /// Looks without faults, and those at a coherent cache.
    calm: u64,
    coherent: u64,
    gaps: u64,
    doubts: u64,
    joined: u64,
    net: ChaosCounts,
}

struct World {
    net: ChaosNet,
    planted: Planted,
    entity: Entity,
    rows: Rows,
    /// B: within this time of being told, a version is known, or nothing is served as coherent.
    bound: Duration,
    /// No fault is under way, and all have got over the last one.
    calm: AtomicBool,
    resting: AtomicBool,
    over: AtomicBool,
    failure: Mutex<Option<String>>,
    writes: AtomicU64,
    hits: AtomicU64,
    looks_in_calm: AtomicU64,
    coherent_in_calm: AtomicU64,
}

type Outcome<T = ()> = Result<T, String>;

impl World {
    fn new(seed: u64, planted: Planted) -> Self {
        Self {
            net: ChaosNet::with_servers(seed, 2),
            planted,
            entity: Entity::new("user").unwrap(),
            rows: Rows::of(NODES * ROWS),
            bound: Self::settings("any").bound(),
            calm: AtomicBool::new(false),
            resting: AtomicBool::new(false),
            over: AtomicBool::new(false),
            failure: Mutex::default(),
            writes: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            looks_in_calm: AtomicU64::new(0),
            coherent_in_calm: AtomicU64::new(0),
        }
    }

    fn settings(name: &str) -> Settings {
        settings(name).e_max(ms(200)).outbox_capacity(32)
    }

    /// A new node, at one server or the other.
    fn member(&self, place: usize, life: usize) -> Member {
        let bus = self.net.bus_at(self.net.server(place % 2));
        self.mend(&bus);
        // Little room, so that queues run over.
        self.net.set_capacity(bus.node(), 64, 32);
        let mut settings = Self::settings(&format!("{place}-{life}"));
        if self.planted == Planted::AlwaysInDoubt {
            settings = settings.expect(["nobody"]);
        }
        let node = Invalidator::new(bus.clone(), settings).unwrap();
        let users = Coherent::new(Cup {
            map: BoundedMap::new(NODES * ROWS),
            careless: self.planted == Planted::CarelessCaches,
            drops: AtomicU64::new(0),
        });
        // Some drop on the thread that receives, some on one of their own.
        let watch = match place {
            0 => node.watch(&self.entity, &users),
            _ => node.watch_inline(&self.entity, &users),
        };
        let watch = watch.unwrap();
        Member {
            bus,
            node,
            users,
            watch,
        }
    }

    fn fail(&self, what: String) {
        self.failure.lock().unwrap().get_or_insert(what);
    }

    fn failed(&self) -> bool {
        self.failure.lock().unwrap().is_some()
    }

    fn verdict(&self) -> Outcome {
        match &*self.failure.lock().unwrap() {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    /// Lets the network's time pass with everybody's.
    fn pump(&self) {
        let begun = Instant::now();
        while !self.over.load(SeqCst) {
            self.net.advance_to(begun.elapsed());
            nap(Duration::from_micros(200));
        }
    }

    /// Writes rows of one's own, in each of the ways there are.
    fn scribe(&self, member: &Member, place: usize, mut dice: Dice) {
        let (rows, node, entity) = (&self.rows, &member.node, &self.entity);
        while !self.resting.load(SeqCst) && !self.failed() {
            let id = place * ROWS + dice.index(ROWS);
            let written = match dice.below(1_000) {
                0..600 => {
                    rows.write(node, entity, id);
                    1
                }
                600..998 => {
                    let mut any = || place * ROWS + dice.index(ROWS);
                    let ids = [id, any(), any()];
                    let several = &ids[..1 + dice.index(3)];
                    let told = several.iter().map(|&id| (id, rows.commit(id)));
                    let told: Vec<_> = told.collect();
                    let _ = match *several {
                        [id] => node.emit(entity, &id.to_string()),
                        _ => node.emit_batch(entity, several.iter().map(usize::to_string), None),
                    }
                    .unwrap();
                    told.iter()
                        .for_each(|&(id, version)| rows.tell(id, version));
                    told.len() as u64
                }
                _ => {
                    let version = rows.commit(id);
                    let _ = node.emit_all(entity).unwrap();
                    rows.tell(id, version);
                    1
                }
            };
            self.writes.fetch_add(written, SeqCst);
            nap(Duration::from_micros(3_000 + dice.below(6_000)));
        }
    }

    /// Reads whatever it likes.
    fn reader(&self, member: &Member, mut dice: Dice) {
        while !self.resting.load(SeqCst) && !self.failed() {
            for _ in 0..8 {
                self.look(member, &mut dice);
            }
            nap(Duration::from_micros(100));
        }
    }

    fn look(&self, member: &Member, dice: &mut Dice) {
        let id = dice.index(NODES * ROWS);
        // Taken first, so that time that passes in between excuses more, never less.
        let asked = Instant::now();
        let coherent = member.is_coherent();
        let known = member.users.get(&id.to_string());
        if self.calm.load(SeqCst) {
            self.looks_in_calm.fetch_add(1, SeqCst);
            self.coherent_in_calm.fetch_add(u64::from(coherent), SeqCst);
        }
        let (version, how) = match known {
            Some(version) => {
                self.hits.fetch_add(u64::from(coherent), SeqCst);
                (version, "served")
            }
            None => (self.load(member, id, dice), "loaded"),
        };
        let due = |starved| self.rows.due(id, self.bound + starved, asked);
        let is_old = |due| version.is_none_or(|version| version < due);
        if coherent && is_old(due(Duration::ZERO)) {
            let starved = member.starved();
            let due = due(starved);
            if is_old(due) {
                self.fail(format!(
                    "{how} as coherent, id {id}: version {version:?}, due was {due}, late by {starved:?}"
                ));
            }
        }
    }

    /// Some loads take their time, in which others come, and writes happen.
    fn load(&self, member: &Member, id: usize, dice: &mut Dice) -> Option<u64> {
        let takes = match dice.below(100) {
            0 => ms(30),
            1..20 => Duration::from_micros(dice.below(2_000)),
            _ => Duration::ZERO,
        };
        let load = || {
            let version = self.rows.version(id);
            if !takes.is_zero() {
                nap(takes);
            }
            Ok::<_, io::Error>(Some(version))
        };
        member
            .users
            .get_or_load_blocking(&id.to_string(), load)
            .unwrap()
    }

    /// Waits until everybody hears everybody, and is coherent.
    fn join(&self, members: &[Member]) -> Outcome {
        let begun = Instant::now();
        while !members
            .iter()
            .all(|one| one.is_coherent() && one.hears_all())
        {
            self.verdict()?;
            if begun.elapsed() > JOINING {
                let who = members.iter().find(|one| !one.is_coherent());
                let why = who.map(|one| one.node.suspects(&self.entity));
                return Err(format!("not coherent, though nothing is wrong: {why:?}"));
            }
            nap(ms(2));
        }
        Ok(())
    }

    fn round(&self, members: &[Member], last: Last, dice: &mut Dice) -> Outcome {
        self.resting.store(false, SeqCst);
        let weather: Outcome = thread::scope(|scope| {
            let _rest = Ends(&self.resting);
            for (place, member) in members.iter().enumerate() {
                let mut seed = || Dice(dice.below(1 << 60));
                let (scribe, one, other) = (seed(), seed(), seed());
                scope.spawn(move || self.scribe(member, place, scribe));
                scope.spawn(move || self.reader(member, one));
                scope.spawn(move || self.reader(member, other));
            }
            self.storm(members, dice);
            self.join(members)?;
            self.calm(CALM);
            self.strike_last(members, last, dice);
            nap(LAST);
            Ok(())
        });
        weather?;
        if last == Last::Cut {
            // Only the next beat is left to tell of what was lost.
            self.mend_all(members);
        }
        // So long that whatever was under way has come to nothing.
        nap(self.bound + ms(1_000));
        self.verdict()?;
        members.iter().try_for_each(|one| self.knows_all(one))?;
        self.mend_all(members);
        self.join(members)?;
        members.iter().try_for_each(|one| self.knows_all(one))
    }

    /// Nobody has written for longer than B.
    fn knows_all(&self, member: &Member) -> Outcome {
        for id in 0..NODES * ROWS {
            let last = self.rows.version(id);
            let coherent = member.is_coherent();
            if let (true, Some(served)) = (coherent, member.users.get(&id.to_string()))
                && served != Some(last)
            {
                return Err(format!(
                    "a gap stayed unnoticed, id {id}: {served:?}, not {last}"
                ));
            }
        }
        Ok(())
    }

    /// Goes down in order.
    fn leave(member: Member, tally: &mut Tally) -> Outcome {
        let stats: InvalidatorStats = member.node.stats();
        tally.gaps += stats.gaps;
        tally.doubts += stats.doubts;
        tally.joined += member.users.stats().joined;
        match member.node.close(Duration::from_secs(5)) {
            Farewell::Said => Ok(()),
            other => Err(format!("its goodbye was {other}: {stats:?}")),
        }
    }

    fn rounds(&self, mut dice: Dice) -> Outcome<Tally> {
        let mut tally = Tally::default();
        let mut members: Vec<_> = (0..NODES).map(|place| self.member(place, 0)).collect();
        for (round, last) in LASTS.into_iter().enumerate() {
            self.join(&members)?;
            let failed = |failure| format!("round {round}, {last:?}: {failure}");
            self.round(&members, last, &mut dice).map_err(failed)?;
            // Unless its goodbye is heard, nobody is coherent when the next round begins.
            let place = round % NODES;
            let next = self.member(place, round + 1);
            Self::leave(std::mem::replace(&mut members[place], next), &mut tally)?;
        }
        self.join(&members)?;
        for member in members {
            Self::leave(member, &mut tally)?;
        }
        tally.writes = self.writes.load(SeqCst);
        tally.hits = self.hits.load(SeqCst);
        tally.calm = self.looks_in_calm.load(SeqCst);
        tally.coherent = self.coherent_in_calm.load(SeqCst);
        tally.net = self.net.counts();
        Ok(tally)
    }
}

/// Sets a flag when it is dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Runs a world to its end, or to the first thing that is wrong.
fn run(seed: u64, planted: Planted) -> Outcome<Tally> {
    let world = World::new(seed, planted);
    let ran = thread::scope(|scope| {
        // Set also when something panics: time would never end.
        let _over = Ends(&world.over);
        scope.spawn(|| world.pump());
        world.rounds(Dice(seed))
    });
    ran.map_err(|failure| format!("seed {seed}: {failure}"))
}

#[test]
fn i6_whole_nodes_serve_nothing_stale_whatever_the_network_does() {
    let tallies: Vec<_> = thread::scope(|scope| {
        let worlds: Vec<_> = (1..=4)
            .map(|seed| scope.spawn(move || run(seed, Planted::Nothing)))
            .collect();
        worlds
            .into_iter()
            .map(|world| world.join().unwrap())
            .collect()
    });
    let mut net = ChaosCounts::default();
    for tally in tallies {
        let tally = tally.unwrap_or_else(|failure| panic!("{failure}"));
        println!("{tally:?}");
        assert!(
            tally.writes > 2_000 && tally.hits > tally.writes,
            "{tally:?}"
        );
        assert!(
            tally.gaps > 0 && tally.doubts > 0 && tally.joined > 0,
            "{tally:?}"
        );
        // All the time, if the machine has time.
        assert!(tally.coherent * 4 > tally.calm * 3, "{tally:?}");
        net.lost += tally.net.lost;
        net.duplicated += tally.net.duplicated;
        net.reordered += tally.net.reordered;
        net.partitioned += tally.net.partitioned;
        net.held += tally.net.held;
        net.broken += tally.net.broken;
        net.overflowed += tally.net.overflowed;
        net.disconnects += tally.net.disconnects;
    }
    for n in [net.lost, net.duplicated, net.reordered, net.partitioned] {
        assert!(n > 100, "{net:?}");
    }
    for n in [net.held, net.broken, net.overflowed, net.disconnects] {
        assert!(n > 10, "{net:?}");
    }
}

/// The oracle sees what it is there for.
#[test]
fn i6_a_cache_that_keeps_what_it_should_drop_is_seen() {
    let failure = run(5, Planted::CarelessCaches).unwrap_err();
    println!("{failure}");
    assert!(
        failure.contains("as coherent") || failure.contains("unnoticed"),
        "{failure}"
    );
}

#[test]
fn i7_a_fleet_that_is_always_in_doubt_is_seen() {
    let failure = run(6, Planted::AlwaysInDoubt).unwrap_err();
    println!("{failure}");
    assert!(failure.contains("not coherent"), "{failure}");
}
