//! Subscribing against pushes and closes: the entry that one leaves and another takes.

use afterwrite::Overflow;
use afterwrite_loom_tests::{Subscriber, model};
use loom::thread;

use super::{push, topic};

/// Conservation and order of a subscriber that came while `1..=before` were pushed, and got all of
/// what was pushed since, last `last`: a run without a gap, nothing missed.
fn assert_is_the_end_of(subscriber: &Subscriber, last: u64) {
    let got = subscriber.got();
    assert!(got.ends_with(&[last]), "{got:?}");
    assert!(got.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{got:?}");
    assert_eq!(subscriber.missed(), 0);
    subscriber.assert_accounts_for(got.len() as u64..=got.len() as u64);
}

/// Property: a subscriber that comes between pushes gets those that follow, without a gap, and all
/// that begin after it is there. Two threads: pusher, subscriber.
fn subscribe_against_push(overflow: Overflow) {
    model(move || {
        let topic = topic();
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || (push(&topic, 1), push(&topic, 2)))
        };
        let mut subscriber = Subscriber::new(&topic, overflow, 3);
        subscriber.look();
        pusher.join().unwrap();
        assert_eq!(push(&topic, 3), 1);
        assert_is_the_end_of(subscriber.drain(), 3);
    });
}

#[test]
fn subscribe_with_a_ring_against_push() {
    subscribe_against_push(Overflow::DropNewest);
}

#[test]
fn subscribe_with_an_evicting_mailbox_against_push() {
    subscribe_against_push(Overflow::DropOldest);
}

/// Property: the same when the new entry lies in a chunk that is linked for it, and the one before
/// loses nothing by it. Two threads: pusher, subscriber.
#[test]
fn a_new_chunk_against_push() {
    model(|| {
        let topic = topic();
        let mut first = Subscriber::new(&topic, Overflow::DropNewest, 3);
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || (push(&topic, 1), push(&topic, 2)))
        };
        let mut second = Subscriber::new(&topic, Overflow::DropNewest, 3);
        second.look();
        pusher.join().unwrap();
        assert_eq!(push(&topic, 3), 2);
        assert_is_the_end_of(second.drain(), 3);
        assert_eq!(first.drain().got(), [1, 2, 3]);
    });
}

/// Property: the last subscriber goes and a new one takes its entry, under two pushes; the new one
/// gets a run without a gap. Two threads: pusher, the one who goes and comes.
#[test]
fn last_unsubscribe_then_subscribe_under_pushes() {
    model(|| {
        let topic = topic();
        let old = Subscriber::new(&topic, Overflow::DropNewest, 2);
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || (push(&topic, 1), push(&topic, 2)))
        };
        drop(old);
        let mut new = Subscriber::new(&topic, Overflow::DropOldest, 3);
        pusher.join().unwrap();
        assert_eq!(push(&topic, 3), 1);
        assert_is_the_end_of(new.drain(), 3);
    });
}

/// Property: the same when one goes while another comes. Three threads: pusher, the one who goes, the
/// one who comes.
#[test]
fn last_unsubscribe_against_subscribe_under_a_push() {
    model(|| {
        let topic = topic();
        let old = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || push(&topic, 1))
        };
        let going = thread::spawn(move || drop(old));
        let mut new = Subscriber::new(&topic, Overflow::DropNewest, 2);
        going.join().unwrap();
        pusher.join().unwrap();
        assert_eq!(push(&topic, 2), 1);
        assert_is_the_end_of(new.drain(), 2);
    });
}

/// Property: an entry that a sweep gave back is used again only after the sweeping push is done with
/// it. Two threads: pusher, the one who goes and comes twice.
#[test]
fn a_swept_entry_is_used_again() {
    model(|| {
        let topic = topic();
        let old = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let going = {
            let topic = topic.clone();
            thread::spawn(move || {
                drop(old);
                let next = Subscriber::new(&topic, Overflow::DropNewest, 1);
                drop(next);
                Subscriber::new(&topic, Overflow::DropNewest, 2)
            })
        };
        push(&topic, 1);
        let mut last = going.join().unwrap();
        assert_eq!(push(&topic, 2), 1);
        assert_is_the_end_of(last.drain(), 2);
        assert_eq!(topic.subscribers(), 1);
    });
}
