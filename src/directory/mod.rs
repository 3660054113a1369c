//! The directory: from a key to its value, read without a lock.
//!
//! # Who takes part
//!
//! *Readers* push: they look up a key, and nearly always either miss or use the value at once. They
//! take no lock, and neither allocate nor free. *Writers* subscribe and unsubscribe: they insert and
//! remove keys, one at a time in each of the stripes. The hash of a key is taken once, by
//! the caller; [`hash`] says which of its bits serve what.
//!
//! ```text
//!  Directory ── 64 stripes                                       by 6 bits of the hash
//!    Stripe ┬─ lock ─ Graveyard                                  writers only
//!           ├─ buckets: how many there are                       grows by one, at a split
//!           └─ segments: 4, 8, 16, ... buckets, never moved
//!                Bucket ┬─ 3 tag words of 8 tags                 a miss ends here
//!                       ├─ hints                                what to fetch ahead
//!                       └─ cell ─ Snapshot: fingerprints, values (arc-swap; immutable)
//!                                                     └─ V       one count, owned by the directory
//! ```
//!
//! A stripe grows by linear hashing: when it holds more than six keys a bucket, the insert that made
//! it so shares out the keys of one bucket between it and a new one. No insert ever moves more
//! than a bucket, and no reader waits for one that does. A stripe never shrinks, and the memory that a
//! large directory had from its [arena](crate::arena) stays its own: one that has held a million keys keeps its
//! 170,000 empty buckets, up to 17 MB, and the room for snapshots and values, some 250 MB, until it is dropped.
//!
//! # The protocol
//!
//! A reader of key k:
//!
//! 1. loads `buckets`, n (Acquire), which names k's bucket b;
//! 2. loads the one tag word of b that k's tag would be in (Acquire); no such tag: step 4;
//! 3. loads the snapshot of b (protected by arc-swap) and looks for k; found: done;
//! 4. loads `buckets` again; if by it k is still in b then k was absent; else from step 2, there.
//!
//! A writer, under the stripe's lock:
//!
//! - *insert*: stores the tag word with k's tag (Release), then swaps in a snapshot with k.
//! - *remove*: swaps in a snapshot without k, then stores the tag word as it then is (Release).
//! - *split* of b into b and b': S1 writes b' with the keys that go there, tags and snapshot; S2 stores
//!   `buckets` n + 1 (Release); S3 swaps into b a snapshot of the keys that stay; S4 stores b's tag words
//!   (Release).
//!
//! # Why no key is missed
//!
//! *Claim: if k's insert happened before the reader's step 1, or the reader has found k before, and no
//! remove of k has begun, the reader finds k.* Let b be the bucket of k by the n that the reader holds.
//!
//! 1. **No split has moved k from b as far as the reader sees.** Both the snapshot with k and the
//!    word with its tag were stored before step 1, and all that came after in b carries k on. By coherence
//!    the reader sees those or later ones. So step 2 passes and step 3 finds k. A reader that found k
//!    before k's insert returned knows them too, since it acquired the snapshot, and the tag was stored
//!    before that: were it the other way round, a reader that came to the snapshot by a tag from before
//!    k's last removal could rely on k, and then be told by the empty word of that removal that k is
//!    not there. A tag without its key costs no more than a look in vain.
//! 2. **A split moves k, and the reader sees b as before.** k is still in that snapshot, and still
//!    alive (see [`graveyard`]): found.
//! 3. **A split moves k, and step 2 reads what S4 stored, or later.** That was a Release store,
//!    sequenced after S2, and step 2 is an Acquire load: S2 happens before step 4, which by coherence
//!    reads n + 1 or more, and turns back to b'.
//! 4. **A split moves k, and step 3 reads what S3 swapped in, or later.** The same, by the Release of
//!    the swap and the Acquire of arc-swap's load.
//! 5. **The reader holds n + 1 or more.** It read it by an Acquire load from S2 or a later such store
//!    in the same sequence of writers, so that S1 happens before its step 2 in b'. With b' for b this is
//!    case 1, or, if b' has been split in turn, one of 2 to 4.
//!
//! What a reader fetches ahead ([`hints`]) carries nothing of this: it names memory to the processor, and reads
//! none.
//!
//! A tag word is a single atomic, and a key's tag never leaves it while the key stays: there is no pair
//! of words between which a tag could slip past a reader. Retries: only a split that moves k
//! itself makes a reader turn back, once each time the stripe doubles.
//!
//! *A miss is a miss*: what step 4 confirms was so when step 2 or 3 read it, since the
//! reader's b was then k's bucket in the order of writers.
//!
//! # What frees what
//!
//! A reader inside the cell's protection counts on its snapshot, in which the values are plain pointers.
//! [`graveyard`] keeps both for as long as needed, and its writers do all the freeing; but a removed value is freed by
//! whoever drops its last handle, without a lock, and all blocks of the arena by the last one of all. Readers
//! allocate nothing either, but for one thing of arc-swap's: a thread's first look at any cell may
//! allocate the slots that it protects what it reads with, once in that thread's life. Whoever minds does a
//! [`Directory::get`] of a key that is there as the thread starts.
//!
//! # What is proved how
//!
//! The models in `loom-tests` run this code with one stripe, two tags a word, splits at two keys, and an atomic
//! pointer in arc-swap's place, whose orderings are weaker, and the global allocator in the arena's, which has
//! models of its own. Each ordering in [`order`], the
//! order of S2 and S3, and step 4 have a planted fault that fails a model. arc-swap itself and
//! the graveyard are left to the stress tests, with three of arc-swap's strategies, and to AddressSanitizer and
//! ThreadSanitizer.

#[cfg(afterwrite_loom)]
pub mod models;

mod bucket;
mod cell;
mod graveyard;
mod hash;
mod hints;
mod order;
mod sizes;
mod snapshot;
mod stripe;
mod tags;

use std::fmt;
use std::marker::PhantomData;

#[allow(unused_imports, reason = "the registry is its user")]
pub(crate) use hash::{Hasher, KeyHash};

use cell::{DefaultCell, SnapshotCell};
use stripe::Stripe;
#[cfg(test)]
use stripe::WriterGuard;

use crate::arena::{Arena, Memory, Shared};
use crate::sync::Arc;

/// A value that knows its key.
pub(crate) trait Keyed {
    /// The key, the same for as long as the value lives.
    fn key(&self) -> &str;
}

/// Values by key.
///
/// Each operation takes the key and its hash by a [`Hasher`], always the same one for a directory: with
/// another hash a key is simply not found.
pub(crate) struct Directory<V: Keyed, C: SnapshotCell<V> = DefaultCell<V>> {
    stripes: Box<[Stripe<V, C>; sizes::STRIPES]>,
    /// The raw pointers inside stand for these.
    _values: PhantomData<(Shared<V>, C)>,
}

/// While it lives every writer of its directory waits: see [`Directory::lock_all_writers`].
#[cfg(test)]
#[must_use]
pub(crate) struct WritersLocked<'a, V> {
    _guards: Vec<WriterGuard<'a, V>>,
    _memory: Vec<Memory<'a>>,
}

impl<V: Keyed> Directory<V> {
    /// An empty directory.
    pub(crate) fn new() -> Self {
        Self::with_cells()
    }
}

impl<V: Keyed, C: SnapshotCell<V>> Directory<V, C> {
    /// An empty directory with cells of a chosen kind.
    fn with_cells() -> Self {
        let arena = Arc::new(Arena::new());
        Self {
            stripes: Box::new(std::array::from_fn(|_| Stripe::new(arena.clone()))),
            _values: PhantomData,
        }
    }

    fn stripe(&self, hash: KeyHash) -> &Stripe<V, C> {
        &self.stripes[hash.stripe()]
    }

    /// Runs `f` with the value of `key`, if there is one.
    ///
    /// Lock-free, and but for splits that move this key wait-free. `f` runs inside arc-swap's protection:
    /// it should be short, or clone the handle and return, since meanwhile nothing that was in the
    /// key's bucket is freed.
    #[inline]
    pub(crate) fn get<R>(
        &self,
        hash: KeyHash,
        key: &str,
        f: impl FnOnce(&Shared<V>) -> R,
    ) -> Option<R> {
        self.stripe(hash).get(hash.fingerprint(), key, f)
    }

    /// Whether a key of this hash may be there. `false` is certain, and costs neither the snapshot nor
    /// a count; `true` is wrong about once in a hundred misses.
    ///
    /// Lock-free, and but for splits that move this key wait-free.
    #[inline]
    pub(crate) fn may_contain(&self, hash: KeyHash) -> bool {
        self.stripe(hash).may_contain(hash.fingerprint())
    }

    /// Asks the processor to fetch all that the look-ups of these hashes will read, with
    /// the values, so that their cache misses overlap. For batches whose directory is
    /// larger than the cache; some tens of hashes at a time.
    ///
    /// Lock-free, and but for splits that move these keys wait-free.
    pub(crate) fn prefetch(&self, hashes: &[KeyHash]) {
        // Each pass finds in the cache what the pass before asked for.
        for hash in hashes {
            self.stripe(*hash).prefetch_bucket(hash.fingerprint());
        }
        for hash in hashes {
            self.stripe(*hash).prefetch_snapshot(hash.fingerprint());
        }
        for hash in hashes {
            self.stripe(*hash).prefetch_value(hash.fingerprint());
        }
    }

    /// Whether there are so many keys, or have been, that [`prefetch`](Self::prefetch) pays.
    pub(crate) fn is_large(&self) -> bool {
        // One stripe stands for all: keys are spread evenly.
        self.stripes[0].is_large()
    }

    /// Runs `under_lock` with the value of `key`, which is made by `make` if there is none.
    ///
    /// Both closures run while the stripe's writers' lock is held, and in a large directory one of its memory's: they must
    /// be short, and touch no writer of this directory. What `under_lock` did is there for the first reader who finds a
    /// new value, and no [`remove_if`](Self::remove_if) comes between: this is where a caller pins the value.
    /// The made value's key must be `key`.
    ///
    /// Blocks while another writer of the stripe is at work, and in a large directory also while more than eight writers
    /// are, or one has a new block made. An error of `make` is passed on and leaves
    /// nothing behind, as does a panic in either closure.
    pub(crate) fn get_or_insert_with<R, E>(
        &self,
        hash: KeyHash,
        key: &str,
        make: impl FnOnce(&mut Memory<'_>) -> Result<Shared<V>, E>,
        under_lock: impl FnOnce(&Shared<V>) -> R,
    ) -> Result<R, E> {
        self.stripe(hash)
            .get_or_insert_with(hash.fingerprint(), key, make, under_lock)
    }

    /// Removes `key` if it is there and `pred` says so of its value; returns whether it did.
    ///
    /// `pred` runs while the stripe's writers' lock is held, as in
    /// [`get_or_insert_with`](Self::get_or_insert_with): if it finds the value not pinned, nobody pins it any
    /// more, save a reader who found it earlier and still runs. The directory's count on
    /// the value is given back after the lock, now or by a later writer, when no reader can reach it.
    pub(crate) fn remove_if(
        &self,
        hash: KeyHash,
        key: &str,
        pred: impl FnOnce(&V) -> bool,
    ) -> bool {
        self.stripe(hash).remove_if(hash.fingerprint(), key, pred)
    }

    /// Runs `f` with each value, under no lock.
    ///
    /// Exact in each stripe at the moment at which it is reached: a key that is there throughout is seen once.
    /// Takes each stripe's writers' lock in turn, for as long as it takes to count its values up.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&Shared<V>)) {
        for stripe in self.stripes.iter() {
            for value in stripe.values() {
                f(&value);
            }
        }
    }

    /// How many keys there are; exact when no writer is at work. Wait-free.
    pub(crate) fn len(&self) -> usize {
        self.stripes.iter().map(Stripe::len).sum()
    }

    /// Gives back every removed value that no reader can reach any more.
    ///
    /// Writers do this as they go; only what readers held at the last writer's time is left to it.
    /// Takes each stripe's writers' lock in turn.
    #[cfg(test)]
    pub(crate) fn collect(&self) {
        for stripe in self.stripes.iter() {
            stripe.collect();
        }
    }

    /// Keeps all writers out until the guard is dropped, so that a test can show who needs none of
    /// them. A writer on the thread that holds it would wait for itself.
    #[cfg(test)]
    pub(crate) fn lock_all_writers(&self) -> WritersLocked<'_, V> {
        WritersLocked {
            _guards: self.stripes.iter().map(Stripe::lock_writers).collect(),
            _memory: self.stripes[0].lock_memory(),
        }
    }
}

impl<V: Keyed, C: SnapshotCell<V>> fmt::Debug for Directory<V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod stress;
#[cfg(test)]
mod tests;
