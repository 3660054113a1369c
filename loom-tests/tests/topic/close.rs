//! Closing against pushes, receives and other closes.

use afterwrite::Overflow;
use afterwrite_loom_tests::{Payload, Sleep, Subscriber, model};
use loom::thread;

use super::{push, topic};

/// Property: nothing is delivered after the owner's close, and all before it is received or
/// discarded. Two threads: pusher, owner.
fn push_against_owner(overflow: Overflow) {
    model(move || {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, overflow, 2);
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || push(&topic, 1) + push(&topic, 2))
        };
        subscriber.look();
        subscriber.receiver().close();
        assert!(!subscriber.look() && subscriber.ended());
        let reached = u64::from(pusher.join().unwrap());
        // One that overlapped the end may count or not, whether it came here or not.
        subscriber.assert_accounts_for(reached.saturating_sub(1)..=2);
        assert_eq!(push(&topic, 3), 0);
        assert_eq!(topic.subscribers(), 0);
        // A push under way has dropped what it still delivered, though the owner is still there.
        assert_eq!(Payload::alive(), 0);
    });
}

#[test]
fn push_against_the_owner_of_a_ring() {
    push_against_owner(Overflow::DropNewest);
}

#[test]
fn push_against_the_owner_of_an_evicting_mailbox() {
    push_against_owner(Overflow::DropOldest);
}

/// Property: a mailbox that is dropped under pushes is drained by the last that can touch it, and a
/// push that begins later never writes to it. The closer keeps its memory, so that a write too late
/// is seen as a payload that nobody drops. Two threads: pusher, owner.
fn push_against_drop(overflow: Overflow) {
    model(move || {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, overflow, 2);
        let memory = subscriber.receiver().closer();
        push(&topic, 1);
        let owner = thread::spawn(move || {
            subscriber.look();
            drop(subscriber);
        });
        push(&topic, 2);
        push(&topic, 3);
        owner.join().unwrap();
        assert_eq!(push(&topic, 4), 0);
        assert_eq!(Payload::alive(), 0);
        drop(memory);
    });
}

#[test]
fn push_against_the_drop_of_a_ring() {
    push_against_drop(Overflow::DropNewest);
}

#[test]
fn push_against_the_drop_of_an_evicting_mailbox() {
    push_against_drop(Overflow::DropOldest);
}

/// Property: the owner drops a ring that a push fills; whoever gives up the last reference frees it,
/// and nobody touches it after that. Two threads: pusher, owner.
#[test]
fn the_last_reference_frees_the_mailbox() {
    model(|| {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let closer = subscriber.receiver().closer();
        let other = thread::spawn(move || {
            closer.close();
            drop(closer);
        });
        push(&topic, 1);
        drop(subscriber);
        other.join().unwrap();
        assert_eq!(topic.subscribers(), 0);
    });
}

/// Property: a close from elsewhere stops pushes and ends the receiver; what was delivered is received
/// or discarded. Three threads: pusher, closer, receiver.
fn push_against_closer(overflow: Overflow) {
    model(move || {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, overflow, 2);
        assert_eq!(push(&topic, 0), 1);
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || push(&topic, 1))
        };
        let closer = {
            let closer = subscriber.receiver().closer();
            thread::spawn(move || assert!(closer.close()))
        };
        subscriber.look();
        closer.join().unwrap();
        pusher.join().unwrap();
        subscriber.drain();
        assert!(subscriber.ended());
        // The one that overlaps the close counts or not.
        subscriber.assert_accounts_for(1..=2);
        assert_eq!(push(&topic, 3), 0);
        assert_eq!(topic.subscribers(), 0);
        assert_eq!(Payload::alive(), 0);
    });
}

#[test]
fn push_against_the_closer_of_a_ring() {
    push_against_closer(Overflow::DropNewest);
}

#[test]
fn push_against_the_closer_of_an_evicting_mailbox() {
    push_against_closer(Overflow::DropOldest);
}

/// Property: what is pushed after a close returned, by the closer itself, is neither received nor
/// reported as missed. Two threads: closer, who pushes then; receiver.
#[test]
fn nothing_is_reported_that_was_pushed_after_the_close() {
    model(|| {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, Overflow::DropNewest, 2);
        let closer = {
            let topic = topic.clone();
            let closer = subscriber.receiver().closer();
            thread::spawn(move || {
                assert!(closer.close());
                assert_eq!(push(&topic, 1), 0);
            })
        };
        subscriber.look();
        closer.join().unwrap();
        subscriber.drain().assert_accounts_for(0..=0);
    });
}

/// Property: of two closes under a push exactly one is the one that ended it. Three threads: two
/// closers, pusher.
#[test]
fn close_against_close() {
    model(|| {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let closers = [(); 2].map(|()| {
            let closer = subscriber.receiver().closer();
            thread::spawn(move || usize::from(closer.close()))
        });
        push(&topic, 1);
        let ended: usize = closers.map(|closer| closer.join().unwrap()).iter().sum();
        assert_eq!(ended, 1);
        assert_eq!(topic.subscribers(), 0);
        subscriber.drain();
        assert!(subscriber.ended());
    });
}

/// Property: who closes second, and returns, finds the subscription closed for every push that begins
/// then. Two threads: a closer, and another, who pushes then.
#[test]
fn a_second_close_returns_no_earlier_than_the_first() {
    model(|| {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let first = subscriber.receiver().closer();
        let second = subscriber.receiver().closer();
        let pusher = thread::spawn(move || {
            second.close();
            assert_eq!(push(&topic, 1), 0);
        });
        first.close();
        pusher.join().unwrap();
        subscriber.drain().assert_accounts_for(0..=0);
    });
}

/// Property: the owner's drop and a close from elsewhere, under a push, drain and free once. Three
/// threads: owner, closer, pusher.
#[test]
fn drop_against_closer() {
    model(|| {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let closer = subscriber.receiver().closer();
        let closing = thread::spawn(move || closer.close());
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || push(&topic, 1))
        };
        drop(subscriber);
        closing.join().unwrap();
        pusher.join().unwrap();
        assert_eq!(topic.subscribers(), 0);
        assert_eq!(Payload::alive(), 0);
    });
}

/// Property: a push that is asked to sweep finds every mailbox that was retired under it, also the one
/// listed while it answers for the one before. Two threads: the push, which has begun; owner of both.
#[test]
fn two_closes_under_a_push() {
    model(|| {
        let topic = topic();
        let first = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let second = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let mut walk = super::walk(&topic, 1);
        let pusher = thread::spawn(move || {
            while !walk.step(2) {}
            walk.finish();
        });
        drop(first);
        drop(second);
        pusher.join().unwrap();
        assert_eq!(topic.subscribers(), 0);
        assert_eq!(Payload::alive(), 0);
        let mut next = Subscriber::new(&topic, Overflow::DropNewest, 1);
        assert_eq!(push(&topic, 2), 1);
        next.drain().assert_accounts_for(1..=1);
    });
}

/// Property: the same when two threads close. Three threads: pusher, two owners.
#[test]
fn two_owners_close_under_a_push() {
    model(|| {
        let topic = topic();
        let first = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let second = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || push(&topic, 1))
        };
        let owner = thread::spawn(move || drop(first));
        drop(second);
        owner.join().unwrap();
        pusher.join().unwrap();
        assert_eq!(topic.subscribers(), 0);
        assert_eq!(Payload::alive(), 0);
    });
}

/// Property: a close from elsewhere wakes the receiver that waits. Two threads: closer, receiver.
#[test]
fn close_against_a_sleeping_receiver() {
    model(|| {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let closer = {
            let closer = subscriber.receiver().closer();
            thread::spawn(move || assert!(closer.close()))
        };
        assert!(!subscriber.wait());
        closer.join().unwrap();
    });
}

/// Property: the same while a push wants to wake it too. Three threads: closer, pusher, receiver.
#[test]
fn close_and_push_against_a_sleeping_receiver() {
    model(|| {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let closer = {
            let closer = subscriber.receiver().closer();
            thread::spawn(move || assert!(closer.close()))
        };
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || push(&topic, 1))
        };
        let sleep = Sleep::begin(&mut subscriber);
        closer.join().unwrap();
        let reached = u64::from(pusher.join().unwrap());
        sleep.assert_woken_if_any(&mut subscriber);
        assert!(subscriber.drain().ended());
        subscriber.assert_accounts_for(0..=1);
        assert!(subscriber.got().len() as u64 <= reached);
    });
}
