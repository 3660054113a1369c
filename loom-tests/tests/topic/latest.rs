//! A payload that says nothing, conflated: the one word of its mailbox.

use std::sync::Arc;

use afterwrite::Overflow;
use afterwrite::models::{Found, Receiver, Topic};
use afterwrite_loom_tests::{Woken, model};
use loom::sync::atomic::{AtomicU64, Ordering::Relaxed};
use loom::thread;

/// A receiver, and what it was told.
struct Reader {
    receiver: Receiver<()>,
    got: u64,
    missed: u64,
    ended: bool,
}

impl Reader {
    fn new(topic: &Topic<()>) -> Self {
        Self {
            receiver: topic.subscribe(Overflow::Conflate, 1).unwrap(),
            got: 0,
            missed: 0,
            ended: false,
        }
    }

    fn note(&mut self, found: Found<()>) -> bool {
        match found {
            Found::Changed(()) => self.got += 1,
            Found::Missed { n, .. } => self.missed += n,
            Found::Empty => return false,
            Found::Ended => {
                self.ended = true;
                return false;
            }
        }
        true
    }

    fn look(&mut self) -> bool {
        let found = self.receiver.next();
        self.note(found)
    }

    fn drain(&mut self) -> &mut Self {
        while self.look() {}
        self
    }

    /// Conservation; what was told is what was counted.
    #[track_caller]
    fn accounted(&self) -> u64 {
        let tally = self.receiver.tally();
        assert_eq!(tally.received, self.got, "{tally:?}");
        assert_eq!(tally.missed, self.missed, "{tally:?}");
        tally.received + tally.missed + tally.merged + tally.discarded
    }
}

/// What each push follows.
type Written = Arc<AtomicU64>;

fn push(topic: &Topic<()>, written: &Written, n: u64) -> u32 {
    written.store(n, Relaxed);
    topic.push(()).map_or(0, |pushed| pushed.reached)
}

/// Pushes on a thread of its own; how many it reached.
fn pusher(topic: &Topic<()>, written: &Written, n: u64) -> thread::JoinHandle<u32> {
    let (topic, written) = (topic.clone(), Arc::clone(written));
    thread::spawn(move || push(&topic, &written, n))
}

/// Loses one on a thread of its own.
fn loser(topic: &Topic<()>) -> thread::JoinHandle<()> {
    let topic = topic.clone();
    thread::spawn(move || topic.lose(1))
}

/// Property: two pushes are received or merged, and the last is received; who was told of a push
/// sees what was written before it. Two threads: pusher, receiver.
#[test]
fn two_pushes_of_nothing() {
    model(|| {
        let (topic, written) = (Topic::new(), Written::default());
        let mut reader = Reader::new(&topic);
        let receiver = {
            let written = Arc::clone(&written);
            thread::spawn(move || {
                for _ in 0..2 {
                    reader.look();
                    assert!(written.load(Relaxed) >= reader.accounted());
                }
                reader
            })
        };
        for n in 1..=2 {
            assert_eq!(push(&topic, &written, n), 1);
        }
        let mut reader = receiver.join().unwrap();
        let told = reader.got;
        assert_eq!(reader.drain().accounted(), 2);
        assert!((1..=told + 1).contains(&reader.got));
        assert_eq!(reader.missed, 0);
    });
}

/// Property: a loss under a push is told as one, beside what was pushed. Three threads: pusher,
/// loser, receiver.
#[test]
fn a_loss_against_a_push_of_nothing() {
    model(|| {
        let (topic, written) = (Topic::new(), Written::default());
        let mut reader = Reader::new(&topic);
        let pusher = pusher(&topic, &written, 1);
        let loser = loser(&topic);
        reader.look();
        let reached = u64::from(pusher.join().unwrap());
        loser.join().unwrap();
        assert_eq!(reader.drain().accounted(), reached + 1);
        assert_eq!((reader.got, reader.missed), (reached, 1));
    });
}

/// Property: a loss that overlaps the subscription hides no later one. Two threads: loser, subscriber.
#[test]
fn a_loss_against_a_subscriber_of_nothing() {
    model(|| {
        let (topic, written) = (Topic::new(), Written::default());
        let loser = loser(&topic);
        let mut reader = Reader::new(&topic);
        loser.join().unwrap();
        reader.look();
        for n in 1..=2 {
            push(&topic, &written, n);
        }
        let before = reader.drain().missed;
        topic.lose(1);
        push(&topic, &written, 3);
        assert_eq!(reader.drain().missed, before + 1);
    });
}

/// Property: a push wakes who waits. Two threads: pusher, receiver.
#[test]
fn a_push_of_nothing_against_a_receiver_that_waits() {
    model(|| {
        let (topic, written) = (Topic::new(), Written::default());
        let mut reader = Reader::new(&topic);
        let pusher = pusher(&topic, &written, 1);
        let (woken, waker) = Woken::pair();
        let mut waits = false;
        if !reader.look() {
            let found = reader.receiver.next_or_wait(&waker);
            waits = matches!(found, Found::Empty);
            reader.note(found);
        }
        pusher.join().unwrap();
        let any = reader.look();
        assert!(!(waits && any) || woken.times() > 0, "a lost wake-up");
        assert_eq!(reader.accounted(), 1);
        assert_eq!(reader.got, 1);
    });
}

/// Property: a close ends it under a push; what was not received is counted once. Three threads: pusher,
/// closer, receiver.
#[test]
fn a_push_of_nothing_against_a_close() {
    model(|| {
        let (topic, written) = (Topic::new(), Written::default());
        let mut reader = Reader::new(&topic);
        let pusher = pusher(&topic, &written, 1);
        let closer = reader.receiver.closer();
        let closer = thread::spawn(move || closer.close());
        reader.look();
        pusher.join().unwrap();
        assert!(closer.join().unwrap());
        reader.drain();
        assert!(reader.ended);
        assert!((0..=1).contains(&reader.accounted()));
    });
}

/// Property: a subscriber that comes under a push is told of it or not, and of the next one surely. Two
/// threads: pusher, subscriber.
#[test]
fn a_push_of_nothing_against_a_subscriber_that_comes() {
    model(|| {
        let (topic, written) = (Topic::new(), Written::default());
        let pusher = pusher(&topic, &written, 1);
        let mut reader = Reader::new(&topic);
        pusher.join().unwrap();
        assert_eq!(push(&topic, &written, 2), 1);
        assert!((1..=2).contains(&reader.drain().accounted()));
        assert!(reader.got >= 1);
        assert_eq!(reader.missed, 0);
    });
}
