//! Who waits for which position, and the handshake that loses no wake-up.
//!
//! # Who takes part
//!
//! - *Advancers* raise the position. They must cost next to nothing while nobody is due.
//! - *Registrants* leave a waker for a position, replace it, and take it back.
//! - At most one *poller* sleeps here while nobody waits (see the `follow` module).
//!
//! ```text
//!   one cache line             behind a lock
//!   +-------+-------+          +-----------------------------------------+
//!   |  pos  | least | <------- | entries: (position, ticket) -> waker    |
//!   +-------+-------+  lowest  | poller:  a waker while it sleeps        |
//!       ^       ^      entry   +-----------------------------------------+
//!       |       |                 ^
//!    advance: raise(pos), load(least); the lock only if least <= v
//! ```
//!
//! # Protocol
//!
//! - `advance(v)`: **A1** raise `pos` to v by compare-and-swap, or return if it is there already;
//!   **A2** load `least`; if it is above v, done. Else take the due entries, at most [`BATCH`] at
//!   a time under the lock, and wake them outside it.
//! - `register(v)`, under the lock: **R1** insert the entry; **R2** set `least` to the lowest
//!   entry; **R3** a read-modify-write of `pos` that changes nothing. If `pos` has reached v, the
//!   entry is taken back and the caller told so.
//! - `least` is written under the lock only, and after every change there it is the lowest entry's
//!   position, or `u64::MAX` when there is none.
//!
//! # Why no wake-up is lost
//!
//! Each side writes one word and reads the other's, as in Dekker's algorithm, where a fence on each
//! side is the usual cure. Here both sides pass through a read-modify-write of `pos` instead: it
//! costs the same, and checkers of all kinds understand it.
//!
//! Take an `advance` to at least v that raises the position, and a `register(v)`. A1 and R3 are
//! read-modify-writes of one location, so one comes first in its modification order.
//!
//! 1. **A1 before R3.** R3 reads a position of at least v, for positions only grow: the registrant
//!    learns at once that v is reached. R3 acquires what A1 released, directly or through the
//!    read-modify-writes between them, which continue its release sequence.
//! 2. **R3 before A1.** A1 reads from R3, or from a read-modify-write that continues R3's release
//!    sequence, so R2 happens before A2 (as does, through the lock, the earlier write that lets R2
//!    find the right value there already). By coherence A2 reads what R2 wrote or something later.
//!    As long as the entry stands, every such value is at most v: the advancer takes the lock,
//!    where it finds the entry. If it no longer stands, another advancer took it and wakes it, or
//!    its owner took it back.
//!
//! An `advance` that does not raise the position may return at once: the one that raised it to
//! where it is has the duty. So the lock is no part of the argument, except that it keeps `least`
//! and the entries in step; and an advancer that is stopped between A1 and A2 delays those alone
//! whom it made due, and them until the next `advance` at the latest.
//!
//! A poller's sleep needs no such care: it leaves its waker under the lock, having found no entry
//! there, and the first registrant takes that waker out under the same lock.

use std::collections::BTreeMap;
use std::fmt;
use std::task::Waker;

use crossbeam_utils::CachePadded;

use super::order::{self, ONE_BATCH, POLLER_UNLOCKED, UNCHECKED, mutant};
use crate::sync::panics::contain;
use crate::sync::{Arc, AtomicU64, Mutex};

/// How many entries are taken per hold of the lock, so that registrants get their turn.
const BATCH: usize = if cfg!(afterwrite_loom) { 1 } else { 64 };

/// `least` when nobody waits. An entry for this very position costs a lock, and is found.
const NOBODY: u64 = u64::MAX;

/// Position first, then the order of registration.
type Key = (u64, u64);

/// What the clones of a watermark share.
#[derive(Debug)]
pub(super) struct Shared {
    hot: CachePadded<Hot>,
    room: Mutex<Room>,
    panics: AtomicU64,
}

/// What every `advance` touches: one line, which an advancer that is alone keeps to itself.
#[derive(Debug)]
struct Hot {
    pos: AtomicU64,
    least: AtomicU64,
}

/// What the lock guards.
#[derive(Debug, Default)]
struct Room {
    entries: BTreeMap<Key, Waker>,
    next_ticket: u64,
    /// Whether a poller is at work for this watermark.
    followed: bool,
    /// That poller's waker, while it sleeps because nobody waits.
    poller: Option<Waker>,
}

impl Room {
    fn insert(&mut self, v: u64, waker: Waker) -> Key {
        let key = (v, self.next_ticket);
        self.next_ticket += 1;
        self.entries.insert(key, waker);
        key
    }

    fn least(&self) -> u64 {
        self.entries.first_key_value().map_or(NOBODY, |(k, _)| k.0)
    }

    fn has_due(&self, pos: u64) -> bool {
        self.entries
            .first_key_value()
            .is_some_and(|(k, _)| k.0 <= pos)
    }

    fn pop_due(&mut self, pos: u64) -> Option<Waker> {
        let first = self.entries.first_entry()?;
        (first.key().0 <= pos).then(|| first.remove())
    }
}

impl Shared {
    pub(super) fn new(initial: u64) -> Self {
        Self {
            hot: CachePadded::new(Hot {
                pos: AtomicU64::new(initial),
                least: AtomicU64::new(NOBODY),
            }),
            room: Mutex::new(Room::default()),
            panics: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(super) fn get(&self) -> u64 {
        self.hot.pos.load(order::read())
    }

    /// Raises the position to `v` and wakes who is due; whether it was below.
    #[inline]
    pub(super) fn advance(&self, v: u64) -> bool {
        // Not `fetch_max`, which ThreadSanitizer does not take for an atomic operation: it would
        // report whatever is published through the position as a race.
        let mut seen = self.hot.pos.load(order::PLAIN);
        loop {
            if seen >= v {
                return false;
            }
            let raised =
                self.hot
                    .pos
                    .compare_exchange_weak(seen, v, order::advance(), order::PLAIN);
            match raised {
                Ok(_) => break,
                Err(higher) => seen = higher,
            }
        }
        if self.hot.least.load(order::LEAST) <= v {
            self.wake_due(v);
        }
        true
    }

    #[cold]
    fn wake_due(&self, v: u64) {
        let mut more = true;
        while more {
            let mut batch = [const { None }; BATCH];
            let mut room = self.room.lock();
            for slot in &mut batch {
                *slot = room.pop_due(v);
            }
            more = room.has_due(v) && !mutant(ONE_BATCH);
            self.publish_least(&room);
            drop(room);
            for waker in batch.into_iter().flatten() {
                self.call(|| waker.wake());
            }
        }
    }

    /// Leaves `waker` for position `v`; `None` if that is reached, and then nothing is left behind.
    fn register(&self, v: u64, waker: &Waker) -> Option<Key> {
        if self.get() >= v {
            return None;
        }
        // A clone is the user's code: it runs before the lock is taken.
        let waker = waker.clone();
        let mut room = self.room.lock();
        let key = room.insert(v, waker);
        self.publish_least(&room);
        if self.hot.pos.fetch_add(0, order::register()) >= v && !mutant(UNCHECKED) {
            let taken_back = room.entries.remove(&key);
            self.publish_least(&room);
            drop(room);
            self.discard(taken_back);
            return None;
        }
        let poller = room.poller.take();
        drop(room);
        if let Some(poller) = poller {
            self.call(|| poller.wake());
        }
        Some(key)
    }

    /// Brings `least` in step with the entries; called with the lock held.
    fn publish_least(&self, room: &Room) {
        let least = room.least();
        // An equal value is not written again, to leave the line with the advancers.
        if self.hot.least.load(order::LEAST) != least {
            self.hot.least.store(least, order::LEAST);
        }
    }

    /// Entries that were not woken or taken back yet.
    pub(super) fn waiting(&self) -> usize {
        self.room.lock().entries.len()
    }

    /// Calls of wakers that panicked.
    pub(super) fn panics(&self) -> u64 {
        self.panics.load(order::PLAIN)
    }

    /// Reserves the place of the one poller; whether it was free.
    pub(super) fn begin_following(&self) -> bool {
        !std::mem::replace(&mut self.room.lock().followed, true)
    }

    /// Gives the place of the one poller back.
    pub(super) fn end_following(&self) {
        let left = {
            let mut room = self.room.lock();
            room.followed = false;
            room.poller.take()
        };
        self.discard(left);
    }

    /// Whether somebody waits; if not, `poller` is woken by the first who does.
    pub(super) fn somebody_waits_or_wake(&self, poller: &Waker) -> bool {
        let mut poller = Some(poller.clone());
        let mut room = self.room.lock();
        let somebody = !room.entries.is_empty();
        if mutant(POLLER_UNLOCKED) {
            drop(room);
            room = self.room.lock();
        }
        if !somebody {
            std::mem::swap(&mut room.poller, &mut poller);
        }
        drop(room);
        self.discard(poller);
        somebody
    }

    /// Holds the lock, so that a test can show who does without it.
    #[cfg(test)]
    pub(super) fn hold_lock(&self) -> impl Drop + '_ {
        self.room.lock()
    }

    /// Runs a waker's code, which is the user's: never under the lock, and panics are counted.
    fn call(&self, f: impl FnOnce()) {
        if contain(f).is_none() {
            self.panics.fetch_add(1, order::PLAIN);
        }
    }

    /// Drops a waker, which is the user's code as well.
    fn discard(&self, waker: Option<Waker>) {
        if let Some(waker) = waker {
            self.call(|| drop(waker));
        }
    }
}

/// A waker left at a watermark; dropping this takes it back.
///
/// The waker is called at most once for each time it was left. After that, and after the drop,
/// nothing of it is kept.
pub(crate) struct Registration {
    shared: Arc<Shared>,
    key: Key,
}

impl Registration {
    /// Leaves `waker` for position `v`; `None` if that is reached.
    pub(super) fn new(shared: &Arc<Shared>, v: u64, waker: &Waker) -> Option<Self> {
        let key = shared.register(v, waker)?;
        let shared = Arc::clone(shared);
        Some(Self { shared, key })
    }

    /// Leaves `waker` in place of the one before; `false` if the position is reached.
    pub(crate) fn rearm(&mut self, waker: &Waker) -> bool {
        match self.shared.room.lock().entries.get(&self.key) {
            // Only an advancer that reached the position takes an entry whose owner stands.
            None => return false,
            Some(held) if held.will_wake(waker) => return true,
            Some(_) => {}
        }
        // As in `register`, the clone must run outside the lock.
        let mut waker = waker.clone();
        let armed = match self.shared.room.lock().entries.get_mut(&self.key) {
            None => false,
            Some(held) => {
                std::mem::swap(held, &mut waker);
                true
            }
        };
        self.shared.discard(Some(waker));
        armed
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without what is shared: that would list everybody's wakers.
        f.debug_struct("Registration")
            .field("position", &self.key.0)
            .finish_non_exhaustive()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let left = {
            let mut room = self.shared.room.lock();
            let left = room.entries.remove(&self.key);
            if left.is_some() {
                self.shared.publish_least(&room);
            }
            left
        };
        self.shared.discard(left);
    }
}
