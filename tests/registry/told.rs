//! R18, R19, R22: nothing is lost of which an observer does not hear, once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use afterwrite::{
    DropReason, Expiry, Overflow, Published, Registry, Retry, SkipReason, Submitted,
    SubscribeError, SubscribeOptions,
};

use crate::support::*;

fn watched<T: Clone + Send + 'static>(notes: &Notes) -> afterwrite::Builder<T> {
    Registry::builder()
        .workers(1)
        .retry(Retry::fixed(1, Duration::from_millis(2)))
        .observer(Arc::new(notes.clone()))
}

#[test]
fn r22_a_clone_that_panics_is_counted_and_reported() {
    quietly();
    let notes = Notes::default();
    let registry: Registry<Payload> = watched(&notes).build().unwrap();
    let alive = Arc::new(AtomicUsize::new(0));
    let mut all: Vec<_> = (0..3).map(|_| registry.subscribe("a").unwrap()).collect();
    let fragile = || {
        let clones = AtomicUsize::new(0);
        Payload::new(1, &alive)
            .on_clone(move || assert_ne!(clones.fetch_add(1, SeqCst), 1, "on purpose"))
    };
    // On the publisher's thread, and on the shard's.
    assert_eq!(registry.publish("a", fragile()), Published::Reached(2));
    let mut payload = Some(fragile());
    queued(registry.submit("a", move |_| payload.take()));
    let told = |e: &Event| *e == Event::PayloadPanicked("a".into(), 1);
    until("both are told", || notes.count(told) == 2);
    assert_eq!(registry.stats().panicked_payloads, 2);
    for subscription in &mut all {
        let notices = drained(subscription);
        assert!(notices == [overrun(2)] || notices.len() == 2, "{notices:?}");
    }
}

#[test]
fn r19_an_eviction_is_a_full_buffer_and_a_merge_is_none() {
    for (overflow, told) in [
        (Overflow::DropNewest, 1),
        (Overflow::DropOldest, 1),
        (Overflow::Conflate, 0),
    ] {
        for subscribers in 1..=3 {
            let notes = Notes::default();
            let registry: Registry<u64> = watched(&notes).build().unwrap();
            let options = SubscribeOptions::new()
                .overflow(overflow)
                .buffer_capacity(1);
            let _all: Vec<_> = (0..subscribers)
                .map(|_| registry.subscribe_with("a", options).unwrap())
                .collect();
            let reached = if overflow == Overflow::DropNewest {
                0
            } else {
                subscribers
            };
            assert_eq!(registry.publish("a", 1), Published::Reached(subscribers));
            assert_eq!(notes.count(|e| matches!(e, Event::Full(..))), 0);
            assert_eq!(registry.publish("a", 2), Published::Reached(reached));
            let full = |e: &Event| *e == Event::Full("a".into(), subscribers);
            assert_eq!(notes.count(full), told, "{overflow:?} {subscribers}");
            assert_eq!(notes.count(|e| matches!(e, Event::Full(..))), told);
        }
    }
}

#[test]
fn r19_a_publish_is_timed_as_well() {
    let notes = Notes {
        timing: true,
        ..Notes::default()
    };
    let registry: Registry<Payload> = watched(&notes).build().unwrap();
    let alive = Arc::new(AtomicUsize::new(0));
    let _one = registry.subscribe("a").unwrap();
    let _two = registry.subscribe("a").unwrap();
    let key = registry.key("a").unwrap();
    let slow = || {
        Payload::new(1, &alive).on_clone(|| {
            let began = std::time::Instant::now();
            while began.elapsed() < Duration::from_millis(2) {
                std::thread::yield_now();
            }
        })
    };
    let _ = registry.publish("a", slow());
    let _ = key.publish(slow());
    // Handed over: it waits for the push under way.
    let (barrier, stop) = barrier();
    let stop = std::sync::Mutex::new(stop);
    let held = Payload::new(2, &alive).on_clone(move || stop.lock().unwrap().stop());
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| registry.publish("a", held));
        barrier.entered();
        assert_eq!(registry.publish("a", slow()), Published::HandedOver);
        barrier.open();
        assert!(matches!(pushing.join().unwrap(), Published::Reached(_)));
    });
    let pushed = |e: &Event| matches!(e, Event::Pushed(..));
    until("all four are told", || notes.count(pushed) == 4);
    for event in notes.all() {
        if let Event::Pushed(_, 2, timing) = event {
            let timing = timing.expect("it was asked for");
            assert_eq!(timing.attempts, 0);
            assert!(timing.walked > Duration::ZERO && timing.walked < SOON);
        }
    }
}

#[test]
fn r17_who_was_refused_never_subscribed() {
    let notes = Notes::default();
    let registry: Registry<u64> = watched(&notes).queue_capacity(1).build().unwrap();
    let kept = registry.subscribe("a").unwrap();
    let blocked = block_shard(&registry, "a", 0);
    queued(registry.submit("a", |_| Some(1)));
    let key = registry.key("b").unwrap();
    for refused in [
        registry.subscribe_gated("a", |_| Some(2)),
        registry.subscribe_gated("b", |_| Some(2)),
        key.subscribe_gated(|_| Some(2)),
    ] {
        assert_eq!(refused.unwrap_err(), SubscribeError::QueueFull);
    }
    drop(key);
    let stats = registry.stats();
    assert_eq!((stats.subscribers, stats.keys), (1, 1));
    let told = |e: &Event| matches!(e, Event::Subscribed(..) | Event::Unsubscribed(..));
    assert_eq!(notes.count(told), 1, "{:?}", notes.all());
    blocked.open();
    drop(kept);
}

#[test]
fn r19_a_submit_that_was_refused_is_told_once() {
    quietly();
    for panics in [false, true] {
        let notes = Notes::default();
        let registry: Registry<u64> = watched(&notes).queue_capacity(1).build().unwrap();
        let mut subscription = registry.subscribe("a").unwrap();
        let blocked = block_shard(&registry, "a", 0);
        queued(registry.submit("a", |_| Some(1)));
        for _ in 0..3 {
            let refused = registry.submit("a", move |_| {
                assert!(!panics, "on purpose");
                None
            });
            assert_eq!(refused, Submitted::QueueFull);
        }
        blocked.open();
        assert_eq!(next(&mut subscription), changed(0));
        assert_eq!(next(&mut subscription), changed(1));
        // The last one's gate expires, or panics: that is counted, but the loss is known.
        assert_eq!(next(&mut subscription), unseen(3));
        let stats = registry.stats().shards[0].clone();
        assert_eq!(
            (stats.expired, stats.panicked),
            (1 - u64::from(panics), u64::from(panics))
        );
        registry.close();
        let dropped = |e: &Event| *e == Event::Dropped("a".into(), DropReason::QueueFull);
        assert_eq!(notes.count(dropped), 3);
        assert_eq!(notes.count(|e| matches!(e, Event::Skipped(..))), 0);
        assert_eq!(notes.count(|e| matches!(e, Event::Dropped(..))), 3);
    }
}

#[test]
fn r18_a_refused_gate_that_still_waits_is_not_told_again() {
    let notes = Notes::default();
    let registry: Registry<u64> = watched(&notes)
        .retry(Retry::backoff(Duration::MAX))
        .pending_per_key(1)
        .build()
        .unwrap();
    let subscription = registry.subscribe("a").unwrap();
    queued(registry.submit("a", |_| None));
    assert_eq!(registry.submit("a", |_| None), Submitted::QueueFull);
    until("both wait", || waiting(&registry) == 2);
    registry.close();
    assert_eq!(rest(subscription), [unseen(2)]);
    let dropped = |reason| notes.count(|e| *e == Event::Dropped("a".into(), reason));
    assert_eq!(dropped(DropReason::QueueFull), 1);
    assert_eq!(dropped(DropReason::Closed), 1);
    assert_eq!(registry.stats().shards[0].cancelled, 2);
}

#[test]
fn r18_an_open_gate_that_the_close_cuts_off_is_told() {
    for first in [false, true] {
        let notes = Notes::default();
        let registry: Registry<Payload> = watched(&notes).build().unwrap();
        let alive = Arc::new(AtomicUsize::new(0));
        let one = registry.subscribe("a").unwrap();
        let _two = registry.subscribe("a").unwrap();
        let (push, stop) = barrier();
        let stop = std::sync::Mutex::new(stop);
        let held = Payload::new(1, &alive).on_clone(move || stop.lock().unwrap().stop());
        let mut gated = None;
        std::thread::scope(|scope| {
            // A publisher has the key's turn, so that what is open cannot be pushed.
            let pushing = scope.spawn(|| registry.publish("a", held));
            push.entered();
            let mut payload = Some(Payload::new(2, &alive));
            if first {
                gated = Some(
                    registry
                        .subscribe_gated("a", move |_| payload.take())
                        .unwrap(),
                );
            } else {
                queued(registry.submit("a", move |_| payload.take()));
            }
            until("it is open, and waits", || {
                let stats = registry.stats().shards[0].clone();
                (stats.reads, stats.waiting) == (1, 1)
            });
            registry.close();
            // Once for each clone; who subscribed under the push may get one.
            for _ in 0..3 {
                push.open();
            }
            let _ = pushing.join().unwrap();
        });
        let told = |e: &Event| *e == Event::Dropped("a".into(), DropReason::Closed);
        assert_eq!(notes.count(told), 1, "{first}");
        assert_eq!(registry.stats().shards[0].cancelled, 1);
        let lost = |of| rest(of).iter().map(|notice| notice.missed()).sum::<u64>();
        match gated {
            Some(gated) => assert_eq!((lost(gated), lost(one)), (1, 0)),
            None => assert_eq!(lost(one), 1),
        }
    }
}

#[test]
fn r17_a_first_notice_that_expires_in_silence_is_counted_and_costs_no_more() {
    for overflow in POLICIES {
        let notes = Notes::default();
        let registry: Registry<u64> = watched(&notes)
            .expiry(Expiry::Skip)
            .overflow(overflow)
            .build()
            .unwrap();
        let mut gated = registry.subscribe_gated("a", |_| None).unwrap();
        let expired = |e: &Event| *e == Event::Skipped("a".into(), SkipReason::Expired);
        until("it expires", || notes.count(expired) == 1);
        until("it is let go", || waiting(&registry) == 0);
        nothing(&mut gated);
        assert_eq!(gated.skipped(), 1, "{overflow:?}");
        let _ = registry.publish("a", 1);
        assert_eq!(next(&mut gated), changed(1));
        registry.close();
        assert_eq!(gated.recv_blocking(), None);
        assert_eq!(gated.skipped(), 1);
        let tally = gated.tally();
        assert_eq!((tally.received, tally.missed), (1, 0));
    }
}
