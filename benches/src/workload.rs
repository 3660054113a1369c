//! The workloads, by name and size, each with all who take part.

use std::hint::black_box;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use afterwrite::Watermark;
use rustix::time::{ClockId, clock_gettime};

use crate::input::{self, Random};
use crate::rivals::*;

/// What a run took.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// The time of the work alone.
    pub took: Duration,
    /// How many units it was.
    pub units: u64,
}

impl Timed {
    /// Nanoseconds for each unit.
    #[must_use]
    pub fn nanos_per_unit(&self) -> f64 {
        self.took.as_secs_f64() * 1e9 / self.units as f64
    }
}

/// Somebody who takes part in a workload.
pub struct Contender {
    /// Its name in the tables.
    pub name: &'static str,
    run: Box<dyn FnMut(u64) -> Timed>,
}

impl std::fmt::Debug for Contender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Contender").field(&self.name).finish()
    }
}

impl Contender {
    /// Whose `run` does at least so many units and says what they took.
    pub fn new(name: &'static str, run: impl FnMut(u64) -> Timed + 'static) -> Self {
        Self {
            name,
            run: Box::new(run),
        }
    }

    /// Does at least so many units.
    pub fn run(&mut self, units: u64) -> Timed {
        (self.run)(units)
    }
}

/// A piece of work of a certain size.
#[derive(Debug)]
pub struct Workload {
    /// Its name in the tables.
    pub name: &'static str,
    /// How many receivers, keys or waiters.
    pub size: usize,
    /// What is counted.
    pub unit: &'static str,
    /// Who does it.
    pub contenders: Vec<Contender>,
}

/// The processor time of this thread: on a machine that others use as well, it counts this
/// workload's share alone. For work that one thread does.
fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

pub(crate) fn timed(units: u64, mut work: impl FnMut()) -> Timed {
    let begin = cpu();
    work();
    Timed {
        took: cpu() - begin,
        units,
    }
}

fn fanning<F: Fanout>(n: usize) -> Contender {
    let mut system = F::new(n, BUFFER);
    system.check(n);
    Contender::new(F::NAME, move |units| {
        let pushes = units.div_ceil(n as u64);
        timed(pushes * n as u64, || {
            for value in 0..pushes {
                system.push(black_box(value));
                black_box(system.receive());
            }
        })
    })
}

/// `fanout`: push to `n` receivers with room, and receive; per delivery.
#[must_use]
pub fn fanout(n: usize) -> Workload {
    let mut contenders = vec![
        fanning::<AfterwriteFanout>(n),
        fanning::<(Reference<CrossbeamChannel>, Vec<_>)>(n),
        fanning::<TokioBroadcastFanout>(n),
        fanning::<AsyncBroadcastFanout>(n),
    ];
    if n <= 100_000 {
        contenders.push(fanning::<Crossbeam>(n));
        contenders.push(fanning::<Flume>(n));
        contenders.push(fanning::<Rings>(n));
    }
    contenders.push(fanning::<LinePerReceiver>(n));
    Workload {
        name: "fanout",
        size: n,
        unit: "delivery",
        contenders,
    }
}

fn overflowing<F: Fanout>(n: usize) -> Contender {
    const { assert!(F::DROPS_NEWEST) };
    let mut system = F::new(n, BUFFER);
    system.check_full(n, BUFFER);
    Contender::new(F::NAME, move |units| {
        let pushes = units.div_ceil(n as u64);
        timed(pushes * n as u64, || {
            for value in 0..pushes {
                system.push(black_box(value));
            }
        })
    })
}

/// `fanout_full`: push to `n` receivers whose buffers are full; per drop.
#[must_use]
pub fn fanout_full(n: usize) -> Workload {
    Workload {
        name: "fanout_full",
        size: n,
        unit: "drop",
        contenders: vec![
            overflowing::<AfterwriteFanout>(n),
            overflowing::<(Reference<CrossbeamChannel>, Vec<_>)>(n),
            overflowing::<Crossbeam>(n),
            overflowing::<Flume>(n),
            overflowing::<Rings>(n),
        ],
    }
}

fn publishing<P: Publish>() -> Contender {
    let mut system = P::new();
    system.check();
    Contender::new(P::NAME, move |units| {
        timed(units, || {
            for value in 0..units {
                system.publish(black_box(value));
                black_box(system.receive());
            }
        })
    })
}

/// `publish`: to one receiver with room, and receive; 1,000 keys where there is a map.
#[must_use]
pub fn publish() -> Workload {
    Workload {
        name: "publish",
        size: 1,
        unit: "publish and receive",
        contenders: vec![
            publishing::<AfterwriteHandle>(),
            publishing::<AfterwriteKey>(),
            publishing::<ReferenceKey>(),
            publishing::<DashMapKey>(),
            publishing::<TokioBroadcast>(),
            publishing::<TokioWatch>(),
            publishing::<AsyncBroadcast>(),
            publishing::<BareRing>(),
            publishing::<BareArrayQueue>(),
        ],
    }
}

/// Random picks among some keys, long enough that no cache holds what the picks repeat.
pub(crate) fn picks(keys: usize) -> Vec<u32> {
    let mut random = Random::new(11);
    (0..1 << 16).map(|_| random.below(keys) as u32).collect()
}

/// These keys as they are picked, one behind the other in memory: a caller has its key at hand, and what
/// it would cost to fetch it is not what is measured.
fn in_order(keys: &[String]) -> Vec<String> {
    picks(keys.len())
        .into_iter()
        .map(|key| keys[key as usize].clone())
        .collect()
}

fn churning<C: Churn>(keys: usize, each: usize, visited: Vec<String>) -> Contender {
    let mut system = C::new(keys, each);
    system.check(each);
    let asked = in_order(&visited);
    let mut at = 0;
    Contender::new(C::NAME, move |units| {
        timed(units, || {
            for _ in 0..units {
                system.cycle(&asked[at]);
                at = (at + 1) & (asked.len() - 1);
            }
        })
    })
}

/// Keys beyond those that stand.
fn fresh(keys: usize) -> Vec<String> {
    (keys..keys + 4_096).map(input::key).collect()
}

/// `churn_keys`: subscribe to a key that nobody has, and drop, with `n` keys standing.
#[must_use]
pub fn churn_keys(n: usize) -> Workload {
    Workload {
        name: "churn_keys",
        size: n,
        unit: "subscribe and drop",
        contenders: vec![
            churning::<AfterwriteKeys>(n, 1, fresh(n)),
            churning::<ReferenceKeys>(n, 1, fresh(n)),
            churning::<DashMapOfBroadcasts>(n, 1, fresh(n)),
        ],
    }
}

/// `churn_joined`: subscribe to one of `n` keys that have a subscriber each, and drop.
#[must_use]
pub fn churn_joined(n: usize) -> Workload {
    Workload {
        name: "churn_joined",
        size: n,
        unit: "subscribe and drop",
        contenders: vec![
            churning::<AfterwriteKeys>(n, 1, input::keys(n)),
            churning::<ReferenceKeys>(n, 1, input::keys(n)),
            churning::<DashMapOfBroadcasts>(n, 1, input::keys(n)),
        ],
    }
}

/// `churn_hot`: subscribe to one key that `n` subscribers have, and drop.
#[must_use]
pub fn churn_hot(n: usize) -> Workload {
    Workload {
        name: "churn_hot",
        size: n,
        unit: "subscribe and drop",
        contenders: vec![
            churning::<AfterwriteKeys>(1, n, input::keys(1)),
            churning::<ReferenceKeys>(1, n, input::keys(1)),
            churning::<DashMapOfBroadcasts>(1, n, input::keys(1)),
        ],
    }
}

fn missing<M: Miss>(n: usize) -> Contender {
    let mut system = M::new(n, 1);
    system.check_miss();
    // Names unlike those of the standing keys, as many as there are of them up to 65,536.
    let absent: Vec<String> = (0..n.clamp(64, 1 << 16))
        .map(|k| format!("basket/{k:06}"))
        .collect();
    let asked = in_order(&absent);
    let mut at = 0;
    Contender::new(M::NAME, move |units| {
        timed(units, || {
            for _ in 0..units {
                black_box(system.hits(&asked[at]));
                at = (at + 1) & (asked.len() - 1);
            }
        })
    })
}

/// `miss`: submit to a key that nobody subscribes, with `n` keys standing.
#[must_use]
pub fn miss(n: usize) -> Workload {
    Workload {
        name: "miss",
        size: n,
        unit: "submit",
        contenders: vec![
            missing::<AfterwriteKeys>(n),
            missing::<ReferenceKeys>(n),
            missing::<DashMapOfBroadcasts>(n),
        ],
    }
}

fn gating<G: Gated>(n: usize) -> Contender {
    /// Submits between two waits for the last push.
    const WINDOW: usize = 4_096;
    let mut system = G::new(n);
    system.check();
    let picks: Vec<usize> = picks(n).into_iter().map(|key| key as usize).collect();
    let mut at = 0;
    Contender::new(G::NAME, move |units| {
        let windows = units.div_ceil(WINDOW as u64);
        let mut took = Duration::ZERO;
        for _ in 0..windows {
            let window = &picks[at..at + WINDOW];
            at = (at + WINDOW) % picks.len();
            // Just made, as a caller has them: to fetch them is not what is measured, so they lie together.
            let named: Vec<_> = window
                .iter()
                .map(|&key| (key, input::short_key(key)))
                .collect();
            // Two threads do this work: the wall's clock counts.
            let begin = Instant::now();
            system.submit(&named);
            took += begin.elapsed();
            black_box(system.drain(window));
        }
        Timed {
            took,
            units: windows * WINDOW as u64,
        }
    })
}

/// `many_keys` and `submit_batch`: submit a gate that is ready at once to one of `n` keys with a
/// subscriber each, until pushed. One worker, beside the thread that submits.
#[must_use]
pub fn many_keys(n: usize) -> Workload {
    Workload {
        name: "many_keys",
        size: n,
        unit: "submit to push",
        contenders: vec![
            gating::<AfterwriteKeys>(n),
            gating::<AfterwriteBatch>(n),
            gating::<ReferenceKeys>(n),
        ],
    }
}

/// `advance`: raise a watermark by one, with `n` who wait for a position further on.
#[must_use]
pub fn advance(n: usize) -> Workload {
    const FAR: u64 = 1 << 62;
    let watermark = Watermark::new(0);
    let mut waits: Vec<_> = (0..n as u64).map(|k| watermark.wait_for(FAR + k)).collect();
    let mut context = Context::from_waker(Waker::noop());
    for wait in &mut waits {
        let polled = std::pin::Pin::new(wait).poll(&mut context);
        assert!(polled.is_pending(), "nothing has reached it");
    }
    assert_eq!(watermark.waiting(), n);
    let mut position = 0;
    let ours = Contender::new("afterwrite", move |units| {
        assert_eq!(waits.len(), n);
        timed(units, || {
            for _ in 0..units {
                position += 1;
                black_box(watermark.advance(black_box(position)));
            }
        })
    });
    let floor = std::sync::atomic::AtomicU64::new(0);
    let mut position = 0;
    let floor = Contender::new("floor: one fetch_max", move |units| {
        timed(units, || {
            for _ in 0..units {
                position += 1;
                black_box(
                    floor.fetch_max(black_box(position), std::sync::atomic::Ordering::SeqCst),
                );
            }
        })
    });
    Workload {
        name: "advance",
        size: n,
        unit: "advance",
        contenders: vec![ours, floor],
    }
}

#[cfg(test)]
mod tests;
