//! A fleet in a box: the protocol, the outbox, the feeds and the fences that ship, under every
//! kind of fault, in simulated time, from one seed.
//!
//! # The oracle
//! Readers look at caches all the time. Whatever a watch serves as coherent at T has to show every
//! commit whose emit was handed over (or had to be, under a guard) before T - B, by a publisher
//! whose beat was heard before T - B and that is not retired. In doubt, nothing is served for
//! longer than L after its load began. A drop that arrives is applied. What `emit_confirmed` would confirm has come back.
//!
//! # What is driven
//! `Node`, `Outbox`, `Feed` and `Fence` are the ones that ship, and all that they decide. Each process publishes and
//! subscribes through a [`ChaosBus`](crate::bus::ChaosBus) of its own, on a network of two servers. Threads, locks, clocks
//! and loads that callers share are the simulator's own, in one thread. Whole nodes run over the same network
//! in `tests/invalidation_chaos`.
//!
//! # Replaying
//! A failure names its plan, its seed, and the mutant if there is one:
//! `AFTERWRITE_SIM_PLAN=<plan> AFTERWRITE_SIM_SEED=<seed> AFTERWRITE_SIM_MUTANT=<mutant> cargo test simulator::replay`
//! runs it again, event for event; without a plan it is `faulty`, which
//! `i6_nothing_stale_is_served_past_the_bound` runs, for as many writes as `AFTERWRITE_SIM_WRITES` says.

mod event;
mod faults;
mod host;
mod life;
mod net;
mod rng;
mod roles;
mod store;
mod watches;
mod world;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use event::{Plan, Tally};
use faults::{FAULTS, Fault};
use world::{MS, SECOND, WRITE_LIMIT, World};

use super::Mutant;
use crate::bus::ChaosCounts;

/// Writes of one world; then the next begins with the next seed.
const WRITES_A_WORLD: u64 = 5_000;

/// The plans there are.
const PLANS: [fn(u64) -> Plan; 8] = [
    faulty,
    full_bus,
    by_itself,
    haunted,
    calm,
    revoked,
    rolling,
    slow_guards,
];

/// Everything goes wrong.
fn faulty(seed: u64) -> Plan {
    Plan {
        name: "faulty",
        seed,
        hosts: 3 + (seed % 3) as usize,
        writes: WRITES_A_WORLD,
        fault_every: 4_600 * MS,
        write_every: 300 * MS,
        orderly: false,
        write_limit: WRITE_LIMIT,
        rolling_every: 0,
        roles: true,
        only: None,
        mutant: None,
    }
}

/// Rare among all others: a beat has to find something queued, and what was queued be lost.
fn full_bus(seed: u64) -> Plan {
    Plan {
        name: "full_bus",
        only: Some(Fault::FullBus),
        ..faulty(seed)
    }
}

/// One host, whose watches end and begin again. Among others their positions are higher soon, and stand
/// in for its own.
fn by_itself(seed: u64) -> Plan {
    Plan {
        name: "by_itself",
        hosts: 1,
        roles: false,
        only: Some(Fault::EndedWatch),
        ..faulty(seed)
    }
}

/// Nothing but twins: what else is lost would show.
fn haunted(seed: u64) -> Plan {
    Plan {
        name: "haunted",
        fault_every: 25 * SECOND,
        only: Some(Fault::Twin),
        ..faulty(seed)
    }
}

/// Nothing goes wrong.
fn calm(seed: u64) -> Plan {
    Plan {
        name: "calm",
        seed,
        hosts: 5,
        writes: 3_000,
        fault_every: 0,
        write_every: 200 * MS,
        orderly: true,
        write_limit: WRITE_LIMIT,
        rolling_every: 0,
        roles: false,
        only: None,
        mutant: None,
    }
}

/// A right is taken away and given back, while the connection stays.
fn revoked(seed: u64) -> Plan {
    Plan {
        name: "revoked",
        fault_every: 20 * SECOND,
        only: Some(Fault::Revocation),
        ..calm(seed)
    }
}

/// One host after the other goes down in order and comes back.
fn rolling(seed: u64) -> Plan {
    Plan {
        name: "rolling",
        rolling_every: 8 * SECOND,
        ..calm(seed)
    }
}

/// The same, and guards are open for longer than a lease.
fn slow_guards(seed: u64) -> Plan {
    Plan {
        name: "slow_guards",
        writes: 1_000,
        rolling_every: 12 * SECOND,
        write_limit: 20 * SECOND,
        ..calm(seed)
    }
}

fn env<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// A world that has run, with the mutant that its plan names.
fn run(plan: Plan) -> (World, Result<Tally, String>) {
    super::plant(match plan.mutant {
        Some(Mutant::NoEpochOnLeaving) => "fence_no_epoch_on_leaving",
        _ => "",
    });
    let mut world = World::new(plan);
    let ran = world.run().cloned();
    super::plant("");
    (world, ran)
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
            match run(plan(seed)).1 {
                Ok(ran) => tally.add(&ran),
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
    println!(
        "{:#?}",
        Tally {
            net: Vec::new(),
            ..tally.clone()
        }
    );
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
    // And what struck the network did.
    type Count = fn(&ChaosCounts) -> u64;
    let happened: [(&str, Count); 9] = [
        ("lost", |net| net.lost),
        ("duplicated", |net| net.duplicated),
        ("reordered", |net| net.reordered),
        ("partitioned", |net| net.partitioned),
        ("held", |net| net.held),
        ("broken", |net| net.broken),
        ("overflowed", |net| net.overflowed),
        ("disconnects", |net| net.disconnects),
        ("denied", |net| net.denied),
    ];
    for (what, count) in happened {
        let n: u64 = tally.net.iter().map(count).sum();
        println!("{what}: {n}");
        assert!(n > tally.writes / 1_000, "{what}: only {n}");
    }
}

/// Runs one seed of one plan again; does nothing unless asked.
#[test]
fn replay() {
    let Some(seed) = env("AFTERWRITE_SIM_SEED") else {
        return;
    };
    let name = env("AFTERWRITE_SIM_PLAN").unwrap_or("faulty".to_owned());
    let mut plans = PLANS.iter().map(|plan| plan(seed));
    let plan = plans.find(|plan| plan.name == name);
    let mut plan = plan.expect("no plan has that name");
    if let Some(name) = env::<String>("AFTERWRITE_SIM_MUTANT") {
        let named = |mutant: &&Mutant| format!("{mutant:?}") == name;
        let mutant = CAUGHT.iter().chain(&OTHERS).find(named);
        plan.mutant = Some(*mutant.expect("no mutant has that name"));
    }
    run(plan).1.unwrap();
}

/// Event for event, to the same end.
#[test]
fn a_seed_replays_exactly() {
    let replayed = |plan: Plan| {
        let (world, ran) = run(plan);
        let end = ran.map(|tally| format!("{tally:?}"));
        (world.digest, world.now, end)
    };
    let twice = |plan: Plan| {
        let once = replayed(plan);
        assert_eq!(once, replayed(plan), "{}", plan.name);
        once
    };
    for plan in PLANS {
        let short = |seed| Plan {
            writes: 1_000,
            ..plan(seed)
        };
        let (digest, ..) = twice(short(7));
        assert_ne!(digest, twice(short(8)).0, "{}", short(8).name);
    }
    // One that fails does so again, at the same moment, in the same words.
    let (seed, failure) = (1..=MUTANT_SEEDS)
        .find_map(|seed| Some((seed, caught(Mutant::CheckThenInsert, seed)?)))
        .unwrap();
    let (.., end) = twice(plan_for(Mutant::CheckThenInsert, seed));
    assert_eq!(end, Err(failure));
}

/// Rules whose breaking serves something stale.
const CAUGHT: [Mutant; 21] = [
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
    Mutant::NeverDoubtsItself,
    Mutant::ExpectsNobody,
];

/// Those that other tests notice.
const OTHERS: [Mutant; 3] = [
    Mutant::AlwaysSuspect,
    Mutant::NeverAsksAgain,
    Mutant::MuteWhileClosing,
];

/// Every broken rule is noticed, by a stale value that is served or a confirmation that is a lie.
#[test]
fn every_mutant_is_caught() {
    let next = AtomicU64::new(0);
    let survivors = parking_lot::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(&mutant) = CAUGHT.get(next.fetch_add(1, Relaxed) as usize) {
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

#[test]
fn i8_a_watch_that_begins_again_asks_for_what_its_own_node_has_written() {
    for seed in 1..=4 {
        let tally = run(by_itself(seed)).1.unwrap();
        assert!(tally.coherent > 0 && tally.hits > 0, "{tally:?}");
    }
}

/// The plan that a mutant is caught by.
fn plan_for(mutant: Mutant, seed: u64) -> Plan {
    let plan = match mutant {
        Mutant::MarkBeforeDrain => full_bus,
        Mutant::OwnPositionsUncounted => by_itself,
        Mutant::NeverDoubtsItself => haunted,
        _ => faulty,
    };
    broken(plan(seed), mutant)
}

fn broken(plan: Plan, mutant: Mutant) -> Plan {
    Plan {
        mutant: Some(mutant),
        ..plan
    }
}

fn caught(mutant: Mutant, seed: u64) -> Option<String> {
    run(plan_for(mutant, seed)).1.err()
}

/// What a twin says and hides harms nobody for longer than B from when it is heard of.
#[test]
fn rule_6_a_twin_hides_nothing_for_longer_than_b() {
    let mut tally = Tally::default();
    for seed in 1..=4 {
        tally.add(&run(haunted(seed)).1.unwrap());
    }
    println!("{tally:?}");
    assert!(tally.faults[&Fault::Twin] > 50, "{tally:?}");
    assert!(tally.forks > 50 && tally.retired > 0, "{tally:?}");
    assert!(tally.coherent > 0 && tally.hits > 0, "{tally:?}");
}

/// The part of the time in which a watch is coherent.
fn coherent_part(plan: impl Fn(u64) -> Plan) -> f64 {
    let mut tally = Tally::default();
    for seed in 1..=4 {
        tally.add(&run(plan(seed)).1.unwrap());
    }
    tally.coherent as f64 / tally.looks as f64
}

#[test]
fn i7_without_faults_a_node_is_coherent() {
    let part = coherent_part(calm);
    println!("coherent for {:.2} % of the time", part * 100.0);
    assert!(part >= 0.95, "{part}");
    // A node that always doubts serves nothing stale, and is of no use.
    let mutant = Mutant::AlwaysSuspect;
    assert!(coherent_part(|seed| broken(calm(seed), mutant)) < 0.95);
}

/// A right that is taken away and given back, while the connection stays, is not the end.
#[test]
fn i7_a_node_whose_right_is_given_back_is_coherent_again() {
    let part = coherent_part(revoked);
    println!("coherent for {:.2} % of the time", part * 100.0);
    assert!(part >= 0.85, "{part}");
    let mutant = Mutant::NeverAsksAgain;
    assert!(coherent_part(|seed| broken(revoked(seed), mutant)) < 0.85);
}

/// One host after the other goes down in order and comes back: nobody else has a doubt, and nobody
/// drops more than was written.
#[test]
fn i7_an_orderly_rolling_restart_flushes_nothing() {
    for seed in 1..=4 {
        let tally = run(rolling(seed)).1.unwrap();
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
                mutant,
                ..slow_guards(seed)
            };
            tally.add(&run(plan).1.unwrap());
        }
        assert!(tally.goodbyes >= 4, "{tally:?}");
        tally.doubts
    };
    assert_eq!(doubts(None), 0);
    assert!(doubts(Some(Mutant::MuteWhileClosing)) > 0);
}
