use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use super::*;

/// Counts its calls.
#[derive(Default)]
struct Count(AtomicUsize);

impl Count {
    fn pair() -> (Arc<Self>, Waker) {
        let count = Arc::new(Self::default());
        (Arc::clone(&count), Waker::from(count))
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs a closure when called.
struct Call<F>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for Call<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

fn calling(f: impl Fn() + Send + Sync + 'static) -> Waker {
    Waker::from(Arc::new(Call(f)))
}

#[test]
fn a_registration_is_called_once_when_its_position_is_reached() {
    let watermark = Watermark::new(0);
    let (count, waker) = Count::pair();
    let registration = watermark.reached(5).register(&waker);
    assert!(registration.is_some());
    assert_eq!(watermark.waiting(), 1);

    watermark.advance(4);
    assert_eq!(count.get(), 0);
    watermark.advance(5);
    watermark.advance(6);
    assert_eq!(count.get(), 1);
    assert_eq!(watermark.waiting(), 0);
}

/// Advances to `v` on another thread while this one holds the lock.
fn advance_without_the_lock(watermark: &Watermark, v: u64) {
    let (done, finished) = std::sync::mpsc::channel();
    let view = watermark.clone();
    let lock = watermark.shared.hold_lock();
    let advancer = std::thread::spawn(move || {
        assert!(view.advance(v));
        assert!(!view.advance(v - 1));
        assert!(!view.reached(v + 1).is_ready());
        assert!(view.reached(v).register(Waker::noop()).is_none());
        done.send(()).unwrap();
    });
    let finished = finished.recv_timeout(Duration::from_secs(20));
    drop(lock);
    assert_eq!(finished, Ok(()));
    advancer.join().unwrap();
}

#[test]
fn an_advance_that_makes_nobody_due_takes_no_lock() {
    let watermark = Watermark::new(0);
    let (_, waker) = Count::pair();
    advance_without_the_lock(&watermark, 1);
    let stays = watermark.reached(9).register(&waker);
    advance_without_the_lock(&watermark, 2);
    let woken = watermark.reached(3).register(&waker);
    watermark.advance(3);
    advance_without_the_lock(&watermark, 4);
    drop(watermark.reached(5).register(&waker));
    advance_without_the_lock(&watermark, 8);
    drop((stays, woken));
}

#[test]
fn a_reached_position_leaves_nothing_behind() {
    let watermark = Watermark::new(5);
    let (count, waker) = Count::pair();
    for position in [0, 5] {
        assert!(watermark.reached(position).register(&waker).is_none());
    }
    assert_eq!((watermark.waiting(), count.get()), (0, 0));
    drop(waker);
    assert_eq!(Arc::strong_count(&count), 1);
}

#[test]
fn dropping_a_registration_takes_the_waker_back() {
    let watermark = Watermark::new(0);
    let (count, waker) = Count::pair();
    let registration = watermark.reached(1).register(&waker);
    drop(waker);
    drop(registration);
    assert_eq!(Arc::strong_count(&count), 1);
    assert_eq!(watermark.waiting(), 0);
    watermark.advance(1);
    assert_eq!(count.get(), 0);
}

#[test]
fn dropping_the_lowest_keeps_the_others_awaited() {
    let watermark = Watermark::new(0);
    let (count, waker) = Count::pair();
    let lowest = watermark.reached(1).register(&waker);
    let twin = watermark.reached(1).register(&waker);
    let higher = watermark.reached(3).register(&waker);
    drop(lowest);
    watermark.advance(1);
    assert_eq!(count.get(), 1, "an equal position is another entry");
    drop(twin);
    watermark.advance(3);
    assert_eq!(count.get(), 2);
    drop(higher);
}

#[test]
fn rearming_replaces_the_waker_until_the_position_is_reached() {
    let watermark = Watermark::new(0);
    let (first, first_waker) = Count::pair();
    let (second, second_waker) = Count::pair();
    let mut registration = watermark.reached(1).register(&first_waker).unwrap();
    assert!(registration.rearm(&first_waker), "the same waker again");
    assert!(registration.rearm(&second_waker));
    drop(first_waker);
    assert_eq!(Arc::strong_count(&first), 1, "the first is given back");
    assert_eq!(watermark.waiting(), 1);

    watermark.advance(1);
    assert_eq!((first.get(), second.get()), (0, 1));
    assert!(!registration.rearm(&second_waker));
    drop((registration, second_waker));
    assert_eq!(Arc::strong_count(&second), 1);
}

#[test]
fn more_than_a_batch_is_woken_in_order_of_position_then_registration() {
    let watermark = Watermark::new(0);
    let woken = Arc::new(Mutex::new(Vec::new()));
    let registrations: Vec<_> = (0..500_u64)
        .map(|n| {
            let woken = Arc::clone(&woken);
            // Positions 250 down to 1, each twice.
            let position = 250 - n / 2;
            let waker = calling(move || woken.lock().unwrap().push((position, n)));
            watermark.reached(position).register(&waker)
        })
        .collect();
    watermark.advance(200);
    let mut expected: Vec<_> = (0..500).map(|n| (250 - n / 2, n)).collect();
    expected.sort_unstable();
    expected.truncate(400);
    assert_eq!(*woken.lock().unwrap(), expected);
    assert_eq!(watermark.waiting(), 100);
    drop(registrations);
    assert_eq!(watermark.waiting(), 0);
}

#[test]
fn the_highest_position_can_be_awaited() {
    let watermark = Watermark::new(0);
    let (count, waker) = Count::pair();
    let registration = watermark.reached(u64::MAX).register(&waker);
    assert!(registration.is_some());
    watermark.advance(u64::MAX - 1);
    assert_eq!(count.get(), 0);
    watermark.advance(u64::MAX);
    assert_eq!(count.get(), 1);

    let empty = Watermark::new(0);
    assert!(empty.advance(u64::MAX));
    assert!(!empty.advance(u64::MAX));
}

#[test]
fn a_waker_may_use_the_watermark_that_calls_it() {
    let watermark = Watermark::new(0);
    let (count, later) = Count::pair();
    let held = Arc::new(Mutex::new(Vec::new()));
    held.lock()
        .unwrap()
        .extend(watermark.reached(2).register(&later));
    held.lock()
        .unwrap()
        .extend(watermark.reached(9).register(&later));

    let (inner, keep) = (watermark.clone(), Arc::clone(&held));
    let waker = calling(move || {
        inner.advance(2);
        let mut held = keep.lock().unwrap();
        held.truncate(1); // takes the waker for 9 back
        held.extend(inner.reached(3).register(&later));
        assert_eq!(inner.waiting(), 1);
    });
    let registration = watermark.reached(1).register(&waker);
    watermark.advance(1);
    assert_eq!(watermark.get(), 2);
    assert_eq!(count.get(), 1);
    watermark.advance(10);
    assert_eq!(count.get(), 2);
    drop(registration);
    held.lock().unwrap().clear();
}

#[test]
fn a_panicking_waker_stops_neither_the_others_nor_the_advancer() {
    let watermark = Watermark::new(0);
    let (count, waker) = Count::pair();
    let panicking = calling(|| panic!("a waker's own trouble"));
    let registrations: Vec<_> = (0..200)
        .map(|n| {
            let waker = if n % 2 == 0 { &panicking } else { &waker };
            watermark.reached(1).register(waker)
        })
        .collect();
    assert!(watermark.advance(1));
    assert_eq!((count.get(), watermark.waker_panics()), (100, 100));
    assert_eq!(watermark.waiting(), 0);
    drop(registrations);
}

/// Throws something that throws again when it is dropped, as often as it is asked to.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        std::panic::panic_any(Bomb);
    }
}

#[test]
fn a_panic_whose_payload_panics_is_contained() {
    let watermark = Watermark::new(0);
    let waker = calling(|| std::panic::panic_any(Bomb));
    let registration = watermark.reached(1).register(&waker);
    assert!(watermark.advance(1));
    assert_eq!(watermark.waker_panics(), 1);
    drop(registration);
}

#[test]
fn a_waker_that_panics_when_dropped_is_contained() {
    struct Fuse(bool);
    impl Wake for Fuse {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Fuse {
        fn drop(&mut self) {
            assert!(!self.0, "dropped");
        }
    }
    let watermark = Watermark::new(0);
    let waker = Waker::from(Arc::new(Fuse(true)));
    let registration = watermark.reached(1).register(&waker);
    drop(waker);
    drop(registration);
    assert_eq!(watermark.waker_panics(), 1);
    assert_eq!(watermark.waiting(), 0);
}

#[test]
fn no_user_code_runs_under_the_lock() {
    /// Takes the lock when it is called and when it is dropped.
    #[derive(Clone)]
    struct Nosy(Watermark);

    impl Wake for Nosy {
        fn wake(self: Arc<Self>) {
            let _ = self.0.waiting();
        }
    }
    impl Drop for Nosy {
        fn drop(&mut self) {
            let _ = self.0.waiting();
        }
    }

    let watermark = Watermark::new(0);
    let nosy = || Waker::from(Arc::new(Nosy(watermark.clone())));
    let mut registration = watermark.reached(1).register(&nosy()).unwrap();
    assert!(registration.rearm(&nosy()));
    watermark.advance(1);
    assert!(!registration.rearm(&nosy()));
    drop(registration);
    drop(watermark.reached(2).register(&nosy()));
    assert!(!watermark.shared.somebody_waits_or_wake(&nosy()));
    assert!(!watermark.shared.somebody_waits_or_wake(&nosy()));
    let registration = watermark.reached(2).register(&nosy());
    assert!(watermark.shared.somebody_waits_or_wake(&nosy()));
    watermark.shared.end_following();
    drop(registration);
    assert_eq!(watermark.waker_panics(), 0);
}

#[test]
fn a_poller_is_woken_by_the_first_who_waits_and_only_while_it_sleeps() {
    let watermark = Watermark::new(0);
    let (count, waker) = Count::pair();
    assert!(!watermark.shared.somebody_waits_or_wake(&waker));
    assert!(watermark.reached(0).register(Waker::noop()).is_none());
    assert_eq!(count.get(), 0, "a reached position is not waited for");

    let first = watermark.reached(1).register(Waker::noop());
    assert_eq!(count.get(), 1);
    let second = watermark.reached(1).register(Waker::noop());
    assert_eq!(count.get(), 1);
    assert!(watermark.shared.somebody_waits_or_wake(&waker));
    drop((first, second));
    assert!(!watermark.shared.somebody_waits_or_wake(&waker));
}

#[test]
fn a_wait_moves_to_the_task_that_polls_it_last() {
    let watermark = Watermark::new(0);
    let (first, first_waker) = Count::pair();
    let (second, second_waker) = Count::pair();
    let mut wait = watermark.wait_for(1);
    for waker in [&first_waker, &second_waker] {
        let poll = std::pin::Pin::new(&mut wait).poll(&mut Context::from_waker(waker));
        assert_eq!(poll, Poll::Pending);
    }
    assert_eq!(watermark.waiting(), 1);
    watermark.advance(1);
    assert_eq!((first.get(), second.get()), (0, 1));
    let poll = std::pin::Pin::new(&mut wait).poll(&mut Context::from_waker(&second_waker));
    assert_eq!(poll, Poll::Ready(()));
}

#[test]
fn an_unpolled_wait_costs_nothing() {
    let watermark = Watermark::new(0);
    let wait = watermark.wait_for(1);
    assert_eq!(watermark.waiting(), 0);
    drop(wait);
}
