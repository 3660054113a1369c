//! What a bucket holds at one moment: immutable, counted, in one allocation.
//!
//! ```text
//!   ┌───────┬─────┬────────┬───────────────────────────┬────────────────────┐
//!   │ count │ len │ origin │ fingerprints, padded to 8 │ pointers to values │
//!   └───────┴─────┴────────┴───────────────────────────┴────────────────────┘
//! ```
//!
//! **The values are not counted.** A copy of a snapshot that cloned a handle an entry would touch
//! every value's count, a cache miss each. The directory owns one count a value, however many
//! snapshots point to it, and the [graveyard](super::graveyard) says when it may be given back.
//!
//! The snapshot itself is counted as an `Arc` is, but by hand: arc-swap wants a thin pointer, and a
//! second allocation for the entries would be one more cache miss for every reader.

#![allow(unsafe_code)]

use std::alloc::{Layout, handle_alloc_error};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::Ordering;

use super::Keyed;
use super::hash::Fingerprint;
use crate::arena::{Memory, Origin, Shared};
use crate::sync::AtomicU32;
use crate::sync::prefetch::prefetch;
use crate::sync::witness::Witness;

/// Fingerprints compared at once.
const LANES: usize = 8;

/// What stands before the entries.
#[repr(C)]
pub(crate) struct Header<V> {
    /// Handles: in a cell, in a graveyard, with readers.
    count: AtomicU32,
    /// Entries there are; decides the layout.
    len: u32,
    origin: Origin,
    witness: Witness,
    _values: PhantomData<*const V>,
}

/// A pointer to a value, which whoever made the entry owns one count of.
pub(super) type Entry<V> = (Fingerprint, NonNull<V>);

/// A counted handle to the entries of one bucket at one moment; at least one entry.
///
/// Dropping the last handle frees the entries, never a value.
pub(crate) struct Snapshot<V> {
    header: NonNull<Header<V>>,
}

// SAFETY: a handle gives shared access to values and lets them be cloned as `Shared`, and so dropped
// on its thread: both bounds, as for `Shared`. The count is atomic, all else is never written again.
unsafe impl<V: Send + Sync> Send for Snapshot<V> {}
// SAFETY: as above; a shared handle can be cloned into one of one's own.
unsafe impl<V: Send + Sync> Sync for Snapshot<V> {}

impl<V> Snapshot<V> {
    /// `before` and one more entry.
    pub(super) fn with(memory: &mut Memory<'_>, before: Option<&Self>, entry: Entry<V>) -> Self {
        let len = before.map_or(0, |it| it.values().len());
        let mut draft = Draft::new(memory, len + 1);
        if let Some(before) = before {
            draft.copy(before, 0..len);
        }
        draft.push(entry);
        draft.finish()
    }

    /// All but the entry at `index`, which is one of them; `None` if that leaves none.
    pub(super) fn without(&self, memory: &mut Memory<'_>, index: usize) -> Option<Self> {
        let len = self.values().len();
        debug_assert!(index < len);
        if len == 1 {
            return None;
        }
        let mut draft = Draft::new(memory, len - 1);
        draft.copy(self, 0..index);
        draft.copy(self, index + 1..len);
        Some(draft.finish())
    }

    /// The entries whose fingerprint `belongs`; `None` if there are none.
    pub(super) fn filter(
        &self,
        memory: &mut Memory<'_>,
        belongs: impl Fn(Fingerprint) -> bool,
    ) -> Option<Self> {
        let chosen = || {
            self.entries()
                .filter(|(fingerprint, _)| belongs(*fingerprint))
        };
        let len = chosen().count();
        if len == 0 {
            return None;
        }
        let mut draft = Draft::new(memory, len);
        chosen().for_each(|entry| draft.push(entry));
        Some(draft.finish())
    }

    /// The entries.
    pub(super) fn entries(&self) -> impl ExactSizeIterator<Item = Entry<V>> + '_ {
        // There are at least as many fingerprints as values.
        let both = self.fingerprints().iter().zip(self.values());
        both.map(|(fingerprint, value)| (*fingerprint, *value))
    }

    /// The entry with this fingerprint and key: its place and value.
    ///
    /// # Safety
    ///
    /// The values that the entries point to are alive: see [`graveyard`](super::graveyard).
    #[inline]
    pub(super) unsafe fn find(
        &self,
        fingerprint: Fingerprint,
        key: &str,
    ) -> Option<(usize, NonNull<V>)>
    where
        V: Keyed,
    {
        // SAFETY: alive, as the caller promises.
        self.find_with(fingerprint, |value| unsafe { value.as_ref() }.key() == key)
    }

    /// The first entry with this fingerprint that `is_it` agrees to.
    #[inline]
    pub(super) fn find_with(
        &self,
        fingerprint: Fingerprint,
        is_it: impl Fn(NonNull<V>) -> bool,
    ) -> Option<(usize, NonNull<V>)> {
        self.prefetch_rest();
        let values = self.values();
        let (chunks, _) = self.fingerprints().as_chunks::<LANES>();
        for (chunk, first) in chunks.iter().zip((0..).step_by(LANES)) {
            // All lanes, then one branch: compiled to vector compares.
            let mut hits = 0_u32;
            for (lane, found) in chunk.iter().enumerate() {
                hits |= u32::from(*found == fingerprint) << lane;
            }
            while hits != 0 {
                let lane = hits.trailing_zeros() as usize;
                hits &= hits - 1;
                // Padding may match as well, but has no value.
                let place = first + lane;
                match values.get(place) {
                    Some(value) if is_it(*value) => return Some((place, *value)),
                    _ => {}
                }
            }
        }
        None
    }

    /// Asks for the snapshot's first lines, which for most are all.
    #[inline]
    pub(super) fn prefetch(&self) {
        prefetch(self.header.as_ptr());
        self.prefetch_rest();
    }

    /// Asks for the lines that most of the pointers are in, while the first still comes.
    #[inline]
    fn prefetch_rest(&self) {
        let base = self.header.as_ptr().cast::<u8>();
        prefetch(base.wrapping_add(64));
        prefetch(base.wrapping_add(128));
    }

    /// Frees the entries if this handle is the only one, after all that readers did with them.
    ///
    /// A snapshot that is the only handle's cannot gain another one meanwhile: it has left its cell.
    pub(super) fn free_if_unread(self, memory: &mut Memory<'_>) -> Result<(), Self> {
        // Acquire: partner of the Release in each reader's `drop`. The race that can be planted here
        // is for ThreadSanitizer's run, which must report it.
        let order = if cfg!(afterwrite_planted_races) {
            Ordering::Relaxed
        } else {
            Ordering::Acquire
        };
        // In a model nothing is freed before the end: see `cell`.
        if cfg!(afterwrite_loom) || self.header().count.load(order) != 1 {
            return Err(self);
        }
        // SAFETY: the only handle, and so the last; it is not dropped again.
        unsafe { ManuallyDrop::new(self).free(memory) };
        Ok(())
    }

    /// Frees the entries.
    ///
    /// # Safety
    ///
    /// There is no other handle, all that others did happened before, and this one is used no more.
    unsafe fn free(&self, memory: &mut Memory<'_>) {
        let shape = Shape::of::<V>(self.header().len as usize);
        let origin = self.header().origin;
        // SAFETY: the same layout as at the making, since the length never changes. The header is
        // dropped for the model checker's types; entries need no drop.
        unsafe {
            self.header.drop_in_place();
            memory.free(origin, self.header.cast(), shape.layout);
        }
    }

    fn header(&self) -> &Header<V> {
        // SAFETY: this handle keeps the allocation alive, and only the atomic count is ever
        // written after its making.
        unsafe { self.header.as_ref() }
    }

    fn fingerprints(&self) -> &[Fingerprint] {
        let len = self.header().len as usize;
        let base = self.header.as_ptr().cast::<u8>().cast_const();
        // SAFETY: as laid out and written by a draft, padding included; kept alive by this handle.
        unsafe {
            let first = base.add(Shape::of::<V>(len).fingerprints);
            slice::from_raw_parts(first.cast(), len.next_multiple_of(LANES))
        }
    }

    fn values(&self) -> &[NonNull<V>] {
        let header = self.header();
        header.witness.check();
        let base = self.header.as_ptr().cast::<u8>().cast_const();
        // SAFETY: as laid out by a draft, which wrote all of them; kept alive by this handle.
        unsafe {
            let first = base.add(Shape::of::<V>(header.len as usize).values);
            slice::from_raw_parts(first.cast(), header.len as usize)
        }
    }

    /// Gives the handle's count over to a plain pointer.
    pub(super) fn into_raw(self) -> *mut Header<V> {
        ManuallyDrop::new(self).header.as_ptr()
    }

    /// The plain pointer, with no count.
    pub(super) fn as_raw(&self) -> *mut Header<V> {
        self.header.as_ptr()
    }

    /// The handle that a plain pointer stands for.
    ///
    /// # Safety
    ///
    /// `raw` came from [`into_raw`](Self::into_raw), and its count is now this handle's; or the handle is
    /// never dropped, and not used after the last count is gone.
    pub(super) unsafe fn from_raw(raw: NonNull<Header<V>>) -> Self {
        Self { header: raw }
    }
}

impl<V> Clone for Snapshot<V> {
    fn clone(&self) -> Self {
        // Relaxed: whoever has a handle to clone keeps the count above zero. No overflow check:
        // only readers clone, one a guard.
        self.header().count.fetch_add(1, Ordering::Relaxed);
        Self {
            header: self.header,
        }
    }
}

impl<V> Drop for Snapshot<V> {
    fn drop(&mut self) {
        // Release: this handle's reads come before the memory is freed. Acquire: so do all others'.
        // On one operation, with no fence, so that ThreadSanitizer understands it.
        if self.header().count.fetch_sub(1, Ordering::AcqRel) == 1 {
            // SAFETY: the last handle.
            unsafe { self.free(&mut Memory::global()) };
        }
    }
}

/// A snapshot in the making.
struct Draft<V> {
    snapshot: Snapshot<V>,
    /// Where the entries go, and how many are there.
    fingerprints: NonNull<Fingerprint>,
    values: NonNull<NonNull<V>>,
    len: usize,
}

impl<V> Draft<V> {
    /// Room for `capacity` entries.
    fn new(memory: &mut Memory<'_>, capacity: usize) -> Self {
        let shape = Shape::of::<V>(capacity);
        let (base, origin) = memory.allocate(shape.layout);
        let header = base.cast::<Header<V>>();
        // SAFETY: fresh memory of this very layout: the offsets are inside it and aligned. The
        // fingerprints' padding is written here, and for ever.
        unsafe {
            header.write(Header {
                count: AtomicU32::new(1),
                len: capacity as u32,
                origin,
                witness: Witness::new(),
                _values: PhantomData,
            });
            let fingerprints = base.add(shape.fingerprints).cast::<Fingerprint>();
            fingerprints.write_bytes(0, capacity.next_multiple_of(LANES));
            Self {
                snapshot: Snapshot { header },
                fingerprints,
                values: base.add(shape.values).cast(),
                len: 0,
            }
        }
    }

    fn capacity(&self) -> usize {
        self.snapshot.header().len as usize
    }

    /// One more entry; nothing if there is no room for it.
    fn push(&mut self, (fingerprint, value): Entry<V>) {
        if self.len < self.capacity() {
            // SAFETY: inside the arrays, which nobody else knows yet.
            unsafe {
                self.fingerprints.add(self.len).write(fingerprint);
                self.values.add(self.len).write(value);
            }
            self.len += 1;
        }
    }

    /// These entries of `from`; nothing if there are not as many, or no room for them.
    fn copy(&mut self, from: &Snapshot<V>, range: Range<usize>) {
        let fingerprints = from.fingerprints().get(range.clone());
        let (Some(fingerprints), Some(values)) = (fingerprints, from.values().get(range)) else {
            return;
        };
        if values.len() <= self.capacity() - self.len {
            // SAFETY: inside the arrays, which nobody else knows yet, and so apart from `from`.
            unsafe {
                let to = self.fingerprints.add(self.len).as_ptr();
                to.copy_from_nonoverlapping(fingerprints.as_ptr(), fingerprints.len());
                let to = self.values.add(self.len).as_ptr();
                to.copy_from_nonoverlapping(values.as_ptr(), values.len());
            }
            self.len += values.len();
        }
    }

    /// The snapshot of what there is, which is as much as there is room for.
    fn finish(self) -> Snapshot<V> {
        assert_eq!(self.len, self.capacity(), "all entries are there");
        self.snapshot
    }
}

/// Where the parts of a snapshot lie.
struct Shape {
    layout: Layout,
    fingerprints: usize,
    values: usize,
}

impl Shape {
    #[inline]
    fn of<V>(capacity: usize) -> Self {
        let fingerprints = size_of::<Header<V>>().next_multiple_of(align_of::<Fingerprint>());
        let after = fingerprints + capacity.next_multiple_of(LANES) * size_of::<Fingerprint>();
        let values = after.next_multiple_of(align_of::<NonNull<V>>());
        let size = values + capacity * size_of::<NonNull<V>>();
        let align = align_of::<Header<V>>().max(align_of::<NonNull<V>>());
        match Layout::from_size_align(size, align) {
            Ok(layout) => Self {
                layout,
                fingerprints,
                values,
            },
            // Only beyond isize::MAX bytes, which as many keys already take up many times over.
            Err(_) => handle_alloc_error(Layout::new::<Header<V>>()),
        }
    }
}

/// Runs `f` with the handle that an entry stands for, without touching its count.
///
/// # Safety
///
/// `value` came from [`Shared::into_raw`] and is alive until this returns.
pub(super) unsafe fn with_shared<V, R>(value: NonNull<V>, f: impl FnOnce(&Shared<V>) -> R) -> R {
    // SAFETY: the count that this stands for is somebody else's; it is never dropped here.
    let borrowed = ManuallyDrop::new(unsafe { Shared::from_raw(value) });
    f(&borrowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Keyed for u32 {
        fn key(&self) -> &str {
            "a number"
        }
    }

    /// Entries that point to their own fingerprints.
    fn entries(values: &[u32]) -> Vec<Entry<u32>> {
        let entry = |value: &u32| (Fingerprint(*value), NonNull::from(value));
        values.iter().map(entry).collect()
    }

    #[test]
    fn entries_come_and_go_in_order() {
        let values: Vec<u32> = (100..140).collect();
        let expected = entries(&values);
        let mut snapshot = None;
        for len in 0..values.len() {
            let next = Snapshot::with(&mut Memory::global(), snapshot.as_ref(), expected[len]);
            assert_eq!(next.entries().collect::<Vec<_>>(), expected[..=len]);
            for (i, entry) in expected.iter().enumerate() {
                // SAFETY: the values live in `values`.
                let found = unsafe { next.find(entry.0, "a number") };
                assert_eq!(found, (i <= len).then_some((i, entry.1)));
                // SAFETY: as above.
                assert_eq!(unsafe { next.find(entry.0, "another") }, None);
                assert_eq!(next.find_with(Fingerprint(0), |_| true), None, "padding");
            }
            for i in 0..=len {
                let mut rest = expected[..=len].to_vec();
                rest.remove(i);
                let without = next.without(&mut Memory::global(), i);
                let got: Vec<_> = without.iter().flat_map(Snapshot::entries).collect();
                assert_eq!((got, without.is_none()), (rest, len == 0));
            }
            snapshot = Some(next);
        }
        let all = snapshot.expect("forty entries");
        let even = all
            .filter(&mut Memory::global(), |it| it.0.is_multiple_of(2))
            .expect("twenty");
        assert!(even.entries().all(|(it, _)| it.0 % 2 == 0) && even.entries().len() == 20);
        assert!(all.filter(&mut Memory::global(), |_| false).is_none());
    }

    #[test]
    fn the_last_handle_frees() {
        let values = [1];
        let snapshot = Snapshot::with(&mut Memory::global(), None, entries(&values)[0]);
        let other = snapshot.clone();
        let snapshot = snapshot
            .free_if_unread(&mut Memory::global())
            .expect_err("there is another");
        drop(snapshot);
        assert!(other.free_if_unread(&mut Memory::global()).is_ok());
    }
}
