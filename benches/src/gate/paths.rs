//! The single-threaded hot paths, as operations that can be counted one by one.
//!
//! Everything that could differ between two runs is fixed: the hash seed, the keys and their order.
//! The registry's one shard sleeps all the while; nothing is handed to it.

use std::hint::black_box;
use std::task::{Context, Waker};

use afterwrite::invalidation::subject::{Entity, IdRef, Prefix, Topic};
use afterwrite::{Notice, Registry, Submitted, WaitStrategy, Watermark};

use crate::input;
use crate::invalidation::SUBJECT;
use crate::rivals::{AfterwriteFanout, BUFFER, Fanout};

/// A hot path.
pub struct Path {
    /// Its name in the limits' files.
    pub name: &'static str,
    /// Operations that are enough to measure.
    pub operations: u64,
    /// Sets it up; each call of what it returns is one operation.
    pub prepare: fn() -> Box<dyn FnMut()>,
}

impl std::fmt::Debug for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Path").field(&self.name).finish()
    }
}

/// Runs operations where callgrind looks, and plants so many instructions beside them.
///
/// Callgrind collects from the begin to the end of this function (`--toggle-collect`).
#[inline(never)]
pub fn measured_path(operations: u64, planted: u64, operation: &mut dyn FnMut()) {
    for _ in 0..operations {
        operation();
    }
    crate::plant::instructions(planted);
}

/// All of them.
pub const PATHS: &[Path] = &[
    Path {
        name: "fanout n=100: push and 100 receives",
        operations: 200,
        prepare: || fanout(100),
    },
    Path {
        name: "fanout_full n=100: push, 100 drops",
        operations: 200,
        prepare: || {
            let mut system = AfterwriteFanout::new(100, BUFFER);
            system.check_full(100, BUFFER);
            let mut value = 0;
            Box::new(move || {
                value += 1;
                system.push(black_box(value));
            })
        },
    },
    Path {
        name: "publish by key, and receive",
        operations: 2_000,
        prepare: || {
            let (registry, standing) = registry(999);
            let key = input::key(999);
            let mut hot = registry.subscribe(&key).expect("there is no cap");
            Box::new(move || {
                let _keeps = &standing;
                let _ = black_box(registry.publish(&key, black_box(7)));
                assert_eq!(hot.try_recv(), Ok(Notice::Changed(7)));
            })
        },
    },
    Path {
        name: "publish through a handle, and receive",
        operations: 2_000,
        prepare: || fanout(1),
    },
    Path {
        name: "receive from an empty buffer",
        operations: 2_000,
        prepare: || {
            let (registry, _) = registry(1);
            let mut idle = registry.subscribe("idle").expect("there is no cap");
            Box::new(move || {
                let _keeps = &registry;
                assert!(black_box(idle.try_recv()).is_err());
            })
        },
    },
    Path {
        name: "miss n=1000: submit",
        operations: 2_000,
        prepare: || {
            let (registry, standing) = registry(1_000);
            let absent: Vec<_> = (0..1_000).map(|n| format!("basket/{n:06}")).collect();
            let mut at = 0;
            Box::new(move || {
                let _keeps = &standing;
                at = (at + 1) % absent.len();
                let submitted = registry.submit(black_box(&absent[at]), |_| Some(0));
                assert_eq!(submitted, Submitted::NoSubscribers);
            })
        },
    },
    Path {
        name: "churn_keys n=1000: subscribe and drop",
        operations: 512,
        prepare: || churn(1_000, true),
    },
    Path {
        name: "churn_joined n=1000: subscribe and drop",
        operations: 512,
        prepare: || churn(1_000, false),
    },
    Path {
        name: "advance n=10000: nobody due",
        operations: 2_000,
        prepare: || {
            let watermark = Watermark::new(0);
            let mut waits: Vec<_> = (0..10_000)
                .map(|k| watermark.wait_for((1 << 62) + k))
                .collect();
            let mut context = Context::from_waker(Waker::noop());
            for wait in &mut waits {
                assert!(std::pin::Pin::new(wait).poll(&mut context).is_pending());
            }
            let mut position = 0;
            Box::new(move || {
                let _keeps = &waits;
                position += 1;
                black_box(watermark.advance(black_box(position)));
            })
        },
    },
    Path {
        name: "subject: parse",
        operations: 2_000,
        prepare: || {
            let prefix = Prefix::default();
            Box::new(move || {
                assert!(black_box(prefix.parse(black_box(SUBJECT))).is_ok());
            })
        },
    },
    Path {
        name: "subject: format",
        operations: 2_000,
        prepare: || {
            let topic = Prefix::default().topic(&Entity::new("user").expect("it is a token"));
            let mut buffer = Topic::buffer();
            Box::new(move || {
                let id = IdRef::new(black_box("0192f3a4-77c1")).expect("it is not empty");
                black_box(topic.one(id, &mut buffer).as_str());
            })
        },
    },
];

/// Paths that end on the shard's thread: what they allocate on the caller's is as exact as ever, but not
/// how long the caller looks for the end.
pub const HANDED_OVER: &[Path] = &[Path {
    name: "submit a small producer, and receive",
    operations: 0,
    prepare: || {
        let (registry, mut standing) = registry(1);
        let key = input::key(0);
        Box::new(move || {
            let submitted = registry.submit(black_box(&key), |_| Some(7));
            assert_eq!(submitted, Submitted::Queued);
            while standing[0].try_recv() != Ok(Notice::Changed(7)) {
                std::hint::spin_loop();
            }
        })
    },
}];

/// Paths among few and among many, in pairs: see [`growth`](super::growth).
pub const GROWTH: &[[Path; 2]] = &[
    [
        Path {
            name: "churn_keys n=1000",
            operations: 512,
            prepare: || churn(1_000, true),
        },
        Path {
            name: "churn_keys n=1000000",
            operations: 512,
            prepare: || churn(1_000_000, true),
        },
    ],
    [
        Path {
            name: "churn_hot n=1000",
            operations: 512,
            prepare: || churn_hot(1_000),
        },
        Path {
            name: "churn_hot n=1000000",
            operations: 512,
            prepare: || churn_hot(1_000_000),
        },
    ],
];

/// Every path, of either kind.
pub fn all() -> impl Iterator<Item = &'static Path> {
    PATHS.iter().chain(GROWTH.iter().flatten())
}

fn registry(keys: usize) -> (Registry<u64>, Vec<afterwrite::Subscription<u64>>) {
    let registry = Registry::builder()
        .workers(1)
        .wait_strategy(WaitStrategy::Park)
        .hash_seed(1)
        .build()
        .expect("the settings are in range");
    let standing = (0..keys)
        .map(|n| registry.subscribe(&input::key(n)).expect("there is no cap"))
        .collect();
    (registry, standing)
}

fn fanout(n: usize) -> Box<dyn FnMut()> {
    let mut system = AfterwriteFanout::new(n, BUFFER);
    system.check(n);
    let mut value = 0;
    Box::new(move || {
        value += 1;
        system.push(black_box(value));
        assert_eq!(black_box(system.receive()), (value * n as u64, n));
    })
}

/// Among `n` subscribers of one key, with a fifth as many places free between them, one after another
/// from anywhere leaves and another comes.
fn churn_hot(n: usize) -> Box<dyn FnMut()> {
    let (registry, _) = registry(0);
    let come = move || registry.subscribe("hot").expect("there is no cap");
    let places = n + n / 4;
    let standing: Vec<_> = (0..places).map(|_| come()).collect();
    let mut standing: Vec<_> = standing
        .into_iter()
        .enumerate()
        .filter_map(|(at, one)| (at % 5 != 0).then_some(one))
        .collect();
    let mut random = input::Random::new(1);
    Box::new(move || {
        let at = random.below(standing.len());
        standing[at] = come();
    })
}

fn churn(keys: usize, fresh: bool) -> Box<dyn FnMut()> {
    let (registry, standing) = registry(keys);
    let first = if fresh { keys } else { 0 };
    let names: Vec<_> = (first..first + 512).map(input::key).collect();
    let mut at = 0;
    Box::new(move || {
        let _keeps = &standing;
        drop(registry.subscribe(&names[at]));
        at = (at + 1) % names.len();
    })
}
