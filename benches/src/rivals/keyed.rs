//! Many keys: who subscribes and leaves, gates on random keys, keys that nobody subscribes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use afterwrite::{Gate, Notice, Registry, Submitted, Subscription};
use crossbeam_utils::CachePadded;
use smol_str::SmolStr;

use super::BUFFER;
use super::reference::{CrossbeamChannel, Reference, Standing};
use crate::input;

/// Subscribe and drop, with others standing.
pub trait Churn: 'static {
    /// Its name in the tables.
    const NAME: &'static str;
    /// One standing subscriber on each of `keys` keys, `each` on each.
    fn new(keys: usize, each: usize) -> Self;
    /// Subscribes to a key and drops the subscription.
    fn cycle(&mut self, key: &str);
    /// Subscribers of a key.
    fn subscribers(&self, key: &str) -> usize;

    /// Shows that a cycle leaves what was there.
    ///
    /// # Panics
    /// If not.
    fn check(&mut self, each: usize) {
        let standing = input::key(0);
        assert_eq!(self.subscribers(&standing), each, "{}", Self::NAME);
        self.cycle(&standing);
        assert_eq!(self.subscribers(&standing), each, "{}", Self::NAME);
        self.cycle("fresh");
        assert_eq!(self.subscribers("fresh"), 0, "{}", Self::NAME);
    }
}

/// Submit to keys that nobody subscribes.
pub trait Miss: Churn {
    /// Submits; whether somebody subscribes.
    fn hits(&mut self, key: &str) -> bool;

    /// Shows that it tells a hit from a miss.
    ///
    /// # Panics
    /// If not.
    fn check_miss(&mut self) {
        assert!(self.hits(&input::key(0)), "{}", Self::NAME);
        assert!(!self.hits("absent"), "{}", Self::NAME);
    }
}

/// Submit a gate that is ready at once, until it is pushed.
pub trait Gated: 'static {
    /// Its name in the tables.
    const NAME: &'static str;
    /// One subscriber on each of `keys` keys, and one worker.
    fn new(keys: usize) -> Self;
    /// Submits to these keys, numbers and names, and waits until all gates have answered.
    fn submit(&mut self, window: &[(usize, SmolStr)]);
    /// Takes what the subscribers of these keys have; how many notices there were.
    fn drain(&mut self, window: &[usize]) -> usize;

    /// Shows that every gate reaches its subscriber once.
    ///
    /// # Panics
    /// If not.
    fn check(&mut self) {
        let window = [0; 8];
        self.submit(&window.map(|key| (key, input::short_key(key))));
        let mut n = 0;
        let begin = Instant::now();
        while n < 8 && begin.elapsed() < Duration::from_secs(10) {
            n += self.drain(&window);
        }
        assert_eq!(n, 8, "{} lost a notice", Self::NAME);
        assert_eq!(self.drain(&window), 0, "{} made a notice up", Self::NAME);
    }
}

/// The most that a window may hold: both systems' queues have room for it.
const QUEUE: usize = 1 << 14;

/// Gates that have answered; counted alike for all, by the gates themselves.
#[derive(Debug)]
struct Answered {
    /// One for each system, which lives as long as the process: a gate can refer to it without cost.
    count: &'static CachePadded<AtomicU64>,
    awaited: u64,
}

impl Answered {
    fn new() -> Self {
        Self {
            count: Box::leak(Box::default()),
            awaited: 0,
        }
    }

    fn gate(&self, value: u64) -> impl FnMut() -> u64 + Send + use<> {
        let count = self.count;
        move || {
            // The one worker alone counts.
            count.store(count.load(Relaxed) + 1, Relaxed);
            value
        }
    }

    /// Waits until so many more have answered. The last push may end a moment later.
    fn wait(&mut self, submitted: usize) {
        self.awaited += submitted as u64;
        while self.count.load(Relaxed) < self.awaited {
            std::thread::yield_now();
        }
    }
}

/// Ours.
#[derive(Debug)]
pub struct AfterwriteKeys {
    registry: Registry<u64>,
    standing: Vec<Subscription<u64>>,
    answered: Answered,
}

impl AfterwriteKeys {
    fn build(keys: usize, each: usize) -> Self {
        let registry = Registry::builder()
            .workers(1)
            .queue_capacity(QUEUE)
            .pending_capacity(QUEUE)
            .pending_per_key(QUEUE)
            .hash_seed(1)
            .build()
            .expect("the settings are in range");
        let standing = input::keys(keys)
            .iter()
            .flat_map(|key| std::iter::repeat_n(key, each))
            .map(|key| registry.subscribe(key).expect("there is no cap"))
            .collect();
        Self {
            registry,
            standing,
            answered: Answered::new(),
        }
    }
}

impl Churn for AfterwriteKeys {
    const NAME: &'static str = "afterwrite";

    fn new(keys: usize, each: usize) -> Self {
        Self::build(keys, each)
    }

    #[inline]
    fn cycle(&mut self, key: &str) {
        drop(self.registry.subscribe(key));
    }

    fn subscribers(&self, key: &str) -> usize {
        self.registry.subscriber_count(key)
    }
}

impl Miss for AfterwriteKeys {
    #[inline]
    fn hits(&mut self, key: &str) -> bool {
        self.registry.submit(key, |_| Some(0)) != Submitted::NoSubscribers
    }
}

impl Gated for AfterwriteKeys {
    const NAME: &'static str = "afterwrite";

    fn new(keys: usize) -> Self {
        Self::build(keys, 1)
    }

    fn submit(&mut self, window: &[(usize, SmolStr)]) {
        for (key, name) in window {
            let mut gate = self.answered.gate(*key as u64);
            let submitted = self.registry.submit(name, move |_| Some(gate()));
            assert_eq!(submitted, Submitted::Queued);
        }
        self.answered.wait(window.len());
    }

    fn drain(&mut self, window: &[usize]) -> usize {
        let mut n = 0;
        for &key in window {
            while let Ok(notice) = self.standing[key].try_recv() {
                assert_eq!(notice, Notice::Changed(key as u64));
                n += 1;
            }
        }
        n
    }
}

/// Ours, in batches of 256.
#[derive(Debug)]
pub struct AfterwriteBatch(AfterwriteKeys);

impl Gated for AfterwriteBatch {
    const NAME: &'static str = "afterwrite, batches of 256";

    fn new(keys: usize) -> Self {
        Self(AfterwriteKeys::build(keys, 1))
    }

    fn submit(&mut self, window: &[(usize, SmolStr)]) {
        for batch in window.chunks(256) {
            let outcome = self
                .0
                .registry
                .submit_batch(batch.iter().map(|(key, name)| {
                    let mut gate = self.0.answered.gate(*key as u64);
                    (name, Gate::read(move |_| Some(gate())))
                }));
            assert_eq!(outcome.queued, batch.len());
        }
        self.0.answered.wait(window.len());
    }

    fn drain(&mut self, window: &[usize]) -> usize {
        self.0.drain(window)
    }
}

/// The reference.
#[derive(Debug)]
pub struct ReferenceKeys {
    reference: Reference<CrossbeamChannel>,
    standing: Vec<Standing<CrossbeamChannel>>,
    answered: Answered,
}

impl ReferenceKeys {
    fn build(keys: usize, each: usize) -> Self {
        let reference = Reference::new(1, QUEUE);
        let standing = input::keys(keys)
            .iter()
            .flat_map(|key| std::iter::repeat_n(key, each))
            .map(|key| reference.subscribe(key, BUFFER))
            .collect();
        Self {
            reference,
            standing,
            answered: Answered::new(),
        }
    }
}

impl Churn for ReferenceKeys {
    const NAME: &'static str = "reference";

    fn new(keys: usize, each: usize) -> Self {
        Self::build(keys, each)
    }

    #[inline]
    fn cycle(&mut self, key: &str) {
        drop(self.reference.subscribe(key, BUFFER));
    }

    fn subscribers(&self, key: &str) -> usize {
        self.reference.subscribers(key)
    }
}

impl Miss for ReferenceKeys {
    #[inline]
    fn hits(&mut self, key: &str) -> bool {
        self.reference.submit(key, || Some(0)).is_some()
    }
}

impl Gated for ReferenceKeys {
    const NAME: &'static str = "reference";

    fn new(keys: usize) -> Self {
        Self::build(keys, 1)
    }

    fn submit(&mut self, window: &[(usize, SmolStr)]) {
        for (key, name) in window {
            let mut gate = self.answered.gate(*key as u64);
            let submitted = self.reference.submit(name, move || Some(gate()));
            assert_eq!(submitted, Some(true));
        }
        self.answered.wait(window.len());
    }

    fn drain(&mut self, window: &[usize]) -> usize {
        let mut n = 0;
        for &key in window {
            while let Some(value) = self.standing[key].receive() {
                assert_eq!(value, key as u64);
                n += 1;
            }
        }
        n
    }
}

/// tokio broadcast senders in a DashMap. It has no gate, no workers and no bound on who waits: it
/// does less.
#[derive(Debug)]
pub struct DashMapOfBroadcasts {
    keys: dashmap::DashMap<String, tokio::sync::broadcast::Sender<u64>, ahash::RandomState>,
    _standing: Vec<tokio::sync::broadcast::Receiver<u64>>,
}

impl Churn for DashMapOfBroadcasts {
    const NAME: &'static str = "DashMap of tokio broadcast";

    fn new(keys: usize, each: usize) -> Self {
        let keys: dashmap::DashMap<_, _, _> = (0..keys)
            .map(|n| (input::key(n), tokio::sync::broadcast::channel(BUFFER).0))
            .collect();
        let standing = keys
            .iter()
            .flat_map(|sender| {
                (0..each)
                    .map(move |_| sender.subscribe())
                    .collect::<Vec<_>>()
            })
            .collect();
        Self {
            keys,
            _standing: standing,
        }
    }

    #[inline]
    fn cycle(&mut self, key: &str) {
        let receiver = match self.keys.get(key) {
            Some(sender) => sender.subscribe(),
            None => self
                .keys
                .entry(key.to_owned())
                .or_insert_with(|| tokio::sync::broadcast::channel(BUFFER).0)
                .subscribe(),
        };
        drop(receiver);
        self.keys
            .remove_if(key, |_, sender| sender.receiver_count() == 0);
    }

    fn subscribers(&self, key: &str) -> usize {
        self.keys
            .get(key)
            .map_or(0, |sender| sender.receiver_count())
    }
}

impl Miss for DashMapOfBroadcasts {
    #[inline]
    fn hits(&mut self, key: &str) -> bool {
        self.keys
            .get(key)
            .is_some_and(|sender| sender.send(0).is_ok())
    }
}
