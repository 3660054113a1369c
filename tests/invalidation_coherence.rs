//! I6 and I7 over a bus inside this process: who is missing, who has left, who is waited for.

#[path = "invalidation/support.rs"]
mod support;

use std::time::{Duration, Instant};

use afterwrite::bus::LocalBus;
use afterwrite::invalidation::cache::Invalidation;
use afterwrite::invalidation::caches::BoundedMap;
use afterwrite::invalidation::coherent::{Coherent, Loaded};
use afterwrite::invalidation::fence::Coherence;
use afterwrite::invalidation::{EmitError, Emitted, Farewell, Invalidator, TICK, WatchError, Why};
use support::{LONG, Moody, entity, eventually, nap, pair, quick, recorder};

#[test]
fn i6_a_lost_frame_is_a_gap() {
    let pair = pair(|s| s);
    pair.bus.lose_next(1);
    let _ = pair.writer.emit(&entity(), "lost").unwrap();
    let _ = pair.writer.emit(&entity(), "next").unwrap();
    assert_eq!(pair.seen.next(LONG), "next");
    assert_eq!(pair.seen.next(LONG), "all: gap");
    // The last one of all shows by the next beat.
    pair.bus.lose_next(1);
    let _ = pair.writer.emit(&entity(), "lost").unwrap();
    assert_eq!(pair.seen.next(LONG), "all: gap");
}

#[test]
fn i6_a_silent_publisher_is_suspected_until_heard_or_forgotten() {
    let pair = pair(|s| s);
    pair.bus.set_silent(true);
    eventually("it is suspected", || {
        pair.reader.coherence(&entity()) == Coherence::Suspect
    });
    let suspects = pair.reader.suspects(&entity());
    assert_eq!(
        (suspects[0].name.as_str(), suspects[0].why),
        ("writer", Why::Silent)
    );
    pair.bus.set_silent(false);
    eventually("it is heard", || {
        pair.reader.coherence(&entity()) == Coherence::Coherent
    });
    assert_eq!(pair.seen.next(LONG), "all: publisher silent");
    assert!(pair.reader.suspects(&entity()).is_empty());
    pair.bus.set_silent(true);
    eventually("it is suspected", || {
        pair.reader.coherence(&entity()) == Coherence::Suspect
    });
    assert_eq!(pair.reader.forget("writer"), 1);
    eventually("it is forgotten", || {
        pair.reader.coherence(&entity()) == Coherence::Coherent
    });
}

#[test]
fn i6_a_silent_publisher_is_retired_and_may_come_back() {
    let pair = pair(|settings| settings.retire_after(Duration::from_secs(2)));
    let _ = pair.writer.emit(&entity(), "1").unwrap();
    assert_eq!(pair.seen.next(LONG), "1");
    pair.bus.set_silent(true);
    eventually("it is suspected", || {
        pair.watch.coherence() == Coherence::Suspect
    });
    assert_eq!(pair.reader.stats().retired, 0, "not yet taken for dead");
    eventually("it is waited for no longer", || {
        pair.watch.coherence() == Coherence::Coherent
    });
    assert_eq!(pair.seen.next(LONG), "all: publisher silent");
    let stats = pair.reader.stats();
    assert_eq!((stats.retired, stats.publishers), (1, 0));
    assert!(pair.reader.suspects(&entity()).is_empty());
    // What it said meanwhile was missed.
    let _ = pair.writer.emit(&entity(), "2").unwrap();
    pair.bus.set_silent(false);
    pair.seen.until(LONG, |seen| seen == "all: gap");
    eventually("it is heard", || pair.reader.stats().publishers == 1);
    let _ = pair.writer.emit(&entity(), "3").unwrap();
    pair.seen.until(LONG, |seen| seen == "3");
}

#[test]
fn i6_who_is_expected_has_to_be_heard() {
    let bus = LocalBus::new();
    let reader = Invalidator::new(bus.clone(), quick("reader").expect(["writer"])).unwrap();
    let watch = reader.watch(&entity(), |_: Invalidation<'_>| {}).unwrap();
    nap(Duration::from_millis(500));
    assert_eq!(watch.coherence(), Coherence::Joining);
    assert_eq!(reader.suspects(&entity())[0].why, Why::Expected);
    let writer = Invalidator::new(bus, quick("writer")).unwrap();
    eventually("it is heard", || watch.coherence() == Coherence::Coherent);
    assert_eq!(writer.close(LONG), Farewell::Said);
    eventually("it is missed", || watch.coherence() == Coherence::Suspect);
}

#[test]
fn i6_plain_publishers_are_best_effort_and_their_entries_age() {
    let bus = Moody::new(LocalBus::new());
    let settings = quick("reader").max_age(Duration::from_millis(100));
    let reader = Invalidator::new(bus.clone(), settings).unwrap();
    let users = Coherent::new(BoundedMap::<u32>::new(8));
    let watch = reader.watch_inline(&entity(), &users).unwrap();
    eventually("it is coherent", || {
        watch.coherence() == Coherence::Coherent
    });
    let load = || users.get_or_load_blocking("1", || Ok::<_, std::io::Error>(Some(1)));
    load().unwrap();
    nap(Duration::from_millis(300));
    assert_eq!(users.get("1"), Some(Some(1)));
    bus.publish("cache.invalidate.user.2", b"");
    eventually("entries age from now on", || users.get("1").is_none());
    assert_eq!(reader.stats().plain, 1);
}

#[test]
fn i7_an_orderly_end_worries_nobody() {
    let pair = pair(|s| s);
    let _ = pair.writer.emit(&entity(), "1").unwrap();
    assert_eq!(pair.writer.close(LONG), Farewell::Said);
    assert_eq!(pair.seen.next(LONG), "1");
    eventually("it has left", || pair.reader.stats().publishers == 0);
    nap(Duration::from_millis(1_500));
    assert_eq!(pair.reader.coherence(&entity()), Coherence::Coherent);
    assert_eq!(pair.reader.stats().doubts, 0);
    assert_eq!(pair.seen.try_next(), None);
    assert_eq!(pair.writer.emit(&entity(), "2"), Err(EmitError::Closed));
    assert!(matches!(
        pair.writer.watch(&entity(), |_: Invalidation<'_>| {}),
        Err(WatchError::Closed)
    ));
    // Dropped, not closed: the goodbye is said in the background.
    let third = Invalidator::new(pair.bus.inner(), quick("third")).unwrap();
    eventually("it is heard", || pair.reader.stats().publishers == 1);
    drop(third);
    eventually("it has left", || pair.reader.stats().publishers == 0);
    assert_eq!(pair.reader.stats().doubts, 0);
}

#[test]
fn i7_an_open_guard_holds_back_the_goodbye() {
    let pair = pair(|s| s);
    let writing = pair.writer.writing(&entity(), "1").unwrap();
    let short = Duration::from_millis(50);
    assert_eq!(pair.writer.close(short), Farewell::Unsaid);
    assert_eq!(writing.committed(), Err(EmitError::Closed));
    eventually("it is suspected", || {
        pair.reader.coherence(&entity()) == Coherence::Suspect
    });
    let other = Invalidator::new(pair.bus.inner(), quick("other")).unwrap();
    let writing = other.writing(&entity(), "2").unwrap();
    let closing = {
        let other = other.clone();
        std::thread::spawn(move || other.close(LONG))
    };
    eventually("it refuses new ones", || {
        other.writing(&entity(), "3").is_err()
    });
    assert_eq!(
        writing.committed(),
        Ok(Emitted::Sent),
        "the open one is heard"
    );
    assert_eq!(closing.join().unwrap(), Farewell::Said);
}

#[test]
fn i7_readers_come_and_go_unnoticed() {
    let pair = pair(|s| s);
    let bus = Moody::new(pair.bus.inner());
    let third = Invalidator::new(bus.clone(), quick("third").read_only(true)).unwrap();
    let (seen, tell) = recorder();
    let _watch = third.watch(&entity(), tell).unwrap();
    assert_eq!(seen.next(LONG), "all: joined");
    assert_eq!(third.emit(&entity(), "1"), Err(EmitError::ReadOnly));
    assert_eq!(seen.next(LONG), "1", "here it is dropped all the same");
    let _ = pair.writer.emit(&entity(), "2").unwrap();
    assert_eq!(seen.next(LONG), "2");
    bus.set_silent(true);
    nap(Duration::from_millis(1_500));
    assert_eq!(pair.reader.stats().doubts, 0);
}

#[test]
fn i6_deadlines_hold_though_everything_else_stands_still() {
    let pair = pair(|s| s);
    let (gate, waits) = std::sync::mpsc::channel::<()>();
    let waits = std::sync::Mutex::new(waits);
    let stuck = pair
        .reader
        .watch_inline(&entity(), move |what: Invalidation<'_>| {
            if what == Invalidation::One("1") {
                let _ = waits.lock().unwrap().recv();
            }
        })
        .unwrap();
    // Dropped first, so that a failure lets the cache go.
    let gate = gate;
    eventually("both are coherent", || {
        pair.reader.coherence(&entity()) == Coherence::Coherent
    });
    let _ = pair.writer.emit(&entity(), "1").unwrap();
    assert_eq!(pair.seen.next(LONG), "1");
    // The bus's thread and the one that beats wait for the stuck cache: what was heard was sent before.
    let sticks = Instant::now();
    eventually("the other cache doubts", || {
        pair.watch.coherence() == Coherence::Suspect
    });
    let took = sticks.elapsed();
    gate.send(()).unwrap();
    let late = pair.reader.stats().worst_lateness.saturating_sub(TICK);
    let allowed = pair.reader.settings().bound() + late;
    assert!(took < allowed, "{took:?}, allowed were {allowed:?}");
    eventually("all is well again", || {
        pair.reader.coherence(&entity()) == Coherence::Coherent
    });
    drop(stuck);
}

/// What the cache keeps of a replica's answer.
fn keeps(users: &Coherent<BoundedMap<u32>>, position: u64) -> bool {
    let answer = || Ok::<_, std::io::Error>(Loaded::at(Some(1), position));
    users.get_or_load_blocking("42", answer).unwrap();
    users.get("42").is_some()
}

#[test]
fn i8_positions_of_this_node_hold_for_a_cache_that_comes_later() {
    let pair = pair(|s| s);
    // The write is visible from 100 on. The writer has no cache as yet, or has lost it.
    let _ = pair.writer.emit_at(&entity(), "42", 100).unwrap();
    assert_eq!(pair.seen.next(LONG), "42");
    for node in [&pair.writer, &pair.reader] {
        let users = Coherent::new(BoundedMap::new(9));
        let watch = node.watch_inline(&entity(), &users).unwrap();
        eventually("it is coherent", || {
            watch.coherence() == Coherence::Coherent
        });
        assert!(!keeps(&users, 50), "a lagging replica");
        assert!(keeps(&users, 100));
    }
}

#[test]
fn i8_positions_of_this_node_hold_before_anything_is_proved() {
    let bus = LocalBus::new();
    let node = Invalidator::new(bus, quick("node").expect(["nobody"])).unwrap();
    let mut writing = node.writing(&entity(), "42").unwrap();
    writing.at(100);
    let _ = writing.committed().unwrap();
    let users = Coherent::new(BoundedMap::new(9));
    let watch = node.watch_inline(&entity(), &users).unwrap();
    assert_eq!(watch.coherence(), Coherence::Joining);
    assert!(!keeps(&users, 50));
    assert!(keeps(&users, 100));
}

#[test]
fn i8_positions_of_a_node_that_is_alone_hold_for_a_cache_that_comes_later() {
    let alone = Invalidator::local();
    let _ = alone.emit_batch(&entity(), ["7", "42"], Some(100)).unwrap();
    let users = Coherent::new(BoundedMap::new(9));
    let _watch = alone.watch_inline(&entity(), &users).unwrap();
    assert!(!keeps(&users, 50));
    assert!(keeps(&users, 100));
}

#[test]
fn i8_no_load_is_stored_that_began_before_its_cache_was_listed() {
    let alone = Invalidator::local();
    let users = Coherent::new(BoundedMap::<u32>::new(9));
    let epoch = || users.stats().fence.epoch;
    let before = epoch();
    let _watch = alone.watch_inline(&entity(), &users).unwrap();
    // Once when it is attached, and once more when those who emit see it.
    assert_eq!(epoch(), before + 2);
}
