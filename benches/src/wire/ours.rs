//! Ours: two nodes, each with a connection of the bus's own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use afterwrite::bus::{Bus, NatsBus};
use afterwrite::invalidation::cache::Invalidation;
use afterwrite::invalidation::fence::Coherence;
use afterwrite::invalidation::subject::{Entity, Prefix};
use afterwrite::invalidation::{Emitted, Invalidator, Settings, Watch};

use tokio::runtime::{Builder, Runtime};

use super::arrivals::Arrivals;
use super::{ENTITY, Pings, Place, SUBJECTS, id};

/// How many emits may be under way: a quarter of what an outbox holds, so that none is merged into an "all".
/// What bounds the bare client is its own queue, and the server's.
const WINDOW: u64 = 16_384;

/// Emits between two turns of others, where emits are made in a task: an emit awaits nothing, so its
/// caller says when.
const TURN: u64 = 256;

/// A node that writes, and one that caches.
#[derive(Debug)]
pub(super) struct Ours {
    writer: Invalidator,
    reader: Invalidator,
    watch: Watch,
    entity: Entity,
    ids: Vec<String>,
    arrivals: Arc<Arrivals>,
    /// Where the writer's bus runs and emits are made, if not on a thread of the bus's own.
    home: Option<Runtime>,
}

impl Ours {
    pub(super) fn new(
        url: &str,
        prefix: &str,
        place: Place,
        write_only: bool,
        plain_peers: bool,
    ) -> Self {
        let start = |name: &str, bus: Arc<dyn Bus>, write_only: bool| {
            let settings = Settings::new(name)
                .prefix(Prefix::new(prefix).expect("it is a prefix"))
                .plain_peers(plain_peers)
                .write_only(write_only);
            Invalidator::start(bus, settings).expect("the settings are in range")
        };
        let home = (place == Place::Runtime).then(|| {
            let home = Builder::new_current_thread().enable_all().build();
            home.expect("a runtime")
        });
        let bus = match &home {
            None => NatsBus::connect_blocking(url),
            Some(home) => {
                let builder = NatsBus::builder().runtime(home.handle().clone());
                home.block_on(builder.connect(url))
            }
        };
        let writer = start("writer", Arc::new(bus.expect("connected")), write_only);
        let bus = NatsBus::connect_blocking(url).expect("connected");
        let reader = start("reader", Arc::new(bus), false);
        let entity = Entity::new(ENTITY).expect("it is a token");
        let arrivals = Arc::new(Arrivals::default());
        let counts = arrivals.clone();
        let watch = reader.watch_inline(&entity, move |what: Invalidation<'_>| {
            if let Invalidation::One(_) = what {
                counts.arrived();
            }
        });
        let ours = Self {
            writer,
            reader,
            watch: watch.expect("nobody else watches"),
            entity,
            ids: (0..SUBJECTS).map(id).collect(),
            arrivals,
            home,
        };
        ours.settle();
        ours
    }

    /// Lets the nodes beat until the reader trusts its cache.
    fn settle(&self) {
        let begun = Instant::now();
        while self.watch.coherence() != Coherence::Coherent {
            assert!(begun.elapsed() < Duration::from_secs(20), "never coherent");
            match &self.home {
                None => std::thread::sleep(Duration::from_millis(10)),
                Some(home) => home.block_on(async {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }),
            }
        }
    }

    /// All arrived one by one, none was found missing.
    fn check(&self) {
        let stats = self.reader.stats();
        assert_eq!(stats.gaps, 0, "{stats:?}");
    }

    fn emit(&self, id: &str) {
        let emitted = self.writer.emit(&self.entity, id).expect("it is open");
        assert_ne!(emitted, Emitted::Collapsed);
    }

    /// Emits `n` one by one as fast as it can; until the last was dropped at the other node.
    pub(super) fn burst(&mut self, n: u64) -> Duration {
        self.settle();
        let ids = || (0..n).zip(self.ids.iter().cycle());
        let before = self.arrivals.count();
        let took = if let Some(home) = &self.home {
            home.block_on(async {
                let sent = self.arrivals.expect(n);
                for (at, id) in ids() {
                    self.emit(id);
                    if at % TURN == TURN - 1 {
                        tokio::task::yield_now().await;
                        if at >= WINDOW {
                            self.arrivals.pass_async(before + at - WINDOW).await;
                        }
                    }
                }
                self.arrivals.wait_async(sent).await
            })
        } else {
            self.arrivals.by_thread();
            let sent = self.arrivals.expect(n);
            for (at, id) in ids() {
                if at % TURN == 0 && at >= WINDOW {
                    self.arrivals.pass(before + at - WINDOW);
                }
                self.emit(id);
            }
            self.arrivals.wait(sent)
        };
        self.check();
        took
    }

    /// As [`burst`](Self::burst), so many batches of so many ids. For a bus on a thread.
    pub(super) fn batches(&mut self, n: u64, batch: usize) -> Duration {
        self.settle();
        self.arrivals.by_thread();
        let before = self.arrivals.count();
        let sent = self.arrivals.expect(n * batch as u64);
        for at in 0..n {
            let so_far = at * batch as u64;
            if so_far >= WINDOW {
                self.arrivals.pass(before + so_far - WINDOW);
            }
            let from = at as usize * batch % (self.ids.len() - batch);
            let ids = &self.ids[from..from + batch];
            let emitted = self.writer.emit_batch(&self.entity, ids, None);
            assert_ne!(emitted.expect("it is open"), Emitted::Collapsed);
        }
        let took = self.arrivals.wait(sent);
        self.check();
        took
    }

    /// One after the other, each dropped at the other node before the next is emitted.
    pub(super) fn pings(&mut self, n: u64) -> Pings {
        self.settle();
        let ids = || self.ids.iter().cycle().take(n as usize);
        let mut pings = Pings::default();
        if let Some(home) = &self.home {
            home.block_on(async {
                for id in ids() {
                    let sent = self.arrivals.expect(1);
                    self.emit(id);
                    pings.note(self.arrivals.wait_async(sent).await);
                }
            });
        } else {
            self.arrivals.by_thread();
            for id in ids() {
                let sent = self.arrivals.expect(1);
                self.emit(id);
                pings.note(self.arrivals.wait(sent));
            }
        }
        self.check();
        pings
    }
}
