//! R1, R2, R16, R17, R20: subscribing and ceasing to.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use afterwrite::{
    Cap, Gate, KeyError, Overflow, Published, Registry, Retry, Submitted, SubscribeError,
    SubscribeOptions, TryRecvError, Watermark,
};

use crate::support::*;

fn capped() -> Registry<u8> {
    Registry::builder()
        .max_key_bytes(8)
        .max_subscribers(3)
        .max_subscribers_per_key(2)
        .build()
        .unwrap()
}

#[test]
fn r1_each_refusal_has_its_reason_and_leaves_nothing() {
    let registry = capped();
    assert_eq!(
        registry.subscribe("").unwrap_err(),
        SubscribeError::EmptyKey
    );
    let too_long = SubscribeError::KeyTooLong { max: 8 };
    assert_eq!(registry.subscribe("123456789").unwrap_err(), too_long);
    // Bytes count, not characters.
    assert_eq!(registry.subscribe("ééééé").unwrap_err(), too_long);
    let mut kept = vec![registry.subscribe("12345678").unwrap()];
    kept.push(registry.subscribe("12345678").unwrap());
    assert_eq!(
        registry.subscribe("12345678").unwrap_err(),
        SubscribeError::Full {
            cap: Cap::Key,
            limit: 2
        }
    );
    kept.push(registry.subscribe("b").unwrap());
    assert_eq!(
        registry.subscribe("c").unwrap_err(),
        SubscribeError::Full {
            cap: Cap::Registry,
            limit: 3
        }
    );
    assert_eq!(
        registry.subscribe_gated("c", |_| Some(1)).unwrap_err(),
        SubscribeError::Full {
            cap: Cap::Registry,
            limit: 3
        }
    );
    // A key that is wrong is wrong, full or not.
    assert_eq!(
        registry.subscribe("").unwrap_err(),
        SubscribeError::EmptyKey
    );
    let stats = registry.stats();
    assert_eq!((stats.subscribers, stats.keys), (3, 2));
    assert!(!registry.has_subscribers("c"));

    // Room is given back, by key and in total.
    kept.truncate(1);
    kept.push(registry.subscribe("12345678").unwrap());
    kept.push(registry.subscribe("c").unwrap());
    registry.close();
    assert_eq!(registry.subscribe("a").unwrap_err(), SubscribeError::Closed);
    assert_eq!(registry.key("a").unwrap_err(), KeyError::Closed);
    drop(kept);
    let stats = registry.stats();
    assert_eq!((stats.subscribers, stats.keys), (0, 0));
}

#[test]
fn r1_refused_keys_do_not_use_up_the_cap() {
    let registry = capped();
    let _kept = [
        registry.subscribe("a").unwrap(),
        registry.subscribe("b").unwrap(),
    ];
    std::thread::scope(|scope| {
        let refused = scope.spawn(|| {
            for _ in 0..20_000 {
                assert_eq!(
                    registry.subscribe("").unwrap_err(),
                    SubscribeError::EmptyKey
                );
            }
        });
        while !refused.is_finished() {
            drop(registry.subscribe("c").expect("one place is always free"));
        }
    });
}

#[test]
fn r2_dropping_or_closing_removes_the_registration() {
    let registry: Registry<u8> = Registry::new().unwrap();
    let first = registry.subscribe("a").unwrap();
    let mut second = registry.subscribe("a").unwrap();
    let third = registry.subscribe("a").unwrap();
    let closer = third.closer();
    assert_eq!(registry.subscriber_count("a"), 3);
    drop(first);
    assert_eq!(registry.subscriber_count("a"), 2);
    second.close();
    second.close();
    assert_eq!(registry.subscriber_count("a"), 1);
    assert!(!closer.is_closed());
    closer.clone().close();
    closer.close();
    assert!(closer.is_closed());
    assert_eq!(registry.subscriber_count("a"), 0);
    assert_eq!(registry.stats().subscribers, 0);
    assert_eq!(registry.stats().keys, 0, "the last one takes the key along");
    drop((second, third));
    assert_eq!(registry.stats().subscribers, 0, "once is enough");
    assert_eq!(registry.publish("a", 1), Published::Reached(0));
}

#[test]
fn r2_a_push_that_begins_after_close_never_touches_the_mailbox() {
    for overflow in POLICIES {
        let registry: Registry<Payload> = Registry::new().unwrap();
        let alive = Arc::new(AtomicUsize::new(0));
        let options = SubscribeOptions::new().overflow(overflow);
        let mut owner = registry.subscribe_with("a", options).unwrap();
        let elsewhere = registry.subscribe_with("a", options).unwrap();
        let _bystander = registry
            .subscribe_with("a", options.buffer_capacity(1))
            .unwrap();
        for value in 0..5 {
            let _ = registry.publish("a", Payload::new(value, &alive));
        }
        owner.close();
        elsewhere.closer().close();
        let reached = registry.publish("a", Payload::new(9, &alive));
        assert!(matches!(reached, Published::Reached(0 | 1)), "{reached:?}");
        assert_eq!(owner.try_recv(), Err(TryRecvError::Ended));
        drop(elsewhere);
        assert_eq!(alive.load(SeqCst), 1, "{overflow:?}: the bystander's alone");
    }
}

#[test]
fn r2_a_close_under_a_push_waits_for_nobody_and_the_push_cleans_up() {
    for overflow in POLICIES {
        let registry: Registry<Payload> = Registry::new().unwrap();
        let alive = Arc::new(AtomicUsize::new(0));
        let options = SubscribeOptions::new().overflow(overflow);
        // The walk stops in the clone for the first, before it comes to the second.
        let mut first = registry.subscribe_with("a", options).unwrap();
        let mut second = registry.subscribe_with("a", options).unwrap();
        let _third = registry.subscribe_with("a", options).unwrap();
        let _ = registry.publish("a", Payload::new(0, &alive));
        assert_eq!(alive.load(SeqCst), 3);
        let (barrier, stop) = barrier();
        let stop = std::sync::Mutex::new(stop);
        let payload = Payload::new(1, &alive).on_clone(move || stop.lock().unwrap().stop());
        std::thread::scope(|scope| {
            let pushing = scope.spawn(|| registry.publish("a", payload));
            barrier.entered();
            // Neither waits, nor does a new subscriber.
            first.close();
            second.close();
            assert_eq!(first.try_recv(), Err(TryRecvError::Ended));
            assert_eq!(second.try_recv(), Err(TryRecvError::Ended));
            drop(registry.subscribe_with("a", options).unwrap());
            assert_eq!(registry.subscriber_count("a"), 1);
            for _ in 0..3 {
                barrier.open();
            }
            assert!(matches!(pushing.join().unwrap(), Published::Reached(_)));
        });
        // Both handles are still here: the push itself dropped what it wrote.
        let kept = if overflow == Overflow::Conflate { 1 } else { 2 };
        assert_eq!(alive.load(SeqCst), kept, "{overflow:?}");
        drop((first, second));
        assert_eq!(alive.load(SeqCst), kept, "{overflow:?}");
    }
}

#[test]
fn r2_a_closer_ends_a_receiver_that_waits_elsewhere() {
    let registry: Registry<u8> = Registry::new().unwrap();
    for _ in 0..50 {
        let mut subscription = registry.subscribe("a").unwrap();
        let closer = subscription.closer();
        let (here, there) = std::sync::mpsc::channel();
        let receiver = std::thread::spawn(move || {
            here.send(()).unwrap();
            subscription.recv_blocking()
        });
        there.recv().unwrap();
        closer.close();
        assert_eq!(receiver.join().unwrap(), None);
    }
    let mut subscription = registry.subscribe("a").unwrap();
    let closer = subscription.closer();
    block_on(async {
        let task = tokio::spawn(async move { subscription.recv().await });
        tokio::task::yield_now().await;
        closer.close();
        assert_eq!(task.await.unwrap(), None);
    });
    assert_eq!(registry.stats().subscribers, 0);
}

#[test]
fn r2_a_closer_outlives_its_subscription_and_the_registry() {
    let registry: Registry<u8> = Registry::new().unwrap();
    let subscription = registry.subscribe("a").unwrap();
    let closer = subscription.closer();
    drop(subscription);
    assert!(closer.is_closed());
    drop(registry);
    closer.close();
}

#[test]
fn r2_key_and_id() {
    let registry: Registry<u8> = Registry::new().unwrap();
    let other: Registry<u8> = Registry::new().unwrap();
    let subscriptions: Vec<_> = (0..100)
        .map(|n| {
            let registry = if n % 2 == 0 { &registry } else { &other };
            registry.subscribe(&format!("k{}", n % 3)).unwrap()
        })
        .collect();
    let ids: HashSet<_> = subscriptions.iter().map(|s| s.id()).collect();
    assert_eq!(ids.len(), 100);
    for (n, subscription) in subscriptions.iter().enumerate() {
        assert_eq!(subscription.key(), format!("k{}", n % 3));
    }
}

#[test]
fn r2_what_closing_discards_is_counted() {
    for overflow in POLICIES {
        let registry: Registry<u64> = Registry::new().unwrap();
        let options = SubscribeOptions::new()
            .overflow(overflow)
            .buffer_capacity(2);
        let mut owner = registry.subscribe_with("a", options).unwrap();
        for value in 0..5 {
            assert!(matches!(
                registry.publish("a", value),
                Published::Reached(_)
            ));
        }
        let _ = owner.try_recv().unwrap();
        owner.close();
        let tally = owner.tally();
        let sum = tally.received + tally.missed + tally.merged + tally.discarded;
        assert_eq!(sum, 5, "{overflow:?} {tally:?}");
    }
}

#[test]
fn r16_whoever_has_subscribed_gets_what_is_submitted_and_published_then() {
    let registry: Registry<u64> = Registry::builder()
        .workers(2)
        .pending_per_key(1000)
        .queue_capacity(1000)
        .build()
        .unwrap();
    // Others come and go on the same key meanwhile.
    std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let churn = scope.spawn(|| {
            let stopped = stopped;
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                drop(registry.subscribe("a").unwrap());
            }
        });
        for value in 0..2_000 {
            let mut subscription = registry.subscribe("a").unwrap();
            if value % 2 == 0 {
                assert_ne!(registry.publish("a", value), Published::Reached(0));
            } else {
                queued(registry.submit("a", move |_| Some(value)));
            }
            assert_eq!(next(&mut subscription), changed(value));
        }
        stop.send(()).unwrap();
        churn.join().unwrap();
    });
}

#[test]
fn r17_a_gated_subscription_begins_with_its_own_notice_in_key_order() {
    let registry: Registry<u64> = one_shard();
    let view = Watermark::new(0);
    let mut other = registry.subscribe("a").unwrap();
    queued(registry.submit_at("a", view.reached(1), 1));
    let mut gated = registry
        .subscribe_gated_with(
            "a",
            SubscribeOptions::new(),
            Gate::reached(view.reached(2), 100),
        )
        .unwrap();
    queued(registry.submit_at("a", view.reached(2), 2));
    until("all three wait", || waiting(&registry) == 3);
    nothing(&mut gated);
    view.advance(1);
    // Submitted earlier, pushed later than it subscribed: both get it.
    assert_eq!(next(&mut gated), changed(1));
    nothing(&mut gated);
    view.advance(2);
    assert_eq!(next(&mut gated), changed(100));
    assert_eq!(next(&mut gated), changed(2));
    assert_eq!(next(&mut other), changed(1));
    assert_eq!(next(&mut other), changed(2));
    nothing(&mut other);
    // The first notice is no push of the key: the ledger does not know it.
    assert_eq!(gated.tally().received, 2);
}

#[test]
fn r17_what_was_lost_before_the_first_notice_is_told_before_it() {
    let registry: Registry<u64> = one_shard();
    for overflow in POLICIES {
        let view = Watermark::new(0);
        let options = SubscribeOptions::new().overflow(overflow);
        let mut other = registry.subscribe("a").unwrap();
        let mut gated = registry
            .subscribe_gated_with("a", options, Gate::reached(view.reached(1), 100))
            .unwrap();
        until("the first waits", || waiting(&registry) == 1);
        // A producer that panics is a loss of the key, before or after the first notice's gate
        // opens; submitted later, so it comes behind.
        quietly();
        queued(registry.submit("a", |_| panic!("on purpose")));
        view.advance(1);
        assert_eq!(next(&mut gated), changed(100), "{overflow:?}");
        assert_eq!(next(&mut gated), unseen(1));
        assert_eq!(next(&mut other), unseen(1));
        // And now a loss that stands before it.
        let (before, first) = (Watermark::new(0), Watermark::new(0));
        let failing = before.clone();
        queued(registry.submit("a", move |_| {
            (failing.get() == 1).then(|| panic!("on purpose"))
        }));
        let mut gated = registry
            .subscribe_gated_with("a", options, Gate::reached(first.reached(1), 100))
            .unwrap();
        first.advance(1);
        before.advance(1);
        assert_eq!(next(&mut other), unseen(1));
        until("the first is let go", || waiting(&registry) == 0);
        assert_eq!(next(&mut gated), unseen(1), "{overflow:?}");
        assert_eq!(next(&mut gated), changed(100));
    }
}

#[test]
fn r17_no_room_for_the_first_notice_is_an_error_and_nothing_is_registered() {
    let registry: Registry<u64> = Registry::builder()
        .workers(1)
        .queue_capacity(1)
        .pending_per_key(2)
        .build()
        .unwrap();
    let kept = registry.subscribe("a").unwrap();
    let blocked = block_shard(&registry, "a", 0);
    queued(registry.submit("a", |_| Some(1)));
    // The shard's queue is full.
    let error = registry.subscribe_gated("b", |_| Some(100)).unwrap_err();
    assert_eq!(error, SubscribeError::QueueFull);
    // The key has no place either.
    let error = registry.subscribe_gated("a", |_| Some(100)).unwrap_err();
    assert_eq!(error, SubscribeError::QueueFull);
    let stats = registry.stats();
    assert_eq!((stats.subscribers, stats.keys), (1, 1));
    blocked.open();
    drop(kept);
}

#[test]
fn r17_a_first_notice_that_expires_or_is_cancelled_is_missed_by_it_alone() {
    let registry: Registry<u64> = Registry::builder()
        .retry(Retry::fixed(1, std::time::Duration::from_millis(2)))
        .build()
        .unwrap();
    let mut other = registry.subscribe("a").unwrap();
    let mut gated = registry.subscribe_gated("a", |_| None).unwrap();
    assert_eq!(next(&mut gated), unseen(1));
    nothing(&mut other);
    registry.close();

    let registry: Registry<u64> = Registry::new().unwrap();
    let other = registry.subscribe("a").unwrap();
    let gated = registry.subscribe_gated("a", |_| None).unwrap();
    registry.close();
    assert_eq!(rest(gated), [unseen(1)]);
    assert_eq!(rest(other), []);
}

#[test]
fn r20_counts() {
    let registry: Registry<u64> = Registry::new().unwrap();
    assert_eq!(registry.subscriber_count("a"), 0);
    assert!(!registry.has_subscribers("a"));
    let many: Vec<_> = (0..100).map(|_| registry.subscribe("a").unwrap()).collect();
    assert_eq!(registry.subscriber_count("a"), 100);
    assert!(registry.has_subscribers("a"));
    let key = registry.key("a").unwrap();
    assert_eq!(key.subscriber_count(), 100);
    drop(many);
    assert_eq!(key.subscriber_count(), 0);
    assert!(!registry.has_subscribers("a"));
    assert_eq!(registry.stats().keys, 1, "resolved");
    assert_eq!(key.submit(|_| Some(1)), Submitted::NoSubscribers);
    let _cloned = key.clone();
    drop(key);
    assert_eq!(registry.stats().keys, 1);
    drop(_cloned);
    assert_eq!(registry.stats().keys, 0);
}

#[test]
fn r20_stats_show_a_producer_that_blocks() {
    let registry: Registry<u64> = one_shard();
    let mut subscription = registry.subscribe("a").unwrap();
    let blocked = block_shard(&registry, "a", 7);
    let before = registry.stats().shards[0].clone();
    assert!(before.reading);
    queued(registry.submit("a", |_| Some(8)));
    assert_eq!(registry.stats().shards[0].queued, 1);
    assert_eq!(registry.stats().shards[0].reads, before.reads);
    blocked.open();
    assert_eq!(next(&mut subscription), changed(7));
    assert_eq!(next(&mut subscription), changed(8));
    until("it is accounted for", || {
        let now = registry.stats().shards[0].clone();
        (now.jobs, now.pushes, now.reached, now.queued, now.reading) == (2, 2, 2, 0, false)
    });
}
