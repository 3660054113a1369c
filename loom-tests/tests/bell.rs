//! A shard's bell and its list of woken gates: nothing that was left for a shard is overlooked.
//!
//! The model's main thread is the shard; with it there are at most three. The preemption bound is 2, or
//! what `LOOM_MAX_PREEMPTIONS` says. What the others leave is written and read `Relaxed`, so that
//! whatever orders it is the bell, or the list's mark.
#![cfg(afterwrite_loom)]

use std::sync::Arc;

use afterwrite::shard_models::{Bell, Woken};
use afterwrite_loom_tests::{assert_killed, faulted, model};
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;

/// Property: a shard that has nothing to do and goes to sleep is woken by whoever rings before,
/// meanwhile or after, and sees what was left for it. Two threads.
#[test]
fn a_ring_against_a_shard_that_goes_idle() {
    model(|| {
        let (bell, work) = (Bell::new(), Arc::new(AtomicUsize::new(0)));
        let ringer = {
            let (bell, work) = (bell.clone(), work.clone());
            thread::spawn(move || {
                work.store(1, Relaxed);
                bell.ring();
            })
        };
        while !bell.take() {
            bell.wait();
        }
        assert_eq!(work.load(Relaxed), 1);
        ringer.join().unwrap();
    });
}

/// Property: the same with two who ring: the shard sees what both have left before it sleeps for good.
/// Three threads.
#[test]
fn two_rings_against_a_shard_that_goes_idle() {
    model(|| {
        let (bell, work) = (Bell::new(), Arc::new(AtomicUsize::new(0)));
        let ringers = [(); 2].map(|()| {
            let (bell, work) = (bell.clone(), work.clone());
            thread::spawn(move || {
                work.fetch_add(1, Relaxed);
                bell.ring();
            })
        });
        let mut seen = 0;
        while seen < 2 {
            if bell.take() {
                seen = work.load(Relaxed);
            } else {
                bell.wait();
            }
        }
        for ringer in ringers {
            ringer.join().unwrap();
        }
    });
}

/// Property: the same while the shard only starts, and has yet to say who sleeps. Two threads.
#[test]
fn a_ring_against_a_shard_that_starts() {
    model(|| {
        let (bell, work) = (Bell::unattached(), Arc::new(AtomicUsize::new(0)));
        let ringer = {
            let (bell, work) = (bell.clone(), work.clone());
            thread::spawn(move || {
                work.store(1, Relaxed);
                bell.ring();
            })
        };
        bell.attach();
        while !bell.take() {
            bell.wait();
        }
        assert_eq!(work.load(Relaxed), 1);
        ringer.join().unwrap();
    });
}

/// Property: a gate that is woken is polled after the wake, and sees its reason: by the poll under
/// way, or because it is listed again. Two threads; another wake has listed it before.
#[test]
fn a_wake_against_a_poll() {
    model(|| {
        let (gate, reason) = (Woken::new(), Arc::new(AtomicUsize::new(0)));
        gate.waker().wake();
        let waking = {
            let (waker, reason) = (gate.waker(), reason.clone());
            thread::spawn(move || {
                reason.store(1, Relaxed);
                waker.wake();
            })
        };
        assert!(gate.take());
        let seen = reason.load(Relaxed);
        waking.join().unwrap();
        assert!(gate.take() || seen == 1, "a wake was overlooked");
        assert!(!gate.take());
    });
}

/// Which model has to fail for which fault.
const FAULTS: &[(&str, &str)] = &[
    ("bell_ring:release", "a_ring_against_a_shard_that_goes_idle"),
    ("bell_ring:acquire", "a_ring_against_a_shard_that_starts"),
    ("bell_sleep", "a_ring_against_a_shard_that_starts"),
    ("bell_take", "a_ring_against_a_shard_that_goes_idle"),
    ("bell_ring", "two_rings_against_a_shard_that_goes_idle"),
    ("ready_mark:acquire", "a_wake_against_a_poll"),
    ("ready_mark:release", "a_wake_against_a_poll"),
    ("ring_wakes_nobody", "a_ring_against_a_shard_that_goes_idle"),
];

#[test]
fn every_fault_has_a_model_that_fails() {
    if faulted() {
        return;
    }
    assert_killed(FAULTS);
}
