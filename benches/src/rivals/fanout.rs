//! One key, many receivers.

use afterwrite::{Key, Notice, Registry, Subscription};
use crossbeam_utils::CachePadded;

use super::reference::{CrossbeamChannel, Reference, Standing};

/// A push to all receivers, and one receive by each.
pub trait Fanout: 'static {
    /// Its name in the tables.
    const NAME: &'static str;
    /// Whether a push into full buffers drops the new value, and only that.
    const DROPS_NEWEST: bool;
    /// This many receivers, with room for this many values each.
    fn new(receivers: usize, buffer: usize) -> Self;
    /// Sends to all.
    fn push(&mut self, value: u64);
    /// Takes one value from each receiver, if it has one: their sum, and how many there were.
    fn receive(&mut self) -> (u64, usize);

    /// Shows that every receiver gets every value once, in order.
    ///
    /// # Panics
    /// If not.
    fn check(&mut self, receivers: usize) {
        let all = |value: u64| (value * receivers as u64, receivers);
        self.push(3);
        assert_eq!(self.receive(), all(3), "{} lost a value", Self::NAME);
        if Self::NAME != LinePerReceiver::NAME {
            self.push(5);
            self.push(7);
            assert_eq!(self.receive(), all(5), "{} is out of order", Self::NAME);
            assert_eq!(self.receive(), all(7), "{} is out of order", Self::NAME);
            assert_eq!(self.receive(), (0, 0), "{} made a value up", Self::NAME);
        }
    }

    /// Shows that full buffers keep what they have, and fills them.
    ///
    /// # Panics
    /// If not.
    fn check_full(&mut self, receivers: usize, buffer: usize) {
        for value in 0..buffer as u64 + 5 {
            self.push(value);
        }
        for value in 0..buffer as u64 {
            let all = (value * receivers as u64, receivers);
            assert_eq!(self.receive(), all, "{} lost an old value", Self::NAME);
        }
        // Ours tells of the loss first, the others of nothing.
        self.receive();
        for value in 0..buffer as u64 + 1 {
            self.push(value);
        }
    }
}

/// Ours, through a resolved key.
#[derive(Debug)]
pub struct Afterwrite {
    _registry: Registry<u64>,
    key: Key<u64>,
    receivers: Vec<Subscription<u64>>,
}

impl Fanout for Afterwrite {
    const NAME: &'static str = "afterwrite";
    const DROPS_NEWEST: bool = true;

    fn new(receivers: usize, buffer: usize) -> Self {
        let registry = Registry::builder()
            .workers(1)
            .buffer_capacity(buffer)
            .hash_seed(1)
            .build()
            .expect("the settings are in range");
        let receivers = (0..receivers)
            .map(|_| registry.subscribe("hot").expect("there is no cap"))
            .collect();
        Self {
            key: registry.key("hot").expect("the key is valid"),
            _registry: registry,
            receivers,
        }
    }

    #[inline]
    fn push(&mut self, value: u64) {
        let _ = self.key.publish(value);
    }

    #[inline]
    fn receive(&mut self) -> (u64, usize) {
        let (mut sum, mut n) = (0, 0);
        for receiver in &mut self.receivers {
            if let Ok(Notice::Changed(value)) = receiver.try_recv() {
                sum += value;
                n += 1;
            }
        }
        (sum, n)
    }
}

impl Fanout for (Reference<CrossbeamChannel>, Vec<Standing<CrossbeamChannel>>) {
    const NAME: &'static str = "reference";
    const DROPS_NEWEST: bool = true;

    fn new(receivers: usize, buffer: usize) -> Self {
        let reference = Reference::new(1, 64);
        let receivers = (0..receivers)
            .map(|_| reference.subscribe("hot", buffer))
            .collect();
        (reference, receivers)
    }

    #[inline]
    fn push(&mut self, value: u64) {
        self.0.push("hot", value);
    }

    #[inline]
    fn receive(&mut self) -> (u64, usize) {
        let (mut sum, mut n) = (0, 0);
        for receiver in &mut self.1 {
            if let Some(value) = receiver.receive() {
                sum += value;
                n += 1;
            }
        }
        (sum, n)
    }
}

/// tokio's broadcast channel.
#[derive(Debug)]
pub struct TokioBroadcast {
    sender: tokio::sync::broadcast::Sender<u64>,
    receivers: Vec<tokio::sync::broadcast::Receiver<u64>>,
}

impl Fanout for TokioBroadcast {
    const NAME: &'static str = "tokio broadcast";
    const DROPS_NEWEST: bool = false;

    fn new(receivers: usize, buffer: usize) -> Self {
        let (sender, _) = tokio::sync::broadcast::channel(buffer);
        let receivers = (0..receivers).map(|_| sender.subscribe()).collect();
        Self { sender, receivers }
    }

    #[inline]
    fn push(&mut self, value: u64) {
        let _ = self.sender.send(value);
    }

    #[inline]
    fn receive(&mut self) -> (u64, usize) {
        let (mut sum, mut n) = (0, 0);
        for receiver in &mut self.receivers {
            if let Ok(value) = receiver.try_recv() {
                sum += value;
                n += 1;
            }
        }
        (sum, n)
    }
}

/// The async-broadcast channel.
#[derive(Debug)]
pub struct AsyncBroadcast {
    sender: async_broadcast::Sender<u64>,
    receivers: Vec<async_broadcast::Receiver<u64>>,
}

impl Fanout for AsyncBroadcast {
    const NAME: &'static str = "async-broadcast";
    const DROPS_NEWEST: bool = false;

    fn new(receivers: usize, buffer: usize) -> Self {
        let (mut sender, receiver) = async_broadcast::broadcast(buffer);
        sender.set_overflow(true);
        let mut all: Vec<_> = (1..receivers).map(|_| receiver.clone()).collect();
        all.push(receiver);
        Self {
            sender,
            receivers: all,
        }
    }

    #[inline]
    fn push(&mut self, value: u64) {
        let _ = self.sender.try_broadcast(value);
    }

    #[inline]
    fn receive(&mut self) -> (u64, usize) {
        let (mut sum, mut n) = (0, 0);
        for receiver in &mut self.receivers {
            if let Ok(value) = receiver.try_recv() {
                sum += value;
                n += 1;
            }
        }
        (sum, n)
    }
}

/// A crossbeam channel for each receiver, in a vector behind a lock.
#[derive(Debug)]
pub struct Crossbeam {
    senders: parking_lot::RwLock<Vec<crossbeam_channel::Sender<u64>>>,
    receivers: Vec<crossbeam_channel::Receiver<u64>>,
}

impl Fanout for Crossbeam {
    const NAME: &'static str = "crossbeam channels";
    const DROPS_NEWEST: bool = true;

    fn new(receivers: usize, buffer: usize) -> Self {
        let (senders, receivers): (Vec<_>, _) = (0..receivers)
            .map(|_| crossbeam_channel::bounded(buffer))
            .unzip();
        Self {
            senders: parking_lot::RwLock::new(senders),
            receivers,
        }
    }

    #[inline]
    fn push(&mut self, value: u64) {
        for sender in self.senders.read().iter() {
            let _ = sender.try_send(value);
        }
    }

    #[inline]
    fn receive(&mut self) -> (u64, usize) {
        let (mut sum, mut n) = (0, 0);
        for receiver in &self.receivers {
            if let Ok(value) = receiver.try_recv() {
                sum += value;
                n += 1;
            }
        }
        (sum, n)
    }
}

/// A flume channel for each receiver, in a vector behind a lock.
#[derive(Debug)]
pub struct Flume {
    senders: parking_lot::RwLock<Vec<flume::Sender<u64>>>,
    receivers: Vec<flume::Receiver<u64>>,
}

impl Fanout for Flume {
    const NAME: &'static str = "flume channels";
    const DROPS_NEWEST: bool = true;

    fn new(receivers: usize, buffer: usize) -> Self {
        let (senders, receivers): (Vec<_>, _) =
            (0..receivers).map(|_| flume::bounded(buffer)).unzip();
        Self {
            senders: parking_lot::RwLock::new(senders),
            receivers,
        }
    }

    #[inline]
    fn push(&mut self, value: u64) {
        for sender in self.senders.read().iter() {
            let _ = sender.try_send(value);
        }
    }

    #[inline]
    fn receive(&mut self) -> (u64, usize) {
        let (mut sum, mut n) = (0, 0);
        for receiver in &self.receivers {
            if let Ok(value) = receiver.try_recv() {
                sum += value;
                n += 1;
            }
        }
        (sum, n)
    }
}

/// A floor: an rtrb ring for each receiver, with nothing around it.
#[derive(Debug)]
pub struct Rings {
    producers: Vec<rtrb::Producer<u64>>,
    consumers: Vec<rtrb::Consumer<u64>>,
}

impl Fanout for Rings {
    const NAME: &'static str = "floor: rtrb rings";
    const DROPS_NEWEST: bool = true;

    fn new(receivers: usize, buffer: usize) -> Self {
        let (producers, consumers) = (0..receivers)
            .map(|_| rtrb::RingBuffer::new(buffer))
            .unzip();
        Self {
            producers,
            consumers,
        }
    }

    #[inline]
    fn push(&mut self, value: u64) {
        for producer in &mut self.producers {
            let _ = producer.push(value);
        }
    }

    #[inline]
    fn receive(&mut self) -> (u64, usize) {
        let (mut sum, mut n) = (0, 0);
        for consumer in &mut self.consumers {
            if let Ok(value) = consumer.pop() {
                sum += value;
                n += 1;
            }
        }
        (sum, n)
    }
}

/// A floor: one cache line for each receiver, written and read; it keeps the latest value only.
#[derive(Debug)]
pub struct LinePerReceiver {
    lines: Vec<CachePadded<std::sync::atomic::AtomicU64>>,
}

impl Fanout for LinePerReceiver {
    const NAME: &'static str = "floor: a line each";
    const DROPS_NEWEST: bool = false;

    fn new(receivers: usize, _buffer: usize) -> Self {
        Self {
            lines: (0..receivers).map(|_| CachePadded::default()).collect(),
        }
    }

    #[inline]
    fn push(&mut self, value: u64) {
        for line in &self.lines {
            line.store(value, std::sync::atomic::Ordering::Release);
        }
    }

    #[inline]
    fn receive(&mut self) -> (u64, usize) {
        let mut sum = 0;
        for line in &self.lines {
            sum += line.load(std::sync::atomic::Ordering::Acquire);
        }
        (sum, self.lines.len())
    }
}
