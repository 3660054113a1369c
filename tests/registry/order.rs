//! R10, R11: order within a key, and independence between keys that share a shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::Context;
use std::time::{Duration, Instant};

use afterwrite::{Gate, Registry, Watermark};

use crate::support::*;

#[test]
fn r10_order_is_that_of_the_submits_whatever_opens_first() {
    let registry: Registry<u32> = one_shard();
    let mut subscription = registry.subscribe("a").unwrap();
    let views: Vec<_> = (0..6).map(|_| Watermark::new(0)).collect();
    for (value, view) in views.iter().enumerate() {
        let value = value as u32;
        let view = view.clone();
        queued(match value % 3 {
            0 => registry.submit_at("a", view.reached(1), value),
            1 => registry.submit("a", move |_| (view.get() >= 1).then_some(value)),
            _ => registry.submit_async("a", move |_| {
                let view = view.clone();
                async move {
                    view.wait_for(1).await;
                    Some(value)
                }
            }),
        });
    }
    until("all wait", || waiting(&registry) == 6);
    for view in views[1..].iter().rev() {
        view.advance(1);
    }
    assert!(subscription.recv_timeout(BRIEF).is_err());
    views[0].advance(1);
    for value in 0..6 {
        assert_eq!(next(&mut subscription), changed(value));
    }
}

#[test]
fn r10_the_order_holds_across_threads_when_one_call_returned_before_the_other() {
    let registry: Registry<u64> = Registry::builder()
        .workers(2)
        .buffer_capacity(10_000)
        .queue_capacity(10_000)
        .pending_per_key(10_000)
        .build()
        .unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    // Not std's, which ThreadSanitizer does not see through when it is contended.
    let turn = parking_lot::Mutex::new(0u64);
    std::thread::scope(|scope| {
        let mut spawned = Vec::new();
        for _ in 0..4 {
            spawned.push(scope.spawn(|| {
                loop {
                    let mut turn = turn.lock();
                    let value = *turn;
                    if value == 2_000 {
                        return;
                    }
                    *turn += 1;
                    // Every other one needs several reads.
                    queued(registry.submit("a", move |attempt| {
                        (value % 2 == 0 || attempt.number() > 1).then_some(value)
                    }));
                }
            }));
        }

        for thread in spawned {
            thread.join().unwrap();
        }
    });
    for value in 0..2_000 {
        assert_eq!(next(&mut subscription), changed(value));
    }
}

#[test]
fn r10_all_subscribers_see_all_pushes_in_one_order() {
    const EACH: u64 = 500;
    let registry: Registry<u64> = Registry::builder()
        .workers(1)
        .buffer_capacity(10_000)
        .queue_capacity(10_000)
        .pending_per_key(10_000)
        .build()
        .unwrap();
    let subscriptions: Vec<_> = (0..5).map(|_| registry.subscribe("a").unwrap()).collect();
    std::thread::scope(|scope| {
        let mut spawned = Vec::new();
        for publisher in 0..3 {
            let registry = &registry;
            spawned.push(scope.spawn(move || {
                for n in 0..EACH {
                    let value = publisher * EACH + n;
                    if publisher == 2 {
                        queued(registry.submit("a", move |_| Some(value)));
                    } else {
                        let _ = registry.publish("a", value);
                    }
                }
            }));
        }

        for thread in spawned {
            thread.join().unwrap();
        }
    });
    until("all is pushed", || {
        let shard = registry.stats().shards[0].clone();
        shard.queued + shard.in_hand + shard.waiting == 0
    });
    registry.close();
    let mut seen: Vec<Vec<u64>> = subscriptions
        .into_iter()
        .map(|subscription| {
            rest(subscription)
                .into_iter()
                .map(|notice| match notice {
                    afterwrite::Notice::Changed(value) => value,
                    other => panic!("{other:?}"),
                })
                .collect()
        })
        .collect();
    let first = seen.pop().unwrap();
    assert_eq!(first.len() as u64, 3 * EACH);
    assert!(seen.iter().all(|other| *other == first));
    for publisher in 0..3 {
        let own = first.iter().filter(|value| **value / EACH == publisher);
        assert!(own.is_sorted(), "each publisher's own order");
    }
}

#[test]
fn r11_a_stuck_key_does_not_delay_its_shard_mate() {
    let registry: Registry<u32> = one_shard();
    let _stuck = registry.subscribe("stuck").unwrap();
    let mut fine = registry.subscribe("fine").unwrap();
    queued(registry.submit("stuck", |_| None));
    until("it waits", || waiting(&registry) == 1);
    let mut times = Vec::new();
    for value in 0..200 {
        let began = Instant::now();
        queued(registry.submit("fine", move |_| Some(value)));
        assert_eq!(next(&mut fine), changed(value));
        times.push(began.elapsed());
    }
    assert_eq!(waiting(&registry), 1, "the stuck one is stuck still");
    times.sort();
    // A lock-based design takes seconds for each; a busy machine, milliseconds for some.
    assert!(times[100] < Duration::from_millis(50), "{:?}", times[100]);
    assert!(
        times[199] < Duration::from_millis(2_000),
        "{:?}",
        times[199]
    );
}

#[test]
fn r11_ten_thousand_stuck_keys_do_not_either() {
    let registry: Registry<u32> = Registry::builder()
        .workers(1)
        .queue_capacity(1 << 14)
        .build()
        .unwrap();
    let stuck: Vec<_> = (0..10_000)
        .map(|n| registry.subscribe(&format!("stuck/{n}")).unwrap())
        .collect();
    let mut fine = registry.subscribe("fine").unwrap();
    let outcome = registry.submit_batch(
        stuck
            .iter()
            .map(|s| (s.key().to_owned(), Gate::read(|_| None))),
    );
    assert_eq!(outcome.queued, 10_000);
    for value in 0..50 {
        queued(registry.submit("fine", move |_| Some(value)));
        assert_eq!(next(&mut fine), changed(value));
    }
}

#[test]
fn r11_first_reads_come_before_repeated_ones() {
    let registry: Registry<u32> = one_shard();
    let _slow = registry.subscribe("slow").unwrap();
    let mut fine = registry.subscribe("fine").unwrap();
    // Repeated reads that are always due: each takes longer than its wait.
    for _ in 0..8 {
        queued(registry.submit("slow", |attempt| {
            let began = Instant::now();
            while attempt.number() > 1 && began.elapsed() < Duration::from_millis(2) {
                std::hint::spin_loop();
            }
            None
        }));
    }
    until("all wait", || waiting(&registry) == 8);
    let mut repeated: Vec<u64> = (0..30)
        .map(|value| {
            let before = registry.stats().shards[0].reads;
            queued(registry.submit("fine", move |_| Some(value)));
            assert_eq!(next(&mut fine), changed(value));
            registry.stats().shards[0].reads - before
        })
        .collect();
    repeated.sort();
    // Its own read, the one under way, and what follows until we look. A busy machine may have us
    // look late, but not always.
    assert!(repeated[10] < 8, "{repeated:?}");
}

/// The first clone, or the first wake, of a walk over many submits to another key of the shard: how
/// much of the walk is behind when that other key has its turn?
#[test]
fn r11_walks_and_wakes_over_many_run_in_slices() {
    const MANY: usize = 20_000;
    let registry: Registry<Payload> = Registry::builder()
        .workers(1)
        .buffer_capacity(2)
        .build()
        .unwrap();
    let alive = Arc::new(AtomicUsize::new(0));
    let mut many: Vec<_> = (0..MANY)
        .map(|_| registry.subscribe("many").unwrap())
        .collect();
    let mut fine = registry.subscribe("fine").unwrap();
    let submits_once = |counter: &Arc<AtomicUsize>, behind: &Arc<AtomicUsize>| {
        let (registry, counter, behind) = (registry.clone(), counter.clone(), behind.clone());
        let (alive, done) = (alive.clone(), AtomicBool::new(false));
        move || {
            if done.swap(true, SeqCst) {
                return;
            }
            let (counter, behind, alive) = (counter.clone(), behind.clone(), alive.clone());
            queued(registry.submit("fine", move |_| {
                behind.store(counter.load(SeqCst), SeqCst);
                Some(Payload::new(2, &alive))
            }));
        }
    };
    let behind = Arc::new(AtomicUsize::new(0));
    let payload = Payload::new(1, &alive).on_clone(submits_once(&alive, &behind));
    let mut payload = Some(payload);
    queued(registry.submit("many", move |_| payload.take()));
    assert_eq!(next(&mut fine), changed(Payload::new(2, &alive)));
    let clones = behind.load(SeqCst);
    assert!((1..MANY / 4).contains(&clones), "{clones}");
    until("the walk ends", || registry.stats().shards[0].pushes == 2);
    assert_eq!(registry.stats().shards[0].reached, MANY as u64 + 1);

    // Now the wakes.
    let woken = Arc::new(AtomicUsize::new(0));
    let submit = Arc::new(submits_once(&woken, &behind));
    for subscription in &mut many {
        drained(subscription);
        let (woken, submit) = (woken.clone(), submit.clone());
        let waker = Calls::waker(move || {
            woken.fetch_add(1, SeqCst);
            submit();
        });
        let pinned = std::pin::Pin::new(subscription);
        let polled = futures_util::Stream::poll_next(pinned, &mut Context::from_waker(&waker));
        assert!(polled.is_pending());
    }
    let mut payload = Some(Payload::new(3, &alive));
    queued(registry.submit("many", move |_| payload.take()));
    assert_eq!(next(&mut fine), changed(Payload::new(2, &alive)));
    let wakes = behind.load(SeqCst);
    assert!((1..MANY / 4).contains(&wakes), "{wakes}");
    until("all are woken", || woken.load(SeqCst) == MANY);
    for subscription in &mut many {
        assert_eq!(next(subscription), changed(Payload::new(3, &alive)));
    }
}

#[test]
fn r11_a_producer_that_blocks_holds_up_its_own_shard_alone() {
    let registry: Registry<u32> = Registry::builder().workers(2).build().unwrap();
    let blocking = registry.subscribe("blocks").unwrap();
    let blocked = block_shard(&registry, "blocks", 1);
    let held = registry
        .stats()
        .shards
        .iter()
        .position(|shard| shard.reading)
        .expect("one reads");
    // Among many keys some are of the other shard, and they are served.
    let mut served = 0;
    for n in 0..64 {
        let key = format!("k{n}");
        let mut subscription = registry.subscribe(&key).unwrap();
        let before = registry.stats().shards[held].queued;
        queued(registry.submit(&key, |_| Some(1)));
        if registry.stats().shards[held].queued == before {
            assert_eq!(next(&mut subscription), changed(1));
            served += 1;
        }
    }
    assert!((1..64).contains(&served), "{served}");
    blocked.open();
    drop(blocking);
}
