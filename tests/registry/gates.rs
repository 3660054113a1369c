//! R7, R8, R9, R22: producers, their budget, and what goes wrong in them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use afterwrite::{Attempt, Notice, Registry, Retry, Watermark};

use crate::support::*;

fn with(retry: Retry) -> Registry<u32> {
    Registry::builder().workers(1).retry(retry).build().unwrap()
}

#[test]
fn r7_a_producer_is_asked_until_the_view_shows_the_change() {
    let registry: Registry<u32> = one_shard();
    let mut subscription = registry.subscribe("a").unwrap();
    queued(registry.submit("a", |attempt| {
        (attempt.number() == 4).then(|| attempt.number())
    }));
    assert_eq!(next(&mut subscription), changed(4));
    queued(registry.submit_async("a", |attempt| async move {
        tokio::task::yield_now().await;
        (attempt.number() == 4).then(|| attempt.number())
    }));
    assert_eq!(next(&mut subscription), changed(4));
}

#[test]
fn r7_it_is_asked_now_not_when_it_was_submitted() {
    let registry: Registry<u32> = one_shard();
    let mut subscription = registry.subscribe("a").unwrap();
    let view = Arc::new(AtomicU32::new(0));
    let blocked = block_shard(&registry, "a", 0);
    let read = view.clone();
    queued(registry.submit("a", move |_| Some(read.load(SeqCst))));
    view.store(7, SeqCst);
    blocked.open();
    assert_eq!(next(&mut subscription), changed(0));
    assert_eq!(next(&mut subscription), changed(7));
}

#[test]
fn r7_asynchronous_futures_need_not_be_send() {
    let registry: Registry<u32> = one_shard();
    let mut subscription = registry.subscribe("a").unwrap();
    queued(registry.submit_async("a", |_| {
        let here = Rc::new(Cell::new(1));
        async move {
            let before = std::thread::current().id();
            for _ in 0..10 {
                tokio::task::yield_now().await;
                here.set(here.get() + 1);
            }
            assert_eq!(std::thread::current().id(), before);
            Some(here.get())
        }
    }));
    assert_eq!(next(&mut subscription), changed(11));
}

#[test]
fn r7_an_attempt_knows_its_number_deadline_and_cancellation() {
    let budget = Duration::from_millis(300);
    let registry = with(Retry::backoff(budget));
    let mut subscription = registry.subscribe("a").unwrap();
    let (tell, told) = mpsc::channel();
    let asked = tell.clone();
    let began = Instant::now();
    queued(registry.submit("a", move |attempt: &Attempt| {
        asked
            .send((attempt.number(), attempt.deadline(), attempt.is_cancelled()))
            .unwrap();
        None
    }));
    assert_eq!(next(&mut subscription), unseen(1));
    let seen: Vec<_> = told.try_iter().collect();
    assert!(seen.len() > 1);
    for (index, &(number, deadline, cancelled)) in seen.iter().enumerate() {
        assert_eq!(number as usize, index + 1);
        assert!(!cancelled);
        // All count from the first read.
        assert!(deadline.max(seen[0].1) - deadline.min(seen[0].1) < Duration::from_millis(1));
        assert!(deadline >= began + budget);
    }
    // A read that is under way when the registry closes can see that nobody waits for it.
    let (entered, inside) = mpsc::channel();
    queued(registry.submit("a", move |attempt: &Attempt| {
        entered.send(()).unwrap();
        while !attempt.is_cancelled() {
            std::thread::yield_now();
        }
        None
    }));
    inside.recv_timeout(SOON).unwrap();
    registry.close();
    assert_eq!(rest(subscription), [unseen(1)]);
}

/// 25 retries of 200 ms, scaled down.
#[test]
fn r8_fixed_makes_one_read_more_than_retries_within_the_budget() {
    let wait = Duration::from_millis(4);
    for asynchronous in [false, true] {
        let registry = with(Retry::fixed(25, wait));
        let mut subscription = registry.subscribe("a").unwrap();
        let times = Arc::new(Mutex::new(Vec::new()));
        let read = times.clone();
        if asynchronous {
            queued(registry.submit_async("a", move |_| {
                read.lock().unwrap().push(Instant::now());
                async { None }
            }));
        } else {
            queued(registry.submit("a", move |_| {
                read.lock().unwrap().push(Instant::now());
                None
            }));
        }
        assert_eq!(next(&mut subscription), unseen(1));
        let ended = Instant::now();
        let times = times.lock().unwrap();
        assert!(times.len() <= 26, "{}", times.len());
        // A machine that stalls may skip reads, never the budget.
        assert!(ended - times[0] >= wait * 26);
        for (n, at) in times.iter().enumerate() {
            assert!(*at - times[0] + Duration::from_micros(100) >= wait * n as u32);
        }
    }
}

#[test]
fn r8_the_reads_are_counted_out() {
    // With time to spare between reads the count is exact.
    let registry = with(Retry::fixed(3, Duration::from_millis(500)));
    let mut subscription = registry.subscribe("a").unwrap();
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = reads.clone();
    queued(registry.submit("a", move |_| {
        counted.fetch_add(1, SeqCst);
        None
    }));
    assert_eq!(next(&mut subscription), unseen(1));
    assert_eq!(reads.load(SeqCst), 4);
}

#[test]
fn r8_the_default_backs_off() {
    assert_eq!(Retry::default().budget(), Duration::from_millis(5_200));
    let registry: Registry<u32> = one_shard();
    let mut subscription = registry.subscribe("a").unwrap();
    let times = Arc::new(Mutex::new(Vec::new()));
    let read = times.clone();
    queued(registry.submit("a", move |attempt| {
        // Asked for, the deadline is fixed, and with it what the registry counts from.
        let first = attempt.deadline() - Retry::default().budget();
        let mut times = read.lock().unwrap();
        times.push((first, Instant::now()));
        (first.elapsed() > Duration::from_millis(100)).then_some(1)
    }));
    assert_eq!(next(&mut subscription), changed(1));
    let times = times.lock().unwrap();
    let (first, _) = times[0];
    assert!(times.iter().all(|&(told, _)| told == first));
    let times: Vec<Instant> = times.iter().map(|&(_, at)| at).collect();
    for pair in times.windows(2) {
        let quarter = (pair[0] - first) / 4;
        let least = quarter.clamp(Duration::from_millis(1), Duration::from_millis(200));
        assert!(pair[1] - pair[0] >= least);
    }
    assert!(times.len() < 40);
}

#[test]
fn r8_the_budget_begins_with_the_first_read() {
    let registry = with(Retry::backoff(Duration::from_millis(50)));
    let mut subscription = registry.subscribe("a").unwrap();
    let blocked = block_shard(&registry, "a", 0);
    let view = Arc::new(AtomicBool::new(false));
    let read = view.clone();
    let first = Arc::new(Mutex::new(None));
    let noted = first.clone();
    queued(registry.submit("a", move |_| {
        noted.lock().unwrap().get_or_insert_with(Instant::now);
        read.load(SeqCst).then_some(1)
    }));
    // Longer in the queue than the budget.
    assert!(
        subscription
            .recv_timeout(Duration::from_millis(80))
            .is_err()
    );
    blocked.open();
    assert_eq!(next(&mut subscription), changed(0));
    assert_eq!(next(&mut subscription), unseen(1));
    let first = first.lock().unwrap().expect("it was read");
    assert!(first.elapsed() >= Duration::from_millis(50));
}

struct CountsDrop(Arc<AtomicUsize>);

impl Drop for CountsDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn r8_an_asynchronous_read_in_flight_is_dropped_at_the_deadline() {
    let registry = with(Retry::backoff(Duration::from_millis(20)));
    let mut subscription = registry.subscribe("a").unwrap();
    let dropped = Arc::new(AtomicUsize::new(0));
    let count = dropped.clone();
    queued(registry.submit_async("a", move |_| {
        let count = CountsDrop(count.clone());
        async move {
            std::future::pending::<()>().await;
            drop(count);
            Some(1)
        }
    }));
    assert_eq!(next(&mut subscription), unseen(1));
    assert_eq!(dropped.load(SeqCst), 1);
    // A synchronous one may overrun, and its answer counts.
    queued(registry.submit("a", |attempt| {
        while Instant::now() < attempt.deadline() {
            std::thread::yield_now();
        }
        Some(2)
    }));
    assert_eq!(next(&mut subscription), changed(2));
}

/// A future that leaves its waker and answers at once; a wake by that waker afterwards is none of
/// the gate's business.
#[test]
fn r8_late_wakes_ask_no_more_often() {
    let registry = with(Retry::fixed(2, Duration::from_millis(500)));
    let mut subscription = registry.subscribe("a").unwrap();
    let reads = Arc::new(AtomicUsize::new(0));
    let (left, wakers) = mpsc::channel::<Waker>();
    let counted = reads.clone();
    queued(registry.submit_async("a", move |_| {
        counted.fetch_add(1, SeqCst);
        let left = left.clone();
        std::future::poll_fn(move |cx| {
            left.send(cx.waker().clone()).unwrap();
            Poll::Ready(None)
        })
    }));
    let waker = wakers.recv_timeout(SOON).unwrap();
    while reads.load(SeqCst) < 3 {
        waker.wake_by_ref();
        std::thread::yield_now();
        if let Ok(notice) = subscription.try_recv() {
            assert_eq!(notice, unseen(1));
            return;
        }
    }
    for _ in 0..100 {
        waker.wake_by_ref();
    }
    assert_eq!(next(&mut subscription), unseen(1));
    assert_eq!(reads.load(SeqCst), 3);
}

#[test]
fn r7_an_asynchronous_read_is_polled_only_when_it_is_woken() {
    let registry: Registry<u32> = one_shard();
    let mut subscription = registry.subscribe("a").unwrap();
    let (left, wakers) = mpsc::channel::<Waker>();
    let polls = Arc::new(AtomicUsize::new(0));
    let open = Arc::new(AtomicBool::new(false));
    let (counted, opened) = (polls.clone(), open.clone());
    queued(registry.submit_async("a", move |_| {
        let (left, counted, opened) = (left.clone(), counted.clone(), opened.clone());
        std::future::poll_fn(move |cx| {
            counted.fetch_add(1, SeqCst);
            if opened.load(SeqCst) {
                return Poll::Ready(Some(1));
            }
            left.send(cx.waker().clone()).unwrap();
            Poll::Pending
        })
    }));
    let waker = wakers.recv_timeout(SOON).unwrap();
    assert!(subscription.recv_timeout(BRIEF).is_err());
    assert_eq!(polls.load(SeqCst), 1);
    waker.wake_by_ref();
    let waker = wakers.recv_timeout(SOON).unwrap();
    assert_eq!(polls.load(SeqCst), 2);
    open.store(true, SeqCst);
    waker.wake();
    assert_eq!(next(&mut subscription), changed(1));
    assert_eq!(registry.stats().shards[0].reads, 1, "one read, three polls");
}

#[cfg(feature = "tokio")]
#[test]
fn r7_tokio_io_works_inside_a_producer() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    // The read view: a server that shows the change at its third request.
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        for request in 1..=3u8 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0];
            stream.read_exact(&mut asked).await.unwrap();
            stream.write_all(&[asked[0] * request]).await.unwrap();
        }
    });
    let registry: Registry<u32> = Registry::builder()
        .workers(1)
        .runtime(runtime.handle().clone())
        .build()
        .unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    queued(registry.submit_async("a", move |_| async move {
        let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
        stream.write_all(&[7]).await.ok()?;
        let mut answer = [0];
        stream.read_exact(&mut answer).await.ok()?;
        (answer[0] == 21).then_some(21)
    }));
    assert_eq!(next(&mut subscription), changed(21));
    // Timers, too.
    queued(registry.submit_async("a", |_| async {
        tokio::time::timeout(Duration::from_millis(5), std::future::pending::<()>())
            .await
            .is_err()
            .then_some(1)
    }));
    assert_eq!(next(&mut subscription), changed(1));
    registry.close();
}

#[test]
fn r22_without_a_runtime_tokio_io_panics_and_is_contained() {
    quietly();
    let registry: Registry<u32> = one_shard();
    let mut subscription = registry.subscribe("a").unwrap();
    queued(registry.submit_async("a", |_| async {
        panic!("on purpose, as tokio's does without a runtime");
    }));
    assert_eq!(next(&mut subscription), unseen(1));
    queued(registry.submit("a", |_| Some(1)));
    assert_eq!(next(&mut subscription), changed(1));
}

struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("on purpose");
        }
    }
}

#[test]
fn r22_a_producer_may_panic_anywhere() {
    quietly();
    let notes = Notes::default();
    let registry: Registry<u32> = Registry::builder()
        .workers(1)
        .observer(notes.clone())
        .retry(Retry::fixed(1, Duration::from_millis(2)))
        .build()
        .unwrap();
    let mut subscription = registry.subscribe("a").unwrap();
    let mut mate = registry.subscribe("b").unwrap();
    let mut panicked = 0;
    let mut check = |subscription: &mut afterwrite::Subscription<u32>, expected, panics| {
        assert_eq!(next(subscription), expected);
        panicked += panics;
        until("it is counted", || {
            registry.stats().shards[0].panicked == panicked
        });
        // The shard lives on.
        queued(registry.submit("b", |_| Some(1)));
        assert_eq!(next(&mut mate), changed(1));
    };
    // On the first read, on a later one, with a payload that panics when it is dropped.
    queued(registry.submit("a", |_| panic!("on purpose")));
    check(&mut subscription, unseen(1), 1);
    queued(registry.submit("a", |attempt| {
        assert!(attempt.number() < 2, "on purpose");
        None
    }));
    check(&mut subscription, unseen(1), 1);
    queued(registry.submit("a", |_| std::panic::panic_any(PanicsInDrop)));
    check(&mut subscription, unseen(1), 1);
    // An asynchronous one: when it makes its future, in a poll, in a later poll.
    queued(
        registry.submit_async("a", |_| -> std::future::Ready<Option<u32>> {
            panic!("on purpose")
        }),
    );
    check(&mut subscription, unseen(1), 1);
    queued(registry.submit_async("a", |_| async { panic!("on purpose") }));
    check(&mut subscription, unseen(1), 1);
    queued(registry.submit_async("a", |_| async {
        tokio::task::yield_now().await;
        panic!("on purpose")
    }));
    check(&mut subscription, unseen(1), 1);
    // When it is dropped: after its answer, at expiry, in a future under way.
    let kept = PanicsInDrop;
    queued(registry.submit("a", move |_| {
        let _kept = &kept;
        Some(7)
    }));
    check(&mut subscription, changed(7), 0);
    let kept = PanicsInDrop;
    queued(registry.submit("a", move |_| {
        let _kept = &kept;
        None
    }));
    check(&mut subscription, unseen(1), 0);
    queued(registry.submit_async("a", |_| {
        let kept = PanicsInDrop;
        async move {
            std::future::pending::<()>().await;
            drop(kept);
            None
        }
    }));
    check(&mut subscription, unseen(1), 0);
    let told = |e: &Event| matches!(e, Event::Skipped(_, afterwrite::SkipReason::Panicked));
    assert_eq!(notes.count(told), 6);
    // And while the registry closes.
    let kept = PanicsInDrop;
    queued(registry.submit("a", move |_| {
        let _kept = &kept;
        None
    }));
    registry.close();
    assert_eq!(rest(subscription), [unseen(1)]);
}

#[derive(Debug)]
struct Explosive(Arc<AtomicUsize>);

impl Clone for Explosive {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Drop for Explosive {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
        if !std::thread::panicking() {
            panic!("on purpose");
        }
    }
}

/// A payload whose drop panics costs no shard and no subscriber its life, wherever it is dropped.
#[test]
fn r22_a_payload_may_panic_when_it_is_dropped() {
    quietly();
    for overflow in POLICIES {
        let registry: Registry<Explosive> = Registry::builder()
            .workers(1)
            .overflow(overflow)
            .buffer_capacity(1)
            .build()
            .unwrap();
        let dropped = Arc::new(AtomicUsize::new(0));
        let explosive = || Explosive(dropped.clone());
        let mut subscription = registry.subscribe("a").unwrap();
        let _key = registry.key("a").unwrap();
        // Nobody is left when it is pushed.
        let blocked = {
            let (barrier, stop) = barrier();
            let mut payload = Some(explosive());
            queued(registry.submit("a", move |_| {
                stop.stop();
                payload.take()
            }));
            barrier.entered();
            barrier
        };
        subscription.close();
        blocked.open();
        until("it is dropped", || dropped.load(SeqCst) == 1);
        // A full buffer, an eviction, a close.
        let mut subscription = registry.subscribe("a").unwrap();
        let mut others = [(); 2].map(|()| registry.subscribe("a").unwrap());
        for _ in 0..3 {
            let payload = Mutex::new(Some(explosive()));
            queued(registry.submit("a", move |_| payload.lock().unwrap().take()));
        }
        until("all are pushed", || registry.stats().shards[0].pushes == 4);
        subscription.close();
        others[0].closer().close();
        let [_, kept] = &mut others;
        loop {
            match kept.try_recv() {
                Ok(Notice::Changed(payload)) => {
                    let dropping = std::panic::AssertUnwindSafe(|| drop(payload));
                    assert!(std::panic::catch_unwind(dropping).is_err());
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        drop(others);
        assert_eq!(registry.stats().subscribers, 0, "{overflow:?}");
        registry.close();
    }
}

#[test]
fn r22_wakers_may_panic() {
    quietly();
    let registry: Registry<u32> = one_shard();
    let before = registry.stats().panicked_wakers;
    let mut one = registry.subscribe("a").unwrap();
    let mut two = registry.subscribe("a").unwrap();
    let panicking = Calls::waker(|| panic!("on purpose"));
    let (count, counting) = counting();
    use std::pin::Pin;
    use std::task::Context;
    let mut first = one.recv();
    assert!(
        Pin::new(&mut first)
            .poll(&mut Context::from_waker(&panicking))
            .is_pending()
    );
    let mut second = two.recv();
    assert!(
        Pin::new(&mut second)
            .poll(&mut Context::from_waker(&counting))
            .is_pending()
    );
    queued(registry.submit("a", |_| Some(1)));
    until("the other is woken", || count.load(SeqCst) == 1);
    until("it is counted", || {
        registry.stats().panicked_wakers > before
    });
    drop((first, second));
    assert_eq!(next(&mut one), changed(1));
    // On a publisher's own thread, and in a loss.
    let mut first = one.recv();
    assert!(
        Pin::new(&mut first)
            .poll(&mut Context::from_waker(&panicking))
            .is_pending()
    );
    assert_eq!(registry.publish("a", 2), afterwrite::Published::Reached(2));
    drop(first);
    assert_eq!(next(&mut one), changed(2));
}

#[test]
fn r11_an_asynchronous_read_that_hangs_delays_no_other_key() {
    let registry: Registry<u32> = one_shard();
    let hanging = registry.subscribe("hangs").unwrap();
    let mut fine = registry.subscribe("fine").unwrap();
    let alive = Rc::new(RefCell::new(()));
    let _here = alive;
    for _ in 0..4 {
        queued(registry.submit_async("hangs", |_| std::future::pending::<Option<u32>>()));
    }
    let view = Watermark::new(0);
    queued(registry.submit_at("hangs", view.reached(1), 1));
    until("all wait", || waiting(&registry) == 5);
    for value in 0..100 {
        queued(registry.submit("fine", move |_| Some(value)));
        assert_eq!(next(&mut fine), changed(value));
    }
    assert_eq!(waiting(&registry), 5);
    drop(hanging);
}
