//! The adapters: each cache's own way to load stores a stale value, and through the fence it does
//! not. Contract I8 and I9.
#![cfg(any(feature = "moka", feature = "quick_cache", feature = "foyer"))]

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use afterwrite::invalidation::cache::{Reason, Store};
use afterwrite::invalidation::coherent::Coherent;
use afterwrite::invalidation::fence::Coherence;
use afterwrite::invalidation::target::Target;

const PATIENCE: Duration = Duration::from_secs(10);

/// A row that changes while a load has read it and not yet answered.
struct Row {
    value: AtomicU64,
}

impl Row {
    fn new() -> Self {
        Self {
            value: AtomicU64::new(1),
        }
    }

    /// `load` is given a read of the row that takes until the row has changed and `invalidate` ran.
    fn race(&self, load: impl FnOnce(&dyn Fn() -> u64) + Send, invalidate: impl FnOnce()) {
        let (reading, has_read) = mpsc::channel();
        let (done, changed) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                load(&|| {
                    let read = self.value.load(SeqCst);
                    reading.send(()).unwrap();
                    changed.recv_timeout(PATIENCE).unwrap();
                    read
                });
            });
            has_read.recv_timeout(PATIENCE).unwrap();
            self.value.store(2, SeqCst);
            invalidate();
            done.send(()).unwrap();
        });
    }
}

/// What every adapter has to do.
fn suite<C: Store<Value = u64>>(make: impl Fn() -> C) {
    no_stale_fill(&Coherent::new(make()), |cache| cache.invalidate("42"));
    no_stale_fill(&Coherent::new(make()), Coherent::flush);
    states(&Coherent::new(make()));
    plain_use(&Coherent::new(make()));
    under_load(&Coherent::new(make()));
}

fn no_stale_fill<C: Store<Value = u64>>(cache: &Coherent<C>, drop: impl Fn(&Coherent<C>)) {
    let row = Row::new();
    row.race(
        |read| {
            let answer = cache.get_or_load_blocking("42", || Ok::<_, Infallible>(Some(read())));
            assert_eq!(
                answer.unwrap(),
                Some(1),
                "who asked before may get the older value"
            );
        },
        || drop(cache),
    );
    assert_eq!(cache.get("42"), None);
    let now = || Ok::<_, Infallible>(Some(row.value.load(SeqCst)));
    assert_eq!(cache.get_or_load_blocking("42", now).unwrap(), Some(2));
    assert_eq!(cache.get("42"), Some(Some(2)));
}

fn states<C: Store<Value = u64>>(cache: &Coherent<C>) {
    let load = |value| {
        cache
            .get_or_load_blocking("42", || Ok::<_, Infallible>(Some(value)))
            .unwrap()
    };
    let driver = Target::from(cache).attach(PATIENCE).unwrap();
    driver.recover(Reason::Joined, None).unwrap();
    assert_eq!(cache.coherence(), Coherence::Coherent);
    load(1);
    driver.doubt();
    assert_eq!(cache.get("42"), None);
    load(2);
    assert_eq!(cache.get("42"), Some(Some(2)));
    driver.recover(Reason::Gap, None).unwrap();
    assert!(
        cache.store().get("42").is_none(),
        "cleared, not only bypassed"
    );
    load(3);
    driver.invalidate("42", None).unwrap();
    assert!(cache.store().get("42").is_none());
    load(4);
    driver.flush(Reason::Requested, None).unwrap();
    assert!(cache.store().get("42").is_none());
}

fn plain_use<C: Store<Value = u64>>(cache: &Coherent<C>) {
    for id in 0..100u64 {
        let load = || Ok::<_, Infallible>((id % 2 == 0).then_some(id));
        cache.get_or_load_blocking(&id.to_string(), load).unwrap();
    }
    for id in 0..100u64 {
        assert_eq!(
            cache.get(&id.to_string()),
            Some((id % 2 == 0).then_some(id))
        );
    }
    assert_eq!(cache.get("100"), None);
    assert_eq!(cache.stats().loads, 100);
}

/// Nobody gets what is older than an invalidation that had returned before he asked.
fn under_load<C: Store<Value = u64>>(cache: &Coherent<C>) {
    const WRITES: u64 = 2_000;
    let (row, told, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while over.load(SeqCst) == 0 {
                    let least = told.load(SeqCst);
                    let answer = cache.get_or_load_blocking("42", || {
                        let read = row.load(SeqCst);
                        thread::yield_now();
                        Ok::<_, Infallible>(Some(read))
                    });
                    let answer = answer.unwrap().unwrap();
                    assert!(answer >= least, "got {answer}, told of {least}");
                }
            });
        }
        for write in 1..=WRITES {
            row.store(write, SeqCst);
            if write % 100 == 0 {
                cache.flush();
            } else {
                cache.invalidate("42");
            }
            told.store(write, SeqCst);
            thread::yield_now();
        }
        over.store(1, SeqCst);
    });
    let load = || Ok::<_, Infallible>(Some(row.load(SeqCst)));
    assert_eq!(
        cache.get_or_load_blocking("42", load).unwrap(),
        Some(WRITES)
    );
}

#[cfg(feature = "moka")]
mod moka_adapter {
    use std::sync::atomic::AtomicUsize;
    use std::sync::{Arc, OnceLock};

    use afterwrite::invalidation::caches::{Moka, MokaFuture};

    use super::*;

    #[test]
    fn i8_get_with_stores_what_was_read_before_the_invalidation() {
        let cache = moka::sync::Cache::<String, u64>::new(100);
        Row::new().race(
            |read| {
                cache.get_with("42".into(), read);
            },
            || cache.invalidate("42"),
        );
        assert_eq!(cache.get("42"), Some(1), "stale for good");
    }

    #[test]
    fn i8_the_asynchronous_get_with_does_too() {
        let cache = moka::future::Cache::<String, u64>::new(100);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        Row::new().race(
            |read| {
                futures_util::future::FutureExt::now_or_never(
                    cache.get_with("42".into(), async { read() }),
                );
            },
            || runtime.block_on(cache.invalidate("42")),
        );
        assert_eq!(runtime.block_on(cache.get("42")), Some(1), "stale for good");
    }

    #[test]
    fn i9_moka_keeps_the_promises_of_the_fence() {
        suite(|| Moka::<String, _>::new(moka::sync::Cache::new(1_000)));
        suite(|| Moka::<Arc<str>, _>::new(moka::sync::Cache::new(1_000)));
    }

    #[test]
    fn i9_moka_future_keeps_the_promises_of_the_fence() {
        suite(|| MokaFuture::<String, _>::new(moka::future::Cache::new(1_000)));
    }

    /// The listener runs under the fence's lock and calls for the very id that is being stored.
    #[test]
    fn i9_an_eviction_listener_may_call_back() {
        let own: Arc<OnceLock<Coherent<Moka<String, _>>>> = Arc::default();
        let called = Arc::new(AtomicUsize::new(0));
        let cache = moka::sync::Cache::builder()
            .max_capacity(1_000)
            .eviction_listener({
                let (own, called) = (own.clone(), called.clone());
                move |id: Arc<String>, _, _| {
                    called.fetch_add(1, SeqCst);
                    if let Some(own) = own.get() {
                        own.invalidate(&id);
                    }
                }
            })
            .build();
        let cache = own.get_or_init(|| Coherent::new(Moka::new(cache)));
        let load = || Ok::<_, Infallible>(Some(1u64));
        cache.get_or_load_blocking("42", load).unwrap();
        cache.invalidate("42");
        assert_eq!(called.load(SeqCst), 1);
        assert_eq!(cache.get("42"), None);
        cache.get_or_load_blocking("42", load).unwrap();
        assert_eq!(cache.get("42"), Some(Some(1)));
    }

    /// A listener that never ends: the removal is given up after a while, and nothing stale is served.
    #[test]
    fn i9_a_listener_that_hangs_makes_the_cache_suspect_and_not_stuck() {
        let hang = Arc::new(AtomicUsize::new(0));
        let cache = moka::future::Cache::builder()
            .max_capacity(1_000)
            .async_eviction_listener({
                let hang = hang.clone();
                move |_: Arc<String>, _, _| {
                    let hang = hang.clone();
                    Box::pin(std::future::poll_fn(move |_| match hang.load(SeqCst) {
                        0 => std::task::Poll::Ready(()),
                        _ => std::task::Poll::Pending,
                    }))
                }
            })
            .build();
        let cache = Coherent::new(MokaFuture::<String, _>::new(cache));
        let driver = Target::from(&cache).attach(PATIENCE).unwrap();
        driver.recover(Reason::Joined, None).unwrap();
        let load = |value| {
            let load = || Ok::<_, Infallible>(Some(value));
            cache.get_or_load_blocking("42", load).unwrap()
        };
        load(1u64);
        hang.store(1, SeqCst);
        assert!(driver.invalidate("42", None).is_err());
        assert_eq!(cache.coherence(), Coherence::Suspect);
        assert_eq!(cache.get("42"), None);
        hang.store(0, SeqCst);
        driver.recover(Reason::Gap, None).unwrap();
        assert_eq!(load(2), Some(2));
        assert_eq!(cache.get("42"), Some(Some(2)));
    }
}

#[cfg(feature = "quick_cache")]
mod quick_cache_adapter {
    use std::sync::Arc;

    use afterwrite::invalidation::caches::QuickCache;
    use afterwrite::invalidation::coherent::Loaded;

    use super::*;

    #[test]
    fn i8_insert_after_get_stores_what_was_read_before_the_invalidation() {
        let cache = quick_cache::sync::Cache::<String, u64>::new(100);
        Row::new().race(
            |read| {
                assert!(cache.get("42").is_none());
                cache.insert("42".into(), read());
            },
            || {
                cache.remove("42");
            },
        );
        assert_eq!(cache.get("42"), Some(1), "stale for good");
    }

    /// What `get_or_insert_with` does see to by itself. Should this change, the docs have to.
    #[test]
    fn i8_get_or_insert_with_gives_up_a_fill_whose_id_was_removed() {
        for clear in [false, true] {
            let cache = quick_cache::sync::Cache::<String, u64>::new(100);
            Row::new().race(
                |read| {
                    let fill = || Ok::<_, Infallible>(read());
                    cache.get_or_insert_with("42", fill).unwrap();
                },
                || {
                    if clear {
                        cache.clear();
                    } else {
                        cache.remove("42");
                    }
                },
            );
            assert_eq!(cache.get("42"), None);
        }
    }

    /// What it can't see to: the row has changed, the replica that is read has not heard of it.
    #[test]
    fn i8_get_or_insert_with_stores_what_a_lagging_replica_answers() {
        let replica = (1, 9);
        let cache = quick_cache::sync::Cache::<String, u64>::new(100);
        cache.remove("42");
        let fill = || Ok::<_, Infallible>(replica.0);
        cache.get_or_insert_with("42", fill).unwrap();
        assert_eq!(cache.get("42"), Some(1), "stale for good");

        let cache = Coherent::new(QuickCache::<String, _>::new(quick_cache::sync::Cache::new(
            100,
        )));
        let driver = Target::from(&cache).attach(PATIENCE).unwrap();
        driver.recover(Reason::Joined, None).unwrap();
        driver.invalidate("42", Some(10)).unwrap();
        let fill = || Ok::<_, Infallible>(Loaded::at(Some(replica.0), replica.1));
        assert_eq!(cache.get_or_load_blocking("42", fill).unwrap(), Some(1));
        assert_eq!(cache.get("42"), None);
    }

    #[test]
    fn i9_quick_cache_keeps_the_promises_of_the_fence() {
        suite(|| QuickCache::<String, _>::new(quick_cache::sync::Cache::new(1_000)));
        suite(|| QuickCache::<Arc<str>, _>::new(quick_cache::sync::Cache::new(1_000)));
    }
}

#[cfg(feature = "foyer")]
mod foyer_adapter {
    use std::sync::Arc;

    use afterwrite::invalidation::caches::Foyer;

    use super::*;

    #[test]
    fn i8_get_or_fetch_stores_what_was_read_before_the_invalidation() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let cache = foyer::CacheBuilder::new(100).build::<foyer::CacheProperties>();
        let cache: foyer::Cache<String, u64> = cache;
        let row = Arc::new(Row::new());
        let (reading, has_read) = tokio::sync::oneshot::channel();
        let (done, changed) = tokio::sync::oneshot::channel::<()>();
        runtime.block_on(async {
            let fetch = tokio::spawn({
                let (cache, row) = (cache.clone(), row.clone());
                async move {
                    let fetch = cache.get_or_fetch("42", || async move {
                        let read = row.value.load(SeqCst);
                        reading.send(()).unwrap();
                        changed.await.unwrap();
                        Ok::<_, std::io::Error>(read)
                    });
                    fetch.await.unwrap();
                }
            });
            has_read.await.unwrap();
            row.value.store(2, SeqCst);
            cache.remove("42");
            done.send(()).unwrap();
            fetch.await.unwrap();
        });
        assert_eq!(
            cache.get("42").map(|kept| *kept.value()),
            Some(1),
            "stale for good"
        );
    }

    #[test]
    fn i9_foyer_keeps_the_promises_of_the_fence() {
        suite(|| Foyer::<String, _>::new(foyer::CacheBuilder::new(1_000).build()));
    }
}
