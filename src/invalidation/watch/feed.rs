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
//! 5. A recovery, too, is believed only while it may be: until then it had to be applied, the
//!    clearing included. Whoever makes a feed trusted tells the thread that enforces, which may
//!    have looked at it in vain.
//!
//! # Who is told of a doubt
//! What a cache beside its own fence holds is bypassed from the doubt on, so that clearing it can
//! wait for the recovery. A cache that cannot see the fence (a closure, mostly) would go on serving:
//! it is told to drop everything when the doubt begins, and again when it ends; not more often than
//! every `min_flush`. See [`Feed::tell`].
//!
//! # The end
//! [`Feed::end`] doubts and detaches at once, from whatever thread, and whatever the lane's thread
//! is stuck in. What the lane still holds is dropped from the cache, which does no harm; nothing of
//! it makes the cache trusted again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};

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
    /// How many of them drop something. Only these count for the budget: of the others there is at
    /// most one recovery, and one word of trust between two others.
    drops: usize,
    recovers: usize,
    /// Whether the worker has been told that there is work and has not found none since.
    awake: bool,
    overflows: u64,
}

impl Item {
    const fn drops(&self) -> bool {
        matches!(self, Self::Remove { .. } | Self::Flush { .. })
    }
}

/// How many drops may wait for one worker, in all its lanes together.
#[derive(Debug)]
pub(crate) struct Budget {
    capacity: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            capacity: capacity.max(1),
            used: AtomicUsize::new(0),
        })
    }

    fn take(&self) -> bool {
        // Relaxed: it counts, and orders nothing; the lanes have their locks.
        let taken = self.used.fetch_add(1, Relaxed) < self.capacity;
        if !taken {
            self.give_back(1);
        }
        taken
    }

    fn give_back(&self, n: usize) {
        self.used.fetch_sub(n, Relaxed);
    }
}

/// A reason in an atomic, or none.
#[derive(Debug, Default)]
struct Pending(AtomicU8);

impl Pending {
    const REASONS: [Reason; 7] = [
        Reason::Requested,
        Reason::Joined,
        Reason::Reconnected,
        Reason::Gap,
        Reason::Overflow,
        Reason::PublisherSilent,
        Reason::Unsettled,
    ];

    fn set(&self, reason: Reason) {
        let at = Self::REASONS.iter().position(|&known| known == reason);
        // Release: its partner is `take`, on the thread that tells.
        self.0.store(at.map_or(0, |at| at as u8 + 1), Release);
    }

    fn take(&self) -> Option<Reason> {
        if self.0.load(Relaxed) == 0 {
            return None;
        }
        let at = self.0.swap(0, AcqRel);
        Self::REASONS.get(usize::from(at).wrapping_sub(1)).copied()
    }
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
    budget: Arc<Budget>,
    min_flush: Micros,
    /// Nobody listens for the cache any more.
    ended: AtomicBool,
    /// Raised by every doubt.
    episode: AtomicU64,
    /// Until when `Coherent` may stand.
    until: AtomicU64,
    /// The latest recovery that the protocol decided, if no doubt came since.
    wanted: Mutex<Option<Recovery>>,
    /// When a recovery was last tried, and of which episode it was, plus one.
    tried: AtomicU64,
    tried_episode: AtomicU64,
    /// What the worker has yet to tell, when its lane is empty.
    untold: Pending,
    /// What may be told only later.
    deferred: Pending,
    /// When the protocol had everything dropped last.
    cleared: AtomicU64,
    /// Whether the present doubt has been told.
    told: AtomicBool,
    failures: AtomicU64,
    applied: AtomicU64,
    lag: LagMeter,
}

impl Feed {
    /// A feed that applies on the thread that receives.
    pub(crate) fn inline(driver: Driver, min_flush: Micros) -> Self {
        Self::new(driver, None, Budget::new(0), min_flush)
    }

    /// A feed with a lane, worked off by [`work`](Self::work), that shares `budget` with the other
    /// lanes of its worker.
    pub(crate) fn queued(driver: Driver, budget: Arc<Budget>, min_flush: Micros) -> Self {
        Self::new(driver, Some(Mutex::default()), budget, min_flush)
    }

    fn new(
        driver: Driver,
        lane: Option<Mutex<Lane>>,
        budget: Arc<Budget>,
        min_flush: Micros,
    ) -> Self {
        Self {
            driver,
            lane,
            budget,
            min_flush,
            ended: AtomicBool::new(false),
            episode: AtomicU64::new(0),
            until: AtomicU64::new(0),
            wanted: Mutex::new(None),
            tried: AtomicU64::new(0),
            tried_episode: AtomicU64::new(0),
            untold: Pending::default(),
            deferred: Pending::default(),
            cleared: AtomicU64::new(0),
            told: AtomicBool::new(false),
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

    /// Drops that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lane.as_ref().map_or(0, |lane| lane.lock().drops)
    }

    /// Nobody listens for the cache any more: it is in doubt before this returns, and may be watched
    /// again.
    pub(crate) fn end(&self) {
        // Release: its partner is the load in `apply_recovery`, as that of a doubt's episode.
        self.ended.store(true, Release);
        self.driver.end();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Acquire)
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

    /// Has a cache that cannot see the fence drop everything, because of a doubt that lasts: once a
    /// doubt, and whenever somebody asked for it.
    pub(crate) fn tell(&self, reason: Reason, now: Micros) -> Work {
        let told = self.told.load(Relaxed) && reason != Reason::Requested;
        if told || !self.driver.target().is_blind() || self.has_ended() {
            return Work::Known;
        }
        if now < self.cleared.load(Relaxed) + self.min_flush {
            self.deferred.set(reason);
            return Work::Known;
        }
        self.told.store(true, Relaxed);
        self.cleared.store(now, Relaxed);
        match &self.lane {
            None => {
                self.flush_now(reason, None);
                Work::Known
            }
            Some(lane) => {
                // The order of the lane does not matter: all that it holds only drops more.
                self.untold.set(reason);
                Self::wake(&mut lane.lock())
            }
        }
    }

    /// Tells what had to wait.
    pub(crate) fn tell_deferred(&self, now: Micros) -> Work {
        match self.deferred.take() {
            Some(reason) => self.tell(reason, now),
            None => Work::Known,
        }
    }

    /// All arrives again, as of everything fed before.
    pub(crate) fn recover(
        &self,
        reason: Reason,
        floor: Option<u64>,
        clock: impl Fn() -> Micros,
    ) -> Work {
        // One clearing does for all that was still to be told; only a full queue is worth a word.
        self.deferred.take();
        let reason = match self.untold.take() {
            Some(Reason::Overflow) => Reason::Overflow,
            _ => reason,
        };
        let recovery = Recovery {
            reason,
            floor,
            episode: self.episode.load(Acquire),
        };
        *self.wanted.lock() = Some(recovery);
        self.told.store(false, Relaxed);
        self.cleared.store(clock(), Relaxed);
        match &self.lane {
            None => {
                self.apply_recovery(recovery, &clock);
                Work::Known
            }
            Some(lane) => Self::push_recovery(&mut lane.lock(), recovery),
        }
    }

    /// What was fed so far may be trusted until then. `now` is when that was found.
    pub(crate) fn trust(&self, until: Micros, now: Micros, clock: impl Fn() -> Micros) -> Work {
        let Some(lane) = &self.lane else {
            self.apply_trust(until, now, &clock);
            return Work::Known;
        };
        let mut lane = lane.lock();
        match lane.items.back_mut() {
            Some(Item::Trust { until: last, at }) => (*last, *at) = (until, now),
            _ => lane.items.push_back(Item::Trust { until, at: now }),
        }
        Self::wake(&mut lane)
    }

    /// Doubts if what may be trusted has run out, also while it is being flushed: else the flush would
    /// give back what is over. Takes no lock.
    pub(crate) fn enforce(&self, now: Micros) -> Work {
        if now < self.until.load(Acquire) || !self.driver.is_trusted() || self.has_ended() {
            return Work::Known;
        }
        self.driver.doubt();
        // The protocol tells its reason once it gets to it; if that takes long, its thread is stuck.
        let queued = self.lane.is_some() && self.driver.target().is_blind();
        if queued && !self.told.swap(true, Relaxed) {
            self.untold.set(Reason::PublisherSilent);
            return Work::Wake;
        }
        Work::Known
    }

    /// Until when it is trusted, if it is, or will be by the end of a flush.
    pub(crate) fn trusted_until(&self) -> Option<Micros> {
        let trusted = self.driver.is_trusted() && !self.has_ended();
        trusted.then(|| self.until.load(Acquire))
    }

    /// Applies the next item of the lane, or tells what is untold; `false` if there was nothing.
    pub(crate) fn work(&self, now: impl Fn() -> Micros) -> bool {
        let Some(lane) = &self.lane else { return false };
        let item = {
            let mut lane = lane.lock();
            let item = lane.items.pop_front();
            lane.awake = item.is_some();
            match &item {
                Some(item) if item.drops() => {
                    lane.drops -= 1;
                    self.budget.give_back(1);
                }
                Some(Item::Recover(_)) => lane.recovers -= 1,
                _ => {}
            }
            item
        };
        match item {
            None => {
                // Looked at after `awake` is down: what is set later wakes anew.
                let Some(reason) = self.untold.take() else {
                    return false;
                };
                self.flush_now(reason, None);
            }
            Some(Item::Remove {
                id,
                position,
                emitted,
            }) => {
                self.remove_now(id.borrowed(), position);
                self.count_applied(emitted.map(|emitted| now().saturating_sub(emitted)));
            }
            Some(Item::Flush { reason, floor }) => self.flush_now(reason, floor),
            Some(Item::Recover(recovery)) => self.apply_recovery(recovery, &now),
            Some(Item::Trust { until, at }) => self.apply_trust(until, at, &now),
        }
        true
    }

    /// Queues a drop.
    fn push(&self, lane: &Mutex<Lane>, item: impl FnOnce() -> Item) -> Work {
        let mut lane = lane.lock();
        if self.budget.take() {
            lane.items.push_back(item());
            lane.drops += 1;
            return Self::wake(&mut lane);
        }
        self.overflow(&mut lane, item())
    }

    /// Queues a recovery, in place of one that still waits: that is of an older episode, or of the same.
    fn push_recovery(lane: &mut Lane, recovery: Recovery) -> Work {
        if lane.recovers > 0 {
            lane.items.retain(|item| !matches!(item, Item::Recover(_)));
        }
        lane.recovers = 1;
        lane.items.push_back(Item::Recover(recovery));
        Self::wake(lane)
    }

    /// There is no room: gives up the lane for one clearing.
    #[cold]
    fn overflow(&self, lane: &mut Lane, item: Item) -> Work {
        lane.overflows += 1;
        self.budget.give_back(std::mem::take(&mut lane.drops));
        lane.recovers = 0;
        let lost = lane.items.drain(..).chain([item]);
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
            return Self::push_recovery(lane, *recovery);
        }
        drop(wanted);
        // In doubt already: the recovery is for later, but the loss is told now.
        if let Some(floor) = floor {
            self.driver.raise_floor(floor);
        }
        self.untold.set(Reason::Overflow);
        Self::wake(lane)
    }

    fn wake(lane: &mut Lane) -> Work {
        match std::mem::replace(&mut lane.awake, true) {
            true => Work::Known,
            false => Work::Wake,
        }
    }

    /// Clears and trusts, unless a doubt or the end came after the recovery was decided, or the time
    /// for which all may be trusted is over.
    ///
    /// A doubt raises the episode first and then the fence's epoch. The episode is compared while
    /// the fence recovers: then either the new one is seen, or the doubt's epoch comes after the
    /// recovery's own, whose last step fails. So it is with the end.
    fn apply_recovery(&self, recovery: Recovery, clock: &impl Fn() -> Micros) {
        let current = || self.episode.load(Acquire) == recovery.episode && !self.has_ended();
        let in_time = || clock() < self.until.load(Acquire);
        if !current() {
            return;
        }
        // From here on, the next word of trust tries again.
        self.tried_episode.store(recovery.episode + 1, Relaxed);
        if !in_time() {
            return;
        }
        self.tried.store(clock(), Relaxed);
        let Recovery { reason, floor, .. } = recovery;
        let still = || current() && in_time();
        if self.driver.recover_if(reason, floor, still).is_ok() {
            self.told.store(false, Relaxed);
        } else if still() {
            self.failed();
        }
    }

    fn apply_trust(&self, until: Micros, now: Micros, clock: &impl Fn() -> Micros) {
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
            self.apply_recovery(recovery, clock);
        }
    }

    #[cold]
    fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }
}
