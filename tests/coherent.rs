//! Coherent caches: contract I8.

use std::convert::Infallible;
use std::future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Barrier, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use afterwrite::invalidation::cache::Reason;
use afterwrite::invalidation::caches::BoundedMap;
use afterwrite::invalidation::coherent::{Builder, Coherent, LoadError, Loaded};
use afterwrite::invalidation::target::Target;

const PATIENCE: Duration = Duration::from_secs(10);

type Users = Coherent<BoundedMap<u64>>;

fn users() -> Users {
    Coherent::new(BoundedMap::new(1_000))
}

fn answers(value: u64) -> impl FnOnce() -> Result<Option<u64>, Infallible> {
    move || Ok(Some(value))
}

/// A loader that says when it has read, and answers when it is let go.
struct Slow {
    read: mpsc::Sender<()>,
    go: mpsc::Receiver<()>,
}

struct Hand {
    has_read: mpsc::Receiver<()>,
    go: mpsc::Sender<()>,
}

fn slow() -> (Slow, Hand) {
    let (read, has_read) = mpsc::channel();
    let (go, gone) = mpsc::channel();
    (Slow { read, go: gone }, Hand { has_read, go })
}

impl Slow {
    fn wait(&self) {
        self.read.send(()).unwrap();
        self.go.recv_timeout(PATIENCE).unwrap();
    }
}

impl Hand {
    fn wait_for_read(&self) {
        self.has_read.recv_timeout(PATIENCE).unwrap();
    }

    fn let_go(&self) {
        self.go.send(()).unwrap();
    }
}

#[test]
fn i8_one_load_serves_all_who_wait() {
    const CALLERS: usize = 8;
    let users = users();
    let loads = AtomicUsize::new(0);
    let arrived = Barrier::new(CALLERS + 1);
    let (slow, hand) = slow();
    let slow = Mutex::new(Some(slow));
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                scope.spawn(|| {
                    arrived.wait();
                    users.get_or_load_blocking("42", || {
                        loads.fetch_add(1, SeqCst);
                        let slow = slow.lock().unwrap().take().expect("one load");
                        slow.wait();
                        Ok::<_, Infallible>(Some(7))
                    })
                })
            })
            .collect();
        arrived.wait();
        hand.wait_for_read();
        hand.let_go();
        for caller in callers {
            assert_eq!(caller.join().unwrap().unwrap(), Some(7));
        }
    });
    assert_eq!(loads.load(SeqCst), 1);
    assert_eq!(users.stats().loads, 1);
    assert_eq!(users.get("42"), Some(Some(7)));
}

#[test]
fn i8_nobody_joins_a_load_that_began_before_an_invalidation_he_came_after() {
    let users = users();
    let (slow, hand) = slow();
    thread::scope(|scope| {
        let early = scope.spawn(|| {
            let slow = slow;
            users.get_or_load_blocking("42", || {
                slow.wait();
                Ok::<_, Infallible>(Some(1))
            })
        });
        hand.wait_for_read();
        users.invalidate("42");
        // The old load is still under way, and this caller does not wait for it.
        assert_eq!(
            users.get_or_load_blocking("42", answers(2)).unwrap(),
            Some(2)
        );
        hand.let_go();
        assert_eq!(early.join().unwrap().unwrap(), Some(1));
    });
    assert_eq!(
        users.get("42"),
        Some(Some(2)),
        "the late landing stored nothing"
    );
    assert_eq!(users.stats().fence.refused_invalidated, 1);
}

#[test]
fn i8_a_flush_parts_callers_as_well() {
    let users = users();
    let (slow, hand) = slow();
    thread::scope(|scope| {
        let early = scope.spawn(|| {
            let slow = slow;
            users.get_or_load_blocking("42", || {
                slow.wait();
                Ok::<_, Infallible>(Some(1))
            })
        });
        hand.wait_for_read();
        users.flush();
        assert_eq!(
            users.get_or_load_blocking("42", answers(2)).unwrap(),
            Some(2)
        );
        hand.let_go();
        early.join().unwrap().unwrap();
    });
    assert_eq!(users.get("42"), Some(Some(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_an_error_goes_to_all_who_wait_and_not_into_the_cache() {
    let users = users();
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let (read, has_read) = tokio::sync::oneshot::channel::<()>();
    let lead = tokio::spawn({
        let users = users.clone();
        async move {
            users
                .get_or_load("42", || async {
                    read.send(()).unwrap();
                    gone.await.unwrap();
                    Err::<Option<u64>, _>(io::Error::other("the database is away"))
                })
                .await
        }
    });
    has_read.await.unwrap();
    let mut joins = Vec::new();
    for _ in 0..3 {
        let users = users.clone();
        joins.push(Box::pin(async move {
            users
                .get_or_load("42", || async { Ok::<_, io::Error>(Some(9)) })
                .await
        }));
    }
    for join in &mut joins {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(join.as_mut().poll(&mut cx).is_pending());
    }
    go.send(()).unwrap();
    let error = lead.await.unwrap().unwrap_err();
    let io = error.downcast_ref::<io::Error>().unwrap();
    assert_eq!(io.to_string(), "the database is away");
    for join in joins {
        assert!(matches!(join.await, Err(LoadError::Failed(_))));
    }
    assert_eq!(users.get("42"), None);
    let next = users.get_or_load("42", || async { Ok::<_, io::Error>(Some(9)) });
    assert_eq!(next.await.unwrap(), Some(9), "the next caller loads again");
    assert_eq!(users.stats().failed, 1);
    assert_eq!(users.stats().joined, 3);
}

#[test]
fn i8_a_waiter_takes_over_from_a_cancelled_leader_with_its_own_loader() {
    let users = users();
    let mut cx = Context::from_waker(Waker::noop());
    let mut lead =
        Box::pin(users.get_or_load("42", future::pending::<Result<Option<u64>, Infallible>>));
    assert!(lead.as_mut().poll(&mut cx).is_pending());
    let mut waits = pin!(users.get_or_load("42", || future::ready(Ok::<_, Infallible>(Some(2)))));
    assert!(waits.as_mut().poll(&mut cx).is_pending());
    // Dropped meanwhile: the new load has to take a new token, or it would be refused.
    users.invalidate("42");
    drop(lead);
    assert!(matches!(
        waits.as_mut().poll(&mut cx),
        Poll::Ready(Ok(Some(2)))
    ));
    assert_eq!(users.get("42"), Some(Some(2)));
    assert_eq!(users.stats().abandoned, 1);
}

#[test]
fn i8_a_waiter_takes_over_from_a_panicking_leader() {
    let users = users();
    let (slow, hand) = slow();
    thread::scope(|scope| {
        let lead = scope.spawn(|| {
            let slow = slow;
            catch_unwind(AssertUnwindSafe(|| {
                users.get_or_load_blocking("42", || -> Result<Option<u64>, Infallible> {
                    slow.wait();
                    panic!("a loader's own")
                })
            }))
        });
        hand.wait_for_read();
        let mut cx = Context::from_waker(Waker::noop());
        let mut waits =
            Box::pin(users.get_or_load("42", || future::ready(Ok::<_, Infallible>(Some(2)))));
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        hand.let_go();
        assert!(lead.join().unwrap().is_err());
        assert!(matches!(
            waits.as_mut().poll(&mut cx),
            Poll::Ready(Ok(Some(2)))
        ));
    });
    assert_eq!(users.stats().loading, 0, "the permit came back");
}

#[test]
fn i8_no_such_value_is_cached_and_fenced_alike() {
    let users = users();
    let nothing = || Ok::<Option<u64>, Infallible>(None);
    assert_eq!(users.get_or_load_blocking("42", nothing).unwrap(), None);
    assert_eq!(users.get("42"), Some(None), "known to be absent");
    assert_eq!(users.get_or_load_blocking("42", answers(1)).unwrap(), None);

    users.invalidate("42");
    assert_eq!(users.get("42"), None, "nothing known");
    let answer = users.get_or_load_blocking("42", || {
        users.invalidate("42");
        nothing()
    });
    assert_eq!(answer.unwrap(), None);
    assert_eq!(users.get("42"), None, "refused like any other");
    assert_eq!(
        users.get_or_load_blocking("42", answers(1)).unwrap(),
        Some(1)
    );
}

#[test]
fn i8_loads_over_the_cap_queue_and_past_that_are_turned_away() {
    let users = Builder::new()
        .loads(2)
        .waiting(1)
        .build(BoundedMap::new(10));
    let begun = AtomicUsize::new(0);
    let open = AtomicBool::new(false);
    let load = |id: &'static str| {
        let (users, begun, open) = (&users, &begun, &open);
        Box::pin(users.get_or_load(id, move || {
            begun.fetch_add(1, SeqCst);
            future::poll_fn(move |_| match open.load(SeqCst) {
                true => Poll::Ready(Ok::<_, Infallible>(Some(1))),
                false => Poll::Pending,
            })
        }))
    };
    let mut cx = Context::from_waker(Waker::noop());
    let mut callers = [load("a"), load("b"), load("c")];
    for caller in &mut callers {
        assert!(caller.as_mut().poll(&mut cx).is_pending());
    }
    assert_eq!(begun.load(SeqCst), 2);
    let mut refused = load("d");
    let Poll::Ready(Err(LoadError::Overloaded { waiting: 1 })) = refused.as_mut().poll(&mut cx)
    else {
        panic!("not turned away");
    };
    // Whoever joins a load that waits needs no place of its own.
    let mut joined = load("c");
    assert!(joined.as_mut().poll(&mut cx).is_pending());
    open.store(true, SeqCst);
    for caller in &mut callers {
        assert!(matches!(
            caller.as_mut().poll(&mut cx),
            Poll::Ready(Ok(Some(1)))
        ));
    }
    assert!(matches!(
        joined.as_mut().poll(&mut cx),
        Poll::Ready(Ok(Some(1)))
    ));
    assert_eq!(begun.load(SeqCst), 3);
    let stats = users.stats();
    assert_eq!((stats.overloaded, stats.loading, stats.waiting), (1, 0, 0));
}

#[test]
fn i8_a_lagging_replica_answers_but_is_not_stored() {
    let users = users();
    let driver = Target::from(&users).attach(PATIENCE).unwrap();
    driver.recover(Reason::Joined, None).unwrap();
    driver.invalidate("42", Some(10)).unwrap();
    let from_replica = |value, position| {
        users.get_or_load_blocking("42", || {
            Ok::<_, Infallible>(Loaded::at(Some(value), position))
        })
    };
    assert_eq!(from_replica(1, 9).unwrap(), Some(1));
    assert_eq!(users.get("42"), None);
    assert_eq!(from_replica(2, 10).unwrap(), Some(2));
    assert_eq!(users.get("42"), Some(Some(2)));

    // A beat speaks of position 20: a flush then asks it of every id.
    driver.flush(Reason::Gap, Some(20)).unwrap();
    from_replica(3, 19).unwrap();
    assert_eq!(users.get("42"), None);
    let primary = || Ok::<_, Infallible>(Loaded::primary(Some(4)));
    users.get_or_load_blocking("42", primary).unwrap();
    assert_eq!(users.get("42"), Some(Some(4)));
    driver.raise_floor(30);
    driver.invalidate("43", None).unwrap();
    users.get_or_load_blocking("43", answers(1)).unwrap();
    assert_eq!(users.get("43"), None, "does not say what it had seen");
}

#[test]
fn loads_are_send_if_their_loader_is() {
    fn send<T: Send>(_: &T) {}
    fn share<T: Send + Sync + Clone>(_: &T) {}
    let users = users();
    share(&users);
    share(&Target::from(&users));
    let load = users.get_or_load("42", || future::ready(Ok::<_, Infallible>(Some(1))));
    send(&load);
}

/// Callers of all kinds on few ids, while rows change, everything is dropped, and doubts come and go.
/// No caller gets what is older than an invalidation that had returned before he asked.
#[test]
fn i8_no_caller_gets_what_is_older_than_an_invalidation_he_came_after() {
    const IDS: usize = 3;
    const WRITES: u64 = 5_000;
    let users = Builder::new()
        .loads(2)
        .refill_over(Duration::from_micros(50))
        .build(BoundedMap::new(IDS - 1));
    let driver = Target::from(&users)
        .attach(Duration::from_millis(2))
        .unwrap();
    driver.recover(Reason::Joined, None).unwrap();
    let rows: [AtomicU64; IDS] = Default::default();
    let told: [AtomicU64; IDS] = Default::default();
    let over = AtomicBool::new(false);
    let answered = AtomicU64::new(0);
    thread::scope(|scope| {
        for caller in 0..4 {
            let (users, rows, told, over, answered) = (&users, &rows, &told, &over, &answered);
            scope.spawn(move || {
                let mut turn = caller;
                while !over.load(SeqCst) {
                    turn += 1;
                    let id = turn % IDS;
                    let least = told[id].load(SeqCst);
                    let name = id.to_string();
                    if turn % 16 == 0 {
                        // A caller who gives up at once, perhaps as the leader.
                        let mut gone = pin!(users.get_or_load(
                            &name,
                            future::pending::<Result<Option<u64>, Infallible>>
                        ));
                        let _ = gone.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                        continue;
                    }
                    let answer = users.get_or_load_blocking(&name, || {
                        let read = rows[id].load(SeqCst);
                        thread::yield_now();
                        Ok::<_, Infallible>(Some(read))
                    });
                    let answer = answer.unwrap().unwrap();
                    assert!(answer >= least, "got {answer}, told of {least}");
                    answered.fetch_add(1, SeqCst);
                }
            });
        }
        for write in 1..=1_000 * WRITES {
            let stats = users.stats();
            if write > WRITES && stats.joined > 100 && stats.fence.refused_invalidated > 100 {
                break;
            }
            thread::yield_now();
            let id = write as usize % IDS;
            rows[id].store(write, SeqCst);
            match write % 500 {
                0 => driver.flush(Reason::Requested, None).unwrap(),
                250 => {
                    driver.doubt();
                    driver.recover(Reason::Gap, None).unwrap();
                }
                _ => driver.invalidate(&id.to_string(), None).unwrap(),
            }
            told[id].store(write, SeqCst);
        }
        over.store(true, SeqCst);
    });
    let stats = users.stats();
    assert!(
        answered.load(SeqCst) > 0 && stats.joined > 0,
        "proved nothing: {stats:?}"
    );
    assert_eq!((stats.loading, stats.waiting), (0, 0));
}
