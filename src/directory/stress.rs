//! Readers against writers, over many short-lived directories, with each of arc-swap's strategies.
//!
//! Each key has one writer, who announces what it did, so that a reader knows what it must find, and
//! so that what is left in the end does not depend on who came first: it is compared with a plain
//! set, and between the strategies. `AFTERWRITE_STRESS` multiplies the number of directories.
//!
//! ThreadSanitizer sees no fences, such as the one in `Arc`'s drop, and with a ready-made standard library no
//! join of threads: for it there are readers that take no handles, and a last word of each thread.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::hint::black_box;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use arc_swap::ArcSwapAny;
#[allow(deprecated, reason = "there for tests, and this is one")]
use arc_swap::strategy::test_strategies::FillFastSlots;

use super::snapshot::Snapshot;
use super::*;

const KEYS: usize = 64;
const WRITERS: usize = 2;
const READERS: usize = 2;
const STEPS: usize = 400;

const ALIVE: u64 = 0x600d_600d_600d_600d;

type With<S> = ArcSwapAny<Option<Snapshot<Value>>, S>;

/// A value that knows whether it is alive.
struct Value {
    key: String,
    state: AtomicU64,
    count: Arc<AtomicUsize>,
}

impl Value {
    fn check(&self, key: &str) {
        assert_eq!(
            self.state.load(Ordering::Relaxed),
            ALIVE,
            "read after it was freed"
        );
        assert_eq!(self.key, key);
    }
}

impl Keyed for Value {
    fn key(&self) -> &str {
        &self.key
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        assert_eq!(self.state.swap(0, Ordering::Relaxed), ALIVE, "freed twice");
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the writer of a key says of it: an odd number while it is there, an even one while it is
/// not, and nothing while that changes.
struct Announced(AtomicU64);

impl Announced {
    const CHANGING: u64 = u64::MAX;

    fn changed(&self, there: bool, step: usize) {
        let said = step as u64 * 2 + u64::from(there);
        self.0.store(said, Ordering::Release);
    }
}

/// Few stripes, few buckets, few tags.
fn hash(key: usize) -> KeyHash {
    let key = key as u64;
    let (stripe, half) = (key % 2, key / 2);
    KeyHash::from_bits((stripe << 42) | ((half % 3) << 30) | (half << 8) | (key % 5))
}

fn random(state: &mut u64) -> usize {
    // Marsaglia, "Xorshift RNGs" (2003).
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 16) as usize
}

/// One directory's life; what is left at its end.
fn one_life<C>(seed: u64, handles: bool) -> BTreeSet<String>
where
    C: SnapshotCell<Value> + Send + Sync,
{
    let directory = Directory::<Value, C>::with_cells();
    let count = Arc::new(AtomicUsize::new(0));
    let announced: Vec<_> = (0..KEYS).map(|_| Announced(AtomicU64::new(0))).collect();
    let names: Vec<_> = (0..KEYS).map(|key| format!("key {key}")).collect();
    let writing = AtomicUsize::new(WRITERS);
    let running = AtomicUsize::new(WRITERS + READERS);

    let write = |writer: usize| {
        let mut state = seed.wrapping_mul(WRITERS as u64) + writer as u64 + 1;
        let mut mine = BTreeSet::new();
        for step in 1..=STEPS {
            let key = random(&mut state) % (KEYS / WRITERS) * WRITERS + writer;
            let name = names[key].as_str();
            announced[key]
                .0
                .store(Announced::CHANGING, Ordering::Relaxed);
            let there = random(&mut state) % 5 < 3;
            if there {
                let make = |memory: &mut Memory<'_>| {
                    count.fetch_add(1, Ordering::Relaxed);
                    let value = Value {
                        key: name.to_owned(),
                        state: AtomicU64::new(ALIVE),
                        count: Arc::clone(&count),
                    };
                    Ok::<_, Infallible>(Shared::new_in(memory, value))
                };
                let check = |value: &Shared<Value>| value.check(name);
                let Ok(()) = directory.get_or_insert_with(hash(key), name, make, check);
                mine.insert(name.to_owned());
            } else {
                let removed = directory.remove_if(hash(key), name, |value| {
                    value.check(name);
                    true
                });
                assert_eq!(removed, mine.remove(name));
            }
            announced[key].changed(there, step);
        }
        writing.fetch_sub(1, Ordering::Release);
        running.fetch_sub(1, Ordering::Release);
        mine
    };

    let read = |reader: usize| {
        let mut state = seed
            .wrapping_add(reader as u64 + 1)
            .wrapping_mul(0x9e37_79b9)
            | 1;
        while writing.load(Ordering::Acquire) != 0 {
            let key = random(&mut state) % KEYS;
            let name = names[key].as_str();
            let before = announced[key].0.load(Ordering::Acquire);
            let got = directory.get(hash(key), name, |value| {
                for _ in 0..random(&mut state) % 64 {
                    black_box(value).check(name);
                }
                // A reader may also take a handle along, and be the last to have it.
                (handles && random(&mut state).is_multiple_of(4)).then(|| Shared::clone(value))
            });
            let after = announced[key].0.load(Ordering::Acquire);
            if before == after && before != Announced::CHANGING {
                assert_eq!(got.is_some(), before % 2 == 1, "{name}");
            }
            if let Some(Some(value)) = got {
                value.check(name);
            }
        }
        running.fetch_sub(1, Ordering::Release);
    };

    let mut left = BTreeSet::new();
    thread::scope(|scope| {
        let read = &read;
        let readers: Vec<_> = (0..READERS)
            .map(|reader| scope.spawn(move || read(reader)))
            .collect();
        let write = &write;
        let writers = [0, 1].map(|writer| scope.spawn(move || write(writer)));
        for writer in writers {
            left.extend(writer.join().expect("a writer's checks hold"));
        }
        // By name: the end of a scope is nothing that ThreadSanitizer sees.
        for reader in readers {
            reader.join().expect("a reader's checks hold");
        }
    });

    assert_eq!(running.load(Ordering::Acquire), 0);
    let mut seen = BTreeSet::new();
    directory.for_each(|value| assert!(seen.insert(value.key.clone())));
    assert_eq!(seen, left);
    assert_eq!(directory.len(), left.len());
    directory.collect();
    assert_eq!(count.load(Ordering::Relaxed), left.len());
    drop(directory);
    assert_eq!(count.load(Ordering::Relaxed), 0);
    left
}

fn lives<C>(handles: bool) -> Vec<BTreeSet<String>>
where
    C: SnapshotCell<Value> + Send + Sync,
{
    let times = (std::env::var("AFTERWRITE_STRESS").ok()).and_then(|it| it.parse().ok());
    let lives = 60 * times.unwrap_or(1_u64);
    (1..=lives)
        .map(|seed| one_life::<C>(seed, handles))
        .collect()
}

#[allow(deprecated, reason = "there for tests, and this is one")]
fn every_strategy_leaves_the_same(handles: bool) {
    let default = lives::<DefaultCell<Value>>(handles);
    assert_eq!(default, lives::<With<RwLock<()>>>(handles));
    assert_eq!(default, lives::<With<FillFastSlots>>(handles));
}

#[test]
fn readers_that_look() {
    every_strategy_leaves_the_same(false);
}

#[test]
fn readers_that_take_handles() {
    every_strategy_leaves_the_same(true);
}
