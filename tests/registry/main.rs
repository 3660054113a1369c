//! The registry's promises, one or more tests for each line of the contract.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use afterwrite::{
    Gate, Notice, Published, Registry, Retry, Submitted, SubscribeError, TryRecvError, Watermark,
};

const SOON: Duration = Duration::from_secs(20);

fn next<T: Clone + Send + 'static>(subscription: &mut afterwrite::Subscription<T>) -> Notice<T> {
    subscription.recv_timeout(SOON).expect("a notice comes")
}

#[test]
fn r1_subscribe_refuses_and_leaves_nothing() {
    let registry: Registry<u8> = Registry::<u8>::builder()
        .max_key_bytes(8)
        .max_subscribers(2)
        .build()
        .unwrap();
    assert_eq!(
        registry.subscribe("").unwrap_err(),
        SubscribeError::EmptyKey
    );
    let long = registry.subscribe("123456789").unwrap_err();
    assert_eq!(long, SubscribeError::KeyTooLong { max: 8 });
    let _kept = [
        registry.subscribe("a").unwrap(),
        registry.subscribe("b").unwrap(),
    ];
    assert_eq!(
        registry.subscribe("c").unwrap_err(),
        SubscribeError::Full { limit: 2 }
    );
    assert_eq!(
        (registry.stats().subscribers, registry.stats().keys),
        (2, 2)
    );
    registry.close();
    assert_eq!(registry.subscribe("a").unwrap_err(), SubscribeError::Closed);
}

#[test]
fn r6_submit_runs_the_producer_elsewhere_and_delivers() {
    let registry: Registry<u64> = Registry::new().unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    let (told, thread) = mpsc::channel();
    let submitted = registry.submit("a", move |_| {
        told.send(std::thread::current().id()).unwrap();
        Some(7)
    });
    assert_eq!(submitted, Submitted::Queued);
    assert_eq!(next(&mut subscription), Notice::Changed(7));
    assert_ne!(thread.recv().unwrap(), std::thread::current().id());
    assert_eq!(
        registry.submit("nobody", |_| Some(1)),
        Submitted::NoSubscribers
    );
    assert_eq!(registry.submit("", |_| Some(1)), Submitted::NoSubscribers);
    registry.close();
    assert_eq!(registry.submit("a", |_| Some(1)), Submitted::Closed);
    assert_eq!(subscription.recv_blocking(), None);
}

#[test]
fn r7_a_producer_is_asked_until_the_view_shows_the_change() {
    let registry: Registry<u32> = Registry::new().unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    let submitted = registry.submit("a", |attempt| {
        (attempt.number() == 4).then(|| attempt.number())
    });
    assert_eq!(submitted, Submitted::Queued);
    assert_eq!(next(&mut subscription), Notice::Changed(4));
}

#[test]
fn r9_an_expired_gate_is_missed() {
    let registry: Registry<u32> = Registry::<u32>::builder()
        .retry(Retry::fixed(3, Duration::from_millis(2)))
        .build()
        .unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = reads.clone();
    assert_eq!(
        registry.submit("a", move |_| {
            counted.fetch_add(1, SeqCst);
            None
        }),
        Submitted::Queued
    );
    assert_eq!(
        next(&mut subscription),
        Notice::Missed {
            n: 1,
            visible: false
        }
    );
    let reads = reads.load(SeqCst);
    assert!((1..=4).contains(&reads), "{reads}");
}

#[test]
fn r10_order_is_that_of_the_submits() {
    let registry: Registry<u32> = Registry::new().unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    let slow = Watermark::new(0);
    assert_eq!(
        registry.submit_at("a", slow.reached(1), 1),
        Submitted::Queued
    );
    assert_eq!(registry.submit("a", |_| Some(2)), Submitted::Queued);
    assert_eq!(
        registry.submit_async("a", |_| async { Some(3) }),
        Submitted::Queued
    );
    while registry
        .stats()
        .shards
        .iter()
        .map(|s| s.waiting)
        .sum::<usize>()
        < 3
    {
        std::thread::yield_now();
    }
    assert_eq!(subscription.try_recv(), Err(TryRecvError::Empty));
    slow.advance(1);
    for value in 1..=3 {
        assert_eq!(next(&mut subscription), Notice::Changed(value));
    }
}

#[test]
fn r11_a_stuck_key_does_not_delay_its_shard_mate() {
    let registry: Registry<u32> = Registry::<u32>::builder().workers(1).build().unwrap();
    let _stuck = registry.subscribe("stuck").unwrap();
    let mut fine = registry.subscribe("fine").unwrap();
    assert_eq!(registry.submit("stuck", |_| None), Submitted::Queued);
    let mut worst = Duration::ZERO;
    for value in 0..200 {
        let began = Instant::now();
        assert_eq!(
            registry.submit("fine", move |_| Some(value)),
            Submitted::Queued
        );
        assert_eq!(next(&mut fine), Notice::Changed(value));
        worst = worst.max(began.elapsed());
    }
    assert!(worst < Duration::from_millis(500), "{worst:?}");
}

#[test]
fn r13_publish_reaches_or_hands_over() {
    let registry: Registry<u64> = Registry::new().unwrap();
    assert_eq!(registry.publish("a", 0), Published::Reached(0));
    let mut subscription = registry.subscribe("a").unwrap();
    assert_eq!(registry.publish("a", 1), Published::Reached(1));
    let key = registry.key("a").unwrap();
    assert_eq!(key.publish(2), Published::Reached(1));
    assert_eq!(
        [next(&mut subscription), next(&mut subscription)],
        [1, 2].map(Notice::Changed)
    );
}

#[test]
fn r17_a_gated_subscription_begins_with_its_own_notice() {
    let registry: Registry<u64> = Registry::new().unwrap();
    let mut other = registry.subscribe("a").unwrap();
    let mut gated = registry.subscribe_gated("a", |_| Some(100)).unwrap();
    assert_eq!(registry.submit("a", |_| Some(1)), Submitted::Queued);
    assert_eq!(
        [next(&mut gated), next(&mut gated)],
        [100, 1].map(Notice::Changed)
    );
    assert_eq!(next(&mut other), Notice::Changed(1));
    assert_eq!(other.try_recv(), Err(TryRecvError::Empty));
}

#[test]
fn r18_close_cancels_what_waits_and_ends_the_streams() {
    let registry: Registry<u64> = Registry::new().unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    assert_eq!(registry.submit("a", |_| None), Submitted::Queued);
    let began = Instant::now();
    registry.close();
    registry.close();
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(
        subscription.recv_blocking(),
        Some(Notice::Missed {
            n: 1,
            visible: false
        })
    );
    assert_eq!(subscription.recv_blocking(), None);
}

#[test]
fn r12_a_full_queue_is_told_through_the_gate() {
    let registry: Registry<u64> = Registry::<u64>::builder()
        .workers(1)
        .queue_capacity(2)
        .build()
        .unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    let (release, held) = mpsc::channel::<()>();
    let (entered, inside) = mpsc::channel();
    assert_eq!(
        registry.submit("a", move |_| {
            entered.send(()).unwrap();
            let _ = held.recv();
            Some(0)
        }),
        Submitted::Queued
    );
    inside.recv().unwrap();
    let mut outcomes = Vec::new();
    for value in 1..=5 {
        outcomes.push(registry.submit("a", move |_| Some(value)));
    }
    assert_eq!(outcomes[..2], [Submitted::Queued; 2]);
    assert_eq!(outcomes[2..], [Submitted::QueueFull; 3]);
    release.send(()).unwrap();
    for value in 0..3 {
        assert_eq!(next(&mut subscription), Notice::Changed(value));
    }
    assert_eq!(
        next(&mut subscription),
        Notice::Missed {
            n: 3,
            visible: false
        }
    );
}

#[test]
fn r24_a_batch_keeps_the_order_of_each_key() {
    let registry: Registry<u64> = Registry::<u64>::builder()
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
            assert_eq!(next(subscription), Notice::Changed(n));
        }
    }
}

#[test]
fn w2_a_watermark_opens_gates_without_polling() {
    let registry: Registry<u64> = Registry::new().unwrap();
    let watermark = Watermark::new(0);
    let mut subscription = registry.subscribe("a").unwrap();
    for position in 1..=10 {
        assert_eq!(
            registry.submit_at("a", watermark.reached(position), position),
            Submitted::Queued
        );
    }
    for position in 1..=10 {
        watermark.advance(position);
        assert_eq!(next(&mut subscription), Notice::Changed(position));
    }
}

#[test]
fn stress_conserves_every_push() {
    let registry: Registry<u64> = Registry::<u64>::builder().workers(2).build().unwrap();
    let sent = Arc::new(AtomicU64::new(0));
    let subscriptions: Vec<_> = (0..8)
        .map(|n| registry.subscribe(&format!("k{}", n % 4)).unwrap())
        .collect();
    std::thread::scope(|scope| {
        let receivers: Vec<_> = subscriptions
            .into_iter()
            .map(|mut subscription| {
                scope.spawn(move || {
                    let mut counted = 0;
                    while let Some(notice) = subscription.recv_blocking() {
                        counted += match notice {
                            Notice::Changed(_) => 1,
                            Notice::Missed { n, .. } => n,
                        };
                    }
                    counted
                })
            })
            .collect();
        let senders: Vec<_> = (0..2u64)
            .map(|sender| {
                let (registry, sent) = (registry.clone(), sent.clone());
                scope.spawn(move || {
                    for n in 0..20_000u64 {
                        let key = format!("k{}", n % 4);
                        let counted = if sender == 0 {
                            match registry.submit(&key, move |_| Some(n)) {
                                Submitted::Queued | Submitted::QueueFull => 1,
                                _ => 0,
                            }
                        } else {
                            match registry.publish(&key, n) {
                                Published::Closed => 0,
                                _ => 1,
                            }
                        };
                        sent.fetch_add(counted, SeqCst);
                    }
                })
            })
            .collect();
        senders
            .into_iter()
            .for_each(|sender| sender.join().unwrap());
        registry.close();
        let received: u64 = receivers
            .into_iter()
            .map(|receiver| receiver.join().unwrap())
            .sum();
        assert_eq!(received, sent.load(SeqCst) * 2);
    });
}
