//! R14 and the hot paths: push, publish, miss and receive allocate nothing and free nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use afterwrite::{Notice, Overflow, Published, Registry, Submitted, SubscribeOptions};

struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends has no count any more.
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: forwards to the system's allocator, and counts in a thread-local without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: forwarded.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count();
        // SAFETY: forwarded.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: forwarded.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often `f` allocates or frees on this thread.
fn calls(f: impl FnOnce()) -> u64 {
    let before = CALLS.get();
    f();
    CALLS.get() - before
}

#[test]
fn r14_the_hot_paths_allocate_nothing() {
    let one = calls(|| drop(std::hint::black_box(Box::new(1))));
    assert_eq!(one, 2, "the counter counts");
    let registry: Registry<u64> = Registry::builder().workers(1).build().unwrap();
    for overflow in [
        Overflow::DropNewest,
        Overflow::DropOldest,
        Overflow::Conflate,
    ] {
        let options = SubscribeOptions::new()
            .overflow(overflow)
            .buffer_capacity(4);
        let mut all: Vec<_> = (0..100)
            .map(|_| registry.subscribe_with("a", options).unwrap())
            .collect();
        let mut one = registry.subscribe_with("b", options).unwrap();
        let key = registry.key("b").unwrap();
        // Whatever a first call sets up for its thread.
        assert_eq!(registry.publish("a", 0), Published::Reached(100));
        let publish = calls(|| {
            for value in 0..10 {
                // Room, and none; by the key and by its handle.
                let _ = registry.publish("a", value);
                let _ = registry.publish("b", value);
                let _ = key.publish(value);
            }
        });
        let receive = calls(|| {
            for subscription in &mut all {
                while subscription.try_recv().is_ok() {}
            }
            while one.try_recv().is_ok() {}
        });
        let miss = calls(|| {
            for _ in 0..10 {
                assert_eq!(registry.publish("nobody", 1), Published::Reached(0));
                assert_eq!(
                    registry.submit("nobody", |_| Some(1)),
                    Submitted::NoSubscribers
                );
                assert_eq!(registry.subscriber_count("nobody"), 0);
            }
        });
        let mut payload = 0;
        let pair = calls(|| {
            for value in 0..10 {
                assert_eq!(key.publish(value), Published::Reached(1));
                assert_eq!(one.recv_blocking(), Some(Notice::Changed(value)));
                payload = value;
            }
        });
        assert_eq!(payload, 9);
        assert_eq!(
            (publish, receive, miss, pair),
            (0, 0, 0, 0),
            "{overflow:?}: publish, receive, miss, both"
        );
    }
}

/// The push itself, on the shard's thread: between the producer's answer and the next job's read.
#[test]
fn r14_a_push_on_a_shard_allocates_nothing() {
    let registry: Registry<u64> = Registry::builder().workers(1).build().unwrap();
    let mut all: Vec<_> = (0..100).map(|_| registry.subscribe("a").unwrap()).collect();
    let (tell, told) = std::sync::mpsc::channel();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    assert_eq!(
        registry.submit("a", move |_| {
            let _ = gone.recv();
            None::<u64>.or(Some(0))
        }),
        Submitted::Queued
    );
    for value in 1..=10 {
        let tell = tell.clone();
        let submitted = registry.submit("a", move |_| {
            tell.send(CALLS.get()).unwrap();
            Some(value)
        });
        assert_eq!(submitted, Submitted::Queued);
    }
    go.send(()).unwrap();
    for value in 0..=10 {
        for subscription in &mut all {
            assert_eq!(subscription.recv_blocking(), Some(Notice::Changed(value)));
        }
    }
    let counts: Vec<u64> = told.try_iter().collect();
    // What lies between two reads beside the push: the producer's box and what it holds are freed,
    // and the channel of this test may add a block.
    let between: Vec<u64> = counts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let least = between.iter().min().unwrap();
    assert!(*least <= 1, "{between:?}");
}
