//! Targets and the driver that protocols use: contract I5, I7 and I9.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use afterwrite::invalidation::cache::{Cache, Entry, Invalidation, Reason, Store, Unfinished};
use afterwrite::invalidation::caches::BoundedMap;
use afterwrite::invalidation::coherent::Coherent;
use afterwrite::invalidation::fence::Coherence;
use afterwrite::invalidation::target::{AlreadyDriven, Target};

const PATIENCE: Duration = Duration::from_secs(10);

type Users = Coherent<BoundedMap<u64>>;

fn users() -> Users {
    Coherent::new(BoundedMap::new(1_000))
}

fn answers(value: u64) -> impl FnOnce() -> Result<Option<u64>, Infallible> {
    move || Ok(Some(value))
}

#[test]
fn i7_the_states_as_a_driver_moves_them() {
    let users = users();
    assert_eq!(users.coherence(), Coherence::Standalone);
    users.get_or_load_blocking("42", answers(1)).unwrap();
    let target = Target::from(&users);
    let driver = target.attach(PATIENCE).unwrap();
    assert_eq!(users.coherence(), Coherence::Joining);
    assert_eq!(users.get("42"), None, "loaded while nobody listened");
    assert_eq!(target.attach(PATIENCE).unwrap_err(), AlreadyDriven);

    users.get_or_load_blocking("42", answers(2)).unwrap();
    assert_eq!(users.get("42"), Some(Some(2)), "for a lease");
    driver.recover(Reason::Joined, None).unwrap();
    assert_eq!(users.coherence(), Coherence::Coherent);
    assert!(users.store().is_empty());

    users.get_or_load_blocking("42", answers(3)).unwrap();
    driver.doubt();
    assert_eq!(driver.coherence(), Coherence::Suspect);
    assert_eq!(users.get("42"), None, "bypassed");
    assert!(!users.store().is_empty(), "and not blindly cleared");
    driver.recover(Reason::Gap, None).unwrap();

    users.get_or_load_blocking("42", answers(4)).unwrap();
    driver.flush(Reason::Requested, None).unwrap();
    assert_eq!(users.coherence(), Coherence::Coherent);
    assert_eq!(users.get("42"), None);

    users.get_or_load_blocking("42", answers(5)).unwrap();
    drop(driver);
    assert_eq!(
        users.coherence(),
        Coherence::Suspect,
        "nobody listens any more"
    );
    assert_eq!(users.get("42"), None);
    assert!(target.attach(PATIENCE).is_ok());
}

#[test]
fn i9_a_closure_is_a_cache() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let target = Target::new({
        let seen = seen.clone();
        move |what: Invalidation<'_>| {
            seen.lock().unwrap().push(match what {
                Invalidation::One(id) => format!("one {id}"),
                Invalidation::All(reason) => format!("all: {reason}"),
            });
        }
    });
    let driver = target.attach(PATIENCE).unwrap();
    driver.recover(Reason::Joined, None).unwrap();
    driver.invalidate("42", None).unwrap();
    driver.flush(Reason::PublisherSilent, None).unwrap();
    assert_eq!(
        *seen.lock().unwrap(),
        ["all: joined", "one 42", "all: publisher silent"]
    );
}

/// A cache that fails when it is told to.
struct Frail {
    map: BoundedMap<u64>,
    mood: Arc<AtomicUsize>,
}

const WELL: usize = 0;
const UNFINISHED: usize = 1;
const PANICS: usize = 2;

impl Frail {
    fn mood(&self) -> Result<(), Unfinished> {
        match self.mood.load(SeqCst) {
            WELL => Ok(()),
            UNFINISHED => Err(Unfinished),
            _ => panic!("a cache's own"),
        }
    }
}

impl Cache for Frail {
    fn remove(&self, id: &str) -> Result<(), Unfinished> {
        self.mood()?;
        self.map.remove(id)
    }

    fn clear(&self, reason: Reason) -> Result<(), Unfinished> {
        self.mood()?;
        self.map.clear(reason)
    }
}

impl Store for Frail {
    type Value = u64;

    fn get(&self, id: &str) -> Option<Entry<u64>> {
        self.map.get(id)
    }

    fn insert(&self, id: &str, entry: Entry<u64>) -> Result<(), Unfinished> {
        // What it could not finish turns up late.
        self.map.insert(id, entry)?;
        self.mood()
    }
}

#[test]
fn i5_a_cache_that_fails_is_bypassed_and_suspect_until_it_clears() {
    for failure in [UNFINISHED, PANICS] {
        let mood = Arc::new(AtomicUsize::new(WELL));
        let users = Coherent::new(Frail {
            map: BoundedMap::new(10),
            mood: mood.clone(),
        });
        let driver = Target::from(&users).attach(PATIENCE).unwrap();
        driver.recover(Reason::Joined, None).unwrap();
        users.get_or_load_blocking("42", answers(1)).unwrap();
        users.get_or_load_blocking("43", answers(1)).unwrap();

        mood.store(failure, SeqCst);
        assert_eq!(driver.invalidate("42", None), Err(Unfinished));
        assert_eq!(users.coherence(), Coherence::Suspect);
        assert!(users.store().get("42").is_some(), "it failed to remove");
        assert_eq!(users.get("42"), None, "and is not served");
        assert_eq!(driver.recover(Reason::Gap, None), Err(Unfinished));
        assert_eq!(users.coherence(), Coherence::Suspect);

        mood.store(WELL, SeqCst);
        driver.recover(Reason::Gap, None).unwrap();
        assert_eq!(users.coherence(), Coherence::Coherent);
        users.get_or_load_blocking("42", answers(2)).unwrap();
        assert_eq!(users.get("42"), Some(Some(2)));

        mood.store(failure, SeqCst);
        assert_eq!(driver.flush(Reason::Requested, None), Err(Unfinished));
        assert_eq!(users.coherence(), Coherence::Suspect);
        assert_eq!(users.get("42"), None);
    }
}

#[test]
fn i9_a_shared_cache_is_watched_and_loaded_through_a_handle() {
    let mood = Arc::new(AtomicUsize::new(WELL));
    let shared = Arc::new(Frail {
        map: BoundedMap::new(10),
        mood: mood.clone(),
    });
    let erased: Arc<dyn Store<Value = u64>> = shared.clone();
    let users = Coherent::new(erased);
    let driver = Target::from(&users).attach(PATIENCE).unwrap();
    driver.recover(Reason::Joined, None).unwrap();
    users.get_or_load_blocking("42", answers(1)).unwrap();
    users.get_or_load_blocking("43", answers(1)).unwrap();
    assert!(shared.get("42").is_some());
    driver.invalidate("42", None).unwrap();
    assert!(shared.get("42").is_none());
    driver.flush(Reason::Requested, None).unwrap();
    assert!(shared.get("43").is_none());

    let driver = Target::new(shared).attach(PATIENCE).unwrap();
    driver.invalidate("42", None).unwrap();
    mood.store(UNFINISHED, SeqCst);
    assert_eq!(driver.invalidate("42", None), Err(Unfinished));
    assert_eq!(driver.flush(Reason::Requested, None), Err(Unfinished));
}

#[test]
fn i9_an_insertion_that_may_come_late_is_never_served() {
    let mood = Arc::new(AtomicUsize::new(UNFINISHED));
    let users = Coherent::new(Frail {
        map: BoundedMap::new(10),
        mood: mood.clone(),
    });
    assert_eq!(
        users.get_or_load_blocking("42", answers(1)).unwrap(),
        Some(1)
    );
    assert!(users.store().get("42").is_some());
    assert_eq!(users.get("42"), None);
    users.invalidate("42");
    users.flush();
    mood.store(WELL, SeqCst);
    assert_eq!(users.get("42"), None);
}

#[test]
fn i5_a_watcher_may_pass_on_to_another_cache() {
    let users = users();
    let again = users.clone();
    let target = Target::with_fence(Arc::default(), move |what: Invalidation<'_>| match what {
        Invalidation::One(id) => again.invalidate(id),
        Invalidation::All(_) => again.flush(),
    });
    let driver = target.attach(PATIENCE).unwrap();
    driver.recover(Reason::Joined, None).unwrap();
    users.get_or_load_blocking("42", answers(1)).unwrap();
    driver.invalidate("42", None).unwrap();
    assert_eq!(users.get("42"), None);
    users.get_or_load_blocking("42", answers(1)).unwrap();
    driver.flush(Reason::Requested, None).unwrap();
    assert_eq!(users.get("42"), None);
}
