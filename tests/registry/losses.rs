//! R4, R5, R23: what is lost, and how it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use afterwrite::{
    Expiry, Notice, Overflow, Published, Registry, Retry, SubscribeOptions, Tally, TryRecvError,
    Watermark,
};

use crate::support::*;

fn quick() -> Retry {
    Retry::fixed(1, Duration::from_millis(2))
}

fn full(overflow: Overflow, capacity: usize) -> Vec<Notice<u64>> {
    let registry: Registry<u64> = Registry::new().unwrap();
    let options = SubscribeOptions::new()
        .overflow(overflow)
        .buffer_capacity(capacity);
    let mut subscription = registry.subscribe_with("a", options).unwrap();
    for value in 1..=5 {
        let _ = registry.publish("a", value);
    }
    let mut notices = drained(&mut subscription);
    let _ = registry.publish("a", 6);
    notices.extend(drained(&mut subscription));
    let tally = subscription.tally();
    assert_eq!(tally.received + tally.missed + tally.merged, 6, "{tally:?}");
    assert_eq!(tally.discarded, 0);
    notices
}

#[test]
fn r5_drop_newest_keeps_the_oldest() {
    let [one, two, six] = [1, 2, 6].map(changed);
    assert_eq!(full(Overflow::DropNewest, 2), [one, two, overrun(3), six]);
    assert_eq!(full(Overflow::DropNewest, 1), [one, overrun(4), six]);
    assert_eq!(
        full(Overflow::DropNewest, 20),
        [1, 2, 3, 4, 5, 6].map(changed)
    );
}

#[test]
fn r5_drop_oldest_keeps_the_newest() {
    let [four, five, six] = [4, 5, 6].map(changed);
    assert_eq!(full(Overflow::DropOldest, 2), [overrun(3), four, five, six]);
    assert_eq!(full(Overflow::DropOldest, 1), [overrun(4), five, six]);
}

#[test]
fn r5_conflate_keeps_the_latest_and_misses_nothing() {
    for capacity in [1, 20] {
        assert_eq!(full(Overflow::Conflate, capacity), [5, 6].map(changed));
    }
}

#[test]
fn r5_the_registry_sets_the_default_and_each_subscription_its_own() {
    let registry: Registry<u64> = Registry::builder()
        .overflow(Overflow::DropOldest)
        .buffer_capacity(1)
        .build()
        .unwrap();
    let mut usual = registry.subscribe("a").unwrap();
    let own = SubscribeOptions::new().overflow(Overflow::DropNewest);
    let mut own = registry.subscribe_with("a", own).unwrap();
    let wide = SubscribeOptions::new().buffer_capacity(0);
    let mut clamped = registry.subscribe_with("a", wide).unwrap();
    let widest = SubscribeOptions::new().buffer_capacity(usize::MAX);
    let mut widest = registry.subscribe_with("a", widest).unwrap();
    for value in 1..=3 {
        // A full buffer is no reason to wait, nor for others to miss anything.
        assert!(matches!(
            registry.publish("a", value),
            Published::Reached(_)
        ));
    }
    assert_eq!(drained(&mut usual), [overrun(2), changed(3)]);
    assert_eq!(drained(&mut own), [changed(1), overrun(2)]);
    assert_eq!(drained(&mut clamped), [overrun(2), changed(3)]);
    assert_eq!(drained(&mut widest), [1, 2, 3].map(changed));
}

#[test]
fn r4_each_cause_says_whether_the_view_shows_it() {
    quietly();
    let registry: Registry<u64> = Registry::builder()
        .workers(1)
        .queue_capacity(1)
        .buffer_capacity(1)
        .retry(quick())
        .build()
        .unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    // The buffer was full.
    let _ = registry.publish("a", 1);
    let _ = registry.publish("a", 2);
    assert_eq!(next(&mut subscription), changed(1));
    assert_eq!(next(&mut subscription), overrun(1));
    // The gate expired.
    queued(registry.submit("a", |_| None));
    assert_eq!(next(&mut subscription), unseen(1));
    // The producer panicked.
    queued(registry.submit("a", |_| panic!("on purpose")));
    assert_eq!(next(&mut subscription), unseen(1));
    // The queue was full.
    let blocked = block_shard(&registry, "a", 3);
    queued(registry.submit("a", |_| None));
    assert_eq!(
        registry.submit("a", |_| Some(5)),
        afterwrite::Submitted::QueueFull
    );
    blocked.open();
    assert_eq!(next(&mut subscription), changed(3));
    let mut lost = 0;
    while lost < 2 {
        match next(&mut subscription) {
            Notice::Missed { n, visible: false } => lost += n,
            other => panic!("{other:?}"),
        }
    }
    // The registry closed.
    queued(registry.submit("a", |_| None));
    registry.close();
    assert_eq!(rest(subscription), [unseen(1)]);
}

#[test]
fn r4_missed_comes_before_the_next_notice_and_without_waiting_for_one() {
    quietly();
    for overflow in POLICIES {
        let registry: Registry<u64> = one_shard();
        let options = SubscribeOptions::new().overflow(overflow);
        let mut subscription = registry.subscribe_with("a", options).unwrap();
        let waiting = std::thread::spawn(move || {
            let first = next(&mut subscription);
            (subscription, first)
        });
        queued(registry.submit("a", |_| panic!("on purpose")));
        // Nothing is pushed, and still it comes.
        let (mut subscription, first) = waiting.join().unwrap();
        assert_eq!(first, unseen(1), "{overflow:?}");
        for _ in 0..2 {
            queued(registry.submit("a", |_| panic!("on purpose")));
        }
        queued(registry.submit("a", |_| Some(1)));
        until("pushed", || registry.stats().shards[0].pushes == 1);
        assert_eq!(
            drained(&mut subscription),
            [unseen(2), changed(1)],
            "{overflow:?}"
        );
    }
}

/// Pushes and losses of every kind; what each policy makes of them adds up.
#[test]
fn r4_everything_is_accounted_for() {
    quietly();
    for overflow in POLICIES {
        for coalesce in [false, true] {
            let registry: Registry<u64> = Registry::builder()
                .workers(1)
                .buffer_capacity(2)
                .overflow(overflow)
                .coalesce(coalesce)
                .expiry(Expiry::Skip)
                .retry(quick())
                .build()
                .unwrap();
            let mut subscription = registry.subscribe("a").unwrap();
            let mut sent = 0;
            let mut received = 0;
            let mut missed = 0;
            for value in 0..300u64 {
                let outcome = match value % 5 {
                    0 => {
                        let _ = registry.publish("a", value);
                        sent += 1;
                        continue;
                    }
                    1 => registry.submit("a", |_| panic!("on purpose")),
                    2 => registry.submit("a", |_| None),
                    _ => registry.submit("a", move |_| Some(value)),
                };
                assert!(matches!(
                    outcome,
                    afterwrite::Submitted::Queued | afterwrite::Submitted::QueueFull
                ));
                sent += 1;
                if value % 31 == 0 {
                    until("all has come to its end", || {
                        let shard = registry.stats().shards[0].clone();
                        shard.queued + shard.in_hand + shard.waiting == 0
                    });
                }
                if value % 7 == 0 {
                    for notice in drained(&mut subscription) {
                        match notice {
                            Notice::Changed(_) => received += 1,
                            Notice::Missed { n, .. } => missed += n,
                        }
                    }
                }
            }
            registry.close();
            while let Ok(notice) = subscription.try_recv() {
                match notice {
                    Notice::Changed(_) => received += 1,
                    Notice::Missed { n, .. } => missed += n,
                }
            }
            let tally = subscription.tally();
            assert_eq!((tally.received, tally.missed), (received, missed));
            assert_eq!(tally.discarded, 0);
            let (coalesced, skipped) = (subscription.coalesced(), subscription.skipped());
            let sum = received + missed + tally.merged + coalesced + skipped;
            assert_eq!(
                sum, sent,
                "{overflow:?} {coalesce} {tally:?} {coalesced} {skipped}"
            );
            assert_eq!(coalesced > 0, coalesce);
            assert!(skipped > 0);
            assert_eq!(tally.merged > 0, overflow == Overflow::Conflate);
        }
    }
}

#[test]
fn r4_what_happens_before_the_subscription_does_not_count() {
    quietly();
    let registry: Registry<u64> = one_shard();
    let mut witness = registry.subscribe("a").unwrap();
    let _ = registry.publish("a", 1);
    queued(registry.submit("a", |_| panic!("on purpose")));
    assert_eq!(next(&mut witness), changed(1));
    assert_eq!(next(&mut witness), unseen(1));
    for overflow in POLICIES {
        let options = SubscribeOptions::new().overflow(overflow);
        let mut late = registry.subscribe_with("a", options).unwrap();
        assert_eq!(late.try_recv(), Err(TryRecvError::Empty));
        let _ = registry.publish("a", 2);
        assert_eq!(next(&mut late), changed(2));
        assert_eq!(late.tally().received, 1);
        assert_eq!((late.tally().missed, late.tally().merged), (0, 0));
    }
}

#[test]
fn r4_a_clone_that_panics_is_missed_by_its_subscriber_alone() {
    quietly();
    for overflow in POLICIES {
        let registry: Registry<Payload> = Registry::new().unwrap();
        let alive = Arc::new(AtomicUsize::new(0));
        let options = SubscribeOptions::new().overflow(overflow);
        let mut all: Vec<_> = (0..3)
            .map(|_| registry.subscribe_with("a", options).unwrap())
            .collect();
        let clones = AtomicUsize::new(0);
        let fragile = Payload::new(1, &alive)
            .on_clone(move || assert_ne!(clones.fetch_add(1, SeqCst), 1, "on purpose"));
        assert_eq!(registry.publish("a", fragile), Published::Reached(2));
        let got: Vec<_> = all.iter_mut().map(drained).collect();
        let lost = got.iter().filter(|n| **n == [overrun(1)]).count();
        let fine = got
            .iter()
            .filter(|n| **n == [changed(Payload::new(1, &alive))])
            .count();
        assert_eq!((lost, fine), (1, 2), "{overflow:?} {got:?}");
        drop(got);
        assert_eq!(alive.load(SeqCst), 0);
    }
}

#[test]
fn r9_a_gate_that_expires_is_missed_or_skipped() {
    for expiry in [Expiry::Missed, Expiry::Skip] {
        let notes = Notes::default();
        let registry: Registry<u64> = Registry::builder()
            .workers(1)
            .expiry(expiry)
            .retry(quick())
            .observer(notes.clone())
            .build()
            .unwrap();
        let mut subscription = registry.subscribe("a").unwrap();
        let gated = registry.subscribe_gated("a", |_| None).unwrap();
        queued(registry.submit("a", |_| None));
        queued(registry.submit("a", |_| Some(1)));
        if expiry == Expiry::Missed {
            assert_eq!(next(&mut subscription), unseen(1));
        }
        assert_eq!(next(&mut subscription), changed(1));
        let skipped = u64::from(expiry == Expiry::Skip);
        assert_eq!(subscription.skipped(), skipped);
        // Its own first notice as well.
        assert_eq!(gated.skipped(), skipped * 2);
        assert_eq!(registry.stats().shards[0].expired, 2);
        let told = |e: &Event| matches!(e, Event::Skipped(key, afterwrite::SkipReason::Expired) if key == "a");
        assert_eq!(notes.count(told), 2);
    }
}

#[test]
fn r23_a_coalescing_key_keeps_its_head_and_one_successor() {
    let registry: Registry<u64> = Registry::builder()
        .workers(1)
        .coalesce(true)
        .build()
        .unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    let view = Watermark::new(0);
    for position in 1..=10 {
        queued(registry.submit_at("a", view.reached(position), position));
    }
    until("all are in", || registry.stats().shards[0].jobs == 10);
    assert_eq!(waiting(&registry), 2);
    view.advance(1);
    assert_eq!(next(&mut subscription), changed(1));
    view.advance(9);
    nothing(&mut subscription);
    view.advance(10);
    assert_eq!(next(&mut subscription), changed(10));
    assert_eq!(subscription.coalesced(), 8);
    assert_eq!(registry.stats().shards[0].coalesced, 8);

    // The newest producer, but the highest position.
    queued(registry.submit_at("a", view.reached(11), 11));
    queued(registry.submit_at("a", view.reached(20), 20));
    queued(registry.submit_at("a", view.reached(12), 12));
    until("all are in", || registry.stats().shards[0].jobs == 13);
    view.advance(19);
    assert_eq!(next(&mut subscription), changed(11));
    until("only it waits", || waiting(&registry) == 1);
    nothing(&mut subscription);
    view.advance(20);
    assert_eq!(next(&mut subscription), changed(12));
    let Tally {
        received, missed, ..
    } = subscription.tally();
    assert_eq!((received, missed, subscription.coalesced()), (4, 0, 9));
}

#[test]
fn r23_the_oldest_deadline_stays() {
    let registry: Registry<u64> = Registry::builder()
        .workers(1)
        .coalesce(true)
        .queue_capacity(1 << 16)
        .pending_per_key(1 << 15)
        .retry(Retry::backoff(Duration::from_millis(100)))
        .build()
        .unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    let began = std::time::Instant::now();
    // However many take its place, the successor's budget is its first one's.
    let mut lost = 0;
    while lost < 2 {
        queued(registry.submit("a", |_| None));
        match subscription.recv_timeout(Duration::from_millis(1)) {
            Ok(Notice::Missed { n, visible: false }) => lost += n,
            Ok(other) => panic!("{other:?}"),
            Err(_) => assert!(began.elapsed() < SOON, "it never expires"),
        }
    }
    assert!(subscription.coalesced() > 0);
}
