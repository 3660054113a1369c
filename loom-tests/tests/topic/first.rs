//! The first notice of one subscriber, in the key's order.

use afterwrite::Overflow;
use afterwrite::models::{FirstNotice, Topic};
use afterwrite_loom_tests::{Payload, Sleep, Subscriber, model};
use loom::thread;

use super::{push, topic};

const FIRST: u64 = 100;

/// A topic, and a subscriber of it that awaits a first notice.
fn awaiting(capacity: u16) -> (Topic<Payload>, Subscriber, FirstNotice<Payload>) {
    let topic = topic();
    let mut subscriber = Subscriber::new(&topic, Overflow::DropNewest, capacity);
    let first = subscriber.receiver().await_first();
    (topic, subscriber, first)
}

/// Property: the first notice comes once, and stands between the pushes as they took the turn. Three
/// threads: pusher, the one who fills it, receiver.
#[test]
fn first_notice_against_push() {
    model(|| {
        let (topic, mut subscriber, first) = awaiting(2);
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || push(&topic, 1))
        };
        let filler = {
            let topic = topic.clone();
            thread::spawn(move || {
                let filled = topic.fill(&first, Payload::new(FIRST));
                (filled, first)
            })
        };
        subscriber.look();
        let reached = pusher.join().unwrap();
        let (filled, first) = filler.join().unwrap();
        if !filled {
            assert!(topic.fill(&first, Payload::new(FIRST)));
        }
        assert_eq!(push(&topic, 2), 1);
        subscriber.drain();
        let mut expected = vec![1, FIRST, 2];
        if reached == 0 {
            expected.remove(0);
        } else if subscriber.got()[0] == FIRST {
            assert!(filled);
            expected.swap(0, 1);
        }
        assert_eq!(subscriber.got(), expected);
        assert_eq!(subscriber.missed(), 0);
    });
}

/// Property: a push that follows the first notice never comes before it. Two threads: the one who
/// fills and pushes, receiver.
#[test]
fn first_notice_keeps_its_place() {
    model(|| {
        let (topic, mut subscriber, first) = awaiting(2);
        let pusher = {
            let topic = topic.clone();
            thread::spawn(move || {
                assert_eq!(push(&topic, 1), 1);
                assert!(topic.fill(&first, Payload::new(FIRST)));
                assert_eq!(push(&topic, 2), 1);
            })
        };
        subscriber.look();
        subscriber.look();
        pusher.join().unwrap();
        assert_eq!(subscriber.drain().got(), [1, FIRST, 2]);
    });
}

/// Property: a loss before the first notice is told before it. Two threads: the one who loses and
/// fills, receiver.
#[test]
fn a_loss_comes_before_the_first_notice_that_follows_it() {
    model(|| {
        let (topic, mut subscriber, first) = awaiting(2);
        let filler = {
            let topic = topic.clone();
            thread::spawn(move || {
                topic.lose(1);
                assert!(topic.fill(&first, Payload::new(FIRST)));
            })
        };
        while subscriber.got().is_empty() {
            subscriber.wait();
        }
        assert_eq!(
            (subscriber.got(), subscriber.missed()),
            ([FIRST].as_slice(), 1)
        );
        filler.join().unwrap();
    });
}

/// Property: a loss that follows the first notice is told after it. Two threads: the one who fills and
/// loses, receiver.
#[test]
fn a_loss_that_follows_the_first_notice_comes_after_it() {
    model(|| {
        let (topic, mut subscriber, first) = awaiting(2);
        let filler = {
            let topic = topic.clone();
            thread::spawn(move || {
                assert!(topic.fill(&first, Payload::new(FIRST)));
                topic.lose(1);
            })
        };
        for _ in 0..2 {
            subscriber.look();
            assert!(subscriber.missed() == 0 || subscriber.got() == [FIRST]);
        }
        filler.join().unwrap();
        subscriber.drain();
        assert_eq!(
            (subscriber.got(), subscriber.missed()),
            ([FIRST].as_slice(), 1)
        );
    });
}

/// Property: the first notice wakes a receiver that waits. Two threads: the one who fills it,
/// receiver.
#[test]
fn first_notice_against_a_receiver_that_waits() {
    model(|| {
        let (topic, mut subscriber, first) = awaiting(1);
        let filler = {
            let topic = topic.clone();
            thread::spawn(move || assert!(topic.fill(&first, Payload::new(FIRST))))
        };
        assert!(subscriber.wait());
        assert_eq!(subscriber.got(), [FIRST]);
        filler.join().unwrap();
    });
}

/// Property: a first notice that is in its place before the end is received. Three threads: the one who
/// fills it, the one who shuts, a receiver that waits.
#[test]
fn first_notice_against_shut() {
    model(|| {
        let (topic, mut subscriber, first) = awaiting(1);
        let filler = {
            let topic = topic.clone();
            thread::spawn(move || topic.fill(&first, Payload::new(FIRST)))
        };
        let shutter = {
            let topic = topic.clone();
            thread::spawn(move || topic.shut())
        };
        let sleep = Sleep::begin(&mut subscriber);
        let filled = filler.join().unwrap();
        shutter.join().unwrap();
        sleep.assert_woken_if_any(&mut subscriber);
        assert!(subscriber.drain().ended());
        assert_eq!(subscriber.got().len(), usize::from(filled));
    });
}
