//! No stale fill: a load that began before an invalidation is never stored after it.
//!
//! A cache alone can't promise that. A load reads the old row; the row changes, the invalidation
//! removes the cached entry; the load then stores what it read, and the old value stays until
//! something evicts it. A [`Fence`] stands beside the cache and closes that window.
//!
//! # Who takes part
//! - A *load* takes a [`Token`] before it reads and stores through it.
//! - A *drop* ([`Fence::invalidate`]) says that one id has changed.
//! - A *flush* ([`Fence::flush`]) says that anything may have changed.
//! - A *hit* asks [`Fence::serves`] whether the entry's [`Stamp`] is still good.
//! - The *driver* ([`Target::attach`](super::target::Target::attach)) moves the state along.
//!
//! # Protocol
//! ```text
//!  word  [ epoch | capped | state ]      one atomic; read by every hit, written by flushes alone
//!  stripes  [ lock | version | position ] x 1,024      an id hashes to one
//!
//!  token:  read word and version                          no lock
//!  store:  lock stripe; word and version as in the token? insert : refuse; unlock
//!  drop:   lock stripe; version + 1; unlock; remove
//!  flush:  epoch + 1; lock and unlock every stripe; clear
//!  hit:    get the entry; read word; same epoch (and young enough)? serve : treat as absent
//! ```
//!
//! # Why it holds
//! 1. *Store against drop of one id.* Both take the stripe's lock. If the drop is first, the store
//!    sees the higher version (the lock's release and acquire order the two) and refuses. If the
//!    store is first, its insertion is complete when the drop removes. The removal itself needs no
//!    lock: at worst it takes away a newer value, stored by a load that began after the drop.
//! 2. *Token against drop.* A token that reads the version before it is raised is refused at its
//!    store by 1. One that reads it raised (Acquire, its partner is the Release store of the drop)
//!    was taken after the drop began, so its load began after the commit that the drop tells of.
//! 3. *Store against flush.* The epoch is raised before any stripe is passed. A store that checked
//!    the old epoch had its stripe locked before the flush passed it, so its insertion is complete
//!    when the flush clears. A store that locks later sees the new epoch through that lock.
//! 4. *Hit against flush.* A hit looks at the word after it got the entry, so an entry of an older
//!    epoch is not served even while the clearing is still under way.
//!
//! The idea of a version taken before the read and checked at the store is the *lease* of
//! memcached at Facebook (Nishtala et al., NSDI 2013), kept here beside the cache and made atomic
//! with the removal.

mod clock;
mod planted;
mod refused;
mod stripe;
#[cfg(test)]
mod tests;
mod token;
mod transitions;
mod word;

use std::fmt;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use ahash::RandomState;
use crossbeam_utils::CachePadded;

pub use refused::{FenceStats, Refused};
pub use token::{Stamp, Token, View};
pub use word::Coherence;

pub(crate) use clock::{Clock, nanos};
#[cfg(afterwrite_loom)]
#[doc(hidden)]
pub use planted::FAULTS;
pub(crate) use planted::planted;
pub(crate) use stripe::inside;
pub(crate) use token::Mark;

use crate::sync::{AtomicBool, AtomicU64, Mutex};
use planted::unless;
use refused::Counts;
use stripe::{STRIPES, Stripe};
use word::{CAPPED, Word};

/// Keeps loads that began before an invalidation out of a cache. See the [module](self).
///
/// It holds no values itself and works beside any cache. [`Coherent`](super::coherent::Coherent)
/// joins one to a cache and loads through it, which is what most callers want.
///
/// About 40 KiB, allocated once.
///
/// ```
/// use std::{collections::HashMap, sync::Mutex};
/// use afterwrite::invalidation::fence::{Fence, Refused, Stamp};
///
/// let fence = Fence::new();
/// let cache: Mutex<HashMap<&str, (Stamp, u32)>> = Mutex::default();
///
/// let token = fence.token("42");
/// let read = 7; // from the database
/// // Meanwhile somebody changes the row and invalidates it.
/// fence.invalidate("42", || cache.lock().unwrap().remove("42"));
/// let stored = token.store(|stamp| cache.lock().unwrap().insert("42", (stamp, read)));
/// assert_eq!(stored.unwrap_err(), Refused::Invalidated);
///
/// let token = fence.token("42");
/// let read = 8;
/// token.store(|stamp| cache.lock().unwrap().insert("42", (stamp, read))).unwrap();
/// let (stamp, value) = cache.lock().unwrap()["42"];
/// assert!(fence.serves(&stamp));
/// assert_eq!(value, 8);
/// ```
pub struct Fence {
    /// Epoch, cap and state; see `word.rs`. On a line of its own: every hit reads it.
    word: CachePadded<AtomicU64>,
    stripes: Box<[Stripe]>,
    hasher: RandomState,
    clock: Clock,
    /// Every id has to have been read at this position at least.
    floor: AtomicU64,
    /// As a stripe's marks, for all ids: set by flushes.
    settles: AtomicU64,
    /// How long after a drop a read of unknown view is not stored, in nanoseconds.
    settle: u64,
    /// How long after its load began an entry of an unproved state is served, in nanoseconds.
    lease: AtomicU64,
    /// How long after its load began any entry is served, in nanoseconds, if the word is capped:
    /// as its owner wants it, and as its driver does.
    own_max_age: u64,
    driven_max_age: AtomicU64,
    /// Held while clearing, so that two who clear don't undo each other's state.
    clearing: Mutex<()>,
    /// Whether a driver is attached.
    driven: AtomicBool,
    counts: Counts,
}

impl Fence {
    /// A fence that listens to nobody: [`Coherence::Standalone`].
    #[must_use]
    pub fn new() -> Self {
        #[cfg(not(afterwrite_loom))]
        let hasher = RandomState::new();
        // A model has to take the same way each time.
        #[cfg(afterwrite_loom)]
        let hasher = RandomState::with_seeds(1, 2, 3, 4);
        Self {
            word: CachePadded::new(AtomicU64::new(Word::first().0)),
            stripes: (0..STRIPES).map(|_| Stripe::new()).collect(),
            hasher,
            clock: Clock::start(),
            floor: AtomicU64::new(0),
            settles: AtomicU64::new(0),
            settle: 0,
            lease: AtomicU64::new(0),
            own_max_age: u64::MAX,
            driven_max_age: AtomicU64::new(u64::MAX),
            clearing: Mutex::new(()),
            driven: AtomicBool::new(false),
            counts: Counts::default(),
        }
    }

    /// For `settle` after a drop, refuses to store what was read through a view of unknown
    /// position: loads that read replicas which lag behind by at most `settle` are safe then.
    ///
    /// What counts is when the load *began*. Zero, the default, turns it off.
    #[must_use]
    pub fn with_settle(mut self, settle: Duration) -> Self {
        self.settle = nanos(settle);
        self
    }

    /// Serves no entry for longer than `max_age` after its load began. Hits then look at the clock,
    /// which costs some 20 ns.
    #[must_use]
    pub fn with_max_age(mut self, max_age: Duration) -> Self {
        self.own_max_age = nanos(max_age);
        self.word.fetch_or(CAPPED, Relaxed);
        self
    }

    #[cfg(test)]
    pub(crate) fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        // What moves the clock by hand also wants the same run twice.
        self.hasher = RandomState::with_seeds(1, 2, 3, 4);
        self
    }

    /// How far the cache may be trusted now. Wait-free: one atomic load.
    #[inline]
    #[must_use]
    pub fn coherence(&self) -> Coherence {
        self.word().state()
    }

    /// Whether an entry with this stamp may be served now.
    ///
    /// Call it **after** the entry was got from the cache. Wait-free: one atomic load and a
    /// comparison, and a look at the clock only while the node is not coherent or `max_age` is set.
    #[inline]
    #[must_use]
    pub fn serves(&self, stamp: &Stamp) -> bool {
        // Acquire: its partner is the transition that raised the epoch, so that a caller who is
        // told no also sees what that transition had set before.
        let word = self.word();
        word.epoch() == stamp.epoch.get() && (!word.timed() || self.young_enough(word, stamp))
    }

    #[cold]
    fn young_enough(&self, word: Word, stamp: &Stamp) -> bool {
        let age = self.clock.now().saturating_sub(stamp.began);
        (!word.leased() || age < self.lease.load(Relaxed))
            && age < self.own_max_age
            && age < self.driven_max_age.load(Relaxed)
    }

    /// Takes a token for `id`. Call it **before** the value is read. Wait-free.
    pub fn token(&self, id: &str) -> Token<'_> {
        Token {
            fence: self,
            mark: self.mark(id),
        }
    }

    /// Drops one id: raises its version under the id's lock, then runs `remove` without it.
    ///
    /// Call it once the change is committed. May block while a store on the same lock is under way.
    /// From inside the callback of a store it never waits: where it would have to, it raises the
    /// epoch instead, which makes every older entry worthless.
    pub fn invalidate<R>(&self, id: &str, remove: impl FnOnce() -> R) -> R {
        self.drop_one(id, None, remove)
    }

    /// As [`invalidate`](Self::invalidate), and from now on refuses to store, for this id, what was
    /// read through a view that has not reached `position`.
    pub fn invalidate_at<R>(&self, id: &str, position: u64, remove: impl FnOnce() -> R) -> R {
        self.drop_one(id, Some(position), remove)
    }

    /// Drops everything: raises the epoch, waits for stores under way, runs `clear`.
    ///
    /// Loads that began earlier are not stored any more. While a coherent fence clears it reads
    /// `Suspect`. May block for as long as the slowest store under way. From inside the callback of a
    /// store or flush it does not wait for stores under way: what those insert has an old stamp.
    pub fn flush<R>(&self, clear: impl FnOnce() -> R) -> R {
        self.flush_with(None, || (clear(), true)).0
    }

    /// What was stored and refused so far.
    #[must_use]
    pub fn stats(&self) -> FenceStats {
        self.counts.read(self.word().epoch())
    }

    #[inline(always)]
    fn word(&self) -> Word {
        Word(self.word.load(unless("fence_word_acquire", Acquire)))
    }

    /// Makes every entry older than this call worthless, and changes nothing else. Lock-free.
    pub(crate) fn bypass_older(&self) {
        self.raise_epoch(Word::state);
    }

    /// The epoch of all that is stored now.
    pub(crate) fn epoch(&self) -> u64 {
        self.word().epoch()
    }

    /// The fence's own time, in nanoseconds.
    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// What a load that begins now compares at its store.
    pub(crate) fn mark(&self, id: &str) -> Mark {
        let stripe = self.stripe_of(id);
        Mark {
            stripe,
            epoch: self.word().epoch(),
            // Acquire: its partner is the Release store in `drop_one`.
            version: self.stripes[stripe]
                .version
                .load(unless("fence_version_acquire", Acquire)),
            began: self.clock.now(),
        }
    }

    fn stripe_of(&self, id: &str) -> usize {
        // Truncation is meant: any bits of the hash will do.
        (self.hasher.hash_one(id) as usize) & (STRIPES - 1)
    }

    pub(crate) fn store<R>(
        &self,
        mark: &Mark,
        view: View,
        insert: impl FnOnce(Stamp) -> R,
    ) -> Result<R, Refused> {
        let stripe = &self.stripes[mark.stripe];
        let Some(held) = stripe.enter() else {
            return Err(self.counts.refused(Refused::Nested));
        };
        if let Err(refused) = self.admits(mark, stripe, &held, view) {
            return Err(self.counts.refused(refused));
        }
        let held = (!planted("fence_check_then_insert")).then_some(held);
        let stored = insert(mark.stamp());
        drop(held);
        self.counts.stored();
        Ok(stored)
    }

    /// The rules for a store, under the stripe's lock.
    fn admits(
        &self,
        mark: &Mark,
        stripe: &Stripe,
        marks: &stripe::Marks,
        view: View,
    ) -> Result<(), Refused> {
        // The state may differ from the token's: it changes without a new epoch only from `Suspect`
        // to `Coherent`, at the end of a clearing, and all that this epoch's loads could miss had
        // been proved to arrive before the epoch began.
        if self.word().epoch() != mark.epoch {
            return Err(Refused::Flushed);
        }
        if stripe.version.load(Relaxed) != mark.version {
            return Err(Refused::Invalidated);
        }
        let settled = |stripe_settles: u64| {
            let settles = stripe_settles.max(self.settles.load(Relaxed));
            self.settle == 0 || mark.began >= settles
        };
        // Relaxed: a floor that a flush raised was raised before the epoch, which the token has read.
        let required = marks.position.max(self.floor.load(Relaxed));
        match view {
            View::Primary => Ok(()),
            View::At(seen) if seen < required => Err(Refused::Behind { required, seen }),
            View::At(_) if settled(marks.settles_unstamped) => Ok(()),
            View::Unstated if self.settle == 0 && required > 0 => {
                Err(Refused::Unstated { required })
            }
            View::Unstated if settled(marks.settles) => Ok(()),
            View::At(_) | View::Unstated => Err(Refused::Settling),
        }
    }

    fn drop_one<R>(&self, id: &str, position: Option<u64>, remove: impl FnOnce() -> R) -> R {
        let stripe = &self.stripes[self.stripe_of(id)];
        let settles = self.settles_from_now();
        self.counts.dropped();
        let Some(mut held) = stripe.enter() else {
            // Inside a store's callback, and the lock is taken. The epoch does more than the version would:
            // it makes every token and every entry old, and needs no lock.
            self.settles.fetch_max(settles, Relaxed);
            self.raise_floor(position.unwrap_or(0));
            self.bypass_older();
            return remove();
        };
        held.settles = held.settles.max(settles);
        match position {
            Some(position) => held.position = held.position.max(position),
            None => held.settles_unstamped = held.settles_unstamped.max(settles),
        }
        let version = stripe.version.load(Relaxed);
        // Release: its partner is the Acquire load in `mark`.
        let order = unless("fence_version_release", Release);
        stripe.version.store(version.wrapping_add(1), order);
        drop(held);
        remove()
    }

    fn settles_from_now(&self) -> u64 {
        match self.settle {
            0 => 0,
            settle => self.clock.now().saturating_add(settle),
        }
    }

    /// Asks, of all ids, for a view that has reached `position`.
    pub(crate) fn raise_floor(&self, position: u64) {
        // Relaxed: a flush publishes it with its epoch; alone it only has to come through some time.
        self.floor.fetch_max(position, Relaxed);
    }
}

impl Default for Fence {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fence")
            .field("coherence", &self.coherence())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
