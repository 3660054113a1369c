//! Losses of a whole key: counted once, in order, told to all.

use afterwrite::Overflow;
use afterwrite_loom_tests::{Sleep, Subscriber, model};
use loom::thread;

use super::{push, topic};

/// Property: a key's losses are told, and never as visible ones. Two threads: loser, receiver.
#[test]
fn loss_against_a_receiver() {
    model(|| {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let loser = {
            let topic = topic.clone();
            thread::spawn(move || {
                topic.lose(2);
                topic.lose(1);
            })
        };
        subscriber.look();
        subscriber.look();
        loser.join().unwrap();
        assert_eq!(subscriber.drain().missed(), 3);
        assert_eq!(subscriber.missed_visible(), 0);
        subscriber.assert_accounts_for(3..=3);
    });
}

/// Property: a loss under a push is counted by it or by the loser, once, beside what was pushed.
/// Three threads: pusher, loser, receiver.
fn loss_against_push(overflow: Overflow) {
    model(move || {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, overflow, 1);
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || u64::from(push(&topic, 1)))
        };
        let loser = {
            let topic = topic.clone();
            thread::spawn(move || topic.lose(1))
        };
        subscriber.look();
        let reached = pusher.join().unwrap();
        loser.join().unwrap();
        subscriber
            .drain()
            .assert_accounts_for(reached + 1..=reached + 1);
        assert_eq!(subscriber.got().len() as u64, reached);
        assert_eq!((subscriber.missed(), subscriber.missed_visible()), (1, 0));
    });
}

#[test]
fn loss_against_push_to_a_ring() {
    loss_against_push(Overflow::DropNewest);
}

#[test]
fn loss_against_push_to_a_conflating_mailbox() {
    loss_against_push(Overflow::Conflate);
}

/// Property: two losers count both losses, so that a conflating receiver tells them from merges.
/// Three threads: two losers, pusher.
#[test]
fn loss_against_loss() {
    model(|| {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, Overflow::Conflate, 1);
        let losers = [1, 2].map(|n| {
            let topic = topic.clone();
            thread::spawn(move || topic.lose(n))
        });
        let reached = push(&topic, 1);
        for loser in losers {
            loser.join().unwrap();
        }
        assert_eq!(push(&topic, 2), 1);
        let pushed = u64::from(reached) + 1;
        subscriber
            .drain()
            .assert_accounts_for(pushed + 3..=pushed + 3);
        assert_eq!(subscriber.got(), [2]);
        assert_eq!(subscriber.missed(), 3);
    });
}

/// Property: a loss that overlaps the subscription of one who conflates hides no later one. Two threads:
/// loser, subscriber.
#[test]
fn loss_against_a_subscriber_that_conflates() {
    model(|| {
        let topic = topic();
        let loser = {
            let topic = topic.clone();
            thread::spawn(move || topic.lose(1))
        };
        let mut subscriber = Subscriber::new(&topic, Overflow::Conflate, 1);
        loser.join().unwrap();
        subscriber.look();
        push(&topic, 1);
        push(&topic, 2);
        let before = subscriber.drain().missed();
        topic.lose(1);
        push(&topic, 3);
        assert_eq!(subscriber.drain().missed(), before + 1);
    });
}

/// Property: a loss wakes a receiver that waits. Two threads: loser, receiver.
#[test]
fn loss_against_a_receiver_that_waits() {
    model(|| {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let loser = {
            let topic = topic.clone();
            thread::spawn(move || topic.lose(1))
        };
        subscriber.wait_for(1);
        assert_eq!(subscriber.missed(), 1);
        loser.join().unwrap();
    });
}

/// Property: a loss left with a push wakes a receiver that waits, whoever counts it. Three threads:
/// pusher, loser, receiver.
#[test]
fn loss_and_push_against_a_receiver_that_waits() {
    model(|| {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || push(&topic, 1))
        };
        let loser = {
            let topic = topic.clone();
            thread::spawn(move || topic.lose(1))
        };
        let sleep = Sleep::begin(&mut subscriber);
        let reached = u64::from(pusher.join().unwrap());
        loser.join().unwrap();
        sleep.assert_woken_if_any(&mut subscriber);
        subscriber
            .drain()
            .assert_accounts_for(reached + 1..=reached + 1);
    });
}

/// Property: one that subscribes during a loss counts it or not, and everything after it. Two threads:
/// loser, subscriber.
#[test]
fn loss_against_subscribe() {
    model(|| {
        let topic = topic();
        let loser = {
            let topic = topic.clone();
            thread::spawn(move || topic.lose(1))
        };
        let mut subscriber = Subscriber::new(&topic, Overflow::DropNewest, 1);
        loser.join().unwrap();
        assert_eq!(push(&topic, 1), 1);
        subscriber.drain().assert_accounts_for(1..=2);
        assert_eq!(subscriber.got(), [1]);
    });
}
