//! I6 on a stage: rows, one who writes them, one who caches them, and an oracle that knows which
//! version everybody has to know by now.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use afterwrite::bus::Bus;
use afterwrite::invalidation::caches::BoundedMap;
use afterwrite::invalidation::coherent::Coherent;
use afterwrite::invalidation::fence::Coherence;
use afterwrite::invalidation::subject::Entity;
use afterwrite::invalidation::{EmitError, Emitted, Invalidator, Settings, TICK, Watch, Why};

pub const IDS: usize = 16;

/// Quick, so that a lease ends within a test.
pub fn settings(name: &str) -> Settings {
    Settings::new(name)
        .beat(Duration::from_millis(100))
        .lease(Duration::from_millis(600))
        .min_flush(Duration::from_millis(1))
}

/// Lets time pass.
pub fn nap(span: Duration) {
    let (_keep, never) = channel::<()>();
    let _ = never.recv_timeout(span);
}

/// Waits until something holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        nap(Duration::from_millis(2));
    }
}

/// Where the truth is.
pub trait Source: Send + Sync + 'static {
    /// What a load reads now.
    fn version(&self, id: usize) -> u64;

    /// The newest version that was told more than `age` before that moment.
    fn due(&self, id: usize, age: Duration, at: Instant) -> u64;
}

/// The rows, and when each version of them was told.
pub struct Rows {
    versions: Vec<AtomicU64>,
    told: Vec<Mutex<VecDeque<(Instant, u64)>>>,
}

impl Default for Rows {
    fn default() -> Self {
        Self::of(IDS)
    }
}

impl Rows {
    /// So many of them.
    pub fn of(ids: usize) -> Self {
        Self {
            versions: (0..ids).map(|_| AtomicU64::default()).collect(),
            told: (0..ids).map(|_| Mutex::default()).collect(),
        }
    }

    /// For one writer: what it adds to, nobody else changes.
    pub fn write(&self, node: &Invalidator, entity: &Entity, id: usize) {
        let writing = node.writing(entity, &id.to_string()).unwrap();
        let version = self.commit(id);
        let _ = writing.committed().unwrap();
        self.tell(id, version);
    }

    /// Writes without a guard, which might be refused; and says what became of the emit.
    pub fn write_bare(
        &self,
        node: &Invalidator,
        entity: &Entity,
        id: usize,
    ) -> Result<Emitted, EmitError> {
        let version = self.commit(id);
        let emitted = node.emit(entity, &id.to_string());
        self.tell(id, version);
        emitted
    }

    /// Makes the next version of a row.
    pub fn commit(&self, id: usize) -> u64 {
        self.versions[id].fetch_add(1, SeqCst) + 1
    }

    /// From now on, everybody has to hear of this version.
    pub fn tell(&self, id: usize, version: u64) {
        let mut told = self.told[id].lock().unwrap();
        told.push_back((Instant::now(), version));
        if told.len() > 4_096 {
            told.pop_front();
        }
    }
}

impl Source for Rows {
    fn version(&self, id: usize) -> u64 {
        self.versions[id].load(SeqCst)
    }

    fn due(&self, id: usize, age: Duration, at: Instant) -> u64 {
        let told = self.told[id].lock().unwrap();
        let old = told.iter().rev().find(|(then, _)| *then + age < at);
        old.map_or(0, |&(_, version)| version)
    }
}

/// A node with a cache, which looks at what it serves.
pub struct Reader {
    pub node: Invalidator,
    pub users: Coherent<BoundedMap<u64>>,
    pub watch: Watch,
    pub entity: Entity,
    source: Arc<dyn Source>,
    turn: AtomicUsize,
    /// Late deadlines that are accounted for otherwise.
    known_late: AtomicU64,
}

impl Reader {
    pub fn new(bus: impl Bus, settings: Settings, source: Arc<dyn Source>) -> Self {
        let node = Invalidator::new(bus, settings).unwrap();
        let users = Coherent::new(BoundedMap::new(1_000));
        let entity = Entity::new("user").unwrap();
        let watch = node.watch_inline(&entity, &users).unwrap();
        Self {
            node,
            users,
            watch,
            entity,
            source,
            turn: AtomicUsize::new(0),
            known_late: AtomicU64::new(0),
        }
    }

    pub fn is_coherent(&self) -> bool {
        self.watch.coherence() == Coherence::Coherent
    }

    /// B: within this time of being told, a version is known here, or nothing is served as coherent.
    pub fn bound(&self) -> Duration {
        self.node.settings().bound()
    }

    /// So long that whatever was under way when something broke has come to nothing.
    pub fn a_spell(&self) -> Duration {
        self.bound() + Duration::from_secs(1)
    }

    /// What the machine has added to B up to now: by how much more than its tick the thread that ends
    /// leases was late at most. Asked after the fact that it is to excuse.
    pub fn starved(&self) -> Duration {
        let stats = self.node.stats();
        if stats.late_deadlines == self.known_late.load(SeqCst) {
            return Duration::ZERO;
        }
        stats.worst_lateness.saturating_sub(TICK)
    }

    /// Whatever was late up to now excuses nothing that follows.
    pub fn forget_lateness(&self) {
        self.known_late
            .store(self.node.stats().late_deadlines, SeqCst);
    }

    pub fn load(&self, id: usize) -> u64 {
        let source = self.source.clone();
        let load = move || Ok::<_, io::Error>(Some(source.version(id)));
        let loaded = self.users.get_or_load_blocking(&id.to_string(), load);
        loaded.unwrap().unwrap()
    }

    /// Looks at one id; says whether it was served as coherent. Fails if it then is older than it
    /// may be.
    pub fn look(&self, id: usize) -> bool {
        self.look_as_of(id, Instant::now())
    }

    /// The same, of a moment ago: what was due then has to be known. Time that passes in between
    /// excuses more, never less.
    pub fn look_as_of(&self, id: usize, asked: Instant) -> bool {
        let coherent = self.is_coherent();
        if let (true, Some(Some(version))) = (coherent, self.users.get(&id.to_string())) {
            let due = |starved| self.source.due(id, self.bound() + starved, asked);
            if version < due(Duration::ZERO) {
                let starved = self.starved();
                let due = due(starved);
                assert!(
                    version >= due,
                    "id {id}: version {version}, due was {due}, late by {starved:?}"
                );
            }
            return true;
        }
        self.load(id);
        false
    }

    /// Looks at the next id.
    pub fn look_on(&self) -> bool {
        let seen = self.look(self.turn.fetch_add(1, SeqCst) % IDS);
        nap(Duration::from_micros(100));
        seen
    }

    /// Looks for so long; says how often something was served as coherent.
    pub fn look_for(&self, span: Duration) -> usize {
        let until = Instant::now() + span;
        let mut coherent = 0;
        while Instant::now() < until {
            coherent += usize::from(self.look_on());
        }
        coherent
    }

    /// Looks until something holds.
    pub fn look_until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        eventually(what, || {
            self.look_on();
            holds()
        });
    }

    /// Looks until it is coherent, with a publisher that it hears.
    pub fn look_until_coherent(&self) {
        self.look_until("the reader is coherent", || {
            self.is_coherent() && self.node.stats().publishers > 0
        });
    }

    /// Looks until it doubts, which has to be in time: what it might miss, it might miss from
    /// `since` on.
    pub fn look_until_in_doubt(&self, since: Instant) {
        loop {
            let past = since.elapsed();
            if !self.is_coherent() {
                return;
            }
            if past >= self.bound() {
                let starved = self.starved();
                assert!(
                    past < self.bound() + starved,
                    "still coherent after {past:?}, late by {starved:?}"
                );
            }
            self.look_on();
        }
    }

    /// Looks for so long, and finds nothing served as coherent.
    pub fn stays_in_doubt(&self, span: Duration) {
        let coherent = self.look_for(span);
        assert_eq!(coherent, 0, "{:?}", self.node.stats());
    }

    /// Nobody writes. Once B has passed, what is served as coherent is what was written last, and
    /// after a load it is served.
    pub fn serves_the_last_once_quiet(&self) {
        nap(self.bound());
        self.look_until_coherent();
        for id in 0..IDS {
            let last = self.source.version(id);
            if self.is_coherent()
                && let Some(served) = self.users.get(&id.to_string())
            {
                assert_eq!(served, Some(last), "id {id}");
            }
            self.load(id);
        }
    }

    /// Looks until all that was written is known. Nobody writes meanwhile.
    pub fn settles(&self) {
        self.look_until("all is known", || {
            let known = |id| self.load(id) == self.source.version(id);
            self.is_coherent() && (0..IDS).all(known)
        });
    }

    /// Whether one of these is what is wrong.
    pub fn suspects(&self, whys: &[Why]) -> bool {
        let suspects = self.node.suspects(&self.entity);
        suspects.iter().any(|suspect| whys.contains(&suspect.why))
    }
}

/// One who writes and one who reads, each with a bus of its own.
pub struct Stage {
    pub rows: Arc<Rows>,
    pub writer: Invalidator,
    pub reader: Reader,
}

impl Stage {
    /// Returns once the reader is coherent.
    pub fn new(writer: impl Bus, reader: impl Bus) -> Self {
        Self::with(writer, reader, |settings| settings)
    }

    /// With other settings than the usual ones.
    pub fn with(writer: impl Bus, reader: impl Bus, change: impl Fn(Settings) -> Settings) -> Self {
        let stage = Self::begin(writer, reader, change);
        stage.reader.look_until_coherent();
        stage
    }

    /// Returns at once.
    pub fn begin(
        writer: impl Bus,
        reader: impl Bus,
        change: impl Fn(Settings) -> Settings,
    ) -> Self {
        let rows = Arc::<Rows>::default();
        let writer = Invalidator::new(writer, change(settings("writer"))).unwrap();
        let reader = Reader::new(reader, change(settings("reader")), rows.clone());
        Self {
            rows,
            writer,
            reader,
        }
    }

    pub fn write(&self, id: usize) {
        self.rows.write(&self.writer, &self.reader.entity, id);
    }

    /// Writes without a guard, and says what became of the emit.
    pub fn write_bare(&self, id: usize) -> Result<Emitted, EmitError> {
        self.rows.write_bare(&self.writer, &self.reader.entity, id)
    }

    /// Writes one id after the other on a thread of its own, with a pause after each.
    pub fn keep_writing(&self, pause: Duration) -> Scribe {
        let state = Arc::new(Mutex::new(Pen::Writes));
        let (rows, node) = (self.rows.clone(), self.writer.clone());
        let (entity, pen) = (self.reader.entity.clone(), state.clone());
        let thread = thread::spawn(move || {
            let mut n = 0;
            loop {
                let pen = pen.lock().unwrap();
                match *pen {
                    Pen::Writes => {
                        rows.write(&node, &entity, n * 7 % IDS);
                        n += 1;
                    }
                    Pen::Rests => {}
                    Pen::Over => return n,
                }
                drop(pen);
                nap(pause);
            }
        });
        Scribe { state, thread }
    }
}

enum Pen {
    Writes,
    Rests,
    Over,
}

/// Writes until told otherwise.
#[must_use]
pub struct Scribe {
    state: Arc<Mutex<Pen>>,
    thread: JoinHandle<usize>,
}

impl Scribe {
    /// Returns when no write is under way.
    pub fn rest(&self) {
        *self.state.lock().unwrap() = Pen::Rests;
    }

    pub fn go_on(&self) {
        *self.state.lock().unwrap() = Pen::Writes;
    }

    /// Says how many writes there were.
    pub fn end(self) -> usize {
        *self.state.lock().unwrap() = Pen::Over;
        self.thread.join().unwrap()
    }
}
