//! The shard and the registry's end: the hand-over, waiting gates, closing.
//!
//! The model's main thread is the shard; with it there are at most three. The preemption bound is 2, or
//! what `LOOM_MAX_PREEMPTIONS` says. Each model asserts conservation (told = taken over), that nothing is
//! told twice, and order wherever the contract gives one; and that every payload is dropped once.
//!
//! flume's queue and crossbeam's list and cell have locked stand-ins here: the stress tests and
//! ThreadSanitizer see the real ones.
#![cfg(afterwrite_loom)]

use std::pin::Pin;
use std::task::{Context, Poll};

use afterwrite::shard_models::{Door, SHARD_ROLES, STEPS, registry};
use afterwrite::{Gate, Notice, Published, Submitted, Subscription, TryRecvError, Watermark};
use afterwrite_loom_tests::{Payload, Woken, assert_killed, assert_listed, faulted, model};
use futures_core::Stream;
use loom::thread;

fn ready(value: u64) -> Gate<Payload> {
    Gate::read(move |_| Some(Payload::new(value)))
}

/// What a subscription was told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    got: Vec<u64>,
    missed: u64,
}

impl Told {
    /// How many pushes and losses. Nothing is told twice.
    #[track_caller]
    fn count(&self) -> u64 {
        let mut values = self.got.clone();
        values.sort_unstable();
        values.dedup();
        assert_eq!(values.len(), self.got.len(), "told twice: {self:?}");
        self.got.len() as u64 + self.missed
    }

    /// As [`Told::count`], of what was sent in the order of its values.
    #[track_caller]
    fn in_order(&self) -> u64 {
        assert!(self.got.is_sorted(), "out of order: {self:?}");
        self.count()
    }
}

/// What is told before the end, which has come.
fn told(subscription: &mut Subscription<Payload>) -> Told {
    let mut told = Told::default();
    loop {
        match subscription.try_recv() {
            Ok(Notice::Changed(payload)) => told.got.push(payload.value),
            Ok(Notice::Missed { n, .. }) => told.missed += n,
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
        assert_eq!(told(&mut subscription).count(), expected);
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
        assert_eq!(told(&mut subscription).count(), expected);
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
        assert_eq!(told(&mut subscription).in_order(), expected);
    });
}

/// Property: of two submits that are refused while the shard looks for refused ones, each is told
/// once, by the producer of one of them. Three threads.
#[test]
fn two_refused_submits_against_a_step() {
    model(|| {
        let (door, mut shard) = registry(1);
        let mut subscription = door.subscribe().unwrap();
        assert_eq!(door.submit(ready(1)), Submitted::Queued);
        let submitters = [submitter(&door, 2), submitter(&door, 3)];
        shard.step();
        let taken: u64 = submitters.into_iter().map(|s| s.join().unwrap()).sum();
        assert_eq!(taken, 2);
        while shard.works() {}
        door.begin_closing();
        shard.close();
        let told = told(&mut subscription);
        assert_eq!(told.count(), 3);
        assert_eq!(
            told.got.first(),
            Some(&1),
            "queued before the others: {told:?}"
        );
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
        assert_eq!(told(&mut subscription).count(), expected);
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
        assert_eq!(told(&mut subscription).count(), 1);
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
        assert_eq!(told(&mut subscription).count(), 0);
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
        assert_eq!(told(&mut subscription).count(), 0);
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
            assert_eq!(told(&mut subscription).count(), 0);
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

/// Property: what one thread publishes is pushed in its order, to every subscriber, also when the
/// first finds the shard's push under way and is handed over, and the second does not. Two threads:
/// publisher, shard.
#[test]
fn publishes_keep_their_order_against_a_push() {
    model(|| {
        let (door, mut shard) = registry(2);
        let mut subscriptions = [door.subscribe().unwrap(), door.subscribe().unwrap()];
        assert_eq!(door.submit(ready(0)), Submitted::Queued);
        let publisher = {
            let door = door.clone();
            thread::spawn(move || {
                for value in [1, 2] {
                    match door.publish(Payload::new(value)) {
                        Published::Reached(2) | Published::HandedOver => {}
                        other => panic!("{other:?}"),
                    }
                }
            })
        };
        // The shard's push begins, goes on for two slices and ends, and the next one may begin.
        for _ in 0..4 {
            shard.step();
        }
        publisher.join().unwrap();
        while shard.works() {}
        door.begin_closing();
        shard.close();
        let [one, other] = subscriptions.each_mut().map(told);
        assert_eq!(one, other, "two orders");
        assert_eq!((one.count(), one.missed), (3, 0));
        let published: Vec<_> = one.got.into_iter().filter(|value| *value > 0).collect();
        assert_eq!(published, [1, 2]);
    });
}

/// Property: what one thread submits is pushed in its order, though the first gate opens later. Three
/// threads: submitter, who advances, shard.
#[test]
fn submits_keep_their_order_against_an_advance() {
    model(|| {
        let (door, mut shard) = registry(2);
        let mut subscription = door.subscribe().unwrap();
        let watermark = Watermark::new(0);
        let gate = Gate::reached(watermark.reached(1), Payload::new(1));
        let submitter = {
            let door = door.clone();
            thread::spawn(move || {
                assert_eq!(door.submit(gate), Submitted::Queued);
                assert_eq!(door.submit(ready(2)), Submitted::Queued);
            })
        };
        let advancer = thread::spawn(move || watermark.advance(1));
        shard.step();
        submitter.join().unwrap();
        advancer.join().unwrap();
        while shard.works() {}
        door.begin_closing();
        shard.close();
        let told = told(&mut subscription);
        assert_eq!((told.in_order(), told.missed), (2, 0));
    });
}

/// Which model has to fail for which step taken away.
const FAULTS: &[(&str, &str)] = &[
    ("no_look_after_hand_over", "close_against_submit"),
    (
        "overtake_handed",
        "publishes_keep_their_order_against_a_push",
    ),
    (
        "overtake_the_lane",
        "submits_keep_their_order_against_an_advance",
    ),
];

/// Faults that have their models in `keys.rs` and `bell.rs`.
const ELSEWHERE: &[&str] = &["pin_what_goes", "ring_wakes_nobody"];

#[test]
fn every_step_has_a_model_that_misses_it() {
    if faulted() {
        return;
    }
    let steps: Vec<_> = (STEPS.iter().copied())
        .filter(|step| !ELSEWHERE.contains(step))
        .collect();
    assert_listed(FAULTS, &steps);
    assert_killed(FAULTS);
}

/// Orderings that have their models in `bell.rs`.
const MODELLED: &[&str] = &["bell_ring", "bell_sleep", "bell_take", "ready_mark"];

/// Orderings that no model can tell from `Relaxed`: they rest on the argument where they are defined,
/// on the stress tests and on ThreadSanitizer.
const ARGUED: &[&str] = &[
    "bell_pass",
    "load_written",
    "load_read",
    "refusal_list",
    "handed_down",
    "handed_read",
];

/// A new ordering of the shard needs a model, or a place on the list and its argument.
#[test]
fn every_ordering_has_a_model_or_an_argument() {
    let roles: Vec<_> = SHARD_ROLES.iter().map(|(role, _)| *role).collect();
    assert_eq!(roles, [MODELLED, ARGUED].concat());
}
