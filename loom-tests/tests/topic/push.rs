//! Pushes against each other, and walks in slices.

use afterwrite::Overflow;
use afterwrite::models::NotNow;
use afterwrite_loom_tests::{Payload, Subscriber, model};
use loom::thread;

use super::{push, topic};

/// Property: of two pushers one may find the turn taken and get its payload back; what was accepted is
/// received, each pusher's in its order. Three threads: two pushers, receiver.
fn two_pushers(overflow: Overflow) {
    model(move || {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, overflow, 3);
        let [first, second] = [[1, 2].as_slice(), &[11]].map(|values| {
            let topic = topic.clone();
            thread::spawn(move || {
                let accepted = |value: &&u64| match topic.push(Payload::new(**value)) {
                    Ok(pushed) => pushed.reached == 1,
                    Err(NotNow::Held(back)) => {
                        assert_eq!(back.value, **value);
                        false
                    }
                    Err(NotNow::Shut(_)) => unreachable!("the topic is open"),
                };
                values.iter().filter(accepted).copied().collect::<Vec<_>>()
            })
        });
        subscriber.look();
        let (first, second) = (first.join().unwrap(), second.join().unwrap());
        subscriber.drain();
        let accepted = (first.len() + second.len()) as u64;
        assert!(accepted >= 1);
        subscriber_got(&subscriber, &first, |value| value < 10);
        subscriber_got(&subscriber, &second, |value| value > 10);
        assert_eq!(subscriber.accounted(), accepted);
    });
}

fn subscriber_got(subscriber: &Subscriber, accepted: &[u64], of: impl Fn(u64) -> bool) {
    let got: Vec<_> = subscriber
        .got()
        .iter()
        .copied()
        .filter(|&value| of(value))
        .collect();
    assert_eq!(got, accepted);
}

#[test]
fn two_pushers_against_the_receiver_of_a_ring() {
    two_pushers(Overflow::DropNewest);
}

#[test]
fn two_pushers_against_the_receiver_of_an_evicting_mailbox() {
    two_pushers(Overflow::DropOldest);
}

/// Property: a turn that is taken rings when it is free, once, if it was asked to, and is free when
/// it says that it is. Two threads: pusher, shard.
#[test]
fn the_turn_rings_when_it_is_free() {
    model(|| {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, Overflow::DropNewest, 2);
        let mut walk = super::walk(&topic, 1);
        let pusher = thread::spawn(move || {
            while !walk.step(1) {}
            assert_eq!(walk.finish().reached, 1);
        });
        let mut asked = false;
        if let Err(NotNow::Held(back)) = topic.push(Payload::new(2)) {
            asked = topic.ring_when_free();
            if !asked {
                assert_eq!(topic.push(back).unwrap().reached, 1);
            }
        }
        pusher.join().unwrap();
        assert_eq!(topic.rings(), usize::from(asked));
        assert!(!topic.ring_when_free());
        if asked {
            assert_eq!(push(&topic, 2), 1);
        }
        subscriber.drain().assert_accounts_for(2..=2);
    });
}

/// Property: a walk in slices reaches all who were there, whoever closes or comes meanwhile; who comes
/// gets it or does not count it. Two threads: the walk, the one who goes and comes.
#[test]
fn a_walk_in_slices_against_close_and_subscribe() {
    model(|| {
        let topic = topic();
        let going = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let mut staying = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let walker = {
            let topic = topic.clone();
            thread::spawn(move || {
                let mut walk = super::walk(&topic, 1);
                while !walk.step(1) {}
                walk.finish();
            })
        };
        drop(going);
        let mut coming = Subscriber::new(&topic, Overflow::DropNewest, 1);
        walker.join().unwrap();
        assert_eq!(staying.drain().got(), [1]);
        assert_eq!(coming.drain().missed(), 0);
        coming.assert_accounts_for(coming.got().len() as u64..=1);
        assert_eq!(topic.subscribers(), 2);
        drop((staying, coming));
        assert_eq!(topic.subscribers(), 0);
    });
}

/// Property: a walk that is dropped on its way leaves the turn properly; whom it reached has the
/// payload, whom it did not has a loss. Two threads: the walk, a receiver that waits for its loss.
#[test]
fn a_dropped_walk_leaves_the_turn() {
    model(|| {
        let topic = topic();
        let mut reached = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let mut left_out = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let walker = {
            let topic = topic.clone();
            thread::spawn(move || {
                let mut walk = super::walk(&topic, 1);
                assert!(!walk.step(1));
                drop(walk);
            })
        };
        left_out.wait_for(1);
        walker.join().unwrap();
        assert_eq!(left_out.missed(), 1);
        assert_eq!(reached.drain().got(), [1]);
        assert_eq!(push(&topic, 2), 2);
    });
}
