//! What the models in `loom-tests` reach: slots that are watched, and values with a count.

use std::alloc::Layout;
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::{Arc as StdArc, Mutex as StdMutex};

use super::{Arena, Origin, Shared};
use crate::sync::UnsafeCell;

pub use crate::sync::order::ARENA_ROLES;

/// What a slot takes.
const LAYOUT: Layout = Layout::new::<[u64; 4]>();

/// Stands for the memory of a slot, whoever has it.
#[derive(Debug, Default)]
struct Watched(UnsafeCell<()>);

// SAFETY: there is nothing in the cell; the checker sees who uses it at the same time as another.
unsafe impl Send for Watched {}
// SAFETY: as above.
unsafe impl Sync for Watched {}

/// An arena whose slots are watched: two uses of one, of which neither happened before the other, fail the model.
#[derive(Debug)]
pub struct Model {
    arena: Arena,
    /// By address. The lock is one that the checker does not see, so that it orders nothing.
    watched: StdMutex<HashMap<usize, StdArc<Watched>>>,
}

/// A slot in use.
#[derive(Debug)]
pub struct Slot {
    memory: NonNull<u8>,
    origin: Origin,
    watched: StdArc<Watched>,
}

// SAFETY: it owns its memory.
unsafe impl Send for Slot {}

impl Default for Model {
    fn default() -> Self {
        Self {
            arena: Arena::new(),
            watched: StdMutex::default(),
        }
    }
}

impl Model {
    /// Takes a slot and uses it.
    pub fn take(&self) -> Slot {
        let (memory, origin) = self.arena.memory().allocate(LAYOUT);
        let mut watched = self.watched.lock().expect("nobody panics with it");
        let watched = watched.entry(memory.addr().get()).or_default().clone();
        watched.0.with_mut(|_| ());
        Slot {
            memory,
            origin,
            watched,
        }
    }

    /// How many different slots there have been.
    pub fn slots(&self) -> usize {
        self.watched.lock().expect("nobody panics with it").len()
    }
}

impl Model {
    /// Uses a slot once more, and gives it back with the lock of whoever takes.
    pub fn give_back(&self, slot: Slot) {
        slot.watched.0.with_mut(|_| ());
        // SAFETY: from `allocate` with this layout and origin, and used no more.
        unsafe { (self.arena.memory()).free(slot.origin, slot.memory, LAYOUT) };
    }
}

impl Slot {
    /// Uses it once more, and gives it back from whatever thread.
    pub fn give_back(self) {
        self.watched.0.with_mut(|_| ());
        // SAFETY: from `allocate` with this layout and origin, and used no more.
        unsafe { self.origin.free(self.memory, LAYOUT) };
    }
}

/// A counted value that says who uses it.
#[derive(Clone, Debug)]
pub struct Counted(Shared<Value>);

#[derive(Debug)]
struct Value(Watched);

impl Drop for Value {
    fn drop(&mut self) {
        self.0.0.with_mut(|_| ());
    }
}

impl Counted {
    /// A value in a slot of the model.
    pub fn new(model: &Model) -> Self {
        let value = Value(Watched::default());
        value.0.0.with_mut(|_| ());
        Self(Shared::new_in(&mut model.arena.memory(), value))
    }

    /// Looks at the value.
    pub fn look(&self) {
        self.0.0.0.with(|_| ());
    }
}
