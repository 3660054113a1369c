//! Models of the watermark: no wake-up is lost, and what an advancer wrote is seen.
//!
//! At most three threads and three operations a model. The preemption bound is 2, or what
//! `LOOM_MAX_PREEMPTIONS` says. The helpers use std's atomics, which the checker does not see: they
//! neither order anything nor add interleavings.
//!
//! `every_mutant_is_caught` runs models again with one ordering or step of the protocol taken
//! away, and expects each to fail.
#![cfg(afterwrite_loom)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Wake, Waker};

use afterwrite::{WaitFor, Watermark, watermark_models as internals};
use afterwrite_loom_tests::{Woken, assert_killed, assert_listed, faulted, model};
use loom::sync::atomic::AtomicU64;
use loom::thread;

/// Which model has to fail for which mutant.
const KILLS: &[(&str, &str)] = &[
    ("watermark_advance_acquire", "no_wake_up_is_lost"),
    ("watermark_register_release", "no_wake_up_is_lost"),
    ("watermark_register_unchecked", "no_wake_up_is_lost"),
    (
        "watermark_advance_release",
        "a_reader_sees_what_was_written",
    ),
    ("watermark_read_acquire", "a_reader_sees_what_was_written"),
    (
        "watermark_register_acquire",
        "a_registrant_sees_what_was_written",
    ),
    ("watermark_one_batch", "all_who_are_due_are_woken"),
    (
        "watermark_poller_unlocked",
        "a_poller_never_sleeps_through_a_wait",
    ),
];

fn poll(wait: &mut WaitFor, waker: &Waker) -> Poll<()> {
    Pin::new(wait).poll(&mut Context::from_waker(waker))
}

/// Property: a wait that was left pending is woken, once, by the advance to its position.
/// Two threads.
#[test]
fn no_wake_up_is_lost() {
    model(|| {
        let watermark = Watermark::new(0);
        let view = watermark.clone();
        let advancer = thread::spawn(move || view.advance(1));
        let (woken, waker) = Woken::pair();
        let mut wait = watermark.wait_for(1);
        let first = poll(&mut wait, &waker);
        assert!(advancer.join().unwrap());
        assert_eq!(woken.times(), usize::from(first.is_pending()));
        assert_eq!(poll(&mut wait, &waker), Poll::Ready(()));
        assert_eq!(watermark.waiting(), 0);
    });
}

/// Property: of two advancers that pass one another, one moves the position for good, and between
/// them they wake the wait once. Three threads.
#[test]
fn two_advancers_wake_one_wait() {
    model(|| {
        let watermark = Watermark::new(0);
        let advancers = [1, 2].map(|position| {
            let view = watermark.clone();
            thread::spawn(move || view.advance(position))
        });
        let (woken, waker) = Woken::pair();
        let mut wait = watermark.wait_for(1);
        let first = poll(&mut wait, &waker);
        let [low, high] = advancers.map(|advancer| advancer.join().unwrap());
        assert!(high);
        assert!(low || watermark.get() == 2);
        assert_eq!(woken.times(), usize::from(first.is_pending()));
        assert_eq!(watermark.get(), 2);
    });
}

/// Property: the lower of two positions stays the least awaited, whoever registers last, and the
/// higher is still awaited after it was reached. Three threads.
#[test]
fn two_registrants_are_each_woken_in_their_turn() {
    model(|| {
        let watermark = Watermark::new(0);
        let other = watermark.clone();
        let registrant = thread::spawn(move || {
            let (woken, waker) = Woken::pair();
            let mut wait = other.wait_for(2);
            assert!(poll(&mut wait, &waker).is_pending());
            (wait, woken)
        });
        let view = watermark.clone();
        let advancer = thread::spawn(move || view.advance(1));
        let (woken, waker) = Woken::pair();
        let mut wait = watermark.wait_for(1);
        let pending = poll(&mut wait, &waker).is_pending();
        let (_other_wait, other_woken) = registrant.join().unwrap();
        advancer.join().unwrap();
        assert_eq!(woken.times(), usize::from(pending));
        assert_eq!((other_woken.times(), watermark.waiting()), (0, 1));
        watermark.advance(2);
        assert_eq!((other_woken.times(), watermark.waiting()), (1, 0));
    });
}

/// Property: an advance wakes all who are due, though it takes one at a time under the lock here,
/// and nobody else. Two threads.
#[test]
fn all_who_are_due_are_woken() {
    model(|| {
        let watermark = Watermark::new(0);
        let waits = [1, 2, 3].map(|position| {
            let (woken, waker) = Woken::pair();
            let mut wait = watermark.wait_for(position);
            assert!(poll(&mut wait, &waker).is_pending());
            (wait, woken)
        });
        let view = watermark.clone();
        let advancer = thread::spawn(move || view.advance(2));
        advancer.join().unwrap();
        let times = waits.each_ref().map(|(_, woken)| woken.times());
        assert_eq!(times, [1, 1, 0]);
        assert_eq!(watermark.waiting(), 1);
    });
}

/// Property: who gives up the lowest position takes no wake-up from the next. Three threads.
#[test]
fn a_cancelled_wait_takes_nobody_elses_wake_up() {
    model(|| {
        let watermark = Watermark::new(0);
        let (given_up, given_up_waker) = Woken::pair();
        let mut leaving = watermark.wait_for(1);
        assert!(poll(&mut leaving, &given_up_waker).is_pending());
        let (woken, waker) = Woken::pair();
        let mut staying = watermark.wait_for(2);
        assert!(poll(&mut staying, &waker).is_pending());

        let view = watermark.clone();
        let advancer = thread::spawn(move || view.advance(2));
        let canceller = thread::spawn(move || drop(leaving));
        advancer.join().unwrap();
        canceller.join().unwrap();
        assert_eq!(woken.times(), 1);
        assert!(given_up.times() <= 1);
        assert_eq!(watermark.waiting(), 0);
    });
}

/// Property: a wait that moves to another task is woken there, or its poll there says that it is
/// over. Two threads.
#[test]
fn a_wait_that_changes_hands_is_woken_where_it_is() {
    model(|| {
        let watermark = Watermark::new(0);
        let (_, first) = Woken::pair();
        let mut wait = watermark.wait_for(1);
        assert!(poll(&mut wait, &first).is_pending());
        let view = watermark.clone();
        let advancer = thread::spawn(move || view.advance(1));
        let (woken, second) = Woken::pair();
        let moved = poll(&mut wait, &second);
        advancer.join().unwrap();
        assert_eq!(woken.times(), usize::from(moved.is_pending()));
    });
}

/// Property: whoever reads a position sees what was written before the advance to it. Two threads.
///
/// The advancer is the main thread, which the checker runs first. The other way round it would
/// forget the reader's load over the advancer's own, and never try the two in the other order.
#[test]
fn a_reader_sees_what_was_written() {
    model(|| {
        let watermark = Watermark::new(0);
        let row = Arc::new(AtomicU64::new(0));
        let (seen, written) = (watermark.reached(1), Arc::clone(&row));
        let reader = thread::spawn(move || {
            if seen.is_ready() {
                assert_eq!(written.load(Relaxed), 7);
            }
        });
        row.store(7, Relaxed);
        watermark.advance(1);
        reader.join().unwrap();
    });
}

/// Property: the same for a registrant that finds the position reached, also when another's
/// read-modify-write came between (it continues the release sequence). Three threads.
#[test]
fn a_registrant_sees_what_was_written() {
    model(|| {
        let watermark = Watermark::new(0);
        let row = Arc::new(AtomicU64::new(0));
        let (view, written) = (watermark.clone(), Arc::clone(&row));
        let advancer = thread::spawn(move || {
            written.store(7, Relaxed);
            view.advance(1);
        });
        let look = |watermark: Watermark, row: Arc<AtomicU64>| {
            if poll(&mut watermark.wait_for(1), Waker::noop()).is_ready() {
                assert_eq!(row.load(Relaxed), 7);
            }
        };
        let (other, other_row) = (watermark.clone(), Arc::clone(&row));
        let registrant = thread::spawn(move || look(other, other_row));
        look(watermark, row);
        advancer.join().unwrap();
        registrant.join().unwrap();
    });
}

/// Property: an advance from within a waker does not deadlock, and its own waits are served. Two
/// threads.
#[test]
fn an_advance_from_a_waker_is_nested() {
    struct Next(Watermark);
    impl Wake for Next {
        fn wake(self: Arc<Self>) {
            self.0.advance(2);
        }
    }

    model(|| {
        let watermark = Watermark::new(0);
        let next = Waker::from(Arc::new(Next(watermark.clone())));
        let mut first = watermark.wait_for(1);
        assert!(poll(&mut first, &next).is_pending());
        drop(next);
        let view = watermark.clone();
        let advancer = thread::spawn(move || view.advance(1));
        let (woken, waker) = Woken::pair();
        let mut second = watermark.wait_for(2);
        let pending = poll(&mut second, &waker).is_pending();
        advancer.join().unwrap();
        assert_eq!(watermark.get(), 2);
        assert_eq!(woken.times(), usize::from(pending));
    });
}

/// Property: a poller that finds nobody waiting is woken by whoever comes. Two threads.
#[test]
fn a_poller_never_sleeps_through_a_wait() {
    model(|| {
        let watermark = Watermark::new(0);
        let other = watermark.clone();
        let registrant = thread::spawn(move || {
            let mut wait = other.wait_for(1);
            assert!(poll(&mut wait, Waker::noop()).is_pending());
            wait
        });
        let (woken, poller) = Woken::pair();
        let busy = internals::somebody_waits_or_wake(&watermark, &poller);
        let wait = registrant.join().unwrap();
        assert_eq!(woken.times(), usize::from(!busy));
        drop(wait);
        drop(poller);
    });
}

#[test]
fn every_mutant_is_caught() {
    if faulted() {
        return;
    }
    assert_listed(KILLS, &internals::MUTANTS);
    assert_killed(KILLS);
}
