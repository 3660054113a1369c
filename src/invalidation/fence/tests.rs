//! What needs the fence's clock or its insides. Behaviour is in `tests/fence.rs`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::invalidation::protocol::plant;

fn by_hand(fence: Fence) -> (Fence, Arc<AtomicU64>) {
    let nanos = Arc::new(AtomicU64::new(1_000_000));
    (fence.with_clock(Clock::by_hand(nanos.clone())), nanos)
}

fn stamp(fence: &Fence, id: &str) -> Stamp {
    fence.token(id).store(|stamp| stamp).unwrap()
}

#[test]
fn suspect_serves_what_it_loaded_for_one_lease_after_the_load_began() {
    let (fence, now) = by_hand(Fence::new());
    assert!(fence.attach(Duration::from_nanos(100)));
    assert!(fence.recover(None, || true));
    let older = stamp(&fence, "a");
    now.fetch_add(1_000_000, SeqCst);
    assert!(fence.serves(&older), "coherent entries do not age");

    fence.doubt();
    assert_eq!(fence.coherence(), Coherence::Suspect);
    assert!(!fence.serves(&older));

    // The lease runs from the token, not from the store.
    let token = fence.token("a");
    now.fetch_add(60, SeqCst);
    let loaded = token.store(|stamp| stamp).unwrap();
    now.fetch_add(39, SeqCst);
    assert!(fence.serves(&loaded));
    now.fetch_add(1, SeqCst);
    assert!(!fence.serves(&loaded));
}

#[test]
fn joining_leases_too_and_recovering_drops_what_was_loaded_in_doubt() {
    let (fence, now) = by_hand(Fence::new());
    let alone = stamp(&fence, "a");
    assert!(fence.attach(Duration::from_nanos(100)));
    assert_eq!(fence.coherence(), Coherence::Joining);
    assert!(!fence.serves(&alone), "loaded while nobody listened");

    let in_doubt = stamp(&fence, "a");
    let under_way = fence.token("b");
    assert!(fence.serves(&in_doubt));
    assert!(fence.recover(None, || true));
    assert!(!fence.serves(&in_doubt));
    assert_eq!(under_way.store(|_| ()), Err(Refused::Flushed));
    now.fetch_add(50, SeqCst);
    assert_eq!(fence.coherence(), Coherence::Coherent);
}

#[test]
fn what_is_loaded_while_clearing_survives_the_clearing() {
    let fence = Fence::new();
    fence.attach(Duration::from_secs(3));
    let mut during = None;
    assert!(fence.recover(None, || {
        during = Some(fence.mark("a"));
        true
    }));
    let stored = fence.store(&during.unwrap(), View::Unstated, |stamp| stamp);
    assert!(fence.serves(&stored.unwrap()));
}

#[test]
fn a_doubt_while_clearing_stands() {
    let fence = Fence::new();
    fence.attach(Duration::from_secs(3));
    assert!(!fence.recover(None, || {
        fence.doubt();
        true
    }));
    assert_eq!(fence.coherence(), Coherence::Joining);
    assert!(fence.recover(None, || true));
    assert!(
        !fence
            .flush_with(None, || {
                fence.doubt();
                ((), true)
            })
            .1
    );
    assert_eq!(fence.coherence(), Coherence::Suspect);
    assert!(
        !fence.recover(None, || false),
        "a cache that can't clear is not coherent"
    );
    assert_eq!(fence.coherence(), Coherence::Suspect);
}

#[test]
fn a_cap_change_while_clearing_is_no_doubt() {
    let fence = Fence::new();
    fence.attach(Duration::from_secs(3));
    assert!(fence.recover(None, || {
        fence.cap_age(Some(Duration::from_secs(1)));
        true
    }));
    assert_eq!(fence.coherence(), Coherence::Coherent);
}

#[test]
fn a_coherent_fence_reads_suspect_while_it_clears() {
    let fence = Fence::new();
    fence.flush(|| assert_eq!(fence.coherence(), Coherence::Standalone));
    fence.attach(Duration::from_secs(3));
    fence.flush(|| assert_eq!(fence.coherence(), Coherence::Joining));
    assert!(fence.recover(None, || true));
    fence.flush(|| assert_eq!(fence.coherence(), Coherence::Suspect));
    assert_eq!(fence.coherence(), Coherence::Coherent);
}

#[test]
fn a_fence_has_one_driver_and_is_suspect_without_it() {
    let fence = Fence::new();
    assert!(fence.attach(Duration::from_secs(3)));
    assert!(!fence.attach(Duration::from_secs(3)));
    assert!(fence.recover(None, || true));
    let older = stamp(&fence, "a");
    fence.detach();
    assert_eq!(fence.coherence(), Coherence::Suspect);
    assert!(!fence.serves(&older));
    assert!(fence.attach(Duration::from_secs(3)));
    assert_eq!(fence.coherence(), Coherence::Joining);
}

#[test]
fn the_shorter_of_two_caps_holds_for_old_entries_as_well() {
    let (fence, now) = by_hand(Fence::new().with_max_age(Duration::from_nanos(100)));
    let entry = stamp(&fence, "a");
    now.fetch_add(50, SeqCst);
    assert!(fence.serves(&entry));
    fence.cap_age(Some(Duration::from_nanos(50)));
    assert!(!fence.serves(&entry));
    fence.cap_age(None);
    assert!(fence.serves(&entry));
    now.fetch_add(50, SeqCst);
    assert!(!fence.serves(&entry), "its owner's cap remains");

    let (fence, now) = by_hand(Fence::new());
    let entry = stamp(&fence, "a");
    fence.cap_age(Some(Duration::from_nanos(50)));
    now.fetch_add(50, SeqCst);
    assert!(!fence.serves(&entry));
    fence.cap_age(None);
    assert!(fence.serves(&entry));
}

#[test]
fn settling_counts_from_the_drop_to_the_beginning_of_the_load() {
    let (fence, now) = by_hand(Fence::new().with_settle(Duration::from_nanos(100)));
    fence.invalidate("a", || ());
    now.fetch_add(99, SeqCst);
    let early = fence.token("a");
    let elsewhere = (0..)
        .map(|n: u32| n.to_string())
        .find(|id| fence.stripe_of(id) != fence.stripe_of("a"))
        .unwrap();
    assert_eq!(fence.token(&elsewhere).store(|_| ()), Ok(()));
    assert_eq!(fence.token("a").store_seen(View::Primary, |_| ()), Ok(()));
    now.fetch_add(1, SeqCst);
    // Stored late, begun early: the replica may not have had the write when it was read.
    assert_eq!(early.store(|_| ()), Err(Refused::Settling));
    assert_eq!(fence.token("a").store(|_| ()), Ok(()));

    fence.flush(|| ());
    assert_eq!(
        fence.token(&elsewhere).store(|_| ()),
        Err(Refused::Settling)
    );
    now.fetch_add(100, SeqCst);
    assert_eq!(fence.token(&elsewhere).store(|_| ()), Ok(()));
}

#[test]
fn a_position_settles_only_drops_that_carry_one() {
    let (fence, now) = by_hand(Fence::new().with_settle(Duration::from_nanos(100)));
    fence.invalidate_at("a", 7, || ());
    assert_eq!(fence.token("a").store_seen(View::At(7), |_| ()), Ok(()));
    assert_eq!(fence.token("a").store(|_| ()), Err(Refused::Settling));
    fence.invalidate("a", || ());
    assert_eq!(
        fence.token("a").store_seen(View::At(7), |_| ()),
        Err(Refused::Settling)
    );
    now.fetch_add(100, SeqCst);
    assert_eq!(fence.token("a").store_seen(View::At(7), |_| ()), Ok(()));
    assert_eq!(fence.token("a").store(|_| ()), Ok(()));
}

#[test]
fn a_floor_holds_for_every_id() {
    let fence = Fence::new();
    fence.flush_with(Some(9), || ((), true));
    for id in ["a", "b", "c"] {
        let behind = Refused::Behind {
            required: 9,
            seen: 8,
        };
        assert_eq!(fence.token(id).store_seen(View::At(8), |_| ()), Err(behind));
        assert_eq!(fence.token(id).store_seen(View::At(9), |_| ()), Ok(()));
    }
    fence.raise_floor(3);
    assert_eq!(fence.token("a").store_seen(View::At(9), |_| ()), Ok(()));
}

#[test]
fn inside_a_callback_nothing_waits_and_nothing_is_lost() {
    let fence = Fence::new();
    let entry = stamp(&fence, "other");
    fence
        .token("a")
        .store(|outer| {
            // The same lock: a drop falls back to the epoch, a store is refused.
            assert_eq!(fence.token("a").store(|_| ()), Err(Refused::Nested));
            fence.invalidate_at("a", 5, || ());
            assert!(!fence.serves(&outer));
            fence.flush(|| ());
        })
        .unwrap();
    assert!(!fence.serves(&entry));
    assert_eq!(fence.stats().refused_nested, 1);
    let behind = fence.token("a").store_seen(View::At(4), |_| ());
    assert!(matches!(behind, Err(Refused::Behind { required: 5, .. })));

    // Another lock, and nobody on it: taken as ever.
    let free = (0..)
        .map(|n: u32| n.to_string())
        .find(|id| fence.stripe_of(id) != fence.stripe_of("a"))
        .unwrap();
    let epoch = fence.epoch();
    let nested = fence
        .token("a")
        .store_seen(View::Primary, |_| fence.invalidate(&free, || ()));
    assert_eq!(nested, Ok(()));
    // What removes holds no lock at all.
    fence.invalidate("a", || fence.invalidate("a", || ()));
    let stored = fence.invalidate("a", || fence.token("a").store(|_| ()));
    assert_eq!(stored, Err(Refused::Unstated { required: 5 }));
    assert_eq!(fence.stats().refused_nested, 1);
    assert_eq!(fence.epoch(), epoch);
    fence.flush(|| fence.flush(|| fence.invalidate("a", || ())));
}

#[test]
fn a_panicking_callback_leaves_the_lock_free() {
    let fence = Fence::new();
    let thrown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = fence.token("a").store(|_| panic!("a cache's own"));
    }));
    assert!(thrown.is_err());
    assert!(!stripe::inside());
    assert_eq!(fence.token("a").store(|_| ()), Ok(()));
}

/// What can happen to two ids, one step at a time.
#[test]
fn i8_an_invalidation_waits_for_a_store_under_way() {
    let stays = |fault, patience| {
        plant(fault);
        let (fence, slot) = (&Fence::new(), &Mutex::new(None));
        let token = fence.token("a");
        thread::scope(|scope| {
            let (done, dropped) = channel();
            let stored = token.store(|stamp| {
                // Admitted, and not yet in the cache.
                scope.spawn(move || {
                    fence.invalidate("a", || *slot.lock() = None);
                    done.send(())
                });
                let overtaken = dropped.recv_timeout(patience).is_ok();
                *slot.lock() = Some(stamp);
                overtaken
            });
            assert_eq!(stored, Ok(!fault.is_empty()));
        });
        plant("");
        let kept = *slot.lock();
        kept.is_some_and(|stamp| fence.serves(&stamp))
    };
    assert!(!stays("", Duration::from_millis(50)));
    // As the model is: a test that cannot fail proves nothing.
    assert!(stays("fence_check_then_insert", Duration::from_secs(20)));
}

#[derive(Debug, Clone)]
enum Step {
    Token(usize),
    Store(usize),
    Drop(usize, Option<u64>),
    Flush,
    Doubt,
    Recover,
    Floor(u64),
    Serve(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0..2usize;
    prop_oneof![
        3 => id.clone().prop_map(Step::Token),
        3 => id.clone().prop_map(Step::Store),
        2 => (id.clone(), proptest::option::of(0..5u64)).prop_map(|(id, at)| Step::Drop(id, at)),
        1 => Just(Step::Flush),
        1 => Just(Step::Doubt),
        1 => Just(Step::Recover),
        1 => (0..5u64).prop_map(Step::Floor),
        3 => id.prop_map(Step::Serve),
    ]
}

proptest! {
    /// Against a model that keeps, for each id, when it was last dropped and last loaded, on one
    /// logical clock: an entry is served only if its load began after both the id's last drop and
    /// the last flush, and a store is admitted exactly then.
    #[test]
    fn i8_agrees_with_a_naive_model(steps in proptest::collection::vec(step(), 1..60)) {
        let fence = Fence::new();
        let ids = {
            let mut ids = (0..).map(|n: u32| n.to_string());
            let first = ids.next().unwrap();
            let second = ids.find(|id| fence.stripe_of(id) != fence.stripe_of(&first)).unwrap();
            [first, second]
        };
        fence.attach(Duration::from_secs(3_600));
        let cache: RefCell<HashMap<usize, (Stamp, u64)>> = RefCell::default();
        let (mut time, mut flushed, mut floor) = (0u64, 0u64, 0u64);
        let (mut dropped, mut position) = ([0u64; 2], [0u64; 2]);
        let mut tokens: [Option<(Mark, u64)>; 2] = [None, None];
        for step in steps {
            time += 1;
            match step {
                Step::Token(id) => tokens[id] = Some((fence.mark(&ids[id]), time)),
                Step::Store(id) => {
                    let Some((mark, began)) = tokens[id].take() else { continue };
                    let stored = fence.store(&mark, View::At(2), |stamp| {
                        cache.borrow_mut().insert(id, (stamp, began));
                    });
                    let wanted = began > dropped[id] && began > flushed
                        && position[id].max(floor) <= 2;
                    prop_assert_eq!(stored.is_ok(), wanted);
                }
                Step::Drop(id, at) => {
                    let remove = || cache.borrow_mut().remove(&id);
                    match at {
                        Some(at) => fence.invalidate_at(&ids[id], at, remove),
                        None => fence.invalidate(&ids[id], remove),
                    };
                    dropped[id] = time;
                    position[id] = position[id].max(at.unwrap_or(0));
                }
                Step::Flush => {
                    fence.flush(|| cache.borrow_mut().clear());
                    flushed = time;
                }
                Step::Doubt => {
                    // Nothing is cleared: the stamps alone have to hide what is there.
                    fence.doubt();
                    flushed = time;
                }
                Step::Recover => {
                    fence.recover(None, || true);
                    flushed = time;
                }
                Step::Floor(at) => {
                    fence.raise_floor(at);
                    floor = floor.max(at);
                }
                Step::Serve(id) => {
                    if let Some((stamp, began)) = cache.borrow().get(&id) {
                        prop_assert!(*began > dropped[id]);
                        prop_assert_eq!(fence.serves(stamp), *began > flushed);
                    }
                }
            }
        }
    }
}
