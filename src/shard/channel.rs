//! What a registry keeps with each key: its topic, and how far its shard and its users are with it.

use smol_str::SmolStr;

use super::faults::{PIN_WHAT_GOES, planted};
use super::inbox::Inbox;
use super::job::Refusal;
use crate::directory::{KeyHash, Keyed};
use crate::sync::counted::Home;
use crate::sync::queue::Place;
use crate::sync::{
    Arc, AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed, order, panics,
};
use crate::topic::{Attached, Topic};

/// One key of a registry.
pub(crate) type Channel<T> = Topic<T, KeyState<T>>;

/// In `debt`: the shard has taken its last refused loss.
const FINISHED: u64 = 1 << 63;

/// What goes with a key.
pub(crate) struct KeyState<T> {
    /// The registry, of which every subscription keeps a count here.
    pub(crate) registry: Home,
    key: SmolStr,
    hash: KeyHash,
    pub(crate) shard: Arc<Inbox<T>>,
    /// Subscriptions and resolved keys. At 0 the key leaves the directory.
    pins: AtomicU32,
    /// Gates queued or waiting, as `pending_per_key` bounds them.
    pending: AtomicU16,
    /// Whether the key is on its shard's list of keys with a refused producer.
    listed: AtomicBool,
    /// Published payloads on their way through the shard: later ones must not overtake them.
    pub(crate) handed: AtomicU32,
    /// The shard's own: the number of the key's lane plus one.
    pub(crate) lane: AtomicU32,
    /// Producers that were not taken over, merged into one.
    refused: Place<Box<Refusal<T>>>,
    /// Refused losses that the shard has not taken, and whether it takes any more ([`FINISHED`]).
    debt: AtomicU64,
    /// Gates that a later one took the place of.
    pub(crate) coalesced: AtomicU64,
    /// Gates that expired with [`Expiry::Skip`](crate::Expiry::Skip).
    pub(crate) skipped: AtomicU64,
}

impl<T> KeyState<T> {
    pub(crate) fn new(registry: Home, key: &str, hash: KeyHash, shard: Arc<Inbox<T>>) -> Self {
        Self {
            registry,
            key: SmolStr::new(key),
            hash,
            shard,
            pins: AtomicU32::new(0),
            pending: AtomicU16::new(0),
            listed: AtomicBool::new(false),
            handed: AtomicU32::new(0),
            lane: AtomicU32::new(0),
            refused: Place::new(None),
            debt: AtomicU64::new(0),
            coalesced: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
        }
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn hash(&self) -> KeyHash {
        self.hash
    }

    /// Pins a key that is pinned already; otherwise only the directory's lock allows it.
    pub(crate) fn try_pin(&self) -> bool {
        self.pins
            .fetch_update(Relaxed, Relaxed, |pins| {
                (pins > 0 || planted(PIN_WHAT_GOES)).then(|| pins + 1)
            })
            .is_ok()
    }

    /// Pins a key, while the directory's lock for it is held.
    pub(crate) fn pin(&self) {
        self.pins.fetch_add(1, Relaxed);
    }

    /// Gives a pin up; true for the last.
    pub(crate) fn unpin(&self) -> bool {
        self.pins.fetch_sub(1, Relaxed) == 1
    }

    pub(crate) fn is_pinned(&self) -> bool {
        self.pins.load(Relaxed) != 0
    }

    /// Takes one of the key's places for gates, of which there are `limit`.
    pub(crate) fn admit(&self, limit: u16) -> bool {
        self.pending
            .fetch_update(Relaxed, Relaxed, |now| (now < limit).then(|| now + 1))
            .is_ok()
    }

    /// Gives a place for a gate back.
    pub(crate) fn release(&self) {
        self.pending.fetch_sub(1, Relaxed);
    }

    /// Leaves a producer that was not taken over: whether the key has to be listed, or `None` if the
    /// shard has ended, and nothing was left. Lock-free.
    ///
    /// The loss is counted by itself, before the producer is in its place: what the last look of the
    /// shard finds in the count is told, wherever its producer may be, and who counts later knows
    /// that it came too late.
    pub(crate) fn refuse(&self, mut fresh: Box<Refusal<T>>) -> Option<bool> {
        if self.debt.fetch_add(fresh.lost, Relaxed) & FINISHED != 0 {
            return None;
        }
        if let Some(older) = self.refused.take() {
            fresh.absorb(older);
        }
        while let Some(other) = self.refused.swap(Some(fresh)) {
            fresh = match self.refused.take() {
                Some(mut newer) => {
                    newer.absorb(other);
                    newer
                }
                None => other,
            };
        }
        // The producer is in its place before the flag is looked at, and the shard clears the flag
        // before it looks for the producer.
        Some(!self.listed.swap(true, order::refusal_list()))
    }

    /// Notes that the shard has taken the key off its list.
    pub(crate) fn unlist(&self) {
        self.listed.swap(false, order::refusal_list());
    }

    /// Takes what was refused.
    pub(crate) fn take_refusal(&self) -> Option<Box<Refusal<T>>> {
        let refusal = self.refused.take()?;
        self.debt.fetch_sub(refusal.lost, Relaxed);
        Some(refusal)
    }

    /// The shard's last look at what was refused: how many losses are still to be told. Who is
    /// refused later meets a closed registry.
    pub(crate) fn finish_refusals(&self) -> u64 {
        let left = self.debt.swap(FINISHED, Relaxed) & !FINISHED;
        if let Some(refusal) = self.refused.take() {
            panics::contain(|| drop(refusal));
        }
        left
    }
}

impl<T> Attached for KeyState<T> {
    fn turn_is_free(&self) {
        self.shard.bell.ring(super::bell::TURN);
    }

    fn payloads_panicked(&self, n: u32) {
        self.shard.settings.observer.payload_panicked(&self.key, n);
    }
}

impl<T> Keyed for Channel<T> {
    fn key(&self) -> &str {
        self.attached.key()
    }
}

impl<T> std::fmt::Debug for KeyState<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyState")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(afterwrite_loom)))]
mod tests {
    use super::*;
    use crate::directory::Hasher;

    #[test]
    fn r12_a_gate_that_is_refused_takes_no_place_of_others() {
        let hash = Hasher::with_seed(1).hash("a");
        let inbox = Arc::new(Inbox::new(0, 1, 1, Arc::default()));
        let state: KeyState<u8> = KeyState::new(Home::of(&Arc::new(())), "a", hash, inbox);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    assert!(!state.admit(0));
                }
            });
            for _ in 0..100_000 {
                assert!(state.admit(1), "nobody else has one");
                state.release();
            }
            done.store(true, Relaxed);
        });
    }
}
