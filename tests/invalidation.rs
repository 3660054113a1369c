//! The invalidator over a bus inside this process: what one node writes, others drop, or doubt.

#[path = "invalidation/support.rs"]
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use afterwrite::bus::{Bus as _, Delivery, LocalBus};
use afterwrite::invalidation::cache::{Invalidation, Reason};
use afterwrite::invalidation::caches::BoundedMap;
use afterwrite::invalidation::coherent::Coherent;
use afterwrite::invalidation::fence::Coherence;
use afterwrite::invalidation::subject::{Entity, Id, Pattern};
use afterwrite::invalidation::{
    ConfirmError, EmitError, Emitted, Farewell, Invalidator, StartError, WatchError, Why,
};
use support::{LONG, Seen, block_on, entity, eventually, nap, pair, quick, recorder};

#[test]
fn i2_an_emit_drops_here_at_once_and_elsewhere_soon() {
    let pair = pair(|s| s);
    let users = Coherent::new(BoundedMap::<u32>::new(8));
    let _own = pair.writer.watch_inline(&entity(), &users).unwrap();
    let load = |n| users.get_or_load_blocking("42", move || Ok::<_, std::io::Error>(Some(n)));
    assert_eq!(load(1).unwrap(), Some(1));
    assert_eq!(pair.writer.emit(&entity(), "42"), Ok(Emitted::Sent));
    // Here it is gone before `emit` returns.
    assert_eq!(users.get("42"), None);
    assert_eq!(pair.seen.next(LONG), "42");
    assert_eq!(pair.writer.emit(&entity(), "a.b c*"), Ok(Emitted::Sent));
    assert_eq!(pair.seen.next(LONG), "a.b c*");
    // Own frames that come back are no news.
    eventually("frames were sent", || pair.writer.stats().sent == 2);
    assert_eq!(pair.reader.stats().gaps, 0);
}

#[test]
fn i2_refusals_tell_their_caller() {
    let pair = pair(|s| s.max_entities(2));
    let long = "x".repeat(2_000);
    for id in ["", long.as_str()] {
        assert!(matches!(
            pair.writer.emit(&entity(), id),
            Err(EmitError::Subject(_))
        ));
        assert!(pair.writer.writing(&entity(), id).is_err());
    }
    let emit = |name: &str| pair.writer.emit(&Entity::new(name).unwrap(), "1");
    assert_eq!(emit("first"), Ok(Emitted::Sent));
    assert_eq!(emit("second"), Ok(Emitted::Sent));
    assert_eq!(emit("third"), Err(EmitError::TooManyEntities { max: 2 }));
}

#[test]
fn i2_a_guard_emits_unless_it_was_rolled_back() {
    let pair = pair(|s| s);
    let open = |id: &str| pair.writer.writing(&entity(), id).unwrap();
    assert_eq!(open("committed").committed(), Ok(Emitted::Sent));
    assert_eq!(pair.seen.next(LONG), "committed");
    drop(open("dropped"));
    assert_eq!(pair.seen.next(LONG), "dropped");
    open("rolled back").rolled_back();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _writing = open("panicked");
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    // Nothing came in between.
    assert_eq!(pair.seen.next(LONG), "panicked");
    let mut writing = open("one");
    writing.also("two").unwrap();
    assert_eq!(writing.committed(), Ok(Emitted::Sent));
    assert_eq!(pair.seen.next(LONG), "one");
    assert_eq!(pair.seen.next(LONG), "two");
}

#[test]
fn i2_a_write_that_takes_too_long_is_doubted_by_all() {
    let pair = pair(|s| s.write_limit(Duration::from_millis(50)));
    let own = pair
        .writer
        .watch(&entity(), |_: Invalidation<'_>| {})
        .unwrap();
    eventually("the writer is coherent", || {
        own.coherence() == Coherence::Coherent
    });
    let writing = pair.writer.writing(&entity(), "1").unwrap();
    eventually("both doubt", || {
        let states = [pair.reader.coherence(&entity()), own.coherence()];
        states == [Coherence::Suspect; 2]
    });
    let suspects = pair.reader.suspects(&entity());
    assert!(
        suspects
            .iter()
            .any(|s| s.why == Why::Unsettled && s.name == "writer"),
        "{suspects:?}"
    );
    let suspects = pair.writer.suspects(&entity());
    assert!(
        suspects
            .iter()
            .any(|s| s.why == Why::Unsettled && s.name == "writer"),
        "{suspects:?}"
    );
    // A closure cannot see the doubt, so it is told when it begins and when it ends.
    assert_eq!(pair.seen.next(LONG), "all: unsettled write");
    assert_eq!(writing.committed(), Ok(Emitted::Sent));
    assert_eq!(pair.seen.next(LONG), "1");
    assert_eq!(pair.seen.next(LONG), "all: unsettled write");
    eventually("both trust again", || {
        let states = [pair.reader.coherence(&entity()), own.coherence()];
        states == [Coherence::Coherent; 2]
    });
}

#[test]
fn i2_a_confirmed_emit_came_back() {
    let pair = pair(|s| s);
    assert_eq!(block_on(pair.writer.emit_confirmed(&entity(), "1")), Ok(()));
    assert_eq!(pair.seen.next(LONG), "1");
    // What the bus takes and loses is not confirmed; the next beat tells.
    pair.bus.lose_next(1);
    let asked = Instant::now();
    let lost = block_on(pair.writer.emit_confirmed(&entity(), "2"));
    assert_eq!(lost, Err(ConfirmError::Unknown));
    assert!(
        asked.elapsed() < Duration::from_millis(1_500),
        "no beat told"
    );
    assert_eq!(pair.seen.next(LONG), "all: gap");
    let alone = block_on(Invalidator::local().emit_confirmed(&entity(), "3"));
    assert_eq!(alone, Err(ConfirmError::Unconfirmable));
    let id = block_on(pair.writer.emit_confirmed(&entity(), ""));
    assert!(matches!(id, Err(ConfirmError::Emit(EmitError::Subject(_)))));
    pair.writer.close(LONG);
    let closed = block_on(pair.writer.emit_confirmed(&entity(), "4"));
    assert_eq!(closed, Err(ConfirmError::Emit(EmitError::Closed)));
}

#[test]
fn i2_a_node_that_only_writes_is_heard_and_hears_beats_alone() {
    let bus = LocalBus::new();
    let writer = Invalidator::new(bus.clone(), quick("writer").write_only(true)).unwrap();
    let reader = Invalidator::new(bus.clone(), quick("reader")).unwrap();
    let (seen, tell) = recorder();
    let watch = reader.watch(&entity(), tell).unwrap();
    // Its clock is understood, so it has heard the reader's beats and answered them.
    eventually("the reader is coherent", || {
        watch.coherence() == Coherence::Coherent
    });
    while seen.try_next().is_some() {}
    assert_eq!(writer.emit(&entity(), "1"), Ok(Emitted::Sent));
    assert_eq!(seen.next(LONG), "1");
    let ids = ["2", "3"].map(|id| Id::new(id).unwrap());
    let emitted = writer.emit_batch(&entity(), &ids, None);
    assert_eq!(emitted, Ok(Emitted::Sent));
    assert_eq!(seen.next(LONG), "2");
    assert_eq!(seen.next(LONG), "3");
    let confirmed = block_on(writer.emit_confirmed(&entity(), "4"));
    assert_eq!(confirmed, Err(ConfirmError::Unconfirmable));
    assert_eq!(seen.next(LONG), "4");
    let refused = writer.watch(&entity(), |_: Invalidation<'_>| {});
    assert_eq!(refused.err(), Some(WatchError::WriteOnly));
    let refused = writer.watch_all(|_, _| {});
    assert_eq!(refused.err(), Some(WatchError::WriteOnly));
    // Nothing was missed, and nothing will be.
    assert_eq!(writer.close(LONG), Farewell::Said);
    eventually("its goodbye was heard", || {
        reader.suspects(&entity()).is_empty()
    });
    assert_eq!(reader.stats().gaps, 0);
    assert_eq!(watch.coherence(), Coherence::Coherent);
}

#[test]
fn i2_a_full_outbox_collapses_into_one_all() {
    let pair = pair(|s| s.outbox_capacity(2));
    pair.bus.set_full(true);
    let emit = |id: &str| pair.writer.emit(&entity(), id).unwrap();
    assert_eq!(emit("1"), Emitted::Queued);
    assert_eq!(emit("2"), Emitted::Queued);
    assert_eq!(emit("3"), Emitted::Collapsed);
    assert_eq!(emit("4"), Emitted::Collapsed);
    assert_eq!(pair.writer.stats().collapsed, 2);
    pair.bus.set_full(false);
    assert_eq!(pair.seen.next(LONG), "1");
    assert_eq!(pair.seen.next(LONG), "2");
    assert_eq!(pair.seen.next(LONG), "all: requested");
    assert_eq!(emit("5"), Emitted::Sent);
    assert_eq!(pair.seen.next(LONG), "5");
    assert_eq!(pair.reader.stats().gaps, 0);
}

#[test]
fn i2_batches_reach_afterwrite_nodes_and_plain_ones() {
    let ids: Vec<String> = (0..500).map(|n| format!("id {n}")).collect();
    let subject = |id: &String| format!("cache.invalidate.user.{}", id.replace(' ', "%20"));
    let subjects: Vec<String> = ids.iter().map(subject).collect();
    for plain in [true, false] {
        let pair = pair(|s| s.plain_peers(plain));
        // A plain one: it knows the subjects and nothing else.
        let heard = Seen::default();
        let tell = heard.clone();
        let hear = move |delivery: Delivery<'_>| {
            if let Delivery::Message { subject, .. } = delivery {
                tell.tell(subject.to_owned());
            }
        };
        let users = Pattern::new("cache.invalidate.user.*").unwrap();
        let _interest = pair.bus.inner().subscribe(&users, Box::new(hear)).unwrap();
        let hears = || match plain {
            true => (0..ids.len()).for_each(|n| assert_eq!(heard.next(LONG), subjects[n])),
            // Which is why such peers have to be told of.
            false => assert_eq!(heard.next(LONG), "cache.invalidate.user.%-batch"),
        };
        let emitted = pair.writer.emit_batch(&entity(), &ids, None);
        assert_eq!(emitted, Ok(Emitted::Sent));
        for id in &ids {
            assert_eq!(pair.seen.next(LONG), *id);
        }
        hears();
        let frames = if plain { 500 } else { 1 };
        assert_eq!(pair.writer.stats().sent, frames);
        // Without room, it waits, and arrives whole.
        pair.bus.set_full(true);
        let emitted = pair.writer.emit_batch(&entity(), &ids, None);
        assert_eq!(emitted, Ok(Emitted::Queued));
        pair.bus.set_full(false);
        for id in &ids {
            assert_eq!(pair.seen.next(LONG), *id);
        }
        hears();
        assert_eq!(pair.reader.stats().gaps, 0);
    }
}

#[test]
fn i2_everything_of_an_entity() {
    let pair = pair(|s| s);
    // Flushes are spaced, and the one of joining was one.
    nap(Duration::from_millis(50));
    assert_eq!(pair.writer.emit_all(&entity()), Ok(Emitted::Sent));
    assert_eq!(pair.seen.next(LONG), "all: requested");
    // While it clears it doubts; nobody else noticed anything.
    eventually("it is done", || {
        pair.reader.coherence(&entity()) == Coherence::Coherent
    });
    assert_eq!(pair.reader.stats().doubts, 0);
}

#[test]
fn i2_positions_keep_lagging_replicas_out() {
    use afterwrite::invalidation::fence::{Refused, View};
    let pair = pair(|s| s);
    let users = Coherent::new(BoundedMap::<u32>::new(8));
    let _users = pair.reader.watch_inline(&entity(), &users).unwrap();
    pair.writer.emit_at(&entity(), "1", 70).unwrap();
    assert_eq!(pair.seen.next(LONG), "1");
    let store = |id: &str, view| users.fence().token(id).store_seen(view, |_| ());
    eventually("the position arrived", || {
        matches!(
            store("1", View::At(69)),
            Err(Refused::Behind {
                required: 70,
                seen: 69
            })
        )
    });
    assert_eq!(store("1", View::At(70)), Ok(()));
    // A lost frame's position is not lost: the flush asks it of every id.
    pair.bus.lose_next(1);
    pair.writer.emit_at(&entity(), "2", 90).unwrap();
    assert_eq!(pair.seen.next(LONG), "all: gap");
    eventually("the floor has risen", || store("3", View::At(89)).is_err());
    eventually("what has reached it is stored", || {
        store("3", View::At(90)).is_ok()
    });
}

#[test]
fn i3_a_watch_ends_by_drop_by_stop_and_by_token() {
    let pair = pair(|s| s);
    let (seen, tell) = recorder();
    let watch = pair.reader.watch(&entity(), tell).unwrap();
    assert_eq!(seen.next(LONG), "all: joined");
    // One that waits in its watcher while more is queued.
    let (gate, waits) = std::sync::mpsc::channel::<()>();
    let waits = Mutex::new(waits);
    let (slow_seen, slow_tell) = recorder();
    let slow = pair
        .reader
        .watch(&entity(), move |what: Invalidation<'_>| {
            if what == Invalidation::One("1") {
                let _ = waits.lock().unwrap().recv();
            }
            slow_tell(what);
        })
        .unwrap();
    assert_eq!(slow_seen.next(LONG), "all: joined");
    for id in ["1", "2", "3"] {
        let _ = pair.writer.emit(&entity(), id).unwrap();
        assert_eq!(seen.next(LONG), id);
    }
    eventually("all is queued", || slow.stats().waiting == 2);
    let stopping = std::thread::spawn(move || slow.stop_blocking(LONG));
    gate.send(()).unwrap();
    assert!(stopping.join().unwrap());
    for id in ["1", "2", "3"] {
        assert_eq!(slow_seen.next(LONG), id);
    }
    drop(watch);
    let _ = pair.writer.emit(&entity(), "4").unwrap();
    pair.seen.until(LONG, |text| text == "4");
    assert_eq!(slow_seen.try_next(), None);
    assert_eq!(seen.try_next(), None);
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn i3_a_watch_ends_with_its_token() {
    let invalidator = Invalidator::new(LocalBus::new(), quick("n")).unwrap();
    let token = tokio_util::sync::CancellationToken::new();
    let users = Coherent::new(BoundedMap::<u32>::new(8));
    let watch = invalidator.watch(&entity(), &users).unwrap();
    let tied = tokio::spawn(watch.until_cancelled(token.clone()));
    assert_eq!(
        invalidator
            .watch(&entity(), &users)
            .unwrap_err()
            .to_string(),
        "this cache is driven already; a cache can be watched once"
    );
    token.cancel();
    tied.await.unwrap();
    let again = invalidator.watch(&entity(), &users);
    assert!(again.is_ok(), "{again:?}");
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn i3_a_watch_that_ends_with_its_token_applies_what_waits() {
    const MANY: usize = 100;
    let pair = pair(|s| s);
    let (gate, waits) = std::sync::mpsc::channel::<()>();
    let waits = Mutex::new(waits);
    let (seen, stuck) = (Seen::default(), Seen::default());
    let (tell, sticks) = (seen.clone(), stuck.clone());
    let watch = pair.reader.watch(&entity(), move |what: Invalidation<'_>| {
        if let Invalidation::One(id) = what {
            if id == "0" {
                sticks.tell(id.to_owned());
                // Ends when the gate is dropped, also by a failure of this test.
                let _ = waits.lock().unwrap().recv();
            }
            tell.tell(id.to_owned());
        }
    });
    let watch = watch.unwrap();
    for n in 0..MANY {
        let _ = pair.writer.emit(&entity(), &n.to_string()).unwrap();
    }
    assert_eq!(stuck.next(LONG), "0");
    eventually("all wait", || watch.stats().waiting == MANY - 1);
    let token = tokio_util::sync::CancellationToken::new();
    let mut tied = tokio::spawn(watch.until_cancelled(token.clone()));
    token.cancel();
    let early = tokio::time::timeout(Duration::from_millis(100), &mut tied).await;
    assert!(early.is_err(), "it did not wait for its lane");
    drop(gate);
    tied.await.unwrap();
    let told: Vec<_> = std::iter::from_fn(|| seen.try_next()).collect();
    assert!((0..MANY).map(|n| n.to_string()).eq(told));
}

#[test]
fn i3_a_watch_of_everything_sees_every_entity() {
    let bus = LocalBus::new();
    let writer = Invalidator::new(bus.clone(), quick("writer")).unwrap();
    let reader = Invalidator::new(bus, quick("reader")).unwrap();
    let seen = Seen::default();
    let tell = seen.clone();
    let watch = reader
        .watch_all(move |entity, what| tell.tell(format!("{entity:?} {what:?}")))
        .unwrap();
    let (a, b) = (Entity::new("a").unwrap(), Entity::new("b").unwrap());
    let _ = writer.emit(&a, "1").unwrap();
    assert!(seen.next(LONG).contains("One(\"1\")"));
    let _ = reader.emit(&b, "2").unwrap();
    seen.until(LONG, |text| text.contains("One(\"2\")"));
    eventually("both entities are coherent", || {
        watch.coherence() == Coherence::Coherent
    });
    block_on(watch.stop());
    while seen.try_next().is_some() {}
    let _ = writer.emit(&a, "3").unwrap();
    block_on(writer.emit_confirmed(&a, "4")).unwrap();
    assert_eq!(seen.try_next(), None);
}

#[test]
fn i4_nonsense_harms_nobody() {
    let pair = pair(|s| s);
    let send = |subject: &str, payload: &[u8]| {
        pair.bus
            .publish(&format!("cache.invalidate.{subject}"), payload);
    };
    send("user.plain", b"");
    assert_eq!(pair.seen.next(LONG), "plain");
    send("user.odd", b"\xAF\x57garbage");
    assert_eq!(pair.seen.next(LONG), "odd");
    send("user.text", b"hello");
    assert_eq!(pair.seen.next(LONG), "text");
    send("user", b"");
    send("user.a.b", b"");
    send("user.%zz", b"");
    send("%-c.zz", b"");
    send("user.%-batch", b"\xAF\x57garbage");
    assert_eq!(pair.seen.next(LONG), "all: gap");
    send("%-c.00c0ffee00c0ffee", b"\xAF\x57garbage");
    assert_eq!(pair.seen.next(LONG), "all: gap");
    let stats = pair.reader.stats();
    assert_eq!((stats.malformed, stats.unreadable, stats.plain), (4, 3, 2));
    eventually("it recovers", || {
        pair.reader.coherence(&entity()) == Coherence::Coherent
    });
    let _ = pair.writer.emit(&entity(), "1").unwrap();
    assert_eq!(pair.seen.next(LONG), "1");
}

#[test]
fn i5_a_watcher_that_panics_or_is_slow_harms_no_other() {
    let pair = pair(|s| s.watch_queue(4));
    let panicking = pair
        .reader
        .watch(&entity(), |what: Invalidation<'_>| {
            assert!(!matches!(what, Invalidation::One(_)), "on purpose");
        })
        .unwrap();
    let (gate, waits) = std::sync::mpsc::channel::<()>();
    let waits = Mutex::new(waits);
    let (slow_seen, slow_tell) = recorder();
    let slow = pair
        .reader
        .watch(&entity(), move |what: Invalidation<'_>| {
            if what == Invalidation::One("0") {
                slow_tell(Invalidation::One("stuck"));
                let _ = waits.lock().unwrap().recv();
            }
            slow_tell(what);
        })
        .unwrap();
    eventually("both are coherent", || {
        [panicking.coherence(), slow.coherence()] == [Coherence::Coherent; 2]
    });
    for id in 0..20 {
        let id = id.to_string();
        let _ = pair.writer.emit(&entity(), &id).unwrap();
        assert_eq!(pair.seen.next(LONG), id);
        if id == "0" {
            slow_seen.until(LONG, |text| text == "stuck");
        }
    }
    assert_eq!(slow.coherence(), Coherence::Suspect);
    assert!(slow.stats().overflows > 0);
    assert_eq!(
        pair.reader.coherence(&entity()),
        Coherence::Suspect,
        "the worst of them"
    );
    gate.send(()).unwrap();
    slow_seen.until(LONG, |text| text == format!("all: {}", Reason::Overflow));
    eventually("all is well again", || {
        [panicking.coherence(), slow.coherence()] == [Coherence::Coherent; 2]
    });
    assert!(panicking.stats().failures > 0);
}

#[test]
fn i2_alone_it_drops_here_and_says_so() {
    let alone = Invalidator::local();
    let users = Coherent::new(BoundedMap::<u32>::new(8));
    let watch = alone.watch(&entity(), &users).unwrap();
    users
        .get_or_load_blocking("1", || Ok::<_, std::io::Error>(Some(1)))
        .unwrap();
    assert_eq!(watch.coherence(), Coherence::Standalone);
    assert_eq!(alone.coherence(&entity()), Coherence::Standalone);
    assert_eq!(alone.emit(&entity(), "1"), Ok(Emitted::Standalone));
    assert_eq!(users.get("1"), None);
    drop(alone.writing(&entity(), "1").unwrap());
    assert_eq!(alone.emit_all(&entity()), Ok(Emitted::Standalone));
    assert_eq!(watch.coherence(), Coherence::Standalone);
    assert_eq!(block_on(alone.close_async(LONG)), Farewell::Said);
}

#[test]
fn i11_lag_is_measured() {
    let pair = pair(|s| s);
    let (seen, tell) = recorder();
    let watch = pair.reader.watch(&entity(), tell).unwrap();
    assert_eq!(seen.next(LONG), "all: joined");
    for id in 0..100 {
        let _ = pair.writer.emit(&entity(), &id.to_string()).unwrap();
        seen.next(LONG);
    }
    eventually("all are counted", || watch.lag().count == 100);
    let lag = watch.lag();
    assert!(
        lag.p50 <= lag.p99 && lag.p99 <= lag.max && lag.max < LONG,
        "{lag:?}"
    );
}

/// The time in the queue of the watch counts, and for that watch alone.
#[test]
fn i11_lag_ends_where_the_drop_is_applied() {
    let pair = pair(|s| s);
    let (gate, waits) = std::sync::mpsc::channel::<()>();
    let (stuck, sticks) = std::sync::mpsc::channel();
    let waits = Mutex::new(waits);
    let slow = move |what: Invalidation<'_>| {
        if what == Invalidation::One("stick") {
            stuck.send(()).ok();
            let _ = waits.lock().unwrap().recv();
        }
    };
    let slow = pair.reader.watch(&entity(), slow).unwrap();
    // Dropped first, so that a failure lets the watcher go.
    let gate = gate;
    eventually("it is coherent", || slow.coherence() == Coherence::Coherent);
    let emit = |id: &str| pair.writer.emit(&entity(), id);
    assert_eq!(emit("stick"), Ok(Emitted::Sent));
    sticks.recv_timeout(LONG).expect("it sticks");
    let before = Instant::now();
    assert_eq!(emit("waits"), Ok(Emitted::Sent));
    let emitted = Instant::now();
    eventually("it is queued", || slow.stats().waiting == 1);
    let held = Duration::from_millis(200);
    nap(held);
    let least = emitted.elapsed();
    gate.send(()).unwrap();
    eventually("both are counted", || {
        slow.lag().count == 2 && slow.lag().last >= least
    });
    let (lag, e_max) = (slow.lag().max, Duration::from_millis(500));
    let most = before.elapsed() + e_max;
    assert!(least <= lag && lag <= most, "{least:?} {lag:?} {most:?}");
    eventually("the other has both", || pair.watch.lag().count == 2);
    let other = pair.watch.lag();
    assert!(other.last < lag, "{other:?}");
}

#[test]
fn senseless_settings_and_closed_buses_are_refused() {
    let settings = quick("n").beat(Duration::ZERO);
    let refused = Invalidator::new(LocalBus::new(), settings).unwrap_err();
    assert!(matches!(refused, StartError::Settings(_)));
    let bus = LocalBus::new();
    bus.close();
    let refused = Invalidator::new(bus.clone(), quick("n")).unwrap_err();
    assert!(matches!(refused, StartError::Subscribe(_)));
    let bus = LocalBus::new();
    let node = Invalidator::new(bus.clone(), quick("n")).unwrap();
    let watch = node.watch(&entity(), |_: Invalidation<'_>| {}).unwrap();
    eventually("it is coherent", || {
        watch.coherence() == Coherence::Coherent
    });
    bus.close();
    eventually("it doubts", || watch.coherence() == Coherence::Suspect);
    assert_eq!(node.emit(&entity(), "1"), Err(EmitError::Closed));
    assert!(node.suspects(&entity()).iter().any(|s| s.why == Why::Ended));
    // Nothing is waited for that cannot come.
    let began = Instant::now();
    assert_eq!(node.close(LONG), Farewell::Unsaid);
    assert!(began.elapsed() < LONG / 2);
}

#[test]
fn everything_is_send_and_sync() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Invalidator>();
    check::<afterwrite::invalidation::Watch>();
    check::<afterwrite::invalidation::Writing>();
}
