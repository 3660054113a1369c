//! What one watch is fed with, and how long what it applied may be trusted.
//!
//! # Role
//! The protocol decides for an entity; a feed carries that to one cache. An *inline* feed applies
//! at once, on the thread that received. A *queued* one has a lane: a bounded queue that a thread
//! of its own works off, so that a slow watcher holds up nobody else.
//!
//! # What keeps a slow lane honest
//! 1. Doubt does not queue: it reaches the fence at once, from whatever thread.
//! 2. Trust does: "all is well until u" is an item like any other, so it is believed only when
//!    everything that came before it is applied. If the lane stands still, u passes, and
//!    [`Feed::enforce`] doubts.
//! 3. A recovery carries the episode in which it was decided. A doubt begins a new episode, so that
//!    a recovery that was queued before it does nothing; see [`Feed::apply_recovery`] for the race.
//! 4. A full lane is emptied: doubt, and one recovery that clears everything.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use parking_lot::Mutex;

use super::lag::LagMeter;
use crate::invalidation::cache::Reason;
use crate::invalidation::fence::Coherence;
use crate::invalidation::protocol::Micros;
use crate::invalidation::subject::{Id, IdRef};
use crate::invalidation::target::Driver;

/// An item of a lane.
#[derive(Debug)]
enum Item {
    Remove {
        id: Id,
        position: Option<u64>,
        /// When it was emitted, on our clock.
        emitted: Option<Micros>,
    },
    Flush {
        reason: Reason,
        floor: Option<u64>,
    },
    Recover(Recovery),
    Trust {
        until: Micros,
        at: Micros,
    },
}

/// A decision to trust again.
#[derive(Debug, Clone, Copy)]
struct Recovery {
    reason: Reason,
    floor: Option<u64>,
    episode: u64,
}

#[derive(Debug, Default)]
struct Lane {
    items: VecDeque<Item>,
    /// Whether the worker has been told that there is work and has not found none since.
    awake: bool,
    overflows: u64,
}

/// Whether there is something to do for the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// The worker knows, or there is nothing.
    Known,
    /// It has to be woken.
    Wake,
}

/// One watch's end of the protocol. See the [module](self).
#[derive(Debug)]
pub(crate) struct Feed {
    driver: Driver,
    /// `None` applies inline.
    lane: Option<Mutex<Lane>>,
    capacity: usize,
    min_flush: Micros,
    /// Raised by every doubt.
    episode: AtomicU64,
    /// Until when `Coherent` may stand.
    until: AtomicU64,
    /// The latest recovery that the protocol decided, if no doubt came since.
    wanted: Mutex<Option<Recovery>>,
    /// When a recovery was last tried, and of which episode it was, plus one.
    tried: AtomicU64,
    tried_episode: AtomicU64,
    failures: AtomicU64,
    applied: AtomicU64,
    lag: LagMeter,
}

impl Feed {
    /// A feed that applies on the thread that receives.
    pub(crate) fn inline(driver: Driver, min_flush: Micros) -> Self {
        Self::new(driver, None, 0, min_flush)
    }

    /// A feed with a lane of `capacity` items, worked off by [`work`](Self::work).
    pub(crate) fn queued(driver: Driver, capacity: usize, min_flush: Micros) -> Self {
        Self::new(driver, Some(Mutex::default()), capacity.max(1), min_flush)
    }

    fn new(driver: Driver, lane: Option<Mutex<Lane>>, capacity: usize, min_flush: Micros) -> Self {
        Self {
            driver,
            lane,
            capacity,
            min_flush,
            episode: AtomicU64::new(0),
            until: AtomicU64::new(0),
            wanted: Mutex::new(None),
            tried: AtomicU64::new(0),
            tried_episode: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            lag: LagMeter::default(),
        }
    }

    pub(crate) const fn driver(&self) -> &Driver {
        &self.driver
    }

    /// Times that the lane was full.
    pub(crate) fn overflows(&self) -> u64 {
        self.lane.as_ref().map_or(0, |lane| lane.lock().overflows)
    }

    /// Times that the cache could not do what it was asked.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Drops applied that came from other nodes.
    pub(crate) fn applied(&self) -> u64 {
        self.applied.load(Relaxed)
    }

    /// How long drops took, from emit to here.
    pub(crate) const fn lag(&self) -> &LagMeter {
        &self.lag
    }

    /// Items that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lane.as_ref().map_or(0, |lane| lane.lock().items.len())
    }

    /// Drops an id that this node itself has written, before the call returns.
    pub(crate) fn remove_now(&self, id: IdRef<'_>, position: Option<u64>) {
        if self.driver.invalidate(id.as_str(), position).is_err() {
            self.failed();
        }
    }

    /// Drops everything, before the call returns.
    pub(crate) fn flush_now(&self, reason: Reason, floor: Option<u64>) {
        if self.driver.flush(reason, floor).is_err() {
            self.failed();
        }
    }

    /// Drops an id that was emitted `age` ago, at most, on another node.
    #[inline]
    pub(crate) fn remove(
        &self,
        id: IdRef<'_>,
        position: Option<u64>,
        age: Option<Micros>,
        now: Micros,
    ) -> Work {
        match &self.lane {
            None => {
                self.remove_now(id, position);
                self.count_applied(age);
                Work::Known
            }
            Some(lane) => self.push(lane, || Item::Remove {
                id: id.to_id(),
                position,
                emitted: age.map(|age| now.saturating_sub(age)),
            }),
        }
    }

    fn count_applied(&self, lag: Option<Micros>) {
        self.applied.fetch_add(1, Relaxed);
        if let Some(lag) = lag {
            self.lag.note(lag);
        }
    }

    /// Drops everything, because somebody asked.
    pub(crate) fn flush(&self, reason: Reason, floor: Option<u64>) -> Work {
        match &self.lane {
            None => {
                self.flush_now(reason, floor);
                Work::Known
            }
            Some(lane) => self.push(lane, || Item::Flush { reason, floor }),
        }
    }

    /// Something may have been missed. Reaches the fence at once.
    pub(crate) fn doubt(&self) {
        // AcqRel: its partner is the load in `apply_recovery`; see there.
        self.episode.fetch_add(1, AcqRel);
        *self.wanted.lock() = None;
        self.driver.doubt();
    }

    /// All arrives again, as of everything fed before.
    pub(crate) fn recover(&self, reason: Reason, floor: Option<u64>, now: Micros) -> Work {
        let recovery = Recovery {
            reason,
            floor,
            episode: self.episode.load(Acquire),
        };
        *self.wanted.lock() = Some(recovery);
        match &self.lane {
            None => {
                self.apply_recovery(recovery, now);
                Work::Known
            }
            Some(lane) => self.push(lane, || Item::Recover(recovery)),
        }
    }

    /// What was fed so far may be trusted until then.
    pub(crate) fn trust(&self, until: Micros, now: Micros) -> Work {
        let Some(lane) = &self.lane else {
            self.apply_trust(until, now);
            return Work::Known;
        };
        let mut items = lane.lock();
        if let Some(Item::Trust { until: last, at }) = items.items.back_mut() {
            (*last, *at) = (until, now);
            return Self::wake(&mut items);
        }
        drop(items);
        self.push(lane, || Item::Trust { until, at: now })
    }

    /// Doubts if what may be trusted has run out. Takes no lock.
    pub(crate) fn enforce(&self, now: Micros) {
        if now >= self.until.load(Acquire) && self.driver.coherence() == Coherence::Coherent {
            self.driver.doubt();
        }
    }

    /// Until when it is trusted, if it is.
    pub(crate) fn trusted_until(&self) -> Option<Micros> {
        let coherent = self.driver.coherence() == Coherence::Coherent;
        coherent.then(|| self.until.load(Acquire))
    }

    /// Applies the next item of the lane; `false` if there was none.
    pub(crate) fn work(&self, now: impl FnOnce() -> Micros) -> bool {
        let Some(lane) = &self.lane else { return false };
        let item = {
            let mut lane = lane.lock();
            let item = lane.items.pop_front();
            lane.awake = item.is_some();
            item
        };
        match item {
            None => return false,
            Some(Item::Remove {
                id,
                position,
                emitted,
            }) => {
                self.remove_now(id.borrowed(), position);
                self.count_applied(emitted.map(|emitted| now().saturating_sub(emitted)));
            }
            Some(Item::Flush { reason, floor }) => self.flush_now(reason, floor),
            Some(Item::Recover(recovery)) => self.apply_recovery(recovery, 0),
            Some(Item::Trust { until, at }) => self.apply_trust(until, at),
        }
        true
    }

    fn push(&self, lane: &Mutex<Lane>, item: impl FnOnce() -> Item) -> Work {
        let mut state = lane.lock();
        if state.items.len() < self.capacity {
            state.items.push_back(item());
            return Self::wake(&mut state);
        }
        state.overflows += 1;
        let lost = state.items.drain(..).chain([item()]);
        // What the lost items asked for is all in one clearing; but a floor stays a floor.
        let floor = lost.filter_map(|item| match item {
            Item::Remove { position, .. } => position,
            Item::Flush { floor, .. } => floor,
            Item::Recover(recovery) => recovery.floor,
            Item::Trust { .. } => None,
        });
        let floor = floor.max();
        let mut wanted = self.wanted.lock();
        self.driver.doubt();
        if let Some(recovery) = wanted.as_mut() {
            recovery.reason = Reason::Overflow;
            recovery.floor = recovery.floor.max(floor);
            state.items.push_back(Item::Recover(*recovery));
        } else if let Some(floor) = floor {
            self.driver.raise_floor(floor);
        }
        Self::wake(&mut state)
    }

    fn wake(lane: &mut Lane) -> Work {
        match std::mem::replace(&mut lane.awake, true) {
            true => Work::Known,
            false => Work::Wake,
        }
    }

    /// Clears and trusts, unless a doubt came after the recovery was decided.
    ///
    /// A doubt raises the episode first and then the fence's epoch. The episode is compared while
    /// the fence recovers: then either the new one is seen, or the doubt's epoch comes after the
    /// recovery's own, whose last step fails.
    fn apply_recovery(&self, recovery: Recovery, now: Micros) {
        let current = || self.episode.load(Acquire) == recovery.episode;
        if !current() {
            return;
        }
        self.tried.store(now, Relaxed);
        self.tried_episode.store(recovery.episode + 1, Relaxed);
        let Recovery { reason, floor, .. } = recovery;
        if self.driver.recover_if(reason, floor, current).is_err() {
            self.failed();
        }
    }

    fn apply_trust(&self, until: Micros, now: Micros) {
        self.until.store(until, Release);
        if self.driver.coherence() == Coherence::Coherent {
            return;
        }
        // The cache failed, or its lane was late, or what it trusted had run out: all of which a
        // clearing mends, if the protocol itself has no doubt.
        let wanted = *self.wanted.lock();
        if let Some(recovery) = wanted
            // Else it still waits in the lane.
            && self.tried_episode.load(Relaxed) == recovery.episode + 1
            && now >= self.tried.load(Relaxed) + self.min_flush
        {
            self.apply_recovery(recovery, now);
        }
    }

    #[cold]
    fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }
}
