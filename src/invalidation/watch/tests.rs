//! What a feed does while its cache is told.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use super::*;
use crate::invalidation::cache::{Invalidation, Reason};
use crate::invalidation::caches::BoundedMap;
use crate::invalidation::coherent::Coherent;
use crate::invalidation::target::Target;

/// A coherent feed, inline or queued, whose cache does `then` when it is told to clear, once armed.
fn coherent(
    queued: bool,
    then: impl Fn(&Feed) + Send + Sync + 'static,
) -> (Arc<OnceLock<Feed>>, Arc<AtomicBool>) {
    let place = Arc::<OnceLock<Feed>>::default();
    let armed = Arc::new(AtomicBool::new(false));
    // The feed has the cache: not the other way round as well.
    let (its, arm) = (Arc::downgrade(&place), armed.clone());
    let target = Target::new(move |what: Invalidation<'_>| {
        if let (Invalidation::All(_), true) = (what, arm.load(SeqCst))
            && let Some(place) = its.upgrade()
            && let Some(feed) = place.get()
        {
            then(feed);
        }
    });
    let driver = target.attach(Duration::from_secs(3)).unwrap();
    let feed = place.get_or_init(|| match queued {
        true => Feed::queued(driver, Budget::new(10), 0),
        false => Feed::inline(driver, 0),
    });
    feed.trust(100, 1, || 1);
    feed.recover(Reason::Joined, None, || 1);
    while feed.work(|| 1) {}
    assert_eq!(feed.driver().coherence(), Coherence::Coherent);
    armed.store(true, SeqCst);
    (place, armed)
}

#[test]
fn i6_a_flush_that_outlasts_trust_does_not_give_it_back() {
    for queued in [true, false] {
        // Meanwhile the time is over, and the thread that enforces looks.
        let (feed, _) = coherent(queued, |feed| {
            assert_eq!(feed.trusted_until(), Some(100), "it has to look again then");
            feed.enforce(99);
            assert!(feed.trusted_until().is_some());
            feed.enforce(100);
            assert_eq!(feed.trusted_until(), None);
        });
        let feed = feed.get().unwrap();
        feed.flush_now(Reason::Requested, None);
        assert_eq!(feed.driver().coherence(), Coherence::Suspect);
        // It is not doubted again and again.
        let epoch = feed.driver().target().fence().epoch();
        feed.enforce(200);
        assert_eq!(feed.driver().target().fence().epoch(), epoch);
    }
}

#[test]
fn i7_a_flush_in_time_leaves_trust_as_it_was() {
    for queued in [true, false] {
        let (feed, _) = coherent(queued, |feed| {
            feed.enforce(99);
        });
        let feed = feed.get().unwrap();
        feed.flush_now(Reason::Requested, None);
        assert_eq!(feed.driver().coherence(), Coherence::Coherent);
        assert_eq!(feed.trusted_until(), Some(100));
    }
}

#[test]
fn i6_nor_does_one_that_the_owner_of_the_cache_asks_for() {
    let users = Coherent::new(BoundedMap::<u32>::new(9));
    let target = Target::from(&users);
    let feed = Feed::inline(target.attach(Duration::from_secs(3)).unwrap(), 0);
    feed.trust(100, 1, || 1);
    feed.recover(Reason::Joined, None, || 1);
    assert_eq!(users.coherence(), Coherence::Coherent);
    target.fence().flush(|| feed.enforce(100));
    assert_eq!(users.coherence(), Coherence::Suspect);
}
