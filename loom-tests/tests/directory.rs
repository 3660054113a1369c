//! The directory: growth, insert, remove and look-up against each other.
//!
//! One stripe, two tags a word, a split as soon as there are more than two keys a bucket; arc-swap
//! is an atomic pointer that frees nothing before the end, so what is proved is the directory's
//! own protocol. At most three threads; preemption bound 2, or `LOOM_MAX_PREEMPTIONS`.
#![cfg(afterwrite_loom)]

use afterwrite::directory_models::{Key, Model, faults};
use afterwrite_loom_tests::{assert_killed, assert_listed, faulted, model, passes};
use loom::sync::Arc;
use loom::thread;

/// Both go to bucket 0 of one; of two, `EVEN` and its like stay there, `ODD` and its like move.
const EVEN: Key = Key::new("even", 0b00, 10);
const ODD: Key = Key::new("odd", 0b01, 11);
/// Of three buckets, the last.
const TWO: Key = Key::new("two", 0b10, 12);
const FOUR: Key = Key::new("four", 0b100, 13);
/// Like `EVEN` in all but its name.
const EVEN_TWIN: Key = Key::new("even's twin", 0b00, 10);

/// Property: a split hides no key, neither before it, nor during, nor after. Two threads.
#[test]
fn growth_hides_no_key() {
    model(|| {
        let directory = Arc::new(Model::new(&[EVEN, ODD]));
        let writer = {
            let directory = Arc::clone(&directory);
            thread::spawn(move || directory.insert(TWO, 0))
        };
        assert!(directory.has(ODD));
        assert!(directory.has(EVEN));
        writer.join().unwrap();
        assert!(directory.has(ODD) && directory.has(EVEN) && directory.has(TWO));
        assert_eq!(directory.keys(), 3);
    });
}

/// Property: the tags alone never deny a key that a split moves. Two threads.
#[test]
fn growth_hides_no_tag() {
    model(|| {
        let directory = Arc::new(Model::new(&[EVEN, ODD]));
        let writer = {
            let directory = Arc::clone(&directory);
            thread::spawn(move || directory.insert(TWO, 0))
        };
        assert!(directory.may_contain(ODD));
        assert!(directory.may_contain(EVEN));
        writer.join().unwrap();
    });
}

/// Property: a key whose insert returned is found at once, also while another thread's insert
/// splits its bucket and moves it. Two threads.
#[test]
fn an_insert_that_returned_is_found() {
    model(|| {
        // Two buckets, room for one more; the fifth key splits bucket 0 and moves `TWO`.
        let directory = Arc::new(Model::new(&[EVEN, ODD, FOUR]));
        let writer = {
            let directory = Arc::clone(&directory);
            thread::spawn(move || {
                directory.insert(EVEN_TWIN, 0);
                assert!(directory.has(EVEN_TWIN));
            })
        };
        directory.insert(TWO, 0);
        assert!(directory.has(TWO));
        assert!(directory.may_contain(TWO));
        writer.join().unwrap();
        assert_eq!(directory.keys(), 5);
    });
}

/// Property: a key that was pinned under the lock stays, whoever removes what is not pinned. Two
/// threads.
#[test]
fn a_pinned_key_is_not_removed() {
    model(|| {
        let directory = Arc::new(Model::new(&[EVEN]));
        let remover = {
            let directory = Arc::clone(&directory);
            thread::spawn(move || directory.remove_unpinned(EVEN))
        };
        directory.insert(EVEN, 1);
        assert!(directory.has(EVEN));
        remover.join().unwrap();
        assert!(directory.has(EVEN));
        assert!(!directory.remove_unpinned(EVEN));
        assert_eq!(directory.keys(), 1);
    });
}

/// Property: whoever finds a pinned key finds it again, also while the insert that pinned it is under
/// way and the reader still holds a tag from before a removal. Two threads.
#[test]
fn what_was_found_pinned_is_found_again() {
    model(|| {
        let directory = Arc::new(Model::new(&[EVEN]));
        let writer = {
            let directory = Arc::clone(&directory);
            thread::spawn(move || {
                assert!(directory.remove_unpinned(EVEN));
                directory.insert(EVEN, 1);
            })
        };
        if directory.has_pinned(EVEN) {
            assert!(directory.has(EVEN));
        }
        writer.join().unwrap();
        assert!(directory.has_pinned(EVEN));
    });
}

/// Property: a removed key does not come back, and its neighbour with the same tag is always found.
/// Two threads.
#[test]
fn a_removal_is_seen_once_and_for_all() {
    model(|| {
        let directory = Arc::new(Model::new(&[EVEN, EVEN_TWIN]));
        let remover = {
            let directory = Arc::clone(&directory);
            thread::spawn(move || assert!(directory.remove_unpinned(EVEN)))
        };
        let first = directory.has(EVEN);
        let second = directory.has(EVEN);
        assert!(first || !second);
        assert!(directory.has(EVEN_TWIN));
        remover.join().unwrap();
        assert!(!directory.has(EVEN));
    });
}

/// Property: a remove, an insert that splits, and a reader at once; each key is there or not as its
/// own writer left it. Three threads.
#[test]
fn a_removal_and_growth_keep_apart() {
    model(|| {
        // The fifth key splits, whether it comes before or after the removal of one.
        let directory = Arc::new(Model::new(&[EVEN, ODD, FOUR]));
        let remover = {
            let directory = Arc::clone(&directory);
            thread::spawn(move || {
                assert!(directory.remove_unpinned(EVEN));
                assert!(!directory.has(EVEN));
            })
        };
        let grower = {
            let directory = Arc::clone(&directory);
            thread::spawn(move || {
                directory.insert(TWO, 0);
                directory.insert(EVEN_TWIN, 0);
            })
        };
        assert!(directory.has(FOUR));
        remover.join().unwrap();
        grower.join().unwrap();
        assert!(!directory.has(EVEN) && directory.has(FOUR) && directory.has(TWO));
    });
}

/// Each planted fault, and the model that it fails.
const FAULTS: &[(&str, &str)] = &[
    ("directory.buckets_publish", "growth_hides_no_key"),
    ("directory.buckets_load", "growth_hides_no_key"),
    ("directory.word_publish", "growth_hides_no_tag"),
    ("directory.word_load", "growth_hides_no_tag"),
    ("directory.cell_swap", "growth_hides_no_key"),
    ("directory.cell_load", "growth_hides_no_key"),
    ("directory.source_first", "growth_hides_no_key"),
    ("directory.no_second_look", "growth_hides_no_key"),
    (
        "directory.snapshot_first",
        "what_was_found_pinned_is_found_again",
    ),
    ("directory.remove_unasked", "a_pinned_key_is_not_removed"),
];

/// The models can fail: each planted fault is found, and one that no code knows changes nothing.
#[test]
fn every_planted_fault_is_found() {
    if faulted() {
        return;
    }
    assert_listed(FAULTS, &faults());
    assert_killed(FAULTS);
    assert!(passes("growth_hides_no_key", Some("directory.none")));
}
