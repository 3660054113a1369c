//! The lock-based registry of the common design, in Rust: what "the reference" is everywhere.
//!
//! One read-write lock over `key -> id -> channel`; four workers with a bounded queue each, a key
//! always to the same one; a worker asks a gate and *sleeps* between two reads; a push takes the lock
//! for reading and sends to every channel that has room. Its parts are good ones (parking_lot's lock,
//! ahash, crossbeam's or tokio's channel), so what it loses it loses by its design.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use ahash::RandomState;
use parking_lot::RwLock;

/// A bounded channel of `u64`.
pub trait Channel: Send + Sync + 'static {
    /// Its sending half.
    type Sender: Send + Sync + 'static;
    /// Its receiving half.
    type Receiver: Send + 'static;
    /// A channel with this much room.
    fn new(capacity: usize) -> (Self::Sender, Self::Receiver);
    /// Sends, unless the channel is full.
    fn send(sender: &Self::Sender, value: u64) -> bool;
    /// Takes a value, if there is one.
    fn receive(receiver: &mut Self::Receiver) -> Option<u64>;
}

/// crossbeam's bounded channel: the fastest of those that block a thread.
#[derive(Debug)]
pub struct CrossbeamChannel;

impl Channel for CrossbeamChannel {
    type Sender = crossbeam_channel::Sender<u64>;
    type Receiver = crossbeam_channel::Receiver<u64>;

    fn new(capacity: usize) -> (Self::Sender, Self::Receiver) {
        crossbeam_channel::bounded(capacity)
    }

    #[inline]
    fn send(sender: &Self::Sender, value: u64) -> bool {
        sender.try_send(value).is_ok()
    }

    #[inline]
    fn receive(receiver: &mut Self::Receiver) -> Option<u64> {
        receiver.try_recv().ok()
    }
}

/// tokio's bounded channel: for those who receive in a task.
#[derive(Debug)]
pub struct TokioChannel;

impl Channel for TokioChannel {
    type Sender = tokio::sync::mpsc::Sender<u64>;
    type Receiver = tokio::sync::mpsc::Receiver<u64>;

    fn new(capacity: usize) -> (Self::Sender, Self::Receiver) {
        tokio::sync::mpsc::channel(capacity)
    }

    #[inline]
    fn send(sender: &Self::Sender, value: u64) -> bool {
        sender.try_send(value).is_ok()
    }

    #[inline]
    fn receive(receiver: &mut Self::Receiver) -> Option<u64> {
        receiver.try_recv().ok()
    }
}

type Subscribers<C> = HashMap<u64, <C as Channel>::Sender, RandomState>;
type Gate = Box<dyn FnMut() -> Option<u64> + Send>;

struct Shared<C: Channel> {
    keys: RwLock<HashMap<String, Subscribers<C>, RandomState>>,
    hasher: RandomState,
    next_id: AtomicU64,
    /// Sends that found a channel full.
    full: AtomicU64,
}

impl<C: Channel> Shared<C> {
    fn push(&self, key: &str, value: u64) -> usize {
        let keys = self.keys.read();
        let Some(subscribers) = keys.get(key) else {
            return 0;
        };
        let mut reached = 0;
        for sender in subscribers.values() {
            reached += usize::from(C::send(sender, value));
        }
        let full = subscribers.len() - reached;
        if full > 0 {
            self.full.fetch_add(full as u64, Relaxed);
        }
        reached
    }
}

/// How often a worker asks a gate, and how long it sleeps in between: 26 reads in 5.2 s.
const READS: u32 = 26;
const WAIT: Duration = Duration::from_millis(200);

/// The reference's registry.
pub struct Reference<C: Channel> {
    shared: Arc<Shared<C>>,
    workers: Vec<crossbeam_channel::Sender<(String, Gate)>>,
    threads: Vec<JoinHandle<()>>,
}

impl<C: Channel> std::fmt::Debug for Reference<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reference").finish_non_exhaustive()
    }
}

impl<C: Channel> Reference<C> {
    /// With this many workers, whose queues hold this many jobs.
    #[must_use]
    pub fn new(workers: usize, queue: usize) -> Self {
        let hasher = RandomState::with_seeds(1, 2, 3, 4);
        let shared = Arc::new(Shared::<C> {
            keys: RwLock::new(HashMap::with_hasher(hasher.clone())),
            hasher,
            next_id: AtomicU64::new(0),
            full: AtomicU64::new(0),
        });
        let (workers, threads) = (0..workers)
            .map(|_| {
                let (sender, jobs) = crossbeam_channel::bounded::<(String, Gate)>(queue);
                let shared = shared.clone();
                let thread = std::thread::spawn(move || {
                    for (key, mut gate) in jobs {
                        for read in 1..=READS {
                            if let Some(value) = gate() {
                                shared.push(&key, value);
                                break;
                            }
                            if read < READS {
                                std::thread::sleep(WAIT);
                            }
                        }
                    }
                });
                (sender, thread)
            })
            .unzip();
        Self {
            shared,
            workers,
            threads,
        }
    }

    /// Subscribes; dropping what it returns unsubscribes.
    #[must_use]
    pub fn subscribe(&self, key: &str, buffer: usize) -> Standing<C> {
        let (sender, receiver) = C::new(buffer);
        let id = self.shared.next_id.fetch_add(1, Relaxed);
        let mut keys = self.shared.keys.write();
        match keys.get_mut(key) {
            Some(subscribers) => {
                subscribers.insert(id, sender);
            }
            None => {
                let mut subscribers = HashMap::with_hasher(self.shared.hasher.clone());
                subscribers.insert(id, sender);
                keys.insert(key.to_owned(), subscribers);
            }
        }
        drop(keys);
        Standing {
            shared: self.shared.clone(),
            key: key.to_owned(),
            id,
            receiver,
        }
    }

    /// Hands a gate to the key's worker: `Some(true)` if it has it, `Some(false)` if its queue is
    /// full, `None` if nobody subscribes.
    pub fn submit<F>(&self, key: &str, gate: F) -> Option<bool>
    where
        F: FnMut() -> Option<u64> + Send + 'static,
    {
        if !self.shared.keys.read().contains_key(key) {
            return None;
        }
        let worker = self.shared.hasher.hash_one(key) as usize % self.workers.len();
        Some(
            self.workers[worker]
                .try_send((key.to_owned(), Box::new(gate)))
                .is_ok(),
        )
    }

    /// Sends to all subscribers of a key on the calling thread; how many had room.
    #[inline]
    pub fn push(&self, key: &str, value: u64) -> usize {
        self.shared.push(key, value)
    }

    /// Sends that found a channel full.
    #[must_use]
    pub fn full(&self) -> u64 {
        self.shared.full.load(Relaxed)
    }

    /// Subscribers of a key.
    #[must_use]
    pub fn subscribers(&self, key: &str) -> usize {
        self.shared.keys.read().get(key).map_or(0, HashMap::len)
    }
}

impl<C: Channel> Drop for Reference<C> {
    fn drop(&mut self) {
        self.workers.clear();
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// A subscription of the reference.
pub struct Standing<C: Channel> {
    shared: Arc<Shared<C>>,
    key: String,
    id: u64,
    /// Where its values arrive.
    pub receiver: C::Receiver,
}

impl<C: Channel> std::fmt::Debug for Standing<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Standing").field(&self.key).finish()
    }
}

impl<C: Channel> Standing<C> {
    /// Takes a value, if there is one.
    #[inline]
    pub fn receive(&mut self) -> Option<u64> {
        C::receive(&mut self.receiver)
    }
}

impl<C: Channel> Drop for Standing<C> {
    fn drop(&mut self) {
        let mut keys = self.shared.keys.write();
        if let Some(subscribers) = keys.get_mut(&self.key) {
            subscribers.remove(&self.id);
            if subscribers.is_empty() {
                keys.remove(&self.key);
            }
        }
    }
}
