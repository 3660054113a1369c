//! R6, R12, R24: handing over, and what happens when there is no room.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;

use afterwrite::{
    BatchOutcome, DropReason, Gate, Notice, Registry, Submitted, TryRecvError, Watermark,
};

use crate::support::*;

#[test]
fn r6_a_producer_never_runs_on_the_callers_thread() {
    let registry: Registry<u64> = Registry::new().unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    let here = std::thread::current().id();
    let (told, threads) = mpsc::channel();
    let (sync, asynchronous, dropped) = (told.clone(), told.clone(), told);
    struct Tells(mpsc::Sender<std::thread::ThreadId>);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.send(std::thread::current().id()).unwrap();
        }
    }
    let on_drop = Tells(dropped);
    queued(registry.submit("a", move |_| {
        let _kept = &on_drop;
        sync.send(std::thread::current().id()).unwrap();
        Some(1)
    }));
    queued(registry.submit_async("a", move |_| {
        let told = asynchronous.clone();
        async move {
            told.send(std::thread::current().id()).unwrap();
            Some(2)
        }
    }));
    assert_eq!(next(&mut subscription), changed(1));
    assert_eq!(next(&mut subscription), changed(2));
    for _ in 0..3 {
        assert_ne!(threads.recv_timeout(SOON).unwrap(), here);
    }
}

#[test]
fn r6_each_outcome() {
    let registry: Registry<u64> = Registry::builder()
        .workers(1)
        .queue_capacity(1)
        .build()
        .unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let ask = || {
        let asked = asked.clone();
        move |_: &afterwrite::Attempt| {
            asked.fetch_add(1, SeqCst);
            Some(1)
        }
    };
    assert_eq!(registry.submit("a", ask()), Submitted::NoSubscribers);
    assert_eq!(registry.submit("", ask()), Submitted::NoSubscribers);
    let mut subscription = registry.subscribe("a").unwrap();
    assert_eq!(registry.submit("A", ask()), Submitted::NoSubscribers);
    let blocked = block_shard(&registry, "a", 0);
    queued(registry.submit("a", ask()));
    assert_eq!(registry.submit("a", ask()), Submitted::QueueFull);
    blocked.open();
    assert_eq!(next(&mut subscription), changed(0));
    assert_eq!(next(&mut subscription), changed(1));
    assert_eq!(next(&mut subscription), unseen(1));
    registry.close();
    assert_eq!(registry.submit("a", ask()), Submitted::Closed);
    assert_eq!(registry.submit("nobody", ask()), Submitted::Closed);
    assert_eq!(asked.load(SeqCst), 2, "the queued and the refused one");
}

#[test]
fn r6_submit_waits_for_no_gate_read_push_or_receiver() {
    let registry: Registry<Payload> = Registry::builder()
        .workers(1)
        .buffer_capacity(1)
        .build()
        .unwrap();
    let alive = Arc::new(AtomicUsize::new(0));
    // A receiver that never reads, a gate that never opens, a push under way, a read that blocks.
    let _one = registry.subscribe("a").unwrap();
    let _two = registry.subscribe("a").unwrap();
    let view = Watermark::new(0);
    queued(registry.submit_at("a", view.reached(1), Payload::new(0, &alive)));
    let (push, stop) = barrier();
    let stop = std::sync::Mutex::new(stop);
    let slow = Payload::new(1, &alive).on_clone(move || stop.lock().unwrap().stop());
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| registry.publish("a", slow));
        push.entered();
        let read = block_shard(&registry, "a", Payload::new(2, &alive));
        for value in 0..5 {
            let payload = Payload::new(value, &alive);
            let mut payload = Some(payload);
            queued(registry.submit("a", move |_| payload.take()));
        }
        read.open();
        push.open();
        push.open();
        let _ = pushing.join().unwrap();
    });
    registry.close();
    drop((_one, _two, registry));
    until("all is dropped", || alive.load(SeqCst) == 0);
}

#[test]
fn r12_a_full_queue_is_told_through_the_newest_gate() {
    let notes = Notes::default();
    let registry: Registry<u64> = Registry::builder()
        .workers(1)
        .queue_capacity(2)
        .observer(notes.clone())
        .build()
        .unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    let view = Watermark::new(0);
    let blocked = block_shard(&registry, "a", 0);
    let dropped = Arc::new(AtomicUsize::new(0));
    for value in 1..=5 {
        struct Counts(Arc<AtomicUsize>);
        impl Drop for Counts {
            fn drop(&mut self) {
                self.0.fetch_add(1, SeqCst);
            }
        }
        let counts = Counts(dropped.clone());
        let view = view.clone();
        let submitted = registry.submit("a", move |_| {
            let _kept = &counts;
            // The first two are open; of the refused ones only the last one's position is asked.
            (value <= 2 || view.get() >= value).then_some(value)
        });
        let expected = if value <= 2 {
            Submitted::Queued
        } else {
            Submitted::QueueFull
        };
        assert_eq!(submitted, expected);
    }
    assert_eq!(dropped.load(SeqCst), 2, "one refused producer is kept");
    assert_eq!(
        notes.count(|e| *e == Event::Dropped("a".into(), DropReason::QueueFull)),
        3
    );
    assert_eq!(registry.stats().shards[0].refused, 3);
    blocked.open();
    for value in 0..3 {
        assert_eq!(next(&mut subscription), changed(value));
    }
    // Positions of older refused producers are not enough.
    view.advance(4);
    assert_eq!(subscription.recv_timeout(BRIEF).ok(), None);
    view.advance(5);
    assert_eq!(next(&mut subscription), unseen(3));
    nothing(&mut subscription);
}

#[test]
fn r12_losses_come_behind_what_was_queued_earlier() {
    let registry: Registry<u64> = Registry::builder()
        .workers(1)
        .pending_per_key(3)
        .build()
        .unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    let view = Watermark::new(0);
    for position in 1..=3 {
        queued(registry.submit_at("a", view.reached(position), position));
    }
    assert_eq!(registry.submit("a", |_| Some(9)), Submitted::QueueFull);
    // Its gate is open, but it stands behind the three.
    until("all four wait", || waiting(&registry) == 4);
    nothing(&mut subscription);
    view.advance(2);
    assert_eq!(next(&mut subscription), changed(1));
    assert_eq!(next(&mut subscription), changed(2));
    nothing(&mut subscription);
    view.advance(3);
    assert_eq!(next(&mut subscription), changed(3));
    assert_eq!(next(&mut subscription), unseen(1));
    // The places are free again.
    for value in 4..=6 {
        queued(registry.submit("a", move |_| Some(value)));
        assert_eq!(next(&mut subscription), changed(value));
    }
}

#[test]
fn r12_refused_while_a_refusal_waits() {
    let registry: Registry<u64> = Registry::builder()
        .workers(1)
        .pending_per_key(1)
        .build()
        .unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    let (first, second) = (Watermark::new(0), Watermark::new(0));
    queued(registry.submit_at("a", first.reached(1), 1));
    for position in 1..=2 {
        let submitted = registry.submit_at("a", second.reached(position), 9);
        assert_eq!(submitted, Submitted::QueueFull);
    }
    until("the refusal waits", || waiting(&registry) == 2);
    // One at a time: the next stays with the key until that one has ended.
    for _ in 0..3 {
        assert_eq!(registry.submit("a", |_| Some(9)), Submitted::QueueFull);
    }
    first.advance(1);
    assert_eq!(next(&mut subscription), changed(1));
    second.advance(2);
    let mut lost = 0;
    while lost < 5 {
        match next(&mut subscription) {
            Notice::Missed { n, visible: false } => lost += n,
            other => panic!("{other:?}"),
        }
    }
    nothing(&mut subscription);
    assert_eq!(lost, 5);
    // The shard lives: several times over, since one look may come too early.
    for value in 0..100 {
        let key = format!("k{value}");
        let mut other = registry.subscribe(&key).unwrap();
        queued(registry.submit(&key, move |_| Some(value)));
        assert_eq!(next(&mut other), changed(value));
    }
}

#[test]
fn r12_pending_gates_of_a_shard_are_bounded() {
    let registry: Registry<u64> = Registry::builder()
        .workers(1)
        .pending_capacity(4)
        .queue_capacity(2)
        .build()
        .unwrap();
    let view = Watermark::new(0);
    let subscriptions: Vec<_> = (0..20)
        .map(|n| registry.subscribe(&format!("k{n}")).unwrap())
        .collect();
    let mut taken = 0;
    for (n, subscription) in subscriptions.iter().enumerate() {
        match registry.submit_at(subscription.key(), view.reached(1), 1) {
            Submitted::Queued => taken += 1,
            Submitted::QueueFull => {}
            other => panic!("{other:?}"),
        }
        // One for each key is all that is kept of those that were refused. An empty queue would not
        // be enough to wait for: a gate that has left it may not be counted as waiting yet.
        until("it waits", || waiting(&registry) == n + 1);
    }
    assert_eq!(taken, 4);
    view.advance(1);
    let mut got = (0, 0);
    for mut subscription in subscriptions {
        match next(&mut subscription) {
            Notice::Changed(1) => got.0 += 1,
            Notice::Missed {
                n: 1,
                visible: false,
            } => got.1 += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, (4, 16));
}

#[test]
fn r12_what_is_refused_at_the_end_is_told_or_closed() {
    for round in 0..200 {
        let registry: Registry<u64> = Registry::builder()
            .workers(1)
            .queue_capacity(1)
            .pending_per_key(1)
            .build()
            .unwrap();
        let subscription = registry.subscribe("a").unwrap();
        let counted = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let mut spawned = Vec::new();
            for _ in 0..2 {
                spawned.push(scope.spawn(|| {
                    loop {
                        match registry.submit("a", |_| None) {
                            Submitted::Queued | Submitted::QueueFull => {
                                counted.fetch_add(1, SeqCst);
                            }
                            Submitted::Closed => return,
                            Submitted::NoSubscribers => panic!("there is one"),
                        }
                    }
                }));
            }
            until("it is under way", || counted.load(SeqCst) > round % 17);
            registry.close();

            for thread in spawned {
                thread.join().unwrap();
            }
        });
        let told: u64 = rest(subscription)
            .into_iter()
            .map(|notice| match notice {
                Notice::Missed { n, visible: false } => n,
                other => panic!("{other:?}"),
            })
            .sum();
        assert_eq!(told, counted.load(SeqCst));
    }
}

#[test]
fn r24_a_batch_keeps_the_order_of_each_key() {
    let registry: Registry<u64> = Registry::builder()
        .queue_capacity(1000)
        .pending_per_key(1000)
        .build()
        .unwrap();
    let mut subscriptions: Vec<_> = (0..10)
        .map(|key| registry.subscribe(&format!("k{key}")).unwrap())
        .collect();
    let outcome = registry
        .submit_batch((0..200u64).map(|n| (format!("k{}", n % 11), Gate::read(move |_| Some(n)))));
    assert_eq!(outcome.no_subscribers, 200 / 11);
    assert_eq!(outcome.queued, 200 - 200 / 11);
    for (key, subscription) in subscriptions.iter_mut().enumerate() {
        for n in (key as u64..200).step_by(11) {
            assert_eq!(next(subscription), changed(n));
        }
    }
}

#[test]
fn r24_a_batch_is_taken_over_from_its_front() {
    let registry: Registry<u64> = Registry::builder()
        .workers(1)
        .queue_capacity(4)
        .build()
        .unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    let blocked = block_shard(&registry, "a", 0);
    let batch = |from: u64, to: u64| {
        registry.submit_batch((from..=to).map(|n| ("a", Gate::read(move |_| Some(n)))))
    };
    let outcome = batch(1, 6);
    assert_eq!((outcome.queued, outcome.queue_full), (4, 2));
    blocked.open();
    for n in 0..=4 {
        assert_eq!(next(&mut subscription), changed(n));
    }
    assert_eq!(next(&mut subscription), unseen(2));
    assert_eq!(registry.submit_batch::<&str>([]), BatchOutcome::default());
    registry.close();
    assert_eq!(batch(1, 3).closed, 3);
    assert_eq!(subscription.try_recv(), Err(TryRecvError::Ended));
}

#[test]
fn r24_a_batch_counts_against_the_keys_places() {
    let registry: Registry<u64> = Registry::builder()
        .workers(1)
        .pending_per_key(2)
        .build()
        .unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    let view = Watermark::new(0);
    let outcome = registry.submit_batch((1..=5).map(|n| ("a", Gate::reached(view.reached(n), n))));
    assert_eq!((outcome.queued, outcome.queue_full), (2, 3));
    view.advance(5);
    assert_eq!(next(&mut subscription), changed(1));
    assert_eq!(next(&mut subscription), changed(2));
    // The shard may have taken some of the refused before the last was.
    let mut refused = 0;
    while refused < 3 {
        match next(&mut subscription) {
            Notice::Missed { n, visible: false } => refused += n,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, 3);
}

#[test]
fn r24_an_iterator_that_panics_costs_the_key_no_place() {
    quietly();
    let registry: Registry<u64> = Registry::builder()
        .workers(1)
        .queue_capacity(200)
        .pending_per_key(100)
        .build()
        .unwrap();
    let _subscription = registry.subscribe("a").unwrap();
    for _ in 0..4 {
        let panicking = (0..100u64).map(|n| {
            assert!(n < 90, "on purpose");
            ("a", Gate::read(|_| None))
        });
        let thrown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            registry.submit_batch(panicking)
        }));
        assert!(thrown.is_err());
    }
    let view = Watermark::new(0);
    for _ in 0..100 {
        queued(registry.submit_at("a", view.reached(1), 1));
    }
    assert_eq!(
        registry.submit_at("a", view.reached(1), 1),
        Submitted::QueueFull
    );
}
