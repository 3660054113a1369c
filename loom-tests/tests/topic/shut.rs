//! The end of a whole key.

use afterwrite::Overflow;
use afterwrite::models::NotNow;
use afterwrite_loom_tests::{Payload, Sleep, Subscriber, model};
use loom::thread;

use super::{push, topic};

/// Property: a push is received in full or was refused, and then comes the end. Three threads: pusher,
/// the one who shuts, a receiver that waits.
#[test]
fn shut_against_push() {
    model(|| {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || match topic.push(Payload::new(1)) {
                Ok(pushed) => u64::from(pushed.reached),
                Err(NotNow::Shut(back)) => {
                    assert_eq!(back.value, 1);
                    0
                }
                // The one who shuts holds the turn for a moment.
                Err(NotNow::Held(_)) => 0,
            })
        };
        let shutter = {
            let topic = topic.clone();
            thread::spawn(move || topic.shut())
        };
        let sleep = Sleep::begin(&mut subscriber);
        let reached = pusher.join().unwrap();
        shutter.join().unwrap();
        sleep.assert_woken_if_any(&mut subscriber);
        assert!(subscriber.drain().ended());
        subscriber.assert_accounts_for(reached..=reached);
        assert_eq!(subscriber.got().len() as u64, reached);
        assert!(matches!(topic.push(Payload::new(2)), Err(NotNow::Shut(_))));
    });
}

/// Property: what was there before the end is received before it, without waiting. Two threads: the
/// one who pushes and shuts, receiver.
#[test]
fn shut_against_receive() {
    model(|| {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let shutter = {
            let topic = topic.clone();
            thread::spawn(move || {
                assert_eq!(push(&topic, 1), 1);
                topic.shut();
            })
        };
        subscriber.look();
        subscriber.look();
        shutter.join().unwrap();
        subscriber.drain().assert_accounts_for(1..=1);
        assert!(subscriber.ended());
        assert_eq!(subscriber.got(), [1]);
    });
}

/// Property: a receiver that waits is woken for the end. Two threads: the one who shuts, receiver.
#[test]
fn shut_against_a_receiver_that_waits() {
    model(|| {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, Overflow::DropOldest, 1);
        let shutter = {
            let topic = topic.clone();
            thread::spawn(move || topic.shut())
        };
        assert!(!subscriber.wait());
        shutter.join().unwrap();
    });
}

/// Property: a loss left with a push before the end is told before the end. Three threads: pusher, the
/// one who loses and shuts, a receiver that waits.
#[test]
fn shut_against_loss() {
    model(|| {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || push(&topic, 1))
        };
        let shutter = {
            let topic = topic.clone();
            thread::spawn(move || {
                topic.lose(1);
                topic.shut();
            })
        };
        let sleep = Sleep::begin(&mut subscriber);
        let reached = u64::from(pusher.join().unwrap());
        shutter.join().unwrap();
        sleep.assert_woken_if_any(&mut subscriber);
        assert!(subscriber.drain().ended());
        subscriber.assert_accounts_for(reached + 1..=reached + 1);
        assert_eq!(subscriber.missed(), 1);
    });
}

/// Property: a loss and the end, both left with a push, are told in this order, however early the
/// receiver looks. Two threads: the push, which counts the loss and leaves; a receiver that waits for
/// the end.
#[test]
fn shut_and_loss_under_a_push() {
    model(|| {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let mut walk = super::walk(&topic, 1);
        topic.lose(1);
        topic.shut();
        let pusher = thread::spawn(move || {
            while !walk.step(1) {}
            walk.finish();
        });
        while subscriber.wait() {}
        pusher.join().unwrap();
        assert_eq!((subscriber.got(), subscriber.missed()), ([1].as_slice(), 1));
    });
}

/// Property: one that subscribes meanwhile is refused or sees the end, and leaves nothing behind. Two
/// threads: the one who shuts, subscriber.
#[test]
fn shut_against_subscribe() {
    model(|| {
        let topic = topic();
        let shutter = {
            let topic = topic.clone();
            thread::spawn(move || topic.shut())
        };
        if let Some(mut subscriber) = Subscriber::try_new(&topic, Overflow::DropNewest, 1) {
            assert!(!subscriber.wait());
        }
        shutter.join().unwrap();
        assert_eq!(topic.subscribers(), 0);
        assert!(Subscriber::try_new(&topic, Overflow::DropNewest, 1).is_none());
        assert_eq!(topic.subscribers(), 0);
    });
}

/// Property: the end of the key and of a subscription, under a push, agree. Three threads: the one who
/// shuts, owner, pusher.
#[test]
fn shut_against_close() {
    model(|| {
        let topic = topic();
        let mut subscriber = Subscriber::new(&topic, Overflow::DropNewest, 1);
        let shutter = {
            let topic = topic.clone();
            thread::spawn(move || topic.shut())
        };
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || push(&topic, 1))
        };
        subscriber.receiver().close();
        assert!(!subscriber.look() && subscriber.ended());
        drop(subscriber);
        shutter.join().unwrap();
        pusher.join().unwrap();
        assert_eq!(topic.subscribers(), 0);
        assert_eq!(Payload::alive(), 0);
    });
}
