//! I6 over a real nats-server that is killed and stopped: nothing stale is served as coherent.
#![cfg(feature = "nats")]

mod support;

use std::collections::VecDeque;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use afterwrite::invalidation::caches::BoundedMap;
use afterwrite::invalidation::coherent::Coherent;
use afterwrite::invalidation::fence::Coherence;
use afterwrite::invalidation::subject::Entity;
use afterwrite::invalidation::{Invalidator, Settings, Watch, Why};
use support::nats::{connect_with, eager};
use support::server::NatsServer;

const IDS: usize = 16;
/// What a machine that does much else besides may add to the deadline thread's delay.
const BUSY: Duration = Duration::from_millis(1_000);

fn settings(name: &str) -> Settings {
    Settings::new(name)
        .beat(Duration::from_millis(100))
        .lease(Duration::from_millis(600))
        .min_flush(Duration::from_millis(1))
}

fn nap(span: Duration) {
    let (_keep, never) = channel::<()>();
    let _ = never.recv_timeout(span);
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        nap(Duration::from_millis(2));
    }
}

/// The rows, and when each version of them was told.
#[derive(Default)]
struct Rows {
    versions: [AtomicU64; IDS],
    told: [Mutex<VecDeque<(Instant, u64)>>; IDS],
}

impl Rows {
    fn write(&self, node: &Invalidator, entity: &Entity, id: usize) {
        // One writer: what it adds to, nobody else changes.
        let writing = node.writing(entity, &id.to_string()).unwrap();
        let version = self.versions[id].fetch_add(1, SeqCst) + 1;
        let _ = writing.committed().unwrap();
        let mut told = self.told[id].lock().unwrap();
        told.push_back((Instant::now(), version));
        if told.len() > 4_096 {
            told.pop_front();
        }
    }

    /// The version that everybody has to know at `now`.
    fn due(&self, id: usize, now: Instant, bound: Duration) -> u64 {
        let told = self.told[id].lock().unwrap();
        let old = told.iter().rev().find(|(at, _)| *at + bound < now);
        old.map_or(0, |&(_, version)| version)
    }
}

struct Stage {
    server: NatsServer,
    rows: Arc<Rows>,
    writer: Invalidator,
    reader: Invalidator,
    users: Coherent<BoundedMap<u64>>,
    watch: Watch,
    entity: Entity,
}

impl Stage {
    fn new() -> Self {
        let server = NatsServer::start();
        let entity = Entity::new("user").unwrap();
        let start =
            |name| Invalidator::new(connect_with(&server, eager()), settings(name)).unwrap();
        let (writer, reader) = (start("writer"), start("reader"));
        let users = Coherent::new(BoundedMap::new(1_000));
        let watch = reader.watch_inline(&entity, &users).unwrap();
        let stage = Self {
            server,
            rows: Arc::default(),
            writer,
            reader,
            users,
            watch,
            entity,
        };
        stage.wait_until_coherent();
        stage
    }

    fn wait_until_coherent(&self) {
        eventually("the reader is coherent", || {
            self.watch.coherence() == Coherence::Coherent && self.reader.stats().publishers == 1
        });
    }

    fn load(&self, id: usize) -> u64 {
        let rows = self.rows.clone();
        let load = move || Ok::<_, std::io::Error>(Some(rows.versions[id].load(SeqCst)));
        let loaded = self.users.get_or_load_blocking(&id.to_string(), load);
        loaded.unwrap().unwrap()
    }

    /// Looks at one id; says whether it was served as coherent.
    fn look(&self, id: usize) -> bool {
        let bound = self.reader.settings().bound() + BUSY;
        let now = Instant::now();
        let due = self.rows.due(id, now, bound);
        let coherent = self.watch.coherence() == Coherence::Coherent;
        if let (true, Some(Some(version))) = (coherent, self.users.get(&id.to_string())) {
            assert!(version >= due, "id {id}: version {version}, due was {due}");
            return true;
        }
        self.load(id);
        false
    }
}

#[test]
fn i6_no_gap_goes_unnoticed_when_the_server_is_killed_while_writing() {
    let kills = std::env::var("AFTERWRITE_KILLS").map_or(8, |n| n.parse().unwrap());
    let mut stage = Stage::new();
    let (writing, over) = (
        Arc::new(AtomicBool::new(true)),
        Arc::new(AtomicBool::new(false)),
    );
    let writer = {
        let (rows, node, entity) = (
            stage.rows.clone(),
            stage.writer.clone(),
            stage.entity.clone(),
        );
        let (writing, over) = (writing.clone(), over.clone());
        thread::spawn(move || {
            let mut n = 0usize;
            while !over.load(SeqCst) {
                if writing.load(SeqCst) {
                    rows.write(&node, &entity, n * 7 % IDS);
                    n += 1;
                }
                nap(Duration::from_micros(200));
            }
            n
        })
    };
    let (mut looks, mut coherent) = (0, 0);
    for kill in 0..kills {
        let until = Instant::now() + Duration::from_millis(150 + 37 * (kill % 5));
        while Instant::now() < until {
            looks += 1;
            coherent += usize::from(stage.look(looks % IDS));
            nap(Duration::from_micros(50));
        }
        stage.server.kill();
        let until = Instant::now() + Duration::from_millis(20 + 90 * (kill % 3));
        while Instant::now() < until {
            stage.look(kill as usize % IDS);
            nap(Duration::from_micros(50));
        }
        stage.server.restart();
        stage.wait_until_coherent();
        // Once all is quiet, what is served as coherent is what was written last.
        writing.store(false, SeqCst);
        nap(stage.reader.settings().bound());
        stage.wait_until_coherent();
        for id in 0..IDS {
            let served = stage.users.get(&id.to_string()).flatten();
            let last = stage.rows.versions[id].load(SeqCst);
            if stage.watch.coherence() == Coherence::Coherent {
                assert!(
                    served.is_none_or(|served| served == last),
                    "id {id}: {served:?}, {last}"
                );
            }
            stage.load(id);
        }
        writing.store(true, SeqCst);
    }
    over.store(true, SeqCst);
    let writes = writer.join().unwrap();
    let (told, heard) = (stage.writer.stats(), stage.reader.stats());
    println!("{kills} kills, {writes} writes, {coherent} coherent looks, {told:?}, {heard:?}");
    assert!(writes > 0 && coherent > 0);
    assert!(heard.doubts >= kills, "{heard:?}");
}

#[test]
fn i6_a_server_that_stands_still_is_noticed_within_the_bound() {
    let stage = Stage::new();
    let bound = stage.reader.settings().bound() + BUSY;
    for _ in 0..3 {
        stage.rows.write(&stage.writer, &stage.entity, 1);
        stage.load(1);
        stage.server.stop();
        let stopped = Instant::now();
        stage.rows.write(&stage.writer, &stage.entity, 1);
        while stage.watch.coherence() == Coherence::Coherent {
            assert!(stopped.elapsed() < bound, "still coherent");
            nap(Duration::from_millis(1));
        }
        let suspects = stage.reader.suspects(&stage.entity);
        assert!(
            suspects
                .iter()
                .any(|s| matches!(s.why, Why::OwnPath | Why::Silent)),
            "{suspects:?}"
        );
        stage.server.go_on();
        stage.wait_until_coherent();
        let last = stage.rows.versions[1].load(SeqCst);
        eventually("the write is known", || stage.load(1) == last);
    }
}
