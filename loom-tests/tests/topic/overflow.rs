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
        // The pusher is the main thread: the checker remembers one last access of an atomic, and a
        // receiver that runs first would hide its own looks.
        let receiver = thread::spawn(move || {
            for _ in 0..2 {
                subscriber.look();
            }
            subscriber
        });
        for value in 1..=3 {
            push(&topic, value);
        }
        let mut subscriber = receiver.join().unwrap();
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

/// Property: a record is written again only after the receiver that gave it back has read it. Two
/// threads: pusher, receiver; the first push comes before both.
#[test]
fn records_change_hands() {
    model(|| {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, Overflow::DropOldest, 1);
        push(&topic, 1);
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || {
                for value in 2..=4 {
                    push(&topic, value);
                }
            })
        };
        subscriber.look();
        subscriber.look();
        pusher.join().unwrap();
        subscriber.drain().assert_accounts_for(4..=4);
        assert!(subscriber.got().ends_with(&[4]));
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
