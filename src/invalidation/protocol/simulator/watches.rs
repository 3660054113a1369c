//! Watches end, and begin again on the same cache.

use super::event::Event;
use super::net::Time;
use super::world::{RULES, World};
use crate::invalidation::cache::Reason;
use crate::invalidation::protocol::{Belief, Mutant};
use crate::invalidation::target::Target;
use crate::invalidation::watch::{Budget, Feed};

impl World {
    /// Somebody drops a watch, and keeps its cache.
    pub(super) fn end_watch(&mut self, host: usize, pid: u64, until: Time) {
        let which = self.rng.next() as usize;
        let ended = self.with(host, |process, _| {
            let at = which % process.watches.len();
            let silent = process.node.broken(Mutant::WatchEndsSilently);
            let watch = &mut process.watches[at];
            if std::mem::replace(&mut watch.ended, true) {
                return None;
            }
            if !silent {
                watch.feed.end();
            }
            Some(at)
        });
        if let Some(Some(watch)) = ended {
            self.push(until, Event::Watch { host, pid, watch });
        }
    }

    /// The cache is watched again. What the old watch's lane still holds is worked off besides.
    pub(super) fn watch_again(&mut self, host: usize, at: usize) {
        let attached = self.with(host, |process, now| {
            let row = process.rows[process.watches[at].entity];
            let node = &process.node;
            let watch = &mut process.watches[at];
            let target = Target::with_fence(watch.fence.clone(), watch.cache.clone());
            let lease = std::time::Duration::from_micros(RULES.lease);
            let Ok(driver) = target.attach(lease) else {
                return node.broken(Mutant::WatchEndsSilently);
            };
            let feed = match watch.queued {
                true => Feed::queued(driver, Budget::new(24), RULES.min_flush),
                false => Feed::inline(driver, RULES.min_flush),
            };
            watch.ended = false;
            let old = std::mem::replace(&mut watch.feed, feed);
            watch.old.extend(watch.queued.then_some(old));
            if node.belief(row) == Belief::Coherent {
                watch.feed.trust(node.horizon(now), now, || now);
                watch.feed.recover(Reason::Joined, node.floor(row), || now);
            }
            true
        });
        if attached == Some(false) {
            self.fail("a cache whose watch has ended cannot be watched again".to_owned());
        }
    }
}
