//! Models of the fence and of coherent caches: nothing stale is stored, served or shared.
//!
//! At most three threads and three operations a model. The preemption bound is 2, or what
//! `LOOM_MAX_PREEMPTIONS` says. Rows and the raw cache are single cells read and written Relaxed, so
//! that whatever order a model sees comes from the fence.
//!
//! `every_mutant_is_caught` runs models again with one ordering or one step of the protocol taken
//! away, and expects each to fail.
#![cfg(afterwrite_loom)]

use std::convert::Infallible;
use std::future::{self, Future};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use afterwrite::invalidation::cache::{Invalidation, Reason};
use afterwrite::invalidation::caches::BoundedMap;
use afterwrite::invalidation::coherent::{Builder, Coherent};
use afterwrite::invalidation::fence::{Coherence, FAULTS, Fence, Refused, View};
use afterwrite::invalidation::target::Target;
use afterwrite_loom_tests::{assert_killed, assert_listed, faulted, model};
use loom::future::block_on;
use loom::sync::atomic::AtomicU64;
use loom::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use loom::thread;

/// Which model has to fail for which mutant.
const KILLS: &[(&str, &str)] = &[
    ("fence_check_then_insert", "fill_against_invalidate"),
    (
        "fence_version_release",
        "fill_after_invalidate_reads_the_commit",
    ),
    (
        "fence_version_acquire",
        "fill_after_invalidate_reads_the_commit",
    ),
    ("fence_check_then_insert", "two_fills_against_invalidate"),
    ("fence_no_stripes", "fill_against_clear"),
    ("fence_check_then_insert", "fill_against_clear"),
    ("fence_raise_release", "fill_after_flush_reads_the_commit"),
    ("fence_word_acquire", "fill_after_flush_reads_the_commit"),
    ("fence_raise_release", "a_floor_comes_with_its_flush"),
    ("fence_no_epoch_on_doubt", "coherence_flips_against_hits"),
    (
        "fence_no_epoch_on_leaving",
        "what_doubt_loaded_is_not_served_as_coherent",
    ),
    ("fence_word_acquire", "a_doubt_is_not_lost_to_a_recovery"),
    ("fence_raise_reread", "a_doubt_is_not_lost_to_a_recovery"),
    (
        "fence_restore_release",
        "who_reads_coherent_finds_the_cache_cleared",
    ),
    (
        "fence_word_acquire",
        "who_reads_coherent_finds_the_cache_cleared",
    ),
    ("fence_attach_acquire", "the_last_driver_sets_the_lease"),
    ("fence_detach_release", "the_last_driver_sets_the_lease"),
    (
        "coherent_end_silently",
        "an_abandoned_flight_wakes_who_waits",
    ),
    ("coherent_keep_turn", "a_permit_comes_round"),
    (
        "coherent_join_older_flight",
        "two_loads_of_one_id_against_an_invalidation",
    ),
];

const ID: &str = "42";
const LONG: Duration = Duration::from_secs(1);

/// A row in a database and a place in a cache, none of which orders anything.
struct World {
    fence: Fence,
    row: AtomicU64,
    slot: AtomicU64,
}

const EMPTY: u64 = 0;
const OLD: u64 = 1;
const NEW: u64 = 2;

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            fence: Fence::new(),
            row: AtomicU64::new(OLD),
            slot: AtomicU64::new(EMPTY),
        })
    }

    fn fill(&self) -> Result<(), Refused> {
        let token = self.fence.token(ID);
        let read = self.row.load(Relaxed);
        token.store(|_| self.slot.store(read, Relaxed))
    }

    fn clear(&self) {
        self.slot.store(EMPTY, Relaxed);
    }

    fn write(&self) {
        self.row.store(NEW, Relaxed);
        self.fence.invalidate(ID, || self.clear());
    }

    fn kept(&self) -> u64 {
        self.slot.load(Relaxed)
    }
}

/// Property: once an invalidation has returned, no value read before it is in the cache.
/// Two threads.
#[test]
fn fill_against_invalidate() {
    model(|| {
        let world = World::new();
        let filling = thread::spawn({
            let world = world.clone();
            move || world.fill()
        });
        world.write();
        let stored = filling.join().unwrap();
        assert_ne!(world.kept(), OLD);
        assert_eq!(world.kept() == NEW, stored.is_ok() && world.kept() != EMPTY);
    });
}

/// Property: a load whose token is newer than the invalidation reads the row as it was committed.
/// Two threads; the token and the read race with the invalidation, the store comes after it.
#[test]
fn fill_after_invalidate_reads_the_commit() {
    model(|| {
        let world = World::new();
        let writing = thread::spawn({
            let world = world.clone();
            move || world.write()
        });
        let token = world.fence.token(ID);
        let read = world.row.load(Relaxed);
        writing.join().unwrap();
        if token.store(|_| ()).is_ok() {
            assert_eq!(read, NEW);
        }
    });
}

/// Property: as for one fill, and two fills disturb neither each other nor the invalidation.
/// Three threads.
#[test]
fn two_fills_against_invalidate() {
    model(|| {
        let world = World::new();
        let fills: Vec<_> = (0..2)
            .map(|_| {
                let world = world.clone();
                thread::spawn(move || world.fill())
            })
            .collect();
        world.write();
        for fill in fills {
            let _refused = fill.join().unwrap();
        }
        assert_ne!(world.kept(), OLD);
        assert_eq!(world.fill(), Ok(()), "nothing is refused for ever");
        assert_eq!(world.kept(), NEW);
    });
}

/// Property: two fills of one id with nothing between them are both stored. Two threads.
#[test]
fn two_fills() {
    model(|| {
        let world = World::new();
        let filling = thread::spawn({
            let world = world.clone();
            move || world.fill()
        });
        assert_eq!(world.fill(), Ok(()));
        assert_eq!(filling.join().unwrap(), Ok(()));
        assert_eq!(world.kept(), OLD);
    });
}

/// Property: once a flush has returned, no value read before it is in the cache, even for those who
/// look at no stamp. Two threads.
#[test]
fn fill_against_clear() {
    model(|| {
        let world = World::new();
        let filling = thread::spawn({
            let world = world.clone();
            move || world.fill()
        });
        world.row.store(NEW, Relaxed);
        world.fence.flush(|| world.clear());
        let _refused = filling.join().unwrap();
        assert_ne!(world.kept(), OLD);
    });
}

/// Property: a load whose token is newer than a flush reads the rows as they were committed.
/// Two threads.
#[test]
fn fill_after_flush_reads_the_commit() {
    model(|| {
        let world = World::new();
        let flushing = thread::spawn({
            let world = world.clone();
            move || {
                world.row.store(NEW, Relaxed);
                world.fence.flush(|| ());
            }
        });
        let token = world.fence.token(ID);
        let read = world.row.load(Relaxed);
        flushing.join().unwrap();
        if token.store(|_| ()).is_ok() {
            assert_eq!(read, NEW);
        }
    });
}

/// Property: a store is held to the floor that came with the flush before its token. Two threads;
/// the driver's flush is the one that takes a floor.
#[test]
fn a_floor_comes_with_its_flush() {
    model(|| {
        let fence = Arc::new(Fence::new());
        let target = Target::with_fence(fence.clone(), |_: Invalidation<'_>| ());
        let driver = target.attach(LONG).unwrap();
        let first = fence.token(ID).store(|stamp| stamp).unwrap();
        let filling = thread::spawn(move || {
            let token = fence.token(ID);
            if let Ok(stamp) = token.store_seen(View::At(6), |stamp| stamp) {
                assert_eq!(stamp, first, "of the epoch before the flush");
            }
        });
        driver.flush(Reason::Gap, Some(7)).unwrap();
        filling.join().unwrap();
    });
}

/// Property: while a fence flips, a hit gets no entry that is older than a doubt which had begun, be it
/// over by then or not. Two threads: one doubts and recovers, one reads the state and then hits.
#[test]
fn coherence_flips_against_hits() {
    model(|| {
        let users: Coherent<BoundedMap<u64>> = Coherent::new(BoundedMap::new(2));
        let target = Target::from(&users);
        let driver = target.attach(LONG).unwrap();
        driver.recover(Reason::Joined, None).unwrap();
        let stored =
            block_on(users.get_or_load(ID, || future::ready(Ok::<_, Infallible>(Some(OLD)))));
        assert_eq!(stored.unwrap(), Some(OLD));
        let doubted = Arc::new(AtomicU64::new(0));
        let flipping = thread::spawn({
            let doubted = doubted.clone();
            move || {
                driver.doubt();
                doubted.store(1, Release);
                driver.recover(Reason::Reconnected, None).unwrap();
                driver
            }
        });
        let before = doubted.load(Acquire);
        let state = users.coherence();
        let hit = users.get(ID);
        if before == 1 || state == Coherence::Suspect {
            assert_eq!(hit, None);
        }
        let _driver = flipping.join().unwrap();
        assert_eq!(users.coherence(), Coherence::Coherent);
        assert_eq!(users.get(ID), None);
    });
}

/// Property: what was loaded while a drop could be missed is not served once the node is coherent.
/// Two threads: a load in doubt, and a recovery after a change that nobody told of.
#[test]
fn what_doubt_loaded_is_not_served_as_coherent() {
    model(|| {
        let users: Coherent<BoundedMap<u64>> = Coherent::new(BoundedMap::new(2));
        let row = Arc::new(AtomicU64::new(OLD));
        let driver = Target::from(&users).attach(LONG).unwrap();
        let loading = thread::spawn({
            let (users, row) = (users.clone(), row.clone());
            move || {
                let load = || future::ready(Ok::<_, Infallible>(Some(row.load(Relaxed))));
                block_on(users.get_or_load(ID, load)).unwrap()
            }
        });
        row.store(NEW, Relaxed);
        driver.recover(Reason::Joined, None).unwrap();
        loading.join().unwrap();
        assert_eq!(users.coherence(), Coherence::Coherent);
        assert_ne!(users.get(ID), Some(Some(OLD)));
    });
}

/// Property: a fence that ends coherent was cleared after the doubt. Two threads: a recovery and a
/// doubt; whoever doubts has seen something before. Either is begun first, since the checker looks
/// back no further than the last access to a location.
#[test]
fn a_doubt_is_not_lost_to_a_recovery() {
    for doubt_first in [false, true] {
        model(move || {
            let doubted = Arc::new(AtomicU64::new(0));
            let cleared_after = Arc::new(AtomicU64::new(0));
            let target = Target::new({
                let (doubted, cleared_after) = (doubted.clone(), cleared_after.clone());
                move |_: Invalidation<'_>| cleared_after.store(doubted.load(Relaxed), Relaxed)
            });
            let driver = Arc::new(target.attach(LONG).unwrap());
            let doubt = {
                let driver = driver.clone();
                move || {
                    doubted.store(1, Relaxed);
                    driver.doubt();
                }
            };
            let recover = {
                let driver = driver.clone();
                move || {
                    let _doubted = driver.recover(Reason::Joined, None);
                }
            };
            let other = if doubt_first {
                let other = thread::spawn(recover);
                doubt();
                other
            } else {
                let other = thread::spawn(doubt);
                recover();
                other
            };
            other.join().unwrap();
            if driver.coherence() == Coherence::Coherent {
                assert_eq!(cleared_after.load(Relaxed), 1);
            }
        });
    }
}

/// Property: who reads `Coherent` finds nothing in the cache that the recovery dropped, even without
/// a look at stamps. Two threads.
#[test]
fn who_reads_coherent_finds_the_cache_cleared() {
    model(|| {
        let slot = Arc::new(AtomicU64::new(OLD));
        let target = Target::new({
            let slot = slot.clone();
            move |_: Invalidation<'_>| slot.store(EMPTY, Relaxed)
        });
        let fence = target.fence().clone();
        let driver = target.attach(LONG).unwrap();
        let reading = thread::spawn(move || {
            if fence.coherence() == Coherence::Coherent {
                assert_eq!(slot.load(Relaxed), EMPTY);
            }
        });
        driver.recover(Reason::Joined, None).unwrap();
        reading.join().unwrap();
    });
}

/// Property: of two drivers, one after the other, the second's lease holds. Two threads.
#[test]
fn the_last_driver_sets_the_lease() {
    model(|| {
        let target = Target::new(|_: Invalidation<'_>| ());
        let fence = target.fence().clone();
        let leaving = thread::spawn({
            let target = target.clone();
            move || drop(target.attach(Duration::ZERO))
        });
        let second = target.attach(LONG);
        leaving.join().unwrap();
        if second.is_ok() {
            let stamp = fence.token(ID).store(|stamp| stamp).unwrap();
            assert!(fence.serves(&stamp));
        }
    });
}

/// Property: a caller who came after an invalidation is not given what was read before it, by the
/// cache or by another caller's load. Three threads: two callers of one id, and a writer who calls
/// after it.
#[test]
fn two_loads_of_one_id_against_an_invalidation() {
    model(|| {
        let users: Coherent<BoundedMap<u64>> = Coherent::new(BoundedMap::new(2));
        let row = Arc::new(AtomicU64::new(OLD));
        let call = {
            let (users, row) = (users.clone(), row.clone());
            move || {
                let load = || future::ready(Ok::<_, Infallible>(Some(row.load(Relaxed))));
                block_on(users.get_or_load(ID, load)).unwrap()
            }
        };
        let callers = [thread::spawn(call.clone()), thread::spawn(call.clone())];
        row.store(NEW, Relaxed);
        users.invalidate(ID);
        assert_eq!(call(), Some(NEW));
        for caller in callers {
            assert!(caller.join().unwrap().is_some());
        }
        assert_ne!(users.get(ID), Some(Some(OLD)));
        let stats = users.stats();
        assert_eq!((stats.loading, stats.waiting), (0, 0));
    });
}

/// Property: who waits for a leader that leaves is woken and loads for himself. Two threads: a caller
/// that gives up after its first poll, and one that stays.
#[test]
fn an_abandoned_flight_wakes_who_waits() {
    model(|| {
        let users: Coherent<BoundedMap<u64>> = Coherent::new(BoundedMap::new(2));
        let leaving = thread::spawn({
            let users = users.clone();
            move || {
                let mut load = Box::pin(
                    users.get_or_load(ID, future::pending::<Result<Option<u64>, Infallible>>),
                );
                let _pending = load.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            }
        });
        let load = || future::ready(Ok::<_, Infallible>(Some(NEW)));
        assert_eq!(block_on(users.get_or_load(ID, load)).unwrap(), Some(NEW));
        leaving.join().unwrap();
        assert_eq!(users.stats().loading, 0);
    });
}

/// Property: who takes over from a leader that leaves does so with a new token: after an invalidation
/// he came after he gets, and keeps, the new value. Three threads: one leaves, one stays, one writes
/// and then calls.
#[test]
fn an_abandoned_flight_against_an_invalidation() {
    model(|| {
        let users: Coherent<BoundedMap<u64>> = Coherent::new(BoundedMap::new(2));
        let row = Arc::new(AtomicU64::new(OLD));
        let leaving = thread::spawn({
            let users = users.clone();
            move || {
                let mut load = Box::pin(
                    users.get_or_load(ID, future::pending::<Result<Option<u64>, Infallible>>),
                );
                let _pending = load.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            }
        });
        let call = {
            let (users, row) = (users.clone(), row.clone());
            move || {
                let load = || future::ready(Ok::<_, Infallible>(Some(row.load(Relaxed))));
                block_on(users.get_or_load(ID, load)).unwrap()
            }
        };
        let staying = thread::spawn(call.clone());
        row.store(NEW, Relaxed);
        users.invalidate(ID);
        assert_eq!(call(), Some(NEW));
        leaving.join().unwrap();
        assert!(staying.join().unwrap().is_some());
        assert_ne!(users.get(ID), Some(Some(OLD)));
        assert_eq!(users.stats().loading, 0);
    });
}

/// Property: the one permit comes round, also when who was granted it has left. Two threads and two
/// ids: a caller that gives up after its first poll, and one that stays.
#[test]
fn a_permit_comes_round() {
    model(|| {
        let users: Coherent<BoundedMap<u64>> = Builder::new().loads(1).build(BoundedMap::new(2));
        let leaving = thread::spawn({
            let users = users.clone();
            move || {
                let mut load = Box::pin(
                    users.get_or_load("other", future::pending::<Result<Option<u64>, Infallible>>),
                );
                let _pending = load.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            }
        });
        let load = || future::ready(Ok::<_, Infallible>(Some(NEW)));
        assert_eq!(block_on(users.get_or_load(ID, load)).unwrap(), Some(NEW));
        leaving.join().unwrap();
        let stats = users.stats();
        assert_eq!((stats.loading, stats.waiting), (0, 0));
    });
}

#[test]
fn every_mutant_is_caught() {
    if faulted() {
        return;
    }
    assert_listed(KILLS, FAULTS);
    assert_killed(KILLS);
}
