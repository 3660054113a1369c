//! A fleet in a box: the protocol, the outbox, the feeds and the fences that ship, under every
//! kind of fault, in simulated time, from one seed.
//!
//! # The oracle
//! Readers look at caches all the time. Whatever a watch serves as coherent at T has to show every
//! commit whose emit was handed over (or had to be, under a guard) before T - B, by a publisher
//! whose beat was heard before T - B and that is not retired. In doubt, nothing is served for
//! longer than L after its load began. A drop that arrives is applied. What `emit_confirmed` would confirm has reached a server.
//!
//! # Replaying
//! A failure names its seed; `AFTERWRITE_SIM_SEED=<seed> cargo test simulator::replay` runs it
//! again, event for event. `AFTERWRITE_SIM_WRITES` sets how many writes `faults` makes.

mod event;
mod faults;
mod host;
mod life;
mod net;
mod rng;
mod store;
mod watches;
mod world;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use event::{Plan, Tally};
use faults::{FAULTS, Fault};
use world::{MS, SECOND, WRITE_LIMIT, World};

use super::Mutant;

/// Writes of one world; then the next begins with the next seed.
const WRITES_A_WORLD: u64 = 5_000;

fn faulty(seed: u64) -> Plan {
    Plan {
        seed,
        hosts: 3 + (seed % 3) as usize,
        writes: WRITES_A_WORLD,
        fault_every: 5 * SECOND,
        write_every: 400 * MS,
        orderly: false,
        write_limit: WRITE_LIMIT,
        rolling_every: 0,
        only: None,
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

/// Every broken rule is noticed, by a stale value that is served or a confirmation that is a lie.
#[test]
fn every_mutant_is_caught() {
    let mutants = [
        Mutant::LeaseFromArrival,
        Mutant::BaselineIsFirstHeard,
        Mutant::IgnoreOldSequences,
        Mutant::MarkBeforeDrain,
        Mutant::NoEpochOnLeaving,
        Mutant::CheckThenInsert,
        Mutant::JoinOlderFlight,
        Mutant::RestartExcusesSilence,
        Mutant::GoodbyeWithOpenGuard,
        Mutant::FlushIsConfirmation,
        Mutant::GoodbyeWithoutMarks,
        Mutant::NoFloorFromBeats,
        Mutant::NoCalibration,
        Mutant::SilentGuard,
        Mutant::DeniedUnnoticed,
        Mutant::ClosingUnnoticed,
        Mutant::FloorIsOwnPosition,
        Mutant::WatchEndsSilently,
        Mutant::OwnPositionsUncounted,
    ];
    let next = AtomicU64::new(0);
    let survivors = parking_lot::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(&mutant) = mutants.get(next.fetch_add(1, Relaxed) as usize) {
                    match (1..=MUTANT_SEEDS).find_map(|seed| caught(mutant, seed)) {
                        Some(how) => println!("{mutant:?}: {how}"),
                        None => survivors.lock().push(mutant),
                    }
                }
            });
        }
    });
    let survivors = survivors.into_inner();
    assert!(survivors.is_empty(), "not caught: {survivors:?}");
}

/// A mutant that lives through so many worlds has survived.
const MUTANT_SEEDS: u64 = 200;

/// One host, whose watches end and begin again. Among others their positions are higher soon, and stand
/// in for its own.
fn by_itself(seed: u64) -> Plan {
    Plan {
        hosts: 1,
        only: Some(Fault::EndedWatch),
        ..faulty(seed)
    }
}

#[test]
fn i8_a_watch_that_begins_again_asks_for_what_its_own_node_has_written() {
    for seed in 1..=4 {
        let mut world = World::new(by_itself(seed));
        let tally = world.run().unwrap();
        assert!(tally.coherent > 0 && tally.hits > 0, "{tally:?}");
    }
}

fn caught(mutant: Mutant, seed: u64) -> Option<String> {
    super::plant(match mutant {
        Mutant::NoEpochOnLeaving => "fence_no_epoch_on_leaving",
        _ => "",
    });
    let plan = match mutant {
        // Rare among all others: a beat has to find something queued, and what was queued be lost.
        Mutant::MarkBeforeDrain => Plan {
            only: Some(Fault::FullBus),
            ..faulty(seed)
        },
        Mutant::OwnPositionsUncounted => by_itself(seed),
        _ => faulty(seed),
    };
    let plan = Plan {
        mutant: Some(mutant),
        ..plan
    };
    let outcome = World::new(plan).run().err();
    super::plant("");
    outcome
}

fn calm(seed: u64, mutant: Option<Mutant>) -> Plan {
    Plan {
        seed,
        hosts: 5,
        writes: 3_000,
        fault_every: 0,
        write_every: 200 * MS,
        orderly: true,
        write_limit: WRITE_LIMIT,
        rolling_every: 0,
        only: None,
        mutant,
    }
}

/// The part of the time in which a watch is coherent.
fn coherent_part(plan: impl Fn(u64) -> Plan) -> f64 {
    let mut tally = Tally::default();
    for seed in 1..=4 {
        tally.add(World::new(plan(seed)).run().unwrap());
    }
    tally.coherent as f64 / tally.looks as f64
}

#[test]
fn i7_without_faults_a_node_is_coherent() {
    let part = coherent_part(|seed| calm(seed, None));
    println!("coherent for {:.2} % of the time", part * 100.0);
    assert!(part >= 0.95, "{part}");
    // A node that always doubts serves nothing stale, and is of no use.
    let mutant = Some(Mutant::AlwaysSuspect);
    assert!(coherent_part(|seed| calm(seed, mutant)) < 0.95);
}

/// A right that is taken away and given back, while the connection stays, is not the end.
#[test]
fn i7_a_node_whose_right_is_given_back_is_coherent_again() {
    let revoked = |mutant| {
        move |seed| Plan {
            fault_every: 20 * SECOND,
            only: Some(Fault::Revocation),
            ..calm(seed, mutant)
        }
    };
    let part = coherent_part(revoked(None));
    println!("coherent for {:.2} % of the time", part * 100.0);
    assert!(part >= 0.85, "{part}");
    assert!(coherent_part(revoked(Some(Mutant::NeverAsksAgain))) < 0.85);
}

/// One host after the other goes down in order and comes back: nobody else has a doubt, and nobody
/// drops more than was written.
#[test]
fn i7_an_orderly_rolling_restart_flushes_nothing() {
    for seed in 1..=4 {
        let plan = Plan {
            rolling_every: 8 * SECOND,
            ..calm(seed, None)
        };
        let mut world = World::new(plan);
        let tally = world.run().unwrap();
        assert!(tally.goodbyes >= 10, "{tally:?}");
        assert_eq!(tally.doubts, 0, "{tally:?}");
        // Each process clears each entity once, when it joins.
        let joins = 3 * (5 + tally.goodbyes);
        assert!(tally.flushes <= joins, "{tally:?}");
    }
}

/// Who goes down waits for guards that are open for longer than a lease, and is heard until then.
#[test]
fn i7_who_closes_under_an_open_guard_is_heard() {
    let doubts = |mutant| {
        let mut tally = Tally::default();
        for seed in 1..=2 {
            let plan = Plan {
                writes: 1_000,
                rolling_every: 12 * SECOND,
                write_limit: 20 * SECOND,
                ..calm(seed, mutant)
            };
            tally.add(World::new(plan).run().unwrap());
        }
        assert!(tally.goodbyes >= 4, "{tally:?}");
        tally.doubts
    };
    assert_eq!(doubts(None), 0);
    assert!(doubts(Some(Mutant::MuteWhileClosing)) > 0);
}
