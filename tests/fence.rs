//! The fence by itself, beside a plain map: contract I7 and I8.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use afterwrite::invalidation::fence::{Coherence, Fence, Refused, Stamp, View};

const PATIENCE: Duration = Duration::from_secs(10);

type Map<V> = Mutex<HashMap<String, V>>;

/// A load that reads the old row, then waits until the row has changed and was invalidated.
fn race<T: Send>(load: impl FnOnce(&dyn Fn()) -> T + Send, change: impl FnOnce()) -> T {
    let (reading, has_read) = mpsc::channel();
    let (done, changed) = mpsc::channel();
    thread::scope(|scope| {
        let loading = scope.spawn(move || {
            load(&|| {
                reading.send(()).unwrap();
                changed.recv_timeout(PATIENCE).unwrap();
            })
        });
        has_read.recv_timeout(PATIENCE).unwrap();
        change();
        done.send(()).unwrap();
        loading.join().unwrap()
    })
}

#[test]
fn i8_without_a_fence_the_old_value_is_stored_after_its_invalidation() {
    let row = AtomicU64::new(1);
    let cache: Map<u64> = Mutex::default();
    race(
        |until_changed| {
            let read = row.load(SeqCst);
            until_changed();
            cache.lock().unwrap().insert("42".into(), read);
        },
        || {
            row.store(2, SeqCst);
            cache.lock().unwrap().remove("42");
        },
    );
    assert_eq!(cache.lock().unwrap().get("42"), Some(&1), "stale for good");
}

#[test]
fn i8_with_a_fence_it_is_refused() {
    let row = AtomicU64::new(1);
    let fence = Fence::new();
    let cache: Map<(Stamp, u64)> = Mutex::default();
    let stored = race(
        |until_changed| {
            let token = fence.token("42");
            let read = row.load(SeqCst);
            until_changed();
            token.store(|stamp| cache.lock().unwrap().insert("42".into(), (stamp, read)))
        },
        || {
            row.store(2, SeqCst);
            fence.invalidate("42", || cache.lock().unwrap().remove("42"));
        },
    );
    assert_eq!(stored, Err(Refused::Invalidated));
    assert!(cache.lock().unwrap().is_empty());
    assert_eq!(fence.stats().refused_invalidated, 1);
}

#[test]
fn i8_a_flush_refuses_every_load_under_way() {
    let fence = Fence::new();
    let stored = race(
        |until_changed| {
            let token = fence.token("42");
            until_changed();
            token.store(|_| ())
        },
        || fence.flush(|| ()),
    );
    assert_eq!(stored, Err(Refused::Flushed));
    assert_eq!(fence.token("42").store(|_| ()), Ok(()));
    assert_eq!(fence.stats().refused_flushed, 1);
}

#[test]
fn i8_other_ids_are_not_disturbed() {
    let fence = Fence::new();
    let ids: Vec<_> = (0..1_000).map(|id| id.to_string()).collect();
    let tokens: Vec<_> = ids.iter().map(|id| fence.token(id)).collect();
    fence.invalidate("elsewhere", || ());
    let refused = tokens
        .into_iter()
        .filter_map(|token| token.store(|_| ()).err())
        .count();
    // One lock in 1,024 is shared with it: some one of a thousand, and ten in very bad luck.
    assert!(refused < 10, "{refused} of 1,000 refused");
}

#[test]
fn i8_a_drop_waits_for_the_store_under_way_and_removes_it() {
    let fence = Fence::new();
    let cache: Map<(Stamp, u64)> = Mutex::default();
    let dropping = AtomicBool::new(false);
    thread::scope(|scope| {
        let token = fence.token("42");
        token
            .store(|stamp| {
                let (started, has_started) = mpsc::channel();
                scope.spawn(|| {
                    let started = started;
                    started.send(()).unwrap();
                    fence.invalidate("42", || cache.lock().unwrap().remove("42"));
                    dropping.store(true, SeqCst);
                });
                has_started.recv_timeout(PATIENCE).unwrap();
                cache.lock().unwrap().insert("42".into(), (stamp, 1));
                assert!(!dropping.load(SeqCst));
            })
            .unwrap();
    });
    assert!(cache.lock().unwrap().is_empty());
    assert_eq!(fence.stats().epoch, 1, "it waited, and dropped one id only");
}

#[test]
fn i8_a_view_behind_the_position_of_a_drop_is_refused() {
    let fence = Fence::new();
    fence.invalidate_at("42", 10, || ());
    fence.invalidate_at("42", 7, || ());
    let store = |view| fence.token("42").store_seen(view, |_| ());
    assert_eq!(
        store(View::At(9)),
        Err(Refused::Behind {
            required: 10,
            seen: 9
        })
    );
    assert_eq!(
        store(View::Unstated),
        Err(Refused::Unstated { required: 10 })
    );
    assert_eq!(
        fence.token("42").store(|_| ()),
        Err(Refused::Unstated { required: 10 })
    );
    assert_eq!(store(View::At(10)), Ok(()));
    assert_eq!(store(View::Primary), Ok(()));
    assert_eq!(fence.stats().refused_position, 3);
}

#[test]
fn i7_a_fence_that_nobody_drives_is_standalone() {
    let fence = Fence::default();
    assert_eq!(fence.coherence(), Coherence::Standalone);
    let stamp = fence.token("42").store(|stamp| stamp).unwrap();
    assert!(fence.serves(&stamp));
    fence.flush(|| ());
    assert!(!fence.serves(&stamp), "also where the cache kept it");
    assert_eq!(fence.coherence(), Coherence::Standalone);
}

/// Readers, loaders, a writer and a flusher on few ids. What a reader is served is never older than
/// what was invalidated before it asked.
#[test]
fn i8_nothing_served_is_older_than_an_invalidation_that_returned() {
    const IDS: usize = 3;
    const WRITES: u64 = 5_000;
    const HITS: u64 = 1_000;
    let fence = Fence::new();
    let cache: Map<(Stamp, u64)> = Mutex::default();
    let rows: [AtomicU64; IDS] = Default::default();
    let told: [AtomicU64; IDS] = Default::default();
    let over = AtomicBool::new(false);
    let hits = AtomicU64::new(0);
    let name = |id: usize| id.to_string();
    thread::scope(|scope| {
        for reader in 0..3 {
            let (fence, cache, rows, told, over, hits) =
                (&fence, &cache, &rows, &told, &over, &hits);
            scope.spawn(move || {
                let mut id = reader;
                while !over.load(SeqCst) {
                    id = (id + 1) % IDS;
                    let least = told[id].load(SeqCst);
                    let kept = cache.lock().unwrap().get(&name(id)).copied();
                    match kept {
                        Some((stamp, value)) if fence.serves(&stamp) => {
                            hits.fetch_add(1, SeqCst);
                            assert!(value >= least, "served {value}, told of {least}");
                        }
                        _ => {
                            let token = fence.token(&name(id));
                            let read = rows[id].load(SeqCst);
                            thread::yield_now();
                            let _refused = token.store(|stamp| {
                                cache.lock().unwrap().insert(name(id), (stamp, read))
                            });
                        }
                    }
                }
            });
        }
        for write in 1..=1_000 * WRITES {
            let refused = fence.stats().refused_invalidated;
            if write > WRITES && hits.load(SeqCst) >= HITS && refused > 0 {
                break;
            }
            thread::yield_now();
            let id = write as usize % IDS;
            rows[id].store(write, SeqCst);
            if write % 1_000 == 0 {
                fence.flush(|| cache.lock().unwrap().clear());
            } else {
                fence.invalidate(&name(id), || cache.lock().unwrap().remove(&name(id)));
            }
            told[id].store(write, SeqCst);
        }
        over.store(true, SeqCst);
    });
    assert!(hits.load(SeqCst) >= HITS, "proved nothing");
    assert!(fence.stats().refused_invalidated > 0, "proved nothing");
}
