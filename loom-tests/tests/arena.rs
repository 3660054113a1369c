//! Models of the arena: a slot is one owner's at a time, a value is dropped once, after all uses, and the memory goes
//! once the last has gone.
//!
//! At most three threads; the preemption bound is 2, or what `LOOM_MAX_PREEMPTIONS` says.
#![cfg(afterwrite_loom)]

use afterwrite::arena_models::{ARENA_ROLES, Counted, Model};
use afterwrite_loom_tests::{assert_killed, assert_listed, faulted, model, weakenings};
use loom::sync::Arc;
use loom::thread;

/// Property: what was done with a slot on another thread is over before it is used again. Two threads.
#[test]
fn a_slot_that_comes_back() {
    model(|| {
        let arena = Arc::new(Model::default());
        let slot = arena.take();
        let giver = thread::spawn(move || slot.give_back());
        let next = arena.take();
        giver.join().unwrap();
        next.give_back();
        // Two at most, since one came back.
        arena.take().give_back();
        assert!(arena.slots() <= 2);
    });
}

/// Property: two that give back and one that takes: no slot is lost, none has two owners. Three threads.
#[test]
fn two_slots_that_come_back() {
    model(|| {
        let arena = Arc::new(Model::default());
        let givers =
            [arena.take(), arena.take()].map(|slot| thread::spawn(move || slot.give_back()));
        let next = arena.take();
        for giver in givers {
            giver.join().unwrap();
        }
        next.give_back();
        let all = [arena.take(), arena.take()];
        assert!(arena.slots() <= 3);
        for slot in all {
            slot.give_back();
        }
    });
}

/// Property: two that take have different slots, each of them its own. Three threads.
#[test]
fn two_that_take() {
    model(|| {
        let arena = Arc::new(Model::default());
        let takers = [0, 1].map(|_| {
            let arena = arena.clone();
            thread::spawn(move || arena.take())
        });
        let taken = takers.map(|taker| taker.join().unwrap());
        assert_eq!(arena.slots(), 2);
        for slot in taken {
            slot.give_back();
        }
    });
}

/// Property: the memory lives until the arena has gone and the last slot is back, whichever is later, and goes then.
/// Three threads.
#[test]
fn an_arena_that_goes_before_its_slots() {
    model(|| {
        let arena = Model::default();
        let givers =
            [arena.take(), arena.take()].map(|slot| thread::spawn(move || slot.give_back()));
        drop(arena);
        for giver in givers {
            giver.join().unwrap();
        }
    });
}

/// Property: a slot is used again before who gave it back has said so, and the arena goes meanwhile. Two threads.
#[test]
fn a_slot_that_is_out_again_before_it_was_counted() {
    model(|| {
        let arena = Model::default();
        let slot = arena.take();
        let giver = thread::spawn(move || slot.give_back());
        let again = arena.take();
        drop(arena);
        again.give_back();
        giver.join().unwrap();
    });
}

/// Property: slots come back with the lock and without it, and are counted once each. Two threads.
#[test]
fn one_that_gives_back_with_the_lock() {
    model(|| {
        let arena = Model::default();
        let (mine, theirs) = (arena.take(), arena.take());
        let giver = thread::spawn(move || theirs.give_back());
        arena.give_back(mine);
        let again = arena.take();
        arena.give_back(again);
        assert!(arena.slots() <= 2);
        drop(arena);
        giver.join().unwrap();
    });
}

/// Property: a value is dropped once, after all that was done with it through any handle. Three threads.
#[test]
fn a_value_that_three_have() {
    model(|| {
        let arena = Model::default();
        let value = Counted::new(&arena);
        let users = [value.clone(), value.clone()].map(|value| {
            thread::spawn(move || {
                value.look();
                drop(value);
            })
        });
        value.look();
        drop(value);
        for user in users {
            user.join().unwrap();
        }
    });
}

/// A fault, and a model that fails with it.
const FAULTS: &[(&str, &str)] = &[
    ("slot_give", "a_slot_that_comes_back"),
    ("slot_take", "a_slot_that_comes_back"),
    ("pool_settle:acquire", "an_arena_that_goes_before_its_slots"),
    ("pool_settle:release", "an_arena_that_goes_before_its_slots"),
    ("shared_drop:acquire", "a_value_that_three_have"),
    ("shared_drop:release", "a_value_that_three_have"),
];

#[test]
fn every_ordering_has_a_model_that_misses_it() {
    if faulted() {
        return;
    }
    let roles = weakenings(ARENA_ROLES);
    let roles: Vec<_> = roles.iter().map(String::as_str).collect();
    assert_listed(FAULTS, &roles);
    assert_killed(FAULTS);
}
