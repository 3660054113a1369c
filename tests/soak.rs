//! A soak: many threads for as long as `AFTERWRITE_SOAK_SECS` says (5 by default), with a ledger
//! from outcomes and receipts, and an eye on the memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use afterwrite::{
    Expiry, Gate, Notice, Overflow, Published, Registry, Retry, Submitted, SubscribeOptions,
    Watermark,
};

const KEYS: u64 = 32;

/// Resident memory in KiB, where the system says.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn seconds() -> u64 {
    let asked = std::env::var("AFTERWRITE_SOAK_SECS").ok();
    asked.map_or(5, |text| text.parse().expect("a number of seconds"))
}

/// What one thread sent, by key: what the outcomes said has to be accounted for.
type Ledger = HashMap<u64, u64>;

struct Soak {
    registry: Registry<u64>,
    view: Watermark,
    over: AtomicBool,
    sent: Mutex<Ledger>,
}

impl Soak {
    fn send(&self, sender: u64) {
        let mut own = Ledger::new();
        let mut state = sender.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        while !self.over.load(SeqCst) {
            let n = random();
            let key = n % KEYS;
            let name = format!("k{key}");
            let counted = |submitted| {
                assert!(
                    matches!(submitted, Submitted::Queued | Submitted::QueueFull),
                    "{submitted:?}"
                );
                1
            };
            let sent = match (n >> 32) % 8 {
                0 | 1 => {
                    assert_ne!(self.registry.publish(&name, n), Published::Closed);
                    1
                }
                2 => counted(self.registry.submit(&name, move |_| Some(n))),
                3 => counted(
                    self.registry
                        .submit(&name, move |attempt| (attempt.number() > 2).then_some(n)),
                ),
                4 => counted(self.registry.submit_async(&name, move |_| async move {
                    tokio::task::yield_now().await;
                    Some(n)
                })),
                5 => {
                    let position = self.view.get() + n % 3;
                    let reached = self.view.reached(position);
                    let submitted = self.registry.submit_at(&name, reached, n);
                    self.view.advance(position);
                    counted(submitted)
                }
                6 => {
                    let batch = (0..4).map(|_| (&name, Gate::read(move |_| Some(n))));
                    let outcome = self.registry.submit_batch(batch);
                    assert_eq!((outcome.closed, outcome.no_subscribers), (0, 0));
                    (outcome.queued + outcome.queue_full) as u64
                }
                _ => counted(self.registry.submit(&name, |_| None)),
            };
            *own.entry(key).or_default() += sent;
        }
        let mut sent = self.sent.lock();
        for (key, n) in own {
            *sent.entry(key).or_default() += n;
        }
    }

    /// Comes and goes, on keys that others stand on and on its own.
    fn churn(&self) -> u64 {
        let mut turns = 0;
        while !self.over.load(SeqCst) {
            let key = format!("k{}", turns % (2 * KEYS));
            let mut subscription = self.registry.subscribe(&key).expect("no cap is set");
            match turns % 3 {
                0 => subscription.close(),
                1 => subscription.closer().close(),
                _ => {
                    let _ = subscription.recv_timeout(Duration::from_micros(50));
                }
            }
            turns += 1;
        }
        turns
    }
}

#[test]
fn soak() {
    let soak = Soak {
        registry: Registry::builder()
            .workers(2)
            .buffer_capacity(8)
            .queue_capacity(64)
            .expiry(Expiry::Skip)
            .retry(Retry::backoff(Duration::from_millis(20)))
            .build()
            .expect("the settings are sound"),
        view: Watermark::new(0),
        over: AtomicBool::new(false),
        sent: Mutex::default(),
    };
    let received = Arc::new(AtomicU64::new(0));
    let standing: Vec<_> = (0..KEYS)
        .flat_map(|key| {
            [
                Overflow::DropNewest,
                Overflow::DropOldest,
                Overflow::Conflate,
            ]
            .map(|overflow| (key, overflow))
        })
        .map(|(key, overflow)| {
            let options = SubscribeOptions::new().overflow(overflow);
            let name = format!("k{key}");
            let subscription = soak.registry.subscribe_with(&name, options);
            (key, subscription.expect("no cap is set"))
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .expect("a runtime");
    let receivers: Vec<_> = standing
        .into_iter()
        .map(|(key, mut subscription)| {
            let received = received.clone();
            runtime.spawn(async move {
                let mut counted = 0;
                while let Some(notice) = subscription.recv().await {
                    counted += match notice {
                        Notice::Changed(_) => {
                            received.fetch_add(1, SeqCst);
                            1
                        }
                        Notice::Missed { n, .. } => n,
                    };
                }
                (
                    key,
                    counted + subscription.tally().merged + subscription.skipped(),
                )
            })
        })
        .collect();

    let lasts = Duration::from_secs(seconds());
    let mut memory = Vec::new();
    let churned = std::thread::scope(|scope| {
        let senders = [1, 2, 3].map(|sender| {
            let soak = &soak;
            scope.spawn(move || soak.send(sender))
        });
        let churn = scope.spawn(|| soak.churn());
        let (_alive, tick) = mpsc::channel::<()>();
        let began = Instant::now();
        while began.elapsed() < lasts {
            let _ = tick.recv_timeout(lasts / 50);
            memory.extend(resident());
        }
        soak.over.store(true, SeqCst);
        for sender in senders {
            sender.join().expect("it counted what it sent");
        }
        churn.join().expect("it came and went")
    });
    soak.registry.close();
    let sent = soak.sent.into_inner();
    let total: u64 = sent.values().sum();
    for receiver in receivers {
        let (key, counted) = runtime.block_on(receiver).expect("no receiver failed");
        assert_eq!(counted, sent[&key], "k{key}: nothing is unaccounted for");
    }
    // After the first fifth all that is allocated once has been.
    let steady = memory
        .get(memory.len() / 5)
        .copied()
        .zip(memory.last().copied());
    println!(
        "sent {total}, received {}, churned {churned}, resident {steady:?} KiB, in {lasts:?}",
        received.load(SeqCst)
    );
    assert!(total > 0 && churned > 0);
    // A sanitizer keeps what is freed for a while.
    let weighed = std::env::var_os("AFTERWRITE_SOAK_UNWEIGHED").is_none();
    if let Some((early, late)) = steady.filter(|_| weighed) {
        assert!(late < early + early / 4 + 4096, "memory grows: {memory:?}");
    }
}
