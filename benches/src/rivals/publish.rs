//! One key among many, one receiver: publish and receive.

use afterwrite::{Key, Notice, Registry, Subscription};

use super::BUFFER;
use super::reference::{CrossbeamChannel, Reference, Standing};

/// Keys that stand beside the one that is published to, where there is a map.
const OTHERS: usize = 1_000;
const HOT: &str = "order/0000500";

/// A push to one receiver with room, and its receive.
pub trait Publish: 'static {
    /// Its name in the tables.
    const NAME: &'static str;
    /// Whether it keeps every value (tokio's `watch` keeps the latest).
    const KEEPS_ALL: bool = true;
    /// One receiver of one key.
    fn new() -> Self;
    /// Sends.
    fn publish(&mut self, value: u64);
    /// Takes a value, if there is one.
    fn receive(&mut self) -> Option<u64>;

    /// Shows that every value arrives once, in order.
    ///
    /// # Panics
    /// If not.
    fn check(&mut self) {
        self.publish(3);
        assert_eq!(self.receive(), Some(3), "{} lost a value", Self::NAME);
        self.publish(5);
        self.publish(7);
        if Self::KEEPS_ALL {
            assert_eq!(self.receive(), Some(5), "{} is out of order", Self::NAME);
        }
        assert_eq!(self.receive(), Some(7), "{} is out of order", Self::NAME);
        assert_eq!(self.receive(), None, "{} made a value up", Self::NAME);
    }
}

fn registry() -> (Registry<u64>, Vec<Subscription<u64>>, Subscription<u64>) {
    let registry = Registry::builder()
        .workers(1)
        .hash_seed(1)
        .build()
        .expect("the settings are in range");
    let subscribe = |key: &str| registry.subscribe(key).expect("there is no cap");
    let others = (0..OTHERS)
        .map(crate::input::key)
        .filter(|key| key != HOT)
        .map(|key| subscribe(&key))
        .collect();
    let hot = subscribe(HOT);
    (registry, others, hot)
}

#[inline]
fn take(subscription: &mut Subscription<u64>) -> Option<u64> {
    match subscription.try_recv() {
        Ok(Notice::Changed(value)) => Some(value),
        _ => None,
    }
}

/// Ours, looked up by key each time.
#[derive(Debug)]
pub struct AfterwriteKey {
    registry: Registry<u64>,
    _others: Vec<Subscription<u64>>,
    hot: Subscription<u64>,
}

impl Publish for AfterwriteKey {
    const NAME: &'static str = "afterwrite, by key";

    fn new() -> Self {
        let (registry, others, hot) = registry();
        Self {
            registry,
            _others: others,
            hot,
        }
    }

    #[inline]
    fn publish(&mut self, value: u64) {
        let _ = self.registry.publish(HOT, value);
    }

    #[inline]
    fn receive(&mut self) -> Option<u64> {
        take(&mut self.hot)
    }
}

/// Ours, through a resolved key.
#[derive(Debug)]
pub struct AfterwriteHandle {
    key: Key<u64>,
    rest: AfterwriteKey,
}

impl Publish for AfterwriteHandle {
    const NAME: &'static str = "afterwrite, resolved";

    fn new() -> Self {
        let rest = AfterwriteKey::new();
        Self {
            key: rest.registry.key(HOT).expect("the key is valid"),
            rest,
        }
    }

    #[inline]
    fn publish(&mut self, value: u64) {
        let _ = self.key.publish(value);
    }

    #[inline]
    fn receive(&mut self) -> Option<u64> {
        take(&mut self.rest.hot)
    }
}

/// The reference, which has no way to resolve a key.
#[derive(Debug)]
pub struct ReferenceKey {
    reference: Reference<CrossbeamChannel>,
    _others: Vec<Standing<CrossbeamChannel>>,
    hot: Standing<CrossbeamChannel>,
}

impl Publish for ReferenceKey {
    const NAME: &'static str = "reference";

    fn new() -> Self {
        let reference = Reference::new(1, 64);
        let others = (0..OTHERS)
            .map(crate::input::key)
            .filter(|key| key != HOT)
            .map(|key| reference.subscribe(&key, BUFFER))
            .collect();
        Self {
            _others: others,
            hot: reference.subscribe(HOT, BUFFER),
            reference,
        }
    }

    #[inline]
    fn publish(&mut self, value: u64) {
        self.reference.push(HOT, value);
    }

    #[inline]
    fn receive(&mut self) -> Option<u64> {
        self.hot.receive()
    }
}

/// tokio broadcast senders in a DashMap.
#[derive(Debug)]
pub struct DashMapKey {
    keys: dashmap::DashMap<String, tokio::sync::broadcast::Sender<u64>, ahash::RandomState>,
    hot: tokio::sync::broadcast::Receiver<u64>,
}

impl Publish for DashMapKey {
    const NAME: &'static str = "DashMap of tokio broadcast";

    fn new() -> Self {
        let keys: dashmap::DashMap<_, _, _> = (0..OTHERS)
            .map(|n| {
                let (sender, _) = tokio::sync::broadcast::channel(BUFFER);
                (crate::input::key(n), sender)
            })
            .collect();
        let hot = keys.get(HOT).expect("it was put there").subscribe();
        Self { keys, hot }
    }

    #[inline]
    fn publish(&mut self, value: u64) {
        if let Some(sender) = self.keys.get(HOT) {
            let _ = sender.send(value);
        }
    }

    #[inline]
    fn receive(&mut self) -> Option<u64> {
        self.hot.try_recv().ok()
    }
}

/// tokio's broadcast channel, without a map.
#[derive(Debug)]
pub struct TokioBroadcast {
    sender: tokio::sync::broadcast::Sender<u64>,
    receiver: tokio::sync::broadcast::Receiver<u64>,
}

impl Publish for TokioBroadcast {
    const NAME: &'static str = "tokio broadcast";

    fn new() -> Self {
        let (sender, receiver) = tokio::sync::broadcast::channel(BUFFER);
        Self { sender, receiver }
    }

    #[inline]
    fn publish(&mut self, value: u64) {
        let _ = self.sender.send(value);
    }

    #[inline]
    fn receive(&mut self) -> Option<u64> {
        self.receiver.try_recv().ok()
    }
}

/// tokio's watch channel, which keeps the latest value only.
#[derive(Debug)]
pub struct TokioWatch {
    sender: tokio::sync::watch::Sender<u64>,
    receiver: tokio::sync::watch::Receiver<u64>,
}

impl Publish for TokioWatch {
    const NAME: &'static str = "tokio watch (latest only)";
    const KEEPS_ALL: bool = false;

    fn new() -> Self {
        let (sender, receiver) = tokio::sync::watch::channel(0);
        Self { sender, receiver }
    }

    #[inline]
    fn publish(&mut self, value: u64) {
        let _ = self.sender.send(value);
    }

    #[inline]
    fn receive(&mut self) -> Option<u64> {
        self.receiver
            .has_changed()
            .unwrap_or(false)
            .then(|| *self.receiver.borrow_and_update())
    }
}

/// The async-broadcast channel, without a map.
#[derive(Debug)]
pub struct AsyncBroadcast {
    sender: async_broadcast::Sender<u64>,
    receiver: async_broadcast::Receiver<u64>,
}

impl Publish for AsyncBroadcast {
    const NAME: &'static str = "async-broadcast";

    fn new() -> Self {
        let (mut sender, receiver) = async_broadcast::broadcast(BUFFER);
        sender.set_overflow(true);
        Self { sender, receiver }
    }

    #[inline]
    fn publish(&mut self, value: u64) {
        let _ = self.sender.try_broadcast(value);
    }

    #[inline]
    fn receive(&mut self) -> Option<u64> {
        self.receiver.try_recv().ok()
    }
}

/// A floor: a ring with one producer.
#[derive(Debug)]
pub struct BareRing {
    producer: rtrb::Producer<u64>,
    consumer: rtrb::Consumer<u64>,
}

impl Publish for BareRing {
    const NAME: &'static str = "floor: rtrb ring";

    fn new() -> Self {
        let (producer, consumer) = rtrb::RingBuffer::new(BUFFER);
        Self { producer, consumer }
    }

    #[inline]
    fn publish(&mut self, value: u64) {
        let _ = self.producer.push(value);
    }

    #[inline]
    fn receive(&mut self) -> Option<u64> {
        self.consumer.pop().ok()
    }
}

/// A floor: a ring with any number of producers.
#[derive(Debug)]
pub struct BareArrayQueue {
    queue: crossbeam_queue::ArrayQueue<u64>,
}

impl Publish for BareArrayQueue {
    const NAME: &'static str = "floor: ArrayQueue";

    fn new() -> Self {
        Self {
            queue: crossbeam_queue::ArrayQueue::new(BUFFER),
        }
    }

    #[inline]
    fn publish(&mut self, value: u64) {
        let _ = self.queue.push(value);
    }

    #[inline]
    fn receive(&mut self) -> Option<u64> {
        self.queue.pop()
    }
}
