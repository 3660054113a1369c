//! One stripe: a linear-hashing table of buckets, and its writers' lock.

#![allow(unsafe_code)]

use std::alloc::{Layout, handle_alloc_error};
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::atomic::Ordering;

use crossbeam_utils::CachePadded;

use super::Keyed;
use super::bucket::Bucket;
use super::cell::SnapshotCell;
use super::graveyard::{Freed, Graveyard};
use super::hash::{Buckets, Fingerprint};
use super::order;
use super::sizes::{FIRST_SEGMENT, KEYS_PER_BUCKET, MAX_BUCKETS, SEGMENTS};
use super::snapshot::{Snapshot, with_shared};
use crate::arena::{Arena, Blocks, Memory, RUN, Shared};
use crate::sync::prefetch::{self, prefetch};
use crate::sync::{Arc, AtomicPtr, AtomicU64, AtomicUsize, Mutex};

/// One of the directory's independent parts.
pub(super) struct Stripe<V, C: SnapshotCell<V>> {
    /// Where a large one has its memory from.
    arena: Arc<Arena>,
    table: CachePadded<Table<C>>,
    writers: CachePadded<Writers<V>>,
}

/// What writers look at.
struct Writers<V> {
    lock: Mutex<Locked<V>>,
    /// Keys, for whoever asks; written under the lock.
    keys: AtomicUsize,
}

/// What the writers' lock protects, beside the right to replace snapshots and to split.
pub(crate) struct Locked<V> {
    pub(super) graveyard: Graveyard<V>,
    /// As many as readers see. A writer looks here: the number is its own, and loom, which
    /// remembers one access only, would take a load before the store for the one to race with.
    buckets: Buckets,
}

/// What readers look at; written at a split alone.
struct Table<C> {
    /// How many buckets there are, as [`Buckets`]. Only grows.
    buckets: AtomicU64,
    /// Segment s holds `FIRST_SEGMENT << s` buckets; never moved, freed with the stripe.
    segments: [AtomicPtr<MaybeUninit<Bucket<C>>>; SEGMENTS],
}

/// Held while a writer is at work.
#[cfg(test)]
pub(crate) type WriterGuard<'a, V> = crate::sync::MutexGuard<'a, Locked<V>>;

impl<V> Locked<V> {
    /// Where snapshots and values come from, and go: the arena once this stripe is soon one of a large
    /// directory.
    fn memory<'a>(&self, arena: &'a Arena) -> Memory<'a> {
        if self.buckets.is_soon_large() && !cfg!(afterwrite_loom) {
            arena.memory()
        } else {
            Memory::global()
        }
    }

    /// Has a bucket's hints follow the snapshot that comes next, where they are looked at, or soon will be.
    fn remember<C: SnapshotCell<V>>(&self, bucket: &Bucket<C>, next: Option<&Snapshot<V>>) {
        if prefetch::WORKS
            && let Some(next) = next
            && self.buckets.is_soon_large()
        {
            bucket.remember(next);
        }
    }
}

impl<V: Keyed, C: SnapshotCell<V>> Stripe<V, C> {
    pub(super) fn new(arena: Arc<Arena>) -> Self {
        let stripe = Self {
            arena,
            table: CachePadded::new(Table {
                buckets: AtomicU64::new(Buckets::new(0).0),
                segments: std::array::from_fn(|_| AtomicPtr::new(null_mut())),
            }),
            writers: CachePadded::new(Writers {
                lock: Mutex::new(Locked {
                    graveyard: Graveyard::new(),
                    buckets: Buckets::new(FIRST_SEGMENT),
                }),
                keys: AtomicUsize::new(0),
            }),
        };
        for index in 0..FIRST_SEGMENT {
            stripe
                .table
                .append(stripe.arena.blocks(), index, Bucket::new(None));
        }
        stripe
    }

    /// See [`Directory::get`](super::Directory::get).
    #[inline]
    pub(super) fn get<R>(
        &self,
        fingerprint: Fingerprint,
        key: &str,
        f: impl FnOnce(&Shared<V>) -> R,
    ) -> Option<R> {
        let mut f = Some(f);
        let large = prefetch::WORKS && self.is_large();
        self.table.probe(fingerprint, |bucket| {
            bucket.cell().read(|snapshot| {
                let snapshot = snapshot?;
                if large {
                    bucket.prefetch_hinted(fingerprint, snapshot);
                }
                // SAFETY: while the cell protects this snapshot the graveyard gives back no value
                // that it contains.
                let (_, value) = unsafe { snapshot.find(fingerprint, key) }?;
                let f = f.take()?;
                // SAFETY: as above; entries come from `Shared::into_raw`.
                Some(unsafe { with_shared(value, f) })
            })
        })
    }

    /// Whether it is one of a directory that outgrows the nearer caches.
    #[inline]
    pub(super) fn is_large(&self) -> bool {
        self.table.buckets().is_large()
    }

    /// See [`Directory::may_contain`](super::Directory::may_contain).
    #[inline]
    pub(super) fn may_contain(&self, fingerprint: Fingerprint) -> bool {
        self.table.probe(fingerprint, |_| Some(())).is_some()
    }

    /// Asks for the bucket: see [`Directory::prefetch`](super::Directory::prefetch).
    #[inline]
    pub(super) fn prefetch_bucket(&self, fingerprint: Fingerprint) {
        prefetch(self.table.slot(fingerprint.bucket(self.table.buckets())));
    }

    /// The line that a look-up would ask for beside the snapshot, and whether a value at `address` can have a
    /// hint.
    #[cfg(all(test, not(afterwrite_loom)))]
    pub(super) fn hinted(
        &self,
        fingerprint: Fingerprint,
        address: usize,
    ) -> Option<(Option<usize>, bool)> {
        self.table.probe(fingerprint, |bucket| {
            (bucket.cell()).read(|snapshot| Some(bucket.hinted(fingerprint, snapshot?, address)))
        })
    }

    /// Asks for the snapshot, and for the value where there is a hint, unless the tags say that there is
    /// nothing to find.
    #[inline]
    pub(super) fn prefetch_snapshot(&self, fingerprint: Fingerprint) {
        self.table.probe(fingerprint, |bucket| {
            bucket.cell().read(|snapshot| {
                let snapshot = snapshot?;
                snapshot.prefetch();
                if prefetch::WORKS {
                    bucket.prefetch_hinted(fingerprint, snapshot);
                }
                Some(())
            })
        });
    }

    /// Asks for the value, or for one of the same fingerprint.
    #[inline]
    pub(super) fn prefetch_value(&self, fingerprint: Fingerprint) {
        self.table.probe(fingerprint, |bucket| {
            bucket.cell().read(|snapshot| {
                let (_, value) = snapshot?.find_with(fingerprint, |_| true)?;
                prefetch(value.as_ptr());
                // And the next line, for a value of some size, or one that lies across two.
                prefetch(value.as_ptr().cast::<u8>().wrapping_add(64));
                Some(())
            })
        });
    }

    /// See [`Directory::get_or_insert_with`](super::Directory::get_or_insert_with).
    pub(super) fn get_or_insert_with<R, E>(
        &self,
        fingerprint: Fingerprint,
        key: &str,
        make: impl FnOnce(&mut Memory<'_>) -> Result<Shared<V>, E>,
        under_lock: impl FnOnce(&Shared<V>) -> R,
    ) -> Result<R, E> {
        // Before the lock, so that they are dropped after it, also when a closure panics.
        let mut freed = Freed::new();
        let value;
        let mut locked = self.writers.lock.lock();
        let bucket = self.table.bucket(fingerprint.bucket(locked.buckets));
        // SAFETY: only writers replace, and this one does so last.
        let current = unsafe { bucket.cell().peek() };
        // SAFETY: under the lock nothing is removed, so all that the current snapshot contains is
        // alive.
        let found = (current.as_ref()).and_then(|now| unsafe { now.find(fingerprint, key) });
        if let Some((_, found)) = found {
            // SAFETY: as above; entries come from `Shared::into_raw`.
            return Ok(unsafe { with_shared(found, under_lock) });
        }
        let mut memory = locked.memory(&self.arena);
        value = make(&mut memory)?;
        // Before anybody can find it: what `under_lock` sets up is there for the first reader,
        // and if it panics nothing was inserted.
        let result = under_lock(&value);
        let entry = (fingerprint, Shared::into_raw(value));
        let next = Snapshot::with(&mut memory, current.as_deref(), entry);
        locked.remember(bucket, Some(&next));
        if let Some(last) = bucket.insert(next, fingerprint) {
            locked.graveyard.retire(last, None, &mut memory, &mut freed);
        }
        let keys = self.writers.keys.load(Ordering::Relaxed) + 1;
        self.writers.keys.store(keys, Ordering::Relaxed);
        self.split_if_due(keys, &mut locked, &mut memory, &mut freed);
        locked.graveyard.sweep(&mut memory, &mut freed);
        Ok(result)
    }

    /// See [`Directory::remove_if`](super::Directory::remove_if).
    pub(super) fn remove_if(
        &self,
        fingerprint: Fingerprint,
        key: &str,
        pred: impl FnOnce(&V) -> bool,
    ) -> bool {
        // Before the lock, so that they are dropped after it.
        let mut freed = Freed::new();
        let mut locked = self.writers.lock.lock();
        let bucket = self.table.bucket(fingerprint.bucket(locked.buckets));
        // SAFETY: only writers replace, and this one does so last.
        let Some(current) = (unsafe { bucket.cell().peek() }) else {
            return false;
        };
        // SAFETY: under the lock nothing else is removed, so all that the current snapshot
        // contains is alive.
        let Some((index, found)) = (unsafe { current.find(fingerprint, key) }) else {
            return false;
        };
        // SAFETY: as above.
        if !pred(unsafe { found.as_ref() }) && !order::planted(order::REMOVE_UNASKED) {
            return false;
        }
        let mut memory = locked.memory(&self.arena);
        let next = current.without(&mut memory, index);
        locked.remember(bucket, next.as_ref());
        let last = bucket.publish(next, Some(fingerprint));
        // SAFETY: the count that the insert gave over; the current snapshot was the last to carry
        // it on, and `retire` keeps the value for whoever still reads an older one.
        let removed = unsafe { Shared::from_raw(found) };
        if let Some(last) = last {
            locked
                .graveyard
                .retire(last, Some(removed), &mut memory, &mut freed);
        }
        let keys = self.writers.keys.load(Ordering::Relaxed).saturating_sub(1);
        self.writers.keys.store(keys, Ordering::Relaxed);
        locked.graveyard.sweep(&mut memory, &mut freed);
        true
    }

    /// A counted handle to each value there is.
    pub(super) fn values(&self) -> Vec<Shared<V>> {
        let locked = self.writers.lock.lock();
        let mut values = Vec::with_capacity(self.len());
        for index in 0..locked.buckets.count() {
            // SAFETY: only writers replace, and this one does not.
            let current = unsafe { self.table.bucket(index).cell().peek() };
            for (_, entry) in current.iter().flat_map(|now| now.entries()) {
                // SAFETY: under the lock nothing is removed, so all that is current is alive.
                values.push(unsafe { with_shared(entry, Shared::clone) });
            }
        }
        values
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.writers.keys.load(Ordering::Relaxed)
    }

    /// Frees all that was removed and is not being read.
    #[cfg(test)]
    pub(super) fn collect(&self) {
        let mut freed = Freed::new();
        self.writers
            .lock
            .lock()
            .graveyard
            .sweep_all(&mut Memory::global(), &mut freed);
    }

    /// Keeps all writers of the directory off its memory.
    #[cfg(test)]
    pub(super) fn lock_memory(&self) -> Vec<Memory<'_>> {
        self.arena.lock_all()
    }

    /// Bytes of the directory's blocks.
    #[cfg(test)]
    pub(super) fn block_bytes(&self) -> usize {
        self.arena.blocks().bytes()
    }

    /// Whether the bucket and the snapshot of this fingerprint, and what is at `address`, lie in blocks.
    #[cfg(test)]
    pub(super) fn are_in_blocks(&self, fingerprint: Fingerprint, address: usize) -> [bool; 3] {
        let bucket = self.table.bucket(fingerprint.bucket(self.table.buckets()));
        let snapshot = (bucket.cell()).read(|it| it.map_or(0, |it| it.as_raw().addr()));
        let bucket = std::ptr::from_ref(bucket).addr();
        [bucket, snapshot, address].map(|address| self.arena.blocks().contain(address))
    }

    /// Keeps all writers out.
    #[cfg(test)]
    pub(super) fn lock_writers(&self) -> WriterGuard<'_, V> {
        self.writers.lock.lock()
    }

    /// Splits one bucket if there are too many keys for as many as there are.
    ///
    /// The caller holds the lock.
    fn split_if_due(
        &self,
        keys: usize,
        locked: &mut Locked<V>,
        memory: &mut Memory<'_>,
        freed: &mut Freed<V>,
    ) {
        let buckets = locked.buckets;
        if keys <= KEYS_PER_BUCKET * buckets.count() as usize || buckets.count() >= MAX_BUCKETS {
            return;
        }
        locked.buckets = buckets.next();
        let new = buckets.count();
        let source = self.table.bucket(buckets.next_source());
        // SAFETY: only writers replace, and this one does so last.
        let current = unsafe { source.cell().peek() };
        let moves = |fingerprint: Fingerprint| fingerprint.bucket(buckets.next()) == new;
        let moved = (current.as_ref()).and_then(|now| now.filter(memory, moves));
        if moved.is_none() {
            self.table
                .append(self.arena.blocks(), new, Bucket::new(None));
            return;
        }
        let stay = (current.as_ref()).and_then(|now| now.filter(memory, |it| !moves(it)));
        if order::planted(order::SOURCE_FIRST) {
            if let Some(last) = source.publish(stay, None) {
                locked.graveyard.retire(last, None, memory, freed);
            }
            self.table
                .append(self.arena.blocks(), new, Bucket::new(moved));
            return;
        }
        locked.remember(source, stay.as_ref());
        // The order that a reader relies on: there, then gone from here.
        self.table
            .append(self.arena.blocks(), new, Bucket::new(moved));
        if let Some(last) = source.publish(stay, None) {
            locked.graveyard.retire(last, None, memory, freed);
        }
    }
}

impl<C> Table<C> {
    /// Looks into the bucket of `fingerprint` as often as a split moves it meanwhile: `look` answers
    /// `None` if the key is not there. Not asked where the tags say that it is not.
    #[inline]
    fn probe<R>(
        &self,
        fingerprint: Fingerprint,
        mut look: impl FnMut(&Bucket<C>) -> Option<R>,
    ) -> Option<R> {
        let buckets = self.buckets();
        let index = fingerprint.bucket(buckets);
        let bucket = self.bucket(index);
        if bucket.may_contain(fingerprint) {
            let found = look(bucket);
            if found.is_some() {
                return found;
            }
        }
        if order::planted(order::NO_SECOND_LOOK) || self.buckets() == buckets {
            return None;
        }
        self.probe_again(fingerprint, index, look)
    }

    /// There have been splits since bucket `index` was found to be without the key.
    #[cold]
    #[inline(never)]
    fn probe_again<R>(
        &self,
        fingerprint: Fingerprint,
        mut index: u32,
        mut look: impl FnMut(&Bucket<C>) -> Option<R>,
    ) -> Option<R> {
        loop {
            // Acquire, although coherence alone would show the split: the look uses it.
            let again = fingerprint.bucket(self.buckets());
            if again == index {
                return None;
            }
            index = again;
            let bucket = self.bucket(index);
            if bucket.may_contain(fingerprint) {
                let found = look(bucket);
                if found.is_some() {
                    return found;
                }
            }
        }
    }

    /// How many buckets there are, each of them safe to read.
    #[inline]
    fn buckets(&self) -> Buckets {
        Buckets(self.buckets.load(order::buckets_load()))
    }

    /// Bucket `index`, which is below a number that `buckets` has shown.
    #[inline]
    fn bucket(&self, index: u32) -> &Bucket<C> {
        // SAFETY: `append` wrote this bucket before it counted it; nothing is moved or freed
        // before the stripe.
        unsafe { (*self.slot(index)).assume_init_ref() }
    }

    /// Where bucket `index` is.
    #[inline]
    fn slot(&self, index: u32) -> *mut MaybeUninit<Bucket<C>> {
        let (segment, offset) = locate(index);
        // Relaxed: stored before the number that is above `index`, which the caller has loaded.
        let first = self.segments[segment].load(Ordering::Relaxed);
        // Wrapping asks nothing of the caller; for a bucket that is counted it is inside.
        first.wrapping_add(offset)
    }

    /// Whether a segment has its memory from the blocks, or else of its own.
    fn is_of_blocks(segment: usize) -> bool {
        segment_len(segment) * size_of::<Bucket<C>>() >= RUN && !cfg!(afterwrite_loom)
    }

    /// Memory for a segment, not initialised, so that the time it takes does not grow with the segment.
    fn segment(blocks: &Blocks, segment: usize) -> *mut MaybeUninit<Bucket<C>> {
        let len = segment_len(segment);
        if !Self::is_of_blocks(segment) {
            return Box::into_raw(Box::<[Bucket<C>]>::new_uninit_slice(len)).cast();
        }
        let layout = match Layout::array::<Bucket<C>>(len) {
            Ok(layout) => layout,
            Err(_) => handle_alloc_error(Layout::new::<Bucket<C>>()),
        };
        match blocks.take(layout.size()) {
            Some(memory) => memory.cast().as_ptr(),
            None => handle_alloc_error(layout),
        }
    }

    /// Writes bucket `index`, the next, and counts it. Only under the lock.
    fn append(&self, blocks: &Blocks, index: u32, bucket: Bucket<C>) {
        let (segment, offset) = locate(index);
        if offset == 0 {
            self.segments[segment].store(Self::segment(blocks, segment), Ordering::Relaxed);
        }
        // SAFETY: inside the segment, and no reader looks at it before it is counted.
        unsafe { self.slot(index).write(MaybeUninit::new(bucket)) };
        let buckets = Buckets::new(index + 1);
        self.buckets.store(buckets.0, order::buckets_publish());
    }
}

/// The segment of a bucket, and its place there.
#[inline]
fn locate(index: u32) -> (usize, usize) {
    let shifted = index + FIRST_SEGMENT;
    let top = u32::BITS - 1 - shifted.leading_zeros();
    let segment = top - FIRST_SEGMENT.ilog2();
    (segment as usize, (shifted ^ (1 << top)) as usize)
}

/// Buckets in a segment.
fn segment_len(segment: usize) -> usize {
    (FIRST_SEGMENT as usize) << segment
}

impl<V, C: SnapshotCell<V>> Drop for Stripe<V, C> {
    fn drop(&mut self) {
        for index in 0..self.table.buckets().count() {
            let bucket = self.table.bucket(index);
            // SAFETY: nobody else is left.
            let current = unsafe { bucket.cell().peek() };
            for (_, entry) in current.iter().flat_map(|now| now.entries()) {
                // SAFETY: the count that the insert gave over, given back once: each value is in
                // one bucket's current snapshot.
                drop(unsafe { Shared::from_raw(entry) });
            }
            // SAFETY: written once, dropped once; `bucket` above is used no more.
            unsafe { (*self.table.slot(index)).assume_init_drop() };
        }
        for (segment, first) in self.table.segments.iter().enumerate() {
            let first = first.load(Ordering::Relaxed);
            if !first.is_null() && !Table::<C>::is_of_blocks(segment) {
                let slice = std::ptr::slice_from_raw_parts_mut(first, segment_len(segment));
                // SAFETY: from `Box::into_raw` of a slice of this length; its buckets are dropped.
                drop(unsafe { Box::from_raw(slice) });
            }
        }
    }
}
