//! Models of the parker: no notification is lost, and what its caller wrote is seen.
//!
//! At most three threads; the preemption bound is 2, or what `LOOM_MAX_PREEMPTIONS` says.
#![cfg(afterwrite_loom)]

use afterwrite::parker_models::{MUTANTS, Sleeper};
use afterwrite_loom_tests::{faulted, model, passes};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;

/// Property: whoever waits is woken by a call that comes before, during or after it goes to sleep, and
/// sees what the caller wrote before. Two threads.
#[test]
fn a_caller_against_a_sleeper() {
    model(|| {
        let sleeper = Sleeper::default();
        let written = Arc::new(AtomicUsize::new(0));
        let (waker, writes) = (sleeper.waker(), written.clone());
        let caller = thread::spawn(move || {
            writes.store(1, Relaxed);
            waker.wake();
        });
        sleeper.wait();
        assert_eq!(written.load(Relaxed), 1);
        caller.join().unwrap();
    });
}

/// Property: one notification ends one wait; a call after a wait has ended ends the next one. What
/// was written before either is seen after the last. Three threads.
#[test]
fn two_callers_against_a_sleeper() {
    model(|| {
        let sleeper = Sleeper::default();
        let written = Arc::new(AtomicUsize::new(0));
        let callers = [0, 1].map(|_| {
            let (waker, writes) = (sleeper.waker(), written.clone());
            thread::spawn(move || {
                writes.fetch_add(1, Relaxed);
                waker.wake();
            })
        });
        while written.load(Relaxed) < 2 {
            sleeper.wait();
        }
        for caller in callers {
            caller.join().unwrap();
        }
    });
}

/// Each ordering of the parker, taken away, makes a model fail.
#[test]
fn every_mutant_is_caught() {
    if faulted() {
        return;
    }
    for mutant in MUTANTS {
        assert!(
            !passes("a_caller_against_a_sleeper", Some(mutant)),
            "{mutant}"
        );
    }
}
