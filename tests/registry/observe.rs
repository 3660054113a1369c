//! R19: what an observer is told.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use afterwrite::{DropReason, Observer, Registry, SkipReason, SubscriptionId, Timing};

use crate::support::*;

#[test]
fn r19_it_hears_of_everything_once() {
    let notes = Notes::default();
    let registry: Registry<u64> = Registry::builder()
        .workers(1)
        .buffer_capacity(1)
        .observer(notes.clone())
        .build()
        .unwrap();
    let one = registry.subscribe("a").unwrap();
    let two = registry.subscribe("a").unwrap();
    let (first, second) = (one.id(), two.id());
    let _ = registry.publish("a", 1);
    let _ = registry.publish("a", 2);
    queued(registry.submit("a", |_| Some(3)));
    // The observer is told after the walk, and after the push was counted.
    until("it is told", || notes.all().len() == 7);
    let closer = two.closer();
    drop(one);
    closer.close();
    closer.close();
    drop(two);
    let _ = registry.publish("a", 4);
    registry.close();
    let key = || "a".to_owned();
    assert_eq!(
        notes.all(),
        [
            Event::Subscribed(key(), first),
            Event::Subscribed(key(), second),
            Event::Pushed(key(), 2, None),
            Event::Pushed(key(), 0, None),
            Event::Full(key(), 2),
            Event::Pushed(key(), 0, None),
            Event::Full(key(), 2),
            Event::Unsubscribed(key(), first),
            Event::Unsubscribed(key(), second),
        ]
    );
}

#[test]
fn r19_a_push_that_ends_with_the_registry_is_told_as_well() {
    let notes = Notes::default();
    let registry: Registry<Payload> = Registry::builder()
        .workers(1)
        .buffer_capacity(1)
        .observer(notes.clone())
        .build()
        .unwrap();
    let alive = Arc::new(AtomicUsize::new(0));
    let _many: Vec<_> = (0..5_000)
        .map(|_| registry.subscribe("a").unwrap())
        .collect();
    // Closed in the first slice of the walk.
    let closing = registry.clone();
    let mut payload = Some(Payload::new(1, &alive).on_clone(move || closing.close()));
    queued(registry.submit("a", move |_| payload.take()));
    until("the walk has begun", || registry.is_closed());
    registry.close();
    let told = |e: &Event| *e == Event::Pushed("a".into(), 5_000, None);
    assert_eq!(notes.count(told), 1);
}

#[test]
fn r19_timing_is_there_when_it_is_asked_for() {
    let notes = Notes {
        timing: true,
        ..Notes::default()
    };
    let registry: Registry<u64> = Registry::builder()
        .workers(1)
        .observer(notes.clone())
        .build()
        .unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    queued(registry.submit("a", |attempt| (attempt.number() == 5).then_some(1)));
    assert_eq!(next(&mut subscription), changed(1));
    registry.close();
    let timings: Vec<Timing> = notes
        .all()
        .into_iter()
        .filter_map(|event| match event {
            Event::Pushed(_, 1, timing) => timing,
            _ => None,
        })
        .collect();
    assert_eq!(timings.len(), 1);
    assert_eq!(timings[0].attempts, 5);
    // Four waits of a millisecond at least.
    assert!(timings[0].waited >= Duration::from_millis(4));
    assert!(timings[0].walked < SOON);
    assert!(registry.stats().shards[0].longest_read > Duration::ZERO);
}

#[test]
fn r19_reasons_are_shown_in_words() {
    use SkipReason::{Abandoned, Expired, Panicked};
    let skipped = [Expired, Panicked, Abandoned].map(|reason| reason.to_string());
    assert_eq!(skipped, ["expired", "producer panicked", "abandoned"]);
    let dropped = [DropReason::QueueFull, DropReason::Closed].map(|reason| reason.to_string());
    assert_eq!(dropped, ["queue full", "registry closed"]);
}

struct Panics(Arc<AtomicUsize>);

impl Panics {
    fn panic(&self) -> ! {
        self.0.fetch_add(1, SeqCst);
        panic!("on purpose")
    }
}

impl Observer for Panics {
    fn wants_timing(&self) -> bool {
        self.panic()
    }
    fn pushed(&self, _: &str, _: usize, _: Option<Timing>) {
        self.panic()
    }
    fn push_skipped(&self, _: &str, _: afterwrite::SkipReason) {
        self.panic()
    }
    fn dropped(&self, _: &str, _: afterwrite::DropReason) {
        self.panic()
    }
    fn channel_full(&self, _: &str, _: usize) {
        self.panic()
    }
    fn subscribed(&self, _: &str, _: SubscriptionId) {
        self.panic()
    }
    fn unsubscribed(&self, _: &str, _: SubscriptionId) {
        self.panic()
    }
}

#[test]
fn r22_an_observer_that_panics_harms_nobody_and_is_counted() {
    quietly();
    let calls = Arc::new(AtomicUsize::new(0));
    let registry: Registry<u64> = Registry::builder()
        .workers(1)
        .buffer_capacity(1)
        .queue_capacity(1)
        .observer(Panics(calls.clone()))
        .build()
        .unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    let _ = registry.publish("a", 1);
    let _ = registry.publish("a", 2);
    assert_eq!(next(&mut subscription), changed(1));
    assert_eq!(next(&mut subscription), overrun(1));
    queued(registry.submit("a", |_| panic!("on purpose")));
    assert_eq!(next(&mut subscription), unseen(1));
    let blocked = block_shard(&registry, "a", 3);
    queued(registry.submit("a", |_| None));
    let refused = registry.submit("a", |_| None);
    assert_eq!(refused, afterwrite::Submitted::QueueFull);
    blocked.open();
    assert_eq!(next(&mut subscription), changed(3));
    registry.close();
    drop(subscription);
    // All but the question for timing, which was asked before there was a registry.
    let counted = registry.stats().panicked_observers;
    assert_eq!(counted, calls.load(SeqCst) as u64 - 1);
    assert!(counted >= 8, "{counted}");
}

/// Subscribes, publishes, submits and looks around from wherever it is called.
struct Meddles {
    registry: Arc<Mutex<Option<Registry<u64>>>>,
    inside: AtomicBool,
    calls: Arc<AtomicUsize>,
}

impl Meddles {
    fn meddle(&self, key: &str) {
        if self.inside.swap(true, SeqCst) {
            return;
        }
        let registry = self.registry.lock().unwrap().clone();
        if let Some(registry) = registry {
            let mut own = registry.subscribe(key).unwrap();
            let _ = registry.publish(key, 100);
            let _ = registry.submit(key, |_| Some(101));
            let _ = registry.stats();
            drained(&mut own);
            own.close();
            self.calls.fetch_add(1, SeqCst);
        }
        self.inside.store(false, SeqCst);
    }
}

impl Observer for Meddles {
    fn pushed(&self, key: &str, _: usize, _: Option<Timing>) {
        self.meddle(key);
    }
    fn subscribed(&self, key: &str, _: SubscriptionId) {
        self.meddle(key);
    }
    fn unsubscribed(&self, key: &str, _: SubscriptionId) {
        self.meddle(key);
    }
}

#[test]
fn r19_it_is_called_after_the_walk_and_may_use_the_registry() {
    let itself = Arc::new(Mutex::new(None));
    let calls = Arc::new(AtomicUsize::new(0));
    let registry: Registry<u64> = Registry::builder()
        .workers(1)
        .observer(Meddles {
            registry: itself.clone(),
            inside: AtomicBool::new(false),
            calls: calls.clone(),
        })
        .build()
        .unwrap();
    *itself.lock().unwrap() = Some(registry.clone());
    let mut subscription = registry.subscribe("a").unwrap();
    assert_eq!(calls.load(SeqCst), 1);
    assert_eq!(
        registry.publish("a", 1),
        afterwrite::Published::Reached(1),
        "on this thread"
    );
    queued(registry.submit("a", |_| Some(2)));
    while next(&mut subscription) != changed(2) {}
    // What it does itself may be under way on the shard, and then it does not begin again.
    until("it is called again", || calls.load(SeqCst) >= 2);
    registry.close();
    drop(subscription);
    // A registry that its own observer holds is never dropped.
    *itself.lock().unwrap() = None;
}
