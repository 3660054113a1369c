//! Slots: memory for what comes and goes with keys.

use std::alloc::Layout;
use std::fmt;
use std::ptr::{NonNull, null, null_mut};

use super::{Blocks, RUN};
use crate::sync::order;
use crate::sync::witness::Witness;
use crate::sync::{Arc, AtomicPtr, AtomicUsize, Ordering, alloc};

/// Sizes are rounded up to this; it is the alignment as well.
const GRAIN: usize = 16;

/// The largest slot. A topic with its counts has some 230 bytes, a snapshot of forty keys 500.
const MAX: usize = if cfg!(afterwrite_loom) { 32 } else { 512 };

const CLASSES: usize = MAX / GRAIN;

/// Slots that others gave back, at which a taker looks first: more than come back for each that is taken, so that
/// they don't pile up, and few, so that nobody has to sort a million of them at once.
const LOOK: usize = 8;

/// A slot that is not in use.
#[repr(C)]
struct Free {
    next: *mut Free,
    /// How many grains it has, less one.
    class: usize,
}

const _: () = assert!(size_of::<Free>() <= GRAIN && align_of::<Free>() <= GRAIN);

/// A list of slots that one thread at a time touches.
struct List(*mut Free);

/// Where slots are taken. One owner, under a lock.
pub(super) struct Slots {
    pool: NonNull<Pool>,
    /// How many were taken, less those that came back to here and not by way of the pool; wraps.
    taken: usize,
    /// What came back by the pool and was not looked at yet, the latest first.
    back: List,
    /// What came back, by class.
    free: [List; CLASSES],
    /// What is left of the latest run.
    fresh: *mut u8,
    left: usize,
}

/// Where slots are given back by whoever does not have the lock.
#[repr(align(64))]
struct Pool {
    /// The list of those that were, by any thread.
    back: AtomicPtr<Free>,
    /// See the module's third argument; wraps.
    outstanding: AtomicUsize,
    witness: Witness,
    /// Keeps the memory.
    _blocks: Arc<Blocks>,
}

/// Where memory came from: a pool, or the global allocator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin(*const Pool);

// SAFETY: it owns its lists and what is fresh; the pool's fields are atomics.
unsafe impl Send for Slots {}

impl Origin {
    /// The global allocator.
    pub(super) const GLOBAL: Self = Self(null());

    /// Gives memory back. Lock-free.
    ///
    /// # Safety
    ///
    /// It came with this origin, from [`Memory::allocate`](super::Memory::allocate) of the same layout, and nobody uses
    /// it any more.
    pub(crate) unsafe fn free(self, memory: NonNull<u8>, layout: Layout) {
        let Some(pool) = NonNull::new(self.0.cast_mut()) else {
            // SAFETY: from the global allocator, with this layout.
            return unsafe { alloc::dealloc(memory.as_ptr(), layout) };
        };
        // SAFETY: a slot, and nobody else's.
        let slot = unsafe { Free::write(memory, class(layout.size())) };
        // SAFETY: while a slot is out its pool lives, and this one is until it is counted.
        let back = unsafe { &pool.as_ref().back };
        // As it nearly always is. Not a load: the checker remembers one access only, and would take that for the one
        // that a taker's may race with.
        let mut head = null_mut();
        loop {
            // SAFETY: still nobody else's.
            unsafe { (*slot.as_ptr()).next = head };
            let (this, ordering) = (slot.as_ptr(), order::slot_give());
            match back.compare_exchange_weak(head, this, ordering, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        // SAFETY: a slot that is out, counted once.
        unsafe { Pool::settle(pool, 1_usize.wrapping_neg()) };
    }
}

impl Pool {
    /// Adds to what is outstanding; who brings that to zero frees the pool.
    ///
    /// # Safety
    ///
    /// The caller takes back one slot that was out, or is the owner and adds all that it took; afterwards it
    /// does not touch the pool.
    unsafe fn settle(pool: NonNull<Self>, by: usize) {
        // SAFETY: alive, since what the caller stands for was not counted yet.
        let this = unsafe { pool.as_ref() };
        this.witness.check();
        let before = this.outstanding.fetch_add(by, order::pool_settle());
        if before.wrapping_add(by) == 0 {
            // SAFETY: the owner has added what it took, or it would be below zero, and as many were given back: nobody
            // is left, and what they did happened before, by the count.
            let pool = unsafe { Box::from_raw(pool.as_ptr()) };
            pool.witness.take();
        }
    }
}

impl Slots {
    pub(super) fn new(blocks: Arc<Blocks>) -> Self {
        let pool = Box::new(Pool {
            back: AtomicPtr::new(null_mut()),
            outstanding: AtomicUsize::new(0),
            witness: Witness::new(),
            _blocks: blocks,
        });
        Self {
            pool: NonNull::from(Box::leak(pool)),
            taken: 0,
            back: List(null_mut()),
            free: [const { List(null_mut()) }; CLASSES],
            fresh: null_mut(),
            left: 0,
        }
    }

    /// What says of a slot that it is from here.
    pub(super) fn origin(&self) -> Origin {
        Origin(self.pool.as_ptr().cast_const())
    }

    /// Whether a slot of this origin is from here.
    pub(super) fn owns(&self, origin: Origin) -> bool {
        std::ptr::eq(origin.0, self.pool.as_ptr())
    }

    /// Takes a slot back.
    ///
    /// # Safety
    ///
    /// It is from [`take`](Self::take) of these slots and the same layout, and nobody uses it any more.
    pub(super) unsafe fn give_back(&mut self, memory: NonNull<u8>, layout: Layout) {
        let class = class(layout.size());
        // SAFETY: a slot of this class, and nobody else's.
        self.free[class].push(unsafe { Free::write(memory, class) });
        self.taken = self.taken.wrapping_sub(1);
    }

    /// A slot for this layout; `None` if it is too large for one, or there is no memory.
    pub(super) fn take(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        if layout.size() > MAX || layout.align() > GRAIN {
            return None;
        }
        let class = class(layout.size());
        // What came back last is the likeliest to be in the cache.
        let slot = match self.look(class).or_else(|| self.free[class].pop()) {
            Some(slot) => slot.cast(),
            None => self.fresh(class)?,
        };
        sanitizer::allow(slot, class);
        self.taken = self.taken.wrapping_add(1);
        Some(slot)
    }

    /// A slot of this class among those that came back, if there is one among the next few.
    fn look(&mut self, class: usize) -> Option<NonNull<Free>> {
        if self.back.0.is_null() {
            // SAFETY: it lives until the owner says that it has gone.
            let back = unsafe { &self.pool.as_ref().back };
            if back.load(Ordering::Relaxed).is_null() {
                return None;
            }
            self.back = List(back.swap(null_mut(), order::slot_take()));
        }
        for _ in 0..LOOK {
            let slot = self.back.pop()?;
            // SAFETY: on the list, so it says what it is.
            let found = unsafe { slot.as_ref().class };
            if found == class {
                return Some(slot);
            }
            self.free[found].push(slot);
        }
        None
    }

    /// A slot of this class that was never in use.
    fn fresh(&mut self, class: usize) -> Option<NonNull<u8>> {
        let size = size(class);
        if size > self.left {
            // SAFETY: it lives until the owner says that it has gone.
            let run = unsafe { &self.pool.as_ref()._blocks }.take(RUN)?;
            if let Some(rest) = NonNull::new(self.fresh)
                && self.left > 0
            {
                let class = self::class(self.left);
                // SAFETY: as many grains are left, at least one, of a run that is ours.
                self.free[class].push(unsafe { Free::write(rest, class) });
            }
            (self.fresh, self.left) = (run.as_ptr(), RUN);
        }
        let slot = NonNull::new(self.fresh)?;
        self.left -= size;
        // SAFETY: as many were left.
        self.fresh = unsafe { self.fresh.add(size) };
        Some(slot)
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: the owner goes, and adds what it took.
        unsafe { Pool::settle(self.pool, self.taken) };
    }
}

impl Free {
    /// Makes a slot one that is not in use.
    ///
    /// # Safety
    ///
    /// It is of this class, and nobody else's.
    unsafe fn write(slot: NonNull<u8>, class: usize) -> NonNull<Self> {
        let free = slot.cast::<Self>();
        let next = null_mut();
        // SAFETY: every slot is large enough and aligned.
        unsafe { free.write(Self { next, class }) };
        sanitizer::forbid(slot, class);
        free
    }
}

impl List {
    fn push(&mut self, mut slot: NonNull<Free>) {
        // SAFETY: a slot that is not in use is its list's.
        unsafe { slot.as_mut() }.next = self.0;
        self.0 = slot.as_ptr();
    }

    fn pop(&mut self) -> Option<NonNull<Free>> {
        let slot = NonNull::new(self.0)?;
        // SAFETY: on the list, which only this thread touches.
        self.0 = unsafe { slot.as_ref() }.next;
        Some(slot)
    }
}

/// A slot that is not in use is nobody's, for AddressSanitizer as well: but for what its list says in it.
#[cfg(afterwrite_asan)]
mod sanitizer {
    use super::{Free, size};
    use std::ffi::c_void;
    use std::ptr::NonNull;

    unsafe extern "C" {
        fn __asan_poison_memory_region(address: *const c_void, size: usize);
        fn __asan_unpoison_memory_region(address: *const c_void, size: usize);
    }

    pub(super) fn forbid(slot: NonNull<u8>, class: usize) {
        let rest = slot.as_ptr().wrapping_add(size_of::<Free>());
        // SAFETY: memory of ours, which only the sanitizer keeps books of.
        unsafe { __asan_poison_memory_region(rest.cast(), size(class) - size_of::<Free>()) };
    }

    pub(super) fn allow(slot: NonNull<u8>, class: usize) {
        // SAFETY: as above.
        unsafe { __asan_unpoison_memory_region(slot.as_ptr().cast(), size(class)) };
    }
}

#[cfg(not(afterwrite_asan))]
mod sanitizer {
    use std::ptr::NonNull;

    pub(super) fn forbid(_: NonNull<u8>, _: usize) {}

    pub(super) fn allow(_: NonNull<u8>, _: usize) {}
}

/// The class of slots for so many bytes, at least one and at most [`MAX`].
fn class(bytes: usize) -> usize {
    bytes.div_ceil(GRAIN) - 1
}

/// How many bytes a slot of this class has.
fn size(class: usize) -> usize {
    (class + 1) * GRAIN
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots")
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}
