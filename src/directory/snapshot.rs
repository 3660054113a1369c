//! What a bucket holds at one moment: immutable, counted, in one allocation.
//!
//! ```text
//!   ┌───────┬─────┬───────────────────────────┬────────────────────┐
//!   │ count │ len │ fingerprints, padded to 8 │ pointers to values │
//!   └───────┴─────┴───────────────────────────┴────────────────────┘
//! ```
//!
//! **The values are not counted.** A copy of a snapshot that cloned an `Arc` an entry would touch
//! every value's count, a cache miss each. The directory owns one count a value, however many
//! snapshots point to it, and the [graveyard](super::graveyard) says when it may be given back.
//!
//! The snapshot itself is counted as an `Arc` is, but by hand: arc-swap wants a thin pointer, and a
//! second allocation for the entries would be one more cache miss for every reader.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::Ordering;

use super::Keyed;
use super::hash::Fingerprint;
use super::witness::Witness;
use crate::sync::{Arc, AtomicUsize};

/// Fingerprints compared at once.
const LANES: usize = 8;

/// What stands before the entries.
#[repr(C)]
pub(crate) struct Header<V> {
    /// Handles: in a cell, in a graveyard, with readers.
    count: AtomicUsize,
    /// Entries there is room for; decides the layout.
    capacity: u32,
    /// Entries there are.
    len: u32,
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

// SAFETY: a handle gives shared access to values and lets them be cloned as `Arc`s, and so dropped
// on its thread: both bounds, as for `Arc`. The count is atomic, all else is never written again.
unsafe impl<V: Send + Sync> Send for Snapshot<V> {}
// SAFETY: as above; a shared handle can be cloned into one of one's own.
unsafe impl<V: Send + Sync> Sync for Snapshot<V> {}

impl<V> Snapshot<V> {
    /// A snapshot of `entries`, of which there are at most `capacity`; `None` if there are none.
    pub(super) fn collect(
        capacity: usize,
        entries: impl Iterator<Item = Entry<V>>,
    ) -> Option<Self> {
        let mut entries = entries.take(capacity).peekable();
        entries.peek()?;
        let shape = Shape::of::<V>(capacity);
        // SAFETY: the layout begins with a header, so its size is not zero.
        let base = unsafe { alloc(shape.layout) };
        let Some(header) = NonNull::new(base.cast::<Header<V>>()) else {
            handle_alloc_error(shape.layout)
        };
        // SAFETY: fresh memory of this very layout, which nobody else knows yet: every write is
        // aligned and inside it, `take` above bounding the entries. All padding is written too.
        unsafe {
            let fingerprints = base.add(shape.fingerprints).cast::<Fingerprint>();
            let values = base.add(shape.values).cast::<NonNull<V>>();
            fingerprints.write_bytes(0, capacity.next_multiple_of(LANES));
            let mut len = 0;
            for (fingerprint, value) in entries {
                fingerprints.add(len as usize).write(fingerprint);
                values.add(len as usize).write(value);
                len += 1;
            }
            header.write(Header {
                count: AtomicUsize::new(1),
                capacity: capacity as u32,
                len,
                witness: Witness::new(),
                _values: PhantomData,
            });
        }
        Some(Self { header })
    }

    /// The entries.
    pub(super) fn entries(&self) -> impl ExactSizeIterator<Item = Entry<V>> + '_ {
        let values = self.values();
        values.iter().enumerate().map(|(i, value)| {
            // There are at least as many fingerprints as values.
            (self.fingerprints()[i], *value)
        })
    }

    /// The place of the entry with this fingerprint and key.
    ///
    /// # Safety
    ///
    /// The values that the entries point to are alive: see [`graveyard`](super::graveyard).
    #[inline]
    pub(super) unsafe fn find(&self, fingerprint: Fingerprint, key: &str) -> Option<NonNull<V>>
    where
        V: Keyed,
    {
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
                if let Some(value) = values.get(first + lane) {
                    // SAFETY: alive, as the caller promises.
                    if unsafe { value.as_ref() }.key() == key {
                        return Some(*value);
                    }
                }
            }
        }
        None
    }

    /// Whether this handle is the only one. Once the snapshot is out of its cell that stays so,
    /// and everything that its readers did has happened before.
    pub(super) fn is_unread(&self) -> bool {
        // In a model nothing is freed before the end: see `cell`.
        // Acquire: partner of the Release in `drop`.
        !cfg!(afterwrite_loom) && self.header().count.load(Ordering::Acquire) == 1
    }

    fn header(&self) -> &Header<V> {
        // SAFETY: this handle keeps the allocation alive, and only the atomic count is ever
        // written after its making.
        unsafe { self.header.as_ref() }
    }

    fn fingerprints(&self) -> &[Fingerprint] {
        let capacity = self.header().capacity as usize;
        let base = self.header.as_ptr().cast::<u8>().cast_const();
        // SAFETY: as laid out and written by `collect`, padding included; kept alive by this handle.
        unsafe {
            let first = base.add(Shape::of::<V>(capacity).fingerprints);
            slice::from_raw_parts(first.cast(), capacity.next_multiple_of(LANES))
        }
    }

    fn values(&self) -> &[NonNull<V>] {
        let header = self.header();
        header.witness.check();
        let base = self.header.as_ptr().cast::<u8>().cast_const();
        // SAFETY: as laid out by `collect`, which wrote `len` of them; kept alive by this handle.
        unsafe {
            let first = base.add(Shape::of::<V>(header.capacity as usize).values);
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
        if self.header().count.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let shape = Shape::of::<V>(self.header().capacity as usize);
        // SAFETY: the last handle; the same layout as in `collect`, since the capacity never
        // changes. The header is dropped for the model checker's types; entries need no drop.
        unsafe {
            self.header.drop_in_place();
            dealloc(self.header.as_ptr().cast(), shape.layout);
        }
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

/// Runs `f` with the `Arc` that an entry points to, without touching its count.
///
/// # Safety
///
/// `value` came from [`Arc::into_raw`] and is alive until this returns.
pub(super) unsafe fn with_arc<V, R>(value: NonNull<V>, f: impl FnOnce(&Arc<V>) -> R) -> R {
    // SAFETY: the count that this stands for is somebody else's; it is never dropped here.
    let borrowed = ManuallyDrop::new(unsafe { Arc::from_raw(value.as_ptr().cast_const()) });
    f(&borrowed)
}
