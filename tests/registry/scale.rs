//! R14, R20: many subscribers, many keys.

use std::time::Instant;

use afterwrite::{Published, Registry, SubscribeOptions};

use crate::support::*;

const MANY: usize = 100_000;

fn small() -> SubscribeOptions {
    SubscribeOptions::new().buffer_capacity(2)
}

#[test]
fn r14_a_hundred_thousand_subscribers_of_one_key() {
    let registry: Registry<u64> = one_shard();
    let mut all: Vec<_> = (0..MANY)
        .map(|_| registry.subscribe_with("a", small()).unwrap())
        .collect();
    assert_eq!(registry.subscriber_count("a"), MANY);
    assert_eq!(registry.publish("a", 1), Published::Reached(MANY));
    queued(registry.submit("a", |_| Some(2)));
    until("it is pushed", || registry.stats().shards[0].pushes == 1);
    for subscription in &mut all {
        assert_eq!(drained(subscription), [changed(1), changed(2)]);
    }
    // Every other one goes; the rest is reached, and the places are used again.
    let mut index = 0;
    all.retain(|_| {
        index += 1;
        index % 2 == 0
    });
    assert_eq!(registry.publish("a", 3), Published::Reached(MANY / 2));
    all.extend((0..MANY / 2).map(|_| registry.subscribe_with("a", small()).unwrap()));
    assert_eq!(registry.publish("a", 4), Published::Reached(MANY));
    let late = all.last_mut().unwrap();
    assert_eq!(drained(late), [changed(4)]);
    registry.close();
    drop(all);
    assert_eq!(registry.stats().subscribers, 0);
}

#[test]
fn r14_a_hundred_thousand_keys() {
    let registry: Registry<u64> = Registry::new().unwrap();
    let mut all: Vec<_> = (0..MANY)
        .map(|n| registry.subscribe_with(&format!("k{n}"), small()).unwrap())
        .collect();
    assert_eq!(registry.stats().keys, MANY);
    for n in 0..MANY {
        assert_eq!(
            registry.publish(&format!("k{n}"), n as u64),
            Published::Reached(1)
        );
        assert!(!registry.has_subscribers(&format!("x{n}")));
    }
    for (n, subscription) in all.iter_mut().enumerate() {
        assert_eq!(drained(subscription), [changed(n as u64)]);
    }
    all.truncate(MANY / 2);
    assert_eq!(registry.stats().keys, MANY / 2);
    for n in MANY / 2..MANY {
        assert_eq!(registry.publish(&format!("k{n}"), 0), Published::Reached(0));
    }
    drop(all);
    let stats = registry.stats();
    assert_eq!((stats.keys, stats.subscribers), (0, 0));
}

/// The cost of coming and going does not grow with those who stay. That of a thousand against that of
/// a hundred times as many: twice is promised, and cache misses come on top; what grew with their
/// number would cost a hundred times as much.
#[test]
fn r14_coming_and_going_among_many_costs_about_what_it_costs_among_few() {
    const ROUNDS: usize = 15;
    let fill = |standing: usize, key: fn(usize) -> String| {
        let registry: Registry<u64> = one_shard();
        let kept: Vec<_> = (0..standing)
            .map(|n| registry.subscribe_with(&key(n), small()).unwrap())
            .collect();
        (registry, kept)
    };
    type Key = fn(usize) -> String;
    let cases: [(Key, Key); 3] = [
        (|_| "a".to_owned(), |_| "a".to_owned()),
        (|n| format!("k{n}"), |n| format!("k{n}")),
        // Keys that come and go with their one subscriber.
        (|n| format!("k{n}"), |n| format!("x{n}")),
    ];
    for (standing, coming) in cases {
        let (few, many) = (fill(1_000, standing), fill(MANY, standing));
        let names: Vec<String> = (0..1_000).map(coming).collect();
        let cost = |registry: &Registry<u64>| {
            let began = Instant::now();
            for name in &names {
                drop(registry.subscribe_with(name, small()).unwrap());
            }
            began.elapsed()
        };
        // In turns, and the best of each: whatever else the machine does comes on top.
        let mut best = (std::time::Duration::MAX, std::time::Duration::MAX);
        for _ in 0..ROUNDS {
            best.0 = best.0.min(cost(&few.0));
            best.1 = best.1.min(cost(&many.0));
        }
        assert!(best.1 < best.0 * 6, "{best:?}");
    }
}
