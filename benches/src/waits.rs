//! The workloads whose figure is a waiting time: from submit to received, from visible to received.
//!
//! Here threads wait for each other, so the wall's clock counts, and the figures are quantiles of single
//! waits. Contenders take turns in blocks; each is built for its block and gone after it, so that
//! no shard of one spins or wakes while another is timed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use afterwrite::{Notice, Pinning, Registry, Subscription, WaitStrategy, Watermark};
use crossbeam_utils::CachePadded;

use crate::histogram::Histogram;
use crate::input::Random;
use crate::rivals::{CrossbeamChannel, Reference};

/// Quantiles of one contender.
#[derive(Clone, Debug)]
pub struct Row {
    /// The workload.
    pub workload: &'static str,
    /// The contender.
    pub contender: &'static str,
    /// How many waits.
    pub waits: u64,
    /// Half of them took at most so many nanoseconds.
    pub p50: u64,
    /// 99 in 100 did.
    pub p99: u64,
}

/// One wait; its nanoseconds.
type Trial = Box<dyn FnMut() -> u64>;
type Contender = (&'static str, fn() -> Trial);

fn in_blocks(
    workload: &'static str,
    contenders: &[Contender],
    blocks: usize,
    waits: usize,
) -> Vec<Row> {
    let histograms: Vec<_> = contenders.iter().map(|_| Histogram::default()).collect();
    for block in 0..blocks {
        for turn in 0..contenders.len() {
            let index = (block + turn) % contenders.len();
            let mut trial = contenders[index].1();
            // What is allocated, resolved or learned on first use is no part of a wait.
            for _ in 0..waits / 10 {
                trial();
            }
            for _ in 0..waits {
                histograms[index].record(trial());
            }
        }
    }
    contenders
        .iter()
        .zip(&histograms)
        .map(|(contender, histogram)| row(workload, contender.0, histogram))
        .collect()
}

fn row(workload: &'static str, contender: &'static str, histogram: &Histogram) -> Row {
    Row {
        workload,
        contender,
        waits: histogram.len(),
        p50: histogram.quantile(0.5),
        p99: histogram.quantile(0.99),
    }
}

fn nanos(since: Instant) -> u64 {
    since.elapsed().as_nanos() as u64
}

fn one_worker(wait: WaitStrategy) -> Registry<u64> {
    Registry::builder()
        .workers(1)
        .wait_strategy(wait)
        .build()
        .expect("the settings are in range")
}

fn spin_for(subscription: &mut Subscription<u64>) -> u64 {
    loop {
        if let Ok(notice) = subscription.try_recv() {
            match notice {
                Notice::Changed(value) => return value,
                Notice::Missed { .. } => panic!("nothing was to be missed"),
            }
        }
        std::hint::spin_loop();
    }
}

/// Something that ends a thread when it is dropped: its channel's end goes first.
struct Joined(Option<JoinHandle<()>>);

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn ours_spinning() -> Trial {
    let registry = one_worker(WaitStrategy::Spin);
    let mut subscription = registry.subscribe("key").expect("there is no cap");
    let mut value = 0;
    Box::new(move || {
        value += 1;
        let begin = Instant::now();
        let _ = registry.submit("key", move |_| Some(value));
        assert_eq!(spin_for(&mut subscription), value);
        nanos(begin)
    })
}

fn reference_hops() -> Trial {
    let reference = Reference::<CrossbeamChannel>::new(1, 64);
    let mut standing = reference.subscribe("key", 20);
    let mut value = 0;
    Box::new(move || {
        value += 1;
        let begin = Instant::now();
        let _ = reference.submit("key", move || Some(value));
        loop {
            if let Some(received) = standing.receive() {
                assert_eq!(received, value);
                return nanos(begin);
            }
            std::hint::spin_loop();
        }
    })
}

fn two_crossbeam_hops() -> Trial {
    let (there, hop) = crossbeam_channel::bounded::<u64>(64);
    let (back, received) = crossbeam_channel::bounded(64);
    let thread = std::thread::spawn(move || {
        for value in hop {
            if back.send(value).is_err() {
                break;
            }
        }
    });
    let joined = Joined(Some(thread));
    let mut value = 0;
    // The sender goes before the thread is joined: captures are dropped in the order of this tuple.
    let mut ends = (there, received, joined);
    Box::new(move || {
        value += 1;
        let (there, received, _joined) = &mut ends;
        let begin = Instant::now();
        let _ = there.send(value);
        while received.try_recv() != Ok(value) {
            std::hint::spin_loop();
        }
        nanos(begin)
    })
}

struct PingPong {
    ping: Arc<[CachePadded<AtomicU64>; 2]>,
    ends: Arc<AtomicBool>,
    _joined: Joined,
}

impl Drop for PingPong {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

fn ping_pong() -> Trial {
    let ping: Arc<[CachePadded<AtomicU64>; 2]> = Arc::default();
    let ends = Arc::new(AtomicBool::new(false));
    let thread = {
        let (ping, ends) = (ping.clone(), ends.clone());
        std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let value = ping[0].load(Ordering::Acquire);
                ping[1].store(value, Ordering::Release);
            }
        })
    };
    let both = PingPong {
        ping,
        ends,
        _joined: Joined(Some(thread)),
    };
    let mut value = 0;
    Box::new(move || {
        value += 1;
        let begin = Instant::now();
        both.ping[0].store(value, Ordering::Release);
        while both.ping[1].load(Ordering::Acquire) != value {
            std::hint::spin_loop();
        }
        nanos(begin)
    })
}

/// `latency`, a shard that spins: submit, gate ready at once, to received by the submitter.
#[must_use]
pub fn latency_spinning(blocks: usize) -> Vec<Row> {
    let contenders: [Contender; 4] = [
        ("afterwrite", ours_spinning),
        ("reference", reference_hops),
        ("two crossbeam hops", two_crossbeam_hops),
        ("floor: cache line there and back", ping_pong),
    ];
    in_blocks("latency (spinning shard)", &contenders, blocks, 2_000)
}

/// How long a shard spins by default.
const SPIN: Duration = Duration::from_micros(20);

/// How long everybody is left alone before a wait, so that all who would sleep do.
const IDLE: Duration = Duration::from_millis(1);

/// A thread that receives, and says when.
struct Sleeper {
    begin: Instant,
    /// When the thing began that is waited for, in nanoseconds since `begin`.
    began: Arc<AtomicU64>,
    waited: crossbeam_channel::Receiver<u64>,
    _joined: Joined,
}

impl Sleeper {
    /// `receive` blocks until something comes; `false` at the end.
    fn new(mut receive: impl FnMut() -> bool + Send + 'static) -> Self {
        let begin = Instant::now();
        let began = Arc::new(AtomicU64::new(0));
        let (report, waited) = crossbeam_channel::bounded(64);
        let thread = {
            let began = began.clone();
            std::thread::spawn(move || {
                while receive() {
                    let now = nanos(begin);
                    let _ = report.send(now.saturating_sub(began.load(Ordering::Acquire)));
                }
            })
        };
        Self {
            begin,
            began,
            waited,
            _joined: Joined(Some(thread)),
        }
    }

    fn wait(&self, start: impl FnOnce()) -> u64 {
        std::thread::sleep(IDLE);
        self.began.store(nanos(self.begin), Ordering::Release);
        start();
        self.waited
            .recv_timeout(Duration::from_secs(10))
            .expect("it is received within seconds")
    }
}

fn ours_parked_spinning_receiver() -> Trial {
    parked_spinning_receiver(one_worker(WaitStrategy::default()))
}

/// As the other contenders' threads, which the kernel may run where the submitter runs.
fn ours_parked_unpinned() -> Trial {
    let registry = Registry::builder().workers(1).pinning(Pinning::Off);
    parked_spinning_receiver(registry.build().expect("the settings are in range"))
}

fn parked_spinning_receiver(registry: Registry<u64>) -> Trial {
    let mut subscription = registry.subscribe("key").expect("there is no cap");
    Box::new(move || {
        std::thread::sleep(IDLE);
        let begin = Instant::now();
        let _ = registry.submit("key", |_| Some(1));
        spin_for(&mut subscription);
        nanos(begin)
    })
}

fn flume_hop_spinning_receiver() -> Trial {
    let (there, hop) = flume::bounded::<u64>(64);
    let (back, received) = flume::bounded(64);
    let thread = std::thread::spawn(move || {
        for value in hop {
            if back.send(value).is_err() {
                break;
            }
        }
    });
    let ends = (there, received, Joined(Some(thread)));
    Box::new(move || {
        let (there, received, _joined) = &ends;
        std::thread::sleep(IDLE);
        let begin = Instant::now();
        let _ = there.send(1);
        while received.try_recv().is_err() {
            std::hint::spin_loop();
        }
        nanos(begin)
    })
}

/// A thread that is pinned, spins for a little and parks, as a shard does, and answers when it is unparked.
/// One that parks at once may share the waiting thread's core: then there is nobody to wake there.
fn one_pinned_wake() -> Trial {
    let turn = Arc::new(AtomicU64::new(0));
    let ends = Arc::new(AtomicBool::new(false));
    let thread = {
        let (turn, ends) = (turn.clone(), ends.clone());
        std::thread::spawn(move || {
            if let Some(&core) = core_affinity::get_core_ids().unwrap_or_default().last() {
                core_affinity::set_for_current(core);
            }
            while !ends.load(Ordering::Acquire) {
                std::thread::park();
                turn.fetch_or(1, Ordering::AcqRel);
                let answered = Instant::now();
                while answered.elapsed() < SPIN {
                    std::hint::spin_loop();
                }
            }
        })
    };
    let woken = thread.thread().clone();
    let both = WakeToEnd {
        woken,
        ends,
        _joined: Joined(Some(thread)),
    };
    Box::new(move || {
        std::thread::sleep(IDLE);
        turn.store(0, Ordering::Release);
        let begin = Instant::now();
        both.woken.unpark();
        while turn.load(Ordering::Acquire) == 0 {
            std::hint::spin_loop();
        }
        nanos(begin)
    })
}

/// Ends a thread that parks.
struct WakeToEnd {
    woken: std::thread::Thread,
    ends: Arc<AtomicBool>,
    _joined: Joined,
}

impl Drop for WakeToEnd {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        self.woken.unpark();
    }
}

fn ours_both_parked() -> Trial {
    let registry = one_worker(WaitStrategy::default());
    let mut subscription = registry.subscribe("key").expect("there is no cap");
    let closer = subscription.closer();
    let sleeper = Sleeper::new(move || subscription.recv_blocking().is_some());
    let ends = (CloseFirst(closer), sleeper);
    Box::new(move || {
        let (_closer, sleeper) = &ends;
        sleeper.wait(|| {
            let _ = registry.submit("key", |_| Some(1));
        })
    })
}

/// Closes a subscription before the thread that receives from it is joined.
struct CloseFirst(afterwrite::Closer);

impl Drop for CloseFirst {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn two_flume_hops() -> Trial {
    let (there, hop) = flume::bounded::<u64>(64);
    let (forward, arrives) = flume::bounded(64);
    let hop = std::thread::spawn(move || {
        for value in hop {
            if forward.send(value).is_err() {
                break;
            }
        }
    });
    let sleeper = Sleeper::new(move || arrives.recv().is_ok());
    let ends = (there, Joined(Some(hop)), sleeper);
    Box::new(move || {
        let (there, _hop, sleeper) = &ends;
        sleeper.wait(|| {
            let _ = there.send(1);
        })
    })
}

/// `latency`, a shard that sleeps: an idle system with the default wait strategy.
#[must_use]
pub fn latency_parked(blocks: usize) -> Vec<Row> {
    let one: [Contender; 4] = [
        ("afterwrite", ours_parked_spinning_receiver),
        ("afterwrite, not pinned", ours_parked_unpinned),
        ("two flume hops", flume_hop_spinning_receiver),
        ("floor: one wake of a pinned thread", one_pinned_wake),
    ];
    let both: [Contender; 2] = [
        ("afterwrite", ours_both_parked),
        ("two flume hops", two_flume_hops),
    ];
    let mut rows = in_blocks("latency (parked shard, receiver spins)", &one, blocks, 200);
    rows.extend(in_blocks(
        "latency (parked shard and receiver)",
        &both,
        blocks,
        200,
    ));
    rows
}

fn ours_by_watermark() -> Trial {
    let registry = one_worker(WaitStrategy::default());
    let watermark = Watermark::new(0);
    let mut subscription = registry.subscribe("key").expect("there is no cap");
    let closer = subscription.closer();
    let sleeper = Sleeper::new(move || subscription.recv_blocking().is_some());
    let ends = (CloseFirst(closer), sleeper);
    let mut position = 0;
    Box::new(move || {
        let (_closer, sleeper) = &ends;
        position += 1;
        let _ = registry.submit_at("key", watermark.reached(position), position);
        sleeper.wait(|| {
            watermark.advance(position);
        })
    })
}

/// `visible_to_received`, by a watermark: from the advance to the thread that has it.
#[must_use]
pub fn visible_watermark(blocks: usize) -> Vec<Row> {
    let contenders: [Contender; 2] = [
        ("afterwrite", ours_by_watermark),
        ("two flume hops", two_flume_hops),
    ];
    in_blocks("visible_to_received (watermark)", &contenders, blocks, 200)
}

/// `visible_to_received`, by polling: a view that lags 3 to 190 ms, evenly spread; four keys at a
/// time, each with a worker of its own, so that the reference's sleeping workers hold up nobody.
#[must_use]
pub fn visible_polling(waits: usize) -> Vec<Row> {
    const KEYS: u64 = 4;
    let (ours, reference) = (Histogram::default(), Histogram::default());
    let lag = |random: &mut Random| Duration::from_micros(3_000 + random.below(187_000) as u64);
    std::thread::scope(|scope| {
        for key in 0..KEYS {
            let (ours, reference) = (&ours, &reference);
            scope.spawn(move || {
                let mut random = Random::new(key);
                let registry = one_worker(WaitStrategy::default());
                let mut subscription = registry.subscribe("key").expect("there is no cap");
                for _ in 0..waits {
                    let visible = Instant::now() + lag(&mut random);
                    let _ =
                        registry.submit("key", move |_| (Instant::now() >= visible).then_some(1));
                    assert_eq!(subscription.recv_blocking(), Some(Notice::Changed(1)));
                    ours.record(nanos(visible));
                }
            });
            scope.spawn(move || {
                let mut random = Random::new(key);
                let system = Reference::<CrossbeamChannel>::new(1, 64);
                let standing = system.subscribe("key", 20);
                for _ in 0..waits {
                    let visible = Instant::now() + lag(&mut random);
                    let _ = system.submit("key", move || (Instant::now() >= visible).then_some(1));
                    assert_eq!(standing.receiver.recv(), Ok(1));
                    reference.record(nanos(visible));
                }
            });
        }
    });
    let workload = "visible_to_received (polling)";
    vec![
        row(workload, "afterwrite", &ours),
        row(workload, "reference", &reference),
    ]
}

/// `stuck_key`: from submit to received, while another key of the same worker never becomes ready.
/// The reference is tried once: it takes seconds.
#[must_use]
pub fn stuck_key(waits: usize) -> Vec<Row> {
    let (ours, reference) = (Histogram::default(), Histogram::default());
    let registry = one_worker(WaitStrategy::default());
    let _stuck = registry.subscribe("stuck").expect("there is no cap");
    let mut free = registry.subscribe("free").expect("there is no cap");
    let _ = registry.submit("stuck", |_| None);
    for _ in 0..waits {
        let begin = Instant::now();
        let _ = registry.submit("free", |_| Some(1));
        assert_eq!(free.recv_blocking(), Some(Notice::Changed(1)));
        ours.record(nanos(begin));
    }
    let system = Reference::<CrossbeamChannel>::new(1, 64);
    let _stuck = system.subscribe("stuck", 20);
    let free = system.subscribe("free", 20);
    let _ = system.submit("stuck", || None);
    let begin = Instant::now();
    let _ = system.submit("free", || Some(1));
    assert_eq!(free.receiver.recv(), Ok(1));
    reference.record(nanos(begin));
    vec![
        row("stuck_key", "afterwrite", &ours),
        row("stuck_key", "reference", &reference),
    ]
}

/// Prints rows as a table, in microseconds.
pub fn print(rows: &[Row]) {
    for row in rows {
        println!(
            "{:<40} {:<34} p50 {:>12.2} µs   p99 {:>12.2} µs   ({} waits)",
            row.workload,
            row.contender,
            row.p50 as f64 / 1e3,
            row.p99 as f64 / 1e3,
            row.waits
        );
    }
}
