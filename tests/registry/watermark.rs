//! W1 to W5, as far as they concern the registry.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use afterwrite::{Expiry, Registry, Retry, Watermark};

use crate::support::*;

#[test]
fn w1_a_registry_sees_a_monotone_position() {
    let registry: Registry<u64> = one_shard();
    let mut subscription = registry.subscribe("a").unwrap();
    let view = Watermark::new(3);
    queued(registry.submit_at("a", view.reached(3), 3));
    assert_eq!(next(&mut subscription), changed(3));
    queued(registry.submit_at("a", view.reached(5), 5));
    assert!(!view.advance(2));
    assert!(view.advance(4));
    assert!(subscription.recv_timeout(BRIEF).is_err());
    assert!(view.advance(9));
    assert_eq!(view.get(), 9);
    assert_eq!(next(&mut subscription), changed(5));
}

#[test]
fn w2_gates_open_without_polling() {
    let registry: Registry<u64> = one_shard();
    let view = Watermark::new(0);
    let mut subscription = registry.subscribe("a").unwrap();
    for position in 1..=10 {
        queued(registry.submit_at("a", view.reached(position), position));
    }
    // They count as waiting before their first look.
    let reads = || registry.stats().shards[0].reads;
    until("all have been looked at", || reads() >= 10);
    assert_eq!(waiting(&registry), 10);
    assert!(subscription.recv_timeout(BRIEF).is_err());
    assert_eq!(reads(), 10, "one look each");
    for position in 1..=10 {
        view.advance(position);
        assert_eq!(next(&mut subscription), changed(position));
    }
    assert_eq!(view.waiting(), 0, "nothing stays behind");
}

#[test]
fn w2_one_advance_opens_gates_of_many_keys_and_registries() {
    let view = Watermark::new(0);
    let registries = [(); 3].map(|()| one_shard::<u64>());
    let mut all = Vec::new();
    for registry in &registries {
        for n in 0..50 {
            let key = format!("k{n}");
            all.push(registry.subscribe(&key).unwrap());
            queued(registry.submit_at(&key, view.reached(n / 10 + 1), n));
        }
    }
    until("all wait", || view.waiting() == 150);
    view.advance(5);
    for subscription in &mut all {
        assert!(matches!(next(subscription), afterwrite::Notice::Changed(_)));
    }
}

#[test]
fn w2_advances_race_submits() {
    let registry: Registry<u64> = Registry::builder()
        .workers(2)
        .buffer_capacity(10_000)
        .pending_per_key(10_000)
        .queue_capacity(10_000)
        .build()
        .unwrap();
    let view = Watermark::new(0);
    let mut subscription = registry.subscribe("a").unwrap();
    std::thread::scope(|scope| {
        let mut spawned = Vec::new();
        spawned.push(scope.spawn(|| {
            (1..=2_000).for_each(|position| {
                view.advance(position);
            })
        }));
        spawned.push(scope.spawn(|| {
            for position in 1..=2_000 {
                queued(registry.submit_at("a", view.reached(position), position));
            }
        }));

        for thread in spawned {
            thread.join().unwrap();
        }
    });
    for position in 1..=2_000 {
        assert_eq!(next(&mut subscription), changed(position));
    }
    until("nothing waits", || view.waiting() == 0);
}

#[test]
fn w4_a_position_that_is_never_reached_expires_like_any_gate() {
    for expiry in [Expiry::Missed, Expiry::Skip] {
        let registry: Registry<u64> = Registry::builder()
            .workers(1)
            .expiry(expiry)
            .retry(Retry::backoff(Duration::from_millis(20)))
            .build()
            .unwrap();
        let mut subscription = registry.subscribe("a").unwrap();
        let mut mate = registry.subscribe("b").unwrap();
        let view = Watermark::new(0);
        queued(registry.submit_at("a", view.reached(1), 1));
        queued(registry.submit("a", |_| Some(2)));
        queued(registry.submit("b", |_| Some(3)));
        assert_eq!(next(&mut mate), changed(3));
        if expiry == Expiry::Missed {
            assert_eq!(next(&mut subscription), unseen(1));
        }
        assert_eq!(next(&mut subscription), changed(2));
        assert_eq!(view.waiting(), 0, "its registration went with it");
        view.advance(1);
        nothing(&mut subscription);
    }
}

#[test]
fn w4_a_closed_registry_leaves_nothing_with_the_watermark() {
    let registry: Registry<u64> = one_shard();
    let view = Watermark::new(0);
    let _subscription = registry.subscribe("a").unwrap();
    queued(registry.submit_at("a", view.reached(1), 1));
    until("it waits", || view.waiting() == 1);
    registry.close();
    assert_eq!(view.waiting(), 0);
    view.advance(1);
}

#[test]
fn w5_a_followed_view_opens_gates() {
    let registry: Registry<u64> = one_shard();
    let mut subscription = registry.subscribe("a").unwrap();
    let view = Watermark::new(0);
    let replica = Arc::new(AtomicU64::new(0));
    let read = replica.clone();
    let follower = view
        .follow(move || Some(read.load(SeqCst)), Duration::from_millis(1))
        .unwrap();
    queued(registry.submit_at("a", view.reached(7), 7));
    until("it is read for us", || follower.reads() > 2);
    nothing(&mut subscription);
    replica.store(7, SeqCst);
    assert_eq!(next(&mut subscription), changed(7));
}

/// More than the shard looks at in one step: the rest of them are past their deadline when it comes
/// to them.
#[test]
fn w2_a_position_reached_in_time_is_pushed_however_late_the_shard_is() {
    let budget = Duration::from_millis(30);
    let registry: Registry<u64> = Registry::builder()
        .workers(1)
        .queue_capacity(1_024)
        .retry(Retry::fixed(2, budget))
        .build()
        .unwrap();
    let view = Watermark::new(0);
    let keys: Vec<_> = (0..200).map(|n| format!("k{n}")).collect();
    let mut subscriptions: Vec<_> = (keys.iter())
        .map(|key| registry.subscribe(key).unwrap())
        .collect();
    let _busy = registry.subscribe("busy").unwrap();
    let barrier = block_shard(&registry, "busy", 1);
    for key in &keys {
        queued(registry.submit_at(key, view.reached(1), 1));
    }
    barrier.open();
    until("all wait", || view.waiting() == keys.len());
    let barrier = block_shard(&registry, "busy", 2);
    view.advance(1);
    let late = std::time::Instant::now();
    until("their time is over", || late.elapsed() > 4 * budget);
    barrier.open();
    for subscription in &mut subscriptions {
        assert_eq!(next(subscription), changed(1));
    }
    assert_eq!(registry.stats().shards[0].expired, 0);
}
