//! I8 for loads that begin where something else is under way: in a loader, in a cache's callback.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use afterwrite::invalidation::cache::{Cache, Entry, Reason, Store, Unfinished};
use afterwrite::invalidation::caches::BoundedMap;
use afterwrite::invalidation::coherent::{Builder, Coherent};

const S: fn(u64) -> Duration = Duration::from_secs;

fn nap(span: Duration) {
    let (_keep, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(span);
}

#[test]
fn i8_a_loader_may_load_another_id() {
    let users = Arc::new(Builder::new().loads(1).build(BoundedMap::<u32>::new(8)));
    let (done, ended) = mpsc::channel();
    let inner = users.clone();
    std::thread::spawn(move || {
        let load = || {
            let other = inner.get_or_load_blocking("child", || Ok::<_, std::io::Error>(Some(1)));
            Ok::<_, std::io::Error>(other.unwrap())
        };
        done.send(inner.get_or_load_blocking("parent", load).is_ok())
            .unwrap();
    });
    assert!(ended.recv_timeout(S(3)).is_ok(), "{:?}", users.stats());
}

struct Reloads {
    map: BoundedMap<u32>,
    on: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}
impl Cache for Reloads {
    fn remove(&self, id: &str) -> Result<(), Unfinished> {
        self.map.remove(id)
    }
    fn clear(&self, r: Reason) -> Result<(), Unfinished> {
        self.map.clear(r)
    }
}
impl Store for Reloads {
    type Value = u32;
    fn get(&self, id: &str) -> Option<Entry<u32>> {
        self.map.get(id)
    }
    fn insert(&self, id: &str, entry: Entry<u32>) -> Result<(), Unfinished> {
        self.map.insert(id, entry)?;
        // As an eviction listener would.
        let listener = (id == "a")
            .then(|| self.on.lock().unwrap().take())
            .flatten();
        if let Some(listener) = listener {
            listener();
        }
        Ok(())
    }
}

#[test]
fn i8_a_listener_that_loads_ends() {
    let store = Reloads {
        map: BoundedMap::new(8),
        on: Mutex::new(None),
    };
    let cache = Coherent::new(store);
    let stripe = |id: &str| {
        let text = format!("{:?}", cache.fence().token(id));
        text.split("stripe: ")
            .nth(1)
            .unwrap()
            .split(',')
            .next()
            .unwrap()
            .to_owned()
    };
    let ours = stripe("a");
    let other = (0..100_000)
        .map(|n| format!("b{n}"))
        .find(|id| stripe(id) == ours)
        .unwrap();
    let (inside, is_inside) = mpsc::channel::<()>();
    let (done, ended) = mpsc::channel::<()>();
    let (reading, is_reading) = mpsc::channel::<()>();
    let (again, id) = (cache.clone(), other.clone());
    *cache.store().on.lock().unwrap() = Some(Box::new(move || {
        inside.send(()).unwrap();
        nap(Duration::from_millis(200)); // the other is at the lock by now
        let _ = again.get_or_load_blocking(&id, || Ok::<_, std::io::Error>(Some(2)));
    }));
    let second = cache.clone();
    std::thread::spawn(move || {
        let _ = second.get_or_load_blocking(&other, || {
            reading.send(()).unwrap();
            is_inside.recv().unwrap();
            Ok::<_, std::io::Error>(Some(1))
        });
    });
    is_reading.recv().unwrap();
    let first = cache.clone();
    std::thread::spawn(move || {
        let _ = first.get_or_load_blocking("a", || Ok::<_, std::io::Error>(Some(1)));
        done.send(()).unwrap();
    });
    assert!(ended.recv_timeout(S(5)).is_ok(), "both wait for each other");
}

/// The same for tasks: all of it in one poll, though there is but one permit.
#[test]
fn i8_an_asynchronous_loader_may_load_another_id() {
    let users = Builder::new().loads(1).build(BoundedMap::<u32>::new(8));
    let parent = users.get_or_load("parent", || {
        users.get_or_load("child", || async { Ok::<_, std::io::Error>(Some(1)) })
    });
    let mut parent = pin!(parent);
    let polled = parent
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Ready(Ok(Some(1)))), "{polled:?}");
    assert_eq!(users.get("child"), Some(Some(1)));
}

/// A load that waits for its turn waits for the loader that wants the same id.
#[test]
fn i8_a_loader_waits_for_no_load_that_queues() {
    let users = Builder::new().loads(1).build(BoundedMap::<u32>::new(8));
    let (inside, is_inside) = mpsc::channel::<()>();
    let (done, ended) = mpsc::channel::<()>();
    let outer = users.clone();
    std::thread::spawn(move || {
        let load = || {
            inside.send(()).unwrap();
            let begun = Instant::now();
            while outer.stats().waiting == 0 {
                assert!(begun.elapsed() < S(10), "nobody queues");
                nap(Duration::from_millis(1));
            }
            outer.get_or_load_blocking("child", || Ok::<_, std::io::Error>(Some(1)))
        };
        outer.get_or_load_blocking("parent", load).unwrap();
        done.send(()).unwrap();
    });
    is_inside.recv_timeout(S(10)).unwrap();
    let queued = users.get_or_load_blocking("child", || Ok::<_, std::io::Error>(Some(2)));
    assert!(queued.is_ok());
    assert!(ended.recv_timeout(S(5)).is_ok(), "{:?}", users.stats());
}
