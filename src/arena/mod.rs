//! Memory on pages of 2 MiB, for a directory that is larger than the caches.
//!
//! With a million keys whoever looks one up waits about as long for the address of a line to be translated as
//! for the line: 300 MB in pages of 4 KiB are more of them than the processor keeps translations of. So
//! what a look-up reads, buckets, snapshots and values, lies together here, in blocks for which the kernel
//! is asked for large pages (`MADV_HUGEPAGE`, Linux; elsewhere, or where it has none to give, the blocks
//! are ordinary memory and all else is the same).
//!
//! ```text
//!  Blocks, one a directory ── 2 MiB each, from the global allocator
//!    ├─ buckets of large segments                      given back with the directory
//!    └─ runs of 16 KiB
//!         Slots, eight a directory, each under a lock   slots are taken here; classes of 16 bytes
//!           Pool, known to whoever holds a slot         and given back here, from any thread, without the lock
//! ```
//!
//! Small directories have none of it: what they hold comes from the global allocator, one by one, and so does
//! what is too large for a slot. [`Origin`] says which it was.
//!
//! A thread takes from the same slots each time if it can, and what came back last first: so a key that comes and goes
//! uses memory that is still in the cache.
//!
//! # What is given back when
//!
//! A slot is used again, for whatever is of its size. Blocks go back to the global allocator all together, when the
//! directory is gone and the last slot with it: a directory that has held a million keys keeps the room for them,
//! some 250 MB, as it keeps its buckets.
//!
//! # Why a slot is nobody else's
//!
//! 1. `Slots` hands a slot out under its lock, and it is on no list then: from a list it was taken off, and what is fresh
//!    was on none.
//! 2. Who gives it back owns it, and puts it on the pool's list by a Release exchange, after all that it did with
//!    it. `Slots` takes the whole list by an Acquire swap: all of that happened before the slot is used again. It
//!    takes nothing else off that list, so that no exchange can mistake a slot that came back for one that stayed. Who
//!    holds the lock as it gives it back puts it on a list of `Slots` itself.
//! 3. The pool lives until its owner has gone and every slot is back: `outstanding` is what the owner took, which it
//!    adds at its end, less what was given back to the pool. Whoever brings it to zero frees the pool: who gives back
//!    last, by a count that comes after the exchange, or the owner.

#![allow(unsafe_code)]

#[cfg(afterwrite_loom)]
pub mod models;

mod blocks;
mod shared;
mod slots;

use std::alloc::{Layout, handle_alloc_error};
use std::fmt;
use std::ptr::NonNull;

use crossbeam_utils::CachePadded;

use crate::sync::{Arc, Mutex, MutexGuard, alloc};

pub(crate) use blocks::Blocks;
pub(crate) use shared::Shared;
pub(crate) use slots::Origin;

use slots::Slots;

/// Bytes that slots take from the blocks at a time; what is as large itself may come from there as well.
pub(crate) const RUN: usize = if cfg!(afterwrite_loom) { 64 } else { 16 << 10 };

/// Slots that a directory has, so that as many threads take some at the same time; a power of two.
const LANES: usize = if cfg!(afterwrite_loom) { 2 } else { 8 };

/// A directory's memory. Takes some itself only once it is asked for some.
pub(crate) struct Arena {
    blocks: Arc<Blocks>,
    lanes: [CachePadded<Mutex<Option<Box<Slots>>>>; LANES],
}

/// Where memory comes from: slots of one's own for a while, or the global allocator alone.
pub(crate) struct Memory<'a>(Option<MutexGuard<'a, Option<Box<Slots>>>>);

impl Arena {
    pub(crate) fn new() -> Self {
        Self {
            blocks: Arc::new(Blocks::new()),
            lanes: std::array::from_fn(|_| CachePadded::new(Mutex::new(None))),
        }
    }

    pub(crate) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Slots to take from and give back to, for as long as the result lives. Blocks while more threads have some
    /// than there are.
    pub(crate) fn memory(&self) -> Memory<'_> {
        let own = thread_number();
        let lane = |n: usize| &self.lanes[(own + n) % LANES];
        let free = (0..LANES).find_map(|n| lane(n).try_lock());
        let mut slots = free.unwrap_or_else(|| lane(0).lock());
        slots.get_or_insert_with(|| Box::new(Slots::new(self.blocks.clone())));
        Memory(Some(slots))
    }
}

#[cfg(test)]
impl Arena {
    /// All slots at once, so that nobody else takes any.
    pub(crate) fn lock_all(&self) -> Vec<Memory<'_>> {
        (0..LANES).map(|_| self.memory()).collect()
    }
}

impl Memory<'_> {
    /// The global allocator alone.
    pub(crate) const fn global() -> Self {
        Self(None)
    }

    /// Memory of this layout, which is not of size zero: a slot, if it has any and one fits, or else from the global
    /// allocator. Ends the process if there is none, as `Box` does.
    pub(crate) fn allocate(&mut self, layout: Layout) -> (NonNull<u8>, Origin) {
        if let Some(slots) = self.slots()
            && let Some(slot) = slots.take(layout)
        {
            return (slot, slots.origin());
        }
        debug_assert!(layout.size() > 0);
        // SAFETY: not of size zero, as the caller promises.
        match NonNull::new(unsafe { alloc::alloc(layout) }) {
            Some(memory) => (memory, Origin::GLOBAL),
            None => handle_alloc_error(layout),
        }
    }

    /// Gives memory back, without an atomic operation if it is from these slots. Lock-free.
    ///
    /// # Safety
    ///
    /// As for [`Origin::free`].
    pub(crate) unsafe fn free(&mut self, origin: Origin, memory: NonNull<u8>, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe {
            match self.slots() {
                Some(slots) if slots.owns(origin) => slots.give_back(memory, layout),
                _ => origin.free(memory, layout),
            }
        }
    }

    fn slots(&mut self) -> Option<&mut Slots> {
        self.0.as_mut()?.as_deref_mut()
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").finish_non_exhaustive()
    }
}

/// Threads are numbered as they come.
fn thread_number() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Relaxed));
    // A thread that is ending has no number any more.
    NUMBER.try_with(|number| *number).unwrap_or(0)
}

#[cfg(all(test, not(afterwrite_loom)))]
mod tests;
