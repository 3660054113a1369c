//! I2, I6, I8: what becomes of a drop that is refused, does not fit, or is waited for.

#[path = "invalidation/support.rs"]
mod support;

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use afterwrite::bus::{
    Bus, Delivery, Event, Inbox, Interest, LocalBus, PublishError, Publisher, Status,
    SubscribeError,
};
use afterwrite::invalidation::caches::BoundedMap;
use afterwrite::invalidation::coherent::{Builder, Coherent, Loaded};
use afterwrite::invalidation::fence::Coherence;
use afterwrite::invalidation::subject::{Pattern, Subject};
use afterwrite::invalidation::{EmitError, Farewell, Invalidator};
use support::{LONG, Pair, block_on, entity, eventually, nap, pair, quick};

const SECOND: Duration = Duration::from_secs(1);
/// The lease of `quick` settings.
const LEASE: Duration = SECOND;

#[test]
fn i8_a_drop_without_a_position_settles_after_one_with() {
    let bus = LocalBus::new();
    let writer = Invalidator::new(bus.clone(), quick("writer")).unwrap();
    let reader = Invalidator::new(bus, quick("reader")).unwrap();
    let settle = Duration::from_millis(1_500);
    let cache = || {
        Builder::new()
            .settle(settle)
            .build(BoundedMap::<u32>::new(8))
    };
    let (near, far) = (cache(), cache());
    let watches = [
        writer.watch_inline(&entity(), &near).unwrap(),
        reader.watch_inline(&entity(), &far).unwrap(),
    ];
    eventually("all are coherent", || {
        let coherent = |watch: &afterwrite::invalidation::Watch| watch.coherence();
        watches
            .iter()
            .map(coherent)
            .all(|c| c == Coherence::Coherent)
            && [&writer, &reader].iter().all(|n| n.stats().publishers == 1)
    });
    // What joining has dropped is settled.
    nap(settle + Duration::from_millis(200));
    let _ = writer.emit_at(&entity(), "1", 100).unwrap();
    // The database commits user 2 at position 200, which the writer does not know.
    let _ = writer.emit(&entity(), "2").unwrap();
    eventually("both are applied", || watches[1].stats().applied == 2);
    // A replica at 150 shows the old user 2.
    let old = || Ok::<_, std::io::Error>(Loaded::at(Some(1), 150));
    near.get_or_load_blocking("2", old).unwrap();
    far.get_or_load_blocking("2", old).unwrap();
    assert_eq!(near.get("2"), None, "on the writer's node");
    assert_eq!(far.get("2"), None, "on another node");
}

#[test]
fn i6_an_emit_refused_while_closing_holds_back_the_goodbye() {
    let pair = pair(|s| s);
    let writing = pair.writer.writing(&entity(), "1").unwrap();
    let closing = {
        let writer = pair.writer.clone();
        std::thread::spawn(move || writer.close(LONG))
    };
    // A guard that is refused has written nothing, and holds back nothing.
    eventually("closing", || pair.writer.writing(&entity(), "3").is_err());
    assert_eq!(pair.writer.stats().refused, 0);
    let doubts = pair.reader.stats().doubts;
    // A handler has committed, and emits.
    assert_eq!(pair.writer.emit(&entity(), "2"), Err(EmitError::Closed));
    // The end waits for the guard nevertheless, and what is missing shows at once.
    eventually("the reader doubts", || pair.reader.stats().doubts > doubts);
    let _ = writing.committed().unwrap();
    pair.seen.until(LONG, |told| told == "1");
    assert_eq!(closing.join().unwrap(), Farewell::Unsaid);
    eventually("the reader finds it silent", || {
        pair.reader.coherence(&entity()) == Coherence::Suspect
    });
}

#[test]
fn i7_who_closes_and_waits_for_a_guard_is_heard() {
    let pair = pair(|s| s);
    let writing = pair.writer.writing(&entity(), "1").unwrap();
    let closing = {
        let writer = pair.writer.clone();
        std::thread::spawn(move || writer.close(LONG))
    };
    nap(3 * LEASE);
    let suspects = pair.reader.suspects(&entity());
    let doubts = pair.reader.stats().doubts;
    let _ = writing.committed().unwrap();
    assert_eq!(closing.join().unwrap(), Farewell::Said);
    assert_eq!(doubts, 0, "{suspects:?}");
}

#[test]
fn a_close_begins_though_its_future_is_not_polled() {
    fn spawnable<F: Future + Send + 'static>(future: F) -> F {
        future
    }
    let Pair { writer, reader, .. } = pair(|s| s);
    let closing = spawnable(writer.close_async(LONG));
    let late = writer.writing(&entity(), "1");
    assert_eq!(late.err(), Some(EmitError::Closed));
    drop(spawnable(writer.close_async(LONG)));
    eventually("a goodbye", || reader.stats().publishers == 0);
    // It borrows nothing.
    drop(writer);
    assert_eq!(block_on(closing), Farewell::Said);
}

#[test]
fn a_longer_close_does_not_lift_the_end_of_a_shorter_one() {
    let pair = pair(|s| s);
    let _writing = pair.writer.writing(&entity(), "1").unwrap();
    let (done, ended) = mpsc::channel();
    let (writer, first) = (pair.writer.clone(), done.clone());
    std::thread::spawn(move || first.send(writer.close(LEASE / 2)));
    eventually("closing", || pair.writer.writing(&entity(), "3").is_err());
    let writer = pair.writer.clone();
    std::thread::spawn(move || done.send(block_on(writer.close_async(Duration::MAX))));
    for _ in 0..2 {
        assert_eq!(ended.recv_timeout(LONG), Ok(Farewell::Unsaid));
    }
}

#[test]
fn i2_a_confirmed_emit_ends_though_it_never_leaves() {
    let pair = pair(|s| s.outbox_capacity(1));
    pair.bus.set_full(true);
    let (done, ended) = mpsc::channel();
    // One waits, one is merged into an "all".
    for id in ["1", "2"] {
        let done = done.clone();
        let confirmed = pair.writer.emit_confirmed(&entity(), id);
        std::thread::spawn(move || done.send(block_on(confirmed)));
    }
    for _ in 0..2 {
        let outcome = ended.recv_timeout(6 * LEASE).expect("it waits for ever");
        assert!(outcome.is_err());
    }
    pair.bus.set_full(false);
    pair.seen.until(LONG, |told| told.starts_with("all"));
}

#[test]
fn i2_confirmed_emits_that_were_given_up_do_not_pile_up() {
    let pair = pair(|s| s.outbox_capacity(1));
    pair.bus.set_full(true);
    let resident = || -> u64 {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        4 * pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap()
    };
    let _ = pair.writer.emit(&entity(), "0").unwrap();
    let before = resident();
    for n in 0..500_000 {
        drop(pair.writer.emit_confirmed(&entity(), &n.to_string()));
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 10_000, "{grown} KiB for a queue of one");
}

struct Calls(Invalidator, AtomicBool);

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        let _ = self.0.emit(&entity(), "from a waker");
        let _ = self.0.stats();
        self.1.store(true, SeqCst);
        panic!("a bad waker");
    }
}

#[test]
fn i2_a_waker_may_call_back_and_panic() {
    let pair = pair(|s| s);
    let calls = Arc::new(Calls(pair.writer.clone(), AtomicBool::new(false)));
    let waker = Waker::from(calls.clone());
    pair.bus.set_full(true);
    let confirmed = pair.writer.emit_confirmed(&entity(), "1");
    let mut confirmed = pin!(confirmed);
    let cx = &mut Context::from_waker(&waker);
    assert!(confirmed.as_mut().poll(cx).is_pending());
    pair.bus.set_full(false);
    eventually("the waker came back", || calls.1.load(SeqCst));
    pair.seen.until(LONG, |told| told == "from a waker");
    assert_eq!(confirmed.as_mut().poll(cx), Poll::Ready(Ok(())));
}

/// A bus that takes no payload above a limit, and tells what is denied.
#[derive(Debug, Clone)]
struct Strict {
    bus: LocalBus,
    most: usize,
    published: Arc<AtomicUsize>,
    ears: Ears,
}

type Ear = Arc<Mutex<Box<dyn Inbox>>>;

#[derive(Clone, Default)]
struct Ears(Arc<Mutex<Vec<Ear>>>);

impl std::fmt::Debug for Ears {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ears")
    }
}

impl Strict {
    fn new(bus: LocalBus, most: usize) -> Self {
        Self {
            bus,
            most,
            published: Arc::default(),
            ears: Ears::default(),
        }
    }

    fn deny(&self) {
        let subject = "cache.invalidate.user.9".into();
        let ears = self.ears.0.lock().unwrap();
        let denied = Event::PublishDenied { subject };
        ears[0].lock().unwrap().deliver(Delivery::Event(&denied));
    }
}

#[derive(Debug)]
struct StrictPublisher(Box<dyn Publisher>, Strict);

impl Bus for Strict {
    fn publisher(&self) -> Box<dyn Publisher> {
        Box::new(StrictPublisher(self.bus.publisher(), self.clone()))
    }

    fn subscribe(
        &self,
        pattern: &Pattern,
        inbox: Box<dyn Inbox>,
    ) -> Result<Interest, SubscribeError> {
        let ear: Ear = Arc::new(Mutex::new(inbox));
        self.ears.0.lock().unwrap().push(ear.clone());
        let hears = move |delivery: Delivery<'_>| ear.lock().unwrap().deliver(delivery);
        self.bus.subscribe(pattern, Box::new(hears))
    }

    fn generation(&self) -> u64 {
        self.bus.generation()
    }

    fn status(&self) -> Status {
        self.bus.status()
    }

    fn max_payload(&self) -> usize {
        self.most
    }

    fn close(&self) {
        self.bus.close();
    }
}

impl Publisher for StrictPublisher {
    fn publish(&mut self, subject: Subject<'_>, payload: &[u8]) -> Result<(), PublishError> {
        let (len, max) = (payload.len(), self.1.most);
        // Beats pass, whatever they weigh.
        let beat = subject.as_str().contains(".%-c.");
        if len > max && !beat {
            return Err(PublishError::TooLarge { len, max });
        }
        if !beat && self.1.published.fetch_add(1, SeqCst) > 1_000 {
            // So that a test of what never ends does.
            return Err(PublishError::Closed);
        }
        self.0.publish(subject, payload)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PublishError>> {
        self.0.poll_ready(cx)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PublishError>> {
        self.0.poll_flush(cx)
    }
}

/// A writer on a strict bus, and a reader with a coherent cache that holds 1.
struct Fleet {
    bus: Strict,
    writer: Invalidator,
    reader: Invalidator,
    users: Coherent<BoundedMap<u32>>,
    watch: afterwrite::invalidation::Watch,
}

fn fleet(most: usize) -> Fleet {
    let local = LocalBus::new();
    let bus = Strict::new(local.clone(), most);
    let writer = Invalidator::new(bus.clone(), quick("writer").plain_peers(false)).unwrap();
    let reader = Invalidator::new(local, quick("reader")).unwrap();
    let users = Coherent::new(BoundedMap::new(8));
    let watch = reader.watch_inline(&entity(), &users).unwrap();
    eventually("the reader is coherent", || {
        watch.coherence() == Coherence::Coherent
            && reader.stats().publishers == 1
            && writer.stats().publishers == 1
    });
    let fleet = Fleet {
        bus,
        writer,
        reader,
        users,
        watch,
    };
    fleet.fill();
    fleet
}

impl Fleet {
    fn fill(&self) {
        eventually("1 is cached", || {
            let load = || Ok::<_, std::io::Error>(Some(1));
            self.users.get_or_load_blocking("1", load).unwrap();
            self.users.get("1").is_some() && self.watch.coherence() == Coherence::Coherent
        });
    }

    /// A value that was cached and coherent is noticed to be old.
    fn notices(&self) {
        eventually("the old value is gone", || self.users.get("1").is_none());
    }
}

#[test]
fn i6_what_is_denied_after_the_commit_is_noticed() {
    let fleet = fleet(1 << 16);
    for _ in 0..2 {
        let writing = fleet.writer.writing(&entity(), "1").unwrap();
        fleet.bus.deny();
        assert_eq!(writing.committed(), Err(EmitError::Denied));
        fleet.notices();
        fleet.fill();
        assert_eq!(fleet.writer.emit(&entity(), "1"), Err(EmitError::Denied));
        fleet.notices();
        fleet.fill();
        let batch = fleet.writer.emit_batch(&entity(), ["1"], None);
        assert_eq!(batch, Err(EmitError::Denied));
        fleet.notices();
        fleet.fill();
        assert_eq!(fleet.writer.emit_all(&entity()), Err(EmitError::Denied));
        fleet.notices();
        fleet.fill();
        let refused = fleet.writer.stats().refused;
        assert!(matches!(
            fleet.writer.writing(&entity(), "1"),
            Err(EmitError::Denied)
        ));
        assert_eq!(fleet.writer.stats().refused, refused, "nothing was written");
        // The right may have been given back meanwhile: nobody would say so.
        eventually("it is tried again", || {
            fleet.writer.writing(&entity(), "1").is_ok()
        });
    }
}

#[test]
fn i2_a_batch_of_an_id_that_fits_no_frame_goes_alone() {
    let fleet = fleet(1_024);
    let long = "x".repeat(1_000);
    let before = fleet.bus.published.load(SeqCst);
    let handed = fleet.writer.emit_batch(&entity(), ["2", &long, "1"], None);
    assert!(handed.is_ok(), "{handed:?}");
    assert_eq!(fleet.bus.published.load(SeqCst) - before, 3);
    fleet.notices();
    assert_eq!(fleet.reader.stats().doubts, 0);
}

#[test]
fn i2_what_is_too_large_is_said_and_noticed() {
    let fleet = fleet(8);
    let refused = fleet.writer.emit(&entity(), "1");
    assert!(
        matches!(refused, Err(EmitError::TooLarge { max: 8, .. })),
        "{refused:?}"
    );
    fleet.notices();
    fleet.fill();
    let refused = fleet.writer.emit_batch(&entity(), ["1"], None);
    assert!(
        matches!(refused, Err(EmitError::TooLarge { max: 8, .. })),
        "{refused:?}"
    );
    fleet.notices();
    fleet.fill();
    let _ = fleet.writer.emit_all(&entity());
    fleet.notices();
    assert_eq!(fleet.reader.stats().unreadable, 0);
}
