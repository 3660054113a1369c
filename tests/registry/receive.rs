//! R3: every way to wait.

use std::pin::Pin;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use afterwrite::{Notice, RecvTimeoutError, Registry, Subscription, TryRecvError};
use futures_util::stream::{FusedStream, Stream, StreamExt};

use crate::support::*;

#[test]
fn r3_every_way_yields_the_same_and_ends() {
    type Way = fn(&mut Subscription<u64>) -> Option<Notice<u64>>;
    let ways: [(&str, Way); 5] = [
        ("recv", |s| block_on(s.recv())),
        ("stream", |s| block_on(s.next())),
        ("recv_blocking", |s| s.recv_blocking()),
        ("recv_timeout", |s| match s.recv_timeout(SOON) {
            Ok(notice) => Some(notice),
            Err(RecvTimeoutError::Ended) => None,
            Err(RecvTimeoutError::Timeout) => panic!("late"),
        }),
        ("try_recv", |s| {
            loop {
                match s.try_recv() {
                    Ok(notice) => return Some(notice),
                    Err(TryRecvError::Ended) => return None,
                    Err(TryRecvError::Empty) => std::thread::yield_now(),
                }
            }
        }),
    ];
    for overflow in POLICIES {
        for (name, receive) in ways {
            let registry: Registry<u64> = Registry::builder()
                .workers(1)
                .overflow(overflow)
                .build()
                .unwrap();
            let mut subscription = registry.subscribe("a").unwrap();
            // There already, and to come.
            let _ = registry.publish("a", 1);
            assert_eq!(receive(&mut subscription), Some(changed(1)), "{name}");
            queued(registry.submit("a", |attempt| (attempt.number() == 3).then_some(2)));
            assert_eq!(receive(&mut subscription), Some(changed(2)), "{name}");
            let _ = registry.publish("a", 3);
            registry.close();
            assert_eq!(receive(&mut subscription), Some(changed(3)), "{name}");
            assert_eq!(receive(&mut subscription), None, "{name}");
            assert_eq!(receive(&mut subscription), None, "{name}: and stays so");
            assert!(subscription.is_terminated());
        }
    }
}

#[test]
fn r3_a_timed_wait_ends_in_time_and_loses_nothing() {
    let registry: Registry<u64> = Registry::new().unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    for wait in [Duration::ZERO, BRIEF] {
        let began = Instant::now();
        assert_eq!(
            subscription.recv_timeout(wait),
            Err(RecvTimeoutError::Timeout)
        );
        assert!(began.elapsed() >= wait);
    }
    let _ = registry.publish("a", 1);
    assert_eq!(subscription.recv_timeout(Duration::ZERO), Ok(changed(1)));
    // A time that no clock can show is no limit.
    let publisher = registry.clone();
    let thread = std::thread::spawn(move || publisher.publish("a", 2));
    assert_eq!(subscription.recv_timeout(Duration::MAX), Ok(changed(2)));
    let _ = thread.join().unwrap();
    registry.close();
    assert_eq!(
        subscription.recv_timeout(Duration::MAX),
        Err(RecvTimeoutError::Ended)
    );
}

#[test]
fn r3_a_cancelled_recv_loses_neither_notice_nor_wake() {
    let registry: Registry<u64> = Registry::new().unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    let (count, waker) = counting();
    let mut cx = Context::from_waker(&waker);
    // Dropped after the wake that was meant for it.
    {
        let mut recv = subscription.recv();
        assert!(Pin::new(&mut recv).poll(&mut cx).is_pending());
        let _ = registry.publish("a", 1);
        assert_eq!(count.load(SeqCst), 1);
    }
    assert_eq!(
        Pin::new(&mut subscription.recv()).poll(&mut cx),
        Poll::Ready(Some(changed(1)))
    );
    // Dropped before: nobody is woken for it, and the next wait is a whole one.
    {
        let mut recv = subscription.recv();
        assert!(Pin::new(&mut recv).poll(&mut cx).is_pending());
    }
    let _ = registry.publish("a", 2);
    assert_eq!(count.load(SeqCst), 1, "its waker was given back");
    let mut recv = subscription.recv();
    assert_eq!(
        Pin::new(&mut recv).poll(&mut cx),
        Poll::Ready(Some(changed(2)))
    );
    drop(recv);
    // Only the waker of the last poll counts.
    let (later, other) = counting();
    let mut recv = subscription.recv();
    assert!(Pin::new(&mut recv).poll(&mut cx).is_pending());
    assert!(
        Pin::new(&mut recv)
            .poll(&mut Context::from_waker(&other))
            .is_pending()
    );
    let _ = registry.publish("a", 3);
    assert_eq!((count.load(SeqCst), later.load(SeqCst)), (1, 1));
}

#[test]
fn r3_select_may_cancel_as_often_as_it_likes() {
    const PUSHES: u64 = 3_000;
    let registry: Registry<u64> = Registry::builder()
        .buffer_capacity(8)
        .workers(1)
        .build()
        .unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    let publisher = registry.clone();
    let thread = std::thread::spawn(move || {
        for value in 0..PUSHES {
            let _ = publisher.publish("a", value);
        }
        publisher.close();
    });
    let (mut last, mut sum) = (None, 0);
    block_on(async {
        loop {
            tokio::select! {
                biased;
                () = tokio::task::yield_now(), if sum % 2 == 0 => {
                    // The other branch had been polled, and is dropped here.
                    tokio::task::yield_now().await;
                }
                notice = subscription.recv() => match notice {
                    Some(Notice::Changed(value)) => {
                        assert!(last < Some(value));
                        last = Some(value);
                        sum += 1;
                        continue;
                    }
                    Some(Notice::Missed { n, .. }) => { sum += n; continue }
                    None => break,
                },
            }
            // Cancelled in the middle of a wait.
            tokio::select! {
                biased;
                notice = subscription.recv() => match notice {
                    Some(Notice::Changed(value)) => {
                        assert!(last < Some(value));
                        last = Some(value);
                        sum += 1;
                    }
                    Some(Notice::Missed { n, .. }) => sum += n,
                    None => break,
                },
                () = tokio::task::yield_now() => {}
            }
        }
    });
    thread.join().unwrap();
    assert_eq!(sum, PUSHES);
}

#[test]
fn r3_a_fused_stream_says_when_it_has_ended() {
    let registry: Registry<u64> = Registry::new().unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    let closer = subscription.closer();
    let _ = registry.publish("a", 1);
    assert!(!subscription.is_terminated());
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut stream = Pin::new(&mut subscription);
    assert_eq!(
        stream.as_mut().poll_next(&mut cx),
        Poll::Ready(Some(changed(1)))
    );
    assert!(stream.as_mut().poll_next(&mut cx).is_pending());
    assert!(!stream.is_terminated());
    closer.close();
    assert_eq!(stream.as_mut().poll_next(&mut cx), Poll::Ready(None));
    assert!(stream.is_terminated());
    assert_eq!(stream.as_mut().poll_next(&mut cx), Poll::Ready(None));
}

#[test]
fn r3_streams_of_several_keys_merge() {
    let registry: Registry<u64> = Registry::new().unwrap();
    let mut merged = futures_util::stream::SelectAll::new();
    for key in ["a", "b", "c"] {
        merged.push(registry.subscribe(key).unwrap());
    }
    for (value, key) in ["a", "b", "c", "a"].iter().enumerate() {
        let _ = registry.publish(key, value as u64);
    }
    registry.close();
    let mut all: Vec<_> = block_on(merged.collect());
    all.sort_by_key(|notice| match notice {
        Notice::Changed(value) => *value,
        Notice::Missed { .. } => panic!("nothing was missed"),
    });
    assert_eq!(all, [0, 1, 2, 3].map(changed));
}

#[test]
fn r3_handles_are_send_whatever_the_payload_shares() {
    fn send<T: Send + Unpin + 'static>() {}
    fn sync<T: Sync>() {}
    // `Cell` is `Send` and not `Sync`.
    type Payload = std::cell::Cell<u64>;
    send::<Subscription<Payload>>();
    sync::<Subscription<Payload>>();
    send::<Subscription<std::marker::PhantomPinned>>();
    send::<Registry<Payload>>();
    sync::<Registry<Payload>>();
    send::<afterwrite::Key<Payload>>();
    sync::<afterwrite::Key<Payload>>();
    send::<afterwrite::Gate<Payload>>();
    send::<afterwrite::Closer>();
    sync::<afterwrite::Closer>();
    fn is_send<F: Send>(_: &F) {}
    let registry: Registry<Payload> = Registry::new().unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    is_send(&subscription.recv());
    is_send(&registry.close_async());
}
