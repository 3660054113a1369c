//! R2, R3, R13, R17: what the handles offer beside the calls of the registry.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use afterwrite::{
    Attempt, Cap, Closer, Gate, Key, Notice, Observer, Published, Registry, SubscribeError,
    SubscribeOptions, Subscription, Timing, TryRecvError, Watermark,
};
use futures_util::future::{FusedFuture, FutureExt};

use crate::support::*;

/// No bound on the payload: a struct of a user's needs none either.
#[allow(dead_code)]
struct Holder<T> {
    subscription: Subscription<T>,
    key: Key<T>,
    closer: Closer,
}

#[test]
fn r13_a_key_subscribes_as_the_registry_does() {
    let registry = Registry::<u64>::builder()
        .workers(1)
        .max_subscribers_per_key(4)
        .build()
        .unwrap();
    let key = registry.key("a").unwrap();
    assert!(!key.has_subscribers());
    let mut plain = key.subscribe().unwrap();
    assert!(key.has_subscribers());
    let latest = SubscribeOptions::new().overflow(afterwrite::Overflow::Conflate);
    let mut latest = key.subscribe_with(latest).unwrap();
    let mut gated = key.subscribe_gated(|_| Some(100)).unwrap();
    assert_eq!(next(&mut gated), changed(100));
    let view = Watermark::new(1);
    let gate = Gate::reached(view.reached(1), 101);
    let mut any = key
        .subscribe_gated_with(SubscribeOptions::new(), gate)
        .unwrap();
    assert_eq!(next(&mut any), changed(101));
    let full = SubscribeError::Full {
        cap: Cap::Key,
        limit: 4,
    };
    assert_eq!(key.subscribe().unwrap_err(), full);
    assert_eq!(registry.subscriber_count("a"), 4);
    for value in [1, 2] {
        assert_eq!(key.publish(value), Published::Reached(4));
    }
    assert_eq!(drained(&mut plain), [changed(1), changed(2)]);
    assert_eq!(drained(&mut latest), [changed(2)]);
    drop((plain, latest, gated, any));
    assert_eq!(registry.stats().keys, 1, "the handle keeps it");
    // A subscription keeps it as well, when the handle goes first.
    let last = key.subscribe().unwrap();
    drop(key);
    assert_eq!(registry.stats().keys, 1);
    let key = registry.key("a").unwrap();
    drop(last);
    registry.close();
    assert_eq!(key.subscribe().unwrap_err(), SubscribeError::Closed);
    drop(key);
    let stats = registry.stats();
    assert_eq!((stats.keys, stats.subscribers), (0, 0));
}

#[test]
fn r2_a_closer_names_its_subscription() {
    let registry: Registry<u64> = Registry::new().unwrap();
    let subscription = registry.subscribe("a").unwrap();
    let closer = subscription.closer();
    assert_eq!((closer.key(), closer.id()), ("a", subscription.id()));
    assert!(!subscription.is_closed());
    closer.close();
    assert!(subscription.is_closed());
    let id = subscription.id();
    drop(subscription);
    assert_eq!((closer.key(), closer.id()), ("a", id));
}

#[test]
fn r18_the_end_of_the_registry_closes_its_subscriptions() {
    let registry: Registry<u64> = Registry::new().unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    let closer = subscription.closer();
    let _ = registry.publish("a", 1);
    registry.close();
    assert!(subscription.is_closed() && closer.is_closed());
    // What was there still is, and the registration lasts as long as its owner.
    assert_eq!(subscription.try_recv(), Ok(changed(1)));
    assert_eq!(subscription.try_recv(), Err(TryRecvError::Ended));
    assert_eq!(registry.stats().subscribers, 1);
    drop(subscription);
    assert_eq!(registry.stats().subscribers, 0);
}

#[test]
fn r3_iterators_yield_what_is_here_and_what_comes() {
    let registry: Registry<u64> = one_shard();
    let mut subscription = registry.subscribe("a").unwrap();
    assert_eq!(subscription.try_iter().next(), None);
    let _ = registry.publish("a", 1);
    let _ = registry.publish("a", 2);
    let here: Vec<_> = subscription.try_iter().collect();
    assert_eq!(here, [changed(1), changed(2)]);
    queued(registry.submit("a", |attempt| (attempt.number() == 3).then_some(3)));
    assert_eq!(subscription.iter().next(), Some(changed(3)), "it waits");
    let _ = registry.publish("a", 4);
    registry.close();
    let mut all = Vec::new();
    for notice in &mut subscription {
        all.push(notice);
    }
    assert_eq!(all, [changed(4)]);
    assert_eq!(subscription.iter().next(), None);
}

#[test]
fn r3_futures_know_when_they_have_answered() {
    let registry: Registry<u64> = Registry::new().unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    {
        let mut recv = subscription.recv();
        assert!(!recv.is_terminated());
        assert!(Pin::new(&mut recv).poll(&mut cx).is_pending());
        assert!(!recv.is_terminated());
        let _ = registry.publish("a", 1);
        assert_eq!(
            Pin::new(&mut recv).poll(&mut cx),
            Poll::Ready(Some(changed(1)))
        );
        assert!(recv.is_terminated());
    }
    let view = Watermark::new(0);
    let mut wait = view.wait_for(1);
    assert!(Pin::new(&mut wait).poll(&mut cx).is_pending());
    assert!(!wait.is_terminated());
    view.advance(1);
    assert!(Pin::new(&mut wait).poll(&mut cx).is_ready());
    assert!(wait.is_terminated());
    // As `select!` takes them.
    block_on(async {
        futures_util::select! {
            _ = view.wait_for(1) => {}
            _ = subscription.recv().fuse() => panic!("nothing comes"),
        }
    });
}

#[test]
fn r4_a_notice_can_be_taken_apart() {
    assert_eq!(changed(1).changed(), Some(1));
    assert_eq!(changed(1).missed(), 0);
    assert_eq!(unseen::<u8>(3).changed(), None);
    assert_eq!(overrun::<u8>(3).missed(), 3);
    assert_eq!(changed(1).map(|n| n + 1), changed(2));
    assert_eq!(unseen::<u8>(3).map(u64::from), unseen(3));
    let text: Notice<String> = changed("one".to_owned());
    assert_eq!(text.as_ref().map(String::len), changed(3));
}

#[test]
fn r7_producers_and_observers_can_be_tested_alone() {
    let deadline = std::time::Instant::now() + SOON;
    let attempt = Attempt::detached(3, deadline);
    assert_eq!((attempt.number(), attempt.deadline()), (3, deadline));
    assert!(!attempt.is_cancelled());
    assert!(attempt.cancelled().is_cancelled());
    let timing = Timing::new(SOON, BRIEF, 7);
    assert_eq!(
        (timing.waited, timing.walked, timing.attempts),
        (SOON, BRIEF, 7)
    );
    let notes = std::sync::Arc::new(Notes::default());
    notes.pushed("a", 1, Some(timing));
    assert_eq!(notes.all(), [Event::Pushed("a".into(), 1, Some(timing))]);
}
