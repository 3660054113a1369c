//! Watches: who is told, what a watch may claim, and what is left when it ends.

#[path = "invalidation/support.rs"]
mod support;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::{Duration, Instant};

use afterwrite::bus::{
    Bus, Delivery, Event, Inbox, Interest, LocalBus, Publisher, Status, SubscribeError,
};
use afterwrite::invalidation::cache::{Cache, Invalidation, Reason, Unfinished};
use afterwrite::invalidation::caches::BoundedMap;
use afterwrite::invalidation::coherent::Coherent;
use afterwrite::invalidation::fence::{Coherence, Fence};
use afterwrite::invalidation::subject::{Entity, Pattern};
use afterwrite::invalidation::target::Target;
use afterwrite::invalidation::{Invalidator, Settings};
use support::{LONG, Moody, entity, eventually, nap, pair, quick, recorder};

const S: fn(u64) -> Duration = Duration::from_secs;

/// Whether something holds before `limit` is over.
fn within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > limit {
            return false;
        }
        nap(Duration::from_millis(2));
    }
    true
}

/// A watcher of everything that writes down the ids it is told.
#[allow(clippy::type_complexity)] // Named, it would be no plainer.
fn recorder_all() -> (
    Arc<Mutex<Vec<String>>>,
    impl Fn(&Entity, Invalidation<'_>) + Send + Sync + 'static,
) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    (told, move |e: &Entity, w: Invalidation<'_>| {
        if let Invalidation::One(id) = w {
            tell.lock().unwrap().push(format!("{} {id}", e.as_str()));
        }
    })
}

#[test]
fn i3_a_watch_of_everything_sees_an_entity_that_is_watched_later() {
    let pair = pair(|s| s);
    let (told, tell) = recorder_all();
    let all = pair.reader.watch_all(tell).unwrap();
    let order = Entity::new("order").unwrap();
    let one = pair.reader.watch(&order, |_: Invalidation<'_>| {}).unwrap();
    eventually("coherent", || {
        one.coherence() == Coherence::Coherent && all.coherence() == Coherence::Coherent
    });
    let _ = pair.writer.emit(&order, "1").unwrap();
    eventually("the other watch has it", || one.stats().applied == 1);
    let saw = within(S(2), || {
        told.lock().unwrap().contains(&"order 1".to_owned())
    });
    assert!(saw, "watch_all was not told; it says {:?}", all.coherence());
}

#[test]
fn i3_a_watch_of_everything_sees_an_entity_that_is_watched_later_alone() {
    let alone = Invalidator::local();
    let (told, tell) = recorder_all();
    let _all = alone.watch_all(tell).unwrap();
    let order = Entity::new("order").unwrap();
    let _one = alone.watch(&order, |_: Invalidation<'_>| {}).unwrap();
    let _ = alone.emit(&order, "1").unwrap();
    assert!(within(S(2), || told
        .lock()
        .unwrap()
        .contains(&"order 1".to_owned())));
}

#[test]
fn i3_a_watch_of_everything_past_max_entities_does_not_claim_it() {
    let bus = LocalBus::new();
    let writer = Invalidator::new(bus.clone(), quick("writer")).unwrap();
    let reader = Invalidator::new(bus.clone(), quick("reader").max_entities(2)).unwrap();
    let (told, tell) = recorder_all();
    let all = reader.watch_all(tell).unwrap();
    let names: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|n| Entity::new(n).unwrap())
        .collect();
    for e in &names {
        let _ = writer.emit(e, "0").unwrap();
    }
    eventually("b", || told.lock().unwrap().contains(&"b 0".to_owned()));
    // The writer's beats go on speaking of what is not followed.
    eventually("in doubt", || all.coherence() == Coherence::Suspect);
    let trusted = || all.coherence() == Coherence::Coherent;
    assert!(!within(S(2), trusted), "{:?}", reader.stats());
    assert!(!told.lock().unwrap().contains(&"c 0".to_owned()));
}

#[test]
fn i3_a_watch_of_everything_leaves_nothing_behind() {
    let bus = LocalBus::new();
    let writer = Invalidator::new(bus.clone(), quick("writer")).unwrap();
    let reader = Invalidator::new(bus.clone(), quick("reader").max_entities(2)).unwrap();
    let a = Entity::new("a").unwrap();
    let watch = reader.watch(&a, |_: Invalidation<'_>| {}).unwrap();
    drop(
        reader
            .watch_all(|_: &Entity, _: Invalidation<'_>| {})
            .unwrap(),
    );
    eventually("coherent", || watch.coherence() == Coherence::Coherent);
    let _ = writer.emit(&Entity::new("b").unwrap(), "1").unwrap();
    let _ = writer.emit(&a, "1").unwrap();
    eventually("heard", || watch.stats().applied == 1);
    let third = reader.watch(&Entity::new("c").unwrap(), |_: Invalidation<'_>| {});
    assert!(third.is_ok(), "{third:?}");
}

struct Stuck {
    gate: Mutex<mpsc::Receiver<()>>,
    inside: Arc<AtomicBool>,
}
impl Cache for Stuck {
    fn remove(&self, id: &str) -> Result<(), Unfinished> {
        if id == "stuck" {
            self.inside.store(true, SeqCst);
            let _ = self.gate.lock().unwrap().recv();
        }
        Ok(())
    }
    fn clear(&self, _: Reason) -> Result<(), Unfinished> {
        Ok(())
    }
}

#[test]
fn i3_a_cache_whose_watch_was_dropped_is_not_coherent() {
    let pair = pair(|s| s);
    let (gate, wait) = mpsc::channel();
    let inside = Arc::new(AtomicBool::new(false));
    let fence = Arc::new(Fence::new());
    let cache = Stuck {
        gate: Mutex::new(wait),
        inside: inside.clone(),
    };
    let watch = pair
        .reader
        .watch(&entity(), Target::with_fence(fence.clone(), cache))
        .unwrap();
    eventually("coherent", || fence.coherence() == Coherence::Coherent);
    let _ = pair.writer.emit(&entity(), "stuck").unwrap();
    eventually("inside", || inside.load(SeqCst));
    // `stop().await` does the same, and waits.
    drop(watch);
    let bound = pair.reader.settings().bound();
    let doubted = within(bound + S(2), || fence.coherence() != Coherence::Coherent);
    let state = fence.coherence();
    gate.send(()).unwrap();
    assert!(doubted, "B = {bound:?} and two seconds later: {state:?}");
}

#[test]
fn i3_a_cache_can_be_watched_again_once_its_watch_is_dropped() {
    let pair = pair(|s| s);
    let users = Coherent::new(BoundedMap::<u32>::new(8));
    let mut failed = 0;
    for _ in 0..100 {
        match pair.reader.watch(&entity(), &users) {
            Ok(watch) => drop(watch),
            Err(_) => failed += 1,
        }
    }
    assert_eq!(failed, 0, "of 100");
}

#[test]
fn i3_a_watcher_is_told_when_doubt_begins() {
    let pair = pair(|s| s);
    pair.bus.set_silent(true);
    eventually("suspect", || pair.watch.coherence() == Coherence::Suspect);
    nap(S(3));
    assert!(
        pair.seen.try_next().is_some(),
        "suspect for three seconds, and nothing was told"
    );
}

#[test]
fn i3_a_watch_that_is_refused_leaves_the_cache_as_it_was() {
    let reader = Invalidator::new(LocalBus::new(), quick("reader").max_entities(1)).unwrap();
    let _a = reader
        .watch(&Entity::new("a").unwrap(), |_: Invalidation<'_>| {})
        .unwrap();
    let users = Coherent::new(BoundedMap::<u32>::new(8));
    assert!(reader.watch(&Entity::new("b").unwrap(), &users).is_err());
    nap(Duration::from_millis(300));
    assert_eq!(users.coherence(), Coherence::Standalone);
}

#[test]
fn i6_a_queued_watch_that_became_coherent_late_ends_in_time() {
    let bus = LocalBus::new();
    let tight = |name: &str| {
        Settings::new(name)
            .beat(Duration::from_millis(50))
            .lease(Duration::from_millis(250))
            .e_max(Duration::from_millis(50))
            .min_flush(Duration::from_millis(1))
    };
    let reader = Invalidator::new(bus.clone(), tight("reader")).unwrap();
    let bound = reader.settings().bound();
    let (gate, waits) = mpsc::channel::<()>();
    let waits = Mutex::new(waits);
    // Row 0: queued, and clears for a moment; then it is coherent.
    let since = Arc::new(Mutex::new(None));
    let noted = since.clone();
    let queued = reader
        .watch(&Entity::new("a").unwrap(), move |_: Invalidation<'_>| {
            nap(Duration::from_millis(30));
            *noted.lock().unwrap() = Some(Instant::now());
        })
        .unwrap();
    // Row 1: inline, and stuck in the same recovery.
    let stuck = reader
        .watch_inline(&Entity::new("b").unwrap(), move |_: Invalidation<'_>| {
            let _ = waits.lock().unwrap().recv();
        })
        .unwrap();
    let gate = gate;
    eventually("cleared", || since.lock().unwrap().is_some());
    let from = since.lock().unwrap().unwrap();
    eventually("coherent", || queued.coherence() == Coherence::Coherent);
    let doubted = within(S(3), || queued.coherence() != Coherence::Coherent);
    let took = from.elapsed();
    let _ = gate.send(());
    drop(gate);
    assert!(
        doubted && took < bound,
        "coherent for {took:?}; B = {bound:?}"
    );
    drop(stuck);
}

#[test]
fn i5_a_watch_of_everything_keeps_its_queues_bound() {
    let bus = LocalBus::new();
    let writer = Invalidator::new(bus.clone(), quick("writer")).unwrap();
    let reader = Invalidator::new(bus.clone(), quick("reader").watch_queue(8)).unwrap();
    let (gate, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let watch = reader
        .watch_all(move |_: &Entity, w: Invalidation<'_>| {
            if w == Invalidation::One("stuck") {
                let _ = wait.lock().unwrap().recv();
            }
        })
        .unwrap();
    let gate = gate;
    let names: Vec<_> = (0..50)
        .map(|n| Entity::new(&format!("e{n}")).unwrap())
        .collect();
    for e in &names {
        let _ = writer.emit(e, "0").unwrap();
    }
    eventually("coherent", || watch.coherence() == Coherence::Coherent);
    let _ = writer.emit(&names[0], "stuck").unwrap();
    for e in &names {
        for n in 0..6 {
            let _ = writer.emit(e, &n.to_string()).unwrap();
        }
    }
    let many = within(S(2), || watch.stats().waiting > 8);
    let stats = watch.stats();
    drop(gate);
    assert!(!many, "a queue of 8 holds {stats:?}");
}

#[test]
fn i6_who_expects_itself_is_coherent() {
    let bus = LocalBus::new();
    let names = ["a", "b"];
    let a = Invalidator::new(bus.clone(), quick("a").expect(names)).unwrap();
    let b = Invalidator::new(bus.clone(), quick("b").expect(names)).unwrap();
    let watch = a.watch(&entity(), |_: Invalidation<'_>| {}).unwrap();
    let ok = within(S(5), || watch.coherence() == Coherence::Coherent);
    assert!(ok, "{:?}", a.suspects(&entity()));
    drop(b);
}

type Ears = Arc<Mutex<Vec<Arc<Mutex<Box<dyn Inbox>>>>>>;
#[derive(Clone)]
struct Tapped(LocalBus, Ears);
impl std::fmt::Debug for Tapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tapped")
    }
}
impl Tapped {
    fn tell(&self, event: &Event) {
        for ear in self.1.lock().unwrap().iter() {
            ear.lock().unwrap().deliver(Delivery::Event(event));
        }
    }
}
impl Bus for Tapped {
    fn publisher(&self) -> Box<dyn Publisher> {
        self.0.publisher()
    }
    fn subscribe(&self, p: &Pattern, inbox: Box<dyn Inbox>) -> Result<Interest, SubscribeError> {
        let ear = Arc::new(Mutex::new(inbox));
        self.1.lock().unwrap().push(ear.clone());
        self.0.subscribe(
            p,
            Box::new(move |d: Delivery<'_>| ear.lock().unwrap().deliver(d)),
        )
    }
    fn generation(&self) -> u64 {
        1
    }
    fn status(&self) -> Status {
        self.0.status()
    }
    fn max_payload(&self) -> usize {
        1 << 20
    }
    fn close(&self) {
        self.0.close();
    }
}

#[test]
fn i7_somebody_elses_refusal_is_no_doubt_of_ours() {
    let bus = Tapped(LocalBus::new(), Ears::default());
    let reader = Invalidator::new(bus.clone(), quick("reader")).unwrap();
    let watch = reader.watch(&entity(), |_: Invalidation<'_>| {}).unwrap();
    eventually("coherent", || watch.coherence() == Coherence::Coherent);
    bus.tell(&Event::SubscribeDenied {
        subject: "orders.of.another.service".into(),
    });
    assert_eq!(reader.stats().doubts, 0);
}

struct Bad;
impl Drop for Bad {
    fn drop(&mut self) {
        panic!("a bad drop");
    }
}

#[test]
fn i3_a_cache_that_panics_when_dropped_ends_its_watch() {
    let reader = Invalidator::new(LocalBus::new(), quick("reader")).unwrap();
    let bad = Bad;
    let watch = reader
        .watch(&entity(), move |_: Invalidation<'_>| {
            let _ = &bad;
        })
        .unwrap();
    eventually("coherent", || watch.coherence() == Coherence::Coherent);
    assert!(watch.stop_blocking(S(3)), "never done");
}

/// The deadlines of other caches hold, whatever a cache does when it is dropped.
#[test]
fn i6_a_cache_that_panics_when_dropped_ends_no_enforcement() {
    let reader = Invalidator::new(LocalBus::new(), quick("reader")).unwrap();
    let bad = Bad;
    let one = reader
        .watch_inline(&entity(), move |_: Invalidation<'_>| {
            let _ = &bad;
        })
        .unwrap();
    eventually("coherent", || one.coherence() == Coherence::Coherent);
    // Whoever drops the last handle gets the panic, and that is who ends the watch.
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(one)));
    assert!(dropped.is_err(), "somebody else had the last handle");
}

/// Both drop it, and the watcher of everything is told once each.
#[test]
fn i3_two_who_meet_an_entity_at_once_are_one_listener() {
    for round in 0..300 {
        let alone = Invalidator::local();
        let (told, tell) = recorder_all();
        let _all = alone.watch_all(tell).unwrap();
        let entity = Entity::new("order").unwrap();
        let start = Barrier::new(2);
        std::thread::scope(|scope| {
            for id in ["a", "b"] {
                let (start, alone, entity) = (&start, &alone, &entity);
                scope.spawn(move || {
                    start.wait();
                    let _ = alone.emit(entity, id).unwrap();
                });
            }
        });
        let _ = alone.emit(&entity, "c").unwrap();
        let told = told.lock().unwrap().clone();
        let of_c = told.iter().filter(|told| *told == "order c").count();
        assert_eq!(of_c, 1, "round {round}: {told:?}");
    }
}

/// What is known of an entity's publishers outlives a watch.
#[test]
fn i6_plain_publishers_are_remembered_when_a_watch_ends() {
    let bus = Moody::new(LocalBus::new());
    let settings = quick("reader").max_age(Duration::from_millis(100));
    let reader = Invalidator::new(bus.clone(), settings).unwrap();
    let first = reader.watch(&entity(), |_: Invalidation<'_>| {}).unwrap();
    assert!(!reader.is_plain(&entity()));
    bus.publish("cache.invalidate.user.2", b"");
    eventually("it is heard", || reader.stats().plain == 1);
    assert!(reader.is_plain(&entity()));
    drop(first);
    let users = Coherent::new(BoundedMap::<u32>::new(8));
    let watch = reader.watch_inline(&entity(), &users).unwrap();
    eventually("coherent", || watch.coherence() == Coherence::Coherent);
    assert!(reader.is_plain(&entity()));
    let load = || Ok::<_, std::io::Error>(Some(1));
    users.get_or_load_blocking("1", load).unwrap();
    assert!(
        within(S(2), || users.get("1").is_none()),
        "no limit to its age"
    );
}

/// Made-up entities do not fill the table for good.
#[test]
fn i4_made_up_entities_make_room_for_true_ones() {
    let bus = Moody::new(LocalBus::new());
    let writer = Invalidator::new(bus.clone(), quick("writer")).unwrap();
    let reader = Invalidator::new(bus.clone(), quick("reader").max_entities(4)).unwrap();
    let (told, tell) = recorder_all();
    let all = reader.watch_all(tell).unwrap();
    for n in 0..50 {
        bus.publish(&format!("cache.invalidate.made-up-{n}.1"), b"");
    }
    eventually("in doubt", || all.coherence() == Coherence::Suspect);
    assert!(reader.stats().strays > 0, "{:?}", reader.stats());
    let order = Entity::new("order").unwrap();
    let told_of_order = || {
        let _ = writer.emit(&order, "1").unwrap();
        nap(Duration::from_millis(50));
        told.lock().unwrap().contains(&"order 1".to_owned())
    };
    eventually("there is room", told_of_order);
    eventually("coherent", || all.coherence() == Coherence::Coherent);
}

/// A watcher of everything learns the name of what it cannot follow.
#[test]
fn i3_a_watch_of_everything_is_told_what_it_cannot_follow() {
    let bus = Moody::new(LocalBus::new());
    let reader = Invalidator::new(bus.clone(), quick("reader").max_entities(1)).unwrap();
    let _one = reader.watch(&entity(), |_: Invalidation<'_>| {}).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    let all = reader
        .watch_all(move |entity: &Entity, what: Invalidation<'_>| {
            tell.lock()
                .unwrap()
                .push(format!("{} {what:?}", entity.as_str()));
        })
        .unwrap();
    eventually("coherent", || all.coherence() == Coherence::Coherent);
    bus.publish("cache.invalidate.order.1", b"");
    let wanted = "order All(Overflow)".to_owned();
    assert!(
        within(S(2), || told.lock().unwrap().contains(&wanted)),
        "{told:?}"
    );
    assert_eq!(all.coherence(), Coherence::Suspect);
}

/// A full queue is told as such, also while its entity is in doubt.
#[test]
fn i5_a_full_queue_is_told_in_doubt_as_well() {
    let pair = pair(|s| s.watch_queue(4));
    let (gate, waits) = mpsc::channel::<()>();
    let waits = Mutex::new(waits);
    let (seen, tell) = recorder();
    let slow = pair
        .reader
        .watch(&entity(), move |what: Invalidation<'_>| {
            tell(what);
            if what == Invalidation::One("stuck") {
                let _ = waits.lock().unwrap().recv();
            }
        })
        .unwrap();
    eventually("coherent", || slow.coherence() == Coherence::Coherent);
    // Its silence lasts.
    pair.bus.set_silent(true);
    eventually("in doubt", || {
        pair.reader.coherence(&entity()) == Coherence::Suspect
    });
    let told = |id: &str| {
        pair.bus
            .publish(&format!("cache.invalidate.user.{id}"), b"")
    };
    told("stuck");
    seen.until(LONG, |text| text == "stuck");
    for id in ["1", "2", "3", "4", "5", "6"] {
        told(id);
    }
    eventually("its queue is full", || slow.stats().overflows > 0);
    gate.send(()).unwrap();
    seen.until(LONG, |text| text == format!("all: {}", Reason::Overflow));
    assert_eq!(slow.coherence(), Coherence::Suspect);
}
