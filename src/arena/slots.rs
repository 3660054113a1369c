//! Slots: memory for what comes and goes with keys.

use std::alloc::Layout;
use std::fmt;
use std::ptr::{NonNull, null, null_mut};

use super::{Blocks, RUN};
use crate::sync::order;
use crate::sync::witness::Witness;
use crate::sync::{Arc, AtomicPtr, AtomicU64, Ordering, alloc};

/// Sizes are rounded up to this; it is the alignment as well.
const GRAIN: usize = 16;

/// The largest slot. A topic with its counts has some 230 bytes, a snapshot of forty keys 500.
const MAX: usize = if cfg!(afterwrite_loom) { 32 } else { 512 };

const CLASSES: usize = MAX / GRAIN;

/// Slots that others gave back, at which a taker looks first: more than come back for each that is taken, so that
/// they don't pile up, and few, so that nobody has to sort a million of them at once.
const LOOK: usize = 8;

/// Slots of one size: how many grains they have, less one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Class(usize);

/// A slot that is not in use.
#[repr(C)]
struct Free {
    next: *mut Free,
    class: Class,
}

const _: () = assert!(size_of::<Free>() <= GRAIN && align_of::<Free>() <= GRAIN);

/// A list of slots that one thread at a time touches.
struct List(*mut Free);

/// Where slots are taken. One owner, under a lock.
pub(super) struct Slots {
    pool: NonNull<Pool>,
    /// How many were taken, less those that came back to here and not by way of the pool; wraps.
    taken: u64,
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
    /// See the module's third argument; wraps, and before its owner's end it is below zero by what ever came back here:
    /// 64 bits, which no process counts through.
    outstanding: AtomicU64,
    witness: Witness,
    /// Keeps the memory.
    blocks: Arc<Blocks>,
}

/// Where memory came from: a pool, or the global allocator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin(*const Pool);

// SAFETY: it owns its lists and what is fresh; the pool is shared, as it may be.
unsafe impl Send for Slots {}

const _: () = {
    const fn is_shared<P: Send + Sync>() {}
    is_shared::<Pool>()
};

impl Origin {
    /// The global allocator.
    pub(super) const GLOBAL: Self = Self(null());

    /// Gives memory back. Lock-free.
    ///
    /// # Safety
    ///
    /// It came with this origin, from [`Memory::allocate`](super::Memory::allocate) of the same layout, and nobody uses
    /// it any more.
    #[inline]
    pub(crate) unsafe fn free(self, memory: NonNull<u8>, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe {
            match NonNull::new(self.0.cast_mut()) {
                None => alloc::dealloc(memory.as_ptr(), layout),
                Some(pool) => Pool::give_back(pool, memory, layout),
            }
        }
    }
}

impl Pool {
    /// # Safety
    ///
    /// As for [`Origin::free`], of memory of this pool.
    unsafe fn give_back(pool: NonNull<Self>, memory: NonNull<u8>, layout: Layout) {
        // SAFETY: a slot, and nobody else's.
        let slot = unsafe { Free::write(memory, Class::of_bytes(layout.size())) };
        // SAFETY: while a slot is out its pool lives, and this one is until it is counted.
        let this = unsafe { pool.as_ref() };
        this.witness.check();
        // As it is where keys come and go. Not a load: the checker remembers one access only, and would take that for the
        // one that a taker's may race with.
        let mut head = null_mut();
        loop {
            // SAFETY: still nobody else's.
            unsafe { (*slot.as_ptr()).next = head };
            let (first, ordering) = (slot.as_ptr(), order::slot_give());
            match this
                .back
                .compare_exchange_weak(head, first, ordering, Ordering::Relaxed)
            {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        // SAFETY: a slot that is out, counted once.
        unsafe { Self::settle(pool, 1_u64.wrapping_neg()) };
    }

    /// Adds to what is outstanding; who brings that to zero frees the pool.
    ///
    /// # Safety
    ///
    /// The caller takes back one slot that was out, or is the owner and adds all that it took; afterwards it
    /// does not touch the pool.
    unsafe fn settle(pool: NonNull<Self>, by: u64) {
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
            outstanding: AtomicU64::new(0),
            witness: Witness::new(),
            blocks,
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
    /// It is of these slots, for the same layout, and nobody uses it any more.
    pub(super) unsafe fn give_back(&mut self, memory: NonNull<u8>, layout: Layout) {
        let class = Class::of_bytes(layout.size());
        // SAFETY: a slot of this class, and nobody else's.
        self.free[class.0].push(unsafe { Free::write(memory, class) });
        self.taken = self.taken.wrapping_sub(1);
    }

    /// A slot that was in use before, or else one of the latest run; `None` if it is used up.
    pub(super) fn take(&mut self, class: Class) -> Option<NonNull<u8>> {
        self.take_used(class).or_else(|| self.take_fresh(class))
    }

    /// A slot that was in use before: first what others gave back, so that it does not pile up; of each list the latest,
    /// which is the likeliest to be in the cache.
    pub(super) fn take_used(&mut self, class: Class) -> Option<NonNull<u8>> {
        // Whoever uses one that came back is to be found out: none is used again.
        if cfg!(afterwrite_asan) {
            return None;
        }
        let slot = self.look(class).or_else(|| self.free[class.0].pop())?;
        Some(self.taken(slot.cast(), class))
    }

    /// A slot that was never in use.
    fn take_fresh(&mut self, class: Class) -> Option<NonNull<u8>> {
        if class.bytes() > self.left {
            return None;
        }
        let slot = NonNull::new(self.fresh)?;
        self.left -= class.bytes();
        // SAFETY: as many were left.
        self.fresh = unsafe { self.fresh.add(class.bytes()) };
        Some(self.taken(slot, class))
    }

    fn taken(&mut self, slot: NonNull<u8>, class: Class) -> NonNull<u8> {
        sanitizer::allow(slot, class);
        self.taken = self.taken.wrapping_add(1);
        slot
    }

    /// Takes a new run; `None` if there is no memory.
    pub(super) fn refill(&mut self) -> Option<()> {
        // SAFETY: it lives until the owner says that it has gone.
        let run = unsafe { &self.pool.as_ref().blocks }.take(RUN)?;
        if let Some(rest) = NonNull::new(self.fresh)
            && self.left > 0
        {
            let class = Class::of_bytes(self.left);
            // SAFETY: as many grains are left, at least one, of a run that is ours.
            self.free[class.0].push(unsafe { Free::write(rest, class) });
        }
        (self.fresh, self.left) = (run.as_ptr(), RUN);
        Some(())
    }

    /// A slot of this class among those that came back, if there is one among the next few.
    fn look(&mut self, class: Class) -> Option<NonNull<Free>> {
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
            self.free[found.0].push(slot);
        }
        None
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
    unsafe fn write(slot: NonNull<u8>, class: Class) -> NonNull<Self> {
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
    use super::{Class, Free};
    use std::ffi::c_void;
    use std::ptr::NonNull;

    unsafe extern "C" {
        fn __asan_poison_memory_region(address: *const c_void, size: usize);
        fn __asan_unpoison_memory_region(address: *const c_void, size: usize);
    }

    pub(super) fn forbid(slot: NonNull<u8>, class: Class) {
        let rest = slot.as_ptr().wrapping_add(size_of::<Free>());
        // SAFETY: memory of ours, which only the sanitizer keeps books of.
        unsafe { __asan_poison_memory_region(rest.cast(), class.bytes() - size_of::<Free>()) };
    }

    pub(super) fn allow(slot: NonNull<u8>, class: Class) {
        // SAFETY: as above.
        unsafe { __asan_unpoison_memory_region(slot.as_ptr().cast(), class.bytes()) };
    }
}

#[cfg(not(afterwrite_asan))]
mod sanitizer {
    use super::Class;
    use std::ptr::NonNull;

    pub(super) fn forbid(_: NonNull<u8>, _: Class) {}

    pub(super) fn allow(_: NonNull<u8>, _: Class) {}
}

impl Class {
    /// That of slots for this layout, which is not of size zero; `None` if it does not fit into any.
    pub(super) fn of(layout: Layout) -> Option<Self> {
        let fits = layout.size() <= MAX && layout.align() <= GRAIN;
        fits.then(|| Self::of_bytes(layout.size()))
    }

    /// That of slots for so many bytes, at least one and at most [`MAX`].
    fn of_bytes(bytes: usize) -> Self {
        Self(bytes.div_ceil(GRAIN) - 1)
    }

    /// How many bytes a slot has.
    fn bytes(self) -> usize {
        (self.0 + 1) * GRAIN
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots")
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}
