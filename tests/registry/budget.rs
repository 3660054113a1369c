//! R8: where a budget begins, and where it ends at the latest.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use afterwrite::{Attempt, Registry, Retry};

use crate::support::*;

const BUDGET: Duration = Duration::from_millis(400);

fn registry() -> Registry<u32> {
    Registry::builder()
        .workers(1)
        .retry(Retry::fixed(3, BUDGET / 4))
        .build()
        .unwrap()
}

fn block_until(then: Instant) {
    while Instant::now() < then {
        std::thread::yield_now();
    }
}

/// A synchronous first read that takes most of a budget, and when it began and ended; the time of the
/// expiry. `asks`: whether it asks for its deadline first.
fn slow_first_read(asks: bool) -> (Instant, Instant, Instant, usize) {
    let registry = registry();
    let mut subscription = registry.subscribe("a").unwrap();
    let reads = Arc::new(AtomicUsize::new(0));
    let times = Arc::new(Mutex::new(None));
    let (counted, noted) = (reads.clone(), times.clone());
    queued(registry.submit("a", move |attempt: &Attempt| {
        counted.fetch_add(1, SeqCst);
        if attempt.number() == 1 {
            let began = Instant::now();
            if asks {
                let told = attempt.deadline();
                assert!(told >= began + BUDGET && told <= Instant::now() + BUDGET);
            }
            block_until(began + BUDGET * 3 / 4);
            *noted.lock().unwrap() = Some((began, Instant::now()));
        }
        None
    }));
    assert_eq!(next(&mut subscription), unseen(1));
    let expired = Instant::now();
    let (began, ended) = times.lock().unwrap().expect("it was read");
    (began, ended, expired, reads.load(SeqCst))
}

#[test]
fn r8_a_synchronous_first_read_comes_on_top_of_the_budget_unless_it_asks() {
    // A machine that stalls delays both: the best of a few.
    let late = |asks: bool| {
        (0..5)
            .map(|_| {
                let (began, ended, expired, reads) = slow_first_read(asks);
                assert!(reads <= 4);
                let due = if asks { began } else { ended } + BUDGET;
                assert!(expired >= due, "before its time: {asks}");
                expired - due
            })
            .min()
            .unwrap()
    };
    for asks in [false, true] {
        let late = late(asks);
        assert!(late < BUDGET / 2, "{asks}: {late:?} late");
    }
}

#[test]
fn r8_an_asynchronous_read_has_its_budget_from_its_begin() {
    let late = (0..5)
        .map(|_| {
            let registry = registry();
            let mut subscription = registry.subscribe("a").unwrap();
            let (tell, told) = mpsc::channel();
            queued(registry.submit_async("a", move |_| {
                tell.send(Instant::now()).unwrap();
                // Blocks, which it should not.
                block_until(Instant::now() + BUDGET / 2);
                async { None }
            }));
            let began = told.recv_timeout(SOON).unwrap();
            assert_eq!(next(&mut subscription), unseen(1));
            let expired = Instant::now();
            // The last read may overrun.
            expired.saturating_duration_since(began + BUDGET)
        })
        .min()
        .unwrap();
    assert!(late < BUDGET, "{late:?}");
}

#[test]
fn r8_a_synchronous_read_that_overruns_and_answers_none_is_the_last() {
    let registry = registry();
    let mut subscription = registry.subscribe("a").unwrap();
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = reads.clone();
    queued(registry.submit("a", move |attempt: &Attempt| {
        if counted.fetch_add(1, SeqCst) == 1 {
            // The second read goes on past the deadline.
            block_until(attempt.deadline() + Duration::from_millis(1));
        }
        None
    }));
    assert_eq!(next(&mut subscription), unseen(1));
    assert_eq!(reads.load(SeqCst), 2);
    assert_eq!(registry.stats().shards[0].expired, 1);
    // And so it is if the first one overruns.
    let counted = reads.clone();
    queued(registry.submit("a", move |attempt: &Attempt| {
        counted.fetch_add(1, SeqCst);
        block_until(attempt.deadline() + Duration::from_millis(1));
        None
    }));
    assert_eq!(next(&mut subscription), unseen(1));
    assert_eq!(reads.load(SeqCst), 3);
}

#[test]
fn r9_a_gate_that_all_have_left_asks_no_more() {
    let notes = Notes::default();
    let registry: Registry<u32> = Registry::builder()
        .workers(1)
        .retry(Retry::backoff(Duration::MAX))
        .observer(notes.clone())
        .build()
        .unwrap();
    let subscription = registry.subscribe("a").unwrap();
    let gated = registry.subscribe_gated("b", |_| None).unwrap();
    let bystander = registry.subscribe("b").unwrap();
    queued(registry.submit("a", |_| None));
    queued(registry.submit_async("a", |_| async { None }));
    until("all three wait", || waiting(&registry) == 3);
    drop(subscription);
    until("the first two end", || waiting(&registry) == 1);
    // A first notice is for one alone.
    drop(gated);
    until("the third ends", || waiting(&registry) == 0);
    let reads = registry.stats().shards[0].reads;
    let abandoned = |key: &str| Event::Skipped(key.into(), afterwrite::SkipReason::Abandoned);
    let count = |key: &str| notes.count(|event| *event == abandoned(key));
    assert_eq!((count("a"), count("b")), (2, 1));
    let stats = registry.stats().shards[0].clone();
    assert_eq!((stats.abandoned, stats.expired, stats.reads), (3, 0, reads));
    // Who comes later has nothing of it.
    let mut later = registry.subscribe("a").unwrap();
    queued(registry.submit("a", |_| Some(1)));
    assert_eq!(next(&mut later), changed(1));
    assert_eq!((later.skipped(), later.tally().missed), (0, 0));
    drop(bystander);
}
