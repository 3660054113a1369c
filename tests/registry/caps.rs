//! R1, R12: what is refused takes nothing from others, not even while it is being refused.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use afterwrite::{Cap, Gate, KeyError, Registry, SubscribeError};

use crate::support::*;

#[test]
fn r1_who_is_refused_by_key_takes_no_place_of_the_registry() {
    let registry: Registry<u8> = Registry::builder()
        .workers(1)
        .max_subscribers(3)
        .max_subscribers_per_key(2)
        .build()
        .unwrap();
    let _kept = ["k", "k"].map(|key| registry.subscribe(key).unwrap());
    let full = SubscribeError::Full {
        cap: Cap::Key,
        limit: 2,
    };
    let (begun, done) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                match registry.subscribe("k") {
                    Err(error) if error == full => {}
                    // The other thread has the last place just now: that is no fault of the key's.
                    Err(SubscribeError::Full {
                        cap: Cap::Registry,
                        limit: 3,
                    }) => {}
                    other => panic!("{other:?}"),
                }
                begun.store(true, Relaxed);
            }
        });
        until("the other is under way", || begun.load(Relaxed));
        let refused = (0..100_000).find_map(|_| registry.subscribe("c").err());
        done.store(true, Relaxed);
        assert_eq!(refused, None, "one place is always free");
    });
    let stats = registry.stats();
    assert_eq!((stats.subscribers, stats.keys), (2, 1));
}

#[test]
fn r1_full_says_of_what() {
    let registry: Registry<u8> = Registry::builder()
        .max_subscribers(2)
        .max_subscribers_per_key(1)
        .build()
        .unwrap();
    let _one = registry.subscribe("a").unwrap();
    let by_key = registry.subscribe("a").unwrap_err();
    let _two = registry.subscribe("b").unwrap();
    let in_total = registry.subscribe("c").unwrap_err();
    assert_eq!(
        by_key.to_string(),
        "the key has 1 subscribers already, the most that are allowed"
    );
    assert_eq!(
        in_total.to_string(),
        "the registry has 2 subscribers already, the most that are allowed"
    );
}

#[test]
fn r1_a_key_that_cannot_be_resolved_says_why() {
    let registry: Registry<u8> = Registry::builder().max_key_bytes(4).build().unwrap();
    assert_eq!(registry.key("").unwrap_err(), KeyError::Empty);
    let too_long = KeyError::TooLong { max: 4 };
    assert_eq!(registry.key("12345").unwrap_err(), too_long);
    assert_eq!(registry.key("ééé").unwrap_err(), too_long);
    assert_eq!(registry.key("1234").unwrap().key(), "1234");
    assert_eq!(registry.stats().keys, 0, "it was given up again");
    assert_eq!(
        [KeyError::Empty, too_long].map(SubscribeError::from),
        [
            SubscribeError::EmptyKey,
            SubscribeError::KeyTooLong { max: 4 }
        ]
    );
}

#[test]
fn r12_jobs_without_a_place_are_never_counted() {
    let registry: Registry<u8> = Registry::builder()
        .workers(1)
        .queue_capacity(4)
        .pending_per_key(1 << 15)
        .build()
        .unwrap();
    let _subscription = registry.subscribe("a").unwrap();
    let blocked = block_shard(&registry, "a", 0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..5_000 {
                let large = (0..300).map(|_| ("a", Gate::read(|_| Some(1))));
                assert_eq!(registry.submit_batch(large).closed, 0);
            }
            done.store(true, Relaxed);
        });
        while !done.load(Relaxed) {
            let queued = registry.stats().shards[0].queued;
            assert!(queued <= 4, "{queued} in a queue of four");
        }
    });
    blocked.open();
}
