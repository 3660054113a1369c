//! The shard and the registry's end: the hand-over, waiting gates, closing.
//!
//! The model's main thread is the shard. flume's queue and crossbeam's list are stand-ins here (a
//! locked queue each), and crossbeam's `AtomicCell`, which holds refused producers, is invisible: the
//! stress tests and ThreadSanitizer see those.
#![cfg(afterwrite_loom)]

use std::pin::Pin;
use std::task::{Context, Poll};

use afterwrite::shard_models::{Door, registry};
use afterwrite::{Gate, Notice, Published, Submitted, Subscription, TryRecvError, Watermark};
use afterwrite_loom_tests::{Payload, Woken, faulted, model, passes};
use futures_core::Stream;
use loom::thread;

fn ready(value: u64) -> Gate<Payload> {
    Gate::read(move |_| Some(Payload::new(value)))
}

/// How many pushes and losses are told before the end, which has come.
fn told(subscription: &mut Subscription<Payload>) -> u64 {
    let mut told = 0;
    loop {
        match subscription.try_recv() {
            Ok(Notice::Changed(_)) => told += 1,
            Ok(Notice::Missed { n, .. }) => told += n,
            Err(TryRecvError::Ended) => return told,
            Err(TryRecvError::Empty) => panic!("the registry has ended"),
        }
    }
}

fn counted(submitted: Submitted) -> u64 {
    match submitted {
        Submitted::Queued | Submitted::QueueFull => 1,
        Submitted::Closed | Submitted::NoSubscribers => 0,
    }
}

fn submitter(door: &Door<Payload>, value: u64) -> thread::JoinHandle<u64> {
    let door = door.clone();
    thread::spawn(move || counted(door.submit(ready(value))))
}

/// Property: a submit that was taken over is told exactly once, one that was not is not. Two threads:
/// submitter, shard.
#[test]
fn close_against_submit() {
    model(|| {
        let (door, shard) = registry(2);
        let mut subscription = door.subscribe().unwrap();
        let submitter = submitter(&door, 1);
        door.begin_closing();
        shard.close();
        let expected = submitter.join().unwrap();
        assert_eq!(told(&mut subscription), expected);
    });
}

/// Property: as above, when two race for the last place of the queue. Three threads.
#[test]
fn close_against_two_submits() {
    model(|| {
        let (door, shard) = registry(2);
        let mut subscription = door.subscribe().unwrap();
        let submitters = [submitter(&door, 1), submitter(&door, 2)];
        door.begin_closing();
        shard.close();
        let expected: u64 = submitters.into_iter().map(|s| s.join().unwrap()).sum();
        assert_eq!(told(&mut subscription), expected);
    });
}

/// Property: a submit into a full queue is told exactly once, unless it met a closed registry. Two
/// threads.
#[test]
fn close_against_a_refused_submit() {
    model(|| {
        let (door, shard) = registry(1);
        let mut subscription = door.subscribe().unwrap();
        assert_eq!(door.submit(ready(1)), Submitted::Queued);
        let submitter = submitter(&door, 2);
        door.begin_closing();
        shard.close();
        let expected = 1 + submitter.join().unwrap();
        assert_eq!(told(&mut subscription), expected);
    });
}

/// Property: two publishers, one of whom may hand over, against the end: every payload is told once.
/// Three threads.
#[test]
fn close_against_two_publishers() {
    model(|| {
        let (door, shard) = registry(2);
        let mut subscription = door.subscribe().unwrap();
        let publishers = [1, 2].map(|value| {
            let door = door.clone();
            thread::spawn(move || match door.publish(Payload::new(value)) {
                Published::Closed => 0,
                Published::Reached(reached) => reached as u64,
                _ => 1,
            })
        });
        door.begin_closing();
        shard.close();
        let expected: u64 = publishers.into_iter().map(|p| p.join().unwrap()).sum();
        assert_eq!(told(&mut subscription), expected);
    });
}

/// Property: a gate whose watermark advances while the registry closes is pushed or missed, once.
/// Two threads: who advances, shard.
#[test]
fn close_against_a_waiting_gate() {
    model(|| {
        let (door, mut shard) = registry(2);
        let mut subscription = door.subscribe().unwrap();
        let watermark = Watermark::new(0);
        let gate = Gate::reached(watermark.reached(1), Payload::new(1));
        assert_eq!(door.submit(gate), Submitted::Queued);
        assert!(shard.step());
        let advancer = thread::spawn(move || watermark.advance(1));
        shard.step();
        door.begin_closing();
        shard.close();
        advancer.join().unwrap();
        assert_eq!(told(&mut subscription), 1);
    });
}

/// Property: a gate that was woken before a step is pushed by it. Two threads.
#[test]
fn wake_against_step() {
    model(|| {
        let (door, mut shard) = registry(2);
        let mut subscription = door.subscribe().unwrap();
        let watermark = Watermark::new(0);
        let gate = Gate::reached(watermark.reached(1), Payload::new(1));
        assert_eq!(door.submit(gate), Submitted::Queued);
        let advancer = thread::spawn(move || watermark.advance(1));
        shard.step();
        shard.step();
        advancer.join().unwrap();
        shard.step();
        shard.step();
        let notice = subscription.try_recv();
        assert!(matches!(notice, Ok(Notice::Changed(_))), "{notice:?}");
        door.begin_closing();
        shard.close();
        assert_eq!(told(&mut subscription), 0);
    });
}

/// Property: whoever waits is woken by the end. Two threads: receiver, shard.
#[test]
fn close_against_receive() {
    model(|| {
        let (door, shard) = registry(2);
        let mut subscription = door.subscribe().unwrap();
        let receiver = thread::spawn(move || {
            let (woken, waker) = Woken::pair();
            let next = Pin::new(&mut subscription).poll_next(&mut Context::from_waker(&waker));
            let waits = match next {
                Poll::Ready(notice) => {
                    assert!(notice.is_none());
                    false
                }
                Poll::Pending => true,
            };
            (subscription, woken, waits)
        });
        door.begin_closing();
        shard.close();
        let (mut subscription, woken, waits) = receiver.join().unwrap();
        assert!(!waits || woken.times() > 0, "a lost wake-up");
        assert_eq!(told(&mut subscription), 0);
    });
}

/// Property: a subscription that meets the end is refused, or ends. Two threads.
#[test]
fn close_against_subscribe() {
    model(|| {
        let (door, shard) = registry(2);
        let subscriber = {
            let door = door.clone();
            thread::spawn(move || door.subscribe().ok())
        };
        door.begin_closing();
        shard.close();
        if let Some(mut subscription) = subscriber.join().unwrap() {
            assert_eq!(told(&mut subscription), 0);
        }
    });
}

/// Property: a subscription that ends with the registry ends once, and leaves nothing. Two threads.
#[test]
fn close_against_unsubscribe() {
    model(|| {
        let (door, shard) = registry(2);
        let subscription = door.subscribe().unwrap();
        assert_eq!(door.submit(ready(1)), Submitted::Queued);
        let owner = thread::spawn(move || drop(subscription));
        door.begin_closing();
        shard.close();
        owner.join().unwrap();
    });
}

/// A close that is not looked for after the hand-over strands the job, and a model says so.
#[test]
fn the_planted_fault_is_found() {
    if faulted() {
        return;
    }
    assert!(passes("close_against_submit", None));
    assert!(!passes(
        "close_against_submit",
        Some("no_look_after_hand_over")
    ));
}
