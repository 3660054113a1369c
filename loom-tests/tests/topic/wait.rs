//! Waiting: no wake-up is lost, whoever comes.

use afterwrite::Overflow;
use afterwrite_loom_tests::{Sleep, Subscriber, Woken, model};
use loom::thread;

use super::{push, topic};

/// Property: a receiver that waits gets every push, in order; a lost wake-up shows as a deadlock.
/// Two threads: pusher, receiver.
fn push_against_sleeper(overflow: Overflow) {
    model(move || {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, overflow, 2);
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || (push(&topic, 1), push(&topic, 2)))
        };
        subscriber.wait_for(2);
        assert_eq!(subscriber.got(), [1, 2]);
        subscriber.assert_accounts_for(2..=2);
        assert_eq!(pusher.join().unwrap(), (1, 1));
    });
}

#[test]
fn push_against_a_receiver_that_waits_on_a_ring() {
    push_against_sleeper(Overflow::DropNewest);
}

#[test]
fn push_against_a_receiver_that_waits_on_an_evicting_mailbox() {
    push_against_sleeper(Overflow::DropOldest);
}

/// Property: a wait that is given up takes no notice with it, and the next wait, with another waker,
/// is woken. Two threads: pusher, receiver.
#[test]
fn push_against_a_cancelled_wait() {
    model(|| {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || push(&topic, 1))
        };
        let (_, given_up) = Woken::pair();
        if subscriber.look_or_wait(&given_up) {
            subscriber.receiver().forget_waker();
        }
        subscriber.wait_for(1);
        assert_eq!(subscriber.got(), [1]);
        assert_eq!(pusher.join().unwrap(), 1);
    });
}

/// Property: of two wakers left one after the other, the later one is woken. Two threads: pusher,
/// receiver.
#[test]
fn push_against_a_change_of_wakers() {
    model(|| {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || push(&topic, 1))
        };
        let (_, first) = Woken::pair();
        subscriber.look_or_wait(&first);
        let sleep = Sleep::begin(&mut subscriber);
        assert_eq!(pusher.join().unwrap(), 1);
        sleep.assert_woken_if_any(&mut subscriber);
        assert_eq!(subscriber.drain().got(), [1]);
    });
}

/// Property: one push wakes receivers in two chunks. Three threads: pusher, two receivers.
#[test]
fn push_against_two_receivers_that_wait() {
    model(|| {
        let topic = topic();
        let mut first = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let mut second = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || push(&topic, 1))
        };
        let other = thread::spawn(move || {
            let sleep = Sleep::begin(&mut second);
            (second, sleep)
        });
        let sleep = Sleep::begin(&mut first);
        let (mut second, other_sleep) = other.join().unwrap();
        assert_eq!(pusher.join().unwrap(), 2);
        sleep.assert_woken_if_any(&mut first);
        other_sleep.assert_woken_if_any(&mut second);
        assert_eq!(first.drain().got(), [1]);
        assert_eq!(second.drain().got(), [1]);
    });
}

/// Property: a receiver that begins to wait while a walk goes on in slices is woken by its end at the
/// latest, whether its chunk's wakes come in a slice or at the end. Two threads: the walk, the
/// receiver.
fn walk_in_slices(last_sleeps: bool) {
    model(move || {
        let topic = topic();
        let first = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let last = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let (mut sleeper, mut other) = if last_sleeps {
            (last, first)
        } else {
            (first, last)
        };
        let walker = {
            let topic = topic.clone();
            thread::spawn(move || {
                let mut walk = super::walk(&topic, 1);
                while !walk.step(1) {}
                assert_eq!(walk.finish().reached, 2);
            })
        };
        sleeper.wait_for(1);
        walker.join().unwrap();
        assert_eq!(sleeper.got(), [1]);
        assert_eq!(other.drain().got(), [1]);
    });
}

#[test]
fn a_walk_in_slices_against_a_receiver_that_waits() {
    walk_in_slices(false);
}

#[test]
fn a_walk_in_slices_against_the_last_receiver_that_waits() {
    walk_in_slices(true);
}

/// Property: one that subscribes and waits at once, under a push, is woken for whatever it finds
/// afterwards. Two threads: pusher, subscriber.
#[test]
fn push_against_a_new_receiver_that_waits() {
    model(|| {
        let topic = topic();
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || (push(&topic, 1), push(&topic, 2)))
        };
        let mut subscriber = Subscriber::new(&topic, Overflow::DropNewest, 2);
        let sleep = Sleep::begin(&mut subscriber);
        pusher.join().unwrap();
        sleep.assert_woken_if_any(&mut subscriber);
        assert_eq!(subscriber.drain().missed(), 0);
        subscriber.assert_in_order();
    });
}

/// Property: an entry's bit that the former owner's waker left behind costs the next owner nothing.
/// Three threads: pusher, the former owner, the next one, who waits.
#[test]
fn a_used_entry_against_a_receiver_that_waits() {
    model(|| {
        let topic = topic();
        let mut old = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let closer = old.receiver().closer();
        assert!(closer.close());
        drop(closer);
        let mut new = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || push(&topic, 1))
        };
        let going = thread::spawn(move || {
            let (_, waker) = Woken::pair();
            // Past the look that would tell it of its end.
            old.receiver().next_or_wait(&waker);
        });
        let sleep = Sleep::begin(&mut new);
        going.join().unwrap();
        assert_eq!(pusher.join().unwrap(), 1);
        sleep.assert_woken_if_any(&mut new);
        assert_eq!(new.drain().got(), [1]);
    });
}
