//! A fleet in a box: the protocol, the outbox, the feeds and the fences that ship, under every
//! kind of fault, in simulated time, from one seed.
//!
//! # The oracle
//! Readers look at caches all the time. Whatever a watch serves as coherent at T has to show every
//! commit whose emit was handed over (or had to be, under a guard) before T - B, by a publisher
//! whose beat was heard before T - B and that is not retired. In doubt, nothing is served for
//! longer than L after its load began. What `emit_confirmed` would confirm has reached a server.
//!
//! # Replaying
//! A failure names its seed; `AFTERWRITE_SIM_SEED=<seed> cargo test simulator::replay` runs it
//! again, event for event. `AFTERWRITE_SIM_WRITES` sets how many writes `faults` makes.

mod faults;
mod host;
mod life;
mod net;
mod rng;
mod store;
mod world;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use faults::FAULTS;
use world::{MS, Plan, SECOND, Tally, World};

use super::Mutant;

/// Writes of one world; then the next begins with the next seed.
const WRITES_A_WORLD: u64 = 5_000;

fn faulty(seed: u64) -> Plan {
    Plan {
        seed,
        hosts: 3 + (seed % 3) as usize,
        writes: WRITES_A_WORLD,
        fault_every: 2_500 * MS,
        write_every: 200 * MS,
        mutant: None,
    }
}

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs worlds on all cores until `writes` are made.
fn run_many(writes: u64, plan: impl Fn(u64) -> Plan + Sync) -> Tally {
    let next = AtomicU64::new(1);
    let worlds = writes.div_ceil(WRITES_A_WORLD);
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().min(8));
    let work = || {
        let mut tally = Tally::default();
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed > worlds {
                return tally;
            }
            match World::new(plan(seed)).run() {
                Ok(ran) => tally.add(ran),
                Err(failure) => panic!("{failure}"),
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut tally = Tally::default();
        for worker in workers {
            match worker.join() {
                Ok(ran) => tally.add(&ran),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        tally
    })
}

#[test]
fn i6_nothing_stale_is_served_past_the_bound() {
    let writes = env("AFTERWRITE_SIM_WRITES").unwrap_or(1_000_000);
    let tally = run_many(writes, faulty);
    println!("{tally:#?}");
    assert!(tally.writes >= writes);
    if writes >= 1_000_000 {
        for fault in FAULTS {
            let n = tally.faults.get(&fault).copied().unwrap_or(0);
            assert!(n >= 1_000, "{fault:?} only {n} times");
        }
    }
    // The oracle had something to look at, in every way.
    assert!(tally.hits > tally.writes / 4, "{tally:?}");
    assert!(tally.coherent * 10 > tally.looks, "{tally:?}");
    for n in [
        tally.confirmed,
        tally.collapsed,
        tally.overflows,
        tally.retired,
        tally.goodbyes,
    ] {
        assert!(n > 0, "{tally:?}");
    }
}

/// Runs one seed again; does nothing unless asked.
#[test]
fn replay() {
    if let Some(seed) = env("AFTERWRITE_SIM_SEED") {
        let mut world = World::new(faulty(seed));
        world.run().unwrap();
    }
}

#[test]
fn a_seed_replays_exactly() {
    let run = |seed| {
        let mut world = World::new(faulty(seed));
        let tally = format!("{:?}", world.run());
        (tally, world.now)
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
