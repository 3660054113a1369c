//! R18: the end of a registry.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use afterwrite::{
    DropReason, Notice, Observer, Published, Registry, Submitted, TryRecvError, Watermark,
};

use crate::support::*;

#[test]
fn r18_close_cancels_what_waits_and_ends_the_streams() {
    let notes = Notes::default();
    let registry: Registry<u64> = Registry::builder()
        .workers(2)
        .observer(notes.clone())
        .build()
        .unwrap();
    let subscription = registry.subscribe("a").unwrap();
    let other = registry.subscribe("b").unwrap();
    let view = Watermark::new(0);
    let _ = registry.publish("a", 1);
    queued(registry.submit("a", |_| None));
    queued(registry.submit_async("a", |_| std::future::pending()));
    queued(registry.submit_at("a", view.reached(1), 9));
    let began = Instant::now();
    registry.close();
    registry.close();
    assert!(began.elapsed() < Duration::from_secs(4), "not by expiry");
    assert!(registry.is_closed());
    let mut notices = rest(subscription).into_iter();
    assert_eq!(notices.next(), Some(changed(1)));
    let lost: u64 = notices
        .map(|notice| match notice {
            Notice::Missed { n, visible: false } => n,
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(lost, 3);
    assert_eq!(rest(other), []);
    assert_eq!(
        notes.count(|e| *e == Event::Dropped("a".into(), DropReason::Closed)),
        3
    );
    let cancelled: u64 = registry.stats().shards.iter().map(|s| s.cancelled).sum();
    assert_eq!(cancelled, 3);
}

#[test]
fn r18_jobs_that_never_started_are_missed_and_what_is_open_is_pushed() {
    let notes = Notes::default();
    let registry: Registry<u64> = Registry::builder()
        .workers(1)
        .observer(notes.clone())
        .build()
        .unwrap();
    let subscription = registry.subscribe("a").unwrap();
    let blocked = block_shard(&registry, "a", 0);
    let asked = Arc::new(AtomicUsize::new(0));
    for _ in 0..3 {
        let asked = asked.clone();
        queued(registry.submit("a", move |_| {
            asked.fetch_add(1, SeqCst);
            Some(9)
        }));
    }
    let closing = {
        let registry = registry.clone();
        std::thread::spawn(move || registry.close())
    };
    until("it begins to close", || registry.is_closed());
    assert_eq!(registry.submit("a", |_| Some(9)), Submitted::Closed);
    blocked.open();
    closing.join().unwrap();
    assert_eq!(asked.load(SeqCst), 0);
    assert_eq!(rest(subscription), [changed(0), unseen(3)]);
    assert_eq!(
        notes.count(|e| *e == Event::Dropped("a".into(), DropReason::Closed)),
        3
    );
}

#[test]
fn r18_from_its_own_producer() {
    for asynchronous in [false, true] {
        let registry: Registry<u64> = Registry::builder().workers(2).build().unwrap();
        let subscription = registry.subscribe("a").unwrap();
        let own = registry.clone();
        if asynchronous {
            queued(registry.submit_async("a", move |_| {
                let own = own.clone();
                async move {
                    own.close();
                    own.close_async().await;
                    own.close_timeout(Duration::ZERO).unwrap();
                    Some(1)
                }
            }));
        } else {
            queued(registry.submit("a", move |_| {
                own.close();
                assert!(own.is_closed());
                Some(1)
            }));
        }
        // A push that is open goes through; the stream ends behind it.
        assert_eq!(rest(subscription), [changed(1)]);
        registry.close();
    }
}

struct Closes(Arc<Mutex<Option<Registry<u64>>>>);

impl Observer for Closes {
    fn pushed(&self, _: &str, _: usize, _: Option<afterwrite::Timing>) {
        let registry = self.0.lock().unwrap().clone();
        registry.expect("it is built").close();
    }
}

#[test]
fn r18_from_an_observer_on_a_shard_and_on_a_publishers_thread() {
    for on_shard in [true, false] {
        let itself = Arc::new(Mutex::new(None));
        let registry: Registry<u64> = Registry::builder()
            .workers(2)
            .observer(Closes(itself.clone()))
            .build()
            .unwrap();
        *itself.lock().unwrap() = Some(registry.clone());
        let subscription = registry.subscribe("a").unwrap();
        if on_shard {
            queued(registry.submit("a", |_| Some(1)));
        } else {
            assert_eq!(registry.publish("a", 1), Published::Reached(1));
        }
        assert_eq!(rest(subscription), [changed(1)]);
        registry.close();
        // A registry that its own observer holds is never dropped.
        *itself.lock().unwrap() = None;
    }
}

#[test]
fn r18_from_several_threads_at_once() {
    for _ in 0..50 {
        let registry: Registry<u64> = Registry::builder().workers(2).build().unwrap();
        let subscription = registry.subscribe("a").unwrap();
        queued(registry.submit("a", |_| None));
        std::thread::scope(|scope| {
            let mut spawned = Vec::new();
            for _ in 0..3 {
                spawned.push(scope.spawn(|| {
                    registry.close();
                    // Whoever returns first, it is over.
                    assert_eq!(registry.submit("a", |_| Some(1)), Submitted::Closed);
                    assert_eq!(registry.close_timeout(Duration::ZERO), Ok(()));
                }));
            }

            for thread in spawned {
                thread.join().unwrap();
            }
        });
        assert_eq!(rest(subscription), [unseen(1)]);
    }
}

#[test]
fn r18_close_timeout_names_the_shards_that_are_at_work() {
    let registry: Registry<u64> = Registry::builder().workers(3).build().unwrap();
    let subscription = registry.subscribe("a").unwrap();
    let blocked = block_shard(&registry, "a", 1);
    let error = registry.close_timeout(BRIEF).unwrap_err();
    until("the idle ones end", || {
        registry
            .close_timeout(Duration::ZERO)
            .is_err_and(|error| error.waiting == 1)
    });
    assert!((1..=3).contains(&error.waiting));
    blocked.open();
    registry.close_timeout(SOON).unwrap();
    registry.close_timeout(Duration::MAX).unwrap();
    assert_eq!(rest(subscription), [changed(1)]);
}

#[test]
fn r18_close_async_waits_without_blocking() {
    let registry: Registry<u64> = one_shard();
    let subscription = registry.subscribe("a").unwrap();
    let blocked = block_shard(&registry, "a", 1);
    block_on(async {
        let closed = registry.close_async();
        assert!(registry.is_closed(), "it begins at once");
        let mut closed = std::pin::pin!(closed);
        let waited = tokio::time::timeout(BRIEF, &mut closed).await;
        assert!(waited.is_err());
        // One that is dropped is nobody's.
        drop(registry.close_async());
        blocked.open();
        closed.await;
        registry.close_async().await;
    });
    assert_eq!(rest(subscription), [changed(1)]);
}

#[test]
fn r18_dropping_the_last_handle_closes_without_joining() {
    let registry: Registry<u64> = one_shard();
    let subscription = registry.subscribe("a").unwrap();
    let key = registry.key("a").unwrap();
    let blocked = block_shard(&registry, "a", 1);
    let clone = registry.clone();
    drop(registry);
    assert!(!clone.is_closed());
    // Returns though the shard is blocked.
    drop(clone);
    assert_eq!(key.submit(|_| Some(2)), Submitted::Closed);
    blocked.open();
    assert_eq!(rest(subscription), [changed(1)]);
}

#[test]
fn r18_the_last_handle_may_be_dropped_inside_a_future_on_the_shard() {
    let registry: Registry<u64> = one_shard();
    let subscription = registry.subscribe("a").unwrap();
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let kept = registry.clone();
    let mut gone = Some(gone);
    queued(registry.submit_async("a", move |_| {
        let (kept, gone) = (kept.clone(), gone.take().expect("once"));
        async move {
            let _ = gone.await;
            drop(kept);
            Some(1)
        }
    }));
    until("it waits", || waiting(&registry) == 1);
    drop(registry);
    // The producer holds one still, which goes with it.
    go.send(()).unwrap();
    assert_eq!(rest(subscription), [changed(1)]);

    // And in a future that is cancelled by the deadline, or by a closer of the registry.
    let registry: Registry<u64> = Registry::builder()
        .workers(1)
        .retry(afterwrite::Retry::backoff(Duration::from_millis(10)))
        .build()
        .unwrap();
    let subscription = registry.subscribe("a").unwrap();
    let kept = registry.clone();
    queued(registry.submit_async("a", move |_| {
        let kept = kept.clone();
        async move {
            std::future::pending::<()>().await;
            drop(kept);
            None
        }
    }));
    drop(registry);
    assert_eq!(rest(subscription), [unseen(1)]);
}

#[test]
fn r18_dropped_in_an_asynchronous_task() {
    block_on(async {
        let registry: Registry<u64> = one_shard();
        let mut subscription = registry.subscribe("a").unwrap();
        let task = tokio::spawn(async move {
            queued(registry.submit("a", |_| Some(1)));
            tokio::task::yield_now().await;
            drop(registry);
        });
        task.await.unwrap();
        let first = subscription.recv().await.expect("pushed or missed");
        assert!(first == changed(1) || first == unseen(1));
        assert_eq!(subscription.recv().await, None);
    });
}

#[test]
fn r18_submitters_that_race_the_close_strand_nothing() {
    for round in 0..100u64 {
        let registry: Registry<u64> = Registry::builder()
            .workers(1)
            .buffer_capacity(1 << 14)
            .queue_capacity(8)
            .build()
            .unwrap();
        let subscription = registry.subscribe("a").unwrap();
        let counted = AtomicU64::new(0);
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            let mut spawned = Vec::new();
            for submitter in 0..2 {
                let (registry, counted, tell) = (&registry, &counted, tell.clone());
                spawned.push(scope.spawn(move || {
                    for n in 0u64.. {
                        let outcome = if submitter == 0 {
                            registry.submit("a", |_| Some(0))
                        } else {
                            let batch = (0..3).map(|_| ("a", afterwrite::Gate::read(|_| Some(0))));
                            let outcome = registry.submit_batch(batch);
                            counted.fetch_add((outcome.queued + outcome.queue_full) as u64, SeqCst);
                            assert_eq!(outcome.no_subscribers, 0);
                            if outcome.closed > 0 {
                                return;
                            }
                            continue;
                        };
                        match outcome {
                            Submitted::Queued | Submitted::QueueFull => {
                                counted.fetch_add(1, SeqCst);
                            }
                            Submitted::Closed => return,
                            Submitted::NoSubscribers => panic!("there is one"),
                        }
                        if n == round % 13 {
                            tell.send(()).unwrap();
                        }
                    }
                }));
            }
            told.recv_timeout(SOON).unwrap();
            registry.close();

            for thread in spawned {
                thread.join().unwrap();
            }
        });
        let received: u64 = rest(subscription)
            .iter()
            .map(|notice| match notice {
                Notice::Changed(_) => 1,
                Notice::Missed { n, .. } => *n,
            })
            .sum();
        assert_eq!(received, counted.load(SeqCst), "round {round}");
    }
}

#[test]
fn r18_a_stream_ends_only_after_the_push_under_way() {
    let registry: Registry<Payload> = one_shard();
    let alive = Arc::new(AtomicUsize::new(0));
    let _one = registry.subscribe("a").unwrap();
    let mut two = registry.subscribe("a").unwrap();
    let (push, stop) = barrier();
    let stop = std::sync::Mutex::new(Some(stop));
    let payload = Payload::new(1, &alive).on_clone(move || {
        if let Some(stop) = stop.lock().unwrap().take() {
            stop.stop();
        }
    });
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| registry.publish("a", payload));
        push.entered();
        // Waits for the shards, not for the publisher.
        registry.close();
        assert_eq!(two.try_recv(), Err(TryRecvError::Empty));
        push.open();
        assert_eq!(pushing.join().unwrap(), Published::Reached(2));
    });
    assert_eq!(next(&mut two), changed(Payload::new(1, &alive)));
    assert_eq!(two.recv_blocking(), None);
}

#[test]
fn r18_wakers_kept_by_others_outlive_the_registry() {
    let registry: Registry<u64> = one_shard();
    let _subscription = registry.subscribe("a").unwrap();
    let (left, wakers) = mpsc::channel();
    queued(registry.submit_async("a", move |_| {
        let left = left.clone();
        std::future::poll_fn(move |cx| {
            left.send(cx.waker().clone()).unwrap();
            std::task::Poll::Pending
        })
    }));
    let waker = wakers.recv_timeout(SOON).unwrap();
    registry.close();
    waker.wake_by_ref();
    drop(registry);
    waker.wake();
}
