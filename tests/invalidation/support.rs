//! What the tests of the invalidator share: a bus with moods, and something that sees.
#![allow(dead_code)] // Each test file uses its own part.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use afterwrite::bus::{
    Bus, Delivery, Event, Inbox, Interest, LocalBus, PublishError, Publisher, Status,
    SubscribeError,
};
use afterwrite::invalidation::cache::Invalidation;
use afterwrite::invalidation::fence::Coherence;
use afterwrite::invalidation::subject::{Entity, Pattern, Subject};
use afterwrite::invalidation::{Invalidator, Settings, Watch};

pub fn entity() -> Entity {
    Entity::new("user").unwrap()
}

/// Settings for tests: quick, and yet patient with a busy machine.
pub fn quick(name: &str) -> Settings {
    Settings::new(name)
        .beat(Duration::from_millis(50))
        .lease(Duration::from_millis(1_000))
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
        assert!(begun.elapsed() < Duration::from_secs(20), "never: {what}");
        nap(Duration::from_millis(2));
    }
}

pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park_timeout(Duration::from_secs(1));
    }
}

/// What a watcher was told, in order.
#[derive(Clone)]
pub struct Seen {
    tell: Sender<String>,
    told: Arc<Mutex<Receiver<String>>>,
}

impl Default for Seen {
    fn default() -> Self {
        let (tell, told) = channel();
        let told = Arc::new(Mutex::new(told));
        Self { tell, told }
    }
}

impl Seen {
    pub fn tell(&self, text: String) {
        self.tell.send(text).unwrap();
    }

    pub fn next(&self, within: Duration) -> String {
        self.told
            .lock()
            .unwrap()
            .recv_timeout(within)
            .expect("nothing was told")
    }

    pub fn until(&self, within: Duration, wanted: impl Fn(&str) -> bool) {
        while !wanted(&self.next(within)) {}
    }

    pub fn try_next(&self) -> Option<String> {
        self.told.lock().unwrap().try_recv().ok()
    }
}

/// A watcher that writes down what it is told.
pub fn recorder() -> (Seen, impl Fn(Invalidation<'_>) + Send + Sync + 'static) {
    let seen = Seen::default();
    let tell = seen.clone();
    let watcher = move |what: Invalidation<'_>| match what {
        Invalidation::One(id) => tell.tell(id.to_owned()),
        Invalidation::All(reason) => tell.tell(format!("all: {reason}")),
    };
    (seen, watcher)
}

/// A bus that can be told to lose, to be full, to fall silent.
#[derive(Debug, Clone)]
pub struct Moody {
    bus: LocalBus,
    mood: Arc<Mood>,
}

#[derive(Default)]
struct Mood {
    full: AtomicBool,
    silent: AtomicBool,
    /// Data messages to lose; beats pass.
    lose: AtomicUsize,
    /// The longest payload that passes, if that is less than the bus beneath takes.
    narrow: AtomicUsize,
    wakers: Mutex<Vec<Waker>>,
    inboxes: Mutex<Vec<SharedInbox>>,
}

/// An inbox that the bus delivers to, and a test as well.
type SharedInbox = Arc<Mutex<Box<dyn Inbox>>>;

impl std::fmt::Debug for Mood {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mood").finish_non_exhaustive()
    }
}

impl Moody {
    pub fn new(bus: LocalBus) -> Self {
        let mood = Arc::<Mood>::default();
        mood.narrow.store(usize::MAX, SeqCst);
        Self { bus, mood }
    }

    /// The bus beneath, without moods.
    pub fn inner(&self) -> LocalBus {
        self.bus.clone()
    }

    pub fn set_full(&self, full: bool) {
        self.mood.full.store(full, SeqCst);
        if !full {
            self.mood
                .wakers
                .lock()
                .unwrap()
                .drain(..)
                .for_each(Waker::wake);
        }
    }

    pub fn set_silent(&self, silent: bool) {
        self.mood.silent.store(silent, SeqCst);
    }

    /// From now on no payload passes that is longer, beats included.
    pub fn set_max_payload(&self, max: usize) {
        self.mood.narrow.store(max, SeqCst);
    }

    pub fn lose_next(&self, n: usize) {
        self.mood.lose.store(n, SeqCst);
    }

    /// Tells all who have subscribed that something happened.
    pub fn tell(&self, event: &Event) {
        let inboxes = self.mood.inboxes.lock().unwrap().clone();
        for inbox in inboxes {
            inbox.lock().unwrap().deliver(Delivery::Event(event));
        }
    }

    /// Publishes as anybody could.
    pub fn publish(&self, subject: &str, payload: &[u8]) {
        let subject = Subject::new(subject).unwrap();
        self.bus.publisher().publish(subject, payload).unwrap();
    }
}

impl Bus for Moody {
    fn publisher(&self) -> Box<dyn Publisher> {
        Box::new(MoodyPublisher {
            publisher: self.bus.publisher(),
            mood: self.mood.clone(),
        })
    }

    fn subscribe(
        &self,
        pattern: &Pattern,
        inbox: Box<dyn Inbox>,
    ) -> Result<Interest, SubscribeError> {
        let inbox = Arc::new(Mutex::new(inbox));
        self.mood.inboxes.lock().unwrap().push(inbox.clone());
        let deliver = move |delivery: Delivery<'_>| inbox.lock().unwrap().deliver(delivery);
        self.bus.subscribe(pattern, Box::new(deliver))
    }

    fn generation(&self) -> u64 {
        self.bus.generation()
    }

    fn status(&self) -> Status {
        self.bus.status()
    }

    fn max_payload(&self) -> usize {
        let narrow = self.mood.narrow.load(SeqCst);
        self.bus.max_payload().min(narrow)
    }

    fn close(&self) {
        self.bus.close();
    }
}

#[derive(Debug)]
struct MoodyPublisher {
    publisher: Box<dyn Publisher>,
    mood: Arc<Mood>,
}

impl Publisher for MoodyPublisher {
    fn publish(&mut self, subject: Subject<'_>, payload: &[u8]) -> Result<(), PublishError> {
        if self.mood.full.load(SeqCst) {
            return Err(PublishError::Full);
        }
        let (len, max) = (payload.len(), self.mood.narrow.load(SeqCst));
        if len > max {
            return Err(PublishError::TooLarge { len, max });
        }
        let beat = subject.as_str().contains(".%-c.");
        let lose = |n: usize| n.checked_sub(1);
        let lost = !beat && self.mood.lose.fetch_update(SeqCst, SeqCst, lose).is_ok();
        if lost || self.mood.silent.load(SeqCst) {
            return Ok(());
        }
        self.publisher.publish(subject, payload)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PublishError>> {
        let mut wakers = self.mood.wakers.lock().unwrap();
        if self.mood.full.load(SeqCst) {
            wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        drop(wakers);
        self.publisher.poll_ready(cx)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PublishError>> {
        self.publisher.poll_flush(cx)
    }
}

pub const LONG: Duration = Duration::from_secs(20);

/// Two nodes on one bus, the second of which has a recorder that is coherent.
pub struct Pair {
    pub bus: Moody,
    pub writer: Invalidator,
    pub reader: Invalidator,
    pub seen: Seen,
    pub watch: Watch,
}

pub fn pair(settings: impl Fn(Settings) -> Settings) -> Pair {
    let bus = Moody::new(LocalBus::new());
    let writer = Invalidator::new(bus.clone(), settings(quick("writer"))).unwrap();
    let reader = Invalidator::new(bus.inner(), settings(quick("reader"))).unwrap();
    let (seen, tell) = recorder();
    let watch = reader.watch(&entity(), tell).unwrap();
    eventually("both nodes are heard", || {
        reader.stats().publishers == 1 && writer.stats().publishers == 1
    });
    eventually("the reader is coherent", || {
        watch.coherence() == Coherence::Coherent
    });
    assert_eq!(seen.next(LONG), "all: joined");
    Pair {
        bus,
        writer,
        reader,
        seen,
        watch,
    }
}
