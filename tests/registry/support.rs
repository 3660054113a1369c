//! What the tests of the registry have in common.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use afterwrite::{
    DropReason, Notice, Observer, Overflow, Registry, SkipReason, Submitted, Subscription,
    SubscriptionId, Timing, TryRecvError,
};

/// Longer than anything takes that comes at all, on a machine however busy.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Short enough to wait for in vain.
pub(crate) const BRIEF: Duration = Duration::from_millis(30);

pub(crate) const POLICIES: [Overflow; 3] = [
    Overflow::DropNewest,
    Overflow::DropOldest,
    Overflow::Conflate,
];

pub(crate) fn one_shard<T: Clone + Send + 'static>() -> Registry<T> {
    Registry::builder().workers(1).build().unwrap()
}

pub(crate) fn next<T: Clone + Send + 'static>(subscription: &mut Subscription<T>) -> Notice<T> {
    subscription.recv_timeout(SOON).expect("a notice comes")
}

pub(crate) fn changed<T>(payload: T) -> Notice<T> {
    Notice::Changed(payload)
}

/// Missed before the view was seen to show it.
pub(crate) fn unseen<T>(n: u64) -> Notice<T> {
    Notice::Missed { n, visible: false }
}

/// Missed by a full buffer.
pub(crate) fn overrun<T>(n: u64) -> Notice<T> {
    Notice::Missed { n, visible: true }
}

/// Everything until the end.
pub(crate) fn rest<T: Clone + Send + 'static>(mut from: Subscription<T>) -> Vec<Notice<T>> {
    let mut all = Vec::new();
    while let Some(notice) = from.recv_blocking() {
        all.push(notice);
    }
    all
}

/// Everything that is there now.
pub(crate) fn drained<T: Clone + Send + 'static>(from: &mut Subscription<T>) -> Vec<Notice<T>> {
    let mut all = Vec::new();
    while let Ok(notice) = from.try_recv() {
        all.push(notice);
    }
    all
}

#[track_caller]
pub(crate) fn nothing<T: Clone + Send + std::fmt::Debug + 'static>(from: &mut Subscription<T>) {
    assert_eq!(from.try_recv().unwrap_err(), TryRecvError::Empty);
}

#[track_caller]
pub(crate) fn queued(submitted: Submitted) {
    assert_eq!(submitted, Submitted::Queued);
}

/// Waits until something is so, and says what was not if it never is.
#[track_caller]
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < SOON, "never: {what}");
        std::thread::yield_now();
    }
}

/// How many gates wait in a registry.
pub(crate) fn waiting<T: Clone + Send + 'static>(registry: &Registry<T>) -> usize {
    registry.stats().shards.iter().map(|s| s.waiting).sum()
}

/// A place where a thread of the registry stops until the test lets it go.
pub(crate) struct Barrier {
    entered: mpsc::Receiver<()>,
    release: mpsc::Sender<()>,
}

/// The other side of a [`Barrier`].
pub(crate) struct Stop {
    enter: mpsc::Sender<()>,
    released: mpsc::Receiver<()>,
}

pub(crate) fn barrier() -> (Barrier, Stop) {
    let (enter, entered) = mpsc::channel();
    let (release, released) = mpsc::channel();
    (Barrier { entered, release }, Stop { enter, released })
}

impl Barrier {
    /// Waits until somebody stands at the barrier.
    pub(crate) fn entered(&self) {
        self.entered.recv_timeout(SOON).expect("somebody comes");
    }

    /// Lets one go.
    pub(crate) fn open(&self) {
        let _ = self.release.send(());
    }
}

impl Stop {
    /// Stops until the test says so, or is over.
    pub(crate) fn stop(&self) {
        let _ = self.enter.send(());
        let _ = self.released.recv_timeout(SOON);
    }
}

/// Blocks the shard of a registry of one in a producer of `key`, which then answers `payload`.
pub(crate) fn block_shard<T: Clone + Send + 'static>(
    registry: &Registry<T>,
    key: &str,
    payload: T,
) -> Barrier {
    let (barrier, stop) = barrier();
    let mut payload = Some(payload);
    queued(registry.submit(key, move |_| {
        stop.stop();
        payload.take()
    }));
    barrier.entered();
    barrier
}

/// A payload whose clones can be stopped at, made to panic, and counted.
pub(crate) struct Payload {
    pub(crate) value: u64,
    pub(crate) alive: Arc<AtomicUsize>,
    pub(crate) on_clone: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Payload {
    pub(crate) fn new(value: u64, alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, SeqCst);
        Self {
            value,
            alive: alive.clone(),
            on_clone: None,
        }
    }

    pub(crate) fn on_clone(mut self, call: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_clone = Some(Arc::new(call));
        self
    }
}

impl Clone for Payload {
    fn clone(&self) -> Self {
        if let Some(call) = &self.on_clone {
            call();
        }
        Self::new(self.value, &self.alive)
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, SeqCst);
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payload({})", self.value)
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// A waker that does what it is told, once for each wake.
pub(crate) struct Calls<F>(pub(crate) F);

impl<F: Fn() + Send + Sync + 'static> Calls<F> {
    pub(crate) fn waker(call: F) -> Waker {
        Waker::from(Arc::new(Self(call)))
    }
}

impl<F: Fn() + Send + Sync + 'static> Wake for Calls<F> {
    fn wake(self: Arc<Self>) {
        self.0();
    }
}

/// A waker that counts.
pub(crate) fn counting() -> (Arc<AtomicUsize>, Waker) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    (
        count,
        Calls::waker(move || {
            counted.fetch_add(1, SeqCst);
        }),
    )
}

/// What an observer is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    Pushed(String, usize, Option<Timing>),
    Skipped(String, SkipReason),
    Dropped(String, DropReason),
    Full(String, usize),
    PayloadPanicked(String, usize),
    Subscribed(String, SubscriptionId),
    Unsubscribed(String, SubscriptionId),
}

/// Notes everything. Its lock is one that ThreadSanitizer sees through, contended as it is.
#[derive(Clone, Default)]
pub(crate) struct Notes {
    pub(crate) events: Arc<parking_lot::Mutex<Vec<Event>>>,
    pub(crate) timing: bool,
}

impl Notes {
    fn note(&self, event: Event) {
        self.events.lock().push(event);
    }

    pub(crate) fn all(&self) -> Vec<Event> {
        self.events.lock().clone()
    }

    pub(crate) fn count(&self, which: impl Fn(&Event) -> bool) -> usize {
        self.events.lock().iter().filter(|e| which(e)).count()
    }
}

impl Observer for Notes {
    fn wants_timing(&self) -> bool {
        self.timing
    }

    fn pushed(&self, key: &str, recipients: usize, timing: Option<Timing>) {
        self.note(Event::Pushed(key.into(), recipients, timing));
    }

    fn push_skipped(&self, key: &str, reason: SkipReason) {
        self.note(Event::Skipped(key.into(), reason));
    }

    fn dropped(&self, key: &str, reason: DropReason) {
        self.note(Event::Dropped(key.into(), reason));
    }

    fn channel_full(&self, key: &str, n: usize) {
        self.note(Event::Full(key.into(), n));
    }

    fn payload_panicked(&self, key: &str, n: usize) {
        self.note(Event::PayloadPanicked(key.into(), n));
    }

    fn subscribed(&self, key: &str, id: SubscriptionId) {
        self.note(Event::Subscribed(key.into(), id));
    }

    fn unsubscribed(&self, key: &str, id: SubscriptionId) {
        self.note(Event::Unsubscribed(key.into(), id));
    }
}

/// Runs `f` with panics kept off the test's output.
pub(crate) fn quietly() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let shown = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let planned = info
                .payload_as_str()
                .is_some_and(|message| message.contains("on purpose"));
            if !planned {
                shown(info);
            }
        }));
    });
}

/// Runs a future to its end on this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}
