//! Every overflow policy at capacity 1 and 2: three pushes against a receiver.
//!
//! The model's own thread pushes and the receiver is spawned. The checker remembers only the last
//! access to each atomic, and a push looks at a slot's stamp before it stores one: a receiver's look
//! that ran before both would be forgotten, and the order "store, then look" never tried. Run
//! first, the push's store is what the receiver's look meets, and both orders are tried.

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
        let receiver = thread::spawn(move || {
            subscriber.look();
            subscriber.look();
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
