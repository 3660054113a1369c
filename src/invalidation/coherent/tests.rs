//! What needs the fence's clock or the flights' insides. Behaviour is in `tests/coherent.rs`.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::*;
use crate::invalidation::caches::BoundedMap;
use crate::invalidation::fence::Clock;
use crate::invalidation::protocol::plant;

type Users = Coherent<BoundedMap<u32>>;

fn by_hand(builder: Builder) -> (Users, Arc<AtomicU64>) {
    let nanos = Arc::new(AtomicU64::new(1_000_000));
    let fence = Fence::new().with_clock(Clock::by_hand(nanos.clone()));
    (builder.build_with(BoundedMap::new(100), fence), nanos)
}

fn load(users: &Users, id: &str, value: u32) -> Option<u32> {
    users
        .get_or_load_blocking(id, || Ok::<_, Infallible>(Some(value)))
        .unwrap()
}

/// Counts its wakes.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A loader that answers when its gate opens.
fn gated(open: &AtomicUsize, value: u32) -> impl Future<Output = Result<Option<u32>, Infallible>> {
    future::poll_fn(move |_| {
        if open.load(SeqCst) == 0 {
            Poll::Pending
        } else {
            Poll::Ready(Ok(Some(value)))
        }
    })
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn i7_suspect_serves_loads_for_a_lease_and_coalesces_them() {
    let (users, now) = by_hand(Builder::new());
    let driver = Target::from(&users)
        .attach(Duration::from_nanos(100))
        .unwrap();
    driver.recover(Reason::Joined, None).unwrap();
    assert_eq!(load(&users, "1", 10), Some(10));
    driver.doubt();
    assert_eq!(users.get("1"), None, "older entries are bypassed");
    assert_eq!(load(&users, "1", 11), Some(11));
    now.fetch_add(99, SeqCst);
    assert_eq!(
        load(&users, "1", 12),
        Some(11),
        "one load a lease, not one a caller"
    );
    now.fetch_add(1, SeqCst);
    assert_eq!(users.get("1"), None);
    assert_eq!(load(&users, "1", 13), Some(13));
    driver.recover(Reason::Gap, None).unwrap();
    assert_eq!(users.get("1"), None);
    assert_eq!(users.stats().loads, 3);
}

#[test]
fn i6_max_age_runs_from_the_beginning_of_the_load() {
    let age = Duration::from_nanos(100);
    let (users, now) = by_hand(Builder::new().max_age(age));
    let answer = users.get_or_load_blocking("1", || {
        now.fetch_add(60, SeqCst);
        Ok::<_, Infallible>(Some(1))
    });
    assert_eq!(answer.unwrap(), Some(1));
    now.fetch_add(39, SeqCst);
    assert_eq!(users.get("1"), Some(Some(1)));
    now.fetch_add(1, SeqCst);
    assert_eq!(users.get("1"), None);
}

#[test]
fn after_a_flush_the_limit_grows_from_an_eighth_to_the_full_one() {
    let ramp = Duration::from_nanos(1_000);
    let (users, now) = by_hand(Builder::new().loads(16).refill_over(ramp));
    let open = AtomicUsize::new(0);
    let begun = AtomicUsize::new(0);
    let ids: Vec<_> = (0..32).map(|id: u32| id.to_string()).collect();
    let mut callers: Vec<_> = ids
        .iter()
        .map(|id| {
            Box::pin(users.get_or_load(id, || {
                begun.fetch_add(1, SeqCst);
                gated(&open, 1)
            }))
        })
        .collect();
    users.flush();
    for caller in &mut callers[..31] {
        assert!(poll(caller.as_mut()).is_pending());
    }
    let (loading, waiting) = users.inner.admission.load();
    assert_eq!((loading, waiting), (2, 29));
    assert_eq!(begun.load(SeqCst), 2);

    // At one and a half times the ramp every stretch is over; the next to come brings it to light.
    now.fetch_add(1_500, SeqCst);
    assert!(poll(callers[31].as_mut()).is_pending());
    for caller in &mut callers {
        assert!(poll(caller.as_mut()).is_pending());
    }
    assert_eq!(begun.load(SeqCst), 16);
    assert_eq!(users.inner.admission.load(), (16, 16));

    open.store(1, SeqCst);
    for caller in &mut callers {
        assert!(matches!(poll(caller.as_mut()), Poll::Ready(Ok(Some(1)))));
    }
    assert_eq!(users.inner.admission.load(), (0, 0));
    assert_eq!(users.inner.flights.len(), 0);
}

#[test]
fn the_ramp_is_another_one_on_each_node_and_for_each_flush() {
    let nodes: Vec<_> = (0..20)
        .map(|_| Admission::new(64, 64, 1_000_000, 1))
        .collect();
    let mut lengths: Vec<_> = nodes
        .iter()
        .flat_map(|node| {
            [2, 3].map(|epoch| {
                node.limit_at(Moment { epoch, now: 7 });
                node.ramp_length()
            })
        })
        .collect();
    assert!(
        lengths
            .iter()
            .all(|length| (500_000..=1_500_000).contains(length))
    );
    lengths.sort_unstable();
    lengths.dedup();
    assert_eq!(lengths.len(), 40);
}

#[test]
fn a_cancelled_turn_is_passed_on() {
    let (users, _) = by_hand(Builder::new().loads(1));
    let open = AtomicUsize::new(0);
    let mut first = Box::pin(users.get_or_load("1", || gated(&open, 1)));
    assert!(poll(first.as_mut()).is_pending());
    let mut second = Box::pin(users.get_or_load("2", || gated(&open, 2)));
    let mut third = Box::pin(users.get_or_load("3", || gated(&open, 3)));
    assert!(poll(second.as_mut()).is_pending());
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    assert!(
        third
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    assert_eq!(users.inner.admission.load(), (1, 2));

    // The first leaves, which grants the second, which leaves without having looked.
    drop(first);
    assert_eq!(woken.0.load(SeqCst), 0);
    drop(second);
    assert_eq!(woken.0.load(SeqCst), 1);
    open.store(1, SeqCst);
    assert!(matches!(poll(third.as_mut()), Poll::Ready(Ok(Some(3)))));
    assert_eq!(users.inner.admission.load(), (0, 0));
    assert_eq!(users.inner.flights.len(), 0);
}

#[test]
fn a_cancelled_waiter_leaves_nothing_behind_in_the_flight() {
    let (users, _) = by_hand(Builder::new());
    let open = AtomicUsize::new(0);
    let mut lead = pin!(users.get_or_load("1", || gated(&open, 1)));
    assert!(poll(lead.as_mut()).is_pending());
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    for _ in 0..1_000 {
        let mut join = pin!(users.get_or_load("1", || gated(&open, 2)));
        assert!(
            join.as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        assert_eq!(Arc::strong_count(&woken), 3);
    }
    assert_eq!(Arc::strong_count(&woken), 2);
    assert_eq!(users.inner.flights.places("1"), 1, "places are used again");
    open.store(1, SeqCst);
    assert!(poll(lead.as_mut()).is_ready());
    assert_eq!(woken.0.load(SeqCst), 0);
}

#[test]
fn callers_queued_for_a_permit_share_a_read_that_has_not_begun() {
    let (users, _) = by_hand(Builder::new().loads(1));
    let open = AtomicUsize::new(0);
    let mut busy = Box::pin(users.get_or_load("busy", || gated(&open, 0)));
    assert!(poll(busy.as_mut()).is_pending());
    let mut lead = Box::pin(users.get_or_load("1", || gated(&open, 1)));
    assert!(poll(lead.as_mut()).is_pending());
    // The read of the leader has not begun: who comes after this drop may still join it.
    users.invalidate("1");
    let mut join = Box::pin(users.get_or_load("1", || gated(&open, 2)));
    assert!(poll(join.as_mut()).is_pending());
    drop(busy);
    open.store(1, SeqCst);
    assert!(matches!(poll(lead.as_mut()), Poll::Ready(Ok(Some(1)))));
    assert!(matches!(poll(join.as_mut()), Poll::Ready(Ok(Some(1)))));
    assert_eq!(users.get("1"), Some(Some(1)));
}

#[test]
fn a_late_landing_leaves_the_flight_that_took_its_place() {
    let (users, _) = by_hand(Builder::new());
    let (first_open, second_open) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let mut first = Box::pin(users.get_or_load("1", || gated(&first_open, 1)));
    assert!(poll(first.as_mut()).is_pending());
    users.invalidate("1");
    let mut second = Box::pin(users.get_or_load("1", || gated(&second_open, 2)));
    assert!(poll(second.as_mut()).is_pending());
    first_open.store(1, SeqCst);
    assert!(matches!(poll(first.as_mut()), Poll::Ready(Ok(Some(1)))));
    let mut third = Box::pin(users.get_or_load("1", || gated(&second_open, 3)));
    assert!(poll(third.as_mut()).is_pending());
    second_open.store(1, SeqCst);
    assert!(matches!(poll(second.as_mut()), Poll::Ready(Ok(Some(2)))));
    assert!(matches!(poll(third.as_mut()), Poll::Ready(Ok(Some(2)))));
    assert_eq!(users.stats().loads, 2);
    assert_eq!(users.inner.flights.len(), 0);
}

type Answer = Poll<Result<Option<u32>, LoadError>>;

/// Calls again when it is woken, from within the landing.
struct CallsAgain {
    users: Users,
    answer: Mutex<Option<Answer>>,
}

impl Wake for CallsAgain {
    fn wake(self: Arc<Self>) {
        let again = || future::ready(Ok::<_, Infallible>(Some(2)));
        let answer = poll(pin!(self.users.get_or_load("1", again)));
        *self.answer.lock().unwrap() = Some(answer);
    }
}

#[test]
fn a_caller_after_a_failed_landing_loads_for_itself() {
    let (users, _) = by_hand(Builder::new());
    let open = AtomicUsize::new(0);
    let failing = || async {
        future::poll_fn(|_| match open.load(SeqCst) {
            0 => Poll::Pending,
            _ => Poll::Ready(()),
        })
        .await;
        Err::<Option<u32>, _>(std::io::Error::other("away"))
    };
    let mut lead = Box::pin(users.get_or_load("1", failing));
    assert!(poll(lead.as_mut()).is_pending());
    let again = Arc::new(CallsAgain {
        users: users.clone(),
        answer: Mutex::default(),
    });
    let waker = Waker::from(again.clone());
    let mut join = Box::pin(users.get_or_load("1", || gated(&open, 1)));
    let polled = join.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    open.store(1, SeqCst);
    assert!(matches!(
        poll(lead.as_mut()),
        Poll::Ready(Err(LoadError::Failed(_)))
    ));
    let answer = again.answer.lock().unwrap().take();
    assert!(matches!(answer, Some(Poll::Ready(Ok(Some(2))))));
    assert!(matches!(
        poll(join.as_mut()),
        Poll::Ready(Err(LoadError::Failed(_)))
    ));
}

/// Another caller loads between this one's look at the cache and at the board.
struct Between {
    map: BoundedMap<u32>,
    other: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Cache for Between {
    fn remove(&self, id: &str) -> Result<(), Unfinished> {
        self.map.remove(id)
    }

    fn clear(&self, reason: Reason) -> Result<(), Unfinished> {
        self.map.clear(reason)
    }
}

impl Store for Between {
    type Value = u32;

    fn get(&self, id: &str) -> Option<Entry<u32>> {
        let found = self.map.get(id);
        let other = self.other.lock().unwrap().take();
        if let Some(other) = other {
            other();
        }
        found
    }

    fn insert(&self, id: &str, entry: Entry<u32>) -> Result<(), Unfinished> {
        self.map.insert(id, entry)
    }
}

#[test]
fn a_load_that_landed_between_two_looks_is_found() {
    let users = Coherent::new(Between {
        map: BoundedMap::new(10),
        other: Mutex::default(),
    });
    let load = |users: &Coherent<Between>, value| {
        let load = || Ok::<_, Infallible>(Some(value));
        users.get_or_load_blocking("1", load).unwrap()
    };
    *users.store().other.lock().unwrap() = Some(Box::new({
        let users = users.clone();
        move || assert_eq!(load(&users, 1), Some(1))
    }));
    assert_eq!(load(&users, 2), Some(1));
    assert_eq!(users.stats().loads, 1);
}

/// A load hangs, and has read 10 long before; what does who comes after `age` get, when 11 is the truth?
fn after_a_load_that_hangs(users: &Users, now: &AtomicU64, age: u64) -> Option<u32> {
    let open = AtomicUsize::new(0);
    let mut leader = pin!(users.get_or_load("1", || gated(&open, 10)));
    assert!(poll(leader.as_mut()).is_pending());
    now.fetch_add(age, SeqCst);
    let fresh = || async { Ok::<_, Infallible>(Some(11)) };
    let mut late = pin!(users.get_or_load("1", fresh));
    let at_once = poll(late.as_mut());
    open.store(1, SeqCst);
    assert!(poll(leader.as_mut()).is_ready());
    let answer = match at_once {
        Poll::Ready(answer) => answer,
        Poll::Pending => match poll(late.as_mut()) {
            Poll::Ready(answer) => answer,
            Poll::Pending => panic!("the flight has landed"),
        },
    };
    answer.unwrap()
}

#[test]
fn i7_in_doubt_nobody_joins_a_load_that_is_older_than_a_lease() {
    let (users, now) = by_hand(Builder::new());
    let target = Target::from(&users);
    let driver = target.attach(Duration::from_nanos(100)).unwrap();
    driver.recover(Reason::Joined, None).unwrap();
    assert_eq!(after_a_load_that_hangs(&users, &now, 1_000), Some(10));
    // The row changes, and the drop is lost in a doubt that stays the same one.
    driver.doubt();
    assert_eq!(after_a_load_that_hangs(&users, &now, 99), Some(10));
    now.fetch_add(100, SeqCst);
    assert_eq!(after_a_load_that_hangs(&users, &now, 100), Some(11));
}

#[test]
fn i6_nobody_joins_a_load_that_is_older_than_max_age() {
    let (users, now) = by_hand(Builder::new().max_age(Duration::from_nanos(100)));
    assert_eq!(after_a_load_that_hangs(&users, &now, 99), Some(10));
    now.fetch_add(100, SeqCst);
    assert_eq!(after_a_load_that_hangs(&users, &now, 100), Some(11));
}

/// Panics whenever it is told something.
struct Angry {
    cache: BoundedMap<u32>,
    armed: std::sync::atomic::AtomicBool,
}

impl Angry {
    fn calm() -> Self {
        Self {
            cache: BoundedMap::new(9),
            armed: false.into(),
        }
    }

    fn rage(&self) {
        assert!(!self.armed.load(SeqCst), "a cache's own");
    }
}

impl Cache for Angry {
    fn remove(&self, id: &str) -> Result<(), Unfinished> {
        self.rage();
        self.cache.remove(id)
    }

    fn clear(&self, reason: Reason) -> Result<(), Unfinished> {
        self.rage();
        self.cache.clear(reason)
    }
}

impl Store for Angry {
    type Value = u32;

    fn get(&self, id: &str) -> Option<Entry<u32>> {
        self.cache.get(id)
    }

    fn insert(&self, id: &str, entry: Entry<u32>) -> Result<(), Unfinished> {
        self.cache.insert(id, entry)?;
        self.rage();
        Ok(())
    }
}

#[test]
fn i8_a_cache_that_panics_is_bypassed_as_one_that_fails() {
    let answer = |value| move || Ok::<_, Infallible>(Some(value));
    for act in [
        |users: &Coherent<Angry>| users.invalidate("1"),
        |users: &Coherent<Angry>| users.flush(),
        |users: &Coherent<Angry>| {
            let loaded = users.get_or_load_blocking("2", || Ok::<_, Infallible>(Some(20)));
            assert_eq!(loaded.unwrap(), Some(20), "the loader was not at fault");
        },
    ] {
        let users = Coherent::new(Angry::calm());
        users.get_or_load_blocking("1", answer(10)).unwrap();
        assert_eq!(users.get("1"), Some(Some(10)));
        users.store().armed.store(true, SeqCst);
        act(&users);
        assert_eq!(users.get("1"), None);
        users.store().armed.store(false, SeqCst);
        let again = users.get_or_load_blocking("1", answer(11));
        assert_eq!(again.unwrap(), Some(11));
        assert_eq!(users.get("1"), Some(Some(11)));
    }
}

#[test]
fn i8_a_blocking_load_leaves_the_park_token_of_others() {
    let ends: [fn() -> Poll<()>; 2] = [|| Poll::Ready(()), || panic!("a loader's own")];
    for end in ends {
        let mut polls = 0;
        let waits = future::poll_fn(|_| {
            polls += 1;
            if polls > 1 {
                return end();
            }
            // Somebody calls this thread while it waits, for reasons of his own.
            std::thread::current().unpark();
            Poll::Pending
        });
        let waits = std::panic::AssertUnwindSafe(|| block_on::block_on(waits));
        let _ended = std::panic::catch_unwind(waits);
        let begun = std::time::Instant::now();
        std::thread::park_timeout(Duration::from_secs(20));
        assert!(begun.elapsed() < Duration::from_secs(10), "it was used up");
    }
}

#[test]
fn i8_nobody_joins_a_load_that_an_invalidation_has_overtaken() {
    let who_comes_later_gets = |fault| {
        plant(fault);
        let (users, _) = by_hand(Builder::new());
        let open = AtomicUsize::new(0);
        let mut older = pin!(users.get_or_load("1", || gated(&open, 1)));
        assert!(poll(older.as_mut()).is_pending());
        users.invalidate("1");
        let mut later = pin!(users.get_or_load("1", || gated(&open, 2)));
        assert!(poll(later.as_mut()).is_pending());
        open.store(1, SeqCst);
        assert!(matches!(poll(older.as_mut()), Poll::Ready(Ok(Some(1)))));
        let answer = poll(later.as_mut());
        plant("");
        match answer {
            Poll::Ready(Ok(Some(value))) => value,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(who_comes_later_gets(""), 2);
    // As the model is: a test that cannot fail proves nothing.
    assert_eq!(who_comes_later_gets("coherent_join_older_flight"), 1);
}
