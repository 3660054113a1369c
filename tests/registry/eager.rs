//! R15, R18: receivers that look again within the very wake, many of them on one key.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

use afterwrite::{Notice, Registry, Subscription};
use futures_util::stream::Stream;
use parking_lot::Mutex;

use crate::support::*;

/// More than are woken after the turn is free, so that most wakes come while it is held.
const MANY: usize = 200;

/// Wakes of one receiver, beyond which it sleeps on: then something wakes it over and over.
const ENOUGH: usize = 50;

/// A task that runs wherever it is woken.
struct Eager {
    subscription: Mutex<Subscription<u64>>,
    wakes: AtomicUsize,
    got: Mutex<Vec<Option<Notice<u64>>>>,
}

impl Eager {
    fn run(self: &Arc<Self>) {
        let waker = Waker::from(self.clone());
        let mut cx = Context::from_waker(&waker);
        let mut subscription = self.subscription.lock();
        while let Poll::Ready(next) = Pin::new(&mut *subscription).poll_next(&mut cx) {
            self.got.lock().push(next);
            if next.is_none() {
                return;
            }
        }
    }
}

impl Wake for Eager {
    fn wake(self: Arc<Self>) {
        if self.wakes.fetch_add(1, SeqCst) < ENOUGH {
            self.run();
        }
    }
}

fn eager(registry: &Registry<u64>) -> Vec<Arc<Eager>> {
    let tasks = (0..MANY).map(|_| {
        Arc::new(Eager {
            subscription: Mutex::new(registry.subscribe("a").unwrap()),
            wakes: AtomicUsize::new(0),
            got: Mutex::default(),
        })
    });
    let tasks: Vec<_> = tasks.collect();
    tasks.iter().for_each(Eager::run);
    tasks
}

#[test]
fn r15_a_push_wakes_each_receiver_once() {
    let registry = one_shard();
    let tasks = eager(&registry);
    for value in 1..=3 {
        assert_eq!(
            registry.publish("a", value),
            afterwrite::Published::Reached(MANY)
        );
        for task in &tasks {
            assert_eq!(task.got.lock().last(), Some(&Some(changed(value))));
            assert_eq!(task.wakes.load(SeqCst), value as usize);
        }
    }
}

#[test]
fn r15_a_submit_wakes_each_receiver_once() {
    let registry = one_shard();
    let tasks = eager(&registry);
    queued(registry.submit("a", |_| Some(1)));
    for task in &tasks {
        until("it is told", || task.got.lock().len() == 1);
    }
    // The shard is done with that push when it answers the next.
    let mut other = registry.subscribe("b").unwrap();
    queued(registry.submit("b", |_| Some(1)));
    assert_eq!(next(&mut other), changed(1));
    for task in &tasks {
        assert_eq!(task.wakes.load(SeqCst), 1);
    }
}

#[test]
fn r18_the_end_reaches_receivers_that_look_at_once() {
    let registry = one_shard();
    let tasks = eager(&registry);
    registry.close_timeout(SOON).unwrap();
    for task in &tasks {
        assert_eq!(*task.got.lock(), [None]);
        let wakes = task.wakes.load(SeqCst);
        assert!(wakes <= 2, "{wakes} wakes for one end");
    }
}
