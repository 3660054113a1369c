//! Calls into the library from where its callers' code is called.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, OnceLock};
use std::task::Context;

use afterwrite::{Published, Registry, Subscription, Watermark};

use crate::support::*;

#[test]
fn r22_everything_from_a_waker() {
    // On a publisher's thread, and on a shard.
    for on_shard in [false, true] {
        let registry: Registry<u64> = one_shard();
        let mut woken = registry.subscribe("a").unwrap();
        let own: Arc<Mutex<Vec<Subscription<u64>>>> = Arc::default();
        let (inner, kept) = (registry.clone(), own.clone());
        let (count, counted) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counting = count.clone();
        let waker = Calls::waker(move || {
            if counting.fetch_add(1, SeqCst) > 0 {
                return;
            }
            // Subscribe, on this key and on another; publish; submit; unsubscribe.
            kept.lock().unwrap().push(inner.subscribe("a").unwrap());
            kept.lock().unwrap().push(inner.subscribe("b").unwrap());
            assert_ne!(inner.publish("a", 2), Published::Closed);
            queued(inner.submit("b", |_| Some(3)));
            drop(inner.subscribe("a").unwrap());
            counted.fetch_add(1, SeqCst);
        });
        let mut recv = woken.recv();
        assert!(
            Pin::new(&mut recv)
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        if on_shard {
            queued(registry.submit("a", |_| Some(1)));
        } else {
            let _ = registry.publish("a", 1);
        }
        until("it was called", || count.load(SeqCst) > 0);
        drop(recv);
        assert_eq!(next(&mut woken), changed(1));
        assert_eq!(next(&mut woken), changed(2));
        until("both are there", || own.lock().unwrap().len() == 2);
        let mut own = own.lock().unwrap();
        assert_eq!(next(&mut own[1]), changed(3));
        assert_eq!(next(&mut own[0]), changed(2));
    }
}

/// More wakers than are taken at once.
#[test]
fn r22_many_wakers_that_publish_and_close() {
    let registry: Registry<u64> = one_shard();
    let mut all: Vec<_> = (0..200).map(|_| registry.subscribe("a").unwrap()).collect();
    let calls = Arc::new(AtomicUsize::new(0));
    for subscription in &mut all {
        let (registry, calls) = (registry.clone(), calls.clone());
        let closer = subscription.closer();
        let waker = Calls::waker(move || {
            let call = calls.fetch_add(1, SeqCst);
            let _ = registry.publish("a", 100 + call as u64);
            closer.close();
        });
        let pinned = Pin::new(subscription);
        let polled = futures_util::Stream::poll_next(pinned, &mut Context::from_waker(&waker));
        assert!(polled.is_pending());
    }
    let _ = registry.publish("a", 1);
    until("all were called", || calls.load(SeqCst) == 200);
    assert_eq!(registry.subscriber_count("a"), 0);
    assert!(all.iter_mut().all(|s| s.recv_blocking().is_none()));
    registry.close();
}

#[test]
fn r22_a_waker_may_close_the_registry() {
    for on_shard in [false, true] {
        let registry: Registry<u64> = Registry::builder().workers(2).build().unwrap();
        let mut subscription = registry.subscribe("a").unwrap();
        let closing = registry.clone();
        let waker = Calls::waker(move || closing.close());
        let mut recv = subscription.recv();
        assert!(
            Pin::new(&mut recv)
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        if on_shard {
            queued(registry.submit("a", |_| Some(1)));
        } else {
            let _ = registry.publish("a", 1);
        }
        until("it closes", || registry.is_closed());
        drop(recv);
        assert_eq!(rest(subscription), [changed(1)]);
        registry.close();
    }
}

#[test]
fn r22_everything_from_a_producer() {
    let registry: Registry<u64> = one_shard();
    let mut subscription = registry.subscribe("a").unwrap();
    let view = Watermark::new(0);
    queued(registry.submit_at("a", view.reached(1), 1));
    let (inner, position) = (registry.clone(), view.clone());
    queued(registry.submit("a", move |_| {
        // The head of its own key, and more behind itself.
        position.advance(1);
        let _ = inner.publish("a", 50);
        queued(inner.submit("a", |_| Some(3)));
        let own = inner.subscribe("a").unwrap();
        assert_eq!(own.key(), "a");
        assert!(inner.has_subscribers("a"));
        Some(2)
    }));
    assert_eq!(next(&mut subscription), changed(50));
    for value in 1..=3 {
        assert_eq!(next(&mut subscription), changed(value));
    }
}

#[test]
fn r22_everything_from_a_clone_and_a_drop() {
    struct Meddling(u64, Arc<OnceLock<Registry<Meddling>>>);
    impl Meddling {
        fn meddle(&self) {
            if let Some(registry) = self.1.get().filter(|_| self.0 == 1) {
                drop(registry.subscribe("a"));
                drop(registry.subscribe("b"));
                let _ = registry.publish("b", Meddling(2, self.1.clone()));
                let _ = registry.publish("a", Meddling(2, self.1.clone()));
            }
        }
    }
    impl Clone for Meddling {
        fn clone(&self) -> Self {
            self.meddle();
            Self(self.0, self.1.clone())
        }
    }
    impl Drop for Meddling {
        fn drop(&mut self) {
            self.meddle();
        }
    }
    for overflow in POLICIES {
        let itself = Arc::new(OnceLock::new());
        let registry: Registry<Meddling> = Registry::builder()
            .workers(1)
            .overflow(overflow)
            .buffer_capacity(1)
            .build()
            .unwrap();
        assert!(itself.set(registry.clone()).is_ok());
        let subscriptions = [(); 3].map(|()| registry.subscribe("a").unwrap());
        let closed = registry.subscribe("a").unwrap();
        for _ in 0..3 {
            let _ = registry.publish("a", Meddling(1, itself.clone()));
            let mut payload = Some(Meddling(1, itself.clone()));
            queued(registry.submit("a", move |_| payload.take()));
        }
        drop(closed);
        until("the shard is idle", || {
            let shard = registry.stats().shards[0].clone();
            shard.queued + shard.in_hand + shard.waiting == 0
        });
        registry.close();
        drop(subscriptions);
    }
}

#[test]
fn r22_a_subscription_may_end_inside_its_own_waker() {
    let registry: Registry<u64> = one_shard();
    let subscription = registry.subscribe("a").unwrap();
    let place = Arc::new(Mutex::new(Some(subscription)));
    let inner = place.clone();
    let waker = Calls::waker(move || drop(inner.lock().unwrap().take()));
    let polled = {
        let mut place = place.lock().unwrap();
        let pinned = Pin::new(place.as_mut().unwrap());
        futures_util::Stream::poll_next(pinned, &mut Context::from_waker(&waker)).is_pending()
    };
    assert!(polled);
    let _ = registry.publish("a", 1);
    assert!(place.lock().unwrap().is_none());
    assert_eq!(registry.subscriber_count("a"), 0);
}
