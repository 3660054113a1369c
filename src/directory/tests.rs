//! The directory as a whole, single-threaded and side by side with a plain map.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::RwLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwapAny;
use proptest::prelude::*;

use super::snapshot::Snapshot;
use super::*;

/// A value that is counted while it lives.
pub(super) struct Topic {
    pub(super) key: String,
    alive: Arc<AtomicUsize>,
}

impl Topic {
    pub(super) fn new(key: &str, alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::Relaxed);
        Self {
            key: key.to_owned(),
            alive: Arc::clone(alive),
        }
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // Caught by the counts: a value that is freed twice, or read when it is gone.
        self.key.clear();
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Keyed for Topic {
    fn key(&self) -> &str {
        &self.key
    }
}

type Rw<V> = ArcSwapAny<Option<Snapshot<V>>, RwLock<()>>;

fn insert<C: SnapshotCell<Topic>>(
    directory: &Directory<Topic, C>,
    hash: KeyHash,
    key: &str,
    alive: &Arc<AtomicUsize>,
) -> bool {
    let mut made = false;
    let make = |memory: &mut Memory<'_>| {
        made = true;
        Ok::<_, Infallible>(Shared::new_in(memory, Topic::new(key, alive)))
    };
    let Ok(()) = directory.get_or_insert_with(hash, key, make, |it| assert_eq!(it.key, key));
    made
}

fn has<C: SnapshotCell<Topic>>(directory: &Directory<Topic, C>, hash: KeyHash, key: &str) -> bool {
    let found = directory
        .get(hash, key, |it| assert_eq!(it.key, key))
        .is_some();
    assert!(directory.may_contain(hash) || !found);
    found
}

#[test]
fn hints_name_the_values_that_are_there() {
    let hasher = Hasher::with_seed(1);
    let directory = Directory::<Topic>::new();
    let alive = Arc::default();
    let hashes: Vec<_> = (0..9_000)
        .map(|n| format!("order/{n}"))
        .map(|key| (hasher.hash(&key), key))
        .collect();
    for (hash, key) in &hashes {
        assert!(insert(&directory, *hash, key, &alive));
    }
    assert!(directory.is_large(), "as tests have it");
    let hinted_there = || {
        let (mut hinted, mut near, mut there) = (0, 0, 0);
        for (hash, key) in &hashes {
            let Some(value) = directory.get(*hash, key, |it| Shared::as_ptr(it).addr().get())
            else {
                continue;
            };
            there += 1;
            let stripe = directory.stripe(*hash);
            let Some((line, is_near)) = stripe.hinted(hash.fingerprint(), value) else {
                continue;
            };
            near += usize::from(is_near);
            // Two keys of one tag have one place, and there is not one for each key of the fullest buckets.
            let first = (value - 2 * size_of::<usize>()) / 64 * 64;
            hinted += usize::from(is_near && line == Some(first));
        }
        (hinted, near, there)
    };
    let all = hinted_there();
    for (hash, key) in hashes.iter().step_by(3) {
        assert!(directory.remove_if(*hash, key, |_| true));
    }
    let rest = hinted_there();
    assert_eq!((all.2, rest.2), (9_000, 6_000));
    let works = crate::sync::prefetch::WORKS;
    for (hinted, near, _) in [all, rest] {
        let nearly_all = hinted >= near * 85 / 100;
        assert!(nearly_all || !works, "{hinted} of {near}");
    }
}

#[test]
fn every_key_is_found_and_no_other() {
    let directory = Directory::<Topic>::new();
    let hasher = Hasher::random();
    let alive = Arc::new(AtomicUsize::new(0));
    let key = |i: usize| format!("key-{i}");
    for i in 0..20_000 {
        assert!(insert(&directory, hasher.hash(&key(i)), &key(i), &alive));
        assert!(!insert(&directory, hasher.hash(&key(i)), &key(i), &alive));
    }
    assert_eq!(directory.len(), 20_000);
    let mut wrong_tags = 0;
    for i in 0..20_000 {
        assert!(has(&directory, hasher.hash(&key(i)), &key(i)), "{i}");
        let absent = key(i + 20_000);
        assert!(!has(&directory, hasher.hash(&absent), &absent));
        wrong_tags += usize::from(directory.may_contain(hasher.hash(&absent)));
    }
    // About 2.5 tags a word, of 254.
    assert!(
        wrong_tags < 400,
        "{wrong_tags} of 20,000 misses looked further"
    );
    for i in (0..20_000).step_by(2) {
        let hash = hasher.hash(&key(i));
        assert!(!directory.remove_if(hash, &key(i), |_| false));
        assert!(directory.remove_if(hash, &key(i), |it| it.key == key(i)));
        assert!(!directory.remove_if(hash, &key(i), |_| true));
    }
    for i in 0..20_000 {
        assert_eq!(
            has(&directory, hasher.hash(&key(i)), &key(i)),
            i % 2 == 1,
            "{i}"
        );
    }
    assert_eq!(directory.len(), 10_000);
    assert_eq!(
        alive.load(Ordering::Relaxed),
        10_000,
        "removed values are gone"
    );
    let mut seen = 0;
    directory.for_each(|_| seen += 1);
    assert_eq!(seen, 10_000);
    drop(directory);
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

/// Hashes that collide in everything but a few bits.
fn crowded() -> impl Strategy<Value = KeyHash> {
    (0..3_u64, 0..4_u64, 0..40_u64).prop_map(|(stripe, word, low)| {
        KeyHash::from_bits((stripe << 42) | (word << 30) | ((low / 10) << 8) | (low % 10))
    })
}

#[derive(Clone, Debug)]
enum Step {
    Insert(KeyHash, u8),
    Remove(KeyHash, u8),
    Get(KeyHash, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..3, crowded(), 0..3_u8).prop_map(|(what, hash, name)| match what {
        0 => Step::Insert(hash, name),
        1 => Step::Remove(hash, name),
        _ => Step::Get(hash, name),
    });
    prop::collection::vec(step, 0..800)
}

fn agrees_with_a_map<C: SnapshotCell<Topic>>(steps: Vec<Step>) {
    let directory = Directory::<Topic, C>::with_cells();
    let alive = Arc::new(AtomicUsize::new(0));
    let mut map = HashMap::new();
    for step in steps {
        // The key tells the hash, as with a hasher.
        let name = |hash: KeyHash, name: u8| format!("{hash:?}{name}");
        match step {
            Step::Insert(hash, n) => {
                let new = map.insert(name(hash, n), hash).is_none();
                assert_eq!(insert(&directory, hash, &name(hash, n), &alive), new);
            }
            Step::Remove(hash, n) => {
                let there = map.remove(&name(hash, n)).is_some();
                assert_eq!(directory.remove_if(hash, &name(hash, n), |_| true), there);
            }
            Step::Get(hash, n) => {
                let there = map.contains_key(&name(hash, n));
                assert_eq!(has(&directory, hash, &name(hash, n)), there);
            }
        }
        assert_eq!(directory.len(), map.len());
    }
    for (key, hash) in &map {
        assert!(has(&directory, *hash, key));
    }
    let mut all = Vec::new();
    directory.for_each(|it| all.push(it.key.clone()));
    all.sort_unstable();
    let mut expected: Vec<_> = map.into_keys().collect();
    expected.sort_unstable();
    assert_eq!(all, expected);
    directory.collect();
    assert_eq!(alive.load(Ordering::Relaxed), expected.len());
    drop(directory);
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn agrees_with_a_map_by_default(steps in steps()) {
        agrees_with_a_map::<DefaultCell<Topic>>(steps);
    }

    #[test]
    fn agrees_with_a_map_under_a_lock(steps in steps()) {
        agrees_with_a_map::<Rw<Topic>>(steps);
    }
}

#[test]
fn a_value_that_is_being_read_outlives_its_removal() {
    let directory = Directory::<Topic>::new();
    let alive = Arc::new(AtomicUsize::new(0));
    let hash = |low: u64| KeyHash::from_bits(low);
    insert(&directory, hash(1), "a", &alive);
    insert(&directory, hash(2), "b", &alive);
    directory.get(hash(1), "a", |a| {
        assert!(directory.remove_if(hash(2), "b", |_| true));
        assert!(directory.remove_if(hash(1), "a", |_| true));
        assert!(!has(&directory, hash(1), "a"));
        // Both are in the snapshot that this closure reads.
        assert_eq!(alive.load(Ordering::Relaxed), 2);
        assert_eq!(a.key, "a");
        // One that is not in it comes and goes at once.
        insert(&directory, hash(3), "c", &alive);
        assert!(directory.remove_if(hash(3), "c", |_| true));
        assert_eq!(alive.load(Ordering::Relaxed), 2);
    });
    assert_eq!(alive.load(Ordering::Relaxed), 2, "a reader frees nothing");
    directory.collect();
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[test]
fn the_next_writer_gives_back_what_a_reader_held() {
    let directory = Directory::<Topic>::new();
    let alive = Arc::new(AtomicUsize::new(0));
    let (a, b) = (KeyHash::from_bits(1), KeyHash::from_bits(2));
    insert(&directory, a, "a", &alive);
    directory.get(a, "a", |_| assert!(directory.remove_if(a, "a", |_| true)));
    assert_eq!(alive.load(Ordering::Relaxed), 1);
    insert(&directory, b, "b", &alive);
    assert_eq!(alive.load(Ordering::Relaxed), 1, "b alone");
    directory.get(b, "b", |_| assert!(directory.remove_if(b, "b", |_| true)));
    assert!(!directory.remove_if(b, "b", |_| true));
    assert_eq!(
        alive.load(Ordering::Relaxed),
        1,
        "nothing was removed, nothing was looked for"
    );
    directory.collect();
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[test]
fn a_reader_that_stalls_holds_back_its_bucket_alone() {
    let directory = Directory::<Topic>::new();
    let alive = Arc::new(AtomicUsize::new(0));
    insert(&directory, KeyHash::from_bits(1), "a", &alive);
    directory.get(KeyHash::from_bits(1), "a", |_| {
        for i in 0..10_000_u64 {
            let (hash, key) = (KeyHash::from_bits(i << 8 & 0xff00), i.to_string());
            insert(&directory, hash, &key, &alive);
            assert!(directory.remove_if(hash, &key, |_| true));
        }
        assert_eq!(alive.load(Ordering::Relaxed), 1);
        assert!(
            directory
                .lock_all_writers()
                ._guards
                .iter()
                .map(|it| it.graveyard.len())
                .sum::<usize>()
                <= 1
        );
    });
}

#[test]
fn readers_need_no_writers_lock() {
    let directory = Directory::<Topic>::new();
    let alive = Arc::new(AtomicUsize::new(0));
    insert(&directory, KeyHash::from_bits(1), "a", &alive);
    let _locked = directory.lock_all_writers();
    assert!(has(&directory, KeyHash::from_bits(1), "a"));
    assert!(!has(&directory, KeyHash::from_bits(2), "b"));
    directory.prefetch(&[1, 2].map(KeyHash::from_bits));
    assert_eq!(directory.len(), 1);
}

#[test]
fn a_refused_insert_leaves_nothing() {
    let directory = Directory::<Topic>::new();
    let alive = Arc::new(AtomicUsize::new(0));
    let hash = KeyHash::from_bits(1);
    let refused = directory.get_or_insert_with(hash, "a", |_: &mut Memory<'_>| Err("full"), |_| ());
    assert_eq!(refused, Err("full"));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let make = |memory: &mut Memory<'_>| {
            Ok::<_, Infallible>(Shared::new_in(memory, Topic::new("a", &alive)))
        };
        directory.get_or_insert_with(hash, "a", make, |_| panic!("on purpose"))
    }));
    assert!(panicked.is_err());
    assert_eq!((directory.len(), alive.load(Ordering::Relaxed)), (0, 0));
    assert!(!has(&directory, hash, "a"));
    assert!(
        insert(&directory, hash, "a", &alive),
        "the lock is free again"
    );
}

#[test]
fn it_is_send_and_sync_as_its_values_are() {
    fn both<T: Send + Sync>() {}
    both::<Directory<Topic>>();
}

#[test]
fn a_large_one_lies_in_blocks_and_leaves_nothing() {
    // More than fit into the segments that are allocated one by one.
    const KEYS: usize = 120_000;
    let alive = Arc::new(AtomicUsize::new(0));
    let directory = Directory::<Topic>::new();
    let hasher = Hasher::with_seed(7);
    let names: Vec<_> = (0..KEYS).map(|key| format!("key/{key}")).collect();
    for name in &names {
        assert!(insert(&directory, hasher.hash(name), name, &alive));
    }
    let mut in_blocks = [0; 3];
    for name in &names {
        let hash = hasher.hash(name);
        let at = directory.get(hash, name, |it| {
            assert_eq!(it.key, *name);
            Shared::as_ptr(it).addr().get()
        });
        let stripe = directory.stripe(hash);
        let found = stripe.are_in_blocks(hash.fingerprint(), at.expect("it is there"));
        for (count, is) in in_blocks.iter_mut().zip(found) {
            *count += usize::from(is);
        }
    }
    // Not the buckets of the first segments, nor what was there before there were enough, and stayed.
    let [buckets, snapshots, values] = in_blocks;
    assert!(buckets > KEYS / 20, "{buckets} keys");
    assert!(snapshots > KEYS * 99 / 100, "{snapshots} keys");
    assert!(values > KEYS / 2, "{values} keys");
    let bytes = directory.stripes[0].block_bytes();
    for name in names.iter().step_by(2) {
        assert!(directory.remove_if(hasher.hash(name), name, |_| true));
        assert!(insert(&directory, hasher.hash(name), name, &alive));
    }
    let after = directory.stripes[0].block_bytes();
    // One block more, and what nobody uses again.
    let limit = if cfg!(afterwrite_asan) {
        8 * bytes
    } else {
        bytes + (4 << 20)
    };
    assert!(after <= limit, "{bytes} bytes became {after}");
    for name in &names {
        assert!(directory.remove_if(hasher.hash(name), name, |_| true));
    }
    assert_eq!((directory.len(), alive.load(Ordering::Relaxed)), (0, 0));
}
