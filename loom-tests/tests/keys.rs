//! Keys that come and go: the directory, the pins and the topics of a registry together.
//!
//! No key is resolved, so the last subscriber of one takes it out of the directory, under the very
//! names that others subscribe and publish to. At most three threads, the main one included; the
//! directory splits at its third key. The preemption bound is 2, or what `LOOM_MAX_PREEMPTIONS` says.
#![cfg(afterwrite_loom)]

use afterwrite::shard_models::{Keys, Shard, keys_of_which_the_last_moves, registry_by_key};
use afterwrite::{Notice, Published, Subscription, TryRecvError};
use afterwrite_loom_tests::{Payload, assert_killed, faulted, model};
use loom::thread;

const KEY: &str = "key";

/// What is there, in order; nothing may be lost here.
fn drained(subscription: &mut Subscription<Payload>) -> Vec<u64> {
    let mut got = Vec::new();
    loop {
        match subscription.try_recv() {
            Ok(Notice::Changed(payload)) => got.push(payload.value),
            Ok(missed) => panic!("a loss: {missed:?}"),
            Err(TryRecvError::Empty | TryRecvError::Ended) => return got,
        }
    }
}

/// Publishes; how many it reached, by the caller's own hand.
fn publish(keys: &Keys<Payload>, key: &str, value: u64) -> usize {
    match keys.publish(key, Payload::new(value)) {
        Published::Reached(reached) => reached,
        other => panic!("{key}: {other:?}"),
    }
}

/// The registry ends, and all that it had is freed.
fn close(keys: &Keys<Payload>, shard: Shard<Payload>) {
    keys.begin_closing();
    shard.close();
}

/// Property: a subscription that returned gets what is published next, though its key's last
/// subscriber leaves meanwhile; and nothing stays of a key that all have left. Two threads.
#[test]
fn the_last_unsubscribe_against_a_subscribe() {
    model(|| {
        let (keys, shard) = registry_by_key(2);
        let last = keys.subscribe(KEY).unwrap();
        let leaving = thread::spawn(move || drop(last));
        let mut new = keys.subscribe(KEY).unwrap();
        let reached = publish(&keys, KEY, 1);
        assert!((1..=2).contains(&reached), "{reached} of one or two");
        leaving.join().unwrap();
        assert_eq!(publish(&keys, KEY, 2), 1);
        assert_eq!(drained(&mut new), [1, 2]);
        assert_eq!(keys.count(), 1);
        drop(new);
        assert_eq!(keys.count(), 0);
        assert_eq!(publish(&keys, KEY, 3), 0);
        close(&keys, shard);
    });
}

/// Property: the same, when the one who leaves comes back: the key is taken out and put in again,
/// and whoever subscribes meanwhile gets what is published next. Two threads.
#[test]
fn one_who_leaves_and_returns_against_a_subscribe() {
    model(|| {
        let (keys, shard) = registry_by_key(2);
        let last = keys.subscribe(KEY).unwrap();
        let returning = {
            let keys = keys.clone();
            thread::spawn(move || {
                drop(last);
                keys.subscribe(KEY).unwrap()
            })
        };
        let mut new = keys.subscribe(KEY).unwrap();
        let reached = publish(&keys, KEY, 1);
        // The new one; and by a push under way also the one who leaves, before and after.
        assert!((1..=3).contains(&reached), "{reached} of one to three");
        let mut returned = returning.join().unwrap();
        assert_eq!(publish(&keys, KEY, 2), 2);
        assert_eq!(drained(&mut new), [1, 2]);
        let got = drained(&mut returned);
        assert!(got == [1, 2] || got == [2], "{got:?}");
        drop((new, returned));
        assert_eq!(keys.count(), 0);
        close(&keys, shard);
    });
}

/// Property: of two who subscribe while the last one leaves, each gets what is published after both
/// have, by one topic. Three threads.
#[test]
fn two_subscribes_against_the_last_unsubscribe() {
    model(|| {
        let (keys, shard) = registry_by_key(2);
        let last = keys.subscribe(KEY).unwrap();
        let leaving = thread::spawn(move || drop(last));
        let other = {
            let keys = keys.clone();
            thread::spawn(move || keys.subscribe(KEY).unwrap())
        };
        let mut new = keys.subscribe(KEY).unwrap();
        let mut other = other.join().unwrap();
        leaving.join().unwrap();
        assert_eq!(publish(&keys, KEY, 1), 2);
        assert_eq!((drained(&mut new), drained(&mut other)), (vec![1], vec![1]));
        assert_eq!(keys.count(), 1);
        drop((new, other));
        assert_eq!(keys.count(), 0);
        close(&keys, shard);
    });
}

/// Property: a push reaches the subscriber of a key that a split moves, before it, during, and after.
/// Two threads: one subscribes to a third key, one publishes.
#[test]
fn growth_against_a_push() {
    model(|| {
        let (keys, shard) = registry_by_key(2);
        let [first, third, moves] = keys_of_which_the_last_moves();
        let _stands = keys.subscribe(&first).unwrap();
        let mut subscription = keys.subscribe(&moves).unwrap();
        let grower = {
            let keys = keys.clone();
            thread::spawn(move || keys.subscribe(&third).unwrap())
        };
        assert_eq!(publish(&keys, &moves, 1), 1);
        let _third = grower.join().unwrap();
        assert_eq!(publish(&keys, &moves, 2), 1);
        assert_eq!(drained(&mut subscription), [1, 2]);
        assert_eq!(keys.count(), 3);
        close(&keys, shard);
    });
}

/// Property: who subscribes to a key that a split moves joins those who are there: both get what is
/// published once it has returned. Three threads: one grows, one subscribes, one publishes.
#[test]
fn growth_against_push_and_subscribe() {
    model(|| {
        let (keys, shard) = registry_by_key(2);
        let [first, third, moves] = keys_of_which_the_last_moves();
        let _stands = keys.subscribe(&first).unwrap();
        let mut subscription = keys.subscribe(&moves).unwrap();
        let grower = {
            let keys = keys.clone();
            thread::spawn(move || keys.subscribe(&third).unwrap())
        };
        let joining = {
            let (keys, moves) = (keys.clone(), moves.clone());
            thread::spawn(move || keys.subscribe(&moves).unwrap())
        };
        let reached = publish(&keys, &moves, 1);
        assert!((1..=2).contains(&reached), "{reached} of one or two");
        let mut joined = joining.join().unwrap();
        assert_eq!(publish(&keys, &moves, 2), 2);
        let _third = grower.join().unwrap();
        assert_eq!(drained(&mut subscription), [1, 2]);
        let got = drained(&mut joined);
        assert!(got == [1, 2] || got == [2], "{got:?}");
        assert_eq!(keys.count(), 3);
        close(&keys, shard);
    });
}

/// Which model has to fail for which fault, as seen from the whole registry: the directory's own
/// models fail for each of its faults as well.
const FAULTS: &[(&str, &str)] = &[
    ("pin_what_goes", "the_last_unsubscribe_against_a_subscribe"),
    (
        "pin_what_goes",
        "two_subscribes_against_the_last_unsubscribe",
    ),
    (
        "directory.remove_unasked",
        "the_last_unsubscribe_against_a_subscribe",
    ),
    (
        "directory.snapshot_first",
        "one_who_leaves_and_returns_against_a_subscribe",
    ),
    ("directory.source_first", "growth_against_a_push"),
    ("directory.no_second_look", "growth_against_a_push"),
];

#[test]
fn every_fault_has_a_model_that_fails() {
    if faulted() {
        return;
    }
    assert_killed(FAULTS);
}
