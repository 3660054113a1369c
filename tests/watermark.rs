//! The watermark as its users see it; each test bears the line of the contract that it checks.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use afterwrite::{FollowError, Follower, Reached, WaitFor, WaitTimeout, Watermark};

/// Far longer than anything here takes: running into it is a failure.
const LONG: Duration = Duration::from_secs(20);
/// Long enough for a thread that should not act to give itself away.
const A_WHILE: Duration = Duration::from_millis(60);
const TICK: Duration = Duration::from_millis(1);

/// A waker that runs a closure.
struct Call<F>(F);

impl<F: Fn() + Send + Sync> Wake for Call<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

fn calling(f: impl Fn() + Send + Sync + 'static) -> Waker {
    Waker::from(Arc::new(Call(f)))
}

fn poll(wait: &mut WaitFor, waker: &Waker) -> Poll<()> {
    Pin::new(wait).poll(&mut Context::from_waker(waker))
}

#[test]
fn types_are_send_sync_and_unpin() {
    fn all<T: Send + Sync + Unpin + 'static>() {}
    all::<Watermark>();
    all::<Reached>();
    all::<WaitFor>();
    all::<WaitTimeout>();
    all::<Follower>();
    all::<FollowError>();
}

#[test]
fn w1_the_position_only_grows() {
    let watermark = Watermark::new(10);
    assert_eq!(watermark.get(), 10);
    assert!(!watermark.advance(9));
    assert!(!watermark.advance(10));
    assert!(watermark.advance(11));
    assert!(!watermark.advance(0));
    assert_eq!(watermark.get(), 11);
    assert_eq!(Watermark::default().get(), 0);
    assert_eq!(format!("{watermark:?}"), "Watermark(11)");
}

#[test]
fn w1_each_step_is_one_callers() {
    const STEPS: u64 = 20_000;
    let watermark = Watermark::new(0);
    let start = Barrier::new(3);
    let moved: u64 = thread::scope(|scope| {
        let advancers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    let mut last = 0;
                    let mut moved = 0;
                    for step in 1..=STEPS {
                        moved += u64::from(watermark.advance(step));
                        let seen = watermark.get();
                        assert!(seen >= step && seen >= last);
                        last = seen;
                    }
                    moved
                })
            })
            .collect();
        advancers.into_iter().map(|a| a.join().unwrap()).sum()
    });
    assert!((1..=STEPS).contains(&moved), "{moved}");
    assert_eq!(watermark.get(), STEPS);
}

#[test]
fn w2_a_condition_holds_from_its_position_on() {
    let watermark = Watermark::new(0);
    let reached = watermark.reached(2);
    let twin = reached.clone();
    watermark.advance(1);
    assert!(!reached.is_ready());
    watermark.advance(2);
    assert!(reached.is_ready() && twin.is_ready());
    assert_eq!((twin.position(), twin.watermark().get()), (2, 2));
    assert!(watermark.reached(0).is_ready());
}

#[test]
fn w3_wait_for_ends_when_the_position_is_reached() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let watermark = Watermark::new(0);
    let waits: Vec<_> = (1..=1_000)
        .map(|position| {
            let watermark = watermark.clone();
            runtime.spawn(async move {
                watermark.wait_for(position).await;
                assert!(watermark.get() >= position);
            })
        })
        .collect();
    for position in 1..=1_000 {
        watermark.advance(position);
    }
    runtime.block_on(async {
        for wait in waits {
            tokio::time::timeout(LONG, wait).await.unwrap().unwrap();
        }
    });
    assert_eq!(watermark.waiting(), 0);
}

#[test]
fn w3_a_cancelled_wait_leaves_nothing_behind() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let watermark = Watermark::new(0);
    runtime.block_on(async {
        for position in 1..=50 {
            tokio::select! {
                biased;
                () = watermark.wait_for(position) => unreachable!("nobody advances"),
                () = tokio::task::yield_now() => {}
            }
        }
    });
    assert_eq!(watermark.waiting(), 0);
}

#[test]
fn w3_a_finished_wait_may_be_polled_again() {
    let watermark = Watermark::new(1);
    let mut wait = watermark.wait_for(1);
    assert_eq!(poll(&mut wait, Waker::noop()), Poll::Ready(()));
    assert_eq!(poll(&mut wait, Waker::noop()), Poll::Ready(()));
}

#[test]
fn w3_a_wait_outlives_the_handle_it_came_from() {
    let watermark = Watermark::new(0);
    let mut wait = watermark.wait_for(1);
    assert_eq!(poll(&mut wait, Waker::noop()), Poll::Pending);
    drop(watermark);
    assert_eq!(poll(&mut wait, Waker::noop()), Poll::Pending);
}

#[test]
fn w3_a_blocking_wait_ends_when_the_position_is_reached() {
    let watermark = Watermark::new(0);
    for limit in [LONG, Duration::MAX] {
        let position = watermark.get() + 2;
        let view = watermark.clone();
        let waiter = thread::spawn(move || view.wait_for_timeout(position, limit));
        while watermark.waiting() == 0 {
            thread::yield_now();
        }
        watermark.advance(position - 1);
        assert_eq!(watermark.waiting(), 1);
        watermark.advance(position);
        assert_eq!(waiter.join().unwrap(), Ok(()));
    }
}

#[test]
fn w3_a_blocking_wait_gives_up_in_time_and_says_where_the_view_stood() {
    let watermark = Watermark::new(3);
    let begun = Instant::now();
    let timeout = Duration::from_millis(20);
    let late = watermark.wait_for_timeout(5, timeout).unwrap_err();
    assert!(begun.elapsed() >= timeout);
    assert_eq!((late.wanted, late.reached), (5, 3));
    assert_eq!(
        late.to_string(),
        "position 5 was not reached in time: the watermark stands at 3"
    );
    assert_eq!(watermark.waiting(), 0);

    assert!(watermark.wait_for_timeout(4, Duration::ZERO).is_err());
    assert_eq!(watermark.wait_for_timeout(3, Duration::ZERO), Ok(()));
}

#[test]
fn w3_a_blocking_wait_uses_up_no_park_token_of_its_thread() {
    let watermark = Watermark::new(0);
    let view = watermark.clone();
    let waiter = thread::spawn(move || {
        thread::current().unpark();
        let late = view.wait_for_timeout(1, TICK);
        assert!(late.is_err());
        // Returns at once if the token is still there.
        let begun = Instant::now();
        thread::park_timeout(LONG);
        begun.elapsed()
    });
    assert!(waiter.join().unwrap() < LONG / 2);
}

#[test]
fn w3_no_wake_up_is_lost_under_load() {
    const ROUNDS: u64 = 3_000;
    let watermark = Watermark::new(0);
    let view = watermark.clone();
    // Two waiters, each waiting for the very position that its own last wait made the advancer
    // publish: registering and advancing meet at every step.
    let (ask, asked) = mpsc::sync_channel(2);
    let advancer = thread::spawn(move || {
        for position in asked {
            view.advance(position);
        }
    });
    let waiters: Vec<_> = (0..2)
        .map(|odd| {
            let (watermark, ask) = (watermark.clone(), ask.clone());
            thread::spawn(move || {
                for round in 0..ROUNDS {
                    let position = 2 * round + odd + 1;
                    ask.send(position).unwrap();
                    watermark.wait_for_timeout(position, LONG).unwrap();
                }
            })
        })
        .collect();
    drop(ask);
    for waiter in waiters {
        waiter.join().unwrap();
    }
    advancer.join().unwrap();
    assert_eq!((watermark.get(), watermark.waiting()), (2 * ROUNDS, 0));
}

#[test]
fn w2_waits_and_cancels_under_load_are_conserved() {
    const WAITS: u64 = 5_000;
    let watermark = Watermark::new(0);
    let done = AtomicBool::new(false);
    let calls = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    // One advances as long as two register and cancel; none of them waits for another.
    let register_and_cancel = &|seed: u64| {
        let mut kept = Vec::new();
        let mut given_up = Vec::new();
        for n in 0..WAITS {
            let count = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&count);
            let waker = calling(move || {
                counted.fetch_add(1, Ordering::Relaxed);
            });
            let mut wait = watermark.wait_for(watermark.get() + (n * 7 + seed) % 50);
            let pending = poll(&mut wait, &waker).is_pending();
            if n % 3 == 0 {
                given_up.push(count);
            } else {
                kept.push((wait, count, usize::from(pending)));
            }
        }
        (kept, given_up)
    };
    let (kept, given_up): (Vec<_>, Vec<_>) = thread::scope(|scope| {
        scope.spawn(|| {
            let mut position = 0;
            while !done.load(Ordering::Relaxed) {
                position += 1;
                watermark.advance(position);
            }
        });
        let waiters = [0, 1].map(|seed| scope.spawn(move || register_and_cancel(seed)));
        let left = waiters.map(|waiter| waiter.join().unwrap());
        done.store(true, Ordering::Relaxed);
        left.into_iter().unzip()
    });

    watermark.advance(u64::MAX);
    for (_, count, pending) in kept.iter().flatten() {
        assert_eq!(calls(count), *pending, "called once if left pending");
    }
    for count in given_up.iter().flatten() {
        assert!(calls(count) <= 1);
    }
    assert_eq!((watermark.waiting(), watermark.waker_panics()), (0, 0));
}

/// A view whose position is set by the test, and that says when it is read.
struct View {
    position: Arc<AtomicU64>,
    reads: mpsc::Receiver<Instant>,
}

impl View {
    fn followed(watermark: &Watermark, interval: Duration) -> (Self, Follower) {
        let position = Arc::new(AtomicU64::new(0));
        let (tell, reads) = mpsc::channel();
        let shown = Arc::clone(&position);
        let read = move || {
            let _ = tell.send(Instant::now());
            Some(shown.load(Ordering::Acquire))
        };
        let follower = watermark.follow(read, interval).unwrap();
        (Self { position, reads }, follower)
    }

    fn assert_not_read(&self) {
        let read = self.reads.recv_timeout(A_WHILE);
        assert_eq!(read, Err(RecvTimeoutError::Timeout));
    }
}

#[test]
fn w5_a_follower_reads_only_while_somebody_waits() {
    let watermark = Watermark::new(0);
    let (view, follower) = View::followed(&watermark, TICK);
    view.assert_not_read();
    assert_eq!(follower.reads(), 0);

    let mut wait = watermark.wait_for(1);
    let (tell, told) = mpsc::channel();
    let waker = calling(move || tell.send(()).unwrap());
    assert_eq!(poll(&mut wait, &waker), Poll::Pending);
    for _ in 0..3 {
        view.reads.recv_timeout(LONG).unwrap();
    }
    view.position.store(1, Ordering::Release);
    told.recv_timeout(LONG).unwrap();
    assert_eq!(poll(&mut wait, &waker), Poll::Ready(()));

    // All that it read until it went to sleep again, and then no more.
    while view.reads.recv_timeout(A_WHILE).is_ok() {}
    let reads = follower.reads();
    view.assert_not_read();
    assert_eq!(follower.reads(), reads);
    assert_eq!(follower.failed_reads(), 0);
}

#[test]
fn w5_a_follower_sleeps_again_when_those_who_waited_leave() {
    let watermark = Watermark::new(0);
    let (view, _follower) = View::followed(&watermark, TICK);
    let mut wait = watermark.wait_for(1);
    assert_eq!(poll(&mut wait, Waker::noop()), Poll::Pending);
    view.reads.recv_timeout(LONG).unwrap();
    drop(wait);
    while view.reads.recv_timeout(A_WHILE).is_ok() {}
    view.assert_not_read();
}

#[test]
fn w5_reads_keep_their_distance_however_often_somebody_waits() {
    let watermark = Watermark::new(0);
    let interval = Duration::from_millis(40);
    let (view, _follower) = View::followed(&watermark, interval);
    for position in 1..=4 {
        view.position.store(position, Ordering::Release);
        watermark.wait_for_timeout(position, LONG).unwrap();
    }
    let reads: Vec<_> = view.reads.try_iter().collect();
    assert!(reads.len() >= 4);
    for pair in reads.windows(2) {
        assert!(pair[1] - pair[0] >= interval, "{:?}", pair[1] - pair[0]);
    }
}

#[test]
fn w5_an_interval_beyond_the_clock_is_a_long_one() {
    let watermark = Watermark::new(0);
    let (view, _follower) = View::followed(&watermark, Duration::MAX);
    let mut wait = watermark.wait_for(1);
    assert_eq!(poll(&mut wait, Waker::noop()), Poll::Pending);
    view.reads.recv_timeout(LONG).unwrap();
    view.assert_not_read();
}

#[test]
fn w5_one_poller_serves_all_who_wait() {
    let watermark = Watermark::new(0);
    let (view, follower) = View::followed(&watermark, TICK);
    let waiters: Vec<_> = (0..8)
        .map(|_| {
            let watermark = watermark.clone();
            thread::spawn(move || watermark.wait_for_timeout(9, LONG))
        })
        .collect();
    while watermark.waiting() < 8 {
        thread::yield_now();
    }
    view.position.store(9, Ordering::Release);
    let before = follower.reads();
    for waiter in waiters {
        assert_eq!(waiter.join().unwrap(), Ok(()));
    }
    // At most one that was under way when the position was set, and the one that saw it.
    assert!(follower.reads() <= before + 2);
}

#[test]
fn w5_failed_reads_are_counted_and_tried_again() {
    let watermark = Watermark::new(0);
    let mut reads = 0;
    let read = move || {
        reads += 1;
        match reads {
            1 => None,
            2 => panic!("the view is gone"),
            3 => Some(1),
            _ => Some(2),
        }
    };
    let follower = watermark.follow(read, TICK).unwrap();
    watermark.wait_for_timeout(2, LONG).unwrap();
    assert_eq!((follower.reads(), follower.failed_reads()), (4, 2));
}

#[test]
fn w5_nonsense_is_refused_and_a_place_is_given_back() {
    let watermark = Watermark::new(0);
    let zero = watermark.follow(|| None, Duration::ZERO).unwrap_err();
    assert_eq!(zero, FollowError::ZeroInterval);

    let first = watermark.follow(|| Some(1), Duration::MAX).unwrap();
    let second = watermark.follow(|| Some(1), TICK).unwrap_err();
    assert_eq!(second, FollowError::AlreadyFollowed);
    drop(first);
    let third = watermark.follow(|| Some(1), TICK).unwrap();
    watermark.wait_for_timeout(1, LONG).unwrap();
    drop(third);
}

#[test]
fn w5_a_dropped_follower_has_ended_also_in_the_midst_of_its_rest() {
    let watermark = Watermark::new(0);
    let captured = Arc::new(());
    let kept = Arc::clone(&captured);
    let read = move || {
        let _ = &kept;
        None
    };
    let follower = watermark.follow(read, Duration::from_secs(3_600)).unwrap();
    let mut wait = watermark.wait_for(1);
    assert_eq!(poll(&mut wait, Waker::noop()), Poll::Pending);
    while follower.failed_reads() == 0 {
        thread::yield_now();
    }
    let begun = Instant::now();
    drop(follower);
    assert!(begun.elapsed() < LONG);
    assert_eq!(Arc::strong_count(&captured), 1, "its captures are gone");

    // Those who wait stay, for whoever advances next.
    assert_eq!(watermark.waiting(), 1);
    watermark.advance(1);
    assert_eq!(poll(&mut wait, Waker::noop()), Poll::Ready(()));
}

#[test]
fn w5_a_follower_may_be_dropped_on_its_own_thread() {
    let watermark = Watermark::new(0);
    let held: Arc<Mutex<Option<Follower>>> = Arc::default();
    let (tell, told) = mpsc::channel();
    let inner = Arc::clone(&held);
    let read = move || {
        drop(inner.lock().unwrap().take());
        let _ = tell.send(());
        Some(1)
    };
    *held.lock().unwrap() = Some(watermark.follow(read, TICK).unwrap());
    watermark.wait_for_timeout(1, LONG).unwrap();
    told.recv_timeout(LONG).unwrap();
    // The thread ends after that turn, and drops the sender with its captures.
    assert_eq!(told.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
}

#[test]
fn w5_a_waker_that_panics_does_not_end_the_follower() {
    let watermark = Watermark::new(0);
    let (view, _follower) = View::followed(&watermark, TICK);
    let mut wait = watermark.wait_for(1);
    assert_eq!(
        poll(&mut wait, &calling(|| panic!("a waker's own trouble"))),
        Poll::Pending
    );
    for position in 1..=2 {
        view.position.store(position, Ordering::Release);
        watermark.wait_for_timeout(position, LONG).unwrap();
    }
    assert_eq!(watermark.waker_panics(), 1);
}
