//! R13: pushes without a gate.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use afterwrite::{DropReason, Published, Registry, Watermark};

use crate::support::*;

/// A publisher that stands in the middle of its push, until the test lets it go.
fn slow_push(value: u64, alive: &Arc<AtomicUsize>) -> (Barrier, Payload) {
    let (barrier, stop) = barrier();
    let once = Mutex::new(Some(stop));
    let payload = Payload::new(value, alive).on_clone(move || {
        let stop = once.lock().unwrap().take();
        if let Some(stop) = stop {
            stop.stop();
        }
    });
    (barrier, payload)
}

fn values(subscription: &mut afterwrite::Subscription<Payload>, n: usize) -> Vec<u64> {
    (0..n)
        .map(|_| match next(subscription) {
            afterwrite::Notice::Changed(payload) => payload.value,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn r13_publish_reaches_on_the_calling_thread() {
    let registry: Registry<Payload> = Registry::new().unwrap();
    let alive = Arc::new(AtomicUsize::new(0));
    assert_eq!(
        registry.publish("a", Payload::new(0, &alive)),
        Published::Reached(0)
    );
    assert_eq!(
        registry.publish("", Payload::new(0, &alive)),
        Published::Reached(0)
    );
    let mut subscriptions = [(); 3].map(|()| registry.subscribe("a").unwrap());
    let here = std::thread::current().id();
    let payload =
        Payload::new(1, &alive).on_clone(move || assert_eq!(std::thread::current().id(), here));
    assert_eq!(registry.publish("a", payload), Published::Reached(3));
    let key = registry.key("a").unwrap();
    assert_eq!(key.key(), "a");
    assert_eq!(key.publish(Payload::new(2, &alive)), Published::Reached(3));
    for subscription in &mut subscriptions {
        assert_eq!(values(subscription, 2), [1, 2]);
    }
    registry.close();
    assert_eq!(
        registry.publish("a", Payload::new(3, &alive)),
        Published::Closed
    );
    assert_eq!(
        registry.publish("nobody", Payload::new(3, &alive)),
        Published::Closed
    );
    assert_eq!(key.publish(Payload::new(3, &alive)), Published::Closed);
    assert_eq!(alive.load(SeqCst), 0);
}

#[test]
fn r13_a_full_buffer_is_not_reached() {
    let registry: Registry<u64> = Registry::builder().buffer_capacity(1).build().unwrap();
    let _full = registry.subscribe("a").unwrap();
    let mut reads = registry.subscribe("a").unwrap();
    assert_eq!(registry.publish("a", 1), Published::Reached(2));
    assert_eq!(next(&mut reads), changed(1));
    assert_eq!(registry.publish("a", 2), Published::Reached(1));
}

#[test]
fn r13_publish_overtakes_gates_that_wait() {
    let registry: Registry<u64> = one_shard();
    let mut subscription = registry.subscribe("a").unwrap();
    let view = Watermark::new(0);
    queued(registry.submit_at("a", view.reached(1), 1));
    until("it waits", || waiting(&registry) == 1);
    assert_eq!(registry.publish("a", 2), Published::Reached(1));
    assert_eq!(next(&mut subscription), changed(2));
    view.advance(1);
    assert_eq!(next(&mut subscription), changed(1));
}

#[test]
fn r13_under_another_push_the_value_is_handed_over_in_order() {
    let registry: Registry<Payload> = one_shard();
    let alive = Arc::new(AtomicUsize::new(0));
    let mut one = registry.subscribe("a").unwrap();
    let mut two = registry.subscribe("a").unwrap();
    let (barrier, slow) = slow_push(1, &alive);
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| registry.publish("a", slow));
        barrier.entered();
        // Nobody waits for anybody: these return while that one stands.
        for value in 2..=6 {
            assert_eq!(
                registry.publish("a", Payload::new(value, &alive)),
                Published::HandedOver
            );
        }
        barrier.open();
        assert_eq!(pushing.join().unwrap(), Published::Reached(2));
    });
    // Later ones of the same thread do not overtake those that were handed over.
    let last = registry.publish("a", Payload::new(7, &alive));
    assert_ne!(last, Published::QueueFull);
    for subscription in [&mut one, &mut two] {
        assert_eq!(values(subscription, 7), [1, 2, 3, 4, 5, 6, 7]);
    }
}

#[test]
fn r13_what_is_handed_over_overtakes_gates_that_wait_as_well() {
    let registry: Registry<Payload> = one_shard();
    let alive = Arc::new(AtomicUsize::new(0));
    let mut one = registry.subscribe("a").unwrap();
    let _two = registry.subscribe("a").unwrap();
    let view = Watermark::new(0);
    for value in 8..=9 {
        queued(registry.submit_at("a", view.reached(1), Payload::new(value, &alive)));
    }
    until("they wait", || waiting(&registry) == 2);
    let (barrier, slow) = slow_push(1, &alive);
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| registry.publish("a", slow));
        barrier.entered();
        for value in 2..=4 {
            assert_eq!(
                registry.publish("a", Payload::new(value, &alive)),
                Published::HandedOver
            );
        }
        barrier.open();
        let _ = pushing.join().unwrap();
    });
    assert_eq!(values(&mut one, 4), [1, 2, 3, 4]);
    // A push is received a moment before it is settled.
    until("the gates alone wait", || waiting(&registry) == 2);
    until("the way is free again", || {
        registry.publish("a", Payload::new(5, &alive)) == Published::Reached(2)
    });
    view.advance(1);
    until("both are pushed", || waiting(&registry) == 0);
    let all = drained(&mut one);
    assert_eq!(
        all[all.len() - 2..],
        [8, 9].map(|value| changed(Payload::new(value, &alive)))
    );
}

#[test]
fn r13_a_full_queue_counts_as_a_loss_behind_what_was_queued() {
    let notes = Notes::default();
    let registry: Registry<Payload> = Registry::builder()
        .workers(1)
        .queue_capacity(2)
        .observer(notes.clone())
        .build()
        .unwrap();
    let alive = Arc::new(AtomicUsize::new(0));
    let mut one = registry.subscribe("a").unwrap();
    let _two = registry.subscribe("a").unwrap();
    let _other = registry.subscribe("b").unwrap();
    let blocked = block_shard(&registry, "b", Payload::new(0, &alive));
    let (barrier, slow) = slow_push(1, &alive);
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| registry.publish("a", slow));
        barrier.entered();
        for value in 2..=5 {
            let expected = if value <= 3 {
                Published::HandedOver
            } else {
                Published::QueueFull
            };
            assert_eq!(registry.publish("a", Payload::new(value, &alive)), expected);
        }
        barrier.open();
        assert_eq!(pushing.join().unwrap(), Published::Reached(2));
    });
    assert_eq!(values(&mut one, 1), [1]);
    // The loss does not precede what was queued before it.
    nothing(&mut one);
    blocked.open();
    assert_eq!(values(&mut one, 2), [2, 3]);
    assert_eq!(next(&mut one), unseen(2));
    assert_eq!(
        notes.count(|e| *e == Event::Dropped("a".into(), DropReason::QueueFull)),
        2
    );
}

#[test]
fn r13_a_refused_gate_is_not_told_early_by_a_refused_publish() {
    let registry: Registry<Payload> = Registry::builder()
        .workers(1)
        .queue_capacity(1)
        .build()
        .unwrap();
    let alive = Arc::new(AtomicUsize::new(0));
    let mut one = registry.subscribe("a").unwrap();
    let _two = registry.subscribe("a").unwrap();
    let _other = registry.subscribe("b").unwrap();
    let view = Watermark::new(0);
    let blocked = block_shard(&registry, "b", Payload::new(0, &alive));
    let mut payload = Some(Payload::new(9, &alive));
    queued(registry.submit("b", move |_| payload.take()));
    let refused = registry.submit_at("a", view.reached(1), Payload::new(9, &alive));
    assert_eq!(refused, afterwrite::Submitted::QueueFull);
    let (barrier, slow) = slow_push(1, &alive);
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| registry.publish("a", slow));
        barrier.entered();
        assert_eq!(
            registry.publish("a", Payload::new(2, &alive)),
            Published::QueueFull
        );
        barrier.open();
        let _ = pushing.join().unwrap();
    });
    blocked.open();
    assert_eq!(values(&mut one, 1), [1]);
    until("the refusal waits", || waiting(&registry) == 1);
    nothing(&mut one);
    view.advance(1);
    assert_eq!(next(&mut one), unseen(2));
}

#[test]
fn r13_a_key_handle_keeps_its_key_and_does_all_that_the_registry_does() {
    let registry: Registry<u64> = one_shard();
    let key = registry.key("a").unwrap();
    assert_eq!(key.publish(0), Published::Reached(0));
    let mut subscription = registry.subscribe("a").unwrap();
    let view = Watermark::new(5);
    queued(key.submit(|_| Some(1)));
    queued(key.submit_async(|_| async { Some(2) }));
    queued(key.submit_at(view.reached(5), 3));
    queued(key.submit_gate(afterwrite::Gate::read(|_| Some(4))));
    for value in 1..=4 {
        assert_eq!(next(&mut subscription), changed(value));
    }
    drop(subscription);
    // The same topic, though its subscribers changed altogether.
    let mut again = registry.subscribe("a").unwrap();
    assert_eq!(key.publish(5), Published::Reached(1));
    assert_eq!(next(&mut again), changed(5));
    drop(registry);
    until("the handle does not keep it open", || {
        key.publish(6) == Published::Closed
    });
}
