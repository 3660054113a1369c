//! Every overflow policy at capacity 1 and 2: three pushes against a receiver.

use afterwrite::Overflow;
use afterwrite_loom_tests::{Subscriber, model};
use loom::thread;

use super::{push, topic};

/// Property: three pushes are received, missed or merged, in order; of a policy that keeps the
/// newest, the last is received. Two threads: pusher, receiver.
fn three_pushes(overflow: Overflow, capacity: u16) {
    model(move || {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, overflow, capacity);
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || {
                for value in 1..=3 {
                    push(&topic, value);
                }
            })
        };
        for _ in 0..2 {
            subscriber.look();
        }
        pusher.join().unwrap();
        subscriber.drain().assert_accounts_for(3..=3);
        if overflow == Overflow::DropNewest {
            assert!(subscriber.got().starts_with(&[1]));
        } else {
            assert!(subscriber.got().ends_with(&[3]));
        }
        if overflow == Overflow::Conflate {
            assert_eq!(subscriber.missed(), 0);
        }
    });
}

#[test]
fn drop_newest_of_one() {
    three_pushes(Overflow::DropNewest, 1);
}

#[test]
fn drop_newest_of_two() {
    three_pushes(Overflow::DropNewest, 2);
}

#[test]
fn drop_oldest_of_one() {
    three_pushes(Overflow::DropOldest, 1);
}

#[test]
fn drop_oldest_of_two() {
    three_pushes(Overflow::DropOldest, 2);
}

#[test]
fn conflate() {
    three_pushes(Overflow::Conflate, 1);
}
