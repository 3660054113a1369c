//! Memory on pages of 2 MiB, for a directory that is larger than the caches.
//!
//! With a million keys whoever looks one up waits about as long for the address of a line to be translated as
//! for the line: 270 MB in pages of 4 KiB are more of them than the processor keeps translations of. So
//! what a look-up reads, buckets, snapshots and values, lies together here, in blocks for which the kernel
//! is asked for large pages (`MADV_HUGEPAGE`, Linux and Android; elsewhere, or where it has none to give, the blocks
//! are ordinary memory and all else is the same).
//!
//! ```text
//!  Blocks, one a directory ── 2 MiB each or more, from the global allocator
//!    ├─ buckets of large segments                      given back with the directory
//!    └─ runs of 16 KiB
//!         Slots, eight a directory, each under a lock   slots are taken here; classes of 16 bytes
//!           Pool, known to whoever holds a slot         and given back here, from any thread, without the lock
//! ```
//!
//! Small directories have none of it: what they hold comes from the global allocator, one by one, and so does
//! what is too large for a slot. [`Origin`] says which it was. What a directory held before it was large stays where
//! it is until it is replaced.
//!
//! A thread takes from the same slots each time if it can: so a key that comes and goes uses memory that is still in the
//! cache. Where there is nothing for it, it looks through the other slots for what came back there, and goes on with
//! those, before a new run is taken: so memory is not left to threads that have no more use for it. It passes by what is
//! locked at that moment, and what came back but lies deeper than it looks: with several threads some more memory is
//! taken than is in use at any time, and at the very most eight times as much.
//!
//! # What is given back when
//!
//! A slot is used again, for whatever is of its size; it is never split, nor joined with another. Blocks go back to the
//! global allocator all together, when the directory is gone and the last slot with it: a directory that has held a
//! million keys keeps the room for them.
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
//!    adds at its end, less what came back under its lock, and less what was given back to the pool. Whoever brings it
//!    to zero frees the pool: who gives back last, by a count that comes after the exchange, or the owner.

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

use slots::{Class, Slots};

/// Bytes that slots take from the blocks at a time; what is as large itself may come from there as well.
pub(crate) const RUN: usize = if cfg!(afterwrite_loom) { 64 } else { 16 << 10 };

/// Slots that a directory has, so that as many threads take some at the same time.
const PARTS: usize = if cfg!(afterwrite_loom) { 2 } else { 8 };

/// Slots, once there are any, and their lock.
type Part = CachePadded<Mutex<Option<Box<Slots>>>>;

/// A directory's memory. Takes some itself only once it is asked for some.
pub(crate) struct Arena {
    blocks: Arc<Blocks>,
    parts: [Part; PARTS],
}

/// Where memory comes from: slots of one's own for a while, or the global allocator alone.
pub(crate) struct Memory<'a>(Option<Own<'a>>);

struct Own<'a> {
    arena: &'a Arena,
    slots: MutexGuard<'a, Option<Box<Slots>>>,
}

impl Arena {
    pub(crate) fn new() -> Self {
        Self {
            blocks: Arc::new(Blocks::new()),
            parts: std::array::from_fn(|_| Part::default()),
        }
    }

    pub(crate) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Slots to take from and give back to, for as long as the result lives. Blocks while more threads have some
    /// than there are.
    pub(crate) fn memory(&self) -> Memory<'_> {
        self.memory_of(preferred::number())
    }

    /// As for a thread that prefers this part.
    fn memory_of(&self, own: usize) -> Memory<'_> {
        let part = |n: usize| &self.parts[own.wrapping_add(n) % PARTS];
        let free = (0..PARTS).find_map(|n| part(n).try_lock());
        let slots = free.unwrap_or_else(|| part(0).lock());
        Memory(Some(Own { arena: self, slots }))
    }
}

#[cfg(test)]
impl Arena {
    /// All slots at once, so that nobody else takes any.
    pub(crate) fn lock_all(&self) -> Vec<Memory<'_>> {
        let mut all = Vec::new();
        for part in &self.parts {
            let slots = part.lock();
            all.push(Memory(Some(Own { arena: self, slots })));
        }
        all
    }
}

impl Memory<'_> {
    /// The global allocator alone.
    pub(crate) const fn global() -> Self {
        Self(None)
    }

    /// Memory of this layout, which is not of size zero: a slot, if it has any and one fits, or else from the global
    /// allocator. Ends the process if there is none, as `Box` does.
    #[inline]
    pub(crate) fn allocate(&mut self, layout: Layout) -> (NonNull<u8>, Origin) {
        match &mut self.0 {
            None => global(layout),
            Some(own) => own.allocate(layout),
        }
    }

    /// Gives memory back, without an atomic operation if it is from these slots. Lock-free.
    ///
    /// # Safety
    ///
    /// As for [`Origin::free`].
    #[inline]
    pub(crate) unsafe fn free(&mut self, origin: Origin, memory: NonNull<u8>, layout: Layout) {
        let own = self.0.as_mut().and_then(|own| own.slots.as_mut());
        // SAFETY: as the caller promises.
        unsafe {
            match own {
                Some(slots) if slots.owns(origin) => slots.give_back(memory, layout),
                _ => origin.free(memory, layout),
            }
        }
    }
}

/// Memory from the global allocator.
#[inline]
fn global(layout: Layout) -> (NonNull<u8>, Origin) {
    assert!(layout.size() > 0, "nothing needs no memory");
    // SAFETY: not of size zero.
    match NonNull::new(unsafe { alloc::alloc(layout) }) {
        Some(memory) => (memory, Origin::GLOBAL),
        None => handle_alloc_error(layout),
    }
}

impl Own<'_> {
    fn allocate(&mut self, layout: Layout) -> (NonNull<u8>, Origin) {
        let slot = Class::of(layout).and_then(|class| self.take(class));
        slot.unwrap_or_else(|| global(layout))
    }

    /// A slot that was in use before, or else one that was not; `None` if there is no memory.
    fn take(&mut self, class: Class) -> Option<(NonNull<u8>, Origin)> {
        let blocks = &self.arena.blocks;
        let slots = (self.slots).get_or_insert_with(|| Box::new(Slots::new(blocks.clone())));
        if let Some(slot) = slots.take(class) {
            return Some((slot, slots.origin()));
        }
        // One's own lock is among those that are taken.
        for (number, part) in self.arena.parts.iter().enumerate() {
            if let Some(mut others) = part.try_lock()
                && let Some(found) = others.as_mut()
                && let Some(slot) = found.take_used(class)
            {
                let origin = found.origin();
                // To stay there: where one slot came back there are more, and this one comes back there.
                self.slots = others;
                preferred::move_to(number);
                return Some((slot, origin));
            }
        }
        slots.refill()?;
        Some((slots.take(class)?, slots.origin()))
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").finish_non_exhaustive()
    }
}

/// The number of the part that a thread takes from if it can: as threads come at first, and then where it found
/// something.
mod preferred {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    static NEXT: AtomicUsize = AtomicUsize::new(0);
    std::thread_local!(static NUMBER: Cell<usize> = Cell::new(NEXT.fetch_add(1, Relaxed)));

    pub(super) fn number() -> usize {
        // A thread that is ending may have none any more.
        NUMBER.try_with(Cell::get).unwrap_or(0)
    }

    pub(super) fn move_to(number: usize) {
        // In a model nothing may be remembered from one run to the next.
        if !cfg!(afterwrite_loom) {
            // As above; then there is nothing to remember it for.
            let _ = NUMBER.try_with(|preferred| preferred.set(number));
        }
    }
}

#[cfg(all(test, not(afterwrite_loom)))]
mod tests;
